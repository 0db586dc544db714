/* text_gpu: owns the buffers of a session on the device and drives its runs: writes the inputs,
 * has prefill_gpu.c or decode_gpu.c record the network, submits, and hands out tickets to read the
 * results. Also the KV cache's coming and going: snapshots, rewinding, saving.
 *
 * Flow: gpu/upload.c before; prefill_gpu.c, decode_gpu.c, moe_gpu.c do the layers; session.c
 * after. */
#include "model/text_gpu.h"

#include "kernels.h"
#include "model/ops_gpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DECODE_CALLS  8192u /* dispatches a step at most: 256 layers of up to 28, and the head */
#define PREFILL_CALLS 16384u
#define PADDING       0 /* the token that soft tokens count as */

/* ---- memory -------------------------------------------------------------------------------- */

static uint32_t kv_row_bytes(const layer_config *c) { return c->n_kv * c->head_dim * 2; }

typedef struct widths { /* the widest of all layers */
    uint32_t q, kv, ff, stage, head;
} widths;

static widths widest(const model_config *c) {
    widths w = {0};
    for (uint32_t il = 0; il < c->n_layer; il++) {
        const layer_config *l = &c->layers[il];
        w.q = max_u32(w.q, l->n_head * l->head_dim);
        w.kv = max_u32(w.kv, l->n_kv * l->head_dim);
        w.ff = max_u32(w.ff, l->n_ff);
        w.head = max_u32(w.head, l->n_head);
        if (l->sliding && l->owns_kv) w.stage = max_u32(w.stage, kv_row_bytes(l));
    }
    return w;
}

/* Creates a buffer and counts it; with t NULL it only counts. */
typedef struct maker {
    text_gpu *t;
    uint64_t bytes;
    bool ok;
    carat_error *err;
} maker;

static void make(maker *mk, gpu_buffer *out, uint64_t bytes, gpu_usage usage, const char *label) {
    if (!bytes || !mk->ok) return;
    mk->bytes += bytes;
    if (!mk->t) return;
    gpu *g = mk->t->gpu;
    if (usage == GPU_STORAGE && bytes > g->info.max_binding)
        mk->ok = fail(mk->err, CARAT_E_MEMORY,
                      "%s needs %llu MB in one piece; %s allows %llu MB (try a smaller context)",
                      label, (unsigned long long)(bytes >> 20), g->info.name,
                      (unsigned long long)(g->info.max_binding >> 20));
    else
        *out = gpu_buffer_create(g, bytes, usage, label, mk->err);
    if (!out->id) mk->ok = false;
}

static void make_one(maker *mk, text_gpu *t, const model_config *c) {
    const uint64_t ple = (uint64_t)c->n_layer * c->n_ple * 4;
    make(mk, &t->one.inputs, ONE_PLE + ple, GPU_STORAGE | GPU_UNIFORM, "a token");
    make(mk, &t->one.ple, ple, GPU_STORAGE, "per-layer projection");
}

static bool make_one_host(text_gpu *t, carat_error *err) {
    const size_t n = ONE_PLE + 4 * (size_t)t->model->config.n_layer * t->model->config.n_ple;
    t->one.host = arena_alloc(t->memory, n, 1);
    t->one.pos = UINT32_MAX;
    return t->one.host || fail_memory(err, n, "a token's inputs");
}

static void make_inputs(maker *mk, text_gpu *t, const model_config *c, uint64_t n) {
    uint64_t ple = (uint64_t)c->n_layer * c->n_ple * 4, rope = 512 / 2 * 8;
    make(mk, &t->step, sizeof(step_uniform), GPU_UNIFORM, "step");
    make(mk, &t->ids, n * 4, GPU_STORAGE, "ids");
    make(mk, &t->last_seen, n * 4, GPU_STORAGE, "last keys");
    make(mk, &t->rope_sliding, n * rope, GPU_STORAGE, "rope");
    make(mk, &t->rope_global, n * rope, GPU_STORAGE, "rope");
    make(mk, &t->ple_token, n * ple, GPU_STORAGE, "per-layer embeddings");
    make(mk, &t->ple_proj, ple_buffer_bytes(t->model, (uint32_t)n), GPU_STORAGE,
         "per-layer projections");
    make(mk, &t->targets, n * 4, GPU_STORAGE, "targets");
}

