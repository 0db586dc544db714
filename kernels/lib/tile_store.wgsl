// tile_store: for lib/tile_rows, hands out what a thread has made: the kernel's
//   fn store(tok: u32, row: u32, value: f32), which may be beyond the last token or row.

fn store4(tok: u32, row: u32, v: vec4<f32>) {
    store(tok, row, v.x);
    store(tok + 1, row, v.y);
    store(tok + 2, row, v.z);
    store(tok + 3, row, v.w);
}

fn store_rows(tok: u32, row: u32, sum: mat4x4<f32>) {
    store4(tok, row, sum[0]);
    store4(tok, row + 8, sum[1]);
    store4(tok, row + 16, sum[2]);
    store4(tok, row + 24, sum[3]);
}

fn tile_store(id: u32, at: vec2<u32>, sum: Tile) {
    let tok = tile_tok(id, at);
    let row = at.x * 64 + (id & 7);
    store_rows(tok, row, sum.lo);
    store_rows(tok + 4, row, sum.hi);
    store_rows(tok, row + 32, sum.lo4);
    store_rows(tok + 4, row + 32, sum.hi4);
}
