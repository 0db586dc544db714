// Q3_K in eights of blocks of 256, 220 words: eight f16 d, then for each block 8 words of high
// bits, 16 of two-bit q and 3 of six-bit scales. y = d (S - 32) (q - 4), where the high bit counts
// 4.

alias W$ = u32;

fn four$(i: u32) -> vec4<u32> {
    return vec4<u32>(w$[i], w$[i + 1u], w$[i + 2u], w$[i + 3u]);
}

fn group$(g: u32) -> Group {
    let block = g >> 4u;
    let head = (block >> 3u) * 220u;
    let at = head + 4u + 27u * (block & 7u);
    let k = g & 15u;
    let q_at = at + 8u + 8u * (k >> 3u) + 4u * (k & 1u);
    let h_at = at + 4u * (k & 1u);
    let low = four$(q_at) >> vec4<u32>(k & 6u);
    let high = four$(h_at) >> vec4<u32>(k >> 1u);
    let v = (low & vec4<u32>(0x03030303u)) | ((high & vec4<u32>(0x01010101u)) << vec4<u32>(2u));
    let q = mat4x4<f32>(bytes(v.x, 4.0), bytes(v.y, 4.0), bytes(v.z, 4.0), bytes(v.w, 4.0));
    let s_low = (w$[at + 24u + ((k >> 2u) & 1u)] >> (8u * (k & 3u) + 4u * (k >> 3u))) & 15u;
    let s_high = (w$[at + 26u] >> (8u * (k & 3u) + 2u * (k >> 2u))) & 3u;
    let s = f32(s_low | (s_high << 4u)) - 32.0;
    return Group(q, half_at(w$[head + ((block >> 1u) & 3u)], block) * s, 0.0);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}

// Two bits at `shift` of the words at `low`, a third one at `bit` of those at `high`.
fn three$(low: u32, shift: u32, high: u32, bit: u32) -> vec4<u32> {
    let top = (four$(high) >> vec4<u32>(bit)) & vec4<u32>(0x01010101u);
    return ((four$(low) >> vec4<u32>(shift)) & vec4<u32>(0x03030303u)) | (top << vec4<u32>(2u));
}

fn packed64$(c: u32) -> Packed64 {
    let block = c >> 2u;
    let head = (block >> 3u) * 220u;
    let at = head + 4u + 27u * (block & 7u);
    let k = c & 3u; // of the block: six-bit scales 4 k .. 4 k + 3
    let low = at + 8u + 8u * (k >> 1u);
    let shift = 4u * (k & 1u);
    let lanes = vec4<u32>(0u, 8u, 16u, 24u);
    let s_low = (vec4<u32>(w$[at + 24u + (k & 1u)]) >> (lanes + 4u * (k >> 1u))) & vec4<u32>(15u);
    let s_high = (vec4<u32>(w$[at + 26u]) >> (lanes + 2u * k)) & vec4<u32>(3u);
    let s = vec4<f32>(s_low | (s_high << vec4<u32>(4u))) - 32.0;
    let scale = half_at(w$[head + ((block >> 1u) & 3u)], block) * s;
    return Packed64(array(three$(low, shift, at, 2u * k), three$(low + 4u, shift, at + 4u, 2u * k),
                          three$(low, shift + 2u, at, 2u * k + 1u),
                          three$(low + 4u, shift + 2u, at + 4u, 2u * k + 1u)), scale, -4.0 * scale);
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
