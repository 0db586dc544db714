/* bind: every tensor of the text model to its field. bind_model() and bind_layer() are the list of
 * Gemma 4's tensors. Tensors that nobody asks for (encoders, the dead K and V of
 * layers that share another's) are left alone.
 *
 * Flow: config.c and binder.c before, weights.c after. */
#include "model/bind.h"

#include <stdio.h>

#define MATRICES_PER_LAYER 13
#define VECTORS_PER_LAYER  12
#define MODEL_WIDE         4 /* matrices, and vectors, outside the layers */

static void bind_attention(binder *b, uint32_t d, const layer_config *c, layer_weights *w) {
    const uint32_t hd = c->head_dim;
    bind_vec(b, "attn_norm.weight", NULL, d, &w->attn_norm);
    bind_mat(b, "attn_q.weight", d, c->n_head * hd, &w->q);
    bind_vec(b, "attn_q_norm.weight", NULL, hd, &w->q_norm);
    if (c->owns_kv) {
        bind_mat(b, "attn_k.weight", d, c->n_kv * hd, &w->k);
        bind_vec(b, "attn_k_norm.weight", NULL, hd, &w->k_norm);
        if (!c->k_eq_v) bind_mat(b, "attn_v.weight", d, c->n_kv * hd, &w->v);
    }
    bind_mat(b, "attn_output.weight", c->n_head * hd, d, &w->out);
    bind_vec(b, "post_attention_norm.weight", "attn_post_norm.weight", d, &w->post_attn_norm);
}

static void bind_moe(binder *b, const model_config *m, layer_weights *w) {
    const uint32_t d = m->n_embd, fe = m->n_ff_expert;
    bind_bare(b, "ffn_gate_inp.weight", d, m->n_expert, 1, &w->router);
    bind_resident(b, &w->router);
    bind_vec(b, "ffn_gate_inp.scale", NULL, d, &w->router_scale);
    if (bind_find(b, "ffn_gate_up_exps.weight") || !bind_find(b, "ffn_gate_exps.weight")) {
        bind_experts(b, "ffn_gate_up_exps.weight", d, 2 * fe, m->n_expert, &w->gate_up_exps);
    } else {
        bind_experts(b, "ffn_gate_exps.weight", d, fe, m->n_expert, &w->gate_exps);
        bind_experts(b, "ffn_up_exps.weight", d, fe, m->n_expert, &w->up_exps);
    }
    /* What NVFP4's external scale would be is one with the experts' own scale here. */
    bind_bare(b, "ffn_down_exps.weight", fe, d, m->n_expert, &w->down_exps);
    bind_resident(b, &w->down_exps);
    bind_optional_vec(b, "ffn_down_exps.scale", "ffn_gate_inp.per_expert_scale", m->n_expert,
                      &w->down_exps_scale);
    bind_vec(b, "pre_ffw_norm_2.weight", "ffn_pre_norm_2.weight", d, &w->pre_norm_2);
    bind_vec(b, "post_ffw_norm_1.weight", "ffn_post_norm_1.weight", d, &w->post_norm_1);
    bind_vec(b, "post_ffw_norm_2.weight", "ffn_post_norm_2.weight", d, &w->post_norm_2);
}

static void bind_layer(binder *b, const model_config *m, uint32_t il, layer_weights *w) {
    const layer_config *c = &m->layers[il];
    const uint32_t d = m->n_embd;
    snprintf(b->prefix, sizeof b->prefix, "blk.%u.", il);
    bind_attention(b, d, c, w);
    bind_vec(b, "ffn_norm.weight", "ffn_pre_norm.weight", d, &w->ffn_norm);
    bind_mat(b, "ffn_gate.weight", d, c->n_ff, &w->gate);
    bind_mat(b, "ffn_up.weight", d, c->n_ff, &w->up);
    bind_mat(b, "ffn_down.weight", c->n_ff, d, &w->down);
    bind_vec(b, "post_ffw_norm.weight", "ffn_post_norm.weight", d, &w->post_ffn_norm);
    if (c->moe) bind_moe(b, m, w);
    if (m->n_ple) {
        bind_mat(b, "inp_gate.weight", d, m->n_ple, &w->ple_gate);
        bind_mat(b, "proj.weight", m->n_ple, d, &w->ple_proj);
        bind_vec(b, "post_norm.weight", NULL, d, &w->ple_norm);
    }
    w->scale = 1;
    const gguf_tensor *scale = bind_find(b, "layer_output_scale.weight");
    if (!scale) scale = bind_find(b, "layer_scalar");
    if (scale) {
        bind_numbers(b, scale, 1, &w->scale);
        b->n_params++;
    }
    b->prefix[0] = 0;
}

/* The divisors of RoPE's angles; models without global layers need none. */
static void bind_rope_freqs(binder *b, const model_config *m, vector *v) {
    for (uint32_t il = 0; il < m->n_layer; il++)
        if (!m->layers[il].sliding) {
            bind_optional_vec(b, "rope_freqs.weight", NULL, m->layers[il].head_dim / 2, v);
            return;
        }
}

static void bind_model(binder *b, const model_config *m, model_weights *w) {
    bind_mat(b, "token_embd.weight", m->n_embd, m->n_vocab, &w->embed);
    w->output = &w->embed;
    if (bind_find(b, "output.weight")) {
        w->output = arena_alloc(b->a, 1, sizeof *w->output);
        if (w->output)
            bind_mat(b, "output.weight", m->n_embd, m->n_vocab, w->output);
        else
            b->no_memory = true;
    }
    bind_vec(b, "output_norm.weight", NULL, m->n_embd, &w->output_norm);
    bind_rope_freqs(b, m, &w->rope_freqs);
    if (m->n_ple) {
        const uint32_t all = m->n_layer * m->n_ple;
        bind_bare(b, "per_layer_token_embd.weight", all, m->n_vocab, 1, &w->ple_embed);
        bind_external_scale(b, "per_layer_token_embd.weight", &w->ple_embed);
        bind_mat(b, "per_layer_model_proj.weight", m->n_embd, all, &w->ple_model_proj);
        bind_vec(b, "per_layer_proj_norm.weight", NULL, m->n_ple, &w->ple_proj_norm);
    }
    for (uint32_t il = 0; il < m->n_layer; il++) bind_layer(b, m, il, &w->layers[il]);
}

bool weights_bind(arena *a, model *m, binder *b, carat_error *err) {
    const uint32_t n_layer = m->config.n_layer;
    const uint32_t n_matrix = n_layer * MATRICES_PER_LAYER + MODEL_WIDE;
    const uint32_t n_vector = n_layer * VECTORS_PER_LAYER + MODEL_WIDE;
    binder_open(b, a, m->gguf, n_matrix, n_vector, n_matrix + n_layer);
    if (!b->no_memory) bind_model(b, &m->config, &m->weights);
    if (!binder_close(b, "model", err)) return false;
    m->weights.n_params = b->n_params;
    m->matrices = b->matrices;
    m->n_matrix = b->n_matrix;
    return true;
}
