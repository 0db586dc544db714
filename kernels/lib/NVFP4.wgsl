// NVFP4, 9 words a block of 64: 4 scale bytes (UE4M3), then 2 words of e2m1 codes for each 16
// values; low nibbles are its values 0..7, high ones 8..15. y = g(scale) F[code], F twice the e2m1
// value, g half the scale. The tensor's own scale is applied by the caller.

alias W$ = u32;

// Half of an unsigned e4m3; 0x7f, its NaN, counts as 0.
fn half_e4m3$(b: u32) -> f32 {
    let e = (b >> 3u) & 15u;
    let m = b & 7u;
    let normal = bitcast<f32>(((e + 119u) << 23u) | (m << 20u));
    return select(select(normal, f32(m) * 0x1p-10f, e == 0u), 0.0, b == 0x7fu);
}

fn group$(g: u32) -> Group {
    let at = (g >> 2u) * 9u;
    let part = g & 3u;
    let a = w$[at + 1u + 2u * part];
    let b = w$[at + 2u + 2u * part];
    let q = mat4x4<f32>(fp4_values(a), fp4_values(b), fp4_values(a >> 4u), fp4_values(b >> 4u));
    return Group(q, half_e4m3$((w$[at] >> (8u * part)) & 255u), 0.0);
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

// The codes of group i: its two words, then their high nibbles.
fn codes$(at: u32, i: u32) -> vec4<u32> {
    let a = w$[at + 1u + 2u * i];
    let b = w$[at + 2u + 2u * i];
    return fp4_bytes(vec4<u32>(a, b, a >> 4u, b >> 4u));
}

fn packed64$(c: u32) -> Packed64 {
    let at = 9u * c;
    let s = w$[at];
    let scale = vec4<f32>(half_e4m3$(s & 255u), half_e4m3$((s >> 8u) & 255u),
                          half_e4m3$((s >> 16u) & 255u), half_e4m3$(s >> 24u));
    return Packed64(array(codes$(at, 0u), codes$(at, 1u), codes$(at, 2u), codes$(at, 3u)), scale,
                    vec4<f32>(0.0));
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
