// include: reduce4 stream input64 stage64 lanes gelu lora_added
// formats: A B
// decode_ffn: fourth stage of a layer, one token. h = stream (lib/stream), z = rms(h) * w_norm,
//   act[row0 + r] = gelu(Wgate z)[r] * (Wup z)[r], r < n_row, as 16-bit integers in groups of 16
//   (lib/dot64), laid out so that threads that work on neighbouring chunks of 64 read neighbouring
//   elements: with n = ceil(n_ff / 64), high of group g is element g % 4 * n + g / 4, low the one
//   4 n later, and scale and sum are half g % 2 of element 8 n + g / 2. h goes to h_out.
//   With ADAPTED, gate z and up z have B u added (lib/lora_added; gate's n_ff rows, then up's);
//   otherwise `added` is not read.
//   wA gate [n_row, n_embd], wB up [n_row, n_embd].
// Grid: any number of workgroups; each norms the stream for itself, then they take blocks of
// 256 / LANES rows in turn; LANES threads share a row of each matrix; rows come in whole groups of
// 16. z as 16-bit integers in groups of 16, the rest f32 (lib/input64); n_embd is a multiple of 64.
// CPU twin: ref_rmsnorm(), ref_matmul(), ref_lora(), ref_geglu().

override LANES: u32 = 8; // 8 or 16
override ADAPTED: u32 = 0;

struct Args {
    n_embd: u32, n_row: u32, row0: u32, eps: f32,
    scale: f32, w_post: u32, w_norm: u32, scale_gate: f32,
    scale_up: f32, n_ff: u32, rank: u32, b0: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> base: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> update: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> wA: array<WA>;
@group(0) @binding(5) var<storage, read> wB: array<WB>;
@group(0) @binding(6) var<storage, read_write> h_out: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> act: array<vec4<u32>>;
@group(0) @binding(8) var<storage, read> added: array<u32>;

var<workgroup> values: array<f32, 32>; // of the workgroup's rows

var<private> first_group: bool;

// Values 4 i .. 4 i + 3 of the normed stream; the first workgroup writes the stream.
fn input_value(i: u32) -> vec4<f32> {
    let h = stream_at(i);
    if (first_group) { h_out[i] = h; }
    return h * stream.norm * vectors[args.w_norm / 4 + i];
}

// This thread's part of a gate and an up row, from chunk `at` on, times the n chunks staged.
fn dot_rows(at: u32, n: u32, lid: u32) -> vec2<f32> {
    var sum = vec2(0.0);
    for (var k = 0u; k < TURNS; k++) {
        let c = turn_chunk(k, n, lid);
        let part = vec2(dot64A(at + c, input_get(groups64A(c))),
                        dot64B(at + c, input_get(groups64B(c))));
        sum += select(vec2(0.0), part, turn_counts(k, n, lid));
    }
    return sum;
}

// This thread's part of what adapters add to a gate and an up row.
fn added_rows(row: u32, lid: u32) -> vec2<f32> {
    var sum = vec2(0.0);
    for (var k = lid % LANES; k < args.rank / 2; k += LANES) {
        sum += vec2(dot(added_b(row, k), added_u(0, k)),
                    dot(added_b(args.n_ff + row, k), added_u(1, k)));
    }
    return sum;
}

fn values4(i: u32) -> vec4<f32> {
    return vec4(values[i], values[i + 1], values[i + 2], values[i + 3]);
}

// Writes the 16 values at i, which are rows row .. row + 15.
fn pack(row: u32, i: u32) {
    if (row >= args.n_row) { return; }
    let x = input16(mat4x4<f32>(values4(i), values4(i + 4), values4(i + 8), values4(i + 12)));
    let g = (args.row0 + row) / 16;
    let n = (args.n_ff + 63) / 64;
    let at = g % 4 * n + g / 4;
    act[at] = x.high;
    act[4 * n + at] = x.low;
    act[8 * n + g / 2][g % 2 * 2] = bitcast<u32>(x.scale);
    act[8 * n + g / 2][g % 2 * 2 + 1] = bitcast<u32>(x.sum);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    stream_open(lid);
    first_group = wid.x == 0;
    let n_chunk = args.n_embd / 64;
    let rows = 256 / LANES;
    let whole = n_chunk <= INPUT_CHUNKS; // the input stays for all rows
    if (whole) { input_stage(0, n_chunk, lid); }
    for (var row0 = wid.x * rows; row0 < args.n_row; row0 += n_wg.x * rows) {
        let row = row0 + lid / LANES;
        let last = args.n_row - 1;
        let at = min(row, last) * n_chunk;
        var sum = vec2(0.0);
        if (whole) {
            sum = dot_rows(at, n_chunk, lid);
        } else {
            for (var c0 = 0u; c0 < n_chunk; c0 += INPUT_CHUNKS) {
                let n = min(INPUT_CHUNKS, n_chunk - c0);
                input_stage(c0, n, lid);
                sum += dot_rows(at + c0, n, lid);
                workgroupBarrier();
            }
        }
        sum = lanes_sum(sum, lid) * vec2(args.scale_gate, args.scale_up);
        if (ADAPTED != 0) { sum += lanes_sum(added_rows(args.row0 + min(row, last), lid), lid); }
        if (lid % LANES == 0) { values[lid / LANES] = gelu(sum.x) * sum.y; }
        workgroupBarrier();
        if (lid < rows / 16) { pack(row0 + lid * 16, lid * 16); }
        workgroupBarrier();
    }
}
