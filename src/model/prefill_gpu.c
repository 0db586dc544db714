/* prefill_gpu: a chunk of the prompt through the layers, all tokens at once. One line a stage, in
 * the order of text_cpu.c; what is fused: q, k, v norms with RoPE and storing, gate with up and
 * GELU, and the end of each block with the norm that begins the next.
 *
 * Global layers store K and V at their place in the cache and attend to it. The ring of a sliding
 * layer cannot hold the chunk beside the window before it; so both are laid out in order in a
 * stage, attention reads that, and the chunk's end goes back into the ring.
 *
 * Flow: text_gpu.c (inputs, embedding) before; decode_gpu.c (the last token's layers, the head)
 * after. */
#include "model/ops_gpu.h"
#include "model/text_gpu.h"

#include "kernels.h"

#include <math.h>

#define ATTENTION_ROWS 32u /* rows of a workgroup of attention.wgsl */

typedef struct prefill {
    text_gpu *t;
    kernel_steps *s;
    const model_config *c;
    const model_weights *w;
    gpu_buffer x; /* the residual stream */
    uint32_t n_tok, pos, n_run;
} prefill;

/* Where a layer's keys and values are during the chunk. */
typedef struct key_rows {
    gpu_buffer k, v;
    uint32_t first; /* row of the chunk's first token; row 0 is position pos - first */
} key_rows;

static void matmul(const prefill *p, const weight *w, gpu_buffer in, gpu_buffer out) {
    const gpu_buffer parts = p->t->parts;
    const parts_gpu room = {whole(parts), parts.id ? PARTS_MOST : 0};
    op_matmul_cut(p->s, w, w->n_row, room, false, whole(in), whole(out), p->n_tok);
}

static void add_rmsnorm(const prefill *p, gpu_buffer update, const vector *post, const vector *norm,
                        float scale) {
    op_add_rmsnorm(p->s, p->w->vector_buffer, post, norm, p->c->rms_eps, scale, whole(update),
                   whole(p->x), whole(p->t->norm), p->n_tok);
}

/* Soft tokens over the embeddings of what stands in their places. */
static void put_soft(const prefill *p, const text_input *in) {
    const uint64_t row = (uint64_t)p->c->n_embd * 4;
    const uint32_t end = p->pos + p->n_tok;
    for (uint32_t i = 0; i < in->n_span; i++) {
        const soft_span *s = &in->spans[i];
        const uint32_t from = max_u32(s->pos, p->pos), to = min_u32(s->pos + s->n, end);
        if (from < to)
            gpu_copy(p->t->gpu, p->x, (from - p->pos) * row, s->device, (from - s->pos) * row,
                     (to - from) * row);
    }
}

/* The per-layer embeddings of all layers that run, into ple_proj. */
static void ple_input(const prefill *p) {
    const uint32_t n = p->n_run * p->c->n_ple;
    op_ple_rows(p->s, p->t->model, whole(p->t->ple_proj), p->n_tok, p->n_run,
                whole(p->t->ple_token));
    op_matmul(p->s, &p->w->ple_model_proj, n, whole(p->x), whole(p->t->ple_proj), p->n_tok);
    op_ple_input(p->s, p->w->vector_buffer, &p->w->ple_proj_norm, p->c->rms_eps,
                 1 / sqrtf((float)p->c->n_embd), whole(p->t->ple_token), whole(p->t->ple_proj),
                 p->n_run, p->n_tok);
}

/* Whether later layers read this layer's keys. */
static bool is_donor(const model_config *c, uint32_t il) {
    for (uint32_t i = c->n_owner; i < c->n_layer; i++)
        if (c->layers[i].donor == il) return true;
    return false;
}

static key_rows keys_of(const prefill *p, uint32_t il) {
    const uint32_t owner = p->c->layers[il].donor;
    const kv_gpu *kv = &p->t->kv[owner];
    if (!p->c->layers[il].sliding) return (key_rows){kv->k, kv->v, p->pos};
    const uint32_t stage = is_donor(p->c, owner);
    return (key_rows){p->t->stage_k[stage], p->t->stage_v[stage], min_u32(p->pos, kv->n_slot)};
}

