// include: reduce
// sum_squares: out[at] = sum of x[i]^2, i < n; NaN unless all are finite. The order is fixed: a
// thread adds 16 by 16 values, so that few roundings meet in a long sum.
// Grid: 1 workgroup of 256 threads. f32. CPU twin: clip_norm().

const NOT_FINITE = 0x7f800000u; // the exponent of infinities and NaN
const NOT_A_NUMBER = 0x7fc00000u;

struct Args { n: u32, at: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>; // bits of f32

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lid: u32) {
    var bad = 0.0;
    var sum = 0.0;
    for (var at = lid; at < args.n; at += 16 * 256) {
        var part = 0.0;
        for (var k = 0u; k < 16; k++) {
            let i = at + k * 256;
            var v = 0.0;
            if (i < args.n) { v = x[i]; }
            if ((bitcast<u32>(v) & NOT_FINITE) == NOT_FINITE) { bad = 1.0; }
            part += v * v;
        }
        sum += part;
    }
    bad = workgroup_max(bad, lid);
    sum = workgroup_sum(sum, lid);
    if (lid == 0) { out[args.at] = select(bitcast<u32>(sum), NOT_A_NUMBER, bad > 0.0); }
}
