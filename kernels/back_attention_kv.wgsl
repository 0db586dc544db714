// include: attend
// back_attention_kv: dv or dk of train_attention, given dout: with p = exp(q k^T - lse) where seen,
//   VALUES 1: parts = p^T dout;  0: parts = (p * (dout v^T - delta))^T q,
//   n_part parts for each query head of those that read the kv head; sum_parts adds them to dv or
//   dk. parts [n_part, n_head / n_kv, n_tok, n_kv, head_dim]; the others: back_attention_q.
// Grid: x = ceil(n_tok / 32), y = n_kv, z = n_part * n_head / n_kv; 256 threads. A workgroup owns
// 32 keys; of the queries of one head that may see them each n_part-th 64 pass by. f32.
// CPU twin: back_attend().

override VALUES: u32 = 0;

struct Args { n_tok: u32, n_head: u32, n_kv: u32, head_dim: u32, window: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> span: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read> lse: array<f32>;
@group(0) @binding(6) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> delta: array<f32>;
@group(0) @binding(8) var<storage, read_write> parts: array<vec4<f32>>;

var<private> part0: u32; // where the workgroup's part begins, in vec4

fn own_place(row: u32, kv: u32) -> u32 { return key_at(row, kv); }
fn pass_place(tok: u32, head: u32) -> u32 {
    return min(tok, args.n_tok - 1) * args.n_head + head;
}

fn own4(of_values: bool, at: u32) -> vec4<f32> {
    if (of_values) { return v[at]; }
    return k[at];
}

fn pass4(of_values: bool, at: u32) -> vec4<f32> {
    if (of_values) { return dout[at]; }
    return q[at];
}

fn added4(at: u32) -> vec4<f32> { return pass4(VALUES == 1, at); }
fn store4(at: u32, value: vec4<f32>) { parts[part0 + at] = value; }

// Four keys' weights of a query, given its products with them and dout's with their values.
fn weights(key: vec4<u32>, query: u32, end: u32, head: u32, s: vec4<f32>,
           dp: vec4<f32>) -> vec4<f32> {
    let tok = min(query, args.n_tok - 1);
    let at = pass_place(tok, head);
    let seen = (key <= vec4(tok)) & (key >= vec4(first_key(tok))) & vec4(query < end);
    var w = exp(s - lse[at]);
    if (VALUES == 0) { w *= dp - delta[at]; }
    return select(vec4(0.0), w, seen);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
        @builtin(local_invocation_index) id: u32) {
    let kv = wid.y;
    let head = kv * group_size() + wid.z % group_size();
    part0 = wid.z * args.n_tok * args.n_kv * (args.head_dim / 4);
    let lane = id & 31;
    let key0 = wid.x * 32;
    let key = key0 + (id >> 5) * 4 + vec4(0u, 1u, 2u, 3u);
    let last_key = min(key0 + 31, args.n_tok - 1);
    var end = span[last_key].y;
    if (args.window > 0) { end = min(end, last_key + args.window); }
    var sums: Sums;
    place_own(id, key0, kv);
    let step = 64 * (n_wg.z / group_size());
    for (var tok0 = key0 + 64 * (wid.z / group_size()); tok0 < end; tok0 += step) {
        place_passing(id, tok0, head);
        let s = all_dots(id, false);
        var w = mat2x4<f32>();
        if (VALUES == 0) { w = all_dots(id, true); }
        w[0] = weights(key, tok0 + lane, end, head, s[0], w[0]);
        w[1] = weights(key, tok0 + lane + 32, end, head, s[1], w[1]);
        put_weights(id, w);
        workgroupBarrier();
        add_rows(id, min(64u, end - tok0), &sums);
        workgroupBarrier();
    }
    store_sums(id, args.n_tok - key0, sums);
}
