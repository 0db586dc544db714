/* The kernel table: what only the audio encoder needs, at odd shapes, against loops that say the
 * same. Its matrices are in the vision encoder's table and prefill's, but for what follows an up
 * matrix. */
#include "matrix_test.h"

#include "model/encoder.h"
#include "model/encoder_gpu.h"

#define NONE  UINT32_MAX
#define LIMIT 3.0f /* of values, low enough to matter */

static float sigmoid(float x) { return 1 / (1 + expf(-x)); }
static float cut(float x, float limit) { return fminf(fmaxf(x, -limit), limit); }

static void fill(float *x, size_t n, float value) {
    for (size_t i = 0; i < n; i++) x[i] = value;
}

/* ---- convolutions ---- */

typedef struct conv_case {
    uint32_t n_row, n_band, n_in, n_out; /* of the whole sound */
    uint32_t first, n;                   /* rows that are made; those of x begin where needed */
} conv_case;

/* One row of all bands; w [3, 3, n_in, n_out] */
static void convolve(const conv_case *c, const float *x, const float *w, const float *norm,
                     uint32_t row, float *out) {
    for (uint32_t b = 0; b < c->n_band / 2; b++, out += c->n_out) {
        fill(out, c->n_out, 0);
        for (uint32_t at = 0; at < 9; at++) {
            const int64_t r = 2 * (int64_t)row + at / 3 - 1, s = 2 * (int64_t)b + at % 3 - 1;
            if (r < 0 || r >= c->n_row || s < 0 || s >= c->n_band) continue;
            for (uint32_t i = 0; i < c->n_in; i++)
                for (uint32_t o = 0; o < c->n_out; o++)
                    out[o] += w[(at * c->n_in + i) * c->n_out + o] *
                              x[((uint64_t)r * c->n_band + (uint64_t)s) * c->n_in + i];
        }
        ref_layernorm(out, norm, NULL, 1, c->n_out, EPS, out);
        for (uint32_t o = 0; o < c->n_out; o++) out[o] = fmaxf(out[o], 0);
    }
}

static void one_conv(const kernel *k, conv_case c) {
    const uint32_t row = c.n_band * c.n_in, out_row = c.n_band / 2 * c.n_out, quads = c.n_out / 4;
    const uint32_t n_w = 9 * c.n_in * c.n_out, x_first = c.first ? 2 * c.first - 1 : 0;
    float *x = values((size_t)c.n_row * row), *w = values(8 + n_w), *norm = values(4 + c.n_out);
    float *want = kt_take((size_t)c.n * out_row, 4);
    for (uint32_t i = 0; i < c.n_row * row; i++) x[i] -= 4; /* as logarithms are */
    for (uint32_t i = 0; i < c.n; i++)
        convolve(&c, x, w + 8, norm + 4, c.first + i, want + (size_t)i * out_row);
    const gpu_view in = kt_in(x + (size_t)x_first * row, (size_t)(c.n_row - x_first) * row * 4);
    const kt_output out = kt_out((size_t)c.n * out_row * 4);
    const audio_conv_args args = {
        .n_row = c.n_row,
        .n_band = c.n_band,
        .n_in = c.n_in,
        .x_first = x_first,
        .out_first = c.first,
        .n_out_row = c.n,
        .w = 8,
        .w_norm = 4,
        .eps = EPS,
    };
    kt_run(&(kernel_call){
        .kernel = k,
        .constants = &(gpu_constant){"QUADS", quads},
        .n_constant = 1,
        .args = &args,
        .views = {kt_in(w, (8 + n_w) * 4), kt_in(norm, (4 + c.n_out) * 4), in, out.view},
        .x = div_up(c.n * (c.n_band / 8), 256 / quads),
    });
    kt_compare(k->name, fetch(out), want, (size_t)c.n * out_row, KT_F32);
    kt_reset();
}

static void test_conv(void **state) {
    (void)state;
    for (const kernel *k = NULL; (k = kt_next(&kernel_audio_conv, k));) {
        one_conv(k, (conv_case){1, 8, 1, 4, 0, 1});
        one_conv(k, (conv_case){9, 128, 1, 128, 0, 5});
        one_conv(k, (conv_case){8, 64, 128, 32, 0, 4});
        one_conv(k, (conv_case){13, 24, 12, 20, 3, 4}); /* a piece, up to the end */
        one_conv(k, (conv_case){40, 16, 3, 12, 7, 9});  /* from the middle */
        one_conv(k, (conv_case){3, 8, 5, 1024, 0, 2});
    }
}

