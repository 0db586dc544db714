// Q4_0 in pairs of blocks, 9 words: two f16 d, then 4 words of nibbles for each block.
// y = d (q - 8); low nibbles are values 0..15, high ones 16..31.

alias W$ = u32;

fn four$(i: u32) -> vec4<u32> {
    return vec4<u32>(w$[i], w$[i + 1u], w$[i + 2u], w$[i + 3u]);
}

fn group$(g: u32) -> Group {
    let block = g >> 1u;
    let at = (block >> 1u) * 9u;
    let q = nibbles(four$(at + 1u + 4u * (block & 1u)), 4u * (g & 1u), 8.0);
    return Group(q, half_at(w$[at], block), 0.0);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}
