/* audio_cpu: the audio encoder, as its definition says it: f32, one operation after the other, one
 * layer a step: convolutions that make one token of four frames, then layers of feed-forward,
 * attention over the last few tokens, convolution and feed-forward again (a conformer). Numbers in
 * parentheses are the equations of docs/model.md.
 *
 * Flow: media/mel.c and encoder_bind.c before (matrices must be resident); text_cpu.c takes the
 * soft tokens. */
#include "media/media.h"
#include "model/encoder.h"

#include <math.h>
#include <string.h>

#define LAYER_EPS 1e-6f           /* of the layer norms after the convolutions */
#define GRADIENT  1e10f           /* where values were cut in training */
#define CAP       50.0f           /* of attention scores */
#define BANDS_0   (MEL_BANDS / 2) /* after one convolution and after two */
#define BANDS_1   (MEL_BANDS / 4)
#define PIECE     32u /* tokens whose convolutions are computed together */

struct audio_cpu {
    const audio *a;
    const audio_config *c;
    arena *memory;
    const tap *taps;
    const float *input;          /* [n_frame, MEL_BANDS] or samples [n_frame] */
    uint32_t n_frame, n_half, n; /* frames, after one convolution, tokens */
    uint32_t il;
    float *kernel;      /* [n_conv[1], 3, 3, n_conv[0]] the second convolution's, channels last */
    float *rows;        /* [2 * PIECE + 1, BANDS_0, n_conv[0]] between the convolutions */
    float *conv;        /* [n, BANDS_1, n_conv[1]] */
    float *x;           /* [n, n_embd] the residual stream */
    float *norm, *part; /* [n, n_embd] */
    float *q, *k, *v;   /* [n, n_embd] heads side by side */
    float *wide;        /* [n, max(n_ff, 2 n_embd)] */
    float *scratch;     /* [ENCODER_CHUNK, widest input] */
    float *distance;    /* [AUDIO_REACH, n_embd] sines and cosines of 0, 1, .. */
    float *rel;         /* [AUDIO_REACH, n_embd] their keys */
    float *out;         /* [n, n_mid] */
};

static float *floats(audio_cpu *t, uint64_t n, bool *ok, carat_error *err) {
    float *p = arena_alloc(t->memory, n, sizeof *p);
    if (!p) *ok = fail_memory(err, n * sizeof *p, "the audio encoder");
    return p;
}

static bool allocate(audio_cpu *t, carat_error *err) {
    const audio_config *c = t->c;
    const uint64_t n = t->n, all = n * c->n_embd;
    bool ok = true;
    t->out = floats(t, n * (c->direct ? c->frame : c->n_mid), &ok, err);
    if (c->direct) return ok;
    t->kernel = floats(t, 9ull * c->n_conv[0] * c->n_conv[1], &ok, err);
    t->rows = floats(t, (2ull * PIECE + 1) * BANDS_0 * c->n_conv[0], &ok, err);
    t->conv = floats(t, n * BANDS_1 * c->n_conv[1], &ok, err);
    t->x = floats(t, all, &ok, err);
    t->norm = floats(t, all, &ok, err);
    t->part = floats(t, all, &ok, err);
    t->q = floats(t, all, &ok, err);
    t->k = floats(t, all, &ok, err);
    t->v = floats(t, all, &ok, err);
    t->wide = floats(t, n * max_u32(c->n_ff, 2 * c->n_embd), &ok, err);
    t->scratch = floats(t, (uint64_t)ENCODER_CHUNK * max_u32(c->n_ff, c->n_embd), &ok, err);
    t->distance = floats(t, (uint64_t)AUDIO_REACH * c->n_embd, &ok, err);
    t->rel = floats(t, (uint64_t)AUDIO_REACH * c->n_embd, &ok, err);
    return ok;
}

/* ---- convolutions: 3 x 3, every second place in both directions, zeros around ---- */

/* Layer norm over the channels, then what is negative is cut off. */
static void norm_and_cut(float *x, const vector *w) {
    ref_layernorm(x, w->data, NULL, 1, w->n, LAYER_EPS, x);
    for (uint32_t i = 0; i < w->n; i++) x[i] = fmaxf(x[i], 0);
}

