// include: reduce4 stream input64 lanes gelu
// formats: A
// decode_ple: sixth stage of a layer with per-layer embeddings, one token.
//   h = stream (lib/stream), e = (rms(b / sqrt(n_embd)) * w_ple + a) / sqrt(2),
//   out[p] = gelu(Wgate h)[p] * e[p], p < n_ple. h goes to h_out; it is not normed.
//   wA [n_ple, n_embd]; b = projected[ple0 ..], a = token[ple0 ..] are this layer's slices.
// Grid: ceil(n_ple * LANES / 256); LANES threads share a row. h as 16-bit integers in groups of 16,
// the rest f32 (lib/input64); n_embd is a multiple of 64.
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

var<private> first_group: bool;

// Values 4 i .. 4 i + 3 of the stream; the first workgroup writes it.
fn input_value(i: u32) -> vec4<f32> {
    let h = stream_at(i);
    if (first_group) { h_out[i] = h; }
    return h;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    stream_open(lid);
    first_group = wid.x == 0;
    let norm = ple_norm(lid);
    let n_chunk = args.n_embd / 64;
    let row = (wid.x * 256 + lid) / LANES;
    let at = min(row, args.n_ple - 1) * n_chunk;
    var sum = 0.0;
    for (var c0 = 0u; c0 < n_chunk; c0 += INPUT_CHUNKS) {
        let n = min(INPUT_CHUNKS, n_chunk - c0);
        input_stage(c0, n, lid);
        for (var c = lid % LANES; c < n; c += LANES) {
            sum += dot64A(at + c0 + c, input_get(groups64A(c)));
        }
        workgroupBarrier();
    }
    sum = lanes_sum(vec2(sum, 0.0), lid).x * args.scale_gate;
    if (lid % LANES == 0 && row < args.n_ple) { out[row] = gelu(sum) * ple_input(row, norm); }
}
