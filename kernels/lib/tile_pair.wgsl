// tile_pair: for lib/tile_rows, 32 rows each of two matrices in a tile of 64: rows 0..31 of it are
// of the first and 32..63 of the second, so that a thread makes a row of both. The kernel takes it:
//   fn store(tok: u32, row: u32, first: f32, second: f32), which may be beyond the last token or
//   row.

// Which row of its matrix a row of the tiles is.
fn pair_row(row: u32) -> u32 { return (row >> 6) * 32 + (row & 31); }
fn pair_is_first(row: u32) -> bool { return (row & 32) == 0; }

fn store4(tok: u32, row: u32, first: vec4<f32>, second: vec4<f32>) {
    store(tok, row, first.x, second.x);
    store(tok + 1, row, first.y, second.y);
    store(tok + 2, row, first.z, second.z);
    store(tok + 3, row, first.w, second.w);
}

fn tile_store(id: u32, at: vec2<u32>, sum: Tile) {
    let tok = tile_tok(id, at);
    let row = at.x * 32 + (id & 15);
    store4(tok, row, sum.lo[0], sum.lo[2]);
    store4(tok, row + 16, sum.lo[1], sum.lo[3]);
    store4(tok + 4, row, sum.hi[0], sum.hi[2]);
    store4(tok + 4, row + 16, sum.hi[1], sum.hi[3]);
}
