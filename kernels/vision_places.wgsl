// include: reduce
// vision_places: what follows the one matrix of the encoder without a tower, in place:
//   x[t] = ln3(ln2(x[t] + bias) + places[t % n_wide] + places[n_wide + t / n_wide]),
//   ln(y) = (y - mean) / sqrt(variance + eps) * w + b.
//   x [n_tok, n], n a multiple of 4; places [.., n] of the columns, then of the rows; bias, w and
//   b: n values of vectors from bias, w_.., b_.. on.
// Grid: n_tok workgroups of 256 threads. f32. CPU twin: ref_layernorm(), vision_cpu.c.

struct Args {
    n: u32, n_wide: u32, bias: u32, w_2: u32,
    b_2: u32, w_3: u32, b_3: u32, eps: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> places: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;

// Norms the row of x that begins at `at`; a thread sees only what it has written itself.
fn layernorm(at: u32, w: u32, b: u32, lid: u32) {
    let n4 = args.n / 4;
    var sum = 0.0;
    for (var i = lid; i < n4; i += 256) { sum += dot(x[at + i], vec4(1.0)); }
    let mean = workgroup_sum(sum, lid) / f32(args.n);
    sum = 0.0;
    for (var i = lid; i < n4; i += 256) {
        let d = x[at + i] - mean;
        sum += dot(d, d);
    }
    let factor = 1.0 / sqrt(workgroup_sum(sum, lid) / f32(args.n) + args.eps);
    for (var i = lid; i < n4; i += 256) {
        x[at + i] = (x[at + i] - mean) * factor * vectors[w / 4 + i] + vectors[b / 4 + i];
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n4 = args.n / 4;
    let at = wid.x * n4;
    let col_at = wid.x % args.n_wide * n4;
    let row_at = (args.n_wide + wid.x / args.n_wide) * n4;
    for (var i = lid; i < n4; i += 256) { x[at + i] += vectors[args.bias / 4 + i]; }
    layernorm(at, args.w_2, args.b_2, lid);
    for (var i = lid; i < n4; i += 256) { x[at + i] += places[col_at + i] + places[row_at + i]; }
    layernorm(at, args.w_3, args.b_3, lid);
}
