/* The kernels of the vision encoder against the CPU's operations: odd shapes, clamps, guard words
 * around the outputs. Needs an adapter; a software one is enough. */
#include "matrix_test.h"

#include "model/encoder_gpu.h"

/* ---- clamped matrices ---- */

/* A matrix with limits that bite; none: without. */
static clipped random_clipped(uint32_t type, uint32_t n_row, uint32_t n_col, uint32_t rows_a_tile,
                              bool none) {
    clipped c = {.w = *matrix(type, n_row, n_col, rows_a_tile),
                 .in_min = -INFINITY,
                 .in_max = INFINITY,
                 .out_min = -INFINITY,
                 .out_max = INFINITY};
    if (none) return c;
    c.in_min = -1.25f;
    c.in_max = 0.75f;
    c.out_min = -0.5f;
    c.out_max = 0.375f;
    return c;
}

static float *clipped_rows(const clipped *c, const float *x, uint32_t n_tok) {
    float *out = kt_take((size_t)n_tok * c->w.n_row, 4);
    float *scratch = kt_take((size_t)min_u32(n_tok, ENCODER_CHUNK) * c->w.n_col, 4);
    ref_clipped(c, x, n_tok, scratch, out);
    return out;
}

static void one_clipped(uint32_t type, uint32_t n_tok, uint32_t n_row, uint32_t n_col,
                        uint32_t rows_a_tile, bool none) {
    const clipped c = random_clipped(type, n_row, n_col, rows_a_tile, none);
    const size_t n = (size_t)n_tok * n_row;
    const float *x = values((size_t)n_tok * n_col);
    const float *want = clipped_rows(&c, x, n_tok);
    const gpu_view in = kt_in(x, (size_t)n_tok * n_col * 4);
    const kt_output out = kt_out(n * 4);
    begin();
    op_clipped(kt.steps, &c, in, out.view, n_tok);
    end();
    kt_compare("matmul_clipped", fetch(out), want, n, tile_bound(type));
    kt_reset();
}

static void test_clipped(void **state) {
    (void)state;
    one_clipped(QUANT_F16, 1, 1, 16, 1000, false);
    one_clipped(QUANT_F16, 65, 33, 48, 1000, false);
    one_clipped(QUANT_F16, 64, 64, 128, 1000, true);
    one_clipped(QUANT_BF16, 33, 150, 64, 70, false); /* three tiles */
    one_clipped(QUANT_Q8_0, 5, 33, 96, 16, false);
    one_clipped(QUANT_F16, 66, 129, 80, 1000, false);
}

static void one_geglu(uint32_t type, uint32_t n_tok, uint32_t n_ff, uint32_t n_col, uint32_t tile_a,
                      uint32_t tile_b, bool none) {
    clipped gate = random_clipped(type, n_ff, n_col, tile_a, none);
    clipped up = random_clipped(type, n_ff, n_col, tile_b, none);
    if (!none) up.out_max = 0.25f;
    const size_t n = (size_t)n_tok * n_ff;
    const float *x = values((size_t)n_tok * n_col);
    float *want = clipped_rows(&gate, x, n_tok);
    ref_geglu(want, clipped_rows(&up, x, n_tok), n, want);
    const gpu_view in = kt_in(x, (size_t)n_tok * n_col * 4);
    const kt_output out = kt_out(n * 4);
    begin();
    op_geglu_clipped(kt.steps, &gate, &up, in, out.view, n_tok);
    end();
    kt_compare("geglu_clipped", fetch(out), want, n, tile_bound(type));
    kt_reset();
}

static void test_geglu(void **state) {
    (void)state;
    one_geglu(QUANT_F16, 31, 33, 48, 100, 100, false);
    one_geglu(QUANT_F16, 65, 64, 32, 100, 100, true);
    one_geglu(QUANT_F16, 3, 100, 64, 40, 56, false); /* cut differently */
}

/* ---- pixels ---- */

static uint8_t *random_bytes(size_t n) {
    uint8_t *b = kt_take(n, 1);
    uint32_t s = 77 + seed++;
    for (size_t i = 0; i < n; i++) b[i] = (uint8_t)(kt_random(&s) >> 11);
    return b;
}

