/* The kernels that add adapters against the CPU's ref_lora(): odd ranks and shapes, three inputs
 * (rows, the residual stream, packed values), rows of several targets, guard words around the
 * outputs; and what decode_ffn and matmul_geglu take from them. Needs an adapter; a software one is
 * enough. */
#include "decode_test.h"

#include "model/lora_gpu.h"

static const uint32_t ranks[] = {1, 7, 16, 64, 100};

/* A group of n targets as lora_gpu.c packs it, and its pairs. */
typedef struct group_data {
    lora_group g;
    lora_pair pairs[3];
    uint32_t n;
} group_data;

static float rounded(float v) { return half_to_float(float_to_half(v)); }

static float *rounded_values(size_t n, float size) {
    float *v = values(n);
    for (size_t i = 0; i < n; i++) v[i] = rounded(v[i] * size);
    return v;
}

static void put_pair(uint32_t *words, const lora_group *g, const lora_pair *p, uint32_t i,
                     uint32_t row0, bool embed) {
    uint16_t *a = (uint16_t *)(words + g->a0), *b = (uint16_t *)(words + g->b0);
    for (uint32_t r = 0; r < p->rank; r++) {
        const uint32_t to = i * g->rank + r;
        memcpy(words + to, &p->scale, 4);
        for (uint32_t c = 0; c < p->n_col; c++)
            a[embed ? c * g->n_rank + to : to * p->n_col + c] =
                float_to_half(p->a[r * p->n_col + c]);
        for (uint32_t j = 0; j < p->n_row; j++)
            b[(row0 + j) * g->rank + r] = float_to_half(p->b[j * p->rank + r]);
    }
}

/* Targets of n_rows[i] rows; the i-th has a rank less than `rank` by i, but at least 1. */
static group_data make_group(uint32_t rank, uint32_t n_col, const uint32_t *n_rows, uint32_t n,
                             bool embed) {
    group_data d = {.n = n};
    lora_group *g = &d.g;
    g->rank = rank + rank % 2;
    g->n_rank = g->rank * n;
    g->n_col = n_col;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t own = rank > i ? rank - i : 1;
        d.pairs[i] =
            (lora_pair){.rank = own, .n_col = n_col, .n_row = n_rows[i], .scale = 0.5f + (float)i};
        d.pairs[i].a = rounded_values((size_t)own * n_col, 1 / sqrtf((float)n_col));
        d.pairs[i].b = rounded_values((size_t)own * n_rows[i], 1);
        g->n_row += n_rows[i];
    }
    g->end0 = n > 1 ? n_rows[0] : UINT32_MAX;
    g->end1 = n > 1 ? n_rows[0] + n_rows[1] : UINT32_MAX;
    g->a0 = g->n_rank;
    g->b0 = g->n_rank + g->n_rank * n_col / 2;
    const size_t n_word = g->b0 + (size_t)g->n_row * g->rank / 2;
    uint32_t *words = kt_take(n_word, 4);
    for (uint32_t i = 0, row0 = 0; i < n; row0 += n_rows[i++])
        put_pair(words, g, &d.pairs[i], i, row0, embed);
    g->buffer = kt_in(words, n_word * 4).buffer;
    return d;
}

/* want [n_tok, g.n_row] += what is added for x [n_tok, n_col]. */
static void add_reference(const group_data *d, const float *x, uint32_t n_tok, float *want) {
    for (uint32_t t = 0; t < n_tok; t++, want += d->g.n_row, x += d->g.n_col)
        for (uint32_t i = 0, row0 = 0; i < d->n; row0 += d->pairs[i++].n_row)
            ref_lora(&d->pairs[i], 1, x, 1, want + row0);
}

static gpu_buffer take_inner(const group_data *d, uint32_t n_tok) {
    return kt_out((size_t)n_tok * d->g.n_rank * 4).view.buffer;
}

/* ---- rows ---- */

