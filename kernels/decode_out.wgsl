// include: input lanes
// formats: A
// decode_out: third stage of a layer, one token. o = merge of the attention's splits,
//   out[out0 + r] = scale * sum_c Wo[r, c] o[c].
//   attn [n_split, n_head, head_dim] sums of exp(s - m) v, stat [n_split, n_head] (m, sum of exp):
//   o = sum_s exp(m_s - m) attn_s / sum_s exp(m_s - m) l_s, m the largest m_s.
// Grid: ceil(n_row / ROWS), ROWS = 2 * 256 / LANES. f32.
// CPU twin: ref_softmax(), ref_matmul().

override LANES: u32 = 64;

struct Args {
    n_row: u32, n_col: u32, out0: u32, scale: f32,
    head_dim: u32, n_split: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> attn: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> stat: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> wA: array<WA>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

fn merged(i: u32) -> vec4<f32> { // values 4 i .. 4 i + 3 of o
    let n_head = args.n_col / args.head_dim;
    let head = i * 4 / args.head_dim;
    var most = -1e30;
    for (var s = 0u; s < args.n_split; s++) { most = max(most, stat[s * n_head + head].x); }
    var sum = vec4(0.0);
    var total = 0.0;
    for (var s = 0u; s < args.n_split; s++) {
        let split = stat[s * n_head + head];
        let f = exp(split.x - most);
        sum += attn[s * args.n_col / 4 + i] * f;
        total += split.y * f;
    }
    return sum / total;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n_group = args.n_col / 16;
    let row = (wid.x * 256 / LANES + lid / LANES) * 2;
    let last = args.n_row - 1;
    let row_a = min(row, last) * n_group;
    let row_b = min(row + 1, last) * n_group;
    var sum = vec2(0.0);
    for (var g0 = 0u; g0 < n_group; g0 += CHUNK_GROUPS) {
        let n = min(CHUNK_GROUPS, n_group - g0);
        for (var i = lid; i < n * 4; i += 256) { input[input_slot(i)] = merged(g0 * 4 + i); }
        workgroupBarrier();
        for (var g = lid % LANES; g < n; g += LANES) {
            sum += vec2(input_dot(get16A(row_a + g0 + g), g), input_dot(get16A(row_b + g0 + g), g));
        }
        workgroupBarrier();
    }
    sum = lanes_sum(sum, lid) * args.scale;
    if (lid % LANES != 0) { return; }
    if (row < args.n_row) { out[args.out0 + row] = sum.x; }
    if (row + 1 < args.n_row) { out[args.out0 + row + 1] = sum.y; }
}
