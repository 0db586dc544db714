// include: attend
// train_attention: out = softmax(q k^T + mask) v, and lse = log(sum(exp(q k^T + mask))).
//   q, out [n_tok, n_head, head_dim]; k, v [n_tok, n_kv, head_dim]; lse [n_tok, n_head]. Token i
//   sees the keys j <= i of its own sample (lib/attend) with, unless window is 0, i - j < window.
//   Scale 1. Query head h reads kv head h / (n_head / n_kv). head_dim is a multiple of 32, at most
//   512.
// Grid: x = ceil(n_tok * n_head / n_kv / 32), y = n_kv; 256 threads. A workgroup owns 32 query
// rows; the keys pass by, with a running maximum and sum. f32. CPU twin: ref_attend().

struct Args { n_tok: u32, n_head: u32, n_kv: u32, head_dim: u32, window: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> span: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;

var<workgroup> factors: array<vec4<f32>, 8>; // of the owned rows

fn own_place(row: u32, kv: u32) -> u32 { return query_at(row, kv); }
fn pass_place(row: u32, kv: u32) -> u32 { return key_at(row, kv); }
fn own4(of_values: bool, at: u32) -> vec4<f32> { return q[at]; }
fn pass4(of_values: bool, at: u32) -> vec4<f32> { return k[at]; }
fn added4(at: u32) -> vec4<f32> { return v[at]; }
fn store4(at: u32, value: vec4<f32>) { out[at] = value; }

fn store_lse(row: u32, kv: u32, value: f32) {
    if (row < args.n_tok * group_size()) { lse[query_at(row, kv)] = value; }
}

// Of four owned rows with every 32nd key, where `most` is the maximum. A row that sees none of the
// keys yet has most = HIDDEN: its weights must be 0.
fn weights(s: vec4<f32>, most: vec4<f32>) -> vec4<f32> {
    return select(exp(s - most), vec4(0.0), s == vec4(HIDDEN));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
        @builtin(local_invocation_index) id: u32) {
    let kv = wid.y;
    let rg = id >> 5;
    let lane = id & 31;
    let r2 = (id >> 6) * 2;
    let row0 = (n_wg.x - 1 - wid.x) * 32; // the longest first
    let row = row0 + rg * 4;
    let last = vec4(token_of(row), token_of(row + 1), token_of(row + 2), token_of(row + 3));
    let first = vec4(first_key(last.x), first_key(last.y), first_key(last.z), first_key(last.w));
    let end = token_of(row0 + 31) + 1;
    var top = vec4(HIDDEN);
    var sum = vec4(0.0); // of this thread's keys
    var sums: Sums;
    place_own(id, row0, kv);
    for (var key0 = first_key(token_of(row0)); key0 < end; key0 += 64) {
        place_passing(id, key0, kv);
        var s = all_dots(id, false);
        let a = vec4(key0 + lane);
        let b = a + 32;
        s[0] = select(vec4(HIDDEN), s[0], (a >= first) & (a <= last));
        s[1] = select(vec4(HIDDEN), s[1], (b >= first) & (b <= last));
        own_tile[id] = max(s[0], s[1]);
        workgroupBarrier();
        var most = top;
        for (var i = 0u; i < 32; i++) { most = max(most, own_tile[rg * 32 + i]); }
        s[0] = weights(s[0], most);
        s[1] = weights(s[1], most);
        put_weights(id, s);
        let shrink = exp(top - most);
        if (lane == 0) { factors[rg] = shrink; }
        sum = sum * shrink + s[0] + s[1];
        top = most;
        workgroupBarrier();
        scale_sums(factors[r2], factors[r2 + 1], &sums);
        add_rows(id, min(64u, end - key0), &sums);
        workgroupBarrier();
    }
    own_tile[id] = sum;
    workgroupBarrier();
    sum = vec4(0.0);
    for (var i = 0u; i < 32; i++) { sum += own_tile[rg * 32 + i]; }
    if (lane == 0) {
        factors[rg] = 1.0 / sum;
        let logs = top + log(sum);
        store_lse(row, kv, logs.x);
        store_lse(row + 1, kv, logs.y);
        store_lse(row + 2, kv, logs.z);
        store_lse(row + 3, kv, logs.w);
    }
    workgroupBarrier();
    scale_sums(factors[r2], factors[r2 + 1], &sums);
    store_sums(id, args.n_tok * group_size() - row0, sums);
}
