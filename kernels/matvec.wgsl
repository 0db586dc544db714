// include: input lanes
// formats: A
// matvec: out[out0 + r] = scale * sum_c W[r, c] x[c], r < n_row; one token.
//   x [n_col], wA [n_row, n_col].
// Grid: ceil(n_row / ROWS) workgroups of 256 threads; LANES threads share two rows of ROWS =
// 2 * 256 / LANES. f32. CPU twin: ref_matmul().

override LANES: u32 = 32;

struct Args { n_row: u32, n_col: u32, out0: u32, scale: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> wA: array<WA>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

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
        for (var i = lid; i < n * 4; i += 256) { input[input_slot(i)] = x[g0 * 4 + i]; }
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
