/* The kernels for one token that multiply with matrices, and their norms, against the CPU's
 * operations: formats, odd sizes, inputs longer than workgroup memory holds, guard words around the
 * outputs, with and without LoRA adapters. Attention and the choice of candidates:
 * test_kernels_decode_attn.c. Needs an adapter; a software one is enough. */
#include "lora_test.h"

/* Runs a stage that can add what adapters do to n_target matrices; g NULL: without adapters. More
 * than 64 values of u find no room at a time. */
static void run_adapted(kernel_call call, const lora_group *g, uint32_t n_target, uint32_t lanes,
                        uint32_t input, uint32_t n_col) {
    const uint32_t n_u = g ? min_u32(max_u32(n_target * g->rank, 8), 64) : 0;
    const gpu_constant constants[] = {{"LANES", lanes},
                                      {"TURNS", turns_of(lanes, input ? input : n_col, n_col)},
                                      {"U", n_u},
                                      {"MORE", g && n_target * g->rank > n_u},
                                      {"INPUT", input}};
    call.constants = constants;
    call.n_constant = input ? 5 : 4;
    begin();
    kernel_run(kt.steps, &call);
    end();
}

/* The group of rank `rank` that a case asks for, of n targets of n_rows[i] rows; 0: none, and its
 * store is any buffer. */
static group_data adapters(uint32_t rank, uint32_t n_col, const uint32_t *n_rows, uint32_t n) {
    if (rank) return make_group(rank, n_col, n_rows, n, 8, false);
    return (group_data){.store = kt_in(values(64), 256)};
}

/* ---- matvec ---- */

typedef struct matvec_case {
    uint32_t type, n_row, n_col;
    uint32_t lanes, input; /* constants */
    uint32_t rows_a_tile;
    uint32_t groups; /* workgroups that share the rows; 0: as many as there are blocks of rows */
} matvec_case;

static void one_matvec(matvec_case c) {
    weight *w = matrix(c.type, c.n_row, c.n_col, c.rows_a_tile);
    float *x = values(c.n_col), *want = kt_take(c.n_row, 4);
    ref_matmul(w, 0, x, 1, want);
    const gpu_view in = kt_in(x, c.n_col * 4);
    const kt_output out = kt_out(c.n_row * 4);
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *t = &w->tiles[i];
        const matvec_args args = {
            .n_row = t->n_row, .n_col = c.n_col, .out0 = t->row0, .scale = w->scale};
        run_with((kernel_call){.kernel = &kernel_matvec,
                               .formats = {c.type},
                               .args = &args,
                               .views = {in, whole(t->buffer), out.view},
                               .x = c.groups ? c.groups : div_up(t->n_row, 256 / c.lanes)},
                 c.lanes, c.input, c.n_col);
    }
    char what[64];
    snprintf(what, sizeof what, "matvec %s %u x %u", quant_find(c.type)->name, c.n_row, c.n_col);
    kt_compare(what, fetch(out), want, c.n_row, KT_F32);
    kt_reset();
}

static void test_matvec(void **state) {
    (void)state;
    static const uint32_t rows[] = {31, 33, 63, 64, 65};
    for (uint32_t i = 0; i < COUNT(rows); i++) {
        one_matvec((matvec_case){QUANT_Q4_K, rows[i], 256, 8, 256, 100, 0});
        one_matvec((matvec_case){QUANT_Q4_K, rows[i], 1280, 8, 256, 100, 1 + i % 2});
    }
    one_matvec((matvec_case){QUANT_Q4_K, 33, 1280, 8, 1280, 100, 0}); /* three turns */
    one_matvec((matvec_case){QUANT_Q4_K, 9, 512, 8, 256, 1, 0});      /* a row at a time */
    one_matvec((matvec_case){QUANT_F32, 5, 64, 128, 64, 100, 0});     /* more lanes than chunks */
    one_matvec((matvec_case){QUANT_F32, 7, 64 * 131, 128, 64 * 64, 4, 1});
    one_matvec((matvec_case){QUANT_BF16, 17, 448, 16, 256, 16, 1});
    one_matvec((matvec_case){QUANT_Q5_0, 33, 320, 32, 320, 11, 0}); /* pairs with an odd end */
    one_matvec((matvec_case){QUANT_Q6_K, 9, 768, 64, 512, 3, 2});
    one_matvec((matvec_case){QUANT_Q8_0, 35, 704, 32, 256, 100, 3});
    one_matvec((matvec_case){QUANT_MXFP4, 31, 64, 8, 64, 15, 0});
}

