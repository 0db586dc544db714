/* back_cpu: the text network forwards with what its way back needs kept, and backwards, over whole
 * samples at once. The forward half says what text_cpu.c says; each of its steps has its derivative
 * in the second half, in opposite order. Numbers in parentheses are the equations of docs/model.md.
 *
 * Layers that read another layer's K and V read what that layer has computed for the same tokens,
 * and their gradients add up there before that layer's turn comes on the way back. Layers below
 * the lowest adapter are only run forwards.
 *
 * Flow: dataset.c before, adamw.c after. */
#include "train/back.h"

#include <math.h>
#include <string.h>

/* What the way back through a layer reads, [n_tok, ..]. */
typedef struct saved {
    float *x;                        /* what enters the layer */
    float *n;                        /* (7) */
    float *q_raw, *q;                /* (8) before and after norm and RoPE */
    float *k_raw, *v_raw;            /* (9) before; owners */
    float *attn;                     /* (10) heads side by side */
    float *o;                        /* Wo attn */
    float *y;                        /* (11) */
    float *z;                        /* its norm */
    float *gate, *up, *act, *down;   /* (12) */
    float *sum, *m;                  /* (19) of experts, (20); m is down without experts */
    float *r;                        /* (12), (21) */
    float *ple_gate, *ple_act, *ple; /* (13) before its norm */
} saved;

struct back_cpu {
    const model *model;
    const lora *adapter;
    arena *memory;
    uint32_t n_max, first; /* layers [first, n_layer) have a way back */
    saved layers[MODEL_MAX_LAYERS];
    float *k[MODEL_MAX_LAYERS], *v[MODEL_MAX_LAYERS];   /* as attention reads them; owners */
    float *dk[MODEL_MAX_LAYERS], *dv[MODEL_MAX_LAYERS]; /* one for all but shared ones */
    bool recompute;
    float *rope[2]; /* [n_max, n_rot, 2] by position in the sample */
    float *x;       /* [n_max, n_embd] */
    float *part;    /* [n_max, n_embd] */
    float *scores;  /* [n_kv, 2 n_max] */
    float *e, *de;  /* [n_max, n_layer, n_ple] (6) */
    float *ple_row; /* [n_layer * n_ple] */
    float *b_raw;   /* [n_max, n_layer, n_ple] (4); when the embedding is adapted */
    experts *experts;
    float *dx;                         /* [n_max, n_embd] of the stream */
    float *dpart, *dm, *dn;            /* [n_max, n_embd] */
    float *dq, *dq_raw, *dattn;        /* [n_max, heads] */
    float *dk_raw, *dv_raw;            /* [n_max, kv width] */
    float *dgate, *dup, *dact;         /* [n_max, n_ff] */
    float *dple, *dple_act, *de_layer; /* [n_max, n_ple] */
    float *dropped, *ddropped;         /* [n_max, widest input of an adapter] */
    float *inner;                      /* [2, n_max, highest rank] */
    float *rows, *drows,
        *logits;    /* [BACK_HEAD_ROWS, n_embd], the same, [BACK_HEAD_ROWS, n_vocab] */
    float *capped;  /* [n_vocab] */
    uint32_t block; /* of the head: its first row; 0 in layers */
};

/* One run, either way. */
typedef struct pass {
    back_cpu *b;
    const model_config *c;
    const train_batch *in;
    uint32_t n_tok;
    lora *grad; /* NULL: nothing is learned */
} pass;

/* ---- memory ---- */

static uint32_t kv_width(const layer_config *l) { return l->n_kv * l->head_dim; }

typedef struct widths {
    uint32_t heads, kv, n_kv, n_ff, n_rot, in, rank;
} widths;

static widths widest(const back_cpu *b) {
    const model_config *c = &b->model->config;
    widths w = {.in = c->n_embd, .rank = 1};
    for (uint32_t il = 0; il < c->n_layer; il++) {
        const layer_config *l = &c->layers[il];
        w.heads = max_u32(w.heads, l->n_head * l->head_dim);
        w.kv = max_u32(w.kv, kv_width(l));
        w.n_kv = max_u32(w.n_kv, l->n_kv);
        w.n_ff = max_u32(w.n_ff, l->n_ff);
        w.n_rot = max_u32(w.n_rot, l->n_rot);
    }
    w.in = max_u32(w.in, max_u32(w.heads, w.n_ff));
    for (uint32_t i = 0; i < lora_slots(b->adapter); i++)
        w.rank = max_u32(w.rank, lora_slot(b->adapter, i)->rank);
    return w;
}

