/* back_room: what back_gpu.c computes in: which buffers there are, how large, and how many layers
 * keep what their way back reads. The same code counts their bytes before a run.
 *
 * Layers from `kept` on keep it, those below only what enters them, and are computed again. What a
 * norm, RoPE or GeGLU makes of kept values is made again in any case: that costs less than room.
 *
 * Flow: adapter_gpu.c before, back_gpu.c after. */
#include "train/back_gpu.h"

#include <string.h>

#define LAYER_CALLS 256u                 /* dispatches of a layer, both ways, at most */
#define MAX_BUFFERS 64u                  /* beside those of layers, */
#define DROP_TRIES  100                  /* a browser does not wait */
#define SAVED       (15u + LORA_TARGETS) /* each of which has these */

typedef struct widths {
    uint32_t heads, n_head, kv, n_ff, in, rank;
} widths;

static widths widest(const back_gpu *b) {
    const model_config *c = &b->model->config;
    widths w = {.in = c->n_embd, .rank = 16};
    for (uint32_t il = 0; il < c->n_layer; il++) {
        const layer_config *l = &c->layers[il];
        w.heads = max_u32(w.heads, l->n_head * l->head_dim);
        w.n_head = max_u32(w.n_head, l->n_head);
        w.kv = max_u32(w.kv, l->n_kv * l->head_dim);
        w.n_ff = max_u32(w.n_ff, l->n_ff);
    }
    w.in = max_u32(w.in, max_u32(w.heads, w.n_ff));
    for (uint32_t i = 0; i < lora_slots(b->lora); i++)
        w.rank = max_u32(w.rank, (uint32_t)round_up(lora_slot(b->lora, i)->rank, 16));
    return w;
}

/* n_row rows of n floats; none: no buffer. Nothing is made after a failure. */
static gpu_buffer make(back_gpu *b, uint64_t n_row, uint64_t n) {
    const uint64_t bytes = n_row * n * sizeof(float);
    b->bytes += bytes;
    if (!bytes || !b->gpu || b->error.code) return (gpu_buffer){0};
    const gpu_info *info = &b->gpu->info;
    const uint64_t most =
        info->max_binding < info->max_buffer ? info->max_binding : info->max_buffer;
    if (bytes > most) {
        fail(&b->error, CARAT_E_MEMORY,
             "train: batches of %u tokens need %llu MB in one piece; %s allows %llu MB: train with "
             "shorter samples or smaller batches",
             b->n_max, (unsigned long long)(bytes >> 20), info->name,
             (unsigned long long)(most >> 20));
        return (gpu_buffer){0};
    }
    assert(b->n_buffer < b->max_buffer);
    const gpu_buffer made = gpu_buffer_create(b->gpu, bytes, GPU_STORAGE, "training", &b->error);
    if (made.id) b->buffers[b->n_buffer++] = made;
    return made;
}

/* The same size for each of a NULL-terminated list. */
static void each(back_gpu *b, uint64_t n, gpu_buffer **list) {
    for (; *list; list++) **list = make(b, b->n_max, n);
}

static void allocate_saved(back_gpu *b, const widths *w, saved_gpu *s) {
    const model_config *c = &b->model->config;
    each(b, c->n_embd, (gpu_buffer *[]){&s->o, &s->y, &s->down, NULL});
    each(b, w->heads, (gpu_buffer *[]){&s->q_raw, &s->attn, NULL});
    each(b, w->n_head, (gpu_buffer *[]){&s->lse, NULL});
    each(b, w->kv, (gpu_buffer *[]){&s->k_raw, &s->v_raw, NULL});
    each(b, w->n_ff, (gpu_buffer *[]){&s->gate, &s->up, NULL});
    for (uint32_t i = 0; i < LORA_TARGETS; i++) each(b, w->rank, (gpu_buffer *[]){&s->u[i], NULL});
    s->m = s->down;
    if (c->n_expert) each(b, c->n_embd, (gpu_buffer *[]){&s->sum, &s->m, NULL});
    if (!c->n_ple) return;
    each(b, c->n_ple, (gpu_buffer *[]){&s->ple_gate, NULL});
    each(b, c->n_embd, (gpu_buffer *[]){&s->ple, NULL});
}

/* A layer's own widths where its values are kept, the widest where all layers share them. What
 * enters a layer below the first is not needed later: two buffers take turns. */
static void allocate_layers(back_gpu *b, const widths *w) {
    const model_config *c = &b->model->config;
    saved_gpu shared = {0};
    gpu_buffer turn[2] = {{0}};
    if (b->kept > 0) allocate_saved(b, w, &shared);
    if (b->first > 0) each(b, c->n_embd, (gpu_buffer *[]){&turn[0], &turn[1], NULL});
    for (uint32_t il = 0; il < c->n_layer; il++) {
        const layer_config *l = &c->layers[il];
        saved_gpu *s = &b->layers[il];
        const widths own = {.heads = l->n_head * l->head_dim,
                            .n_head = l->n_head,
                            .kv = l->owns_kv ? l->n_kv * l->head_dim : 0,
                            .n_ff = l->n_ff,
                            .rank = w->rank};
        *s = shared;
        if (il >= b->kept) allocate_saved(b, &own, s);
        s->x = il < b->first ? turn[il % 2] : make(b, b->n_max, c->n_embd);
    }
}