static void one_plain(uint32_t type, uint32_t n_row, uint32_t n_col, uint32_t lanes,
                      uint32_t rows_a_tile) {
    weight *w = matrix(type, n_row, n_col, rows_a_tile);
    float *x = values(n_col), *want = kt_take(n_row, 4);
    ref_matmul(w, 0, x, 1, want);
    const gpu_view in = kt_in(x, n_col * 4);
    const kt_output out = kt_out(n_row * 4);
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *t = &w->tiles[i];
        const matvec_plain_args args = {
            .n_row = t->n_row, .n_col = n_col, .out0 = t->row0, .scale = w->scale};
        run_with((kernel_call){.kernel = &kernel_matvec_plain,
                               .formats = {type},
                               .args = &args,
                               .views = {in, whole(t->buffer), out.view},
                               .x = div_up(t->n_row * lanes, 256)},
                 lanes, 0, n_col);
    }
    kt_compare("matvec_plain", fetch(out), want, n_row, KT_F32);
    kt_reset();
}

static void test_matvec_plain(void **state) {
    (void)state;
    one_plain(QUANT_F32, 9, 16, 8, 1);
    one_plain(QUANT_F32, 33, 1040, 8, 100);
    one_plain(QUANT_BF16, 31, 48, 128, 100);
    one_plain(QUANT_BF16, 5, 16 * 259, 128, 2);
    one_plain(QUANT_Q5_0, 31, 96, 32, 100);
    one_plain(QUANT_Q5_0, 65, 32, 32, 32);
}

/* Words of n values as decode_ffn leaves them. */
static uint32_t packed_words(uint32_t n) { return div_up(n, 64) * 40; }

/* Where group g of n values is: four words of high bytes, four of low ones, scale and sum. */
typedef struct packed_group {
    uint32_t high, low, scale;
} packed_group;

static packed_group group_at(uint32_t g, uint32_t n) {
    const uint32_t n_chunk = div_up(n, 64), at = g % 4 * n_chunk + g / 4;
    return (packed_group){4 * at, 4 * (4 * n_chunk + at), 32 * n_chunk + 2 * g};
}

/* x [n] as decode_ffn leaves it. x becomes what the integers stand for. */
static uint32_t *pack_input(float *x, uint32_t n) {
    uint32_t *packed = kt_take(packed_words(n), 4);
    for (uint32_t g = 0; g < n / 16; g++, x += 16) {
        const packed_group at = group_at(g, n);
        float most = 0, sum = 0;
        for (int i = 0; i < 16; i++) most = fmaxf(most, fabsf(x[i]));
        const float scale = most / 32000;
        for (int i = 0; i < 16; i++) {
            const int q = (int)lrintf(x[i] / scale), high = (q + 128) >> 8, low = q - 256 * high;
            packed[at.high + (uint32_t)i / 4] |= (uint32_t)(uint8_t)high << (8 * (i % 4));
            packed[at.low + (uint32_t)i / 4] |= (uint32_t)(uint8_t)low << (8 * (i % 4));
            x[i] = (float)q * scale;
            sum += x[i];
        }
        memcpy(packed + at.scale, &scale, 4);
        memcpy(packed + at.scale + 1, &sum, 4);
    }
    return packed;
}

/* Floats of n_part parts of u, and their sum for a rank. */
static uint32_t part_values(const lora_group *g, uint32_t n_part) {
    return g->rank * (n_part + n_part % 2);
}

static float sum_parts(const float *parts, uint32_t n_part, uint32_t r) {
    const float *of = parts + (size_t)(r / 2) * 2 * (n_part + n_part % 2) + r % 2;
    float sum = 0;
    for (uint32_t i = 0; i < n_part; i++) sum += of[2 * i];
    return sum;
}

/* Parts of u behind the n words of a packed input, so that it is random; want += B u. */
static uint32_t *pack_parts(const group_data *d, uint32_t *packed, uint32_t n, uint32_t n_part,
                            float *want) {
    const lora_pair *p = &d->pairs[0];
    const uint32_t n_value = part_values(&d->g, n_part);
    uint32_t *all = kt_take(n + n_value, 4);
    float *parts = values(n_value), *u = kt_take(d->g.rank, 4);
    memcpy(all, packed, n * 4);
    memcpy(all + n, parts, n_value * 4);
    for (uint32_t r = 0; r < p->rank; r++) u[r] = p->scale * sum_parts(parts, n_part, r);
    for (uint32_t i = 0; i < p->n_row; i++) want[i] += ref_dot(p->b + i * p->rank, u, p->rank);
    return all;
}

