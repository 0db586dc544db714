/* decode_gpu: one token through the network, in at most 7 dispatches a dense layer:
 *   1 decode_qkv   residual update of the layer before, attention norm, q, k, v rows
 *   2 decode_attn  norms, RoPE, KV store, attention split over the keys (decode_merge when many)
 *   3 decode_out   merge of the splits, output rows
 *   4 decode_ffn   residual update, ffn norm, gate and up rows, GeGLU (MoE: moe_gpu.c)
 *   5 matvec_packed  down rows
 *   6 decode_ple   residual update, per-layer embedding gate
 *   7 matvec       its projection
 * Adapters in use (lora_gpu.h) take none: each workgroup of 1, 3 and 4 makes u = A x of its input
 * for itself and adds B u to its rows; 4 also makes parts of u for 5.
 * Each stage that needs the residual stream adds the pending update itself (kernels/lib/stream), so
 * that an update costs no dispatch. The step goes to the device in four submits, so that it starts
 * while the rest is recorded (docs/speed.md). Reads beside text_cpu.c: same stages, same order.
 *
 * Flow: text_gpu.c before; the candidates go to token/sampler.c. */
#include "model/ops_gpu.h"
#include "model/text_gpu.h"

#include "kernels.h"

#include <math.h>

#define MAX_SPLIT      TEXT_GPU_MAX_SPLIT
#define OUT_SPLITS     8u    /* splits that decode_out merges */
#define OUT_KEYS       1024u /* keys up to which these do, which saves decode_merge */
#define SPLIT_KEYS     64u   /* keys a split otherwise, while there are splits enough */
#define MAX_GROUPS     1056u /* workgroups that share rows evenly among themselves */
#define FEW_GROUPS     4u    /* the same on a GPU in software, which takes 1 to 3 ms to start one */
#define ADAPTED_GROUPS 192u  /* the same when each makes u of adapters */
#define WANT_GROUPS    256u  /* workgroups that keep a device busy */
#define ADAPTED_WANT   96u   /* the same when each makes u of adapters */
#define MAX_LANES      128u
#define INPUT_REST     6400u /* bytes of workgroup memory for all but the input (lib/reduce4, ..) */
#define OUT_REST       10496u /* the same of decode_out, which has the splits' factors, too */
#define MAX_U          512u   /* values of u that fit in it */
#define NONE           UINT32_MAX

/* The residual stream as the next stage finds it: h = (base + rms(update) * w_post) * scale. */
typedef struct stream {
    gpu_buffer update;
    uint32_t w_post; /* NONE: no update pending */
    float scale;
} stream;

/* How a matrix is shared out: LANES threads take a row, at most INPUT values at a time, of which
 * each has TURNS chunks of 64. With adapters there is room for U values of their u; MORE: there are
 * more. */
typedef struct shape {
    gpu_constant constants[5]; /* without adapters three */
    uint32_t rows;             /* of a workgroup */
} shape;

/* Few threads a row (`least` to `most`) make the best use of memory, but many are needed to keep
 * the device busy when there are few rows. */
static uint32_t lanes_for(uint32_t n_row, uint32_t n_col, uint32_t least, uint32_t most,
                          uint32_t want) {
    uint32_t lanes = least;
    while (lanes < most && lanes * 64 < n_col && n_row * lanes / 256 < want) lanes *= 2;
    return lanes;
}

/* How many of n_col values there is room for, of `halves` half bytes each. */
static uint32_t input_for(const text_gpu *t, uint32_t n_col, uint32_t rest, uint32_t halves) {
    const uint32_t room = t->gpu->info.max_workgroup_bytes - rest;
    const uint32_t input = min_u32(room * 2 / halves, n_col + 63) / 64 * 64;
    return input < n_col ? input / 256 * 256 : input; /* whole blocks */
}

static uint32_t turns_for(uint32_t lanes, uint32_t n_col, uint32_t input) {
    return div_up(min_u32(n_col, input), 64 * lanes);
}

