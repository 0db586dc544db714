/* Gradients against finite differences: of every operation by itself, value for value, and of the
 * whole network of nano and its relatives along directions of the adapter. */
#include "golden.h"

#include "train/train.h"

static arena *memory;

static float *numbers(uint64_t key, size_t n, float scale) {
    float *x = arena_alloc(memory, n, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) x[i] = scale * (2 * lora_uniform(key, i) - 1);
    return x;
}

static float *zeros(size_t n) { return numbers(0, n, 0); }

/* ---- operations ---- */

/* out [n_out] of some operation whose input x points into its context. */
typedef struct operation {
    void (*run)(void *context, float *out);
    void *context;
    size_t n_out;
    const float *weight; /* [n_out] what is differentiated is sum weight out */
    float *out;          /* [n_out] scratch */
} operation;

static double value(const operation *o) {
    double sum = 0;
    o->run(o->context, o->out);
    for (size_t i = 0; i < o->n_out; i++) sum += (double)o->weight[i] * (double)o->out[i];
    return sum;
}

/* Each of x [n] is moved; got [n] is what the backward pass says. */
static void check(const char *name, const operation *o, float *x, size_t n, const float *got) {
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        const float at = x[i], h = 0.02f;
        double v[4];
        for (int k = 0; k < 4; k++) {
            x[i] = at + h * (float)(k < 2 ? k - 2 : k - 1);
            v[k] = value(o);
        }
        x[i] = at;
        const double want = (8 * (v[2] - v[1]) - (v[3] - v[0])) / (12 * (double)h);
        diff += (want - (double)got[i]) * (want - (double)got[i]);
        norm += want * want;
    }
    const double error = sqrt(diff / norm);
    print_message("%-24s %.1e\n", name, error);
    if (!(error < 5e-4)) fail_msg("%s: relative error %g", name, error);
}

static operation operation_of(void (*run)(void *, float *), void *context, size_t n_out) {
    return (operation){run, context, n_out, numbers(77, n_out, 1), zeros(n_out)};
}

typedef struct args {
    const float *a, *b, *c;
    uint32_t n_tok, n, m;
    const lora_pair *pair;
    const weight *w;
} args;

static void run_rmsnorm(void *context, float *out) {
    const args *a = context;
    ref_rmsnorm(a->a, a->b, a->n_tok, a->n, 1e-6f, out);
}

static void rmsnorm(void **state) {
    (void)state;
    enum { N_TOK = 3, N = 10 };
    float *x = numbers(1, N_TOK * N, 1), *w = numbers(2, N, 2);
    for (int weighted = 0; weighted < 2; weighted++) {
        args a = {.a = x, .b = weighted ? w : NULL, .n_tok = N_TOK, .n = N};
        const operation o = operation_of(run_rmsnorm, &a, N_TOK * N);
        float *dx = zeros(N_TOK * N);
        back_rmsnorm(x, a.b, o.weight, N_TOK, N, 1e-6f, dx);
        check(weighted ? "rmsnorm" : "rmsnorm, no weight", &o, x, N_TOK * N, dx);
    }
}

static void run_rope(void *context, float *out) {
    const args *a = context;
    memcpy(out, a->a, a->n * a->m * sizeof *out);
    ref_rope(out, a->b, a->n, a->m, a->m / 4);
}

static void rope(void **state) {
    (void)state;
    enum { HEADS = 2, HD = 8 };
    float *x = numbers(3, HEADS * HD, 1), turn[HD / 2];
    for (int i = 0; i < HD / 4; i++)
        turn[2 * i] = cosf((float)i + 1), turn[2 * i + 1] = sinf((float)i + 1);
    args a = {.a = x, .b = turn, .n = HEADS, .m = HD};
    const operation o = operation_of(run_rope, &a, HEADS * HD);
    float dx[HEADS * HD];
    memcpy(dx, o.weight, sizeof dx);
    back_rope(dx, turn, HEADS, HD, HD / 4);
    check("rope", &o, x, HEADS * HD, dx);
}

enum { KEYS = 7, HD = 6, STRIDE = 9 };

static void run_attend(void *context, float *out) {
    const args *a = context;
    float scores[KEYS];
    ref_attend(a->a, a->b, a->c, KEYS, STRIDE, HD, scores, out);
}

