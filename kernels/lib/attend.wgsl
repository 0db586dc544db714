// attend: what the attention kernels of training share. A workgroup of 256 threads owns 32 rows (of
// queries, or of keys) and lets rows of the other kind pass by, 64 at a time.
//   Dot products of owned with passing rows: thread (rg, lane), 8 x 32, holds owned rows
//   4 rg .. 4 rg + 3 with passing rows lane and lane + 32, 32 columns at a time from workgroup
//   memory (12 KiB). Sums of passing rows by weights: thread (r8, c4), 4 x 64, holds owned rows
//   8 r8 .. 8 r8 + 7, columns 4 c4 .. 4 c4 + 3 and, where WIDE is 1, 256 more.
// Query rows of a kv head: its n_head / n_kv heads are rows like the tokens are. span [n_tok] says
// where a token's sample begins and ends.
// The kernel has args and span, and says what the rows are:
//   own_place(row, kv), pass_place(row, kv): query_at() or key_at();
//   own4(of_values, at), pass4(of_values, at): four columns of a row, counted in vec4; of_values:
//   of v or what goes with it, else of q or k;
//   added4(at): of a passing row to be added up;  store4(at, value): of an owned row.

override WIDE: u32 = 0; // 1: head_dim is more than 256

const HIDDEN = -1.0e30;

// Owned rows, 32 columns: own_tile[c * 8 + (rg ^ c / 4)], column c of four rows.
var<workgroup> own_tile: array<vec4<f32>, 256>;
// Passing rows, 32 columns: pass_tile[c4 * 64 + (row ^ c4)], four columns of a row; or weights,
// pass_tile[row * 8 + rg]. The exclusive or spreads the stores over the banks.
var<workgroup> pass_tile: array<vec4<f32>, 512>;

// Where the rows begin, in vec4.
var<workgroup> own_at: array<u32, 32>;
var<workgroup> pass_at: array<u32, 64>;

// At the start, and before the rows from pass0 on pass by, after a barrier.
fn place_own(id: u32, own0: u32, kv: u32) {
    if (id < 32) { own_at[id] = own_place(own0 + id, kv) * (args.head_dim / 4); }
}

fn place_passing(id: u32, pass0: u32, kv: u32) {
    if (id < 64) { pass_at[id] = pass_place(pass0 + id, kv) * (args.head_dim / 4); }
    workgroupBarrier();
}

// What a thread brings from column 4 c4 on: columns 4 (id % 8) .. of passing rows id / 8 and 32
// further and, below 64, of owned rows 4 (id / 8) .. .
struct Brought {
    pass_lo: vec4<f32>,
    pass_hi: vec4<f32>,
    own: mat4x4<f32>,
}

fn bring(id: u32, of_values: bool, c4: u32) -> Brought {
    let c = c4 + (id & 7);
    let r = id >> 3;
    var b: Brought;
    if (c4 * 4 >= args.head_dim) { return b; }
    b.pass_lo = pass4(of_values, pass_at[r] + c);
    b.pass_hi = pass4(of_values, pass_at[r + 32] + c);
    if (id < 64) {
        b.own = mat4x4<f32>(own4(of_values, own_at[r * 4] + c),
                            own4(of_values, own_at[r * 4 + 1] + c),
                            own4(of_values, own_at[r * 4 + 2] + c),
                            own4(of_values, own_at[r * 4 + 3] + c));
    }
    return b;
}

fn put_tiles(id: u32, b: Brought) {
    let k4 = id & 7;
    let r = id >> 3;
    let at = k4 * 64 + (r ^ k4);
    pass_tile[at] = b.pass_lo;
    pass_tile[at ^ 32] = b.pass_hi;
    if (id >= 64) { return; }
    let t = transpose(b.own);
    let own = k4 * 32 + (r ^ k4);
    own_tile[own] = t[0];
    own_tile[own + 8] = t[1];
    own_tile[own + 16] = t[2];
    own_tile[own + 24] = t[3];
}

// Adds the tiles' products: dots[0] with passing row lane, dots[1] with lane + 32.
fn add_dots(id: u32, dots: ptr<function, mat2x4<f32>>) {
    let rg = id >> 5;
    let lane = id & 31;
    for (var c4 = 0u; c4 < 8; c4++) {
        let a = pass_tile[c4 * 64 + (lane ^ c4)];
        let b = pass_tile[c4 * 64 + ((lane ^ c4) ^ 32)];
        let at = c4 * 32 + (rg ^ c4);
        (*dots)[0] += own_tile[at] * a.x;
        (*dots)[1] += own_tile[at] * b.x;
        (*dots)[0] += own_tile[at + 8] * a.y;
        (*dots)[1] += own_tile[at + 8] * b.y;
        (*dots)[0] += own_tile[at + 16] * a.z;
        (*dots)[1] += own_tile[at + 16] * b.z;
        (*dots)[0] += own_tile[at + 24] * a.w;
        (*dots)[1] += own_tile[at + 24] * b.w;
    }
}

// All columns: products of four owned rows with passing rows lane and lane + 32. The next columns
// are fetched while these are multiplied.
fn all_dots(id: u32, of_values: bool) -> mat2x4<f32> {
    var dots = mat2x4<f32>();
    var brought = bring(id, of_values, 0);
    for (var c4 = 0u; c4 < args.head_dim / 4; c4 += 8) {
        put_tiles(id, brought);
        workgroupBarrier();
        brought = bring(id, of_values, c4 + 8);
        add_dots(id, &dots);
        workgroupBarrier();
    }
    return dots;
}

