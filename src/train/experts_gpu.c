/* experts_gpu: a mixture of experts in training, on the device. Every token is read by
 * n_expert_used experts; what belongs to one of these selections is a row, a token's beside each
 * other. moe_lists.wgsl groups the rows by expert for the matmuls.
 *
 * Numbers in parentheses are the equations of docs/model.md. Flow: called by back_gpu.c. */
#include "train/experts_gpu.h"

#include "model/moe_gpu.h"
#include "train/ops_train.h"

#include "kernels.h"

#include <math.h>

#define TILE       64u          /* of lib/tile.wgsl */
#define PIECE_MOST (128u << 20) /* bytes that every device can bind */

/* n_row = n_chunk * n_expert_used */
struct experts_gpu {
    arena *memory;
    const model *model;
    gpu *gpu;
    uint32_t n_chunk; /* tokens at once */
    moe_picks picks;
    gpu_buffer z, dz;    /* [n_chunk, n_embd] (18) */
    gpu_buffer gate, up; /* [n_row, n_ff_expert] */
    gpu_buffer dgate, dup;
    gpu_buffer act;     /* the same; its gradient later */
    gpu_buffer part;    /* [n_row, n_embd] what each expert makes; dz of each later */
    gpu_buffer dlogits; /* [n_chunk, n_expert] */
    gpu_buffer scales;  /* [n_layer, MOE_N_SCALE, n_expert] */
};

/* ---- memory ---- */

typedef struct expert_buffer {
    gpu_buffer *buffer;
    uint64_t n; /* words */
    const char *label;
} expert_buffer;

#define N_BUFFER 14

/* Many tokens fill the experts' tiles; the largest buffer must fit a binding. */
static uint32_t chunk_tokens(const model_config *c, uint32_t n_max) {
    const uint64_t width = (uint64_t)c->n_expert_used * max_u32(c->n_embd, c->n_ff_expert);
    const uint64_t n = PIECE_MOST / (4 * width) / TILE * TILE;
    return min_u32(n_max, max_u32((uint32_t)n, TILE));
}

static void list_buffers(experts_gpu *x, const model_config *c, uint32_t n_tok,
                         expert_buffer out[N_BUFFER]) {
    const uint64_t embd = (uint64_t)n_tok * c->n_embd, n_row = (uint64_t)n_tok * c->n_expert_used;
    const uint64_t ff = n_row * c->n_ff_expert, logits = (uint64_t)n_tok * c->n_expert;
    const expert_buffer buffers[N_BUFFER] = {
        {&x->picks.logits, logits, "router logits"},
        {&x->picks.ids, n_row, "picked experts"},
        {&x->picks.weight, n_row, "weights of experts"},
        {&x->picks.order, n_row, "order of experts"},
        {&x->picks.tiles, 4ull * moe_gpu_tiles(c, n_tok), "tiles of experts"},
        {&x->z, embd, "the experts' input"},
        {&x->dz, embd, "its gradient"},
        {&x->gate, ff, "the experts' gates"},
        {&x->up, ff, "the experts' ups"},
        {&x->dgate, ff, "gradients of gates"},
        {&x->dup, ff, "gradients of ups"},
        {&x->act, ff, "the experts' activations"},
        {&x->part, n_row * c->n_embd, "the experts' outputs"},
        {&x->dlogits, logits, "gradients of logits"},
    };
    for (uint32_t i = 0; i < N_BUFFER; i++) out[i] = buffers[i];
}

static uint64_t scale_bytes(const model_config *c) {
    return (uint64_t)c->n_layer * MOE_N_SCALE * c->n_expert * sizeof(float);
}

uint64_t experts_gpu_bytes(const model *m, uint32_t n_max) {
    const model_config *c = &m->config;
    experts_gpu none;
    expert_buffer buffers[N_BUFFER];
    list_buffers(&none, c, chunk_tokens(c, n_max), buffers);
    uint64_t n = scale_bytes(c);
    for (uint32_t i = 0; i < N_BUFFER; i++) n += buffers[i].n * 4;
    return n;
}

