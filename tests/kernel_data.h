/* Random data for kernel_test.h, which includes it: f32 values, and blocks of any tensor format
 * with sane scales; and the comparison of results. */
#ifndef CARAT_KERNEL_DATA_H
#define CARAT_KERNEL_DATA_H

/* ---- data: everything lives until kt_reset() ---- */

static inline void *kt_take(size_t n, size_t size) {
    void *p = arena_alloc(kt.memory, n, size);
    assert_non_null(p);
    return p;
}

static inline uint32_t kt_random(uint32_t *seed) { /* xorshift32 */
    *seed ^= *seed << 13, *seed ^= *seed >> 17, *seed ^= *seed << 5;
    return *seed;
}

/* n values, roughly normal with deviation 1. */
static inline float *kt_floats(size_t n, uint32_t seed) {
    float *v = kt_take(n, sizeof *v);
    seed = seed * 2654435761u + 12345;
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (int j = 0; j < 4; j++) sum += (float)(kt_random(&seed) >> 8) * 0x1p-24f - 0.5f;
        v[i] = sum * 1.7320508f;
    }
    return v;
}

static const uint32_t kt_formats[] = {
    QUANT_F32,  QUANT_F16,    QUANT_BF16,   QUANT_Q4_0,  QUANT_Q4_1, QUANT_Q5_0,
    QUANT_Q5_1, QUANT_Q8_0,   QUANT_Q2_K,   QUANT_Q3_K,  QUANT_Q4_K, QUANT_Q5_K,
    QUANT_Q6_K, QUANT_IQ4_NL, QUANT_IQ4_XS, QUANT_MXFP4, QUANT_NVFP4};

/* Where a block's f16 scales are (-1: none) and how large q * sub-scale can be. */
typedef struct kt_scales {
    uint32_t type;
    int at[2];
    float most;
} kt_scales;
static const kt_scales kt_scale_table[] = {
    {QUANT_Q4_0, {0, -1}, 8},      {QUANT_Q4_1, {0, 2}, 15},     {QUANT_Q5_0, {0, -1}, 16},
    {QUANT_Q5_1, {0, 2}, 31},      {QUANT_Q8_0, {0, -1}, 128},   {QUANT_Q2_K, {80, 82}, 45},
    {QUANT_Q3_K, {108, -1}, 128},  {QUANT_Q4_K, {0, 2}, 945},    {QUANT_Q5_K, {0, 2}, 1953},
    {QUANT_Q6_K, {208, -1}, 4096}, {QUANT_IQ4_NL, {0, -1}, 127}, {QUANT_IQ4_XS, {0, -1}, 4064},
};

static inline void kt_put_half(uint8_t *at, float v) {
    uint16_t h = float_to_half(v);
    memcpy(at, &h, sizeof h);
}

/* Blocks of n values, of about the size `size`. */
static inline uint8_t *kt_blocks(uint32_t type, uint64_t n, float size, uint32_t seed) {
    const quant_format *f = quant_find(type);
    assert_non_null(f);
    assert_true(n % f->n_value == 0);
    uint64_t n_block = n / f->n_value;
    uint8_t *blocks = kt_take(n_block * f->n_byte, 1);
    seed = seed * 747796405u + 2891336453u + type;
    for (uint64_t i = 0; i < n_block * f->n_byte; i++) blocks[i] = (uint8_t)(kt_random(&seed) >> 9);
    const kt_scales *s = NULL;
    for (size_t i = 0; i < COUNT(kt_scale_table); i++)
        if (kt_scale_table[i].type == type) s = &kt_scale_table[i];
    for (uint64_t b = 0; b < n_block; b++) {
        uint8_t *block = blocks + b * f->n_byte;
        float unit = (float)(kt_random(&seed) >> 8) * 0x1p-24f; /* 0..1 */
        float v = (unit - 0.5f) * 2 * size;
        if (type == QUANT_F32)
            memcpy(block, &v, 4);
        else if (type == QUANT_F16)
            kt_put_half(block, v);
        else if (type == QUANT_BF16)
            memcpy(block, (uint8_t *)&v + 2, 2);
        else if (type == QUANT_MXFP4)
            block[0] = (uint8_t)(124.0f + log2f(size) + 2 * unit);
        else if (type == QUANT_NVFP4)
            for (int i = 0; i < 4; i++)
                block[i] = (uint8_t)(24 + 8 * (int)log2f(size) + (int)(kt_random(&seed) % 16));
        for (int i = 0; s && i < 2; i++)
            if (s->at[i] >= 0) kt_put_half(block + s->at[i], size * (0.25f + unit) / s->most);
    }
    return blocks;
}

static inline void kt_compare(const char *name, const float *got, const float *want, size_t n,
                              double bound) {
    double error = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(got[i])) fail_msg("%s: [%zu] is %g", name, i, (double)got[i]);
        double d = (double)got[i] - (double)want[i];
        error += d * d;
        size += (double)want[i] * (double)want[i];
    }
    if (error > bound * size)
        for (size_t i = 0, shown = 0; i < n && shown < 8; i++)
            if (fabs((double)got[i] - (double)want[i]) > 1e-3 * sqrt(size / (double)n)) {
                print_message("  [%zu] %g, not %g\n", i, (double)got[i], (double)want[i]);
                shown++;
            }
    if (error > bound * size)
        fail_msg("%s: NMSE %.3g > %.3g over %zu values", name, error / size, bound, n);
}

#endif
