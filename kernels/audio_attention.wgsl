// audio_attention: what a token hears in itself and in the REACH - 1 tokens before it.
//   s[t, far] = q[t] * scale . (k_scale * k[t - far] + rel[far]), far < REACH and far <= t;
//   out[t] = sum_far softmax_far(cap * tanh(s / cap)) * v[t - far], each head by itself,
//   scale [head_dim] = q_scale * dim_scale.
//   qkv [n_tok, 3, n_head, head_dim], out [n_tok, n_head, head_dim], rel [REACH, n_head, head_dim],
//   head_dim a multiple of 4; dim_scale: head_dim values of vectors from w_dim on.
// Grid: x = ceil(n_tok / TOKENS), y = n_head; 256 threads. f32. CPU twin: hear() of audio_cpu.c.

override TOKENS: u32 = 16; // of a workgroup
const REACH = 12u;

struct Args {
    n_tok: u32, n_head: u32, head_dim: u32, w_dim: u32,
    q_scale: f32, k_scale: f32, cap: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> rel: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

var<workgroup> scores: array<f32, TOKENS * REACH>; // then probabilities

// Where a head of a row starts, in vec4. A token's rows of qkv are 3 tok .. 3 tok + 2.
fn head_at(row: u32, head: u32) -> u32 {
    return (row * args.n_head + head) * (args.head_dim / 4);
}

// How many tokens a token hears.
fn heard(tok: u32) -> u32 { return min(tok + 1, REACH); }

fn score(tok: u32, head: u32, far: u32) -> f32 {
    let at_q = head_at(3 * tok, head);
    let at_k = head_at(3 * (tok - far) + 1, head);
    let at_rel = head_at(far, head);
    var sum = vec4(0.0);
    for (var i = 0u; i < args.head_dim / 4; i++) {
        let scale = args.q_scale * vectors[args.w_dim / 4 + i];
        sum += qkv[at_q + i] * scale * (qkv[at_k + i] * args.k_scale + rel[at_rel + i]);
    }
    let s = (sum.x + sum.y + sum.z + sum.w) / args.cap;
    return args.cap * tanh(clamp(s, -15.0, 15.0));
}

fn softmax(at: u32, n: u32) {
    var top = scores[at];
    for (var i = 1u; i < n; i++) { top = max(top, scores[at + i]); }
    var sum = 0.0;
    for (var i = 0u; i < n; i++) {
        let p = exp(scores[at + i] - top);
        scores[at + i] = p;
        sum += p;
    }
    for (var i = 0u; i < n; i++) { scores[at + i] /= sum; }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let tok0 = wid.x * TOKENS;
    let n_tok = min(TOKENS, args.n_tok - tok0);
    for (var i = lid; i < n_tok * REACH; i += 256) {
        let tok = tok0 + i / REACH;
        if (i % REACH < heard(tok)) { scores[i] = score(tok, wid.y, i % REACH); }
    }
    workgroupBarrier();
    if (lid < n_tok) { softmax(lid * REACH, heard(tok0 + lid)); }
    workgroupBarrier();
    let n4 = args.head_dim / 4;
    for (var i = lid; i < n_tok * n4; i += 256) {
        let tok = tok0 + i / n4;
        var sum = vec4(0.0);
        for (var far = 0u; far < heard(tok); far++) {
            let v = qkv[head_at(3 * (tok - far) + 2, wid.y) + i % n4];
            sum += scores[i / n4 * REACH + far] * v;
        }
        out[head_at(tok, wid.y) + i % n4] = sum;
    }
}
