// include: reduce4 stream input lanes
// formats: A B C
// decode_qkv: first stage of a layer, one token. h = stream (lib/stream), n = rms(h) * w_norm,
//   out = [Wq n, Wk n, Wv n], raw. h goes to h_out.
//   wA [n_q, n_embd], wB [n_k, n_embd], wC [n_v, n_embd]; n_k = n_v = 0 for layers without KV.
// Grid: (n_q + n_k + n_v) / ROWS, ROWS = 2 * 256 / LANES; n_q, n_k, n_v are multiples of ROWS, so
// that a workgroup works on one matrix. Every workgroup norms the stream for itself. f32.
// CPU twin: ref_rmsnorm(), ref_matmul().

override LANES: u32 = 32;

struct Args {
    n_embd: u32, n_q: u32, n_k: u32, n_v: u32,
    eps: f32, scale: f32, w_post: u32, w_norm: u32,
    q0: u32, scale_q: f32, scale_k: f32, scale_v: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> base: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> update: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> wA: array<WA>;
@group(0) @binding(5) var<storage, read> wB: array<WB>;
@group(0) @binding(6) var<storage, read> wC: array<WC>;
@group(0) @binding(7) var<storage, read_write> h_out: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let factor = stream_factor(lid);
    let norm = stream_norm(lid, factor);
    let n_group = args.n_embd / 16;
    let first = wid.x * 512 / LANES; // row of the workgroup: which matrix is uniform
    let row = first + lid / LANES * 2;
    var sum = vec2(0.0);
    for (var g0 = 0u; g0 < n_group; g0 += CHUNK_GROUPS) {
        let n = min(CHUNK_GROUPS, n_group - g0);
        for (var i = lid; i < n * 4; i += 256) {
            let h = stream_at(g0 * 4 + i, factor);
            if (wid.x == 0) { h_out[g0 * 4 + i] = h; }
            input[input_slot(i)] = h * norm * vectors[args.w_norm / 4 + g0 * 4 + i];
        }
        workgroupBarrier();
        if (first < args.n_q) {
            let at = row * n_group + g0;
            for (var g = lid % LANES; g < n; g += LANES) {
                sum += vec2(input_dot(get16A(at + g), g), input_dot(get16A(at + n_group + g), g));
            }
        } else if (first < args.n_q + args.n_k) {
            let at = (row - args.n_q) * n_group + g0;
            for (var g = lid % LANES; g < n; g += LANES) {
                sum += vec2(input_dot(get16B(at + g), g), input_dot(get16B(at + n_group + g), g));
            }
        } else {
            let at = (row - args.n_q - args.n_k) * n_group + g0;
            for (var g = lid % LANES; g < n; g += LANES) {
                sum += vec2(input_dot(get16C(at + g), g), input_dot(get16C(at + n_group + g), g));
            }
        }
        workgroupBarrier();
    }
    sum = lanes_sum(sum, lid);
    var scale = args.scale_v;
    if (first < args.n_q) { scale = args.scale_q; }
    else if (first < args.n_q + args.n_k) { scale = args.scale_k; }
    if (lid % LANES == 0) {
        out[args.q0 + row] = sum.x * scale;
        out[args.q0 + row + 1] = sum.y * scale;
    }
}
