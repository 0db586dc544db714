// include: flat
// sum_parts: out[i] = old + part[i] + part[n + i] + .., n_part of them in order, i < n; old is
//   out's value, or 0 unless `add`. n is a multiple of 4.
// Grid: ceil(n / 4 / 256) workgroups (lib/flat) of 256 threads. f32. CPU twin: a plain loop.

struct Args { n: u32, n_part: u32, add: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> part: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat(wid) * 256 + lid;
    let n4 = args.n / 4;
    if (i >= n4) { return; }
    var sum = part[i];
    var z = 1u;
    for (; z + 3 < args.n_part; z += 4) { // loaded together: a thread waits once
        let a = part[z * n4 + i];
        let b = part[(z + 1) * n4 + i];
        let c = part[(z + 2) * n4 + i];
        let d = part[(z + 3) * n4 + i];
        sum = sum + a + b + c + d;
    }
    for (; z < args.n_part; z++) { sum += part[z * n4 + i]; }
    if (args.add != 0) { sum += out[i]; }
    out[i] = sum;
}
