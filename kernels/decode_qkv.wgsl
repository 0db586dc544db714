// include: reduce4 stream input64 stage64 lanes lora_rows lora_make
// formats: A B C
// decode_qkv: first stage of a layer, one token. h = stream (lib/stream), n = rms(h) * w_norm,
//   out = [Wq n, Wk n, Wv n], raw; h is behind them, from element h0 on. With U, the rows have what
//   adapters add to them (lib/lora_rows: n_col = n_embd, a target for each matrix); otherwise lora
//   is not read.
//   wA [n_q, n_embd], wB [n_k, n_embd], wC [n_v, n_embd]; n_k = n_v = 0 for layers without KV.
// Grid: (n_q + n_k + n_v) / ROWS, ROWS = 256 / LANES; n_q, n_k, n_v are multiples of ROWS, so that
// a workgroup works on one matrix. Every workgroup norms the stream for itself. n as 16-bit
// integers in groups of 16, the rest f32 (lib/input64); n_embd is a multiple of 64.
// CPU twin: ref_rmsnorm(), ref_matmul(), ref_lora().

override LANES: u32 = 32;

struct Args {
    n_embd: u32, n_q: u32, n_k: u32, n_v: u32,
    eps: f32, scale: f32, w_post: u32, w_norm: u32,
    q0: u32, scale_q: f32, scale_k: f32, scale_v: f32,
    h0: u32, rank: u32, factors: u32, a0: u32,
    b0: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> base: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> update: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> wA: array<WA>;
@group(0) @binding(5) var<storage, read> wB: array<WB>;
@group(0) @binding(6) var<storage, read> wC: array<WC>;
@group(0) @binding(7) var<storage, read> lora: array<vec4<u32>>;
@group(0) @binding(8) var<storage, read_write> out: array<f32>;

var<private> first_group: bool;

// Values 4 i .. 4 i + 3 of the normed stream; the first workgroup writes the stream.
fn input_value(i: u32) -> vec4<f32> {
    let h = stream_at(i);
    if (first_group) {
        for (var k = 0u; k < 4; k++) { out[args.h0 + 4 * i + k] = h[k]; }
    }
    return lora_keep(i, h * stream.norm * vectors[args.w_norm / 4 + i]);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let first = wid.x * 256 / LANES; // row of the workgroup: which matrix is uniform
    let row = first + lid / LANES;
    let target_rank = (u32(first >= args.n_q) + u32(first >= args.n_q + args.n_k)) * args.rank;
    let added = Lora(args.factors, args.a0, args.b0, args.n_embd, args.rank, target_rank,
                     min(U, args.rank));
    var ahead = vec4(0u);
    if (ADAPTED != 0) { ahead = lora_ahead(added, args.q0 + row, lid); }
    stream_open(lid);
    first_group = wid.x == 0;
    let n_chunk = args.n_embd / 64;
    var sum = vec2(0.0); // of the matrix, of adapters
    for (var c0 = 0u; c0 < n_chunk; c0 += INPUT_CHUNKS) {
        let n = min(INPUT_CHUNKS, n_chunk - c0);
        input_stage(c0, n, lid);
        if (ADAPTED != 0) { lora_make(added, added.n, c0, n, lid); }
        if (first < args.n_q) {
            let at = row * n_chunk + c0;
            for (var k = 0u; k < TURNS; k++) {
                let c = turn_chunk(k, n, lid);
                let part = dot64A(at + c, input_get(groups64A(c)));
                sum.x += select(0.0, part, turn_counts(k, n, lid));
            }
        } else if (first < args.n_q + args.n_k) {
            let at = (row - args.n_q) * n_chunk + c0;
            for (var k = 0u; k < TURNS; k++) {
                let c = turn_chunk(k, n, lid);
                let part = dot64B(at + c, input_get(groups64B(c)));
                sum.x += select(0.0, part, turn_counts(k, n, lid));
            }
        } else {
            let at = (row - args.n_q - args.n_k) * n_chunk + c0;
            for (var k = 0u; k < TURNS; k++) {
                let c = turn_chunk(k, n, lid);
                let part = dot64C(at + c, input_get(groups64C(c)));
                sum.x += select(0.0, part, turn_counts(k, n, lid));
            }
        }
        workgroupBarrier();
    }
    if (ADAPTED != 0) {
        sum.y = lora_row(added, ahead, args.q0 + row, 0, lid);
        if (MORE != 0) { sum.y += lora_rest(added, 1, vec2(args.q0 + row), lid).x; }
    }
    sum = lanes_sum(sum, lid);
    var scale = args.scale_v;
    if (first < args.n_q) { scale = args.scale_q; }
    else if (first < args.n_q + args.n_k) { scale = args.scale_k; }
    if (lid % LANES == 0) { out[args.q0 + row] = sum.x * scale + sum.y; }
}