static void one_packed(uint32_t type, uint32_t n_row, uint32_t n_col, uint32_t lanes,
                       uint32_t rows_a_tile, uint32_t rank) {
    weight *w = matrix(type, n_row, n_col, rows_a_tile);
    float *x = values(n_col), *want = kt_take(n_row, 4);
    const group_data d = adapters(rank, 64, &n_row, 1);
    const uint32_t n_part = n_col / 32 - 1, n_word = packed_words(n_col);
    uint32_t *packed = pack_input(x, n_col);
    ref_matmul(w, 0, x, 1, want);
    if (rank) packed = pack_parts(&d, packed, n_word, n_part, want);
    const gpu_view in = kt_in(packed, (n_word + part_values(&d.g, n_part)) * 4);
    const kt_output out = kt_out(n_row * 4);
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *t = &w->tiles[i];
        const matvec_packed_args args = {.n_row = t->n_row,
                                         .n_col = n_col,
                                         .out0 = t->row0,
                                         .scale = w->scale,
                                         .rank = d.g.rank,
                                         .factors = d.g.factors / 4,
                                         .b0 = d.g.b0 / 4,
                                         .part0 = n_word / 4,
                                         .n_part = n_part};
        run_adapted((kernel_call){.kernel = &kernel_matvec_packed,
                                  .formats = {type},
                                  .args = &args,
                                  .views = {in, whole(t->buffer), out.view, d.store},
                                  .x = div_up(t->n_row * lanes, 1024)},
                    rank ? &d.g : NULL, 1, lanes, 0, n_col);
    }
    kt_compare("matvec_packed", fetch(out), want, n_row, KT_F32);
    kt_reset();
}

static void test_matvec_packed(void **state) {
    (void)state;
    one_packed(QUANT_Q4_K, 9, 256, 8, 1, 0);
    one_packed(QUANT_Q4_K, 33, 1280, 8, 100, 0);
    one_packed(QUANT_Q4_K, 63, 512, 8, 31, 0);
    one_packed(QUANT_Q6_K, 31, 768, 32, 5, 0);
    one_packed(QUANT_Q6_K, 14, 2304, 16, 8, 0);
    one_packed(QUANT_MXFP4, 3, 64 * 131, 128, 100, 0);
    one_packed(QUANT_Q4_K, 33, 1280, 8, 100, 16);
    one_packed(QUANT_Q4_K, 63, 512, 8, 31, 1);
    one_packed(QUANT_Q4_K, 9, 256, 8, 1, 100);
    one_packed(QUANT_MXFP4, 3, 64 * 131, 128, 100, 7);
}

/* ---- embed ---- */

/* Tokens whose row is not in the tile leave their output alone. */
static void one_embed(uint32_t type, uint32_t n_tok, uint32_t n_row, uint32_t n_col) {
    weight *w = matrix(type, n_row, n_col, n_row);
    const uint32_t row0 = 70;
    uint32_t *ids = kt_take(n_tok, 4);
    float *before = values((size_t)n_tok * n_col), *want = kt_take((size_t)n_tok * n_col, 4);
    memcpy(want, before, (size_t)n_tok * n_col * 4);
    for (uint32_t t = 0; t < n_tok; t++) {
        ids[t] = t == 0   ? row0
                 : t == 1 ? row0 + n_row - 1
                 : t == 2 ? row0 - 1
                 : t == 3 ? row0 + n_row
                          : row0 + t * 7 % n_row;
        const uint32_t row = ids[t] - row0;
        if (row < n_row) ref_dequantise_row(w, row, want + (size_t)t * n_col);
    }
    const kt_output out = kt_out_with(before, (size_t)n_tok * n_col * 4);
    const embed_args args = {
        .n_tok = n_tok, .n_col = n_col, .row0 = row0, .n_row = n_row, .scale = w->scale};
    run_with((kernel_call){.kernel = &kernel_embed,
                           .formats = {type},
                           .args = &args,
                           .views = {kt_in(ids, n_tok * 4), whole(w->tiles[0].buffer), out.view},
                           .x = div_up(n_tok * n_col / 16, 64)},
             0, 0, 0);
    kt_compare("embed", fetch(out), want, (size_t)n_tok * n_col, KT_F32);
    kt_reset();
}