/* (33) Row i after the first convolution: out [BANDS_0, n_conv[0]] */
static void first_row(const audio_cpu *t, uint32_t i, float *out) {
    const float *w = t->a->conv[0].data; /* [n_conv[0], 3, 3] */
    const uint32_t n = t->c->n_conv[0];
    for (uint32_t f = 0; f < BANDS_0; f++, out += n) {
        for (uint32_t o = 0; o < n; o++) {
            float sum = 0;
            for (uint32_t kt = 0; kt < 3; kt++)
                for (uint32_t kf = 0; kf < 3; kf++) {
                    const int64_t row = 2 * (int64_t)i + kt - 1, band = 2 * (int64_t)f + kf - 1;
                    if (row < 0 || row >= t->n_frame || band < 0 || band >= MEL_BANDS) continue;
                    sum += w[o * 9 + kt * 3 + kf] * t->input[row * MEL_BANDS + band];
                }
            out[o] = sum;
        }
        norm_and_cut(out, &t->a->conv_norm[0]);
    }
}

/* (33) Row i after the second convolution: out [BANDS_1, n_conv[1]]; rows: those of the first one
 * from row 2i - 1 on. Neighbouring bands lie side by side, so three of them are one dot product;
 * the first band has no left neighbour. */
static void second_row(const audio_cpu *t, uint32_t i, const float *rows, float *out) {
    const uint32_t n = t->c->n_conv[0], n_out = t->c->n_conv[1];
    for (uint32_t f = 0; f < BANDS_1; f++, out += n_out) {
        const uint32_t skip = f == 0;
        for (uint32_t o = 0; o < n_out; o++) {
            float sum = 0;
            for (uint32_t kt = 0; kt < 3; kt++) {
                const int64_t row = 2 * (int64_t)i + kt - 1;
                if (row < 0 || row >= t->n_half) continue;
                const float *w = t->kernel + ((o * 3 + kt) * 3 + skip) * (size_t)n;
                const float *x = rows + ((size_t)kt * BANDS_0 + 2 * f + skip - 1) * n;
                sum += ref_dot(w, x, (3 - skip) * n);
            }
            out[o] = sum;
        }
        norm_and_cut(out, &t->a->conv_norm[1]);
    }
}

/* (33), (34) x = Winput of what the convolutions make of four frames */
static void embed(audio_cpu *t) {
    const uint32_t n_conv = t->c->n_conv[0], width = BANDS_1 * t->c->n_conv[1];
    const size_t row = (size_t)BANDS_0 * n_conv;
    for (uint32_t o = 0; o < t->c->n_conv[1]; o++)
        for (uint32_t i = 0; i < n_conv; i++)
            for (uint32_t k = 0; k < 9; k++)
                t->kernel[((size_t)o * 9 + k) * n_conv + i] =
                    t->a->conv[1].data[((size_t)o * n_conv + i) * 9 + k];
    for (uint32_t at = 0; at < t->n; at += PIECE) {
        const uint32_t n = min_u32(PIECE, t->n - at);
        const int64_t first = 2 * (int64_t)at - 1;
#pragma omp parallel for schedule(dynamic)
        for (uint32_t i = 0; i < 2 * n + 1; i++)
            if (first + i >= 0 && first + i < t->n_half)
                first_row(t, (uint32_t)(first + i), t->rows + i * row);
#pragma omp parallel for schedule(dynamic)
        for (uint32_t i = 0; i < n; i++)
            second_row(t, at + i, t->rows + 2 * i * row, t->conv + (size_t)(at + i) * width);
    }
    tap_out(t->taps, "conv", -1, t->conv, t->n, width);
    ref_matmul(&t->a->input, 0, t->conv, t->n, t->x);
    tap_out(t->taps, "embed", -1, t->x, t->n, t->c->n_embd);
}

/* ---- pieces of a layer ---- */

static float sigmoid(float x) { return 1 / (1 + expf(-x)); }

static void silu(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] *= sigmoid(x[i]);
}

/* out = rmsw(x cut at +-GRADIENT, w); in place is fine */
static void cut_and_norm(const audio_cpu *t, const float *x, const vector *w, float *out) {
    for (size_t i = 0; i < (size_t)t->n * w->n; i++)
        out[i] = fminf(fmaxf(x[i], -GRADIENT), GRADIENT);
    ref_rmsnorm(out, w->data, t->n, w->n, ENCODER_EPS, out);
}

/* x += scale part */
static void add(audio_cpu *t, float scale) {
    for (size_t i = 0; i < (size_t)t->n * t->c->n_embd; i++) t->x[i] += scale * t->part[i];
}

