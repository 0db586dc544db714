// chunk: 1024 values of the vector that rows of weights are multiplied with, in workgroup memory.
// Group g (16 values) of the chunk is chunk[j * 64 + g], j = 0..3, so that neighbouring threads,
// which work on neighbouring groups, read neighbouring words.

const CHUNK_GROUPS = 64u;
var<workgroup> chunk: array<vec4<f32>, 256>;

// Where values 4 i .. 4 i + 3 of the chunk go.
fn chunk_slot(i: u32) -> u32 { return (i % 4) * CHUNK_GROUPS + i / 4; }

// 16 weights times group g of the chunk.
fn chunk_dot(w: Group, g: u32) -> f32 {
    let v = mat4x4<f32>(chunk[g], chunk[CHUNK_GROUPS + g], chunk[2 * CHUNK_GROUPS + g],
                        chunk[3 * CHUNK_GROUPS + g]);
    return dot_group(w, v, dot(v[0] + v[1] + v[2] + v[3], vec4(1.0)));
}
