/* quant: the storage formats of tensors. Owns the table of names and block sizes, the conversion
 * to f32 of every format that carat runs, and f16. Scalar, in file order; the GPU's versions are
 * kernels/lib/FORMAT.wgsl.
 *
 * A block is a scale (or several) and packed integers: y = scale * q, sometimes minus a minimum.
 * In formats of 32 values the low nibbles are the first half of the block, the high nibbles the
 * second. d is the block's f16 scale; the layout of each block is given as byte offsets.
 *
 * Flow: gguf.c takes sizes from here, model/ops_cpu.c values. */
#include "file/file.h"

#include <math.h>
#include <string.h>

typedef uint8_t u8;

static float float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* Without branches and without f32 subnormals, which some processors handle very slowly. */
float half_to_float(uint16_t h) {
    uint32_t magnitude = h & 0x7fffu, sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t bits = (magnitude << 13) + (112u << 23); /* the exponent's bias: 15 becomes 127 */
    uint32_t subnormal = bits_of(float_of(bits + (1u << 23)) - 0x1p-14f);
    bits += magnitude < 0x7c00 ? 0 : 112u << 23; /* infinity, NaN */
    return float_of((magnitude < 0x400 ? subnormal : bits) | sign);
}

uint16_t float_to_half(float f) {
    uint32_t bits = bits_of(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff, half;
    if (magnitude > 0x7f800000)
        half = 0x7e00; /* NaN */
    else if (magnitude >= 0x477ff000)
        half = 0x7c00; /* 65520 and more round to infinity */
    else if (magnitude < 0x38800000) {
        /* Below 2^-14: adding 0.5 puts the last kept bit, 2^-24, at the sum's last bit, so the
         * processor does the rounding. */
        half = bits_of(fabsf(f) + 0.5f) - bits_of(0.5f);
    } else
        half = (magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23)) >> 13;
    return (uint16_t)(half | sign);
}

