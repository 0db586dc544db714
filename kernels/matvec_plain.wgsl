// include: lanes
// formats: A
// matvec_plain: matvec for rows of any multiple of 16 values.
//   out[out0 + r] = scale * sum_c W[r, c] x[c], r < n_row; x [n_col], wA [n_row, n_col].
// Grid: ceil(n_row * LANES / 256); LANES threads share a row. f32. CPU twin: ref_matmul().

override LANES: u32 = 32;

struct Args { n_row: u32, n_col: u32, out0: u32, scale: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> wA: array<WA>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n_group = args.n_col / 16;
    let row = (wid.x * 256 + lid) / LANES;
    let at = min(row, args.n_row - 1) * n_group;
    var sum = 0.0;
    for (var g = lid % LANES; g < n_group; g += LANES) {
        let w = get16A(at + g);
        sum += dot(w[0], x[4 * g]) + dot(w[1], x[4 * g + 1]) + dot(w[2], x[4 * g + 2]) +
               dot(w[3], x[4 * g + 3]);
    }
    sum = lanes_sum(vec2(sum, 0.0), lid).x;
    if (lid % LANES == 0 && row < args.n_row) { out[args.out0 + row] = sum * args.scale; }
}
