/* The CPU forward against golden values of independent implementations: hidden states, logits and
 * greedy continuations, for nano (its file holds Q4_K, Q6_K and BF16) and for three relatives that
 * have what nano lacks: several KV heads, experts, values taken from keys. Bounds: 1e-4 relative
 * error of each tensor, equal greedy ids. */
#include "model/model.h"

/* After carat's headers: it has a macro fail(). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#define BOUND 1e-4
#define N_CTX 1024

static carat_error err;
#define REQUIRE(call)                                                                              \
    do {                                                                                           \
        err = (carat_error){0};                                                                    \
        if (!(call)) fail_msg("%s: %s", #call, err.message);                                       \
    } while (0)

typedef struct golden {
    arena *memory;
    model *model;
    text_cpu *text;
    json *json;
    safetensors *tensors;
    double worst;
    uint32_t n_compared;
    char worst_name[64];
} golden;

static json *read_json(arena *a, const char *path) {
    source *s;
    json *out;
    REQUIRE(source_open(a, path, &s, &err));
    char *text = arena_alloc(a, (size_t)s->size, 1);
    assert_non_null(text);
    REQUIRE(source_read(s, 0, text, (size_t)s->size, &err));
    REQUIRE(json_parse(a, text, (size_t)s->size, path, &out, &err));
    source_close(s);
    return out;
}

static void open_golden(golden *g, const char *gguf_path, const char *stem) {
    char path[256];
    gguf *file;
    source *s;
    *g = (golden){.memory = arena_create(&err)};
    assert_non_null(g->memory);
    REQUIRE(gguf_open(g->memory, gguf_path, &file, &err));
    REQUIRE(model_open(g->memory, file, &g->model, &err));
    uint64_t done = 0;
    for (bool finished = false; !finished;)
        REQUIRE(weights_load_host(g->model, g->memory, &done, &finished, &err));
    assert_int_equal(done, model_matrix_bytes(g->model));
    REQUIRE(text_cpu_create(g->model, N_CTX, &g->text, &err));
    snprintf(path, sizeof path, "%s.json", stem);
    g->json = read_json(g->memory, path);
    snprintf(path, sizeof path, "%s.safetensors", stem);
    REQUIRE(source_open(g->memory, path, &s, &err));
    REQUIRE(safetensors_open(g->memory, s, &g->tensors, &err));
}

static void close_golden(golden *g) {
    print_message("%s: worst relative error %.2g (%s)\n", g->model->gguf->name, g->worst,
                  g->worst_name);
    assert_true(g->n_compared > 0);
    source_close(g->tensors->src);
    text_cpu_free(g->text);
    model_close(g->model);
    arena_free(g->memory);
}

static uint32_t read_ids(golden *g, const json *list, int32_t **out) {
    *out = arena_alloc(g->memory, list->n, sizeof **out);
    assert_non_null(*out);
    for (size_t i = 0; i < list->n; i++) (*out)[i] = (int32_t)json_number(&list->items[i], -1);
    return (uint32_t)list->n;
}

/* Compares rows of `is` [.., width] with the golden tensor, whose row i is position at(i): the
 * i-th of `positions`, or every `step`-th. */
