/* The kernels of prefill against the CPU's operations: odd shapes, formats, guard words around the
 * outputs. Needs an adapter; a software one is enough. */
#include "matrix_test.h"

/* ---- matmul ---- */

static void one_matmul(uint32_t type, uint32_t n_tok, uint32_t n_row, uint32_t n_col,
                       uint32_t rows_a_tile) {
    weight *w = matrix(type, n_row, n_col, rows_a_tile);
    float *x = values((size_t)n_tok * n_col), *want = kt_take((size_t)n_tok * n_row, 4);
    ref_matmul(w, 0, x, n_tok, want);
    const gpu_view in = kt_in(x, (size_t)n_tok * n_col * 4);
    const kt_output out = kt_out((size_t)n_tok * n_row * 4);
    begin();
    op_matmul(kt.steps, w, n_row, in, out.view, n_tok);
    end();
    kt_compare("matmul", fetch(out), want, (size_t)n_tok * n_row, tile_bound(type));
    kt_reset();
}

static void test_matmul(void **state) {
    (void)state;
    static const uint32_t sizes[] = {1, 31, 33, 63, 64, 65};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        one_matmul(QUANT_F32, sizes[i], sizes[COUNT(sizes) - 1 - i], 48, 1000);
        one_matmul(QUANT_F32, sizes[i], sizes[i], 16, 1000);
    }
    one_matmul(QUANT_F32, 130, 200, 256, 1000);
    one_matmul(QUANT_F32, 33, 150, 64, 70); /* three tiles */
    one_matmul(QUANT_BF16, 5, 33, 512, 16); /* the formats themselves: test_kernels.c */
    one_matmul(QUANT_Q4_0, 5, 33, 96, 16);
    one_matmul(QUANT_Q4_K, 5, 33, 512, 16);
    one_matmul(QUANT_Q6_K, 5, 33, 768, 16);
    one_matmul(QUANT_Q4_K, 65, 129, 256, 1000); /* more than a tile of matrix units */
    one_matmul(QUANT_BF16, 63, 127, 80, 1000);
}

static void one_geglu(uint32_t type_a, uint32_t type_b, uint32_t n_tok, uint32_t n_ff,
                      uint32_t n_col, uint32_t tile_a, uint32_t tile_b) {
    weight *gate = matrix(type_a, n_ff, n_col, tile_a), *up = matrix(type_b, n_ff, n_col, tile_b);
    const size_t n = (size_t)n_tok * n_ff;
    float *x = values((size_t)n_tok * n_col), *a = kt_take(n, 4), *b = kt_take(n, 4);
    ref_matmul(gate, 0, x, n_tok, a);
    ref_matmul(up, 0, x, n_tok, b);
    ref_geglu(a, b, n, a);
    const gpu_view in = kt_in(x, (size_t)n_tok * n_col * 4);
    const kt_output out = kt_out(n * 4);
    begin();
    op_matmul_geglu(kt.steps, gate, up, in, (gpu_buffer){0}, out.view, n_tok);
    end();
    kt_compare("matmul_geglu", fetch(out), a, n, fmax(tile_bound(type_a), tile_bound(type_b)));
    kt_reset();
}

static void test_matmul_geglu(void **state) {
    (void)state;
    one_geglu(QUANT_F32, QUANT_F32, 1, 1, 16, 100, 100);
    one_geglu(QUANT_F32, QUANT_F32, 31, 33, 48, 100, 100);
    one_geglu(QUANT_F32, QUANT_F32, 65, 31, 32, 100, 100);
    one_geglu(QUANT_F32, QUANT_F32, 64, 64, 128, 100, 100);
    one_geglu(QUANT_F32, QUANT_F32, 33, 100, 64, 40, 56); /* cut differently */
    one_geglu(QUANT_Q4_K, QUANT_Q6_K, 9, 40, 256, 40, 20);
    one_geglu(QUANT_Q8_0, QUANT_BF16, 65, 66, 96, 100, 100);
}

/* ---- norms ---- */