static float *floats(arena *a, uint64_t n, bool *ok) {
    float *p = arena_alloc(a, n, sizeof *p);
    if (!p) *ok = false;
    return p;
}

/* The same size for each of a NULL-terminated list. */
static void each(const back_cpu *b, uint64_t n, float ***list, bool *ok) {
    for (; *list; list++) **list = floats(b->memory, n, ok);
}

static void allocate_saved(const back_cpu *b, const widths *w, saved *s, bool *ok) {
    const model_config *c = &b->model->config;
    const uint64_t n = b->n_max;
    each(b, n * c->n_embd, (float **[]){&s->x, &s->n, &s->o, &s->y, &s->z, &s->down, &s->r, NULL},
         ok);
    each(b, n * w->heads, (float **[]){&s->q_raw, &s->q, &s->attn, NULL}, ok);
    each(b, n * w->kv, (float **[]){&s->k_raw, &s->v_raw, NULL}, ok);
    each(b, n * w->n_ff, (float **[]){&s->gate, &s->up, &s->act, NULL}, ok);
    s->m = s->down;
    if (c->n_expert) {
        s->sum = floats(b->memory, n * c->n_embd, ok);
        s->m = floats(b->memory, n * c->n_embd, ok);
    }
    if (!c->n_ple) return;
    s->ple_gate = floats(b->memory, n * c->n_ple, ok);
    s->ple_act = floats(b->memory, n * c->n_ple, ok);
    s->ple = floats(b->memory, n * c->n_embd, ok);
}

/* A layer's own widths where its values are kept, the widest where all layers share them. */
static void allocate_layers(back_cpu *b, const widths *w, bool *ok) {
    const model_config *c = &b->model->config;
    saved shared = {0};
    if (b->first || b->recompute) allocate_saved(b, w, &shared, ok);
    for (uint32_t il = 0; il < c->n_layer; il++) {
        const layer_config *l = &c->layers[il];
        const widths own = {
            .heads = l->n_head * l->head_dim, .kv = l->owns_kv ? kv_width(l) : 0, .n_ff = l->n_ff};
        b->layers[il] = shared;
        if (il < b->first) continue;
        if (b->recompute)
            b->layers[il].x = floats(b->memory, (uint64_t)b->n_max * c->n_embd, ok);
        else
            allocate_saved(b, &own, &b->layers[il], ok);
    }
}

/* K and V of all owners. Gradients only have to wait for their layer where others add to them. */
static void allocate_kv(back_cpu *b, const widths *w, bool *ok) {
    const model_config *c = &b->model->config;
    const uint64_t n = b->n_max;
    bool shared[MODEL_MAX_LAYERS] = {0};
    for (uint32_t il = 0; il < c->n_layer; il++)
        if (!c->layers[il].owns_kv) shared[c->layers[il].donor] = true;
    float *dk = floats(b->memory, n * w->kv, ok), *dv = floats(b->memory, n * w->kv, ok);
    for (uint32_t il = 0; il < c->n_layer; il++) {
        if (!c->layers[il].owns_kv) continue;
        const uint64_t size = n * kv_width(&c->layers[il]);
        b->k[il] = floats(b->memory, size, ok);
        b->v[il] = floats(b->memory, size, ok);
        b->dk[il] = shared[il] ? floats(b->memory, size, ok) : dk;
        b->dv[il] = shared[il] ? floats(b->memory, size, ok) : dv;
    }
}

static void allocate_work(back_cpu *b, const widths *w, bool *ok) {
    const model_config *c = &b->model->config;
    const lora *l = b->adapter;
    const uint64_t n = b->n_max, d = c->n_embd, all = n * c->n_layer * c->n_ple;
    const uint64_t dropped = l->dropout > 0 ? n * w->in : 0;
    each(b, n * w->n_rot * 2, (float **[]){&b->rope[0], &b->rope[1], NULL}, ok);
    each(b, n * d, (float **[]){&b->x, &b->part, &b->dx, &b->dpart, &b->dm, &b->dn, NULL}, ok);
    each(b, n * w->heads, (float **[]){&b->dq, &b->dq_raw, &b->dattn, NULL}, ok);
    each(b, n * w->kv, (float **[]){&b->dk_raw, &b->dv_raw, NULL}, ok);
    each(b, n * w->n_ff, (float **[]){&b->dgate, &b->dup, &b->dact, NULL}, ok);
    each(b, n * c->n_ple, (float **[]){&b->dple, &b->dple_act, &b->de_layer, NULL}, ok);
    each(b, all, (float **[]){&b->e, &b->b_raw, NULL}, ok);
    each(b, dropped, (float **[]){&b->dropped, &b->ddropped, NULL}, ok);
    each(b, 2 * BACK_HEAD_ROWS * d, (float **[]){&b->rows, &b->drows, NULL}, ok);
    b->de = floats(b->memory, l->embed.rank ? all : 0, ok);
    b->ple_row = floats(b->memory, (uint64_t)c->n_layer * c->n_ple, ok);
    b->scores = floats(b->memory, n * 2 * w->n_kv, ok);
    b->inner = floats(b->memory, n * 2 * w->rank, ok);
    b->logits = floats(b->memory, (uint64_t)BACK_HEAD_ROWS * c->n_vocab, ok);
    b->capped = floats(b->memory, c->n_vocab, ok);
}

