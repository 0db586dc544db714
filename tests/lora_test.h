/* What the tests of kernels that add adapters share, on top of decode_test.h: a group of
 * projections with random pairs, as lora_gpu.c packs it, and what it adds by the CPU's ref_lora().
 */
#ifndef CARAT_LORA_TEST_H
#define CARAT_LORA_TEST_H

#include "decode_test.h"

#include "model/lora_gpu.h"

typedef struct group_data {
    lora_group g;
    lora_pair pairs[3];
    uint32_t n;      /* pairs */
    uint32_t *words; /* [n_word] as written */
    size_t n_word;
    gpu_view store;
} group_data;

static inline float *rounded_values(size_t n, float size) {
    float *v = values(n);
    for (size_t i = 0; i < n; i++) v[i] = half_to_float(float_to_half(v[i] * size));
    return v;
}

static inline void put_pair(uint32_t *words, const lora_group *g, const lora_pair *p, uint32_t i,
                            uint32_t row0, bool embed) {
    uint16_t *a = (uint16_t *)(words + g->a0), *b = (uint16_t *)(words + g->b0);
    for (uint32_t r = 0; r < p->rank; r++) {
        const uint32_t to = i * g->rank + r;
        memcpy(words + g->factors + to, &p->scale, 4);
        for (uint32_t c = 0; c < p->n_col; c++)
            a[embed ? c * g->n_rank + to : to * p->n_col + c] =
                float_to_half(p->a[r * p->n_col + c]);
        for (uint32_t j = 0; j < p->n_row; j++)
            b[(row0 + j) * g->rank + r] = float_to_half(p->b[j * p->rank + r]);
    }
}

/* Targets of n_rows[i] rows; the i-th has a rank less than `rank` by i, but at least 1. In front of
 * the group are `before` words of others. */
static inline group_data make_group(uint32_t rank, uint32_t n_col, const uint32_t *n_rows,
                                    uint32_t n, uint32_t before, bool embed) {
    group_data d = {.n = n};
    lora_group *g = &d.g;
    g->rank = (uint32_t)round_up(rank, 8);
    g->n_rank = g->rank * n;
    g->n_col = n_col;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t own = rank > i ? rank - i : 1;
        d.pairs[i] =
            (lora_pair){.rank = own, .n_col = n_col, .n_row = n_rows[i], .scale = 0.5f + (float)i};
        d.pairs[i].a = rounded_values((size_t)own * n_col, 1 / sqrtf((float)n_col));
        d.pairs[i].b = rounded_values((size_t)own * n_rows[i], 1);
        g->n_row += n_rows[i];
    }
    g->end0 = n > 1 ? n_rows[0] : UINT32_MAX;
    g->end1 = n > 1 ? n_rows[0] + n_rows[1] : UINT32_MAX;
    g->factors = before;
    g->a0 = before + g->n_rank;
    g->b0 = g->a0 + g->n_rank * n_col / 2;
    d.n_word = g->b0 + (size_t)g->n_row * g->rank / 2;
    d.words = kt_take(d.n_word, 4);
    memset(d.words, 0x7f, before * 4); /* not-a-numbers as f16 */
    for (uint32_t i = 0, row0 = 0; i < n; row0 += n_rows[i++])
        put_pair(d.words, g, &d.pairs[i], i, row0, embed);
    d.store = kt_in(d.words, d.n_word * 4);
    g->buffer = d.store.buffer;
    return d;
}

/* want [n_tok, g.n_row] += what is added for x [n_tok, n_col]. */
static inline void add_reference(const group_data *d, const float *x, uint32_t n_tok, float *want) {
    for (uint32_t t = 0; t < n_tok; t++, want += d->g.n_row, x += d->g.n_col)
        for (uint32_t i = 0, row0 = 0; i < d->n; row0 += d->pairs[i++].n_row)
            ref_lora(&d->pairs[i], 1, x, 1, want + row0);
}

#endif
