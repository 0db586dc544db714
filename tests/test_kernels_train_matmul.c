/* The products of training on the device against those on the CPU: odd shapes, formats, weights in
 * tiles, setting and adding, guard words around the outputs. Needs an adapter; a software one is
 * enough. */
#include "matrix_test.h"

#include "train/back.h"
#include "train/ops_train.h"

static const uint32_t sizes[] = {1, 31, 33, 63, 64, 65};

/* What is in the output before: old values to add to, or to replace. */
static kt_output out_before(float *want, size_t n, bool add) {
    float *old = values(n);
    for (size_t i = 0; i < n && add; i++) want[i] += old[i];
    return kt_out_with(old, n * 4);
}

/* A matrix on the device and as the weight of `scale` that the references take. */
static matrix_gpu adapter(uint32_t n_row, uint32_t n_col, float scale, weight *w) {
    const size_t n = (size_t)n_row * n_col;
    float *m = values(n);
    *w = (weight){.type = QUANT_F32, .n_row = n_row, .n_col = n_col, .n_expert = 1, .scale = scale};
    w->host = (const uint8_t *)m;
    return (matrix_gpu){kt_in(m, n * 4), n_row, n_col};
}

/* For eight parts of n values. */
static parts_gpu room_for(size_t n) {
    return (parts_gpu){whole(kt_buffer(8 * n * 4, GPU_STORAGE)), 8 * n};
}

static void one_back_matmul(uint32_t type, uint32_t n_tok, uint32_t n_row, uint32_t n_col,
                            uint32_t rows_a_tile, bool add, float size) {
    const weight *w = matrix(type, n_row, n_col, rows_a_tile);
    const size_t n = (size_t)n_tok * n_col;
    float *dout = values((size_t)n_tok * n_row), *want = kt_take(n, 4);
    for (size_t i = 0; i < (size_t)n_tok * n_row; i++) dout[i] *= size;
    back_matmul(w, 0, dout, n_tok, want);
    const gpu_view in = kt_in(dout, (size_t)n_tok * n_row * 4);
    const kt_output din = out_before(want, n, add);
    const parts_gpu room = room_for(n);
    begin();
    op_back_matmul(kt.steps, w, room, in, din.view, n_tok, add);
    end();
    kt_compare("back_matmul", fetch(din), want, n, tile_bound(type));
    kt_reset();
}

static void test_back_matmul(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        one_back_matmul(QUANT_F32, sizes[i], sizes[COUNT(sizes) - 1 - i], 48, 1000, false, 1);
        one_back_matmul(QUANT_F32, sizes[i], sizes[i], 16, 1000, true, 1);
    }
    one_back_matmul(QUANT_F32, 130, 200, 256, 1000, true, 1);
    one_back_matmul(QUANT_F32, 33, 150, 80, 70, false, 1); /* three tiles */
    one_back_matmul(QUANT_F32, 5, 150, 64, 51, true, 1);
    one_back_matmul(QUANT_BF16, 5, 33, 512, 16, false, 1);
    one_back_matmul(QUANT_Q4_0, 5, 33, 96, 16, true, 1);
    one_back_matmul(QUANT_Q4_K, 70, 33, 512, 16, false, 1);
    one_back_matmul(QUANT_Q6_K, 5, 33, 768, 16, true, 1);
    one_back_matmul(QUANT_BF16, 66, 150, 144, 1000, false, 1);
    one_back_matmul(QUANT_Q8_0, 66, 40, 160, 1000, false, 1e-7f); /* gradients are small */
}

static void one_matrix(uint32_t n_tok, uint32_t n_row, uint32_t n_col, bool add) {
    weight w;
    const matrix_gpu m = adapter(n_row, n_col, 0.75f, &w);
    const size_t n_x = (size_t)n_tok * n_col, n_y = (size_t)n_tok * n_row;
    float *x = values(n_x), *dy = values(n_y), *y = kt_take(n_y, 4), *dx = kt_take(n_x, 4);
    ref_matmul(&w, 0, x, n_tok, y);
    back_matmul(&w, 0, dy, n_tok, dx);
    const gpu_view in = kt_in(x, n_x * 4), dout = kt_in(dy, n_y * 4);
    const kt_output out = out_before(y, n_y, add), din = out_before(dx, n_x, add);
    const parts_gpu room = room_for(n_x > n_y ? n_x : n_y);
    begin();
    op_matrix(kt.steps, &m, room, 0.75f, in, out.view, n_tok, add);
    op_back_matrix(kt.steps, &m, room, 0.75f, dout, din.view, n_tok, add);
    end();
    kt_compare("matmul", fetch(out), y, n_y, KT_F32);
    kt_compare("back_matmul", fetch(din), dx, n_x, KT_F32);
    kt_reset();
}

static void test_matrix(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        one_matrix(sizes[i], 16, 144, i % 2);
        one_matrix(sizes[i], sizes[COUNT(sizes) - 1 - i], 16, i % 2 == 0);
    }
    one_matrix(70, 32, 1024, true);
    one_matrix(130, 160, 64, false);
    one_matrix(4, 33, 528, true); /* sums cut into parts, the last one shorter */
    one_matrix(12, 700, 16, false);
}

static void one_outer(uint32_t n_tok, uint32_t n_a, uint32_t n_b, bool add) {
    const size_t n = (size_t)n_a * n_b;
    float *a = values((size_t)n_tok * n_a), *b = values((size_t)n_tok * n_b), *want = kt_take(n, 4);
    for (uint32_t t = 0; t < n_tok; t++)
        for (size_t i = 0; i < n; i++)
            want[i] += 0.75f * a[t * n_a + i / n_b] * b[t * n_b + i % n_b];
    const gpu_view in_a = kt_in(a, (size_t)n_tok * n_a * 4),
                   in_b = kt_in(b, (size_t)n_tok * n_b * 4);
    const kt_output out = out_before(want, n, add);
    begin();
    op_outer(kt.steps, room_for(n), in_a, n_a, in_b, n_b, 0.75f, out.view, n_tok, add);
    end();
    kt_compare("outer", fetch(out), want, n, KT_F32);
    kt_reset();
}

static void test_outer(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        one_outer(sizes[i], sizes[COUNT(sizes) - 1 - i], 48, i % 2);
        one_outer(sizes[i], sizes[i], 16, i % 2 == 0);
        one_outer(33, 16, 16 * sizes[i], true);
    }
    one_outer(1000, 16, 144, true);
    one_outer(130, 200, 32, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_back_matmul),
        cmocka_unit_test(test_matrix),
        cmocka_unit_test(test_outer),
    };
    return RUN_TILED("products of training", tests);
}
