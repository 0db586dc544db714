/* Storage formats: reference values of every format, each value of a block against the definition
 * of its format written value by value, f16 in both directions, names and sizes. */
#include "file/file.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_MAX = 210 };

/* Where the f16 scale and the second f16 of a block are; -1: there is none. */
static const struct {
    uint32_t type;
    int d, second;
} scales[] = {{QUANT_Q4_0, 0, -1},   {QUANT_Q4_1, 0, 2},    {QUANT_Q5_0, 0, -1},
              {QUANT_Q5_1, 0, 2},    {QUANT_Q8_0, 0, -1},   {QUANT_IQ4_NL, 0, -1},
              {QUANT_Q2_K, 80, 82},  {QUANT_Q3_K, 108, -1}, {QUANT_Q4_K, 0, 2},
              {QUANT_Q5_K, 0, 2},    {QUANT_Q6_K, 208, -1}, {QUANT_IQ4_XS, 0, -1},
              {QUANT_MXFP4, -1, -1}, {QUANT_NVFP4, -1, -1}};

static void put16(unsigned char *at, unsigned h) {
    at[0] = (unsigned char)(h & 255);
    at[1] = (unsigned char)(h >> 8);
}

/* Bytes 37 i + 11 with sensible scales in their places. */
static void make_block(uint32_t type, unsigned char *b) {
    static const unsigned char fp8[4] = {0x38, 0x01, 0x45, 0x7f};
    for (unsigned i = 0; i < BLOCK_MAX; i++) b[i] = (unsigned char)(37 * i + 11);
    for (size_t i = 0; i < COUNT(scales); i++) {
        if (scales[i].type != type) continue;
        if (scales[i].d >= 0) put16(b + scales[i].d, 0x2e66);
        if (scales[i].second >= 0) put16(b + scales[i].second, 0x2a66);
    }
    if (type == QUANT_MXFP4) b[0] = 125;
    if (type == QUANT_NVFP4) memcpy(b, fp8, 4);
}

