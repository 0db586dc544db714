// tile_store: for lib/tile_rows, hands out what a thread has made: the kernel's
//   fn store(tok: u32, row: u32, value: f32), which may be beyond the last token or row.

fn store4(tok: u32, row: u32, v: vec4<f32>) {
    store(tok, row, v.x);
    store(tok + 1, row, v.y);
    store(tok + 2, row, v.z);
    store(tok + 3, row, v.w);
}

fn tile_store(id: u32, at: vec2<u32>, sum: Tile) {
    let tok = tile_tok(id, at);
    let row = at.x * 64 + (id & 15);
    store4(tok, row, sum.lo[0]);
    store4(tok, row + 16, sum.lo[1]);
    store4(tok, row + 32, sum.lo[2]);
    store4(tok, row + 48, sum.lo[3]);
    store4(tok + 4, row, sum.hi[0]);
    store4(tok + 4, row + 16, sum.hi[1]);
    store4(tok + 4, row + 32, sum.hi[2]);
    store4(tok + 4, row + 48, sum.hi[3]);
}
