// tile.matrix: as lib/tile, on matrix units, which multiply 16 x 16 by 16 x 16 f16 and add up in
// f32. A workgroup of 128 threads makes 64 tokens x 128 outputs, 32 terms at a time (20 KiB); each
// of its four subgroups makes all tokens of 32 outputs.
// An input is taken as two f16, a high and a low half, which together have 22 bits, and W is
// rounded to f16: what comes out is as far from lib/tile's as if W were stored as F16. With EXACT
// (30 KiB) W has two halves, too, and what comes out is as good as lib/tile's. An input beyond the
// range of f16, after IN_SCALE of lib/tile_rows or lib/tile_columns, counts as the largest.
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;

const TILE_THREADS = 128u;
const TILE_TERMS = 32u;
const IN_LINE = 10u;  // elements from one token to the next: 8, and 2 to spread them over the banks
const OUT_LINE = 34u; // the same of what comes out

override EXACT: u32 = 0;

// Four f16 an element: high halves of the inputs, from LOW on low ones, from W_BEGIN on W or its
// high halves, W_LOW after that its low ones. In the end, two f32 an element, 64 outputs of each
// token.
const LOW = 640u;
const W_BEGIN = 1280u;
const W_LOW = 1280u;
var<workgroup> factors: array<vec2<u32>, 2560 + 1280 * EXACT>;

alias Left = subgroup_matrix_left<f16, 16, 16>;   // tokens x terms
alias Right = subgroup_matrix_right<f16, 16, 16>; // terms x outputs
alias Sum = subgroup_matrix_result<f32, 16, 16>;  // tokens x outputs

struct Sums { a: Sum, b: Sum } // of 16 tokens, the subgroup's outputs 0..15 and 16..31
struct Tile { s0: Sums, s1: Sums, s2: Sums, s3: Sums }
struct Raws { a: Raw, b: Raw } // what a thread brings of W
struct Rights { a: Right, b: Right } // of the subgroup's outputs 0..15 and 16..31

fn to_halves(v: vec4<f32>) -> vec2<u32> {
    return vec2(pack2x16float(v.xy), pack2x16float(v.zw));
}

// What f16 keeps of values without rounding.
fn high_of(v: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(v) & vec4(0xffffe000u));
}

// Four terms of a token.
fn put_in(i: u32, v: vec4<f32>) {
    let s = clamp(v * IN_SCALE, vec4(-65504.0), vec4(65504.0));
    let high = high_of(s);
    factors[i] = to_halves(high);
    factors[i + LOW] = to_halves(s - high);
}

fn tile_put_in(id: u32, a: mat4x4<f32>) {
    let i = (id >> 3) * 4 * IN_LINE + (id & 7);
    put_in(i, a[0]);
    put_in(i + IN_LINE, a[1]);
    put_in(i + 2 * IN_LINE, a[2]);
    put_in(i + 3 * IN_LINE, a[3]);
}

fn put_w4(i: u32, w: vec4<f32>) {
    if (EXACT == 0) {
        factors[i] = to_halves(w);
        return;
    }
    let high = high_of(w);
    factors[i] = to_halves(high);
    factors[i + W_LOW] = to_halves(w - high);
}

// 16 factors of W.
fn put_w(i: u32, w: mat4x4<f32>) {
    put_w4(i, w[0]);
    put_w4(i + 1, w[1]);
    put_w4(i + 2, w[2]);
    put_w4(i + 3, w[3]);
}

