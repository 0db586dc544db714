// include: input64 stage64 lanes
// formats: A
// matvec: out[out0 + r] = scale * sum_c W[r, c] x[c], r < n_row; one token.
//   x [n_col], wA [n_row, n_col]; n_col is a multiple of 64 (else matvec_plain).
// Grid: any number of workgroups of 256 threads; they take blocks of 256 / LANES rows in turn,
// LANES threads share a row. x as 16-bit integers in groups of 16, sums f32 (lib/input64).
// CPU twin: ref_matmul().

override LANES: u32 = 32;

struct Args { n_row: u32, n_col: u32, out0: u32, scale: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> wA: array<WA>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

fn input_value(i: u32) -> vec4<f32> { return x[i]; }

// This thread's part of a row, from chunk `at` on, times the n chunks that are staged.
fn dot_row(at: u32, n: u32, lid: u32) -> f32 {
    var sum = 0.0;
    for (var k = 0u; k < TURNS; k++) {
        let c = turn_chunk(k, n, lid);
        sum += select(0.0, dot64A(at + c, input_get(groups64A(c))), turn_counts(k, n, lid));
    }
    return sum;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let n_chunk = args.n_col / 64;
    let rows = 256 / LANES;
    let whole = n_chunk <= INPUT_CHUNKS; // x stays for all rows
    if (whole) { input_stage(0, n_chunk, lid); }
    for (var row0 = wid.x * rows; row0 < args.n_row; row0 += n_wg.x * rows) {
        let row = row0 + lid / LANES;
        let at = min(row, args.n_row - 1) * n_chunk;
        var sum = 0.0;
        if (whole) {
            sum = dot_row(at, n_chunk, lid);
        } else {
            for (var c0 = 0u; c0 < n_chunk; c0 += INPUT_CHUNKS) {
                let n = min(INPUT_CHUNKS, n_chunk - c0);
                input_stage(c0, n, lid);
                sum += dot_row(at + c0, n, lid);
                workgroupBarrier();
            }
        }
        sum = lanes_sum(vec2(sum, 0.0), lid).x;
        if (lid % LANES == 0 && row < args.n_row) { out[args.out0 + row] = sum * args.scale; }
    }
}
