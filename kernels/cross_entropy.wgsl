// include: loss
// cross_entropy: with y = cap * tanh(logits[t] / cap) (cap 0: y = logits[t]) and p = softmax(y):
//   loss[t] = -weights[t] * log p[target], NaN unless all logits are finite, and in place
//   logits[t, i] = scale * weights[t] * (p[i] - (1 for the target)) * (1 - (y[i] / cap)^2).
//   logits [n_row, n_vocab]; targets, weights and loss from at0 on; parts [n_row, n_part] as
//   cross_entropy_parts leaves them.
// Grid: x = n_row, y = n_part; 256 threads. f32.
// CPU twin: ref_softcap(), back_cross_entropy(), back_softcap().

const NOT_A_NUMBER = 0x7fc00000u;

struct Args { n_vocab: u32, at0: u32, cap: f32, scale: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> parts: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> logits: array<f32>;
@group(0) @binding(5) var<storage, read_write> loss: array<u32>; // bits of f32

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let at = wid.x * args.n_vocab;
    let part0 = wid.x * n_wg.y;
    let goal = targets[args.at0 + wid.x];
    let weight = weights[args.at0 + wid.x];
    var all = parts[part0];
    for (var p = 1u; p < n_wg.y; p++) { all = max(all, parts[part0 + p]); }
    var sum = 0.0;
    for (var p = 0u; p < n_wg.y; p++) {
        let part = parts[part0 + p];
        sum += part.y * exp(part.x - all.x);
    }
    let scale = args.scale * weight;
    let end = min((wid.y + 1) * LOSS_PART, args.n_vocab);
    for (var i = wid.y * LOSS_PART + lid; i < end; i += 256) {
        let y = capped(logits[at + i]);
        var d = exp(y - all.x) / sum;
        if (i == goal) { d -= 1.0; }
        if (args.cap != 0.0) { d *= 1.0 - (y / args.cap) * (y / args.cap); }
        logits[at + i] = scale * d;
    }
    if (wid.y > 0 || lid > 0) { return; }
    let bits = bitcast<u32>(weight * (log(sum) + all.x - all.z));
    loss[args.at0 + wid.x] = select(bits, NOT_A_NUMBER, all.w > 0.0);
}
