// include: flat
// columns: u[t, r] = a[r, ids[t]], or with scatter a[r, ids[t]] += sum of u[s, r] over the tokens s
//   with that id, in their order, by the thread of the first of them.
//   a [rank, n_col], u [n_tok, rank], ids [n_tok]; next [n_tok] (read with scatter): the next token
//   with the same id, n_tok if there is none, + FIRST where there is none before.
// Grid: ceil(n_tok * rank / 256) workgroups (lib/flat) of 256 threads. f32.
// CPU twin: ref_lora_embed(), back_lora_embed().

const FIRST = 0x80000000u;

struct Args { n_tok: u32, rank: u32, n_col: u32, scatter: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> next: array<u32>;
@group(0) @binding(3) var<storage, read_write> a: array<f32>;
@group(0) @binding(4) var<storage, read_write> u: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat(wid) * 256 + lid;
    let tok = i / args.rank;
    if (tok >= args.n_tok) { return; }
    let r = i % args.rank;
    let at = r * args.n_col + ids[tok];
    if (args.scatter == 0) {
        u[i] = a[at];
        return;
    }
    if (next[tok] < FIRST) { return; }
    var sum = u[i];
    for (var t = next[tok] - FIRST; t < args.n_tok; t = next[t]) { sum += u[t * args.rank + r]; }
    a[at] += sum;
}
