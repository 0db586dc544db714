/* moe_gpu: the feed-forward part of a layer with experts. Beside the dense branch a router picks
 * n_expert_used experts for every token; the picks are grouped by expert, so that the tokens of one
 * expert are multiplied together, and summed up again token by token in a fixed order.
 *
 * Flow: prefill_gpu.c and decode_gpu.c call it between their norms; CPU twin: text_cpu.c. */
#include "model/moe_gpu.h"
#include "model/text_gpu.h"

#include "kernels.h"

#include <math.h>

#define TILE_PLACES 64u /* of lib/tile.wgsl */
#define TILE_ROWS   64u
#define ONE_ROWS    8u /* of a workgroup, 32 threads a row: LANES of the moe_one kernels */

typedef struct moe_gpu {
    gpu_buffer experts_in; /* [n_chunk, n_embd] */
    moe_picks picks;
    gpu_buffer act;    /* [n_chunk * n_used, n_ff_expert] */
    gpu_buffer part;   /* [n_chunk * n_used, n_embd] */
    gpu_buffer dense;  /* [n_chunk, n_embd] */
    gpu_buffer scales; /* [n_layer, MOE_N_SCALE, n_expert] */
} moe_gpu;

typedef struct moe_part {
    gpu_buffer *buffer;
    uint64_t n; /* words */
    const char *label;
} moe_part;

#define N_PART 10

uint32_t moe_gpu_tiles(const model_config *c, uint32_t n_tok) {
    const uint32_t n_pick = n_tok * c->n_expert_used;
    return min_u32(n_pick, c->n_expert + n_pick / TILE_PLACES);
}

static void list_parts(moe_gpu *m, const model_config *c, uint32_t n_tok, moe_part out[N_PART]) {
    const uint64_t embd = (uint64_t)n_tok * c->n_embd, n_pick = (uint64_t)n_tok * c->n_expert_used;
    const moe_part parts[N_PART] = {
        {&m->experts_in, embd, "the experts' input"},
        {&m->picks.logits, (uint64_t)n_tok * c->n_expert, "router logits"},
        {&m->picks.ids, n_pick, "picked experts"},
        {&m->picks.weight, n_pick, "weights of experts"},
        {&m->picks.order, n_pick, "order of experts"},
        {&m->picks.tiles, 4ull * moe_gpu_tiles(c, n_tok), "tiles of experts"},
        {&m->act, n_pick * c->n_ff_expert, "the experts' activations"},
        {&m->part, n_pick * c->n_embd, "the experts' outputs"},
        {&m->dense, embd, "the dense branch"},
        {&m->scales, (uint64_t)c->n_layer * MOE_N_SCALE * c->n_expert, "the experts' scales"},
    };
    for (uint32_t i = 0; i < N_PART; i++) out[i] = parts[i];
}

uint64_t moe_gpu_bytes(const model_config *c, uint32_t n_chunk) {
    moe_gpu none;
    moe_part parts[N_PART];
    uint64_t n = 0;
    if (!c->n_expert) return 0;
    list_parts(&none, c, n_chunk, parts);
    for (uint32_t i = 0; i < N_PART; i++) n += parts[i].n * 4;
    return n;
}

/* Experts must be whole in a binding. */
static bool check_experts(const weight *w, const char *what, uint32_t il, carat_error *err) {
    for (uint32_t i = 0; i < w->n_tile; i++)
        if (w->tiles[i].row0 % w->n_row || w->tiles[i].n_row % w->n_row)
            return fail(err, CARAT_E_UNSUPPORTED,
                        "layer %u: one expert of %s is larger than the device can bind", il, what);
    return true;
}

bool moe_gpu_check(const model *m, carat_error *err) {
    const model_config *c = &m->config;
    if (c->n_expert > MOE_MAX_EXPERTS)
        return fail(err, CARAT_E_UNSUPPORTED,
                    "%u experts; the GPU kernels take up to %u (the CPU takes any)", c->n_expert,
                    MOE_MAX_EXPERTS);
    for (uint32_t il = 0; il < c->n_layer; il++) {
        const layer_weights *w = &m->weights.layers[il];
        if (!c->layers[il].moe) continue;
        if (w->router.n_tile != 1)
            return fail(err, CARAT_E_UNSUPPORTED,
                        "layer %u: the router is larger than the device can bind", il);
        if (!check_experts(&w->gate_up_exps, "ffn_gate_up_exps", il, err) ||
            !check_experts(&w->gate_exps, "ffn_gate_exps", il, err) ||
            !check_experts(&w->up_exps, "ffn_up_exps", il, err) ||
            !check_experts(&w->down_exps, "ffn_down_exps", il, err))
            return false;
    }
    return true;
}

