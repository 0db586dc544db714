// tile_store4: for lib/tile_columns, hands out what a thread has made: the kernel's
//   fn store(tok: u32, col: u32, value: vec4<f32>), columns col .. col + 3 of a token, which may be
//   beyond the last one.

fn store_columns(tok: u32, col: u32, sum: mat4x4<f32>) {
    let t = transpose(sum);
    store(tok, col, t[0]);
    store(tok + 1, col, t[1]);
    store(tok + 2, col, t[2]);
    store(tok + 3, col, t[3]);
}

fn tile_store(id: u32, at: vec2<u32>, sum: Tile) {
    let tok = tile_tok(id, at);
    let col = at.x * 64 + (id & 3) * 16 + (id & 4);
    store_columns(tok, col, sum.lo);
    store_columns(tok + 4, col, sum.hi);
    store_columns(tok, col + 8, sum.lo4);
    store_columns(tok + 4, col + 8, sum.hi4);
}