uint32_t back_first_layer(const lora *l) {
    if (l->embed.rank) return 0;
    for (uint32_t i = 0; i < l->n_layer * LORA_TARGETS; i++)
        if (l->layers[i].rank) return i / LORA_TARGETS;
    return l->n_layer;
}

bool back_cpu_create(const model *m, const lora *adapter, uint32_t n_max, bool recompute,
                     back_cpu **out, carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return false;
    back_cpu *b = arena_alloc(memory, 1, sizeof *b);
    bool ok = b != NULL;
    if (ok) {
        *b = (back_cpu){.model = m,
                        .adapter = adapter,
                        .memory = memory,
                        .n_max = n_max,
                        .first = back_first_layer(adapter),
                        .recompute = recompute};
        const widths w = widest(b);
        allocate_layers(b, &w, &ok);
        allocate_kv(b, &w, &ok);
        allocate_work(b, &w, &ok);
    }
    if (!ok) fail_memory(err, memory ? arena_bytes(memory) : 0, "training");
    ok = ok && (!m->config.n_expert || experts_create(memory, m, &b->experts, err));
    if (ok) {
        for (int sliding = 0; sliding < 2; sliding++)
            model_rope_rows(m, sliding, 0, n_max, b->rope[sliding]);
        *out = b;
    } else {
        arena_free(memory);
    }
    return ok;
}

void back_cpu_free(back_cpu *b) {
    if (b) arena_free(b->memory);
}

uint64_t back_cpu_bytes(const back_cpu *b) { return arena_bytes(b->memory); }

/* ---- forwards: adapters ---- */

/* What A of a slot sees: in, with dropout while learning. */
static const float *seen_by(const pass *p, uint32_t slot, const float *in, uint32_t n_row) {
    const lora *l = p->b->adapter;
    if (!p->grad || l->dropout <= 0) return in;
    const size_t n = (size_t)n_row * lora_slot(l, slot)->n_col;
    ref_dropout(in, n, l->dropout, back_dropout_key(p->in, slot, p->b->block), p->b->dropped);
    return p->b->dropped;
}

/* out [n_row, ..] += B A of a slot. */
static void adapt(const pass *p, uint32_t slot, const float *in, uint32_t n_row, float *out) {
    const lora_pair *pair = lora_slot(p->b->adapter, slot);
    if (pair->rank) ref_lora(pair, 1, seen_by(p, slot, in, n_row), n_row, out);
}

static void project(const pass *p, uint32_t il, lora_target t, const float *in, float *out) {
    ref_matmul(lora_weight(p->b->model, il, t), 0, in, p->n_tok, out);
    adapt(p, il * LORA_TARGETS + t, in, p->n_tok, out);
}

static void norm(const pass *p, const float *x, const vector *w, float *out) {
    ref_rmsnorm(x, w->data, p->n_tok, w->n, p->c->rms_eps, out);
}

/* ---- forwards: inputs ---- */

/* (1) */
static void embed(const pass *p) {
    const uint32_t d = p->c->n_embd;
    const float scale = sqrtf((float)d);
    for (uint32_t i = 0; i < p->n_tok; i++) {
        float *x = p->b->x + (size_t)i * d;
        ref_dequantise_row(&p->b->model->weights.embed, (uint64_t)p->in->tokens[i], x);
        ref_lora_embed(&p->b->adapter->embed, 1, p->in->tokens[i], x);
        for (uint32_t j = 0; j < d; j++) x[j] *= scale;
    }
}

