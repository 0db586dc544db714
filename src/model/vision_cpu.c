/* vision_cpu: the vision encoder, as its definition says it: f32, one operation after the other,
 * one layer a step. Numbers in parentheses are the equations of docs/model.md. The stages and
 * their taps have the names that the text network's have.
 *
 * Flow: media/image.c and encoder_bind.c before (matrices must be resident); text_cpu.c takes the
 * soft tokens. */
#include "model/encoder.h"

#include <math.h>
#include <string.h>

#define CHANNELS    3u
#define MAX_PATCHES (1u << 17) /* ten times what the largest budget needs */
#define DIRECT_EPS  1e-5f      /* of the layer norms of the encoder without a tower */
#define QUERY_PARTS 16u        /* of the queries of a head: pieces of work for threads */

struct vision_cpu {
    const vision *v;
    const vision_config *c;
    arena *memory;
    const tap *taps;
    const uint8_t *patches;
    uint32_t n_col, n_row, n; /* patches; n = n_col * n_row */
    uint32_t il;
    float *x;           /* [n, n_embd] the residual stream */
    float *norm, *part; /* [n, n_embd] */
    float *q, *k, *vv;  /* [n, n_embd] heads side by side */
    float *gate, *up;   /* [ENCODER_CHUNK, n_ff] */
    float *scratch;     /* [ENCODER_CHUNK, widest input] */
    float *scores;      /* [n_head, QUERY_PARTS, n] */
    float *place[2];    /* [n_col, n_embd], [n_row, n_embd] */
    float *rope[2];     /* [n_col, head_dim/4, 2], [n_row, head_dim/4, 2] */
};

static float *floats(vision_cpu *t, uint64_t n, bool *ok, carat_error *err) {
    float *p = arena_alloc(t->memory, n, sizeof *p);
    if (!p) *ok = fail_memory(err, n * sizeof *p, "the vision encoder");
    return p;
}

static bool allocate(vision_cpu *t, carat_error *err) {
    const vision_config *c = t->c;
    const uint64_t all = (uint64_t)t->n * c->n_embd;
    const uint32_t n_pixel = CHANNELS * c->side * c->side;
    const uint32_t axis[2] = {t->n_col, t->n_row};
    bool ok = true;
    t->x = floats(t, all, &ok, err);
    t->norm = floats(t, all, &ok, err);
    t->scratch = floats(t, (uint64_t)ENCODER_CHUNK * max_u32(max_u32(n_pixel, c->n_embd), c->n_ff),
                        &ok, err);
    for (int i = 0; i < 2; i++) {
        t->place[i] = floats(t, (uint64_t)axis[i] * c->n_embd, &ok, err);
        t->rope[i] = floats(t, (uint64_t)axis[i] * c->head_dim / 2, &ok, err);
    }
    if (c->direct) return ok;
    t->part = floats(t, all, &ok, err);
    t->q = floats(t, all, &ok, err);
    t->k = floats(t, all, &ok, err);
    t->vv = floats(t, all, &ok, err);
    t->gate = floats(t, (uint64_t)ENCODER_CHUNK * c->n_ff, &ok, err);
    t->up = floats(t, (uint64_t)ENCODER_CHUNK * c->n_ff, &ok, err);
    t->scores = floats(t, (uint64_t)c->n_head * QUERY_PARTS * t->n, &ok, err);
    return ok;
}

/* ---- patches ---- */

/* Patch i as the matrix wants it: a channel after the other, levels scaled to [low, 1]. */
static void read_pixels(const vision_cpu *t, uint32_t i, float low, float *out) {
    const uint32_t n = t->c->side * t->c->side;
    const uint8_t *p = t->patches + (size_t)i * n * CHANNELS;
    for (uint32_t c = 0; c < CHANNELS; c++)
        for (uint32_t j = 0; j < n; j++)
            out[c * n + j] = low + (1 - low) * ((float)p[j * CHANNELS + c] / 255);
}

