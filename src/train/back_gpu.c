/* back_gpu: the text network forwards with what its way back needs kept, and backwards, on the
 * device: back_cpu.c operation by operation, in the same order and with the same names. Numbers in
 * parentheses are the equations of docs/model.md.
 *
 * Flow: back_room.c and ops_train.h before; train_gpu.c after. */
#include "train/back_gpu.h"

#include <math.h>
#include <string.h>

#define IN_FLIGHT 2u /* pieces that the device has at once */

/* ---- inputs of a run ---- */

/* From where a sample's tokens begin, and up to where they go. */
static void write_spans(back_gpu *b, const train_batch *in) {
    const uint32_t n = in->n_tok;
    for (uint32_t i = n, end = n; i-- > 0;) {
        b->words[2 * i] = in->start[i];
        b->words[2 * i + 1] = end;
        if (in->start[i] == i) end = i;
    }
    gpu_write(b->gpu, b->span, 0, b->words, (size_t)n * 2 * sizeof *b->words);
}

/* For every token the next one with the same id, so that one thread adds up what they give. */
static void write_next(back_gpu *b, const train_batch *in) {
    const uint32_t n = in->n_tok;
    for (uint32_t i = 0; i < n; i++) b->words[i] = n | NEXT_FIRST;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = i + 1; k < n; k++)
            if (in->tokens[k] == in->tokens[i]) {
                b->words[i] = (b->words[i] & NEXT_FIRST) | k;
                b->words[k] &= ~NEXT_FIRST;
                break;
            }
    gpu_write(b->gpu, b->next, 0, b->words, (size_t)n * sizeof *b->words);
}

/* What is learned: token i is predicted in the row before it. */
static void write_targets(back_gpu *b, const train_batch *in) {
    uint32_t *at = b->words, n = 0;
    for (uint32_t i = 1; i < in->n_tok; i++)
        if (in->weight[i] > 0) at[n++] = i;
    b->n_target = n;
    if (!n) return;
    uint32_t *of = b->words + b->n_max;
    for (uint32_t k = 0; k < n; k++) of[k] = at[k] - 1;
    gpu_write(b->gpu, b->index, 0, of, (size_t)n * sizeof *of);
    for (uint32_t k = 0; k < n; k++) memcpy(&of[k], &in->weight[at[k]], sizeof *of);
    gpu_write(b->gpu, b->weights, 0, of, (size_t)n * sizeof *of);
    for (uint32_t k = 0; k < n; k++) of[k] = (uint32_t)in->tokens[at[k]];
    gpu_write(b->gpu, b->targets, 0, of, (size_t)n * sizeof *of);
}

/* The table's beginning again for every sample. */
static void copy_rope(back_gpu *b, const train_batch *in) {
    for (uint32_t at = 0, end; at < in->n_tok; at = end) {
        for (end = at + 1; end < in->n_tok && in->start[end] == at;) end++;
        for (int i = 0; i < 2; i++) {
            const uint64_t bytes = b->n_rot[i] * 2ull * sizeof(float);
            if (bytes)
                gpu_copy(b->gpu, b->rope[i], at * bytes, b->rope_table[i], 0, (end - at) * bytes);
        }
    }
}

static parts_gpu room(const back_gpu *b) { return (parts_gpu){whole(b->parts), b->n_parts}; }

/* out [n_row, ..] = in W^T of a frozen matrix, which is not rounded here: what that did to the
 * values would reach every gradient. On the way back it only reaches those below. */
static void product(const back_gpu *b, kernel_steps *s, const weight *w, gpu_view in, gpu_view out,
                    uint32_t n_row) {
    op_matmul_cut(s, w, w->n_row, room(b), true, in, out, n_row);
}

/* ---- forwards: adapters ---- */

static const pair_gpu *pair_at(const back_gpu *b, uint32_t slot) {
    const pair_gpu *p = &b->adapter->pairs[slot];
    return p->rank && !b->run.bare ? p : NULL;
}

static uint64_t dropout_key(const back_gpu *b, uint32_t slot) {
    return back_dropout_key(b->run.batch, slot, b->block);
}