static shape shape_for(const text_gpu *t, uint32_t n_row, uint32_t n_col, uint32_t most,
                       uint32_t rest) {
    const uint32_t lanes = lanes_for(n_row, n_col, 8, most, WANT_GROUPS);
    const uint32_t input = input_for(t, n_col, rest, 5);
    return (shape){{{"LANES", lanes}, {"INPUT", input}, {"TURNS", turns_for(lanes, n_col, input)}},
                   256 / lanes};
}

/* The same for n_target matrices that adapters in g, or NULL, are added to: by fewer workgroups, as
 * each makes u for itself, from an input that it has as plain numbers, too. */
static shape adapted_shape(const text_gpu *t, const lora_group *g, uint32_t n_target,
                           uint32_t n_row, uint32_t n_col, uint32_t most, uint32_t rest) {
    if (!g) return shape_for(t, n_row, n_col, most, rest);
    const uint32_t lanes = lanes_for(n_row, n_col, 16 / n_target, most, ADAPTED_WANT);
    const uint32_t n_u = min_u32(n_target * g->rank, MAX_U);
    const uint32_t input = input_for(t, n_col, rest + 32 + 4 * n_u, 13);
    return (shape){{{"LANES", lanes},
                    {"INPUT", input},
                    {"TURNS", turns_for(lanes, n_col, input)},
                    {"U", n_u},
                    {"MORE", n_target * g->rank > MAX_U}},
                   256 / lanes};
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
    const shape sh = shape_for(t, w->n_row, w->n_col, MAX_LANES, INPUT_REST);
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

/* ---- attention ----------------------------------------------------------------------------- */

static void run_qkv(text_gpu *t, kernel_steps *s, uint32_t il, const stream *st) {
    const layer_config *c = &t->model->config.layers[il];
    const layer_weights *w = &t->model->weights.layers[il];
    const weight *k = c->owns_kv ? &w->k : &w->q, *v = c->owns_kv && !c->k_eq_v ? &w->v : k;
    uint32_t n_k = c->owns_kv ? w->k.n_row : 0, n_v = c->owns_kv && !c->k_eq_v ? w->v.n_row : 0;
    const lora_group none = {.buffer = st->update},
                     *added = lora_gpu_at(t->lora, il, LORA_INPUT_QKV);
    const shape sh =
        adapted_shape(t, added, 1, w->q.n_row + n_k + n_v, w->q.n_col, MAX_LANES, INPUT_REST);
    const lora_group *g = added ? added : &none;
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
                                .scale_v = v->scale,
                                .h0 = (uint32_t)(t->h.offset / 4),
                                .rank = g->rank,
                                .factors = g->factors / 4,
                                .a0 = g->a0 / 4,
                                .b0 = g->b0 / 4};
        uint32_t n_row = args.n_q + args.n_k + args.n_v;
        kernel_run(
            s, &(kernel_call){.kernel = &kernel_decode_qkv,
                              .formats = {w->q.type, k->type, v->type},
                              .constants = sh.constants,
                              .n_constant = added ? 5 : 3,
                              .args = &args,
                              .views = {whole(t->x[t->x_at]), whole(st->update),
                                        whole(t->model->weights.vector_buffer), whole(q->buffer),
                                        whole(k->tiles[0].buffer), whole(v->tiles[0].buffer),
                                        whole(g->buffer), whole(t->qkv)},
                              .x = n_row / sh.rows});
    }
}

static uint32_t split_count(const layer_config *c, uint32_t pos) {
    uint32_t n_key = pos + 1;
    if (c->window) n_key = min_u32(n_key, c->window);
    const uint32_t most = n_key <= OUT_KEYS ? OUT_SPLITS : MAX_SPLIT;
    return min_u32(div_up(n_key, SPLIT_KEYS), most);
}

