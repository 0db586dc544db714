/* text_cpu: the text network, as its definition says it: f32, one operation after the other, for
 * up to TEXT_CPU_CHUNK tokens at a time. The fast twin is text_gpu.c; both name the same values for
 * taps. Numbers in parentheses are the equations of docs/model.md.
 *
 * K and V are kept as plain rows [n_ctx, n_kv * head_dim] for each layer that owns them; keys are
 * stored normed and rotated, values normed.
 *
 * Flow: weights.c before (its matrices must be resident), session.c after. */
#include "model/encoder.h"
#include "model/lora.h"

#include <math.h>
#include <string.h>

#define PADDING 0 /* the token */

struct text_cpu {
    const model *model;
    arena *memory, *work; /* KV; everything else */
    uint32_t n_ctx;
    uint32_t n_work; /* n_tok below: tokens that there is room for at a time */
    float *k[MODEL_MAX_LAYERS], *v[MODEL_MAX_LAYERS]; /* [n_ctx, n_kv * head_dim], owners */
    float *rope[2];       /* [n_tok, n_rot, 2] of global, of sliding layers */
    float *x;             /* [n_tok, n_embd] the residual stream */
    float *norm, *part;   /* [n_tok, n_embd] an input and an output of a block */
    float *q, *attn;      /* [n_tok, n_head * head_dim] */
    float *gate, *up;     /* [n_tok, n_ff] */
    float *ple;           /* [n_tok, n_layer, n_ple] a of (3), then e of (6) */
    float *ple_proj;      /* [n_tok, n_layer, n_ple] b of (4) */
    float *ple_gate;      /* [n_tok, n_ple] */
    float *scores;        /* [n_head, n_ctx] */
    float *route;         /* [n_expert] */
    uint32_t *chosen;     /* [n_expert_used] */
    float *expert_out;    /* [n_embd] */
    float *expert_sum;    /* [n_tok, n_embd] */
    bool f16_kv;          /* K and V are rounded */
    const lora_use *uses; /* [n_use] adapters */
    uint32_t n_use;
};

/* One run: what every step of a forward pass needs to know. */
typedef struct run {
    text_cpu *t;
    const model_config *c;
    uint32_t n_tok, pos;
    const soft_span *spans; /* [n_span] */
    uint32_t n_span;
    const tap *taps;
} run;

/* Positions [begin, end). */
typedef struct key_range {
    uint32_t begin, end;
} key_range;

/* ---- memory ---- */

static uint32_t kv_width(const layer_config *l) { return l->n_kv * l->head_dim; }

static float *floats(arena *a, uint64_t n, bool *ok, carat_error *err) {
    float *p = arena_alloc(a, n, sizeof *p);
    if (!p) *ok = fail_memory(err, n * sizeof *p, "a session on the CPU");
    return p;
}

static bool allocate_kv(text_cpu *t, carat_error *err) {
    const model_config *c = &t->model->config;
    bool ok = true;
    for (uint32_t il = 0; il < c->n_layer; il++) {
        const layer_config *l = &c->layers[il];
        if (!l->owns_kv) continue;
        t->k[il] = floats(t->memory, (uint64_t)t->n_ctx * kv_width(l), &ok, err);
        t->v[il] = floats(t->memory, (uint64_t)t->n_ctx * kv_width(l), &ok, err);
    }
    return ok;
}

