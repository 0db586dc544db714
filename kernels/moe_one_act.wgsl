// include: reduce chunk lanes gelu pick
// formats: A B
// moe_one_act: gate, up and GELU of one token's experts. For the j-th best expert e by logits:
//   act[j, r] = gelu(scale_a[e] * A_e[r] . z) * (scale_b[e] * B_e[r] . z), r < n_row,
//   z = rms(y) * w_norm. Where row r of an expert is, and the scales: as in moe_geglu.
// Grid: x = ceil(n_row / ROWS), y = n_used, ROWS = 256 / LANES; LANES threads share a row of each.
// Every workgroup norms y and picks the experts for itself. f32.
// CPU twin: ref_rmsnorm(), ref_matmul(), ref_geglu().

override LANES: u32 = 32;

struct Args {
    n_used: u32, n_row: u32, n_embd: u32, a_rows: u32,
    b_rows: u32, b_row0: u32, a_expert0: u32, b_expert0: u32,
    expert0: u32, n_expert: u32, scale0: u32, n_scale: u32,
    eps: f32, w_norm: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> logits: array<f32>;
@group(0) @binding(4) var<storage, read> scales: array<f32>;
@group(0) @binding(5) var<storage, read> wA: array<WA>;
@group(0) @binding(6) var<storage, read> wB: array<WB>;
@group(0) @binding(7) var<storage, read_write> act: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    // n_scale is the number of all experts.
    pick_experts(logits[min(lid, args.n_scale - 1)], args.n_scale, args.n_used, lid);
    let expert = workgroupUniformLoad(&pick_ids[wid.y]);
    if (expert - args.expert0 >= args.n_expert) { return; } // wraps below expert0
    var squares = 0.0;
    for (var i = lid; i < args.n_embd / 4; i += 256) { squares += dot(y[i], y[i]); }
    let norm = 1.0 / sqrt(workgroup_sum(squares, lid) / f32(args.n_embd) + args.eps);
    let n_group = args.n_embd / 16;
    let row = wid.x * 256 / LANES + lid / LANES;
    let inside = min(row, args.n_row - 1);
    let at_a = ((expert - args.a_expert0) * args.a_rows + inside) * n_group;
    let at_b = ((expert - args.b_expert0) * args.b_rows + args.b_row0 + inside) * n_group;
    var sum = vec2(0.0);
    for (var g0 = 0u; g0 < n_group; g0 += CHUNK_GROUPS) {
        let n = min(CHUNK_GROUPS, n_group - g0);
        for (var i = lid; i < n * 4; i += 256) {
            chunk[chunk_slot(i)] = y[g0 * 4 + i] * norm * vectors[args.w_norm / 4 + g0 * 4 + i];
        }
        workgroupBarrier();
        for (var g = lid % LANES; g < n; g += LANES) {
            sum += vec2(chunk_dot(groupA(at_a + g0 + g), g), chunk_dot(groupB(at_b + g0 + g), g));
        }
        workgroupBarrier();
    }
    sum = lanes_sum(sum, lid);
    if (lid % LANES == 0 && row < args.n_row) {
        let gate = sum.x * scales[args.scale0 + expert];
        let up = sum.y * scales[args.scale0 + args.n_scale + expert];
        act[wid.y * args.n_row + row] = gelu(gate) * up;
    }
}
