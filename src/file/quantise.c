/* quantise: values into storage formats. For every format that quant.c reads there is an encoder of
 * one block here; the layouts are told there. Scalar; a block does not know its neighbours.
 *
 * A scale is found by trying: the largest value is put onto several points of the grid, every try
 * is rounded, and of the scale that then fits best in the sense of least squares the error is known
 * in closed form. Formats with two levels of scales first fit their groups, then round the groups'
 * scales to their few bits, then look whether a neighbour of each is better.
 *
 * Flow: values come from quant.c and model/merge.c; a file is next. */
#include "file/quantise.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

typedef uint8_t u8;

enum { SUPER = 256, GROUPS_MAX = 16 };

/* ---- grids: the points q that a scale multiplies ---- */

static const float iq4_points[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
static const float fp4_points[8] = {0, 1, 2, 3, 4, 6, 8, 12};

/* The integers of [lo, hi], or the points of IQ4. */
typedef struct grid {
    float lo, hi;
    bool iq4;
    int n_try; /* scales that are tried, each with both signs */
} grid;

static float clamp(float x, float lo, float hi) { return x < lo ? lo : x > hi ? hi : x; }

/* To the nearest integer; |x| < 2^22. */
static float nearest(float x) { return x + 0x1.8p23f - 0x1.8p23f; }

static int iq4_code(float x) {
    int code = 0;
    for (int i = 1; i < 16; i++) code += 2 * x > iq4_points[i - 1] + iq4_points[i];
    return code;
}

/* q [n]: the points nearest to x [n] / scale. */
static void to_grid(const grid *g, const float *x, int n, float scale, float *q) {
    const float inverse = scale != 0 && isfinite(1 / scale) ? 1 / scale : 0;
    const float lo = g->lo, hi = g->hi;
    for (int j = 0; j < n; j++) q[j] = clamp(x[j] * inverse, lo, hi);
    for (int j = 0; j < n; j++) q[j] = g->iq4 ? iq4_points[iq4_code(q[j])] : nearest(q[j]);
}

static float dot(const float *a, const float *b, int n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < n; j++) sum += a[j] * b[j];
    return sum;
}

/* Sum of (x - scale q)^2 */
static float error_of(const float *x, const float *q, int n, float scale) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < n; j++) sum += (x[j] - scale * q[j]) * (x[j] - scale * q[j]);
    return sum;
}

static float peak_of(const float *x, int n) {
    float peak = 0;
    for (int j = 0; j < n; j++)
        if (fabsf(x[j]) > fabsf(peak)) peak = x[j];
    return peak;
}

/* The point of the grid, or a place a little outside or inside, that try i puts the peak on. */
static float try_point(const grid *g, int i) {
    if (!g->iq4) return -g->lo + 0.5f - 0.5f * (float)i;
    static const float point[] = {127, 113, 104, 89, 120, 108, 97, 83, 133, 69};
    return point[i];
}

/* The scale with which q on the grid is nearest to x [n]; 0 for zeros. */
static float fit_scale(const grid *g, const float *x, int n) {
    const float peak = peak_of(x, n);
    float q[SUPER], best = 0, most = -1;
    if (peak == 0) return 0;
    for (int i = 0; i < 2 * g->n_try; i++) {
        const float point = try_point(g, i / 2);
        if (point < 1 || (i % 2 && point > g->hi + 0.5f)) continue;
        to_grid(g, x, n, i % 2 ? peak / point : -peak / point, q);
        /* The error is x x - (x q)^2 / q q at the best scale, x q / q q. */
        const float xq = dot(x, q, n), qq = dot(q, q, n);
        if (qq == 0 || xq * (xq / qq) <= most) continue;
        most = xq * (xq / qq);
        best = xq / qq;
    }
    return best;
}

/* ---- bytes ---- */

static void store16(u8 *p, uint32_t v) {
    p[0] = (u8)v;
    p[1] = (u8)(v >> 8);
}

