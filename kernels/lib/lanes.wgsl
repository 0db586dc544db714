// lanes: sums over the LANES neighbouring threads that share a row of a matrix. A workgroup of 256
// threads works on 256 / LANES rows at a time; LANES is a power of two.

var<workgroup> lanes_memory: array<vec2<f32>, 256>;

// The sum of v over the caller's LANES threads, in the first of them.
fn lanes_sum(v: vec2<f32>, lid: u32) -> vec2<f32> {
    lanes_memory[lid] = v;
    for (var n = LANES / 2; n > 0; n /= 2) {
        workgroupBarrier();
        if (lid % LANES < n) { lanes_memory[lid] += lanes_memory[lid + n]; }
    }
    let sum = lanes_memory[lid];
    workgroupBarrier();
    return sum;
}