static bool make_buffers(experts_gpu *x, carat_error *err) {
    const model_config *c = &x->model->config;
    expert_buffer buffers[N_BUFFER];
    list_buffers(x, c, x->n_chunk, buffers);
    for (uint32_t i = 0; i < N_BUFFER; i++) {
        const expert_buffer *b = &buffers[i];
        *b->buffer = gpu_buffer_create(x->gpu, b->n * 4, GPU_STORAGE, b->label, err);
        if (!b->buffer->id) return false;
    }
    x->scales = gpu_buffer_create(x->gpu, scale_bytes(c), GPU_STORAGE, "the experts' scales", err);
    return x->scales.id != 0;
}

static void write_scales(experts_gpu *x) {
    const model_config *c = &x->model->config;
    float scales[MOE_N_SCALE * MOE_MAX_EXPERTS];
    const size_t bytes = sizeof(float) * MOE_N_SCALE * c->n_expert;
    for (uint32_t il = 0; il < c->n_layer; il++) {
        if (!c->layers[il].moe) continue;
        moe_gpu_scales(&x->model->weights.layers[il], c->n_expert, scales);
        gpu_write(x->gpu, x->scales, il * bytes, scales, bytes);
    }
}

bool experts_gpu_create(const model *m, gpu *g, uint32_t n_max, experts_gpu **out,
                        carat_error *err) {
    if (!moe_gpu_check(m, err)) return false;
    arena *memory = arena_create(err);
    if (!memory) return false;
    experts_gpu *x = arena_alloc(memory, 1, sizeof *x);
    if (!x) {
        arena_free(memory);
        return fail_memory(err, sizeof *x, "the experts");
    }
    *x = (experts_gpu){
        .memory = memory, .model = m, .gpu = g, .n_chunk = chunk_tokens(&m->config, n_max)};
    if (!make_buffers(x, err)) {
        experts_gpu_free(x);
        return false;
    }
    write_scales(x);
    *out = x;
    return true;
}

void experts_gpu_free(experts_gpu *x) {
    expert_buffer buffers[N_BUFFER];
    if (!x) return;
    list_buffers(x, &x->model->config, x->n_chunk, buffers);
    for (uint32_t i = 0; i < N_BUFFER; i++) gpu_buffer_free(x->gpu, *buffers[i].buffer);
    gpu_buffer_free(x->gpu, x->scales);
    arena_free(x->memory);
}

/* ---- matrices ---- */

typedef struct experts_run {
    const experts_gpu *x;
    kernel_steps *s;
    const model_config *c;
    const layer_weights *w;
    gpu_view y;
    uint32_t il, n_tok;
} experts_run;

/* n_row rows of each expert's matrix, from row0 on; scale: its row of the scales. */
typedef struct expert_rows {
    const weight *w;
    uint32_t row0, n_row, scale;
} expert_rows;

static expert_rows gate_rows(const experts_run *r) {
    const weight *fused = &r->w->gate_up_exps, *w = fused->tensor ? fused : &r->w->gate_exps;
    return (expert_rows){w, 0, r->c->n_ff_expert, MOE_SCALE_GATE};
}

static expert_rows up_rows(const experts_run *r) {
    const weight *fused = &r->w->gate_up_exps;
    if (fused->tensor)
        return (expert_rows){fused, r->c->n_ff_expert, r->c->n_ff_expert, MOE_SCALE_UP};
    return (expert_rows){&r->w->up_exps, 0, r->c->n_ff_expert, MOE_SCALE_UP};
}

static expert_rows down_rows(const experts_run *r) {
    return (expert_rows){&r->w->down_exps, 0, r->w->down_exps.n_row, MOE_SCALE_DOWN};
}

