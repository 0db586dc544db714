// stream: the residual stream as every decode kernel finds it, one token:
//   h = (base + rms(update) * w_post) * scale, or h = base when w_post is NONE,
// and 1 / rms(h). Needs the bindings base, update, vectors (vec4 each), args with n_embd, eps,
// scale, w_post (an offset in floats), and workgroup_sum4().

const NONE = 0xffffffffu;

struct Stream {
    factor: f32, // on update * w_post: 1 / rms(update)
    norm: f32,   // 1 / rms(h)
}
var<private> stream: Stream;

fn inverse_rms(squares: f32) -> f32 {
    return inverseSqrt(squares / f32(args.n_embd) + args.eps);
}

// Both need sums over all of the stream, but one pass is enough:
//   sum h^2 = scale^2 (sum base^2 + 2 f sum base u + f^2 sum u^2), u = update * w_post.
fn stream_open(lid: u32) {
    var sums = vec4(0.0); // update^2, base^2, base u, u^2
    if (args.w_post == NONE) {
        for (var i = lid; i < args.n_embd / 4; i += 256) { sums.y += dot(base[i], base[i]); }
    } else {
        for (var i = lid; i < args.n_embd / 4; i += 256) {
            let b = base[i];
            let a = update[i];
            let u = a * vectors[args.w_post / 4 + i];
            sums += vec4(dot(a, a), dot(b, b), dot(b, u), dot(u, u));
        }
    }
    let s = workgroup_sum4(sums, lid);
    if (args.w_post == NONE) {
        stream = Stream(0.0, inverse_rms(s.y));
        return;
    }
    let f = inverse_rms(s.x);
    let squares = max(s.y + 2.0 * f * s.z + f * f * s.w, 0.0);
    stream = Stream(f, inverse_rms(args.scale * args.scale * squares));
}

// Values 4 i .. 4 i + 3 of h.
fn stream_at(i: u32) -> vec4<f32> {
    if (args.w_post == NONE) { return base[i]; }
    return (base[i] + update[i] * stream.factor * vectors[args.w_post / 4 + i]) * args.scale;
}