static void make_adapted(maker *mk, text_gpu *t, uint64_t n) {
    make(mk, &t->lora_u, n * lora_gpu_inner(t->lora) * 4, GPU_STORAGE, "adapters");
    make(mk, &t->lora_delta, n * lora_gpu_delta(t->lora) * 4, GPU_STORAGE, "adapted gates");
}

static void make_values(maker *mk, text_gpu *t, const model_config *c, uint64_t n) {
    widths w = widest(c);
    uint64_t embd = n * c->n_embd * 4, split = (uint64_t)TEXT_GPU_MAX_SPLIT * w.q * 4;
    uint64_t attn = n * w.q * 4;
    make(mk, &t->x[0], embd, GPU_STORAGE, "residual stream");
    make(mk, &t->x[1], embd, GPU_STORAGE, "residual stream");
    make(mk, &t->norm, embd, GPU_STORAGE, "normed stream");
    t->h = (gpu_view){.offset = round_up((w.q + 2ull * w.kv) * 4, 256), .size = c->n_embd * 4ull};
    make(mk, &t->qkv, t->h.offset + t->h.size, GPU_STORAGE, "qkv");
    t->h.buffer = t->qkv;
    make(mk, &t->q, n * w.q * 4, GPU_STORAGE, "q");
    make(mk, &t->k, n * w.kv * 4, GPU_STORAGE, "k");
    make(mk, &t->v, n * w.kv * 4, GPU_STORAGE, "v");
    make(mk, &t->attn, attn > split ? attn : split, GPU_STORAGE, "attention");
    make(mk, &t->attn_stat, TEXT_GPU_MAX_SPLIT * w.head * 8ull, GPU_STORAGE, "attention sums");
    make(mk, &t->attn_out, embd, GPU_STORAGE, "attention output");
    make(mk, &t->act, n * w.ff * 4, GPU_STORAGE, "feed-forward");
    make(mk, &t->ffn_out, embd, GPU_STORAGE, "feed-forward output");
    make(mk, &t->ple_gate, n * c->n_ple * 4, GPU_STORAGE, "per-layer gate");
    make(mk, &t->ple_out, c->n_ple ? embd : 0, GPU_STORAGE, "per-layer output");
    make(mk, &t->logits, (uint64_t)TEXT_GPU_SCORE_ROWS * c->n_vocab * 4, GPU_STORAGE, "logits");
    make(mk, &t->topk, 16 + 8 * TEXT_GPU_LISTED, GPU_STORAGE, "candidates");
    make(mk, &t->topk_work, (TEXT_GPU_BINS + div_up(c->n_vocab, 4096)) * 4ull, GPU_STORAGE,
         "histogram");
    make(mk, &t->scores, n * 4, GPU_STORAGE, "scores");
    const bool software = t->gpu && t->gpu->info.software;
    if (!software && n > 1) make(mk, &t->parts, PARTS_MOST * 4ull, GPU_STORAGE, "parts of sums");
    make_adapted(mk, t, n);
}

/* The layer whose sliding K and V the shared layers read; n_layer: none. */
static uint32_t sliding_donor(const model_config *c) {
    for (uint32_t il = c->n_owner; il < c->n_layer; il++)
        if (c->layers[il].sliding) return c->layers[il].donor;
    return c->n_layer;
}

static void make_kv(maker *mk, text_gpu *t, const model_config *c, uint32_t n_ctx, bool sliding) {
    for (uint32_t il = 0; il < c->n_owner; il++) {
        const layer_config *l = &c->layers[il];
        if (l->sliding != sliding) continue;
        kv_gpu *kv = &t->kv[il];
        *kv = (kv_gpu){.n_slot = sliding ? l->window : n_ctx, .row_bytes = kv_row_bytes(l)};
        uint64_t bytes = (uint64_t)kv->n_slot * kv->row_bytes;
        make(mk, &kv->k, bytes, GPU_STORAGE, "the K cache of a layer");
        make(mk, &kv->v, bytes, GPU_STORAGE, "the V cache of a layer");
    }
}