/* Copies n rows between a ring, from position pos on, and rows of a stage. */
static void copy_ring(const prefill *p, const kv_gpu *kv, const key_rows *stage, uint32_t row,
                      uint32_t pos, uint32_t n, bool to_ring) {
    while (n > 0) {
        const uint32_t slot = pos % kv->n_slot, piece = min_u32(n, kv->n_slot - slot);
        const uint64_t at = (uint64_t)row * kv->row_bytes, in_ring = (uint64_t)slot * kv->row_bytes;
        const uint64_t bytes = (uint64_t)piece * kv->row_bytes;
        gpu *g = p->t->gpu;
        if (to_ring) {
            gpu_copy(g, kv->k, in_ring, stage->k, at, bytes);
            gpu_copy(g, kv->v, in_ring, stage->v, at, bytes);
        } else {
            gpu_copy(g, stage->k, at, kv->k, in_ring, bytes);
            gpu_copy(g, stage->v, at, kv->v, in_ring, bytes);
        }
        row += piece;
        pos += piece;
        n -= piece;
    }
}

static void qkv_post(const prefill *p, uint32_t il, const key_rows *to) {
    const layer_config *l = &p->c->layers[il];
    const layer_weights *w = &p->w->layers[il];
    const text_gpu *t = p->t;
    const qkv_post_args args = {
        .n_head = l->n_head,
        .n_kv = l->owns_kv ? l->n_kv : 0,
        .head_dim = l->head_dim,
        .n_rot = l->n_rot,
        .row0 = to->first,
        .w_q = w->q_norm.offset,
        .w_k = w->k_norm.offset,
        .eps = p->c->rms_eps,
    };
    kernel_run(p->s, &(kernel_call){
                         .kernel = &kernel_qkv_post,
                         .args = &args,
                         .views = {whole(p->w->vector_buffer),
                                   whole(l->sliding ? t->rope_sliding : t->rope_global),
                                   whole(t->k), whole(l->k_eq_v ? t->k : t->v), whole(t->q),
                                   whole(to->k), whole(to->v)},
                         .x = div_up(args.n_head + 2 * args.n_kv, 4),
                         .y = p->n_tok,
                     });
}

static void attention(const prefill *p, uint32_t il, const key_rows *from) {
    const layer_config *l = &p->c->layers[il];
    const attention_args args = {
        .n_tok = p->n_tok,
        .n_head = l->n_head,
        .n_kv = l->n_kv,
        .head_dim = l->head_dim,
        .n_key = from->first + p->n_tok,
        .first = from->first,
        .window = l->window,
        .pictures = l->sliding && p->t->pictures,
    };
    kernel_run(p->s, &(kernel_call){
                         .kernel = &kernel_attention,
                         .args = &args,
                         .views = {whole(p->t->q), whole(from->k), whole(from->v),
                                   whole(p->t->last_seen), whole(p->t->attn)},
                         .x = div_up(p->n_tok * (l->n_head / l->n_kv), ATTENTION_ROWS),
                         .y = l->n_kv,
                     });
}

/* What adapters add to q, k and v. */
static void adapt_qkv(const prefill *p, uint32_t il) {
    const text_gpu *t = p->t;
    const layer_config *l = &p->c->layers[il];
    const lora_group *g = lora_gpu_at(t->lora, il, LORA_INPUT_QKV);
    const uint32_t n_q = l->n_head * l->head_dim, n_kv = l->n_kv * l->head_dim;
    op_lora_down(p->s, g, whole(t->norm), t->lora_u, p->n_tok);
    op_lora_up(p->s, g, 0, n_q, t->lora_u, t->q, p->n_tok, true);
    if (l->owns_kv) op_lora_up(p->s, g, n_q, n_kv, t->lora_u, t->k, p->n_tok, true);
    if (l->owns_kv && !l->k_eq_v)
        op_lora_up(p->s, g, n_q + n_kv, n_kv, t->lora_u, t->v, p->n_tok, true);
}

/* From the normed stream in t->norm to attn_out. */
static void attention_block(const prefill *p, uint32_t il) {
    const layer_config *l = &p->c->layers[il];
    const layer_weights *w = &p->w->layers[il];
    const text_gpu *t = p->t;
    const kv_gpu *kv = &t->kv[l->donor];
    const key_rows keys = keys_of(p, il);
    const bool ring = l->sliding && l->owns_kv;
    matmul(p, &w->q, t->norm, t->q);
    if (l->owns_kv) matmul(p, &w->k, t->norm, t->k);
    if (l->owns_kv && !l->k_eq_v) matmul(p, &w->v, t->norm, t->v);
    adapt_qkv(p, il);
    if (ring) copy_ring(p, kv, &keys, 0, p->pos - keys.first, keys.first, false);
    qkv_post(p, il, &keys);
    attention(p, il, &keys);
    if (ring) {
        const uint32_t n = min_u32(p->n_tok, kv->n_slot), skip = p->n_tok - n;
        copy_ring(p, kv, &keys, keys.first + skip, p->pos + skip, n, true);
    }
    matmul(p, &w->out, t->attn, t->attn_out);
    op_lora(p->s, lora_gpu_at(t->lora, il, LORA_INPUT_OUT), whole(t->attn), t->lora_u, t->attn_out,
            p->n_tok);
}

