/* decode_gpu: one token through the network, in at most 7 dispatches a dense layer:
 *   1 decode_qkv   residual update of the layer before, attention norm, q, k, v rows
 *   2 decode_attn  norms, RoPE, KV store, attention split over the keys (decode_merge when many)
 *   3 decode_out   merge of the splits, output rows
 *   4 decode_ffn   residual update, ffn norm, gate and up rows, GeGLU (MoE: moe_gpu.c)
 *   5 matvec_packed  down rows
 *   6 decode_ple   residual update, per-layer embedding gate
 *   7 matvec       its projection
 * Adapters in use (lora_gpu.h) take two or three more. Their u = A x is made by lora_stream before
 * 1 and 4 and by further workgroups of 3 and 5. B u is added by 2 and 4 themselves; to an update it
 * is added by lora_settle, which is a lora_stream too, or by lora_up where none comes next.
 * Each stage that needs the residual stream adds the pending update itself (kernels/lib/stream), so
 * that an update costs no dispatch. The step goes to the device in four submits, so that it starts
 * while the rest is recorded (docs/speed.md). Reads beside text_cpu.c: same stages, same order.
 *
 * Flow: text_gpu.c before; the candidates go to token/sampler.c. */
#include "model/ops_gpu.h"
#include "model/text_gpu.h"

#include "kernels.h"

#include <math.h>

#define MAX_SPLIT   TEXT_GPU_MAX_SPLIT
#define MERGE_FROM  5u    /* splits from which decode_merge is cheaper than decode_out */
#define SPLIT_KEYS  128u  /* keys a split, while there are splits enough */
#define MAX_GROUPS  1056u /* workgroups that share rows evenly among themselves */
#define FEW_GROUPS  4u    /* the same on a GPU in software, which takes 1 to 3 ms to start one */
#define MAX_LANES   128u
#define WANT_GROUPS 256u  /* workgroups that keep a device busy */
#define INPUT_REST  6400u /* bytes of workgroup memory beside the input (lib/reduce4, lib/lanes) */
#define NONE        UINT32_MAX

/* The residual stream as the next stage finds it: h = (base + rms(update) * w_post) * scale. */
typedef struct stream {
    gpu_buffer update;
    uint32_t w_post; /* NONE: no update pending */
    float scale;
    const lora_group *added; /* what the update lacks: B u of these adapters; NULL: nothing */
} stream;

/* How a matrix is shared out: LANES threads take a row, at most INPUT values at a time, of which
 * each has TURNS chunks of 64. */
typedef struct shape {
    gpu_constant constants[3];
    uint32_t rows; /* of a workgroup */
} shape;

/* Few threads a row (at most `most`) make the best use of memory, but many are needed to keep the
 * device busy when there are few rows. */
static shape shape_for(const text_gpu *t, uint32_t n_row, uint32_t n_col, uint32_t most) {
    uint32_t lanes = 8, room = t->gpu->info.max_workgroup_bytes - INPUT_REST;
    while (lanes < most && lanes * 64 < n_col && n_row * lanes / 256 < WANT_GROUPS) lanes *= 2;
    uint32_t input = min_u32(room * 2 / 5, n_col + 63) / 64 * 64; /* 2.5 bytes a value */
    if (input < n_col) input = input / 256 * 256;                 /* whole blocks */
    const uint32_t turns = div_up(min_u32(n_col, input), 64 * lanes);
    return (shape){{{"LANES", lanes}, {"INPUT", input}, {"TURNS", turns}}, 256 / lanes};
}

/* The stage that writes h into the other x has taken the update. */
static void stream_taken(text_gpu *t, stream *st) {
    t->x_at = 1 - t->x_at;
    *st = (stream){.update = t->attn_out, .w_post = NONE, .scale = 1};
}

static gpu_view one_view(const text_gpu *t, uint64_t offset, uint64_t size) {
    return (gpu_view){.buffer = t->one.inputs, .offset = offset, .size = size};
}

/* How many workgroups share that many blocks of rows. */
static uint32_t shared_by(const text_gpu *t, uint32_t n_block) {
    return min_u32(n_block, t->gpu->info.software ? FEW_GROUPS : MAX_GROUPS);
}