static bool allocate_work(text_cpu *t, carat_error *err) {
    const model_config *c = &t->model->config;
    arena *a = t->work;
    uint64_t n_tok = t->n_work, heads = 0, n_head = 0, n_ff = 2 * c->n_ff_expert, n_rot = 0;
    bool ok = true;
    for (uint32_t il = 0; il < c->n_layer; il++) {
        const layer_config *l = &c->layers[il];
        heads = max_u32((uint32_t)heads, l->n_head * l->head_dim);
        n_head = max_u32((uint32_t)n_head, l->n_head);
        n_ff = max_u32((uint32_t)n_ff, l->n_ff);
        n_rot = max_u32((uint32_t)n_rot, l->n_rot);
    }
    for (int i = 0; i < 2; i++) t->rope[i] = floats(a, n_tok * n_rot * 2, &ok, err);
    t->x = floats(a, n_tok * c->n_embd, &ok, err);
    t->norm = floats(a, n_tok * c->n_embd, &ok, err);
    t->part = floats(a, n_tok * c->n_embd, &ok, err);
    t->q = floats(a, n_tok * heads, &ok, err);
    t->attn = floats(a, n_tok * heads, &ok, err);
    t->gate = floats(a, n_tok * n_ff, &ok, err);
    t->up = floats(a, n_tok * n_ff, &ok, err);
    t->scores = floats(a, n_head * t->n_ctx, &ok, err);
    if (c->n_ple) {
        t->ple = floats(a, n_tok * c->n_layer * c->n_ple, &ok, err);
        t->ple_proj = floats(a, n_tok * c->n_layer * c->n_ple, &ok, err);
        t->ple_gate = floats(a, n_tok * c->n_ple, &ok, err);
    }
    if (c->n_expert) {
        t->route = floats(a, c->n_expert, &ok, err);
        t->expert_out = floats(a, c->n_embd, &ok, err);
        t->expert_sum = floats(a, n_tok * c->n_embd, &ok, err);
        t->chosen = arena_alloc(a, c->n_expert_used, sizeof *t->chosen);
        if (!t->chosen) ok = fail_memory(err, c->n_expert_used, "a session on the CPU");
    }
    return ok;
}

/* Makes room for n tokens at a time; on failure there is the room that there was. */
static bool reserve(text_cpu *t, uint32_t n, carat_error *err) {
    if (n <= t->n_work) return true;
    const text_cpu before = *t;
    t->work = arena_create(err);
    t->n_work = n;
    if (t->work && allocate_work(t, err)) {
        arena_free(before.work);
        return true;
    }
    arena_free(t->work);
    *t = before;
    return false;
}

bool text_cpu_create(const model *m, uint32_t n_ctx, text_cpu **out, carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return false;
    text_cpu *t = arena_alloc(memory, 1, sizeof *t);
    bool ok = t || fail_memory(err, sizeof *t, "a session on the CPU");
    if (ok) {
        *t = (text_cpu){.model = m, .memory = memory, .n_ctx = n_ctx};
        ok = allocate_kv(t, err) && reserve(t, min_u32(TEXT_CPU_CHUNK, n_ctx), err);
    }
    if (ok)
        *out = t;
    else
        arena_free(memory);
    return ok;
}

void text_cpu_free(text_cpu *t) {
    if (!t) return;
    arena_free(t->work);
    arena_free(t->memory);
}

void text_cpu_round_kv(text_cpu *t) { t->f16_kv = true; }

void text_cpu_adapt(text_cpu *t, const lora_use *uses, uint32_t n) {
    t->uses = uses;
    t->n_use = n;
}

/* ---- inputs ---- */

static void add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] += y[i];
}

static void norm_rows(const run *r, const float *x, const vector *w, float *out) {
    ref_rmsnorm(x, w->data, r->n_tok, w->n, r->c->rms_eps, out);
}

/* x += rmsw(part, w) */
static void add_normed(const run *r, const vector *w) {
    norm_rows(r, r->t->part, w, r->t->part);
    add(r->t->x, r->t->part, (size_t)r->n_tok * w->n);
}

static const soft_span *span_at(const soft_span *spans, uint32_t n_span, uint32_t pos) {
    for (uint32_t s = 0; s < n_span; s++)
        if (pos >= spans[s].pos && pos - spans[s].pos < spans[s].n) return &spans[s];
    return NULL;
}

/* The span that the run's token i is in; NULL: it is a token. */
static const soft_span *span_of(const run *r, uint32_t i) {
    return span_at(r->spans, r->n_span, r->pos + i);
}