/* K and V of all owners. Gradients only have to wait for their layer where others add to them. */
static void allocate_kv(back_gpu *b, const widths *w) {
    const model_config *c = &b->model->config;
    bool shared[MODEL_MAX_LAYERS] = {0};
    gpu_buffer dk, dv;
    for (uint32_t il = 0; il < c->n_layer; il++)
        if (!c->layers[il].owns_kv) shared[c->layers[il].donor] = true;
    each(b, w->kv, (gpu_buffer *[]){&dk, &dv, NULL});
    for (uint32_t il = 0; il < c->n_layer; il++) {
        const uint32_t width = c->layers[il].n_kv * c->layers[il].head_dim;
        if (!c->layers[il].owns_kv) continue;
        each(b, width, (gpu_buffer *[]){&b->k[il], &b->v[il], NULL});
        b->dk[il] = dk;
        b->dv[il] = dv;
        if (shared[il]) each(b, width, (gpu_buffer *[]){&b->dk[il], &b->dv[il], NULL});
    }
}

static void allocate_work(back_gpu *b, const widths *w) {
    const model_config *c = &b->model->config;
    const uint32_t d = c->n_embd, all = c->n_layer * c->n_ple;
    const bool embed = b->lora->embed.rank != 0;
    each(b, 1, (gpu_buffer *[]){&b->ids, &b->next, &b->index, &b->targets, &b->weights, NULL});
    each(b, 2, (gpu_buffer *[]){&b->span, NULL});
    for (uint32_t il = 0; il < c->n_layer; il++) {
        uint32_t *n_rot = &b->n_rot[c->layers[il].sliding];
        *n_rot = max_u32(*n_rot, c->layers[il].n_rot);
    }
    for (uint32_t i = 0; i < 2; i++)
        each(b, b->n_rot[i] * 2, (gpu_buffer *[]){&b->rope_table[i], &b->rope[i], NULL});
    each(b, d,
         (gpu_buffer *[]){&b->end, &b->n, &b->z, &b->part, &b->r, &b->dx, &b->dpart, &b->dm, &b->dn,
                          NULL});
    each(b, w->heads, (gpu_buffer *[]){&b->q, &b->dq, &b->dq_raw, &b->dattn, NULL});
    /* For keys' gradients a row of heads, for products four of their outputs. */
    b->n_parts = (uint64_t)b->n_max * max_u32(w->heads, min_u32(4 * w->in, PARTS_MOST / b->n_max));
    b->parts = make(b, 1, b->n_parts);
    each(b, w->kv, (gpu_buffer *[]){&b->dk_raw, &b->dv_raw, NULL});
    each(b, w->n_head, (gpu_buffer *[]){&b->delta, NULL});
    each(b, w->n_ff, (gpu_buffer *[]){&b->act, &b->dgate, &b->dup, &b->dact, NULL});
    each(b, c->n_ple, (gpu_buffer *[]){&b->ple_act, &b->dple, &b->dple_act, NULL});
    each(b, all, (gpu_buffer *[]){&b->ple_token, NULL});
    b->e = make(b, 1, ple_buffer_bytes(b->model, b->n_max) / 4);
    if (embed) each(b, all, (gpu_buffer *[]){&b->de, NULL});
    each(b, w->rank, (gpu_buffer *[]){&b->u, &b->du, NULL});
    if (b->lora->dropout > 0) each(b, w->in, (gpu_buffer *[]){&b->dropped, &b->ddropped, NULL});
    gpu_buffer *const rows[] = {&b->rows, &b->normed, &b->drows, &b->dnormed};
    for (size_t i = 0; i < COUNT(rows); i++) *rows[i] = make(b, BACK_HEAD_ROWS, d);
    b->logits = make(b, BACK_HEAD_ROWS, c->n_vocab);
    b->loss_parts = make(b, BACK_HEAD_ROWS, 4ull * LOSS_PARTS(c->n_vocab));
    b->outcome = make(b, 1, b->n_max + c->n_layer + 2);
}

static uint64_t saved_bytes(const back_gpu *b, uint32_t il) {
    back_gpu count = {.model = b->model, .lora = b->lora, .n_max = b->n_max};
    const layer_config *l = &b->model->config.layers[il];
    const widths own = {.heads = l->n_head * l->head_dim,
                        .n_head = l->n_head,
                        .kv = l->owns_kv ? l->n_kv * l->head_dim : 0,
                        .n_ff = l->n_ff,
                        .rank = widest(b).rank};
    saved_gpu s;
    allocate_saved(&count, &own, &s);
    return count.bytes;
}

