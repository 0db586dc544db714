// stream: the residual stream as every decode kernel finds it, one token:
//   h = (base + rms(update) * w_post) * scale, or h = base when w_post is NONE,
// and what it is normed to. Needs the bindings base, update, vectors (vec4 each), args with n_embd,
// eps, scale, w_post (an offset in floats), and workgroup_sum4().

const NONE = 0xffffffffu;

// 1 / rms of n_embd squares that sum up to `squares`.
fn stream_rms(squares: f32) -> f32 {
    return inverseSqrt(squares / f32(args.n_embd) + args.eps);
}

fn squares4(v: vec4<f32>) -> f32 { return dot(v, v); }

// The factor on `update`: 1 / rms(update).
fn stream_factor(lid: u32) -> f32 {
    if (args.w_post == NONE) { return 0.0; }
    var sum = 0.0;
    for (var i = lid; i < args.n_embd / 4; i += 256) { sum += squares4(update[i]); }
    return stream_rms(workgroup_sum4(vec4(sum, 0.0, 0.0, 0.0), lid).x);
}

// Values 4 i .. 4 i + 3 of h.
fn stream_at(i: u32, factor: f32) -> vec4<f32> {
    if (args.w_post == NONE) { return base[i]; }
    return (base[i] + update[i] * factor * vectors[args.w_post / 4 + i]) * args.scale;
}

// 1 / rms(h).
fn stream_norm(lid: u32, factor: f32) -> f32 {
    var sum = 0.0;
    for (var i = lid; i < args.n_embd / 4; i += 256) { sum += squares4(stream_at(i, factor)); }
    return stream_rms(workgroup_sum4(vec4(sum, 0.0, 0.0, 0.0), lid).x);
}