static uint16_t load16(const u8 *p) { return (uint16_t)(p[0] | p[1] << 8); }
static uint32_t load32(const u8 *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static float load_half(const u8 *p) { return half_to_float(load16(p)); }

/* ---- scalars ---- */

static void dequantise_f32(const void *blocks, float *out, size_t n) {
    memcpy(out, blocks, n * sizeof *out);
}

static void dequantise_f16(const void *blocks, float *out, size_t n) {
    const u8 *b = blocks;
    for (size_t i = 0; i < n; i++) out[i] = load_half(b + 2 * i);
}

static void dequantise_bf16(const void *blocks, float *out, size_t n) {
    const u8 *b = blocks;
    for (size_t i = 0; i < n; i++) out[i] = float_of((uint32_t)load16(b + 2 * i) << 16);
}

/* ---- 32 values a block ---- */

/* 0: d; 2: 16 bytes of nibbles. y = d (q - 8) */
static void dequantise_q4_0(const void *blocks, float *out, size_t n) {
    for (const u8 *b = blocks; n >= 32; b += 18, out += 32, n -= 32) {
        float d = load_half(b);
        for (int j = 0; j < 16; j++) {
            out[j] = d * (float)((b[2 + j] & 15) - 8);
            out[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
        }
    }
}

/* 0: d; 2: m; 4: 16 bytes of nibbles. y = d q + m */
static void dequantise_q4_1(const void *blocks, float *out, size_t n) {
    for (const u8 *b = blocks; n >= 32; b += 20, out += 32, n -= 32) {
        float d = load_half(b), m = load_half(b + 2);
        for (int j = 0; j < 16; j++) {
            out[j] = d * (float)(b[4 + j] & 15) + m;
            out[j + 16] = d * (float)(b[4 + j] >> 4) + m;
        }
    }
}

/* Five bits: the fifth of value j is bit j of `high`. */
static void five_bits(const u8 *nibbles, uint32_t high, int q[32]) {
    for (int j = 0; j < 16; j++) {
        q[j] = (nibbles[j] & 15) | (int)(high >> j & 1) << 4;
        q[j + 16] = nibbles[j] >> 4 | (int)(high >> (j + 16) & 1) << 4;
    }
}

/* 0: d; 2: fifth bits; 6: 16 bytes of nibbles. y = d (q - 16) */
static void dequantise_q5_0(const void *blocks, float *out, size_t n) {
    int q[32];
    for (const u8 *b = blocks; n >= 32; b += 22, out += 32, n -= 32) {
        float d = load_half(b);
        five_bits(b + 6, load32(b + 2), q);
        for (int j = 0; j < 32; j++) out[j] = d * (float)(q[j] - 16);
    }
}

/* 0: d; 2: m; 4: fifth bits; 8: 16 bytes of nibbles. y = d q + m */
static void dequantise_q5_1(const void *blocks, float *out, size_t n) {
    int q[32];
    for (const u8 *b = blocks; n >= 32; b += 24, out += 32, n -= 32) {
        float d = load_half(b), m = load_half(b + 2);
        five_bits(b + 8, load32(b + 4), q);
        for (int j = 0; j < 32; j++) out[j] = d * (float)q[j] + m;
    }
}

/* 0: d; 2: 32 signed bytes. y = d q */
static void dequantise_q8_0(const void *blocks, float *out, size_t n) {
    for (const u8 *b = blocks; n >= 32; b += 34, out += 32, n -= 32) {
        float d = load_half(b);
        for (int j = 0; j < 32; j++) out[j] = d * (float)(int8_t)b[2 + j];
    }
}

static const int8_t iq4_value[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};

/* 16 bytes of nibbles through a table, low nibbles first. */
static void through_table(const u8 *nibbles, int n_byte, const int8_t table[16], float d,
                          float *out) {
    for (int j = 0; j < n_byte; j++) {
        out[j] = d * (float)table[nibbles[j] & 15];
        out[j + n_byte] = d * (float)table[nibbles[j] >> 4];
    }
}

/* 0: d; 2: 16 bytes of nibbles. y = d table[q] */
static void dequantise_iq4_nl(const void *blocks, float *out, size_t n) {
    for (const u8 *b = blocks; n >= 32; b += 18, out += 32, n -= 32)
        through_table(b + 2, 16, iq4_value, load_half(b), out);
}

/* Values of a 4-bit float (2 exponent bits, 1 of mantissa), doubled to be integers; the factor
 * 1/2 is in the scales below. */
static const int8_t fp4_value[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* 0: exponent e, the scale is 2^(e - 127); 1: 16 bytes of nibbles */
static void dequantise_mxfp4(const void *blocks, float *out, size_t n) {
    for (const u8 *b = blocks; n >= 32; b += 17, out += 32, n -= 32) {
        uint32_t e = b[0], half_scale = e < 2 ? 0x00200000u << e : (e - 1) << 23;
        through_table(b + 1, 16, fp4_value, float_of(half_scale), out);
    }
}

/* Half of an unsigned 8-bit float: 4 exponent bits (bias 7), 3 of mantissa. */
static float nvfp4_half_scale(u8 b) {
    int e = b >> 3 & 15, m = b & 7;
    if (b == 0x7f) return 0;
    return e ? ldexpf(1 + (float)m / 8, e - 8) : ldexpf((float)m, -10);
}

/* 64 values: 0: a scale for each 16 values; 4: 8 bytes of nibbles for each. The tensor's own
 * scale, a tensor beside it, is not applied here. */
static void dequantise_nvfp4(const void *blocks, float *out, size_t n) {
    for (const u8 *b = blocks; n >= 64; b += 36, out += 64, n -= 64)
        for (int s = 0; s < 4; s++)
            through_table(b + 4 + 8 * s, 8, fp4_value, nvfp4_half_scale(b[s]), out + 16 * s);
}

/* ---- 256 values a block ------------------------------------------------------------------- */

/* 0: 16 bytes, scale (low) and minimum (high) of 16 values each; 16: 2-bit values, four quarters
 * of 32 in the bits of 32 bytes; 80: d; 82: d of the minima. y = d scale q - dmin min */
static void dequantise_q2_k(const void *blocks, float *out, size_t n) {
    for (const u8 *b = blocks; n >= 256; b += 84, n -= 256) {
        float d = load_half(b + 80), dmin = load_half(b + 82);
        for (int group = 0; group < 16; group++, out += 16) {
            const u8 *q = b + 16 + group / 8 * 32 + group % 2 * 16;
            float scale = d * (float)(b[group] & 15), min = dmin * (float)(b[group] >> 4);
            int shift = group % 8 / 2 * 2;
            for (int j = 0; j < 16; j++) out[j] = scale * (float)(q[j] >> shift & 3) - min;
        }
    }
}

/* 0: third bits, inverted, bit k of 32 bytes for values 32 k..; 32: 2-bit values as in Q2_K;
 * 96: 16 six-bit scales; 108: d. y = d (scale - 32) q */
static void dequantise_q3_k(const void *blocks, float *out, size_t n) {
    for (const u8 *b = blocks; n >= 256; b += 110, n -= 256) {
        const u8 *s = b + 96;
        float d = load_half(b + 108);
        for (int k = 0; k < 16; k++, out += 16) {
            const u8 *low = b + 32 + k / 8 * 32 + k % 2 * 16, *high = b + k % 2 * 16;
            int scale = (k < 8 ? s[k] & 15 : s[k - 8] >> 4) | (s[8 + k % 4] >> k / 4 * 2 & 3) << 4;
            float step = d * (float)(scale - 32);
            int shift = k % 8 / 2 * 2;
            for (int j = 0; j < 16; j++) {
                int q = (low[j] >> shift & 3) - (high[j] >> k / 2 & 1 ? 0 : 4);
                out[j] = step * (float)q;
            }
        }
    }
}

/* Six-bit scale and minimum of part k of 8, as Q4_K and Q5_K pack them into 12 bytes. */
static void scale_and_min(const u8 *s, int k, int *scale, int *min) {
    if (k < 4) {
        *scale = s[k] & 63;
        *min = s[k + 4] & 63;
    } else {
        *scale = (s[k + 4] & 15) | s[k - 4] >> 6 << 4;
        *min = s[k + 4] >> 4 | s[k] >> 6 << 4;
    }
}

/* 0: d; 2: d of the minima; 4: scales and minima; 16: nibbles, 64 values to 32 bytes.
 * y = d scale q - dmin min */
static void dequantise_q4_k(const void *blocks, float *out, size_t n) {
    for (const u8 *b = blocks; n >= 256; b += 144, n -= 256) {
        float d = load_half(b), dmin = load_half(b + 2);
        for (int k = 0; k < 8; k++, out += 32) {
            const u8 *q = b + 16 + k / 2 * 32;
            int scale, min, shift = k % 2 * 4;
            scale_and_min(b + 4, k, &scale, &min);
            float step = d * (float)scale, low = dmin * (float)min;
            for (int j = 0; j < 32; j++) out[j] = step * (float)(q[j] >> shift & 15) - low;
        }
    }
}

/* As Q4_K with fifth bits at 16 (bit k of 32 bytes for part k); nibbles at 48. */
static void dequantise_q5_k(const void *blocks, float *out, size_t n) {
    for (const u8 *b = blocks; n >= 256; b += 176, n -= 256) {
        float d = load_half(b), dmin = load_half(b + 2);
        for (int k = 0; k < 8; k++, out += 32) {
            const u8 *q = b + 48 + k / 2 * 32, *high = b + 16;
            int scale, min, shift = k % 2 * 4;
            scale_and_min(b + 4, k, &scale, &min);
            float step = d * (float)scale, low = dmin * (float)min;
            for (int j = 0; j < 32; j++) {
                int value = (q[j] >> shift & 15) | (high[j] >> k & 1) << 4;
                out[j] = step * (float)value - low;
            }
        }
    }
}

/* 0: low nibbles, 128 values to 64 bytes; 128: high 2 bits, 128 values to 32 bytes; 192: 16 signed
 * scales; 208: d. y = d scale (q - 32) */
static void dequantise_q6_k(const void *blocks, float *out, size_t n) {
    for (const u8 *b = blocks; n >= 256; b += 210, n -= 256) {
        float d = load_half(b + 208);
        for (int k = 0; k < 16; k++, out += 16) {
            int quarter = k % 8 / 2, first = k % 2 * 16;
            const u8 *low = b + k / 8 * 64 + quarter % 2 * 32 + first;
            const u8 *high = b + 128 + k / 8 * 32 + first;
            float step = d * (float)(int8_t)b[192 + k];
            for (int j = 0; j < 16; j++) {
                int q = (low[j] >> quarter / 2 * 4 & 15) | (high[j] >> quarter * 2 & 3) << 4;
                out[j] = step * (float)(q - 32);
            }
        }
    }
}

/* 0: d; 2: high 2 bits of 8 six-bit scales; 4: their low nibbles; 8: nibbles, 32 values to 16
 * bytes. y = d (scale - 32) table[q] */
static void dequantise_iq4_xs(const void *blocks, float *out, size_t n) {
    for (const u8 *b = blocks; n >= 256; b += 136, n -= 256) {
        float d = load_half(b);
        for (int k = 0; k < 8; k++, out += 32) {
            int scale = (b[4 + k / 2] >> k % 2 * 4 & 15) | (load16(b + 2) >> 2 * k & 3) << 4;
            through_table(b + 8 + 16 * k, 16, iq4_value, d * (float)(scale - 32), out);
        }
    }
}

/* ---- the table ---------------------------------------------------------------------------- */

/* Every type of GGUF by its id. Those with a name alone are known but not run. */
static const quant_format formats[] = {
    [QUANT_F32] = {"F32", 1, 4, dequantise_f32},
    [QUANT_F16] = {"F16", 1, 2, dequantise_f16},
    [QUANT_Q4_0] = {"Q4_0", 32, 18, dequantise_q4_0},
    [QUANT_Q4_1] = {"Q4_1", 32, 20, dequantise_q4_1},
    [QUANT_Q5_0] = {"Q5_0", 32, 22, dequantise_q5_0},
    [QUANT_Q5_1] = {"Q5_1", 32, 24, dequantise_q5_1},
    [QUANT_Q8_0] = {"Q8_0", 32, 34, dequantise_q8_0},
    [9] = {.name = "Q8_1"},
    [QUANT_Q2_K] = {"Q2_K", 256, 84, dequantise_q2_k},
    [QUANT_Q3_K] = {"Q3_K", 256, 110, dequantise_q3_k},
    [QUANT_Q4_K] = {"Q4_K", 256, 144, dequantise_q4_k},
    [QUANT_Q5_K] = {"Q5_K", 256, 176, dequantise_q5_k},
    [QUANT_Q6_K] = {"Q6_K", 256, 210, dequantise_q6_k},
    [15] = {.name = "Q8_K"},
    [16] = {.name = "IQ2_XXS"},
    [17] = {.name = "IQ2_XS"},
    [18] = {.name = "IQ3_XXS"},
    [19] = {.name = "IQ1_S"},
    [QUANT_IQ4_NL] = {"IQ4_NL", 32, 18, dequantise_iq4_nl},
    [21] = {.name = "IQ3_S"},
    [22] = {.name = "IQ2_S"},
    [QUANT_IQ4_XS] = {"IQ4_XS", 256, 136, dequantise_iq4_xs},
    [24] = {.name = "I8"},
    [25] = {.name = "I16"},
    [26] = {.name = "I32"},
    [27] = {.name = "I64"},
    [28] = {.name = "F64"},
    [29] = {.name = "IQ1_M"},
    [QUANT_BF16] = {"BF16", 1, 2, dequantise_bf16},
    [34] = {.name = "TQ1_0"},
    [35] = {.name = "TQ2_0"},
    [QUANT_MXFP4] = {"MXFP4", 32, 17, dequantise_mxfp4},
    [QUANT_NVFP4] = {"NVFP4", 64, 36, dequantise_nvfp4},
    [41] = {.name = "Q1_0"},
    [42] = {.name = "Q2_0"},
};

const quant_format *quant_find(uint32_t type) {
    return type < COUNT(formats) && formats[type].dequantise ? &formats[type] : NULL;
}

const char *quant_name(uint32_t type) { return type < COUNT(formats) ? formats[type].name : NULL; }
