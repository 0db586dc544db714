// formats: A
// embed: out[t, :] = scale * E[ids[t], :] for the tokens whose row is in this tile of E.
//   ids [n_tok], wA rows [row0, row0 + n_row) of E [n_vocab, n_col], out [n_tok, n_col].
// Grid: ceil(n_tok * n_col / 16 / 64); a thread expands 16 values. f32.
// CPU twin: ref_dequantise_row().

struct Args { n_tok: u32, n_col: u32, row0: u32, n_row: u32, scale: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> wA: array<WA>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let n_group = args.n_col / 16;
    let t = gid.x / n_group;
    if (t >= args.n_tok) { return; }
    let row = ids[t] - args.row0; // wraps to a huge number below row0
    if (row >= args.n_row) { return; }
    let w = get16A(row * n_group + gid.x % n_group);
    for (var j = 0u; j < 4; j++) { out[gid.x * 4 + j] = w[j] * args.scale; }
}