/* (3)-(6) */
static bool per_layer_inputs(const pass *p, carat_error *err) {
    back_cpu *b = p->b;
    const model_weights *w = &b->model->weights;
    const uint32_t width = p->c->n_layer * p->c->n_ple;
    const size_t n = (size_t)p->n_tok * width;
    ref_matmul(&w->ple_model_proj, 0, b->x, p->n_tok, b->b_raw);
    const float scale = 1 / sqrtf((float)p->c->n_embd);
    for (size_t i = 0; i < n; i++) b->b_raw[i] *= scale;
    ref_rmsnorm(b->b_raw, w->ple_proj_norm.data, p->n_tok * p->c->n_layer, p->c->n_ple,
                p->c->rms_eps, b->e);
    for (uint32_t i = 0; i < p->n_tok; i++) {
        float *e = b->e + (size_t)i * width;
        if (!model_ple_row(b->model, p->in->tokens[i], width, b->ple_row, err)) return false;
        for (uint32_t j = 0; j < width; j++) e[j] = (e[j] + b->ple_row[j]) * sqrtf(0.5f);
    }
    return true;
}

/* ---- forwards: a layer ---- */

static const float *rope_of(const pass *p, const layer_config *l, uint32_t i) {
    return p->b->rope[l->sliding] + (size_t)(i - p->in->start[i]) * l->n_rot * 2;
}

static void norm_and_rotate(const pass *p, const layer_config *l, const float *raw, uint32_t n_head,
                            const vector *w, float *out) {
    ref_rmsnorm(raw, w->data, p->n_tok * n_head, l->head_dim, p->c->rms_eps, out);
    for (uint32_t i = 0; i < p->n_tok; i++)
        ref_rope(out + (size_t)i * n_head * l->head_dim, rope_of(p, l, i), n_head, l->head_dim,
                 l->n_rot);
}

/* The first key that token i sees: of its own sample, within the window. */
static uint32_t first_key(const pass *p, const layer_config *l, uint32_t i) {
    const uint32_t seen = i + 1, from = seen > l->window ? seen - l->window : 0;
    return max_u32(p->in->start[i], l->window ? from : 0);
}

/* (10) */
static void attend(const pass *p, uint32_t il) {
    const layer_config *l = &p->c->layers[il];
    const saved *s = &p->b->layers[il];
    const uint32_t hd = l->head_dim, width = kv_width(l), group = l->n_head / l->n_kv;
#pragma omp parallel for schedule(static)
    for (uint32_t g = 0; g < l->n_kv; g++) {
        const float *k = p->b->k[l->donor] + g * hd, *v = p->b->v[l->donor] + g * hd;
        float *scores = p->b->scores + (size_t)g * 2 * p->b->n_max;
        for (uint32_t h = g * group; h < (g + 1) * group; h++)
            for (uint32_t i = 0; i < p->n_tok; i++) {
                const uint32_t from = first_key(p, l, i);
                const size_t at = ((size_t)i * l->n_head + h) * hd, key = (size_t)from * width;
                ref_attend(s->q + at, k + key, v + key, i + 1 - from, width, hd, scores,
                           s->attn + at);
            }
    }
}

/* (7)-(11) */
static void attention(const pass *p, uint32_t il) {
    back_cpu *b = p->b;
    const saved *s = &b->layers[il];
    const layer_config *l = &p->c->layers[il];
    const layer_weights *w = &b->model->weights.layers[il];
    norm(p, s->x, &w->attn_norm, s->n);
    project(p, il, LORA_Q, s->n, s->q_raw);
    norm_and_rotate(p, l, s->q_raw, l->n_head, &w->q_norm, s->q);
    if (l->owns_kv) {
        project(p, il, LORA_K, s->n, s->k_raw);
        if (!l->k_eq_v) project(p, il, LORA_V, s->n, s->v_raw);
        norm_and_rotate(p, l, s->k_raw, l->n_kv, &w->k_norm, b->k[il]);
        ref_rmsnorm(l->k_eq_v ? s->k_raw : s->v_raw, NULL, p->n_tok * l->n_kv, l->head_dim,
                    p->c->rms_eps, b->v[il]);
    }
    attend(p, il);
    project(p, il, LORA_OUT, s->attn, s->o);
    norm(p, s->o, &w->post_attn_norm, b->part);
    for (size_t i = 0; i < (size_t)p->n_tok * p->c->n_embd; i++) s->y[i] = s->x[i] + b->part[i];
}

