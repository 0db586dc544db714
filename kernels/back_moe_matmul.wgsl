// include: tile moe_tile tile_columns tile_store4
// formats: A
// back_moe_matmul: the way back through moe_matmul, for every selection by itself:
//   din[i, c] = old + f * sum_r dout[i / n_share, r] * A_e[row0 + r, c], r < n_row, c < n_col,
//   f = scales[scale0 + e], times weights[i] where `weighted`; old is din's value, or 0 unless
//   `add`. dout [.., n_row], din [n_pick, n_col]; n_row and n_col are multiples of 16. The others:
//   moe_matmul.
// Grid: x = ceil(n_col / 64), y = tiles; see lib/tile, to which places are tokens. f32.
// CPU twin: back_matmul().

struct Args {
    n_row: u32, n_col: u32, row0: u32, expert_rows: u32,
    expert0: u32, n_expert: u32, scale0: u32, n_share: u32,
    weighted: u32, add: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read> tiles: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> wA: array<WA>;
@group(0) @binding(7) var<storage, read_write> din: array<vec4<f32>>;

fn load_in(place: u32, row: u32) -> mat4x4<f32> {
    if (row >= args.n_row) { return mat4x4<f32>(); }
    let at = rows + row / 4;
    return mat4x4<f32>(dout[at.x], dout[at.y], dout[at.z], dout[at.w]);
}

fn ready_in(a: mat4x4<f32>) -> mat4x4<f32> { return a; }

fn load_w(row: u32, col: u32) -> Raw {
    if (row >= args.n_row || col >= args.n_col) { return Raw(); }
    let at = (tile.x - args.expert0) * args.expert_rows + args.row0 + row;
    return raw16A(at * (args.n_col / 16) + col / 16);
}

fn ready_w(w: Raw, row: u32) -> mat4x4<f32> { return expand16A(w); }

fn store(place: u32, col: u32, value: vec4<f32>) {
    if (place >= tile.z || col >= args.n_col) { return; }
    let i = order[tile.y + place];
    let at = (i * args.n_col + col) / 4;
    var v = value * scales[args.scale0 + tile.x];
    if (args.weighted != 0) { v *= weights[i]; }
    if (args.add != 0) { v += din[at]; }
    din[at] = v;
}

@compute @workgroup_size(TILE_THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    if (!moe_open(wid.y)) { return; }
    let at = vec2(wid.x, 0);
    moe_find_rows(id, args.n_share, args.n_row);
    tile_store(id, at, tile_sum(id, at, 0, args.n_row));
}
