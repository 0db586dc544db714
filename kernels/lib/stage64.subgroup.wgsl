// As lib/stage64.wgsl, four neighbouring threads a group: values are read in order, and a group's
// largest one and sum are shared by shuffles.

enable subgroups;

fn input_stage(c0: u32, n: u32, lid: u32) {
    let n4 = 16u * n;
    for (var i0 = 0u; i0 < n4; i0 += 256u) {
        let i = i0 + lid;
        let x = input_value(16u * c0 + min(i, n4 - 1u));
        let size = max(max(abs(x.x), abs(x.y)), max(abs(x.z), abs(x.w)));
        let pair = max(size, subgroupShuffleXor(size, 1u));
        let scale = input_scale_of(max(pair, subgroupShuffleXor(pair, 2u)));
        let q = vec4<i32>(round(x / scale));
        var sum = q.x + q.y + q.z + q.w;
        sum += subgroupShuffleXor(sum, 1u);
        sum += subgroupShuffleXor(sum, 2u);
        if (i < n4) {
            let at = input_slot(i / 4u);
            input_high[at][i % 4u] = high_bytes(q);
            input_low[at][i % 4u] = low_bytes(q);
            input_scale[at] = scale;
            input_sum[at] = f32(sum) * scale;
        }
    }
    workgroupBarrier();
}
