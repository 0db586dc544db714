// include: pick
// moe_topk: the experts of every token. The n_used largest of the router's logits, equal ones by
// lowest expert, best first; weights softmax(logits) renormalised to a sum of 1 over these.
//   logits [n_tok, n_expert], n_used <= n_expert <= 256; ids, weights [n_tok, n_used].
// Grid: n_tok workgroups of 256 threads, a thread an expert. f32. CPU twin: text_cpu.c.

struct Args { n_expert: u32, n_used: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let mine = logits[wid.x * args.n_expert + min(lid, args.n_expert - 1)];
    let sum = pick_experts(mine, args.n_expert, args.n_used, lid);
    if (lid >= args.n_used) { return; }
    ids[wid.x * args.n_used + lid] = pick_ids[lid];
    weights[wid.x * args.n_used + lid] = pick_share[lid] / sum;
}
