/* Writing storage formats: the error of normal data in every format, blocks that come back as they
 * were, zeros, outliers, tiny values, and what no format can hold. The way back is quant.c's. */
#include "file/quantise.h"

#include "require.h" /* after carat's headers */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N 65536u

/* bits: of a value's code; error: of normal data, root of the mean square over the data's. What is
 * known to be best for a uniform grid of so many bits and a block's own scale is a little below. */
static const struct format {
    uint32_t type;
    int bits;
    double error;
    int halves[2]; /* where a block has its f16 numbers; -1: nowhere */
} formats[] = {
    {QUANT_F32, 32, 0, {-1, -1}},       {QUANT_F16, 16, 3e-4, {-1, -1}},
    {QUANT_BF16, 16, 2e-3, {-1, -1}},   {QUANT_Q4_0, 4, 0.083, {0, -1}},
    {QUANT_Q4_1, 4, 0.072, {0, 2}},     {QUANT_Q5_0, 5, 0.042, {0, -1}},
    {QUANT_Q5_1, 5, 0.035, {0, 2}},     {QUANT_Q8_0, 8, 0.0052, {0, -1}},
    {QUANT_Q2_K, 2, 0.27, {80, 82}},    {QUANT_Q3_K, 3, 0.148, {108, -1}},
    {QUANT_Q4_K, 4, 0.072, {0, 2}},     {QUANT_Q5_K, 5, 0.0355, {0, 2}},
    {QUANT_Q6_K, 6, 0.0175, {208, -1}}, {QUANT_IQ4_NL, 4, 0.0755, {0, -1}},
    {QUANT_IQ4_XS, 4, 0.0765, {0, -1}}, {QUANT_MXFP4, 4, 0.115, {-1, -1}},
    {QUANT_NVFP4, 4, 0.095, {-1, -1}},
};

static float x[N], y[N], z[N];
static uint8_t blocks[4 * N], again[4 * N];
static uint64_t state;

static double uniform(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return ((double)(state >> 11) + 0.5) * 0x1p-53;
}

