// Q2_K, 21 words a block of 256: 16 bytes of scales (low nibble) and minima (high nibble), 16 words
// of two-bit q, f16 d and dmin. y = d S q - dmin M.

alias W$ = u32;

fn four$(i: u32) -> vec4<u32> {
    return vec4<u32>(w$[i], w$[i + 1u], w$[i + 2u], w$[i + 3u]);
}

fn group$(g: u32) -> Group {
    let block = (g >> 4u) * 21u;
    let k = g & 15u;
    let at = block + 4u + 8u * (k >> 3u) + 4u * (k & 1u);
    let v = (vec4<u32>(w$[at], w$[at + 1u], w$[at + 2u], w$[at + 3u]) >> vec4<u32>(k & 6u)) &
            vec4<u32>(0x03030303u);
    let q = mat4x4<f32>(bytes(v.x, 0.0), bytes(v.y, 0.0), bytes(v.z, 0.0), bytes(v.w, 0.0));
    let s = w$[block + (k >> 2u)] >> (8u * (k & 3u));
    let d = halves(w$[block + 20u]);
    return Group(q, d.x * f32(s & 15u), -d.y * f32((s >> 4u) & 15u));
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
    let block = (c >> 2u) * 21u;
    let at = block + 4u + 8u * ((c >> 1u) & 1u);
    let shift = vec4<u32>(4u * (c & 1u));
    let m = vec4<u32>(0x03030303u);
    let a = four$(at) >> shift;
    let b = four$(at + 4u) >> shift;
    let s = (vec4<u32>(w$[block + (c & 3u)]) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u);
    let d = halves(w$[block + 20u]);
    return Packed64(array(a & m, b & m, (a >> vec4<u32>(2u)) & m, (b >> vec4<u32>(2u)) & m),
                    d.x * vec4<f32>(s & vec4<u32>(15u)), -d.y * vec4<f32>(s >> vec4<u32>(4u)));
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
