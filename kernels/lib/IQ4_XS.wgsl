// IQ4_XS, 34 words a block of 256: f16 d and the high bits of 8 scales, their low nibbles, then
// codes: a sub-block of 32 has 4 words, values 0..15 in the low nibbles, 16..31 in the high ones.
// y = d (S - 32) T[code].

alias W$ = u32;

fn group$(g: u32) -> Group {
    let block = (g >> 4u) * 34u;
    let k = (g >> 1u) & 7u;
    let shift = 4u * (g & 1u);
    let at = block + 2u + 4u * k;
    let q = mat4x4<f32>(iq4_values(w$[at] >> shift), iq4_values(w$[at + 1u] >> shift),
                        iq4_values(w$[at + 2u] >> shift), iq4_values(w$[at + 3u] >> shift));
    let head = w$[block];
    let s = ((w$[block + 1u] >> (4u * k)) & 15u) | (((head >> (16u + 2u * k)) & 3u) << 4u);
    return Group(q, half_at(head, 0u) * (f32(s) - 32.0), 0.0);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}
