// include: lanes lora lora_own
// formats: A
// matvec_packed: matvec for an input that is packed already (decode_ffn).
//   out[out0 + r] = scale * sum_c W[r, c] x[c], r < n_row; wA [n_row, n_col].
//   x: 16-bit integers in groups of 16, laid out as decode_ffn leaves them; n_col is a multiple of
//   64.
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

fn slot(g: u32) -> u32 { return g % 4 * (args.n_col / 64) + g / 4; }

// Scale and sum of group g and the next, g even.
fn scales(g: u32) -> vec4<f32> { return bitcast<vec4<f32>>(x[args.n_col / 8 + g / 2]); }

// Values 4 i .. 4 i + 3 of x, for adapters.
fn input_value(i: u32) -> vec4<f32> {
    let at = slot(i / 4);
    let q = signed_bytes(x[at][i % 4]) * 256.0 + signed_bytes(x[args.n_col / 16 + at][i % 4]);
    return q * scales(i / 8 * 2)[i / 4 % 2 * 2];
}

// Groups a, a + 1, b, b + 1 of x, a and b even.
fn packed_input(a: u32, b: u32) -> Input64 {
    let at = vec4(slot(a), slot(a + 1), slot(b), slot(b + 1));
    let low = at + args.n_col / 16;
    let p = scales(a);
    let q = scales(b);
    return Input64(array(x[at.x], x[at.y], x[at.z], x[at.w]),
                   array(x[low.x], x[low.y], x[low.z], x[low.w]),
                   vec4(p.x, p.z, q.x, q.z), vec4(p.y, p.w, q.y, q.w));
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
