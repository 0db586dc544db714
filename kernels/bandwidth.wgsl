// bandwidth: reads a buffer once, as fast as the device's memory allows.
//   out[g] = sum, modulo 2^32, of the words that workgroup g reads; all of them together sum up
//   data [4 n]. data [n] vectors of four words, out [n_group].
// Grid: n_group workgroups of 256 threads, each thread every (256 n_group)-th vector. u32.
// CPU twin: the sum in model/bandwidth.c.

struct Args { n: u32, n_group: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

var<workgroup> part: array<u32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let stride = args.n_group * 256;
    var sum = vec4<u32>();
    for (var i = wid.x * 256 + lid; i < args.n; i += stride) { sum += data[i]; }
    part[lid] = sum.x + sum.y + sum.z + sum.w;
    workgroupBarrier();
    for (var n = 128u; n > 0; n >>= 1) {
        if (lid < n) { part[lid] += part[lid + n]; }
        workgroupBarrier();
    }
    if (lid == 0) { out[wid.x] = part[0]; }
}
