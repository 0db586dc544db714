// Q8_0 in eights of blocks, 17 elements: eight f16 d, then two elements of signed bytes for each
// block.
// y = d q.

alias W$ = vec4<u32>;

fn signed$(w: u32) -> vec4<f32> {
    return bytes(w ^ 0x80808080u, 128.0);
}

fn raw16$(g: u32) -> Raw {
    let at = (g >> 4u) * 17u;
    let scale = w$[at][(g >> 2u) & 3u];
    return Raw(w$[at + 1u + (g & 15u)], vec4<u32>(scale), vec4<u32>(), vec4<u32>(), g);
}

fn group_of$(r: Raw) -> Group {
    let q = mat4x4<f32>(signed$(r.a.x), signed$(r.a.y), signed$(r.a.z), signed$(r.a.w));
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
    let head = (c >> 2u) * 17u;
    let k = c & 3u;
    let at = head + 1u + 4u * k;
    return Packed64(array(w$[at], w$[at + 1u], w$[at + 2u], w$[at + 3u]),
                    halves(w$[head][k]).xxyy, vec4<f32>(0.0));
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
