// tile_columns: for lib/tile, a matrix of which a row is a term of all sums: in W. A thread brings
// 16 columns of a row and makes four neighbouring ones; the kernel takes them:
//   fn store(tok: u32, col: u32, value: vec4<f32>), columns col .. col + 3 of a token, which may be
//   beyond the last one.

// w_tile[k * 16 + (j ^ 4 (k & 1))]: term k of the four outputs of threads with j = id & 15. They
// are dealt out, and odd terms turned, so that neighbouring threads store into different banks.
fn tile_put_w(id: u32, w: mat4x4<f32>) {
    let k = id >> 2;
    let j = k * 16 + (id & 3);
    let turn = 4 * (k & 1);
    w_tile[j + turn] = w[0];
    w_tile[j + (4 ^ turn)] = w[1];
    w_tile[j + (8 ^ turn)] = w[2];
    w_tile[j + (12 ^ turn)] = w[3];
}

fn tile_fetch_w(id: u32, x: u32, k: u32) -> mat4x4<f32> {
    return load_w(k + (id >> 2), x * 64 + (id & 3) * 16);
}

fn tile_w(id: u32, k4: u32) -> mat4x4<f32> {
    let i = k4 * 64 + (id & 15);
    let odd = k4 * 64 + ((id & 15) ^ 4);
    return mat4x4<f32>(w_tile[i], w_tile[odd + 16], w_tile[i + 32], w_tile[odd + 48]);
}

fn tile_store(id: u32, at: vec2<u32>, sum: Tile) {
    let tok = tile_tok(id, at);
    let col = at.x * 64 + (id & 3) * 16 + (id & 12);
    let lo = transpose(sum.lo);
    let hi = transpose(sum.hi);
    store(tok, col, lo[0]);
    store(tok + 1, col, lo[1]);
    store(tok + 2, col, lo[2]);
    store(tok + 3, col, lo[3]);
    store(tok + 4, col, hi[0]);
    store(tok + 5, col, hi[1]);
    store(tok + 6, col, hi[2]);
    store(tok + 7, col, hi[3]);
}