/* (35) x += rmsw(Wdown silu(Wup rmsw(x, norm)), post_norm) / 2 */
static void ffn(audio_cpu *t, const audio_ffn *f, const char *name, int il) {
    cut_and_norm(t, t->x, &f->norm, t->norm);
    ref_clipped(&f->up, t->norm, t->n, t->scratch, t->wide);
    silu(t->wide, (size_t)t->n * t->c->n_ff);
    ref_clipped(&f->down, t->wide, t->n, t->scratch, t->part);
    tap_out(t->taps, name, il, t->part, t->n, t->c->n_embd);
    cut_and_norm(t, t->part, &f->post_norm, t->part);
    add(t, 0.5f);
}

/* (36) out [head_dim]: what head h of token i hears in the tokens before and in itself */
static void hear(const audio_cpu *t, uint32_t i, uint32_t h, float *out) {
    const uint32_t hd = t->c->head_dim, d = t->c->n_embd, n = min_u32(i + 1, AUDIO_REACH);
    const float *q = t->q + (size_t)i * d + h * hd;
    float scores[AUDIO_REACH];
    for (uint32_t far = 0; far < n; far++) {
        const float *k = t->k + (size_t)(i - far) * d + h * hd;
        const float *rel = t->rel + (size_t)far * d + h * hd;
        scores[far] = ref_dot(q, k, hd) + ref_dot(q, rel, hd);
    }
    ref_softcap(scores, n, CAP);
    ref_softmax(scores, n);
    for (uint32_t j = 0; j < hd; j++) out[j] = 0;
    for (uint32_t far = 0; far < n; far++) {
        const float *v = t->v + (size_t)(i - far) * d + h * hd;
        for (uint32_t j = 0; j < hd; j++) out[j] += scores[far] * v[j];
    }
}

/* (36) x += rmsw(Wo o, post_attn_norm) */
static void attention(audio_cpu *t, const audio_layer *l, int il) {
    const uint32_t d = t->c->n_embd, hd = t->c->head_dim;
    const float ln2 = logf(2), q_scale = 1 / (sqrtf((float)hd) * ln2);
    const float k_scale = logf(1 + expf(1)) / ln2;
    cut_and_norm(t, t->x, &l->attn_norm, t->norm);
    ref_clipped(&l->q, t->norm, t->n, t->scratch, t->q);
    ref_clipped(&l->k, t->norm, t->n, t->scratch, t->k);
    ref_clipped(&l->v, t->norm, t->n, t->scratch, t->v);
    for (size_t i = 0; i < (size_t)t->n * d; i++) {
        t->q[i] *= q_scale * l->dim_scale.data[i % hd];
        t->k[i] *= k_scale;
    }
    ref_matmul(&l->rel, 0, t->distance, AUDIO_REACH, t->rel);
    tap_out(t->taps, "q", il, t->q, t->n, d);
    tap_out(t->taps, "k", il, t->k, t->n, d);
    tap_out(t->taps, "v", il, t->v, t->n, d);
    for (uint32_t i = 0; i < t->n; i++)
        for (uint32_t h = 0; h < t->c->n_head; h++) hear(t, i, h, t->norm + (size_t)i * d + h * hd);
    tap_out(t->taps, "attn", il, t->norm, t->n, d);
    ref_clipped(&l->out, t->norm, t->n, t->scratch, t->part);
    tap_out(t->taps, "attn_out", il, t->part, t->n, d);
    cut_and_norm(t, t->part, &l->post_attn_norm, t->part);
    add(t, 1);
}

/* (37) x += Wout silu(rmsw(conv(a * sigmoid(b)), mid_norm)), a and b: halves of Win rmsw(x) */
static void convolution(audio_cpu *t, const audio_layer *l, int il) {
    const uint32_t d = t->c->n_embd, n_kernel = t->c->n_kernel;
    ref_rmsnorm(t->x, l->conv_norm.data, t->n, d, ENCODER_EPS, t->norm);
    ref_clipped(&l->conv_in, t->norm, t->n, t->scratch, t->wide);
    for (uint32_t i = 0; i < t->n; i++) {
        const float *a = t->wide + (size_t)i * 2 * d, *b = a + d;
        for (uint32_t j = 0; j < d; j++) t->part[(size_t)i * d + j] = a[j] * sigmoid(b[j]);
    }
    for (uint32_t i = 0; i < t->n; i++)
        for (uint32_t j = 0; j < d; j++) {
            float sum = 0;
            for (uint32_t k = 0; k < n_kernel; k++) /* the last weight is the token's own */
                if (i + k + 1 >= n_kernel)
                    sum += l->conv.data[j * n_kernel + k] *
                           t->part[(size_t)(i + k + 1 - n_kernel) * d + j];
            t->norm[(size_t)i * d + j] = sum;
        }
    cut_and_norm(t, t->norm, &l->mid_norm, t->norm);
    silu(t->norm, (size_t)t->n * d);
    ref_clipped(&l->conv_out, t->norm, t->n, t->scratch, t->part);
    tap_out(t->taps, "conv_out", il, t->part, t->n, d);
    add(t, 1);
}

