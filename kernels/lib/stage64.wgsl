// stage64: puts a vector into workgroup memory for lib/input64, a thread a group of 16.

// Chunks c0 .. c0 + n - 1 of the vector, visible to all threads when it returns.
fn input_stage(c0: u32, n: u32, lid: u32) {
    for (var g = lid; g < 4u * n; g += 256u) {
        let i = 16u * c0 + 4u * g;
        let r = input16(mat4x4<f32>(input_value(i), input_value(i + 1u), input_value(i + 2u),
                                    input_value(i + 3u)));
        let at = input_slot(g);
        input_high[at] = r.high;
        input_low[at] = r.low;
        input_scale[at] = r.scale;
        input_sum[at] = r.sum;
    }
    workgroupBarrier();
}
