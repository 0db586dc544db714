// lora_own: u of one token, which stays in front of the adapter (lib/lora) for the B u of a later
// dispatch. Needs the binding lora as read_write.

// This workgroup's part of u, of the i-th of the workgroups that make it: 256 / LANES pairs.
fn lora_make(i: u32, lid: u32) {
    let p = (i * 256 + lid) / LANES;
    let u = lora_pair(p, lid);
    if (lid % LANES == 0 && p < args.n_rank / 2) { lora[p] = bitcast<vec2<u32>>(u); }
}
