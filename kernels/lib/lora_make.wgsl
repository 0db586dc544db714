// lora_make: makes u (lib/lora_rows) from the workgroup's input, which it keeps as plain numbers
// beside lib/input64: the kernel's input_value(i) ends in lora_keep(i, v).

// Values 4 i .. 4 i + 3 of the staged input: even i first, then odd ones, so that threads that work
// on neighbouring values 8 i .. 8 i + 7 read neighbouring elements.
var<workgroup> lora_x: array<vec4<f32>, ADAPTED * INPUT / 4 + 1>;

fn lora_keep(i: u32, v: vec4<f32>) -> vec4<f32> {
    let k = i % (INPUT / 4); // pieces begin at multiples of INPUT
    if (ADAPTED != 0) { lora_x[k % 2 * (INPUT / 8) + k / 2] = v; }
    return v;
}

override RANKS: u32 = select(4u, 2u, U <= 16u); // that a thread works on at a time

// Element i of rows of A that begin at `at` and at + width, and i + SPREAD: times the input's, of
// which there are `end`.
fn lora_times(at: u32, width: u32, i: u32, end: u32) -> vec2<f32> {
    let j = min(i, end - 1);
    let k = min(i + SPREAD, end - 1);
    let a = lora[at + j];
    let b = lora[at + width + j];
    let c = lora[at + k];
    let d = lora[at + width + k];
    let x = array(lora_x[j], lora_x[INPUT / 8 + j], lora_x[k], lora_x[INPUT / 8 + k]);
    return select(vec2(0.0), vec2(lora_dot(a, x[0], x[1]), lora_dot(b, x[0], x[1])), i < end) +
           select(vec2(0.0), vec2(lora_dot(c, x[2], x[3]), lora_dot(d, x[2], x[3])),
                  i + SPREAD < end);
}

// The n_chunk chunks of 64 that are staged, from c0 on, times A: the first ones make n_u values of
// u, the others are added to them. Visible to all threads after the next barrier.
fn lora_make(g: Lora, n_u: u32, c0: u32, n_chunk: u32, lid: u32) {
    let width = g.n_col / 8;
    let end = 8 * n_chunk;
    for (var u0 = 0u; u0 < n_u; u0 += 256 / SPREAD * RANKS) {
        let j = u0 + lid / SPREAD * RANKS;
        let k = min(j, n_u - RANKS);
        let r = g.first + k / g.n * g.rank + k % g.n;
        let at = g.a + r * width + 8 * c0;
        let factors = array(lora_factors(g, r), lora_factors(g, r + RANKS - 2));
        var sum = vec4(0.0);
        for (var i = lid % SPREAD; i < end; i += 8 / RANKS * SPREAD) { // eight loads in flight
            if (RANKS == 4) {
                sum += vec4(lora_times(at, width, i, end),
                            lora_times(at + 2 * width, width, i, end));
            } else {
                sum += vec4(lora_times(at, width, i, end),
                            lora_times(at, width, i + 2 * SPREAD, end));
            }
        }
        if (RANKS == 4) {
            lora_put(j + 2, n_u, c0, sum_of(sum.zw, SPREAD, lid) * factors[1], lid);
        } else {
            sum += sum.zwxy;
        }
        lora_put(j, n_u, c0, sum_of(sum.xy, SPREAD, lid) * factors[0], lid);
    }
}

// Two values of u, from j on.
fn lora_put(j: u32, n_u: u32, c0: u32, u: vec2<f32>, lid: u32) {
    if (lid % SPREAD == 0 && j < n_u) {
        if (c0 == 0) { lora_u[j / 2] = u; } else { lora_u[j / 2] += u; }
    }
}

// lora_row() of a row for each target, of the ranks after those of g, which found no room in lora_u
// with the first ones: the whole input is staged again. All threads must call it.
fn lora_rest(group: Lora, n_target: u32, rows: vec2<u32>, lid: u32) -> vec2<f32> {
    var g = group;
    var sum = vec2(0.0);
    let end = (g.first / g.rank + 1) * g.rank;
    while (g.first + g.n < end) {
        g.first += g.n;
        g.n = min(g.n, end - g.first);
        for (var c0 = 0u; c0 < g.n_col / 64; c0 += INPUT_CHUNKS) {
            let n = min(INPUT_CHUNKS, g.n_col / 64 - c0);
            input_stage(c0, n, lid);
            lora_make(g, n_target * g.n, c0, n, lid);
            workgroupBarrier();
        }
        sum.x += lora_row(g, lora_ahead(g, rows.x, lid), rows.x, 0, lid);
        if (n_target > 1) {
            sum.y += lora_row(g, lora_ahead(g, rows.y, lid), rows.y, g.n, lid);
        }
    }
    return sum;
}
