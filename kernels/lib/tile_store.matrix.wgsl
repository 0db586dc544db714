// tile_store.matrix: as lib/tile_store, for lib/tile.matrix.

// 64 tokens x 64 outputs, two neighbouring ones of every fourth token a thread.
fn store_half(id: u32, at: vec2<u32>) {
    let o = (id & 31) * 2;
    let row = at.x * 64 + o;
    for (var t = id >> 5; t < 64; t += 4) {
        let v = kept(t, o);
        store(at.y * 64 + t, row, v.x);
        store(at.y * 64 + t, row + 1, v.y);
    }
}
