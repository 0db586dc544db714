// Q5_K, 11 elements a block of 256: d, dmin and the scales in the first, two of fifth bits, then
// nibbles as in Q4_K. y = d S q - dmin M.

alias W$ = vec4<u32>;

// Scale and minimum of sub-block k (32 values): six bits each, in 12 bytes after d and dmin.
fn scales$(head: vec4<u32>, k: u32) -> vec2<f32> {
    let shift = 8u * (k & 3u);
    let low = vec2<u32>(head.y, head.z) >> vec2<u32>(shift);
    let high = (vec2<u32>(head.w, head.w >> 4u) >> vec2<u32>(shift)) & vec2<u32>(15u);
    let s = select(low & vec2<u32>(63u), high | ((low >> vec2<u32>(2u)) & vec2<u32>(48u)), k > 3u);
    return halves(head.x) * vec2<f32>(s);
}

fn group$(g: u32) -> Group {
    let at = (g >> 4u) * 11u;
    let k = (g >> 1u) & 7u;
    let low = w$[at + 3u + (k & 6u) + (g & 1u)] >> vec4<u32>(4u * (k & 1u));
    let high = w$[at + 1u + (g & 1u)] >> vec4<u32>(k);
    let v = (low & vec4<u32>(0x0f0f0f0fu)) | ((high & vec4<u32>(0x01010101u)) << vec4<u32>(4u));
    let q = mat4x4<f32>(bytes(v.x, 0.0), bytes(v.y, 0.0), bytes(v.z, 0.0), bytes(v.w, 0.0));
    let s = scales$(w$[at], k);
    return Group(q, s.x, -s.y);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}
