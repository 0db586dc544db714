/* lora_gpu: packs adapters for the device, one buffer a layer, and records what adds them.
 *
 * Flow: lora.c before; text_gpu.c, prefill_gpu.c, decode_gpu.c and moe_gpu.c after. */
#include "model/lora_gpu.h"

#include "file/file.h"
#include "kernels.h"
#include "model/ops_gpu.h"

#include <math.h>
#include <string.h>

#define WRITE_BYTES (4u << 20) /* at a time */
#define MAX_TARGETS 3u         /* of a group */
#define RANK_STEP   8u         /* what lib/lora_rows reads at a time */

struct lora_gpu {
    arena *memory;
    gpu *gpu;
    uint32_t n_layer;
    lora_group *groups; /* [n_layer + 2, LORA_INPUTS]; embedding and head are like layers of one */
    uint32_t inner, delta, down;
    uint64_t bytes;
};

/* Where the pairs of a group are in each adapter. */
typedef struct members {
    uint32_t slot[MAX_TARGETS], n_row[MAX_TARGETS];
    uint32_t n, n_col;
    bool embed;
} members;

typedef struct packer {
    lora_gpu *l;
    const model *m;
    const lora_use *uses;
    uint32_t n_use;
    carat_error *err;
} packer;

/* ---- packing ---- */

static const lora_pair *pair_of(const packer *k, uint32_t use, uint32_t slot) {
    return lora_slot(k->uses[use].lora, slot);
}

static uint32_t rank_of(const packer *k, uint32_t slot) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < k->n_use; i++) n += pair_of(k, i, slot)->rank;
    return n;
}

/* The largest of n values `step` apart; 1 when all are zero. */
static float largest(const float *x, size_t n, size_t step) {
    float most = 0;
    for (size_t i = 0; i < n; i++) most = fmaxf(most, fabsf(x[i * step]));
    return most > 0 ? most : 1;
}

/* Rank r of a pair as rank `to` of the group, which is rank `in_b` of its target. row0: the
 * target's first row; words: the group's, from its factors on. */
static void pack_rank(const lora_group *g, const lora_pair *p, bool embed, uint32_t r, uint32_t to,
                      uint32_t in_b, uint32_t row0, float scale, uint32_t *words) {
    const float *a = p->a + (size_t)r * p->n_col, *b = p->b + r;
    const float most_a = largest(a, p->n_col, 1), most_b = largest(b, p->n_row, p->rank);
    const float factor = scale * p->scale * most_a * most_b;
    uint16_t *out_a = (uint16_t *)(words + (g->a0 - g->factors));
    uint16_t *out_b = (uint16_t *)(words + (g->b0 - g->factors));
    memcpy(words + to, &factor, sizeof factor);
    for (size_t i = 0; i < p->n_col; i++)
        out_a[embed ? i * g->n_rank + to : (size_t)to * g->n_col + i] =
            float_to_half(a[i] / most_a);
    for (size_t i = 0; i < p->n_row; i++)
        out_b[(row0 + i) * g->rank + in_b] = float_to_half(b[i * p->rank] / most_b);
}

static void pack_group(const packer *k, const members *of, const lora_group *g, uint32_t *words) {
    for (uint32_t i = 0, row0 = 0; i < of->n; row0 += of->n_row[i++])
        for (uint32_t use = 0, at = 0; use < k->n_use; use++) {
            const lora_pair *p = pair_of(k, use, of->slot[i]);
            for (uint32_t r = 0; r < p->rank; r++, at++)
                pack_rank(g, p, of->embed, r, i * g->rank + at, at, row0, k->uses[use].scale,
                          words);
        }
}

/* Where a group is in a buffer, from word `at` on; returns the word after it. */
static uint64_t place_group(const packer *k, const members *of, lora_group *g, uint64_t at) {
    for (uint32_t i = 0; i < of->n; i++) g->rank = max_u32(g->rank, rank_of(k, of->slot[i]));
    if (!g->rank) return at;
    g->rank = (uint32_t)round_up(g->rank, RANK_STEP);
    g->n_rank = g->rank * of->n;
    g->n_col = of->n_col;
    for (uint32_t i = 0; i < of->n; i++) g->n_row += of->n_row[i];
    g->end0 = of->n_row[0];
    g->end1 = g->end0 + (of->n > 1 ? of->n_row[1] : 0);
    if (of->n == 1) g->end0 = g->end1 = UINT32_MAX;
    const uint64_t a0 = at + g->n_rank, b0 = a0 + (uint64_t)g->n_rank * g->n_col / 2;
    g->factors = (uint32_t)at;
    g->a0 = (uint32_t)a0;
    g->b0 = (uint32_t)b0;
    return b0 + (uint64_t)g->n_row * g->rank / 2;
}