static void attend(void **state) {
    (void)state;
    float *q = numbers(4, HD, 1), *k = numbers(5, KEYS * STRIDE, 1), scores[2 * KEYS];
    float *v = numbers(6, KEYS * STRIDE, 1), *dq = zeros(HD);
    float *dk = zeros(KEYS * STRIDE), *dv = zeros(KEYS * STRIDE);
    args a = {.a = q, .b = k, .c = v};
    const operation o = operation_of(run_attend, &a, HD);
    back_attend(q, k, v, o.weight, KEYS, STRIDE, HD, scores, dq, dk, dv);
    check("attend, q", &o, q, HD, dq);
    check("attend, k", &o, k, KEYS * STRIDE, dk);
    check("attend, v", &o, v, KEYS * STRIDE, dv);
}

static void run_geglu(void *context, float *out) {
    const args *a = context;
    ref_geglu(a->a, a->b, a->n, out);
}

static void geglu(void **state) {
    (void)state;
    enum { N = 40 };
    float *gate = numbers(7, N, 4), *up = numbers(8, N, 2), dgate[N], dup[N];
    args a = {.a = gate, .b = up, .n = N};
    const operation o = operation_of(run_geglu, &a, N);
    back_geglu(gate, up, o.weight, N, dgate, dup);
    check("geglu, gate", &o, gate, N, dgate);
    check("geglu, up", &o, up, N, dup);
}

/* The softcap is in the loss, so it must be in its gradient. */
static void run_loss(void *context, float *out) {
    const args *a = context;
    float x[32];
    memcpy(x, a->a, a->n * sizeof *x);
    ref_softcap(x, a->n, 3);
    *out = (float)back_cross_entropy(x, a->n, 5, 1);
}

static void loss(void **state) {
    (void)state;
    enum { N = 12 };
    float *x = numbers(9, N, 6), y[N], dx[N];
    args a = {.a = x, .n = N};
    const operation o = operation_of(run_loss, &a, 1);
    memcpy(dx, x, sizeof dx);
    ref_softcap(dx, N, 3);
    memcpy(y, dx, sizeof y);
    back_cross_entropy(dx, N, 5, o.weight[0]);
    back_softcap(y, N, 3, dx);
    check("softcap, cross entropy", &o, x, N, dx);
}

static void run_lora(void *context, float *out) {
    const args *a = context;
    memset(out, 0, a->n_tok * a->pair->n_row * sizeof *out);
    ref_lora(a->pair, 1, a->a, a->n_tok, out);
}

static void run_embed(void *context, float *out) {
    const args *a = context;
    memset(out, 0, a->pair->n_row * sizeof *out);
    ref_lora_embed(a->pair, 1, 2, out);
}

static void check_adapter(uint32_t rank) {
    enum { COL = 5, ROW = 7, N_ROW = 4 };
    const size_t n = (size_t)rank * (COL + ROW);
    float *ab = numbers(10, n, 1), *x = numbers(11, N_ROW * COL, 1);
    float *dab = zeros(n), *dx = zeros(N_ROW * COL), *inner = zeros(2 * N_ROW * (size_t)rank);
    const lora_pair p = {
        .rank = rank, .n_col = COL, .n_row = ROW, .scale = 1.5f, .a = ab, .b = ab + rank * COL};
    lora_pair grad = p;
    grad.a = dab, grad.b = dab + rank * COL;
    args a = {.a = x, .n_tok = N_ROW, .pair = &p};
    const operation o = operation_of(run_lora, &a, N_ROW * ROW);
    back_lora(&p, x, o.weight, N_ROW, inner, &grad, dx);
    check("lora, input", &o, x, N_ROW * COL, dx);
    check("lora, A and B", &o, ab, n, dab);
    const operation e = operation_of(run_embed, &a, ROW);
    memset(dab, 0, n * sizeof *dab);
    back_lora_embed(&p, 2, e.weight, &grad);
    check("lora of the embedding", &e, ab, n, dab);
}

static void adapter(void **state) {
    (void)state;
    check_adapter(3);
    check_adapter(100);
}

/* ---- frozen matrices, through their blocks ---- */

