// pick: the experts of one token, in a workgroup of 256 threads, a thread an expert.

var<workgroup> pick_logits: array<f32, 256>;
var<workgroup> pick_ids: array<u32, 256>;
var<workgroup> pick_share: array<f32, 256>;

// The n_used largest of n_expert logits, of which the caller's is `mine`; equal ones by lowest
// expert, best first: their ids and exp(logit - largest), for all threads. Returns the sum of
// these: a share divided by it is the expert's weight. All threads must call it.
fn pick_experts(mine: f32, n_expert: u32, n_used: u32, lid: u32) -> f32 {
    pick_logits[lid] = mine;
    workgroupBarrier();
    var rank = 0u; // how many come before this expert
    var top = mine;
    for (var e = 0u; e < n_expert; e++) {
        let other = pick_logits[e];
        top = max(top, other);
        rank += u32(other > mine || (other == mine && e < lid));
    }
    if (lid < n_expert && rank < n_used) {
        pick_ids[rank] = lid;
        pick_share[rank] = exp(mine - top);
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < n_used; i++) { sum += pick_share[i]; }
    return sum;
}