static const weight *gate_of(const layer_weights *w) {
    return w->gate_up_exps.tensor ? &w->gate_up_exps : &w->gate_exps;
}

static const weight *up_of(const layer_weights *w) {
    return w->gate_up_exps.tensor ? &w->gate_up_exps : &w->up_exps;
}

static float scale_of(const weight *w, uint32_t expert) {
    return w->expert_scale ? w->expert_scale[expert] : w->scale;
}

void moe_gpu_scales(const layer_weights *w, uint32_t n_expert, float *out) {
    for (uint32_t e = 0; e < n_expert; e++) {
        out[MOE_SCALE_GATE * n_expert + e] = scale_of(gate_of(w), e);
        out[MOE_SCALE_UP * n_expert + e] = scale_of(up_of(w), e);
        out[MOE_SCALE_DOWN * n_expert + e] =
            scale_of(&w->down_exps, e) * w->down_exps_scale.data[e];
    }
}

static void write_scales(text_gpu *t) {
    const model_config *c = &t->model->config;
    float scales[MOE_N_SCALE * MOE_MAX_EXPERTS];
    const size_t bytes = sizeof(float) * MOE_N_SCALE * c->n_expert;
    for (uint32_t il = 0; il < c->n_layer; il++) {
        if (!c->layers[il].moe) continue;
        moe_gpu_scales(&t->model->weights.layers[il], c->n_expert, scales);
        gpu_write(t->gpu, t->moe->scales, il * bytes, scales, bytes);
    }
}

bool moe_gpu_create(text_gpu *t, carat_error *err) {
    const model_config *c = &t->model->config;
    if (!moe_gpu_check(t->model, err)) return false;
    t->moe = arena_alloc(t->memory, 1, sizeof *t->moe);
    if (!t->moe) return fail_memory(err, sizeof *t->moe, "the experts");
    moe_part parts[N_PART];
    list_parts(t->moe, c, t->n_chunk, parts);
    for (uint32_t i = 0; i < N_PART; i++) {
        const uint64_t bytes = parts[i].n * 4;
        if (bytes > t->gpu->info.max_binding)
            return fail(err, CARAT_E_MEMORY, "%s need %llu MB in one piece; %s binds %llu MB",
                        parts[i].label, (unsigned long long)(bytes >> 20), t->gpu->info.name,
                        (unsigned long long)(t->gpu->info.max_binding >> 20));
        *parts[i].buffer = gpu_buffer_create(t->gpu, bytes, GPU_STORAGE, parts[i].label, err);
        if (!parts[i].buffer->id) return false;
    }
    write_scales(t);
    return true;
}

void moe_gpu_free(text_gpu *t) {
    moe_part parts[N_PART];
    if (!t->moe) return;
    list_parts(t->moe, &t->model->config, t->n_chunk, parts);
    for (uint32_t i = 0; i < N_PART; i++) gpu_buffer_free(t->gpu, *parts[i].buffer);
    t->moe = NULL;
}

/* ---- routing ------------------------------------------------------------------------------- */