/* The arguments of a product with a tile of m, either way: the one back has two more. */
_Static_assert(offsetof(back_moe_matmul_args, weighted) == sizeof(moe_matmul_args), "a beginning");
static back_moe_matmul_args product_args(const experts_run *r, const expert_rows *m,
                                         const weight_tile *tile, bool by_token) {
    return (back_moe_matmul_args){
        .n_row = m->n_row,
        .n_col = m->w->n_col,
        .row0 = m->row0,
        .expert_rows = m->w->n_row,
        .expert0 = tile->row0 / m->w->n_row,
        .n_expert = tile->n_row / m->w->n_row,
        .scale0 = (r->il * MOE_N_SCALE + m->scale) * r->c->n_expert,
        .n_share = by_token ? r->c->n_expert_used : 1,
    };
}

/* out [n_row, m.n_row] = x m^T; x has a row a token where by_token, else one for each of out's. */
static void multiply(const experts_run *r, expert_rows m, gpu_buffer x, bool by_token,
                     gpu_buffer out) {
    const moe_picks *p = &r->x->picks;
    for (uint32_t i = 0; i < m.w->n_tile; i++) {
        const weight_tile *tile = &m.w->tiles[i];
        const back_moe_matmul_args args = product_args(r, &m, tile, by_token);
        kernel_run(r->s, &(kernel_call){
                             .kernel = &kernel_moe_matmul,
                             .formats = {m.w->type},
                             .args = &args,
                             .views = {whole(p->order), whole(p->tiles), whole(r->x->scales),
                                       whole(x), whole(tile->buffer), whole(out)},
                             .x = div_up(m.n_row, TILE),
                             .y = moe_gpu_tiles(r->c, r->n_tok),
                         });
    }
}

/* din [n_row, m.n_col] (add) = dout m; dout has a row for each of din's or, where by_token, a row a
 * token, which counts for each of its experts as much as the expert does. */
static void multiply_back(const experts_run *r, expert_rows m, gpu_view dout, bool by_token,
                          gpu_buffer din, bool add) {
    const moe_picks *p = &r->x->picks;
    for (uint32_t i = 0; i < m.w->n_tile; i++) {
        const weight_tile *tile = &m.w->tiles[i];
        back_moe_matmul_args args = product_args(r, &m, tile, by_token);
        args.weighted = by_token;
        args.add = add;
        kernel_run(r->s, &(kernel_call){
                             .kernel = &kernel_back_moe_matmul,
                             .formats = {m.w->type},
                             .args = &args,
                             .views = {whole(p->order), whole(p->tiles), whole(r->x->scales),
                                       whole(p->weight), dout, whole(tile->buffer), whole(din)},
                             .x = div_up(m.w->n_col, TILE),
                             .y = moe_gpu_tiles(r->c, r->n_tok),
                         });
    }
}

/* ---- a layer ---- */

/* out [n_tok, n_embd]: the sum of a token's rows of part, each as much as its expert counts. */
static void mix(const experts_run *r, bool weighted, gpu_view out) {
    const moe_mix_args args = {
        .n = r->c->n_embd, .n_used = r->c->n_expert_used, .weighted = weighted};
    kernel_run(r->s, &(kernel_call){.kernel = &kernel_moe_mix,
                                    .args = &args,
                                    .views = {whole(r->x->picks.weight), whole(r->x->part), out},
                                    .x = div_up(args.n, 1024),
                                    .y = r->n_tok});
}

/* (16)-(19): picks, gate, up, part */
static void experts(const experts_run *r) {
    const experts_gpu *x = r->x;
    const uint32_t n_ff = r->c->n_ff_expert, n_row = r->n_tok * r->c->n_expert_used;
    const geglu_up up = {.view = whole(x->up), .stride = n_ff};
    moe_gpu_route(r->s, x->model, r->il, r->y, &x->picks, r->n_tok);
    op_rmsnorm(r->s, x->model->weights.vector_buffer, &r->w->pre_norm_2, r->c->rms_eps, 1, r->y,
               whole(x->z), r->n_tok);
    multiply(r, gate_rows(r), x->z, true, x->gate);
    multiply(r, up_rows(r), x->z, true, x->up);
    op_geglu(r->s, whole(x->gate), &up, whole(x->act), n_row, n_ff);
    multiply(r, down_rows(r), x->act, false, x->part);
}