static void layer(audio_cpu *t, uint32_t il) {
    const audio_layer *l = &t->a->layers[il];
    ffn(t, &l->ffn[0], "ffn_a", (int)il);
    attention(t, l, (int)il);
    convolution(t, l, (int)il);
    ffn(t, &l->ffn[1], "ffn_b", (int)il);
    /* (38) */
    cut_and_norm(t, t->x, &l->out_norm, t->x);
    tap_out(t->taps, "layer_out", (int)il, t->x, t->n, t->c->n_embd);
}

/* ---- soft tokens ---- */

/* Frames of samples, the last one filled up with zeros */
static void cut_frames(audio_cpu *t) { memcpy(t->out, t->input, t->n_frame * sizeof *t->out); }

/* (39) soft = Wproject rms(Woutput x + b) */
static void finish(audio_cpu *t, float *soft) {
    const uint32_t width = t->c->direct ? t->c->frame : t->c->n_mid;
    if (t->c->direct) {
        cut_frames(t);
    } else {
        ref_matmul(&t->a->output, 0, t->x, t->n, t->out);
        for (size_t i = 0; i < (size_t)t->n * width; i++)
            t->out[i] += t->a->output_bias.data[i % width];
    }
    tap_out(t->taps, "tower", (int)t->c->n_layer, t->out, t->n, width);
    ref_rmsnorm(t->out, NULL, t->n, width, ENCODER_EPS, t->out);
    ref_matmul(&t->a->project, 0, t->out, t->n, soft);
    tap_out(t->taps, "soft", (int)t->c->n_layer, soft, t->n, t->c->n_out);
}

/* ---- the encoder ---- */

uint32_t audio_soft_tokens(const audio *a, uint32_t n) {
    return a->config.direct ? div_up(n, a->config.frame) : div_up(div_up(n, 2), 2);
}

/* Sines, then cosines, of the distances 0 to AUDIO_REACH - 1 at falling frequencies. */
static void fill_distances(audio_cpu *t) {
    const uint32_t half = t->c->n_embd / 2;
    for (uint32_t far = 0; far < AUDIO_REACH; far++)
        for (uint32_t i = 0; i < half; i++) {
            const double step = half > 1 ? log(1e4) / (half - 1) : 0;
            const double angle = far * exp(-step * i);
            t->distance[far * t->c->n_embd + i] = (float)sin(angle);
            t->distance[far * t->c->n_embd + half + i] = (float)cos(angle);
        }
}

bool audio_cpu_create(const audio *a, const float *input, uint32_t n, const tap *taps,
                      audio_cpu **out, carat_error *err) {
    if (!n || n > MEL_MAX_SAMPLES)
        return fail(err, CARAT_E_ARGUMENT, "audio: there is %s to hear",
                    n ? "too much" : "nothing");
    arena *memory = arena_create(err);
    if (!memory) return false;
    audio_cpu *t = arena_alloc(memory, 1, sizeof *t);
    bool ok = t || fail_memory(err, sizeof *t, "the audio encoder");
    if (ok) {
        *t = (audio_cpu){.a = a,
                         .c = &a->config,
                         .memory = memory,
                         .taps = taps,
                         .input = input,
                         .n_frame = n,
                         .n_half = div_up(n, 2),
                         .n = audio_soft_tokens(a, n)};
        ok = allocate(t, err);
    }
    if (ok && !a->config.direct) fill_distances(t);
    if (ok)
        *out = t;
    else
        arena_free(memory);
    return ok;
}

void audio_cpu_free(audio_cpu *t) {
    if (t) arena_free(t->memory);
}

void audio_cpu_advance(audio_cpu *t, float *soft, bool *finished) {
    if (!t->il && !t->c->direct) embed(t);
    if (t->il < t->c->n_layer) layer(t, t->il++);
    *finished = t->il == t->c->n_layer;
    if (*finished) finish(t, soft);
}