static void compare(golden *g, const char *name, const float *is, uint32_t n_tok, uint32_t width,
                    const json *positions, uint32_t step) {
    const safetensor *t = safetensors_find(g->tensors, name);
    if (!t) fail_msg("no golden tensor %s", name);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->ne[1], width);
    const size_t n_row = (size_t)t->ne[0];
    float *want = arena_alloc(g->memory, n_row * width, sizeof *want);
    assert_non_null(want);
    REQUIRE(safetensors_read_f32(g->tensors, t, want, &err));
    if (positions) assert_int_equal(positions->n, n_row);
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n_row; i++) {
        const size_t at = positions ? (size_t)json_number(&positions->items[i], 1e9) : i * step;
        assert_true(at < n_tok);
        for (uint32_t j = 0; j < width; j++) {
            const double a = (double)is[at * width + j], b = (double)want[i * width + j];
            diff += (a - b) * (a - b);
            norm += b * b;
        }
    }
    const double error = sqrt(diff / norm);
    if (!(error <= BOUND)) fail_msg("%s: relative error %g", name, error);
    g->n_compared++;
    if (error > g->worst) {
        g->worst = error;
        snprintf(g->worst_name, sizeof g->worst_name, "%s", name);
    }
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
static float *run_prompt(golden *g, const int32_t *tokens, uint32_t n_tok, const tap *taps) {
    float *logits = arena_alloc(g->memory, (size_t)n_tok * g->model->config.n_vocab, sizeof(float));
    assert_non_null(logits);
    REQUIRE(text_cpu_forward(g->text, tokens, n_tok, 0, n_tok, logits, taps, &err));
    return logits;
}

static int32_t best(const float *logits, uint32_t n) {
    uint32_t b = 0;
    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[b]) b = i;
    return (int32_t)b;
}

/* ---- nano ---- */

static void check_greedy(golden *g, const char *name, const json *want, uint32_t pos,
                         float *logits) {
    const uint32_t n_vocab = g->model->config.n_vocab;
    for (size_t i = 0; i < want->n; i++, pos++) {
        const int32_t id = best(logits, n_vocab),
                      expected = (int32_t)json_number(&want->items[i], -1);
        if (id != expected) fail_msg("%s: greedy token %zu is %d, not %d", name, i, id, expected);
        REQUIRE(text_cpu_forward(g->text, &id, 1, pos, 1, logits, NULL, &err));
    }
}

static void check_conversation(golden *g, const json *c) {
    const char *name = json_string(json_get(c, "name"), "");
    const uint32_t n_vocab = g->model->config.n_vocab;
    int32_t *tokens;
    const uint32_t n = read_ids(g, json_get(c, "ids"), &tokens);
    hidden h = {g, "hidden.hello.", 1, 0};
    const tap taps = {check_hidden, &h};
    const bool hello = !strcmp(name, "hello");
    float *logits = run_prompt(g, tokens, n, hello ? &taps : NULL);
    if (hello) assert_int_equal(h.n_seen, g->model->config.n_layer + 1);
    char full[64];
    snprintf(full, sizeof full, "logits.%s", name);
    compare(g, full, logits, n, n_vocab, json_get(c, "logit_positions"), 0);
    check_greedy(g, name, json_get(c, "greedy_ids"), n, logits + (size_t)(n - 1) * n_vocab);
}

static void nano(void **state) {
    (void)state;
    golden g;
    open_golden(&g, "models/nano.gguf", "tests/golden/nano/text");
    assert_int_equal(g.json->n, 15);
    for (size_t i = 0; i < g.json->n; i++) check_conversation(&g, &g.json->items[i]);
    close_golden(&g);
}

/* ---- the family ---- */

