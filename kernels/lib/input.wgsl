// input: the vector that a matrix is multiplied with, a chunk of 2048 values at a time in workgroup
// memory. Group g (16 values) of the chunk is input[j * 128 + g], j = 0..3, so that neighbouring
// threads, which work on neighbouring groups, read neighbouring words.

const CHUNK_GROUPS = 128u;
var<workgroup> input: array<vec4<f32>, 512>;

// Where values 4 i .. 4 i + 3 of the chunk go.
fn input_slot(i: u32) -> u32 { return (i % 4) * CHUNK_GROUPS + i / 4; }

// 16 weights times group g of the chunk.
fn input_dot(w: mat4x4<f32>, g: u32) -> f32 {
    return dot(w[0], input[g]) + dot(w[1], input[CHUNK_GROUPS + g]) +
           dot(w[2], input[2 * CHUNK_GROUPS + g]) + dot(w[3], input[3 * CHUNK_GROUPS + g]);
}