// The weights of passing rows lane and lane + 32, for add_rows().
fn put_weights(id: u32, weights: mat2x4<f32>) {
    let at = (id & 31) * 8 + (id >> 5);
    pass_tile[at] = weights[0];
    pass_tile[at + 256] = weights[1];
}

struct Sums {
    lo: mat4x4<f32>, // column r: columns 4 c4 .. of row 8 r8 + r
    hi: mat4x4<f32>, // the next four rows
    wide_lo: mat4x4<f32>, // 256 columns further
    wide_hi: mat4x4<f32>,
}

fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a * b.x, a * b.y, a * b.z, a * b.w);
}

// Adds passing row i, of which four columns (and those 256 further) are given, by its weights.
fn add_row(id: u32, i: u32, row: vec4<f32>, wide: vec4<f32>, sums: ptr<function, Sums>) {
    let lo = pass_tile[i * 8 + (id >> 6) * 2];
    let hi = pass_tile[i * 8 + (id >> 6) * 2 + 1];
    (*sums).lo += outer(row, lo);
    (*sums).hi += outer(row, hi);
    if (WIDE == 1) {
        (*sums).wide_lo += outer(wide, lo);
        (*sums).wide_hi += outer(wide, hi);
    }
}

fn wide4(at: u32) -> vec4<f32> {
    if (WIDE == 1) { return added4(at + 64); }
    return vec4<f32>();
}

// Adds the first n passing rows, and up to three more whose weights are 0, by the weights that are
// in pass_tile. Four at a time, so that a thread waits for their columns once.
fn add_rows(id: u32, n: u32, sums: ptr<function, Sums>) {
    let c4 = id & 63;
    if (c4 * 4 >= args.head_dim) { return; }
    for (var i = 0u; i < n; i += 4) {
        let at = vec4(pass_at[i], pass_at[i + 1], pass_at[i + 2], pass_at[i + 3]) + c4;
        let narrow = mat4x4<f32>(added4(at.x), added4(at.y), added4(at.z), added4(at.w));
        let wide = mat4x4<f32>(wide4(at.x), wide4(at.y), wide4(at.z), wide4(at.w));
        add_row(id, i, narrow[0], wide[0], sums);
        add_row(id, i + 1, narrow[1], wide[1], sums);
        add_row(id, i + 2, narrow[2], wide[2], sums);
        add_row(id, i + 3, narrow[3], wide[3], sums);
    }
}

fn scale_columns(m: mat4x4<f32>, s: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(m[0] * s.x, m[1] * s.y, m[2] * s.z, m[3] * s.w);
}

fn scale_sums(lo: vec4<f32>, hi: vec4<f32>, sums: ptr<function, Sums>) {
    (*sums).lo = scale_columns((*sums).lo, lo);
    (*sums).hi = scale_columns((*sums).hi, hi);
    if (WIDE == 1) {
        (*sums).wide_lo = scale_columns((*sums).wide_lo, lo);
        (*sums).wide_hi = scale_columns((*sums).wide_hi, hi);
    }
}

fn store_row(id: u32, r: u32, n_own: u32, narrow: vec4<f32>, wide: vec4<f32>) {
    let own = (id >> 6) * 8 + r;
    if (own >= n_own || (id & 63) * 4 >= args.head_dim) { return; }
    store4(own_at[own] + (id & 63), narrow);
    if (WIDE == 1) { store4(own_at[own] + (id & 63) + 64, wide); }
}

// The first n_own owned rows, those that there are.
fn store_sums(id: u32, n_own: u32, sums: Sums) {
    store_row(id, 0, n_own, sums.lo[0], sums.wide_lo[0]);
    store_row(id, 1, n_own, sums.lo[1], sums.wide_lo[1]);
    store_row(id, 2, n_own, sums.lo[2], sums.wide_lo[2]);
    store_row(id, 3, n_own, sums.lo[3], sums.wide_lo[3]);
    store_row(id, 4, n_own, sums.hi[0], sums.wide_hi[0]);
    store_row(id, 5, n_own, sums.hi[1], sums.wide_hi[1]);
    store_row(id, 6, n_own, sums.hi[2], sums.wide_hi[2]);
    store_row(id, 7, n_own, sums.hi[3], sums.wide_hi[3]);
}

// ---- who sees whom ----

fn group_size() -> u32 { return args.n_head / args.n_kv; }

// The token of a query row; the last one beyond the end.
fn token_of(row: u32) -> u32 { return min(row / group_size(), args.n_tok - 1); }

// Where a query row is in [n_tok, n_head], and a key in [n_tok, n_kv]; the last token's beyond it.
fn query_at(row: u32, kv: u32) -> u32 {
    return token_of(row) * args.n_head + kv * group_size() + row % group_size();
}
fn key_at(key: u32, kv: u32) -> u32 { return min(key, args.n_tok - 1) * args.n_kv + kv; }

// The first key that a token sees: of its own sample, within the window. The last is its own.
fn first_key(tok: u32) -> u32 {
    let hidden = select(0, tok + 1 - args.window, args.window > 0 && tok >= args.window);
    return max(span[tok].x, hidden);
}