/* (12), (15)-(21) */
static void feed_forward(const pass *p, uint32_t il) {
    back_cpu *b = p->b;
    const saved *s = &b->layers[il];
    const layer_weights *w = &b->model->weights.layers[il];
    const size_t n = (size_t)p->n_tok * p->c->n_embd;
    norm(p, s->y, &w->ffn_norm, s->z);
    project(p, il, LORA_GATE, s->z, s->gate);
    project(p, il, LORA_UP, s->z, s->up);
    ref_geglu(s->gate, s->up, (size_t)p->n_tok * w->gate.n_row, s->act);
    project(p, il, LORA_DOWN, s->act, s->down);
    if (p->c->layers[il].moe) {
        experts_forward(b->experts, il, s->y, p->n_tok, s->sum);
        norm(p, s->down, &w->post_norm_1, s->m);
        norm(p, s->sum, &w->post_norm_2, b->part);
        for (size_t i = 0; i < n; i++) s->m[i] += b->part[i];
    } else if (s->m != s->down) {
        memcpy(s->m, s->down, n * sizeof *s->m);
    }
    norm(p, s->m, &w->post_ffn_norm, b->part);
    for (size_t i = 0; i < n; i++) s->r[i] = s->y[i] + b->part[i];
}

/* The slice of e that a layer reads. */
static const float *ple_slice(const pass *p, uint32_t il, uint32_t i) {
    return p->b->e + ((size_t)i * p->c->n_layer + il) * p->c->n_ple;
}

/* (13); part is what is added */
static void inject_ple(const pass *p, uint32_t il) {
    const saved *s = &p->b->layers[il];
    const layer_weights *w = &p->b->model->weights.layers[il];
    const uint32_t width = p->c->n_ple;
    ref_matmul(&w->ple_gate, 0, s->r, p->n_tok, s->ple_gate);
    for (uint32_t i = 0; i < p->n_tok; i++)
        ref_geglu(s->ple_gate + (size_t)i * width, ple_slice(p, il, i), width,
                  s->ple_act + (size_t)i * width);
    ref_matmul(&w->ple_proj, 0, s->ple_act, p->n_tok, s->ple);
    norm(p, s->ple, &w->ple_norm, p->b->part);
}

/* out: what leaves the layer that s->x enters; (14) */
static void layer(const pass *p, uint32_t il, float *out) {
    const saved *s = &p->b->layers[il];
    const float scale = p->b->model->weights.layers[il].scale;
    const size_t n = (size_t)p->n_tok * p->c->n_embd;
    attention(p, il);
    feed_forward(p, il);
    if (p->c->n_ple) inject_ple(p, il);
    for (size_t i = 0; i < n; i++)
        out[i] = scale * (p->c->n_ple ? s->r[i] + p->b->part[i] : s->r[i]);
}

static bool forward(const pass *p, carat_error *err) {
    const size_t bytes = (size_t)p->n_tok * p->c->n_embd * sizeof(float);
    embed(p);
    if (p->c->n_ple && !per_layer_inputs(p, err)) return false;
    for (uint32_t il = 0; il < p->c->n_layer; il++) {
        memcpy(p->b->layers[il].x, p->b->x, bytes);
        layer(p, il, p->b->x);
    }
    return true;
}

/* ---- backwards: adapters ---- */

static void zero(float *x, uint64_t n) { memset(x, 0, (size_t)n * sizeof *x); }

/* din += of adapt(), and the gradients of its A and B. */
static void adapt_back(const pass *p, uint32_t slot, const float *in, const float *dout,
                       uint32_t n_row, float *din) {
    back_cpu *b = p->b;
    const lora_pair *pair = lora_slot(b->adapter, slot);
    const size_t n = (size_t)n_row * pair->n_col;
    if (!pair->rank) return;
    const float *seen = seen_by(p, slot, in, n_row);
    float *dseen = seen == in ? din : b->ddropped;
    if (seen != in) zero(dseen, n);
    back_lora(pair, seen, dout, n_row, b->inner, lora_slot(p->grad, slot), dseen);
    if (seen == in) return;
    ref_dropout(dseen, n, b->adapter->dropout, back_dropout_key(p->in, slot, p->b->block), dseen);
    for (size_t i = 0; i < n; i++) din[i] += dseen[i];
}

/* din += of project() */
static void project_back(const pass *p, uint32_t il, lora_target t, const float *in,
                         const float *dout, float *din) {
    back_matmul(lora_weight(p->b->model, il, t), 0, dout, p->n_tok, din);
    adapt_back(p, il * LORA_TARGETS + t, in, dout, p->n_tok, din);
}

static void norm_back(const pass *p, const float *x, const vector *w, const float *dout,
                      float *dx) {
    back_rmsnorm(x, w->data, dout, p->n_tok, w->n, p->c->rms_eps, dx);
}

/* ---- the head, both ways ---- */

