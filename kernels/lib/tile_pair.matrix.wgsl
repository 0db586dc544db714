// tile_pair.matrix: as lib/tile_pair, for lib/tile.matrix, whose halves hold 32 rows of both each.

// 64 tokens x 32 rows, two neighbouring ones of every eighth token a thread.
fn store_half(id: u32, at: vec2<u32>) {
    let o = (id & 15) * 2;
    let row = at.x * 32 + o;
    for (var t = id >> 4; t < 64; t += 8) {
        let first = kept(t, o);
        let second = kept(t, o + 32);
        store(at.y * 64 + t, row, first.x, second.x);
        store(at.y * 64 + t, row + 1, first.y, second.y);
    }
}
