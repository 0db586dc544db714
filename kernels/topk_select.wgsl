// topk_select: gathers the logits of the highest bins that hold at least k of them together.
//   out: [0] how many were found (more than CAPACITY: not all are listed), [1] log of the sum of
//   exp of all logits (f32 bits), [2], [3] free, then (index, logit bits) in any order.
//   histogram and sums [n_sum] as topk_count left them.
// Grid: ceil(n / (256 * PER_THREAD)); every workgroup finds the lowest bin for itself. out[0] was
// cleared by topk_count. CPU twin: a sort.

override N_BIN: u32 = 2048;
override PER_THREAD: u32 = 16;
override CAPACITY: u32 = 1024;

struct Args { n: u32, k: u32, n_sum: u32, low: f32, bins_per_unit: f32, shift: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> histogram: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<atomic<u32>>;

var<workgroup> above: array<u32, 257>; // logits in the bins of segment s and of all above it
var<workgroup> lowest: u32;

// The highest bin from which on upwards there are at least k logits (0: fewer in all).
fn lowest_bin(lid: u32) -> u32 {
    let per = N_BIN / 256;
    var n = 0u;
    for (var i = 0u; i < per; i++) { n += histogram[lid * per + i]; }
    above[lid] = n;
    if (lid == 0) { above[256] = 0; lowest = 0; }
    workgroupBarrier();
    for (var step = 1u; step < 256; step *= 2) {
        var more = 0u;
        if (lid + step < 256) { more = above[lid + step]; }
        workgroupBarrier();
        above[lid] += more;
        workgroupBarrier();
    }
    if (above[lid] >= args.k && above[lid + 1] < args.k) {
        var bin = lid * per + per;
        var found = above[lid + 1];
        while (found < args.k) {
            bin--;
            found += histogram[bin];
        }
        lowest = bin;
    }
    workgroupBarrier();
    return lowest;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let bin0 = lowest_bin(lid);
    for (var j = 0u; j < PER_THREAD; j++) {
        let i = (wid.x * PER_THREAD + j) * 256 + lid;
        if (i >= args.n) { break; }
        let x = logits[i];
        let bin = u32(clamp((x - args.low) * args.bins_per_unit, 0.0, f32(N_BIN - 1)));
        if (bin < bin0) { continue; }
        let at = atomicAdd(&out[0], 1);
        if (at < CAPACITY) {
            atomicStore(&out[4 + 2 * at], i);
            atomicStore(&out[5 + 2 * at], bitcast<u32>(x));
        }
    }
    if (wid.x == 0 && lid == 0) {
        var sum = 0.0;
        for (var g = 0u; g < args.n_sum; g++) { sum += bitcast<f32>(histogram[N_BIN + g]); }
        atomicStore(&out[1], bitcast<u32>(log(sum) + args.shift));
    }
}
