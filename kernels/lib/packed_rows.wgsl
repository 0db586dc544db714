// packed_rows: where decode_ffn leaves its rows for matvec_packed. They are 16-bit integers in
// groups of 16, n chunks of four groups: an element has the high or the low bytes of a group, or
// scale and sum of two. Neighbouring threads read neighbouring chunks.

fn packed_high(g: u32, n: u32) -> u32 { return g % 4 * n + g / 4; }
fn packed_low(g: u32, n: u32) -> u32 { return (4 + g % 4) * n + g / 4; }
fn packed_scale(g: u32, n: u32) -> u32 { return 8 * n + g / 2; } // .xy or, of odd groups, .zw
