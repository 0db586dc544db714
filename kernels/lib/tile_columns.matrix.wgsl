// tile_columns.matrix: as lib/tile_columns, for lib/tile.matrix: inputs are gradients. A thread
// brings 16 columns of two rows.

const IN_SCALE = 256.0f;
const W_LINE = 34u; // elements from one term to the next: 32 and 2 that spread them over the banks

fn tile_load_w(id: u32, x: u32, k: u32) -> Raws {
    let row = k + (id >> 3);
    let col = x * 128 + (id & 7) * 16;
    return Raws(load_w(row, col), load_w(row + 16, col));
}

fn tile_put_w(id: u32, x: u32, w: Raws) {
    let i = W_BEGIN + (id >> 3) * W_LINE + (id & 7) * 4;
    put_w(i, ready_w(w.a, 0));
    put_w(i + 16 * W_LINE, ready_w(w.b, 0));
}

// Terms 16 half .. 16 half + 15 of outputs o .. o + 31, from the halves that begin at w0.
@diagnostic(off, chromium.subgroup_matrix_uniformity)
fn tile_right(w0: u32, o: u32, half: u32) -> Rights {
    let i = w0 + half * 16 * W_LINE + o / 4;
    return Rights(subgroupMatrixLoad<Right, row_major>(&factors, i, W_LINE),
                  subgroupMatrixLoad<Right, row_major>(&factors, i + 4, W_LINE));
}