static void make_stages(maker *mk, text_gpu *t, const model_config *c, uint64_t n) {
    uint64_t stage = (c->window + n) * widest(c).stage;
    for (int i = 0; i < 2; i++) {
        if (i == 1 && sliding_donor(c) == c->n_layer) continue;
        make(mk, &t->stage_k[i], stage, GPU_STORAGE, "staged keys");
        make(mk, &t->stage_v[i], stage, GPU_STORAGE, "staged values");
    }
}

void text_gpu_memory(const model *m, uint64_t *kv_fixed, uint64_t *kv_token, uint64_t *scratch) {
    text_gpu none = {.model = m};
    maker fixed = {.ok = true}, token = {.ok = true}, rest = {.ok = true};
    make_kv(&fixed, &none, &m->config, TEXT_GPU_CHUNK, true);
    make_stages(&fixed, &none, &m->config, TEXT_GPU_CHUNK);
    make_kv(&token, &none, &m->config, 1, false);
    make_one(&rest, &none, &m->config);
    make_inputs(&rest, &none, &m->config, TEXT_GPU_CHUNK);
    make_values(&rest, &none, &m->config, TEXT_GPU_CHUNK);
    *kv_fixed = fixed.bytes;
    *kv_token = token.bytes;
    *scratch = rest.bytes + moe_gpu_bytes(&m->config, TEXT_GPU_CHUNK);
}

/* What the kernels cannot do, said before anything is allocated. */
static bool check_model(const model *m, const gpu *g, carat_error *err) {
    if (m->config.n_embd % 64)
        return fail(err, CARAT_E_UNSUPPORTED,
                    "a width of %u; the GPU kernels take multiples of 64 (the CPU takes any of 16)",
                    m->config.n_embd);
    for (uint32_t il = 0; il < m->config.n_layer; il++) {
        const layer_config *c = &m->config.layers[il];
        const layer_weights *w = &m->weights.layers[il];
        if (c->head_dim < 32 || c->head_dim > 512 || (c->head_dim & (c->head_dim - 1)))
            return fail(err, CARAT_E_UNSUPPORTED,
                        "layer %u has a head dimension of %u; the GPU kernels take powers of two "
                        "from 32 to 512 (the CPU takes any)",
                        il, c->head_dim);
        if (c->n_head > 256)
            return fail(err, CARAT_E_UNSUPPORTED,
                        "layer %u has %u heads; the GPU kernels take at most 256 (the CPU takes "
                        "any)",
                        il, c->n_head);
        if (c->n_head * c->head_dim % 64 || c->n_kv * c->head_dim % 32)
            return fail(err, CARAT_E_UNSUPPORTED,
                        "layer %u has %u heads of %u values, %u for keys; the GPU kernels take "
                        "multiples of 64 and 32 values",
                        il, c->n_head, c->head_dim, c->n_kv);
        if (!c->moe && c->n_ff % 64)
            return fail(err, CARAT_E_UNSUPPORTED,
                        "layer %u has a feed-forward width of %u; the GPU kernels take multiples "
                        "of 64 (the CPU takes any of 16)",
                        il, c->n_ff);
        if (w->k.n_tile > 1 || w->v.n_tile > 1 || w->ple_gate.n_tile > 1 ||
            w->gate.n_tile != w->up.n_tile)
            return fail(err, CARAT_E_UNSUPPORTED,
                        "layer %u is too large for %s, which binds %llu MB at a time", il,
                        g->info.name, (unsigned long long)(g->info.max_binding >> 20));
    }
    return true;
}

