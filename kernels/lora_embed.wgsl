// lora_embed: what adapters add to embeddings: x[t, i] += scale * sum_k B[i, k] f[k] A[ids[t], k].
//   lora: n_rank f32 factors f, then A [n_vocab, n_rank] from word a0 on and B [n_embd, n_rank]
//   from word b0 on, f16 pairs; x [n_tok, n_embd]. n_rank is even.
// Grid: (ceil(n_embd / 64), n_tok); a thread makes a value. f32, A and B are f16.
// CPU twin: ref_lora_embed().

struct Args { n_embd: u32, n_rank: u32, a0: u32, b0: u32, scale: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> lora: array<u32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = wid.x * 64 + lid;
    if (i >= args.n_embd) { return; }
    let n = args.n_rank / 2;
    let a = args.a0 + ids[wid.y] * n;
    let b = args.b0 + i * n;
    var sum = 0.0;
    for (var k = 0u; k < n; k++) {
        let f = vec2(bitcast<f32>(lora[2 * k]), bitcast<f32>(lora[2 * k + 1]));
        sum += dot(unpack2x16float(lora[b + k]), f * unpack2x16float(lora[a + k]));
    }
    x[wid.y * args.n_embd + i] += args.scale * sum;
}
