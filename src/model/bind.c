/* bind: every tensor of the text model to its field, once, with the shape that the configuration
 * asks for. The two functions bind_model() and bind_layer() are the list of Gemma 4's tensors.
 * Reads no data. Tensors that nobody asks for (encoders, the dead K and V of layers that share
 * another's) are left alone.
 *
 * Flow: config.c before, weights.c after. */
#include "model/bind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAMED          8
#define MATRICES_PER_LAYER 13
#define VECTORS_PER_LAYER  12
#define MODEL_WIDE         4 /* matrices, and vectors, outside the layers */

typedef struct binder {
    arena *a;
    model *m;
    bound *out;
    const uint32_t *il; /* the layer being bound; NULL: outside the layers */
    char complaints[420];
    size_t len;
    uint32_t n_complaint, n_named;
    carat_code code; /* UNSUPPORTED while only types are wrong */
    bool no_memory;
} binder;

typedef struct full_name {
    char text[96];
} full_name;

static full_name in_layer(const binder *b, const char *name) {
    full_name f;
    if (b->il)
        snprintf(f.text, sizeof f.text, "blk.%u.%s", *b->il, name);
    else
        snprintf(f.text, sizeof f.text, "%s", name);
    return f;
}

static const gguf_tensor *find(const binder *b, const char *name) {
    return gguf_find_tensor(b->m->gguf, in_layer(b, name).text);
}

__attribute__((format(printf, 3, 4))) static void complain(binder *b, carat_code code,
                                                           const char *fmt, ...) {
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (code == CARAT_E_FORMAT) b->code = code;
    b->n_complaint++;
    const size_t n = strlen(text) + 2;
    if (b->n_named >= MAX_NAMED || b->len + n >= sizeof b->complaints) return;
    b->len += (size_t)snprintf(b->complaints + b->len, sizeof b->complaints - b->len, "%s%s",
                               b->n_named ? "; " : "", text);
    b->n_named++;
}

static void complain_missing(binder *b, const char *name) {
    complain(b, CARAT_E_FORMAT, "%s is missing", in_layer(b, name).text);
}

static bool check_shape(binder *b, const gguf_tensor *t, uint32_t ne0, uint32_t ne1, uint32_t ne2) {
    if (t->ne[0] == ne0 && t->ne[1] == ne1 && t->ne[2] == ne2 && t->ne[3] == 1) return true;
    char is[96], want[48];
    if (ne2 > 1)
        snprintf(want, sizeof want, "[%u, %u, %u]", ne2, ne1, ne0);
    else if (ne1 > 1)
        snprintf(want, sizeof want, "[%u, %u]", ne1, ne0);
    else
        snprintf(want, sizeof want, "[%u]", ne0);
    complain(b, CARAT_E_FORMAT, "%s is %s, not %s", t->name.text, gguf_shape(t, is), want);
    return false;
}

static bool check_type(binder *b, const gguf_tensor *t, bool plain) {
    const quant_format *f = quant_find(t->type);
    const char *name = quant_name(t->type);
    if (f && t->ne[0] % f->n_value == 0 && (!plain || f->n_value == 1)) return true;
    if (!name)
        complain(b, CARAT_E_UNSUPPORTED, "%s is of the unknown type %u", t->name.text, t->type);
    else if (plain)
        complain(b, CARAT_E_UNSUPPORTED, "%s is %s, not F32", t->name.text, name);
    else
        complain(b, CARAT_E_UNSUPPORTED, "%s is %s, which carat does not run", t->name.text, name);
    return false;
}

/* ---- one tensor ---- */

/* A vector of n numbers. alias: another name that older files use, or NULL. */
static void optional_vec(binder *b, const char *name, const char *alias, uint32_t n, vector *v) {
    const gguf_tensor *t = find(b, name);
    if (!t && alias) t = find(b, alias);
    v->n = n;
    b->out->vectors[b->out->n_vector++] = v;
    if (!t || !check_shape(b, t, n, 1, 1) || !check_type(b, t, true)) return;
    v->tensor = t;
    b->m->weights.n_params += n;
}

static void vec(binder *b, const char *name, const char *alias, uint32_t n, vector *v) {
    if (find(b, name) || (alias && find(b, alias)))
        optional_vec(b, name, alias, n, v);
    else
        complain_missing(b, name);
}

static void numbers(binder *b, const gguf_tensor *t, uint32_t n, float *to) {
    if (!check_shape(b, t, n, 1, 1) || !check_type(b, t, true)) return;
    b->out->numbers[b->out->n_number++] = (number_ref){t, to, n};
}

