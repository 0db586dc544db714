/* adapter_gpu: the adapter that learns, on the device: its values, gradients and moments, a buffer
 * of each for a layer. On the host they are one array without gaps (lora.h); here each matrix
 * starts where a view may and the rank is filled up, since the tiled matmuls want that.
 *
 * Flow: ops_train.h before; back_gpu.c reads and writes the pairs, train_gpu.c takes the steps. */
#include "train/back_gpu.h"

#include <math.h>
#include <string.h>

#define ALIGN     64u        /* floats; views start at multiples of 256 bytes */
#define RANK_STEP 16u        /* see ops_train.h */
#define PIECE     (1u << 21) /* floats of one write or read */
#define PER_GROUP 3u         /* values and two moments are kept */

/* ---- layout ---- */

static uint32_t group_of(const lora *l, uint32_t slot) {
    const uint32_t n = l->n_layer * LORA_TARGETS;
    return slot < n ? slot / LORA_TARGETS : l->n_layer + slot - n;
}

static uint64_t floats_a(const lora_pair *p) {
    return round_up(round_up(p->rank, RANK_STEP) * p->n_col, ALIGN);
}

static uint64_t floats_b(const lora_pair *p) {
    return round_up(round_up(p->rank, RANK_STEP) * p->n_row, ALIGN);
}

static gpu_view view_at(gpu_buffer b, uint64_t at, uint64_t n) {
    return (gpu_view){.buffer = b, .offset = at * 4, .size = n * 4};
}

/* Pair i, from `at` on in its group. */
static void place(adapter_gpu *a, uint32_t i, uint64_t at) {
    const lora_pair *p = lora_slot(a->lora, i);
    const group_gpu *g = &a->groups[group_of(a->lora, i)];
    const uint32_t rank = (uint32_t)round_up(p->rank, RANK_STEP);
    const uint64_t n_a = (uint64_t)rank * p->n_col, n_b = (uint64_t)rank * p->n_row;
    const uint64_t at_b = at + floats_a(p);
    a->pairs[i] = (pair_gpu){
        .rank = rank,
        .scale = p->scale,
        .a = {view_at(g->values, at, n_a), rank, p->n_col},
        .b = {view_at(g->values, at_b, n_b), p->n_row, rank},
        .da = {view_at(g->grad, at, n_a), rank, p->n_col},
        .db = {view_at(g->grad, at_b, n_b), p->n_row, rank},
    };
}

/* ---- to the device and back ---- */

typedef void (*matrix_fn)(float *host, float *device, uint64_t n);

static void to_device(float *host, float *device, uint64_t n) {
    memcpy(device, host, (size_t)n * 4);
}
static void to_host(float *host, float *device, uint64_t n) { memcpy(host, device, (size_t)n * 4); }

static void drop_stage(adapter_gpu *a) {
    arena_free(a->way);
    a->way = NULL;
    a->stage = NULL;
}

static bool take_stage(adapter_gpu *a, carat_error *err) {
    if (a->stage) return true;
    a->way = arena_create(err);
    if (a->way) a->stage = arena_alloc(a->way, a->n_stage, sizeof *a->stage);
    if (a->stage) return true;
    drop_stage(a);
    return fail_memory(err, a->n_stage * sizeof *a->stage,
                       "an adapter on its way to or from the device");
}

/* Where one of a group's three buffers is staged. */
static float *stage_of(const adapter_gpu *a, uint32_t group, uint32_t which) {
    const group_gpu *g = &a->groups[group];
    return a->stage + PER_GROUP * g->begin + which * g->n;
}

/* Goes through a group's rows: where they are in an array like lora->values, and in a stage. */
static void each_row(const adapter_gpu *a, uint32_t group, float *host, float *stage,
                     matrix_fn fn) {
    const lora *l = a->lora;
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i);
        if (!p->rank || group_of(l, i) != group) continue;
        float *in_a = host + (p->a - l->values), *in_b = host + (p->b - l->values);
        float *at_a = stage + a->pairs[i].a.view.offset / 4;
        float *at_b = stage + a->pairs[i].b.view.offset / 4;
        fn(in_a, at_a, (uint64_t)p->rank * p->n_col);
        for (uint32_t r = 0; r < p->n_row; r++)
            fn(in_b + (size_t)r * p->rank, at_b + (size_t)r * a->pairs[i].rank, p->rank);
    }
}