/* x += column's and row's embedding */
static void add_places(vision_cpu *t) {
    const uint32_t d = t->c->n_embd;
    for (uint32_t i = 0; i < t->n; i++) {
        const float *col = t->place[0] + (size_t)(i % t->n_col) * d;
        const float *row = t->place[1] + (size_t)(i / t->n_col) * d;
        float *x = t->x + (size_t)i * d;
        for (uint32_t j = 0; j < d; j++) x[j] += col[j] + row[j];
    }
}

/* (24) x = Wpatch p + place of the column + place of the row, pixels in [-1, 1] */
static void embed(vision_cpu *t) {
    const uint32_t d = t->c->n_embd, n_pixel = CHANNELS * t->c->side * t->c->side;
    for (uint32_t at = 0; at < t->n; at += ENCODER_CHUNK) {
        const uint32_t n = min_u32(ENCODER_CHUNK, t->n - at);
        for (uint32_t i = 0; i < n; i++)
            read_pixels(t, at + i, -1, t->scratch + (size_t)i * n_pixel);
        ref_matmul(&t->v->patch, 0, t->scratch, n, t->x + (size_t)at * d);
    }
    add_places(t);
    tap_out(t->taps, "patch_embd", -1, t->x, t->n, d);
}

/* (32) Without a tower: x = LN3(LN2(Wpatch LN1(p) + b) + places), pixels in [0, 1] */
static void embed_direct(vision_cpu *t) {
    const vision *v = t->v;
    const uint32_t d = t->c->n_embd, n_pixel = CHANNELS * t->c->side * t->c->side;
    for (uint32_t at = 0; at < t->n; at += ENCODER_CHUNK) {
        const uint32_t n = min_u32(ENCODER_CHUNK, t->n - at);
        float *x = t->x + (size_t)at * d;
        for (uint32_t i = 0; i < n; i++)
            read_pixels(t, at + i, 0, t->scratch + (size_t)i * n_pixel);
        ref_layernorm(t->scratch, v->norm[0].data, v->norm_bias[0].data, n, n_pixel, DIRECT_EPS,
                      t->scratch);
        ref_matmul(&v->patch, 0, t->scratch, n, x);
        for (uint32_t i = 0; i < n * d; i++) x[i] += v->patch_bias.data[i % d];
    }
    ref_layernorm(t->x, v->norm[1].data, v->norm_bias[1].data, t->n, d, DIRECT_EPS, t->x);
    add_places(t);
    ref_layernorm(t->x, v->norm[2].data, v->norm_bias[2].data, t->n, d, DIRECT_EPS, t->x);
    tap_out(t->taps, "patch_embd", -1, t->x, t->n, d);
}

/* ---- a layer ---- */

static void norm_rows(const vision_cpu *t, const float *x, const vector *w, float *out) {
    ref_rmsnorm(x, w->data, t->n, w->n, ENCODER_EPS, out);
}

/* x += rmsw(part, w) */
static void add_normed(vision_cpu *t, const vector *w) {
    norm_rows(t, t->part, w, t->part);
    for (size_t i = 0; i < (size_t)t->n * w->n; i++) t->x[i] += t->part[i];
}

/* Half of each head is turned by its column, the other half by its row; pairs are inside a half. */
static void rotate(const vision_cpu *t, float *x) {
    const uint32_t half = t->c->head_dim / 2, n_head = t->c->n_head;
    for (uint32_t i = 0; i < t->n; i++) {
        const float *col = t->rope[0] + (size_t)(i % t->n_col) * half;
        const float *row = t->rope[1] + (size_t)(i / t->n_col) * half;
        for (uint32_t h = 0; h < n_head; h++, x += 2 * half) {
            ref_rope(x, col, 1, half, half / 2);
            ref_rope(x + half, row, 1, half, half / 2);
        }
    }
}

/* (27) softmax over all patches, without a scale: attn into norm */
static void attend(vision_cpu *t) {
    const uint32_t hd = t->c->head_dim, d = t->c->n_embd, n_head = t->c->n_head;
    const uint32_t part = div_up(t->n, QUERY_PARTS);
#pragma omp parallel for schedule(dynamic) collapse(2)
    for (uint32_t h = 0; h < n_head; h++)
        for (uint32_t p = 0; p < QUERY_PARTS; p++)
            for (uint32_t i = p * part; i < min_u32((p + 1) * part, t->n); i++) {
                const size_t at = (size_t)i * d + h * hd;
                ref_attend(t->q + at, t->k + h * hd, t->vv + h * hd, t->n, d, hd,
                           t->scores + ((size_t)h * QUERY_PARTS + p) * t->n, t->norm + at);
            }
}