/* Stores x as f16 and is what that makes of it. */
static float store_half(u8 *p, float x) {
    const uint16_t h = float_to_half(x);
    store16(p, h);
    return half_to_float(h);
}

static float as_half(float x) { return half_to_float(float_to_half(x)); }

/* 2 n codes of four bits: the first n are the low halves of n bytes. */
static void store_nibbles(u8 *p, const int *q, int n) {
    for (int j = 0; j < n; j++) p[j] = (u8)((q[j] & 15) | (q[j + n] & 15) << 4);
}

/* The fifth bits of 32 codes. */
static void store_fifth(u8 *p, const int *q) {
    uint32_t high = 0;
    for (int j = 0; j < 32; j++) high |= (uint32_t)(q[j] >> 4 & 1) << j;
    store16(p, high & 0xffff);
    store16(p + 2, high >> 16);
}

static void to_codes(const float *q, int n, float zero, int *code) {
    for (int j = 0; j < n; j++) code[j] = (int)(q[j] + zero);
}

/* ---- a block of 32 with one scale ---- */

/* Stores the scale and finds the codes, which begin at `zero` for q = 0. */
static void encode_scaled(const grid *g, const float *x, float zero, u8 *d, int *code) {
    float q[32];
    to_grid(g, x, 32, store_half(d, fit_scale(g, x, 32)), q);
    to_codes(q, 32, zero, code);
}

static void encode_q4_0(const float *x, u8 *b) {
    static const grid g = {-8, 7, false, 12};
    int code[32];
    encode_scaled(&g, x, 8, b, code);
    store_nibbles(b + 2, code, 16);
}

static void encode_q5_0(const float *x, u8 *b) {
    static const grid g = {-16, 15, false, 8};
    int code[32];
    encode_scaled(&g, x, 16, b, code);
    store_fifth(b + 2, code);
    store_nibbles(b + 6, code, 16);
}

static void encode_q8_0(const float *x, u8 *b) {
    static const grid g = {-128, 127, false, 4};
    int code[32];
    encode_scaled(&g, x, 0, b, code);
    for (int j = 0; j < 32; j++) b[2 + j] = (u8)code[j];
}

static void encode_iq4_nl(const float *x, u8 *b) {
    static const grid g = {-127, 113, true, 10};
    float q[32];
    int code[32];
    to_grid(&g, x, 32, store_half(b, fit_scale(&g, x, 32)), q);
    for (int j = 0; j < 32; j++) code[j] = iq4_code(q[j]);
    store_nibbles(b + 2, code, 16);
}

/* ---- groups with a scale and a minimum: x = a q + m, q in [0, top] ---- */

typedef struct line {
    float a, m;
} line;

static void to_line(const float *x, int n, line f, float top, float *q) {
    const float inverse = f.a != 0 && isfinite(1 / f.a) ? 1 / f.a : 0;
    for (int j = 0; j < n; j++) q[j] = nearest(clamp((x[j] - f.m) * inverse, 0, top));
}

static float line_error(const float *x, const float *q, int n, line f) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < n; j++) {
        const float e = x[j] - f.a * q[j] - f.m;
        sum += e * e;
    }
    return sum;
}

/* The line that fits best with these q; below: m may not be above zero. Sums are taken from the
 * lowest value on, where they are exact enough. */
static line fit_line(const float *x, const float *q, int n, float low, bool below) {
    float s = 0, sq = 0, sqq = 0, sxq = 0;
#pragma omp simd reduction(+ : s, sq, sqq, sxq)
    for (int j = 0; j < n; j++) {
        s += x[j] - low;
        sq += q[j];
        sqq += q[j] * q[j];
        sxq += (x[j] - low) * q[j];
    }
    const float det = (float)n * sqq - sq * sq;
    line f = {0, s / (float)n + low};
    if (det > 0) f = (line){((float)n * sxq - s * sq) / det, (s * sqq - sxq * sq) / det + low};
    if (below && f.m > 0 && sqq > 0) f = (line){(sxq + low * sq) / sqq, 0};
    return f;
}

