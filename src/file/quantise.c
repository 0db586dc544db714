/* quantise: values into storage formats. For every format that quant.c reads there are two
 * functions here: one that fits a block's scales and codes, one that packs them into bytes, whose
 * layouts are told there. Scalar; blocks are independent, unless they round towards an aim.
 *
 * A scale is found by trying: the largest value is put onto several points of the grid, every try
 * is rounded, and of the scale that then fits best in the sense of least squares the error is known
 * in closed form. Formats with two levels of scales first fit their groups, then round the groups'
 * scales to their few bits, then look whether a neighbour of each is better.
 *
 * Flow: values come from quant.c and model/merge.c; a file is next. */
#include "file/quantise.h"

#include <math.h>
#include <string.h>

typedef uint8_t u8;

enum { VALUES = 256, GROUPS = 16 }; /* of a block, at most */

/* What codes stand for: themselves, or points of a table. */
typedef enum points { INTEGERS, IQ4, FP4 } points;

static const float iq4_points[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
static const float fp4_points[8] = {0, 1, 2, 3, 4, 6, 8, 12};

/* A block before it is packed: value i of group k is a[k] point(code[i]) + m[k]. */
typedef struct block {
    float a[GROUPS], m[GROUPS];
    int code[VALUES];               /* those of FP4 are -7 .. 7 */
    float d, dmin;                  /* as f16 has them */
    int scale[GROUPS], min[GROUPS]; /* of d and dmin; of formats with such scales */
} block;

/* Of a format. */
typedef struct shape {
    points points;
    int n_group, n; /* groups in a block, values in a group */
    int lo, hi;     /* codes */
    int n_try;      /* scales that are tried, each with both signs */
    int scale_lo, scale_hi;
} shape;

static float point(points p, int code) {
    if (p == IQ4) return iq4_points[code];
    if (p == FP4) return code < 0 ? -fp4_points[-code] : fp4_points[code];
    return (float)code;
}

static float clamp(float x, float lo, float hi) { return x < lo ? lo : x > hi ? hi : x; }

/* To the nearest integer; |x| < 2^22. */
static float nearest(float x) { return x + 0x1.8p23f - 0x1.8p23f; }

static float inverse_of(float x) { return x != 0 && isfinite(1 / x) ? 1 / x : 0; }

static float as_half(float x) { return half_to_float(float_to_half(x)); }

static int iq4_code(float x) {
    int code = 0;
    for (int i = 1; i < 16; i++) code += 2 * x > iq4_points[i - 1] + iq4_points[i];
    return code;
}

static float dot(const float *a, const float *b, int n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < n; j++) sum += a[j] * b[j];
    return sum;
}

static void to_codes(const float *q, int n, points p, int *code) {
    for (int j = 0; j < n; j++) code[j] = p == IQ4 ? iq4_code(q[j]) : (int)q[j];
}

/* ---- a scale: x = a q ---- */