static void one_patch(uint32_t n_wide, uint32_t n_high, uint32_t n_embd, uint32_t n_col,
                      uint32_t rows_a_tile) {
    const uint32_t n = n_wide * n_high;
    const weight *w = matrix(QUANT_F16, n_embd, n_col, rows_a_tile);
    const uint8_t *bytes = random_bytes((size_t)n * n_col);
    const float *places = values((size_t)(n_wide + n_high) * n_embd);
    float *p = kt_take((size_t)n * n_col, 4), *want = kt_take((size_t)n * n_embd, 4);
    for (size_t i = 0; i < (size_t)n * n_col; i++) p[i] = 2 * ((float)bytes[i] / 255) - 1;
    ref_matmul(w, 0, p, n, want);
    for (size_t i = 0; i < (size_t)n * n_embd; i++) {
        const size_t t = i / n_embd, j = i % n_embd;
        want[i] += places[t % n_wide * n_embd + j] + places[(n_wide + t / n_wide) * n_embd + j];
    }
    const gpu_view pixels = kt_in(bytes, (size_t)n * n_col);
    const gpu_view where = kt_in(places, (size_t)(n_wide + n_high) * n_embd * 4);
    const kt_output to = kt_out((size_t)n * n_embd * 4);
    begin();
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const vision_patch_args args = {.n_tok = n,
                                        .n_row = w->tiles[i].n_row,
                                        .n_col = n_col,
                                        .n_wide = n_wide,
                                        .out0 = w->tiles[i].row0,
                                        .out_stride = n_embd,
                                        .scale = w->scale};
        kernel_run(kt.steps,
                   &(kernel_call){.kernel = &kernel_vision_patch,
                                  .formats = {w->type},
                                  .args = &args,
                                  .views = {pixels, {.buffer = w->tiles[i].buffer}, where, to.view},
                                  .x = div_up(args.n_row, 64),
                                  .y = div_up(n, 64)});
    }
    end();
    kt_compare("vision_patch", fetch(to), want, (size_t)n * n_embd, KT_F32);
    kt_reset();
}

static void test_patch(void **state) {
    (void)state;
    one_patch(3, 3, 16, 48, 100);
    one_patch(9, 15, 80, 768, 100);
    one_patch(12, 6, 130, 192, 64);
}

static void test_pixels(void **state) {
    (void)state;
    static const uint32_t widths[] = {48, 1028, 6912};
    for (size_t i = 0; i < COUNT(widths); i++) {
        const uint32_t n = widths[i], n_tok = 3;
        const uint8_t *bytes = random_bytes(n_tok * n);
        const float *w = values(4 + 2 * n);
        float *want = kt_take(n_tok * n, 4);
        for (uint32_t j = 0; j < n_tok * n; j++) want[j] = (float)bytes[j] / 255;
        ref_layernorm(want, w + 4, w + 4 + n, n_tok, n, 1e-5f, want);
        const gpu_view vectors = kt_in(w, (4 + 2 * n) * 4), pixels = kt_in(bytes, n_tok * n);
        const kt_output to = kt_out(n_tok * n * 4);
        const vision_pixels_args args = {.n = n, .w_norm = 4, .w_bias = 4 + n, .eps = 1e-5f};
        begin();
        kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_vision_pixels,
                                            .args = &args,
                                            .views = {vectors, pixels, to.view},
                                            .x = n_tok});
        end();
        kt_compare("vision_pixels", fetch(to), want, n_tok * n, KT_F32);
        kt_reset();
    }
}

static void one_places(uint32_t n_wide, uint32_t n_high, uint32_t n) {
    const uint32_t n_tok = n_wide * n_high;
    const float *x = values(n_tok * n), *w = values(5 * n), *at = values((n_wide + n_high) * n);
    float *want = kt_take(n_tok * n, 4);
    for (uint32_t i = 0; i < n_tok * n; i++) want[i] = x[i] + w[i % n];
    ref_layernorm(want, w + n, w + 2 * n, n_tok, n, 1e-5f, want);
    for (uint32_t i = 0; i < n_tok * n; i++) {
        const uint32_t t = i / n, j = i % n;
        want[i] += at[t % n_wide * n + j] + at[(n_wide + t / n_wide) * n + j];
    }
    ref_layernorm(want, w + 3 * n, w + 4 * n, n_tok, n, 1e-5f, want);
    const gpu_view vectors = kt_in(w, 5 * n * 4), places = kt_in(at, (n_wide + n_high) * n * 4);
    const kt_output to = kt_out_with(x, n_tok * n * 4);
    const vision_places_args args = {.n = n,
                                     .n_wide = n_wide,
                                     .bias = 0,
                                     .w_2 = n,
                                     .b_2 = 2 * n,
                                     .w_3 = 3 * n,
                                     .b_3 = 4 * n,
                                     .eps = 1e-5f};
    begin();
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_vision_places,
                                        .args = &args,
                                        .views = {vectors, places, to.view},
                                        .x = n_tok});
    end();
    kt_compare("vision_places", fetch(to), want, n_tok * n, KT_F32);
    kt_reset();
}

static void test_places(void **state) {
    (void)state;
    one_places(2, 3, 36);
    one_places(5, 1, 1028);
}

/* ---- heads ---- */

static float *halves_of(kt_output out, size_t n) {
    const uint16_t *half = fetch(out);
    float *v = kt_take(n, 4);
    for (size_t i = 0; i < n; i++) v[i] = half_to_float(half[i]);
    return v;
}