static void test_rmsnorm(void **state) {
    (void)state;
    static const uint32_t widths[] = {4, 36, 256, 1028, 2048};
    for (size_t i = 0; i < COUNT(widths); i++) {
        const uint32_t n = widths[i], n_tok = 3;
        float *x = values(n_tok * n), *w = values(8 + n), *want = kt_take(n_tok * n, 4);
        const vector v = {.n = n, .offset = 8, .data = w + 8};
        ref_rmsnorm(x, v.data, n_tok, n, EPS, want);
        for (uint32_t j = 0; j < n_tok * n; j++) want[j] *= 0.25f;
        const gpu_buffer packed = kt_in(w, (8 + n) * 4).buffer;
        const gpu_view in = kt_in(x, n_tok * n * 4);
        const kt_output out = kt_out(n_tok * n * 4);
        begin();
        op_rmsnorm(kt.steps, packed, &v, EPS, 0.25f, in, out.view, n_tok);
        end();
        kt_compare("rmsnorm", fetch(out), want, n_tok * n, KT_F32);
        kt_reset();
    }
}

static void one_add_rmsnorm(uint32_t n_tok, uint32_t n, bool with_norm) {
    float *x = values(n_tok * n), *u = values(n_tok * n), *w = values(2 * n);
    float *y = kt_take(n_tok * n, 4), *norm = kt_take(n_tok * n, 4);
    const vector post = {.n = n, .offset = 0}, next = {.n = n, .offset = n};
    ref_rmsnorm(u, w, n_tok, n, EPS, y);
    for (uint32_t i = 0; i < n_tok * n; i++) y[i] = 0.75f * (x[i] + y[i]);
    ref_rmsnorm(y, w + n, n_tok, n, EPS, norm);
    const gpu_buffer packed = kt_in(w, 2 * n * 4).buffer;
    const gpu_view update = kt_in(u, n_tok * n * 4);
    const kt_output stream = kt_out_with(x, n_tok * n * 4);
    const kt_output out = kt_out(n_tok * n * 4);
    begin();
    op_add_rmsnorm(kt.steps, packed, &post, with_norm ? &next : NULL, EPS, 0.75f, update,
                   stream.view, out.view, n_tok);
    end();
    kt_compare("add_rmsnorm: x", fetch(stream), y, n_tok * n, KT_F32);
    const float *got = fetch(out);
    if (with_norm) kt_compare("add_rmsnorm", got, norm, n_tok * n, KT_F32);
    if (!with_norm) assert_memory_equal(got, "\xa5\xa5\xa5\xa5", 4);
    kt_reset();
}

static void test_add_rmsnorm(void **state) {
    (void)state;
    one_add_rmsnorm(1, 4, true);
    one_add_rmsnorm(3, 260, true);
    one_add_rmsnorm(2, 1540, true);
    one_add_rmsnorm(2, 64, false);
}

/* ---- q, k, v ---- */

typedef struct heads {
    uint32_t n_tok, n_head, n_kv, head_dim, n_rot, row0;
} heads;

static float half_of(uint32_t word, uint32_t i) {
    return half_to_float((uint16_t)(word >> 16 * i));
}

/* Rows row0.. of stored pairs as f32; the rows before must be untouched. */
static float *stored(kt_output v, const heads *h) {
    const uint32_t n = h->n_kv * h->head_dim;
    const uint32_t *words = fetch(v);
    for (uint32_t i = 0; i < h->row0 * n / 2; i++) assert_int_equal(words[i], 0xa5a5a5a5);
    float *out = kt_take((size_t)h->n_tok * n, 4);
    words += h->row0 * n / 2;
    for (uint32_t i = 0; i < h->n_tok * n; i++) out[i] = half_of(words[i / 2], i % 2);
    return out;
}