/* Returns how many splits decode_out finds; 0: they are merged. */
static uint32_t run_attention(text_gpu *t, kernel_steps *s, uint32_t il, uint32_t pos) {
    const layer_config *c = &t->model->config.layers[il];
    const layer_weights *w = &t->model->weights.layers[il];
    const kv_gpu *kv = &t->kv[c->donor];
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
                             .n_split = n_split};
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_decode_attn,
                      .constants = &(gpu_constant){"HEAD_DIM", c->head_dim},
                      .n_constant = 1,
                      .args = &args,
                      .views = {one_view(t, ONE_STEP, sizeof(step_uniform)), whole(t->qkv),
                                whole(t->model->weights.vector_buffer),
                                one_view(t, c->sliding ? ONE_ROPE : ONE_ROPE_GLOBAL, 2048),
                                whole(kv->k), whole(kv->v), whole(t->attn), whole(t->attn_stat)},
                      .x = c->n_head,
                      .y = n_split});
    if (n_split <= OUT_SPLITS) return n_split;
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
    const lora_group none = {.buffer = t->norm}, *added = lora_gpu_at(t->lora, il, LORA_INPUT_OUT);
    const shape sh = adapted_shape(t, added, 1, w->n_row, w->n_col, 32, OUT_REST);
    const lora_group *g = added ? added : &none;
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *tile = &w->tiles[i];
        decode_out_args args = {.n_row = tile->n_row,
                                .n_col = w->n_col,
                                .out0 = tile->row0,
                                .scale = w->scale,
                                .head_dim = t->model->config.layers[il].head_dim,
                                .n_split = n_split,
                                .rank = g->rank,
                                .factors = g->factors / 4,
                                .a0 = g->a0 / 4,
                                .b0 = g->b0 / 4};
        kernel_run(
            s, &(kernel_call){.kernel = &kernel_decode_out,
                              .formats = {w->type},
                              .constants = sh.constants,
                              .n_constant = added ? 5 : 3,
                              .args = &args,
                              .views = {whole(t->attn), whole(t->attn_stat), whole(tile->buffer),
                                        whole(t->attn_out), whole(g->buffer)},
                              .x = div_up(tile->n_row, sh.rows)});
    }
}

/* ---- feed-forward -------------------------------------------------------------------------- */

/* What adapters add to the feed-forward part of a layer. */
typedef struct ffn_added {
    bool any;
    lora_group in, down;    /* rank 0: nothing */
    uint32_t part0, n_part; /* parts of u of the down rows, behind the packed values in t->act */
    shape shape;            /* of the gate and up rows */
} ffn_added;

/* Workgroups for the rows of a tile: each makes u of adapters for itself, and more than MAX_U
 * values of it for one block of rows only. */
static uint32_t ffn_groups(const text_gpu *t, const ffn_added *f, const weight_tile *tile) {
    const uint32_t n_block = div_up(tile->n_row, f->shape.rows); /* rows in whole groups */
    if (2 * f->in.rank > MAX_U) return n_block;
    return min_u32(shared_by(t, n_block), f->any ? ADAPTED_GROUPS : MAX_GROUPS);
}

static ffn_added added_ffn(const text_gpu *t, uint32_t il) {
    const weight *gate = &t->model->weights.layers[il].gate;
    const lora_group *in = lora_gpu_at(t->lora, il, LORA_INPUT_FFN);
    const lora_group *down = lora_gpu_at(t->lora, il, LORA_INPUT_DOWN);
    const lora_group none = {.buffer = t->norm};
    ffn_added f = {.any = in || down, .part0 = div_up(gate->n_row, 64) * 10};
    f.in = in ? *in : none;
    f.down = down ? *down : none;
    f.shape = adapted_shape(t, in ? in : down, 2, gate->n_row, gate->n_col, 16, INPUT_REST);
    for (uint32_t i = 0; i < gate->n_tile; i++) f.n_part += ffn_groups(t, &f, &gate->tiles[i]);
    return f;
}

/* act = gelu(gate z) * (up z). The two are cut into the same tiles: same shape, and for a model
 * that needs tiles at all, same format (checked by text_gpu_create). */