static void test_embed(void **state) {
    (void)state;
    one_embed(QUANT_Q6_K, 1, 3, 256);
    one_embed(QUANT_Q6_K, 7, 33, 768);
    one_embed(QUANT_Q5_0, 33, 31, 96);
}

/* ---- q, k, v ---- */

typedef struct qkv_case {
    uint32_t types[3], n_row[3]; /* of q, k, v */
    uint32_t n_embd, lanes, input, rows_a_tile;
    bool pending;
    uint32_t rank; /* of adapters */
} qkv_case;

static void run_qkv(const qkv_case *c, weight *const *w, const stream_data *s, const group_data *d,
                    uint32_t h0, gpu_view out) {
    for (uint32_t i = 0; i < w[0]->n_tile; i++) { /* k and v go with the last tile of q */
        const weight_tile *q = &w[0]->tiles[i];
        const bool last = i + 1 == w[0]->n_tile;
        const decode_qkv_args args = {.n_embd = c->n_embd,
                                      .n_q = q->n_row,
                                      .n_k = last ? c->n_row[1] : 0,
                                      .n_v = last ? c->n_row[2] : 0,
                                      .eps = EPS,
                                      .scale = s->scale,
                                      .w_post = s->w_post,
                                      .w_norm = s->w_norm,
                                      .q0 = q->row0,
                                      .scale_q = w[0]->scale,
                                      .scale_k = w[1]->scale,
                                      .scale_v = w[2]->scale,
                                      .h0 = h0,
                                      .rank = d->g.rank,
                                      .factors = d->g.factors / 4,
                                      .a0 = d->g.a0 / 4,
                                      .b0 = d->g.b0 / 4};
        run_adapted((kernel_call){.kernel = &kernel_decode_qkv,
                                  .formats = {c->types[0], c->types[1], c->types[2]},
                                  .args = &args,
                                  .views = {s->base, s->update, s->vectors, whole(q->buffer),
                                            whole(w[1]->tiles[0].buffer),
                                            whole(w[2]->tiles[0].buffer), d->store, out},
                                  .x = (args.n_q + args.n_k + args.n_v) / (256 / c->lanes)},
                    c->rank ? &d->g : NULL, 1, c->lanes, c->input, c->n_embd);
    }
}

/* Without rows of k (v), their binding is q's (k's), as in a layer that does not own them. */
static void one_qkv(qkv_case c) {
    const uint32_t n = c.n_row[0] + c.n_row[1] + c.n_row[2];
    const stream_data s = make_stream(c.n_embd, c.pending);
    float *want = kt_take(n, 4), *at = want;
    weight *w[3];
    for (int i = 0; i < 3; at += c.n_row[i], i++) {
        w[i] = c.n_row[i] ? matrix(c.types[i], c.n_row[i], c.n_embd, i ? 1000 : c.rows_a_tile)
                          : w[i - 1];
        if (!c.n_row[i]) continue;
        w[i]->scale = 2.0f / (float)(1 << i);
        ref_matmul(w[i], 0, s.normed, 1, at);
    }
    const group_data d = adapters(c.rank, c.n_embd, c.n_row, 1u + !!c.n_row[1] + !!c.n_row[2]);
    if (c.rank) add_reference(&d, s.normed, 1, want);
    const kt_output out = kt_out((n + 1 + c.n_embd) * 4);
    run_qkv(&c, w, &s, &d, n + 1, out.view);
    const float *got = fetch(out);
    kt_compare("decode_qkv", got, want, n, KT_F32);
    kt_compare("decode_qkv: h", got + n + 1, s.h, c.n_embd, KT_F32);
    kt_reset();
}

