/* Attention of training, forwards and backwards, against the CPU's: packed samples, windows, groups
 * of heads, head sizes, guard words around the outputs. Needs an adapter; a software one is
 * enough. */
#include "batch_test.h"

#include "train/back.h"
#include "train/ops_train.h"

typedef struct attention_case {
    uint32_t n_head, n_kv, head_dim, window;
    uint32_t samples[8]; /* their lengths; 0: no more */
} attention_case;

/* What goes in and what must come out. */
typedef struct attention_data {
    layer_config layer;
    uint32_t n_tok;
    size_t n_query, n_key, n_row; /* values of q, of k, and rows of q */
    uint32_t *span;               /* [n_tok, 2] */
    float *q, *k, *v, *dout, *dk0, *dv0;
    float *out, *lse, *dq, *dk, *dv;
} attention_data;

static float *zeros(size_t n) { return kt_take(n, sizeof(float)); }

static float *copy(const float *x, size_t n) {
    return memcpy(kt_take(n, sizeof *x), x, n * sizeof *x);
}

static void fill_spans(attention_data *d, const uint32_t *samples) {
    for (uint32_t i = 0; samples[i]; i++) d->n_tok += samples[i];
    d->span = kt_take((size_t)2 * d->n_tok, sizeof *d->span);
    uint32_t begin = 0;
    for (uint32_t i = 0; samples[i]; begin += samples[i++])
        for (uint32_t t = begin; t < begin + samples[i]; t++) {
            d->span[2 * t] = begin;
            d->span[2 * t + 1] = begin + samples[i];
        }
}

/* One query head of one token. */
static void want_row(const attention_data *d, uint32_t t, uint32_t h, float *scores) {
    const layer_config *l = &d->layer;
    const uint32_t hd = l->head_dim, width = l->n_kv * hd, kv = h / (l->n_head / l->n_kv);
    uint32_t from = d->span[2 * t];
    if (l->window && t + 1 > l->window) from = max_u32(from, t + 1 - l->window);
    const size_t at = ((size_t)t * l->n_head + h) * hd, key = (size_t)from * width + kv * hd;
    const uint32_t n = t + 1 - from;
    double sum = 0;
    for (uint32_t j = 0; j < n; j++)
        sum += exp((double)ref_dot(d->q + at, d->k + key + (size_t)j * width, hd));
    d->lse[t * l->n_head + h] = (float)log(sum);
    ref_attend(d->q + at, d->k + key, d->v + key, n, width, hd, scores, d->out + at);
    back_attend(d->q + at, d->k + key, d->v + key, d->dout + at, n, width, hd, scores, d->dq + at,
                d->dk + key, d->dv + key);
}

static attention_data make_data(const attention_case *c) {
    attention_data d = {
        .layer = {
            .n_head = c->n_head, .n_kv = c->n_kv, .head_dim = c->head_dim, .window = c->window}};
    fill_spans(&d, c->samples);
    d.n_row = (size_t)d.n_tok * c->n_head;
    d.n_query = d.n_row * c->head_dim;
    d.n_key = (size_t)d.n_tok * c->n_kv * c->head_dim;
    d.q = values(d.n_query), d.k = values(d.n_key), d.v = values(d.n_key);
    const float scale = 2 / sqrtf((float)c->head_dim); /* scores of deviation 2 */
    for (size_t i = 0; i < d.n_query; i++) d.q[i] *= scale;
    d.dout = values(d.n_query), d.dk0 = values(d.n_key), d.dv0 = values(d.n_key);
    d.out = zeros(d.n_query), d.dq = zeros(d.n_query), d.lse = zeros(d.n_row);
    d.dk = copy(d.dk0, d.n_key), d.dv = copy(d.dv0, d.n_key);
    float *scores = zeros((size_t)2 * d.n_tok);
    for (uint32_t t = 0; t < d.n_tok; t++)
        for (uint32_t h = 0; h < c->n_head; h++) want_row(&d, t, h, scores);
    return d;
}

static void compare(const char *name, const attention_case *c, kt_output got, const float *want) {
    char what[100];
    snprintf(what, sizeof what, "%s: %u tokens first, %u / %u heads of %u, window %u", name,
             c->samples[0], c->n_head, c->n_kv, c->head_dim, c->window);
    kt_compare(what, fetch(got), want, got.bytes / 4, KT_F32);
}