/* What A of a slot sees: in, with dropout while learning. */
static gpu_view seen_by(const back_gpu *b, kernel_steps *s, uint32_t slot, gpu_view in,
                        uint32_t n_row) {
    const lora *l = b->lora;
    if (!b->run.learn || l->dropout <= 0) return in;
    op_dropout(s, in, (uint64_t)n_row * lora_slot(l, slot)->n_col, l->dropout, dropout_key(b, slot),
               whole(b->dropped), false);
    return whole(b->dropped);
}

/* What A of a slot makes: the way back reads it again. */
static gpu_view made_by(const back_gpu *b, uint32_t slot) {
    const uint32_t il = slot / LORA_TARGETS;
    return whole(il < b->model->config.n_layer ? b->layers[il].u[slot % LORA_TARGETS] : b->u);
}

/* out [n_row, ..] += B A of a slot. */
static void adapt(const back_gpu *b, kernel_steps *s, uint32_t slot, gpu_view in, uint32_t n_row,
                  gpu_view out) {
    const pair_gpu *p = pair_at(b, slot);
    if (!p) return;
    const gpu_view u = made_by(b, slot);
    op_matrix(s, &p->a, room(b), 1, seen_by(b, s, slot, in, n_row), u, n_row, false);
    op_matrix(s, &p->b, room(b), p->scale, u, out, n_row, true);
}

static void project(const back_gpu *b, uint32_t il, lora_target t, gpu_buffer in, gpu_buffer out) {
    const weight *w = lora_weight(b->model, il, t);
    product(b, b->steps, w, whole(in), whole(out), b->n_tok);
    adapt(b, b->steps, il * LORA_TARGETS + t, whole(in), b->n_tok, whole(out));
}

static void norm(const back_gpu *b, gpu_buffer x, const vector *w, gpu_buffer out) {
    op_rmsnorm(b->steps, b->model->weights.vector_buffer, w, b->model->config.rms_eps, 1, whole(x),
               whole(out), b->n_tok);
}

/* out = scale * (base + rms(x) w) */
static void add_norm(const back_gpu *b, gpu_buffer base, gpu_buffer x, const vector *w, float scale,
                     gpu_buffer out) {
    op_norm_add(b->steps, b->model->weights.vector_buffer, w, b->model->config.rms_eps, scale,
                whole(x), whole(base), whole(out), b->n_tok);
}

/* ---- forwards: inputs ---- */

/* (1) */
static void embed(const back_gpu *b) {
    const weight *w = &b->model->weights.embed;
    const float scale = sqrtf((float)w->n_col);
    const gpu_buffer x = b->layers[0].x;
    op_embed(b->steps, w, scale, whole(b->ids), whole(x), b->n_tok);
    const pair_gpu *p = pair_at(b, lora_slots(b->lora) - 2);
    if (!p) return;
    op_gather_columns(b->steps, &p->a, whole(b->ids), whole(b->u), b->n_tok);
    op_matrix(b->steps, &p->b, room(b), p->scale * scale, whole(b->u), whole(x), b->n_tok, true);
}

/* (3)-(6) */
static void per_layer_inputs(const back_gpu *b) {
    const model_config *c = &b->model->config;
    const model_weights *w = &b->model->weights;
    op_ple_rows(b->steps, b->model, whole(b->e), b->n_tok, c->n_layer, whole(b->ple_token));
    product(b, b->steps, &w->ple_model_proj, whole(b->layers[0].x), whole(b->e), b->n_tok);
    op_ple_input(b->steps, w->vector_buffer, &w->ple_proj_norm, c->rms_eps,
                 1 / sqrtf((float)c->n_embd), whole(b->ple_token), whole(b->e), c->n_layer,
                 b->n_tok);
}

/* ---- forwards: a layer ---- */

static heads_op heads_of(const back_gpu *b, uint32_t il, const vector *w, uint32_t n_head) {
    const layer_config *l = &b->model->config.layers[il];
    return (heads_op){.w = w,
                      .n_head = n_head,
                      .head_dim = l->head_dim,
                      .n_rot = w ? l->n_rot : 0,
                      .eps = b->model->config.rms_eps,
                      .vectors = b->model->weights.vector_buffer,
                      .cos_sin = whole(b->rope[l->sliding])};
}

