// lora_added: what is summed up for B u, the second half of what adapters add, for one token. Needs
// args with rank and b0 and the binding added as array<u32>: u of all targets, `rank` values each,
// in front (lib/lora), and B [.., rank] f16 from word b0 on. rank is even.

// Values 2 k and 2 k + 1 of a target's u.
fn added_u(which: u32, k: u32) -> vec2<f32> {
    let at = which * args.rank + 2 * k;
    return vec2(bitcast<f32>(added[at]), bitcast<f32>(added[at + 1]));
}

// Values 2 k and 2 k + 1 of a row of B.
fn added_b(row: u32, k: u32) -> vec2<f32> {
    return unpack2x16float(added[args.b0 + row * (args.rank / 2) + k]);
}
