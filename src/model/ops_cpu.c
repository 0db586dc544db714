/* ops_cpu: the operations of the network in f32, in the order of a textbook. What the kernels are
 * tested against, and what text_cpu.c is made of.
 *
 * Flow: weights.c before, text_cpu.c after. */
#include "model/encoder.h"

#include <math.h>

#define LANES 4u    /* numbers that any processor adds at once */
#define STRIP 1024u /* values of a row that are expanded at once; a multiple of every block */

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef lanes lanes_at __attribute__((aligned(sizeof(float)), may_alias)); /* anywhere in memory */

typedef struct stored_row {
    const quant_format *format;
    const uint8_t *blocks;
} stored_row;

static stored_row row_of(const weight *w, uint64_t row) {
    const quant_format *f = quant_find(w->type);
    assert(w->host && f && w->n_col % f->n_value == 0);
    return (stored_row){f, w->host + row * (w->n_col / f->n_value) * f->n_byte};
}

static float external_scale(const weight *w, uint64_t expert) {
    return w->expert_scale ? w->expert_scale[expert] : w->scale;
}

void ref_dequantise_row(const weight *w, uint64_t row, float *out) {
    const stored_row r = row_of(w, row);
    const float scale = external_scale(w, row / w->n_row);
    r.format->dequantise(r.blocks, out, w->n_col);
    for (uint32_t i = 0; i < w->n_col && scale != 1; i++) out[i] *= scale;
}

float ref_dot(const float *a, const float *b, uint32_t n) {
    lanes part[2] = {0};
    const uint32_t step = 2 * LANES;
    float sum = 0;
    for (; n >= step; n -= step, a += step, b += step) {
        const lanes_at *x = (const lanes_at *)a, *y = (const lanes_at *)b;
        part[0] += x[0] * y[0];
        part[1] += x[1] * y[1];
    }
    for (uint32_t i = 0; i < n; i++) sum += a[i] * b[i];
    for (uint32_t j = 0; j < LANES; j++) sum += part[0][j] + part[1][j];
    return sum;
}

/* One row of the matrix with every token: each strip is expanded once. */
static void matmul_row(stored_row r, float scale, const float *in, uint32_t n_tok, uint32_t n_col,
                       float *out, uint32_t out_stride) {
    float strip[STRIP];
    for (uint32_t t = 0; t < n_tok; t++) out[(size_t)t * out_stride] = 0;
    for (uint32_t at = 0; at < n_col; at += STRIP) {
        const uint32_t n = min_u32(STRIP, n_col - at);
        r.format->dequantise(r.blocks + at / r.format->n_value * r.format->n_byte, strip, n);
        for (uint32_t t = 0; t < n_tok; t++)
            out[(size_t)t * out_stride] += ref_dot(strip, in + (size_t)t * n_col + at, n);
    }
    for (uint32_t t = 0; t < n_tok; t++) out[(size_t)t * out_stride] *= scale;
}

void ref_matmul(const weight *w, uint32_t expert, const float *in, uint32_t n_tok, float *out) {
    const uint64_t row0 = (uint64_t)expert * w->n_row;
    const float scale = external_scale(w, expert);
    const bool big = (uint64_t)w->n_row * w->n_col * n_tok > REF_PARALLEL;
#pragma omp parallel for schedule(static) if (big)
    for (uint32_t i = 0; i < w->n_row; i++)
        matmul_row(row_of(w, row0 + i), scale, in, n_tok, w->n_col, out + i, w->n_row);
    (void)big; /* without OpenMP */
}

void ref_rmsnorm(const float *x, const float *w, uint32_t n_tok, uint32_t n, float eps,
                 float *out) {
    for (uint32_t t = 0; t < n_tok; t++, x += n, out += n) {
        const float scale = 1 / sqrtf(ref_dot(x, x, n) / (float)n + eps);
        for (uint32_t i = 0; i < n; i++) out[i] = w ? x[i] * scale * w[i] : x[i] * scale;
    }
}

void ref_rope(float *x, const float *cos_sin, uint32_t n_head, uint32_t head_dim, uint32_t n_rot) {
    for (uint32_t h = 0; h < n_head; h++, x += head_dim)
        for (uint32_t i = 0; i < n_rot; i++) {
            const float c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
            const float a = x[i], b = x[i + head_dim / 2];
            x[i] = a * c - b * s;
            x[i + head_dim / 2] = b * c + a * s;
        }
}

/* out += scale * x */
static void add_scaled(float *out, const float *x, uint32_t n, float scale) {
    for (; n >= LANES; n -= LANES, out += LANES, x += LANES)
        *(lanes_at *)out += scale * *(const lanes_at *)x;
    for (uint32_t i = 0; i < n; i++) out[i] += scale * x[i];
}

void ref_attend(const float *q, const float *k, const float *v, uint32_t n, uint32_t stride,
                uint32_t head_dim, float *scores, float *out) {
    for (uint32_t j = 0; j < n; j++) scores[j] = ref_dot(q, k + (size_t)j * stride, head_dim);
    ref_softmax(scores, n);
    for (uint32_t i = 0; i < head_dim; i++) out[i] = 0;
    for (uint32_t j = 0; j < n; j++) add_scaled(out, v + (size_t)j * stride, head_dim, scores[j]);
}

float ref_gelu(float x) {
    return 0.5f * x * (1 + tanhf(0.7978845608028654f * x * (1 + 0.044715f * x * x)));
}

void ref_geglu(const float *gate, const float *up, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) out[i] = ref_gelu(gate[i]) * up[i];
}

void ref_softmax(float *x, size_t n) {
    float top = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++) top = fmaxf(top, x[i]);
    for (size_t i = 0; i < n; i++) sum += x[i] = expf(x[i] - top);
    for (size_t i = 0; i < n; i++) x[i] /= sum;
}

void ref_softcap(float *x, size_t n, float cap) {
    for (size_t i = 0; i < n; i++) x[i] = cap * tanhf(x[i] / cap);
}

/* ---- encoders ---- */

static void clamp(const float *x, size_t n, float low, float high, float *out) {
    for (size_t i = 0; i < n; i++) out[i] = x[i] < low ? low : x[i] > high ? high : x[i];
}

void ref_clipped(const clipped *c, const float *in, uint32_t n_tok, float *scratch, float *out) {
    const uint32_t n_col = c->w.n_col, n_row = c->w.n_row;
    for (uint32_t at = 0; at < n_tok; at += ENCODER_CHUNK) {
        const uint32_t n = min_u32(ENCODER_CHUNK, n_tok - at);
        float *y = out + (size_t)at * n_row;
        clamp(in + (size_t)at * n_col, (size_t)n * n_col, c->in_min, c->in_max, scratch);
        ref_matmul(&c->w, 0, scratch, n, y);
        clamp(y, (size_t)n * n_row, c->out_min, c->out_max, y);
    }
}

void ref_layernorm(const float *x, const float *w, const float *b, uint32_t n_tok, uint32_t n,
                   float eps, float *out) {
    for (uint32_t t = 0; t < n_tok; t++, x += n, out += n) {
        float mean = 0, var = 0;
        for (uint32_t i = 0; i < n; i++) mean += x[i];
        mean /= (float)n;
        for (uint32_t i = 0; i < n; i++) var += (x[i] - mean) * (x[i] - mean);
        const float scale = 1 / sqrtf(var / (float)n + eps);
        for (uint32_t i = 0; i < n; i++) out[i] = (x[i] - mean) * scale * w[i] + (b ? b[i] : 0);
    }
}
