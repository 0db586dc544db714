// tile_in: rows of f32 for lib/tile: x and args are the kernel's, x [n_tok, n_col].

// Four columns of four tokens; repeats the last token beyond the end.
fn load_x(tok: u32, k: u32) -> mat4x4<f32> {
    if (k >= args.n_col) { return mat4x4<f32>(); }
    let n = args.n_col / 4;
    let last = args.n_tok - 1;
    let at = k / 4;
    return mat4x4<f32>(x[min(tok, last) * n + at], x[min(tok + 1, last) * n + at],
                       x[min(tok + 2, last) * n + at], x[min(tok + 3, last) * n + at]);
}

fn clip(m: mat4x4<f32>, least: f32, most: f32) -> mat4x4<f32> {
    let low = vec4(least);
    let high = vec4(most);
    return mat4x4<f32>(clamp(m[0], low, high), clamp(m[1], low, high), clamp(m[2], low, high),
                       clamp(m[3], low, high));
}
