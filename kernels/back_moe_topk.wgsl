// include: reduce
// back_moe_topk: the router's gradient, through the softmax over the chosen experts. How much the
// j-th one counts, weights[t, j], has the gradient d_j = dsum[t] . part[t, j]:
//   dlogits[t, ids[t, j]] = scale * weights[t, j] * (d_j - sum_i weights[t, i] * d_i),
//   and 0 for experts that are not chosen.
//   ids, weights [n_tok, n_used], n_used <= 256; part [n_tok, n_used, n], dsum [n_tok, n], n a
//   multiple of 4; dlogits [n_tok, n_expert].
// Grid: n_tok workgroups of 256 threads. f32. CPU twin: experts_backward().

struct Args { n: u32, n_used: u32, n_expert: u32, scale: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> part: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> dsum: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dlogits: array<f32>;

var<workgroup> d: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n4 = args.n / 4;
    let first = wid.x * args.n_used;
    var mean = 0.0;
    for (var j = 0u; j < args.n_used; j++) {
        var sum = 0.0;
        for (var i = lid; i < n4; i += 256) {
            sum += dot(dsum[wid.x * n4 + i], part[(first + j) * n4 + i]);
        }
        let d_j = workgroup_sum(sum, lid);
        if (lid == 0) { d[j] = d_j; }
        mean += weights[first + j] * d_j;
    }
    workgroupBarrier();
    for (var e = lid; e < args.n_expert; e += 256) {
        var value = 0.0;
        for (var j = 0u; j < args.n_used; j++) {
            if (ids[first + j] == e) {
                value = args.scale * weights[first + j] * (d[j] - mean);
            }
        }
        dlogits[wid.x * args.n_expert + e] = value;
    }
}