/* n_expert matrices [n_row, n_col], without an external scale. */
static void bare_matrix(binder *b, const char *name, uint32_t n_col, uint32_t n_row,
                        uint32_t n_expert, weight *w) {
    const gguf_tensor *t = find(b, name);
    *w = (weight){.n_col = n_col, .n_row = n_row, .n_expert = n_expert, .scale = 1};
    if (!t) {
        complain_missing(b, name);
        return;
    }
    if (!check_shape(b, t, n_col, n_row, n_expert) || !check_type(b, t, false)) return;
    w->tensor = t;
    w->type = t->type;
    b->m->weights.n_params += (uint64_t)n_col * n_row * n_expert;
}

static void add_resident(binder *b, weight *w) {
    if (w->tensor) b->m->matrices[b->m->n_matrix++] = w;
}

/* NVFP4 holds its range in a second tensor: X.weight's is X.scale, one number a matrix. */
static void external_scale(binder *b, const char *name, weight *w) {
    if (!w->tensor || w->type != QUANT_NVFP4) return;
    char scale[64];
    const size_t stem = strlen(name) - strlen(".weight");
    snprintf(scale, sizeof scale, "%.*s.scale", (int)stem, name);
    const gguf_tensor *t = find(b, scale);
    if (!t) return;
    float *to = &w->scale;
    if (w->n_expert > 1) w->expert_scale = to = arena_alloc(b->a, w->n_expert, sizeof *to);
    if (to)
        numbers(b, t, w->n_expert, to);
    else
        b->no_memory = true;
}

static void mat(binder *b, const char *name, uint32_t n_col, uint32_t n_row, weight *w) {
    bare_matrix(b, name, n_col, n_row, 1, w);
    external_scale(b, name, w);
    add_resident(b, w);
}

static void experts(binder *b, const char *name, uint32_t n_col, uint32_t n_row, weight *w) {
    bare_matrix(b, name, n_col, n_row, b->m->config.n_expert, w);
    external_scale(b, name, w);
    add_resident(b, w);
}

/* ---- the list of tensors ---- */

static void bind_attention(binder *b, const layer_config *c, layer_weights *w) {
    const uint32_t d = b->m->config.n_embd, hd = c->head_dim;
    vec(b, "attn_norm.weight", NULL, d, &w->attn_norm);
    mat(b, "attn_q.weight", d, c->n_head * hd, &w->q);
    vec(b, "attn_q_norm.weight", NULL, hd, &w->q_norm);
    if (c->owns_kv) {
        mat(b, "attn_k.weight", d, c->n_kv * hd, &w->k);
        vec(b, "attn_k_norm.weight", NULL, hd, &w->k_norm);
        if (!c->k_eq_v) mat(b, "attn_v.weight", d, c->n_kv * hd, &w->v);
    }
    mat(b, "attn_output.weight", c->n_head * hd, d, &w->out);
    vec(b, "post_attention_norm.weight", "attn_post_norm.weight", d, &w->post_attn_norm);
}

static void bind_moe(binder *b, layer_weights *w) {
    const model_config *m = &b->m->config;
    const uint32_t d = m->n_embd, fe = m->n_ff_expert;
    bare_matrix(b, "ffn_gate_inp.weight", d, m->n_expert, 1, &w->router);
    add_resident(b, &w->router);
    vec(b, "ffn_gate_inp.scale", NULL, d, &w->router_scale);
    if (find(b, "ffn_gate_up_exps.weight") || !find(b, "ffn_gate_exps.weight")) {
        experts(b, "ffn_gate_up_exps.weight", d, 2 * fe, &w->gate_up_exps);
    } else {
        experts(b, "ffn_gate_exps.weight", d, fe, &w->gate_exps);
        experts(b, "ffn_up_exps.weight", d, fe, &w->up_exps);
    }
    /* What NVFP4's external scale would be is one with the experts' own scale here. */
    bare_matrix(b, "ffn_down_exps.weight", fe, d, m->n_expert, &w->down_exps);
    add_resident(b, &w->down_exps);
    optional_vec(b, "ffn_down_exps.scale", "ffn_gate_inp.per_expert_scale", m->n_expert,
                 &w->down_exps_scale);
    vec(b, "pre_ffw_norm_2.weight", "ffn_pre_norm_2.weight", d, &w->pre_norm_2);
    vec(b, "post_ffw_norm_1.weight", "ffn_post_norm_1.weight", d, &w->post_norm_1);
    vec(b, "post_ffw_norm_2.weight", "ffn_post_norm_2.weight", d, &w->post_norm_2);
}