static void compare_matrix(const weight *w, const char *name) {
    enum { N_TOK = 3 };
    const float *dout = numbers(12, N_TOK * (size_t)w->n_row, 1);
    float *din = zeros(N_TOK * (size_t)w->n_col), *want = zeros(N_TOK * (size_t)w->n_col);
    float *expanded = zeros(w->n_col);
    back_matmul(w, 0, dout, N_TOK, din);
    for (uint32_t i = 0; i < w->n_row; i++) {
        ref_dequantise_row(w, i, expanded);
        for (uint32_t t = 0; t < N_TOK; t++)
            for (uint32_t j = 0; j < w->n_col; j++)
                want[(size_t)t * w->n_col + j] += dout[(size_t)t * w->n_row + i] * expanded[j];
    }
    distance d = {0};
    distance_add(&d, din, want, N_TOK * (size_t)w->n_col);
    if (!(sqrt(d.diff / d.norm) < 1e-6)) fail_msg("%s: %g", name, sqrt(d.diff / d.norm));
}

static void matrices(void **state) {
    (void)state;
    golden g;
    golden_open_nano(&g, 1);
    text_cpu_free(golden_cpu(&g, 16));
    uint64_t types = 0;
    for (uint32_t i = 0; i < g.model->n_matrix; i++) {
        const weight *w = g.model->matrices[i];
        if (types >> w->type & 1 && w->n_row > 300) continue;
        compare_matrix(w, w->tensor->name.text);
        types |= 1ull << w->type;
    }
    assert_true(types >> QUANT_Q4_K & 1 && types >> QUANT_Q6_K & 1);
    g.n_compared = 1;
    golden_close(&g);
}

/* ---- experts ---- */

typedef struct expert_args {
    experts *x;
    uint32_t il, n_tok;
    const float *y;
} expert_args;

static void run_experts(void *context, float *out) {
    const expert_args *a = context;
    experts_forward(a->x, a->il, a->y, a->n_tok, out);
}

/* How much an expert counts depends on the token: that is part of the gradient. */
static void mixture(void **state) {
    (void)state;
    enum { N_TOK = 2 };
    golden g;
    expert_args a = {.n_tok = N_TOK};
    golden_open_relative(&g, "moe", 1);
    text_cpu_free(golden_cpu(&g, 16));
    while (!g.model->config.layers[a.il].moe) a.il++;
    const size_t n = N_TOK * g.model->config.n_embd;
    REQUIRE(experts_create(memory, g.model, &a.x, &err));
    float *y = numbers(13, n, 3), *dy = zeros(n);
    a.y = y;
    const operation o = operation_of(run_experts, &a, n);
    experts_backward(a.x, a.il, y, o.weight, N_TOK, dy);
    check("experts", &o, y, n, dy);
    g.n_compared = 1;
    golden_close(&g);
}

/* ---- the network ---- */

enum { N_TOK = 48 }; /* the relatives' window is 32 */

typedef struct network {
    golden g;
    lora *adapter, *grad;
    back_cpu *back;
    train_batch batch;
    int32_t tokens[N_TOK];
    uint32_t start[N_TOK];
    float weight[N_TOK];
} network;

/* An adapter everywhere, with values that matter, on random tokens of two packed samples. */
static void open_network(network *n, const char *relative, float dropout) {
    if (relative)
        golden_open_relative(&n->g, relative, 1);
    else
        golden_open_nano(&n->g, 1);
    text_cpu_free(golden_cpu(&n->g, 16));
    lora_plan plan = {
        .rank = 3, .alpha = 6, .embed = true, .head = true, .dropout = dropout, .seed = 1};
    for (lora_target t = 0; t < LORA_TARGETS; t++) plan.target[t] = true;
    REQUIRE(lora_create(n->g.memory, n->g.model, &plan, &n->adapter, &err));
    REQUIRE(lora_like(n->g.memory, n->adapter, &n->grad, &err));
    for (uint64_t i = 0; i < n->adapter->n_value; i++)
        n->adapter->values[i] = 0.05f * (2 * lora_uniform(5, i) - 1);
    const uint32_t n_vocab = n->g.model->config.n_vocab;
    const uint32_t n_tok = relative ? N_TOK : 20, second = relative ? 38 : 13;
    for (uint32_t i = 0; i < n_tok; i++) {
        n->tokens[i] = (int32_t)(lora_random(6, i) % n_vocab);
        n->start[i] = i < second ? 0 : second;
        n->weight[i] = i != n->start[i] && i % 3 ? 1 : 0;
    }
    n->batch = (train_batch){n_tok, n->tokens, n->start, n->weight, 99};
    REQUIRE(back_cpu_create(n->g.model, n->adapter, n_tok, false, &n->back, &err));
}

