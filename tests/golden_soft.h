/* golden_soft: what the golden tests of the encoders share: comparing tensors by name, and a prompt
 * with soft tokens that must be answered as the golden text says. */
#ifndef CARAT_TESTS_GOLDEN_SOFT_H
#define CARAT_TESTS_GOLDEN_SOFT_H

#include "golden.h"

#include "model/encoder.h"

#define SOFT_CTX 512u

/* Compares is [n_row, width] with a golden tensor of as many values. */
static inline void golden_compare(golden *g, const char *name, const float *is, uint32_t n_row,
                                  uint32_t width) {
    const safetensor *t = safetensors_find(g->tensors, name);
    if (!t) fail_msg("no golden tensor %s", name);
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) n *= t->ne[i];
    if (n != (uint64_t)n_row * width) fail_msg("%s: %u rows of %u", name, n_row, width);
    float *want = golden_alloc(g, (size_t)n, sizeof *want);
    REQUIRE(safetensors_read_f32(g->tensors, t, want, &err));
    distance d = {0};
    distance_add(&d, is, want, (size_t)n);
    golden_check(g, name, &d);
}

/* An encoder's matrices into memory. */
static inline void golden_load(golden *g, weight **matrices) {
    uint64_t done = 0;
    for (bool finished = !matrices[0]; !finished;)
        REQUIRE(weights_load_host(matrices, g->memory, &done, &finished, &err));
}

/* The one run of ids that are soft_id; there must be n. */
static inline soft_span golden_span(const int32_t *ids, uint32_t n_id, int32_t soft_id,
                                    const float *rows, uint32_t n, bool picture) {
    soft_span s = {.rows = rows, .picture = picture};
    for (uint32_t i = 0; i < n_id; i++) {
        if (ids[i] != soft_id) continue;
        if (!s.n) s.pos = i;
        if (i != s.pos + s.n) fail_msg("soft tokens are apart");
        s.n++;
    }
    assert_int_equal(s.n, n);
    return s;
}

/* Runs `ids` with soft tokens; the last logits must be the golden tensor `logits` (NULL: not
 * stored), what follows greedily must be `greedy`. */
static inline void golden_answer(golden *g, text_cpu *text, const json *ids, const json *greedy,
                                 int32_t soft_id, const float *rows, uint32_t n_soft, bool picture,
                                 const char *logits) {
    const uint32_t n_vocab = g->model->config.n_vocab;
    int32_t *tokens;
    uint32_t pos = golden_ids(g, ids, &tokens);
    const soft_span span = golden_span(tokens, pos, soft_id, rows, n_soft, picture);
    const text_input in = {.tokens = tokens, .n_tok = pos, .spans = &span, .n_span = 1};
    float *last = golden_alloc(g, n_vocab, sizeof *last);
    REQUIRE(text_cpu_forward_soft(text, &in, 1, last, NULL, &err));
    if (logits) golden_compare(g, logits, last, 1, n_vocab);
    assert_true(greedy->n > 0);
    for (size_t i = 0; i < greedy->n; i++, pos++) {
        const int32_t id = best(last, n_vocab), want = (int32_t)json_number(&greedy->items[i], -1);
        if (id != want)
            fail_msg("%s: greedy token %zu is %d, not %d", logits ? logits : "", i, id, want);
        REQUIRE(text_cpu_forward(text, &id, 1, pos, 1, last, NULL, &err));
    }
}

#endif
