// tile_rows: for lib/tile, a matrix of which a row makes an output: in W^T. A thread brings 16
// columns of a row and makes outputs o, o + 8, .. o + 56, o = id & 7.

// w_tile[k / 4][o]: four terms of output o.
fn tile_put_w(id: u32, w: mat4x4<f32>) {
    let o = id & 63;
    w_tile[0][o] = w[0];
    w_tile[1][o] = w[1];
    w_tile[2][o] = w[2];
    w_tile[3][o] = w[3];
}

fn tile_load_w(id: u32, x: u32, k: u32) -> Raw { return load_w(x * 64 + id, k); }
fn tile_ready_w(id: u32, x: u32, w: Raw) -> mat4x4<f32> { return ready_w(w, x * 64 + id); }

fn tile_w(id: u32, k4: u32, half: u32) -> mat4x4<f32> {
    let o = (id & 7) + half * 32;
    return transpose(mat4x4<f32>(w_tile[k4][o], w_tile[k4][o + 8], w_tile[k4][o + 16],
                                 w_tile[k4][o + 24]));
}
