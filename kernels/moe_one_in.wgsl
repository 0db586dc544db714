// include: reduce chunk lanes gelu
// formats: A B C
// moe_one_in: first stage of a feed-forward part with experts, one token:
//   act[row0 + r] = gelu(Wgate z)[r] * (Wup z)[r], r < n_row, z = rms(y) * w_ffn: the dense branch;
//   logits = scale_router * Wrouter (rms(y) * w_router), n_expert of them: the router.
//   y [n_embd]; wA gate, wB up [n_row, n_embd], wC router [n_expert, n_embd].
// Grid: ceil(n_row / ROWS) + ceil(n_expert / ROWS), ROWS = 256 / LANES; LANES threads share a row.
// Every workgroup norms y for itself. f32. CPU twin: ref_rmsnorm(), ref_matmul(), ref_geglu().

override LANES: u32 = 32;

struct Args {
    n_embd: u32, n_row: u32, row0: u32, n_expert: u32,
    eps: f32, w_ffn: u32, w_router: u32, scale_gate: f32,
    scale_up: f32, scale_router: f32
}
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> wA: array<WA>;
@group(0) @binding(4) var<storage, read> wB: array<WB>;
@group(0) @binding(5) var<storage, read> wC: array<WC>;
@group(0) @binding(6) var<storage, read_write> act: array<f32>;
@group(0) @binding(7) var<storage, read_write> logits: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    var squares = 0.0;
    for (var i = lid; i < args.n_embd / 4; i += 256) { squares += dot(y[i], y[i]); }
    let norm = 1.0 / sqrt(workgroup_sum(squares, lid) / f32(args.n_embd) + args.eps);
    let n_group = args.n_embd / 16;
    let n_rows = 256 / LANES;
    let n_dense = (args.n_row + n_rows - 1) / n_rows; // workgroups of the dense branch
    let routing = wid.x >= n_dense;
    let row = select(wid.x, wid.x - n_dense, routing) * n_rows + lid / LANES;
    let last = select(args.n_row, args.n_expert, routing) - 1;
    let at = min(row, last) * n_group;
    let w = select(args.w_ffn, args.w_router, routing) / 4;
    var sum = vec2(0.0);
    for (var g0 = 0u; g0 < n_group; g0 += CHUNK_GROUPS) {
        let n = min(CHUNK_GROUPS, n_group - g0);
        for (var i = lid; i < n * 4; i += 256) {
            chunk[chunk_slot(i)] = y[g0 * 4 + i] * norm * vectors[w + g0 * 4 + i];
        }
        workgroupBarrier();
        for (var g = lid % LANES; g < n; g += LANES) {
            if (routing) {
                sum.x += chunk_dot(groupC(at + g0 + g), g);
            } else {
                sum.x += chunk_dot(groupA(at + g0 + g), g);
                sum.y += chunk_dot(groupB(at + g0 + g), g);
            }
        }
        workgroupBarrier();
    }
    sum = lanes_sum(sum, lid);
    if (lid % LANES != 0 || row > last) { return; }
    if (routing) {
        logits[row] = sum.x * args.scale_router;
    } else {
        act[args.row0 + row] = gelu(sum.x * args.scale_gate) * sum.y * args.scale_up;
    }
}