/* Everything whose size is that of a chunk of n tokens. */
static bool make_chunk(text_gpu *t, uint32_t n, carat_error *err) {
    const model_config *c = &t->model->config;
    t->n_chunk = n;
    t->rope_host = arena_alloc(t->memory, n, 512 * sizeof(float));
    t->ids_host = arena_alloc(t->memory, n, sizeof *t->ids_host);
    if (!t->rope_host || !t->ids_host)
        return fail_memory(err, n * 513 * sizeof(float), "a session's inputs");
    if (!ple_host_create(t->memory, t->model, n, &t->ple, err)) return false;
    maker mk = {.t = t, .ok = true, .err = err};
    make_stages(&mk, t, c, n);
    make_inputs(&mk, t, c, n);
    make_values(&mk, t, c, n);
    return mk.ok && (!c->n_expert || moe_gpu_create(t, err));
}

bool text_gpu_create(const model *m, gpu *g, kernel_cache *cache, uint32_t n_ctx, text_gpu **out,
                     carat_error *err) {
    *out = NULL;
    if (!check_model(m, g, err)) return false;
    arena *memory = arena_create(err);
    text_gpu *t = memory ? arena_alloc(memory, 1, sizeof *t) : NULL;
    if (!t) {
        arena_free(memory);
        return fail_memory(err, sizeof *t, "a session on the GPU");
    }
    *t = (text_gpu){.model = m, .gpu = g, .cache = cache, .n_ctx = n_ctx, .memory = memory};
    maker mk = {.t = t, .ok = true, .err = err};
    make_kv(&mk, t, &m->config, n_ctx, true);
    make_kv(&mk, t, &m->config, n_ctx, false);
    make_one(&mk, t, &m->config);
    mk.ok = mk.ok && make_one_host(t, err) && make_chunk(t, min_u32(TEXT_GPU_CHUNK, n_ctx), err) &&
            (t->decode = kernel_steps_create(cache, DECODE_CALLS, err)) &&
            (t->prefill = kernel_steps_create(cache, PREFILL_CALLS, err));
    if (!mk.ok) {
        text_gpu_free(t);
        return false;
    }
    *out = t;
    return true;
}

#define CHUNK_BUFFERS 33u

typedef struct buffer_list {
    gpu_buffer *at[CHUNK_BUFFERS];
} buffer_list;

static buffer_list chunk_buffers(text_gpu *t) {
    return (buffer_list){{&t->step,        &t->ids,        &t->last_seen,  &t->rope_sliding,
                          &t->rope_global, &t->ple_token,  &t->ple_proj,   &t->targets,
                          &t->x[0],        &t->x[1],       &t->norm,       &t->qkv,
                          &t->q,           &t->k,          &t->v,          &t->attn,
                          &t->attn_stat,   &t->attn_out,   &t->act,        &t->ffn_out,
                          &t->ple_gate,    &t->ple_out,    &t->logits,     &t->topk,
                          &t->topk_work,   &t->scores,     &t->stage_k[0], &t->stage_k[1],
                          &t->stage_v[0],  &t->stage_v[1], &t->lora_u,     &t->lora_delta,
                          &t->parts}};
}

static void free_chunk(text_gpu *t) {
    const buffer_list all = chunk_buffers(t);
    for (size_t i = 0; i < CHUNK_BUFFERS; i++) gpu_buffer_free(t->gpu, *all.at[i]);
    if (t->moe) moe_gpu_free(t);
}

/* Room for runs of n tokens; on failure there is the room that there was. */
static bool reserve(text_gpu *t, uint32_t n, carat_error *err) {
    if (n <= t->n_chunk) return true;
    text_gpu larger = *t;
    const buffer_list all = chunk_buffers(&larger);
    for (size_t i = 0; i < CHUNK_BUFFERS; i++) *all.at[i] = (gpu_buffer){0};
    larger.moe = NULL;
    if (!make_chunk(&larger, (uint32_t)round_up(n, 64), err)) {
        free_chunk(&larger);
        return false;
    }
    kernel_steps_forget(t->decode);
    kernel_steps_forget(t->prefill);
    free_chunk(t);
    *t = larger;
    return true;
}