static gpu_buffer kept(const group_gpu *g, uint32_t which) {
    return which == 0 ? g->values : which == 1 ? g->m : g->v;
}

static float *host_of(const adapter_gpu *a, uint32_t which) {
    return which == 0 ? a->lora->values : which == 1 ? a->moments->m : a->moments->v;
}

static void put_group(const adapter_gpu *a, uint32_t group) {
    const group_gpu *g = &a->groups[group];
    for (uint32_t which = 0; which < PER_GROUP && g->n; which++) {
        float *stage = stage_of(a, group, which);
        memset(stage, 0, (size_t)g->n * sizeof(float));
        each_row(a, group, host_of(a, which), stage, to_device);
        for (uint64_t at = 0; at < g->n; at += PIECE) {
            const uint64_t n = g->n - at < PIECE ? g->n - at : PIECE;
            gpu_write(a->gpu, kept(g, which), at * 4, stage + at, (size_t)n * 4);
        }
    }
}

/* A piece more; the last of a buffer goes on to the next one. */
static bool fetch_piece(adapter_gpu *a, bool *busy, carat_error *err) {
    const uint32_t group = a->at / PER_GROUP, which = a->at % PER_GROUP;
    const group_gpu *g = &a->groups[group];
    const uint64_t left = g->n - a->read, n = left < PIECE ? left : PIECE;
    *busy = false;
    if (!left) {
        a->read = 0;
        a->at++;
        return true;
    }
    if (!a->ticket.id)
        a->ticket = gpu_read(a->gpu, kept(g, which), a->read * 4, (size_t)n * 4, err);
    if (!a->ticket.id) return false;
    const gpu_poll_result r = gpu_poll(a->gpu, a->ticket, stage_of(a, group, which) + a->read, err);
    *busy = r == GPU_PENDING;
    if (*busy) return true;
    a->ticket = (gpu_ticket){0};
    a->read += n;
    return r == GPU_READY;
}

bool adapter_gpu_fetch(adapter_gpu *a, bool *busy, carat_error *err) {
    *busy = false;
    if (!take_stage(a, err)) return false;
    while (a->at < a->n_group * PER_GROUP) {
        if (!fetch_piece(a, busy, err)) {
            a->at = 0;
            a->read = 0;
            drop_stage(a);
            return false;
        }
        if (*busy) return true;
    }
    for (uint32_t i = 0; i < a->n_group * PER_GROUP; i++) {
        const uint32_t group = i / PER_GROUP, which = i % PER_GROUP;
        if (a->groups[group].n)
            each_row(a, group, host_of(a, which), stage_of(a, group, which), to_host);
    }
    drop_stage(a);
    a->at = 0;
    return true;
}

/* ---- creating ---- */

static bool make_buffer(adapter_gpu *a, uint64_t n, gpu_buffer *out, carat_error *err) {
    *out = gpu_buffer_create(a->gpu, n * 4, GPU_STORAGE, "an adapter that learns", err);
    a->bytes += n * 4;
    return out->id != 0;
}

static bool make_groups(adapter_gpu *a, carat_error *err) {
    const lora *l = a->lora;
    uint64_t n_all = 0;
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i);
        if (p->rank) a->groups[group_of(l, i)].n += floats_a(p) + floats_b(p);
    }
    for (uint32_t i = 0; i < a->n_group; i++) {
        group_gpu *g = &a->groups[i];
        g->begin = n_all;
        n_all += g->n;
        if (g->n * 4 > a->gpu->info.max_buffer || g->n * 4 > a->gpu->info.max_binding)
            return fail(err, CARAT_E_MEMORY,
                        "train: an adapter of this rank needs %llu MB in one piece; %s allows "
                        "%llu MB: choose a lower rank",
                        (unsigned long long)(g->n >> 18), a->gpu->info.name,
                        (unsigned long long)(a->gpu->info.max_binding >> 20));
        if (g->n &&
            (!make_buffer(a, g->n, &g->values, err) || !make_buffer(a, g->n, &g->grad, err) ||
             !make_buffer(a, g->n, &g->m, err) || !make_buffer(a, g->n, &g->v, err)))
            return false;
    }
    a->n_stage = PER_GROUP * n_all;
    return true;
}