static void make_q(const back_gpu *b, uint32_t il) {
    const heads_op h =
        heads_of(b, il, &b->model->weights.layers[il].q_norm, b->model->config.layers[il].n_head);
    op_heads(b->steps, &h, whole(b->layers[il].q_raw), whole(b->q), b->n_tok);
}

/* (9); V has no weight and no position */
static void make_kv(const back_gpu *b, uint32_t il) {
    const layer_config *l = &b->model->config.layers[il];
    const saved_gpu *s = &b->layers[il];
    const heads_op k = heads_of(b, il, &b->model->weights.layers[il].k_norm, l->n_kv);
    const heads_op v = heads_of(b, il, NULL, l->n_kv);
    project(b, il, LORA_K, b->n, s->k_raw);
    if (!l->k_eq_v) project(b, il, LORA_V, b->n, s->v_raw);
    op_heads(b->steps, &k, whole(s->k_raw), whole(b->k[il]), b->n_tok);
    op_heads(b->steps, &v, whole(l->k_eq_v ? s->k_raw : s->v_raw), whole(b->v[il]), b->n_tok);
}

/* (7)-(11) */
static void attention(const back_gpu *b, uint32_t il) {
    const saved_gpu *s = &b->layers[il];
    const layer_config *l = &b->model->config.layers[il];
    const layer_weights *w = &b->model->weights.layers[il];
    norm(b, s->x, &w->attn_norm, b->n);
    project(b, il, LORA_Q, b->n, s->q_raw);
    make_q(b, il);
    if (l->owns_kv) make_kv(b, il);
    op_train_attention(b->steps, l, whole(b->q), whole(b->k[l->donor]), whole(b->v[l->donor]),
                       whole(b->span), whole(s->attn), whole(s->lse), b->n_tok);
    project(b, il, LORA_OUT, s->attn, s->o);
    add_norm(b, s->x, s->o, &w->post_attn_norm, 1, s->y);
}

static geglu_up plain_up(gpu_buffer up, uint32_t n) { return (geglu_up){whole(up), n, 0}; }

/* (12), (15)-(20): what the feed-forward block adds, before its norm, is s->m */
static void feed_forward(const back_gpu *b, uint32_t il) {
    const saved_gpu *s = &b->layers[il];
    const layer_weights *w = &b->model->weights.layers[il];
    const geglu_up up = plain_up(s->up, w->gate.n_row);
    norm(b, s->y, &w->ffn_norm, b->z);
    project(b, il, LORA_GATE, b->z, s->gate);
    project(b, il, LORA_UP, b->z, s->up);
    op_geglu(b->steps, whole(s->gate), &up, whole(b->act), b->n_tok, w->gate.n_row);
    project(b, il, LORA_DOWN, b->act, s->down);
    if (b->model->config.layers[il].moe) {
        experts_gpu_forward(b->experts, b->steps, il, whole(s->y), whole(s->sum), b->n_tok);
        norm(b, s->down, &w->post_norm_1, b->part);
        add_norm(b, b->part, s->sum, &w->post_norm_2, 1, s->m);
    } else if (s->m.id != s->down.id) {
        gpu_copy(b->gpu, s->m, 0, s->down, 0, (uint64_t)b->n_tok * w->down.n_row * sizeof(float));
    }
}

/* The slice of e, or of its gradient, that a layer reads. */
static geglu_up ple_slice(const back_gpu *b, uint32_t il, gpu_buffer of) {
    const model_config *c = &b->model->config;
    return (geglu_up){whole(of), c->n_layer * c->n_ple, il * c->n_ple};
}

/* out: what leaves the layer that s->x enters; (12)-(14), (21) */
static void leave(const back_gpu *b, uint32_t il, gpu_buffer out) {
    const saved_gpu *s = &b->layers[il];
    const layer_weights *w = &b->model->weights.layers[il];
    const model_config *c = &b->model->config;
    if (!c->n_ple) {
        add_norm(b, s->y, s->m, &w->post_ffn_norm, w->scale, out);
        return;
    }
    const geglu_up e = ple_slice(b, il, b->e);
    add_norm(b, s->y, s->m, &w->post_ffn_norm, 1, b->r);
    product(b, b->steps, &w->ple_gate, whole(b->r), whole(s->ple_gate), b->n_tok);
    op_geglu(b->steps, whole(s->ple_gate), &e, whole(b->ple_act), b->n_tok, c->n_ple);
    product(b, b->steps, &w->ple_proj, whole(b->ple_act), whole(s->ple), b->n_tok);
    add_norm(b, b->r, s->ple, &w->ple_norm, w->scale, out);
}

