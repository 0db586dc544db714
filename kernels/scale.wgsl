// include: flat
// scale: x[i] *= scale, i < n; with scale 0 whatever is there becomes 0.
// Grid: ceil(n / 256) workgroups (lib/flat) of 256 threads. f32. CPU twin: a plain loop.

struct Args { n: u32, scale: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat(wid) * 256 + lid;
    if (i >= args.n) { return; }
    if (args.scale == 0.0) { x[i] = 0.0; } else { x[i] *= args.scale; }
}
