// include: reduce4 stream input64 stage64 lanes gelu lora_rows lora_make packed_rows
// formats: A B
// decode_ffn: fourth stage of a layer, one token. h = stream (lib/stream), z = rms(h) * w_norm,
//   act[row0 + r] = gelu(Wgate z)[r] * (Wup z)[r], r < n_row, as 16-bit integers in groups of 16
//   (lib/dot64, lib/packed_rows). h goes to h_out.
//   With U, gate z and up z have what adapters add (lib/lora_rows: n_col = n_embd, two targets of
//   n_ff rows), and behind act are n_part parts of the down rows' u; a workgroup's is the one at
//   slot0 + its number: sum_r Adown[k, row0 + r] act[row0 + r], r of its rows, k < down_rank. They
//   are [down_rank / 2, n_part, 2] f32 from element part0 on, n_part rounded up to be even.
//   Otherwise lora is not read.
//   wA gate [n_row, n_embd], wB up [n_row, n_embd].
// Grid: any number of workgroups; each norms the stream for itself, then they take blocks of
// 256 / LANES rows in turn; LANES threads share a row of each matrix; rows come in whole groups of
// 16. With MORE there is a workgroup for every block. z as 16-bit integers in groups of 16, the
// rest f32 (lib/input64); n_embd is a multiple of 64.
// CPU twin: ref_rmsnorm(), ref_matmul(), ref_lora(), ref_geglu().

override LANES: u32 = 8; // 8 or 16

