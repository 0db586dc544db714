// include: tile tile_columns
// outer: out[i, j] = old + scale * sum_t a[t, i] * b[t, j], t < n_tok.
//   a [n_tok, n_a], b [n_tok, n_b], out [n_a, n_b]; old is out's value, or 0 unless `add`. n_b is
//   a multiple of 16.
// Grid: x = ceil(n_b / 64), y = ceil(n_a / 64); see lib/tile, to which values of a token are a term
// and i is a token. f32. CPU twin: back_lora().

struct Args { n_tok: u32, n_a: u32, n_b: u32, scale: f32, add: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

// Value i of four tokens; repeats the last token and value beyond the end.
fn tokens4(i: u32, tok: u32) -> vec4<f32> {
    let t = min(vec4(tok, tok + 1, tok + 2, tok + 3), vec4(args.n_tok - 1)) * args.n_a;
    let at = t + min(i, args.n_a - 1);
    return vec4(a[at.x], a[at.y], a[at.z], a[at.w]);
}

fn load_in(i: u32, tok: u32) -> mat4x4<f32> {
    return mat4x4<f32>(tokens4(i, tok), tokens4(i + 1, tok), tokens4(i + 2, tok),
                       tokens4(i + 3, tok));
}

fn load_w(tok: u32, j: u32) -> mat4x4<f32> {
    if (tok >= args.n_tok || j >= args.n_b) { return mat4x4<f32>(); }
    let at = (tok * args.n_b + j) / 4;
    return mat4x4<f32>(b[at], b[at + 1], b[at + 2], b[at + 3]);
}

fn store(i: u32, j: u32, value: vec4<f32>) {
    if (i >= args.n_a || j >= args.n_b) { return; }
    let at = (i * args.n_b + j) / 4;
    var v = value * args.scale;
    if (args.add != 0) { v += out[at]; }
    out[at] = v;
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    tile_store(id, wid.xy, tile_sum(id, wid.xy, 0, args.n_tok));
}
