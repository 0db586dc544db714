// tile_rows: for lib/tile, a matrix of which a row makes an output: in W^T. A thread brings 16
// columns of a row and makes outputs o, o + 16, o + 32 and o + 48, o = id & 15.

// w_tile[k / 4 * 64 + o]: four terms of output o.
fn tile_put_w(id: u32, w: mat4x4<f32>) {
    let j = (id >> 6) * 256 + (id & 63);
    w_tile[j] = w[0];
    w_tile[j + 64] = w[1];
    w_tile[j + 128] = w[2];
    w_tile[j + 192] = w[3];
}

fn tile_fetch_w(id: u32, x: u32, k: u32) -> mat4x4<f32> {
    return load_w(x * 64 + (id & 63), k + (id >> 6) * 16);
}

fn tile_w(id: u32, k4: u32) -> mat4x4<f32> {
    let i = k4 * 64 + (id & 15);
    return transpose(mat4x4<f32>(w_tile[i], w_tile[i + 16], w_tile[i + 32], w_tile[i + 48]));
}
