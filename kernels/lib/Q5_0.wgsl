// Q5_0 in eights of blocks, 44 words: eight f16 d, then for each block a word of fifth bits and 4
// of nibbles. y = d (q - 16); low nibbles are values 0..15, high ones 16..31.

alias W$ = u32;

fn four$(i: u32) -> vec4<u32> {
    return vec4<u32>(w$[i], w$[i + 1u], w$[i + 2u], w$[i + 3u]);
}

// 16 five-bit values: nibbles at `shift` of four words from `at`, fifth bits from `high`.
fn five$(at: u32, shift: u32, high: u32, bias: f32) -> mat4x4<f32> {
    let low = vec4<u32>(w$[at], w$[at + 1u], w$[at + 2u], w$[at + 3u]) >> vec4<u32>(shift);
    let top = fifth_bits(vec4<u32>(high) >> vec4<u32>(0u, 4u, 8u, 12u));
    let v = (low & vec4<u32>(0x0f0f0f0fu)) | top;
    return mat4x4<f32>(bytes(v.x, bias), bytes(v.y, bias), bytes(v.z, bias), bytes(v.w, bias));
}

fn group$(g: u32) -> Group {
    let block = g >> 1u;
    let head = (block >> 3u) * 44u;
    let k = block & 7u;
    let at = head + 4u + 5u * k;
    let q = five$(at + 1u, 4u * (g & 1u), w$[at] >> (16u * (g & 1u)), 16.0);
    return Group(q, half_at(w$[head + (k >> 1u)], k), 0.0);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}

// Nibbles at `shift` of the words a, and the fifth bits from `high`.
fn join$(a: vec4<u32>, shift: u32, high: u32) -> vec4<u32> {
    return ((a >> vec4<u32>(shift)) & vec4<u32>(0x0f0f0f0fu)) |
           fifth_bits(vec4<u32>(high) >> vec4<u32>(0u, 4u, 8u, 12u));
}

fn packed64$(c: u32) -> Packed64 {
    let head = (c >> 2u) * 44u;
    let k = c & 3u;
    let at = head + 4u + 10u * k;
    let a = four$(at + 1u);
    let b = four$(at + 6u);
    let high_a = w$[at];
    let high_b = w$[at + 5u];
    let scale = halves(w$[head + k]).xxyy;
    return Packed64(array(join$(a, 0u, high_a), join$(a, 4u, high_a >> 16u), join$(b, 0u, high_b),
                          join$(b, 4u, high_b >> 16u)), scale, -16.0 * scale);
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