static void run_matvec(text_gpu *t, kernel_steps *s, const weight *w, gpu_buffer in,
                       gpu_buffer out) {
    const bool plain = w->n_col % 64 != 0;
    const shape sh = shape_for(t, w->n_row, w->n_col, MAX_LANES);
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *tile = &w->tiles[i];
        const uint32_t groups = div_up(tile->n_row, sh.rows);
        matvec_args args = {
            .n_row = tile->n_row, .n_col = w->n_col, .out0 = tile->row0, .scale = w->scale};
        kernel_run(s, &(kernel_call){.kernel = plain ? &kernel_matvec_plain : &kernel_matvec,
                                     .formats = {w->type},
                                     .constants = sh.constants,
                                     .n_constant = plain ? 1 : 3,
                                     .args = &args,
                                     .views = {whole(in), whole(tile->buffer), whole(out)},
                                     .x = plain ? groups : shared_by(t, groups)});
    }
}

/* ---- adapters ----------------------------------------------------------------------------- */

/* Workgroups of so many pairs of rows that make u. */
static uint32_t lora_groups(const lora_group *g, uint32_t pairs) {
    return g ? div_up(g->n_rank / 2, pairs) : 0;
}

/* Adds to the pending update what it lacks, for a stage that has no adapters of its own. */
static void complete_update(kernel_steps *s, stream *st) {
    if (st->added)
        op_lora_up(s, st->added, 0, st->added->n_row, st->added->buffer, st->update, 1, true);
    st->added = NULL;
}

/* complete_update(), settle and u of group g in one. */
static void run_lora_settle(text_gpu *t, kernel_steps *s, const lora_group *g, stream *st,
                            const vector *w_norm) {
    const lora_settle_args args = {.n_embd = g->n_col,
                                   .n_col = g->n_col,
                                   .n_rank = g->n_rank,
                                   .a0 = g->a0 / 2,
                                   .eps = t->model->config.rms_eps,
                                   .scale = st->scale,
                                   .w_post = st->w_post,
                                   .w_norm = w_norm->offset,
                                   .rank = st->added->rank,
                                   .b0 = st->added->b0};
    kernel_run(s, &(kernel_call){.kernel = &kernel_lora_settle,
                                 .constants = &(gpu_constant){"N_EMBD", g->n_col},
                                 .n_constant = 1,
                                 .args = &args,
                                 .views = {whole(t->x[t->x_at]), whole(st->update),
                                           whole(t->model->weights.vector_buffer),
                                           whole(st->added->buffer), whole(g->buffer),
                                           whole(t->x[1 - t->x_at])},
                                 .x = lora_groups(g, 2)});
    stream_taken(t, st);
}

/* Before a stage that norms the stream by w_norm: u of its adapters, g. */
static void run_lora_stream(text_gpu *t, kernel_steps *s, const lora_group *g, stream *st,
                            const vector *w_norm) {
    const uint32_t room = t->gpu->info.max_workgroup_bytes - INPUT_REST;
    if (g && st->added && 4 * g->n_col <= room) {
        run_lora_settle(t, s, g, st, w_norm);
        return;
    }
    complete_update(s, st);
    if (!g) return;
    const lora_stream_args args = {.n_embd = g->n_col,
                                   .n_col = g->n_col,
                                   .n_rank = g->n_rank,
                                   .a0 = g->a0 / 2,
                                   .eps = t->model->config.rms_eps,
                                   .scale = st->scale,
                                   .w_post = st->w_post,
                                   .w_norm = w_norm->offset};
    kernel_run(s,
               &(kernel_call){.kernel = &kernel_lora_stream,
                              .args = &args,
                              .views = {whole(t->x[t->x_at]), whole(st->update),
                                        whole(t->model->weights.vector_buffer), whole(g->buffer)},
                              .x = lora_groups(g, 2)});
}

/* ---- attention ----------------------------------------------------------------------------- */