/* out = W in, and what the adapters add */
static void project(const run *r, uint32_t il, lora_target p, const float *in, float *out) {
    ref_matmul(lora_weight(r->t->model, il, p), 0, in, r->n_tok, out);
    for (uint32_t i = 0; i < r->t->n_use; i++)
        ref_lora(lora_at(r->t->uses[i].lora, il, p), r->t->uses[i].scale, in, r->n_tok, out);
}

/* (1) x = sqrt(n_embd) E[token]; a soft token is x as it comes */
static void embed(const run *r, const int32_t *tokens) {
    const uint32_t d = r->c->n_embd;
    const float scale = sqrtf((float)d);
    for (uint32_t i = 0; i < r->n_tok; i++) {
        float *x = r->t->x + (size_t)i * d;
        const soft_span *s = span_of(r, i);
        if (s) {
            memcpy(x, s->rows + (size_t)(r->pos + i - s->pos) * d, d * sizeof *x);
            continue;
        }
        ref_dequantise_row(&r->t->model->weights.embed, (uint64_t)tokens[i], x);
        for (uint32_t u = 0; u < r->t->n_use; u++)
            ref_lora_embed(&r->t->uses[u].lora->embed, r->t->uses[u].scale, tokens[i], x);
        for (uint32_t j = 0; j < d; j++) x[j] *= scale;
    }
    tap_out(r->taps, "embed", -1, r->t->x, r->n_tok, d);
}

/* (3)-(6): what each layer will be told about each token itself */
static bool per_layer_inputs(const run *r, const int32_t *tokens, carat_error *err) {
    text_cpu *t = r->t;
    const model_weights *w = &t->model->weights;
    const uint32_t width = r->c->n_layer * r->c->n_ple;
    const size_t n = (size_t)r->n_tok * width;
    /* (3) a = sqrt(n_ple) T[token]; a soft token counts as padding */
    for (uint32_t i = 0; i < r->n_tok; i++)
        if (!model_ple_row(t->model, span_of(r, i) ? PADDING : tokens[i], width,
                           t->ple + (size_t)i * width, err))
            return false;
    /* (4) b = M x / sqrt(n_embd) */
    ref_matmul(&w->ple_model_proj, 0, t->x, r->n_tok, t->ple_proj);
    const float scale = 1 / sqrtf((float)r->c->n_embd);
    for (size_t i = 0; i < n; i++) t->ple_proj[i] *= scale;
    /* (5) each layer's slice of b is normed by itself */
    ref_rmsnorm(t->ple_proj, w->ple_proj_norm.data, r->n_tok * r->c->n_layer, r->c->n_ple,
                r->c->rms_eps, t->ple_proj);
    /* (6) e = (b + a) / sqrt(2) */
    for (size_t i = 0; i < n; i++) t->ple[i] = (t->ple_proj[i] + t->ple[i]) * sqrtf(0.5f);
    return true;
}

/* ---- attention ---- */

/* rmsw of each head, and RoPE */
static void norm_and_rotate(const run *r, const layer_config *l, float *x, uint32_t n_head,
                            const vector *norm) {
    const float *rope = r->t->rope[l->sliding];
    ref_rmsnorm(x, norm->data, r->n_tok * n_head, l->head_dim, r->c->rms_eps, x);
    for (uint32_t i = 0; i < r->n_tok; i++)
        ref_rope(x + (size_t)i * n_head * l->head_dim, rope + (size_t)i * l->n_rot * 2, n_head,
                 l->head_dim, l->n_rot);
}

static void round_to_f16(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = half_to_float(float_to_half(x[i]));
}