/* dy += what comes through z */
static void input_back(const experts_run *r, gpu_view dsum, gpu_view dy) {
    const experts_gpu *x = r->x;
    const uint32_t n_ff = r->c->n_ff_expert, n_row = r->n_tok * r->c->n_expert_used;
    const geglu_up up = {.view = whole(x->up), .stride = n_ff};
    multiply_back(r, down_rows(r), dsum, true, x->act, false);
    op_back_geglu(r->s, whole(x->gate), &up, whole(x->act), whole(x->dgate), whole(x->dup), n_row,
                  n_ff);
    multiply_back(r, gate_rows(r), whole(x->dgate), false, x->part, false);
    multiply_back(r, up_rows(r), whole(x->dup), false, x->part, true);
    mix(r, false, whole(x->dz));
    op_back_rmsnorm(r->s, x->model->weights.vector_buffer, &r->w->pre_norm_2, r->c->n_embd,
                    r->c->rms_eps, r->y, whole(x->dz), dy, r->n_tok, true);
}

/* dy += what comes through the router, as long as part is what the experts make */
static void router_back(const experts_run *r, gpu_view dsum, gpu_view dy) {
    const experts_gpu *x = r->x;
    const back_moe_topk_args args = {
        .n = r->c->n_embd,
        .n_used = r->c->n_expert_used,
        .n_expert = r->c->n_expert,
        .scale = 1 / sqrtf((float)r->c->n_embd),
    };
    kernel_run(r->s, &(kernel_call){.kernel = &kernel_back_moe_topk,
                                    .args = &args,
                                    .views = {whole(x->picks.ids), whole(x->picks.weight),
                                              whole(x->part), dsum, whole(x->dlogits)},
                                    .x = r->n_tok});
    op_back_matmul(r->s, &r->w->router, (parts_gpu){0}, whole(x->dlogits), whole(x->dz), r->n_tok,
                   false);
    op_back_rmsnorm(r->s, x->model->weights.vector_buffer, &r->w->router_scale, r->c->n_embd,
                    r->c->rms_eps, r->y, whole(x->dz), dy, r->n_tok, true);
}

/* Rows of n_embd from token t on. */
static gpu_view rows_from(const model_config *c, gpu_view v, uint32_t t) {
    return (gpu_view){v.buffer, v.offset + (uint64_t)t * c->n_embd * sizeof(float), 0};
}

static experts_run run_from(const experts_gpu *x, kernel_steps *s, uint32_t il, gpu_view y,
                            uint32_t t, uint32_t n_tok) {
    const model_config *c = &x->model->config;
    return (experts_run){.x = x,
                         .s = s,
                         .c = c,
                         .w = &x->model->weights.layers[il],
                         .y = rows_from(c, y, t),
                         .il = il,
                         .n_tok = min_u32(x->n_chunk, n_tok - t)};
}

void experts_gpu_forward(experts_gpu *x, kernel_steps *s, uint32_t il, gpu_view y, gpu_view sum,
                         uint32_t n_tok) {
    for (uint32_t t = 0; t < n_tok; t += x->n_chunk) {
        const experts_run r = run_from(x, s, il, y, t, n_tok);
        experts(&r);
        mix(&r, true, rows_from(r.c, sum, t));
    }
}

void experts_gpu_backward(experts_gpu *x, kernel_steps *s, uint32_t il, gpu_view y, gpu_view dsum,
                          gpu_view dy, uint32_t n_tok) {
    for (uint32_t t = 0; t < n_tok; t += x->n_chunk) {
        const experts_run r = run_from(x, s, il, y, t, n_tok);
        const gpu_view given = rows_from(r.c, dsum, t), into = rows_from(r.c, dy, t);
        experts(&r);
        router_back(&r, given, into);
        input_back(&r, given, into);
    }
}