static void layer(const back_gpu *b, uint32_t il) {
    attention(b, il);
    feed_forward(b, il);
    leave(b, il, il + 1 < b->model->config.n_layer ? b->layers[il + 1].x : b->end);
}

/* What the way back through a layer reads and no buffer keeps. */
static void remake(const back_gpu *b, uint32_t il) {
    const saved_gpu *s = &b->layers[il];
    const layer_weights *w = &b->model->weights.layers[il];
    const geglu_up up = plain_up(s->up, w->gate.n_row);
    norm(b, s->x, &w->attn_norm, b->n);
    make_q(b, il);
    norm(b, s->y, &w->ffn_norm, b->z);
    op_geglu(b->steps, whole(s->gate), &up, whole(b->act), b->n_tok, w->gate.n_row);
}

/* ---- backwards: adapters ---- */

/* din += of adapt(), and the gradients of its A and B. */
static void adapt_back(const back_gpu *b, kernel_steps *s, uint32_t slot, gpu_view in,
                       gpu_view dout, uint32_t n_row, gpu_view din) {
    const pair_gpu *p = pair_at(b, slot);
    if (!p) return;
    const gpu_view du = whole(b->du), seen = seen_by(b, s, slot, in, n_row);
    op_back_matrix(s, &p->b, room(b), p->scale, dout, du, n_row, false);
    op_outer(s, room(b), dout, p->b.n_row, made_by(b, slot), p->rank, p->scale, p->db.view, n_row,
             true);
    op_outer(s, room(b), du, p->rank, seen, p->a.n_col, 1, p->da.view, n_row, true);
    if (seen.buffer.id == in.buffer.id) {
        op_back_matrix(s, &p->a, room(b), 1, du, din, n_row, true);
        return;
    }
    op_back_matrix(s, &p->a, room(b), 1, du, whole(b->ddropped), n_row, false);
    op_dropout(s, whole(b->ddropped), (uint64_t)n_row * p->a.n_col, b->lora->dropout,
               dropout_key(b, slot), din, true);
}

/* din of project(): added, or set. */
static void project_back(const back_gpu *b, uint32_t il, lora_target t, gpu_buffer in,
                         gpu_buffer dout, gpu_buffer din, bool add) {
    op_back_matmul(b->steps, lora_weight(b->model, il, t), room(b), whole(dout), whole(din),
                   b->n_tok, add);
    adapt_back(b, b->steps, il * LORA_TARGETS + t, whole(in), whole(dout), b->n_tok, whole(din));
}

static void norm_back(const back_gpu *b, gpu_buffer x, const vector *w, gpu_buffer dout,
                      gpu_buffer dx, bool add) {
    op_back_rmsnorm(b->steps, b->model->weights.vector_buffer, w, w->n, b->model->config.rms_eps,
                    whole(x), whole(dout), whole(dx), b->n_tok, add);
}

/* ---- the head, both ways ---- */

/* (22), (23): rows [at0, at0 + n) of what is learned */
static void head_rows(const back_gpu *b, uint32_t at0, uint32_t n) {
    const model_config *c = &b->model->config;
    const model_weights *w = &b->model->weights;
    const uint32_t slot = lora_slots(b->lora) - 1;
    const gpu_view index = {b->index, at0 * sizeof(uint32_t), n * sizeof(uint32_t)};
    const gpu_view normed = whole(b->normed), logits = whole(b->logits);
    kernel_steps *s = b->head_steps;
    kernel_begin(s);
    op_gather_rows(s, index, whole(b->end), whole(b->rows), n, c->n_embd);
    op_rmsnorm(s, w->vector_buffer, &w->output_norm, c->rms_eps, 1, whole(b->rows), normed, n);
    product(b, s, w->output, normed, logits, n);
    adapt(b, s, slot, normed, n, logits);
    const cross_entropy_op loss = {.logits = logits,
                                   .targets = whole(b->targets),
                                   .weights = whole(b->weights),
                                   .loss = whole(b->outcome),
                                   .parts = whole(b->loss_parts),
                                   .n_vocab = c->n_vocab,
                                   .at0 = at0,
                                   .cap = c->softcap,
                                   .scale = b->run.scale};
    op_cross_entropy(s, &loss, n);
    if (!b->run.learn) return;
    op_back_matmul(s, w->output, room(b), logits, whole(b->dnormed), n, false);
    adapt_back(b, s, slot, normed, logits, n, whole(b->dnormed));
    op_back_rmsnorm(s, w->vector_buffer, &w->output_norm, c->n_embd, c->rms_eps, whole(b->rows),
                    whole(b->dnormed), whole(b->drows), n, false);
    op_scatter_rows(s, index, whole(b->drows), whole(b->dx), n, c->n_embd);
}

