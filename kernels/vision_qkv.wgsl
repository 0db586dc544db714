// vision_qkv: what follows the q, k, v projections of patches, head by head:
//   q = rope(rms(q) * w_q), in place; k = rope(rms(k) * w_k); v = rms(v), no weight.
//   q, k, v [n_tok, n_head, head_dim] f32; k and v are stored as f16 pairs in k_out, v_out of the
//   same shape. The first half of a head turns by its patch's column t % n_wide, the second half by
//   its row t / n_wide; the pair (i, i + head_dim / 4) of a half by cos_sin[place, i], place the
//   column or row, i < head_dim / 4. head_dim is a multiple of 8.
// Grid: x = ceil(n_tok * n_head * 3 / 16); 256 threads, 16 a head. f32, stored f16.
// CPU twin: ref_rmsnorm(), ref_rope().

struct Args {
    n_tok: u32, n_head: u32, head_dim: u32, n_wide: u32,
    w_q: u32, w_k: u32, eps: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> cos_sin: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> k: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> v: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> q: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> k_out: array<u32>;
@group(0) @binding(7) var<storage, read_write> v_out: array<u32>;

var<workgroup> part: array<f32, 256>;

const Q = 0u;
const K = 1u;

// Values 2 i, 2 i + 1.
fn load(kind: u32, i: u32) -> vec2<f32> {
    if (kind == Q) { return q[i]; }
    if (kind == K) { return k[i]; }
    return v[i];
}

// The sum over the 16 threads of a head.
fn head_sum(value: f32, lid: u32) -> f32 {
    part[lid] = value;
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < 16; i++) { sum += part[(lid & 0xf0) + i]; }
    return sum;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = wid.x * 16 + lid / 16;
    let kind = row % 3;
    let head = row / 3; // of all patches
    let valid = head < args.n_tok * args.n_head;
    let n2 = args.head_dim / 2;
    let n8 = args.head_dim / 8; // double pairs of a half
    let at = head * n2;
    var sum = 0.0;
    if (valid) {
        for (var i = lid & 15; i < n2; i += 16) {
            let x = load(kind, at + i);
            sum += dot(x, x);
        }
    }
    let factor = 1.0 / sqrt(head_sum(sum, lid) / f32(args.head_dim) + args.eps);
    if (!valid) { return; }
    let tok = head / args.n_head;
    let w = select(args.w_k, args.w_q, kind == Q) / 2;
    // Two neighbouring pairs: values 2 i, 2 i + 1 of a half and the same half of that half further.
    for (var u = lid & 15; u < 2 * n8; u += 16) {
        let second = u / n8;
        let i = second * n8 + u; // = second * 2 * n8 + u % n8
        var a = load(kind, at + i) * factor;
        var b = load(kind, at + i + n8) * factor;
        if (kind > K) {
            v_out[at + i] = pack2x16float(a);
            v_out[at + i + n8] = pack2x16float(b);
            continue;
        }
        a *= vectors[w + i];
        b *= vectors[w + i + n8];
        let place = select(tok % args.n_wide, tok / args.n_wide, second == 1);
        let cs = cos_sin[place * n8 + u % n8];
        let turned = a * cs.xz - b * cs.yw;
        b = b * cs.xz + a * cs.yw;
        a = turned;
        if (kind == Q) {
            q[at + i] = a;
            q[at + i + n8] = b;
        } else {
            k_out[at + i] = pack2x16float(a);
            k_out[at + i + n8] = pack2x16float(b);
        }
    }
}