static void test_qkv(void **state) {
    (void)state;
    const uint32_t k4 = QUANT_Q4_K, k6 = QUANT_Q6_K, q5 = QUANT_Q5_0, q8 = QUANT_Q8_0;
    one_qkv((qkv_case){{k4, k6, q5}, {40, 8, 8}, 768, 32, 256, 24, true, 0});
    one_qkv((qkv_case){{k4, k6, q5}, {8, 24, 16}, 256, 32, 256, 99, false, 0});
    one_qkv(
        (qkv_case){{QUANT_BF16, QUANT_F32, QUANT_MXFP4}, {6, 2, 4}, 192, 128, 192, 99, true, 0});
    one_qkv((qkv_case){{q8, k4, k4}, {64, 32, 0}, 256, 8, 256, 32, true, 0});
    one_qkv((qkv_case){{q8, q8, q8}, {96, 0, 0}, 832, 8, 256, 64, false, 0});
    one_qkv((qkv_case){{k4, k6, q5}, {40, 8, 8}, 768, 32, 256, 24, true, 2});
    one_qkv((qkv_case){{k4, k6, q5}, {8, 24, 16}, 256, 32, 256, 99, false, 16});
    one_qkv((qkv_case){{q8, k4, k4}, {64, 32, 0}, 256, 8, 256, 32, true, 64});
    one_qkv((qkv_case){{q8, q8, q8}, {96, 0, 0}, 832, 8, 256, 64, false, 100});
}

/* ---- the attention's output rows ---- */

typedef struct out_case {
    uint32_t type, n_row, n_head, head_dim, n_split, lanes, input, rows_a_tile;
    uint32_t rank; /* of adapters */
} out_case;

/* The attention's result from its splits: sums of exp(s - m) v, and (m, sum of exp(s - m)). Some
 * splits are empty; want gets the merged values. */
static void make_splits(const out_case *c, float *attn, float *stat, float *want) {
    const uint32_t n_col = c->n_head * c->head_dim;
    for (uint32_t h = 0; h < c->n_head; h++) {
        double total = 0;
        for (uint32_t s = 0; s < c->n_split; s++) {
            float *pair = stat + 2 * (s * c->n_head + h);
            const bool empty = s % 3 == 2;
            pair[0] = empty ? -1e30f : 5 * pair[0];
            pair[1] = empty ? 0 : 1 + fabsf(pair[1]);
            total += (double)pair[1] * exp((double)pair[0]);
        }
        for (uint32_t i = 0; i < c->head_dim; i++) {
            double sum = 0;
            for (uint32_t s = 0; s < c->n_split; s++) {
                float *a = attn + s * n_col + h * c->head_dim + i;
                if (s % 3 == 2) *a = 0;
                sum += (double)*a * exp((double)stat[2 * (s * c->n_head + h)]);
            }
            want[h * c->head_dim + i] = (float)(sum / total);
        }
    }
}

static void one_out(out_case c) {
    const uint32_t n_col = c.n_head * c.head_dim, n_split = max_u32(c.n_split, 1);
    weight *w = matrix(c.type, c.n_row, n_col, c.rows_a_tile);
    float *attn = values(n_split * n_col), *stat = values(n_split * c.n_head * 2), *o = attn;
    float *want = kt_take(c.n_row, 4);
    if (c.n_split) make_splits(&c, attn, stat, o = kt_take(n_col, 4));
    ref_matmul(w, 0, o, 1, want);
    const gpu_view in = kt_in(attn, n_split * n_col * 4);
    const gpu_view stats = kt_in(stat, n_split * c.n_head * 8);
    const group_data d = adapters(c.rank, n_col, &c.n_row, 1);
    const kt_output out = kt_out(c.n_row * 4);
    if (c.rank) add_reference(&d, o, 1, want);
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *t = &w->tiles[i];
        const decode_out_args args = {.n_row = t->n_row,
                                      .n_col = n_col,
                                      .out0 = t->row0,
                                      .scale = w->scale,
                                      .head_dim = c.head_dim,
                                      .n_split = c.n_split,
                                      .rank = d.g.rank,
                                      .factors = d.g.factors / 4,
                                      .a0 = d.g.a0 / 4,
                                      .b0 = d.g.b0 / 4};
        run_adapted((kernel_call){.kernel = &kernel_decode_out,
                                  .formats = {c.type},
                                  .args = &args,
                                  .views = {in, stats, whole(t->buffer), out.view, d.store},
                                  .x = div_up(t->n_row * c.lanes, 256)},
                    c.rank ? &d.g : NULL, 1, c.lanes, c.input, n_col);
    }
    kt_compare("decode_out", fetch(out), want, c.n_row, KT_F32);
    kt_reset();
}

