// input64: the vector that matrices are multiplied with, as 16-bit integers (lib/dot64.wgsl) in
// workgroup memory: at most INPUT values at a time, 2.5 bytes each. Groups of 16 are laid out so
// that threads that work on neighbouring chunks of 64 read neighbouring words. lib/stage64 puts
// them there; the kernel says what the vector is: fn input_value(i: u32) -> vec4<f32>, values 4 i
// .. 4 i + 3.
//
//   input_stage(first chunk of 64, n chunks, lid);
//   sum += dot64A(chunk0 + c, input_get(groups64A(c)));
//
// LANES threads share a row, and each has at most TURNS of the chunks that are staged. TURNS is
// known when the kernel is compiled, so that the weights of all turns are asked for at once.

override INPUT: u32 = 2048; // a multiple of 64
override TURNS: u32 = 1;    // ceil(chunks staged / LANES)
override INPUT_CHUNKS: u32 = INPUT / 64;
var<workgroup> input_high: array<vec4<u32>, INPUT / 16>;
var<workgroup> input_low: array<vec4<u32>, INPUT / 16>;
var<workgroup> input_scale: array<f32, INPUT / 16>;
var<workgroup> input_sum: array<f32, INPUT / 16>;

fn input_slot(g: u32) -> u32 {
    return (g % 4u) * INPUT_CHUNKS + g / 4u;
}

// Groups g.x, g.x + 1, g.y, g.y + 1: what groups64$() says of a chunk.
fn input_get(g: vec2<u32>) -> Input64 {
    let a = input_slot(g.x);
    let b = input_slot(g.x + 1u);
    let c = input_slot(g.y);
    let d = input_slot(g.y + 1u);
    return Input64(array(input_high[a], input_high[b], input_high[c], input_high[d]),
                   array(input_low[a], input_low[b], input_low[c], input_low[d]),
                   vec4<f32>(input_scale[a], input_scale[b], input_scale[c], input_scale[d]),
                   vec4<f32>(input_sum[a], input_sum[b], input_sum[c], input_sum[d]));
}

// This thread's chunk of the n staged ones in turn k, and whether there is one; if not, it repeats
// the last.
fn turn_chunk(k: u32, n: u32, lid: u32) -> u32 { return min(k * LANES + lid % LANES, n - 1u); }
fn turn_counts(k: u32, n: u32, lid: u32) -> bool { return k * LANES + lid % LANES < n; }
