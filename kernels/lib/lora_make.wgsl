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

// Element `at` of four rows of A.
fn lora_four(at: u32, width: u32) -> array<vec4<u32>, 4> {
    return array(lora[at], lora[at + width], lora[at + 2 * width], lora[at + 3 * width]);
}

// These times element i of the input.
fn lora_times(a: array<vec4<u32>, 4>, i: u32) -> vec4<f32> {
    let x = lora_x[i];
    let y = lora_x[INPUT / 8 + i];
    return vec4(lora_dot(a[0], x, y), lora_dot(a[1], x, y), lora_dot(a[2], x, y),
                lora_dot(a[3], x, y));
}

// The n_chunk chunks of 64 that are staged, from c0 on, times A: the first ones make n_u values of
// u, the others are added to them. Visible to all threads after the next barrier.
fn lora_make(g: Lora, n_u: u32, c0: u32, n_chunk: u32, lid: u32) {
    let width = g.n_col / 8;
    let end = 8 * n_chunk;
    for (var u0 = 0u; u0 < n_u; u0 += 1024 / SPREAD) {
        let j = u0 + lid / SPREAD * 4;
        let k = min(j, n_u - 4);
        let r = g.first + k / g.n * g.rank + k % g.n;
        let at = g.a + r * width + 8 * c0;
        let factors = bitcast<vec4<f32>>(lora[g.factors + r / 4]);
        var sum = vec4(0.0);
        for (var i = lid % SPREAD; i < end; i += 2 * SPREAD) { // two at a time: loads in flight
            let next = min(i + SPREAD, end - 1);
            let a = lora_four(at + i, width);
            let b = lora_four(at + next, width);
            sum += lora_times(a, i);
            if (i + SPREAD < end) { sum += lora_times(b, next); }
        }
        let u = vec4(sum_of(sum.xy, SPREAD, lid), sum_of(sum.zw, SPREAD, lid)) * factors;
        if (lid % SPREAD == 0 && j < n_u) {
            if (c0 == 0) { lora_u[j / 4] = u; } else { lora_u[j / 4] += u; }
        }
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
