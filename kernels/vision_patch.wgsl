// include: tile
// formats: A
// vision_patch: patches to the residual stream:
//   out[t, out0 + r] = scale * sum_k (2 p[t, k] - 1) * W[r, k] + places[t % n_wide, out0 + r] +
//     places[n_wide + t / n_wide, out0 + r].
//   p [n_tok, n_col] bytes as [0, 1], in W's order; wA rows of n_col values;
//   places [.., out_stride] of the columns of patches, then of their rows;
//   out [n_tok, out_stride]. n_col is a multiple of 16.
// Grid: x = ceil(n_row / 64), y = ceil(n_tok / 64); see lib/tile and matmul. f32.
// CPU twin: vision_cpu.c.

struct Args {
    n_tok: u32, n_row: u32, n_col: u32, n_wide: u32,
    out0: u32, out_stride: u32, scale: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> pixels: array<u32>;
@group(0) @binding(2) var<storage, read> wA: array<WA>;
@group(0) @binding(3) var<storage, read> places: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

// Four pixels of a patch; repeats the last patch beyond the end.
fn levels(tok: u32, k: u32) -> vec4<f32> {
    let word = pixels[(min(tok, args.n_tok - 1) * args.n_col + k) / 4];
    return unpack4x8unorm(word) * 2.0 - 1.0;
}

fn load_in(tok: u32, k: u32) -> mat4x4<f32> {
    if (k >= args.n_col) { return mat4x4<f32>(); }
    return mat4x4<f32>(levels(tok, k), levels(tok + 1, k), levels(tok + 2, k), levels(tok + 3, k));
}

fn load_w(row: u32, k: u32) -> mat4x4<f32> {
    if (k >= args.n_col) { return mat4x4<f32>(); }
    return get16A(min(row, args.n_row - 1) * (args.n_col / 16) + k / 16);
}

fn store(tok: u32, row: u32, value: f32) {
    if (tok < args.n_tok && row < args.n_row) {
        let r = args.out0 + row;
        let col_place = places[tok % args.n_wide * args.out_stride + r];
        let row_place = places[(args.n_wide + tok / args.n_wide) * args.out_stride + r];
        out[tok * args.out_stride + r] = value * args.scale + (col_place + row_place);
    }
}

fn store4(tok: u32, row: u32, v: vec4<f32>) {
    store(tok, row, v.x);
    store(tok + 1, row, v.y);
    store(tok + 2, row, v.z);
    store(tok + 3, row, v.w);
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let tok_in = wid.y * 64 + tile_in_tok(id);
    let row_in = wid.x * 64 + tile_w_row(id);
    var sum: Tile;
    var a = load_in(tok_in, tile_in_k(id));
    var w = load_w(row_in, tile_w_k(id));
    for (var k = 0u; k < args.n_col; k += TILE_COLS) {
        tile_put(id, a, w);
        workgroupBarrier();
        a = load_in(tok_in, k + TILE_COLS + tile_in_k(id));
        w = load_w(row_in, k + TILE_COLS + tile_w_k(id));
        tile_multiply(id, &sum);
        workgroupBarrier();
    }
    let tok = wid.y * 64 + tile_tok(id);
    let row = wid.x * 64 + tile_row(id);
    store4(tok, row, sum.lo[0]);
    store4(tok, row + 16, sum.lo[1]);
    store4(tok, row + 32, sum.lo[2]);
    store4(tok, row + 48, sum.lo[3]);
    store4(tok + 4, row, sum.hi[0]);
    store4(tok + 4, row + 16, sum.hi[1]);
    store4(tok + 4, row + 32, sum.hi[2]);
    store4(tok + 4, row + 48, sum.hi[3]);
}
