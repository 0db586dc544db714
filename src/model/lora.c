/* lora: making an adapter, and applying it on the CPU. Does not know files.
 *
 * Flow: lora_read.c or a new plan before; text_cpu.c and train/ after. */
#include "model/lora.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

const char *const lora_names[LORA_NAMES] = {"q",  "k",    "v",     "o",   "gate",
                                            "up", "down", "embed", "head"};

/* ---- slots ---- */

uint32_t lora_slots(const lora *l) { return l->n_layer * LORA_TARGETS + 2; }

lora_pair *lora_slot(const lora *l, uint32_t i) {
    const uint32_t n = l->n_layer * LORA_TARGETS;
    if (i < n) return &l->layers[i];
    return (lora_pair *)(i == n ? &l->embed : &l->head);
}

const weight *lora_weight(const model *m, uint32_t il, lora_target p) {
    const layer_config *c = &m->config.layers[il];
    const layer_weights *w = &m->weights.layers[il];
    switch (p) {
    case LORA_Q:
        return &w->q;
    case LORA_K:
        return c->owns_kv ? &w->k : NULL;
    case LORA_V:
        return c->owns_kv && !c->k_eq_v ? &w->v : NULL;
    case LORA_OUT:
        return &w->out;
    case LORA_GATE:
        return &w->gate;
    case LORA_UP:
        return &w->up;
    case LORA_DOWN:
        return &w->down;
    case LORA_TARGETS:
        break;
    }
    return NULL;
}

/* ---- making ---- */

static void set_size(lora_pair *p, const weight *w) {
    p->n_col = w ? w->n_col : 0;
    p->n_row = w ? w->n_row : 0;
}

bool lora_empty(arena *a, const model *m, lora **out, carat_error *err) {
    lora *l = arena_alloc(a, 1, sizeof *l);
    const uint32_t n = m->config.n_layer * LORA_TARGETS;
    lora_pair *layers = arena_alloc(a, n, sizeof *layers);
    if (!l || !layers) return fail_memory(err, n * sizeof *layers, "an adapter");
    *l = (lora){.model = m, .n_layer = m->config.n_layer, .layers = layers};
    for (uint32_t il = 0; il < l->n_layer; il++)
        for (lora_target p = 0; p < LORA_TARGETS; p++)
            set_size(lora_at(l, il, p), lora_weight(m, il, p));
    set_size(&l->head, m->weights.output);
    l->embed.n_col = m->config.n_vocab;
    l->embed.n_row = m->config.n_embd;
    *out = l;
    return true;
}

bool lora_check_rank(uint64_t rank, const char *name, carat_error *err) {
    if (rank && rank <= LORA_MAX_RANK) return true;
    return fail(err, CARAT_E_ARGUMENT, "lora: %s: a rank of %" PRIu64 "; 1 to %u are possible",
                name, rank, LORA_MAX_RANK);
}

bool lora_allocate(arena *a, lora *l, carat_error *err) {
    l->n_value = 0;
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        lora_pair *p = lora_slot(l, i);
        if (!p->rank) continue;
        assert(p->n_col && p->rank <= LORA_MAX_RANK);
        l->n_value += (uint64_t)p->rank * ((uint64_t)p->n_col + p->n_row);
        p->scale = p->alpha / (l->rslora ? sqrtf((float)p->rank) : (float)p->rank);
    }
    float *at = l->values = arena_alloc(a, l->n_value, sizeof *at);
    if (!at) return fail_memory(err, l->n_value * sizeof *at, "an adapter");
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        lora_pair *p = lora_slot(l, i);
        if (!p->rank) continue;
        p->a = at;
        p->b = p->a + (size_t)p->rank * p->n_col;
        at = p->b + (size_t)p->rank * p->n_row;
    }
    return true;
}

bool lora_like(arena *a, const lora *l, lora **out, carat_error *err) {
    if (!lora_empty(a, l->model, out, err)) return false;
    for (uint32_t i = 0; i < lora_slots(l); i++) *lora_slot(*out, i) = *lora_slot(l, i);
    (*out)->rslora = l->rslora;
    (*out)->dropout = l->dropout;
    return lora_allocate(a, *out, err);
}