/* Rows x [n, n_embd] whose next tokens are targets, each counting weights: their loss, and dx. */
static double head_rows(const pass *p, const float *x, const int32_t *targets, const float *weights,
                        uint32_t n, float scale, float *dx) {
    back_cpu *b = p->b;
    const model_weights *w = &b->model->weights;
    const uint32_t d = p->c->n_embd, n_vocab = p->c->n_vocab;
    const uint32_t slot = lora_slots(b->adapter) - 1;
    float *normed = b->rows + (size_t)BACK_HEAD_ROWS * d,
          *dnormed = b->drows + (size_t)BACK_HEAD_ROWS * d;
    double loss = 0;
    ref_rmsnorm(x, w->output_norm.data, n, d, p->c->rms_eps, normed);
    ref_matmul(w->output, 0, normed, n, b->logits);
    adapt(p, slot, normed, n, b->logits);
    for (uint32_t i = 0; i < n; i++) {
        float *logits = b->logits + (size_t)i * n_vocab;
        if (p->c->softcap > 0) ref_softcap(logits, n_vocab, p->c->softcap);
        memcpy(b->capped, logits, n_vocab * sizeof *logits);
        const double nll = back_cross_entropy(logits, n_vocab, targets[i], scale * weights[i]);
        loss += (double)weights[i] * nll;
        if (p->c->softcap > 0) back_softcap(b->capped, n_vocab, p->c->softcap, logits);
    }
    if (!p->grad) return loss;
    zero(dnormed, (uint64_t)n * d);
    back_matmul(w->output, 0, b->logits, n, dnormed);
    adapt_back(p, slot, normed, b->logits, n, dnormed);
    zero(dx, (uint64_t)n * d);
    back_rmsnorm(x, w->output_norm.data, dnormed, n, d, p->c->rms_eps, dx);
    return loss;
}

/* (22), (23): the loss, and dx of the stream where it is learned. */
static double head(const pass *p, float scale) {
    back_cpu *b = p->b;
    const uint32_t d = p->c->n_embd;
    const size_t row = d * sizeof(float);
    uint32_t at[BACK_HEAD_ROWS], n = 0;
    int32_t targets[BACK_HEAD_ROWS];
    float weights[BACK_HEAD_ROWS];
    double loss = 0;
    memset(b->dx, 0, p->n_tok * row);
    for (uint32_t i = 1; i <= p->n_tok; i++) {
        if (i < p->n_tok && p->in->weight[i] > 0) {
            memcpy(b->rows + (size_t)n * d, b->x + (size_t)(i - 1) * d, row);
            at[n] = i - 1;
            targets[n] = p->in->tokens[i];
            weights[n++] = p->in->weight[i];
        }
        if (n < BACK_HEAD_ROWS && (i < p->n_tok || n == 0)) continue;
        loss += head_rows(p, b->rows, targets, weights, n, scale, b->drows);
        b->block += n;
        for (uint32_t k = 0; k < n && p->grad; k++)
            memcpy(b->dx + (size_t)at[k] * d, b->drows + (size_t)k * d, row);
        n = 0;
    }
    b->block = 0;
    return loss;
}

/* ---- backwards: a layer; dx is the stream's gradient, of what leaves and then what enters ---- */

/* (13) */
static void inject_ple_back(const pass *p, uint32_t il) {
    back_cpu *b = p->b;
    const saved *s = &b->layers[il];
    const layer_weights *w = &b->model->weights.layers[il];
    const uint32_t width = p->c->n_ple, n_tok = p->n_tok;
    zero(b->dpart, (uint64_t)n_tok * p->c->n_embd);
    norm_back(p, s->ple, &w->ple_norm, b->dx, b->dpart);
    zero(b->dple_act, (uint64_t)n_tok * width);
    back_matmul(&w->ple_proj, 0, b->dpart, n_tok, b->dple_act);
    for (uint32_t i = 0; i < n_tok; i++) {
        const size_t at = (size_t)i * width;
        back_geglu(s->ple_gate + at, ple_slice(p, il, i), b->dple_act + at, width, b->dple + at,
                   b->de_layer + at);
    }
    back_matmul(&w->ple_gate, 0, b->dple, n_tok, b->dx);
    for (uint32_t i = 0; i < n_tok && b->adapter->embed.rank; i++)
        memcpy(b->de + ((size_t)i * p->c->n_layer + il) * width, b->de_layer + (size_t)i * width,
               width * sizeof *b->de);
}