static const struct {
    uint32_t type;
    double sum, absolute; /* of y and |y| */
    int n;
    struct {
        int at;
        double y;
    } values[14];
} vectors[] = {
    {QUANT_Q4_0,
     -2.09949,
     12.297,
     6,
     {{0, -0.299927}, {1, 0.199951}, {15, -0.799805}, {16, -0.299927}, {17, -0.0999756}, {31, 0}}},
    {QUANT_Q4_1,
     26.0936,
     26.0936,
     6,
     {{0, 1.54962}, {1, 0.44989}, {15, 1.04974}, {16, 0.949768}, {17, 1.24969}, {31, 1.24969}}},
    {QUANT_Q5_0,
     1.49963,
     24.694,
     6,
     {{0, 0.89978}, {1, -0.199951}, {15, -1.19971}, {16, 1.39966}, {17, 0}, {31, 0.0999756}}},
    {QUANT_Q5_1,
     52.0873,
     52.0873,
     6,
     {{0, 1.94952}, {1, 2.4494}, {15, 3.04926}, {16, 1.94952}, {17, 0.549866}, {31, 0.549866}}},
    {QUANT_Q8_0,
     -17.5957,
     217.147,
     6,
     {{0, 8.49792}, {1, 12.197}, {15, -12.7969}, {16, -9.09778}, {17, -5.39868}, {31, -4.79883}}},
    {QUANT_IQ4_NL,
     -25.6937,
     170.458,
     6,
     {{0, -3.49915},
      {1, 2.49939},
      {15, -12.6969},
      {16, -3.49915},
      {17, -0.999756},
      {31, 0.0999756}}},
    {QUANT_MXFP4,
     3.125,
     18.875,
     6,
     {{0, 0}, {1, 0.75}, {15, -0.375}, {16, 0.375}, {17, 0.75}, {31, 0.75}}},
    {QUANT_NVFP4,
     -61.2402,
     153.062,
     8,
     {{0, -6},
      {1, 2},
      {15, -1},
      {16, 0.0117188},
      {17, -0.00390625},
      {31, -0.00390625},
      {32, -19.5},
      {63, 0}}},
    {QUANT_Q2_K,
     205.85,
     256.337,
     12,
     {{0, 3.29919},
      {1, 0},
      {15, 2.19946},
      {16, -0.149963},
      {17, -0.149963},
      {31, -0.149963},
      {32, 0.749817},
      {63, 0.649841},
      {64, 1.04974},
      {127, 4.19897},
      {128, 0.749817},
      {255, 0.44989}}},
    {QUANT_Q3_K,
     95.7766,
     920.775,
     12,
     {{0, 8.09802},
      {1, -10.7974},
      {15, -5.39868},
      {16, -9.59766},
      {17, 12.7969},
      {31, 6.39844},
      {32, -2.19946},
      {63, 0.999756},
      {64, 3.39917},
      {127, 7.19824},
      {128, 0.199951},
      {255, 4.19897}}},
    {QUANT_Q4_K,
     5442.67,
     5501.46,
     12,
     {{0, 31.5423},
      {1, -2.54938},
      {15, 16.0461},
      {16, 31.5423},
      {17, -2.54938},
      {31, 16.0461},
      {32, 0.799805},
      {63, 3.99902},
      {64, 42.0397},
      {127, 8.09802},
      {128, 42.2897},
      {255, 4.84882}}},
    {QUANT_Q5_K,
     11618.8,
     11653.1,
     12,
     {{0, 81.1302},
      {1, -2.54938},
      {15, 16.0461},
      {16, 81.1302},
      {17, -2.54938},
      {31, 16.0461},
      {32, 11.1973},
      {63, 7.99805},
      {64, 42.0397},
      {127, -0.299927},
      {128, 104.674},
      {255, 10.8474}}},
    {QUANT_Q6_K,
     461.087,
     26643.7,
     12,
     {{0, -143.065},
      {1, 169.559},
      {15, -31.7922},
      {16, -43.1895},
      {17, 51.1875},
      {31, -9.59766},
      {32, 23.0944},
      {63, -57.9858},
      {64, -303.926},
      {127, 149.963},
      {128, -35.0914},
      {255, -5.99854}}},
    {QUANT_IQ4_XS,
     -1100.23,
     16662.2,
     12,
     {{0, 6.49841},
      {1, -0.0999756},
      {15, -8.89783},
      {16, 6.49841},
      {17, 3.49915},
      {31, 3.49915},
      {32, 45.4889},
      {63, -17.4957},
      {64, 77.981},
      {127, 19.5952},
      {128, -58.4857},
      {255, -1.59961}}},
};

/* The reference values have six digits. */
static void assert_near(const char *what, int at, double got, double want) {
    if (!(fabs(got - want) <= 6e-6 * fabs(want) + 1e-9))
        fail_msg("%s at %d: %.9g instead of %.9g", what, at, got, want);
}

static void test_reference_values(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(vectors); i++) {
        const quant_format *q = quant_find(vectors[i].type);
        unsigned char b[BLOCK_MAX];
        float y[256];
        double sum = 0, absolute = 0;
        assert_non_null(q);
        make_block(vectors[i].type, b);
        q->dequantise(b, y, q->n_value);
        for (uint32_t k = 0; k < q->n_value; k++) {
            sum += (double)y[k];
            absolute += fabs((double)y[k]);
        }
        assert_near(q->name, -1, sum, vectors[i].sum);
        assert_near(q->name, -2, absolute, vectors[i].absolute);
        for (int k = 0; k < vectors[i].n; k++) {
            int at = vectors[i].values[k].at;
            assert_near(q->name, at, (double)y[at], vectors[i].values[k].y);
        }
    }
}

/* ---- each format, one value at a time ---- */

static int nibble(const unsigned char *b, int i) { return i < 16 ? b[i] & 15 : b[i - 16] >> 4; }
static int bit(const unsigned char *b, int i) { return b[i / 8] >> i % 8 & 1; }
static double half_at(const unsigned char *b) {
    return (double)half_to_float((uint16_t)(b[0] | b[1] << 8));
}

