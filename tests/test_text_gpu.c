/* The GPU forward against itself: the same tokens in pieces, by prompt and one by one, and after
 * rewinding; and its scores against the CPU forward. Against golden values: test_golden_gpu.c. */
#include "golden_gpu.h"

static distance apart(const float *a, const float *b, uint32_t n) {
    distance d = {0};
    distance_add(&d, a, b, n);
    return d;
}

static float *copy_logits(fixture *f) {
    float *out = golden_alloc(&f->g, f->n_vocab, sizeof *out);
    memcpy(out, f->logits, f->n_vocab * sizeof *out);
    return out;
}

/* ---- pieces ---- */

/* Prompts of these lengths one after the other, the last as long as is left; 1 is a decode step.
 * The window is 32: rings wrap within a piece and between two. In software the first two do. */
static const uint32_t cuts[][6] = {
    {33, 31, 32, 2}, {3, 1, 1, 2, 88, 1}, {50, 20}, {2, 2, 32}, {98},
};
#define PROMPTS_BOUND 1e-6 /* of those without decode steps, whose products are less exact */

static void check_pieces(const char *name) {
    enum { N = 100 };
    fixture f;
    int32_t *tokens;
    open_fixture(&f, name);
    assert_true(golden_ids(&f.g, json_get(f.g.json, "ids"), &tokens) >= N);
    run(&f, tokens, N, 0);
    const float *whole = copy_logits(&f);
    const size_t n_cut = runs_all("two ways to cut a prompt") ? COUNT(cuts) : 2;
    for (size_t c = 0; c < n_cut; c++) {
        uint32_t at = 0;
        f.g.bound = PROMPTS_BOUND;
        for (size_t i = 0; at < N; i++) {
            const uint32_t n = i < 6 && cuts[c][i] ? cuts[c][i] : N - at;
            if (n == 1) f.g.bound = BOUND;
            if (at + n < N)
                feed(&f, tokens + at, n, at);
            else
                run(&f, tokens + at, n, at);
            at += n;
        }
        const distance d = apart(f.logits, whole, f.n_vocab);
        char what[32];
        snprintf(what, sizeof what, "pieces %zu", c);
        golden_check(&f.g, what, &d);
    }
    close_fixture(&f);
}

static void pieces_e4b(void **state) {
    (void)state;
    check_pieces("e4b");
}

static void pieces_moe(void **state) {
    (void)state;
    check_pieces("moe");
}

static void pieces_dense31(void **state) {
    (void)state;
    check_pieces("dense31");
}

/* ---- rewinding ---- */

/* Others overwrite the rings after a snapshot; rewound, the conversation goes on as if not. */
static void rewind_rings(void **state) {
    (void)state;
    enum { AT = 60, N = 4, OTHERS = 40 };
    fixture f;
    int32_t *tokens;
    kv_snapshot s = {0};
    open_fixture(&f, "e4b");
    golden_ids(&f.g, json_get(f.g.json, "ids"), &tokens);
    feed(&f, tokens, AT, 0);
    REQUIRE(text_gpu_snapshot(f.text, AT, &s, &err));
    assert_int_equal(s.pos, AT);
    run(&f, tokens + AT, N, AT);
    const float *want = copy_logits(&f);
    assert_true(text_gpu_can_rewind(f.text, AT + N, AT + N - 1));
    assert_false(text_gpu_can_rewind(f.text, AT + N, AT));

    feed(&f, tokens + AT + N, OTHERS, AT);
    run(&f, tokens + AT, N, AT); /* over what the others left in the rings */
    assert_true(apart(f.logits, want, f.n_vocab).diff > 0);

    feed(&f, tokens + AT + N, OTHERS, AT);
    text_gpu_rewind(f.text, &s);
    run(&f, tokens + AT, N, AT);
    const distance d = apart(f.logits, want, f.n_vocab);
    f.g.bound = 0; /* the very same work */
    golden_check(&f.g, "rewound", &d);
    gpu_buffer_free(device, s.buffer);
    close_fixture(&f);
}

/* ---- scores ---- */

static double log_probability(const float *logits, uint32_t n, int32_t id) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += exp((double)logits[i] - (double)logits[id]);
    return -log(sum);
}

/* More tokens than rows of logits fit at a time, the second half after the first. */
static void scores(void **state) {
    (void)state;
    enum { N = 70, CUT = 40 };
    fixture f;
    int32_t *tokens, targets[N];
    float is[N], want[N];
    open_fixture(&f, NULL);
    assert_true(golden_ids(&f.g, json_get(&f.g.json->items[10], "ids"), &tokens) > N);
    for (uint32_t i = 0; i < N; i++) targets[i] = i % 7 == 3 ? -1 : tokens[i + 1];
    REQUIRE(text_gpu_score(f.text, tokens, targets, CUT, 0, &err));
    wait_read(text_gpu_read_scores(f.text, CUT, &err), is);
    REQUIRE(text_gpu_score(f.text, tokens + CUT, targets + CUT, N - CUT, CUT, &err));
    wait_read(text_gpu_read_scores(f.text, N - CUT, &err), is + CUT);

    text_cpu *cpu = golden_cpu(&f.g, N);
    float *logits = golden_alloc(&f.g, (size_t)N * f.n_vocab, sizeof *logits);
    REQUIRE(text_cpu_forward(cpu, tokens, N, 0, N, logits, NULL, &err));
    for (uint32_t i = 0; i < N; i++) {
        const float *row = logits + (size_t)i * f.n_vocab;
        want[i] = targets[i] < 0 ? 0 : (float)log_probability(row, f.n_vocab, targets[i]);
        if (targets[i] < 0) assert_true(is[i] <= 0 && is[i] >= 0);
    }
    const distance d = apart(is, want, N);
    golden_check(&f.g, "scores", &d);
    text_cpu_free(cpu);
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_e4b),     cmocka_unit_test(pieces_moe),
        cmocka_unit_test(pieces_dense31), cmocka_unit_test(rewind_rings),
        cmocka_unit_test(scores),
    };
    return cmocka_run_group_tests_name("text_gpu", tests, open_device, close_device);
}
