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

fn group$(g: u32) -> Group {
    let at = (g >> 4u) * 9u;
    let k = (g >> 1u) & 7u;
    let s = scales$(w$[at], k);
    return Group(nibbles(w$[at + 1u + (k & 6u) + (g & 1u)], 4u * (k & 1u), 0.0), s.x, -s.y);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}
