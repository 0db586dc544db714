/* Tests of kernels that include lib/tile: every test runs twice, once without and once with matrix
 * units, where the device has them. */
#ifndef CARAT_MATRIX_TEST_H
#define CARAT_MATRIX_TEST_H

#include "batch_test.h"

static bool have_matrix;

static inline int plain_setup(void **state) {
    const int status = kt_setup(state);
    if (status == 0) {
        have_matrix = kt.gpu->info.subgroup_matrix;
        kt.gpu->info.subgroup_matrix = false;
    }
    return status;
}

static inline void no_matrix(void **state) {
    (void)state;
    print_message("SKIPPED: the kernels' variants for matrix units: the device has none\n");
    skip();
}

/* The bound for a product with a matrix of this type: matrix units take it as f16. */
static inline double tile_bound(uint32_t type) {
    return kt.gpu->info.subgroup_matrix && type != QUANT_F32 ? KT_F16 : KT_F32;
}

/* Runs the tests without and with matrix units; the result is main()'s. */
#define RUN_TILED(name, tests)                                                                     \
    RUN_BOTH(name, plain_setup, name ", matrix units", kt_setup, have_matrix, no_matrix, tests)

#endif
