// include: reduce4 step own_token
// decode_attn: second stage of a layer, one token. Norms and rotates q (and k, and norms v, of this
// token, and stores both), then attends, split over the keys.
//   qkv: raw rows [n_head * HEAD_DIM | n_kv * HEAD_DIM | n_kv * HEAD_DIM] of this token; owner = 0:
//   only q, and this token's K and V are in the cache already; k_eq_v: v is the raw k.
//   keys, values: f16 [n_slot, n_kv, HEAD_DIM]; position p in slot p % n_slot.
//   Visible: p - window < key <= p (window 0: all).
//   out [n_split, n_head, HEAD_DIM] = sum over the split's keys of exp(s - m) v, unnormed;
//   stat [n_split, n_head] = (m, sum of exp(s - m)), m the largest score; scale 1.
// Grid: (n_kv * ceil(group / 4), n_split), group = n_head / n_kv: up to four heads that share K and
// V are the lanes of a vec4. 256 threads. While scoring, 8 of them share four keys at a time; while
// summing V, each has 8 values of some of the keys. The last split has this token. HEAD_DIM is a
// power of two, 32 to 512. f32, K and V rounded to f16. CPU twin: text_cpu.c's attention.

override HEAD_DIM: u32 = 256;
override CHUNKS: u32 = HEAD_DIM / 8; // of 8 values, in a head
override KEYS: u32 = 256 / CHUNKS;   // whose values are summed at a time

const BLOCK = 128u; // keys whose scores are kept at a time
const FAR = -1e30;

