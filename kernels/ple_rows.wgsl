// include: flat
// formats: A
// ple_rows: out[t, c] = scale * rows[t, c], t < n_tok, c < n_out: rows of the per-layer table.
//   wA rows [n_tok, n_col], n_col >= n_out, out [n_tok, n_out]; both are multiples of 16.
// Grid: ceil(n_tok * n_out / 16 / 256) workgroups (lib/flat); a thread expands 16 values. f32.
// CPU twin: model_ple_row().

struct Args { n_tok: u32, n_col: u32, n_out: u32, scale: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> wA: array<WA>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat(wid) * 256 + lid;
    let n = args.n_out / 16;
    let t = i / n;
    if (t >= args.n_tok) { return; }
    let w = get16A(t * (args.n_col / 16) + i % n);
    for (var j = 0u; j < 4; j++) { out[i * 4 + j] = w[j] * args.scale; }
}
