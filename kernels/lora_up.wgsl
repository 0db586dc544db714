// lora_up: the second half of what adapters add: out[t, r] = old + sum_k B[row0 + r, k] u[t, k],
//   r < n_row. Rows below end0 take the first `rank` values of u, those below end1 the next, the
//   others the last: the projections of one input, one after the other.
//   B [.., rank] f16 from word b0 of lora, u [n_tok, n_rank], out [n_tok, out_stride]; rank even.
//   old is out's value, or 0 unless `add`.
// Grid: (ceil(n_row / 64), n_tok); a thread makes a value. f32, B is f16. CPU twin: ref_lora().

struct Args {
    n_row: u32, row0: u32, rank: u32, n_rank: u32,
    end0: u32, end1: u32, b0: u32, out_stride: u32,
    add: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> u: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> lora: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = wid.x * 64 + lid;
    if (i >= args.n_row) { return; }
    let row = args.row0 + i;
    let n = args.rank / 2;
    let b = args.b0 + row * n;
    let at = wid.y * (args.n_rank / 2) + (u32(row >= args.end0) + u32(row >= args.end1)) * n;
    var sum = 0.0;
    for (var k = 0u; k < n; k++) { sum += dot(unpack2x16float(lora[b + k]), u[at + k]); }
    let o = wid.y * args.out_stride + i;
    if (args.add != 0) { sum += out[o]; }
    out[o] = sum;
}