static bool write_group(const packer *k, const members *of, const lora_group *g) {
    const uint64_t n =
        4 * (g->b0 - g->factors + (uint64_t)g->n_row * g->rank / 2); /* bytes, from factors on */
    if (!g->rank) return true;
    arena *brief = arena_create(k->err);
    uint32_t *words = brief ? arena_alloc(brief, n / 4, 4) : NULL;
    if (words) pack_group(k, of, g, words);
    for (uint64_t at = 0; words && at < n; at += WRITE_BYTES)
        gpu_write(k->l->gpu, g->buffer, 4ull * g->factors + at, (const uint8_t *)words + at,
                  n - at < WRITE_BYTES ? (size_t)(n - at) : WRITE_BYTES);
    arena_free(brief);
    return words || fail_memory(k->err, n, "an adapter's values for the device");
}

/* The groups at g [n], in one buffer. */
static bool make_groups(const packer *k, const members *of, lora_group *g, uint32_t n) {
    gpu *dev = k->l->gpu;
    uint64_t words = 0;
    uint32_t rank = 0;
    for (uint32_t i = 0; i < n; i++) {
        words = place_group(k, &of[i], &g[i], words);
        rank = max_u32(rank, g[i].rank);
        k->l->inner = max_u32(k->l->inner, g[i].n_rank);
    }
    if (!rank) return true;
    if (4 * words > dev->info.max_binding || words > UINT32_MAX)
        return fail(k->err, CARAT_E_MEMORY,
                    "lora: adapters of %u ranks need %llu MB in one piece; %s allows %llu MB", rank,
                    (unsigned long long)(words >> 18), dev->info.name,
                    (unsigned long long)(dev->info.max_binding >> 20));
    const gpu_buffer b = gpu_buffer_create(dev, 4 * words, GPU_STORAGE, "adapters", k->err);
    for (uint32_t i = 0; i < n; i++) g[i].buffer = b;
    if (!b.id) return false;
    k->l->bytes += 4 * words;
    for (uint32_t i = 0; i < n; i++)
        if (!write_group(k, &of[i], &g[i])) return false;
    return true;
}

/* ---- groups ---- */

static void add_member(members *of, const packer *k, uint32_t il, lora_target p) {
    const weight *w = lora_weight(k->m, il, p);
    if (!w) return; /* only at a group's end */
    of->slot[of->n] = il * LORA_TARGETS + (uint32_t)p;
    of->n_row[of->n++] = w->n_row;
    of->n_col = w->n_col;
}

static bool make_layer(const packer *k, uint32_t il) {
    static const lora_target first[LORA_INPUTS + 1] = {LORA_Q, LORA_OUT, LORA_GATE, LORA_DOWN,
                                                       LORA_TARGETS};
    lora_gpu *l = k->l;
    lora_group *g = &l->groups[il * LORA_INPUTS];
    members of[LORA_INPUTS] = {0};
    for (uint32_t i = 0; i < LORA_INPUTS; i++)
        for (lora_target p = first[i]; p < first[i + 1]; p++) add_member(&of[i], k, il, p);
    if (!make_groups(k, of, g, LORA_INPUTS)) return false;
    l->delta = max_u32(l->delta, g[LORA_INPUT_FFN].n_row);
    l->down = max_u32(l->down, g[LORA_INPUT_DOWN].rank);
    return true;
}

static bool make_all(const packer *k) {
    const model_config *c = &k->m->config;
    const uint32_t n = c->n_layer;
    const members embed = {{n * LORA_TARGETS}, {c->n_embd}, 1, c->n_vocab, true};
    const members head = {{n * LORA_TARGETS + 1}, {c->n_vocab}, 1, c->n_embd, false};
    for (uint32_t il = 0; il < n; il++)
        if (!make_layer(k, il)) return false;
    return make_groups(k, &embed, &k->l->groups[n * LORA_INPUTS], 1) &&
           make_groups(k, &head, &k->l->groups[(n + 1) * LORA_INPUTS], 1);
}

