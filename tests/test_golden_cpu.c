/* The CPU forward against golden values of independent implementations: hidden states, logits and
 * greedy continuations, for nano (its file holds Q4_K, Q6_K and BF16) and for three relatives that
 * have what nano lacks: several KV heads, experts, values taken from keys. Bounds: 1e-4 relative
 * error of each tensor, equal greedy ids. */
#include "golden.h"

#define BOUND 1e-4
#define N_CTX 1024

/* A model with its golden values, and a session. */
typedef struct fixture {
    golden g;
    text_cpu *text;
} fixture;

static void open_nano(fixture *f) {
    golden_open_nano(&f->g, BOUND);
    f->text = golden_cpu(&f->g, N_CTX);
}

static void close_fixture(fixture *f) {
    text_cpu_free(f->text);
    golden_close(&f->g);
}

/* Compares rows of `is` [.., width] with the golden tensor, whose row i is position at(i): the
 * i-th of `positions`, or every `step`-th. */
static void compare(golden *g, const char *name, const float *is, uint32_t n_tok, uint32_t width,
                    const json *positions, uint32_t step) {
    size_t n_row;
    const float *want = golden_rows(g, name, width, &n_row);
    if (positions) assert_int_equal(positions->n, n_row);
    distance d = {0};
    for (size_t i = 0; i < n_row; i++) {
        const size_t at = positions ? (size_t)json_number(&positions->items[i], 1e9) : i * step;
        assert_true(at < n_tok);
        distance_add(&d, is + at * width, want + i * width, width);
    }
    golden_check(g, name, &d);
}

/* ---- hidden states, by taps ---- */

typedef struct hidden {
    golden *g;
    const char *prefix; /* "hidden.hello." */
    uint32_t step;
    uint32_t n_seen;
} hidden;

/* Golden 00 is the scaled embedding, i + 1 what leaves layer i; after the last layer the state
 * after the final norm is stored instead. */
static void check_hidden(void *user, const char *name, int il, const float *data, uint32_t n_tok,
                         uint32_t width) {
    hidden *h = user;
    const int last = (int)h->g->model->config.n_layer - 1;
    char full[64];
    int i = -1;
    if (!strcmp(name, "embed")) i = 0;
    if (!strcmp(name, "layer_out") && il < last) i = il + 1;
    if (!strcmp(name, "final_norm")) i = il;
    if (i < 0) return;
    snprintf(full, sizeof full, "%s%02d", h->prefix, i);
    compare(h->g, full, data, n_tok, width, NULL, h->step);
    h->n_seen++;
}

/* Runs a prompt with all logits [n_tok, n_vocab]. */
static float *run_prompt(fixture *f, const int32_t *tokens, uint32_t n_tok, const tap *taps) {
    float *logits = golden_alloc(&f->g, (size_t)n_tok * f->g.model->config.n_vocab, sizeof(float));
    REQUIRE(text_cpu_forward(f->text, tokens, n_tok, 0, n_tok, logits, taps, &err));
    return logits;
}

/* ---- nano ---- */

static void check_greedy(fixture *f, const char *name, const json *want, uint32_t pos,
                         float *logits) {
    const uint32_t n_vocab = f->g.model->config.n_vocab;
    for (size_t i = 0; i < want->n; i++, pos++) {
        const int32_t id = best(logits, n_vocab),
                      expected = (int32_t)json_number(&want->items[i], -1);
        if (id != expected) fail_msg("%s: greedy token %zu is %d, not %d", name, i, id, expected);
        REQUIRE(text_cpu_forward(f->text, &id, 1, pos, 1, logits, NULL, &err));
    }
}

static void check_conversation(fixture *f, const json *c) {
    golden *g = &f->g;
    const char *name = json_string(json_get(c, "name"), "");
    const uint32_t n_vocab = g->model->config.n_vocab;
    int32_t *tokens;
    const uint32_t n = golden_ids(g, json_get(c, "ids"), &tokens);
    hidden h = {g, "hidden.hello.", 1, 0};
    const tap taps = {check_hidden, &h};
    const bool hello = !strcmp(name, "hello");
    float *logits = run_prompt(f, tokens, n, hello ? &taps : NULL);
    if (hello) assert_int_equal(h.n_seen, g->model->config.n_layer + 1);
    char full[64];
    snprintf(full, sizeof full, "logits.%s", name);
    compare(g, full, logits, n, n_vocab, json_get(c, "logit_positions"), 0);
    check_greedy(f, name, json_get(c, "greedy_ids"), n, logits + (size_t)(n - 1) * n_vocab);
}

static void nano(void **state) {
    (void)state;
    fixture f;
    open_nano(&f);
    assert_int_equal(f.g.json->n, 15);
    for (size_t i = 0; i < f.g.json->n; i++) check_conversation(&f, &f.g.json->items[i]);
    close_fixture(&f);
}

/* ---- the family ---- */