static void test_out(void **state) {
    (void)state;
    one_out((out_case){QUANT_Q4_K, 31, 4, 64, 1, 32, 256, 100, 0});
    one_out((out_case){QUANT_Q4_K, 33, 8, 256, 4, 32, 256, 13, 0});
    one_out((out_case){QUANT_Q4_K, 33, 8, 256, 8, 32, 2048, 100, 0});
    one_out((out_case){QUANT_Q4_K, 9, 2, 512, 0, 32, 256, 1, 0});
    one_out((out_case){QUANT_Q5_0, 65, 10, 32, 4, 8, 320, 100, 0});
    one_out((out_case){QUANT_F32, 5, 2, 32, 2, 128, 64, 100, 0});
    one_out((out_case){QUANT_F32, 3, 3, 64, 3, 128, 64, 2, 0});
    one_out((out_case){QUANT_F32, 3, 3, 64, 5, 128, 64, 2, 0});
    one_out((out_case){QUANT_Q4_K, 9, 256, 32, 3, 32, 2048 + 256, 100, 0}); /* all heads */
    one_out((out_case){QUANT_Q4_K, 31, 4, 64, 1, 32, 256, 100, 16});
    one_out((out_case){QUANT_Q4_K, 33, 8, 256, 4, 32, 256, 13, 100});
    one_out((out_case){QUANT_Q4_K, 9, 2, 512, 0, 32, 256, 1, 1});
    one_out((out_case){QUANT_F32, 5, 2, 32, 2, 128, 64, 100, 7});
}

/* ---- feed-forward ---- */

typedef struct ffn_case {
    uint32_t types[2], n_row, n_embd, lanes, input, rows_a_tile;
    uint32_t groups; /* workgroups that share the rows; 0: as many as there are blocks of rows */
    bool pending;
    uint32_t rank, down; /* of adapters */
} ffn_case;

/* Values of groups of 16 as 16-bit integers; checks the sums beside them. */
static float *unpack_act(const uint32_t *packed, uint32_t n) {
    float *x = kt_take(n, 4);
    for (uint32_t g = 0; g < n / 16; g++) {
        const packed_group at = group_at(g, n);
        float scale, sum, total = 0, size = 0;
        memcpy(&scale, packed + at.scale, 4);
        memcpy(&sum, packed + at.scale + 1, 4);
        for (uint32_t i = 0; i < 16; i++) {
            const int high = (int8_t)(packed[at.high + i / 4] >> (8 * (i % 4)));
            const int low = (int8_t)(packed[at.low + i / 4] >> (8 * (i % 4)));
            x[16 * g + i] = (float)(256 * high + low) * scale;
            total += x[16 * g + i];
            size += fabsf(x[16 * g + i]);
        }
        if (fabsf(sum - total) > 1e-5f * size)
            fail_msg("decode_ffn: group %u has the sum %g, not %g", g, (double)sum, (double)total);
    }
    return x;
}

/* What adapters add: `in` to gate and up, and u of `down` is made here. */
typedef struct ffn_added {
    group_data in, down;
    uint32_t part0, n_part; /* of that u, behind act */
    gpu_view store;         /* both */
} ffn_added;

static uint32_t ffn_groups(const ffn_case *c, const weight_tile *tile) {
    return c->groups ? c->groups : div_up(tile->n_row, 256 / c->lanes);
}

static ffn_added make_ffn_added(const ffn_case *c, const weight *gate) {
    const uint32_t n_rows[] = {c->n_row, c->n_row}, n_out = 16;
    ffn_added f = {.in = adapters(c->rank, c->n_embd, n_rows, 2),
                   .part0 = packed_words(c->n_row) / 4};
    f.store = f.in.store;
    for (uint32_t i = 0; i < gate->n_tile; i++) f.n_part += ffn_groups(c, &gate->tiles[i]);
    if (!c->down) return f;
    f.down = make_group(c->down, c->n_row, &n_out, 1, (uint32_t)round_up(f.in.n_word, 4), false);
    memcpy(f.down.words, f.in.words, f.in.n_word * 4);
    f.store = kt_in(f.down.words, f.down.n_word * 4);
    return f;
}

