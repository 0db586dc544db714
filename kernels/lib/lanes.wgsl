// lanes: sums over neighbouring threads of a workgroup of 256. LANES of them, a power of two, share
// a row of a matrix, so that the workgroup works on 256 / LANES rows at a time.

var<workgroup> lanes_memory: array<vec2<f32>, 256>;

// The sum of v over the caller's LANES threads, in the first of them.
fn lanes_sum(v: vec2<f32>, lid: u32) -> vec2<f32> { return sum_of(v, LANES, lid); }

// The same for `width` threads, a power of two.
fn sum_of(v: vec2<f32>, width: u32, lid: u32) -> vec2<f32> {
    lanes_memory[lid] = v;
    for (var n = width / 2; n > 0; n /= 2) {
        workgroupBarrier();
        if (lid % width < n) { lanes_memory[lid] += lanes_memory[lid + n]; }
    }
    let sum = lanes_memory[lid];
    workgroupBarrier();
    return sum;
}