bool text_gpu_adapt(text_gpu *t, const lora_gpu *adapters, carat_error *err) {
    maker mk = {.t = t, .ok = true, .err = err};
    kernel_steps_forget(t->decode);
    kernel_steps_forget(t->prefill);
    gpu_buffer_free(t->gpu, t->lora_u);
    gpu_buffer_free(t->gpu, t->lora_delta);
    t->lora_u = t->lora_delta = (gpu_buffer){0};
    t->lora = adapters;
    make_adapted(&mk, t, t->n_chunk);
    /* Behind one token's packed values in t->act is what makes u of the down rows (decode_ffn):
     * a part of each rank for every 16 values. */
    mk.ok = mk.ok && reserve(t, lora_gpu_down(adapters) / 16 + 2, err);
    if (!mk.ok) t->lora = NULL;
    return mk.ok;
}

void text_gpu_free(text_gpu *t) {
    if (!t) return;
    kernel_steps_free(t->decode);
    kernel_steps_free(t->prefill);
    free_chunk(t);
    gpu_buffer_free(t->gpu, t->one.inputs);
    gpu_buffer_free(t->gpu, t->one.ple);
    for (uint32_t il = 0; il < t->model->config.n_owner; il++) {
        gpu_buffer_free(t->gpu, t->kv[il].k);
        gpu_buffer_free(t->gpu, t->kv[il].v);
    }
    arena_free(t->memory);
}

/* ---- inputs -------------------------------------------------------------------------------- */

static void write_rope(text_gpu *t, bool sliding, uint32_t pos, uint32_t n_tok, gpu_buffer to) {
    const model_config *c = &t->model->config;
    uint32_t il = 0;
    while (il < c->n_layer && c->layers[il].sliding != sliding) il++;
    if (il == c->n_layer || !c->layers[il].n_rot) return;
    model_rope_rows(t->model, sliding, pos, n_tok, t->rope_host);
    gpu_write(t->gpu, to, 0, t->rope_host, (size_t)n_tok * c->layers[il].n_rot * 8);
}

/* What depends on the position alone: also before the token is known, while the device works. */
static void place_one(text_gpu *t, uint32_t pos) {
    one_token *one = &t->one;
    if (one->pos == pos) return;
    one->pos = pos;
    memcpy(one->host + ONE_STEP, &(step_uniform){.pos = pos, .n_tok = 1}, sizeof(step_uniform));
    model_rope_rows(t->model, true, pos, 1, (float *)(void *)(one->host + ONE_ROPE));
    model_rope_rows(t->model, false, pos, 1, (float *)(void *)(one->host + ONE_ROPE_GLOBAL));
}

static bool write_one(text_gpu *t, int32_t id, uint32_t pos, carat_error *err) {
    const uint32_t width = t->model->config.n_layer * t->model->config.n_ple;
    uint8_t *host = t->one.host;
    place_one(t, pos);
    memcpy(host, &id, sizeof id);
    if (width && !model_ple_row(t->model, id, width, (float *)(void *)(host + ONE_PLE), err))
        return false;
    gpu_write(t->gpu, t->one.inputs, 0, host, ONE_PLE + 4 * (size_t)width);
    return true;
}

/* The span that position pos is in; NULL: there is a token. */
static const soft_span *span_at(const text_input *in, uint32_t pos) {
    for (uint32_t i = 0; i < in->n_span; i++)
        if (pos >= in->spans[i].pos && pos - in->spans[i].pos < in->spans[i].n)
            return &in->spans[i];
    return NULL;
}

/* Ids of the run, and the last key that each token sees. */
static void write_ids(text_gpu *t, const text_input *in) {
    uint32_t *last = (uint32_t *)(void *)t->rope_host; /* not in use yet */
    t->pictures = false;
    for (uint32_t i = 0; i < in->n_tok; i++) {
        const soft_span *s = in->n_span ? span_at(in, in->pos + i) : NULL;
        t->ids_host[i] = s ? PADDING : in->tokens[i];
        last[i] = s && s->picture ? s->pos + s->n - 1 - in->pos : i;
        t->pictures |= s && s->picture && t->model->config.vision_bidirectional;
    }
    gpu_write(t->gpu, t->ids, 0, t->ids_host, (size_t)in->n_tok * 4);
    if (t->pictures) gpu_write(t->gpu, t->last_seen, 0, last, (size_t)in->n_tok * 4);
}

