// include: reduce sigmoid
// audio_glu_conv: what follows the first matrix of the convolution module, each channel by itself:
//   g[t] = x[t, ..n] * sigmoid(x[t, n..]);  y[t] = sum_k w[k] * g[t + k + 1 - n_kernel], t >= 0;
//   out[t] = silu(rms(clamp(y[t], -limit, limit)) * w_norm).
//   x [n_tok, 2 n], out [n_tok, n], n a multiple of 4; vectors: [n, n_kernel] from w_conv on, n
//   values from w_norm on.
// Grid: n_tok workgroups of 256 threads. f32. CPU twin: convolution() of audio_cpu.c.

struct Args { n: u32, n_kernel: u32, w_conv: u32, w_norm: u32, eps: f32, limit: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

fn convolve(tok: u32, i: u32) -> vec4<f32> {
    let n4 = args.n / 4;
    var sum = vec4(0.0);
    for (var k = 0u; k < args.n_kernel; k++) { // the last weight is the token's own
        let before = args.n_kernel - 1 - k;
        if (before > tok) { continue; }
        let at = (tok - before) * 2 * n4 + i;
        let w = args.w_conv + 4 * i * args.n_kernel + k;
        let taps = vec4(vectors[w], vectors[w + args.n_kernel], vectors[w + 2 * args.n_kernel],
                        vectors[w + 3 * args.n_kernel]);
        sum += taps * x[at] * sigmoid(x[at + n4]);
    }
    return clamp(sum, vec4(-args.limit), vec4(args.limit));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n4 = args.n / 4;
    let at = wid.x * n4;
    var sum = 0.0;
    for (var i = lid; i < n4; i += 256) {
        let y = convolve(wid.x, i);
        out[at + i] = y;
        sum += dot(y, y);
    }
    let factor = 1.0 / sqrt(workgroup_sum(sum, lid) / f32(args.n) + args.eps);
    for (var i = lid; i < n4; i += 256) {
        let w = args.w_norm + 4 * i;
        let weight = vec4(vectors[w], vectors[w + 1], vectors[w + 2], vectors[w + 3]);
        let y = out[at + i] * factor * weight;
        out[at + i] = y * sigmoid(y);
    }
}