void moe_gpu_route(kernel_steps *s, const model *m, uint32_t il, gpu_view y, const moe_picks *p,
                   uint32_t n_tok) {
    const model_config *c = &m->config;
    const weight *w = &m->weights.layers[il].router;
    const moe_router_args router = {
        .n_tok = n_tok,
        .n_embd = c->n_embd,
        .n_expert = c->n_expert,
        .w_router = m->weights.layers[il].router_scale.offset,
        .eps = c->rms_eps,
        .scale = w->scale / sqrtf((float)c->n_embd),
    };
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_moe_router,
                      .formats = {w->type},
                      .args = &router,
                      .views = {y, whole(m->weights.vector_buffer), whole(w->tiles[0].buffer),
                                whole(p->logits)},
                      .x = div_up(c->n_expert, 8),
                      .y = div_up(n_tok, 4),
                  });
    const moe_topk_args topk = {.n_expert = c->n_expert, .n_used = c->n_expert_used};
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_moe_topk,
                      .args = &topk,
                      .views = {whole(p->logits), whole(p->ids), whole(p->weight)},
                      .x = n_tok,
                  });
    const moe_lists_args lists = {.n_pick = n_tok * c->n_expert_used,
                                  .n_expert = c->n_expert,
                                  .n_tile = moe_gpu_tiles(c, n_tok)};
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_moe_lists,
                      .args = &lists,
                      .views = {whole(p->ids), whole(p->order), whole(p->tiles)},
                  });
}

/* ---- a layer ------------------------------------------------------------------------------- */

typedef struct moe_run {
    text_gpu *t;
    kernel_steps *s;
    moe_gpu *m;
    const model_config *c;
    const layer_weights *w;
    gpu_buffer y;
    uint32_t il, n_tok, n_tile;
} moe_run;

static void rmsnorm(const moe_run *r, const vector *w, float scale, gpu_buffer out) {
    op_rmsnorm(r->s, r->t->model->weights.vector_buffer, w, r->c->rms_eps, scale, whole(r->y),
               whole(out), r->n_tok);
}

static void dense_branch(const moe_run *r) {
    const text_gpu *t = r->t;
    rmsnorm(r, &r->w->ffn_norm, 1, t->norm);
    const gpu_buffer delta = text_gpu_adapt_ffn(t, r->s, r->il, r->n_tok);
    op_matmul_geglu(r->s, &r->w->gate, &r->w->up, whole(t->norm), delta, whole(t->act), r->n_tok);
    op_matmul(r->s, &r->w->down, r->c->n_embd, whole(t->act), whole(r->m->dense), r->n_tok);
    op_lora(r->s, lora_gpu_at(t->lora, r->il, LORA_INPUT_DOWN), whole(t->act), t->lora_u,
            r->m->dense, r->n_tok);
}

/* Experts [expert0, expert0 + n) whose gate and up rows are in one tile each. */
typedef struct expert_range {
    const weight_tile *a, *b;
    uint32_t expert0, n, a_expert0, b_expert0;
} expert_range;

/* The range after `expert0` experts; their tiles may be cut differently. False at the end. */
static bool next_range(const layer_weights *w, uint32_t expert0, expert_range *out) {
    const weight *gate = gate_of(w), *up = up_of(w);
    if (expert0 >= gate->n_expert) return false;
    uint32_t a = 0, b = 0;
    while (expert0 * gate->n_row >= gate->tiles[a].row0 + gate->tiles[a].n_row) a++;
    while (expert0 * up->n_row >= up->tiles[b].row0 + up->tiles[b].n_row) b++;
    const weight_tile *ta = &gate->tiles[a], *tb = &up->tiles[b];
    const uint32_t end_a = (ta->row0 + ta->n_row) / gate->n_row;
    const uint32_t end_b = (tb->row0 + tb->n_row) / up->n_row;
    *out = (expert_range){
        .a = ta,
        .b = tb,
        .expert0 = expert0,
        .n = min_u32(end_a, end_b) - expert0,
        .a_expert0 = ta->row0 / gate->n_row,
        .b_expert0 = tb->row0 / up->n_row,
    };
    return true;
}

static void experts_geglu(const moe_run *r) {
    const weight *gate = gate_of(r->w), *up = up_of(r->w);
    const moe_gpu *m = r->m;
    expert_range e = {0};
    while (next_range(r->w, e.expert0 + e.n, &e)) {
        const moe_geglu_args args = {
            .n_used = r->c->n_expert_used,
            .n_row = r->c->n_ff_expert,
            .n_col = r->c->n_embd,
            .a_rows = gate->n_row,
            .b_rows = up->n_row,
            .b_row0 = gate == up ? r->c->n_ff_expert : 0,
            .a_expert0 = e.a_expert0,
            .b_expert0 = e.b_expert0,
            .expert0 = e.expert0,
            .n_expert = e.n,
            .scale0 = r->il * MOE_N_SCALE * r->c->n_expert,
            .n_scale = r->c->n_expert,
        };
        kernel_run(r->s, &(kernel_call){
                             .kernel = &kernel_moe_geglu,
                             .formats = {gate->type, up->type},
                             .args = &args,
                             .views = {whole(m->picks.order), whole(m->picks.tiles),
                                       whole(m->scales), whole(m->experts_in), whole(e.a->buffer),
                                       whole(e.b->buffer), whole(m->act)},
                             .x = div_up(args.n_row, TILE_ROWS / 2),
                             .y = r->n_tile,
                         });
    }
}

