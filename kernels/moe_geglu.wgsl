// include: gelu tile moe_tile tile_rows pair_rows tile_pair
// formats: A B
// moe_geglu: gate, up and GELU of the experts, for all selections of moe_lists:
//   act[p, r] = gelu(scale_a[e] * A_e[r] . x[t]) * (scale_b[e] * B_e[r] . x[t]), r < n_row,
//   for place p in order, of expert e and token t.
//   x [n_tok, n_col]; row r of expert e is row (e - a_expert0) * a_rows + r of wA and row
//   (e - b_expert0) * b_rows + b_row0 + r of wB. Only tiles of experts expert0 .. + n_expert - 1
//   are done, which these bindings hold. scales: from scale0 on n_scale values for A, then for B.
// Grid: x = ceil(n_row / 32), y = tiles; see lib/tile, to which places are tokens, and tile_pair.
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

fn load_in(place: u32, k: u32) -> mat4x4<f32> {
    if (k >= args.n_col) { return mat4x4<f32>(); }
    let at = rows + k / 4;
    return mat4x4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]);
}

fn ready_in(a: mat4x4<f32>) -> mat4x4<f32> { return a; }

fn load_w(tile_row: u32, k: u32) -> Raw {
    if (k >= args.n_col) { return Raw(); }
    let row = min(pair_row(tile_row), args.n_row - 1);
    let n = args.n_col / 16;
    if (pair_is_first(tile_row)) {
        return raw16A(((tile.x - args.a_expert0) * args.a_rows + row) * n + k / 16);
    }
    return raw16B(((tile.x - args.b_expert0) * args.b_rows + args.b_row0 + row) * n + k / 16);
}

fn ready_w(w: Raw, tile_row: u32) -> mat4x4<f32> {
    if (pair_is_first(tile_row)) { return expand16A(w); }
    return expand16B(w);
}

fn store(place: u32, row: u32, gate: f32, up: f32) {
    if (place < tile.z && row < args.n_row) {
        let scale = args.scale0 + tile.x;
        let g = gelu(gate * scales[scale]);
        act[(tile.y + place) * args.n_row + row] = g * up * scales[scale + args.n_scale];
    }
}

@compute @workgroup_size(TILE_THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    if (!moe_open(wid.y)) { return; }
    let at = vec2(wid.x, 0);
    moe_find_rows(id, args.n_used, args.n_col);
    tile_store(id, at, tile_sum(id, at, 0, args.n_col));
}
