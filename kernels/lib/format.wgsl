// What the tensor formats (lib/Q4_K.wgsl and so on) share. CPU twin: src/file/quant.c.
//
// A format's library defines for its letter $:
//   alias W$                        element type of the weight binding
//   fn group$(g: u32) -> Group      values [16 g, 16 g + 16) of the tensor as q * scale + least
//   fn get16$(g: u32) -> mat4x4<f32>  the same as plain values; column c is values 4c .. 4c+3
//   fn raw16$(g: u32) -> Raw          the same as it is stored, to be expanded later by
//   fn expand16$(r: Raw) -> mat4x4<f32>   which gives 0 for Raw()
//   fn dot64$(c: u32, x: Input64) -> f32  64 values times x: the fastest way, see lib/dot64.wgsl;
//   fn groups64$(c: u32) -> vec2<u32>     they are groups g, g + 1 of both g that this names

struct Group {
    q: mat4x4<f32>,
    scale: f32,
    least: f32,
}

// Sixteen values as they are stored: loaded early, so that nothing waits for them when they are
// needed. Formats that are seldom met hold plain values.
struct Raw {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
    g: u32,
}

fn hold(m: mat4x4<f32>) -> Raw {
    return Raw(bitcast<vec4<u32>>(m[0]), bitcast<vec4<u32>>(m[1]), bitcast<vec4<u32>>(m[2]),
               bitcast<vec4<u32>>(m[3]), 0u);
}

fn held(r: Raw) -> mat4x4<f32> {
    return mat4x4<f32>(bitcast<vec4<f32>>(r.a), bitcast<vec4<f32>>(r.b), bitcast<vec4<f32>>(r.c),
                       bitcast<vec4<f32>>(r.d));
}

fn expand(r: Group) -> mat4x4<f32> {
    let least = vec4<f32>(r.least);
    return mat4x4<f32>(r.q[0] * r.scale + least, r.q[1] * r.scale + least,
                       r.q[2] * r.scale + least, r.q[3] * r.scale + least);
}

// Sum of the group's values times x, where x_sum is the sum of x: the scale is applied once.
fn dot_group(r: Group, x: mat4x4<f32>, x_sum: f32) -> f32 {
    let products = r.q[0] * x[0] + r.q[1] * x[1] + r.q[2] * x[2] + r.q[3] * x[3];
    return r.scale * dot(products, vec4<f32>(1.0)) + r.least * x_sum;
}

// Two f16. unpack2x16float may flush subnormals, and small scales often are.
fn halves(w: u32) -> vec2<f32> {
    let bits = vec2<u32>(w, w >> 16u);
    let size = bits & vec2<u32>(0x7fffu);
    let sign = (bits & vec2<u32>(0x8000u)) << vec2<u32>(16u);
    let small = bitcast<vec2<u32>>(vec2<f32>(size) * 0x1p-24f) | sign;
    return select(unpack2x16float(w), bitcast<vec2<f32>>(small), size < vec2<u32>(0x400u));
}

// The f16 in the low (i even) or high half of w.
fn half_at(w: u32, i: u32) -> f32 {
    return halves(w >> (16u * (i & 1u))).x;
}

// The four bytes of w, each less `bias` (a whole number): an integer below 2^16 in the low bits of
// 2^23 is a float already, which is faster than a conversion on much hardware.
fn bytes(w: u32, bias: f32) -> vec4<f32> {
    let bits = vec4<u32>(w, w, w >> 16u, w >> 16u) & vec4<u32>(0xffu, 0xff00u, 0xffu, 0xff00u);
    let base = vec4<f32>(0x1p23f, 0x1p15f, 0x1p23f, 0x1p15f) + vec4<f32>(bias);
    return fma(bitcast<vec4<f32>>(bits | vec4<u32>(0x4b000000u)),
               vec4<f32>(1.0, 0x1p-8f, 1.0, 0x1p-8f), -base);
}

// Four words of which the four bits at `shift` of every byte count.
fn nibbles(w: vec4<u32>, shift: u32, bias: f32) -> mat4x4<f32> {
    let v = (w >> vec4<u32>(shift)) & vec4<u32>(0x0f0f0f0fu);
    return mat4x4<f32>(bytes(v.x, bias), bytes(v.y, bias), bytes(v.z, bias), bytes(v.w, bias));
}

// The low four bits of x into bit 4 of the four bytes.
fn fifth_bits(x: vec4<u32>) -> vec4<u32> {
    return (((x & vec4<u32>(15u)) * 0x00204081u) & vec4<u32>(0x01010101u)) << vec4<u32>(4u);
}

// The codebook of IQ4_NL and IQ4_XS for the low nibbles of the four bytes.
fn iq4_values(w: u32) -> vec4<f32> {
    let i = vec4<u32>(w, w >> 8u, w >> 16u, w >> 24u);
    let odd = (i & vec4<u32>(4u)) != vec4<u32>(0u);
    let low = select(vec4<u32>(0x3f2d1801u), vec4<u32>(0x766a5d4fu), odd);
    let high = select(vec4<u32>(0xa6998d81u), vec4<u32>(0xf1d9c5b5u), odd);
    let words = select(low, high, (i & vec4<u32>(8u)) != vec4<u32>(0u));
    let v = (words >> ((i & vec4<u32>(3u)) << vec4<u32>(3u))) & vec4<u32>(255u);
    return vec4<f32>(v) - 128.0;
}

// Twice the e2m1 values (MXFP4, NVFP4) of the low nibbles of the four bytes.
fn fp4_values(w: u32) -> vec4<f32> {
    let i = vec4<u32>(w, w >> 8u, w >> 16u, w >> 24u);
    let size = (vec4<u32>(0xc8643210u) >> ((i & vec4<u32>(7u)) << vec4<u32>(2u))) & vec4<u32>(15u);
    let v = vec4<f32>(size);
    return select(v, -v, (i & vec4<u32>(8u)) != vec4<u32>(0u));
}