/* q [n]: the points nearest to x [n] / scale. */
static void to_points(const shape *s, const float *x, int n, float scale, float *q) {
    const float inverse = inverse_of(scale);
    const float lo = point(s->points, s->lo), hi = point(s->points, s->hi);
    for (int j = 0; j < n; j++) q[j] = clamp(x[j] * inverse, lo, hi);
    for (int j = 0; j < n; j++)
        q[j] = s->points == IQ4 ? iq4_points[iq4_code(q[j])] : nearest(q[j]);
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

/* The point, or a place a little outside or inside, that try i puts the peak on. */
static float try_point(const shape *s, int i) {
    static const float places[] = {127, 113, 104, 89, 120, 108, 97, 83, 133, 69};
    return s->points == IQ4 ? places[i] : 0.5f * (float)(1 - i) - (float)s->lo;
}

/* The scale with which points are nearest to x [n]; 0 for zeros. */
static float fit_scale(const shape *s, const float *x, int n) {
    const float peak = peak_of(x, n), hi = point(s->points, s->hi);
    float q[VALUES], best = 0, most = -1;
    if (peak == 0) return 0;
    for (int i = 0; i < 2 * s->n_try; i++) {
        const float place = try_point(s, i / 2);
        if (place < 1 || (i % 2 && place > hi + 0.5f)) continue;
        to_points(s, x, n, i % 2 ? peak / place : -peak / place, q);
        /* The error is x x - (x q)^2 / q q at the best scale, x q / q q. */
        const float xq = dot(x, q, n), qq = dot(q, q, n);
        if (qq == 0 || xq * (xq / qq) <= most) continue;
        most = xq * (xq / qq);
        best = xq / qq;
    }
    return best;
}

static void fit_one_scale(const shape *s, const float *x, block *b) {
    float q[VALUES];
    b->a[0] = b->d = as_half(fit_scale(s, x, s->n));
    to_points(s, x, s->n, b->d, q);
    to_codes(q, s->n, s->points, b->code);
}

/* ---- a scale and a minimum: x = a q + m, q in [0, top] ---- */

typedef struct line {
    float a, m;
} line;

static void to_line(const float *x, int n, line f, float top, float *q) {
    const float inverse = inverse_of(f.a);
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
    float low = x[0], high = x[0], q[VALUES], least = INFINITY;
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

static void fit_one_line(const shape *s, const float *x, block *b) {
    float q[VALUES];
    const line f = search_line(x, s->n, (float)s->hi, false);
    b->a[0] = b->d = as_half(f.a);
    b->m[0] = b->dmin = as_half(f.m);
    to_line(x, s->n, (line){b->a[0], b->m[0]}, (float)s->hi, q);
    to_codes(q, s->n, INTEGERS, b->code);
}

/* ---- 256 values in groups, the groups' scales in few bits ---- */

/* x as an integer of [lo, hi] times d */
static int part_of(float x, float d, int lo, int hi) {
    return d != 0 ? (int)nearest(clamp(x / d, (float)lo, (float)hi)) : 0;
}

/* Group k's scale and minimum: of the neighbours the pair that fits best. */
static void settle_line(const shape *s, const float *x, int k, block *b) {
    const int scale = b->scale[k], min = b->min[k];
    float q[VALUES], least = INFINITY;
    for (int i = 0; i < 9; i++) {
        const int ds = scale + (i + 1) % 3 - 1, dm = min + (i / 3 + 1) % 3 - 1; /* itself first */
        if (ds < 0 || dm < 0 || ds > s->scale_hi || dm > s->scale_hi) continue;
        const line f = {b->d * (float)ds, -b->dmin * (float)dm};
        to_line(x, s->n, f, (float)s->hi, q);
        const float e = line_error(x, q, s->n, f);
        if (e >= least) continue;
        least = e;
        b->scale[k] = ds;
        b->min[k] = dm;
        b->a[k] = f.a;
        b->m[k] = f.m;
        to_codes(q, s->n, INTEGERS, b->code + k * s->n);
    }
}

static void fit_lines(const shape *s, const float *x, block *b) {
    line f[GROUPS];
    float a = 0, m = 0;
    for (int k = 0; k < s->n_group; k++) {
        f[k] = search_line(x + k * s->n, s->n, (float)s->hi, true);
        a = fmaxf(a, f[k].a);
        m = fmaxf(m, -f[k].m);
    }
    b->d = as_half(a / (float)s->scale_hi);
    b->dmin = as_half(m / (float)s->scale_hi);
    for (int k = 0; k < s->n_group; k++) {
        b->scale[k] = part_of(f[k].a, b->d, 0, s->scale_hi);
        b->min[k] = part_of(-f[k].m, b->dmin, 0, s->scale_hi);
        settle_line(s, x + k * s->n, k, b);
    }
}

static void settle_scale(const shape *s, const float *x, int k, block *b) {
    const int scale = b->scale[k];
    float q[VALUES], least = INFINITY;
    for (int i = 0; i < 3; i++) {
        const int ds = scale + (i + 1) % 3 - 1; /* itself first */
        const float a = b->d * (float)ds;
        if (ds < s->scale_lo || ds > s->scale_hi) continue;
        to_points(s, x, s->n, a, q);
        const float e = error_of(x, q, s->n, a);
        if (e >= least) continue;
        least = e;
        b->scale[k] = ds;
        b->a[k] = a;
        to_codes(q, s->n, s->points, b->code + k * s->n);
    }
}

static void fit_groups(const shape *s, const float *x, block *b) {
    float scale[GROUPS];
    for (int k = 0; k < s->n_group; k++) scale[k] = fit_scale(s, x + k * s->n, s->n);
    b->d = as_half(peak_of(scale, s->n_group) / (float)s->scale_lo); /* which reaches farthest */
    for (int k = 0; k < s->n_group; k++) {
        b->scale[k] = part_of(scale[k], b->d, s->scale_lo, s->scale_hi);
        settle_scale(s, x + k * s->n, k, b);
    }
}

/* ---- four-bit floats ---- */

static int fp4_code(float x) {
    const float magnitude = fabsf(x);
    int code = 0;
    for (int i = 1; i < 8; i++) code += 2 * magnitude > fp4_points[i - 1] + fp4_points[i];
    return x < 0 ? -code : code;
}

/* Takes a scale, stored as `stored`, for group k if it is better than *least. */
static void try_fp4(const shape *s, const float *x, int k, float a, int stored, float *least,
                    block *b) {
    const float inverse = inverse_of(a);
    float sum = 0;
    int code[32];
    for (int j = 0; j < s->n; j++) {
        code[j] = fp4_code(x[j] * inverse);
        const float e = x[j] - a * point(FP4, code[j]);
        sum += e * e;
    }
    if (sum >= *least) return;
    *least = sum;
    b->scale[k] = stored;
    b->a[k] = a;
    memcpy(b->code + k * s->n, code, (size_t)s->n * sizeof *code);
}

/* The scale is 2^(e - 128) here, for points that are doubled. */
static void fit_mxfp4(const shape *s, const float *x, block *b) {
    float least = INFINITY;
    int exponent = 0;
    frexpf(peak_of(x, s->n), &exponent); /* below 2^exponent, which should be near 12 scales */
    for (int e = exponent - 5 + 128; e <= exponent - 2 + 128; e++) {
        const int stored = e < 0 ? 0 : e > 254 ? 254 : e;
        try_fp4(s, x, 0, ldexpf(1, stored - 128), stored, &least, b);
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

/* The peak of a group on one of the three largest points, each with its two nearest scales. */
static void fit_nvfp4(const shape *s, const float *x, block *b) {
    for (int k = 0; k < s->n_group; k++, x += s->n) {
        const float peak = fabsf(peak_of(x, s->n));
        float least = INFINITY;
        for (int i = 0; i < 6; i++) {
            const int found = ue4m3_at_most(peak / fp4_points[7 - i / 2]) + i % 2;
            const int stored = found < 126 ? found : 126;
            try_fp4(s, x, k, ue4m3_half(stored), stored, &least, b);
        }
    }
}

/* ---- rounding towards an aim ---- */

/* One more look at every code: it moves to its neighbour when that makes error^2, along the aim's
 * directions, plus `keep` times the sum of squared errors less. */
static void move_codes(const shape *s, const float *x, const quantise_aim *aim, size_t at,
                       float keep, block *b) {
    const int n_dir = (int)aim->n_dir;
    for (int i = 0; i < s->n_group * s->n; i++) {
        const int k = i / s->n, code = b->code[i];
        const float *column = aim->columns + (at + (size_t)i) * aim->n_dir;
        const float is = b->a[k] * point(s->points, code) + b->m[k];
        const float slope = dot(aim->error, column, n_dir) + keep * (is - x[i]);
        const int to = code + ((slope > 0) == (b->a[k] > 0) ? -1 : 1);
        if (to < s->lo || to > s->hi) continue;
        const float step = b->a[k] * point(s->points, to) + b->m[k] - is;
        if (2 * step * slope + step * step * (aim->norms[at + (size_t)i] + keep) >= 0) continue;
        b->code[i] = to;
        for (int r = 0; r < n_dir; r++) aim->error[r] += step * column[r];
    }
}

static void round_towards(const shape *s, const float *x, const quantise_aim *aim, size_t at,
                          block *b) {
    for (int i = 0; i < s->n_group * s->n; i++) {
        const int k = i / s->n;
        const float *column = aim->columns + (at + (size_t)i) * aim->n_dir;
        const float e = b->a[k] * point(s->points, b->code[i]) + b->m[k] - x[i];
        for (uint32_t r = 0; r < aim->n_dir; r++) aim->error[r] += e * column[r];
    }
    /* At first only where it helps most; at last not at any price. */
    for (float keep = 16; keep >= 2; keep /= 2) move_codes(s, x, aim, at, keep, b);
}

/* ---- packing ---- */

static void store16(u8 *p, uint32_t v) {
    p[0] = (u8)v;
    p[1] = (u8)(v >> 8);
}

static void store_half(u8 *p, float x) { store16(p, float_to_half(x)); }

/* 2 n codes of four bits: the first n are the low halves of n bytes. */
static void store_nibbles(u8 *p, const int *code, int n, int zero) {
    for (int j = 0; j < n; j++)
        p[j] = (u8)(((code[j] + zero) & 15) | ((code[j + n] + zero) & 15) << 4);
}

/* The fifth bits of 32 codes. */
static void store_fifth(u8 *p, const int *code, int zero) {
    uint32_t high = 0;
    for (int j = 0; j < 32; j++) high |= (uint32_t)((code[j] + zero) >> 4 & 1) << j;
    store16(p, high & 0xffff);
    store16(p + 2, high >> 16);
}

static void pack_q4_0(const block *b, u8 *p) {
    store_half(p, b->d);
    store_nibbles(p + 2, b->code, 16, 8);
}

static void pack_q4_1(const block *b, u8 *p) {
    store_half(p, b->d);
    store_half(p + 2, b->dmin);
    store_nibbles(p + 4, b->code, 16, 0);
}

static void pack_q5_0(const block *b, u8 *p) {
    store_half(p, b->d);
    store_fifth(p + 2, b->code, 16);
    store_nibbles(p + 6, b->code, 16, 16);
}

static void pack_q5_1(const block *b, u8 *p) {
    store_half(p, b->d);
    store_half(p + 2, b->dmin);
    store_fifth(p + 4, b->code, 0);
    store_nibbles(p + 8, b->code, 16, 0);
}

static void pack_q8_0(const block *b, u8 *p) {
    store_half(p, b->d);
    for (int j = 0; j < 32; j++) p[2 + j] = (u8)b->code[j];
}

static void pack_iq4_nl(const block *b, u8 *p) {
    store_half(p, b->d);
    store_nibbles(p + 2, b->code, 16, 0);
}

/* Two low bits of 16 groups of 16, as Q2_K and Q3_K have them. */
static void store_pairs(u8 *p, const int *code, int zero) {
    for (int k = 0; k < 16; k++)
        for (int j = 0; j < 16; j++)
            p[k / 8 * 32 + k % 2 * 16 + j] |=
                (u8)(((code[k * 16 + j] + zero) & 3) << k % 8 / 2 * 2);
}

static void pack_q2_k(const block *b, u8 *p) {
    for (int k = 0; k < 16; k++) p[k] = (u8)(b->scale[k] | b->min[k] << 4);
    store_pairs(p + 16, b->code, 0);
    store_half(p + 80, b->d);
    store_half(p + 82, b->dmin);
}

static void pack_q3_k(const block *b, u8 *p) {
    for (int k = 0; k < 16; k++) {
        const int scale = b->scale[k] + 32;
        p[96 + k % 8] |= (u8)((scale & 15) << k / 8 * 4);
        p[104 + k % 4] |= (u8)(scale >> 4 << k / 4 * 2);
        for (int j = 0; j < 16; j++)
            p[k % 2 * 16 + j] |= (u8)((b->code[k * 16 + j] + 4) >> 2 << k / 2);
    }
    store_pairs(p + 32, b->code, 4);
    store_half(p + 108, b->d);
}

/* Six-bit scales and minima of 8 groups in 12 bytes. */
static void store_scales(u8 *p, const block *b) {
    for (int k = 0; k < 4; k++) {
        p[k] = (u8)(b->scale[k] | b->scale[k + 4] >> 4 << 6);
        p[k + 4] = (u8)(b->min[k] | b->min[k + 4] >> 4 << 6);
        p[k + 8] = (u8)((b->scale[k + 4] & 15) | (b->min[k + 4] & 15) << 4);
    }
}

static void pack_q4_k(const block *b, u8 *p) {
    store_half(p, b->d);
    store_half(p + 2, b->dmin);
    store_scales(p + 4, b);
    for (int k = 0; k < 4; k++) store_nibbles(p + 16 + 32 * k, b->code + 64 * k, 32, 0);
}

static void pack_q5_k(const block *b, u8 *p) {
    store_half(p, b->d);
    store_half(p + 2, b->dmin);
    store_scales(p + 4, b);
    for (int i = 0; i < VALUES; i++) p[16 + i % 32] |= (u8)((b->code[i] >> 4) << i / 32);
    for (int k = 0; k < 4; k++) store_nibbles(p + 48 + 32 * k, b->code + 64 * k, 32, 0);
}

static void pack_q6_k(const block *b, u8 *p) {
    for (int k = 0; k < 16; k++) p[192 + k] = (u8)b->scale[k];
    for (int i = 0; i < VALUES; i++) {
        const int q = b->code[i] + 32, half = i / 128, quarter = i % 128 / 32, at = i % 32;
        p[half * 64 + quarter % 2 * 32 + at] |= (u8)((q & 15) << quarter / 2 * 4);
        p[128 + half * 32 + at] |= (u8)(q >> 4 << quarter * 2);
    }
    store_half(p + 208, b->d);
}

static void pack_iq4_xs(const block *b, u8 *p) {
    uint32_t high = 0;
    store_half(p, b->d);
    for (int k = 0; k < 8; k++) {
        const int scale = b->scale[k] + 32;
        p[4 + k / 2] |= (u8)((scale & 15) << k % 2 * 4);
        high |= (uint32_t)(scale >> 4) << 2 * k;
        store_nibbles(p + 8 + 16 * k, b->code + 32 * k, 16, 0);
    }
    store16(p + 2, high);
}

/* A sign and a magnitude. */
static void store_fp4(u8 *p, const int *code, int n) {
    int bits[32];
    for (int j = 0; j < 2 * n; j++) bits[j] = code[j] < 0 ? 8 - code[j] : code[j];
    store_nibbles(p, bits, n, 0);
}

static void pack_mxfp4(const block *b, u8 *p) {
    p[0] = (u8)b->scale[0];
    store_fp4(p + 1, b->code, 16);
}

static void pack_nvfp4(const block *b, u8 *p) {
    for (int k = 0; k < 4; k++) {
        p[k] = (u8)b->scale[k];
        store_fp4(p + 4 + 8 * k, b->code + 16 * k, 8);
    }
}

/* ---- scalars ---- */

static void store_plain(uint32_t type, float x, u8 *p) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (type == QUANT_F32)
        memcpy(p, &x, sizeof x);
    else if (type == QUANT_F16)
        store_half(p, x);
    else
        store16(p, (bits + 0x7fff + (bits >> 16 & 1)) >> 16); /* to the nearest, ties to even */
}

/* ---- the table ---- */

#define HALF_MAX  65504.0f
#define BLOCK_MAX 32768.0f      /* so that no scale, and no minimum, is beyond f16 */
#define BF16_MAX  0x1.fep127f   /* the largest of its values */
#define FP4_MAX   (2 * 2688.0f) /* 6 times 448 is the largest; what is above becomes that */

static const struct {
    float limit;
    void (*fit)(const shape *s, const float *x, block *b); /* NULL: plain numbers */
    void (*pack)(const block *b, u8 *p);
    shape shape;
} formats[] = {
    [QUANT_F32] = {.limit = 0x1.fffffep127f},
    [QUANT_F16] = {.limit = HALF_MAX},
    [QUANT_BF16] = {.limit = BF16_MAX},
    [QUANT_Q4_0] = {BLOCK_MAX, fit_one_scale, pack_q4_0, {INTEGERS, 1, 32, -8, 7, 12, 0, 0}},
    [QUANT_Q4_1] = {BLOCK_MAX, fit_one_line, pack_q4_1, {INTEGERS, 1, 32, 0, 15, 0, 0, 0}},
    [QUANT_Q5_0] = {BLOCK_MAX, fit_one_scale, pack_q5_0, {INTEGERS, 1, 32, -16, 15, 8, 0, 0}},
    [QUANT_Q5_1] = {BLOCK_MAX, fit_one_line, pack_q5_1, {INTEGERS, 1, 32, 0, 31, 0, 0, 0}},
    [QUANT_Q8_0] = {BLOCK_MAX, fit_one_scale, pack_q8_0, {INTEGERS, 1, 32, -128, 127, 4, 0, 0}},
    [QUANT_Q2_K] = {BLOCK_MAX, fit_lines, pack_q2_k, {INTEGERS, 16, 16, 0, 3, 0, 0, 15}},
    [QUANT_Q3_K] = {BLOCK_MAX, fit_groups, pack_q3_k, {INTEGERS, 16, 16, -4, 3, 8, -32, 31}},
    [QUANT_Q4_K] = {BLOCK_MAX, fit_lines, pack_q4_k, {INTEGERS, 8, 32, 0, 15, 0, 0, 63}},
    [QUANT_Q5_K] = {BLOCK_MAX, fit_lines, pack_q5_k, {INTEGERS, 8, 32, 0, 31, 0, 0, 63}},
    [QUANT_Q6_K] = {BLOCK_MAX, fit_groups, pack_q6_k, {INTEGERS, 16, 16, -32, 31, 6, -128, 127}},
    [QUANT_IQ4_NL] = {BLOCK_MAX, fit_one_scale, pack_iq4_nl, {IQ4, 1, 32, 0, 15, 10, 0, 0}},
    [QUANT_IQ4_XS] = {BLOCK_MAX, fit_groups, pack_iq4_xs, {IQ4, 8, 32, 0, 15, 10, -32, 31}},
    [QUANT_MXFP4] = {0x1p60f, fit_mxfp4, pack_mxfp4, {FP4, 1, 32, -7, 7, 0, 0, 0}},
    [QUANT_NVFP4] = {FP4_MAX, fit_nvfp4, pack_nvfp4, {FP4, 4, 16, -7, 7, 0, 0, 0}},
};

float quantise_limit(uint32_t type) { return formats[type].limit; }

bool quantise(uint32_t type, const float *in, size_t n, const quantise_aim *aim, void *blocks,
              const char *what, carat_error *err) {
    const quant_format *f = quant_find(type);
    assert(f && type < COUNT(formats) && formats[type].limit > 0 && n % f->n_value == 0);
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(in[i]) <= formats[type].limit))
            return fail(err, CARAT_E_FORMAT, "quantise: %s: value %zu is %g, which %s cannot hold",
                        what, i, (double)in[i], f->name);
    u8 *p = blocks;
    memset(p, 0, n / f->n_value * f->n_byte);
    if (!formats[type].fit)
        for (size_t i = 0; i < n; i++, p += f->n_byte) store_plain(type, in[i], p);
    const shape *s = &formats[type].shape;
    block b = {0};
    for (size_t i = 0; i < n && formats[type].fit; i += f->n_value, p += f->n_byte) {
        formats[type].fit(s, in + i, &b);
        if (aim) round_towards(s, in + i, aim, i, &b);
        formats[type].pack(&b, p);
    }
    return true;
}
