// tile: the inner loop of the tiled matmuls. A workgroup of 128 threads makes 64 tokens x 64 rows,
// 32 columns at a time from workgroup memory (16 KiB); a thread makes 8 tokens x 4 rows.
//   Thread id brings columns 4 in_k4 .. of tokens 4 in_t4 .. and 16 columns of one weight row,
//   and makes tokens 8 ty .. 8 ty + 7 of rows tx, tx + 16, tx + 32, tx + 48.

const TILE_COLS = 32u;

// in_tile[k * 16 + (t / 4 ^ k / 4)]: column k of four tokens t. The exclusive or spreads the stores
// of neighbouring threads over the banks.
var<workgroup> in_tile: array<vec4<f32>, 512>;
// w_tile[k / 4 * 64 + r]: four columns of row r.
var<workgroup> w_tile: array<vec4<f32>, 512>;

fn tile_in_k(id: u32) -> u32 { return (id & 7) * 4; }
fn tile_in_tok(id: u32) -> u32 { return (id >> 3) * 4; }
fn tile_w_k(id: u32) -> u32 { return (id >> 6) * 16; }
fn tile_w_row(id: u32) -> u32 { return id & 63; }
fn tile_tok(id: u32) -> u32 { return (id >> 4) * 8; }
fn tile_row(id: u32) -> u32 { return id & 15; }

// a: one row for each token, four columns; w: 16 columns of a row.
fn tile_put(id: u32, a: mat4x4<f32>, w: mat4x4<f32>) {
    let k4 = id & 7;
    let i = k4 * 64 + ((id >> 3) ^ k4);
    let t = transpose(a);
    in_tile[i] = t[0];
    in_tile[i + 16] = t[1];
    in_tile[i + 32] = t[2];
    in_tile[i + 48] = t[3];
    let j = (id >> 6) * 256 + (id & 63);
    w_tile[j] = w[0];
    w_tile[j + 64] = w[1];
    w_tile[j + 128] = w[2];
    w_tile[j + 192] = w[3];
}

fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a * b.x, a * b.y, a * b.z, a * b.w);
}

struct Tile {
    lo: mat4x4<f32>, // column r: tokens 8 ty .. 8 ty + 3 of row tx + 16 r
    hi: mat4x4<f32>, // the next four tokens
}

fn tile_multiply(id: u32, sum: ptr<function, Tile>) {
    let tx = id & 15;
    let ty2 = (id >> 4) * 2;
    for (var k4 = 0u; k4 < TILE_COLS / 4; k4++) {
        let r = k4 * 64 + tx;
        let b = transpose(
            mat4x4<f32>(w_tile[r], w_tile[r + 16], w_tile[r + 32], w_tile[r + 48]));
        let p = k4 * 64 + (ty2 ^ k4);
        let q = k4 * 64 + ((ty2 + 1) ^ k4);
        (*sum).lo += outer(in_tile[p], b[0]);
        (*sum).hi += outer(in_tile[q], b[0]);
        (*sum).lo += outer(in_tile[p + 16], b[1]);
        (*sum).hi += outer(in_tile[q + 16], b[1]);
        (*sum).lo += outer(in_tile[p + 32], b[2]);
        (*sum).hi += outer(in_tile[q + 32], b[2]);
        (*sum).lo += outer(in_tile[p + 48], b[3]);
        (*sum).hi += outer(in_tile[q + 48], b[3]);
    }
}