/* ---- attention ---- */

typedef struct hear_case {
    uint32_t n_tok, n_head, head_dim, per_group;
    float size; /* of queries: how peaked it is */
} hear_case;

static void hear(const hear_case *c, const float *const *qkvr, const float *dim, uint32_t t,
                 uint32_t h, float *out) {
    const uint32_t hd = c->head_dim, d = c->n_head * hd, n = min_u32(t + 1, AUDIO_REACH);
    const float *q = qkvr[0] + t * d + h * hd;
    float s[AUDIO_REACH];
    for (uint32_t far = 0; far < n; far++) {
        double sum = 0;
        for (uint32_t i = 0; i < hd; i++) {
            const float key = 1.5f * qkvr[1][(t - far) * d + h * hd + i];
            sum += (double)(q[i] * 0.25f * dim[i]) * (double)(key + qkvr[3][far * d + h * hd + i]);
        }
        s[far] = (float)sum;
    }
    ref_softcap(s, n, 5);
    ref_softmax(s, n);
    for (uint32_t i = 0; i < hd; i++) {
        out[i] = 0;
        for (uint32_t far = 0; far < n; far++)
            out[i] += s[far] * qkvr[2][(t - far) * d + h * hd + i];
    }
}

static void one_attention(const kernel *k, hear_case c) {
    const uint32_t d = c.n_head * c.head_dim, n = c.n_tok * d;
    float *q = values(n), *key = values(n), *v = values(n), *rel = values(AUDIO_REACH * d);
    float *dim = values(8 + c.head_dim), *want = kt_take(n, 4);
    for (uint32_t i = 0; i < n; i++) q[i] *= c.size;
    const float *const qkvr[4] = {q, key, v, rel};
    for (uint32_t t = 0; t < c.n_tok; t++)
        for (uint32_t h = 0; h < c.n_head; h++)
            hear(&c, qkvr, dim + 8, t, h, want + t * d + h * c.head_dim);
    float *qkv = kt_take(3 * n, 4);
    for (uint32_t i = 0; i < 3 * n; i++) qkv[i] = qkvr[i / d % 3][i / (3 * d) * d + i % d];
    const kt_output out = kt_out(n * 4);
    const audio_attention_args args = {
        .n_tok = c.n_tok,
        .n_head = c.n_head,
        .head_dim = c.head_dim,
        .w_dim = 8,
        .q_scale = 0.25f,
        .k_scale = 1.5f,
        .cap = 5,
    };
    kt_run(&(kernel_call){
        .kernel = k,
        .constants = &(gpu_constant){"TOKENS", c.per_group},
        .n_constant = 1,
        .args = &args,
        .views = {kt_in(dim, (8 + c.head_dim) * 4), kt_in(rel, AUDIO_REACH * d * 4),
                  kt_in(qkv, 3 * n * 4), out.view},
        .x = div_up(c.n_tok, c.per_group),
        .y = c.n_head,
    });
    kt_compare(k->name, fetch(out), want, n, KT_F32);
    kt_reset();
}

static void test_attention(void **state) {
    (void)state;
    for (const kernel *k = NULL; (k = kt_next(&kernel_audio_attention, k));) {
        one_attention(k, (hear_case){1, 1, 4, 16, 1});
        one_attention(k, (hear_case){11, 3, 12, 16, 1});
        one_attention(k, (hear_case){37, 4, 32, 16, 8});
        one_attention(k, (hear_case){33, 8, 128, 16, 1});
        one_attention(k, (hear_case){30, 2, 20, 16, 1000}); /* far beyond the cap */
    }
}

/* ---- the convolution module ---- */

