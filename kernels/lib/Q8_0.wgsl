// Q8_0 in pairs of blocks, 17 words: two f16 d, then 8 words of signed bytes for each block.
// y = d q.

alias W$ = u32;

fn four$(i: u32) -> vec4<u32> {
    return vec4<u32>(w$[i], w$[i + 1u], w$[i + 2u], w$[i + 3u]);
}

fn raw16$(g: u32) -> Raw {
    let pair = (g >> 2u) * 17u;
    return Raw(four$(pair + 1u + 4u * (g & 3u)), vec4<u32>(w$[pair]), vec4<u32>(), vec4<u32>(), g);
}

fn group_of$(r: Raw) -> Group {
    let v = r.a ^ vec4<u32>(0x80808080u);
    let q = mat4x4<f32>(bytes(v.x, 128.0), bytes(v.y, 128.0), bytes(v.z, 128.0),
                        bytes(v.w, 128.0));
    return Group(q, half_at(r.b.x, r.g >> 1u), 0.0);
}

fn group$(g: u32) -> Group {
    return group_of$(raw16$(g));
}

fn expand16$(r: Raw) -> mat4x4<f32> {
    return expand(group_of$(r));
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
