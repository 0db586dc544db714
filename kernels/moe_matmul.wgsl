// include: tile moe_tile tile_rows tile_store
// formats: A
// moe_matmul: every selection of moe_lists by its expert's matrix:
//   out[i, r] = scales[scale0 + e] * A_e[row0 + r] . x[i / n_share], r < n_row,
//   for selection i, of expert e. x [.., n_col]: n_share selections share a row (those of a token).
//   out [n_pick, n_row]; row r of expert e is row (e - expert0) * expert_rows + r of wA; only
//   experts expert0 .. + n_expert - 1 are in this binding, the others' tiles are left alone.
// Grid: x = ceil(n_row / 64), y = tiles; see lib/tile, to which places are tokens. f32.
// CPU twin: ref_matmul().

struct Args {
    n_row: u32, n_col: u32, row0: u32, expert_rows: u32,
    expert0: u32, n_expert: u32, scale0: u32, n_share: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read> tiles: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> wA: array<WA>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;

fn load_in(place: u32, k: u32) -> mat4x4<f32> {
    if (k >= args.n_col) { return mat4x4<f32>(); }
    let at = rows + k / 4;
    return mat4x4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]);
}

fn ready_in(a: mat4x4<f32>) -> mat4x4<f32> { return a; }

fn load_w(row: u32, k: u32) -> Raw {
    if (k >= args.n_col) { return Raw(); }
    let at = (tile.x - args.expert0) * args.expert_rows + args.row0 + min(row, args.n_row - 1);
    return raw16A(at * (args.n_col / 16) + k / 16);
}

fn ready_w(w: Raw, row: u32) -> mat4x4<f32> { return expand16A(w); }

fn store(place: u32, row: u32, value: f32) {
    if (place < tile.z && row < args.n_row) {
        out[order[tile.y + place] * args.n_row + row] = value * scales[args.scale0 + tile.x];
    }
}

@compute @workgroup_size(TILE_THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    if (!moe_open(wid.y)) { return; }
    let at = vec2(wid.x, 0);
    moe_find_rows(id, args.n_share, args.n_col);
    tile_store(id, at, tile_sum(id, at, 0, args.n_col));
}
