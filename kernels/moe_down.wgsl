// include: tile moe_tile tile_rows tile_store
// formats: A
// moe_down: the experts' share of every selection of moe_lists:
//   part[i, r] = weights[i] * scale[e] * A_e[r] . act[p], r < n_row,
//   for place p in order, of selection i and expert e.
//   act [n_pick, n_col], part [n_pick, n_row]; row r of expert e is row
//   (e - expert0) * n_row + r of wA; only experts expert0 .. + n_expert - 1 are in this binding,
//   the others' tiles are left alone. scales: from scale0 on a value an expert.
// Grid: x = ceil(n_row / 64), y = tiles; see lib/tile, to which places are tokens. f32.
// CPU twin: ref_matmul().

struct Args { n_row: u32, n_col: u32, expert0: u32, n_expert: u32, scale0: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read> tiles: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> act: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> wA: array<WA>;
@group(0) @binding(7) var<storage, read_write> part: array<f32>;

// Four columns of four places; repeats the last place beyond the end.
fn load_in(place: u32, k: u32) -> mat4x4<f32> {
    if (k >= args.n_col) { return mat4x4<f32>(); }
    let n = args.n_col / 4;
    let last = tile.z - 1;
    let at = tile.y * n + k / 4;
    return mat4x4<f32>(act[at + min(place, last) * n], act[at + min(place + 1, last) * n],
                       act[at + min(place + 2, last) * n], act[at + min(place + 3, last) * n]);
}

fn ready_in(a: mat4x4<f32>) -> mat4x4<f32> { return a; }

fn load_w(row: u32, k: u32) -> Raw {
    if (k >= args.n_col) { return Raw(); }
    let at = (tile.x - args.expert0) * args.n_row + min(row, args.n_row - 1);
    return raw16A(at * (args.n_col / 16) + k / 16);
}

fn ready_w(w: Raw, row: u32) -> mat4x4<f32> { return expand16A(w); }

fn store(place: u32, row: u32, value: f32) {
    if (place < tile.z && row < args.n_row) {
        let i = order[tile.y + place];
        part[i * args.n_row + row] = value * weights[i] * scales[args.scale0 + tile.x];
    }
}

@compute @workgroup_size(TILE_THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    if (!moe_open(wid.y)) { return; }
    let at = vec2(wid.x, 0);
    tile_store(id, at, tile_sum(id, at, 0, args.n_col));
}
