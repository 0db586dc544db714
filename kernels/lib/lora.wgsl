// lora: an adapter's A times an input, as lora_down, lora_stream and lora_packed do it. Needs
// workgroup_sum4(), the bindings lora and u, args with n_col, n_rank and a0, and the kernel's
//   fn input_value(tok: u32, i: u32) -> vec4<f32>, values 4 i .. 4 i + 3 of a token's input.
//
// lora: first n_rank f32 factors, then, from pair of words a0 on, A [n_rank, n_col] as f16.

fn lora_factor(r: u32) -> f32 { return bitcast<f32>(lora[r / 2][r % 2]); }

fn lora_a(r: u32, i: u32) -> vec4<f32> {
    let w = lora[args.a0 + r * (args.n_col / 4) + i];
    return vec4(unpack2x16float(w.x), unpack2x16float(w.y));
}

// Rows 4 row4 .. 4 row4 + 3 of a token's u, by all threads of the workgroup.
fn lora_rows(tok: u32, row4: u32, lid: u32) {
    let r = 4 * row4;
    let end = args.n_rank - 1;
    var sum = vec4(0.0);
    for (var i = lid; i < args.n_col / 4; i += 256) {
        let x = input_value(tok, i);
        sum += vec4(dot(lora_a(r, i), x), dot(lora_a(min(r + 1, end), i), x),
                    dot(lora_a(min(r + 2, end), i), x), dot(lora_a(min(r + 3, end), i), x));
    }
    sum = workgroup_sum4(sum, lid);
    if (lid < 4 && r + lid < args.n_rank) {
        u[tok * args.n_rank + r + lid] = sum[lid] * lora_factor(r + lid);
    }
}