static void check_relative(const char *name) {
    fixture f;
    golden *g = &f.g;
    int32_t *tokens;
    golden_open_relative(g, name, BOUND);
    f.text = golden_cpu(g, N_CTX);
    const uint32_t n = golden_ids(g, json_get(g->json, "ids"), &tokens);
    hidden h = {g, "hidden.", 25, 0};
    const float *logits = run_prompt(&f, tokens, n, &(tap){check_hidden, &h});
    assert_int_equal(h.n_seen, g->model->config.n_layer + 1);
    compare(g, "logits", logits, n, g->model->config.n_vocab, json_get(g->json, "positions"), 0);
    close_fixture(&f);
}

static void family_e4b(void **state) {
    (void)state;
    check_relative("e4b");
}

static void family_moe(void **state) {
    (void)state;
    check_relative("moe");
}

static void family_dense31(void **state) {
    (void)state;
    check_relative("dense31");
}

/* ---- the forward by itself ---- */

/* A prompt longer than a chunk and than the sliding window gives the same last logits whether it
 * comes at once, in uneven pieces, or with its KV saved and restored half-way. */
static void pieces(void **state) {
    (void)state;
    fixture f;
    open_nano(&f);
    golden *g = &f.g;
    enum { N = TEXT_CPU_CHUNK + 100 };
    const uint32_t n_vocab = g->model->config.n_vocab;
    int32_t tokens[N];
    for (uint32_t i = 0; i < N; i++) tokens[i] = i ? (int32_t)(280 + i * 37 % 1700) : 2;
    float *whole = run_prompt(&f, tokens, N, NULL) + (size_t)(N - 1) * n_vocab;
    float *again = golden_alloc(g, n_vocab, sizeof *again);

    text_cpu *parts, *fresh; /* without the keys of the whole run */
    REQUIRE(text_cpu_create(g->model, N, &parts, &err));
    const uint32_t cuts[] = {0, 1, 130, 131, 300, N};
    for (size_t i = 0; i + 1 < COUNT(cuts); i++) {
        const bool last = cuts[i + 1] == N;
        REQUIRE(text_cpu_forward(parts, tokens + cuts[i], cuts[i + 1] - cuts[i], cuts[i], last,
                                 last ? again : NULL, NULL, &err));
    }
    distance d = {0};
    distance_add(&d, again, whole, n_vocab);
    g->bound = 1e-5;
    golden_check(g, "in pieces", &d);

    const uint32_t half = 300;
    void *saved = golden_alloc(g, (size_t)text_cpu_kv_bytes(parts, half), 1);
    text_cpu_kv_save(parts, half, saved);
    text_cpu_free(parts);
    REQUIRE(text_cpu_create(g->model, N, &fresh, &err));
    text_cpu_kv_restore(fresh, half, saved);
    float *restored = golden_alloc(g, n_vocab, sizeof *restored);
    REQUIRE(text_cpu_forward(fresh, tokens + half, N - half, half, 1, restored, NULL, &err));
    assert_memory_equal(restored, again, n_vocab * sizeof *again);

    err = (carat_error){0};
    assert_false(text_cpu_forward(fresh, tokens, 1, N, 0, NULL, NULL, &err));
    assert_int_equal(err.code, CARAT_E_CONTEXT);
    err = (carat_error){0};
    assert_false(text_cpu_forward(fresh, &(int32_t){(int32_t)n_vocab}, 1, 0, 0, NULL, NULL, &err));
    assert_int_equal(err.code, CARAT_E_ARGUMENT);
    text_cpu_free(fresh);
    close_fixture(&f);
}

/* RoPE's rows against sines taken one by one, far out where f32 angles would be useless. */
static void rope_rows(void **state) {
    (void)state;
    golden g;
    golden_open_nano(&g, 1e-7);
    enum { N = 200 };
    for (int sliding = 0; sliding < 2; sliding++) {
        const layer_config *l = &g.model->config.layers[sliding ? 0 : 4];
        assert_int_equal(l->sliding, sliding);
        assert_int_equal(l->n_rot, sliding ? 32 : 16);
        float *rows = golden_alloc(&g, (size_t)N * l->n_rot * 2, sizeof *rows);
        model_rope_rows(g.model, sliding, 262000, N, rows);
        for (uint32_t t = 0; t < N; t++)
            for (uint32_t i = 0; i < l->n_rot; i++) {
                const double base = sliding ? 1e4 : 1e6;
                const double angle = (262000.0 + t) * pow(base, -2.0 * i / l->head_dim);
                const float *pair = rows + ((size_t)t * l->n_rot + i) * 2;
                assert_true(fabs((double)pair[0] - cos(angle)) < 1e-7);
                assert_true(fabs((double)pair[1] - sin(angle)) < 1e-7);
                g.worst = fmax(g.worst, fabs((double)pair[0] - cos(angle)));
            }
    }
    g.n_compared = 1;
    snprintf(g.worst_name, sizeof g.worst_name, "RoPE");
    golden_close(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nano),       cmocka_unit_test(family_e4b),
        cmocka_unit_test(family_moe), cmocka_unit_test(family_dense31),
        cmocka_unit_test(pieces),     cmocka_unit_test(rope_rows),
    };
    return cmocka_run_group_tests_name("golden_cpu", tests, NULL, NULL);
}
