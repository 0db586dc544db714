// include: reduce4 lanes
// formats: A
// moe_router: logits[t, e] = scale * Wrouter[e] . (rms(y[t]) * w_router), t < n_tok, e < n_expert.
//   y [n_tok, n_embd], wA [n_expert, n_embd], logits [n_tok, n_expert].
// Grid: x = ceil(n_expert / 8), y = ceil(n_tok / 4); 256 threads, 32 of them an expert, for four
// tokens at once. f32. CPU twin: ref_rmsnorm(), ref_matmul().

const LANES = 32u;

struct Args { n_tok: u32, n_embd: u32, n_expert: u32, w_router: u32, eps: f32, scale: f32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> wA: array<WA>;
@group(0) @binding(4) var<storage, read_write> logits: array<f32>;

// 512 values of four tokens: group g (16 values) of token t is x[t * 128 + j * 32 + g], j = 0..3.
var<workgroup> x: array<vec4<f32>, 512>;

fn row_of(tok: u32) -> u32 { return min(tok, args.n_tok - 1) * (args.n_embd / 4); }

fn squares(i: u32) -> f32 { return dot(y[i], y[i]); }

fn dot16(w: mat4x4<f32>, i: u32) -> f32 {
    return dot(w[0], x[i]) + dot(w[1], x[i + 32]) + dot(w[2], x[i + 64]) + dot(w[3], x[i + 96]);
}

fn store(tok: u32, expert: u32, value: f32) {
    if (tok < args.n_tok && expert < args.n_expert) {
        logits[tok * args.n_expert + expert] = value;
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let tok = wid.y * 4;
    let n4 = args.n_embd / 4;
    var sum = vec4(0.0);
    for (var i = lid; i < n4; i += 256) {
        sum += vec4(squares(row_of(tok) + i), squares(row_of(tok + 1) + i),
                    squares(row_of(tok + 2) + i), squares(row_of(tok + 3) + i));
    }
    let mean = workgroup_sum4(sum, lid) / f32(args.n_embd);
    let factor = args.scale / sqrt(mean + args.eps);
    let expert = wid.x * 8 + lid / LANES;
    let lane = lid % LANES;
    let w_at = min(expert, args.n_expert - 1) * (args.n_embd / 16);
    sum = vec4(0.0);
    for (var from4 = 0u; from4 < n4; from4 += 128) {
        for (var i = lid; i < 512; i += 256) {
            let at = from4 + i % 128;
            if (at < n4) {
                x[(i & 384) + i % 4 * 32 + i % 128 / 4] =
                    y[row_of(tok + i / 128) + at] * vectors[args.w_router / 4 + at];
            }
        }
        workgroupBarrier();
        if (from4 / 4 + lane < args.n_embd / 16) {
            let w = get16A(w_at + from4 / 4 + lane);
            sum += vec4(dot16(w, lane), dot16(w, 128 + lane), dot16(w, 256 + lane),
                        dot16(w, 384 + lane));
        }
        workgroupBarrier();
    }
    sum *= factor;
    let a = lanes_sum(sum.xy, lid);
    let b = lanes_sum(sum.zw, lid);
    if (lane != 0) { return; }
    store(tok, expert, a.x);
    store(tok + 1, expert, a.y);
    store(tok + 2, expert, b.x);
    store(tok + 3, expert, b.y);
}
