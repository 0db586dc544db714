// include: reduce4 stream input lanes gelu
// formats: A
// decode_ple: sixth stage of a layer with per-layer embeddings, one token.
//   h = stream (lib/stream), e = (rms(b / sqrt(n_embd)) * w_ple + a) / sqrt(2),
//   out[p] = gelu(Wgate h)[p] * e[p], p < n_ple. h goes to h_out; it is not normed.
//   wA [n_ple, n_embd]; b = projected[ple0 ..], a = token[ple0 ..] are this layer's slices.
// Grid: ceil(n_ple / ROWS), ROWS = 2 * 256 / LANES. f32.
// CPU twin: ref_rmsnorm(), ref_matmul(), ref_geglu().

override LANES: u32 = 64;

struct Args {
    n_embd: u32, n_ple: u32, ple0: u32, eps: f32,
    scale: f32, w_post: u32, w_ple: u32, scale_gate: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> base: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> update: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> wA: array<WA>;
@group(0) @binding(5) var<storage, read> projected: array<f32>;
@group(0) @binding(6) var<storage, read> token: array<f32>;
@group(0) @binding(7) var<storage, read_write> h_out: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> out: array<f32>;

fn ple_norm(lid: u32) -> f32 { // the factor on b: 1 / (sqrt(n_embd) * rms(b / sqrt(n_embd)))
    var sum = 0.0;
    for (var p = lid; p < args.n_ple; p += 256) {
        let b = projected[args.ple0 + p];
        sum += b * b;
    }
    let squares = workgroup_sum4(vec4(sum, 0.0, 0.0, 0.0), lid).x / f32(args.n_embd);
    return inverseSqrt(squares / f32(args.n_ple) + args.eps) / sqrt(f32(args.n_embd));
}

fn ple_input(p: u32, norm: f32) -> f32 {
    let w = vectors[args.w_ple / 4 + p / 4][p % 4];
    return (projected[args.ple0 + p] * norm * w + token[args.ple0 + p]) * 0.7071067811865476;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let factor = stream_factor(lid);
    let norm = ple_norm(lid);
    let n_group = args.n_embd / 16;
    let row = (wid.x * 256 / LANES + lid / LANES) * 2;
    let last = args.n_ple - 1;
    let row_a = min(row, last) * n_group;
    let row_b = min(row + 1, last) * n_group;
    var sum = vec2(0.0);
    for (var g0 = 0u; g0 < n_group; g0 += CHUNK_GROUPS) {
        let n = min(CHUNK_GROUPS, n_group - g0);
        for (var i = lid; i < n * 4; i += 256) {
            let h = stream_at(g0 * 4 + i, factor);
            if (wid.x == 0) { h_out[g0 * 4 + i] = h; }
            input[input_slot(i)] = h;
        }
        workgroupBarrier();
        for (var g = lid % LANES; g < n; g += LANES) {
            sum += vec2(input_dot(get16A(row_a + g0 + g), g), input_dot(get16A(row_b + g0 + g), g));
        }
        workgroupBarrier();
    }
    sum = lanes_sum(sum, lid) * args.scale_gate;
    if (lid % LANES != 0) { return; }
    if (row < args.n_ple) { out[row] = gelu(sum.x) * ple_input(row, norm); }
    if (row + 1 < args.n_ple) { out[row + 1] = gelu(sum.y) * ple_input(row + 1, norm); }
}
