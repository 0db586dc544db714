// IQ4_NL in pairs of blocks, 9 words: two f16 d, then 4 words of codes for each block.
// y = d T[code]; low nibbles are values 0..15, high ones 16..31.

alias W$ = u32;

fn group$(g: u32) -> Group {
    let block = g >> 1u;
    let pair = (block >> 1u) * 9u;
    let at = pair + 1u + 4u * (block & 1u);
    let shift = 4u * (g & 1u);
    let q = mat4x4<f32>(iq4_values(w$[at] >> shift), iq4_values(w$[at + 1u] >> shift),
                        iq4_values(w$[at + 2u] >> shift), iq4_values(w$[at + 3u] >> shift));
    return Group(q, half_at(w$[pair], block), 0.0);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}
