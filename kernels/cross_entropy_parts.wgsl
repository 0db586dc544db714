// include: reduce loss
// cross_entropy_parts: for part p of row t, with y as in cross_entropy:
//   parts[t, p] = (max(y), sum(exp(y - max)), y of the target or less, 1 unless all is finite).
//   logits [n_row, n_vocab], parts [n_row, n_part] vec4, targets from at0 on.
// Grid: x = n_row, y = n_part = ceil(n_vocab / 8192); 256 threads. f32. CPU twin: cross_entropy's.

const NOT_FINITE = 0x7f800000u; // the exponent of infinities and NaN

struct Args { n_vocab: u32, at0: u32, cap: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read_write> parts: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let at = wid.x * args.n_vocab;
    let goal = targets[args.at0 + wid.x];
    let begin = wid.y * LOSS_PART + lid;
    let end = min((wid.y + 1) * LOSS_PART, args.n_vocab);
    // By its bits: a compiler may take it that there are no NaN.
    var bad = 0.0;
    var top = -3.0e38;
    for (var i = begin; i < end; i += 256) {
        let x = logits[at + i];
        if ((bitcast<u32>(x) & NOT_FINITE) == NOT_FINITE) { bad = 1.0; }
        top = max(top, x);
    }
    bad = workgroup_max(bad, lid);
    top = capped(workgroup_max(top, lid));
    var sum = 0.0;
    var y_goal = -3.0e38;
    for (var i = begin; i < end; i += 256) {
        let y = capped(logits[at + i]);
        sum += exp(y - top);
        if (i == goal) { y_goal = y; }
    }
    sum = workgroup_sum(sum, lid);
    y_goal = workgroup_max(y_goal, lid);
    if (lid == 0) { parts[wid.x * n_wg.y + wid.y] = vec4(top, sum, y_goal, bad); }
}
