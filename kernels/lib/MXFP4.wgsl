// MXFP4 in eights of blocks, 9 elements: eight 16-bit exponents e, then an element of e2m1 codes
// for each block. y = 2^(e - 128) F[code], F twice the e2m1 value; low nibbles are values 0..15,
// high ones 16..31. The subnormal scales of e = 0 and 1 count as 0.

alias W$ = vec4<u32>;

fn group$(g: u32) -> Group {
    let block = g >> 1u;
    let at = (block >> 3u) * 9u;
    let k = block & 7u;
    let codes = w$[at + 1u + k] >> vec4<u32>(4u * (g & 1u));
    let q = mat4x4<f32>(fp4_values(codes.x), fp4_values(codes.y), fp4_values(codes.z),
                        fp4_values(codes.w));
    let e = (w$[at][k >> 1u] >> (16u * (k & 1u))) & 0xffffu;
    return Group(q, bitcast<f32>((max(e, 1u) - 1u) << 23u), 0.0);
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand(group$(g));
}

fn packed64$(c: u32) -> Packed64 {
    let at = (c >> 2u) * 9u;
    let k = c & 3u;
    let a = w$[at + 1u + 2u * k];
    let b = w$[at + 2u + 2u * k];
    let both = w$[at][k];
    let e = vec2<u32>(both, both >> 16u) & vec2<u32>(0xffffu);
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
