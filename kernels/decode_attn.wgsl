// include: reduce4 step own_token
// decode_attn: second stage of a layer, one token. Norms and rotates q (and k, and norms v, of this
// token, and stores both), then attends, split over the keys.
//   qkv: raw rows [n_head * HEAD_DIM | n_kv * HEAD_DIM | n_kv * HEAD_DIM] of this token; owner = 0:
//   only q, and this token's K and V are in the cache already; k_eq_v: v is the raw k.
//   keys, values: f16 [n_slot, n_kv, HEAD_DIM]; position p in slot p % n_slot.
//   Visible: p - window < key <= p (window 0: all).
//   out [n_split, n_head, HEAD_DIM] = sum over the split's keys of exp(s - m) v, unnormed;
//   stat [n_split, n_head] = (m, sum of exp(s - m)), m the largest score; scale 1.
// Grid: (n_head, n_split). 256 threads: while scoring, 8 of them share two keys; while summing V,
// each has 8 values of some of the keys. A block of keys and values is asked for before q is known.
// When a layer comes to it, this code has left the caches, so that its length costs time: one head
// a workgroup makes it short. The last split has this token. HEAD_DIM is a power of two, 32 to 512.
// f32, K and V rounded to f16. CPU twin: text_cpu.c's attention.

override HEAD_DIM: u32 = 256;
override CHUNKS: u32 = HEAD_DIM / 8;          // of 8 values, in a head
override CHUNK_TURNS: u32 = (CHUNKS + 7) / 8; // of a key, for one of 8 threads
override ROWS: u32 = 256 / CHUNKS;            // of V that are summed at a time
override ROW_TURNS: u32 = BLOCK / ROWS;       // until all of a block are

const BLOCK = 64u; // keys that are asked for at a time
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
@group(0) @binding(7) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> stat: array<vec2<f32>>;

// Values 8 c .. 8 c + 3 of q in q[c], the next four in q[64 + c].
var<workgroup> q: array<vec4<f32>, 128>;
var<workgroup> score: array<vec4<f32>, BLOCK / 4>;
var<workgroup> part: array<vec4<f32>, 512>; // sums of V, four values of a thread; then the others
var<workgroup> totals: array<f32, 64>;      // [ROWS]
// Where the ring's present turn begins: step.pos rounded down to a multiple of n_slot.
var<private> turn: u32;

// Row of a position's key and value. Positions are less than a window behind step.pos, so that the
// ring's turn is the same or the one before.
fn row_of(pos: u32, kv: u32) -> u32 {
    var slot = pos - turn;
    if (pos < turn) { slot += args.n_slot; }
    return slot * args.n_kv + kv;
}

// What a thread holds of a block: of two keys chunk lid % 8 and every eighth after it; of every
// ROWS-th value chunk lid % CHUNKS.
struct Block {
    a: array<vec4<u32>, 8>,
    b: array<vec4<u32>, 8>,
    v: array<vec4<u32>, 16>,
}

// The n keys and values from first on; those after them repeat the last.
fn load_block(kv: u32, first: u32, n: u32, lid: u32) -> Block {
    var block: Block;
    let last = first + n - 1;
    let a = row_of(min(first + lid / 8, last), kv) * CHUNKS;
    let b = row_of(min(first + lid / 8 + 32, last), kv) * CHUNKS;
    for (var i = 0u; i < CHUNK_TURNS; i++) {
        let c = min(8 * i + lid % 8, CHUNKS - 1);
        block.a[i] = keys[a + c];
        block.b[i] = keys[b + c];
    }
    for (var i = 0u; i < ROW_TURNS; i++) {
        let row = row_of(min(first + i * ROWS + lid / CHUNKS, last), kv);
        block.v[i] = values[row * CHUNKS + lid % CHUNKS];
    }
    return block;
}

fn low4(v: vec4<u32>) -> vec4<f32> { return vec4(unpack2x16float(v.x), unpack2x16float(v.y)); }
fn high4(v: vec4<u32>) -> vec4<f32> { return vec4(unpack2x16float(v.z), unpack2x16float(v.w)); }

// Chunk c of a key times that of q.
fn dot_chunk(k: vec4<u32>, c: u32) -> f32 {
    return dot(low4(k), q[c]) + dot(high4(k), q[64 + c]);
}

