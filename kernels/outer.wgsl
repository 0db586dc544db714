// include: tile tile_columns tile_store4 tile_lines
// formats: A
// outer: out[i, j] = old + scale * sum_t a[t, i] * b[t, j], t < n_tok.
//   a [n_tok, n_a], b [n_tok, n_b] (wA), out [n_a, n_b]; old is out's value, or 0 unless `add`. n_b
//   is a multiple of 16.
//   The sum is cut as that of matmul: n_term tokens each.
// Grid: x = ceil(n_b / 64), y = ceil(n_a / 64), z = ceil(n_tok / n_term); see lib/tile, to which
// values of a token are a term and i is a token. f32. CPU twin: back_lora().

struct Args { n_tok: u32, n_a: u32, n_b: u32, scale: f32, add: u32, n_term: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> lines: array<f32>; // a
@group(0) @binding(2) var<storage, read> wA: array<WA>; // b
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> lines4: array<vec4<f32>>; // a again

var<private> part0: u32; // where this workgroup's part begins

fn load_in(i: u32, tok: u32) -> mat4x4<f32> { return load_lines(tok, i, 0, args.n_a, args.n_a); }

// Values of a token each become tokens of a value each.
fn ready_in(a: mat4x4<f32>) -> mat4x4<f32> { return transpose(a); }

fn load_w(tok: u32, j: u32) -> Raw {
    if (tok >= args.n_tok || j >= args.n_b) { return Raw(); }
    return raw16A((tok * args.n_b + j) / 16);
}

fn ready_w(w: Raw, row: u32) -> mat4x4<f32> { return expand16A(w); }

fn store(i: u32, j: u32, value: vec4<f32>) {
    if (i >= args.n_a || j >= args.n_b) { return; }
    let at = (part0 + i * args.n_b + j) / 4;
    var v = value * args.scale;
    if (args.add != 0) { v += out[at]; }
    out[at] = v;
}

@compute @workgroup_size(TILE_THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let tok0 = wid.z * args.n_term;
    part0 = wid.z * args.n_a * args.n_b;
    tile_store(id, wid.xy, tile_sum(id, wid.xy, tok0, min(tok0 + args.n_term, args.n_tok)));
}