static void one_qkv_post(const heads *h) {
    const size_t n_q = (size_t)h->n_tok * h->n_head * h->head_dim;
    const size_t n_k = (size_t)h->n_tok * h->n_kv * h->head_dim;
    float *q = values(n_q), *k = values(n_k), *v = values(n_k), *w = values(2 * h->head_dim);
    float *cs = values((size_t)h->n_tok * h->n_rot * 2);
    float *want_q = kt_take(n_q, 4), *want_k = kt_take(n_k, 4), *want_v = kt_take(n_k, 4);
    ref_rmsnorm(q, w, h->n_tok * h->n_head, h->head_dim, EPS, want_q);
    ref_rmsnorm(k, w + h->head_dim, h->n_tok * h->n_kv, h->head_dim, EPS, want_k);
    ref_rmsnorm(v, NULL, h->n_tok * h->n_kv, h->head_dim, EPS, want_v);
    for (uint32_t t = 0; t < h->n_tok; t++) {
        const float *angle = cs + (size_t)t * h->n_rot * 2;
        ref_rope(want_q + (size_t)t * h->n_head * h->head_dim, angle, h->n_head, h->head_dim,
                 h->n_rot);
        ref_rope(want_k + (size_t)t * h->n_kv * h->head_dim, angle, h->n_kv, h->head_dim, h->n_rot);
    }
    const gpu_view vectors = kt_in(w, 2 * h->head_dim * 4);
    const gpu_view angles = kt_in(cs, (size_t)h->n_tok * h->n_rot * 8);
    const gpu_view gk = kt_in(k, n_k * 4), gv = kt_in(v, n_k * 4);
    const kt_output gq = kt_out_with(q, n_q * 4);
    const size_t bytes = (size_t)(h->row0 + h->n_tok) * h->n_kv * h->head_dim * 2;
    const kt_output to_k = kt_out(bytes), to_v = kt_out(bytes);
    const qkv_post_args args = {.n_head = h->n_head,
                                .n_kv = h->n_kv,
                                .head_dim = h->head_dim,
                                .n_rot = h->n_rot,
                                .row0 = h->row0,
                                .w_q = 0,
                                .w_k = h->head_dim,
                                .eps = EPS};
    begin();
    kernel_run(kt.steps,
               &(kernel_call){.kernel = &kernel_qkv_post,
                              .args = &args,
                              .views = {vectors, angles, gk, gv, gq.view, to_k.view, to_v.view},
                              .x = div_up(h->n_head + 2 * h->n_kv, 4),
                              .y = h->n_tok});
    end();
    kt_compare("qkv_post: q", fetch(gq), want_q, n_q, KT_F32);
    kt_compare("qkv_post: k", stored(to_k, h), want_k, n_k, KT_F16);
    kt_compare("qkv_post: v", stored(to_v, h), want_v, n_k, KT_F16);
    kt_reset();
}

static void test_qkv_post(void **state) {
    (void)state;
    one_qkv_post(&(heads){1, 4, 1, 32, 16, 0});
    one_qkv_post(&(heads){3, 4, 2, 64, 8, 5});
    one_qkv_post(&(heads){2, 3, 1, 256, 128, 1});
    one_qkv_post(&(heads){2, 8, 1, 512, 64, 2});
    one_qkv_post(&(heads){2, 2, 2, 128, 7, 0});
}

/* ---- attention ---- */

typedef struct attention_case {
    uint32_t n_tok, n_head, n_kv, head_dim, first, window;
    uint32_t picture, n_picture; /* tokens that see each other, from `picture` on */
} attention_case;

/* The last token that token t sees, counted in the chunk. */
static uint32_t last_seen(const attention_case *c, uint32_t t) {
    return t - c->picture < c->n_picture ? c->picture + c->n_picture - 1 : t;
}

static float *as_halves(const float *v, size_t n, gpu_view *out) {
    uint16_t *half = kt_take(n, 2);
    float *rounded = kt_take(n, 4);
    for (size_t i = 0; i < n; i++) half[i] = float_to_half(v[i]);
    for (size_t i = 0; i < n; i++) rounded[i] = half_to_float(half[i]);
    *out = kt_in(half, n * 2);
    return rounded;
}

static void attend(const attention_case *c, uint32_t t, uint32_t head, const float *q,
                   const float *k, const float *v, float *out) {
    const uint32_t kv = head / (c->n_head / c->n_kv), pos = c->first + t, d = c->head_dim;
    const uint32_t from = c->window && pos + 1 > c->window ? pos + 1 - c->window : 0;
    const uint32_t end = c->first + last_seen(c, t) + 1;
    float *s = kt_take(end, 4);
    for (uint32_t j = from; j < end; j++) {
        const float *key = k + (size_t)(j * c->n_kv + kv) * d;
        for (uint32_t i = 0; i < d; i++) s[j] += q[i] * key[i];
    }
    ref_softmax(s + from, end - from);
    for (uint32_t i = 0; i < d; i++) out[i] = 0;
    for (uint32_t j = from; j < end; j++)
        for (uint32_t i = 0; i < d; i++) out[i] += s[j] * v[(size_t)(j * c->n_kv + kv) * d + i];
}

