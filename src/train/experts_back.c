/* experts_back: a mixture of experts, forwards and backwards, one token after the other. The
 * router is frozen but its softmax is part of the network: how much an expert counts depends on
 * the token, and gradients flow through that; which ones are chosen is constant.
 *
 * Numbers in parentheses are the equations of docs/model.md. Flow: called by back_cpu.c. */
#include "train/back.h"

#include <math.h>
#include <string.h>

struct experts {
    const model *model;
    float *route_in, *droute_in; /* [n_embd] */
    float *all, *dall;           /* [n_expert] softmax over all experts */
    float *share, *dshare;       /* [n_expert_used] of the chosen ones, sum 1 */
    uint32_t *chosen;            /* [n_expert_used] */
    float *z, *dz;               /* [n_embd] */
    float *gate_up, *dgate_up;   /* [2 n_ff_expert] */
    float *act, *dact;           /* [n_ff_expert] */
    float *out, *dout;           /* [n_embd] */
};

bool experts_create(arena *a, const model *m, experts **out, carat_error *err) {
    const model_config *c = &m->config;
    const uint64_t n_float =
        6ull * c->n_embd + 2ull * c->n_expert + 2ull * c->n_expert_used + 6ull * c->n_ff_expert;
    experts *x = arena_alloc(a, 1, sizeof *x);
    float *at = arena_alloc(a, n_float, sizeof *at);
    uint32_t *chosen = arena_alloc(a, c->n_expert_used, sizeof *chosen);
    if (!x || !at || !chosen) return fail_memory(err, n_float * sizeof *at, "experts");
    *x = (experts){.model = m, .chosen = chosen};
    const struct {
        float **to;
        uint32_t n;
    } parts[] = {{&x->route_in, c->n_embd},
                 {&x->droute_in, c->n_embd},
                 {&x->all, c->n_expert},
                 {&x->dall, c->n_expert},
                 {&x->share, c->n_expert_used},
                 {&x->dshare, c->n_expert_used},
                 {&x->z, c->n_embd},
                 {&x->dz, c->n_embd},
                 {&x->gate_up, 2 * c->n_ff_expert},
                 {&x->dgate_up, 2 * c->n_ff_expert},
                 {&x->act, c->n_ff_expert},
                 {&x->dact, c->n_ff_expert},
                 {&x->out, c->n_embd},
                 {&x->dout, c->n_embd}};
    for (size_t i = 0; i < COUNT(parts); i++) {
        *parts[i].to = at;
        at += parts[i].n;
    }
    *out = x;
    return true;
}

/* (16), (17) */
static void choose(experts *x, const layer_weights *w, const float *y) {
    const model_config *c = &x->model->config;
    const float scale = 1 / sqrtf((float)c->n_embd);
    float sum = 0;
    ref_rmsnorm(y, w->router_scale.data, 1, c->n_embd, c->rms_eps, x->route_in);
    for (uint32_t i = 0; i < c->n_embd; i++) x->route_in[i] *= scale;
    ref_matmul(&w->router, 0, x->route_in, 1, x->all);
    ref_softmax(x->all, c->n_expert);
    for (uint32_t n = 0; n < c->n_expert_used; n++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t e = 0; e < c->n_expert; e++) {
            bool taken = false;
            for (uint32_t i = 0; i < n; i++) taken |= x->chosen[i] == e;
            if (!taken && (best == UINT32_MAX || x->all[e] > x->all[best])) best = e;
        }
        x->chosen[n] = best;
        sum += x->share[n] = x->all[best];
    }
    for (uint32_t n = 0; n < c->n_expert_used; n++) x->share[n] /= sum;
}

