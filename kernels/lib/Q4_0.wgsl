// Q4_0 in eights of blocks, 9 elements: eight f16 d, then an element of nibbles for each block.
// y = d (q - 8); low nibbles are values 0..15, high ones 16..31.

alias W$ = vec4<u32>;

fn group$(g: u32) -> Group {
    let block = g >> 1u;
    let at = (block >> 3u) * 9u;
    let k = block & 7u;
    let q = nibbles(w$[at + 1u + k], 4u * (g & 1u), 8.0);
    return Group(q, half_at(w$[at][k >> 1u], k), 0.0);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}

fn packed64$(c: u32) -> Packed64 {
    let m = vec4<u32>(0x0f0f0f0fu);
    let at = (c >> 2u) * 9u;
    let k = c & 3u;
    let a = w$[at + 1u + 2u * k];
    let b = w$[at + 2u + 2u * k];
    let scale = halves(w$[at][k]).xxyy;
    return Packed64(array(a & m, (a >> vec4<u32>(4u)) & m, b & m, (b >> vec4<u32>(4u)) & m), scale,
                    -8.0 * scale);
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