static line search_line(const float *x, int n, float top, bool below) {
    float low = x[0], high = x[0], q[SUPER], least = INFINITY;
    for (int j = 1; j < n; j++) {
        low = fminf(low, x[j]);
        high = fmaxf(high, x[j]);
    }
    if (below && low > 0) low = 0;
    line best = {0, low};
    if (high <= low) return best;
    for (int i = 0; i < 8; i++) {
        const float steps = top + 0.5f - 0.5f * (float)i;
        line f = {(high - low) / steps, low};
        if (steps < 1) break;
        for (int k = 0; k < 2; k++) { /* rounded, fitted, rounded again, fitted again */
            to_line(x, n, f, top, q);
            f = fit_line(x, q, n, low, below);
            const float e = line_error(x, q, n, f);
            if (f.a < 0 || e >= least) break;
            least = e;
            best = f;
        }
    }
    return best;
}

static void encode_line(const float *x, float top, u8 *scales, int *code) {
    float q[32];
    line f = search_line(x, 32, top, false);
    f = (line){store_half(scales, f.a), store_half(scales + 2, f.m)};
    to_line(x, 32, f, top, q);
    to_codes(q, 32, 0, code);
}

static void encode_q4_1(const float *x, u8 *b) {
    int code[32];
    encode_line(x, 15, b, code);
    store_nibbles(b + 4, code, 16);
}

static void encode_q5_1(const float *x, u8 *b) {
    int code[32];
    encode_line(x, 31, b, code);
    store_fifth(b + 4, code);
    store_nibbles(b + 8, code, 16);
}

/* ---- 256 values in groups, the groups' scales in few bits ---- */

typedef struct super {
    int n_group, n; /* groups, and values of one */
    float d, dmin;  /* as they are stored */
    int scale[GROUPS_MAX], min[GROUPS_MAX];
    int code[SUPER];
} super;

/* Of `most` values of a kind the scale that puts the largest on `top`. */
static float shared_scale(float largest, float top) { return as_half(largest / top); }

static int part_of(float x, float d, float lo, float hi) {
    return d != 0 ? (int)nearest(clamp(x / d, lo, hi)) : 0;
}

/* Group k's scale and minimum: of the neighbours the pair that fits best. */
static void settle_lines(super *s, const float *x, int k, float top, float top_scale) {
    const int scale = s->scale[k], min = s->min[k];
    float q[SUPER], least = INFINITY;
    for (int i = 0; i < 9; i++) {
        const int ds = scale + (i + 1) % 3 - 1, dm = min + (i / 3 + 1) % 3 - 1; /* itself first */
        if (ds < 0 || dm < 0 || ds > (int)top_scale || dm > (int)top_scale) continue;
        const line f = {s->d * (float)ds, -s->dmin * (float)dm};
        to_line(x, s->n, f, top, q);
        const float e = line_error(x, q, s->n, f);
        if (e >= least) continue;
        least = e;
        s->scale[k] = ds;
        s->min[k] = dm;
        to_codes(q, s->n, 0, s->code + k * s->n);
    }
}

static void encode_lines(super *s, const float *x, float top, float top_scale) {
    line f[GROUPS_MAX];
    float a = 0, m = 0;
    for (int k = 0; k < s->n_group; k++) {
        f[k] = search_line(x + k * s->n, s->n, top, true);
        a = fmaxf(a, f[k].a);
        m = fmaxf(m, -f[k].m);
    }
    s->d = shared_scale(a, top_scale);
    s->dmin = shared_scale(m, top_scale);
    for (int k = 0; k < s->n_group; k++) {
        s->scale[k] = part_of(f[k].a, s->d, 0, top_scale);
        s->min[k] = part_of(-f[k].m, s->dmin, 0, top_scale);
        settle_lines(s, x + k * s->n, k, top, top_scale);
    }
}

