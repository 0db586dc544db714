// lora_rows: what adapters add to the rows that a workgroup makes: B u, u = factors * A x. Every
// workgroup has the u that it needs in its own memory, at most U values at a time. Needs lib/lanes
// and the binding lora as array<vec4<u32>>: factors [n_rank] f32, A [n_rank, n_col] f16,
// B [n_row, rank] f16 of the matrices (targets) that read the same input. `rank` of n_rank are a
// target's, all adapters side by side; it is a multiple of 8.

override U: u32 = 0;    // a multiple of 8; 0: without adapters
override MORE: u32 = 0; // 1: there is more than that
override ADAPTED: u32 = min(U, 1);

const SPREAD = 32u; // threads that make values of u together

var<workgroup> lora_u: array<vec2<f32>, U / 2 + 1>;

struct Lora {
    factors: u32, a: u32, b: u32, // where these begin, in elements
    n_col: u32, rank: u32,
    first: u32, // of the ranks that are in lora_u;
    n: u32,     // so many of each target, `rank` apart
}

// Eight values of A or B times eight of x or u.
fn lora_dot(w: vec4<u32>, a: vec4<f32>, b: vec4<f32>) -> f32 {
    return dot(vec4(unpack2x16float(w.x), unpack2x16float(w.y)), a) +
           dot(vec4(unpack2x16float(w.z), unpack2x16float(w.w)), b);
}

// The factors of ranks r and r + 1, r even.
fn lora_factors(g: Lora, r: u32) -> vec2<f32> {
    let f = bitcast<vec4<f32>>(lora[g.factors + r / 4]);
    return select(f.xy, f.zw, r % 4 == 2);
}

// The first element of B that this thread (lib/lanes) needs for a row of the group, to be asked for
// early: it comes from far away.
fn lora_ahead(g: Lora, row: u32, lid: u32) -> vec4<u32> {
    if (lid % LANES >= g.n / 8) { return vec4(0u); }
    return lora[g.b + (row * g.rank + g.first % g.rank) / 8 + lid % LANES];
}

// This thread's part of B u for a row of the group, of the n values of u from u0 on.
fn lora_row(g: Lora, ahead: vec4<u32>, row: u32, u0: u32, lid: u32) -> f32 {
    let at = g.b + (row * g.rank + g.first % g.rank) / 8;
    var b = ahead;
    var sum = 0.0;
    for (var i = lid % LANES; i < g.n / 8; i += LANES) {
        if (i >= LANES) { b = lora[at + i]; }
        let u = u0 / 2 + 4 * i;
        sum += lora_dot(b, vec4(lora_u[u], lora_u[u + 1]), vec4(lora_u[u + 2], lora_u[u + 3]));
    }
    return sum;
}
