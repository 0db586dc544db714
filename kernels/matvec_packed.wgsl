// include: lanes lora_rows packed_rows
// formats: A
// matvec_packed: matvec for an input that is packed already (decode_ffn).
//   out[out0 + r] = scale * sum_c W[r, c] x[c], r < n_row; wA [n_row, n_col].
//   x: packed (lib/packed_rows); n_col is a multiple of 64. With U, what adapters add comes to it
//   (lib/lora_rows, one target); their u is the sum of n_part parts that decode_ffn left behind x,
//   from element part0 on. Otherwise lora is not read.
// Grid: ceil(n_row * LANES / 1024); LANES threads share four rows, so that what is read of x serves
// all four, and take TURNS = ceil(n_col / 64 / LANES) chunks each. f32 sums.
// CPU twin: ref_matmul(), ref_lora().

override LANES: u32 = 32;
override TURNS: u32 = 1;

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

// Groups a, a + 1, b, b + 1 of x, a and b even.
fn packed_input(a: u32, b: u32) -> Input64 {
    let n = args.n_col / 64;
    let p = bitcast<vec4<f32>>(x[packed_scale(a, n)]);
    let q = bitcast<vec4<f32>>(x[packed_scale(b, n)]);
    return Input64(array(x[packed_high(a, n)], x[packed_high(a + 1, n)], x[packed_high(b, n)],
                         x[packed_high(b + 1, n)]),
                   array(x[packed_low(a, n)], x[packed_low(a + 1, n)], x[packed_low(b, n)],
                         x[packed_low(b + 1, n)]),
                   vec4(p.x, p.z, q.x, q.z), vec4(p.y, p.w, q.y, q.w));
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

// This thread's part of what adapters add to four rows, of the ranks of g; `own` as in make_u().
fn added_rows(g: Lora, rows: vec4<u32>, own: vec2<f32>, lid: u32) -> vec4<f32> {
    let a = lora_ahead(g, rows.x, lid);
    let b = lora_ahead(g, rows.y, lid);
    let c = lora_ahead(g, rows.z, lid);
    let d = lora_ahead(g, rows.w, lid);
    make_u(g, own, lid);
    return vec4(lora_row(g, a, rows.x, 0, lid), lora_row(g, b, rows.y, 0, lid),
                lora_row(g, c, rows.z, 0, lid), lora_row(g, d, rows.w, 0, lid));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n_chunk = args.n_col / 64;
    let row = (wid.x * 256 + lid) / LANES * 4;
    let rows = min(vec4(row) + vec4(0u, 1u, 2u, 3u), vec4(args.n_row - 1));
    let at = rows * n_chunk;
    var g = Lora(args.factors, 0, args.b0, args.n_col, args.rank, 0, min(U, args.rank));
    var own = vec2(0.0);
    if (ADAPTED != 0) { own = gather(rank_of(g, 0, lid), lid); }
    var sum = vec4(0.0);
    for (var k = 0u; k < TURNS; k++) {
        let c = k * LANES + lid % LANES;
        let i = min(c, n_chunk - 1);
        let groups = groups64A(i);
        let in = packed_input(groups.x, groups.y);
        let part = vec4(dot64A(at.x + i, in), dot64A(at.y + i, in), dot64A(at.z + i, in),
                        dot64A(at.w + i, in));
        sum += select(vec4(0.0), part, c < n_chunk);
    }
    sum *= args.scale;
    if (ADAPTED != 0) { sum += added_rows(g, args.out0 + rows, own, lid); }
    while (MORE != 0 && g.first + g.n < g.rank) {
        g.first += g.n;
        g.n = min(g.n, g.rank - g.first);
        workgroupBarrier();
        sum += added_rows(g, args.out0 + rows, gather(rank_of(g, 0, lid), lid), lid);
    }
    let first = lanes_sum(sum.xy, lid);
    sum = vec4(first, lanes_sum(sum.zw, lid));
    if (lid % LANES != 0) { return; }
    for (var i = 0u; i < min(4, args.n_row - min(row, args.n_row)); i++) {
        out[args.out0 + row + i] = sum[i];
    }
}