static void one_glu(const kernel *k, uint32_t n_tok, uint32_t n, uint32_t n_kernel, float size) {
    float *x = values((size_t)n_tok * 2 * n), *w = values(4 + n * n_kernel + n);
    const float *conv = w + 4, *norm = conv + n * n_kernel;
    float *want = kt_take((size_t)n_tok * n, 4);
    for (uint32_t i = 0; i < n_tok * 2 * n; i++) x[i] *= size;
    for (uint32_t t = 0; t < n_tok; t++)
        for (uint32_t i = 0; i < n; i++) {
            float sum = 0;
            for (uint32_t j = 0; j < n_kernel && j <= t; j++) {
                const float *row = x + (size_t)(t - j) * 2 * n;
                sum += conv[i * n_kernel + n_kernel - 1 - j] * row[i] * sigmoid(row[n + i]);
            }
            want[t * n + i] = cut(sum, LIMIT);
        }
    ref_rmsnorm(want, norm, n_tok, n, EPS, want);
    for (uint32_t i = 0; i < n_tok * n; i++) want[i] *= sigmoid(want[i]);
    const kt_output out = kt_out((size_t)n_tok * n * 4);
    const audio_glu_conv_args args = {
        .n = n,
        .n_kernel = n_kernel,
        .w_conv = 4,
        .w_norm = 4 + n * n_kernel,
        .eps = EPS,
        .limit = LIMIT,
    };
    kt_run(&(kernel_call){
        .kernel = k,
        .args = &args,
        .views = {kt_in(w, (4 + n * n_kernel + n) * 4), kt_in(x, (size_t)n_tok * 2 * n * 4),
                  out.view},
        .x = n_tok,
    });
    kt_compare(k->name, fetch(out), want, (size_t)n_tok * n, KT_F32);
    kt_reset();
}

static void test_glu_conv(void **state) {
    (void)state;
    for (const kernel *k = NULL; (k = kt_next(&kernel_audio_glu_conv, k));) {
        one_glu(k, 1, 4, 5, 1);
        one_glu(k, 7, 36, 5, 1);
        one_glu(k, 9, 128, 3, 4);
        one_glu(k, 3, 1028, 5, 1);
        one_glu(k, 4, 16, 1, 300); /* sigmoids of what exp() cannot say */
    }
}

/* ---- seams, the end ---- */

typedef struct add_case {
    uint32_t n_tok, n, n_part;
    bool post, at_end, next;
} add_case;

static void one_add(const kernel *k, add_case c) {
    const uint32_t n_tok = c.n_tok, n = c.n, all = n_tok * n;
    float *x = values(all), *u = values(c.n_part * all), *w = values(3 * n);
    float *y = kt_take(all, 4), *norm = kt_take(all, 4);
    for (uint32_t i = 0; i < all; i++) x[i] *= 2;
    for (uint32_t i = 0; i < c.n_part * all; i++) u[i] *= 2;
    for (uint32_t i = 0; i < all; i++) {
        for (uint32_t p = 0; p < c.n_part; p++) y[i] += u[p * all + i];
        y[i] = fminf(fmaxf(y[i], -4), 5);
        if (c.post) y[i] = cut(y[i], LIMIT);
    }
    if (c.post) ref_rmsnorm(y, w, n_tok, n, EPS, y);
    for (uint32_t i = 0; i < all; i++) y[i] = x[i] + 0.5f * y[i];
    for (uint32_t i = 0; c.at_end && i < all; i++) y[i] = cut(y[i], LIMIT);
    if (c.at_end) ref_rmsnorm(y, w + n, n_tok, n, EPS, y);
    for (uint32_t i = 0; i < all; i++) norm[i] = cut(y[i], LIMIT);
    ref_rmsnorm(norm, w + 2 * n, n_tok, n, EPS, norm);
    const kt_output stream = kt_out_with(x, all * 4), out = kt_out(all * 4);
    const audio_add_norm_args args = {
        .n = n,
        .n_tok = n_tok,
        .n_part = c.n_part,
        .w_post = c.post ? 0 : NONE,
        .w_out = c.at_end ? n : NONE,
        .w_norm = c.next ? 2 * n : NONE,
        .eps = EPS,
        .scale = 0.5f,
        .limit = LIMIT,
        .out_min = -4,
        .out_max = 5,
    };
    kt_run(&(kernel_call){
        .kernel = k,
        .args = &args,
        .views = {kt_in(w, 3 * n * 4), kt_in(u, c.n_part * all * 4), stream.view, out.view},
        .x = n_tok,
    });
    kt_compare("audio_add_norm: x", fetch(stream), y, all, KT_F32);
    const float *got = fetch(out);
    if (c.next) kt_compare(k->name, got, norm, all, KT_F32);
    if (!c.next) assert_memory_equal(got, "\xa5\xa5\xa5\xa5", 4);
    kt_reset();
}

