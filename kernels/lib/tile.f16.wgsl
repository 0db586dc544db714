// As lib/tile.wgsl, on matrix units: f16 factors, f32 sums, 16 x 16 x 16 at a time, for subgroups
// of 32. Each of the four subgroups makes 32 tokens x 32 rows. Inputs are stored as eighths, so
// that they may be as large as half a million. 27 KiB of workgroup memory.
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;

const TILE_COLS = 32u;
const TILE_STRIDE = 40u; // f16 from one token or row to the next: spread over the banks
const TILE_OUT = 68u;    // f32 from one token to the next
const TILE_SHRINK = 0.125f;

var<workgroup> in_tile: array<f16, 2560>; // in_tile[t * TILE_STRIDE + k]
var<workgroup> w_tile: array<f16, 2560>;  // w_tile[r * TILE_STRIDE + k]
var<workgroup> out_tile: array<f32, 4352>;

fn tile_in_k(id: u32) -> u32 { return (id & 7) * 4; }
fn tile_in_tok(id: u32) -> u32 { return (id >> 3) * 4; }
fn tile_w_k(id: u32) -> u32 { return (id >> 6) * 16; }
fn tile_w_row(id: u32) -> u32 { return id & 63; }
fn tile_tok(id: u32) -> u32 { return (id >> 4) * 8; }
fn tile_row(id: u32) -> u32 { return id & 15; }

fn tile_put_in(i: u32, v: vec4<f32>) {
    let h = vec4<f16>(clamp(v * TILE_SHRINK, vec4(-65504.0), vec4(65504.0)));
    in_tile[i] = h.x;
    in_tile[i + 1] = h.y;
    in_tile[i + 2] = h.z;
    in_tile[i + 3] = h.w;
}

fn tile_put_w(i: u32, v: vec4<f32>) {
    let h = vec4<f16>(v);
    w_tile[i] = h.x;
    w_tile[i + 1] = h.y;
    w_tile[i + 2] = h.z;
    w_tile[i + 3] = h.w;
}

// a: one row for each token, four columns; w: 16 columns of a row.
fn tile_put(id: u32, a: mat4x4<f32>, w: mat4x4<f32>) {
    let i = tile_in_tok(id) * TILE_STRIDE + tile_in_k(id);
    tile_put_in(i, a[0]);
    tile_put_in(i + TILE_STRIDE, a[1]);
    tile_put_in(i + 2 * TILE_STRIDE, a[2]);
    tile_put_in(i + 3 * TILE_STRIDE, a[3]);
    let j = tile_w_row(id) * TILE_STRIDE + tile_w_k(id);
    tile_put_w(j, w[0]);
    tile_put_w(j + 4, w[1]);
    tile_put_w(j + 8, w[2]);
    tile_put_w(j + 12, w[3]);
}

struct Tile {
    lo: mat4x4<f32>, // column r: tokens 8 ty .. 8 ty + 3 of row tx + 16 r
    hi: mat4x4<f32>, // the next four tokens
}

alias Left = subgroup_matrix_left<f16, 16, 16>;   // tokens x columns
alias Right = subgroup_matrix_right<f16, 16, 16>; // columns x rows
alias TileSum = array<subgroup_matrix_result<f32, 16, 16>, 4>;

// The offsets are the same throughout a subgroup, which the compiler cannot see.
@diagnostic(off, chromium.subgroup_matrix_uniformity)
fn tile_multiply(id: u32, sum: ptr<function, TileSum>) {
    let t = (id >> 6) * 32 * TILE_STRIDE;
    let r = ((id >> 5) & 1) * 32 * TILE_STRIDE;
    for (var k = 0u; k < TILE_COLS; k += 16) {
        let a0 = subgroupMatrixLoad<Left>(&in_tile, t + k, false, TILE_STRIDE);
        let a1 = subgroupMatrixLoad<Left>(&in_tile, t + 16 * TILE_STRIDE + k, false, TILE_STRIDE);
        let b0 = subgroupMatrixLoad<Right>(&w_tile, r + k, true, TILE_STRIDE);
        let b1 = subgroupMatrixLoad<Right>(&w_tile, r + 16 * TILE_STRIDE + k, true, TILE_STRIDE);
        (*sum)[0] = subgroupMatrixMultiplyAccumulate(a0, b0, (*sum)[0]);
        (*sum)[1] = subgroupMatrixMultiplyAccumulate(a0, b1, (*sum)[1]);
        (*sum)[2] = subgroupMatrixMultiplyAccumulate(a1, b0, (*sum)[2]);
        (*sum)[3] = subgroupMatrixMultiplyAccumulate(a1, b1, (*sum)[3]);
    }
}

fn tile_four(i: u32) -> vec4<f32> {
    return vec4(out_tile[i], out_tile[i + TILE_OUT], out_tile[i + 2 * TILE_OUT],
                out_tile[i + 3 * TILE_OUT]) / TILE_SHRINK;
}

@diagnostic(off, chromium.subgroup_matrix_uniformity)
fn tile_result(id: u32, sum: ptr<function, TileSum>) -> Tile {
    let at = (id >> 6) * 32 * TILE_OUT + ((id >> 5) & 1) * 32;
    subgroupMatrixStore(&out_tile, at, (*sum)[0], false, TILE_OUT);
    subgroupMatrixStore(&out_tile, at + 16, (*sum)[1], false, TILE_OUT);
    subgroupMatrixStore(&out_tile, at + 16 * TILE_OUT, (*sum)[2], false, TILE_OUT);
    subgroupMatrixStore(&out_tile, at + 16 * TILE_OUT + 16, (*sum)[3], false, TILE_OUT);
    workgroupBarrier();
    let i = tile_tok(id) * TILE_OUT + tile_row(id);
    let j = i + 4 * TILE_OUT;
    return Tile(mat4x4<f32>(tile_four(i), tile_four(i + 16), tile_four(i + 32), tile_four(i + 48)),
                mat4x4<f32>(tile_four(j), tile_four(j + 16), tile_four(j + 32), tile_four(j + 48)));
}