/* (9) K and V of the run's tokens, written where they stay */
static void keys_and_values(const run *r, uint32_t il) {
    text_cpu *t = r->t;
    const layer_config *l = &r->c->layers[il];
    const layer_weights *w = &t->model->weights.layers[il];
    const uint32_t width = kv_width(l);
    float *k = t->k[il] + (size_t)r->pos * width, *v = t->v[il] + (size_t)r->pos * width;
    project(r, il, LORA_K, t->norm, k);
    if (l->k_eq_v)
        memcpy(v, k, (size_t)r->n_tok * width * sizeof *v);
    else
        project(r, il, LORA_V, t->norm, v);
    norm_and_rotate(r, l, k, l->n_kv, &w->k_norm);
    ref_rmsnorm(v, NULL, r->n_tok * l->n_kv, l->head_dim, r->c->rms_eps, v);
    if (t->f16_kv) {
        round_to_f16(k, (size_t)r->n_tok * width);
        round_to_f16(v, (size_t)r->n_tok * width);
    }
    tap_out(r->taps, "k", (int)il, k, r->n_tok, width);
    tap_out(r->taps, "v", (int)il, v, r->n_tok, width);
}

/* Keys that the run's token i sees: all before and itself; on sliding layers `window` of them, and
 * where the model does so the rest of the picture that it is in. */
static key_range visible(const run *r, const layer_config *l, uint32_t i) {
    const uint32_t seen = r->pos + i + 1;
    const uint32_t n = l->window ? min_u32(seen, l->window) : seen;
    const soft_span *s = l->sliding && r->c->vision_bidirectional ? span_of(r, i) : NULL;
    return (key_range){seen - n, s && s->picture ? s->pos + s->n : seen};
}

/* (10) softmax over the visible keys */
static void attend(const run *r, uint32_t il) {
    text_cpu *t = r->t;
    const layer_config *l = &r->c->layers[il];
    const uint32_t hd = l->head_dim, width = kv_width(l), group = l->n_head / l->n_kv;
    const uint64_t keys = (uint64_t)r->n_tok * (l->window ? l->window : r->pos + r->n_tok);
    const bool big = keys * l->n_head * hd > REF_PARALLEL;
#pragma omp parallel for schedule(static) if (big)
    for (uint32_t h = 0; h < l->n_head; h++) {
        const float *k = t->k[l->donor] + h / group * hd, *v = t->v[l->donor] + h / group * hd;
        for (uint32_t i = 0; i < r->n_tok; i++) {
            const key_range seen = visible(r, l, i);
            const size_t first = (size_t)seen.begin * width;
            const size_t at = ((size_t)i * l->n_head + h) * hd;
            ref_attend(t->q + at, k + first, v + first, seen.end - seen.begin, width, hd,
                       t->scores + (size_t)h * t->n_ctx, t->attn + at);
        }
    }
    (void)big; /* without OpenMP */
}

static void attention(const run *r, uint32_t il) {
    text_cpu *t = r->t;
    const layer_config *l = &r->c->layers[il];
    const layer_weights *w = &t->model->weights.layers[il];
    const uint32_t heads = l->n_head * l->head_dim;
    /* (7) n = rmsw(x, attn_norm) */
    norm_rows(r, t->x, &w->attn_norm, t->norm);
    tap_out(r->taps, "attn_norm", (int)il, t->norm, r->n_tok, r->c->n_embd);
    /* (8) q = rope(rmsw(Wq n, q_norm)) */
    project(r, il, LORA_Q, t->norm, t->q);
    norm_and_rotate(r, l, t->q, l->n_head, &w->q_norm);
    tap_out(r->taps, "q", (int)il, t->q, r->n_tok, heads);
    if (l->owns_kv) keys_and_values(r, il);
    attend(r, il);
    tap_out(r->taps, "attn", (int)il, t->attn, r->n_tok, heads);
    /* (11) y = x + rmsw(Wo o, post_attention_norm) */
    project(r, il, LORA_OUT, t->attn, t->part);
    tap_out(r->taps, "attn_out", (int)il, t->part, r->n_tok, r->c->n_embd);
    add_normed(r, &w->post_attn_norm);
}

/* ---- feed-forward ---- */

