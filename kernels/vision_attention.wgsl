// include: max16
// vision_attention: out = softmax(q k^T) v, queries against all keys: no mask, scale 1.
//   q, out [n_tok, n_head, HEAD_DIM] f32; k, v the same shape, f16. Queries from `first` on, as
//   many as there are workgroups for. HEAD_DIM is a multiple of 8, at most 80.
// Grid: x = ceil(queries / 64), y = n_head; 128 threads. A workgroup goes through the keys 64 at a
// time with a running maximum and sum. Thread (ty, tx), 8 x 16, holds queries 8 ty .. 8 ty + 7: for
// the scores keys tx, tx + 16, tx + 32, tx + 48, for the output columns 4 tx .. 4 tx + 3 and
// 64 + tx.
// Workgroup memory 16 KiB. f32, keys and values f16. CPU twin: ref_attend().

override HEAD_DIM: u32 = 64;

struct Args { n_tok: u32, n_head: u32, first: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> v: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

const HIDDEN = -1.0e30;

// Queries of 32 columns, a_tile[c * 16 + (query / 4 ^ c / 4)], or probabilities of 32 keys,
// a_tile[key * 16 + (query / 4 ^ key % 16)]. The exclusive or spreads stores over the banks.
var<workgroup> a_tile: array<vec4<f32>, 512>;
// Keys of 32 columns, b_tile[c / 4 * 64 + (key ^ c / 4)], or 32 values, b_tile[key * 16 + c / 4].
var<workgroup> b_tile: array<vec4<f32>, 512>;

fn unpack4(w: vec2<u32>) -> vec4<f32> {
    return vec4(unpack2x16float(w.x), unpack2x16float(w.y));
}

// Where this head begins in a row, in four columns; repeats the last row beyond the end.
fn head_at(tok: u32, head: u32) -> u32 {
    return (min(tok, args.n_tok - 1) * args.n_head + head) * (HEAD_DIM / 4);
}

// Thread id brings columns 4 (id % 8) .. of queries 4 (id / 8) .. from column 4 c4 on.
fn put_queries(query0: u32, head: u32, c4: u32, id: u32) {
    let k4 = id & 7;
    if (c4 + k4 >= HEAD_DIM / 4) { return; }
    let query = query0 + (id >> 3) * 4;
    let t = transpose(mat4x4<f32>(
        q[head_at(query, head) + c4 + k4], q[head_at(query + 1, head) + c4 + k4],
        q[head_at(query + 2, head) + c4 + k4], q[head_at(query + 3, head) + c4 + k4]));
    let at = k4 * 64 + ((id >> 3) ^ k4);
    a_tile[at] = t[0];
    a_tile[at + 16] = t[1];
    a_tile[at + 32] = t[2];
    a_tile[at + 48] = t[3];
}

// The same columns of keys id / 8, 16 further, and so on.
fn put_keys(key0: u32, head: u32, c4: u32, id: u32) {
    let k4 = id & 7;
    if (c4 + k4 >= HEAD_DIM / 4) { return; }
    for (var key = id >> 3; key < 64; key += 16) {
        b_tile[k4 * 64 + (key ^ k4)] = unpack4(k[head_at(key0 + key, head) + c4 + k4]);
    }
}

// Columns 4 (id % 16) .. of values id / 16, 8 further, and so on.
fn put_values(key0: u32, head: u32, id: u32) {
    let c4 = id & 15;
    if (c4 >= HEAD_DIM / 4) { return; }
    for (var key = id >> 4; key < 32; key += 8) {
        b_tile[key * 16 + c4] = unpack4(v[head_at(key0 + key, head) + c4]);
    }
}

// Column 64 + tx of a value.
fn value_tail(key: u32, head: u32, tx: u32) -> f32 {
    let w = v[head_at(key, head) + 16 + tx / 4];
    let pair = unpack2x16float(select(w.x, w.y, (tx & 2) != 0));
    return select(pair.x, pair.y, (tx & 1) != 0);
}

fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a * b.x, a * b.y, a * b.z, a * b.w);
}

