// include: reduce
// audio_add_norm: the seam between two blocks of a conformer layer, c(x) = clamp(x, -limit, limit):
//   u = clamp(sum_p update[p, t], out_min, out_max), the end of a matrix that came in n_part parts;
//   y = x[t] + scale * (rms(c(u)) * w_post), or x[t] + scale * u without w_post;
//   y = rms(c(y)) * w_out, if there is a w_out: the end of a layer;
//   x[t] = y, in place;  norm[t] = rms(c(y)) * w_norm, if there is a w_norm.
//   update [n_part, n_tok, n], x, norm [n_tok, n], n a multiple of 4; w_post, w_out, w_norm: n
//   values of vectors from there; NONE: there is none.
// Grid: n_tok workgroups of 256 threads. f32. CPU twin: ffn() of audio_cpu.c.

const NONE = 0xffffffffu;

struct Args {
    n: u32, n_tok: u32, n_part: u32, w_post: u32, w_out: u32, w_norm: u32,
    eps: f32, scale: f32, limit: f32, out_min: f32, out_max: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> update: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> norm: array<vec4<f32>>;

fn update_at(i: u32) -> vec4<f32> {
    var u = update[i];
    for (var p = 1u; p < args.n_part; p++) { u += update[p * args.n_tok * (args.n / 4) + i]; }
    return clamp(u, vec4(args.out_min), vec4(args.out_max));
}

fn cut(v: vec4<f32>) -> vec4<f32> { return clamp(v, vec4(-args.limit), vec4(args.limit)); }

fn square(v: vec4<f32>) -> f32 {
    let c = cut(v);
    return dot(c, c);
}

fn inverse_rms(squares: f32, lid: u32) -> f32 {
    return 1.0 / sqrt(workgroup_sum(squares, lid) / f32(args.n) + args.eps);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n4 = args.n / 4;
    let at = wid.x * n4;
    var sum = 0.0;
    if (args.w_post != NONE) {
        for (var i = lid; i < n4; i += 256) { sum += square(update_at(at + i)); }
        let post = args.scale * inverse_rms(sum, lid);
        sum = 0.0;
        for (var i = lid; i < n4; i += 256) {
            let y = x[at + i] + cut(update_at(at + i)) * post * vectors[args.w_post / 4 + i];
            x[at + i] = y;
            sum += square(y);
        }
    } else {
        for (var i = lid; i < n4; i += 256) {
            let y = x[at + i] + args.scale * update_at(at + i);
            x[at + i] = y;
            sum += square(y);
        }
    }
    if (args.w_out != NONE) {
        let factor = inverse_rms(sum, lid);
        sum = 0.0;
        for (var i = lid; i < n4; i += 256) {
            let y = cut(x[at + i]) * factor * vectors[args.w_out / 4 + i];
            x[at + i] = y;
            sum += square(y);
        }
    }
    if (args.w_norm == NONE) { return; }
    let factor = inverse_rms(sum, lid);
    for (var i = lid; i < n4; i += 256) {
        norm[at + i] = cut(x[at + i]) * factor * vectors[args.w_norm / 4 + i];
    }
}