/* (12) part = Wdown (gelu(Wgate z) * Wup z), z = rmsw(y, ffn_norm) */
static void dense_ffn(const run *r, uint32_t il) {
    text_cpu *t = r->t;
    const layer_weights *w = &t->model->weights.layers[il];
    norm_rows(r, t->x, &w->ffn_norm, t->norm);
    tap_out(r->taps, "ffn_in", (int)il, t->norm, r->n_tok, r->c->n_embd);
    project(r, il, LORA_GATE, t->norm, t->gate);
    project(r, il, LORA_UP, t->norm, t->up);
    ref_geglu(t->gate, t->up, (size_t)r->n_tok * w->gate.n_row, t->gate);
    project(r, il, LORA_DOWN, t->gate, t->part);
}

/* (16), (17) The experts of one token y [n_embd]: indices in t->chosen, the weight of each in
 * t->route[its index]. norm is scratch. Ties go to the lower index. */
static void choose_experts(const run *r, const layer_weights *w, const float *y, float *norm) {
    text_cpu *t = r->t;
    const float scale = 1 / sqrtf((float)r->c->n_embd);
    ref_rmsnorm(y, w->router_scale.data, 1, r->c->n_embd, r->c->rms_eps, norm);
    for (uint32_t i = 0; i < r->c->n_embd; i++) norm[i] *= scale;
    ref_matmul(&w->router, 0, norm, 1, t->route);
    ref_softmax(t->route, r->c->n_expert);
    float sum = 0;
    for (uint32_t n = 0; n < r->c->n_expert_used; n++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t e = 0; e < r->c->n_expert; e++) {
            bool taken = false;
            for (uint32_t i = 0; i < n; i++) taken |= t->chosen[i] == e;
            if (!taken && (best == UINT32_MAX || t->route[e] > t->route[best])) best = e;
        }
        t->chosen[n] = best;
        sum += t->route[best];
    }
    for (uint32_t n = 0; n < r->c->n_expert_used; n++) t->route[t->chosen[n]] /= sum;
}

/* (19) x = Wdown[e] (gelu(gate[e] z) * up[e] z), for one token z [n_embd] */
static void expert_ffn(const run *r, const layer_weights *w, uint32_t e, const float *z, float *x) {
    text_cpu *t = r->t;
    const uint32_t n_ff = r->c->n_ff_expert;
    const float *gate = t->gate, *up = t->up;
    if (w->gate_up_exps.tensor) {
        ref_matmul(&w->gate_up_exps, e, z, 1, t->up);
        gate = t->up;
        up = t->up + n_ff;
    } else {
        ref_matmul(&w->gate_exps, e, z, 1, t->gate);
        ref_matmul(&w->up_exps, e, z, 1, t->up);
    }
    ref_geglu(gate, up, n_ff, t->gate);
    ref_matmul(&w->down_exps, e, t->gate, 1, x);
}

/* part: (15) from the dense branch's output, plus (20) */
static void add_experts(const run *r, uint32_t il) {
    text_cpu *t = r->t;
    const layer_weights *w = &t->model->weights.layers[il];
    const uint32_t d = r->c->n_embd;
    memset(t->expert_sum, 0, (size_t)r->n_tok * d * sizeof(float));
    norm_rows(r, t->part, &w->post_norm_1, t->part);
    for (uint32_t i = 0; i < r->n_tok; i++) {
        const float *y = t->x + (size_t)i * d;
        float *z = t->norm, *x = t->expert_out, *sum = t->expert_sum + (size_t)i * d;
        choose_experts(r, w, y, z);
        /* (18) z = rmsw(y, pre_norm_2) */
        ref_rmsnorm(y, w->pre_norm_2.data, 1, d, r->c->rms_eps, z);
        for (uint32_t n = 0; n < r->c->n_expert_used; n++) {
            const uint32_t e = t->chosen[n];
            const float scale = t->route[e] * w->down_exps_scale.data[e];
            expert_ffn(r, w, e, z, x);
            for (uint32_t j = 0; j < d; j++) sum[j] += scale * x[j];
        }
    }
    /* (20) */
    norm_rows(r, t->expert_sum, &w->post_norm_2, t->expert_sum);
    add(t->part, t->expert_sum, (size_t)r->n_tok * d);
}