static void test_add_norm(void **state) {
    (void)state;
    for (const kernel *k = NULL; (k = kt_next(&kernel_audio_add_norm, k));) {
        one_add(k, (add_case){1, 4, 1, true, false, true});
        one_add(k, (add_case){3, 128, 1, true, true, true});
        one_add(k, (add_case){2, 1540, 3, false, false, true});
        one_add(k, (add_case){5, 36, 4, true, true, false});
        one_add(k, (add_case){2, 260, 2, false, true, true});
    }
}

static void one_tower(const kernel *k, uint32_t n_tok, uint32_t n, bool bias) {
    const uint32_t all = n_tok * n;
    float *x = values(all), *w = values(4 + n), *y = kt_take(all, 4), *norm = kt_take(all, 4);
    for (uint32_t i = 0; i < all; i++) y[i] = x[i] + (bias ? w[4 + i % n] : 0);
    ref_rmsnorm(y, NULL, n_tok, n, EPS, norm);
    const kt_output tower = kt_out_with(x, all * 4), out = kt_out(all * 4);
    const audio_tower_args args = {.n = n, .w_bias = bias ? 4 : NONE, .eps = EPS};
    kt_run(&(kernel_call){
        .kernel = k,
        .args = &args,
        .views = {kt_in(w, (4 + n) * 4), tower.view, out.view},
        .x = n_tok,
    });
    kt_compare("audio_tower: x", fetch(tower), y, all, KT_F32);
    kt_compare(k->name, fetch(out), norm, all, KT_F32);
    kt_reset();
}

static void test_tower(void **state) {
    (void)state;
    for (const kernel *k = NULL; (k = kt_next(&kernel_audio_tower, k));) {
        one_tower(k, 1, 16, true);
        one_tower(k, 3, 1536, true);
        one_tower(k, 5, 640, false);
    }
}

/* ---- matrices ---- */

static clipped random_clipped(uint32_t n_row, uint32_t n_col, uint32_t rows_a_tile, float size) {
    return (clipped){.w = *matrix(QUANT_F32, n_row, n_col, rows_a_tile),
                     .in_min = -1.5f * size,
                     .in_max = size,
                     .out_min = -size,
                     .out_max = 0.5f * size};
}

static float *product(const clipped *c, const float *x, uint32_t n_tok) {
    float *scratch = kt_take((size_t)n_tok * c->w.n_col, 4);
    float *out = kt_take((size_t)n_tok * c->w.n_row, 4);
    ref_clipped(c, x, n_tok, scratch, out);
    return out;
}

static void one_silu(uint32_t n_tok, uint32_t n_row, uint32_t n_col, float size) {
    const clipped c = random_clipped(n_row, n_col, 48, size);
    const uint32_t n = n_tok * n_row;
    float *x = values((size_t)n_tok * n_col);
    for (uint32_t i = 0; i < n_tok * n_col; i++) x[i] *= size;
    float *want = product(&c, x, n_tok);
    for (uint32_t i = 0; i < n; i++) want[i] *= sigmoid(want[i]);
    const gpu_view in = kt_in(x, (size_t)n_tok * n_col * 4);
    const kt_output out = kt_out(n * 4);
    begin();
    op_clipped_silu(kt.steps, &c, in, out.view, n_tok);
    end();
    kt_compare("matmul_clipped with silu", fetch(out), want, n, tile_bound(c.w.type));
    kt_reset();
}

static void test_clipped_silu(void **state) {
    (void)state;
    one_silu(1, 3, 16, 1);
    one_silu(65, 70, 48, 1);
    one_silu(3, 33, 64, 200);
}

/* Parts add up to what one makes; clamping is the adder's. */
static void one_parts(uint32_t n_tok, uint32_t n_row, uint32_t n_col, uint32_t n_part) {
    const clipped c = random_clipped(n_row, n_col, 40, 1);
    const uint32_t n = n_tok * n_row;
    const float *x = values((size_t)n_tok * n_col), *want = product(&c, x, n_tok);
    const gpu_view in = kt_in(x, (size_t)n_tok * n_col * 4);
    const kt_output out = kt_out(n_part * n * 4);
    begin();
    op_clipped_parts(kt.steps, &c, in, out.view, n_tok, n_part);
    end();
    float *parts = fetch(out);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t p = 1; p < n_part; p++) parts[i] += parts[p * n + i];
        parts[i] = fminf(fmaxf(parts[i], c.out_min), c.out_max);
    }
    kt_compare("matmul_clipped in parts", parts, want, n, tile_bound(c.w.type));
    kt_reset();
}

