// include: gelu tile tile_in
// formats: A B
// matmul_geglu: out[t, out0 + r] = gelu(gate) * up for t < n_tok, r < n_row, with
//   gate = scale_a * sum_k x[t, k] * A[a_row0 + r, k],
//   up = scale_b * sum_k x[t, k] * B[b_row0 + r, k].
//   With ADAPTED, gate += delta[t, 0, out0 + r] and up += delta[t, 1, out0 + r], what adapters add.
//   x [n_tok, n_col], delta [n_tok, 2, out_stride] (else not read), wA and wB rows of n_col values,
//   out [n_tok, out_stride]. n_col is a multiple of 16.
// Grid: x = ceil(n_row / 32), y = ceil(n_tok / 64); rows 0..31 of a tile (lib/tile) are of A and
// 32..63 of B, so that a thread holds both for rows tx and tx + 16. f32.
// CPU twin: ref_matmul() twice, ref_geglu().

override ADAPTED: u32 = 0;

struct Args {
    n_tok: u32, n_row: u32, n_col: u32, a_row0: u32,
    b_row0: u32, out0: u32, out_stride: u32, scale_a: f32,
    scale_b: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> wA: array<WA>;
@group(0) @binding(3) var<storage, read> wB: array<WB>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read> delta: array<f32>;

// row: of this workgroup's 32; tile_row: of the 64 of the tile.
fn load_w(row0: u32, tile_row: u32, k: u32) -> mat4x4<f32> {
    if (k >= args.n_col) { return mat4x4<f32>(); }
    let row = min(row0 + (tile_row & 31), args.n_row - 1);
    let n = args.n_col / 16;
    if (tile_row < 32) { return get16A((args.a_row0 + row) * n + k / 16); }
    return get16B((args.b_row0 + row) * n + k / 16);
}

fn store(tok: u32, row: u32, gate: f32, up: f32) {
    if (tok < args.n_tok && row < args.n_row) {
        let at = tok * args.out_stride + args.out0 + row;
        var sum = vec2(gate * args.scale_a, up * args.scale_b);
        if (ADAPTED != 0) {
            let d = at + tok * args.out_stride;
            sum += vec2(delta[d], delta[d + args.out_stride]);
        }
        out[at] = gelu(sum.x) * sum.y;
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
    var a = load_in(tok_in, tile_in_k(id));
    var w = load_w(row0, tile_w_row(id), tile_w_k(id));
    for (var k = 0u; k < args.n_col; k += TILE_COLS) {
        tile_put(id, a, w);
        workgroupBarrier();
        a = load_in(tok_in, k + TILE_COLS + tile_in_k(id));
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
