// include: flat gelu
// geglu: out[t, out0 + i] = gelu(gate[t, i]) * up[t, up0 + i], and its derivatives:
//   with up = dout that is dup; with slope, out = gelu'(gate) * up * dout, which is dgate.
//   gate [n_tok, n], up [n_tok, up_stride], dout [n_tok, n] (read with slope), out [n_tok,
//   out_stride]; n_value is n_tok * n.
// Grid: ceil(n_value / 256) workgroups (lib/flat) of 256 threads. f32.
// CPU twin: ref_geglu(), back_geglu().

struct Args {
    n_value: u32, n: u32, up_stride: u32, up0: u32, out_stride: u32, out0: u32, slope: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> gate: array<f32>;
@group(0) @binding(2) var<storage, read> up: array<f32>;
@group(0) @binding(3) var<storage, read> dout: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

fn gelu_slope(x: f32) -> f32 {
    let c = 0.7978845608028654;
    let a = 0.044715;
    let th = tanh(clamp(c * x * (1.0 + a * x * x), -15.0, 15.0));
    return 0.5 * (1.0 + th) + 0.5 * x * (1.0 - th * th) * c * (1.0 + 3.0 * a * x * x);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat(wid) * 256 + lid;
    if (i >= args.n_value) { return; }
    let tok = i / args.n;
    let col = i % args.n;
    var v = up[tok * args.up_stride + args.up0 + col];
    if (args.slope != 0) {
        v *= gelu_slope(gate[i]) * dout[i];
    } else {
        v *= gelu(gate[i]);
    }
    out[tok * args.out_stride + args.out0 + col] = v;
}
