// max16: maxima over the 16 neighbouring threads (id / 16) of a workgroup of 128, for four rows
// twice. The kernel has a_tile, 256 vec4 of which are free here: all threads are past reading them,
// and write them only after a barrier.

fn max16(lo: vec4<f32>, hi: vec4<f32>, id: u32) -> mat2x4<f32> {
    a_tile[id] = lo;
    a_tile[128 + id] = hi;
    workgroupBarrier();
    let first = id & 112;
    var most = mat2x4<f32>(lo, hi);
    for (var i = 1u; i < 16; i++) {
        let at = first + (id + i) % 16;
        most[0] = max(most[0], a_tile[at]);
        most[1] = max(most[1], a_tile[128 + at]);
    }
    workgroupBarrier();
    return most;
}
