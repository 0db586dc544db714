/* ops_back: derivatives of the operations of ops_cpu.c, in the same order, textbook f32.
 *
 * Flow: ops_cpu.c before, back_cpu.c after. */
#include "train/back.h"

#include <math.h>
#include <string.h>

#define STRIP 256u /* columns that a thread owns; a multiple of every block */
#define LANES 4u   /* numbers that any processor adds at once */

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

/* out += scale * x */
static void add_scaled(float *out, const float *x, uint32_t n, float scale) {
    lanes a[2], b[2];
    for (; n >= 2 * LANES; n -= 2 * LANES, out += 2 * LANES, x += 2 * LANES) {
        memcpy(a, out, sizeof a);
        memcpy(b, x, sizeof b);
        a[0] += scale * b[0];
        a[1] += scale * b[1];
        memcpy(out, a, sizeof a);
    }
    for (uint32_t i = 0; i < n; i++) out[i] += scale * x[i];
}

/* A strip of columns through all rows: each block is expanded once. */
static void matmul_strip(const weight *w, uint32_t expert, const float *dout, uint32_t n_tok,
                         uint32_t at, float *din) {
    const quant_format *f = quant_find(w->type);
    const uint32_t n = min_u32(STRIP, w->n_col - at);
    const float scale = w->expert_scale ? w->expert_scale[expert] : w->scale;
    const uint64_t row_bytes = (uint64_t)w->n_col / f->n_value * f->n_byte;
    const uint8_t *blocks = w->host + (uint64_t)expert * w->n_row * row_bytes;
    blocks += (uint64_t)at / f->n_value * f->n_byte;
    float strip[STRIP];
    for (uint32_t i = 0; i < w->n_row; i++, blocks += row_bytes) {
        f->dequantise(blocks, strip, n);
        for (uint32_t t = 0; t < n_tok; t++)
            add_scaled(din + (size_t)t * w->n_col + at, strip, n,
                       scale * dout[(size_t)t * w->n_row + i]);
    }
}

void back_matmul(const weight *w, uint32_t expert, const float *dout, uint32_t n_tok, float *din) {
    const bool big = (uint64_t)w->n_row * w->n_col * n_tok > REF_PARALLEL;
    assert(w->host && quant_find(w->type));
#pragma omp parallel for schedule(static) if (big)
    for (uint32_t at = 0; at < w->n_col; at += STRIP) matmul_strip(w, expert, dout, n_tok, at, din);
    (void)big; /* without OpenMP */
}

/* With s = 1/sqrt(mean(x^2) + eps), g = dout w: dx = s g - x s^3 mean(g x) */
void back_rmsnorm(const float *x, const float *w, const float *dout, uint32_t n_tok, uint32_t n,
                  float eps, float *dx) {
    for (uint32_t t = 0; t < n_tok; t++, x += n, dout += n, dx += n) {
        const float s = 1 / sqrtf(ref_dot(x, x, n) / (float)n + eps);
        float sum = 0;
        for (uint32_t i = 0; i < n; i++) sum += dout[i] * (w ? w[i] : 1) * x[i];
        const float c = s * s * s * sum / (float)n;
        for (uint32_t i = 0; i < n; i++) dx[i] += s * dout[i] * (w ? w[i] : 1) - c * x[i];
    }
}

void back_rope(float *dx, const float *cos_sin, uint32_t n_head, uint32_t head_dim,
               uint32_t n_rot) {
    for (uint32_t h = 0; h < n_head; h++, dx += head_dim)
        for (uint32_t i = 0; i < n_rot; i++) {
            const float c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
            const float a = dx[i], b = dx[i + head_dim / 2];
            dx[i] = a * c + b * s;
            dx[i + head_dim / 2] = b * c - a * s;
        }
}

void back_attend(const float *q, const float *k, const float *v, const float *dout, uint32_t n,
                 uint32_t stride, uint32_t head_dim, float *scores, float *dq, float *dk,
                 float *dv) {
    float *p = scores, *dp = scores + n, mean = 0;
    for (uint32_t j = 0; j < n; j++) p[j] = ref_dot(q, k + (size_t)j * stride, head_dim);
    ref_softmax(p, n);
    for (uint32_t j = 0; j < n; j++) {
        dp[j] = ref_dot(dout, v + (size_t)j * stride, head_dim);
        mean += p[j] * dp[j];
    }
    memset(dq, 0, head_dim * sizeof *dq);
    for (uint32_t j = 0; j < n; j++) {
        const float ds = p[j] * (dp[j] - mean);
        add_scaled(dq, k + (size_t)j * stride, head_dim, ds);
        add_scaled(dk + (size_t)j * stride, q, head_dim, ds);
        add_scaled(dv + (size_t)j * stride, dout, head_dim, p[j]);
    }
}