/* (13) x += rmsw(Wproj (gelu(Winp_gate x) * e), post_norm) */
static void inject_ple(const run *r, uint32_t il) {
    text_cpu *t = r->t;
    const layer_weights *w = &t->model->weights.layers[il];
    const uint32_t p = r->c->n_ple;
    ref_matmul(&w->ple_gate, 0, t->x, r->n_tok, t->ple_gate);
    for (uint32_t i = 0; i < r->n_tok; i++) {
        float *gate = t->ple_gate + (size_t)i * p;
        ref_geglu(gate, t->ple + ((size_t)i * r->c->n_layer + il) * p, p, gate);
    }
    ref_matmul(&w->ple_proj, 0, t->ple_gate, r->n_tok, t->part);
    tap_out(r->taps, "ple", (int)il, t->part, r->n_tok, r->c->n_embd);
    add_normed(r, &w->ple_norm);
}

/* ---- the network ---- */

static void layer(const run *r, uint32_t il) {
    text_cpu *t = r->t;
    const layer_weights *w = &t->model->weights.layers[il];
    const uint32_t d = r->c->n_embd;
    attention(r, il);
    dense_ffn(r, il);
    if (r->c->layers[il].moe) add_experts(r, il);
    tap_out(r->taps, "ffn_out", (int)il, t->part, r->n_tok, d);
    /* (12), (21) r = y + rmsw(part, post_ffw_norm) */
    add_normed(r, &w->post_ffn_norm);
    if (r->c->n_ple) inject_ple(r, il);
    /* (14) */
    for (size_t i = 0; i < (size_t)r->n_tok * d; i++) t->x[i] *= w->scale;
    tap_out(r->taps, "layer_out", (int)il, t->x, r->n_tok, d);
}

/* (22), (23) The logits of the run's last n tokens. */
static void head(const run *r, uint32_t n, float *logits) {
    text_cpu *t = r->t;
    const model_weights *w = &t->model->weights;
    const uint32_t d = r->c->n_embd, n_vocab = r->c->n_vocab;
    const int il = (int)r->c->n_layer;
    ref_rmsnorm(t->x + (size_t)(r->n_tok - n) * d, w->output_norm.data, n, d, r->c->rms_eps,
                t->norm);
    tap_out(r->taps, "final_norm", il, t->norm, n, d);
    ref_matmul(w->output, 0, t->norm, n, logits);
    for (uint32_t i = 0; i < t->n_use; i++)
        ref_lora(&t->uses[i].lora->head, t->uses[i].scale, t->norm, n, logits);
    if (r->c->softcap > 0) ref_softcap(logits, (size_t)n * n_vocab, r->c->softcap);
    tap_out(r->taps, "logits", il, logits, n, n_vocab);
}

/* One chunk. Where no logits are wanted, the layers after the last owner of KV change nothing that
 * anybody reads later. */
static bool forward_chunk(const run *r, const int32_t *tokens, uint32_t n_out, float *logits,
                          carat_error *err) {
    const uint32_t n_run = n_out || r->taps ? r->c->n_layer : r->c->n_owner;
    embed(r, tokens);
    if (r->c->n_ple && !per_layer_inputs(r, tokens, err)) return false;
    for (int sliding = 0; sliding < 2; sliding++)
        model_rope_rows(r->t->model, sliding, r->pos, r->n_tok, r->t->rope[sliding]);
    for (uint32_t il = 0; il < n_run; il++) layer(r, il);
    if (n_out) head(r, n_out, logits);
    return true;
}

static bool check_input(const text_cpu *t, const text_input *in, carat_error *err) {
    const uint32_t n_vocab = t->model->config.n_vocab;
    if (in->pos > t->n_ctx || in->n_tok > t->n_ctx - in->pos)
        return fail(err, CARAT_E_CONTEXT, "text: %u tokens at %u do not fit a context of %u",
                    in->n_tok, in->pos, t->n_ctx);
    for (uint32_t i = 0; i < in->n_tok; i++)
        if ((in->tokens[i] < 0 || (uint32_t)in->tokens[i] >= n_vocab) &&
            !span_at(in->spans, in->n_span, in->pos + i))
            return fail(err, CARAT_E_ARGUMENT, "text: there is no token %d", in->tokens[i]);
    return true;
}