static void attention(vision_cpu *t, const vision_layer *l, int il) {
    const uint32_t d = t->c->n_embd, hd = t->c->head_dim, heads = t->n * t->c->n_head;
    /* (25) n = rmsw(x, attn_norm) */
    norm_rows(t, t->x, &l->attn_norm, t->norm);
    tap_out(t->taps, "attn_norm", il, t->norm, t->n, d);
    /* (26) q, k, v: clamped products, normed head by head; q and k rotated */
    ref_clipped(&l->q, t->norm, t->n, t->scratch, t->q);
    ref_clipped(&l->k, t->norm, t->n, t->scratch, t->k);
    ref_clipped(&l->v, t->norm, t->n, t->scratch, t->vv);
    ref_rmsnorm(t->q, l->q_norm.data, heads, hd, ENCODER_EPS, t->q);
    ref_rmsnorm(t->k, l->k_norm.data, heads, hd, ENCODER_EPS, t->k);
    ref_rmsnorm(t->vv, NULL, heads, hd, ENCODER_EPS, t->vv);
    rotate(t, t->q);
    rotate(t, t->k);
    tap_out(t->taps, "q", il, t->q, t->n, d);
    tap_out(t->taps, "k", il, t->k, t->n, d);
    tap_out(t->taps, "v", il, t->vv, t->n, d);
    attend(t);
    tap_out(t->taps, "attn", il, t->norm, t->n, d);
    /* (28) x += rmsw(Wo o, post_attn_norm) */
    ref_clipped(&l->out, t->norm, t->n, t->scratch, t->part);
    tap_out(t->taps, "attn_out", il, t->part, t->n, d);
    add_normed(t, &l->post_attn_norm);
}

/* (29) x += rmsw(Wdown (gelu(Wgate z) * Wup z), post_ffn_norm), z = rmsw(x, ffn_norm) */
static void ffn(vision_cpu *t, const vision_layer *l, int il) {
    const uint32_t d = t->c->n_embd;
    norm_rows(t, t->x, &l->ffn_norm, t->norm);
    tap_out(t->taps, "ffn_in", il, t->norm, t->n, d);
    for (uint32_t at = 0; at < t->n; at += ENCODER_CHUNK) {
        const uint32_t n = min_u32(ENCODER_CHUNK, t->n - at);
        const float *z = t->norm + (size_t)at * d;
        ref_clipped(&l->gate, z, n, t->scratch, t->gate);
        ref_clipped(&l->up, z, n, t->scratch, t->up);
        ref_geglu(t->gate, t->up, (size_t)n * t->c->n_ff, t->gate);
        ref_clipped(&l->down, t->gate, n, t->scratch, t->part + (size_t)at * d);
    }
    tap_out(t->taps, "ffn_out", il, t->part, t->n, d);
    add_normed(t, &l->post_ffn_norm);
}

static void layer(vision_cpu *t, uint32_t il) {
    const vision_layer *l = &t->v->layers[il];
    attention(t, l, (int)il);
    ffn(t, l, (int)il);
    for (size_t i = 0; i < (size_t)t->n * t->c->n_embd; i++)
        t->x[i] *= l->scale.data[i % l->scale.n];
    tap_out(t->taps, "layer_out", (int)il, t->x, t->n, t->c->n_embd);
}

/* ---- soft tokens ---- */

/* (30) out [n_embd]: the mean of the patches of the pooled square at (col, row), times
 * sqrt(n_embd); standardised where the model does so */
