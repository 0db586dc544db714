/* The kernel table: every kernel in every variant against its CPU twin, on odd shapes, with guard
 * words around the outputs. This file: the tensor formats and the pieces of kernels/lib/. */
#include "kernel_test.h"

static void run_dequantise(const kernel *k, uint32_t type, gpu_view w, uint32_t first, uint32_t n,
                           float *got) {
    kt_output out = kt_out((size_t)n * 64);
    dequantise_args args = {.first = first, .n = n};
    kt_run(&(kernel_call){.kernel = k,
                          .formats = {type},
                          .args = &args,
                          .views = {w, out.view},
                          .x = 3,
                          .y = div_up(n, 3 * 64)});
    kt_read(out, got);
}

/* Random blocks; an odd number of them, from the middle of a block, and to the end. */
static void test_formats(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(kt_formats); i++) {
        uint32_t type = kt_formats[i];
        const quant_format *f = quant_find(type);
        uint32_t n_block = f->n_value == 1 ? 16 * 77 : f->n_value == 256 ? 13 : 77;
        uint32_t n = n_block * f->n_value, first = 3;
        uint8_t *blocks = kt_blocks(type, n, 1, 7);
        float *want = kt_take(n, 4), *got = kt_take(n, 4);
        f->dequantise(blocks, want, n);
        run_dequantise(&kernel_dequantise, type, kt_pack(type, blocks, n), first, n / 16 - first,
                       got);
        kt_compare(f->name, got, want + 16 * first, n - 16 * first, 1e-13);
        kt_reset();
    }
}

/* Every f16 as a scale: subnormals, zeros of both signs. */
static void test_small_scales(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(kt_scale_table); i++) {
        const kt_scales *s = &kt_scale_table[i];
        const quant_format *f = quant_find(s->type);
        uint32_t n_block = 61, n = n_block * f->n_value;
        uint8_t *blocks = kt_blocks(s->type, n, 1, 9);
        for (uint32_t b = 0; b < n_block; b++)
            for (int j = 0; j < 2; j++) {
                uint16_t h = (uint16_t)((b * 37 + (uint32_t)j * 11) % 0x440 | (b & 1) << 15);
                if (s->at[j] >= 0) memcpy(blocks + b * f->n_byte + s->at[j], &h, 2);
            }
        float *want = kt_take(n, 4), *got = kt_take(n, 4);
        f->dequantise(blocks, want, n);
        run_dequantise(&kernel_dequantise, s->type, kt_pack(s->type, blocks, n), 0, n / 16, got);
        kt_compare(f->name, got, want, n, 1e-13);
        kt_reset();
    }
}

static void test_all_halves(void **state) {
    (void)state;
    uint32_t n = 0;
    uint16_t *all = kt_take(65536, 2);
    for (uint32_t h = 0; h < 65536; h++)
        if ((h & 0x7c00) != 0x7c00) all[n++] = (uint16_t)h;
    float *got = kt_take(n, 4);
    run_dequantise(&kernel_dequantise, QUANT_F16, kt_in(all, (size_t)n * 2), 0, n / 16, got);
    for (uint32_t i = 0; i < n; i++)
        if (got[i] < half_to_float(all[i]) || got[i] > half_to_float(all[i]))
            fail_msg("f16 %04x is %a, not %a", all[i], (double)got[i],
                     (double)half_to_float(all[i]));
    kt_reset();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_small_scales),
        cmocka_unit_test(test_all_halves),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
