// Q4_K, 9 elements a block of 256: d, dmin and the scales in the first, then nibbles: an element
// holds 16 values of one sub-block in its low and of the next in its high nibbles.
// y = d S q - dmin M.

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
    let at = (g >> 4u) * 9u;
    return Raw(w$[at], w$[at + 1u + ((g >> 1u) & 6u) + (g & 1u)], vec4<u32>(), vec4<u32>(), g);
}

fn group_of$(r: Raw) -> Group {
    let k = (r.g >> 1u) & 7u;
    let s = scales$(r.a, k);
    return Group(nibbles(r.b, 4u * (k & 1u), 0.0), s.x, -s.y);
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

fn packed64$(c: u32) -> Packed64 {
    let at = (c >> 2u) * 9u;
    let k = 2u * (c & 3u);
    let m = vec4<u32>(0x0f0f0f0fu);
    let head = w$[at];
    let a = w$[at + 1u + k];
    let b = w$[at + 2u + k];
    let s = scales$(head, k);
    let t = scales$(head, k + 1u);
    return Packed64(array(a & m, b & m, (a >> vec4<u32>(4u)) & m, (b >> vec4<u32>(4u)) & m),
                    vec4<f32>(s.xx, t.xx), -vec4<f32>(s.yy, t.yy));
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
