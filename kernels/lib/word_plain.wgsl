// word_plain: as lib/word.wgsl, of what every WGSL has.

fn word_pack(v: vec4<i32>) -> u32 {
    let b = bitcast<vec4<u32>>(v) & vec4<u32>(255u);
    return b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u);
}

fn word_bytes(w: u32) -> vec4<i32> {
    return bitcast<vec4<i32>>(vec4<u32>(w) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
}

fn word_dot(a: u32, b: u32) -> i32 { return dot(word_bytes(a), word_bytes(b)); }