static void settle_scale(super *s, const grid *g, const float *x, int k, float lo, float hi) {
    const int scale = s->scale[k];
    float q[SUPER], least = INFINITY;
    for (int i = 0; i < 3; i++) {
        const int ds = scale + (i + 1) % 3 - 1;
        if (ds < (int)lo || ds > (int)hi) continue;
        to_grid(g, x, s->n, s->d * (float)ds, q);
        const float e = error_of(x, q, s->n, s->d * (float)ds);
        if (e >= least) continue;
        least = e;
        s->scale[k] = ds;
        for (int j = 0; j < s->n; j++) s->code[k * s->n + j] = g->iq4 ? iq4_code(q[j]) : (int)q[j];
    }
}

/* Groups with a scale only, an integer of [lo, hi] times d; lo is the larger. */
static void encode_groups(super *s, const grid *g, const float *x, float lo, float hi) {
    float scale[GROUPS_MAX];
    for (int k = 0; k < s->n_group; k++) scale[k] = fit_scale(g, x + k * s->n, s->n);
    s->d = shared_scale(peak_of(scale, s->n_group), lo);
    for (int k = 0; k < s->n_group; k++) {
        s->scale[k] = part_of(scale[k], s->d, lo, hi);
        settle_scale(s, g, x + k * s->n, k, lo, hi);
    }
}

/* Two low bits of 16 groups of 16, as Q2_K and Q3_K pack them. */
static void store_pairs(u8 *p, const int *code) {
    for (int k = 0; k < 16; k++)
        for (int j = 0; j < 16; j++)
            p[k / 8 * 32 + k % 2 * 16 + j] |= (u8)((code[k * 16 + j] & 3) << k % 8 / 2 * 2);
}

static void encode_q2_k(const float *x, u8 *b) {
    super s = {.n_group = 16, .n = 16};
    encode_lines(&s, x, 3, 15);
    for (int k = 0; k < 16; k++) b[k] = (u8)(s.scale[k] | s.min[k] << 4);
    store_pairs(b + 16, s.code);
    store_half(b + 80, s.d);
    store_half(b + 82, s.dmin);
}

static void encode_q3_k(const float *x, u8 *b) {
    static const grid g = {-4, 3, false, 8};
    super s = {.n_group = 16, .n = 16};
    encode_groups(&s, &g, x, -32, 31);
    for (int k = 0; k < 16; k++) {
        const int scale = s.scale[k] + 32;
        b[96 + k % 8] |= (u8)((scale & 15) << k / 8 * 4);
        b[104 + k % 4] |= (u8)(scale >> 4 << k / 4 * 2);
        for (int j = 0; j < 16; j++) {
            s.code[k * 16 + j] += 4;
            b[k % 2 * 16 + j] |= (u8)(s.code[k * 16 + j] >> 2 << k / 2);
        }
    }
    store_pairs(b + 32, s.code);
    store_half(b + 108, s.d);
}

/* Six-bit scales and minima of 8 groups in 12 bytes. */
static void store_scales(u8 *p, const super *s) {
    for (int k = 0; k < 4; k++) {
        p[k] = (u8)(s->scale[k] | s->scale[k + 4] >> 4 << 6);
        p[k + 4] = (u8)(s->min[k] | s->min[k + 4] >> 4 << 6);
        p[k + 8] = (u8)((s->scale[k + 4] & 15) | (s->min[k + 4] & 15) << 4);
    }
}

/* The low nibbles of 256 codes, 64 to 32 bytes. */
static void store_low(u8 *p, const int *code) {
    for (int k = 0; k < 4; k++) store_nibbles(p + 32 * k, code + 64 * k, 32);
}

static void encode_q4_k(const float *x, u8 *b) {
    super s = {.n_group = 8, .n = 32};
    encode_lines(&s, x, 15, 63);
    store_half(b, s.d);
    store_half(b + 2, s.dmin);
    store_scales(b + 4, &s);
    store_low(b + 16, s.code);
}

