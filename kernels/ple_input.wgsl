// include: reduce
// ple_input: the per-layer embeddings of every token, in place on their projected part:
//   e[t, l] = (rms(b[t, l] / sqrt(n_embd)) * w + a[t, l]) / sqrt(2).
//   proj [n_tok, n_run, n_ple] holds b and becomes e; token [n_tok, n_run, n_ple] is a, scaled rows
//   of the table; w: n_ple values of vectors from w_norm on; in_scale is 1 / sqrt(n_embd).
// Grid: x = n_run, y = n_tok; 256 threads. f32. CPU twin: text_cpu.c.

struct Args { n_run: u32, n_ple: u32, w_norm: u32, eps: f32, in_scale: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<f32>;
@group(0) @binding(2) var<storage, read> token: array<f32>;
@group(0) @binding(3) var<storage, read_write> proj: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let at = (wid.y * args.n_run + wid.x) * args.n_ple;
    var sum = 0.0;
    for (var i = lid; i < args.n_ple; i += 256) {
        let b = proj[at + i] * args.in_scale;
        sum += b * b;
    }
    let factor = args.in_scale / sqrt(workgroup_sum(sum, lid) / f32(args.n_ple) + args.eps);
    for (var i = lid; i < args.n_ple; i += 256) {
        let c = proj[at + i] * factor * vectors[args.w_norm + i];
        proj[at + i] = (c + token[at + i]) * 0.70710678118654752;
    }
}
