// include: lanes lora_rows
// formats: A
// matvec_packed: matvec for an input that is packed already (decode_ffn).
//   out[out0 + r] = scale * sum_c W[r, c] x[c], r < n_row; wA [n_row, n_col].
//   x: 16-bit integers in groups of 16 (lib/dot64), elements 3 g .. 3 g + 2 of group g; n_col is a
//   multiple of 64.
//   With U, what adapters add comes to it (lib/lora_rows, one target); their u is the sum of n_part
//   parts that are behind x, from element part0 on (decode_ffn). Otherwise lora is not read.
// Grid: ceil(n_row * LANES / 256); LANES threads share a row. f32 sums.
// CPU twin: ref_matmul(), ref_lora().

override LANES: u32 = 32;

struct Args {
    n_row: u32, n_col: u32, out0: u32, scale: f32,
    rank: u32, factors: u32, b0: u32, part0: u32,
    n_part: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> wA: array<WA>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read> lora: array<vec4<u32>>;

// Groups a, a + 1, b, b + 1 of x.
fn packed_input(a: u32, b: u32) -> Input64 {
    let p = bitcast<vec4<f32>>(x[3 * a + 2]);
    let q = bitcast<vec4<f32>>(x[3 * a + 5]);
    let r = bitcast<vec4<f32>>(x[3 * b + 2]);
    let s = bitcast<vec4<f32>>(x[3 * b + 5]);
    return Input64(array(x[3 * a], x[3 * a + 3], x[3 * b], x[3 * b + 3]),
                   array(x[3 * a + 1], x[3 * a + 4], x[3 * b + 1], x[3 * b + 4]),
                   vec4(p.x, q.x, r.x, s.x), vec4(p.y, q.y, r.y, s.y));
}

// Adds up the parts of u. Visible to all threads after the next barrier.
fn sum_parts(g: Lora, lid: u32) {
    for (var u0 = 0u; u0 < g.n; u0 += 1024 / SPREAD) {
        let j = u0 + lid / SPREAD * 4;
        let r = g.first + min(j, g.n - 4);
        let at = args.part0 + r / 4 * args.n_part;
        let factors = bitcast<vec4<f32>>(lora[g.factors + r / 4]);
        var sum = vec4(0.0);
        for (var i = lid % SPREAD; i < args.n_part; i += SPREAD) {
            sum += bitcast<vec4<f32>>(x[at + i]);
        }
        let u = vec4(sum_of(sum.xy, SPREAD, lid), sum_of(sum.zw, SPREAD, lid)) * factors;
        if (lid % SPREAD == 0 && j < g.n) { lora_u[j / 4] = u; }
    }
}

// This thread's part of what adapters add to a row.
fn added_row(group: Lora, row: u32, lid: u32) -> f32 {
    var g = group;
    var sum = 0.0;
    while (g.first < g.rank) {
        let ahead = lora_ahead(g, row, lid);
        sum_parts(g, lid);
        workgroupBarrier();
        sum += lora_row(g, ahead, row, 0, lid);
        workgroupBarrier();
        g.first += g.n;
        g.n = min(g.n, g.rank - min(g.first, g.rank));
    }
    return sum;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n_chunk = args.n_col / 64;
    let row = (wid.x * 256 + lid) / LANES;
    let r = min(row, args.n_row - 1);
    var sum = vec2(0.0); // of the matrix, of adapters
    if (ADAPTED != 0) {
        let g = Lora(args.factors, 0, args.b0, args.n_col, args.rank, 0, min(U, args.rank));
        sum.y = added_row(g, args.out0 + r, lid);
    }
    for (var c = lid % LANES; c < n_chunk; c += LANES) {
        let g = groups64A(c);
        sum.x += dot64A(r * n_chunk + c, packed_input(g.x, g.y));
    }
    sum = lanes_sum(sum, lid);
    if (lid % LANES == 0 && row < args.n_row) { out[args.out0 + row] = sum.x * args.scale + sum.y; }
}
