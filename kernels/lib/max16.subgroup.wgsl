// As lib/max16.wgsl, with shuffles among SUBGROUP threads (see lib/lanes.subgroup.wgsl). Without
// barriers unless 16 is wider.

enable subgroups;

fn max16(lo: vec4<f32>, hi: vec4<f32>, id: u32) -> mat2x4<f32> {
    var most = mat2x4<f32>(lo, hi);
    for (var n = min(SUBGROUP, 16u) / 2; n > 0; n /= 2) {
        most[0] = max(most[0], subgroupShuffleXor(most[0], n));
        most[1] = max(most[1], subgroupShuffleXor(most[1], n));
    }
    if (SUBGROUP < 16) {
        a_tile[id] = most[0];
        a_tile[128 + id] = most[1];
        workgroupBarrier();
        for (var i = SUBGROUP; i < 16; i += SUBGROUP) {
            let at = (id & 112) + (id + i) % 16;
            most[0] = max(most[0], a_tile[at]);
            most[1] = max(most[1], a_tile[128 + at]);
        }
        workgroupBarrier();
    }
    return most;
}
