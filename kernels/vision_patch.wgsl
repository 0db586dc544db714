// include: tile tile_rows tile_store
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

fn ready_in(a: mat4x4<f32>) -> mat4x4<f32> { return a; }

fn load_w(row: u32, k: u32) -> Raw {
    if (k >= args.n_col) { return Raw(); }
    return raw16A(min(row, args.n_row - 1) * (args.n_col / 16) + k / 16);
}

fn ready_w(w: Raw, row: u32) -> mat4x4<f32> { return expand16A(w); }

fn store(tok: u32, row: u32, value: f32) {
    if (tok < args.n_tok && row < args.n_row) {
        let r = args.out0 + row;
        let col_place = places[tok % args.n_wide * args.out_stride + r];
        let row_place = places[(args.n_wide + tok / args.n_wide) * args.out_stride + r];
        out[tok * args.out_stride + r] = value * args.scale + (col_place + row_place);
    }
}

@compute @workgroup_size(TILE_THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    tile_store(id, wid.xy, tile_sum(id, wid.xy, 0, args.n_col));
}
