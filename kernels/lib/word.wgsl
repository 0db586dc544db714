// word: four signed bytes in a word, by WGSL's language feature packed_4x8_integer_dot_product.
// Where a browser lacks it, lib/word_plain.wgsl takes its place.

fn word_pack(v: vec4<i32>) -> u32 { return pack4xI8(v); }
fn word_dot(a: u32, b: u32) -> i32 { return dot4I8Packed(a, b); }