static void encode_q5_k(const float *x, u8 *b) {
    super s = {.n_group = 8, .n = 32};
    encode_lines(&s, x, 31, 63);
    store_half(b, s.d);
    store_half(b + 2, s.dmin);
    store_scales(b + 4, &s);
    store_low(b + 48, s.code);
    for (int i = 0; i < SUPER; i++) b[16 + i % 32] |= (u8)((s.code[i] >> 4) << i / 32);
}

static void encode_q6_k(const float *x, u8 *b) {
    static const grid g = {-32, 31, false, 6};
    super s = {.n_group = 16, .n = 16};
    encode_groups(&s, &g, x, -128, 127);
    for (int k = 0; k < 16; k++) b[192 + k] = (u8)s.scale[k];
    for (int i = 0; i < SUPER; i++) {
        const int q = s.code[i] + 32, half = i / 128, quarter = i % 128 / 32, at = i % 32;
        b[half * 64 + quarter % 2 * 32 + at] |= (u8)((q & 15) << quarter / 2 * 4);
        b[128 + half * 32 + at] |= (u8)(q >> 4 << quarter * 2);
    }
    store_half(b + 208, s.d);
}

static void encode_iq4_xs(const float *x, u8 *b) {
    static const grid g = {-127, 113, true, 10};
    super s = {.n_group = 8, .n = 32};
    uint32_t high = 0;
    encode_groups(&s, &g, x, -32, 31);
    store_half(b, s.d);
    for (int k = 0; k < 8; k++) {
        const int scale = s.scale[k] + 32;
        b[4 + k / 2] |= (u8)((scale & 15) << k % 2 * 4);
        high |= (uint32_t)(scale >> 4) << 2 * k;
        store_nibbles(b + 8 + 16 * k, s.code + 32 * k, 16);
    }
    store16(b + 2, high);
}

/* ---- four-bit floats ---- */

static int fp4_code(float x) {
    const float magnitude = fabsf(x);
    int code = 0;
    for (int i = 1; i < 8; i++) code += 2 * magnitude > fp4_points[i - 1] + fp4_points[i];
    return code | (x < 0 && code ? 8 : 0);
}

/* The error of x [n] with this scale, and the codes. */
static float fp4_fit(const float *x, int n, float scale, int *code) {
    const float inverse = isfinite(1 / scale) ? 1 / scale : 0;
    float sum = 0;
    for (int j = 0; j < n; j++) {
        code[j] = fp4_code(x[j] * inverse);
        const float point = fp4_points[code[j] & 7], e = fabsf(x[j]) - scale * point;
        sum += e * e;
    }
    return sum;
}

/* The scale is 2^(e - 128) here, for points that are doubled. */
static void encode_mxfp4(const float *x, u8 *b) {
    float least = INFINITY;
    int code[32], exponent = 0;
    frexpf(peak_of(x, 32), &exponent); /* below 2^exponent, which should be near 12 scales */
    for (int e = exponent - 5 + 128; e <= exponent - 2 + 128; e++) {
        const int stored = (int)clamp((float)e, 0, 254);
        const float error = fp4_fit(x, 32, ldexpf(1, stored - 128), code);
        if (error >= least) continue;
        least = error;
        b[0] = (u8)stored;
        store_nibbles(b + 1, code, 16);
    }
}

/* What scale byte b stands for, for points that are doubled; see quant.c. */
static float ue4m3_half(int b) {
    const int e = b >> 3, m = b & 7;
    return e ? ldexpf(1 + (float)m / 8, e - 8) : ldexpf((float)m, -10);
}

static int ue4m3_at_most(float x) {
    int b = 0;
    for (int step = 64; step; step /= 2)
        if (b + step < 127 && ue4m3_half(b + step) <= x) b += step;
    return b;
}