/* vision_cpu.c's rotation of all patches' heads. */
static void rotate(const vision_config *c, uint32_t n_wide, uint32_t n_high, const float *cos_sin,
                   float *x) {
    const uint32_t half = c->head_dim / 2;
    for (uint32_t i = 0; i < n_wide * n_high; i++)
        for (uint32_t h = 0; h < c->n_head; h++, x += c->head_dim) {
            ref_rope(x, cos_sin + i % n_wide * half, 1, half, half / 2);
            ref_rope(x + half, cos_sin + i / n_wide * half, 1, half, half / 2);
        }
}

static void one_qkv(uint32_t n_wide, uint32_t n_high, uint32_t n_head, uint32_t head_dim) {
    const vision_config c = {.n_head = n_head, .head_dim = head_dim, .rope_base = 100};
    const uint32_t n_tok = n_wide * n_high, rows = n_tok * n_head, most = max_u32(n_wide, n_high);
    const size_t n = (size_t)rows * head_dim;
    const float *q = values(n), *k = values(n), *v = values(n), *w = values(2 * head_dim);
    float *want_q = kt_take(n, 4), *want_k = kt_take(n, 4), *want_v = kt_take(n, 4);
    float *cos_sin = kt_take((size_t)most * head_dim / 2, 4);
    vision_rope_rows(&c, most, cos_sin);
    ref_rmsnorm(q, w, rows, head_dim, EPS, want_q);
    ref_rmsnorm(k, w + head_dim, rows, head_dim, EPS, want_k);
    ref_rmsnorm(v, NULL, rows, head_dim, EPS, want_v);
    rotate(&c, n_wide, n_high, cos_sin, want_q);
    rotate(&c, n_wide, n_high, cos_sin, want_k);
    const gpu_view vectors = kt_in(w, 2 * head_dim * 4);
    const gpu_view angles = kt_in(cos_sin, (size_t)most * head_dim * 2);
    const gpu_view gk = kt_in(k, n * 4), gv = kt_in(v, n * 4);
    const kt_output gq = kt_out_with(q, n * 4), to_k = kt_out(n * 2), to_v = kt_out(n * 2);
    const vision_qkv_args args = {.n_tok = n_tok,
                                  .n_head = n_head,
                                  .head_dim = head_dim,
                                  .n_wide = n_wide,
                                  .w_q = 0,
                                  .w_k = head_dim,
                                  .eps = EPS};
    begin();
    kernel_run(kt.steps,
               &(kernel_call){.kernel = &kernel_vision_qkv,
                              .args = &args,
                              .views = {vectors, angles, gk, gv, gq.view, to_k.view, to_v.view},
                              .x = div_up(rows * 3, 16)});
    end();
    kt_compare("vision_qkv: q", fetch(gq), want_q, n, KT_F32);
    kt_compare("vision_qkv: k", halves_of(to_k, n), want_k, n, KT_F16);
    kt_compare("vision_qkv: v", halves_of(to_v, n), want_v, n, KT_F16);
    kt_reset();
}

static void test_qkv(void **state) {
    (void)state;
    one_qkv(1, 1, 1, 8);
    one_qkv(3, 6, 3, 64);
    one_qkv(9, 3, 2, 72);
    one_qkv(6, 3, 5, 32);
    one_qkv(3, 3, 1, 80);
}

/* From query `first` on; those before must be untouched. */
static void one_attention(const kernel *variant, uint32_t n_tok, uint32_t n_head, uint32_t head_dim,
                          uint32_t first, float size) {
    const uint32_t stride = n_head * head_dim;
    const size_t n = (size_t)n_tok * stride, skip = (size_t)first * stride;
    float *q = values(n), *k = values(n), *v = values(n), *want = kt_take(n, 4);
    float *scores = kt_take(n_tok, 4);
    uint16_t *half_k = kt_take(n, 2), *half_v = kt_take(n, 2);
    for (size_t i = 0; i < n; i++) {
        q[i] *= size / sqrtf((float)head_dim);
        k[i] = half_to_float(half_k[i] = float_to_half(k[i]));
        v[i] = half_to_float(half_v[i] = float_to_half(v[i]));
    }
    for (uint32_t t = first; t < n_tok; t++)
        for (uint32_t h = 0; h < n_head; h++) {
            const size_t at = (size_t)t * stride + h * head_dim;
            ref_attend(q + at, k + h * head_dim, v + h * head_dim, n_tok, stride, head_dim, scores,
                       want + at);
        }
    const gpu_view gq = kt_in(q, n * 4), gk = kt_in(half_k, n * 2), gv = kt_in(half_v, n * 2);
    const kt_output out = kt_out(n * 4);
    const vision_attention_args args = {.n_tok = n_tok, .n_head = n_head, .first = first};
    const gpu_constant dim = {"HEAD_DIM", head_dim};
    begin();
    kernel_run(kt.steps, &(kernel_call){.kernel = variant,
                                        .constants = &dim,
                                        .n_constant = 1,
                                        .args = &args,
                                        .views = {gq, gk, gv, out.view},
                                        .x = div_up(n_tok - first, 64),
                                        .y = n_head});
    end();
    const float *got = fetch(out);
    char what[96];
    snprintf(what, sizeof what, "vision_attention %u patches %u heads dim %u from %u", n_tok,
             n_head, head_dim, first);
    for (size_t i = 0; i < skip; i++) assert_memory_equal(&got[i], "\xa5\xa5\xa5\xa5", 4);
    kt_compare(what, got + skip, want + skip, n - skip, KT_F32);
    kt_reset();
}