bool lora_copy(arena *a, const lora *l, lora **out, carat_error *err) {
    if (!lora_like(a, l, out, err)) return false;
    memcpy((*out)->values, l->values, (size_t)l->n_value * sizeof *l->values);
    return true;
}

/* A as PEFT begins it: uniform in +-1/sqrt(n_col). B is zero, so that nothing changes at first. */
static void draw(lora_pair *p, uint64_t key) {
    const float bound = 1 / sqrtf((float)p->n_col);
    for (size_t i = 0; i < (size_t)p->rank * p->n_col; i++)
        p->a[i] = (2 * lora_uniform(key, i) - 1) * bound;
}

/* Of the embedding B is drawn, from a normal distribution, and A is zero. */
static void draw_embed(lora_pair *p, uint64_t key) {
    for (size_t i = 0; i < (size_t)p->rank * p->n_row; i++) {
        const float u = 1 - lora_uniform(key, 2 * i), v = lora_uniform(key, 2 * i + 1);
        p->b[i] = sqrtf(-2 * logf(u)) * cosf(6.28318530718f * v);
    }
}

bool lora_create(arena *a, const model *m, const lora_plan *plan, lora **out, carat_error *err) {
    lora *l;
    const uint32_t end = plan->end ? plan->end : m->config.n_layer;
    if (!lora_check_rank(plan->rank, "a new adapter", err) || !lora_empty(a, m, &l, err))
        return false;
    if (plan->first >= end || end > l->n_layer)
        return fail(err, CARAT_E_ARGUMENT, "lora: layers %u to %u; the model has %u", plan->first,
                    end, l->n_layer);
    l->rslora = plan->rslora;
    l->dropout = plan->dropout;
    for (uint32_t il = plan->first; il < end; il++)
        for (lora_target p = 0; p < LORA_TARGETS; p++)
            if (plan->target[p] && lora_weight(m, il, p)) lora_at(l, il, p)->rank = plan->rank;
    if (plan->embed) l->embed.rank = plan->rank;
    if (plan->head) l->head.rank = plan->rank;
    for (uint32_t i = 0; i < lora_slots(l); i++)
        if (lora_slot(l, i)->rank) lora_slot(l, i)->alpha = plan->alpha;
    if (!lora_allocate(a, l, err)) return false;
    if (!l->n_value) return fail(err, CARAT_E_ARGUMENT, "lora: nothing is to be adapted");
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        lora_pair *p = lora_slot(l, i);
        const uint64_t key = lora_random(plan->seed, i);
        if (p->rank && p == &l->embed) draw_embed(p, key);
        if (p->rank && p != &l->embed) draw(p, key);
    }
    *out = l;
    return true;
}

/* ---- applying ---- */

void ref_lora(const lora_pair *p, float scale, const float *in, uint32_t n_tok, float *out) {
    float inner[LORA_MAX_RANK];
    for (uint32_t t = 0; t < n_tok && p->rank; t++, in += p->n_col, out += p->n_row) {
        for (uint32_t r = 0; r < p->rank; r++)
            inner[r] = scale * p->scale * ref_dot(p->a + (size_t)r * p->n_col, in, p->n_col);
        for (uint32_t i = 0; i < p->n_row; i++)
            out[i] += ref_dot(p->b + (size_t)i * p->rank, inner, p->rank);
    }
}

void ref_lora_embed(const lora_pair *p, float scale, int32_t token, float *x) {
    float inner[LORA_MAX_RANK];
    for (uint32_t r = 0; r < p->rank; r++)
        inner[r] = scale * p->scale * p->a[(size_t)r * p->n_col + (uint32_t)token];
    for (uint32_t i = 0; i < p->n_row && p->rank; i++)
        x[i] += ref_dot(p->b + (size_t)i * p->rank, inner, p->rank);
}

/* ---- randomness without a state: SplitMix64's finaliser over a key and a place ---- */

static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t lora_random(uint64_t key, uint64_t at) {
    return mix(mix(key + 0x9e3779b97f4a7c15u) + at * 0x9e3779b97f4a7c15u);
}

float lora_uniform(uint64_t key, uint64_t at) {
    return (float)(lora_random(key, at) >> 40) * 0x1p-24f;
}