static void experts_down(const moe_run *r) {
    const weight *w = &r->w->down_exps;
    const moe_gpu *m = r->m;
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *tile = &w->tiles[i];
        const moe_down_args args = {
            .n_row = w->n_row,
            .n_col = w->n_col,
            .expert0 = tile->row0 / w->n_row,
            .n_expert = tile->n_row / w->n_row,
            .scale0 = (r->il * MOE_N_SCALE + MOE_SCALE_DOWN) * r->c->n_expert,
        };
        kernel_run(r->s, &(kernel_call){
                             .kernel = &kernel_moe_down,
                             .formats = {w->type},
                             .args = &args,
                             .views = {whole(m->picks.order), whole(m->picks.tiles),
                                       whole(m->scales), whole(m->picks.weight), whole(m->act),
                                       whole(tile->buffer), whole(m->part)},
                             .x = div_up(w->n_row, TILE_ROWS),
                             .y = r->n_tile,
                         });
    }
}

/* parts: rows of m->part a token. */
static void sum_up(const moe_run *r, uint32_t parts) {
    const moe_sum_args args = {
        .n = r->c->n_embd,
        .n_used = parts,
        .w_dense = r->w->post_norm_1.offset,
        .w_experts = r->w->post_norm_2.offset,
        .eps = r->c->rms_eps,
    };
    kernel_run(r->s, &(kernel_call){
                         .kernel = &kernel_moe_sum,
                         .args = &args,
                         .views = {whole(r->t->model->weights.vector_buffer), whole(r->m->dense),
                                   whole(r->m->part), whole(r->t->ffn_out)},
                         .x = r->n_tok,
                     });
}

/* ---- one token: rows by dot products, each workgroup picks the experts for itself ----------- */

/* The dense branch's gate and up rows, and the router's. */
static void one_in(const moe_run *r) {
    const weight *gate = &r->w->gate, *up = &r->w->up, *router = &r->w->router;
    for (uint32_t i = 0; i < gate->n_tile; i++) {
        const weight_tile *a = &gate->tiles[i], *b = &up->tiles[i];
        const bool last = i + 1 == gate->n_tile; /* the router goes with it */
        const moe_one_in_args args = {
            .n_embd = r->c->n_embd,
            .n_row = a->n_row,
            .row0 = a->row0,
            .n_expert = last ? r->c->n_expert : 0,
            .eps = r->c->rms_eps,
            .w_ffn = r->w->ffn_norm.offset,
            .w_router = r->w->router_scale.offset,
            .scale_gate = gate->scale,
            .scale_up = up->scale,
            .scale_router = router->scale / sqrtf((float)r->c->n_embd),
        };
        kernel_run(r->s,
                   &(kernel_call){
                       .kernel = &kernel_moe_one_in,
                       .formats = {gate->type, up->type, router->type},
                       .args = &args,
                       .views = {whole(r->y), whole(r->t->model->weights.vector_buffer),
                                 whole(a->buffer), whole(b->buffer), whole(router->tiles[0].buffer),
                                 whole(r->t->act), whole(r->m->picks.logits)},
                       .x = div_up(args.n_row, ONE_ROWS) + div_up(args.n_expert, ONE_ROWS),
                   });
    }
}

