/* encoder_bind: every tensor of the encoders to its field. The functions bind_* are the list of
 * their tensors, in both layouts.
 *
 * Flow: encoder_config.c and binder.c before; vision_cpu.c, audio_cpu.c after. */
#include "media/media.h"
#include "model/bind.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LIMITS 4u /* of a clamped matrix: input's least and most, output's least and most */

/* ---- clamped matrices ---- */

/* name: without ".weight". */
static void bind_clipped(binder *b, const char *name, uint32_t n_col, uint32_t n_row, clipped *c) {
    static const char *const limits[LIMITS] = {"input_min", "input_max", "output_min",
                                               "output_max"};
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    bind_mat(b, full, n_col, n_row, &c->w);
    c->in_min = c->out_min = -INFINITY;
    c->in_max = c->out_max = INFINITY;
    float *const to[LIMITS] = {&c->in_min, &c->in_max, &c->out_min, &c->out_max};
    for (uint32_t i = 0; i < LIMITS; i++) {
        snprintf(full, sizeof full, "%s.%s", name, limits[i]);
        bind_limit(b, full, to[i]);
    }
}

/* Some files fill limits that they do not mean with zeros. */
static void drop_empty_limits(clipped *c) {
    if (c->in_max <= c->in_min) {
        c->in_min = -INFINITY;
        c->in_max = INFINITY;
    }
    if (c->out_max <= c->out_min) {
        c->out_min = -INFINITY;
        c->out_max = INFINITY;
    }
}

/* ---- vision ---- */

#define VISION_CLIPPED 7u
#define VISION_VECTORS 7u
#define VISION_WIDE    9u /* vectors outside the layers; there are fewer matrices */

typedef struct vision_clipped {
    clipped *c[VISION_CLIPPED];
} vision_clipped;

/* In the order of v.clamp_data. */
static vision_clipped clipped_of(vision_layer *l) {
    return (vision_clipped){{&l->q, &l->k, &l->v, &l->out, &l->gate, &l->up, &l->down}};
}

static void bind_vision_layer(binder *b, const vision_config *c, uint32_t il, vision_layer *l) {
    const uint32_t d = c->n_embd, hd = c->head_dim;
    snprintf(b->prefix, sizeof b->prefix, "v.blk.%u.", il);
    bind_vec(b, "ln1.weight", NULL, d, &l->attn_norm);
    bind_clipped(b, "attn_q", d, d, &l->q);
    bind_clipped(b, "attn_k", d, d, &l->k);
    bind_clipped(b, "attn_v", d, d, &l->v);
    bind_vec(b, "attn_q_norm.weight", NULL, hd, &l->q_norm);
    bind_vec(b, "attn_k_norm.weight", NULL, hd, &l->k_norm);
    bind_clipped(b, "attn_out", d, d, &l->out);
    bind_vec(b, "attn_post_norm.weight", NULL, d, &l->post_attn_norm);
    bind_vec(b, "ln2.weight", NULL, d, &l->ffn_norm);
    bind_clipped(b, "ffn_gate", d, c->n_ff, &l->gate);
    bind_clipped(b, "ffn_up", d, c->n_ff, &l->up);
    bind_clipped(b, "ffn_down", c->n_ff, d, &l->down);
    bind_vec(b, "ffn_post_norm.weight", NULL, d, &l->post_ffn_norm);
    const gguf_tensor *scale = bind_find(b, "out_scale.weight"); /* one number, or one a channel */
    bind_optional_vec(b, "out_scale.weight", NULL, scale && scale->ne[0] == d ? d : 1, &l->scale);
    b->prefix[0] = 0;
}

static void bind_direct(binder *b, vision *v) {
    const uint32_t d = v->config.n_embd, n = 3 * v->config.side * v->config.side;
    const uint32_t width[3] = {n, d, d};
    for (uint32_t i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "v.patch_norm.%u.weight", i + 1);
        bind_vec(b, name, NULL, width[i], &v->norm[i]);
        snprintf(name, sizeof name, "v.patch_norm.%u.bias", i + 1);
        bind_vec(b, name, NULL, width[i], &v->norm_bias[i]);
    }
    bind_vec(b, "v.patch_embd.bias", NULL, d, &v->patch_bias);
}

