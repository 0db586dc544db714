// include: flat rope
// back_norm_rope: what norm_rope does, backwards. With g = the rotation back of dout[r], times w,
//   s = 1 / sqrt(mean(x^2) + eps):  dx[r] (add) = s g - s^3 mean(g x) x.
//   x, dout, dx [n_row, n], n a multiple of 4; vectors and cos_sin as in norm_rope.
// Grid: n_row workgroups (lib/flat) of 64 threads. f32. CPU twin: back_rope(), back_rmsnorm().

struct Args {
    n_row: u32, n: u32, n_head: u32, n_rot: u32,
    w_norm: u32, add: u32, eps: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> cos_sin: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> x: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> dout: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> dx: array<vec2<f32>>;

var<workgroup> part: array<vec2<f32>, 64>;

fn sum64(v: vec2<f32>, lid: u32) -> vec2<f32> {
    part[lid] = v;
    for (var n = 32u; n > 0; n /= 2) {
        workgroupBarrier();
        if (lid < n) { part[lid] += part[lid + n]; }
    }
    workgroupBarrier();
    return part[0];
}

// g of values 2 i, 2 i + 1 (xy) and of those half a row further (zw).
fn gradient(row: u32, i: u32) -> vec4<f32> {
    let at = row * (args.n / 2) + i;
    let half = args.n / 4;
    let a = dout[at];
    let b = dout[at + half];
    let cs = angles(row / args.n_head, i);
    return vec4((a * cs[0] + b * cs[1]) * weight(i), (b * cs[0] - a * cs[1]) * weight(half + i));
}

fn put(i: u32, v: vec2<f32>) {
    if (args.add != 0) { dx[i] += v; } else { dx[i] = v; }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = flat(wid);
    if (row >= args.n_row) { return; }
    let at = row * (args.n / 2);
    let half = args.n / 4;
    var sums = vec2(0.0); // of x^2, of g x
    for (var i = lid; i < half; i += 64) {
        let v = vec4(x[at + i], x[at + half + i]);
        sums += vec2(dot(v, v), dot(v, gradient(row, i)));
    }
    let mean = sum64(sums, lid) / f32(args.n);
    let s = 1.0 / sqrt(mean.x + args.eps);
    let c = s * s * s * mean.y;
    for (var i = lid; i < half; i += 64) {
        let g = gradient(row, i);
        put(at + i, s * g.xy - c * x[at + i]);
        put(at + half + i, s * g.zw - c * x[at + half + i]);
    }
}
