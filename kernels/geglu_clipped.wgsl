// include: gelu tile tile_in
// formats: A B
// geglu_clipped: out[t, out0 + r] = gelu(gate) * up for t < n_tok, r < n_row, with
//   gate = clamp(scale_a * sum_k clamp(x[t, k]) * A[a_row0 + r, k]) to gate_min .. gate_max,
//   up = clamp(scale_b * sum_k clamp(x[t, k]) * B[b_row0 + r, k]) to up_min .. up_max.
//   x [n_tok, n_col], wA and wB rows of n_col values, out [n_tok, out_stride]. n_col is a multiple
//   of 16.
// Grid: x = ceil(n_row / 32), y = ceil(n_tok / 64); see matmul_geglu. f32.
// CPU twin: ref_clipped() twice, ref_geglu().

struct Args {
    n_tok: u32, n_row: u32, n_col: u32, a_row0: u32,
    b_row0: u32, out0: u32, out_stride: u32, scale_a: f32,
    scale_b: f32, in_min: f32, in_max: f32, gate_min: f32,
    gate_max: f32, up_min: f32, up_max: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> wA: array<WA>;
@group(0) @binding(3) var<storage, read> wB: array<WB>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

fn load_clipped(tok: u32, k: u32) -> mat4x4<f32> {
    let m = load_in(tok, k);
    let low = vec4(args.in_min);
    let high = vec4(args.in_max);
    return mat4x4<f32>(clamp(m[0], low, high), clamp(m[1], low, high), clamp(m[2], low, high),
                       clamp(m[3], low, high));
}

// row0: of this workgroup's 32; tile_row: of the 64 of the tile.
fn load_w(row0: u32, tile_row: u32, k: u32) -> mat4x4<f32> {
    if (k >= args.n_col) { return mat4x4<f32>(); }
    let row = min(row0 + (tile_row & 31), args.n_row - 1);
    let n = args.n_col / 16;
    if (tile_row < 32) { return get16A((args.a_row0 + row) * n + k / 16); }
    return get16B((args.b_row0 + row) * n + k / 16);
}

fn store(tok: u32, row: u32, gate: f32, up: f32) {
    if (tok < args.n_tok && row < args.n_row) {
        let g = gelu(clamp(gate * args.scale_a, args.gate_min, args.gate_max));
        out[tok * args.out_stride + args.out0 + row] =
            g * clamp(up * args.scale_b, args.up_min, args.up_max);
    }
}

fn store4(tok: u32, row: u32, gate: vec4<f32>, up: vec4<f32>) {
    store(tok, row, gate.x, up.x);
    store(tok + 1, row, gate.y, up.y);
    store(tok + 2, row, gate.z, up.z);
    store(tok + 3, row, gate.w, up.w);
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let tok_in = wid.y * 64 + tile_in_tok(id);
    let row0 = wid.x * 32;
    var sum: Tile;
    var a = load_clipped(tok_in, tile_in_k(id));
    var w = load_w(row0, tile_w_row(id), tile_w_k(id));
    for (var k = 0u; k < args.n_col; k += TILE_COLS) {
        tile_put(id, a, w);
        workgroupBarrier();
        a = load_clipped(tok_in, k + TILE_COLS + tile_in_k(id));
        w = load_w(row0, tile_w_row(id), k + TILE_COLS + tile_w_k(id));
        tile_multiply(id, &sum);
        workgroupBarrier();
    }
    let tok = wid.y * 64 + tile_tok(id);
    let row = row0 + tile_row(id);
    store4(tok, row, sum.lo[0], sum.lo[2]);
    store4(tok, row + 16, sum.lo[1], sum.lo[3]);
    store4(tok + 4, row, sum.hi[0], sum.hi[2]);
    store4(tok + 4, row + 16, sum.hi[1], sum.hi[3]);
}
