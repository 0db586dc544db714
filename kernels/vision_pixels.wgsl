// include: reduce
// vision_pixels: a square of pixels, normed whole, for the encoder without a tower:
//   out[t] = (p - mean) / sqrt(variance + eps) * w + b, p the bytes of row t as [0, 1].
//   pixels [n_tok, n] bytes, out [n_tok, n], n a multiple of 4; w, b: n values of vectors from
//   w_norm, w_bias on.
// Grid: n_tok workgroups of 256 threads. f32. CPU twin: ref_layernorm().

struct Args { n: u32, w_norm: u32, w_bias: u32, eps: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> pixels: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n4 = args.n / 4;
    let at = wid.x * n4;
    var sum = 0.0;
    for (var i = lid; i < n4; i += 256) { sum += dot(unpack4x8unorm(pixels[at + i]), vec4(1.0)); }
    let mean = workgroup_sum(sum, lid) / f32(args.n);
    sum = 0.0;
    for (var i = lid; i < n4; i += 256) {
        let d = unpack4x8unorm(pixels[at + i]) - mean;
        sum += dot(d, d);
    }
    let factor = 1.0 / sqrt(workgroup_sum(sum, lid) / f32(args.n) + args.eps);
    for (var i = lid; i < n4; i += 256) {
        let d = unpack4x8unorm(pixels[at + i]) - mean;
        out[at + i] = d * factor * vectors[args.w_norm / 4 + i] + vectors[args.w_bias / 4 + i];
    }
}