static const int iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                            1,    13,   25,  38,  53,  69,  89,  113};
static const double fp4[16] = {0, .5, 1, 1.5, 2, 3, 4, 6, 0, -.5, -1, -1.5, -2, -3, -4, -6};

static double define_32(uint32_t type, const unsigned char *b, int v) {
    switch (type) {
    case QUANT_Q4_0:
        return half_at(b) * (nibble(b + 2, v) - 8);
    case QUANT_Q4_1:
        return half_at(b) * nibble(b + 4, v) + half_at(b + 2);
    case QUANT_Q5_0:
        return half_at(b) * (nibble(b + 6, v) + 16 * bit(b + 2, v) - 16);
    case QUANT_Q5_1:
        return half_at(b) * (nibble(b + 8, v) + 16 * bit(b + 4, v)) + half_at(b + 2);
    case QUANT_Q8_0:
        return half_at(b) * (signed char)b[2 + v];
    case QUANT_IQ4_NL:
        return half_at(b) * iq4[nibble(b + 2, v)];
    case QUANT_MXFP4:
        return ldexp(fp4[nibble(b + 1, v)], b[0] - 127);
    default:
        return NAN;
    }
}

static double define_nvfp4(const unsigned char *b, int v) {
    int s = v / 16, j = v % 16, e = b[s] >> 3 & 15, m = b[s] & 7;
    int q = j < 8 ? b[4 + 8 * s + j] & 15 : b[4 + 8 * s + j - 8] >> 4;
    double scale = b[s] == 0x7f ? 0 : e ? (1 + m / 8.) * ldexp(1, e - 7) : m * ldexp(1, -9);
    return scale * fp4[q];
}

static void six_bits(const unsigned char *s, int k, int *scale, int *min) {
    *scale = k < 4 ? s[k] & 63 : (s[k + 4] & 15) | s[k - 4] >> 6 << 4;
    *min = k < 4 ? s[k + 4] & 63 : s[k + 4] >> 4 | s[k] >> 6 << 4;
}

static double define_256(uint32_t type, const unsigned char *b, int v) {
    int h = v / 128, r = v % 128 / 32, part = v % 32 / 16, u = v % 32, k = v / 32, c = v / 64;
    int sixteen = 8 * h + 2 * r + part, scale, min, q;
    switch (type) {
    case QUANT_Q2_K:
        q = b[16 + 32 * h + u] >> 2 * r & 3;
        return half_at(b + 80) * (b[sixteen] & 15) * q - half_at(b + 82) * (b[sixteen] >> 4);
    case QUANT_Q3_K:
        scale = sixteen < 8 ? b[96 + sixteen] & 15 : b[96 + sixteen - 8] >> 4;
        scale |= (b[96 + 8 + sixteen % 4] >> 2 * (sixteen / 4) & 3) << 4;
        q = (b[32 + 32 * h + u] >> 2 * r & 3) - (b[u] >> (4 * h + r) & 1 ? 0 : 4);
        return half_at(b + 108) * (scale - 32) * q;
    case QUANT_Q4_K:
        six_bits(b + 4, k, &scale, &min);
        q = k % 2 ? b[16 + 32 * c + u] >> 4 : b[16 + 32 * c + u] & 15;
        return half_at(b) * scale * q - half_at(b + 2) * min;
    case QUANT_Q5_K:
        six_bits(b + 4, k, &scale, &min);
        q = k % 2 ? b[48 + 32 * c + u] >> 4 : b[48 + 32 * c + u] & 15;
        q += 16 * (b[16 + u] >> k & 1);
        return half_at(b) * scale * q - half_at(b + 2) * min;
    case QUANT_Q6_K:
        q = b[64 * h + 32 * (r % 2) + u];
        q = (r < 2 ? q & 15 : q >> 4) | (b[128 + 32 * h + u] >> 2 * r & 3) << 4;
        return half_at(b + 208) * (signed char)b[192 + sixteen] * (q - 32);
    case QUANT_IQ4_XS:
        scale = (b[4 + k / 2] >> 4 * (k % 2) & 15) | ((b[2] | b[3] << 8) >> 2 * k & 3) << 4;
        return half_at(b) * (scale - 32) * iq4[nibble(b + 8 + 16 * k, u)];
    default:
        return NAN;
    }
}