static void run_ffn(const ffn_case *c, const weight *gate, const weight *up, const stream_data *s,
                    const ffn_added *f, gpu_view act) {
    uint32_t slot0 = 0;
    for (uint32_t i = 0; i < gate->n_tile; i++) {
        const weight_tile *t = &gate->tiles[i];
        const uint32_t n_group = ffn_groups(c, t);
        const decode_ffn_args args = {.n_embd = c->n_embd,
                                      .n_row = t->n_row,
                                      .row0 = t->row0,
                                      .eps = EPS,
                                      .scale = s->scale,
                                      .w_post = s->w_post,
                                      .w_norm = s->w_norm,
                                      .scale_gate = gate->scale,
                                      .scale_up = up->scale,
                                      .n_ff = c->n_row,
                                      .rank = f->in.g.rank,
                                      .factors = f->in.g.factors / 4,
                                      .a0 = f->in.g.a0 / 4,
                                      .b0 = f->in.g.b0 / 4,
                                      .down_rank = f->down.g.rank,
                                      .down_a0 = f->down.g.a0 / 4,
                                      .part0 = f->part0,
                                      .n_part = f->n_part,
                                      .slot0 = slot0};
        run_adapted((kernel_call){.kernel = &kernel_decode_ffn,
                                  .formats = {c->types[0], c->types[1]},
                                  .args = &args,
                                  .views = {s->base, s->update, s->vectors, whole(t->buffer),
                                            whole(up->tiles[i].buffer), s->out.view, act, f->store},
                                  .x = n_group},
                    c->rank || c->down ? &f->in.g : NULL, 2, c->lanes, c->input, c->n_embd);
        slot0 += n_group;
    }
}

/* The parts that follow act, added up, are A of the down rows times act. */
static void check_parts(const ffn_added *f, const float *parts, const float *act) {
    const lora_group *g = &f->down.g;
    const lora_pair *p = &f->down.pairs[0];
    float *want = kt_take(g->rank, 4), *got = kt_take(g->rank, 4);
    for (uint32_t r = 0; r < g->rank; r++) {
        if (r < p->rank) want[r] = ref_dot(p->a + (size_t)r * g->n_col, act, g->n_col);
        got[r] = sum_parts(parts, f->n_part, r);
    }
    kt_compare("decode_ffn: parts of u", got, want, g->rank, KT_F32);
}

static void one_ffn(ffn_case c) {
    const stream_data s = make_stream(c.n_embd, c.pending);
    weight *gate = matrix(c.types[0], c.n_row, c.n_embd, c.rows_a_tile);
    weight *up = matrix(c.types[1], c.n_row, c.n_embd, c.rows_a_tile);
    const ffn_added f = make_ffn_added(&c, gate);
    float *want = kt_take(2 * c.n_row, 4), *b = want + c.n_row;
    gate->scale = 3;
    ref_matmul(gate, 0, s.normed, 1, want);
    ref_matmul(up, 0, s.normed, 1, b);
    if (c.rank) add_reference(&f.in, s.normed, 1, want);
    ref_geglu(want, b, c.n_row, want);
    const kt_output act = kt_out((packed_words(c.n_row) + part_values(&f.down.g, f.n_part)) * 4);
    run_ffn(&c, gate, up, &s, &f, act.view);
    const uint32_t *got = fetch(act);
    kt_compare("decode_ffn", unpack_act(got, c.n_row), want, c.n_row, KT_F32);
    if (c.down) check_parts(&f, (const float *)(got + 4 * f.part0), want);
    check_stream(&s, "decode_ffn");
    kt_reset();
}

static void test_ffn(void **state) {
    (void)state;
    const uint32_t k4 = QUANT_Q4_K;
    one_ffn((ffn_case){{k4, k4}, 16, 256, 8, 256, 1000, 0, false, 0, 0});
    one_ffn((ffn_case){{k4, k4}, 112, 1280, 8, 256, 64, 0, true, 0, 0});
    one_ffn((ffn_case){{k4, k4}, 208, 256, 8, 256, 1000, 3, true, 0, 0});
    one_ffn((ffn_case){{k4, QUANT_Q6_K}, 80, 768, 16, 768, 1000, 2, true, 0, 0});
    one_ffn((ffn_case){{QUANT_Q6_K, k4}, 48, 1280, 8, 1280, 1000, 1, true, 0, 0});
    one_ffn((ffn_case){{QUANT_BF16, QUANT_MXFP4}, 48, 448, 16, 64, 16, 1, true, 0, 0});
    one_ffn((ffn_case){{k4, k4}, 112, 1280, 8, 256, 64, 0, true, 16, 16});
    one_ffn((ffn_case){{k4, k4}, 208, 256, 8, 256, 1000, 3, true, 16, 100});
    one_ffn((ffn_case){{k4, k4}, 208, 256, 8, 256, 48, 0, true, 64, 0});
    one_ffn((ffn_case){{k4, QUANT_Q6_K}, 80, 768, 16, 768, 1000, 0, true, 100, 2});
    one_ffn((ffn_case){{QUANT_BF16, QUANT_MXFP4}, 48, 448, 16, 64, 16, 1, true, 7, 64});
    one_ffn((ffn_case){{k4, k4}, 112, 512, 8, 512, 1000, 2, true, 0, 7});
}