static void close_network(network *n) {
    back_cpu_free(n->back);
    n->g.n_compared = 1;
    golden_close(&n->g);
}

/* The loss; with dropout it takes a run that learns. */
static double loss_of(network *n, lora *unused) {
    double sum;
    REQUIRE(
        back_cpu_run(n->back, &n->batch, 0, n->adapter->dropout > 0 ? unused : NULL, &sum, &err));
    return sum;
}

/* Along the gradient of one kind of pairs (a projection's, or the embedding's or the head's), whose
 * slope is its own norm. */
static void check_direction(network *n, uint32_t kind, double h, lora *unused) {
    const lora *l = n->adapter;
    float *u = zeros(l->n_value), *at = zeros(l->n_value);
    double norm = 0, v[2];
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i), *d = lora_slot(n->grad, i);
        const bool in_layer = i < l->n_layer * LORA_TARGETS;
        const size_t count = (size_t)p->rank * (p->n_row + p->n_col);
        if (!p->rank || kind != (in_layer ? i % LORA_TARGETS : LORA_TARGETS + (p == &l->head)))
            continue;
        for (size_t k = 0; k < count; k++) norm += (double)d->a[k] * (double)d->a[k];
        memcpy(u + (p->a - l->values), d->a, count * sizeof *u); /* B is behind A */
    }
    norm = sqrt(norm);
    assert_true(norm > 0);
    memcpy(at, l->values, l->n_value * sizeof *at);
    for (int k = 0; k < 2; k++) {
        const double step = (k ? h : -h) / norm;
        for (uint64_t i = 0; i < l->n_value; i++)
            l->values[i] = at[i] + (float)(step * (double)u[i]);
        v[k] = loss_of(n, unused);
    }
    memcpy(l->values, at, l->n_value * sizeof *at);
    const double slope = (v[1] - v[0]) / (2 * h);
    print_message("  kind %u: %g, by differences %g\n", kind, norm, slope);
    if (!(fabs(slope - norm) < 5e-3 * norm)) fail_msg("kind %u: %g is not %g", kind, norm, slope);
}

static void check_network(const char *relative, float dropout) {
    network n;
    double sum;
    lora *unused;
    open_network(&n, relative, dropout);
    REQUIRE(lora_like(n.g.memory, n.adapter, &unused, &err));
    REQUIRE(back_cpu_run(n.back, &n.batch, 1, n.grad, &sum, &err));
    /* Small steps among experts: where another one is chosen the loss jumps. */
    const double h = n.g.model->config.n_expert ? 3e-4 : 1e-3;
    for (uint32_t kind = 0; kind < LORA_TARGETS + 2; kind++) check_direction(&n, kind, h, unused);
    close_network(&n);
}

static void network_nano(void **state) {
    (void)state;
    check_network(NULL, 0);
}

static void network_dropout(void **state) {
    (void)state;
    check_network(NULL, 0.3f);
}

static void network_e4b(void **state) {
    (void)state;
    check_network("e4b", 0);
}

static void network_moe(void **state) {
    (void)state;
    check_network("moe", 0);
}

static void network_dense31(void **state) {
    (void)state;
    check_network("dense31", 0);
}

static int setup(void **state) {
    (void)state;
    return (memory = arena_create(&err)) == NULL;
}

static int teardown(void **state) {
    (void)state;
    arena_free(memory);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rmsnorm),
        cmocka_unit_test(rope),
        cmocka_unit_test(attend),
        cmocka_unit_test(geglu),
        cmocka_unit_test(loss),
        cmocka_unit_test(adapter),
        cmocka_unit_test(matrices),
        cmocka_unit_test(mixture),
        cmocka_unit_test(network_nano),
        cmocka_unit_test(network_dropout),
        cmocka_unit_test(network_e4b),
        cmocka_unit_test(network_moe),
        cmocka_unit_test(network_dense31),
    };
    return cmocka_run_group_tests_name("grad", tests, setup, teardown);
}