static double define(uint32_t type, const unsigned char *b, int v) {
    const quant_format *q = quant_find(type);
    if (q->n_value == 256) return define_256(type, b, v);
    return q->n_value == 64 ? define_nvfp4(b, v) : define_32(type, b, v);
}

/* Equal up to the rounding of f32, relative to the block's largest value. */
static void compare_block(uint32_t type, const unsigned char *b, const float *y) {
    const quant_format *q = quant_find(type);
    double largest = 0;
    for (int v = 0; v < (int)q->n_value; v++) largest = fmax(largest, fabs(define(type, b, v)));
    for (int v = 0; v < (int)q->n_value; v++) {
        double want = define(type, b, v), got = (double)y[v];
        if (!(fabs(got - want) <= 5e-7 * largest))
            fail_msg("%s value %d: %.9g instead of %.9g", q->name, v, got, want);
    }
}

/* Random blocks, several in a row, in memory of exactly their size. */
static void test_every_value(void **state) {
    (void)state;
    enum { N_BLOCK = 5, ROUNDS = 40 };
    uint32_t random = 1;
    for (size_t i = 0; i < COUNT(scales) * ROUNDS; i++) {
        uint32_t type = scales[i / ROUNDS].type;
        const quant_format *q = quant_find(type);
        unsigned char *b = malloc((size_t)N_BLOCK * q->n_byte);
        float *y = malloc(sizeof *y * N_BLOCK * q->n_value);
        assert_true(b && y);
        for (size_t k = 0; k < (size_t)N_BLOCK * q->n_byte; k++) {
            random = random * 1664525 + 1013904223;
            b[k] = (unsigned char)(random >> 24);
        }
        for (size_t k = 0; k < N_BLOCK; k++) { /* no infinite scales */
            if (scales[i / ROUNDS].d >= 0)
                b[k * q->n_byte + (size_t)scales[i / ROUNDS].d + 1] &= 0xbf;
            if (scales[i / ROUNDS].second >= 0)
                b[k * q->n_byte + (size_t)scales[i / ROUNDS].second + 1] &= 0xbf;
        }
        if (type == QUANT_MXFP4)
            for (size_t k = 0; k < N_BLOCK; k++) b[k * q->n_byte] &= 0xf7; /* within f32 */
        q->dequantise(b, y, (size_t)N_BLOCK * q->n_value);
        for (uint32_t k = 0; k < N_BLOCK; k++)
            compare_block(type, b + k * q->n_byte, y + k * q->n_value);
        free(b);
        free(y);
    }
}

static void test_mxfp4_extremes(void **state) {
    (void)state;
    const quant_format *q = quant_find(QUANT_MXFP4);
    for (int e = 0; e < 255; e++) {
        unsigned char b[17] = {(unsigned char)e, 0x12};
        float y[32];
        q->dequantise(b, y, 32);
        assert_true(y[0] == ldexpf(1, e - 127));
        assert_true(y[16] == ldexpf(0.5f, e - 127));
    }
}

/* ---- scalars ---- */

static void test_scalars(void **state) {
    (void)state;
    float f32[3] = {1.5f, -0.0f, 3e38f}, y[3];
    unsigned char f16[6] = {0, 0x3c, 0x01, 0, 0xff, 0xfb}, bf16[6] = {0x80, 0x3f, 0x49, 0xc0, 1, 0};
    quant_find(QUANT_F32)->dequantise(f32, y, 3);
    assert_memory_equal(f32, y, sizeof y);
    quant_find(QUANT_F16)->dequantise(f16, y, 3);
    assert_true(y[0] == 1 && y[1] == 0x1p-24f && y[2] == -65504);
    quant_find(QUANT_BF16)->dequantise(bf16, y, 3);
    assert_true(y[0] == 1 && y[1] == -3.140625f && y[2] == 0x1p-133f);
}