static void one_attention(attention_case c) {
    const uint32_t n_key = c.first + c.n_tok;
    const size_t n_q = (size_t)c.n_tok * c.n_head * c.head_dim;
    const size_t n_k = (size_t)n_key * c.n_kv * c.head_dim;
    gpu_view gk, gv;
    float *q = values(n_q), *want = kt_take(n_q, 4);
    for (size_t i = 0; i < n_q; i++) q[i] *= 4 / sqrtf((float)c.head_dim);
    const float *k = as_halves(values(n_k), n_k, &gk), *v = as_halves(values(n_k), n_k, &gv);
    for (uint32_t t = 0; t < c.n_tok; t++)
        for (uint32_t h = 0; h < c.n_head; h++) {
            const size_t at = (size_t)(t * c.n_head + h) * c.head_dim;
            attend(&c, t, h, q + at, k, v, want + at);
        }
    uint32_t *last = kt_take(c.n_tok, 4);
    for (uint32_t t = 0; t < c.n_tok; t++) last[t] = last_seen(&c, t);
    const gpu_view gq = kt_in(q, n_q * 4), seen = kt_in(last, c.n_tok * 4);
    const kt_output out = kt_out(n_q * 4);
    const attention_args args = {.n_tok = c.n_tok,
                                 .n_head = c.n_head,
                                 .n_kv = c.n_kv,
                                 .head_dim = c.head_dim,
                                 .n_key = n_key,
                                 .first = c.first,
                                 .window = c.window,
                                 .pictures = c.n_picture > 0};
    begin();
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_attention,
                                        .args = &args,
                                        .views = {gq, gk, gv, seen, out.view},
                                        .x = div_up(c.n_tok * (c.n_head / c.n_kv), 32),
                                        .y = c.n_kv});
    end();
    char what[128];
    snprintf(what, sizeof what,
             "attention %u tok %u/%u heads dim %u first %u window %u picture %u at %u", c.n_tok,
             c.n_head, c.n_kv, c.head_dim, c.first, c.window, c.n_picture, c.picture);
    kt_compare(what, fetch(out), want, n_q, KT_F32);
    kt_reset();
}

static void test_attention(void **state) {
    (void)state;
    one_attention((attention_case){1, 1, 1, 32, 0, 0, 0, 0});
    one_attention((attention_case){31, 4, 2, 32, 0, 0, 0, 0});
    one_attention((attention_case){33, 4, 1, 64, 7, 16, 0, 0});
    one_attention((attention_case){65, 2, 2, 32, 64, 64, 0, 0});
    one_attention((attention_case){5, 8, 1, 256, 130, 0, 0, 0});
    one_attention((attention_case){7, 16, 1, 512, 70, 0, 0, 0});
    one_attention((attention_case){40, 6, 2, 128, 63, 32, 0, 0});
    one_attention((attention_case){70, 3, 1, 32, 200, 65, 0, 0});
    one_attention((attention_case){2, 1, 1, 32, 500, 1, 0, 0});
    one_attention((attention_case){50, 4, 2, 32, 0, 16, 3, 40}); /* pictures */
    one_attention((attention_case){150, 2, 1, 64, 33, 32, 0, 100});
    one_attention((attention_case){70, 3, 1, 32, 200, 65, 69, 1});
    one_attention((attention_case){9, 1, 1, 128, 5, 0, 2, 7});
}

/* ---- per-layer embeddings, scores ---- */

static void test_ple_input(void **state) {
    (void)state;
    const uint32_t n_tok = 3, n_run = 5, n_ple = 32, n = n_tok * n_run * n_ple;
    float *b = values(n), *a = values(n), *w = values(n_ple), *want = kt_take(n, 4);
    for (uint32_t i = 0; i < n; i++) want[i] = b[i] * 0.125f;
    ref_rmsnorm(want, w, n_tok * n_run, n_ple, EPS, want);
    for (uint32_t i = 0; i < n; i++) want[i] = (want[i] + a[i]) / sqrtf(2);
    const gpu_view vectors = kt_in(w, n_ple * 4), token = kt_in(a, n * 4);
    const kt_output e = kt_out_with(b, n * 4);
    const ple_input_args args = {
        .n_run = n_run, .n_ple = n_ple, .w_norm = 0, .eps = EPS, .in_scale = 0.125f};
    begin();
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_ple_input,
                                        .args = &args,
                                        .views = {vectors, token, e.view},
                                        .x = n_run,
                                        .y = n_tok});
    end();
    kt_compare("ple_input", fetch(e), want, n, KT_F32);
}