static void test_attention(void **state) {
    (void)state;
    for (const kernel *k = NULL; (k = kt_next(&kernel_vision_attention, k));) {
        one_attention(k, 1, 2, 64, 0, 4);
        one_attention(k, 63, 2, 64, 0, 4);
        one_attention(k, 65, 3, 64, 0, 60); /* near one-hot */
        one_attention(k, 190, 2, 64, 128, 4);
        one_attention(k, 97, 2, 72, 64, 4);
        one_attention(k, 130, 3, 32, 0, 4);
    }
}

/* ---- soft tokens ---- */

static void one_pool(uint32_t n_col, uint32_t n_row, uint32_t pool, uint32_t n, bool standardize) {
    const uint32_t n_soft = n_col * n_row, n_wide = n_col * pool;
    const float *x = values((size_t)n_soft * pool * pool * n), *w = values(2 * n);
    float *want = kt_take((size_t)n_soft * n, 4), *norm = kt_take((size_t)n_soft * n, 4);
    for (uint32_t i = 0; i < n_soft * n; i++) {
        const uint32_t s = i / n, c = s % n_col * pool, r = s / n_col * pool, j = i % n;
        for (uint32_t p = 0; p < pool * pool; p++)
            want[i] += x[((r + p / pool) * n_wide + c + p % pool) * n + j];
        want[i] *= 3.5f / (float)(pool * pool);
        if (standardize) want[i] = (want[i] - w[j]) * w[n + j];
    }
    ref_rmsnorm(want, NULL, n_soft, n, EPS, norm);
    const gpu_view vectors = kt_in(w, 2 * n * 4);
    const gpu_view in = kt_in(x, (size_t)n_soft * pool * pool * n * 4);
    const kt_output tower = kt_out((size_t)n_soft * n * 4), to = kt_out((size_t)n_soft * n * 4);
    const vision_pool_args args = {.n_embd = n,
                                   .pool = pool,
                                   .n_wide = n_wide,
                                   .w_bias = 0,
                                   .w_scale = standardize ? n : UINT32_MAX,
                                   .eps = EPS,
                                   .scale = 3.5f};
    begin();
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_vision_pool,
                                        .args = &args,
                                        .views = {vectors, in, tower.view, to.view},
                                        .x = n_soft});
    end();
    kt_compare("vision_pool: tower", fetch(tower), want, n_soft * n, KT_F32);
    kt_compare("vision_pool", fetch(to), norm, n_soft * n, KT_F32);
    kt_reset();
}

static void test_pool(void **state) {
    (void)state;
    one_pool(1, 1, 3, 4, false);
    one_pool(5, 3, 3, 192, true);
    one_pool(2, 4, 1, 1028, false);
    one_pool(3, 2, 2, 36, true);
}

static void test_scale(void **state) {
    (void)state;
    const uint32_t n = 1028, n_tok = 3;
    const float *x = values(n_tok * n), *w = values(8 + n);
    float *want = kt_take(n_tok * n, 4);
    for (uint32_t i = 0; i < n_tok * n; i++) want[i] = x[i] * w[8 + i % n];
    const gpu_view vectors = kt_in(w, (8 + n) * 4);
    const kt_output to = kt_out_with(x, n_tok * n * 4);
    const vision_scale_args args = {.n = n, .w_scale = 8};
    begin();
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_vision_scale,
                                        .args = &args,
                                        .views = {vectors, to.view},
                                        .x = n_tok});
    end();
    kt_compare("vision_scale", fetch(to), want, n_tok * n, KT_F32);
    kt_reset();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clipped),   cmocka_unit_test(test_geglu),
        cmocka_unit_test(test_patch),     cmocka_unit_test(test_pixels),
        cmocka_unit_test(test_places),    cmocka_unit_test(test_qkv),
        cmocka_unit_test(test_pool),      cmocka_unit_test(test_scale),
        cmocka_unit_test(test_attention),
    };
    return RUN_TILED("kernels of vision", tests);
}
