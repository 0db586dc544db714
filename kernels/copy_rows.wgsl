// include: flat
// copy_rows: dst[i] = src[index[i]], or with scatter dst[index[i]] = src[i]: rows of n4 vec4.
//   n_value is n4 times how many indices there are.
// Grid: ceil(n_value / 256) workgroups (lib/flat) of 256 threads. f32. CPU twin: a plain loop.

struct Args { n_value: u32, n4: u32, scatter: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dst: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat(wid) * 256 + lid;
    if (i >= args.n_value) { return; }
    let there = index[i / args.n4] * args.n4 + i % args.n4;
    if (args.scatter != 0) { dst[there] = src[i]; } else { dst[i] = src[there]; }
}
