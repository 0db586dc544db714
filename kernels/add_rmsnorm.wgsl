// include: reduce
// add_rmsnorm: the seam between two blocks of a layer.
//   x[t] = scale * (x[t] + rms(update[t]) * w_post), in place;
//   norm[t] = rms(x[t]) * w_norm, unless w_norm is NONE.
//   x, update, norm [n_tok, n], n a multiple of 4; w_post, w_norm: n values of vectors from there.
// Grid: n_tok workgroups of 256 threads. f32. CPU twin: ref_rmsnorm().

const NONE = 0xffffffffu;

struct Args { n: u32, w_post: u32, w_norm: u32, eps: f32, scale: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> update: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> norm: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n4 = args.n / 4;
    let at = wid.x * n4;
    var sum = 0.0;
    for (var i = lid; i < n4; i += 256) { sum += dot(update[at + i], update[at + i]); }
    let post = 1.0 / sqrt(workgroup_sum(sum, lid) / f32(args.n) + args.eps);
    sum = 0.0;
    for (var i = lid; i < n4; i += 256) {
        let y = args.scale * (x[at + i] + update[at + i] * post * vectors[args.w_post / 4 + i]);
        x[at + i] = y;
        sum += dot(y, y);
    }
    if (args.w_norm == NONE) { return; }
    let factor = 1.0 / sqrt(workgroup_sum(sum, lid) / f32(args.n) + args.eps);
    for (var i = lid; i < n4; i += 256) {
        norm[at + i] = x[at + i] * factor * vectors[args.w_norm / 4 + i];
    }
}
