// rope: what norm_rope and back_norm_rope share, which have args.w_norm, args.n_rot, vectors and
// cos_sin as array<vec2<f32>>. i stands for the values 2 i, 2 i + 1.

const NONE = 0xffffffffu;

fn weight(i: u32) -> vec2<f32> {
    if (args.w_norm == NONE) { return vec2(1.0); }
    return vectors[args.w_norm / 2 + i];
}

fn angle(tok: u32, pair: u32) -> vec2<f32> {
    if (pair >= args.n_rot) { return vec2(1.0, 0.0); }
    return cos_sin[tok * args.n_rot + pair];
}

// The cosines and, in the second column, the sines of the pairs that begin with these values.
fn angles(tok: u32, i: u32) -> mat2x2<f32> {
    return transpose(mat2x2<f32>(angle(tok, 2 * i), angle(tok, 2 * i + 1)));
}
