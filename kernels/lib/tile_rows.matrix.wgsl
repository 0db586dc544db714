// tile_rows.matrix: as lib/tile_rows, for lib/tile.matrix: inputs are activations. A thread brings
// 16 columns of two rows.

const IN_SCALE = 0.0625f;

fn tile_load_w(id: u32, x: u32, k: u32) -> Raws {
    let row = x * 128 + (id >> 1);
    let col = k + (id & 1) * 16;
    return Raws(load_w(row, col), load_w(row + 64, col));
}

fn tile_put_w(id: u32, x: u32, w: Raws) {
    let row = x * 128 + (id >> 1);
    let i = W_BEGIN + (id >> 1) * IN_LINE + (id & 1) * 4;
    put_w(i, ready_w(w.a, row));
    put_w(i + 64 * IN_LINE, ready_w(w.b, row + 64));
}

// Terms 16 half .. 16 half + 15 of outputs o .. o + 31, from the halves that begin at w0.
@diagnostic(off, chromium.subgroup_matrix_uniformity)
fn tile_right(w0: u32, o: u32, half: u32) -> Rights {
    let i = w0 + o * IN_LINE + half * 4;
    return Rights(subgroupMatrixLoad<Right, col_major>(&factors, i, IN_LINE),
                  subgroupMatrixLoad<Right, col_major>(&factors, i + 16 * IN_LINE, IN_LINE));
}
