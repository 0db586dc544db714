// include: tile tile_in
// formats: A
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

fn load_clipped(tok: u32, k: u32) -> mat4x4<f32> {
    let m = load_in(tok, k);
    let low = vec4(args.in_min);
    let high = vec4(args.in_max);
    return mat4x4<f32>(clamp(m[0], low, high), clamp(m[1], low, high), clamp(m[2], low, high),
                       clamp(m[3], low, high));
}

fn load_w(row: u32, k: u32) -> mat4x4<f32> {
    if (k >= args.n_col) { return mat4x4<f32>(); }
    return get16A(min(row, args.n_row - 1) * (args.n_col / 16) + k / 16);
}

fn store(tok: u32, row: u32, part: u32, value: f32) {
    if (tok < args.n_tok && row < args.n_row) {
        var y = clamp(value * args.scale, args.out_min, args.out_max);
        if (args.silu == 1) { y /= 1.0 + exp(-max(y, -80.0)); } // less than that is 0
        out[(part * args.n_tok + tok) * args.out_stride + args.out0 + row] = y;
    }
}

fn store4(tok: u32, row: u32, part: u32, v: vec4<f32>) {
    store(tok, row, part, v.x);
    store(tok + 1, row, part, v.y);
    store(tok + 2, row, part, v.z);
    store(tok + 3, row, part, v.w);
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let tok_in = wid.y * 64 + tile_in_tok(id);
    let row_in = wid.x * 64 + tile_w_row(id);
    let k0 = wid.z * args.k_part;
    let end = min(k0 + args.k_part, args.n_col);
    var sum: Tile;
    var a = load_clipped(tok_in, k0 + tile_in_k(id));
    var w = load_w(row_in, k0 + tile_w_k(id));
    for (var k = k0; k < end; k += TILE_COLS) {
        tile_put(id, a, w);
        workgroupBarrier();
        a = load_clipped(tok_in, k + TILE_COLS + tile_in_k(id));
        w = load_w(row_in, k + TILE_COLS + tile_w_k(id));
        tile_multiply(id, &sum);
        workgroupBarrier();
    }
    let tok = wid.y * 64 + tile_tok(id);
    let row = wid.x * 64 + tile_row(id);
    store4(tok, row, wid.z, sum.lo[0]);
    store4(tok, row + 16, wid.z, sum.lo[1]);
    store4(tok, row + 32, wid.z, sum.lo[2]);
    store4(tok, row + 48, wid.z, sum.lo[3]);
    store4(tok + 4, row, wid.z, sum.hi[0]);
    store4(tok + 4, row + 16, wid.z, sum.hi[1]);
    store4(tok + 4, row + 32, wid.z, sum.hi[2]);
    store4(tok + 4, row + 48, wid.z, sum.hi[3]);
}
