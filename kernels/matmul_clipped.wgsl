// include: tile tile_rows tile_store tile_in
// formats: A
// variants: matrix
// matmul_clipped: out[t, out0 + r] = clamp(scale * sum_k clamp(x[t, k]) * W[r, k]), with limits of
//   the input and of the output, then y * sigmoid(y) of that if silu is 1; t < n_tok, r < n_row.
//   x [n_tok, n_col], wA rows of n_col values, out [n_tok, out_stride]. n_col is a multiple of 16.
//   With several parts out is [n_part, n_tok, out_stride]: part z sums k_part columns (a multiple
//   of 32) from k_part z on, and whoever adds the parts clamps: few tokens then fill a device, too.
// Grid: x = ceil(n_row / 64), y = ceil(n_tok / 64), z = n_part; see lib/tile and matmul. f32.
// CPU twin: ref_clipped().

struct Args {
    n_tok: u32, n_row: u32, n_col: u32, out0: u32,
    out_stride: u32, scale: f32, in_min: f32, in_max: f32,
    out_min: f32, out_max: f32, silu: u32, k_part: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> wA: array<WA>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

var<private> part: u32; // wid.z

fn load_in(tok: u32, k: u32) -> mat4x4<f32> { return load_x(tok, k); }

fn ready_in(a: mat4x4<f32>) -> mat4x4<f32> { return clip(a, args.in_min, args.in_max); }

fn load_w(row: u32, k: u32) -> Raw {
    if (k >= args.n_col) { return Raw(); }
    return raw16A(min(row, args.n_row - 1) * (args.n_col / 16) + k / 16);
}

fn ready_w(w: Raw, row: u32) -> mat4x4<f32> { return expand16A(w); }

fn store(tok: u32, row: u32, value: f32) {
    if (tok < args.n_tok && row < args.n_row) {
        var y = clamp(value * args.scale, args.out_min, args.out_max);
        if (args.silu == 1) { y /= 1.0 + exp(-max(y, -80.0)); } // less than that is 0
        out[(part * args.n_tok + tok) * args.out_stride + args.out0 + row] = y;
    }
}

@compute @workgroup_size(TILE_THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    part = wid.z;
    let k0 = wid.z * args.k_part;
    let end = min(k0 + args.k_part, args.n_col);
    tile_store(id, wid.xy, tile_sum(id, wid.xy, k0, end));
}