fn scale_columns(m: mat4x4<f32>, s: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(m[0] * s.x, m[1] * s.y, m[2] * s.z, m[3] * s.w);
}

struct Scores {
    lo: mat4x4<f32>, // column r: queries 8 ty .. 8 ty + 3, key tx + 16 r
    hi: mat4x4<f32>, // the next four queries
}

fn add_scores(s: ptr<function, Scores>, n4: u32, id: u32) {
    let tx = id & 15;
    let ty2 = (id >> 4) * 2;
    for (var k4 = 0u; k4 < n4; k4++) {
        let at = k4 * 64;
        let b = transpose(mat4x4<f32>(b_tile[at + (tx ^ k4)], b_tile[at + ((tx + 16) ^ k4)],
                                      b_tile[at + ((tx + 32) ^ k4)],
                                      b_tile[at + ((tx + 48) ^ k4)]));
        let lo = at + (ty2 ^ k4);
        let hi = at + ((ty2 + 1) ^ k4);
        (*s).lo += outer(a_tile[lo], b[0]);
        (*s).hi += outer(a_tile[hi], b[0]);
        (*s).lo += outer(a_tile[lo + 16], b[1]);
        (*s).hi += outer(a_tile[hi + 16], b[1]);
        (*s).lo += outer(a_tile[lo + 32], b[2]);
        (*s).hi += outer(a_tile[hi + 32], b[2]);
        (*s).lo += outer(a_tile[lo + 48], b[3]);
        (*s).hi += outer(a_tile[hi + 48], b[3]);
    }
}

// Scores to probabilities, as far as `most` is the maximum; keys beyond the end: 0.
fn exponents(s: mat4x4<f32>, most: vec4<f32>, key: u32) -> mat4x4<f32> {
    let none = vec4(0.0);
    return mat4x4<f32>(select(none, exp(s[0] - most), key < args.n_tok),
                       select(none, exp(s[1] - most), key + 16 < args.n_tok),
                       select(none, exp(s[2] - most), key + 32 < args.n_tok),
                       select(none, exp(s[3] - most), key + 48 < args.n_tok));
}

struct Output {
    lo: mat4x4<f32>, // column i: columns 4 tx .. 4 tx + 3 of query 8 ty + i
    hi: mat4x4<f32>, // the next four queries
    tail_lo: vec4<f32>, // column 64 + tx of the queries
    tail_hi: vec4<f32>,
}

fn put_share(p_lo: vec4<f32>, p_hi: vec4<f32>, key: u32, id: u32) {
    let ty2 = (id >> 4) * 2;
    a_tile[key * 16 + (ty2 ^ (key & 15))] = p_lo;
    a_tile[key * 16 + ((ty2 + 1) ^ (key & 15))] = p_hi;
}

// The 32 values in b_tile, which begin with key0, by the probabilities in a_tile.
fn add_values(o: ptr<function, Output>, key0: u32, head: u32, id: u32) {
    let tx = id & 15;
    let ty2 = (id >> 4) * 2;
    for (var i = 0u; i < 32; i++) {
        let p_lo = a_tile[i * 16 + (ty2 ^ (i & 15))];
        let p_hi = a_tile[i * 16 + ((ty2 + 1) ^ (i & 15))];
        let value = b_tile[i * 16 + tx];
        (*o).lo += outer(value, p_lo);
        (*o).hi += outer(value, p_hi);
        if (HEAD_DIM > 64) {
            let tail = value_tail(key0 + i, head, tx);
            (*o).tail_lo += p_lo * tail;
            (*o).tail_hi += p_hi * tail;
        }
    }
}

