// include: reduce4 lanes stream lora lora_own lora_added
// lora_settle: lora_stream where the pending update lacks what adapters add to it:
//   update = raw + B u' (lib/lora_added), h = stream (lib/stream) goes to h_out, and u is made of
//   rms(h) * w_norm (lib/lora, n_col = n_embd) and stays in lora. One dispatch for two.
// Grid: ceil(n_rank / 4); each workgroup makes the update and norms the stream for itself. f32,
// A and B are f16; N_EMBD = n_embd, which must fit in workgroup memory.
// CPU twin: ref_rmsnorm(), ref_lora().

const LANES = 128u;
override N_EMBD: u32 = 256;

struct Args {
    n_embd: u32, n_col: u32, n_rank: u32, a0: u32,
    eps: f32, scale: f32, w_post: u32, w_norm: u32,
    rank: u32, b0: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> base: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> raw: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> added: array<u32>;
@group(0) @binding(5) var<storage, read_write> lora: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read_write> h_out: array<vec4<f32>>;

var<workgroup> update: array<vec4<f32>, N_EMBD / 4>;

fn input_value(i: u32) -> vec4<f32> {
    return stream_at(i) * stream.norm * vectors[args.w_norm / 4 + i];
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    for (var i = lid; i < N_EMBD / 4; i += 256) {
        var sum = raw[i];
        for (var k = 0u; k < args.rank / 2; k++) {
            let u = added_u(0, k);
            sum += vec4(dot(added_b(4 * i, k), u), dot(added_b(4 * i + 1, k), u),
                        dot(added_b(4 * i + 2, k), u), dot(added_b(4 * i + 3, k), u));
        }
        update[i] = sum;
    }
    workgroupBarrier();
    stream_open(lid);
    if (wid.x == 0) {
        for (var i = lid; i < N_EMBD / 4; i += 256) { h_out[i] = stream_at(i); }
    }
    lora_make(wid.x, lid);
}
