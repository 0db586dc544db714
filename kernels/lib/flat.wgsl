// flat: the number of a workgroup in a grid that has more of them than fit in one direction; see
// run_flat() in model/ops_gpu.c.

fn flat(wid: vec3<u32>) -> u32 { return wid.y * 65535 + wid.x; }
