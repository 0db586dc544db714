// include: reduce4 stream input lanes gelu
// formats: A B
// decode_ffn: fourth stage of a layer, one token. h = stream (lib/stream), z = rms(h) * w_norm,
//   act[row0 + r] = gelu(Wgate z)[r] * (Wup z)[r], r < n_row. h goes to h_out.
//   wA gate [n_row, n_embd], wB up [n_row, n_embd].
// Grid: ceil(n_row / ROWS), ROWS = 256 / LANES; LANES threads share a row of each. Every
// workgroup norms the stream for itself. f32. CPU twin: ref_rmsnorm(), ref_matmul(), ref_geglu().

override LANES: u32 = 32;

struct Args {
    n_embd: u32, n_row: u32, row0: u32, eps: f32,
    scale: f32, w_post: u32, w_norm: u32, scale_gate: f32,
    scale_up: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> base: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> update: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> wA: array<WA>;
@group(0) @binding(5) var<storage, read> wB: array<WB>;
@group(0) @binding(6) var<storage, read_write> h_out: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> act: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let factor = stream_factor(lid);
    let norm = stream_norm(lid, factor);
    let n_group = args.n_embd / 16;
    let row = wid.x * 256 / LANES + lid / LANES;
    let at = min(row, args.n_row - 1) * n_group;
    var sum = vec2(0.0);
    for (var g0 = 0u; g0 < n_group; g0 += CHUNK_GROUPS) {
        let n = min(CHUNK_GROUPS, n_group - g0);
        for (var i = lid; i < n * 4; i += 256) {
            let h = stream_at(g0 * 4 + i, factor);
            if (wid.x == 0) { h_out[g0 * 4 + i] = h; }
            input[input_slot(i)] = h * norm * vectors[args.w_norm / 4 + g0 * 4 + i];
        }
        workgroupBarrier();
        for (var g = lid % LANES; g < n; g += LANES) {
            sum += vec2(input_dot(get16A(at + g0 + g), g), input_dot(get16B(at + g0 + g), g));
        }
        workgroupBarrier();
    }
    sum = lanes_sum(sum, lid);
    if (lid % LANES == 0 && row < args.n_row) {
        act[args.row0 + row] = gelu(sum.x * args.scale_gate) * sum.y * args.scale_up;
    }
}
