// include: reduce
// cross_entropy: with y = cap * tanh(logits[t] / cap) (cap 0: y = logits[t]) and p = softmax(y):
//   loss[t] = -weights[t] * log p[target], NaN unless all logits are finite, and in place
//   logits[t, i] = scale * weights[t] * (p[i] - (1 for the target)) * (1 - (y[i] / cap)^2).
//   logits [n_row, n_vocab]; targets, weights and loss from at0 on.
// Grid: n_row workgroups of 256 threads. f32.
// CPU twin: ref_softcap(), back_cross_entropy(), back_softcap().

const NOT_FINITE = 0x7f800000u; // the exponent of infinities and NaN
const NOT_A_NUMBER = 0x7fc00000u;

struct Args { n_vocab: u32, at0: u32, cap: f32, scale: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> logits: array<f32>;
@group(0) @binding(4) var<storage, read_write> loss: array<u32>; // bits of f32

fn capped(x: f32) -> f32 {
    if (args.cap == 0.0) { return x; }
    return args.cap * tanh(clamp(x / args.cap, -15.0, 15.0));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let at = wid.x * args.n_vocab;
    let goal = targets[args.at0 + wid.x];
    let weight = weights[args.at0 + wid.x];
    // By its bits: a compiler may take it that there are no NaN.
    var bad = 0.0;
    var top = -3.0e38;
    for (var i = lid; i < args.n_vocab; i += 256) {
        let x = logits[at + i];
        if ((bitcast<u32>(x) & NOT_FINITE) == NOT_FINITE) { bad = 1.0; }
        top = max(top, x);
    }
    bad = workgroup_max(bad, lid);
    top = capped(workgroup_max(top, lid));
    var sum = 0.0;
    var y = 0.0;
    var y_goal = -3.0e38;
    for (var i = lid; i < args.n_vocab; i += 256) {
        y = capped(logits[at + i]);
        logits[at + i] = y;
        sum += exp(y - top);
        if (i == goal) { y_goal = y; }
    }
    sum = workgroup_sum(sum, lid);
    y_goal = workgroup_max(y_goal, lid);
    let scale = args.scale * weight;
    for (var i = lid; i < args.n_vocab; i += 256) {
        y = logits[at + i];
        var d = exp(y - top) / sum;
        if (i == goal) { d -= 1.0; }
        if (args.cap != 0.0) { d *= 1.0 - (y / args.cap) * (y / args.cap); }
        logits[at + i] = scale * d;
    }
    if (lid > 0) { return; }
    let bits = bitcast<u32>(weight * (log(sum) + top - y_goal));
    loss[args.at0 + wid.x] = select(bits, NOT_A_NUMBER, bad > 0.0);
}
