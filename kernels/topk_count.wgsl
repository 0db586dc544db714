// include: reduce4
// topk_count: caps the logits in place and counts them by size, for topk_select.
//   logits[i] = cap * tanh(logits[i] / cap) (cap 0: as they are),
//   histogram[bin(logit)] += 1, bin = (logit - low) * bins_per_unit, limited to the bins,
//   sums[g] = sum of exp(logit - shift) over workgroup g (f32 bits, behind the bins).
//   histogram [N_BIN] was cleared by decode_norm; sums [groups] follow it. Clears topk_select's
//   count, selected[0].
// Grid: ceil(n / (256 * PER_THREAD)). f32. CPU twin: ref_softcap().

override N_BIN: u32 = 2048;
override PER_THREAD: u32 = 16;

struct Args { n: u32, cap: f32, low: f32, bins_per_unit: f32, shift: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> histogram: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> selected: array<u32>;

var<workgroup> bins: array<atomic<u32>, 2048>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    for (var i = lid; i < N_BIN; i += 256) { atomicStore(&bins[i], 0); }
    workgroupBarrier();
    var sum = 0.0;
    for (var k = 0u; k < PER_THREAD; k++) {
        let i = (wid.x * PER_THREAD + k) * 256 + lid;
        if (i >= args.n) { break; }
        var x = logits[i];
        if (args.cap > 0.0) {
            x = args.cap * tanh(clamp(x / args.cap, -15.0, 15.0));
            logits[i] = x;
        }
        sum += exp(x - args.shift);
        let bin = clamp((x - args.low) * args.bins_per_unit, 0.0, f32(N_BIN - 1));
        atomicAdd(&bins[u32(bin)], 1);
    }
    workgroupBarrier();
    for (var i = lid; i < N_BIN; i += 256) {
        let n = atomicLoad(&bins[i]);
        if (n > 0) { atomicAdd(&histogram[i], n); }
    }
    let total = workgroup_sum4(vec4(sum, 0.0, 0.0, 0.0), lid).x;
    if (lid == 0) { atomicStore(&histogram[N_BIN + wid.x], bitcast<u32>(total)); }
    if (lid == 0 && wid.x == 0) { selected[0] = 0; }
}
