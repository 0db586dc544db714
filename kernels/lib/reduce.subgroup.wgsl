// As lib/reduce.wgsl, with subgroup operations of any width (4 to 128). Each subgroup leaves its
// result at the index of its first invocation divided by its width; the invocations of a
// workgroup with one dimension are in subgroups by order.

enable subgroups;

var<workgroup> reduce_part: array<f32, 64>;

fn workgroup_sum(v: f32, lid: u32) -> f32 {
    let width = subgroupAdd(1u);
    let part = subgroupAdd(v);
    if (subgroupElect()) {
        reduce_part[lid / width] = part;
    }
    workgroupBarrier();
    var sum = reduce_part[0];
    for (var i = 1u; i < 256u / width; i++) {
        sum += reduce_part[i];
    }
    workgroupBarrier();
    return sum;
}

fn workgroup_max(v: f32, lid: u32) -> f32 {
    let width = subgroupAdd(1u);
    let part = subgroupMax(v);
    if (subgroupElect()) {
        reduce_part[lid / width] = part;
    }
    workgroupBarrier();
    var top = reduce_part[0];
    for (var i = 1u; i < 256u / width; i++) {
        top = max(top, reduce_part[i]);
    }
    workgroupBarrier();
    return top;
}