/* 16 values: the peak on one of the three largest points, each with its two nearest scales. */
static void encode_nvfp4_group(const float *x, u8 *scale, u8 *nibbles) {
    const float peak = fabsf(peak_of(x, 16));
    float least = INFINITY;
    int code[16];
    for (int i = 0; i < 6; i++) {
        int b = ue4m3_at_most(peak / fp4_points[7 - i / 2]) + i % 2;
        if (b > 126) b = 126;
        const float error = fp4_fit(x, 16, ue4m3_half(b), code);
        if (error >= least) continue;
        least = error;
        *scale = (u8)b;
        store_nibbles(nibbles, code, 8);
    }
}

static void encode_nvfp4(const float *x, u8 *b) {
    for (int s = 0; s < 4; s++) encode_nvfp4_group(x + 16 * s, b + s, b + 4 + 8 * s);
}

/* ---- scalars ---- */

static void encode_f32(const float *x, u8 *b) { memcpy(b, x, sizeof *x); }

static void encode_f16(const float *x, u8 *b) { store_half(b, *x); }

static void encode_bf16(const float *x, u8 *b) {
    uint32_t bits;
    memcpy(&bits, x, sizeof bits);
    store16(b, (bits + 0x7fff + (bits >> 16 & 1)) >> 16); /* to the nearest, ties to even */
}

/* ---- the table ---- */

#define HALF_MAX  65504.0f
#define BLOCK_MAX 32768.0f    /* so that no scale, and no minimum, is beyond f16 */
#define BF16_MAX  0x1.fep127f /* the largest of its values */

static const struct {
    void (*encode)(const float *x, u8 *b);
    float limit;
} encoders[] = {
    [QUANT_F32] = {encode_f32, INFINITY},        [QUANT_F16] = {encode_f16, HALF_MAX},
    [QUANT_Q4_0] = {encode_q4_0, BLOCK_MAX},     [QUANT_Q4_1] = {encode_q4_1, BLOCK_MAX},
    [QUANT_Q5_0] = {encode_q5_0, BLOCK_MAX},     [QUANT_Q5_1] = {encode_q5_1, BLOCK_MAX},
    [QUANT_Q8_0] = {encode_q8_0, BLOCK_MAX},     [QUANT_Q2_K] = {encode_q2_k, BLOCK_MAX},
    [QUANT_Q3_K] = {encode_q3_k, BLOCK_MAX},     [QUANT_Q4_K] = {encode_q4_k, BLOCK_MAX},
    [QUANT_Q5_K] = {encode_q5_k, BLOCK_MAX},     [QUANT_Q6_K] = {encode_q6_k, BLOCK_MAX},
    [QUANT_IQ4_NL] = {encode_iq4_nl, BLOCK_MAX}, [QUANT_IQ4_XS] = {encode_iq4_xs, BLOCK_MAX},
    [QUANT_BF16] = {encode_bf16, BF16_MAX},      [QUANT_MXFP4] = {encode_mxfp4, 0x1p126f},
    [QUANT_NVFP4] = {encode_nvfp4, 2 * 2688.0f}, /* 6 times 448 is the largest, others become it */
};

float quantise_limit(uint32_t type) { return encoders[type].limit; }

bool quantise(uint32_t type, const float *in, size_t n, void *blocks, const char *what,
              carat_error *err) {
    const quant_format *f = quant_find(type);
    assert(f && type < COUNT(encoders) && encoders[type].encode && n % f->n_value == 0);
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(in[i]) <= encoders[type].limit) || isinf(in[i]))
            return fail(err, CARAT_E_FORMAT, "quantise: %s: value %zu is %g, which %s cannot hold",
                        what, i, (double)in[i], f->name);
    u8 *b = blocks;
    memset(b, 0, n / f->n_value * f->n_byte);
    for (size_t i = 0; i < n; i += f->n_value, b += f->n_byte) encoders[type].encode(in + i, b);
    return true;
}
