// Q8_0 in pairs of blocks, 17 words: two f16 d, then 8 words of signed bytes for each block.
// y = d q.

alias W$ = u32;

fn four$(i: u32) -> vec4<u32> {
    return vec4<u32>(w$[i], w$[i + 1u], w$[i + 2u], w$[i + 3u]);
}

fn signed$(i: u32) -> vec4<f32> {
    return bytes(w$[i] ^ 0x80808080u, 128.0);
}

fn group$(g: u32) -> Group {
    let block = g >> 1u;
    let pair = (block >> 1u) * 17u;
    let at = pair + 1u + 8u * (block & 1u) + 4u * (g & 1u);
    let q = mat4x4<f32>(signed$(at), signed$(at + 1u), signed$(at + 2u), signed$(at + 3u));
    return Group(q, half_at(w$[pair], block), 0.0);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}

fn packed64$(c: u32) -> Packed64 {
    let at = 17u * c;
    return Packed64(array(four$(at + 1u), four$(at + 5u), four$(at + 9u), four$(at + 13u)),
                    halves(w$[at]).xxyy, vec4<f32>(0.0));
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
