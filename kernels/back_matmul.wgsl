// include: tile tile_columns tile_store4 tile_lines
// formats: A
// variants: matrix
// back_matmul: din[t, c] = old + scale * sum_r dout[t, dout0 + r] * W[r, c], r < n_row, c < n_col.
//   dout [n_tok, dout_stride], wA [n_row, n_col], din [n_tok, n_col]; old is din's value, or 0
//   unless `add`. n_col is a multiple of 16. The sum is cut as that of matmul: n_term rows each.
// Grid: x = ceil(n_col / 64), y = ceil(n_tok / 64), z = ceil(n_row / n_term); see lib/tile. f32.
// CPU twin: back_matmul().

struct Args {
    n_tok: u32, n_row: u32, n_col: u32, dout0: u32,
    dout_stride: u32, scale: f32, add: u32, n_term: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> lines: array<f32>; // dout
@group(0) @binding(2) var<storage, read> wA: array<WA>;
@group(0) @binding(3) var<storage, read_write> din: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> lines4: array<vec4<f32>>; // dout again

var<private> part0: u32; // where this workgroup's part begins

fn load_in(tok: u32, row: u32) -> mat4x4<f32> {
    return load_lines(tok, row, args.dout0, args.dout_stride, args.n_row);
}

fn ready_in(a: mat4x4<f32>) -> mat4x4<f32> { return a; }

fn load_w(row: u32, col: u32) -> Raw {
    if (row >= args.n_row || col >= args.n_col) { return Raw(); }
    return raw16A(row * (args.n_col / 16) + col / 16);
}

fn ready_w(w: Raw, row: u32) -> mat4x4<f32> { return expand16A(w); }

fn store(tok: u32, col: u32, value: vec4<f32>) {
    if (tok >= args.n_tok || col >= args.n_col) { return; }
    let i = (part0 + tok * args.n_col + col) / 4;
    var v = value * args.scale;
    if (args.add != 0) { v += din[i]; }
    din[i] = v;
}

@compute @workgroup_size(TILE_THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let row0 = wid.z * args.n_term;
    part0 = wid.z * args.n_tok * args.n_col;
    tile_store(id, wid.xy, tile_sum(id, wid.xy, row0, min(row0 + args.n_term, args.n_row)));
}
