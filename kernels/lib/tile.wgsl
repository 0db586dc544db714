// tile: the loop of the tiled matmuls. A workgroup of 64 threads makes 64 tokens x 64 outputs of
// each, 16 terms of their sums at a time from workgroup memory (8 KiB); a thread makes 8 tokens x
// 8 outputs. Terms are counted by k, outputs by o. The kernel says what goes in:
//   fn load_in(tok: u32, k: u32) -> mat4x4<f32>, terms k .. k + 3 of tokens tok .. tok + 3, a
//   column each; anything finite beyond the last token; ready_in() makes of it what is multiplied;
//   fn load_w(row: u32, col: u32) -> Raw, columns col .. col + 15 of a row of the matrix, as they
//   are stored; ready_w(raw, row) expands them.
//   Beyond the last term one of the two is 0 and the other finite.
// The two are apart because a thread waits where it uses what it has loaded: the next terms are
// loaded before these are multiplied, and made ready after it.
// What the rows are is said by lib/tile_rows (outputs) or lib/tile_columns (terms), one of which
// belongs to it; lib/tile_store, lib/tile_pair or lib/tile_columns hand on what comes out.

override EXACT: u32 = 0; // matters to lib/tile.matrix alone

const TILE_THREADS = 64u;
const TILE_TERMS = 16u;

// in_tile[k / 4][k % 4][t / 4 ^ 2 (k / 4)]: term k of four tokens t. The exclusive or spreads the
// stores of neighbouring threads over the banks. Arrays in arrays and masked places show the
// compiler that no index is too large.
var<workgroup> in_tile: array<array<array<vec4<f32>, 16>, 4>, 4>;
var<workgroup> w_tile: array<array<vec4<f32>, 64>, 4>;

// Column i of lo: the thread's first four tokens of output i or, in the second pair, i + 4; of hi:
// its next four tokens.
struct Tile {
    lo: mat4x4<f32>,
    hi: mat4x4<f32>,
    lo4: mat4x4<f32>,
    hi4: mat4x4<f32>,
}

// The first of the four tokens that a thread brings, and of the eight that it makes.
fn tile_in_tok(id: u32, at: vec2<u32>) -> u32 { return at.y * 64 + (id >> 2) * 4; }
fn tile_tok(id: u32, at: vec2<u32>) -> u32 { return at.y * 64 + (id >> 3) * 8; }

fn tile_put_in(id: u32, a: mat4x4<f32>) {
    let k4 = id & 3;
    let i = ((id >> 2) & 15) ^ (k4 * 2);
    let t = transpose(a);
    in_tile[k4][0][i] = t[0];
    in_tile[k4][1][i] = t[1];
    in_tile[k4][2][i] = t[2];
    in_tile[k4][3][i] = t[3];
}

fn tile_outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a * b.x, a * b.y, a * b.z, a * b.w);
}

fn tile_add_term(lo: vec4<f32>, hi: vec4<f32>, w: vec4<f32>, w4: vec4<f32>,
                 sum: ptr<function, Tile>) {
    (*sum).lo += tile_outer(lo, w);
    (*sum).hi += tile_outer(hi, w);
    (*sum).lo4 += tile_outer(lo, w4);
    (*sum).hi4 += tile_outer(hi, w4);
}

// Column i of w and w4: term 4 k4 + i of the thread's first and next four outputs.
fn tile_add(id: u32, k4: u32, sum: ptr<function, Tile>) {
    let w = tile_w(id, k4, 0);
    let w4 = tile_w(id, k4, 1);
    let t = (((id >> 3) & 7) * 2) ^ (k4 * 2);
    tile_add_term(in_tile[k4][0][t], in_tile[k4][0][t + 1], w[0], w4[0], sum);
    tile_add_term(in_tile[k4][1][t], in_tile[k4][1][t + 1], w[1], w4[1], sum);
    tile_add_term(in_tile[k4][2][t], in_tile[k4][2][t + 1], w[2], w4[2], sum);
    tile_add_term(in_tile[k4][3][t], in_tile[k4][3][t + 1], w[3], w4[3], sum);
}

// Terms k0 .. end - 1; `at` is the workgroup's place in the grid, outputs first.
fn tile_sum(id: u32, at: vec2<u32>, k0: u32, end: u32) -> Tile {
    let tok = tile_in_tok(id, at);
    let in_k = (id & 3) * 4;
    var sum: Tile;
    var a = load_in(tok, k0 + in_k);
    var w = tile_load_w(id, at.x, k0);
    for (var k = k0; k < end; k += TILE_TERMS) {
        tile_put_in(id, ready_in(a));
        tile_put_w(id, tile_ready_w(id, at.x, w));
        workgroupBarrier();
        a = load_in(tok, k + TILE_TERMS + in_k);
        w = tile_load_w(id, at.x, k + TILE_TERMS);
        tile_add(id, 0, &sum);
        tile_add(id, 1, &sum);
        tile_add(id, 2, &sum);
        tile_add(id, 3, &sum);
        workgroupBarrier();
    }
    return sum;
}
