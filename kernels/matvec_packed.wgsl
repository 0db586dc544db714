// include: lanes lora lora_own
// formats: A
// matvec_packed: matvec for an input that is packed already (decode_ffn).
//   out[out0 + r] = scale * sum_c W[r, c] x[c], r < n_row; wA [n_row, n_col].
//   x: 16-bit integers in groups of 16 (lib/dot64), elements 3 g .. 3 g + 2 of group g; n_col is a
//   multiple of 64.
// Grid: n_group = ceil(n_row * LANES / 1024); LANES threads share four rows, so that what is read
// of x serves all four, and take TURNS = ceil(n_col / 64 / LANES) chunks each. f32 sums. With
// ADAPTED, the workgroups after these make u of what adapters add (lib/lora); otherwise lora is not
// touched.
// CPU twin: ref_matmul(), ref_lora().

override LANES: u32 = 32;
override TURNS: u32 = 1;
override ADAPTED: u32 = 0;

struct Args {
    n_row: u32, n_col: u32, out0: u32, scale: f32,
    n_group: u32, n_rank: u32, a0: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> wA: array<WA>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read_write> lora: array<vec2<u32>>;

fn signed_bytes(w: u32) -> vec4<f32> {
    return vec4<f32>(bitcast<vec4<i32>>(vec4(w) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u));
}

// Values 4 i .. 4 i + 3 of x, for adapters.
fn input_value(i: u32) -> vec4<f32> {
    let g = i / 4 * 3;
    let q = signed_bytes(x[g][i % 4]) * 256.0 + signed_bytes(x[g + 1][i % 4]);
    return q * bitcast<f32>(x[g + 2].x);
}

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

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    if (ADAPTED != 0 && wid.x >= args.n_group) {
        lora_make(wid.x - args.n_group, lid);
        return;
    }
    let n_chunk = args.n_col / 64;
    let row = (wid.x * 256 + lid) / LANES * 4;
    let at = min(vec4(row) + vec4(0u, 1u, 2u, 3u), vec4(args.n_row - 1)) * n_chunk;
    var sum = vec4(0.0);
    for (var k = 0u; k < TURNS; k++) {
        let c = k * LANES + lid % LANES;
        let i = min(c, n_chunk - 1);
        let g = groups64A(i);
        let in = packed_input(g.x, g.y);
        let part = vec4(dot64A(at.x + i, in), dot64A(at.y + i, in), dot64A(at.z + i, in),
                        dot64A(at.w + i, in));
        sum += select(vec4(0.0), part, c < n_chunk);
    }
    let first = lanes_sum(sum.xy, lid);
    sum = vec4(first, lanes_sum(sum.zw, lid)) * args.scale;
    if (lid % LANES != 0) { return; }
    for (var i = 0u; i < min(4, args.n_row - min(row, args.n_row)); i++) {
        out[args.out0 + row + i] = sum[i];
    }
}
