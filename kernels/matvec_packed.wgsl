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

// This thread's share of two values of u, from rank r on.
fn gather(r: u32, lid: u32) -> vec2<f32> {
    let n = (args.n_part + 1) / 2; // elements: two parts each
    let at = args.part0 + r / 2 * n;
    var sum = vec2(0.0);
    for (var i = lid % SPREAD; i < n; i += 4 * SPREAD) { // four at a time, in flight
        for (var k = 0u; k < 4; k++) {
            let j = i + k * SPREAD;
            let v = bitcast<vec4<f32>>(x[at + min(j, n - 1)]);
            sum += select(vec2(0.0), v.xy, j < n) +
                   select(vec2(0.0), v.zw, 2 * j + 1 < args.n_part);
        }
    }
    return sum;
}

// The first of two of the n values of u, for each SPREAD threads.
fn rank_of(g: Lora, u0: u32, lid: u32) -> u32 {
    return g.first + min(u0 + lid / SPREAD * 2, g.n - 2);
}

// Makes the n values of u; `own` is what this thread gathered for the first of them.
fn make_u(g: Lora, own: vec2<f32>, lid: u32) {
    var part = own;
    for (var u0 = 0u; u0 < g.n; u0 += 512 / SPREAD) {
        let r = rank_of(g, u0, lid);
        if (u0 > 0) { part = gather(r, lid); }
        let u = sum_of(part, SPREAD, lid) * lora_factors(g, r);
        if (lid % SPREAD == 0 && u0 + lid / SPREAD * 2 < g.n) { lora_u[(r - g.first) / 2] = u; }
    }
    workgroupBarrier();
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n_chunk = args.n_col / 64;
    let row = (wid.x * 256 + lid) / LANES;
    let r = min(row, args.n_row - 1);
    let b_row = args.out0 + r;
    var g = Lora(args.factors, 0, args.b0, args.n_col, args.rank, 0, min(U, args.rank));
    var own = vec2(0.0);
    var ahead = vec4(0u);
    if (ADAPTED != 0) {
        ahead = lora_ahead(g, b_row, lid);
        own = gather(rank_of(g, 0, lid), lid);
    }
    var sum = vec2(0.0); // of the matrix, of adapters
    for (var c = lid % LANES; c < n_chunk; c += LANES) {
        let groups = groups64A(c);
        sum.x += dot64A(r * n_chunk + c, packed_input(groups.x, groups.y));
    }
    if (ADAPTED != 0) {
        make_u(g, own, lid);
        sum.y = lora_row(g, ahead, b_row, 0, lid);
    }
    while (MORE != 0 && g.first + g.n < g.rank) {
        g.first += g.n;
        g.n = min(g.n, g.rank - g.first);
        workgroupBarrier();
        make_u(g, gather(rank_of(g, 0, lid), lid), lid);
        sum.y += lora_row(g, lora_ahead(g, b_row, lid), b_row, 0, lid);
    }
    sum = lanes_sum(sum, lid);
    if (lid % LANES == 0 && row < args.n_row) { out[args.out0 + row] = sum.x * args.scale + sum.y; }
}