static bool write_chunk(text_gpu *t, const text_input *in, uint32_t n_run, carat_error *err) {
    step_uniform step = {.pos = in->pos, .n_tok = in->n_tok};
    gpu_write(t->gpu, t->step, 0, &step, sizeof step);
    write_ids(t, in);
    write_rope(t, true, in->pos, in->n_tok, t->rope_sliding);
    write_rope(t, false, in->pos, in->n_tok, t->rope_global);
    return ple_rows_write(&t->ple, t->gpu, t->model, t->ids_host, in->n_tok, n_run, t->ple_proj,
                          err);
}

void text_gpu_embed(text_gpu *t, kernel_steps *s, gpu_buffer ids, uint32_t n_tok) {
    const weight *w = &t->model->weights.embed;
    t->x_at = 0;
    op_embed(s, w, sqrtf((float)w->n_col), whole(ids), whole(t->x[0]), n_tok);
    op_lora_embed(s, lora_gpu_embed(t->lora), sqrtf((float)w->n_col), ids, t->x[0], n_tok);
}

gpu_buffer text_gpu_adapt_ffn(const text_gpu *t, kernel_steps *s, uint32_t il, uint32_t n_tok) {
    const lora_group *g = lora_gpu_at(t->lora, il, LORA_INPUT_FFN);
    if (!g) return (gpu_buffer){0};
    op_lora_down(s, g, (gpu_view){.buffer = t->norm}, t->lora_u, n_tok);
    op_lora_up(s, g, 0, g->n_row, t->lora_u, t->lora_delta, n_tok, false);
    return t->lora_delta;
}

/* ---- runs ---------------------------------------------------------------------------------- */

/* Whether a picture whose tokens see each other begins before `pos` and ends after it. */
static bool cuts_picture(const text_gpu *t, const text_input *in, uint32_t pos) {
    const soft_span *s = t->model->config.vision_bidirectional ? span_at(in, pos) : NULL;
    return s && s->picture && pos > s->pos;
}

static bool check_run(const text_gpu *t, const text_input *in, carat_error *err) {
    const uint32_t n_tok = in->n_tok, pos = in->pos;
    if (!n_tok || pos > t->n_ctx || n_tok > t->n_ctx - pos)
        return fail(err, CARAT_E_CONTEXT, "%u tokens at position %u; the context holds %u", n_tok,
                    pos, t->n_ctx);
    if (in->n_span && (cuts_picture(t, in, pos) || cuts_picture(t, in, pos + n_tok)))
        return fail(err, CARAT_E_ARGUMENT, "text: the soft tokens of a picture must come at once");
    for (uint32_t i = 0; i < n_tok; i++) {
        const soft_span *s = in->n_span ? span_at(in, pos + i) : NULL;
        if (s && !s->device.id)
            return fail(err, CARAT_E_ARGUMENT, "text: soft tokens that are not on the device");
        if (!s && (in->tokens[i] < 0 || (uint32_t)in->tokens[i] >= t->model->config.n_vocab))
            return fail(err, CARAT_E_ARGUMENT, "token %d is not in the vocabulary of %u",
                        in->tokens[i], t->model->config.n_vocab);
    }
    return true;
}

static bool run_decode(text_gpu *t, bool head, uint32_t pos, carat_error *err) {
    kernel_steps *s = t->decode;
    kernel_begin(s);
    decode_gpu_inputs(t, s);
    decode_gpu_layers(t, s, 0, pos);
    if (head) decode_gpu_head(t, s);
    return kernel_end(s, err) && (head || gpu_submit(t->gpu, err));
}

/* The layers that own KV for all tokens, the others for the last one, which they leave behind. */
static bool run_prefill(text_gpu *t, const text_input *in, bool head, carat_error *err) {
    const model_config *c = &t->model->config;
    kernel_steps *s = t->prefill;
    kernel_begin(s);
    if (head) decode_gpu_inputs(t, s);
    prefill_gpu_layers(t, s, in, c->n_owner);
    if (head) {
        uint64_t row = (uint64_t)c->n_embd * 4;
        gpu_copy(t->gpu, t->x[1 - t->x_at], 0, t->x[t->x_at], row * (in->n_tok - 1), row);
        t->x_at = 1 - t->x_at;
        decode_gpu_layers(t, s, c->n_owner, in->pos + in->n_tok - 1);
        decode_gpu_head(t, s);
    }
    return kernel_end(s, err) && (head || gpu_submit(t->gpu, err));
}

