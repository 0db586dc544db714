// Q4_1, 5 words a block: f16 d and m, 4 words of nibbles. y = d q + m; low nibbles are values
// 0..15, high ones 16..31.

alias W$ = u32;

fn four$(i: u32) -> vec4<u32> {
    return vec4<u32>(w$[i], w$[i + 1u], w$[i + 2u], w$[i + 3u]);
}

fn group$(g: u32) -> Group {
    let at = (g >> 1u) * 5u;
    let scales = halves(w$[at]);
    return Group(nibbles(four$(at + 1u), 4u * (g & 1u), 0.0), scales.x, scales.y);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}