/* With u = c x (1 + a x^2), gelu = x (1 + tanh u) / 2 */
static float gelu_slope(float x) {
    const float c = 0.7978845608028654f, a = 0.044715f;
    const float th = tanhf(c * x * (1 + a * x * x));
    return 0.5f * (1 + th) + 0.5f * x * (1 - th * th) * c * (1 + 3 * a * x * x);
}

void back_geglu(const float *gate, const float *up, const float *dout, size_t n, float *dgate,
                float *dup) {
    for (size_t i = 0; i < n; i++) {
        const float d = dout[i];
        dgate[i] = d * up[i] * gelu_slope(gate[i]);
        if (dup) dup[i] = d * ref_gelu(gate[i]);
    }
}

void back_softcap(const float *y, size_t n, float cap, float *dx) {
    for (size_t i = 0; i < n; i++) dx[i] *= 1 - (y[i] / cap) * (y[i] / cap);
}

double back_cross_entropy(float *logits, size_t n, int32_t target, float scale) {
    float top = -INFINITY;
    double sum = 0;
    for (size_t i = 0; i < n; i++) top = fmaxf(top, logits[i]);
    for (size_t i = 0; i < n; i++) sum += (double)expf(logits[i] - top);
    const double loss = log(sum) - (double)(logits[target] - top);
    for (size_t i = 0; i < n; i++) logits[i] = scale * (float)((double)expf(logits[i] - top) / sum);
    logits[target] -= scale;
    return isfinite(top) ? loss : NAN;
}

/* With u = A x, y = s B u: dB = s dy u^T, du = s B^T dy, dA = du x^T, dx = A^T du */
void back_lora(const lora_pair *p, const float *in, const float *dout, uint32_t n_tok, float *inner,
               lora_pair *grad, float *din) {
    const uint32_t rank = p->rank, n_col = p->n_col, n_row = p->n_row;
    float *u = inner, *du = inner + (size_t)n_tok * rank;
    memset(du, 0, (size_t)n_tok * rank * sizeof *du);
    for (uint32_t t = 0; t < n_tok; t++) {
        const float *x = in + (size_t)t * n_col, *dy = dout + (size_t)t * n_row;
        for (uint32_t r = 0; r < rank; r++)
            u[(size_t)t * rank + r] = ref_dot(p->a + (size_t)r * n_col, x, n_col);
        for (uint32_t i = 0; i < n_row; i++)
            add_scaled(du + (size_t)t * rank, p->b + (size_t)i * rank, rank, p->scale * dy[i]);
    }
    for (uint32_t t = 0; t < n_tok; t++) {
        const float *x = in + (size_t)t * n_col, *dy = dout + (size_t)t * n_row;
        for (uint32_t i = 0; i < n_row; i++)
            add_scaled(grad->b + (size_t)i * rank, u + (size_t)t * rank, rank, p->scale * dy[i]);
        for (uint32_t r = 0; r < rank; r++) {
            const float d = du[(size_t)t * rank + r];
            add_scaled(grad->a + (size_t)r * n_col, x, n_col, d);
            if (din) add_scaled(din + (size_t)t * n_col, p->a + (size_t)r * n_col, n_col, d);
        }
    }
}

void back_lora_embed(const lora_pair *p, int32_t token, const float *dx, lora_pair *grad) {
    for (uint32_t r = 0; r < p->rank; r++) {
        const size_t at = (size_t)r * p->n_col + (uint32_t)token;
        for (uint32_t i = 0; i < p->n_row; i++) {
            const size_t b = (size_t)i * p->rank + r;
            grad->b[b] += p->scale * dx[i] * p->a[at];
            grad->a[at] += p->scale * dx[i] * p->b[b];
        }
    }
}

/* Murmur3's finaliser: 32 bits, as a kernel has them. */
static uint32_t mix(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
}

void ref_dropout(const float *in, size_t n, float p, uint64_t key, float *out) {
    const uint32_t drop = (uint32_t)((double)p * 0x1p32);
    const uint32_t low = mix((uint32_t)key), high = (uint32_t)(key >> 32);
    const float keep = 1 / (1 - p);
    for (size_t i = 0; i < n; i++)
        out[i] = mix(mix((uint32_t)i + low) ^ high) < drop ? 0 : keep * in[i];
}