bool text_gpu_run_soft(text_gpu *t, const text_input *in, bool head, carat_error *err) {
    if (!check_run(t, in, err)) return false;
    const uint32_t last = in->n_tok - 1;
    const bool soft_end = span_at(in, in->pos + last) != NULL, one = in->n_tok == 1 && !soft_end;
    if (head && soft_end)
        return fail(err, CARAT_E_ARGUMENT, "text: nothing follows the soft tokens of a picture");
    if (!reserve(t, in->n_tok, err)) return false;
    if ((head || one) && !write_one(t, in->tokens[last], in->pos + last, err)) return false;
    const bool ok =
        one ? run_decode(t, head, in->pos, err)
            : write_chunk(t, in, t->model->config.n_owner, err) && run_prefill(t, in, head, err);
    if (ok && head) place_one(t, in->pos + in->n_tok);
    return ok;
}

bool text_gpu_run(text_gpu *t, const int32_t *ids, uint32_t n_tok, uint32_t pos, bool head,
                  carat_error *err) {
    return text_gpu_run_soft(t, &(text_input){.tokens = ids, .n_tok = n_tok, .pos = pos}, head,
                             err);
}

bool text_gpu_score(text_gpu *t, const int32_t *ids, const int32_t *targets, uint32_t n_tok,
                    uint32_t pos, carat_error *err) {
    uint32_t n_layer = t->model->config.n_layer;
    const text_input in = {.tokens = ids, .n_tok = n_tok, .pos = pos};
    if (!check_run(t, &in, err) || !reserve(t, n_tok, err)) return false;
    if (!write_chunk(t, &in, n_layer, err)) return false;
    gpu_write(t->gpu, t->targets, 0, targets, (size_t)n_tok * 4);
    kernel_begin(t->prefill);
    prefill_gpu_layers(t, t->prefill, &in, n_layer);
    prefill_gpu_scores(t, t->prefill, n_tok);
    return kernel_end(t->prefill, err) && gpu_submit(t->gpu, err);
}

/* ---- results ------------------------------------------------------------------------------- */

size_t text_gpu_read_bytes(const text_gpu *t, bool all) {
    return all ? (size_t)t->model->config.n_vocab * 4 : 16 + 8 * (size_t)TEXT_GPU_LISTED;
}

gpu_ticket text_gpu_read(text_gpu *t, bool all, carat_error *err) {
    return gpu_read(t->gpu, all ? t->logits : t->topk, 0, text_gpu_read_bytes(t, all), err);
}

gpu_ticket text_gpu_read_scores(text_gpu *t, uint32_t n_tok, carat_error *err) {
    return gpu_read(t->gpu, t->scores, 0, (size_t)n_tok * 4, err);
}

/* A number that is the smaller, the better the candidate; and back. */
static uint64_t key_of(candidate c) {
    const float logit = c.logit + 0.0f; /* no -0 */
    uint32_t bits;
    memcpy(&bits, &logit, sizeof bits);
    bits ^= bits >> 31 ? UINT32_MAX : 0x80000000u; /* in the order of the floats */
    return (uint64_t)~bits << 32 | (uint32_t)c.id;
}

static candidate of_key(uint64_t key) {
    uint32_t bits = ~(uint32_t)(key >> 32);
    bits ^= bits >> 31 ? 0x80000000u : UINT32_MAX;
    candidate c = {.id = (int32_t)(uint32_t)key};
    memcpy(&c.logit, &bits, sizeof bits);
    return c;
}

/* Best first, by the bytes of the keys, the lowest ones first. Between two tokens the device waits
 * for it, and whatever compares takes three times as long, qsort() ten times. */
