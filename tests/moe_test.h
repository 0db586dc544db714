/* What the tests of the experts share, on top of batch_test.h: picks, and a model of which only the
 * experts are there, on the host and on the device. */
#ifndef CARAT_MOE_TEST_H
#define CARAT_MOE_TEST_H

#include "batch_test.h"

/* Picks grouped by expert, as moe_lists makes it. */
typedef struct picks {
    uint32_t n_used, n, n_tile;
    uint32_t *ids, *order, *tiles;
} picks;

static inline picks make_picks(uint32_t n_tok, uint32_t n_used, uint32_t n_expert) {
    picks p = {.n_used = n_used, .n = n_tok * n_used};
    p.ids = kt_take(p.n, 4), p.order = kt_take(p.n, 4);
    p.tiles = kt_take(4 * (n_expert + p.n / 64 + 1), 4);
    for (uint32_t i = 0; i < p.n; i++) p.ids[i] = (i / n_used * 7 + i % n_used) % n_expert;
    uint32_t place = 0;
    for (uint32_t e = 0; e < n_expert; e++) {
        const uint32_t first = place;
        for (uint32_t i = 0; i < p.n; i++)
            if (p.ids[i] == e) p.order[place++] = i;
        for (uint32_t at = first; at < place; at += 64) {
            const uint32_t tile[] = {e, at, min_u32(64, place - at), 0};
            memcpy(p.tiles + 4 * p.n_tile++, tile, sizeof tile);
        }
    }
    p.n_tile++; /* an unused one */
    return p;
}

typedef struct moe_case {
    uint32_t n_tok, n_embd, n_ff, n_ff_expert, n_expert, n_used;
    bool fused;
    uint32_t experts_a_tile; /* of gate or gate and up; one more for the others */
} moe_case;

static inline weight expert_matrix(const moe_case *c, uint32_t n_row, uint32_t n_col,
                                   uint32_t experts_a_tile) {
    weight *w = matrix(QUANT_F32, c->n_expert * n_row, n_col, experts_a_tile * n_row);
    w->n_expert = c->n_expert;
    w->n_row = n_row;
    w->tensor = (const gguf_tensor *)(const void *)w; /* it is there */
    return *w;
}

static inline void add_vector(vector *out, float *packed, uint32_t n, uint32_t *at) {
    const float *v = values(n);
    for (uint32_t i = 0; i < n; i++) packed[*at + i] = 1 + 0.5f * v[i];
    *out = (vector){.data = packed + *at, .n = n, .offset = *at};
    *at += n;
}

/* A model of which only the experts of layer 0 are there. */
static inline model *moe_model(const moe_case *c) {
    model *m = kt_take(1, sizeof *m);
    layer_weights *w = &m->weights.layers[0];
    m->config = (model_config){.n_layer = 1,
                               .n_embd = c->n_embd,
                               .n_expert = c->n_expert,
                               .n_expert_used = c->n_used,
                               .n_ff_expert = c->n_ff_expert,
                               .rms_eps = EPS};
    m->config.layers[0] = (layer_config){.moe = true, .n_ff = c->n_ff};
    w->gate = *matrix(QUANT_F32, c->n_ff, c->n_embd, 1000);
    w->up = *matrix(QUANT_F32, c->n_ff, c->n_embd, 1000);
    w->down = *matrix(QUANT_F32, c->n_embd, c->n_ff, 1000);
    w->router = *matrix(QUANT_F32, c->n_expert, c->n_embd, 1000);
    w->router.scale = 4;
    if (c->fused) {
        w->gate_up_exps = expert_matrix(c, 2 * c->n_ff_expert, c->n_embd, c->experts_a_tile);
    } else {
        w->gate_exps = expert_matrix(c, c->n_ff_expert, c->n_embd, c->experts_a_tile);
        w->up_exps = expert_matrix(c, c->n_ff_expert, c->n_embd, c->experts_a_tile + 1);
        float *scale = values(c->n_expert);
        w->up_exps.expert_scale = scale;
    }
    w->down_exps = expert_matrix(c, c->n_embd, c->n_ff_expert, c->experts_a_tile + 1);
    uint32_t at = 4;
    float *packed = kt_take(8 * c->n_embd + c->n_expert, 4);
    add_vector(&w->ffn_norm, packed, c->n_embd, &at);
    add_vector(&w->router_scale, packed, c->n_embd, &at);
    add_vector(&w->pre_norm_2, packed, c->n_embd, &at);
    add_vector(&w->post_norm_1, packed, c->n_embd, &at);
    add_vector(&w->post_norm_2, packed, c->n_embd, &at);
    add_vector(&w->down_exps_scale, packed, c->n_expert, &at);
    m->weights.vector_buffer = kt_in(packed, at * 4).buffer;
    return m;
}

#endif