static void check_rows(uint32_t rank, uint32_t n_tok, uint32_t n_col, const uint32_t *n_rows,
                       uint32_t n) {
    const group_data d = make_group(rank, n_col, n_rows, n, false);
    const size_t n_out = (size_t)n_tok * d.g.n_row;
    float *x = values((size_t)n_tok * n_col), *old = values(n_out), *want = kt_take(n_out, 4);
    memcpy(want, old, n_out * 4);
    add_reference(&d, x, n_tok, want);
    const gpu_view in = kt_in(x, (size_t)n_tok * n_col * 4);
    const kt_output u = kt_out((size_t)n_tok * d.g.n_rank * 4), out = kt_out_with(old, n_out * 4);
    const lora_down_args down = {.n_col = n_col, .n_rank = d.g.n_rank, .a0 = d.g.a0 / 2};
    const lora_up_args up = {.n_row = d.g.n_row,
                             .rank = d.g.rank,
                             .n_rank = d.g.n_rank,
                             .end0 = d.g.end0,
                             .end1 = d.g.end1,
                             .b0 = d.g.b0,
                             .out_stride = d.g.n_row,
                             .add = 1};
    begin();
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_lora_down,
                                        .args = &down,
                                        .views = {in, whole(d.g.buffer), u.view},
                                        .x = div_up(d.g.n_rank, 4),
                                        .y = n_tok});
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_lora_up,
                                        .args = &up,
                                        .views = {u.view, whole(d.g.buffer), out.view},
                                        .x = div_up(d.g.n_row, 64),
                                        .y = n_tok});
    end();
    fetch(u); /* its guards */
    kt_compare("lora_down, lora_up", fetch(out), want, n_out, KT_F32);
    kt_reset();
}

static void test_rows(void **state) {
    (void)state;
    static const uint32_t qkv[] = {65, 33, 31}, one[] = {130}, two[] = {70, 70};
    for (size_t i = 0; i < COUNT(ranks); i++) {
        check_rows(ranks[i], 1, 64, qkv, 3);
        check_rows(ranks[i], 5, 1040, one, 1);
        check_rows(ranks[i], 3, 256, two, 2);
    }
}

/* ---- one token: the residual stream, packed values ---- */

static void check_stream_input(uint32_t rank, uint32_t n_embd, bool pending) {
    static const uint32_t n_rows[] = {40, 24};
    const stream_data s = make_stream(n_embd, pending);
    const group_data d = make_group(rank, n_embd, n_rows, 2, false);
    float *want = kt_take(d.g.n_row, 4);
    add_reference(&d, s.normed, 1, want);
    const gpu_buffer u = take_inner(&d, 1);
    const kt_output out = kt_out(d.g.n_row * 4);
    const lora_stream_args args = {.n_embd = n_embd,
                                   .n_col = n_embd,
                                   .n_rank = d.g.n_rank,
                                   .a0 = d.g.a0 / 2,
                                   .eps = EPS,
                                   .scale = s.scale,
                                   .w_post = s.w_post,
                                   .w_norm = s.w_norm};
    begin();
    kernel_run(kt.steps,
               &(kernel_call){.kernel = &kernel_lora_stream,
                              .args = &args,
                              .views = {s.base, s.update, s.vectors, whole(d.g.buffer), whole(u)},
                              .x = div_up(d.g.n_rank, 4)});
    const lora_up_args up = {.n_row = d.g.n_row,
                             .rank = d.g.rank,
                             .n_rank = d.g.n_rank,
                             .end0 = d.g.end0,
                             .end1 = d.g.end1,
                             .b0 = d.g.b0,
                             .out_stride = d.g.n_row};
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_lora_up,
                                        .args = &up,
                                        .views = {whole(u), whole(d.g.buffer), out.view},
                                        .x = 1 + d.g.n_row / 64});
    end();
    kt_compare("lora_stream", fetch(out), want, d.g.n_row, KT_F32);
    kt_reset();
}

static void test_stream(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(ranks); i++) {
        check_stream_input(ranks[i], 256, true);
        check_stream_input(ranks[i], 1088, i % 2);
    }
}

/* Values as decode_ffn packs them: groups of 16 of high and low bytes, a scale and a sum. */
static uint32_t *pack_act(float *x, uint32_t n) {
    uint32_t *out = kt_take((size_t)n / 16 * 12, 4);
    for (uint32_t g = 0; g < n / 16; g++) {
        uint32_t *to = out + (size_t)g * 12;
        const float scale = 2.0f / 32000;
        memcpy(to + 8, &scale, 4);
        for (uint32_t i = 0; i < 16; i++) {
            const int q = (int)lroundf(fmaxf(-1, fminf(1, x[16 * g + i])) / scale);
            const int high = (q + 128) >> 8, low = q - 256 * high;
            to[i / 4] |= (uint32_t)(uint8_t)high << (8 * (i % 4));
            to[4 + i / 4] |= (uint32_t)(uint8_t)low << (8 * (i % 4));
            x[16 * g + i] = (float)q * scale;
        }
    }
    return out;
}

