// As lib/lanes.wgsl, with shuffles among SUBGROUP threads, the adapter's narrowest subgroup; the
// invocations of a workgroup with one dimension are in subgroups by order. Without barriers unless
// more threads share a sum.

enable subgroups;

var<workgroup> lanes_memory: array<vec2<f32>, 256>;

fn lanes_sum(v: vec2<f32>, lid: u32) -> vec2<f32> { return sum_of(v, LANES, lid); }

fn sum_of(v: vec2<f32>, width: u32, lid: u32) -> vec2<f32> {
    var sum = v;
    for (var n = min(width, SUBGROUP) / 2; n > 0; n /= 2) { sum += subgroupShuffleXor(sum, n); }
    if (width > SUBGROUP) {
        if (lid % SUBGROUP == 0) { lanes_memory[lid] = sum; }
        workgroupBarrier();
        if (lid % width == 0) {
            for (var i = SUBGROUP; i < width; i += SUBGROUP) { sum += lanes_memory[lid + i]; }
        }
        workgroupBarrier();
    }
    return sum;
}
