// formats: A
// dequantise: out[16 i ..] = values [16 (first + i), 16 (first + i) + 16) of the tensor, i < n.
//   wA: the tensor, any shape; out [16 n].
// Grid: x * y workgroups of 64 threads, a group of 16 values each. f32, exact but for the rounding
// of scale * q + least. CPU twin: quant_format.dequantise.

struct Args {
    first: u32,
    n: u32,
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> wA: array<WA>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * grid.x + wid.x) * 64u + lid;
    if (i >= args.n) {
        return;
    }
    let v = get16A(args.first + i);
    for (var c = 0u; c < 4u; c++) {
        out[4u * i + c] = v[c];
    }
}