static void run_qkv(text_gpu *t, kernel_steps *s, uint32_t il, stream *st) {
    const layer_config *c = &t->model->config.layers[il];
    const layer_weights *w = &t->model->weights.layers[il];
    const weight *k = c->owns_kv ? &w->k : &w->q, *v = c->owns_kv && !c->k_eq_v ? &w->v : k;
    uint32_t n_k = c->owns_kv ? w->k.n_row : 0, n_v = c->owns_kv && !c->k_eq_v ? w->v.n_row : 0;
    const shape sh = shape_for(t, w->q.n_row + n_k + n_v, w->q.n_col, MAX_LANES);
    run_lora_stream(t, s, lora_gpu_at(t->lora, il, LORA_INPUT_QKV), st, &w->attn_norm);
    for (uint32_t i = 0; i < w->q.n_tile; i++) {
        bool last = i + 1 == w->q.n_tile; /* k and v go with the last tile of q */
        const weight_tile *q = &w->q.tiles[i];
        decode_qkv_args args = {.n_embd = w->q.n_col,
                                .n_q = q->n_row,
                                .n_k = last ? n_k : 0,
                                .n_v = last ? n_v : 0,
                                .eps = t->model->config.rms_eps,
                                .scale = st->scale,
                                .w_post = st->w_post,
                                .w_norm = w->attn_norm.offset,
                                .q0 = q->row0,
                                .scale_q = w->q.scale,
                                .scale_k = k->scale,
                                .scale_v = v->scale};
        uint32_t n_row = args.n_q + args.n_k + args.n_v;
        kernel_run(
            s, &(kernel_call){.kernel = &kernel_decode_qkv,
                              .formats = {w->q.type, k->type, v->type},
                              .constants = sh.constants,
                              .n_constant = 3,
                              .args = &args,
                              .views = {whole(t->x[t->x_at]), whole(st->update),
                                        whole(t->model->weights.vector_buffer), whole(q->buffer),
                                        whole(k->tiles[0].buffer), whole(v->tiles[0].buffer),
                                        whole(t->x[1 - t->x_at]), whole(t->qkv)},
                              .x = n_row / sh.rows});
    }
    stream_taken(t, st);
}

static uint32_t split_count(const layer_config *c, uint32_t pos) {
    uint32_t n_key = pos + 1;
    if (c->window) n_key = min_u32(n_key, c->window);
    return min_u32(div_up(n_key, SPLIT_KEYS), MAX_SPLIT);
}

/* Returns how many splits decode_out finds; 0: they are merged. */
static uint32_t run_attention(text_gpu *t, kernel_steps *s, uint32_t il, uint32_t pos) {
    const layer_config *c = &t->model->config.layers[il];
    const layer_weights *w = &t->model->weights.layers[il];
    const kv_gpu *kv = &t->kv[c->donor];
    const lora_group *added = lora_gpu_at(t->lora, il, LORA_INPUT_QKV);
    const gpu_constant constants[] = {{"HEAD_DIM", c->head_dim}, {"ADAPTED", added != NULL}};
    uint32_t n_split = split_count(c, pos);
    decode_attn_args args = {.n_head = c->n_head,
                             .n_kv = c->n_kv,
                             .n_rot = c->n_rot,
                             .window = c->window,
                             .n_slot = kv->n_slot,
                             .owner = c->owns_kv,
                             .k_eq_v = c->k_eq_v,
                             .w_q = w->q_norm.offset,
                             .w_k = w->k_norm.offset,
                             .eps = t->model->config.rms_eps,
                             .n_split = n_split,
                             .rank = added ? added->rank : 0,
                             .b0 = added ? added->b0 : 0};
    kernel_run(s,
               &(kernel_call){.kernel = &kernel_decode_attn,
                              .constants = constants,
                              .n_constant = 2,
                              .args = &args,
                              .views = {one_view(t, ONE_STEP, sizeof(step_uniform)), whole(t->qkv),
                                        whole(t->model->weights.vector_buffer),
                                        one_view(t, c->sliding ? ONE_ROPE : ONE_ROPE_GLOBAL, 2048),
                                        whole(kv->k), whole(kv->v), whole(t->attn),
                                        whole(t->attn_stat), whole(added ? added->buffer : t->qkv)},
                              .x = c->n_kv * div_up(c->n_head / c->n_kv, 4),
                              .y = n_split});
    if (n_split < MERGE_FROM) return n_split;
    decode_merge_args merge = {.n_head = c->n_head, .head_dim = c->head_dim, .n_split = n_split};
    kernel_run(s, &(kernel_call){.kernel = &kernel_decode_merge,
                                 .args = &merge,
                                 .views = {whole(t->attn), whole(t->attn_stat)},
                                 .x = c->n_head,
                                 .y = div_up(c->head_dim, 64)});
    return 0;
}