/* ---- per-layer embeddings ---- */

typedef struct ple_case {
    uint32_t type, n_ple, n_embd, lanes, input;
    bool pending;
} ple_case;

static void one_ple(ple_case c) {
    const uint32_t ple0 = 2 * c.n_ple, n = 3 * c.n_ple;
    const stream_data s = make_stream(c.n_embd, c.pending);
    weight *w = matrix(c.type, c.n_ple, c.n_embd, c.n_ple);
    float *e = values(n), *want = kt_take(c.n_ple, 4);
    ref_matmul(w, 0, s.h, 1, want);
    ref_geglu(want, e + ple0, c.n_ple, want);
    const kt_output out = kt_out(c.n_ple * 4);
    const decode_ple_args args = {.n_embd = c.n_embd,
                                  .n_ple = c.n_ple,
                                  .ple0 = ple0,
                                  .eps = EPS,
                                  .scale = s.scale,
                                  .w_post = s.w_post,
                                  .scale_gate = w->scale};
    run_with((kernel_call){.kernel = &kernel_decode_ple,
                           .formats = {c.type},
                           .args = &args,
                           .views = {s.base, s.update, s.vectors, whole(w->tiles[0].buffer),
                                     kt_in(e, n * 4), s.out.view, out.view},
                           .x = div_up(c.n_ple * c.lanes, 256)},
             c.lanes, c.input, c.n_embd);
    kt_compare("decode_ple", fetch(out), want, c.n_ple, KT_F32);
    check_stream(&s, "decode_ple");
    kt_reset();
}

static void test_ple(void **state) {
    (void)state;
    one_ple((ple_case){QUANT_Q4_K, 33, 1280, 32, 256, true});
    one_ple((ple_case){QUANT_Q4_K, 31, 256, 32, 256, false});
    one_ple((ple_case){QUANT_F32, 16, 448, 128, 64, true});
    one_ple((ple_case){QUANT_Q8_0, 256, 64, 8, 64, true});
}

/* ---- norms ---- */

static void one_norm(uint32_t n, bool pending, uint32_t n_clear) {
    const stream_data s = make_stream(n, pending);
    const kt_output out = kt_out(n * 4), bins = kt_out_with(values(n_clear + 1), n_clear * 4 + 4);
    const decode_norm_args args = {.n_embd = n,
                                   .n_clear = n_clear,
                                   .eps = EPS,
                                   .scale = s.scale,
                                   .w_post = s.w_post,
                                   .w_norm = s.w_norm};
    run_with((kernel_call){.kernel = &kernel_decode_norm,
                           .args = &args,
                           .views = {s.base, s.update, s.vectors, out.view, bins.view}},
             0, 0, 0);
    const uint32_t *cleared = fetch(bins);
    for (uint32_t i = 0; i < n_clear; i++) assert_int_equal(cleared[i], 0);
    assert_int_not_equal(cleared[n_clear], 0);
    kt_compare("decode_norm", fetch(out), s.normed, n, KT_F32);
    kt_reset();
}

static void one_settle(uint32_t n, bool pending) {
    const stream_data s = make_stream(n, pending);
    const settle_args args = {.n_embd = n, .eps = EPS, .scale = s.scale, .w_post = s.w_post};
    run_with((kernel_call){.kernel = &kernel_settle,
                           .args = &args,
                           .views = {s.base, s.update, s.vectors, s.out.view}},
             0, 0, 0);
    check_stream(&s, "settle");
    kt_reset();
}

static void test_norms(void **state) {
    (void)state;
    static const uint32_t widths[] = {64, 320, 1024, 1088, 3840};
    for (uint32_t i = 0; i < COUNT(widths); i++) {
        one_norm(widths[i], i % 2 == 0, 255 + i);
        one_settle(widths[i], true);
    }
    one_norm(960, true, 0);
    one_settle(192, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matvec),        cmocka_unit_test(test_matvec_plain),
        cmocka_unit_test(test_matvec_packed), cmocka_unit_test(test_embed),
        cmocka_unit_test(test_qkv),           cmocka_unit_test(test_out),
        cmocka_unit_test(test_ffn),           cmocka_unit_test(test_ple),
        cmocka_unit_test(test_norms),
    };
    return RUN_VARIANTS("kernels of decode", tests);
}
