/* The GPU forward against golden values of independent implementations: token by token (decode), as
 * prompts (prefill), greedy continuations, candidates. Bounds: 2e-3 relative error of each tensor
 * (with two exceptions, see `relatives`), equal greedy ids. On a GPU in software less is run.
 * CPU twin: test_golden_cpu.c; pieces, rewinding and scores: test_text_gpu.c. */
#include "golden_gpu.h"

/* Some rows of a golden tensor, ascending. */
typedef struct some_rows {
    const json *positions; /* of all rows */
    size_t row[64], n;
} some_rows;

static some_rows rows_from(const json *positions, size_t row0, size_t end) {
    some_rows r = {.positions = positions};
    assert_true(row0 < end && end - row0 <= COUNT(r.row));
    while (row0 < end) r.row[r.n++] = row0++;
    return r;
}

static uint32_t position(const json *positions, size_t row) {
    assert_true(row < positions->n);
    return (uint32_t)json_number(&positions->items[row], -1);
}

/* Their logits [r->n, n_vocab], token by token; what comes before the first as a prompt. */
static float *decode_rows(fixture *f, const int32_t *tokens, const some_rows *r) {
    float *out = golden_alloc(&f->g, r->n * f->n_vocab, sizeof *out);
    uint32_t at = position(r->positions, r->row[0]);
    if (at) feed(f, tokens, at, 0);
    for (size_t i = 0; i < r->n; i++, at++) {
        for (; at < position(r->positions, r->row[i]); at++) feed(f, tokens + at, 1, at);
        run(f, tokens + at, 1, at);
        memcpy(out + i * f->n_vocab, f->logits, f->n_vocab * sizeof *out);
    }
    return out;
}

/* The same, each as the last of a prompt. */
static float *prefill_rows(fixture *f, const int32_t *tokens, const some_rows *r) {
    float *out = golden_alloc(&f->g, r->n * f->n_vocab, sizeof *out);
    for (size_t i = 0; i < r->n; i++) {
        run(f, tokens, position(r->positions, r->row[i]) + 1, 0);
        memcpy(out + i * f->n_vocab, f->logits, f->n_vocab * sizeof *out);
    }
    return out;
}

/* is [r->n, n_vocab] against these rows of `want`. */
static void check_rows(fixture *f, const char *name, const float *is, const float *want,
                       const some_rows *r, double bound) {
    distance d = {0};
    for (size_t i = 0; i < r->n; i++)
        distance_add(&d, is + i * f->n_vocab, want + r->row[i] * f->n_vocab, f->n_vocab);
    f->g.bound = bound;
    golden_check(&f->g, name, &d);
}

/* ---- nano ---- */

typedef struct conversation {
    char name[64]; /* of its tensor */
    const float *want;
    const json *positions, *greedy;
    int32_t *tokens;
    uint32_t n_token;
    size_t n_row;
} conversation;

static conversation open_conversation(fixture *f, const json *c) {
    conversation out = {.positions = json_get(c, "logit_positions"),
                        .greedy = json_get(c, "greedy_ids")};
    snprintf(out.name, sizeof out.name, "logits.%s", json_string(json_get(c, "name"), ""));
    out.want = golden_rows(&f->g, out.name, f->n_vocab, &out.n_row);
    out.n_token = golden_ids(&f->g, json_get(c, "ids"), &out.tokens);
    assert_int_equal(out.positions->n, out.n_row);
    return out;
}

/* The candidates are the best logits, in order. */
static void check_candidates(fixture *f) {
    static candidate listed[TEXT_GPU_LISTED];
    char bytes[16 + 8 * TEXT_GPU_LISTED];
    float lse;
    wait_read(text_gpu_read(f->text, false, &err), bytes);
    const uint32_t n = text_gpu_candidates(f->text, bytes, listed, &lse);
    assert_int_equal(n, TEXT_GPU_CANDIDATES);
    assert_int_equal(listed[0].id, best(f->logits, f->n_vocab));
    double sum = 0;
    uint32_t better = 0;
    for (uint32_t i = 0; i < f->n_vocab; i++) {
        sum += exp((double)f->logits[i]);
        better += f->logits[i] > listed[n - 1].logit;
    }
    assert_true(better < n);
    assert_float_equal(lse, log(sum), 1e-4);
    for (uint32_t i = 0; i < n; i++) {
        assert_memory_equal(&listed[i].logit, &f->logits[listed[i].id], sizeof(float));
        if (i) assert_true(listed[i].logit <= listed[i - 1].logit);
    }
}

/* All of "hello"; "needle_2" beyond the sliding window, in software its last token. */
static void nano_decode(void **state) {
    (void)state;
    fixture f;
    open_fixture(&f, NULL);
    const bool all = runs_all("the last token of the long conversation");
    for (size_t i = 0; i < f.g.json->n; i++) {
        const conversation c = open_conversation(&f, &f.g.json->items[i]);
        const bool hello = !strcmp(c.name, "logits.hello");
        if (!hello && strcmp(c.name, "logits.needle_2") != 0) continue;
        const size_t row0 = hello ? 0 : all ? 1 : c.n_row - 1;
        const some_rows r = rows_from(c.positions, row0, c.n_row);
        check_rows(&f, c.name, decode_rows(&f, c.tokens, &r), c.want, &r, BOUND);
        check_candidates(&f);
    }
    assert_int_equal(f.g.n_compared, 2);
    close_fixture(&f);
}