/* ---- backwards: a layer; dx is the stream's gradient, of what leaves and then what enters ---- */

/* (13) */
static void inject_ple_back(const back_gpu *b, uint32_t il) {
    const saved_gpu *s = &b->layers[il];
    const layer_weights *w = &b->model->weights.layers[il];
    const geglu_up e = ple_slice(b, il, b->e);
    norm_back(b, s->ple, &w->ple_norm, b->dx, b->dpart, false);
    op_back_matmul(b->steps, &w->ple_proj, room(b), whole(b->dpart), whole(b->dple_act), b->n_tok,
                   false);
    op_back_geglu(b->steps, whole(s->ple_gate), &e, whole(b->dple_act), whole(b->dple),
                  whole(b->de), b->n_tok, b->model->config.n_ple);
    op_back_matmul(b->steps, &w->ple_gate, room(b), whole(b->dple), whole(b->dx), b->n_tok, true);
}

/* (21)-(15), (12) */
static void feed_forward_back(const back_gpu *b, uint32_t il) {
    const saved_gpu *s = &b->layers[il];
    const layer_weights *w = &b->model->weights.layers[il];
    const geglu_up up = plain_up(s->up, w->gate.n_row);
    norm_back(b, s->m, &w->post_ffn_norm, b->dx, b->dm, false);
    gpu_buffer ddown = b->dm;
    if (b->model->config.layers[il].moe) {
        norm_back(b, s->sum, &w->post_norm_2, b->dm, b->dpart, false);
        experts_gpu_backward(b->experts, b->steps, il, whole(s->y), whole(b->dpart), whole(b->dx),
                             b->n_tok);
        ddown = b->dpart;
        norm_back(b, s->down, &w->post_norm_1, b->dm, ddown, false);
    }
    project_back(b, il, LORA_DOWN, b->act, ddown, b->dact, false);
    op_back_geglu(b->steps, whole(s->gate), &up, whole(b->dact), whole(b->dgate), whole(b->dup),
                  b->n_tok, w->gate.n_row);
    project_back(b, il, LORA_UP, b->z, b->dup, b->dn, false);
    project_back(b, il, LORA_GATE, b->z, b->dgate, b->dn, true);
    norm_back(b, s->y, &w->ffn_norm, b->dn, b->dx, true);
}

/* Gradients of K and V of a layer, before anything is added to them. */
static void clear_kv(const back_gpu *b, uint32_t il) {
    const layer_config *l = &b->model->config.layers[il];
    const uint64_t n = (uint64_t)b->n_tok * l->n_kv * l->head_dim;
    op_zero(b->steps, whole(b->dk[il]), n);
    op_zero(b->steps, whole(b->dv[il]), n);
}

/* Whether other layers read this one's K and V. */
static bool is_shared(const back_gpu *b, uint32_t il) {
    const model_config *c = &b->model->config;
    for (uint32_t i = il + 1; i < c->n_layer; i++)
        if (!c->layers[i].owns_kv && c->layers[i].donor == il) return true;
    return false;
}