bool lora_gpu_create(const model *m, gpu *g, const lora_use *uses, uint32_t n, lora_gpu **out,
                     carat_error *err) {
    const uint32_t n_group = (m->config.n_layer + 2) * LORA_INPUTS;
    arena *a = arena_create(err);
    lora_gpu *l = a ? arena_alloc(a, 1, sizeof *l) : NULL;
    lora_group *groups = l ? arena_alloc(a, n_group, sizeof *groups) : NULL;
    if (!groups) {
        arena_free(a);
        return fail_memory(err, n_group * sizeof *groups, "adapters on the GPU");
    }
    *l = (lora_gpu){.memory = a, .gpu = g, .n_layer = m->config.n_layer, .groups = groups};
    const packer k = {l, m, uses, n, err};
    if (!make_all(&k)) {
        lora_gpu_free(l);
        return false;
    }
    *out = l;
    return true;
}

void lora_gpu_free(lora_gpu *l) {
    if (!l) return;
    for (uint32_t i = 0; i < l->n_layer + 2; i++)
        gpu_buffer_free(l->gpu, l->groups[i * LORA_INPUTS].buffer);
    arena_free(l->memory);
}

uint64_t lora_gpu_bytes(const lora_gpu *l) { return l ? l->bytes : 0; }
uint32_t lora_gpu_inner(const lora_gpu *l) { return l ? l->inner : 0; }
uint32_t lora_gpu_delta(const lora_gpu *l) { return l ? l->delta : 0; }
uint32_t lora_gpu_down(const lora_gpu *l) { return l ? l->down : 0; }

const lora_group *lora_gpu_at(const lora_gpu *l, uint32_t il, lora_input which) {
    const lora_group *g = l ? &l->groups[il * LORA_INPUTS + (uint32_t)which] : NULL;
    return g && g->rank ? g : NULL;
}

const lora_group *lora_gpu_embed(const lora_gpu *l) {
    return l ? lora_gpu_at(l, l->n_layer, 0) : NULL;
}

const lora_group *lora_gpu_head(const lora_gpu *l) {
    return l ? lora_gpu_at(l, l->n_layer + 1, 0) : NULL;
}

/* ---- recording ---- */

void op_lora_down(kernel_steps *s, const lora_group *g, gpu_view x, gpu_buffer u, uint32_t n_tok) {
    if (!g) return;
    const lora_down_args args = {
        .n_col = g->n_col, .n_rank = g->n_rank, .factors = g->factors / 2, .a0 = g->a0 / 2};
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_lora_down,
                      .args = &args,
                      .views = {x, whole(g->buffer), whole(u)},
                      .x = div_up(g->n_rank, 4),
                      .y = n_tok,
                  });
}

void op_lora_up(kernel_steps *s, const lora_group *g, uint32_t row0, uint32_t n_row, gpu_buffer u,
                gpu_buffer out, uint32_t n_tok, bool add) {
    if (!g) return;
    const lora_up_args args = {
        .n_row = n_row,
        .row0 = row0,
        .rank = g->rank,
        .n_rank = g->n_rank,
        .end0 = g->end0,
        .end1 = g->end1,
        .b0 = g->b0,
        .out_stride = n_row,
        .add = add,
    };
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_lora_up,
                      .args = &args,
                      .views = {whole(u), whole(g->buffer), whole(out)},
                      .x = div_up(n_row, 64),
                      .y = n_tok,
                  });
}

void op_lora(kernel_steps *s, const lora_group *g, gpu_view x, gpu_buffer u, gpu_buffer out,
             uint32_t n_tok) {
    op_lora_down(s, g, x, u, n_tok);
    if (g) op_lora_up(s, g, 0, g->n_row, u, out, n_tok, true);
}

void op_lora_embed(kernel_steps *s, const lora_group *g, float scale, gpu_buffer ids, gpu_buffer x,
                   uint32_t n_tok) {
    if (!g) return;
    const lora_embed_args args = {
        .n_embd = g->n_row, .n_rank = g->n_rank, .a0 = g->a0, .b0 = g->b0, .scale = scale};
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_lora_embed,
                      .args = &args,
                      .views = {whole(ids), whole(g->buffer), whole(x)},
                      .x = div_up(g->n_row, 64),
                      .y = n_tok,
                  });
}