/* The first `most` tokens of the answer to a prompt that has been run. */
static void check_greedy(fixture *f, const conversation *c, size_t most) {
    for (size_t i = 0; i < c->greedy->n && i < most; i++) {
        if (i) run(f, &(int32_t){best(f->logits, f->n_vocab)}, 1, c->n_token + (uint32_t)i - 1);
        const int32_t id = best(f->logits, f->n_vocab);
        const int32_t want = (int32_t)json_number(&c->greedy->items[i], -1);
        if (id != want) fail_msg("%s: greedy token %zu is %d, not %d", c->name, i, id, want);
    }
}

/* Every conversation as one prompt, and the answers; in software each third one, and three tokens.
 */
static void nano_prefill(void **state) {
    (void)state;
    fixture f;
    open_fixture(&f, NULL);
    const bool all = runs_all("each third conversation, and three tokens of the answers");
    assert_int_equal(f.g.json->n, 15);
    for (size_t i = 0; i < f.g.json->n; i += all ? 1 : 3) {
        const conversation c = open_conversation(&f, &f.g.json->items[i]);
        const some_rows r = rows_from(c.positions, c.n_row - 1, c.n_row);
        check_rows(&f, c.name, prefill_rows(&f, c.tokens, &r), c.want, &r, BOUND);
        check_greedy(&f, &c, all ? SIZE_MAX : 3);
    }
    close_fixture(&f);
}

/* ---- the family ---- */

/* Their weights are random, which makes them sensitive. That K and V are kept as f16 alone moves
 * the logits of e4b by 3.0e-3 and of moe by 2.1e-3 (measured: the CPU forward with and without).
 * So these two are also compared with the CPU forward that rounds K and V, at the bound that holds
 * everywhere; their golden bound is what the rounding costs, and a third.
 *
 * Decode of e4b misses 2e-3 there, too: its matrix products take inputs of 16 bits, whose error of
 * some 3e-5 each twelve layers of random weights and attention over rounded keys turn into 2.2e-3
 * (measured; 0.64e-3 with inputs of f32, 1.0e-3 for prefill, which has them). nano, which is
 * trained, is at 0.2e-3. */
typedef struct relative {
    const char *name;
    double golden;          /* bound for golden values */
    double decode, prefill; /* for the CPU forward that rounds K and V; 0: not compared */
} relative;

static const relative relatives[] = {
    {"e4b", 4e-3, 3e-3, BOUND},
    {"moe", 2.8e-3, BOUND, BOUND},
    {"dense31", BOUND, 0, 0},
};

/* The rows that the CPU forward makes when it rounds K and V. */
static float *rounded_rows(fixture *f, const int32_t *tokens, uint32_t n_token,
                           const json *positions) {
    const size_t row = f->n_vocab;
    float *all = golden_alloc(&f->g, n_token * row, sizeof *all);
    float *out = golden_alloc(&f->g, positions->n * row, sizeof *out);
    text_cpu *cpu = golden_cpu(&f->g, n_token);
    text_cpu_round_kv(cpu);
    REQUIRE(text_cpu_forward(cpu, tokens, n_token, 0, n_token, all, NULL, &err));
    for (size_t i = 0; i < positions->n; i++)
        memcpy(out + i * row, all + position(positions, i) * row, row * sizeof *out);
    text_cpu_free(cpu);
    return out;
}

static void check_relative(const relative *r) {
    fixture f;
    int32_t *tokens;
    size_t n_row;
    open_fixture(&f, r->name);
    const json *positions = json_get(f.g.json, "positions");
    const uint32_t n_token = golden_ids(&f.g, json_get(f.g.json, "ids"), &tokens);
    const float *want = golden_rows(&f.g, "logits", f.n_vocab, &n_row);
    assert_int_equal(positions->n, n_row);
    /* In software the tokens 28 to 35, where the window of 32 is left, and two prompts. */
    const bool all = runs_all("decode of 8 tokens and prefill of 2 prompts");
    const some_rows steps = rows_from(positions, all ? 0 : 4, all ? n_row : 6);
    const some_rows five = {positions, {2, 5, 9, 14, n_row - 1}, 5};
    const some_rows ends = all ? five : (some_rows){positions, {2, n_row - 1}, 2};
    const float *decode = decode_rows(&f, tokens, &steps);
    const float *prefill = prefill_rows(&f, tokens, &ends);
    check_rows(&f, "decode", decode, want, &steps, r->golden);
    check_rows(&f, "prefill", prefill, want, &ends, r->golden);
    if (r->decode > 0) {
        const float *rounded = rounded_rows(&f, tokens, n_token, positions);
        check_rows(&f, "decode, K and V rounded", decode, rounded, &steps, r->decode);
        check_rows(&f, "prefill, K and V rounded", prefill, rounded, &ends, r->prefill);
    }
    close_fixture(&f);
}

static void family_e4b(void **state) {
    (void)state;
    check_relative(&relatives[0]);
}

static void family_moe(void **state) {
    (void)state;
    check_relative(&relatives[1]);
}

static void family_dense31(void **state) {
    (void)state;
    check_relative(&relatives[2]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nano_decode),    cmocka_unit_test(nano_prefill),
        cmocka_unit_test(family_e4b),     cmocka_unit_test(family_moe),
        cmocka_unit_test(family_dense31),
    };
    return cmocka_run_group_tests_name("golden_gpu", tests, open_device, close_device);
}
