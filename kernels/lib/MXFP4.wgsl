// MXFP4 in pairs of blocks, 9 words: two 16-bit exponents e, then 4 words of e2m1 codes for each
// block. y = 2^(e - 128) F[code], F twice the e2m1 value; low nibbles are values 0..15, high ones
// 16..31. The subnormal scales of e = 0 and 1 count as 0.

alias W$ = u32;

fn four$(i: u32) -> vec4<u32> {
    return vec4<u32>(w$[i], w$[i + 1u], w$[i + 2u], w$[i + 3u]);
}

fn group$(g: u32) -> Group {
    let block = g >> 1u;
    let pair = (block >> 1u) * 9u;
    let at = pair + 1u + 4u * (block & 1u);
    let shift = 4u * (g & 1u);
    let q = mat4x4<f32>(fp4_values(w$[at] >> shift), fp4_values(w$[at + 1u] >> shift),
                        fp4_values(w$[at + 2u] >> shift), fp4_values(w$[at + 3u] >> shift));
    let e = (w$[pair] >> (16u * (block & 1u))) & 0xffffu;
    return Group(q, bitcast<f32>((max(e, 1u) - 1u) << 23u), 0.0);
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
    let a = four$(9u * c + 1u);
    let b = four$(9u * c + 5u);
    let e = vec2<u32>(w$[9u * c], w$[9u * c] >> 16u) & vec2<u32>(0xffffu);
    let scale = bitcast<vec2<f32>>((max(e, vec2<u32>(1u)) - 1u) << vec2<u32>(23u));
    return Packed64(array(fp4_bytes(a), fp4_bytes(a >> vec4<u32>(4u)), fp4_bytes(b),
                          fp4_bytes(b >> vec4<u32>(4u))), scale.xxyy, vec4<f32>(0.0));
}

fn dot64$(c: u32, x: Input64) -> f32 {
    return dot_packed(packed64$(c), x);
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
