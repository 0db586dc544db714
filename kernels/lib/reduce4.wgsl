// reduce4: sums of four values at once over a workgroup of 256. Every thread gets the result; the
// memory may be used again at once.

var<workgroup> reduce4_memory: array<vec4<f32>, 256>;

fn workgroup_sum4(v: vec4<f32>, lid: u32) -> vec4<f32> {
    reduce4_memory[lid] = v;
    for (var n = 128u; n > 0; n /= 2) {
        workgroupBarrier();
        if (lid < n) { reduce4_memory[lid] += reduce4_memory[lid + n]; }
    }
    workgroupBarrier();
    let sum = reduce4_memory[0];
    workgroupBarrier();
    return sum;
}

// The sum over the eight neighbouring threads of the caller (lid / 8), in the first of them.
fn sum8(v: vec2<f32>, lid: u32) -> vec2<f32> {
    reduce4_memory[lid] = vec4(v, 0.0, 0.0);
    workgroupBarrier();
    var sum = v;
    if (lid % 8 == 0) {
        for (var i = 1u; i < 8; i++) { sum += reduce4_memory[lid + i].xy; }
    }
    workgroupBarrier();
    return sum;
}