static void test_half_there_and_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = half_to_float((uint16_t)h);
        int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
        if (e == 31 && m) {
            assert_true(isnan(f));
            assert_true(isnan(half_to_float(float_to_half(f))));
            continue;
        }
        double want = e == 31 ? (double)INFINITY : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
        assert_true((double)f == (h & 0x8000 ? -want : want));
        assert_int_equal(float_to_half(f), h);
    }
}

/* Between two neighbours everything goes to the nearer, the middle to the even one. */
static void test_half_rounding(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float low = half_to_float((uint16_t)h), high = half_to_float((uint16_t)(h + 1));
        float middle = (low + high) / 2;
        assert_int_equal(float_to_half(middle), h + (h & 1));
        assert_int_equal(float_to_half(nextafterf(middle, 0)), h);
        assert_int_equal(float_to_half(nextafterf(middle, 1e9f)), h + 1);
        assert_int_equal(float_to_half(-middle), 0x8000 | (h + (h & 1)));
    }
    assert_int_equal(float_to_half(65519.996f), 0x7bff);
    assert_int_equal(float_to_half(65520), 0x7c00);
    assert_int_equal(float_to_half(-INFINITY), 0xfc00);
    assert_int_equal(float_to_half(3e38f), 0x7c00);
    assert_int_equal(float_to_half(1e-30f), 0);
    assert_int_equal(float_to_half(-1e-40f), 0x8000);
}

/* ---- the table ---- */

static void test_names_and_sizes(void **state) {
    (void)state;
    static const struct {
        uint32_t type;
        const char *name;
        uint32_t n_value, n_byte; /* 0: known, but not run */
    } known[] = {{0, "F32", 1, 4},       {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},
                 {3, "Q4_1", 32, 20},    {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},
                 {8, "Q8_0", 32, 34},    {9, "Q8_1", 0, 0},        {10, "Q2_K", 256, 84},
                 {11, "Q3_K", 256, 110}, {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
                 {14, "Q6_K", 256, 210}, {15, "Q8_K", 0, 0},       {16, "IQ2_XXS", 0, 0},
                 {19, "IQ1_S", 0, 0},    {20, "IQ4_NL", 32, 18},   {22, "IQ2_S", 0, 0},
                 {26, "I32", 0, 0},      {23, "IQ4_XS", 256, 136}, {28, "F64", 0, 0},
                 {29, "IQ1_M", 0, 0},    {30, "BF16", 1, 2},       {34, "TQ1_0", 0, 0},
                 {35, "TQ2_0", 0, 0},    {39, "MXFP4", 32, 17},    {40, "NVFP4", 64, 36},
                 {41, "Q1_0", 0, 0},     {42, "Q2_0", 0, 0}};
    static const uint32_t unknown[] = {4, 5, 31, 32, 33, 36, 37, 38, 43, 63, 64, 1000, UINT32_MAX};
    for (size_t i = 0; i < COUNT(known); i++) {
        const quant_format *q = quant_find(known[i].type);
        assert_string_equal(quant_name(known[i].type), known[i].name);
        if (known[i].n_value == 0)
            assert_null(q);
        else
            assert_true(q->n_value == known[i].n_value && q->n_byte == known[i].n_byte);
    }
    for (size_t i = 0; i < COUNT(unknown); i++) {
        assert_null(quant_find(unknown[i]));
        assert_null(quant_name(unknown[i]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_values),    cmocka_unit_test(test_every_value),
        cmocka_unit_test(test_mxfp4_extremes),      cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_half_there_and_back), cmocka_unit_test(test_half_rounding),
        cmocka_unit_test(test_names_and_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
