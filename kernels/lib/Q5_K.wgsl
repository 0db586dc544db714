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

fn raw16$(g: u32) -> Raw {
    let at = (g >> 4u) * 11u;
    return Raw(w$[at], w$[at + 3u + ((g >> 1u) & 6u) + (g & 1u)], w$[at + 1u + (g & 1u)],
               vec4<u32>(), g);
}

fn group_of$(r: Raw) -> Group {
    let k = (r.g >> 1u) & 7u;
    let low = r.b >> vec4<u32>(4u * (k & 1u));
    let high = r.c >> vec4<u32>(k);
    let v = (low & vec4<u32>(0x0f0f0f0fu)) | ((high & vec4<u32>(0x01010101u)) << vec4<u32>(4u));
    let q = mat4x4<f32>(bytes(v.x, 0.0), bytes(v.y, 0.0), bytes(v.z, 0.0), bytes(v.w, 0.0));
    let s = scales$(r.a, k);
    return Group(q, s.x, -s.y);
}

fn group$(g: u32) -> Group {
    return group_of$(raw16$(g));
}

fn expand16$(r: Raw) -> mat4x4<f32> {
    return expand(group_of$(r));
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}

// Nibbles at `shift` of a, the fifth bit at `bit` of high.
fn join$(a: vec4<u32>, shift: u32, high: vec4<u32>, bit: u32) -> vec4<u32> {
    let top = (high >> vec4<u32>(bit)) & vec4<u32>(0x01010101u);
    return ((a >> vec4<u32>(shift)) & vec4<u32>(0x0f0f0f0fu)) | (top << vec4<u32>(4u));
}

fn packed64$(c: u32) -> Packed64 {
    let at = (c >> 2u) * 11u;
    let k = 2u * (c & 3u);
    let head = w$[at];
    let high_a = w$[at + 1u];
    let high_b = w$[at + 2u];
    let a = w$[at + 3u + k];
    let b = w$[at + 4u + k];
    let s = scales$(head, k);
    let t = scales$(head, k + 1u);
    return Packed64(array(join$(a, 0u, high_a, k), join$(b, 0u, high_b, k),
                          join$(a, 4u, high_a, k + 1u), join$(b, 4u, high_b, k + 1u)),
                    vec4<f32>(s.xx, t.xx), -vec4<f32>(s.yy, t.yy));
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