/* The picture that `pos` cuts in two and whose parts see each other; NULL: none. */
static const soft_span *cut_picture(const model_config *c, const text_input *in, uint32_t pos) {
    for (uint32_t s = 0; s < in->n_span && c->vision_bidirectional; s++) {
        const soft_span *p = &in->spans[s];
        if (p->picture && pos > p->pos && pos - p->pos < p->n) return p;
    }
    return NULL;
}

/* Where a chunk that begins at `pos` ends. Its size may grow to that of a picture. */
static uint32_t chunk_end(const model_config *c, const text_input *in, uint32_t pos) {
    const uint32_t end = pos + min_u32(TEXT_CPU_CHUNK, in->pos + in->n_tok - pos);
    const soft_span *p = cut_picture(c, in, end);
    if (!p) return end;
    return p->pos > pos ? p->pos : p->pos + p->n;
}

bool text_cpu_forward_soft(text_cpu *t, const text_input *in, uint32_t n_out, float *logits,
                           const tap *taps, carat_error *err) {
    const model_config *c = &t->model->config;
    const uint32_t n_vocab = c->n_vocab, last = in->pos + in->n_tok;
    assert(n_out <= in->n_tok);
    if (!check_input(t, in, err)) return false;
    if (cut_picture(c, in, in->pos) || cut_picture(c, in, last))
        return fail(err, CARAT_E_ARGUMENT, "text: the soft tokens of a picture must come at once");
    for (uint32_t pos = in->pos, end; pos < last; pos = end) {
        end = chunk_end(c, in, pos);
        const uint32_t first_out = max_u32(pos, last - n_out); /* of this chunk */
        const uint32_t wanted = end > first_out ? end - first_out : 0;
        const run r = {.t = t,
                       .c = c,
                       .n_tok = end - pos,
                       .pos = pos,
                       .spans = in->spans,
                       .n_span = in->n_span,
                       .taps = taps};
        if (!reserve(t, r.n_tok, err) ||
            !forward_chunk(&r, in->tokens + (pos - in->pos), wanted, logits, err))
            return false;
        if (wanted) logits += (size_t)wanted * n_vocab;
    }
    return true;
}

bool text_cpu_forward(text_cpu *t, const int32_t *tokens, uint32_t n_tok, uint32_t pos,
                      uint32_t n_out, float *logits, const tap *taps, carat_error *err) {
    const text_input in = {.tokens = tokens, .n_tok = n_tok, .pos = pos};
    return text_cpu_forward_soft(t, &in, n_out, logits, taps, err);
}

/* ---- saving ---- */

uint64_t text_cpu_kv_bytes(const text_cpu *t, uint32_t n) {
    const model_config *c = &t->model->config;
    uint64_t bytes = 0;
    for (uint32_t il = 0; il < c->n_owner; il++)
        bytes += 2 * (uint64_t)n * kv_width(&c->layers[il]) * sizeof(float);
    return bytes;
}

void text_cpu_kv_save(const text_cpu *t, uint32_t n, void *out) {
    const model_config *c = &t->model->config;
    uint8_t *to = out;
    for (uint32_t il = 0; il < c->n_owner; il++) {
        const size_t bytes = (size_t)n * kv_width(&c->layers[il]) * sizeof(float);
        memcpy(to, t->k[il], bytes);
        memcpy(to + bytes, t->v[il], bytes);
        to += 2 * bytes;
    }
}

void text_cpu_kv_restore(text_cpu *t, uint32_t n, const void *in) {
    const model_config *c = &t->model->config;
    const uint8_t *from = in;
    for (uint32_t il = 0; il < c->n_owner; il++) {
        const size_t bytes = (size_t)n * kv_width(&c->layers[il]) * sizeof(float);
        memcpy(t->k[il], from, bytes);
        memcpy(t->v[il], from + bytes, bytes);
        from += 2 * bytes;
    }
}
