// attention: out = softmax(q k^T + mask) v, a chunk of queries against the stored keys.
//   q, out [n_tok, n_head, head_dim] f32; k, v [.., n_kv, head_dim] f16, row r holds position
//   base + r, n_key rows; query t is at pos = base + first + t and sees keys j with j <= pos and,
//   unless window is 0, pos - j < window. Scale 1. Query head h reads kv head h / (n_head / n_kv).
//   head_dim is a multiple of 32, at most 512. Unless pictures is 0, query t sees keys up to
//   first + last_seen[t] instead of pos: last_seen [n_tok] is t itself, for tokens of a picture the
//   picture's last one.
// Grid: x = ceil(n_tok * n_head / n_kv / 32), y = n_kv; 256 threads. The n_head / n_kv heads that
// share a kv head are rows like the tokens are: a workgroup makes 32 of these rows, going through
// the keys 64 at a time with a running maximum and sum. Thread (rg, lane) holds rows 4 rg .. + 3:
// for the scores keys lane and lane + 32, for the output columns 8 lane .. + 7 and 256 more.
// Workgroup memory 12 KiB. f32, keys and values f16. CPU twin: text_cpu.c.

struct Args {
    n_tok: u32, n_head: u32, n_kv: u32, head_dim: u32,
    n_key: u32, first: u32, window: u32, pictures: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> last_seen: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

const HIDDEN = -1.0e30;

// Keys of 32 columns, k_tile[c / 4 * 64 + (key ^ c / 8 * 2)], or probabilities,
// k_tile[key * 8 + rg].
var<workgroup> k_tile: array<vec4<f32>, 512>;
// Queries of 32 columns, q_tile[c * 8 + rg], or maxima, q_tile[rg * 32 + lane].
var<workgroup> q_tile: array<vec4<f32>, 256>;

// Where a row's head starts in q and out, in vec4.
fn row_at(row: u32, kv: u32) -> u32 {
    let n_group = args.n_head / args.n_kv;
    return (row / n_group * args.n_head + kv * n_group + row % n_group) * (args.head_dim / 4);
}

fn put_queries(row: u32, kv: u32, rg: u32, c4: u32, slice: u32) {
    let last = args.n_tok * (args.n_head / args.n_kv) - 1;
    let at = slice * 8 + c4;
    let t = transpose(mat4x4<f32>(
        q[row_at(min(row, last), kv) + at], q[row_at(min(row + 1, last), kv) + at],
        q[row_at(min(row + 2, last), kv) + at], q[row_at(min(row + 3, last), kv) + at]));
    q_tile[c4 * 32 + rg] = t[0];
    q_tile[c4 * 32 + 8 + rg] = t[1];
    q_tile[c4 * 32 + 16 + rg] = t[2];
    q_tile[c4 * 32 + 24 + rg] = t[3];
}

fn unpack4(lo: u32, hi: u32) -> vec4<f32> {
    return vec4(unpack2x16float(lo), unpack2x16float(hi));
}

fn put_keys(key0: u32, kv: u32, slice: u32, lid: u32) {
    let key = lid >> 2;
    let c8 = lid & 3;
    let row = min(key0 + key, args.n_key - 1) * args.n_kv + kv;
    let half = k[row * (args.head_dim / 8) + slice * 4 + c8];
    let i = c8 * 128 + (key ^ (c8 * 2));
    k_tile[i] = unpack4(half.x, half.y);
    k_tile[i + 64] = unpack4(half.z, half.w);
}

// p of four rows times eight columns of a value row.
fn add_values(lo: ptr<function, mat4x4<f32>>, hi: ptr<function, mat4x4<f32>>, p: vec4<f32>,
              half: vec4<u32>) {
    let a = unpack4(half.x, half.y);
    let b = unpack4(half.z, half.w);
    *lo += mat4x4<f32>(a * p.x, a * p.y, a * p.z, a * p.w);
    *hi += mat4x4<f32>(b * p.x, b * p.y, b * p.z, b * p.w);
}

fn scale_rows(m: mat4x4<f32>, s: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(m[0] * s.x, m[1] * s.y, m[2] * s.z, m[3] * s.w);
}

// The last keys that four rows see, counted from base.
fn last_keys(row: u32, pos: vec4<u32>) -> vec4<u32> {
    if (args.pictures == 0) { return pos; }
    let n_group = args.n_head / args.n_kv;
    let t = min(vec4(row, row + 1, row + 2, row + 3) / n_group, vec4(args.n_tok - 1));
    return args.first + vec4(last_seen[t.x], last_seen[t.y], last_seen[t.z], last_seen[t.w]);
}

// Scores of hidden keys; pos, last: of the four rows, counted from base like key.
fn masked(s: vec4<f32>, key: u32, pos: vec4<u32>, last: vec4<u32>) -> vec4<f32> {
    var seen = (vec4(key) <= last) & vec4(key < args.n_key);
    if (args.window > 0) { seen = seen & (vec4(key + args.window) > pos); }
    return select(vec4(HIDDEN), s, seen);
}

fn store8(row: u32, kv: u32, c8: u32, lo: vec4<f32>, hi: vec4<f32>) {
    if (row < args.n_tok * (args.n_head / args.n_kv)) {
        let at = row_at(row, kv) + c8 * 2;
        out[at] = lo;
        out[at + 1] = hi;
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let kv = wid.y;
    let rg = lid >> 5;
    let lane = lid & 31;
    let n_group = args.n_head / args.n_kv;
    let n_row = args.n_tok * n_group;
    let row0 = (n_wg.x - 1 - wid.x) * 32; // the longest first
    let row = row0 + rg * 4;
    let pos = args.first + vec4(row, row + 1, row + 2, row + 3) / n_group;
    let n_col8 = args.head_dim / 8;
    let wide = lane + 32 < n_col8;
    var key0 = 0u;
    let first = args.first + row0 / n_group; // position of the first row
    if (args.window > 0 && first >= args.window) { key0 = first - args.window + 1; }
    let last = last_keys(row, pos);
    let last_tok = (min(row0 + 32, n_row) - 1) / n_group;
    var end = min(args.n_key, args.first + last_tok + 1);
    if (args.pictures > 0) { end = min(args.n_key, args.first + last_seen[last_tok] + 1); }

    var top = vec4(HIDDEN);
    var sum = vec4(0.0);
    var lo0 = mat4x4<f32>();
    var hi0 = mat4x4<f32>();
    var lo1 = mat4x4<f32>();
    var hi1 = mat4x4<f32>();
    for (; key0 < end; key0 += 64) {
        var s0 = vec4(0.0);
        var s1 = vec4(0.0);
        for (var slice = 0u; slice < args.head_dim / 32; slice++) {
            put_keys(key0, kv, slice, lid);
            if (lane < 8) { put_queries(row, kv, rg, lane, slice); }
            workgroupBarrier();
            for (var c4 = 0u; c4 < 8; c4++) {
                let swap = (c4 >> 1) * 2;
                let ka = k_tile[c4 * 64 + (lane ^ swap)];
                let kb = k_tile[c4 * 64 + ((lane + 32) ^ swap)];
                let qa = q_tile[c4 * 32 + rg];
                let qb = q_tile[c4 * 32 + 8 + rg];
                let qc = q_tile[c4 * 32 + 16 + rg];
                let qd = q_tile[c4 * 32 + 24 + rg];
                s0 += qa * ka.x;
                s1 += qa * kb.x;
                s0 += qb * ka.y;
                s1 += qb * kb.y;
                s0 += qc * ka.z;
                s1 += qc * kb.z;
                s0 += qd * ka.w;
                s1 += qd * kb.w;
            }
            workgroupBarrier();
        }
        s0 = masked(s0, key0 + lane, pos, last);
        s1 = masked(s1, key0 + lane + 32, pos, last);
        q_tile[lid] = max(s0, s1);
        workgroupBarrier();
        var most = top;
        for (var i = 0u; i < 32; i++) { most = max(most, q_tile[rg * 32 + i]); }
        // A row that sees none of these keys yet has most = HIDDEN: its probabilities must be 0.
        k_tile[lane * 8 + rg] = select(exp(s0 - most), vec4(0.0), s0 == vec4(HIDDEN));
        k_tile[(lane + 32) * 8 + rg] = select(exp(s1 - most), vec4(0.0), s1 == vec4(HIDDEN));
        let shrink = exp(top - most);
        top = most;
        sum *= shrink;
        lo0 = scale_rows(lo0, shrink);
        hi0 = scale_rows(hi0, shrink);
        lo1 = scale_rows(lo1, shrink);
        hi1 = scale_rows(hi1, shrink);
        workgroupBarrier();
        let n = min(64u, end - key0);
        for (var i = 0u; i < n; i++) {
            let p = k_tile[i * 8 + rg];
            sum += p;
            let at = ((key0 + i) * args.n_kv + kv) * n_col8 + lane;
            add_values(&lo0, &hi0, p, v[at]);
            if (wide) { add_values(&lo1, &hi1, p, v[at + 32]); }
        }
        workgroupBarrier();
    }
    let norm = 1.0 / sum;
    if (lane < n_col8) {
        store8(row, kv, lane, lo0[0] * norm.x, hi0[0] * norm.x);
        store8(row + 1, kv, lane, lo0[1] * norm.y, hi0[1] * norm.y);
        store8(row + 2, kv, lane, lo0[2] * norm.z, hi0[2] * norm.z);
        store8(row + 3, kv, lane, lo0[3] * norm.w, hi0[3] * norm.w);
    }
    if (wide) {
        store8(row, kv, lane + 32, lo1[0] * norm.x, hi1[0] * norm.x);
        store8(row + 1, kv, lane + 32, lo1[1] * norm.y, hi1[1] * norm.y);
        store8(row + 2, kv, lane + 32, lo1[2] * norm.z, hi1[2] * norm.z);
        store8(row + 3, kv, lane + 32, lo1[3] * norm.w, hi1[3] * norm.w);
    }
}
