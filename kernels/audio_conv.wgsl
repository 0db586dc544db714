// audio_conv: shortens a spectrogram to a half in time and in bands.
//   z[t, b, o] = sum_(kt, kf, i) w[kt, kf, i, o] * x[2 t + kt - 1, 2 b + kf - 1, i], zeros around;
//   out[t, b, o] = max(0, (z - mean_o(z)) / sqrt(var_o(z) + eps) * w_norm[o]).
//   x [.., n_band, n_in]: rows from x_first on of a sound of n_row rows; out [n_out_row,
//   n_band / 2, n_out]: rows from out_first on. n_out = 4 QUADS, n_band a multiple of 8; kernel
//   from w on [3, 3, n_in, n_out], w_norm: n_out values of vectors from there.
// Grid: x = ceil(n_out_row * n_band / 8 / (256 / QUADS)) workgroups of 256 threads. QUADS
// neighbouring threads make all channels of four neighbouring bands, four channels each. f32.
// CPU twin: embed() of audio_cpu.c.

override QUADS: u32 = 32;

struct Args {
    n_row: u32, n_band: u32, n_in: u32, x_first: u32,
    out_first: u32, n_out_row: u32, w: u32, w_norm: u32,
    eps: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> kernel: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

// Of each thread's four channels: mean and squared distances from it, of four bands.
var<workgroup> means: array<vec4<f32>, 256>;
var<workgroup> squares: array<vec4<f32>, 256>;

// Four channels of four bands; a column is a band.
fn convolve(row: u32, band: u32, quad: u32) -> mat4x4<f32> {
    var sum = mat4x4<f32>();
    let n = args.n_in;
    for (var kt = 0u; kt < 3; kt++) {
        let in_row = 2 * row + kt - 1; // the one before the first is beyond the last
        if (in_row >= args.n_row) { continue; }
        for (var kf = 0u; kf < 3; kf++) {
            let outside = 2 * band + kf == 0;
            let at = ((in_row - args.x_first) * args.n_band + 2 * band + kf) * n;
            let first = select(at - n, at, outside);
            let w = args.w / 4 + (kt * 3 + kf) * n * QUADS + quad;
            for (var i = 0u; i < n; i++) {
                let v = kernel[w + i * QUADS];
                sum[0] += v * select(x[first + i], 0.0, outside);
                sum[1] += v * x[at + n + i];
                sum[2] += v * x[at + 3 * n + i];
                sum[3] += v * x[at + 5 * n + i];
            }
        }
    }
    return sum;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n_place = args.n_band / 8;
    let quad = lid % QUADS;
    let place = wid.x * (256 / QUADS) + lid / QUADS;
    let row = args.out_first + place / n_place;
    let band = place % n_place * 4;
    let mine = lid / QUADS < 256 / QUADS && place < args.n_out_row * n_place;
    var sum = mat4x4<f32>();
    if (mine) { sum = convolve(row, band, quad); }

    let t = transpose(sum);
    let near = (t[0] + t[1] + t[2] + t[3]) * 0.25;
    let d = mat4x4<f32>(t[0] - near, t[1] - near, t[2] - near, t[3] - near);
    means[lid] = near;
    squares[lid] = d[0] * d[0] + d[1] * d[1] + d[2] * d[2] + d[3] * d[3];
    workgroupBarrier();
    if (!mine) { return; }
    var mean = vec4(0.0);
    for (var i = lid - quad; i < lid - quad + QUADS; i++) { mean += means[i]; }
    mean /= f32(QUADS);
    var square = vec4(0.0);
    for (var i = lid - quad; i < lid - quad + QUADS; i++) {
        let far = means[i] - mean;
        square += squares[i] + 4.0 * far * far;
    }
    let factor = 1.0 / sqrt(square / f32(4 * QUADS) + args.eps);
    let w = vectors[args.w_norm / 4 + quad];
    for (var p = 0u; p < 4; p++) {
        out[(place * 4 + p) * QUADS + quad] = max((sum[p] - mean[p]) * factor[p] * w, vec4(0.0));
    }
}