/* (21)-(15), (12) */
static void feed_forward_back(const pass *p, uint32_t il) {
    back_cpu *b = p->b;
    const saved *s = &b->layers[il];
    const layer_weights *w = &b->model->weights.layers[il];
    const uint64_t n = (uint64_t)p->n_tok * p->c->n_embd;
    const uint64_t n_ff = (uint64_t)p->n_tok * w->gate.n_row;
    zero(b->dm, n);
    norm_back(p, s->m, &w->post_ffn_norm, b->dx, b->dm);
    float *ddown = b->dm;
    if (p->c->layers[il].moe) {
        zero(b->dpart, n);
        norm_back(p, s->sum, &w->post_norm_2, b->dm, b->dpart);
        experts_backward(b->experts, il, s->y, b->dpart, p->n_tok, b->dx);
        ddown = b->dpart;
        zero(ddown, n);
        norm_back(p, s->down, &w->post_norm_1, b->dm, ddown);
    }
    zero(b->dact, n_ff);
    project_back(p, il, LORA_DOWN, s->act, ddown, b->dact);
    back_geglu(s->gate, s->up, b->dact, (size_t)n_ff, b->dgate, b->dup);
    zero(b->dn, n);
    project_back(p, il, LORA_UP, s->z, b->dup, b->dn);
    project_back(p, il, LORA_GATE, s->z, b->dgate, b->dn);
    norm_back(p, s->y, &w->ffn_norm, b->dn, b->dx);
}

/* (10): dq, and what the donor's K and V get */
static void attend_back(const pass *p, uint32_t il) {
    back_cpu *b = p->b;
    const layer_config *l = &p->c->layers[il];
    const saved *s = &b->layers[il];
    const uint32_t hd = l->head_dim, width = kv_width(l), group = l->n_head / l->n_kv;
#pragma omp parallel for schedule(static)
    for (uint32_t g = 0; g < l->n_kv; g++) {
        const uint32_t col = g * hd;
        float *scores = b->scores + (size_t)g * 2 * b->n_max;
        for (uint32_t h = g * group; h < (g + 1) * group; h++)
            for (uint32_t i = 0; i < p->n_tok; i++) {
                const uint32_t from = first_key(p, l, i);
                const size_t at = ((size_t)i * l->n_head + h) * hd;
                const size_t key = (size_t)from * width + col;
                back_attend(s->q + at, b->k[l->donor] + key, b->v[l->donor] + key, b->dattn + at,
                            i + 1 - from, width, hd, scores, b->dq + at, b->dk[l->donor] + key,
                            b->dv[l->donor] + key);
            }
    }
}

/* dout [n_tok, n_head, head_dim] in place to before RoPE; draw is set */
static void norm_and_rotate_back(const pass *p, const layer_config *l, const float *raw,
                                 uint32_t n_head, const vector *w, float *dout, float *draw) {
    const uint32_t width = n_head * l->head_dim;
    for (uint32_t i = 0; i < p->n_tok; i++)
        back_rope(dout + (size_t)i * width, rope_of(p, l, i), n_head, l->head_dim, l->n_rot);
    zero(draw, (uint64_t)p->n_tok * width);
    back_rmsnorm(raw, w->data, dout, p->n_tok * n_head, l->head_dim, p->c->rms_eps, draw);
}

/* (9): all that has been added to the layer's K and V, by itself and by those that share them */
static void keys_and_values_back(const pass *p, uint32_t il) {
    back_cpu *b = p->b;
    const layer_config *l = &p->c->layers[il];
    const layer_weights *w = &b->model->weights.layers[il];
    const saved *s = &b->layers[il];
    const size_t n = (size_t)p->n_tok * kv_width(l);
    zero(b->dv_raw, n);
    back_rmsnorm(l->k_eq_v ? s->k_raw : s->v_raw, NULL, b->dv[il], p->n_tok * l->n_kv, l->head_dim,
                 p->c->rms_eps, b->dv_raw);
    norm_and_rotate_back(p, l, s->k_raw, l->n_kv, &w->k_norm, b->dk[il], b->dk_raw);
    if (l->k_eq_v)
        for (size_t i = 0; i < n; i++) b->dk_raw[i] += b->dv_raw[i];
    else
        project_back(p, il, LORA_V, s->n, b->dv_raw, b->dn);
    project_back(p, il, LORA_K, s->n, b->dk_raw, b->dn);
    zero(b->dk[il], n);
    zero(b->dv[il], n);
}