/* (9): all that has been added to the layer's K and V, by itself and by those that share them */
static void keys_and_values_back(const back_gpu *b, uint32_t il) {
    const layer_config *l = &b->model->config.layers[il];
    const saved_gpu *s = &b->layers[il];
    const heads_op k = heads_of(b, il, &b->model->weights.layers[il].k_norm, l->n_kv);
    const heads_op v = heads_of(b, il, NULL, l->n_kv);
    op_back_heads(b->steps, &k, whole(s->k_raw), whole(b->dk[il]), whole(b->dk_raw), b->n_tok,
                  false);
    if (l->k_eq_v) {
        op_back_heads(b->steps, &v, whole(s->k_raw), whole(b->dv[il]), whole(b->dk_raw), b->n_tok,
                      true);
    } else {
        op_back_heads(b->steps, &v, whole(s->v_raw), whole(b->dv[il]), whole(b->dv_raw), b->n_tok,
                      false);
        project_back(b, il, LORA_V, b->n, b->dv_raw, b->dn, true);
    }
    project_back(b, il, LORA_K, b->n, b->dk_raw, b->dn, true);
}

/* (11)-(7) */
static void attention_back(const back_gpu *b, uint32_t il) {
    const layer_config *l = &b->model->config.layers[il];
    const layer_weights *w = &b->model->weights.layers[il];
    const saved_gpu *s = &b->layers[il];
    const heads_op q = heads_of(b, il, &w->q_norm, l->n_head);
    norm_back(b, s->o, &w->post_attn_norm, b->dx, b->dpart, false);
    project_back(b, il, LORA_OUT, s->attn, b->dpart, b->dattn, false);
    if (l->owns_kv && !is_shared(b, il)) clear_kv(b, il);
    const back_attention_op a = {.q = whole(b->q),
                                 .k = whole(b->k[l->donor]),
                                 .v = whole(b->v[l->donor]),
                                 .span = whole(b->span),
                                 .out = whole(s->attn),
                                 .lse = whole(s->lse),
                                 .dout = whole(b->dattn),
                                 .delta = whole(b->delta),
                                 .parts = room(b),
                                 .dq = whole(b->dq),
                                 .dk = whole(b->dk[l->donor]),
                                 .dv = whole(b->dv[l->donor])};
    op_back_attention(b->steps, l, &a, b->n_tok);
    op_back_heads(b->steps, &q, whole(s->q_raw), whole(b->dq), whole(b->dq_raw), b->n_tok, false);
    project_back(b, il, LORA_Q, b->n, b->dq_raw, b->dn, false);
    if (l->owns_kv) keys_and_values_back(b, il);
    norm_back(b, s->x, &w->attn_norm, b->dn, b->dx, true);
}

static void layer_back(const back_gpu *b, uint32_t il) {
    const uint64_t n = (uint64_t)b->n_tok * b->model->config.n_embd;
    if (il >= b->kept) {
        remake(b, il);
    } else {
        attention(b, il);
        feed_forward(b, il);
        if (b->model->config.n_ple) leave(b, il, b->part);
    }
    op_scale(b->steps, whole(b->dx), n, b->model->weights.layers[il].scale);
    if (b->model->config.n_ple) inject_ple_back(b, il);
    feed_forward_back(b, il);
    attention_back(b, il);
}

/* Donors' gradients add up from here on. */
static void begin_back(const back_gpu *b) {
    op_zero(b->steps, whole(b->dx), (uint64_t)b->n_tok * b->model->config.n_embd);
    for (uint32_t il = 0; il < b->model->config.n_layer; il++)
        if (is_shared(b, il)) clear_kv(b, il);
}

/* ---- backwards: inputs ---- */

/* (6)-(4): dx += ; de becomes the gradient of rms(..) w, then ple_token that of the projection */
static void per_layer_inputs_back(const back_gpu *b) {
    const model_config *c = &b->model->config;
    const model_weights *w = &b->model->weights;
    const uint64_t n = (uint64_t)b->n_tok * c->n_layer * c->n_ple;
    const float scale = 1 / sqrtf((float)c->n_embd);
    product(b, b->steps, &w->ple_model_proj, whole(b->layers[0].x), whole(b->e), b->n_tok);
    op_scale(b->steps, whole(b->e), n, scale);
    op_back_rmsnorm(b->steps, w->vector_buffer, &w->ple_proj_norm, c->n_ple, c->rms_eps,
                    whole(b->e), whole(b->de), whole(b->ple_token), b->n_tok * c->n_layer, false);
    op_scale(b->steps, whole(b->ple_token), n, scale * sqrtf(0.5f));
    op_back_matmul(b->steps, &w->ple_model_proj, room(b), whole(b->ple_token), whole(b->dx),
                   b->n_tok, true);
}

