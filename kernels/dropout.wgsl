// include: flat
// dropout: out[i] (add) = 0 where a hash of key and i is below `drop`, else keep * in[i]; i < n.
// Grid: ceil(n / 256) workgroups (lib/flat) of 256 threads. f32; which are dropped is exact.
// CPU twin: ref_dropout().

struct Args { n: u32, key_low: u32, key_high: u32, drop: u32, keep: f32, add: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> in: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

fn mix(v: u32) -> u32 {
    var x = (v ^ (v >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat(wid) * 256 + lid;
    if (i >= args.n) { return; }
    var v = 0.0;
    if (mix(mix(i + mix(args.key_low)) ^ args.key_high) >= args.drop) { v = args.keep * in[i]; }
    if (args.add != 0) { v += out[i]; }
    out[i] = v;
}
