// IQ4_XS, 34 words a block of 256: f16 d and the high bits of 8 scales, their low nibbles, then
// codes: a sub-block of 32 has 4 words, values 0..15 in the low nibbles, 16..31 in the high ones.
// y = d (S - 32) T[code].

alias W$ = u32;

fn four$(i: u32) -> vec4<u32> {
    return vec4<u32>(w$[i], w$[i + 1u], w$[i + 2u], w$[i + 3u]);
}

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

fn raw16$(g: u32) -> Raw {
    return hold(get16$(g));
}

fn expand16$(r: Raw) -> mat4x4<f32> {
    return held(r);
}

fn packed64$(c: u32) -> Packed64 {
    let block = (c >> 2u) * 34u;
    let k = 2u * (c & 3u);
    let a = four$(block + 2u + 4u * k);
    let b = four$(block + 6u + 4u * k);
    let head = w$[block];
    let at = vec2<u32>(k, k + 1u);
    let s_low = (vec2<u32>(w$[block + 1u]) >> (4u * at)) & vec2<u32>(15u);
    let s_high = (vec2<u32>(head >> 16u) >> (2u * at)) & vec2<u32>(3u);
    let s = vec2<f32>(s_low | (s_high << vec2<u32>(4u))) - 32.0;
    let scale = half_at(head, 0u) * s;
    return Packed64(array(iq4_bytes(a), iq4_bytes(a >> vec4<u32>(4u)), iq4_bytes(b),
                          iq4_bytes(b >> vec4<u32>(4u))), scale.xxyy, vec4<f32>(0.0));
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
