// include: flat rope
// norm_rope: out[r] = scale * (base[r] + rope(rms(x[r]) * w)) for rows r, n_head of them a token.
//   x, base, out [n_row, n], n a multiple of 4; adds: NOTHING instead of base, or BASE, or what is
//   in OUT. w: n values of vectors from w_norm on; NONE: no weight. cos_sin [n_row / n_head, n_rot,
//   2]: pairs (i, i + n / 2) with i < n_rot are rotated.
// Grid: n_row workgroups (lib/flat) of 64 threads. f32. CPU twin: ref_rmsnorm(), ref_rope().

const BASE = 1u;
const OUT = 2u;

struct Args {
    n_row: u32, n: u32, n_head: u32, n_rot: u32,
    w_norm: u32, adds: u32, eps: f32, scale: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> cos_sin: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> x: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> base: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec2<f32>>;

var<workgroup> part: array<f32, 64>;

fn sum64(v: f32, lid: u32) -> f32 {
    part[lid] = v;
    for (var n = 32u; n > 0; n /= 2) {
        workgroupBarrier();
        if (lid < n) { part[lid] += part[lid + n]; }
    }
    workgroupBarrier();
    return part[0];
}

fn put(i: u32, v: vec2<f32>) {
    var sum = v;
    if (args.adds == BASE) { sum += base[i]; }
    if (args.adds == OUT) { sum += out[i]; }
    out[i] = args.scale * sum;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = flat(wid);
    if (row >= args.n_row) { return; }
    let tok = row / args.n_head;
    let at = row * (args.n / 2);
    var squares = 0.0;
    for (var i = lid; i < args.n / 2; i += 64) { squares += dot(x[at + i], x[at + i]); }
    let factor = 1.0 / sqrt(sum64(squares, lid) / f32(args.n) + args.eps);
    // Two neighbouring pairs: values 2 i, 2 i + 1 and the same half a row further.
    let half = args.n / 4;
    for (var i = lid; i < half; i += 64) {
        let a = x[at + i] * factor * weight(i);
        let b = x[at + half + i] * factor * weight(half + i);
        let cs = angles(tok, i);
        put(at + i, a * cs[0] - b * cs[1]);
        put(at + half + i, b * cs[0] + a * cs[1]);
    }
}
