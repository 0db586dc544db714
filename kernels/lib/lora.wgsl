// lora: an adapter's A times an input, two rows at a time, LANES threads a pair (lib/lanes). Needs
// the binding lora as array<vec2<u32>>, args with n_col, n_rank and a0, and the kernel's
//   fn input_value(i: u32) -> vec4<f32>, values 4 i .. 4 i + 3 of the input.
//
// lora: u of one token [n_rank] f32 (left there by the kernels for one token), factors [n_rank]
// f32, then, from pair of words a0 on, A [n_rank, n_col] as f16. n_rank is even.

fn lora_a(r: u32, i: u32) -> vec4<f32> {
    let w = lora[args.a0 + r * (args.n_col / 4) + i];
    return vec4(unpack2x16float(w.x), unpack2x16float(w.y));
}

// Values 2 p and 2 p + 1 of u, in the first of the LANES threads; all threads must call it.
fn lora_pair(p: u32, lid: u32) -> vec2<f32> {
    let last = args.n_rank / 2 - 1;
    let r = 2 * min(p, last);
    var sum = vec2(0.0);
    for (var i = lid % LANES; i < args.n_col / 4; i += LANES) {
        let x = input_value(i);
        sum += vec2(dot(lora_a(r, i), x), dot(lora_a(r + 1, i), x));
    }
    return lanes_sum(sum, lid) * bitcast<vec2<f32>>(lora[args.n_rank / 2 + r / 2]);
}
