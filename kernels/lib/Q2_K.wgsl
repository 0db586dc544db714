// Q2_K, 21 words a block of 256: 16 bytes of scales (low nibble) and minima (high nibble), 16 words
// of two-bit q, f16 d and dmin. y = d S q - dmin M.

alias W$ = u32;

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
