// include: reduce
// moe_sum: the end of a feed-forward part with experts:
//   out[t] = rms(dense[t]) * w_dense + rms(m) * w_experts, m = sum_j part[t * n_used + j].
//   dense, out [n_tok, n], part [n_tok * n_used, n], n a multiple of 4; w_dense, w_experts: n
//   values of vectors from there.
// Grid: n_tok workgroups of 256 threads. f32, added in order of j. CPU twin: ref_rmsnorm().

struct Args { n: u32, n_used: u32, w_dense: u32, w_experts: u32, eps: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dense: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> part: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n4 = args.n / 4;
    let at = wid.x * n4;
    var dense_sum = 0.0;
    var experts_sum = 0.0;
    for (var i = lid; i < n4; i += 256) {
        var m = vec4(0.0);
        for (var j = 0u; j < args.n_used; j++) { m += part[(wid.x * args.n_used + j) * n4 + i]; }
        out[at + i] = m;
        experts_sum += dot(m, m);
        dense_sum += dot(dense[at + i], dense[at + i]);
    }
    let n = f32(args.n);
    let a = 1.0 / sqrt(workgroup_sum(dense_sum, lid) / n + args.eps);
    let b = 1.0 / sqrt(workgroup_sum(experts_sum, lid) / n + args.eps);
    for (var i = lid; i < n4; i += 256) {
        out[at + i] = dense[at + i] * a * vectors[args.w_dense / 4 + i] +
                      out[at + i] * b * vectors[args.w_experts / 4 + i];
    }
}
