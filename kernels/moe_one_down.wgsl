// include: chunk lanes pick
// formats: A
// moe_one_down: the sum of one token's experts:
//   out[r] = sum_j weight_j * scale[e_j] * A_e_j[r] . act[j], r < n_row, over the n_used best by
//   logits, in order, of which this binding holds experts expert0 .. + n_held - 1. It adds to out
//   unless `first` is 1.
//   act [n_used, n_col]; row r of expert e is row (e - expert0) * n_row + r of wA; scales: from
//   scale0 on one for each of the n_expert experts.
// Grid: ceil(n_row / ROWS), ROWS = 2 * 256 / LANES; LANES threads share two rows. Every workgroup
// picks the experts for itself. f32. CPU twin: ref_matmul().

override LANES: u32 = 32;

struct Args {
    n_row: u32, n_col: u32, n_used: u32, n_expert: u32,
    expert0: u32, n_held: u32, scale0: u32, first: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;
@group(0) @binding(3) var<storage, read> act: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> wA: array<WA>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let mine = logits[min(lid, args.n_expert - 1)];
    let share_sum = pick_experts(mine, args.n_expert, args.n_used, lid);
    let n_group = args.n_col / 16;
    let row = (wid.x * 256 / LANES + lid / LANES) * 2;
    let row_a = min(row, args.n_row - 1);
    let row_b = min(row + 1, args.n_row - 1);
    var sum = vec2(0.0);
    for (var j = 0u; j < args.n_used; j++) {
        let expert = workgroupUniformLoad(&pick_ids[j]) - args.expert0;
        if (expert >= args.n_held) { continue; } // wraps below expert0
        let scale = pick_share[j] / share_sum * scales[args.scale0 + args.expert0 + expert];
        let at = expert * args.n_row;
        for (var g0 = 0u; g0 < n_group; g0 += CHUNK_GROUPS) {
            let n = min(CHUNK_GROUPS, n_group - g0);
            for (var i = lid; i < n * 4; i += 256) {
                chunk[chunk_slot(i)] = act[(j * n_group + g0) * 4 + i] * scale;
            }
            workgroupBarrier();
            for (var g = lid % LANES; g < n; g += LANES) {
                sum += vec2(chunk_dot(groupA((at + row_a) * n_group + g0 + g), g),
                            chunk_dot(groupA((at + row_b) * n_group + g0 + g), g));
            }
            workgroupBarrier();
        }
    }
    sum = lanes_sum(sum, lid);
    if (lid % LANES != 0) { return; }
    if (row < args.n_row) { out[row] = sum.x + select(out[row], 0.0, args.first == 1); }
    if (row + 1 < args.n_row) {
        out[row + 1] = sum.y + select(out[row + 1], 0.0, args.first == 1);
    }
}
