// own_token: q, k and v of the token that decode_attn attends for: normed, rotated, and k and v
// stored. Needs decode_attn's bindings, its q and part, workgroup_sum4(), row_of() and dot_chunk().

// Raw k and v at dimension i.
fn raw_kv(kv: u32, i: u32) -> vec2<f32> {
    let k = qkv[(args.n_head + kv) * HEAD_DIM + i];
    if (args.k_eq_v != 0) { return vec2(k); }
    return vec2(k, qkv[(args.n_head + args.n_kv + kv) * HEAD_DIM + i]);
}

fn rotated(a: f32, b: f32, r: vec2<f32>) -> vec2<f32> {
    return vec2(a * r.x - b * r.y, b * r.x + a * r.y);
}

fn put_q(i: u32, x: f32) { q[i / 4 % 2 * 64 + i / 8][i % 4] = x; }

// q, normed and rotated, into q; with own also k and v into part: entry i has (k, v) of dimensions
// i and i + HEAD_DIM / 2. A thread asks for all that it needs before it waits for any of it.
fn load_qkv(head: u32, kv: u32, own: bool, lid: u32) {
    let i = min(lid, HEAD_DIM / 2 - 1);
    let j = i + HEAD_DIM / 2;
    let mine = lid < HEAD_DIM / 2;
    let x = vec2(qkv[head * HEAD_DIM + i], qkv[head * HEAD_DIM + j]);
    let w_q = vec2(vectors[args.w_q + i], vectors[args.w_q + j]);
    let r = select(vec2(1.0, 0.0), rope[min(i, args.n_rot - 1)], i < args.n_rot);
    var a = vec2(0.0); // k and v at i
    var b = vec2(0.0); // at j
    var w_k = vec2(0.0);
    if (own) {
        a = raw_kv(kv, i);
        b = raw_kv(kv, j);
        w_k = vec2(vectors[args.w_k + i], vectors[args.w_k + j]);
    }
    let squares = select(vec4(0.0), vec4(dot(x, x), a * a + b * b, 0.0), mine);
    let norm = inverseSqrt(workgroup_sum4(squares, lid) / f32(HEAD_DIM) + args.eps);
    let z = rotated(x.x * norm.x * w_q.x, x.y * norm.x * w_q.y, r);
    if (mine) {
        put_q(i, z.x);
        put_q(j, z.y);
        if (own) {
            let k = rotated(a.x * norm.y * w_k.x, b.x * norm.y * w_k.y, r);
            part[i] = vec4(k.x, a.y * norm.z, k.y, b.y * norm.z);
        }
    }
    workgroupBarrier();
}

// (k, v) of dimension i of what load_qkv() left.
fn loaded_kv(i: u32) -> vec2<f32> {
    let both = part[i % (HEAD_DIM / 2)];
    return select(both.zw, both.xy, i < HEAD_DIM / 2);
}

// Pairs of k and of v at dimensions i and i + 1, as they are stored.
fn own_pair(i: u32) -> vec2<u32> {
    let a = loaded_kv(i);
    let b = loaded_kv(i + 1);
    return vec2(pack2x16float(vec2(a.x, b.x)), pack2x16float(vec2(a.y, b.y)));
}

struct Own {
    v: vec4<u32>, // a chunk of it, rounded
    score: f32,   // the chunk's part of it
}

// Rounds this token's k and v of chunk c (8 values) as they are stored, and stores them when asked.
fn store_kv(kv: u32, c: u32, store: bool) -> Own {
    let p0 = own_pair(8 * c);
    let p1 = own_pair(8 * c + 2);
    let p2 = own_pair(8 * c + 4);
    let p3 = own_pair(8 * c + 6);
    let k = vec4(p0.x, p1.x, p2.x, p3.x);
    let v = vec4(p0.y, p1.y, p2.y, p3.y);
    if (store) {
        let at = row_of(step.pos, kv) * CHUNKS + c;
        keys[at] = k;
        values[at] = v;
    }
    return Own(v, dot_chunk(k, c));
}
