// include: gelu tile tile_rows pair_rows tile_pair tile_in
// formats: A B
// variants: matrix
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

fn load_in(tok: u32, k: u32) -> mat4x4<f32> { return load_x(tok, k); }

fn ready_in(a: mat4x4<f32>) -> mat4x4<f32> { return clip(a, args.in_min, args.in_max); }

fn load_w(tile_row: u32, k: u32) -> Raw {
    if (k >= args.n_col) { return Raw(); }
    let row = min(pair_row(tile_row), args.n_row - 1);
    let n = args.n_col / 16;
    if (pair_is_first(tile_row)) { return raw16A((args.a_row0 + row) * n + k / 16); }
    return raw16B((args.b_row0 + row) * n + k / 16);
}

fn ready_w(w: Raw, tile_row: u32) -> mat4x4<f32> {
    if (pair_is_first(tile_row)) { return expand16A(w); }
    return expand16B(w);
}

fn store(tok: u32, row: u32, gate: f32, up: f32) {
    if (tok < args.n_tok && row < args.n_row) {
        let g = gelu(clamp(gate * args.scale_a, args.gate_min, args.gate_max));
        out[tok * args.out_stride + args.out0 + row] =
            g * clamp(up * args.scale_b, args.up_min, args.up_max);
    }
}

@compute @workgroup_size(TILE_THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    tile_store(id, wid.xy, tile_sum(id, wid.xy, 0, args.n_col));
}
