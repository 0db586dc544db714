// tile: the loop of the tiled matmuls. A workgroup of 128 threads makes 64 tokens x 64 outputs of
// each, 32 terms of their sums at a time from workgroup memory (16 KiB); a thread makes 8 tokens x
// 4 outputs. Terms are counted by k, outputs by o. The kernel says what goes in:
//   fn load_in(tok: u32, k: u32) -> mat4x4<f32>, terms k .. k + 3 of tokens tok .. tok + 3, a
//   column each; anything finite beyond the last token;
//   fn load_w(row: u32, col: u32) -> mat4x4<f32>, columns col .. col + 15 of a row of the matrix.
//   Beyond the last term one of the two is 0 and the other finite.
// What the rows are is said by lib/tile_rows (outputs) or lib/tile_columns (terms), one of which
// belongs to it; lib/tile_store, lib/tile_pair or lib/tile_columns hand on what comes out.

const TILE_TERMS = 32u;

// in_tile[k * 16 + (t / 4 ^ k / 4)]: term k of four tokens t. The exclusive or spreads the stores
// of neighbouring threads over the banks.
var<workgroup> in_tile: array<vec4<f32>, 512>;
var<workgroup> w_tile: array<vec4<f32>, 512>;

struct Tile {
    lo: mat4x4<f32>, // column i: the thread's first four tokens of its output i
    hi: mat4x4<f32>, // the next four tokens
}

// The first of the four tokens that a thread brings, and of the eight that it makes.
fn tile_in_tok(id: u32, at: vec2<u32>) -> u32 { return at.y * 64 + (id >> 3) * 4; }
fn tile_tok(id: u32, at: vec2<u32>) -> u32 { return at.y * 64 + (id >> 4) * 8; }

fn tile_put_in(id: u32, a: mat4x4<f32>) {
    let k4 = id & 7;
    let i = k4 * 64 + ((id >> 3) ^ k4);
    let t = transpose(a);
    in_tile[i] = t[0];
    in_tile[i + 16] = t[1];
    in_tile[i + 32] = t[2];
    in_tile[i + 48] = t[3];
}

fn tile_outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a * b.x, a * b.y, a * b.z, a * b.w);
}

// b: column i is term 4 k4 + i of the thread's four outputs.
fn tile_add(id: u32, k4: u32, b: mat4x4<f32>, sum: ptr<function, Tile>) {
    let t8 = (id >> 4) * 2;
    let p = k4 * 64 + (t8 ^ k4);
    let q = k4 * 64 + ((t8 + 1) ^ k4);
    (*sum).lo += tile_outer(in_tile[p], b[0]);
    (*sum).hi += tile_outer(in_tile[q], b[0]);
    (*sum).lo += tile_outer(in_tile[p + 16], b[1]);
    (*sum).hi += tile_outer(in_tile[q + 16], b[1]);
    (*sum).lo += tile_outer(in_tile[p + 32], b[2]);
    (*sum).hi += tile_outer(in_tile[q + 32], b[2]);
    (*sum).lo += tile_outer(in_tile[p + 48], b[3]);
    (*sum).hi += tile_outer(in_tile[q + 48], b[3]);
}

// Terms k0 .. end - 1; `at` is the workgroup's place in the grid, outputs first. The next terms are
// fetched into registers while these are multiplied.
fn tile_sum(id: u32, at: vec2<u32>, k0: u32, end: u32) -> Tile {
    let tok = tile_in_tok(id, at);
    let in_k = (id & 7) * 4;
    var sum: Tile;
    var a = load_in(tok, k0 + in_k);
    var w = tile_fetch_w(id, at.x, k0);
    for (var k = k0; k < end; k += TILE_TERMS) {
        tile_put_in(id, a);
        tile_put_w(id, w);
        workgroupBarrier();
        a = load_in(tok, k + TILE_TERMS + in_k);
        w = tile_fetch_w(id, at.x, k + TILE_TERMS);
        for (var k4 = 0u; k4 < TILE_TERMS / 4; k4++) {
            tile_add(id, k4, tile_w(id, k4), &sum);
        }
        workgroupBarrier();
    }
    return sum;
}
