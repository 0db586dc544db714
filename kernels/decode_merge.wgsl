// decode_merge: makes one of many splits, in place, when there are too many for decode_out.
//   attn [n_split, n_head, head_dim], stat [n_split, n_head] as decode_attn left them, n_split <=
//   64; afterwards split 0 holds the attention's output.
// Grid: (n_head, ceil(head_dim / 64)); four threads share a value. f32. CPU twin: ref_softmax().

struct Args { n_head: u32, head_dim: u32, n_split: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read_write> attn: array<f32>;
@group(0) @binding(2) var<storage, read> stat: array<vec2<f32>>;

var<workgroup> share: array<vec2<f32>, 64>; // (m, l) of a split
var<workgroup> part: array<vec2<f32>, 256>; // a value's weighted sum, the sum of the weights

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    if (lid < args.n_split) { share[lid] = stat[lid * args.n_head + wid.x]; }
    workgroupBarrier();
    var most = -1e30;
    for (var s = 0u; s < args.n_split; s++) { most = max(most, share[s].x); }
    let i = wid.y * 64 + lid % 64;
    var sum = vec2(0.0);
    if (i < args.head_dim) {
        for (var s = lid / 64; s < args.n_split; s += 4) {
            let f = exp(share[s].x - most);
            sum += f * vec2(attn[(s * args.n_head + wid.x) * args.head_dim + i], share[s].y);
        }
    }
    part[lid] = sum;
    workgroupBarrier();
    if (lid < 64 && i < args.head_dim) {
        sum = part[lid] + part[lid + 64] + part[lid + 128] + part[lid + 192];
        attn[wid.x * args.head_dim + i] = sum.x / sum.y;
    }
}
