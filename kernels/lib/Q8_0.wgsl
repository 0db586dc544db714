// Q8_0 in eights of blocks, 17 elements: eight f16 d, then two elements of signed bytes for each
// block.
// y = d q.

alias W$ = vec4<u32>;

fn signed$(w: u32) -> vec4<f32> {
    return bytes(w ^ 0x80808080u, 128.0);
}

fn group$(g: u32) -> Group {
    let block = g >> 1u;
    let at = (block >> 3u) * 17u;
    let k = block & 7u;
    let v = w$[at + 1u + 2u * k + (g & 1u)];
    let q = mat4x4<f32>(signed$(v.x), signed$(v.y), signed$(v.z), signed$(v.w));
    return Group(q, half_at(w$[at][k >> 1u], k), 0.0);
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
