// include: input64 stage64 lanes lora_rows lora_make
// formats: A
// decode_out: third stage of a layer, one token. o = merge of the attention's splits,
//   out[out0 + r] = scale * sum_c Wo[r, c] o[c] + what adapters add, with U (lib/lora_rows, one
//   target); otherwise lora is not read.
//   attn [n_split, n_head, head_dim] sums of exp(s - m) v, stat [n_split, n_head] (m, sum of exp):
//   o = sum_s exp(m_s - m) attn_s / sum_s exp(m_s - m) l_s, m the largest m_s;
//   n_split <= 8; 0: attn is o already (decode_merge). There are at most 256 heads.
//   head_dim is a multiple of 16, n_col = n_head * head_dim of 64.
// Grid: ceil(n_row * LANES / 256); LANES threads share a row. o as 16-bit integers in groups of 16,
// the rest f32 (lib/input64).
// CPU twin: ref_softmax(), ref_matmul(), ref_lora().

override LANES: u32 = 64;

struct Args {
    n_row: u32, n_col: u32, out0: u32, scale: f32,
    head_dim: u32, n_split: u32, rank: u32, factors: u32,
    a0: u32, b0: u32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> attn: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> stat: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> wA: array<WA>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read> lora: array<vec4<u32>>;

// Of a head: factors on the sums of its splits, the first four and the others.
var<workgroup> share: array<array<vec4<f32>, 2>, 256>;

// (m, l) of a head's split; without keys where there is no such split.
fn split_stat(s: u32, head: u32) -> vec2<f32> {
    let at = min(s, args.n_split - 1) * (args.n_col / args.head_dim) + head;
    return select(vec2(-1e30, 0.0), stat[at], s < args.n_split);
}

// The same of four splits: m and l.
fn four_stats(s: u32, head: u32) -> mat2x4<f32> {
    return transpose(mat4x2<f32>(split_stat(s, head), split_stat(s + 1, head),
                                 split_stat(s + 2, head), split_stat(s + 3, head)));
}

fn splits_open(lid: u32) {
    if (args.n_split > 0 && lid < args.n_col / args.head_dim) {
        let a = four_stats(0, lid);
        let b = four_stats(4, lid);
        let m = max(a[0], b[0]);
        let most = max(max(m.x, m.y), max(m.z, m.w));
        let f = exp(a[0] - most);
        let g = exp(b[0] - most);
        let total = dot(f, a[1]) + dot(g, b[1]);
        share[lid] = array(f / total, g / total);
    }
    workgroupBarrier();
}

// Values 4 i .. 4 i + 3 of a split's sums; splits that there are not repeat the last.
fn split_sum(s: u32, i: u32) -> vec4<f32> {
    return attn[min(s, args.n_split - 1) * (args.n_col / 4) + i];
}

fn merged(i: u32) -> vec4<f32> { // the same of o
    if (args.n_split == 0) { return attn[i]; }
    let f = share[i * 4 / args.head_dim][0];
    let g = share[i * 4 / args.head_dim][1];
    return split_sum(0, i) * f.x + split_sum(1, i) * f.y + split_sum(2, i) * f.z +
           split_sum(3, i) * f.w + split_sum(4, i) * g.x + split_sum(5, i) * g.y +
           split_sum(6, i) * g.z + split_sum(7, i) * g.w;
}

fn input_value(i: u32) -> vec4<f32> { return lora_keep(i, merged(i)); }

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    splits_open(lid);
    let n_chunk = args.n_col / 64;
    let row = (wid.x * 256 + lid) / LANES;
    let at = min(row, args.n_row - 1) * n_chunk;
    let r = args.out0 + min(row, args.n_row - 1);
    let added = Lora(args.factors, args.a0, args.b0, args.n_col, args.rank, 0, min(U, args.rank));
    var ahead = vec4(0u);
    if (ADAPTED != 0) { ahead = lora_ahead(added, r, lid); }
    var sum = vec2(0.0); // of the matrix, of adapters
    for (var c0 = 0u; c0 < n_chunk; c0 += INPUT_CHUNKS) {
        let n = min(INPUT_CHUNKS, n_chunk - c0);
        input_stage(c0, n, lid);
        if (ADAPTED != 0) { lora_make(added, added.n, c0, n, lid); }
        for (var k = 0u; k < TURNS; k++) {
            let c = turn_chunk(k, n, lid);
            let part = dot64A(at + c0 + c, input_get(groups64A(c)));
            sum.x += select(0.0, part, turn_counts(k, n, lid));
        }
        workgroupBarrier();
    }
    if (ADAPTED != 0) {
        sum.y = lora_row(added, ahead, r, 0, lid);
        if (MORE != 0) { sum.y += lora_rest(added, 1, vec2(r), lid).x; }
    }
    sum = lanes_sum(sum, lid);
    if (lid % LANES == 0 && row < args.n_row) { out[args.out0 + row] = sum.x * args.scale + sum.y; }
}
