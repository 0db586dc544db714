// tile_columns: for lib/tile, a matrix of which a row is a term of all sums: in W. A thread brings
// 16 columns of a row and makes twice four neighbouring ones.

// w_tile[k / 4][(k % 4) * 16 + (j ^ 4 (k & 1))]: term k of four outputs of threads with
// j & 7 = id & 7. They are dealt out, and odd terms turned, so that neighbouring threads store into
// different banks.
fn tile_put_w(id: u32, w: mat4x4<f32>) {
    let k4 = (id >> 4) & 3;
    let j = ((id >> 2) & 3) * 16 + (id & 3);
    let turn = id & 4;
    w_tile[k4][j + turn] = w[0];
    w_tile[k4][j + (4 ^ turn)] = w[1];
    w_tile[k4][j + (8 ^ turn)] = w[2];
    w_tile[k4][j + (12 ^ turn)] = w[3];
}

fn tile_load_w(id: u32, x: u32, k: u32) -> Raw {
    return load_w(k + (id >> 2), x * 64 + (id & 3) * 16);
}

fn tile_ready_w(id: u32, x: u32, w: Raw) -> mat4x4<f32> { return ready_w(w, 0); }

fn tile_w(id: u32, k4: u32, half: u32) -> mat4x4<f32> {
    let i = (id & 7) + half * 8;
    let odd = i ^ 4;
    return mat4x4<f32>(w_tile[k4][i], w_tile[k4][odd + 16], w_tile[k4][i + 32],
                       w_tile[k4][odd + 48]);
}
