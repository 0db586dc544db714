// include: flat
// adamw: a step of the optimiser for values [n], with g = grad_scale * grad:
//   m += (g - m) b1;  v = b2 v + c2 g^2;  values = keep values - rate m / (sqrt(v) / root + eps).
// Grid: ceil(n / 256) workgroups (lib/flat) of 256 threads. f32. CPU twin: adamw_step().

struct Args {
    n: u32, grad_scale: f32, keep: f32, rate: f32,
    b1: f32, b2: f32, c2: f32, root: f32,
    eps: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> grad: array<f32>;
@group(0) @binding(2) var<storage, read_write> values: array<f32>;
@group(0) @binding(3) var<storage, read_write> m: array<f32>;
@group(0) @binding(4) var<storage, read_write> v: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat(wid) * 256 + lid;
    if (i >= args.n) { return; }
    let g = args.grad_scale * grad[i];
    let first = m[i] + (g - m[i]) * args.b1;
    let second = v[i] * args.b2 + g * g * args.c2;
    m[i] = first;
    v[i] = second;
    values[i] = values[i] * args.keep - args.rate * (first / (sqrt(second) / args.root + args.eps));
}
