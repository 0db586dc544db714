// include: reduce
// logprob: out[t] = log softmax(cap * tanh(logits[t] / cap))[targets[t]]; 0 where the target is
// negative. cap 0: no soft cap.
//   logits [n_tok, n_vocab] raw, targets [n_tok] from target0 on, out likewise.
// Grid: n_tok workgroups of 256 threads. f32. CPU twin: ref_softcap(), ref_softmax().

struct Args { n_vocab: u32, target0: u32, cap: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> targets: array<i32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

fn capped(i: u32) -> f32 {
    let x = logits[i];
    if (args.cap == 0.0) { return x; }
    return args.cap * tanh(clamp(x / args.cap, -15.0, 15.0));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let at = wid.x * args.n_vocab;
    var top = -3.0e38;
    for (var i = lid; i < args.n_vocab; i += 256) { top = max(top, logits[at + i]); }
    top = workgroup_max(top, lid);
    if (args.cap != 0.0) { top = args.cap * tanh(clamp(top / args.cap, -15.0, 15.0)); }
    var sum = 0.0;
    for (var i = lid; i < args.n_vocab; i += 256) { sum += exp(capped(at + i) - top); }
    sum = workgroup_sum(sum, lid);
    if (lid > 0) { return; }
    let target_id = targets[args.target0 + wid.x];
    var score = 0.0;
    if (target_id >= 0) { score = capped(at + u32(target_id)) - top - log(sum); }
    out[args.target0 + wid.x] = score;
}