/* Every workgroup merges the splits for itself, so they should be few. */
static void run_attn_out(text_gpu *t, kernel_steps *s, uint32_t il, uint32_t n_split) {
    const weight *w = &t->model->weights.layers[il].out;
    const shape sh = shape_for(t, w->n_row, w->n_col, 32);
    const lora_group *added = lora_gpu_at(t->lora, il, LORA_INPUT_OUT);
    const gpu_constant constants[] = {
        sh.constants[0], sh.constants[1], sh.constants[2], {"ADAPTED", added != NULL}};
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *tile = &w->tiles[i];
        const uint32_t n_group = div_up(tile->n_row, sh.rows);
        const bool last = i + 1 == w->n_tile; /* u goes with it */
        decode_out_args args = {.n_row = tile->n_row,
                                .n_col = w->n_col,
                                .out0 = tile->row0,
                                .scale = w->scale,
                                .head_dim = t->model->config.layers[il].head_dim,
                                .n_split = n_split,
                                .n_group = n_group,
                                .n_rank = added ? added->n_rank : 0,
                                .a0 = added ? added->a0 / 2 : 0};
        kernel_run(
            s, &(kernel_call){.kernel = &kernel_decode_out,
                              .formats = {w->type},
                              .constants = constants,
                              .n_constant = 4,
                              .args = &args,
                              .views = {whole(t->attn), whole(t->attn_stat), whole(tile->buffer),
                                        whole(t->attn_out), whole(added ? added->buffer : t->norm)},
                              .x = n_group + (last ? lora_groups(added, sh.rows) : 0)});
    }
}

/* ---- feed-forward -------------------------------------------------------------------------- */

/* act = gelu(gate z) * (up z). The two are cut into the same tiles: same shape, and for a model
 * that needs tiles at all, same format (checked by text_gpu_create). */
static void run_geglu(text_gpu *t, kernel_steps *s, uint32_t il, stream *st) {
    const layer_weights *w = &t->model->weights.layers[il];
    const shape sh = shape_for(t, w->gate.n_row, w->gate.n_col, 16); /* rows in whole groups */
    const lora_group *added = lora_gpu_at(t->lora, il, LORA_INPUT_FFN);
    const gpu_constant constants[] = {
        sh.constants[0], sh.constants[1], sh.constants[2], {"ADAPTED", added != NULL}};
    run_lora_stream(t, s, added, st, &w->ffn_norm);
    for (uint32_t i = 0; i < w->gate.n_tile; i++) {
        const weight_tile *gate = &w->gate.tiles[i], *up = &w->up.tiles[i];
        decode_ffn_args args = {.n_embd = w->gate.n_col,
                                .n_row = gate->n_row,
                                .row0 = gate->row0,
                                .eps = t->model->config.rms_eps,
                                .scale = st->scale,
                                .w_post = st->w_post,
                                .w_norm = w->ffn_norm.offset,
                                .scale_gate = w->gate.scale,
                                .scale_up = w->up.scale,
                                .n_ff = w->gate.n_row,
                                .rank = added ? added->rank : 0,
                                .b0 = added ? added->b0 : 0};
        kernel_run(
            s, &(kernel_call){.kernel = &kernel_decode_ffn,
                              .formats = {w->gate.type, w->up.type},
                              .constants = constants,
                              .n_constant = 4,
                              .args = &args,
                              .views = {whole(t->x[t->x_at]), whole(st->update),
                                        whole(t->model->weights.vector_buffer), whole(gate->buffer),
                                        whole(up->buffer), whole(t->x[1 - t->x_at]), whole(t->act),
                                        whole(added ? added->buffer : st->update)},
                              .x = shared_by(t, div_up(gate->n_row, sh.rows))});
    }
    stream_taken(t, st);
}

