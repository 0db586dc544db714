// include: reduce4 stream
// settle: writes the residual stream with its pending update (lib/stream), one token.
// Grid: 1. f32. CPU twin: ref_rmsnorm().

struct Args { n_embd: u32, eps: f32, scale: f32, w_post: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> base: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> update: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lid: u32) {
    stream_open(lid);
    for (var i = lid; i < args.n_embd / 4; i += 256) { out[i] = stream_at(i); }
}