static void place_all(adapter_gpu *a) {
    const lora *l = a->lora;
    uint64_t at = 0;
    for (uint32_t i = 0, group = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i);
        if (group_of(l, i) != group) at = 0;
        group = group_of(l, i);
        if (!p->rank) continue;
        place(a, i, at);
        at += floats_a(p) + floats_b(p);
    }
}

bool adapter_gpu_create(gpu *g, lora *l, adamw *moments, adapter_gpu **out, carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return false;
    adapter_gpu *a = arena_alloc(memory, 1, sizeof *a);
    bool ok = a || fail_memory(err, sizeof *a, "an adapter that learns");
    if (ok) {
        *a = (adapter_gpu){
            .memory = memory, .gpu = g, .lora = l, .moments = moments, .n_group = l->n_layer + 2};
        a->groups = arena_alloc(memory, a->n_group, sizeof *a->groups);
        a->pairs = arena_alloc(memory, lora_slots(l), sizeof *a->pairs);
        ok = (a->groups && a->pairs) || fail_memory(err, sizeof *a, "an adapter that learns");
        ok = ok && make_groups(a, err) && take_stage(a, err);
    }
    if (!ok) {
        if (a) adapter_gpu_free(a);
        if (!a) arena_free(memory);
        return false;
    }
    place_all(a);
    for (uint32_t i = 0; i < a->n_group; i++) put_group(a, i);
    drop_stage(a);
    *out = a;
    return true;
}

void adapter_gpu_free(adapter_gpu *a) {
    if (!a) return;
    if (a->ticket.id)
        back_drop_read(a->gpu, a->ticket,
                       stage_of(a, a->at / PER_GROUP, a->at % PER_GROUP) + a->read);
    for (uint32_t i = 0; a->groups && i < a->n_group; i++) {
        const group_gpu *g = &a->groups[i];
        gpu_buffer_free(a->gpu, g->values);
        gpu_buffer_free(a->gpu, g->grad);
        gpu_buffer_free(a->gpu, g->m);
        gpu_buffer_free(a->gpu, g->v);
    }
    drop_stage(a);
    arena_free(a->memory);
}

uint64_t adapter_gpu_estimate(const lora *l) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i);
        if (p->rank) n += floats_a(p) + floats_b(p);
    }
    return 4 * n * sizeof(float);
}

/* ---- steps ---- */

void adapter_gpu_clear(const adapter_gpu *a, kernel_steps *s) {
    for (uint32_t i = 0; i < a->n_group; i++)
        if (a->groups[i].n) op_zero(s, whole(a->groups[i].grad), a->groups[i].n);
}

void adapter_gpu_norms(const adapter_gpu *a, kernel_steps *s, gpu_view out, uint32_t at0) {
    for (uint32_t i = 0; i < a->n_group; i++)
        if (a->groups[i].n)
            op_sum_squares(s, whole(a->groups[i].grad), a->groups[i].n, out, at0 + i);
}

void adapter_gpu_step(const adapter_gpu *a, kernel_steps *s, float grad_scale, double lr) {
    adamw *o = a->moments;
    o->step++;
    const double bias1 = 1 - pow(o->beta1, o->step), bias2 = 1 - pow(o->beta2, o->step);
    for (uint32_t i = 0; i < a->n_group; i++) {
        const group_gpu *g = &a->groups[i];
        const adamw_op op = {
            .values = whole(g->values),
            .grad = whole(g->grad),
            .m = whole(g->m),
            .v = whole(g->v),
            .grad_scale = grad_scale,
            .keep = (float)(1 - lr * o->weight_decay),
            .rate = (float)(lr / bias1),
            .b1 = (float)(1 - o->beta1),
            .b2 = (float)o->beta2,
            .c2 = (float)(1 - o->beta2),
            .root = (float)sqrt(bias2),
            .eps = (float)o->eps,
        };
        if (g->n) op_adamw(s, &op, g->n);
    }
}
