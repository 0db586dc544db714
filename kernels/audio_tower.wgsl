// include: reduce
// audio_tower: the end of the tower. x[t] += bias, in place, unless w_bias is NONE;
//   norm[t] = x[t] / sqrt(mean(x[t]^2) + eps).
//   x, norm [n_tok, n], n a multiple of 4; bias: n values of vectors from w_bias on.
// Grid: n_tok workgroups of 256 threads. f32. CPU twin: finish() of audio_cpu.c.

const NONE = 0xffffffffu;

struct Args { n: u32, w_bias: u32, eps: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> norm: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n4 = args.n / 4;
    let at = wid.x * n4;
    var sum = 0.0;
    for (var i = lid; i < n4; i += 256) {
        var y = x[at + i];
        if (args.w_bias != NONE) { y += vectors[args.w_bias / 4 + i]; }
        x[at + i] = y;
        sum += dot(y, y);
    }
    let factor = 1.0 / sqrt(workgroup_sum(sum, lid) / f32(args.n) + args.eps);
    for (var i = lid; i < n4; i += 256) { norm[at + i] = x[at + i] * factor; }
}
