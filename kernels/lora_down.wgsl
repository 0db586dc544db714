// include: lanes
// lora_down: u[t, r] = factor[r] * sum_c A[r, c] x[t, c], the first half of what adapters add to
//   the projections of one input, for all of them at once.
//   x [n_tok, n_col] f32, u [n_tok, n_rank]; lora has n_rank f32 factors and A [n_rank, n_col] f16,
//   from elements `factors` and a0 on. n_col is a multiple of 4, n_rank of 2.
// Grid: (ceil(n_rank / 4), n_tok); LANES threads share two rows of A. f32, A is f16.
// CPU twin: ref_lora().

const LANES = 128u;

struct Args { n_col: u32, n_rank: u32, factors: u32, a0: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> lora: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> u: array<vec2<f32>>;

fn a_times(r: u32, i: u32, v: vec4<f32>) -> f32 {
    let w = lora[args.a0 + r * (args.n_col / 4) + i];
    return dot(vec4(unpack2x16float(w.x), unpack2x16float(w.y)), v);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n = args.n_rank / 2;
    let p = wid.x * 2 + lid / LANES;
    let r = 2 * min(p, n - 1);
    var sum = vec2(0.0);
    for (var i = lid % LANES; i < args.n_col / 4; i += LANES) {
        let v = x[wid.y * (args.n_col / 4) + i];
        sum += vec2(a_times(r, i, v), a_times(r + 1, i, v));
    }
    sum = lanes_sum(sum, lid) * bitcast<vec2<f32>>(lora[args.factors + r / 2]);
    if (lid % LANES == 0 && p < n) { u[wid.y * n + p] = sum; }
}
