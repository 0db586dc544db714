// tile_store4.matrix: as lib/tile_store4, for lib/tile.matrix.

// 64 tokens x 64 outputs, four neighbouring ones of every eighth token a thread.
fn store_half(id: u32, at: vec2<u32>) {
    let o = (id & 15) * 4;
    for (var t = id >> 4; t < 64; t += 8) {
        store(at.y * 64 + t, at.x * 64 + o, vec4(kept(t, o), kept(t, o + 2)));
    }
}