static void one_dense_down(const moe_run *r) {
    const weight *w = &r->w->down;
    const kernel *matvec = w->n_col % 64 ? &kernel_matvec_plain : &kernel_matvec;
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *tile = &w->tiles[i];
        const matvec_args args = {
            .n_row = tile->n_row, .n_col = w->n_col, .out0 = tile->row0, .scale = w->scale};
        kernel_run(r->s, &(kernel_call){
                             .kernel = matvec,
                             .formats = {w->type},
                             .args = &args,
                             .views = {whole(r->t->act), whole(tile->buffer), whole(r->m->dense)},
                             .x = div_up(tile->n_row, ONE_ROWS),
                         });
    }
}

static void one_act(const moe_run *r) {
    const weight *gate = gate_of(r->w), *up = up_of(r->w);
    const moe_gpu *m = r->m;
    expert_range e = {0};
    while (next_range(r->w, e.expert0 + e.n, &e)) {
        const moe_one_act_args args = {
            .n_used = r->c->n_expert_used,
            .n_row = r->c->n_ff_expert,
            .n_embd = r->c->n_embd,
            .a_rows = gate->n_row,
            .b_rows = up->n_row,
            .b_row0 = gate == up ? r->c->n_ff_expert : 0,
            .a_expert0 = e.a_expert0,
            .b_expert0 = e.b_expert0,
            .expert0 = e.expert0,
            .n_expert = e.n,
            .scale0 = r->il * MOE_N_SCALE * r->c->n_expert,
            .n_scale = r->c->n_expert,
            .eps = r->c->rms_eps,
            .w_norm = r->w->pre_norm_2.offset,
        };
        kernel_run(r->s, &(kernel_call){
                             .kernel = &kernel_moe_one_act,
                             .formats = {gate->type, up->type},
                             .args = &args,
                             .views = {whole(r->y), whole(r->t->model->weights.vector_buffer),
                                       whole(m->picks.logits), whole(m->scales), whole(e.a->buffer),
                                       whole(e.b->buffer), whole(m->act)},
                             .x = div_up(args.n_row, ONE_ROWS),
                             .y = args.n_used,
                         });
    }
}

static void one_down(const moe_run *r) {
    const weight *w = &r->w->down_exps;
    const moe_gpu *m = r->m;
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *tile = &w->tiles[i];
        const moe_one_down_args args = {
            .n_row = w->n_row,
            .n_col = w->n_col,
            .n_used = r->c->n_expert_used,
            .n_expert = r->c->n_expert,
            .expert0 = tile->row0 / w->n_row,
            .n_held = tile->n_row / w->n_row,
            .scale0 = (r->il * MOE_N_SCALE + MOE_SCALE_DOWN) * r->c->n_expert,
            .first = i == 0,
        };
        kernel_run(r->s, &(kernel_call){
                             .kernel = &kernel_moe_one_down,
                             .formats = {w->type},
                             .args = &args,
                             .views = {whole(m->picks.logits), whole(m->scales), whole(m->act),
                                       whole(tile->buffer), whole(m->part)},
                             .x = div_up(w->n_row, 2 * ONE_ROWS),
                         });
    }
}

/* In place of the tiled matmuls, which would make 64 tokens. */
static void run_one(const moe_run *r) {
    one_in(r);
    one_dense_down(r);
    one_act(r);
    one_down(r);
    sum_up(r, 1);
}

static void run_many(const moe_run *r) {
    dense_branch(r);
    moe_gpu_route(r->s, r->t->model, r->il, whole(r->y), &r->m->picks, r->n_tok);
    rmsnorm(r, &r->w->pre_norm_2, 1, r->m->experts_in);
    experts_geglu(r);
    experts_down(r);
    sum_up(r, r->c->n_expert_used);
}

void moe_gpu_ffn(text_gpu *t, kernel_steps *s, uint32_t il, gpu_buffer y, uint32_t n_tok) {
    const model_config *c = &t->model->config;
    const moe_run r = {
        .t = t,
        .s = s,
        .m = t->moe,
        .c = c,
        .w = &t->model->weights.layers[il],
        .y = y,
        .il = il,
        .n_tok = n_tok,
        .n_tile = moe_gpu_tiles(c, n_tok),
    };
    const bool adapted =
        lora_gpu_at(t->lora, il, LORA_INPUT_FFN) || lora_gpu_at(t->lora, il, LORA_INPUT_DOWN);
    if (n_tok == 1 && !adapted)
        run_one(&r);
    else
        run_many(&r);
}
