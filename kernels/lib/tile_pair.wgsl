// tile_pair: for lib/tile_rows, the rows of lib/pair_rows, of which a thread makes four of both
// matrices. The kernel takes them:
//   fn store(tok: u32, row: u32, first: f32, second: f32), which may be beyond the last token or
//   row.

fn store4(tok: u32, row: u32, first: vec4<f32>, second: vec4<f32>) {
    store(tok, row, first.x, second.x);
    store(tok + 1, row, first.y, second.y);
    store(tok + 2, row, first.z, second.z);
    store(tok + 3, row, first.w, second.w);
}

fn store_pairs(tok: u32, row: u32, first: mat4x4<f32>, second: mat4x4<f32>) {
    store4(tok, row, first[0], second[0]);
    store4(tok, row + 8, first[1], second[1]);
    store4(tok, row + 16, first[2], second[2]);
    store4(tok, row + 24, first[3], second[3]);
}

fn tile_store(id: u32, at: vec2<u32>, sum: Tile) {
    let tok = tile_tok(id, at);
    let row = at.x * 32 + (id & 7);
    store_pairs(tok, row, sum.lo, sum.lo4);
    store_pairs(tok + 4, row, sum.hi, sum.hi4);
}
