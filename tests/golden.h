/* golden: what the golden tests share: a model with its golden values, and how far values are from
 * them. Made by independent implementations; tests/golden/nano, tests/golden/family. */
#ifndef CARAT_TESTS_GOLDEN_H
#define CARAT_TESTS_GOLDEN_H

#include "model/model.h"

#include "file/safetensors.h"

#include "load_json.h"
#include "require.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct golden {
    arena *memory;
    model *model;
    const json *json;
    safetensors *tensors;
    double bound; /* largest relative error allowed */
    double worst;
    uint32_t n_compared;
    char worst_name[64];
} golden;

static inline void *golden_alloc(golden *g, size_t n, size_t size) {
    void *p = arena_alloc(g->memory, n, size);
    assert_non_null(p);
    return p;
}

/* Golden values are in stem.json and stem.safetensors. */
static inline void golden_open(golden *g, const char *gguf_path, const char *stem, double bound) {
    char path[256];
    gguf *file;
    source *s;
    *g = (golden){.memory = arena_create(&err), .bound = bound};
    assert_non_null(g->memory);
    REQUIRE(gguf_open(g->memory, gguf_path, &file, &err));
    REQUIRE(model_open(g->memory, file, &g->model, &err));
    snprintf(path, sizeof path, "%s.json", stem);
    g->json = load_json(g->memory, path);
    snprintf(path, sizeof path, "%s.safetensors", stem);
    REQUIRE(source_open(g->memory, path, &s, &err));
    REQUIRE(safetensors_open(g->memory, s, &g->tensors, &err));
}

/* nano, whose golden values are of conversations, or one of its relatives, of one prompt. */
static inline void golden_open_nano(golden *g, double bound) {
    golden_open(g, "models/nano.gguf", "tests/golden/nano/text", bound);
}
static inline void golden_open_relative(golden *g, const char *name, double bound) {
    char path[128], stem[128];
    snprintf(path, sizeof path, "tests/golden/family/%s.gguf", name);
    snprintf(stem, sizeof stem, "tests/golden/family/%s", name);
    golden_open(g, path, stem, bound);
}

/* Weights into memory, and a session on the CPU, which the caller frees. */
static inline text_cpu *golden_cpu(golden *g, uint32_t n_ctx) {
    text_cpu *t;
    uint64_t done = 0;
    for (bool finished = false; !finished;)
        REQUIRE(weights_load_host(g->model->matrices, g->memory, &done, &finished, &err));
    assert_int_equal(done, model_matrix_bytes(g->model));
    REQUIRE(text_cpu_create(g->model, n_ctx, &t, &err));
    return t;
}

static inline void golden_close(golden *g) {
    print_message("%s: worst relative error %.2g (%s)\n", g->model->gguf->name, g->worst,
                  g->worst_name);
    assert_true(g->n_compared > 0);
    source_close(g->tensors->src);
    model_close(g->model);
    arena_free(g->memory);
}

static inline uint32_t golden_ids(golden *g, const json *list, int32_t **out) {
    assert_non_null(list);
    *out = golden_alloc(g, list->n, sizeof **out);
    for (size_t i = 0; i < list->n; i++) (*out)[i] = (int32_t)json_number(&list->items[i], -1);
    return (uint32_t)list->n;
}

/* A golden tensor [n_row, width]. */
static inline const float *golden_rows(golden *g, const char *name, uint32_t width, size_t *n_row) {
    const safetensor *t = safetensors_find(g->tensors, name);
    if (!t) fail_msg("no golden tensor %s", name);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->ne[1], width);
    *n_row = (size_t)t->ne[0];
    float *want = golden_alloc(g, *n_row * width, sizeof *want);
    REQUIRE(safetensors_read_f32(g->tensors, t, want, &err));
    return want;
}

/* ---- how far values are from what they should be: sqrt(|is - want|^2 / |want|^2) ---- */

typedef struct distance {
    double diff, norm; /* sums of squares, over all rows of a tensor */
} distance;

static inline void distance_add(distance *d, const float *is, const float *want, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const double a = (double)is[i], b = (double)want[i];
        d->diff += (a - b) * (a - b);
        d->norm += b * b;
    }
}

/* Holds the distance of all rows of a tensor against the bound. */
static inline void golden_check(golden *g, const char *name, const distance *d) {
    const double error = sqrt(d->diff / d->norm);
    if (!(error <= g->bound)) fail_msg("%s: relative error %g, at most %g", name, error, g->bound);
    g->n_compared++;
    if (g->worst_name[0] && error <= g->worst) return;
    g->worst = error;
    snprintf(g->worst_name, sizeof g->worst_name, "%.63s", name);
}

static inline int32_t best(const float *logits, uint32_t n) {
    uint32_t b = 0;
    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[b]) b = i;
    return (int32_t)b;
}

#endif