// Scores of the block's n keys; FAR after them.
fn score_block(block: ptr<function, Block>, n: u32, lid: u32) {
    var sum = vec2(0.0);
    for (var i = 0u; i < CHUNK_TURNS; i++) {
        let c = 8 * i + lid % 8;
        if (c < CHUNKS) {
            sum.x += dot_chunk((*block).a[i], c);
            sum.y += dot_chunk((*block).b[i], c);
        }
    }
    sum = sum8(sum, lid);
    if (lid % 8 == 0) {
        let j = lid / 8;
        score[j / 4][j % 4] = select(FAR, sum.x, j < n);
        score[8 + j / 4][j % 4] = select(FAR, sum.y, j + 32 < n);
    }
    workgroupBarrier();
}

fn largest_score() -> f32 {
    var most = score[0];
    for (var i = 1u; i < BLOCK / 4; i++) { most = max(most, score[i]); }
    return max(max(most.x, most.y), max(most.z, most.w));
}

// A thread's sums: of eight values, weighted, and of the weights.
struct Sum {
    low: vec4<f32>,
    high: vec4<f32>,
    total: f32,
    most: f32, // the score that weighs 1
}

// Makes m the score that weighs 1.
fn weigh(sum: ptr<function, Sum>, m: f32) {
    let by = exp((*sum).most - m);
    *sum = Sum((*sum).low * by, (*sum).high * by, (*sum).total * by, m);
}

fn add_value(sum: ptr<function, Sum>, v: vec4<u32>, p: f32) {
    (*sum).low += p * low4(v);
    (*sum).high += p * high4(v);
    (*sum).total += p;
}

// Adds the block's values, those of this thread.
fn sum_block(sum: ptr<function, Sum>, block: ptr<function, Block>, lid: u32) {
    weigh(sum, max((*sum).most, largest_score()));
    for (var i = 0u; i < ROW_TURNS; i++) {
        let j = i * ROWS + lid / CHUNKS;
        add_value(sum, (*block).v[i], exp(score[j / 4][j % 4] - (*sum).most));
    }
}

// Adds this token's value.
fn add_own(sum: ptr<function, Sum>, kv: u32, store: bool, lid: u32) {
    var own = Own();
    if (lid < CHUNKS) { own = store_kv(kv, lid, store); }
    let s = workgroup_sum4(vec4(own.score, 0.0, 0.0, 0.0), lid).x;
    weigh(sum, max((*sum).most, s));
    if (lid < CHUNKS) { add_value(sum, own.v, exp(s - (*sum).most)); }
}

// Adds up what the threads have, and writes it; `at` is the split's head.
fn write_sums(sum: Sum, at: u32, lid: u32) {
    part[lid] = sum.low;
    part[256 + lid] = sum.high;
    if (lid % CHUNKS == 0) { totals[lid / CHUNKS] = sum.total; }
    workgroupBarrier();
    if (lid < 2 * CHUNKS) {
        var four = vec4(0.0);
        for (var i = lid / 2; i < 256; i += CHUNKS) { four += part[lid % 2 * 256 + i]; }
        out[at * 2 * CHUNKS + lid] = four;
    }
    if (lid == 0) {
        var total = 0.0;
        for (var i = 0u; i < ROWS; i++) { total += totals[i]; }
        stat[at] = vec2(sum.most, total);
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let head = wid.x;
    let group = args.n_head / args.n_kv;
    let kv = head / group;
    turn = step.pos / args.n_slot * args.n_slot;

    // The keys of this split: all visible ones but this token's, cut evenly.
    var low = 0u;
    if (args.window > 0 && step.pos + 1 > args.window) { low = step.pos + 1 - args.window; }
    let high = step.pos + 1 - args.owner;
    let per = (high - low + args.n_split - 1) / args.n_split;
    let first = min(low + wid.y * per, high);
    let end = min(first + per, high);
    let own = args.owner != 0 && wid.y == args.n_split - 1;
    var block: Block;
    if (first < end) { block = load_block(kv, first, min(BLOCK, end - first), lid); }
    load_qkv(head, kv, own, lid);

    var sum = Sum(vec4(0.0), vec4(0.0), 0.0, FAR);
    for (var k0 = first; k0 < end; k0 += BLOCK) {
        score_block(&block, min(BLOCK, end - k0), lid);
        sum_block(&sum, &block, lid);
        if (k0 + BLOCK < end) {
            workgroupBarrier();
            block = load_block(kv, k0 + BLOCK, min(BLOCK, end - k0 - BLOCK), lid);
        }
    }
    if (own) { add_own(&sum, kv, head % group == 0, lid); }
    write_sums(sum, wid.y * args.n_head + head, lid);
}
