// Q6_K in pairs of blocks of 256, 105 words: two f16 d, then for each block 32 words of low
// nibbles, 16 of high bits in twos and 4 of signed byte scales. y = d S (q - 32).

alias W$ = u32;

fn four$(i: u32) -> vec4<u32> {
    return vec4<u32>(w$[i], w$[i + 1u], w$[i + 2u], w$[i + 3u]);
}

fn group$(g: u32) -> Group {
    let block = g >> 4u;
    let pair = (block >> 1u) * 105u;
    let at = pair + 1u + 52u * (block & 1u);
    let k = g & 15u;
    let l_at = at + 16u * (k >> 3u) + 4u * (k & 3u);
    let h_at = at + 32u + 8u * (k >> 3u) + 4u * (k & 1u);
    let low = four$(l_at) >> vec4<u32>(k & 4u);
    let high = four$(h_at) >> vec4<u32>(k & 6u);
    let v = (low & vec4<u32>(0x0f0f0f0fu)) | ((high & vec4<u32>(0x03030303u)) << vec4<u32>(4u));
    let q = mat4x4<f32>(bytes(v.x, 32.0), bytes(v.y, 32.0), bytes(v.z, 32.0), bytes(v.w, 32.0));
    let s = bitcast<i32>(w$[at + 48u + (k >> 2u)] << (24u - 8u * (k & 3u))) >> 24u;
    return Group(q, half_at(w$[pair], block) * f32(s), 0.0);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}
