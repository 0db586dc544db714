// include: lanes
// back_attention_delta: delta[r] = out[r] . dout[r], r < n_row: the mean, by a row's softmax, of
// the scores' gradients.
//   out, dout [n_row, head_dim], head_dim a multiple of 4.
// Grid: ceil(n_row / 8); 256 threads, 32 of them a row. f32. CPU twin: back_attend().

const LANES = 32u;

struct Args { n_row: u32, head_dim: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> out: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> delta: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = wid.x * 8 + lid / LANES;
    let n4 = args.head_dim / 4;
    let at = min(row, args.n_row - 1) * n4;
    var sum = 0.0;
    for (var i = lid % LANES; i < n4; i += LANES) { sum += dot(out[at + i], dout[at + i]); }
    let all = lanes_sum(vec2(sum, 0.0), lid);
    if (lid % LANES == 0 && row < args.n_row) { delta[row] = all.x; }
}
