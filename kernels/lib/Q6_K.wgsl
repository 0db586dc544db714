// Q6_K in eights of blocks of 256, 105 elements: eight f16 d, then for each block 8 elements of low
// nibbles, 4 of high bits in twos and one of signed byte scales. y = d S (q - 32).

alias W$ = vec4<u32>;

fn group$(g: u32) -> Group {
    let block = g >> 4u;
    let head = (block >> 3u) * 105u;
    let at = head + 1u + 13u * (block & 7u);
    let k = g & 15u;
    let low = w$[at + 4u * (k >> 3u) + (k & 3u)] >> vec4<u32>(k & 4u);
    let high = w$[at + 8u + 2u * (k >> 3u) + (k & 1u)] >> vec4<u32>(k & 6u);
    let v = (low & vec4<u32>(0x0f0f0f0fu)) | ((high & vec4<u32>(0x03030303u)) << vec4<u32>(4u));
    let q = mat4x4<f32>(bytes(v.x, 32.0), bytes(v.y, 32.0), bytes(v.z, 32.0), bytes(v.w, 32.0));
    let s = bitcast<i32>(w$[at + 12u][k >> 2u] << (24u - 8u * (k & 3u))) >> 24u;
    return Group(q, half_at(w$[head][(block >> 1u) & 3u], block) * f32(s), 0.0);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}

// Nibbles at `shift` of a, two more bits at `bit` of high.
fn join$(a: vec4<u32>, shift: u32, high: vec4<u32>, bit: u32) -> vec4<u32> {
    let top = (high >> vec4<u32>(bit)) & vec4<u32>(0x03030303u);
    return ((a >> vec4<u32>(shift)) & vec4<u32>(0x0f0f0f0fu)) | (top << vec4<u32>(4u));
}

// Half a block is two chunks: values 0..31 and 64..95 of it share their bytes, 32..63 and 96..127.
fn packed64$(c: u32) -> Packed64 {
    let block = c >> 2u;
    let head = (block >> 3u) * 105u;
    let at = head + 1u + 13u * (block & 7u);
    let half = (c >> 1u) & 1u;
    let i = c & 1u;
    let a = w$[at + 4u * half + 2u * i];
    let b = w$[at + 4u * half + 2u * i + 1u];
    let high_a = w$[at + 8u + 2u * half];
    let high_b = w$[at + 9u + 2u * half];
    let scales = w$[at + 12u];
    let words = select(scales.xy, scales.zw, half == 1u) >> vec2<u32>(16u * i);
    let bytes4 = vec4<u32>(words.x, words.x >> 8u, words.y, words.y >> 8u);
    let s = bitcast<vec4<i32>>(bytes4 << vec4<u32>(24u)) >> vec4<u32>(24u);
    let scale = half_at(w$[head][(block >> 1u) & 3u], block) * vec4<f32>(s);
    return Packed64(array(join$(a, 0u, high_a, 2u * i), join$(b, 0u, high_b, 2u * i),
                          join$(a, 4u, high_a, 2u * i + 4u), join$(b, 4u, high_b, 2u * i + 4u)),
                    scale, -32.0 * scale);
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    let g = 8u * (c >> 1u) + 2u * (c & 1u);
    return vec2<u32>(g, g + 4u);
}
