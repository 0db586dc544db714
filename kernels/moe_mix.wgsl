// moe_mix: what a token's experts make, together:
//   out[t] = sum_j f_j * part[t * n_used + j], f_j = weights[t * n_used + j] where `weighted`, else
//   1. part [n_tok * n_used, n], out [n_tok, n], n a multiple of 4.
// Grid: x = ceil(n / 1024), y = n_tok; 256 threads. f32, added in order of j.
// CPU twin: experts_forward().

struct Args { n: u32, n_used: u32, weighted: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read> part: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let n4 = args.n / 4;
    if (gid.x >= n4) { return; }
    var sum = vec4(0.0);
    for (var i = gid.y * args.n_used; i < (gid.y + 1) * args.n_used; i++) {
        let value = part[i * n4 + gid.x];
        if (args.weighted != 0) {
            sum += value * weights[i];
        } else {
            sum += value;
        }
    }
    out[gid.y * n4 + gid.x] = sum;
}