static double normal(void) {
    return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

/* There and back. */
static void through(uint32_t type, const float *in, float *out, uint8_t *b, uint32_t n) {
    err = (carat_error){0};
    if (!quantise(type, in, n, NULL, b, "x", &err)) fail_msg("%s", err.message);
    quant_find(type)->dequantise(b, out, n);
}

static double relative(const float *is, const float *want, uint32_t n) {
    double e = 0, all = 0;
    for (uint32_t i = 0; i < n; i++) {
        e += pow((double)is[i] - (double)want[i], 2);
        all += pow((double)want[i], 2);
    }
    return sqrt(e / all);
}

/* Every format that is read is written, with the error that it should have, at any size of the
 * values that f16 can scale. */
static void normal_data(void **unused) {
    (void)unused;
    uint32_t n_read = 0;
    for (uint32_t t = 0; t < QUANT_TYPE_END; t++) n_read += quant_find(t) != NULL;
    assert_int_equal(n_read, COUNT(formats));
    for (size_t k = 0; k < COUNT(formats); k++)
        for (int power = -6; power <= 6; power += 6) {
            const struct format *f = &formats[k];
            state = 7;
            for (uint32_t i = 0; i < N; i++) x[i] = ldexpf((float)normal(), power);
            through(f->type, x, y, blocks, N);
            const double e = relative(y, x, N);
            if (!(e <= f->error))
                fail_msg("%s, times 2^%d: error %g, at most %g", quant_name(f->type), power, e,
                         f->error);
        }
}

/* The same with a mean, which formats with a minimum have room for. */
static void shifted_data(void **unused) {
    (void)unused;
    static const uint32_t types[] = {QUANT_Q4_1, QUANT_Q5_1};
    for (size_t k = 0; k < COUNT(types); k++)
        for (float mean = -10; mean <= 10; mean += 20) {
            state = 8;
            for (uint32_t i = 0; i < N; i++) x[i] = (float)normal();
            through(types[k], x, y, blocks, N);
            const double centred = relative(y, x, N);
            for (uint32_t i = 0; i < N; i++) x[i] += mean;
            through(types[k], x, z, blocks, N);
            /* f16 minima near 10 are 1/128 apart. */
            assert_true(relative(z, x, N) * sqrt(101) < centred * 1.1);
        }
}

/* ---- what can be represented comes back ---- */

static void put16(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* Blocks of random codes, each with a scale that its format can have. */
static void random_blocks(const struct format *f, uint32_t n) {
    const quant_format *q = quant_find(f->type);
    for (uint32_t i = 0; i < n / q->n_value; i++) {
        uint8_t *b = blocks + i * q->n_byte;
        for (uint32_t j = 0; j < q->n_byte; j++) b[j] = (uint8_t)(uniform() * 256);
        for (int k = 0; k < 2; k++)
            if (f->halves[k] >= 0) put16(b + f->halves[k], 0x1c00 + (uint32_t)(uniform() * 4096));
        if (f->type == QUANT_Q8_0) b[2] = 127; /* the largest code is in use, as always */
        if (f->type == QUANT_MXFP4) b[0] = (uint8_t)(110 + uniform() * 20);
        for (int k = 0; k < 4 && f->type == QUANT_NVFP4; k++) b[k] = (uint8_t)(uniform() * 127);
    }
}

/* Blocks with one scale come back exactly. With a minimum, or scales of two levels, the search may
 * settle beside: then the error is a small part of that of fresh data. */
static void representable(void **unused) {
    (void)unused;
    for (size_t k = 3; k < COUNT(formats); k++) {
        const struct format *f = &formats[k];
        const bool deep = f->halves[1] >= 0 || quant_find(f->type)->n_value == 256;
        state = 9;
        random_blocks(f, N);
        quant_find(f->type)->dequantise(blocks, x, N);
        through(f->type, x, y, again, N);
        const double e = relative(y, x, N);
        print_message("%-7s %.3g\n", quant_name(f->type), e);
        if (!(e <= (deep ? f->error / 2 : 0))) fail_msg("%s: %g", quant_name(f->type), e);
    }
}

/* Numbers of f16 and bf16 themselves, all of them that are finite. */
static void plain_numbers(void **unused) {
    (void)unused;
    static const uint32_t types[] = {QUANT_F16, QUANT_BF16};
    for (size_t k = 0; k < COUNT(types); k++) {
        uint32_t n = 0;
        for (uint32_t h = 0; h < 65536; h++) {
            float f;
            put16(blocks, h);
            quant_find(types[k])->dequantise(blocks, &f, 1);
            if (isfinite(f)) x[n++] = f;
        }
        through(types[k], x, y, blocks, n);
        assert_memory_equal(x, y, n * sizeof *x);
    }
    x[0] = 1 + 0x1p-8f; /* in the middle: to the even one */
    x[1] = 1 + 0x3p-8f;
    through(QUANT_BF16, x, y, blocks, 2);
    assert_true(y[0] == 1 && y[1] == 1 + 0x1p-6f);
}

/* What a format made of normal data stays so: blocks with one scale exactly. */
static void twice(void **unused) {
    (void)unused;
    for (size_t k = 0; k < COUNT(formats); k++) {
        const struct format *f = &formats[k];
        state = 10;
        for (uint32_t i = 0; i < N; i++) x[i] = (float)normal();
        through(f->type, x, y, blocks, N);
        through(f->type, y, z, again, N);
        const double e = relative(z, y, N);
        if (!(e <= f->error / 5)) fail_msg("%s: %g", quant_name(f->type), e);
    }
}

/* ---- edges ---- */

static void zeros(void **unused) {
    (void)unused;
    for (size_t k = 0; k < COUNT(formats); k++) {
        memset(x, 0, 256 * sizeof *x);
        through(formats[k].type, x, y, blocks, 256);
        for (int i = 0; i < 256; i++) assert_true(y[i] == 0);
        for (int i = 0; i < 256; i++) x[i] = 1e-30f; /* less than any f16 */
        through(formats[k].type, x, y, blocks, 256);
        for (int i = 0; i < 256; i++) assert_true(isfinite(y[i]) && fabsf(y[i]) < 1e-6f);
    }
}

/* One value a thousand times as large: it comes through, the others do as well as its step lets
 * them, and other blocks are as they are without it. */
static void outlier(void **unused) {
    (void)unused;
    for (size_t k = 0; k < COUNT(formats); k++)
        for (float big = -20000; big <= 20000; big += 40000) {
            const struct format *f = &formats[k];
            const float most = f->type == QUANT_NVFP4 ? big / 10 : big;
            state = 11;
            for (uint32_t i = 0; i < 512; i++) x[i] = (float)normal();
            through(f->type, x, y, blocks, 512);
            x[37] = most;
            through(f->type, x, z, blocks, 512);
            const bool coarse = f->type == QUANT_MXFP4 || f->type == QUANT_NVFP4; /* 4, then 6 */
            const int n_step = f->bits > 8 ? 256 : 1 << (f->bits - (coarse ? 2 : 1));
            const float step = fabsf(most) / (float)n_step;
            if (!(fabsf(z[37] - most) <= step))
                fail_msg("%s: %g became %g", quant_name(f->type), (double)most, (double)z[37]);
            for (int i = 0; i < 256; i++)
                if (!(fabsf(z[i] - x[i]) <= fabsf(x[i]) + step)) fail_msg("%s", "a neighbour");
            assert_memory_equal(y + 256, z + 256, 256 * sizeof *y);
        }
}

static void constants(void **unused) {
    (void)unused;
    for (size_t k = 0; k < COUNT(formats); k++)
        for (float c = -0.75f; c <= 1; c += 1.5f) {
            for (int i = 0; i < 256; i++) x[i] = c;
            through(formats[k].type, x, y, blocks, 256);
            for (int i = 0; i < 256; i++)
                if (!(fabsf(y[i] - c) <= 0.02f))
                    fail_msg("%s: %g", quant_name(formats[k].type), (double)y[i]);
        }
}

static void refused(void **unused) {
    (void)unused;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t k = 0; k < COUNT(formats); k++)
        for (size_t i = 0; i < COUNT(bad); i++) {
            const uint32_t type = formats[k].type;
            for (int j = 0; j < 256; j++) x[j] = 0.01f * (float)j;
            x[200] = bad[i];
            err = (carat_error){0};
            assert_false(quantise(type, x, 256, NULL, blocks, "blk.3.attn_q.weight", &err));
            assert_int_equal(err.code, CARAT_E_FORMAT);
            assert_non_null(strstr(err.message, "blk.3.attn_q.weight: value 200 is"));
            assert_non_null(strstr(err.message, quant_name(type)));
        }
}

/* What is at the limit comes back finite. */
static void too_large(void **unused) {
    (void)unused;
    for (size_t k = 1; k < COUNT(formats); k++) {
        const float limit = quantise_limit(formats[k].type);
        for (int i = 0; i < 256; i++) x[i] = i % 3 ? limit : -limit;
        through(formats[k].type, x, y, blocks, 256);
        for (int i = 0; i < 256; i++) assert_true(isfinite(y[i]));
        x[3] = limit * 1.01f;
        err = (carat_error){0};
        assert_false(quantise(formats[k].type, x, 256, NULL, blocks, "x", &err));
        assert_non_null(strstr(err.message, "cannot hold"));
    }
}

/* ---- rounding towards an aim ---- */

#define N_DIR 3u

/* Differences of a tenth of a step and less, on values that a format has: rounded to the nearest
 * they are gone, but their sums along the aim's directions are kept, and at a small price. */
static void aimed(void **unused) {
    (void)unused;
    static float columns[N * N_DIR], norms[N], error[N_DIR];
    const uint32_t n = 2048;
    for (size_t k = 3; k < COUNT(formats); k++) {
        const struct format *f = &formats[k];
        double lost[N_DIR] = {0}, added[N_DIR] = {0}, kept[N_DIR] = {0};
        state = 12;
        for (uint32_t i = 0; i < n; i++) x[i] = (float)normal();
        through(f->type, x, x, blocks, n);
        for (uint32_t i = 0; i < n; i++) {
            norms[i] = 0;
            for (uint32_t r = 0; r < N_DIR; r++) {
                float *c = &columns[i * N_DIR + r];
                *c = (float)normal() / sqrtf((float)N_DIR);
                norms[i] += *c * *c;
            }
            x[i] += (float)f->error * 0.1f * columns[i * N_DIR];
        }
        through(f->type, x, y, blocks, n);
        const quantise_aim aim = {columns, norms, N_DIR, error};
        memset(error, 0, sizeof error);
        assert_true(quantise(f->type, x, n, &aim, blocks, "x", &err));
        quant_find(f->type)->dequantise(blocks, z, n);
        for (uint32_t i = 0; i < n * N_DIR; i++) {
            const double c = (double)columns[i];
            added[i % N_DIR] += f->error * 0.1 * (double)columns[i - i % N_DIR] * c;
            lost[i % N_DIR] += (double)(y[i / N_DIR] - x[i / N_DIR]) * c;
            kept[i % N_DIR] += (double)(z[i / N_DIR] - x[i / N_DIR]) * c;
        }
        const double extra = relative(z, x, n);
        print_message("%-7s of %.3f: %.3f lost, %.3f lost when aimed; error %.4f\n",
                      quant_name(f->type), added[0], fabs(lost[0]), fabs(kept[0]), extra);
        for (uint32_t r = 0; r < N_DIR; r++) {
            assert_true(fabs(kept[r] - (double)error[r]) < 1e-2);
            if (fabs(kept[r]) > 0.15 * added[0]) fail_msg("direction %u: %g", r, kept[r]);
        }
        assert_true(extra < f->error);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(normal_data),   cmocka_unit_test(shifted_data),
        cmocka_unit_test(representable), cmocka_unit_test(plain_numbers),
        cmocka_unit_test(twice),         cmocka_unit_test(zeros),
        cmocka_unit_test(outlier),       cmocka_unit_test(constants),
        cmocka_unit_test(refused),       cmocka_unit_test(too_large),
        cmocka_unit_test(aimed),
    };
    return cmocka_run_group_tests_name("quantise", tests, NULL, NULL);
}
