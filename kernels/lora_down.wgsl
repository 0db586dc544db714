// include: lanes lora
// lora_down: u[t, r] = factor[r] * sum_c A[r, c] x[t, c], the first half of what adapters add to
//   the projections of one input, for all of them at once.
//   x [n_tok, n_col] f32, u [n_tok, n_rank]; lora: see lib/lora. n_col is a multiple of 4, n_rank
//   of 2.
// Grid: (ceil(n_rank / 4), n_tok). f32, A is f16. CPU twin: ref_lora().

const LANES = 128u;

struct Args { n_col: u32, n_rank: u32, a0: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> lora: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> u: array<vec2<f32>>;

var<private> first: u32; // of the token's values

fn input_value(i: u32) -> vec4<f32> { return x[first + i]; }

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    first = wid.y * (args.n_col / 4);
    let p = wid.x * 2 + lid / LANES;
    let pair = lora_pair(p, lid);
    let n = args.n_rank / 2;
    if (lid % LANES == 0 && p < n) { u[wid.y * n + p] = pair; }
}