static void pool(const vision_cpu *t, uint32_t col, uint32_t row, float *out) {
    const vision *v = t->v;
    const uint32_t d = t->c->n_embd, p = t->c->pool;
    const float scale = t->c->direct ? 1 : sqrtf((float)d);
    for (uint32_t j = 0; j < d; j++) {
        float sum = 0;
        for (uint32_t i = 0; i < p * p; i++)
            sum += t->x[((size_t)(row * p + i / p) * t->n_col + col * p + i % p) * d + j];
        out[j] = sum / (float)(p * p) * scale;
        if (t->c->standardize) out[j] = (out[j] - v->std_bias.data[j]) * v->std_scale.data[j];
    }
}

/* (31) soft = Wproject rms(pooled) */
static void finish(vision_cpu *t, float *soft) {
    const uint32_t d = t->c->n_embd, p = t->c->pool, il = t->c->n_layer;
    const uint32_t n_col = t->n_col / p, n_row = t->n_row / p, n = n_col * n_row;
    for (uint32_t i = 0; i < n; i++) pool(t, i % n_col, i / n_col, t->norm + (size_t)i * d);
    tap_out(t->taps, "tower", (int)il, t->norm, n, d);
    ref_rmsnorm(t->norm, NULL, n, d, ENCODER_EPS, t->norm);
    ref_matmul(&t->v->project, 0, t->norm, n, soft);
    tap_out(t->taps, "soft", (int)il, soft, n, t->c->n_out);
}

/* ---- the encoder ---- */

uint32_t vision_soft_tokens(const vision *v, uint32_t n_col, uint32_t n_row) {
    return n_col / v->config.pool * (n_row / v->config.pool);
}

void vision_rope_rows(const vision_config *c, uint32_t n, float *out) {
    const uint32_t half = c->head_dim / 2;
    for (uint32_t pos = 0; pos < n; pos++)
        for (uint32_t i = 0; i < half / 2; i++) {
            const double angle = pos * pow((double)c->rope_base, -2.0 * i / half);
            *out++ = (float)cos(angle);
            *out++ = (float)sin(angle);
        }
}

bool vision_check_grid(const vision_config *c, uint32_t n_col, uint32_t n_row, carat_error *err) {
    const uint64_t n = (uint64_t)n_col * n_row;
    if (n > MAX_PATCHES)
        return fail(err, CARAT_E_ARGUMENT, "vision: %ux%u patches are more than %u", n_col, n_row,
                    MAX_PATCHES);
    if (!n || n_col % c->pool || n_row % c->pool)
        return fail(err, CARAT_E_ARGUMENT, "vision: %ux%u patches are not whole squares of %ux%u",
                    n_col, n_row, c->pool, c->pool);
    return true;
}

static bool prepare(vision_cpu *t, carat_error *err) {
    if (!vision_check_grid(t->c, t->n_col, t->n_row, err)) return false;
    t->n = t->n_col * t->n_row;
    if (!allocate(t, err) || !vision_positions(t->v, 0, t->n_col, t->place[0], err) ||
        !vision_positions(t->v, 1, t->n_row, t->place[1], err))
        return false;
    vision_rope_rows(t->c, t->n_col, t->rope[0]);
    vision_rope_rows(t->c, t->n_row, t->rope[1]);
    return true;
}

bool vision_cpu_create(const vision *v, const uint8_t *patches, uint32_t n_col, uint32_t n_row,
                       const tap *taps, vision_cpu **out, carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return false;
    vision_cpu *t = arena_alloc(memory, 1, sizeof *t);
    bool ok = t || fail_memory(err, sizeof *t, "the vision encoder");
    if (ok) {
        *t = (vision_cpu){.v = v,
                          .c = &v->config,
                          .memory = memory,
                          .taps = taps,
                          .patches = patches,
                          .n_col = n_col,
                          .n_row = n_row};
        ok = prepare(t, err);
    }
    if (ok)
        *out = t;
    else
        arena_free(memory);
    return ok;
}

void vision_cpu_free(vision_cpu *t) {
    if (t) arena_free(t->memory);
}

void vision_cpu_advance(vision_cpu *t, float *soft, bool *finished) {
    if (!t->il && t->c->direct) embed_direct(t);
    if (!t->il && !t->c->direct) embed(t);
    if (t->il < t->c->n_layer) layer(t, t->il++);
    *finished = t->il == t->c->n_layer;
    if (*finished) finish(t, soft);
}
