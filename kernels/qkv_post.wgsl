// qkv_post: what follows the q, k, v projections, for every head of every token:
//   q = rope(rms(q) * w_q), in place; k = rope(rms(k) * w_k); v = rms(v), no weight.
//   q [n_tok, n_head, head_dim], k, v [n_tok, n_kv, head_dim] raw f32; cos_sin [n_tok, n_rot, 2],
//   pairs (i, i + head_dim / 2) with i < n_rot are rotated. k and v of token t are stored as f16
//   pairs in row row0 + t of k_out, v_out [.., n_kv, head_dim]. n_kv 0: only q.
// Grid: x = ceil((n_head + 2 n_kv) / 4), y = n_tok; 64 threads a head, four heads a workgroup.
// head_dim is a multiple of 4. f32, stored f16. CPU twin: ref_rmsnorm(), ref_rope().

struct Args {
    n_head: u32, n_kv: u32, head_dim: u32, n_rot: u32,
    row0: u32, w_q: u32, w_k: u32, eps: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> cos_sin: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> k: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> v: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> q: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> k_out: array<u32>;
@group(0) @binding(7) var<storage, read_write> v_out: array<u32>;

var<workgroup> part: array<f32, 256>;

const Q = 0u;
const K = 1u;
const V = 2u;
const NOTHING = 3u;

// Values 2 i, 2 i + 1.
fn load(kind: u32, i: u32) -> vec2<f32> {
    if (kind == Q) { return q[i]; }
    if (kind == K) { return k[i]; }
    return v[i];
}

// cos and sin for a pair.
fn angle(tok: u32, pair: u32) -> vec2<f32> {
    if (pair >= args.n_rot) { return vec2(1.0, 0.0); }
    return cos_sin[tok * args.n_rot + pair];
}

// The sum over the 64 threads of a head.
fn head_sum(value: f32, lid: u32) -> f32 {
    part[lid] = value;
    for (var n = 32u; n > 0; n /= 2) {
        workgroupBarrier();
        if ((lid & 63) < n) { part[lid] += part[lid + n]; }
    }
    workgroupBarrier();
    return part[lid & 192];
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let tok = wid.y;
    let n2 = args.head_dim / 2;
    var head = wid.x * 4 + lid / 64;
    var kind = Q;
    var n = args.n_head;
    if (head >= args.n_head) {
        head -= args.n_head;
        n = args.n_kv;
        kind = K;
        if (head >= n) { head -= n; kind = V; }
        if (head >= n) { kind = NOTHING; }
    }
    let at = (tok * n + head) * n2;
    var sum = 0.0;
    if (kind != NOTHING) {
        for (var i = lid & 63; i < n2; i += 64) {
            let x = load(kind, at + i);
            sum += dot(x, x);
        }
    }
    let factor = 1.0 / sqrt(head_sum(sum, lid) / f32(args.head_dim) + args.eps);
    if (kind == NOTHING) { return; }
    let row = ((args.row0 + tok) * n + head) * n2;
    if (kind == V) {
        for (var i = lid & 63; i < n2; i += 64) {
            v_out[row + i] = pack2x16float(v[at + i] * factor);
        }
        return;
    }
    // Two neighbouring pairs: values 2 i, 2 i + 1 and the same half a head further.
    let n4 = n2 / 2;
    let w = select(args.w_k, args.w_q, kind == Q) / 2;
    for (var i = lid & 63; i < n4; i += 64) {
        var a = load(kind, at + i) * factor * vectors[w + i];
        var b = load(kind, at + n4 + i) * factor * vectors[w + n4 + i];
        let cs0 = angle(tok, 2 * i);
        let cs1 = angle(tok, 2 * i + 1);
        let c = vec2(cs0.x, cs1.x);
        let s = vec2(cs0.y, cs1.y);
        let rotated = a * c - b * s;
        b = b * c + a * s;
        a = rotated;
        if (kind == Q) {
            q[at + i] = a;
            q[at + n4 + i] = b;
        } else {
            k_out[row + i] = pack2x16float(a);
            k_out[row + n4 + i] = pack2x16float(b);
        }
    }
}
