// include: reduce
// vision_pool: soft token s at column c, row r of the pooled picture, before the projector:
//   tower[s] = (mean of the pool x pool patches from (c, r) * pool on) * scale;
//   with w_scale not NONE: tower[s] = (tower[s] - bias) * its scale, by channel;
//   norm[s] = rms(tower[s]).
//   x [.., n_wide, n_embd], rows of n_wide patches; tower, norm [n_soft, n_embd], n_embd a multiple
//   of 4; bias and scale: n_embd values of vectors from w_bias, w_scale on.
// Grid: n_soft workgroups of 256 threads. f32. CPU twin: vision_cpu.c.

const NONE = 0xffffffffu;

struct Args {
    n_embd: u32, pool: u32, n_wide: u32, w_bias: u32,
    w_scale: u32, eps: f32, scale: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> tower: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> norm: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n4 = args.n_embd / 4;
    let p = args.pool;
    let n_col = args.n_wide / p;
    let first = wid.x / n_col * p * args.n_wide + wid.x % n_col * p;
    let factor = args.scale / f32(p * p);
    let at = wid.x * n4;
    var squares = 0.0;
    for (var i = lid; i < n4; i += 256) {
        var sum = vec4(0.0);
        for (var j = 0u; j < p * p; j++) {
            sum += x[(first + j / p * args.n_wide + j % p) * n4 + i];
        }
        sum *= factor;
        if (args.w_scale != NONE) {
            sum = (sum - vectors[args.w_bias / 4 + i]) * vectors[args.w_scale / 4 + i];
        }
        tower[at + i] = sum;
        squares += dot(sum, sum);
    }
    let rms = 1.0 / sqrt(workgroup_sum(squares, lid) / f32(args.n_embd) + args.eps);
    for (var i = lid; i < n4; i += 256) { norm[at + i] = tower[at + i] * rms; }
}
