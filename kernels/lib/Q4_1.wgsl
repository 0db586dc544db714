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

fn raw16$(g: u32) -> Raw {
    return hold(get16$(g));
}

fn expand16$(r: Raw) -> mat4x4<f32> {
    return held(r);
}

fn packed64$(c: u32) -> Packed64 {
    let m = vec4<u32>(0x0f0f0f0fu);
    let a = four$(10u * c + 1u);
    let b = four$(10u * c + 6u);
    let s = vec4<f32>(halves(w$[10u * c]), halves(w$[10u * c + 5u]));
    return Packed64(array(a & m, (a >> vec4<u32>(4u)) & m, b & m, (b >> vec4<u32>(4u)) & m),
                    s.xxzz, s.yyww);
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