/* share = all / sum over the chosen, all = softmax(Wr rms(y) scale / sqrt(n_embd)): dy += */
static void choose_back(experts *x, const layer_weights *w, const float *y, float *dy) {
    const model_config *c = &x->model->config;
    const float scale = 1 / sqrtf((float)c->n_embd);
    float sum = 0, mean = 0, inner = 0;
    for (uint32_t n = 0; n < c->n_expert_used; n++) {
        sum += x->all[x->chosen[n]];
        mean += x->share[n] * x->dshare[n];
    }
    memset(x->dall, 0, c->n_expert * sizeof(float));
    for (uint32_t n = 0; n < c->n_expert_used; n++)
        x->dall[x->chosen[n]] = (x->dshare[n] - mean) / sum;
    for (uint32_t e = 0; e < c->n_expert; e++) inner += x->all[e] * x->dall[e];
    for (uint32_t e = 0; e < c->n_expert; e++) x->dall[e] = x->all[e] * (x->dall[e] - inner);
    memset(x->droute_in, 0, c->n_embd * sizeof(float));
    back_matmul(&w->router, 0, x->dall, 1, x->droute_in);
    for (uint32_t i = 0; i < c->n_embd; i++) x->droute_in[i] *= scale;
    back_rmsnorm(y, w->router_scale.data, x->droute_in, 1, c->n_embd, c->rms_eps, dy);
}

/* (19) out = Wdown[e] (gelu(gate[e] z) * up[e] z) */
static void expert(experts *x, const layer_weights *w, uint32_t e) {
    const uint32_t n_ff = x->model->config.n_ff_expert;
    if (w->gate_up_exps.tensor) {
        ref_matmul(&w->gate_up_exps, e, x->z, 1, x->gate_up);
    } else {
        ref_matmul(&w->gate_exps, e, x->z, 1, x->gate_up);
        ref_matmul(&w->up_exps, e, x->z, 1, x->gate_up + n_ff);
    }
    ref_geglu(x->gate_up, x->gate_up + n_ff, n_ff, x->act);
    ref_matmul(&w->down_exps, e, x->act, 1, x->out);
}

/* dz += given dout, after expert() */
static void expert_back(experts *x, const layer_weights *w, uint32_t e) {
    const uint32_t n_ff = x->model->config.n_ff_expert;
    memset(x->dact, 0, n_ff * sizeof(float));
    back_matmul(&w->down_exps, e, x->dout, 1, x->dact);
    back_geglu(x->gate_up, x->gate_up + n_ff, x->dact, n_ff, x->dgate_up, x->dgate_up + n_ff);
    if (w->gate_up_exps.tensor) {
        back_matmul(&w->gate_up_exps, e, x->dgate_up, 1, x->dz);
    } else {
        back_matmul(&w->gate_exps, e, x->dgate_up, 1, x->dz);
        back_matmul(&w->up_exps, e, x->dgate_up + n_ff, 1, x->dz);
    }
}

void experts_forward(experts *x, uint32_t il, const float *y, uint32_t n_tok, float *sum) {
    const model_config *c = &x->model->config;
    const layer_weights *w = &x->model->weights.layers[il];
    const uint32_t d = c->n_embd;
    memset(sum, 0, (size_t)n_tok * d * sizeof *sum);
    for (uint32_t t = 0; t < n_tok; t++, y += d, sum += d) {
        choose(x, w, y);
        ref_rmsnorm(y, w->pre_norm_2.data, 1, d, c->rms_eps, x->z); /* (18) */
        for (uint32_t n = 0; n < c->n_expert_used; n++) {
            const uint32_t e = x->chosen[n];
            const float scale = x->share[n] * w->down_exps_scale.data[e];
            expert(x, w, e);
            for (uint32_t j = 0; j < d; j++) sum[j] += scale * x->out[j];
        }
    }
}

void experts_backward(experts *x, uint32_t il, const float *y, const float *dsum, uint32_t n_tok,
                      float *dy) {
    const model_config *c = &x->model->config;
    const layer_weights *w = &x->model->weights.layers[il];
    const uint32_t d = c->n_embd;
    for (uint32_t t = 0; t < n_tok; t++, y += d, dsum += d, dy += d) {
        choose(x, w, y);
        ref_rmsnorm(y, w->pre_norm_2.data, 1, d, c->rms_eps, x->z);
        memset(x->dz, 0, d * sizeof(float));
        for (uint32_t n = 0; n < c->n_expert_used; n++) {
            const uint32_t e = x->chosen[n];
            const float own = w->down_exps_scale.data[e];
            expert(x, w, e);
            x->dshare[n] = own * ref_dot(dsum, x->out, d);
            for (uint32_t j = 0; j < d; j++) x->dout[j] = x->share[n] * own * dsum[j];
            expert_back(x, w, e);
        }
        back_rmsnorm(y, w->pre_norm_2.data, x->dz, 1, d, c->rms_eps, dy);
        choose_back(x, w, y, dy);
    }
}