static void test_clipped_parts(void **state) {
    (void)state;
    one_parts(3, 5, 128, 2);
    one_parts(65, 70, 176, 4); /* the last part is shorter */
    one_parts(2, 9, 48, 3);    /* and here empty */
    clipped c = {.w = {.n_row = 1024, .n_col = 4096}};
    assert_int_equal(op_clipped_count(&c, 750), 4);
    c.w.n_col = 1024;
    assert_int_equal(op_clipped_count(&c, 750), 2);
    assert_int_equal(op_clipped_count(&c, 100000), 1);
    c.w.n_col = 128;
    assert_int_equal(op_clipped_count(&c, 1), 1);
}

static void one_qkv(const uint32_t *types, uint32_t n_tok, uint32_t n_row, uint32_t n_col) {
    clipped c[3];
    float *want = kt_take((size_t)n_tok * 3 * n_row, 4);
    const float *x = values((size_t)n_tok * n_col);
    for (uint32_t z = 0; z < 3; z++) {
        c[z] = random_clipped(1, n_col, 1, 0.5f + 0.5f * (float)z);
        c[z].w = *matrix(types[z], n_row, n_col, n_row);
        const float *part = product(&c[z], x, n_tok);
        for (uint32_t t = 0; t < n_tok; t++)
            memcpy(want + (3 * t + z) * n_row, part + t * n_row, n_row * sizeof *want);
    }
    const kt_output out = kt_out((size_t)n_tok * 3 * n_row * 4);
    const audio_qkv_args args = {
        .n_tok = n_tok,
        .n_row = n_row,
        .n_col = n_col,
        .q_scale = c[0].w.scale,
        .q_in_min = c[0].in_min,
        .q_in_max = c[0].in_max,
        .q_out_min = c[0].out_min,
        .q_out_max = c[0].out_max,
        .k_scale = c[1].w.scale,
        .k_in_min = c[1].in_min,
        .k_in_max = c[1].in_max,
        .k_out_min = c[1].out_min,
        .k_out_max = c[1].out_max,
        .v_scale = c[2].w.scale,
        .v_in_min = c[2].in_min,
        .v_in_max = c[2].in_max,
        .v_out_min = c[2].out_min,
        .v_out_max = c[2].out_max,
    };
    const gpu_view in = kt_in(x, (size_t)n_tok * n_col * 4);
    begin();
    run_tiles(kt.steps,
              (kernel_call){
                  .kernel = &kernel_audio_qkv,
                  .formats = {types[0], types[1], types[2]},
                  .args = &args,
                  .views = {in, whole(c[0].w.tiles->buffer), whole(c[1].w.tiles->buffer),
                            whole(c[2].w.tiles->buffer), out.view},
                  .z = 3,
              },
              n_tok, n_row);
    end();
    kt_compare("audio_qkv", fetch(out), want, (size_t)n_tok * 3 * n_row, tile_bound(types[0]));
    kt_reset();
}

static void test_qkv(void **state) {
    (void)state;
    const uint32_t same[3] = {QUANT_F32, QUANT_F32, QUANT_F32};
    const uint32_t mixed[3] = {QUANT_BF16, QUANT_F16, QUANT_Q8_0};
    one_qkv(same, 1, 5, 16);
    one_qkv(same, 66, 67, 48);
    one_qkv(mixed, 7, 33, 96);
    one_qkv(mixed, 70, 150, 96);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv),          cmocka_unit_test(test_attention),
        cmocka_unit_test(test_glu_conv),      cmocka_unit_test(test_add_norm),
        cmocka_unit_test(test_tower),         cmocka_unit_test(test_clipped_silu),
        cmocka_unit_test(test_clipped_parts), cmocka_unit_test(test_qkv),
    };
    return RUN_TILED("kernels of the audio encoder", tests);
}