static void bind_layer(binder *b, uint32_t il) {
    const model_config *m = &b->m->config;
    const layer_config *c = &m->layers[il];
    layer_weights *w = &b->m->weights.layers[il];
    const uint32_t d = m->n_embd;
    b->il = &il;
    bind_attention(b, c, w);
    vec(b, "ffn_norm.weight", "ffn_pre_norm.weight", d, &w->ffn_norm);
    mat(b, "ffn_gate.weight", d, c->n_ff, &w->gate);
    mat(b, "ffn_up.weight", d, c->n_ff, &w->up);
    mat(b, "ffn_down.weight", c->n_ff, d, &w->down);
    vec(b, "post_ffw_norm.weight", "ffn_post_norm.weight", d, &w->post_ffn_norm);
    if (c->moe) bind_moe(b, w);
    if (m->n_ple) {
        mat(b, "inp_gate.weight", d, m->n_ple, &w->ple_gate);
        mat(b, "proj.weight", m->n_ple, d, &w->ple_proj);
        vec(b, "post_norm.weight", NULL, d, &w->ple_norm);
    }
    w->scale = 1;
    const gguf_tensor *scale = find(b, "layer_output_scale.weight");
    if (!scale) scale = find(b, "layer_scalar");
    if (scale) {
        numbers(b, scale, 1, &w->scale);
        b->m->weights.n_params++;
    }
    b->il = NULL;
}

/* The divisors of RoPE's angles; models without global layers need none. */
static void bind_rope_freqs(binder *b) {
    const model_config *m = &b->m->config;
    for (uint32_t il = 0; il < m->n_layer; il++)
        if (!m->layers[il].sliding) {
            optional_vec(b, "rope_freqs.weight", NULL, m->layers[il].head_dim / 2,
                         &b->m->weights.rope_freqs);
            return;
        }
}

static void bind_model(binder *b) {
    const model_config *m = &b->m->config;
    model_weights *w = &b->m->weights;
    mat(b, "token_embd.weight", m->n_embd, m->n_vocab, &w->embed);
    w->output = &w->embed;
    if (find(b, "output.weight")) {
        w->output = arena_alloc(b->a, 1, sizeof *w->output);
        if (w->output)
            mat(b, "output.weight", m->n_embd, m->n_vocab, w->output);
        else
            b->no_memory = true;
    }
    vec(b, "output_norm.weight", NULL, m->n_embd, &w->output_norm);
    bind_rope_freqs(b);
    if (m->n_ple) {
        const uint32_t all = m->n_layer * m->n_ple;
        bare_matrix(b, "per_layer_token_embd.weight", all, m->n_vocab, 1, &w->ple_embed);
        external_scale(b, "per_layer_token_embd.weight", &w->ple_embed);
        mat(b, "per_layer_model_proj.weight", m->n_embd, all, &w->ple_model_proj);
        vec(b, "per_layer_proj_norm.weight", NULL, m->n_ple, &w->ple_proj_norm);
    }
    for (uint32_t il = 0; il < m->n_layer; il++) bind_layer(b, il);
}

static int by_place(const void *a, const void *b) {
    const weight *x = *(weight *const *)a, *y = *(weight *const *)b;
    return (x->tensor > y->tensor) - (x->tensor < y->tensor);
}

bool weights_bind(arena *a, model *m, bound *out, carat_error *err) {
    const size_t n_layer = m->config.n_layer;
    const size_t n_matrix = n_layer * MATRICES_PER_LAYER + MODEL_WIDE;
    const size_t n_vector = n_layer * VECTORS_PER_LAYER + MODEL_WIDE;
    binder b = {.a = a, .m = m, .out = out, .code = CARAT_E_UNSUPPORTED};
    m->matrices = arena_alloc(a, n_matrix, sizeof(weight *));
    out->vectors = arena_alloc(a, n_vector, sizeof(vector *));
    out->numbers = arena_alloc(a, n_matrix + n_layer, sizeof(number_ref));
    b.no_memory = !m->matrices || !out->vectors || !out->numbers;
    if (!b.no_memory) bind_model(&b);
    if (b.no_memory) return fail(err, CARAT_E_MEMORY, "model: out of memory for its tensor table");
    assert(m->n_matrix <= n_matrix && out->n_vector <= n_vector);

    if (b.n_complaint > b.n_named)
        return fail(err, b.code, "model: %s; and %u more", b.complaints, b.n_complaint - b.n_named);
    if (b.n_complaint) return fail(err, b.code, "model: %s", b.complaints);
    qsort(m->matrices, m->n_matrix, sizeof *m->matrices, by_place);
    return true;
}