struct Args {
    n_embd: u32, n_row: u32, row0: u32, eps: f32,
    scale: f32, w_post: u32, w_norm: u32, scale_gate: f32,
    scale_up: f32, n_ff: u32, rank: u32, factors: u32,
    a0: u32, b0: u32, down_rank: u32, down_a0: u32,
    part0: u32, n_part: u32, slot0: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> base: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> update: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> wA: array<WA>;
@group(0) @binding(5) var<storage, read> wB: array<WB>;
@group(0) @binding(6) var<storage, read_write> h_out: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> act: array<vec4<u32>>;
@group(0) @binding(8) var<storage, read> lora: array<vec4<u32>>;

var<workgroup> values: array<f32, 32>; // of the workgroup's rows

var<private> first_group: bool;
var<private> down_part: f32; // of the down rows' u, this thread's

// Values 4 i .. 4 i + 3 of the normed stream; the first workgroup writes the stream.
fn input_value(i: u32) -> vec4<f32> {
    let h = stream_at(i);
    if (first_group) { h_out[i] = h; }
    return lora_keep(i, h * stream.norm * vectors[args.w_norm / 4 + i]);
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

// What adapters will need of this thread's rows and of its part of the down rows' u.
struct Ahead { gate: vec4<u32>, up: vec4<u32>, down: vec4<u32> }

fn ask_ahead(g: Lora, row0: u32, row: u32, lid: u32) -> Ahead {
    if (ADAPTED == 0) { return Ahead(); }
    let r = args.row0 + row;
    var down = vec4(0u);
    if (lid / LANES < args.down_rank && lid % LANES < 32 / LANES) {
        down = down_a(row0, lid / LANES, lid);
    }
    return Ahead(lora_ahead(g, r, lid), lora_ahead(g, args.n_ff + r, lid), down);
}

// This thread's part of what adapters add to a gate and an up row.
fn added_rows(g: Lora, ahead: Ahead, row: u32, lid: u32) -> vec2<f32> {
    let rows = vec2(args.row0 + row, args.n_ff + args.row0 + row);
    var sum = vec2(lora_row(g, ahead.gate, rows.x, 0, lid),
                   lora_row(g, ahead.up, rows.y, g.n, lid));
    if (MORE != 0) { sum += lora_rest(g, 2, rows, lid); }
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
    let at = packed_scale(g, n);
    act[packed_high(g, n)] = x.high;
    act[packed_low(g, n)] = x.low;
    act[at][g % 2 * 2] = bitcast<u32>(x.scale);
    act[at][g % 2 * 2 + 1] = bitcast<u32>(x.sum);
}

// Eight values of rank r of the down rows' A, for row0 and the following rows, by thread.
fn down_a(row0: u32, r: u32, lid: u32) -> vec4<u32> {
    return lora[args.down_a0 + r * (args.n_ff / 8) + (args.row0 + row0) / 8 + lid % LANES];
}

// Adds the block's part of the down rows' u to the workgroup's, which the last block writes. The
// first ranks wait in down_part, others where they belong.
fn put_parts(row0: u32, step: u32, ahead: vec4<u32>, slot: u32, lid: u32) {
    let rows = 256 / LANES; // of the block; eight for each of some threads
    let i = lid % LANES;
    for (var r0 = 0u; r0 < args.down_rank; r0 += rows) {
        let r = r0 + lid / LANES;
        var sum = 0.0;
        if (r < args.down_rank && i < rows / 8 && row0 + 8 * i < args.n_row) {
            var a = ahead;
            if (r0 > 0) { a = down_a(row0, r, lid); }
            sum = lora_dot(a, values4(8 * i), values4(8 * i + 4));
        }
        if (r0 == 0) {
            down_part += sum;
            sum = down_part;
            if (row0 + step < args.n_row) { continue; }
        }
        sum = lanes_sum(vec2(sum, 0.0), lid).x;
        if (i == 0 && r < args.down_rank) {
            let at = args.part0 + r / 2 * ((args.n_part + 1) / 2) + slot / 2;
            let k = slot % 2 * 2 + r % 2;
            if (r0 > 0 && row0 >= step) { sum += bitcast<f32>(act[at][k]); }
            act[at][k] = bitcast<u32>(sum);
        }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    stream_open(lid);
    first_group = wid.x == 0;
    let n_chunk = args.n_embd / 64;
    let rows = 256 / LANES;
    let scale = vec2(args.scale_gate, args.scale_up);
    let added = Lora(args.factors, args.a0, args.b0, args.n_embd, args.rank, 0,
                     min(U / 2, args.rank));
    let whole = n_chunk <= INPUT_CHUNKS; // the input stays for all rows
    if (whole) {
        input_stage(0, n_chunk, lid);
        if (ADAPTED != 0) { lora_make(added, 2 * added.n, 0, n_chunk, lid); }
    }
    let step = n_wg.x * rows;
    for (var row0 = wid.x * rows; row0 < args.n_row; row0 += step) {
        let row = min(row0 + lid / LANES, args.n_row - 1);
        let at = row * n_chunk;
        let ahead = ask_ahead(added, row0, row, lid);
        var sum = vec2(0.0);
        if (whole) {
            sum = dot_rows(at, n_chunk, lid);
            if (ADAPTED != 0) { workgroupBarrier(); } // u is there
        } else {
            for (var c0 = 0u; c0 < n_chunk; c0 += INPUT_CHUNKS) {
                let n = min(INPUT_CHUNKS, n_chunk - c0);
                input_stage(c0, n, lid);
                if (ADAPTED != 0) { lora_make(added, 2 * added.n, c0, n, lid); }
                sum += dot_rows(at + c0, n, lid);
                workgroupBarrier();
            }
        }
        sum *= scale;
        if (ADAPTED != 0) { sum += added_rows(added, ahead, row, lid); }
        sum = lanes_sum(sum, lid);
        if (lid % LANES == 0) { values[lid / LANES] = gelu(sum.x) * sum.y; }
        workgroupBarrier();
        if (lid < rows / 16) { pack(row0 + lid * 16, lid * 16); }
        if (ADAPTED != 0) {
            put_parts(row0, step, ahead.down, args.slot0 + wid.x, lid);
        }
        workgroupBarrier();
    }
}
