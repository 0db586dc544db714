// decode_merge: makes one split of many, in place, when there are too many for decode_out.
//   attn [n_split, n_head, head_dim], stat [n_split, n_head] as decode_attn left them; afterwards
//   split 0 holds the attention's output and stat (0, 1).
// Grid: n_head workgroups. f32. CPU twin: ref_softmax().

struct Args { n_head: u32, head_dim: u32, n_split: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read_write> attn: array<f32>;
@group(0) @binding(2) var<storage, read_write> stat: array<vec2<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let head = wid.x;
    var most = -1e30;
    for (var s = 0u; s < args.n_split; s++) { most = max(most, stat[s * args.n_head + head].x); }
    var total = 0.0;
    for (var s = 0u; s < args.n_split; s++) {
        let split = stat[s * args.n_head + head];
        total += exp(split.x - most) * split.y;
    }
    for (var i = lid; i < args.head_dim; i += 256) {
        var sum = 0.0;
        for (var s = 0u; s < args.n_split; s++) {
            let at = s * args.n_head + head;
            sum += exp(stat[at].x - most) * attn[at * args.head_dim + i];
        }
        attn[head * args.head_dim + i] = sum / total;
    }
    storageBarrier();
    if (lid == 0) { stat[head] = vec2(0.0, 1.0); }
}
