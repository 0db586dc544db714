// Q4_0 in pairs of blocks, 9 words: two f16 d, then 4 words of nibbles for each block.
// y = d (q - 8); low nibbles are values 0..15, high ones 16..31.

alias W$ = u32;

fn four$(i: u32) -> vec4<u32> {
    return vec4<u32>(w$[i], w$[i + 1u], w$[i + 2u], w$[i + 3u]);
}

fn group$(g: u32) -> Group {
    let block = g >> 1u;
    let at = (block >> 1u) * 9u;
    let q = nibbles(four$(at + 1u + 4u * (block & 1u)), 4u * (g & 1u), 8.0);
    return Group(q, half_at(w$[at], block), 0.0);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}

fn packed64$(c: u32) -> Packed64 {
    let m = vec4<u32>(0x0f0f0f0fu);
    let a = four$(9u * c + 1u);
    let b = four$(9u * c + 5u);
    let scale = halves(w$[9u * c]).xxyy;
    return Packed64(array(a & m, (a >> vec4<u32>(4u)) & m, b & m, (b >> vec4<u32>(4u)) & m), scale,
                    -8.0 * scale);
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