fn store(query: u32, head: u32, tx: u32, columns: vec4<f32>, tail: f32) {
    if (query >= args.n_tok) { return; }
    let at = head_at(query, head) * 4;
    if (tx < HEAD_DIM / 4) {
        out[at + 4 * tx] = columns.x;
        out[at + 4 * tx + 1] = columns.y;
        out[at + 4 * tx + 2] = columns.z;
        out[at + 4 * tx + 3] = columns.w;
    }
    if (64 + tx < HEAD_DIM) { out[at + 64 + tx] = tail; }
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let head = wid.y;
    let query0 = args.first + wid.x * 64;
    let tx = id & 15;
    var top = mat2x4<f32>(vec4(HIDDEN), vec4(HIDDEN));
    var sum = mat2x4<f32>(); // of this thread's keys
    var o: Output;
    for (var key0 = 0u; key0 < args.n_tok; key0 += 64) {
        // Spelt out: Dawn does not clear a variable anew in each round.
        var s = Scores(mat4x4<f32>(), mat4x4<f32>());
        for (var c4 = 0u; c4 < HEAD_DIM / 4; c4 += 8) {
            put_queries(query0, head, c4, id);
            put_keys(key0, head, c4, id);
            workgroupBarrier();
            add_scores(&s, min(8u, HEAD_DIM / 4 - c4), id);
            workgroupBarrier();
        }
        // A key beyond the end repeats the last one: the maximum is the same.
        let most = max16(
            max(top[0], max(max(s.lo[0], s.lo[1]), max(s.lo[2], s.lo[3]))),
            max(top[1], max(max(s.hi[0], s.hi[1]), max(s.hi[2], s.hi[3]))), id);
        s.lo = exponents(s.lo, most[0], key0 + tx);
        s.hi = exponents(s.hi, most[1], key0 + tx);
        let shrink_lo = exp(top[0] - most[0]);
        let shrink_hi = exp(top[1] - most[1]);
        top = most;
        sum[0] = sum[0] * shrink_lo + s.lo[0] + s.lo[1] + s.lo[2] + s.lo[3];
        sum[1] = sum[1] * shrink_hi + s.hi[0] + s.hi[1] + s.hi[2] + s.hi[3];
        o.lo = scale_columns(o.lo, shrink_lo);
        o.hi = scale_columns(o.hi, shrink_hi);
        o.tail_lo *= shrink_lo;
        o.tail_hi *= shrink_hi;
        put_share(s.lo[0], s.hi[0], tx, id);
        put_share(s.lo[1], s.hi[1], tx + 16, id);
        put_values(key0, head, id);
        workgroupBarrier();
        add_values(&o, key0, head, id);
        workgroupBarrier();
        put_share(s.lo[2], s.hi[2], tx, id);
        put_share(s.lo[3], s.hi[3], tx + 16, id);
        put_values(key0 + 32, head, id);
        workgroupBarrier();
        add_values(&o, key0 + 32, head, id);
        workgroupBarrier();
    }
    // The sum over the 16 threads of a query.
    a_tile[id] = sum[0];
    a_tile[128 + id] = sum[1];
    workgroupBarrier();
    sum = mat2x4<f32>();
    for (var i = 0u; i < 16; i++) {
        sum[0] += a_tile[(id & 112) + i];
        sum[1] += a_tile[128 + (id & 112) + i];
    }
    o.lo = scale_columns(o.lo, 1.0 / sum[0]);
    o.hi = scale_columns(o.hi, 1.0 / sum[1]);
    o.tail_lo /= sum[0];
    o.tail_hi /= sum[1];
    let query = query0 + (id >> 4) * 8;
    store(query, head, tx, o.lo[0], o.tail_lo.x);
    store(query + 1, head, tx, o.lo[1], o.tail_lo.y);
    store(query + 2, head, tx, o.lo[2], o.tail_lo.z);
    store(query + 3, head, tx, o.lo[3], o.tail_lo.w);
    store(query + 4, head, tx, o.hi[0], o.tail_hi.x);
    store(query + 5, head, tx, o.hi[1], o.tail_hi.y);
    store(query + 6, head, tx, o.hi[2], o.tail_hi.z);
    store(query + 7, head, tx, o.hi[3], o.tail_hi.w);
}