/* Returns where v.clamp_data will be read to; NULL: there is none. */
static float *bind_vision(binder *b, vision *v) {
    const vision_config *c = &v->config;
    const uint32_t d = c->n_embd;
    bind_flat_mat(b, "v.patch_embd.weight", 3 * c->side * c->side, d, &v->patch);
    bind_bare(b, "v.position_embd.weight", d, c->n_pos, 2, &v->position);
    bind_mat(b, "mm.input_projection.weight", d, c->n_out, &v->project);
    if (c->direct) bind_direct(b, v);
    if (c->standardize) {
        bind_vec(b, "v.std_bias", NULL, d, &v->std_bias);
        bind_vec(b, "v.std_scale", NULL, d, &v->std_scale);
    }
    for (uint32_t il = 0; il < c->n_layer; il++) bind_vision_layer(b, c, il, &v->layers[il]);

    const gguf_tensor *t = bind_find(b, "v.clamp_data");
    if (!t) return NULL;
    const uint32_t n = (VISION_CLIPPED * c->n_layer + 1) * LIMITS; /* the last four: unused */
    float *packed = arena_alloc(b->a, n, sizeof *packed);
    if (packed)
        bind_numbers(b, t, n, packed);
    else
        b->no_memory = true;
    return packed;
}

static void settle_limits(vision *v, const float *packed) {
    for (uint32_t il = 0; il < v->config.n_layer; il++) {
        const vision_clipped all = clipped_of(&v->layers[il]);
        for (uint32_t i = 0; i < VISION_CLIPPED; i++) {
            clipped *c = all.c[i];
            if (packed) {
                const float *p = packed + (il * VISION_CLIPPED + i) * LIMITS;
                c->in_min = p[0];
                c->in_max = p[1];
                c->out_min = p[2];
                c->out_max = p[3];
            }
            drop_empty_limits(c);
        }
    }
}

bool vision_open(arena *a, const gguf *g, uint32_t n_text, vision **out, carat_error *err) {
    vision *v = arena_alloc(a, 1, sizeof *v);
    binder b;
    if (!v) return fail_memory(err, sizeof *v, "the vision encoder");
    if (!vision_config_read(g, n_text, &v->config, err)) return false;
    const uint32_t n_layer = v->config.n_layer;
    v->layers = arena_alloc(a, n_layer, sizeof *v->layers);
    if (!v->layers) return fail_memory(err, n_layer * sizeof *v->layers, "the vision encoder");
    binder_open(&b, a, g, n_layer * VISION_CLIPPED + VISION_WIDE,
                n_layer * VISION_VECTORS + VISION_WIDE,
                n_layer * VISION_CLIPPED * (LIMITS + 1) + VISION_WIDE);
    const float *packed = b.no_memory ? NULL : bind_vision(&b, v);
    if (!binder_close(&b, "vision", err) ||
        !binder_load(&b, "vision", &v->vectors, &v->n_vectors, err))
        return false;
    settle_limits(v, packed);
    v->matrices = b.matrices;
    *out = v;
    return true;
}

bool vision_positions(const vision *v, uint32_t axis, uint32_t n, float *out, carat_error *err) {
    const weight *w = &v->position;
    const gguf_tensor *t = w->tensor;
    if (n > w->n_row)
        return fail(err, CARAT_E_ARGUMENT,
                    "vision: the picture is %u patches %s, and the model knows only %u positions; "
                    "give it fewer soft tokens or crop it",
                    n, axis ? "high" : "wide", w->n_row);
    const uint64_t plane = t->size / 2, row = plane / w->n_row;
    arena *m = arena_create(err);
    if (!m) return false;
    void *raw = arena_alloc(m, n, (size_t)row);
    const bool ok = (raw || fail_memory(err, n * row, "the positions of a picture")) &&
                    source_read(t->src, t->offset + axis * plane, raw, (size_t)(n * row), err);
    if (ok) quant_find(w->type)->dequantise(raw, out, (size_t)n * w->n_col);
    arena_free(m);
    return ok;
}

/* ---- audio ---- */

#define AUDIO_CLIPPED  10u
#define AUDIO_MATRICES (AUDIO_CLIPPED + 1)
#define AUDIO_VECTORS  12u
#define AUDIO_WIDE     5u /* vectors outside the layers; there are fewer matrices */

static void bind_audio_ffn(binder *b, const audio_config *c, const char *suffix, audio_ffn *f) {
    char name[32];
    snprintf(name, sizeof name, "ffn_norm%s.weight", suffix);
    bind_vec(b, name, NULL, c->n_embd, &f->norm);
    snprintf(name, sizeof name, "ffn_up%s", suffix);
    bind_clipped(b, name, c->n_embd, c->n_ff, &f->up);
    snprintf(name, sizeof name, "ffn_down%s", suffix);
    bind_clipped(b, name, c->n_ff, c->n_embd, &f->down);
    snprintf(name, sizeof name, "ffn_post_norm%s.weight", suffix);
    bind_vec(b, name, NULL, c->n_embd, &f->post_norm);
}

