// include: reduce
// rmsnorm: out[t, i] = scale * x[t, i] / sqrt(mean_i(x[t, i]^2) + eps) * w[i].
//   x, out [n_tok, n], n a multiple of 4; w: n values of vectors from w_norm on.
// Grid: n_tok workgroups of 256 threads. f32. CPU twin: ref_rmsnorm().

struct Args { n: u32, w_norm: u32, eps: f32, scale: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n4 = args.n / 4;
    let at = wid.x * n4;
    var sum = 0.0;
    for (var i = lid; i < n4; i += 256) { sum += dot(x[at + i], x[at + i]); }
    let mean = workgroup_sum(sum, lid) / f32(args.n);
    let factor = args.scale / sqrt(mean + args.eps);
    for (var i = lid; i < n4; i += 256) {
        out[at + i] = x[at + i] * factor * vectors[args.w_norm / 4 + i];
    }
}