static void one_ple_rows(uint32_t type, uint32_t n_tok, uint32_t n_col, uint32_t n_out) {
    const uint64_t n = (uint64_t)n_tok * n_col;
    const uint8_t *blocks = kt_blocks(type, n, 1, seed++);
    float *all = kt_take(n, 4), *want = kt_take(n_tok * n_out, 4);
    quant_find(type)->dequantise(blocks, all, n);
    for (uint32_t t = 0; t < n_tok; t++)
        for (uint32_t c = 0; c < n_out; c++) want[t * n_out + c] = 1.5f * all[t * n_col + c];
    const gpu_view rows = kt_pack(type, blocks, n);
    const kt_output out = kt_out((size_t)n_tok * n_out * 4);
    const ple_rows_args args = {.n_tok = n_tok, .n_col = n_col, .n_out = n_out, .scale = 1.5f};
    begin();
    run_values(kt.steps,
               &(kernel_call){
                   .kernel = &kernel_ple_rows,
                   .formats = {type},
                   .args = &args,
                   .views = {rows, out.view},
               },
               n_tok * n_out / 16);
    end();
    kt_compare("ple_rows", fetch(out), want, (size_t)n_tok * n_out, KT_F32);
    kt_reset();
}

static void test_ple_rows(void **state) {
    (void)state;
    one_ple_rows(QUANT_F32, 1, 16, 16);
    one_ple_rows(QUANT_Q8_0, 33, 96, 80); /* the layers end inside a block */
    one_ple_rows(QUANT_Q6_K, 31, 768, 768);
    one_ple_rows(QUANT_Q4_K, 5, 512, 272);
}

static void test_ple_gate(void **state) {
    (void)state;
    const uint32_t n_tok = 7, n_ple = 48, n_layer = 3, il = 1, n = n_tok * n_ple;
    float *gate = values(n), *e = values(n * n_layer), *want = kt_take(n, 4);
    for (uint32_t i = 0; i < n; i++) {
        gate[i] *= 8;
        want[i] = ref_gelu(gate[i]) * e[i / n_ple * n_layer * n_ple + il * n_ple + i % n_ple];
    }
    const gpu_view input = kt_in(e, n * n_layer * 4);
    const kt_output out = kt_out_with(gate, n * 4);
    const ple_gate_args args = {
        .n_tok = n_tok, .n_ple = n_ple, .e_stride = n_layer * n_ple, .e0 = il * n_ple};
    begin();
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_ple_gate,
                                        .args = &args,
                                        .views = {input, out.view},
                                        .x = div_up(n, 256)});
    end();
    kt_compare("ple_gate", fetch(out), want, n, KT_F32);
}

static void one_logprob(uint32_t n_vocab, float cap) {
    const uint32_t n_tok = 4, target0 = 2;
    const int32_t targets[6] = {0, 0, 5, (int32_t)n_vocab - 1, -1, 0};
    float *logits = values(n_tok * n_vocab), want[4];
    for (uint32_t i = 0; i < n_tok * n_vocab; i++) logits[i] *= 60;
    const gpu_view in = kt_in(logits, n_tok * n_vocab * 4), to = kt_in(targets, sizeof targets);
    const kt_output out = kt_out(sizeof targets);
    const logprob_args args = {.n_vocab = n_vocab, .target0 = target0, .cap = cap};
    begin();
    kernel_run(kt.steps,
               &(kernel_call){
                   .kernel = &kernel_logprob, .args = &args, .views = {in, to, out.view}, .x = 4});
    end();
    for (uint32_t t = 0; t < n_tok; t++) {
        float *row = logits + t * n_vocab;
        double sum = 0;
        if (cap > 0) ref_softcap(row, n_vocab, cap);
        for (uint32_t i = 0; i < n_vocab; i++) sum += exp((double)row[i]);
        const int32_t target = targets[target0 + t];
        want[t] = target < 0 ? 0 : row[target] - (float)log(sum);
    }
    const float *got = fetch(out);
    for (uint32_t t = 0; t < n_tok; t++)
        assert_true(fabsf(got[target0 + t] - want[t]) < 1e-4f * (1 + fabsf(want[t])));
    kt_reset();
}

static void test_logprob(void **state) {
    (void)state;
    one_logprob(31, 0);
    one_logprob(257, 30);
    one_logprob(5000, 30);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm),      cmocka_unit_test(test_add_rmsnorm),
        cmocka_unit_test(test_ple_input),    cmocka_unit_test(test_ple_gate),
        cmocka_unit_test(test_logprob),      cmocka_unit_test(test_qkv_post),
        cmocka_unit_test(test_attention),    cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_matmul_geglu), cmocka_unit_test(test_ple_rows),
    };
    return RUN_TILED("kernels of prefill", tests);
}
