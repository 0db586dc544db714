// include: reduce4 step
// decode_attn: second stage of a layer, one token. Norms and rotates q (and k, and norms v, of this
// token, and stores both), then attends, split over the keys.
//   qkv: raw rows [n_head * head_dim | n_kv * head_dim | n_kv * head_dim] of this token; owner = 0:
//   only q, and this token's K and V are in the cache already; k_eq_v: v is the raw k.
//   keys, values: f16 pairs [n_slot, n_kv * head_dim / 2]; position p in slot p % n_slot.
//   Visible: p - window < key <= p (window 0: all).
//   out [n_split, n_head, head_dim] = sum over the split's keys of exp(s - m) v, unnormed;
//   stat [n_split, n_head] = (m, sum of exp(s - m)), m the largest score; scale 1.
// Grid: (n_kv * ceil(group / 4), n_split), group = n_head / n_kv: up to four heads that share K and
// V are the lanes of a vec4. 256 threads: while scoring, 8 of them share a key; while summing V,
// each has a pair of values of some of the keys. The last split has this token. head_dim is a power
// of two, at most 512. f32, K and V rounded to f16. CPU twin: text_cpu.c's attention.

const BLOCK = 128u; // keys whose scores are kept at a time
const FAR = -1e30;

struct Args {
    n_head: u32, n_kv: u32, head_dim: u32, n_rot: u32,
    window: u32, n_slot: u32, owner: u32, k_eq_v: u32,
    w_q: u32, w_k: u32, eps: f32, n_split: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> vectors: array<f32>;
@group(0) @binding(4) var<storage, read> rope: array<vec2<f32>>; // [n_rot] (cos, sin)
@group(0) @binding(5) var<storage, read_write> keys: array<u32>;
@group(0) @binding(6) var<storage, read_write> values: array<u32>;
@group(0) @binding(7) var<storage, read_write> out: array<f32>;
@group(0) @binding(8) var<storage, read_write> stat: array<vec2<f32>>;

var<workgroup> q: array<vec4<f32>, 512>;      // [head_dim], four heads
var<workgroup> score: array<vec4<f32>, 128>;  // [BLOCK], four heads

// Four heads' raw q at dimension i; lanes beyond the group repeat its last head.
fn raw_q(head: vec4<u32>, i: u32) -> vec4<f32> {
    let d = args.head_dim;
    return vec4(qkv[head.x * d + i], qkv[head.y * d + i], qkv[head.z * d + i], qkv[head.w * d + i]);
}

fn load_q(head: vec4<u32>, lid: u32) {
    let d = args.head_dim;
    var squares = vec4(0.0);
    for (var i = lid; i < d; i += 256) {
        let x = raw_q(head, i);
        squares += x * x;
    }
    let norm = inverseSqrt(workgroup_sum4(squares, lid) / f32(d) + args.eps);
    for (var i = lid; i < d / 2; i += 256) {
        let a = raw_q(head, i) * norm * vectors[args.w_q + i];
        let b = raw_q(head, i + d / 2) * norm * vectors[args.w_q + i + d / 2];
        var r = vec2(1.0, 0.0);
        if (i < args.n_rot) { r = rope[i]; }
        q[i] = a * r.x - b * r.y;
        q[i + d / 2] = b * r.x + a * r.y;
    }
    workgroupBarrier();
}

// This token's k (normed, rotated) and v (normed) of a kv head, in reduce4_memory: entry i holds
// (k, v) of dimension i and of i + head_dim / 2.
fn load_kv(kv: u32, lid: u32) {
    let d = args.head_dim;
    let k0 = (args.n_head + kv) * d;
    var v0 = k0;
    if (args.k_eq_v == 0) { v0 += args.n_kv * d; }
    var squares = vec4(0.0);
    for (var i = lid; i < d; i += 256) {
        let k = qkv[k0 + i];
        let v = qkv[v0 + i];
        squares += vec4(k * k, v * v, 0.0, 0.0);
    }
    let norm = inverseSqrt(workgroup_sum4(squares, lid) / f32(d) + args.eps);
    for (var i = lid; i < d / 2; i += 256) {
        let j = i + d / 2;
        let a = qkv[k0 + i] * norm.x * vectors[args.w_k + i];
        let b = qkv[k0 + j] * norm.x * vectors[args.w_k + j];
        var r = vec2(1.0, 0.0);
        if (i < args.n_rot) { r = rope[i]; }
        reduce4_memory[i] = vec4(a * r.x - b * r.y, qkv[v0 + i] * norm.y,
                                 b * r.x + a * r.y, qkv[v0 + j] * norm.y);
    }
    workgroupBarrier();
}

// (k, v) of dimension i of what load_kv() left.
fn loaded_kv(i: u32) -> vec2<f32> {
    let half = args.head_dim / 2;
    let both = reduce4_memory[i % half];
    return select(both.zw, both.xy, i < half);
}

// Scores of the keys at first .. first + n - 1, n <= BLOCK, into score; FAR beyond n.
fn score_block(kv: u32, first: u32, n: u32, lid: u32) {
    let words = args.head_dim / 2;
    for (var j0 = 0u; j0 < BLOCK; j0 += 32) {
        let j = j0 + lid / 8;
        var s = vec4(0.0);
        if (j < n) {
            let row = ((first + j) % args.n_slot) * args.n_kv * words + kv * words;
            for (var w = (lid % 8) * 4; w < words; w += 32) {
                for (var i = 0u; i < 4; i++) {
                    let k = unpack2x16float(keys[row + w + i]);
                    s += q[2 * (w + i)] * k.x + q[2 * (w + i) + 1] * k.y;
                }
            }
        }
        reduce4_memory[lid] = s;
        workgroupBarrier();
        if (lid < 32) {
            var sum = vec4(FAR);
            if (j0 + lid < n) {
                sum = reduce4_memory[lid * 8];
                for (var i = 1u; i < 8; i++) { sum += reduce4_memory[lid * 8 + i]; }
            }
            score[j0 + lid] = sum;
        }
        workgroupBarrier();
    }
}

// Sum over the threads that hold the same pair of values (lid % words), in the first of them.
fn sum_pairs(v: vec4<f32>, words: u32, lid: u32) -> vec4<f32> {
    reduce4_memory[lid] = v;
    workgroupBarrier();
    var sum = vec4(0.0);
    if (lid < words) {
        for (var i = lid; i < 256; i += words) { sum += reduce4_memory[i]; }
    }
    workgroupBarrier();
    return sum;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let d = args.head_dim;
    let words = d / 2;
    let group = args.n_head / args.n_kv;
    let quads = (group + 3) / 4;
    let kv = wid.x / quads;
    let lane = wid.x % quads * 4; // first head of the four, within the group
    let head = kv * group + min(vec4(lane) + vec4(0u, 1u, 2u, 3u), vec4(group - 1));
    load_q(head, lid);

    // The keys of this split: all visible ones but this token's, cut evenly.
    var low = 0u;
    if (args.window > 0 && step.pos + 1 > args.window) { low = step.pos + 1 - args.window; }
    let high = step.pos + 1 - args.owner;
    let per = (high - low + args.n_split - 1) / args.n_split;
    let first = min(low + wid.y * per, high);
    let end = min(first + per, high);

    var most = vec4(FAR);
    var total = vec4(0.0);
    var even = vec4(0.0); // this thread's pair of values: sums of four heads
    var odd = vec4(0.0);
    if (args.owner != 0 && wid.y == args.n_split - 1) {
        load_kv(kv, lid);
        var s = vec4(0.0);
        var v = vec2(0.0);
        if (lid < words) {
            let a = loaded_kv(2 * lid);
            let b = loaded_kv(2 * lid + 1);
            let k_pair = pack2x16float(vec2(a.x, b.x));
            let v_pair = pack2x16float(vec2(a.y, b.y));
            if (lane == 0) {
                let at = (step.pos % args.n_slot) * args.n_kv * words + kv * words + lid;
                keys[at] = k_pair;
                values[at] = v_pair;
            }
            let k = unpack2x16float(k_pair);
            v = unpack2x16float(v_pair);
            s = q[2 * lid] * k.x + q[2 * lid + 1] * k.y;
        }
        workgroupBarrier();
        most = workgroup_sum4(s, lid);
        total = vec4(1.0);
        even = vec4(v.x);
        odd = vec4(v.y);
    }

    let word = lid % words;
    for (var k0 = first; k0 < end; k0 += BLOCK) {
        let n = min(BLOCK, end - k0);
        score_block(kv, k0, n, lid);
        let now = max(most, workgroup_max4(score[lid % BLOCK], lid));
        let shrink = exp(most - now);
        most = now;
        if (lid < BLOCK) { score[lid] = exp(score[lid] - now); }
        workgroupBarrier();
        var part = vec4(0.0);
        if (lid < BLOCK) { part = score[lid]; }
        total = total * shrink + workgroup_sum4(part, lid);
        even *= shrink;
        odd *= shrink;
        for (var j = lid / words; j < n; j += 256 / words) {
            let row = ((k0 + j) % args.n_slot) * args.n_kv * words + kv * words;
            let v = unpack2x16float(values[row + word]);
            even += score[j] * v.x;
            odd += score[j] * v.y;
        }
        workgroupBarrier();
    }

    even = sum_pairs(even, words, lid);
    odd = sum_pairs(odd, words, lid);
    if (lid < words) {
        for (var h = 0u; h < min(4u, group - lane); h++) {
            let at = wid.y * args.n_head + head[h];
            out[at * d + 2 * lid] = even[h];
            out[at * d + 2 * lid + 1] = odd[h];
            if (lid == 0) { stat[at] = vec2(most[h], total[h]); }
        }
    }
}
