// As lib/reduce4.wgsl, with shuffles among SUBGROUP threads (see lib/lanes.subgroup.wgsl).

enable subgroups;

var<workgroup> reduce4_memory: array<vec4<f32>, 256>;

fn workgroup_sum4(v: vec4<f32>, lid: u32) -> vec4<f32> {
    var part = v;
    for (var n = SUBGROUP / 2; n > 0; n /= 2) { part += subgroupShuffleXor(part, n); }
    if (lid % SUBGROUP == 0) { reduce4_memory[lid / SUBGROUP] = part; }
    workgroupBarrier();
    var sum = reduce4_memory[0];
    for (var i = 1u; i < 256 / SUBGROUP; i++) { sum += reduce4_memory[i]; }
    workgroupBarrier();
    return sum;
}

fn sum8(v: vec2<f32>, lid: u32) -> vec2<f32> {
    var sum = v;
    for (var n = min(SUBGROUP, 8u) / 2; n > 0; n /= 2) { sum += subgroupShuffleXor(sum, n); }
    if (SUBGROUP < 8) {
        reduce4_memory[lid] = vec4(sum, 0.0, 0.0);
        workgroupBarrier();
        for (var i = SUBGROUP; i < 8; i += SUBGROUP) { sum += reduce4_memory[(lid + i) % 256].xy; }
        workgroupBarrier();
    }
    return sum;
}
