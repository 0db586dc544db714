// include: gelu
// ple_gate: gate[t, i] = gelu(gate[t, i]) * e[t, l, i] for one layer l, in place.
//   gate [n_tok, n_ple]; e [n_tok, e_stride], layer l's values from e0 on.
// Grid: ceil(n_tok * n_ple / 256) workgroups of 256 threads. f32. CPU twin: ref_gelu().

struct Args { n_tok: u32, n_ple: u32, e_stride: u32, e0: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> e: array<f32>;
@group(0) @binding(2) var<storage, read_write> gate: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let i = gid.x;
    if (i >= args.n_tok * args.n_ple) { return; }
    gate[i] = gelu(gate[i]) * e[i / args.n_ple * args.e_stride + args.e0 + i % args.n_ple];
}
