/* What the tests of the batched kernels share, on top of kernel_test.h: random values by call, and
 * weights in tiles, as the operations of ops_gpu.h take them. */
#ifndef CARAT_BATCH_TEST_H
#define CARAT_BATCH_TEST_H

#include "kernel_test.h"

#include "model/ops_gpu.h"

#define EPS 1e-6f

/* Runs the tests without and with what only some devices have; without it, `skipped` says so. The
 * result is main()'s. */
#define RUN_BOTH(plain, plain_setup, other, other_setup, have, skipped, tests)                     \
    (cmocka_run_group_tests_name(plain, tests, plain_setup, kt_teardown) +                         \
     (have ? cmocka_run_group_tests_name(other, tests, other_setup, kt_teardown)                   \
           : cmocka_run_group_tests_name(                                                          \
                 other, ((const struct CMUnitTest[]){cmocka_unit_test(skipped)}), NULL, NULL)))

static uint32_t seed = 1;

static inline float *values(size_t n) { return kt_floats(n, seed++); }

static inline void begin(void) {
    kernel_steps_forget(kt.steps);
    kernel_begin(kt.steps);
}

static inline void end(void) {
    carat_error err = {0};
    kt_check(kernel_end(kt.steps, &err), &err);
    kt_check(gpu_submit(kt.gpu, &err), &err);
}

static inline void *fetch(kt_output out) {
    void *data = kt_take(out.bytes, 1);
    kt_read(out, data);
    return data;
}

/* A random matrix, on the host and in tiles of rows_a_tile rows. */
static inline weight *matrix(uint32_t type, uint32_t n_row, uint32_t n_col, uint32_t rows_a_tile) {
    const uint64_t n = (uint64_t)n_row * n_col;
    const quant_format *f = quant_find(type);
    weight *w = kt_take(1, sizeof *w);
    *w = (weight){.type = type, .n_row = n_row, .n_col = n_col, .n_expert = 1, .scale = 0.5f};
    w->host = kt_blocks(type, n, 2 / sqrtf((float)n_col), seed++);
    w->n_tile = div_up(n_row, rows_a_tile);
    w->tiles = kt_take(w->n_tile, sizeof *w->tiles);
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const uint32_t row0 = i * rows_a_tile, rows = min_u32(rows_a_tile, n_row - row0);
        const uint8_t *blocks = w->host + (uint64_t)row0 * n_col / f->n_value * f->n_byte;
        const gpu_view v = kt_pack(type, blocks, (uint64_t)rows * n_col);
        w->tiles[i] = (weight_tile){v.buffer, row0, rows};
    }
    return w;
}

#endif