static void check_relative(const char *name) {
    char path[128], stem[128];
    golden g;
    int32_t *tokens;
    snprintf(path, sizeof path, "tests/golden/family/%s.gguf", name);
    snprintf(stem, sizeof stem, "tests/golden/family/%s", name);
    open_golden(&g, path, stem);
    const uint32_t n = read_ids(&g, json_get(g.json, "ids"), &tokens);
    hidden h = {&g, "hidden.", 25, 0};
    const float *logits = run_prompt(&g, tokens, n, &(tap){check_hidden, &h});
    assert_int_equal(h.n_seen, g.model->config.n_layer + 1);
    compare(&g, "logits", logits, n, g.model->config.n_vocab, json_get(g.json, "positions"), 0);
    close_golden(&g);
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

static double distance(const float *a, const float *b, uint32_t n) {
    double diff = 0, norm = 0;
    for (uint32_t i = 0; i < n; i++) {
        diff += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(diff / norm);
}

/* A prompt longer than a chunk and than the sliding window gives the same last logits whether it
 * comes at once, in uneven pieces, or with its KV saved and restored half-way. */
static void pieces(void **state) {
    (void)state;
    golden g;
    open_golden(&g, "models/nano.gguf", "tests/golden/nano/text");
    enum { N = TEXT_CPU_CHUNK + 100 };
    const uint32_t n_vocab = g.model->config.n_vocab;
    int32_t tokens[N];
    for (uint32_t i = 0; i < N; i++) tokens[i] = i ? (int32_t)(280 + i * 37 % 1700) : 2;
    float *whole = run_prompt(&g, tokens, N, NULL) + (size_t)(N - 1) * n_vocab;
    float *again = arena_alloc(g.memory, n_vocab, sizeof *again);
    assert_non_null(again);

    text_cpu *parts, *fresh; /* without the keys of the whole run */
    REQUIRE(text_cpu_create(g.model, N, &parts, &err));
    const uint32_t cuts[] = {0, 1, 130, 131, 300, N};
    for (size_t i = 0; i + 1 < COUNT(cuts); i++) {
        const bool last = cuts[i + 1] == N;
        REQUIRE(text_cpu_forward(parts, tokens + cuts[i], cuts[i + 1] - cuts[i], cuts[i], last,
                                 last ? again : NULL, NULL, &err));
    }
    g.worst = distance(again, whole, n_vocab);
    g.n_compared = 1;
    snprintf(g.worst_name, sizeof g.worst_name, "in pieces");
    assert_true(g.worst <= 1e-5);

    const uint32_t half = 300;
    void *saved = arena_alloc(g.memory, (size_t)text_cpu_kv_bytes(parts, half), 1);
    assert_non_null(saved);
    text_cpu_kv_save(parts, half, saved);
    text_cpu_free(parts);
    REQUIRE(text_cpu_create(g.model, N, &fresh, &err));
    text_cpu_kv_restore(fresh, half, saved);
    float *restored = arena_alloc(g.memory, n_vocab, sizeof *restored);
    assert_non_null(restored);
    REQUIRE(text_cpu_forward(fresh, tokens + half, N - half, half, 1, restored, NULL, &err));
    assert_memory_equal(restored, again, n_vocab * sizeof *again);

    err = (carat_error){0};
    assert_false(text_cpu_forward(fresh, tokens, 1, N, 0, NULL, NULL, &err));
    assert_int_equal(err.code, CARAT_E_CONTEXT);
    err = (carat_error){0};
    assert_false(text_cpu_forward(fresh, &(int32_t){(int32_t)n_vocab}, 1, 0, 0, NULL, NULL, &err));
    assert_int_equal(err.code, CARAT_E_ARGUMENT);
    text_cpu_free(fresh);
    close_golden(&g);
}

/* RoPE's rows against sines taken one by one, far out where f32 angles would be useless. */
static void rope_rows(void **state) {
    (void)state;
    golden g;
    open_golden(&g, "models/nano.gguf", "tests/golden/nano/text");
    enum { N = 200 };
    for (int sliding = 0; sliding < 2; sliding++) {
        const layer_config *l = &g.model->config.layers[sliding ? 0 : 4];
        assert_int_equal(l->sliding, sliding);
        assert_int_equal(l->n_rot, sliding ? 32 : 16);
        float *rows = arena_alloc(g.memory, (size_t)N * l->n_rot * 2, sizeof *rows);
        assert_non_null(rows);
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
    close_golden(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nano),       cmocka_unit_test(family_e4b),
        cmocka_unit_test(family_moe), cmocka_unit_test(family_dense31),
        cmocka_unit_test(pieces),     cmocka_unit_test(rope_rows),
    };
    return cmocka_run_group_tests_name("golden_cpu", tests, NULL, NULL);
}