struct Args {
    n_head: u32, n_kv: u32, n_rot: u32, n_split: u32,
    window: u32, n_slot: u32, owner: u32, k_eq_v: u32,
    w_q: u32, w_k: u32, eps: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> vectors: array<f32>;
@group(0) @binding(4) var<storage, read> rope: array<vec2<f32>>; // [n_rot] (cos, sin)
@group(0) @binding(5) var<storage, read_write> keys: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> values: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> out: array<f32>;
@group(0) @binding(8) var<storage, read_write> stat: array<vec2<f32>>;

// Four heads' q at dimension i in q[i % 8 * 64 + i / 8]; then partial sums of V.
var<workgroup> q: array<vec4<f32>, 512>;
// Where the ring's present turn begins: step.pos rounded down to a multiple of n_slot.
var<private> turn: u32;
var<workgroup> score: array<vec4<f32>, 128>; // [BLOCK], four heads

// First chunk of a position's key or value. Positions are less than a window behind step.pos, so
// that the ring's turn is the same or the one before.
fn chunk_of(pos: u32, kv: u32) -> u32 {
    var slot = pos - turn;
    if (pos < turn) { slot += args.n_slot; }
    return (slot * args.n_kv + kv) * CHUNKS;
}

// Values 8 c + e and the next of a key times those of the four q.
fn dot_pair(k: u32, c: u32, e: u32) -> vec4<f32> {
    let pair = unpack2x16float(k);
    return q[e * 64 + c] * pair.x + q[(e + 1) * 64 + c] * pair.y;
}

fn dot_chunk(k: vec4<u32>, c: u32) -> vec4<f32> {
    return dot_pair(k.x, c, 0) + dot_pair(k.y, c, 2) + dot_pair(k.z, c, 4) + dot_pair(k.w, c, 6);
}

fn put_score(j: u32, n: u32, sum: vec4<f32>, lid: u32) {
    if (lid % 8 == 0) { score[j] = select(vec4(FAR), sum, j < n); }
}

// Scores of the keys at first .. first + n - 1, n <= BLOCK, into score; FAR beyond n.
fn score_block(kv: u32, first: u32, n: u32, lid: u32) {
    let j = lid / 8;
    let last = first + n - 1;
    let row0 = chunk_of(min(first + j, last), kv);
    let row1 = chunk_of(min(first + j + 32, last), kv);
    let row2 = chunk_of(min(first + j + 64, last), kv);
    let row3 = chunk_of(min(first + j + 96, last), kv);
    var s0 = vec4(0.0);
    var s1 = vec4(0.0);
    var s2 = vec4(0.0);
    var s3 = vec4(0.0);
    for (var c = lid % 8; c < CHUNKS; c += 8) {
        let k0 = keys[row0 + c];
        let k1 = keys[row1 + c];
        let k2 = keys[row2 + c];
        let k3 = keys[row3 + c];
        s0 += dot_chunk(k0, c);
        s1 += dot_chunk(k1, c);
        s2 += dot_chunk(k2, c);
        s3 += dot_chunk(k3, c);
    }
    put_score(j, n, sum8(s0, lid), lid);
    put_score(j + 32, n, sum8(s1, lid), lid);
    put_score(j + 64, n, sum8(s2, lid), lid);
    put_score(j + 96, n, sum8(s3, lid), lid);
    workgroupBarrier();
}

// Eight values of four heads.
struct Values {
    a: mat4x4<f32>, // values 0..3, a column each; its rows are the heads
    b: mat4x4<f32>, // values 4..7
}

fn scaled(m: mat4x4<f32>, by: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(m[0] * by, m[1] * by, m[2] * by, m[3] * by);
}

fn add_values(sum: ptr<function, Values>, v: vec4<u32>, p: vec4<f32>) {
    let lo = vec4(unpack2x16float(v.x), unpack2x16float(v.y));
    let hi = vec4(unpack2x16float(v.z), unpack2x16float(v.w));
    (*sum).a += mat4x4<f32>(p * lo.x, p * lo.y, p * lo.z, p * lo.w);
    (*sum).b += mat4x4<f32>(p * hi.x, p * hi.y, p * hi.z, p * hi.w);
}

// The block's weighted values, those of this thread: chunk lid % CHUNKS of every KEYS-th key. Its
// scores beyond n are 0; loads are batched by four.
fn sum_block(sum: ptr<function, Values>, kv: u32, first: u32, n: u32, lid: u32) {
    let c = lid % CHUNKS;
    let last = first + n - 1;
    for (var j = lid / CHUNKS; j < BLOCK; j += 4 * KEYS) {
        let j1 = min(j + KEYS, BLOCK - 1);
        let j2 = min(j + 2 * KEYS, BLOCK - 1);
        let j3 = min(j + 3 * KEYS, BLOCK - 1);
        let v0 = values[chunk_of(min(first + j, last), kv) + c];
        let v1 = values[chunk_of(min(first + j1, last), kv) + c];
        let v2 = values[chunk_of(min(first + j2, last), kv) + c];
        let v3 = values[chunk_of(min(first + j3, last), kv) + c];
        add_values(sum, v0, score[j]);
        add_values(sum, v1, select(vec4(0.0), score[j1], j + KEYS < BLOCK));
        add_values(sum, v2, select(vec4(0.0), score[j2], j + 2 * KEYS < BLOCK));
        add_values(sum, v3, select(vec4(0.0), score[j3], j + 3 * KEYS < BLOCK));
    }
}

// Adds up two of the eight values over the threads that share a chunk, and writes them.
fn write_pair(first: vec4<f32>, second: vec4<f32>, e: u32, head: vec4<u32>, n_head: u32,
              split: u32, lid: u32) {
    q[lid] = first;
    q[256 + lid] = second;
    workgroupBarrier();
    if (lid < 2 * CHUNKS) {
        let c = lid % CHUNKS;
        let half = lid / CHUNKS;
        var sum = vec4(0.0);
        for (var i = c; i < 256; i += CHUNKS) { sum += q[half * 256 + i]; }
        let at = split * args.n_head * HEAD_DIM + 8 * c + e + half;
        out[at + head.x * HEAD_DIM] = sum.x;
        if (n_head > 1) { out[at + head.y * HEAD_DIM] = sum.y; }
        if (n_head > 2) { out[at + head.z * HEAD_DIM] = sum.z; }
        if (n_head > 3) { out[at + head.w * HEAD_DIM] = sum.w; }
    }
    workgroupBarrier();
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let group = args.n_head / args.n_kv;
    let quads = (group + 3) / 4;
    let kv = wid.x / quads;
    let lane = wid.x % quads * 4; // first head of the four, within the group
    let head = kv * group + min(vec4(lane) + vec4(0u, 1u, 2u, 3u), vec4(group - 1));
    turn = step.pos / args.n_slot * args.n_slot;

    // The keys of this split: all visible ones but this token's, cut evenly.
    var low = 0u;
    if (args.window > 0 && step.pos + 1 > args.window) { low = step.pos + 1 - args.window; }
    let high = step.pos + 1 - args.owner;
    let per = (high - low + args.n_split - 1) / args.n_split;
    let first = min(low + wid.y * per, high);
    let end = min(first + per, high);
    let own = args.owner != 0 && wid.y == args.n_split - 1;
    load_qkv(head, kv, own, lid);

    var most = vec4(FAR);
    var total = vec4(0.0);
    var sum = Values();
    if (own) {
        var s = vec4(0.0);
        var v = vec4(0u);
        if (lid < CHUNKS) { s = store_kv(kv, lid, lane == 0, &v); }
        workgroupBarrier();
        most = workgroup_sum4(s, lid);
        total = vec4(1.0);
        if (lid < CHUNKS) { add_values(&sum, v, vec4(1.0)); }
    }
    for (var k0 = first; k0 < end; k0 += BLOCK) {
        let n = min(BLOCK, end - k0);
        score_block(kv, k0, n, lid);
        let now = max(most, workgroup_max4(score[lid % BLOCK], lid));
        let shrink = exp(most - now);
        most = now;
        var part = vec4(0.0);
        if (lid < BLOCK) {
            part = exp(score[lid] - now);
            score[lid] = part;
        }
        total = total * shrink + workgroup_sum4(part, lid);
        sum.a = scaled(sum.a, shrink);
        sum.b = scaled(sum.b, shrink);
        sum_block(&sum, kv, k0, n, lid);
        workgroupBarrier();
    }

    let n_head = min(4u, group - lane);
    write_pair(sum.a[0], sum.a[1], 0, head, n_head, wid.y, lid);
    write_pair(sum.a[2], sum.a[3], 2, head, n_head, wid.y, lid);
    write_pair(sum.b[0], sum.b[1], 4, head, n_head, wid.y, lid);
    write_pair(sum.b[2], sum.b[3], 6, head, n_head, wid.y, lid);
    if (lid < n_head) { stat[wid.y * args.n_head + head[lid]] = vec2(most[lid], total[lid]); }
}
