// vision_scale: x[t, i] *= w[i], in place, for a tower whose layers end in a scale by channel.
//   x [n_tok, n], n a multiple of 4; w: n values of vectors from w_scale on.
// Grid: n_tok workgroups of 256 threads. f32. CPU twin: vision_cpu.c.

struct Args { n: u32, w_scale: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n4 = args.n / 4;
    for (var i = lid; i < n4; i += 256) { x[wid.x * n4 + i] *= vectors[args.w_scale / 4 + i]; }
}
