// own_token: q, k and v of the token that decode_attn attends for: normed, rotated, and k and v
// stored. Needs decode_attn's bindings, its q (laid out by q_slot()), workgroup_sum4(), chunk_of()
// and dot_pair().

// Four heads' raw q at dimension i; lanes beyond the group repeat its last head.
fn raw_q(head: vec4<u32>, i: u32) -> vec4<f32> {
    let at = head * HEAD_DIM + i;
    return vec4(qkv[at.x], qkv[at.y], qkv[at.z], qkv[at.w]);
}

// Raw k and v at dimension i.
fn raw_kv(kv: u32, i: u32) -> vec2<f32> {
    let k = qkv[(args.n_head + kv) * HEAD_DIM + i];
    if (args.k_eq_v != 0) { return vec2(k); }
    return vec2(k, qkv[(args.n_head + args.n_kv + kv) * HEAD_DIM + i]);
}

fn q_slot(i: u32) -> u32 { return i % 8 * 64 + i / 8; }

fn rotated(a: vec4<f32>, b: vec4<f32>, i: u32) -> mat2x4<f32> {
    if (i >= args.n_rot) { return mat2x4<f32>(a, b); }
    let r = rope[i];
    return mat2x4<f32>(a * r.x - b * r.y, b * r.x + a * r.y);
}

// q, normed and rotated, into q. With own also this token's k (normed, rotated) and v (normed) into
// reduce4_memory: entry i holds (k, v) of dimension i and of i + HEAD_DIM / 2.
fn load_qkv(head: vec4<u32>, kv: u32, own: bool, lid: u32) {
    var q2 = vec4(0.0);
    var kv2 = vec2(0.0);
    for (var i = lid; i < HEAD_DIM; i += 256) {
        let x = raw_q(head, i);
        q2 += x * x;
        if (own) {
            let y = raw_kv(kv, i);
            kv2 += y * y;
        }
    }
    let q_norm = inverseSqrt(workgroup_sum4(q2, lid) / f32(HEAD_DIM) + args.eps);
    var kv_norm = vec4(0.0);
    if (own) {
        let sum = workgroup_sum4(vec4(kv2, 0.0, 0.0), lid);
        kv_norm = inverseSqrt(sum / f32(HEAD_DIM) + args.eps);
    }
    for (var i = lid; i < HEAD_DIM / 2; i += 256) {
        let j = i + HEAD_DIM / 2;
        let x = rotated(raw_q(head, i) * q_norm * vectors[args.w_q + i],
                        raw_q(head, j) * q_norm * vectors[args.w_q + j], i);
        q[q_slot(i)] = x[0];
        q[q_slot(j)] = x[1];
        if (own) {
            let a = raw_kv(kv, i) * kv_norm.xy;
            let b = raw_kv(kv, j) * kv_norm.xy;
            let k = rotated(vec4(a.x * vectors[args.w_k + i]),
                            vec4(b.x * vectors[args.w_k + j]), i);
            reduce4_memory[i] = vec4(k[0].x, a.y, k[1].x, b.y);
        }
    }
    workgroupBarrier();
}

// (k, v) of dimension i of what load_qkv() left.
fn loaded_kv(i: u32) -> vec2<f32> {
    let half = HEAD_DIM / 2;
    let both = reduce4_memory[i % half];
    return select(both.zw, both.xy, i < half);
}

// A pair of this token's k and v as stored, and the pair's part of the four scores.
struct Stored { k: u32, v: u32, score: vec4<f32> }

fn store_pair(c: u32, e: u32) -> Stored {
    let a = loaded_kv(8 * c + e);
    let b = loaded_kv(8 * c + e + 1);
    let k_pair = pack2x16float(vec2(a.x, b.x));
    return Stored(k_pair, pack2x16float(vec2(a.y, b.y)), dot_pair(k_pair, c, e));
}

// Rounds this token's k and v of chunk c (8 values) as stored, stores them when asked, and returns
// the chunk's part of the four scores.
fn store_kv(kv: u32, c: u32, store: bool, v_chunk: ptr<function, vec4<u32>>) -> vec4<f32> {
    let p0 = store_pair(c, 0);
    let p1 = store_pair(c, 2);
    let p2 = store_pair(c, 4);
    let p3 = store_pair(c, 6);
    *v_chunk = vec4(p0.v, p1.v, p2.v, p3.v);
    if (store) {
        let at = chunk_of(step.pos, kv) + c;
        keys[at] = vec4(p0.k, p1.k, p2.k, p3.k);
        values[at] = *v_chunk;
    }
    return p0.score + p1.score + p2.score + p3.score;
}