/* (11)-(7) */
static void attention_back(const pass *p, uint32_t il) {
    back_cpu *b = p->b;
    const layer_config *l = &p->c->layers[il];
    const layer_weights *w = &b->model->weights.layers[il];
    const saved *s = &b->layers[il];
    const uint64_t n = (uint64_t)p->n_tok * p->c->n_embd;
    zero(b->dpart, n);
    norm_back(p, s->o, &w->post_attn_norm, b->dx, b->dpart);
    zero(b->dattn, (uint64_t)p->n_tok * w->out.n_col);
    project_back(p, il, LORA_OUT, s->attn, b->dpart, b->dattn);
    attend_back(p, il);
    zero(b->dn, n);
    if (l->owns_kv) keys_and_values_back(p, il);
    norm_and_rotate_back(p, l, s->q_raw, l->n_head, &w->q_norm, b->dq, b->dq_raw);
    project_back(p, il, LORA_Q, s->n, b->dq_raw, b->dn);
    norm_back(p, s->x, &w->attn_norm, b->dn, b->dx);
}

static void layer_back(const pass *p, uint32_t il) {
    const float scale = p->b->model->weights.layers[il].scale;
    for (size_t i = 0; i < (size_t)p->n_tok * p->c->n_embd; i++) p->b->dx[i] *= scale;
    if (p->c->n_ple) inject_ple_back(p, il);
    feed_forward_back(p, il);
    attention_back(p, il);
}

/* ---- backwards: inputs ---- */

/* (6)-(4): dx += */
static void per_layer_inputs_back(const pass *p) {
    back_cpu *b = p->b;
    const model_weights *w = &b->model->weights;
    const uint32_t width = p->c->n_layer * p->c->n_ple;
    const size_t n = (size_t)p->n_tok * width;
    const float scale = 1 / sqrtf((float)p->c->n_embd);
    for (size_t i = 0; i < n; i++) b->de[i] *= sqrtf(0.5f);
    zero(b->e, n); /* not read any more: db */
    back_rmsnorm(b->b_raw, w->ple_proj_norm.data, b->de, p->n_tok * p->c->n_layer, p->c->n_ple,
                 p->c->rms_eps, b->e);
    for (size_t i = 0; i < n; i++) b->e[i] *= scale;
    back_matmul(&w->ple_model_proj, 0, b->e, p->n_tok, b->dx);
}

/* (1) */
static void embed_back(const pass *p) {
    const uint32_t d = p->c->n_embd;
    const float scale = sqrtf((float)d);
    for (uint32_t i = 0; i < p->n_tok; i++) {
        float *dx = p->b->dx + (size_t)i * d;
        for (uint32_t j = 0; j < d; j++) dx[j] *= scale;
        back_lora_embed(&p->b->adapter->embed, p->in->tokens[i], dx, &p->grad->embed);
    }
}

static void backward(const pass *p) {
    back_cpu *b = p->b;
    for (uint32_t il = 0; il < p->c->n_layer; il++) {
        const uint64_t n = (uint64_t)p->n_tok * kv_width(&p->c->layers[il]);
        if (b->dk[il]) zero(b->dk[il], n);
        if (b->dv[il]) zero(b->dv[il], n);
    }
    for (uint32_t il = p->c->n_layer; il-- > b->first;) {
        if (b->recompute) layer(p, il, b->x);
        layer_back(p, il);
    }
    if (!b->adapter->embed.rank) return;
    if (p->c->n_ple) per_layer_inputs_back(p);
    embed_back(p);
}

/* ---- a run ---- */

static bool check_batch(const back_cpu *b, const train_batch *in, carat_error *err) {
    if (!in->n_tok || in->n_tok > b->n_max)
        return fail(err, CARAT_E_ARGUMENT, "train: %u tokens at once, at most %u", in->n_tok,
                    b->n_max);
    for (uint32_t i = 0; i < in->n_tok; i++) {
        if (in->tokens[i] < 0 || (uint32_t)in->tokens[i] >= b->model->config.n_vocab)
            return fail(err, CARAT_E_ARGUMENT, "train: there is no token %d", in->tokens[i]);
        assert(in->start[i] <= i && (in->start[i] < i || in->weight[i] == 0));
    }
    return true;
}

bool back_cpu_run(back_cpu *b, const train_batch *batch, float scale, lora *grad, double *loss,
                  carat_error *err) {
    const pass p = {
        .b = b, .c = &b->model->config, .in = batch, .n_tok = batch->n_tok, .grad = grad};
    if (!check_batch(b, batch, err) || !forward(&p, err)) return false;
    *loss = head(&p, scale);
    if (grad) backward(&p);
    return true;
}