static void run_down(text_gpu *t, kernel_steps *s, uint32_t il) {
    const weight *w = &t->model->weights.layers[il].down;
    uint32_t lanes = 8;
    while (lanes < 256 && lanes * 64 < w->n_col) lanes *= 2;
    const uint32_t rows = 1024 / lanes;
    const lora_group *added = lora_gpu_at(t->lora, il, LORA_INPUT_DOWN);
    const gpu_constant constants[] = {
        {"LANES", lanes}, {"TURNS", div_up(w->n_col, 64 * lanes)}, {"ADAPTED", added != NULL}};
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *tile = &w->tiles[i];
        const uint32_t n_group = div_up(tile->n_row, rows);
        const bool last = i + 1 == w->n_tile; /* u goes with it */
        matvec_packed_args args = {.n_row = tile->n_row,
                                   .n_col = w->n_col,
                                   .out0 = tile->row0,
                                   .scale = w->scale,
                                   .n_group = n_group,
                                   .n_rank = added ? added->n_rank : 0,
                                   .a0 = added ? added->a0 / 2 : 0};
        kernel_run(s,
                   &(kernel_call){.kernel = &kernel_matvec_packed,
                                  .formats = {w->type},
                                  .constants = constants,
                                  .n_constant = 3,
                                  .args = &args,
                                  .views = {whole(t->act), whole(tile->buffer), whole(t->ffn_out),
                                            whole(added ? added->buffer : t->norm)},
                                  .x = n_group + (last ? lora_groups(added, 256 / lanes) : 0)});
    }
}

/* Writes the pending update into the stream, for a stage that reads it plainly. */
static void run_settle(text_gpu *t, kernel_steps *s, stream *st) {
    complete_update(s, st);
    settle_args args = {.n_embd = t->model->config.n_embd,
                        .eps = t->model->config.rms_eps,
                        .scale = st->scale,
                        .w_post = st->w_post};
    kernel_run(s, &(kernel_call){.kernel = &kernel_settle,
                                 .args = &args,
                                 .views = {whole(t->x[t->x_at]), whole(st->update),
                                           whole(t->model->weights.vector_buffer),
                                           whole(t->x[1 - t->x_at])},
                                 .x = 1});
    stream_taken(t, st);
}

static void run_ple_gate(text_gpu *t, kernel_steps *s, uint32_t il, stream *st) {
    const model_config *c = &t->model->config;
    const weight *w = &t->model->weights.layers[il].ple_gate;
    const shape sh = shape_for(t, w->n_row, w->n_col, MAX_LANES);
    complete_update(s, st);
    decode_ple_args args = {.n_embd = c->n_embd,
                            .n_ple = c->n_ple,
                            .ple0 = il * c->n_ple,
                            .eps = c->rms_eps,
                            .scale = st->scale,
                            .w_post = st->w_post,
                            .scale_gate = w->scale};
    kernel_run(s, &(kernel_call){.kernel = &kernel_decode_ple,
                                 .formats = {w->type},
                                 .constants = sh.constants,
                                 .n_constant = 3,
                                 .args = &args,
                                 .views = {whole(t->x[t->x_at]), whole(st->update),
                                           whole(t->model->weights.vector_buffer),
                                           whole(w->tiles[0].buffer), whole(t->one.ple),
                                           whole(t->x[1 - t->x_at]), whole(t->ple_gate)},
                                 .x = div_up(w->n_row, sh.rows)});
    stream_taken(t, st);
}

/* ---- the network --------------------------------------------------------------------------- */

void decode_gpu_inputs(text_gpu *t, kernel_steps *s) {
    text_gpu_embed(t, s, t->one.inputs, 1);
    const model_config *c = &t->model->config;
    const model_weights *w = &t->model->weights;
    if (c->n_ple == 0) return;
    run_matvec(t, s, &w->ple_model_proj, t->x[t->x_at], t->one.ple);
    op_ple_input(s, w->vector_buffer, &w->ple_proj_norm, c->rms_eps, 1 / sqrtf((float)c->n_embd),
                 one_view(t, ONE_PLE, 0), whole(t->one.ple), c->n_layer, 1);
}