// Terms of 16 tokens, whose high halves begin at i.
@diagnostic(off, chromium.subgroup_matrix_uniformity)
fn add_products(i: u32, w: Rights, w_low: Rights, sum: ptr<function, Sums>) {
    let high = subgroupMatrixLoad<Left, row_major>(&factors, i, IN_LINE);
    let low = subgroupMatrixLoad<Left, row_major>(&factors, i + LOW, IN_LINE);
    (*sum).a = subgroupMatrixMultiplyAccumulate(high, w.a, (*sum).a);
    (*sum).b = subgroupMatrixMultiplyAccumulate(high, w.b, (*sum).b);
    (*sum).a = subgroupMatrixMultiplyAccumulate(low, w.a, (*sum).a);
    (*sum).b = subgroupMatrixMultiplyAccumulate(low, w.b, (*sum).b);
    if (EXACT != 0) {
        (*sum).a = subgroupMatrixMultiplyAccumulate(high, w_low.a, (*sum).a);
        (*sum).b = subgroupMatrixMultiplyAccumulate(high, w_low.b, (*sum).b);
    }
}

// Terms 16 half .. 16 half + 15; o: where the subgroup's outputs begin.
@diagnostic(off, chromium.subgroup_matrix_uniformity)
fn tile_add(o: u32, half: u32, s0: ptr<function, Sums>, s1: ptr<function, Sums>,
            s2: ptr<function, Sums>, s3: ptr<function, Sums>) {
    let w = tile_right(W_BEGIN, o, half);
    var w_low: Rights;
    if (EXACT != 0) { w_low = tile_right(W_BEGIN + W_LOW, o, half); }
    let i = half * 4;
    add_products(i, w, w_low, s0);
    add_products(i + 16 * IN_LINE, w, w_low, s1);
    add_products(i + 32 * IN_LINE, w, w_low, s2);
    add_products(i + 48 * IN_LINE, w, w_low, s3);
}

@diagnostic(off, chromium.subgroup_matrix_uniformity)
fn tile_sum(id: u32, at: vec2<u32>, k0: u32, end: u32) -> Tile {
    let tok = at.y * 64 + (id >> 3) * 4;
    let in_k = (id & 7) * 4;
    let o = (id >> 5) * 32;
    var s0: Sums;
    var s1: Sums;
    var s2: Sums;
    var s3: Sums;
    var a = load_in(tok, k0 + in_k);
    var w = tile_load_w(id, at.x, k0);
    for (var k = k0; k < end; k += TILE_TERMS) {
        tile_put_in(id, ready_in(a));
        tile_put_w(id, at.x, w);
        workgroupBarrier();
        a = load_in(tok, k + TILE_TERMS + in_k);
        w = tile_load_w(id, at.x, k + TILE_TERMS);
        tile_add(o, 0, &s0, &s1, &s2, &s3);
        tile_add(o, 1, &s0, &s1, &s2, &s3);
        workgroupBarrier();
    }
    return Tile(s0, s1, s2, s3);
}

@diagnostic(off, chromium.subgroup_matrix_uniformity)
fn keep(i: u32, sum: Sums) {
    subgroupMatrixStore<row_major>(&factors, i, sum.a, OUT_LINE);
    subgroupMatrixStore<row_major>(&factors, i + 8, sum.b, OUT_LINE);
}

// Keeps outputs 64 half .. 64 half + 63 of all tokens for kept().
@diagnostic(off, chromium.subgroup_matrix_uniformity)
fn tile_keep(id: u32, half: u32, sum: Tile) {
    workgroupBarrier();
    if ((id >> 6) == half) {
        let i = ((id >> 5) & 1) * 16;
        keep(i, sum.s0);
        keep(i + 16 * OUT_LINE, sum.s1);
        keep(i + 32 * OUT_LINE, sum.s2);
        keep(i + 48 * OUT_LINE, sum.s3);
    }
    workgroupBarrier();
}

// Outputs o and o + 1 of those, o even.
fn kept(tok: u32, o: u32) -> vec2<f32> {
    return bitcast<vec2<f32>>(factors[tok * OUT_LINE + o / 2]) * (1 / IN_SCALE);
}

fn tile_store(id: u32, at: vec2<u32>, sum: Tile) {
    tile_keep(id, 0, sum);
    store_half(id, vec2(at.x * 2, at.y));
    tile_keep(id, 1, sum);
    store_half(id, vec2(at.x * 2 + 1, at.y));
}