/* (1) */
static void embed_back(const back_gpu *b) {
    const pair_gpu *p = pair_at(b, lora_slots(b->lora) - 2);
    if (!p) return;
    const float scale = p->scale * sqrtf((float)p->b.n_row);
    if (b->model->config.n_ple) per_layer_inputs_back(b);
    op_gather_columns(b->steps, &p->a, whole(b->ids), whole(b->u), b->n_tok);
    op_outer(b->steps, room(b), whole(b->dx), p->b.n_row, whole(b->u), p->rank, scale, p->db.view,
             b->n_tok, true);
    op_back_matrix(b->steps, &p->b, room(b), scale, whole(b->dx), whole(b->du), b->n_tok, false);
    op_scatter_columns(b->steps, &p->da, whole(b->ids), whole(b->next), whole(b->du), b->n_tok);
}

/* ---- a run ---- */

static bool check_batch(const back_gpu *b, const train_batch *in, carat_error *err) {
    if (!in->n_tok || in->n_tok > b->n_max)
        return fail(err, CARAT_E_ARGUMENT, "train: %u tokens at once, at most %u", in->n_tok,
                    b->n_max);
    for (uint32_t i = 0; i < in->n_tok; i++)
        if (in->tokens[i] < 0 || (uint32_t)in->tokens[i] >= b->model->config.n_vocab)
            return fail(err, CARAT_E_ARGUMENT, "train: there is no token %d", in->tokens[i]);
    return true;
}

bool back_gpu_begin(back_gpu *b, const back_run *run, carat_error *err) {
    const train_batch *in = run->batch;
    const uint32_t n_layer = b->model->config.n_layer;
    if (!check_batch(b, in, err)) return false;
    b->run = *run;
    b->n_tok = in->n_tok;
    gpu_write(b->gpu, b->ids, 0, in->tokens, in->n_tok * sizeof *in->tokens);
    write_spans(b, in);
    write_targets(b, in);
    if (b->lora->embed.rank) write_next(b, in);
    if (!ple_rows_write(&b->ple, b->gpu, b->model, in->tokens, in->n_tok, n_layer, b->e, err))
        return false;
    b->piece = 0;
    b->n_piece = 1 + n_layer + div_up(b->n_target, BACK_HEAD_ROWS);
    if (run->learn) b->n_piece += n_layer - b->first + 1;
    kernel_begin(b->steps);
    return true;
}

/* Inputs, layers, the head, layers backwards, inputs backwards. */
static void record(back_gpu *b, uint32_t piece) {
    const uint32_t n_layer = b->model->config.n_layer, n_head = div_up(b->n_target, BACK_HEAD_ROWS);
    if (piece == 0) {
        copy_rope(b, b->run.batch);
        embed(b);
        if (b->model->config.n_ple) per_layer_inputs(b);
    } else if (piece <= n_layer) {
        layer(b, piece - 1);
        if (piece == n_layer && b->run.learn) begin_back(b);
    } else if (piece <= n_layer + n_head) {
        const uint32_t at = (piece - 1 - n_layer) * BACK_HEAD_ROWS;
        b->block = at;
        head_rows(b, at, min_u32(BACK_HEAD_ROWS, b->n_target - at));
        b->block = 0;
    } else if (piece + 1 < b->n_piece) {
        layer_back(b, n_layer - (piece - n_layer - n_head));
    } else {
        embed_back(b);
    }
}

bool back_gpu_advance(back_gpu *b, bool *finished, carat_error *err) {
    while (b->piece < b->n_piece && gpu_pending(b->gpu) < IN_FLIGHT) {
        const uint32_t n_layer = b->model->config.n_layer;
        record(b, b->piece);
        const bool head =
            b->piece > n_layer && b->piece <= n_layer + div_up(b->n_target, BACK_HEAD_ROWS);
        kernel_steps *s = head ? b->head_steps : b->steps;
        kernel_hand_over(s);
        if (!kernel_end(s, err)) return false;
        b->piece++;
    }
    *finished = b->piece == b->n_piece;
    return true;
}
