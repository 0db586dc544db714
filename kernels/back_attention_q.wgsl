// include: attend
// back_attention_q: dq of train_attention, given dout: with p = exp(q k^T - lse) where seen,
//   dq = (p * (dout v^T - delta)) k, in n_part parts for sum_parts to add, if there are several.
//   dq [n_part, n_tok, n_head, head_dim], dout a part of it; delta [n_tok, n_head]:
//   back_attention_delta. Shapes and who sees whom: train_attention.
// Grid: x = ceil(n_tok * n_head / n_kv / 32), y = n_kv, z = n_part; 256 threads. A workgroup owns
// 32 query rows; each n_part-th 64 keys pass by. f32. CPU twin: back_attend().

struct Args { n_tok: u32, n_head: u32, n_kv: u32, head_dim: u32, window: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> span: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read> lse: array<f32>;
@group(0) @binding(6) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> delta: array<f32>;
@group(0) @binding(8) var<storage, read_write> dq: array<vec4<f32>>;

var<private> part0: u32; // where the workgroup's part begins, in vec4

fn own_place(row: u32, kv: u32) -> u32 { return query_at(row, kv); }
fn pass_place(row: u32, kv: u32) -> u32 { return key_at(row, kv); }

fn own4(of_values: bool, at: u32) -> vec4<f32> {
    if (of_values) { return dout[at]; }
    return q[at];
}

fn pass4(of_values: bool, at: u32) -> vec4<f32> {
    if (of_values) { return v[at]; }
    return k[at];
}

fn added4(at: u32) -> vec4<f32> { return k[at]; }
fn store4(at: u32, value: vec4<f32>) { dq[part0 + at] = value; }

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
        @builtin(local_invocation_index) id: u32) {
    let kv = wid.y;
    part0 = wid.z * args.n_tok * args.n_head * (args.head_dim / 4);
    let row0 = (n_wg.x - 1 - wid.x) * 32; // the longest first
    let row = row0 + (id >> 5) * 4;
    let last = vec4(token_of(row), token_of(row + 1), token_of(row + 2), token_of(row + 3));
    let first = vec4(first_key(last.x), first_key(last.y), first_key(last.z), first_key(last.w));
    let at = vec4(query_at(row, kv), query_at(row + 1, kv), query_at(row + 2, kv),
                  query_at(row + 3, kv));
    let log_sum = vec4(lse[at.x], lse[at.y], lse[at.z], lse[at.w]);
    let mean = vec4(delta[at.x], delta[at.y], delta[at.z], delta[at.w]);
    let end = token_of(row0 + 31) + 1;
    var sums: Sums;
    place_own(id, row0, kv);
    let key_first = first_key(token_of(row0)) + 64 * wid.z;
    for (var key0 = key_first; key0 < end; key0 += 64 * n_wg.z) {
        place_passing(id, key0, kv);
        let s = all_dots(id, false);
        var ds = all_dots(id, true);
        let a = vec4(key0 + (id & 31));
        let b = a + 32;
        ds[0] = exp(s[0] - log_sum) * (ds[0] - mean);
        ds[1] = exp(s[1] - log_sum) * (ds[1] - mean);
        ds[0] = select(vec4(0.0), ds[0], (a >= first) & (a <= last));
        ds[1] = select(vec4(0.0), ds[1], (b >= first) & (b <= last));
        put_weights(id, ds);
        workgroupBarrier();
        add_rows(id, min(64u, end - key0), &sums);
        workgroupBarrier();
    }
    store_sums(id, args.n_tok * group_size() - row0, sums);
}
