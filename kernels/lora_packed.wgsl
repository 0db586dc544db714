// include: reduce4 lora
// lora_packed: lora_down for one token whose input decode_ffn has packed: 16-bit integers in groups
//   of 16 (lib/dot64), elements 3 g .. 3 g + 2 of group g.
//   u [n_rank]; lora: see lib/lora. n_col is a multiple of 16.
// Grid: ceil(n_rank / 4). f32, A is f16. CPU twin: ref_lora().

struct Args { n_col: u32, n_rank: u32, a0: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> lora: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> u: array<f32>;

fn signed_bytes(w: u32) -> vec4<f32> {
    return vec4<f32>(bitcast<vec4<i32>>(vec4(w) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u));
}

fn input_value(tok: u32, i: u32) -> vec4<f32> {
    let g = i / 4 * 3;
    let q = signed_bytes(x[g][i % 4]) * 256.0 + signed_bytes(x[g + 1][i % 4]);
    return q * bitcast<f32>(x[g + 2].x);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    lora_rows(0u, wid.x, lid);
}
