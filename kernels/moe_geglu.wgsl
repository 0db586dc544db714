// include: gelu tile
// formats: A B
// moe_geglu: gate, up and GELU of the experts, for all selections of moe_lists:
//   act[p, r] = gelu(scale_a[e] * A_e[r] . x[t]) * (scale_b[e] * B_e[r] . x[t]), r < n_row,
//   for place p in order, of expert e and token t.
//   x [n_tok, n_col]; row r of expert e is row (e - a_expert0) * a_rows + r of wA and row
//   (e - b_expert0) * b_rows + b_row0 + r of wB. Only tiles of experts expert0 .. + n_expert - 1
//   are done, which these bindings hold. scales: from scale0 on n_scale values for A, then for B.
// Grid: x = ceil(n_row / 32), y = tiles; rows 0..31 of a tile (lib/tile) are of A and 32..63 of B.
// f32. CPU twin: ref_matmul() twice, ref_geglu().

struct Args {
    n_used: u32, n_row: u32, n_col: u32, a_rows: u32,
    b_rows: u32, b_row0: u32, a_expert0: u32, b_expert0: u32,
    expert0: u32, n_expert: u32, scale0: u32, n_scale: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read> tiles: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> wA: array<WA>;
@group(0) @binding(6) var<storage, read> wB: array<WB>;
@group(0) @binding(7) var<storage, read_write> act: array<f32>;

// The row of x for a place of the tile; repeats the last place beyond the end.
fn row_of(tile: vec4<u32>, place: u32) -> u32 {
    return order[tile.y + min(place, tile.z - 1)] / args.n_used * (args.n_col / 4);
}

fn load_in(rows: vec4<u32>, k: u32) -> mat4x4<f32> {
    if (k >= args.n_col) { return mat4x4<f32>(); }
    let at = rows + k / 4;
    return mat4x4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]);
}

fn load_w(expert: u32, row0: u32, tile_row: u32, k: u32) -> mat4x4<f32> {
    if (k >= args.n_col) { return mat4x4<f32>(); }
    let row = min(row0 + (tile_row & 31), args.n_row - 1);
    let n = args.n_col / 16;
    if (tile_row < 32) {
        return get16A(((expert - args.a_expert0) * args.a_rows + row) * n + k / 16);
    }
    return get16B(((expert - args.b_expert0) * args.b_rows + args.b_row0 + row) * n + k / 16);
}

fn store4(tile: vec4<u32>, place: u32, row: u32, gate: vec4<f32>, up: vec4<f32>) {
    if (row >= args.n_row) { return; }
    let scale = args.scale0 + tile.x;
    let g = gate * scales[scale];
    let u = up * scales[scale + args.n_scale];
    let at = (tile.y + place) * args.n_row + row;
    if (place < tile.z) { act[at] = gelu(g.x) * u.x; }
    if (place + 1 < tile.z) { act[at + args.n_row] = gelu(g.y) * u.y; }
    if (place + 2 < tile.z) { act[at + 2 * args.n_row] = gelu(g.z) * u.z; }
    if (place + 3 < tile.z) { act[at + 3 * args.n_row] = gelu(g.w) * u.w; }
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let tile = tiles[wid.y];
    let expert = tile.x;
    // Below expert0 the difference wraps to a huge number.
    if (tile.z == 0 || expert - args.expert0 >= args.n_expert) { return; }
    let place_in = tile_in_tok(id);
    let rows = vec4(row_of(tile, place_in), row_of(tile, place_in + 1),
                    row_of(tile, place_in + 2), row_of(tile, place_in + 3));
    let row0 = wid.x * 32;
    var sum: Tile;
    var a = load_in(rows, tile_in_k(id));
    var w = load_w(expert, row0, tile_w_row(id), tile_w_k(id));
    for (var k = 0u; k < args.n_col; k += TILE_COLS) {
        tile_put(id, a, w);
        workgroupBarrier();
        a = load_in(rows, k + TILE_COLS + tile_in_k(id));
        w = load_w(expert, row0, tile_w_row(id), k + TILE_COLS + tile_w_k(id));
        tile_multiply(id, &sum);
        workgroupBarrier();
    }
    let place = tile_tok(id);
    let row = row0 + tile_row(id);
    store4(tile, place, row, sum.lo[0], sum.lo[2]);
    store4(tile, place, row + 16, sum.lo[1], sum.lo[3]);
    store4(tile, place + 4, row, sum.hi[0], sum.hi[2]);
    store4(tile, place + 4, row + 16, sum.hi[1], sum.hi[3]);
}
