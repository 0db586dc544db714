// Sums and maxima over a workgroup of 256 invocations, as a tree in workgroup memory.
//
// All invocations must call them, in uniform control flow, with lid = local_invocation_index.
// Every one gets the result, and the next call may follow at once. The order of additions is
// fixed, so that results repeat. CPU twin: a plain loop.

var<workgroup> reduce_part: array<f32, 256>;

fn workgroup_sum(v: f32, lid: u32) -> f32 {
    reduce_part[lid] = v;
    workgroupBarrier();
    for (var n = 128u; n > 0u; n >>= 1u) {
        if (lid < n) {
            reduce_part[lid] += reduce_part[lid + n];
        }
        workgroupBarrier();
    }
    let sum = reduce_part[0];
    workgroupBarrier();
    return sum;
}

fn workgroup_max(v: f32, lid: u32) -> f32 {
    reduce_part[lid] = v;
    workgroupBarrier();
    for (var n = 128u; n > 0u; n >>= 1u) {
        if (lid < n) {
            reduce_part[lid] = max(reduce_part[lid], reduce_part[lid + n]);
        }
        workgroupBarrier();
    }
    let top = reduce_part[0];
    workgroupBarrier();
    return top;
}
