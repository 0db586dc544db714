// IQ4_NL in pairs of blocks, 9 words: two f16 d, then 4 words of codes for each block.
// y = d T[code]; low nibbles are values 0..15, high ones 16..31.

alias W$ = u32;

fn four$(i: u32) -> vec4<u32> {
    return vec4<u32>(w$[i], w$[i + 1u], w$[i + 2u], w$[i + 3u]);
}

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

fn raw16$(g: u32) -> Raw {
    return hold(get16$(g));
}

fn expand16$(r: Raw) -> mat4x4<f32> {
    return held(r);
}

fn packed64$(c: u32) -> Packed64 {
    let a = four$(9u * c + 1u);
    let b = four$(9u * c + 5u);
    return Packed64(array(iq4_bytes(a), iq4_bytes(a >> vec4<u32>(4u)), iq4_bytes(b),
                          iq4_bytes(b >> vec4<u32>(4u))), halves(w$[9u * c]).xxyy, vec4<f32>(0.0));
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
