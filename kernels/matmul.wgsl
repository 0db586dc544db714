// include: tile tile_rows tile_store tile_in
// formats: A
// variants: matrix
// matmul: out[t, out0 + r] = old + scale * sum_k x[t, k] * W[row0 + r, k], t < n_tok, r < n_row.
//   x [n_tok, n_col], wA rows [row0, row0 + n_row) of n_col values, out [n_tok, out_stride]; old is
//   out's value, or 0 unless `add`. n_col is a multiple of 16.
//   With few tokens and rows the sum is cut: workgroups z take n_term columns each, a multiple of
//   16, and leave part z of out [z, n_tok, out_stride] to sum_parts.
// Grid: x = ceil(n_row / 64), y = ceil(n_tok / 64), z = ceil(n_col / n_term); see lib/tile. f32.
// CPU twin: ref_matmul().

struct Args {
    n_tok: u32, n_row: u32, n_col: u32, row0: u32,
    out0: u32, out_stride: u32, scale: f32, add: u32,
    n_term: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> wA: array<WA>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

var<private> part0: u32; // where this workgroup's part begins

fn load_in(tok: u32, k: u32) -> mat4x4<f32> { return load_x(tok, k); }

fn ready_in(a: mat4x4<f32>) -> mat4x4<f32> { return a; }

fn load_w(row: u32, k: u32) -> Raw {
    if (k >= args.n_col) { return Raw(); }
    return raw16A((args.row0 + min(row, args.n_row - 1)) * (args.n_col / 16) + k / 16);
}

fn ready_w(w: Raw, row: u32) -> mat4x4<f32> { return expand16A(w); }

fn store(tok: u32, row: u32, value: f32) {
    if (tok < args.n_tok && row < args.n_row) {
        let i = part0 + tok * args.out_stride + args.out0 + row;
        var v = value * args.scale;
        if (args.add != 0) { v += out[i]; }
        out[i] = v;
    }
}

@compute @workgroup_size(TILE_THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let k0 = wid.z * args.n_term;
    part0 = wid.z * args.n_tok * args.out_stride;
    tile_store(id, wid.xy, tile_sum(id, wid.xy, k0, min(k0 + args.n_term, args.n_col)));
}
