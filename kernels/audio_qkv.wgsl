// include: tile tile_rows tile_store tile_in
// formats: A B C
// variants: matrix
// audio_qkv: three matrices of one input side by side: out[t, z, r] = clamp(scale * sum_k
//   clamp(x[t, k]) * W[r, k]) with W, scale and limits of q, k, v for z = 0, 1, 2.
//   x [n_tok, n_col], wA, wB, wC [n_row, n_col], out [n_tok, 3, n_row]. n_col is a multiple of 16.
// Grid: x = ceil(n_row / 64), y = ceil(n_tok / 64), z = 3; see lib/tile and matmul. Together they
// fill a device that one of them would not. f32. CPU twin: ref_clipped().

struct Args {
    n_tok: u32, n_row: u32, n_col: u32,
    q_scale: f32, q_in_min: f32, q_in_max: f32, q_out_min: f32, q_out_max: f32,
    k_scale: f32, k_in_min: f32, k_in_max: f32, k_out_min: f32, k_out_max: f32,
    v_scale: f32, v_in_min: f32, v_in_max: f32, v_out_min: f32, v_out_max: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> wA: array<WA>;
@group(0) @binding(3) var<storage, read> wB: array<WB>;
@group(0) @binding(4) var<storage, read> wC: array<WC>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

struct Limits { scale: f32, in_min: f32, in_max: f32, out_min: f32, out_max: f32 }
var<private> z: u32; // which matrix
var<private> limits: Limits;

fn limits_of() -> Limits {
    if (z == 0) {
        return Limits(args.q_scale, args.q_in_min, args.q_in_max, args.q_out_min, args.q_out_max);
    }
    if (z == 1) {
        return Limits(args.k_scale, args.k_in_min, args.k_in_max, args.k_out_min, args.k_out_max);
    }
    return Limits(args.v_scale, args.v_in_min, args.v_in_max, args.v_out_min, args.v_out_max);
}

fn load_in(tok: u32, k: u32) -> mat4x4<f32> { return load_x(tok, k); }

fn ready_in(a: mat4x4<f32>) -> mat4x4<f32> { return clip(a, limits.in_min, limits.in_max); }

fn load_w(row: u32, k: u32) -> Raw {
    if (k >= args.n_col) { return Raw(); }
    let i = min(row, args.n_row - 1) * (args.n_col / 16) + k / 16;
    if (z == 0) { return raw16A(i); }
    if (z == 1) { return raw16B(i); }
    return raw16C(i);
}

fn ready_w(w: Raw, row: u32) -> mat4x4<f32> {
    if (z == 0) { return expand16A(w); }
    if (z == 1) { return expand16B(w); }
    return expand16C(w);
}

fn store(tok: u32, row: u32, value: f32) {
    if (tok < args.n_tok && row < args.n_row) {
        out[(tok * 3 + z) * args.n_row + row] =
            clamp(value * limits.scale, limits.out_min, limits.out_max);
    }
}

@compute @workgroup_size(TILE_THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    z = wid.z;
    limits = limits_of();
    tile_store(id, wid.xy, tile_sum(id, wid.xy, 0, args.n_col));
}
