// IQ4_NL in eights of blocks, 9 elements: eight f16 d, then an element of codes for each block.
// y = d T[code]; low nibbles are values 0..15, high ones 16..31.

alias W$ = vec4<u32>;

fn group$(g: u32) -> Group {
    let block = g >> 1u;
    let at = (block >> 3u) * 9u;
    let k = block & 7u;
    let codes = w$[at + 1u + k] >> vec4<u32>(4u * (g & 1u));
    let q = mat4x4<f32>(iq4_values(codes.x), iq4_values(codes.y), iq4_values(codes.z),
                        iq4_values(codes.w));
    return Group(q, half_at(w$[at][k >> 1u], k), 0.0);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}

fn packed64$(c: u32) -> Packed64 {
    let at = (c >> 2u) * 9u;
    let k = c & 3u;
    let a = w$[at + 1u + 2u * k];
    let b = w$[at + 2u + 2u * k];
    return Packed64(array(iq4_bytes(a), iq4_bytes(a >> vec4<u32>(4u)), iq4_bytes(b),
                          iq4_bytes(b >> vec4<u32>(4u))), halves(w$[at][k]).xxyy, vec4<f32>(0.0));
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
