// include: reduce4 stream
// decode_norm: after the last layer, one token. h = stream (lib/stream), out = rms(h) * w_norm.
//   Also clears the work of topk_count: histogram [n_clear].
// Grid: 1. f32. CPU twin: ref_rmsnorm().

struct Args { n_embd: u32, n_clear: u32, eps: f32, scale: f32, w_post: u32, w_norm: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> base: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> update: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> histogram: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lid: u32) {
    for (var i = lid; i < args.n_clear; i += 256) { histogram[i] = 0; }
    stream_open(lid);
    for (var i = lid; i < args.n_embd / 4; i += 256) {
        out[i] = stream_at(i) * stream.norm * vectors[args.w_norm / 4 + i];
    }
}
