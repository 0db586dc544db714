// dot64: dot products of packed weights with 16-bit integers, four products an instruction.
//
// The input is x = scale (256 high + low), high and low signed bytes, one scale for 16 values: an
// error of 1/64000 of the largest of the 16. 64 weights are signed bytes, a scale and a least value
// for 16 of them. The products of 16 are summed exactly. CPU twin: ref_matmul(), within the bound
// for f32.

// Four groups of 16 values of the input, in the order of groups64$().
struct Input64 {
    high: array<vec4<u32>, 4>,
    low: array<vec4<u32>, 4>,
    scale: vec4<f32>,
    sum: vec4<f32>, // of each group's values
}

// The same groups of the weights: value = q * scale + least.
struct Packed64 {
    q: array<vec4<u32>, 4>,
    scale: vec4<f32>,
    least: vec4<f32>,
}

// One group of the input on its way into Input64.
struct Input16 {
    high: vec4<u32>,
    low: vec4<u32>,
    scale: f32,
    sum: f32,
}

// q = 256 high + low, low in -128 .. 127.
fn high_bytes(q: vec4<i32>) -> u32 { return word_pack((q + 128) >> vec4<u32>(8u)); }
fn low_bytes(q: vec4<i32>) -> u32 { return word_pack(((q + 128) & vec4<i32>(255)) - 128); }

// The scale of 16 values of which the largest is of this size.
fn input_scale_of(most: f32) -> f32 { return max(most, 1e-30) / 32000.0; }

fn input16(x: mat4x4<f32>) -> Input16 {
    let m = max(max(abs(x[0]), abs(x[1])), max(abs(x[2]), abs(x[3])));
    let scale = input_scale_of(max(max(m.x, m.y), max(m.z, m.w)));
    let a = vec4<i32>(round(x[0] / scale));
    let b = vec4<i32>(round(x[1] / scale));
    let c = vec4<i32>(round(x[2] / scale));
    let d = vec4<i32>(round(x[3] / scale));
    let sum = a + b + c + d;
    let high = vec4<u32>(high_bytes(a), high_bytes(b), high_bytes(c), high_bytes(d));
    let low = vec4<u32>(low_bytes(a), low_bytes(b), low_bytes(c), low_bytes(d));
    return Input16(high, low, scale, f32(sum.x + sum.y + sum.z + sum.w) * scale);
}

fn dot_bytes(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return word_dot(a.x, b.x) + word_dot(a.y, b.y) + word_dot(a.z, b.z) + word_dot(a.w, b.w);
}

fn dot_packed(w: Packed64, x: Input64) -> f32 {
    let high = vec4<i32>(dot_bytes(w.q[0], x.high[0]), dot_bytes(w.q[1], x.high[1]),
                         dot_bytes(w.q[2], x.high[2]), dot_bytes(w.q[3], x.high[3]));
    let low = vec4<i32>(dot_bytes(w.q[0], x.low[0]), dot_bytes(w.q[1], x.low[1]),
                        dot_bytes(w.q[2], x.low[2]), dot_bytes(w.q[3], x.low[3]));
    return dot(vec4<f32>(high * 256 + low) * x.scale, w.scale) + dot(w.least, x.sum);
}

// Group i of the input as plain values, for weights that are no integers.
fn plain16(x: Input64, i: u32) -> mat4x4<f32> {
    let h = x.high[i] ^ vec4<u32>(0x80808080u);
    let l = x.low[i] ^ vec4<u32>(0x80808080u);
    return mat4x4<f32>(bytes(h.x, 128.0) * 256.0 + bytes(l.x, 128.0),
                       bytes(h.y, 128.0) * 256.0 + bytes(l.y, 128.0),
                       bytes(h.z, 128.0) * 256.0 + bytes(l.z, 128.0),
                       bytes(h.w, 128.0) * 256.0 + bytes(l.w, 128.0)) * x.scale[i];
}

fn dot_plain(w: mat4x4<f32>, x: mat4x4<f32>) -> f32 {
    return dot(w[0], x[0]) + dot(w[1], x[1]) + dot(w[2], x[2]) + dot(w[3], x[3]);
}

// The codebook of IQ4 and twice the e2m1 values, as signed bytes.
fn iq4_bytes(w: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(word_pack(vec4<i32>(iq4_values(w.x))), word_pack(vec4<i32>(iq4_values(w.y))),
                     word_pack(vec4<i32>(iq4_values(w.z))), word_pack(vec4<i32>(iq4_values(w.w))));
}

fn fp4_bytes(w: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(word_pack(vec4<i32>(fp4_values(w.x))), word_pack(vec4<i32>(fp4_values(w.y))),
                     word_pack(vec4<i32>(fp4_values(w.z))), word_pack(vec4<i32>(fp4_values(w.w))));
}