static void ple_gate(const prefill *p, uint32_t il) {
    const ple_gate_args args = {
        .n_tok = p->n_tok,
        .n_ple = p->c->n_ple,
        .e_stride = p->n_run * p->c->n_ple,
        .e0 = il * p->c->n_ple,
    };
    kernel_run(p->s, &(kernel_call){
                         .kernel = &kernel_ple_gate,
                         .args = &args,
                         .views = {whole(p->t->ple_proj), whole(p->t->ple_gate)},
                         .x = div_up(args.n_tok * args.n_ple, 256),
                     });
}

static void layer(const prefill *p, uint32_t il) {
    const layer_config *l = &p->c->layers[il];
    const layer_weights *w = &p->w->layers[il];
    const text_gpu *t = p->t;
    const vector *next = il + 1 < p->n_run ? &p->w->layers[il + 1].attn_norm : NULL;
    attention_block(p, il);
    add_rmsnorm(p, t->attn_out, &w->post_attn_norm, l->moe ? NULL : &w->ffn_norm, 1);
    if (l->moe) {
        moe_gpu_ffn(p->t, p->s, il, p->x, p->n_tok);
    } else {
        const gpu_buffer delta = text_gpu_adapt_ffn(t, p->s, il, p->n_tok);
        op_matmul_geglu(p->s, &w->gate, &w->up, whole(t->norm), delta, whole(t->act), p->n_tok);
        matmul(p, &w->down, t->act, t->ffn_out);
        op_lora(p->s, lora_gpu_at(t->lora, il, LORA_INPUT_DOWN), whole(t->act), t->lora_u,
                t->ffn_out, p->n_tok);
    }
    if (p->c->n_ple == 0) {
        add_rmsnorm(p, t->ffn_out, &w->post_ffn_norm, next, w->scale);
        return;
    }
    add_rmsnorm(p, t->ffn_out, &w->post_ffn_norm, NULL, 1);
    matmul(p, &w->ple_gate, p->x, t->ple_gate);
    ple_gate(p, il);
    matmul(p, &w->ple_proj, t->ple_gate, t->ple_out);
    add_rmsnorm(p, t->ple_out, &w->ple_norm, next, w->scale);
}

void prefill_gpu_layers(text_gpu *t, kernel_steps *s, const text_input *in, uint32_t n_run) {
    const uint32_t n_tok = in->n_tok;
    text_gpu_embed(t, s, t->ids, n_tok);
    const prefill p = {
        .t = t,
        .s = s,
        .c = &t->model->config,
        .w = &t->model->weights,
        .x = t->x[t->x_at],
        .n_tok = n_tok,
        .pos = in->pos,
        .n_run = n_run,
    };
    put_soft(&p, in);
    if (p.c->n_ple > 0) ple_input(&p);
    op_rmsnorm(s, p.w->vector_buffer, &p.w->layers[0].attn_norm, p.c->rms_eps, 1, whole(p.x),
               whole(t->norm), n_tok);
    for (uint32_t il = 0; il < n_run; il++) layer(&p, il);
}

void prefill_gpu_scores(text_gpu *t, kernel_steps *s, uint32_t n_tok) {
    const model_config *c = &t->model->config;
    const model_weights *w = &t->model->weights;
    op_rmsnorm(s, w->vector_buffer, &w->output_norm, c->rms_eps, 1, whole(t->x[t->x_at]),
               whole(t->norm), n_tok);
    for (uint32_t t0 = 0; t0 < n_tok; t0 += TEXT_GPU_SCORE_ROWS) {
        const uint32_t n = min_u32(TEXT_GPU_SCORE_ROWS, n_tok - t0);
        const gpu_view norm = {.buffer = t->norm, .offset = (uint64_t)t0 * c->n_embd * 4};
        op_matmul(s, w->output, c->n_vocab, norm, whole(t->logits), n);
        op_lora(s, lora_gpu_head(t->lora), norm, t->lora_u, t->logits, n);
        const logprob_args args = {.n_vocab = c->n_vocab, .target0 = t0, .cap = c->softcap};
        kernel_run(s, &(kernel_call){
                          .kernel = &kernel_logprob,
                          .args = &args,
                          .views = {whole(t->logits), whole(t->targets), whole(t->scores)},
                          .x = n,
                      });
    }
}