static void run_geglu(text_gpu *t, kernel_steps *s, uint32_t il, stream *st, const ffn_added *f) {
    const layer_weights *w = &t->model->weights.layers[il];
    uint32_t slot0 = 0;
    for (uint32_t i = 0; i < w->gate.n_tile; i++) {
        const weight_tile *gate = &w->gate.tiles[i], *up = &w->up.tiles[i];
        const uint32_t n_group = ffn_groups(t, f, gate);
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
                                .rank = f->in.rank,
                                .factors = f->in.factors / 4,
                                .a0 = f->in.a0 / 4,
                                .b0 = f->in.b0 / 4,
                                .down_rank = f->down.rank,
                                .down_a0 = f->down.a0 / 4,
                                .part0 = f->part0,
                                .n_part = f->n_part,
                                .slot0 = slot0};
        kernel_run(s,
                   &(kernel_call){
                       .kernel = &kernel_decode_ffn,
                       .formats = {w->gate.type, w->up.type},
                       .constants = f->shape.constants,
                       .n_constant = f->any ? 5 : 3,
                       .args = &args,
                       .views = {t->h, whole(st->update), whole(t->model->weights.vector_buffer),
                                 whole(gate->buffer), whole(up->buffer), whole(t->x[1 - t->x_at]),
                                 whole(t->act), whole(f->in.rank ? f->in.buffer : f->down.buffer)},
                       .x = n_group});
        slot0 += n_group;
    }
    stream_taken(t, st);
}

static void run_down(text_gpu *t, kernel_steps *s, uint32_t il, const ffn_added *f) {
    const weight *w = &t->model->weights.layers[il].down;
    const lora_group *g = &f->down;
    uint32_t lanes = 8;
    while (lanes < 256 && lanes * 64 < w->n_col) lanes *= 2;
    const uint32_t rows = 1024 / lanes;
    const gpu_constant constants[] = {{"LANES", lanes},
                                      {"TURNS", div_up(w->n_col, 64 * lanes)},
                                      {"U", min_u32(g->rank, MAX_U)},
                                      {"MORE", g->rank > MAX_U}};
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *tile = &w->tiles[i];
        matvec_packed_args args = {.n_row = tile->n_row,
                                   .n_col = w->n_col,
                                   .out0 = tile->row0,
                                   .scale = w->scale,
                                   .rank = g->rank,
                                   .factors = g->factors / 4,
                                   .b0 = g->b0 / 4,
                                   .part0 = f->part0,
                                   .n_part = f->n_part};
        kernel_run(s, &(kernel_call){.kernel = &kernel_matvec_packed,
                                     .formats = {w->type},
                                     .constants = constants,
                                     .n_constant = g->rank ? 4 : 2,
                                     .args = &args,
                                     .views = {whole(t->act), whole(tile->buffer),
                                               whole(t->ffn_out), whole(g->buffer)},
                                     .x = div_up(tile->n_row, rows)});
    }
}

/* Adds attention's update to the stream, for a stage that reads it plainly. */
static void run_settle(text_gpu *t, kernel_steps *s, stream *st) {
    settle_args args = {.n_embd = t->model->config.n_embd,
                        .eps = t->model->config.rms_eps,
                        .scale = st->scale,
                        .w_post = st->w_post};
    kernel_run(
        s, &(kernel_call){.kernel = &kernel_settle,
                          .args = &args,
                          .views = {t->h, whole(st->update), whole(t->model->weights.vector_buffer),
                                    whole(t->x[1 - t->x_at])},
                          .x = 1});
    stream_taken(t, st);
}

static void run_ple_gate(text_gpu *t, kernel_steps *s, uint32_t il, stream *st) {
    const model_config *c = &t->model->config;
    const weight *w = &t->model->weights.layers[il].ple_gate;
    const shape sh = shape_for(t, w->n_row, w->n_col, MAX_LANES, INPUT_REST);
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
    run_qkv(t, s, il, st);
    run_attn_out(t, s, il, run_attention(t, s, il, pos));
    *st = (stream){t->attn_out, w->post_attn_norm.offset, 1};
    if (t->model->config.layers[il].moe) {
        run_settle(t, s, st);
        moe_gpu_ffn(t, s, il, t->x[t->x_at], 1);
    } else {
        const ffn_added f = added_ffn(t, il);
        run_geglu(t, s, il, st, &f);
        run_down(t, s, il, &f);
    }
    *st = (stream){t->ffn_out, w->post_ffn_norm.offset, w->scale};
    if (t->model->config.n_ple) {
        st->scale = 1;
        run_ple_gate(t, s, il, st);
        run_matvec(t, s, &w->ple_proj, t->ple_gate, t->ple_out);
        *st = (stream){t->ple_out, w->ple_norm.offset, w->scale};
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