/* All buffers, or with gpu NULL their bytes. */
static void allocate(back_gpu *b) {
    const widths w = widest(b);
    allocate_layers(b, &w);
    allocate_kv(b, &w);
    allocate_work(b, &w);
    if (b->model->config.n_expert) b->bytes += experts_gpu_bytes(b->model, b->n_max);
}

/* The lowest layer that keeps its values so that all is within the budget. Layers without a way
 * back never do. */
static uint32_t choose_kept(const model *m, const lora *l, uint32_t n_max, uint64_t budget) {
    const uint32_t n_layer = m->config.n_layer, first = back_first_layer(l);
    back_gpu count = {.model = m, .lora = l, .n_max = n_max, .first = first, .kept = n_layer};
    allocate(&count);
    uint64_t bytes = count.bytes;
    uint32_t kept = n_layer;
    while (kept > first && bytes + saved_bytes(&count, kept - 1) <= budget)
        bytes += saved_bytes(&count, --kept);
    return kept;
}

uint64_t back_gpu_estimate(const model *m, const lora *l, uint32_t n_max, uint64_t budget) {
    back_gpu count = {.model = m, .lora = l, .n_max = n_max, .first = back_first_layer(l)};
    count.kept = choose_kept(m, l, n_max, budget);
    allocate(&count);
    return count.bytes;
}

/* cos and sin of every position that a sample can have. */
static bool write_rope(back_gpu *b) {
    for (int i = 0; i < 2; i++) {
        const uint64_t n = (uint64_t)b->n_max * b->n_rot[i] * 2;
        arena *brief = n ? arena_create(&b->error) : NULL;
        float *rows = brief ? arena_alloc(brief, n, sizeof *rows) : NULL;
        if (n && !rows) {
            arena_free(brief);
            return fail_memory(&b->error, n * sizeof *rows, "rotations");
        }
        if (!n) continue;
        model_rope_rows(b->model, i, 0, b->n_max, rows);
        gpu_write(b->gpu, b->rope_table[i], 0, rows, (size_t)n * sizeof *rows);
        arena_free(brief);
    }
    return true;
}

static bool open_host(back_gpu *b, kernel_cache *cache, carat_error *err) {
    const model_config *c = &b->model->config;
    b->max_buffer = MAX_BUFFERS + c->n_layer * (SAVED + 4);
    b->buffers = arena_alloc(b->memory, b->max_buffer, sizeof *b->buffers);
    b->words = arena_alloc(b->memory, 2ull * b->n_max, sizeof *b->words);
    if (!b->buffers || !b->words)
        return fail_memory(err, 8ull * b->n_max, "training on the device");
    if (!ple_host_create(b->memory, b->model, b->n_max, &b->ple, err)) return false;
    b->steps = kernel_steps_create(cache, (c->n_layer + 1) * LAYER_CALLS, err);
    b->head_steps = b->steps ? kernel_steps_create(cache, LAYER_CALLS, err) : NULL;
    return b->head_steps &&
           (!c->n_expert || experts_gpu_create(b->model, b->gpu, b->n_max, &b->experts, err));
}

void back_drop_read(gpu *g, gpu_ticket t, void *dst) {
    carat_error e = {0};
    for (int i = 0; i < DROP_TRIES && gpu_poll(g, t, dst, &e) == GPU_PENDING; i++) gpu_wait(g);
}

bool back_gpu_create(const model *m, gpu *g, kernel_cache *cache, const adapter_gpu *adapter,
                     uint32_t n_max, uint64_t budget, back_gpu **out, carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return false;
    back_gpu *b = arena_alloc(memory, 1, sizeof *b);
    if (!b) {
        arena_free(memory);
        return fail_memory(err, sizeof *b, "training on the device");
    }
    *b = (back_gpu){.model = m,
                    .gpu = g,
                    .adapter = adapter,
                    .lora = adapter->lora,
                    .memory = memory,
                    .n_max = n_max,
                    .first = back_first_layer(adapter->lora)};
    b->kept = choose_kept(m, b->lora, n_max, budget);
    bool ok = open_host(b, cache, err);
    if (ok) allocate(b);
    ok = ok && !b->error.code && write_rope(b);
    if (!ok) {
        if (b->error.code) fail(err, b->error.code, "%s", b->error.message);
        back_gpu_free(b);
        return false;
    }
    *out = b;
    return true;
}

void back_gpu_free(back_gpu *b) {
    if (!b) return;
    experts_gpu_free(b->experts);
    kernel_steps_free(b->head_steps);
    kernel_steps_free(b->steps);
    for (uint32_t i = 0; i < b->n_buffer; i++) gpu_buffer_free(b->gpu, b->buffers[i]);
    arena_free(b->memory);
}