static void run_layer(text_gpu *t, kernel_steps *s, uint32_t il, uint32_t pos, stream *st) {
    const layer_weights *w = &t->model->weights.layers[il];
    const lora_group *added = NULL; /* moe_gpu_ffn() adds by itself */
    run_qkv(t, s, il, st);
    run_attn_out(t, s, il, run_attention(t, s, il, pos));
    *st = (stream){t->attn_out, w->post_attn_norm.offset, 1,
                   lora_gpu_at(t->lora, il, LORA_INPUT_OUT)};
    if (t->model->config.layers[il].moe) {
        run_settle(t, s, st);
        moe_gpu_ffn(t, s, il, t->x[t->x_at], 1);
    } else {
        run_geglu(t, s, il, st);
        run_down(t, s, il);
        added = lora_gpu_at(t->lora, il, LORA_INPUT_DOWN);
    }
    *st = (stream){t->ffn_out, w->post_ffn_norm.offset, w->scale, added};
    if (t->model->config.n_ple) {
        st->scale = 1;
        run_ple_gate(t, s, il, st);
        run_matvec(t, s, &w->ple_proj, t->ple_gate, t->ple_out);
        *st = (stream){t->ple_out, w->ple_norm.offset, w->scale, NULL};
    }
}

void decode_gpu_layers(text_gpu *t, kernel_steps *s, uint32_t first, uint32_t pos) {
    const model *m = t->model;
    stream st = {.update = t->attn_out, .w_post = NONE, .scale = 1};
    for (uint32_t il = first; il < m->config.n_layer; il++) {
        run_layer(t, s, il, pos, &st);
        /* Soon, so that the device begins; then each while it works on those before. */
        if (il == first || il == first + 3 || il == first + 10) kernel_hand_over(s);
    }
    complete_update(s, &st);
    decode_norm_args norm = {.n_embd = m->config.n_embd,
                             .n_clear = TEXT_GPU_BINS,
                             .eps = m->config.rms_eps,
                             .scale = st.scale,
                             .w_post = st.w_post,
                             .w_norm = m->weights.output_norm.offset};
    kernel_run(s, &(kernel_call){.kernel = &kernel_decode_norm,
                                 .args = &norm,
                                 .views = {whole(t->x[t->x_at]), whole(st.update),
                                           whole(m->weights.vector_buffer), whole(t->norm),
                                           whole(t->topk_work)},
                                 .x = 1});
}

void decode_gpu_head(text_gpu *t, kernel_steps *s) {
    const model_config *c = &t->model->config;
    run_matvec(t, s, t->model->weights.output, t->norm, t->logits);
    op_lora(s, lora_gpu_head(t->lora), whole(t->norm), t->lora_u, t->logits, 1);
    /* Bins over the range of the capped logits; an uncapped model's are limited to it. */
    float high = c->softcap > 0 ? c->softcap : 64;
    uint32_t groups = div_up(c->n_vocab, 256 * 16);
    topk_count_args count = {.n = c->n_vocab,
                             .cap = c->softcap,
                             .low = -high,
                             .bins_per_unit = TEXT_GPU_BINS / (2 * high),
                             .shift = high};
    kernel_run(s, &(kernel_call){.kernel = &kernel_topk_count,
                                 .args = &count,
                                 .views = {whole(t->logits), whole(t->topk_work), whole(t->topk)},
                                 .x = groups});
    topk_select_args select = {.n = c->n_vocab,
                               .k = min_u32(TEXT_GPU_CANDIDATES, c->n_vocab),
                               .n_sum = groups,
                               .low = count.low,
                               .bins_per_unit = count.bins_per_unit,
                               .shift = count.shift};
    kernel_run(s, &(kernel_call){.kernel = &kernel_topk_select,
                                 .args = &select,
                                 .views = {whole(t->logits), whole(t->topk_work), whole(t->topk)},
                                 .x = groups});
}
