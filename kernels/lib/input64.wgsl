// input64: the vector that matrices are multiplied with, as 16-bit integers (lib/dot64.wgsl) in
// workgroup memory: at most INPUT values at a time, 2.5 bytes each. Groups of 16 are laid out so
// that threads that work on neighbouring chunks of 64 read neighbouring words. The kernel says what
// the vector is: fn input_value(i: u32) -> vec4<f32>, values 4 i .. 4 i + 3.
//
//   input_stage(first chunk of 64, n chunks, lid);
//   sum += dot64A(chunk0 + c, input_get(groups64A(c)));

override INPUT: u32 = 2048; // a multiple of 64
override INPUT_CHUNKS: u32 = INPUT / 64;
var<workgroup> input_high: array<vec4<u32>, INPUT / 16>;
var<workgroup> input_low: array<vec4<u32>, INPUT / 16>;
var<workgroup> input_scale: array<f32, INPUT / 16>;
var<workgroup> input_sum: array<f32, INPUT / 16>;

fn input_slot(g: u32) -> u32 {
    return (g % 4u) * INPUT_CHUNKS + g / 4u;
}

// Chunks c0 .. c0 + n - 1 of the vector, visible to all threads when it returns.
fn input_stage(c0: u32, n: u32, lid: u32) {
    for (var g = lid; g < 4u * n; g += 256u) {
        let i = 16u * c0 + 4u * g;
        let r = input16(mat4x4<f32>(input_value(i), input_value(i + 1u), input_value(i + 2u),
                                    input_value(i + 3u)));
        let at = input_slot(g);
        input_high[at] = r.high;
        input_low[at] = r.low;
        input_scale[at] = r.scale;
        input_sum[at] = r.sum;
    }
    workgroupBarrier();
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
