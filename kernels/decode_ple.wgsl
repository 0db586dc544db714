// include: reduce4 stream input64 stage64 lanes gelu
// formats: A
// decode_ple: sixth stage of a layer with per-layer embeddings, one token.
//   h = stream (lib/stream), out[p] = gelu(Wgate h)[p] * e[ple0 + p], p < n_ple. h goes to h_out;
//   it is not normed.
//   wA [n_ple, n_embd]; e is what ple_input made, from ple0 on this layer's.
// Grid: ceil(n_ple * LANES / 256); LANES threads share a row. h as 16-bit integers in groups of 16,
// the rest f32 (lib/input64); n_embd is a multiple of 64.
// CPU twin: ref_rmsnorm(), ref_matmul(), ref_geglu().

override LANES: u32 = 64;

struct Args {
    n_embd: u32, n_ple: u32, ple0: u32, eps: f32,
    scale: f32, w_post: u32, scale_gate: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> base: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> update: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> wA: array<WA>;
@group(0) @binding(5) var<storage, read> e: array<f32>;
@group(0) @binding(6) var<storage, read_write> h_out: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> out: array<f32>;

var<private> first_group: bool;

// Values 4 i .. 4 i + 3 of the stream; the first workgroup writes it.
fn input_value(i: u32) -> vec4<f32> {
    let h = stream_at(i);
    if (first_group) { h_out[i] = h; }
    return h;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = (wid.x * 256 + lid) / LANES;
    let factor = e[args.ple0 + min(row, args.n_ple - 1)]; // comes from far: asked for now
    stream_open(lid);
    first_group = wid.x == 0;
    let n_chunk = args.n_embd / 64;
    let at = min(row, args.n_ple - 1) * n_chunk;
    var sum = 0.0;
    for (var c0 = 0u; c0 < n_chunk; c0 += INPUT_CHUNKS) {
        let n = min(INPUT_CHUNKS, n_chunk - c0);
        input_stage(c0, n, lid);
        for (var k = 0u; k < TURNS; k++) {
            let c = turn_chunk(k, n, lid);
            let part = dot64A(at + c0 + c, input_get(groups64A(c)));
            sum += select(0.0, part, turn_counts(k, n, lid));
        }
        workgroupBarrier();
    }
    sum = lanes_sum(vec2(sum, 0.0), lid).x * args.scale_gate;
    if (lid % LANES == 0 && row < args.n_ple) { out[row] = gelu(sum) * factor; }
}