static void test_packed(void **state) {
    (void)state;
    static const uint32_t n_rows[] = {70};
    for (size_t i = 0; i < COUNT(ranks); i++) {
        const uint32_t n = i % 2 ? 1104 : 192;
        const group_data d = make_group(ranks[i], n, n_rows, 1, false);
        float *x = values(n), *want = kt_take(d.g.n_rank, 4);
        const uint32_t *packed = pack_act(x, n);
        for (uint32_t r = 0; r < ranks[i]; r++)
            want[r] = d.pairs[0].scale * ref_dot(d.pairs[0].a + (size_t)r * n, x, n);
        const kt_output u = kt_out(d.g.n_rank * 4);
        const lora_packed_args args = {.n_col = n, .n_rank = d.g.n_rank, .a0 = d.g.a0 / 2};
        kt_run(&(kernel_call){.kernel = &kernel_lora_packed,
                              .args = &args,
                              .views = {kt_in(packed, n * 3), whole(d.g.buffer), u.view},
                              .x = div_up(d.g.n_rank, 4)});
        kt_compare("lora_packed", fetch(u), want, d.g.n_rank, KT_F32);
        kt_reset();
    }
}

/* ---- embeddings ---- */

static void test_embed(void **state) {
    (void)state;
    static const uint32_t n_rows[] = {136};
    static const int32_t ids[] = {0, 41, 7, 41};
    for (size_t i = 0; i < COUNT(ranks); i++) {
        const group_data d = make_group(ranks[i], 42, n_rows, 1, true);
        const size_t n = COUNT(ids) * n_rows[0];
        float *old = values(n), *want = kt_take(n, 4);
        memcpy(want, old, n * 4);
        for (size_t t = 0; t < COUNT(ids); t++)
            ref_lora_embed(&d.pairs[0], 3, ids[t], want + t * n_rows[0]);
        const kt_output x = kt_out_with(old, n * 4);
        const lora_embed_args args = {
            .n_embd = n_rows[0], .n_rank = d.g.n_rank, .a0 = d.g.a0, .b0 = d.g.b0, .scale = 3};
        kt_run(&(kernel_call){.kernel = &kernel_lora_embed,
                              .args = &args,
                              .views = {kt_in(ids, sizeof ids), whole(d.g.buffer), x.view},
                              .x = div_up(n_rows[0], 64),
                              .y = COUNT(ids)});
        kt_compare("lora_embed", fetch(x), want, n, KT_F32);
        kt_reset();
    }
}

/* ---- gate and up ---- */

static void test_geglu(void **state) {
    (void)state;
    enum { N_TOK = 35, N_FF = 52, N_COL = 64 };
    weight *gate = matrix(QUANT_F32, N_FF, N_COL, 40), *up = matrix(QUANT_F32, N_FF, N_COL, 16);
    const size_t n = N_TOK * N_FF;
    float *x = values(N_TOK * N_COL), *delta = values(2 * n), *a = kt_take(n, 4),
          *b = kt_take(n, 4);
    ref_matmul(gate, 0, x, N_TOK, a);
    ref_matmul(up, 0, x, N_TOK, b);
    for (size_t t = 0; t < N_TOK; t++)
        for (size_t i = 0; i < N_FF; i++) {
            a[t * N_FF + i] += delta[2 * t * N_FF + i];
            b[t * N_FF + i] += delta[(2 * t + 1) * N_FF + i];
        }
    ref_geglu(a, b, n, a);
    const gpu_view in = kt_in(x, N_TOK * N_COL * 4);
    const kt_output out = kt_out(n * 4);
    begin();
    op_matmul_geglu(kt.steps, gate, up, in, kt_in(delta, 2 * n * 4).buffer, out.view, N_TOK);
    end();
    kt_compare("matmul_geglu, adapted", fetch(out), a, n, KT_F32);
    kt_reset();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),  cmocka_unit_test(test_stream), cmocka_unit_test(test_packed),
        cmocka_unit_test(test_embed), cmocka_unit_test(test_geglu),
    };
    return RUN_VARIANTS("kernels_lora", tests);
}