/* A token that sees one key only has dq = 0: rounding is all there is, and has no size to go by. */
static void compare_dq(const attention_case *c, kt_output got, const float *want) {
    bool zero = true;
    for (size_t i = 0; i < got.bytes / 4; i++) zero &= fabsf(want[i]) < 1e-5f;
    if (!zero) {
        compare("back_attention_q", c, got, want);
        return;
    }
    const float *dq = fetch(got);
    for (size_t i = 0; i < got.bytes / 4; i++) assert_true(fabsf(dq[i]) < 1e-5f);
}

static void row_attention(attention_case c) {
    const attention_data d = make_data(&c);
    const size_t query = d.n_query * 4, key = d.n_key * 4, row = d.n_row * 4;
    const gpu_view q = kt_in(d.q, query), k = kt_in(d.k, key), v = kt_in(d.v, key);
    const gpu_view span = kt_in(d.span, (size_t)d.n_tok * 8);
    const kt_output out = kt_out(query), lse = kt_out(row), delta = kt_out(row);
    const kt_output dq = kt_out(query), dk = kt_out_with(d.dk0, key), dv = kt_out_with(d.dv0, key);
    const kt_output parts = kt_out(2 * query);
    const back_attention_op back = {q,
                                    k,
                                    v,
                                    span,
                                    out.view,
                                    lse.view,
                                    kt_in(d.dout, query),
                                    delta.view,
                                    dq.view,
                                    dk.view,
                                    dv.view,
                                    .parts = {parts.view, 2 * d.n_query}};
    begin();
    op_train_attention(kt.steps, &d.layer, q, k, v, span, out.view, lse.view, d.n_tok);
    op_back_attention(kt.steps, &d.layer, &back, d.n_tok);
    end();
    float *mean = zeros(d.n_row);
    for (size_t r = 0; r < d.n_row; r++)
        mean[r] = ref_dot(d.out + r * c.head_dim, d.dout + r * c.head_dim, c.head_dim);
    compare("train_attention", &c, out, d.out);
    compare("train_attention: lse", &c, lse, d.lse);
    compare("back_attention_delta", &c, delta, mean);
    compare_dq(&c, dq, d.dq);
    fetch(parts); /* its guards */
    compare("back_attention_kv, VALUES", &c, dv, d.dv);
    compare("back_attention_kv", &c, dk, d.dk);
    kt_reset();
}

static void test_one_sample(void **state) {
    (void)state;
    row_attention((attention_case){1, 1, 32, 0, {1}});
    row_attention((attention_case){2, 1, 64, 0, {33}});
    row_attention((attention_case){4, 4, 32, 0, {65}});
    row_attention((attention_case){8, 1, 256, 0, {67}});
    row_attention((attention_case){4, 1, 512, 0, {71}});
    row_attention((attention_case){2, 2, 96, 0, {150}});
    row_attention((attention_case){4, 1, 32, 0, {280}}); /* in parts */
}

static void test_windows(void **state) {
    (void)state;
    row_attention((attention_case){2, 1, 32, 1, {66}});
    row_attention((attention_case){4, 2, 64, 7, {130}});
    row_attention((attention_case){8, 1, 256, 7, {41}});
    row_attention((attention_case){2, 2, 512, 33, {100}});
    row_attention((attention_case){1, 1, 32, 500, {40}});
    row_attention((attention_case){2, 2, 32, 100, {200, 90}});
}

static void test_packed(void **state) {
    (void)state;
    row_attention((attention_case){2, 1, 32, 0, {1, 1, 1}});
    row_attention((attention_case){4, 2, 64, 0, {1, 40, 2, 33, 1}});
    row_attention((attention_case){8, 2, 32, 7, {5, 90, 1, 3, 31}});
    row_attention((attention_case){8, 1, 256, 16, {30, 1, 45}});
    row_attention((attention_case){4, 2, 512, 0, {3, 64, 1, 17}});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_sample),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_packed),
    };
    return cmocka_run_group_tests_name("attention of training", tests, kt_setup, kt_teardown);
}