static void bind_audio_layer(binder *b, const audio_config *c, const audio_layout *names,
                             uint32_t il, audio_layer *l) {
    const uint32_t d = c->n_embd;
    snprintf(b->prefix, sizeof b->prefix, "a.blk.%u.", il);
    bind_audio_ffn(b, c, "", &l->ffn[0]);
    bind_vec(b, names->attn_norm, "ln1.weight", d, &l->attn_norm);
    bind_clipped(b, "attn_q", d, d, &l->q);
    bind_clipped(b, "attn_k", d, d, &l->k);
    bind_clipped(b, "attn_v", d, d, &l->v);
    bind_vec(b, "per_dim_scale.weight", NULL, c->head_dim, &l->dim_scale);
    bind_mat(b, names->rel, d, d, &l->rel);
    bind_clipped(b, "attn_out", d, d, &l->out);
    bind_vec(b, names->post_attn_norm, NULL, d, &l->post_attn_norm);
    bind_vec(b, "conv_norm.weight", NULL, d, &l->conv_norm);
    bind_clipped(b, "conv_pw1", d, 2 * d, &l->conv_in);
    bind_flat_vec(b, "conv_dw.weight", c->n_kernel, d, &l->conv);
    bind_vec(b, "norm_conv.weight", NULL, d, &l->mid_norm);
    bind_clipped(b, "conv_pw2", d, d, &l->conv_out);
    bind_audio_ffn(b, c, "_1", &l->ffn[1]);
    bind_vec(b, names->out_norm, NULL, d, &l->out_norm);
    b->prefix[0] = 0;
}

static void bind_audio(binder *b, audio *a) {
    const audio_config *c = &a->config;
    const audio_layout *names = audio_layout_of(b->gguf);
    bind_mat(b, "mm.a.input_projection.weight", c->direct ? c->frame : c->n_mid, c->n_out,
             &a->project);
    if (c->direct) return;
    bind_flat_vec(b, "a.conv1d.0.weight", 9, c->n_conv[0], &a->conv[0]);
    bind_vec(b, "a.conv1d.0.norm.weight", NULL, c->n_conv[0], &a->conv_norm[0]);
    bind_flat_vec(b, "a.conv1d.1.weight", 9 * c->n_conv[0], c->n_conv[1], &a->conv[1]);
    bind_vec(b, "a.conv1d.1.norm.weight", NULL, c->n_conv[1], &a->conv_norm[1]);
    bind_mat(b, names->input, MEL_BANDS / 4 * c->n_conv[1], c->n_embd, &a->input);
    bind_mat(b, names->output, c->n_embd, c->n_mid, &a->output);
    bind_vec(b, names->output_bias, NULL, c->n_mid, &a->output_bias);
    for (uint32_t il = 0; il < c->n_layer; il++) bind_audio_layer(b, c, names, il, &a->layers[il]);
}

bool audio_open(arena *m, const gguf *g, uint32_t n_text, audio **out, carat_error *err) {
    audio *a = arena_alloc(m, 1, sizeof *a);
    binder b;
    if (!a) return fail_memory(err, sizeof *a, "the audio encoder");
    if (!audio_config_read(g, n_text, &a->config, err)) return false;
    const uint32_t n_layer = a->config.n_layer;
    a->layers = arena_alloc(m, n_layer, sizeof *a->layers);
    if (!a->layers) return fail_memory(err, n_layer * sizeof *a->layers, "the audio encoder");
    binder_open(&b, m, g, n_layer * AUDIO_MATRICES + AUDIO_WIDE,
                n_layer * AUDIO_VECTORS + AUDIO_WIDE,
                n_layer * (AUDIO_CLIPPED * LIMITS + AUDIO_MATRICES) + AUDIO_WIDE);
    if (!b.no_memory) bind_audio(&b, a);
    if (!binder_close(&b, "audio", err) ||
        !binder_load(&b, "audio", &a->vectors, &a->n_vectors, err))
        return false;
    for (uint32_t il = 0; il < n_layer; il++) {
        audio_layer *l = &a->layers[il];
        clipped *const all[AUDIO_CLIPPED] = {
            &l->q,        &l->k,         &l->v,           &l->out,       &l->conv_in,
            &l->conv_out, &l->ffn[0].up, &l->ffn[0].down, &l->ffn[1].up, &l->ffn[1].down};
        for (uint32_t i = 0; i < AUDIO_CLIPPED; i++) drop_empty_limits(all[i]);
    }
    a->matrices = b.matrices;
    *out = a;
    return true;
}