static void sort_candidates(candidate *c, uint32_t n) {
    uint64_t keys[2][TEXT_GPU_LISTED];
    for (uint32_t i = 0; i < n; i++) keys[0][i] = key_of(c[i]);
    for (uint32_t byte = 0; byte < 8; byte++) {
        const uint64_t *from = keys[byte % 2];
        uint64_t *to = keys[1 - byte % 2];
        uint32_t begin[257] = {0}; /* of the keys with that byte */
        for (uint32_t i = 0; i < n; i++) begin[(from[i] >> 8 * byte & 255) + 1]++;
        for (uint32_t i = 0; i < 256; i++) begin[i + 1] += begin[i];
        for (uint32_t i = 0; i < n; i++) to[begin[from[i] >> 8 * byte & 255]++] = from[i];
    }
    for (uint32_t i = 0; i < n; i++) c[i] = of_key(keys[0][i]);
}

uint32_t text_gpu_candidates(const text_gpu *t, const void *bytes, candidate *out, float *lse) {
    uint32_t head[4];
    memcpy(head, bytes, sizeof head);
    memcpy(lse, &head[1], sizeof *lse);
    if (!isfinite(*lse) || head[0] > TEXT_GPU_LISTED ||
        head[0] < min_u32(TEXT_GPU_CANDIDATES, t->model->config.n_vocab))
        return 0;
    memcpy(out, (const char *)bytes + sizeof head, head[0] * sizeof *out);
    sort_candidates(out, head[0]);
    return min_u32(head[0], TEXT_GPU_CANDIDATES);
}

/* ---- the KV cache's coming and going ------------------------------------------------------- */

/* Bytes of K or of V of layer il's ring; 0 for a global layer. */
static uint64_t ring_bytes(const text_gpu *t, uint32_t il) {
    if (!t->model->config.layers[il].sliding) return 0;
    return (uint64_t)t->kv[il].n_slot * t->kv[il].row_bytes;
}

static uint64_t rings_bytes(const text_gpu *t) {
    uint64_t n = 0;
    for (uint32_t il = 0; il < t->model->config.n_owner; il++) n += 2 * ring_bytes(t, il);
    return n;
}

/* Copies the rings into a snapshot (save) or back. */
static void copy_rings(text_gpu *t, gpu_buffer snapshot, bool save) {
    uint64_t at = 0;
    for (uint32_t il = 0; il < t->model->config.n_owner; il++) {
        const gpu_buffer own[2] = {t->kv[il].k, t->kv[il].v};
        uint64_t n = ring_bytes(t, il);
        for (int i = 0; n && i < 2; i++, at += n) {
            if (save)
                gpu_copy(t->gpu, snapshot, at, own[i], 0, n);
            else
                gpu_copy(t->gpu, own[i], 0, snapshot, at, n);
        }
    }
}

bool text_gpu_snapshot(text_gpu *t, uint32_t pos, kv_snapshot *out, carat_error *err) {
    if (!out->buffer.id)
        out->buffer = gpu_buffer_create(t->gpu, rings_bytes(t) + 4, GPU_STORAGE, "snapshot", err);
    if (!out->buffer.id) return false;
    out->pos = pos;
    copy_rings(t, out->buffer, true);
    return gpu_submit(t->gpu, err);
}

void text_gpu_rewind(text_gpu *t, const kv_snapshot *snapshot) {
    copy_rings(t, snapshot->buffer, false);
}

bool text_gpu_can_rewind(const text_gpu *t, uint32_t length, uint32_t pos) {
    uint32_t window = t->model->config.window;
    return !rings_bytes(t) || length <= window || length <= pos + 1;
}

uint32_t text_gpu_kv_pieces(const text_gpu *t, uint32_t n, kv_piece *out) {
    uint32_t count = 0;
    for (uint32_t il = 0; il < t->model->config.n_owner; il++) {
        const kv_gpu *kv = &t->kv[il];
        uint64_t size = (uint64_t)min_u32(n, kv->n_slot) * kv->row_bytes;
        out[count++] = (kv_piece){kv->k, size};
        out[count++] = (kv_piece){kv->v, size};
    }
    return count;
}
