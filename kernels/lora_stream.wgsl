// include: reduce4 lanes stream lora lora_own
// lora_stream: u for one token whose input is the normed residual stream, before the stage that
//   takes the pending update: u[r] = factor[r] * sum_c A[r, c] x[c], x = rms(h) * w_norm,
//   h = stream (lib/stream). lora: see lib/lora, n_col = n_embd; u stays in it.
// Grid: ceil(n_rank / 4); each workgroup norms the stream for itself. f32, A is f16.
// CPU twin: ref_rmsnorm(), ref_lora().

const LANES = 128u;

struct Args {
    n_embd: u32, n_col: u32, n_rank: u32, a0: u32,
    eps: f32, scale: f32, w_post: u32, w_norm: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> base: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> update: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> lora: array<vec2<u32>>;

fn input_value(i: u32) -> vec4<f32> {
    return stream_at(i) * stream.norm * vectors[args.w_norm / 4 + i];
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    stream_open(lid);
    lora_make(wid.x, lid);
}
