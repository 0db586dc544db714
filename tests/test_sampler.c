/* Sampling: options, each stage on small distributions with exact outcomes, frequencies with fixed
 * seeds, what the best k are enough for. */
#include "token_util.h"

#include <math.h>

static arena *memory;

static int setup(void **state) {
    (void)state;
    memory = arena_create(NULL);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    arena_free(memory);
    return 0;
}

static const json *parse(const char *text) { return parse_json(memory, text); }

/* Everything off, temperature 1. */
static carat_sampling plain(void) {
    return (carat_sampling){.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 42};
}

/* How often each id below 16 is drawn from logits [n] in `rounds`. */
static void draw_many(const carat_sampling *o, const float *logits, size_t n, int rounds,
                      const int32_t *seen, size_t n_seen, int count[16]) {
    sampler s;
    carat_error err = {0};
    assert_true(sampler_create(&s, o, &err));
    for (size_t i = 0; i < n_seen; i++) sampler_accept(&s, seen[i]);
    memset(count, 0, 16 * sizeof *count);
    for (int r = 0; r < rounds; r++) {
        candidate c[16];
        for (size_t i = 0; i < n; i++) c[i] = (candidate){(int32_t)i, logits[i]};
        int32_t id = sampler_pick(&s, c, n);
        assert_true(id >= 0 && id < (int32_t)n);
        count[id]++;
    }
    sampler_free(&s);
}

/* The ids that can come out are exactly those of the set. */
static void expect_set(carat_sampling o, const float *logits, size_t n, const char *set) {
    int count[16];
    draw_many(&o, logits, n, 4000, NULL, 0, count);
    for (size_t i = 0; i < n; i++)
        if ((count[i] > 0) != (strchr(set, (int)('a' + i)) != NULL))
            fail_msg("%s: %c came %d times", set, (int)('a' + i), count[i]);
}

/* Logits of these probabilities, moved by a constant that must not matter. */
static void logits_of(const double *p, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) out[i] = (float)(log(p[i]) + 3.25);
}

/* ---- options ------------------------------------------------------------------------------ */

static void defaults(void **state) {
    (void)state;
    carat_sampling out, unset = CARAT_SAMPLING_DEFAULT;
    carat_error err = {0};
    assert_true(sampling_resolve(&unset, NULL, &out, &err));
    assert_true(out.temperature == 1.0f && out.top_k == 64 && out.top_p == 0.95f);
    assert_true(out.min_p == 0 && out.repeat_penalty == 1 && out.repeat_last_n == 64);
    assert_true(out.frequency_penalty == 0 && out.presence_penalty == 0 && out.seed == 0);

    const json *params = parse("{\"temperature\":0.5,\"top_k\":7,\"top_p\":0.5,\"min_p\":0.1,"
                               "\"repeat_penalty\":1.1,\"frequency_penalty\":0.2,"
                               "\"presence_penalty\":0.3,\"repeat_last_n\":-1,\"seed\":9,"
                               "\"stop\":[\"x\"]}");
    assert_true(sampling_resolve(&unset, params, &out, &err));
    assert_true(out.temperature == 0.5f && out.top_k == 7 && out.top_p == 0.5f);
    assert_true(out.min_p == 0.1f && out.repeat_penalty == 1.1f && out.repeat_last_n == -2);
    assert_true(out.frequency_penalty == 0.2f && out.presence_penalty == 0.3f && out.seed == 9);

    carat_sampling user = {.temperature = 0,
                           .top_k = 0,
                           .top_p = 0,
                           .min_p = 0,
                           .repeat_penalty = 2,
                           .frequency_penalty = 0,
                           .presence_penalty = -1,
                           .repeat_last_n = -2,
                           .seed = 5};
    assert_true(sampling_resolve(&user, params, &out, &err));
    assert_memory_equal(&out, &user, sizeof out);

    params = parse("{\"top_k\":-1,\"seed\":-1,\"repeat_last_n\":0,\"temperature\":null}");
    assert_true(sampling_resolve(&unset, params, &out, &err));
    assert_true(out.top_k == 0 && out.seed == 0 && out.repeat_last_n == 0);
    assert_true(out.temperature == 1);
}

static void wrong_options(void **state) {
    (void)state;
    static const struct {
        const char *params, *message;
    } from_model[] = {
        {"{\"temperature\":-1}", "temperature: -1 is not between 0"},
        {"{\"temperature\":\"hot\"}", "temperature: "},
        {"{\"top_p\":1.5}", "top_p: 1.5 is not between 0 and 1"},
        {"{\"min_p\":2}", "min_p: 2"},
        {"{\"top_k\":2.5}", "top_k: 2.5 is not a whole number"},
        {"{\"top_k\":1e30}", "top_k: 1e+30"},
        {"{\"repeat_penalty\":0}", "repeat_penalty: 0"},
        {"{\"repeat_last_n\":-2}", "repeat_last_n: -2"},
        {"{\"frequency_penalty\":1e300}", "frequency_penalty: 1e+300"},
        {"{\"presence_penalty\":[]}", "presence_penalty: "},
        {"{\"seed\":1e300}", "seed: 1e+300"},
        {"{\"seed\":0.5}", "seed: 0.5 is not a whole number"},
    };
    carat_sampling unset = CARAT_SAMPLING_DEFAULT, out;
    for (size_t i = 0; i < COUNT(from_model); i++) {
        carat_error err = {0};
        assert_false(sampling_resolve(&unset, parse(from_model[i].params), &out, &err));
        assert_int_equal(err.code, CARAT_E_FORMAT);
        if (!strstr(err.message, from_model[i].message)) fail_msg("%s", err.message);
    }
    for (int i = 0; i < 7; i++) {
        carat_sampling user = CARAT_SAMPLING_DEFAULT;
        if (i == 0) user.temperature = NAN;
        if (i == 1) user.top_p = 1.01f;
        if (i == 2) user.min_p = INFINITY;
        if (i == 3) user.repeat_penalty = 0;
        if (i == 4) user.frequency_penalty = INFINITY;
        if (i == 5) user.repeat_last_n = -3;
        if (i == 6) user.temperature = INFINITY;
        carat_error err = {0};
        assert_false(sampling_resolve(&user, NULL, &out, &err));
        assert_int_equal(err.code, CARAT_E_ARGUMENT);
    }
}

/* ---- stages ------------------------------------------------------------------------------- */

static void greedy(void **state) {
    (void)state;
    carat_sampling o = plain();
    o.temperature = 0;
    expect_set(o, (const float[]){1, 5, 5, -2}, 4, "b"); /* the first of equals */
    expect_set(o, (const float[]){-INFINITY, -3, -INFINITY}, 3, "b");
    expect_set(o, (const float[]){NAN, -3, -4}, 3, "b");
    expect_set(o, (const float[]){0}, 1, "a");
    o.temperature = 1;
    expect_set(o, (const float[]){-INFINITY, 0, -INFINITY}, 3, "b");
    expect_set(o, (const float[]){0, INFINITY, 1}, 3, "b");
    sampler s;
    carat_error err = {0};
    assert_true(sampler_create(&s, &o, &err));
    assert_int_equal(sampler_pick(&s, NULL, 0), -1);
    sampler_free(&s);
}

static void top_k(void **state) {
    (void)state;
    const float logits[] = {1, 2, 1.5f, 2, 0};
    carat_sampling o = plain();
    static const char *const sets[] = {"abcde", "b", "bd", "bcd", "abcd", "abcde", "abcde"};
    for (int32_t k = 0; k < (int32_t)COUNT(sets); k++) {
        o.top_k = k;
        expect_set(o, logits, 5, sets[k]);
    }
}

static void top_p(void **state) {
    (void)state;
    static const double p[] = {0.1, 0.4, 0.2, 0.3};
    static const struct {
        float p;
        const char *set;
    } cases[] = {{0, "b"},       {0.39f, "b"},   {0.41f, "bd"},   {0.69f, "bd"},
                 {0.71f, "bcd"}, {0.89f, "bcd"}, {0.91f, "abcd"}, {1, "abcd"}};
    float logits[4];
    logits_of(p, 4, logits);
    carat_sampling o = plain();
    for (size_t i = 0; i < COUNT(cases); i++) {
        o.top_p = cases[i].p;
        o.top_k = 0;
        expect_set(o, logits, 4, cases[i].set);
        o.top_k = 4; /* not a cut */
        expect_set(o, logits, 4, cases[i].set);
    }
    /* shares are those of the survivors of top_k: 0.4 / 0.7 */
    o.top_k = 2;
    o.top_p = 0.56f;
    expect_set(o, logits, 4, "b");
    o.top_p = 0.58f;
    expect_set(o, logits, 4, "bd");
}

static void min_p(void **state) {
    (void)state;
    static const double p[] = {0.1, 0.4, 0.2, 0.3};
    float logits[4];
    logits_of(p, 4, logits);
    carat_sampling o = plain();
    o.min_p = 0.2f;
    expect_set(o, logits, 4, "abcd");
    o.min_p = 0.3f;
    expect_set(o, logits, 4, "bcd");
    o.min_p = 0.6f;
    expect_set(o, logits, 4, "bd");
    o.min_p = 1;
    expect_set(o, logits, 4, "b");
}

/* Temperature comes last: it does not change what top_p keeps. */
static void temperature_is_last(void **state) {
    (void)state;
    static const double p[] = {0.1, 0.4, 0.2, 0.3};
    float logits[4];
    logits_of(p, 4, logits);
    carat_sampling o = plain();
    o.top_p = 0.69f;
    o.temperature = 10;
    expect_set(o, logits, 4, "bd");
    o.top_p = 1;
    o.min_p = 0.6f;
    expect_set(o, logits, 4, "bd");
}

/* ---- frequencies -------------------------------------------------------------------------- */

static void expect_frequencies(carat_sampling o, const float *logits, const double *p, size_t n) {
    enum { ROUNDS = 40000 };
    int count[16];
    draw_many(&o, logits, n, ROUNDS, NULL, 0, count);
    double chi2 = 0;
    for (size_t i = 0; i < n; i++) {
        double want = p[i] * ROUNDS;
        if (want > 0)
            chi2 += (count[i] - want) * (count[i] - want) / want;
        else
            assert_int_equal(count[i], 0);
    }
    if (chi2 > 20) fail_msg("chi squared is %g", chi2); /* 3 degrees of freedom: p = 0.0002 */
}

static void frequencies(void **state) {
    (void)state;
    static const double p[] = {0.1, 0.4, 0.2, 0.3};
    float logits[4];
    logits_of(p, 4, logits);
    carat_sampling o = plain();
    for (o.seed = 1; o.seed <= 5; o.seed++) expect_frequencies(o, logits, p, 4);
    o.top_k = 3;
    expect_frequencies(o, logits, (const double[]){0, 4.0 / 9, 2.0 / 9, 3.0 / 9}, 4);
    o.top_k = 0;
    o.temperature = 2;
    double root[4], all = 0;
    for (int i = 0; i < 4; i++) all += root[i] = sqrt(p[i]);
    for (int i = 0; i < 4; i++) root[i] /= all;
    expect_frequencies(o, logits, root, 4);
}

static void random_numbers(void **state) {
    (void)state;
    /* seed 42 through splitmix64, then xoshiro256**, as an independent implementation has it */
    static const uint64_t want[] = {0xbdd732262feb6e95u, 0x28efe333b266f103u, 0x47526757130f9f52u,
                                    0x581ce1ff0e4ae394u};
    static const int32_t drawn[] = {0, 1, 2, 3, 3, 3, 2, 3, 3, 2, 2, 1, 3, 1, 2, 3};
    carat_sampling o = plain();
    sampler s;
    carat_error err = {0};
    assert_true(sampler_create(&s, &o, &err));
    assert_memory_equal(s.state, want, sizeof want);
    for (size_t i = 0; i < COUNT(drawn); i++) {
        candidate c[4] = {{0, 1}, {1, 1}, {2, 1}, {3, 1}};
        assert_int_equal(sampler_pick(&s, c, 4), drawn[i]);
    }
    sampler_free(&s);
}

static void seeds(void **state) {
    (void)state;
    sampler a, b, c;
    carat_error err = {0};
    carat_sampling o = plain(), fresh = plain();
    fresh.seed = 0;
    assert_true(sampler_create(&a, &o, &err) && sampler_create(&b, &o, &err));
    assert_memory_equal(a.state, b.state, sizeof a.state);
    assert_true(sampler_create(&b, &fresh, &err) && sampler_create(&c, &fresh, &err));
    assert_memory_not_equal(a.state, b.state, sizeof a.state);
    assert_memory_not_equal(b.state, c.state, sizeof b.state);
}

/* ---- penalties ---------------------------------------------------------------------------- */

/* The logits after penalties, seen through greedy picks: c's order must be as given. */
static void expect_penalised(carat_sampling o, const int32_t *seen, size_t n_seen,
                             const float *logits, const float *want, size_t n) {
    sampler s;
    carat_error err = {0};
    candidate c[16];
    o.temperature = 0;
    assert_true(sampler_create(&s, &o, &err));
    for (size_t i = 0; i < n_seen; i++) sampler_accept(&s, seen[i]);
    for (size_t i = 0; i < n; i++) c[i] = (candidate){(int32_t)i, logits[i]};
    sampler_pick(&s, c, n);
    for (size_t i = 0; i < n; i++)
        if (fabsf(c[i].logit - want[i]) > 1e-6f) fail_msg("%zu: %g", i, (double)c[i].logit);
    sampler_free(&s);
}

static void penalties(void **state) {
    (void)state;
    const int32_t seen[] = {1, 2, 1, 3, 1};
    const float logits[] = {3, 3, -2, 0, 1};
    carat_sampling o = plain();
    o.repeat_last_n = 64;
    expect_penalised(o, seen, 5, logits, logits, 5);
    o.repeat_penalty = 2;
    expect_penalised(o, seen, 5, logits, (const float[]){3, 1.5f, -4, 0, 1}, 5);
    o.repeat_penalty = 1;
    o.frequency_penalty = 0.5f;
    expect_penalised(o, seen, 5, logits, (const float[]){3, 1.5f, -2.5f, -0.5f, 1}, 5);
    o.presence_penalty = 0.25f;
    expect_penalised(o, seen, 5, logits, (const float[]){3, 1.25f, -2.75f, -0.75f, 1}, 5);
    o.repeat_penalty = 2;
    expect_penalised(o, seen, 5, logits, (const float[]){3, -0.25f, -4.75f, -0.75f, 1}, 5);
    o.repeat_last_n = 2; /* 3, 1 */
    expect_penalised(o, seen, 5, logits, (const float[]){3, 0.75f, -2, -0.75f, 1}, 5);
    o.repeat_last_n = -2;
    expect_penalised(o, seen, 5, logits, (const float[]){3, -0.25f, -4.75f, -0.75f, 1}, 5);
    o.repeat_last_n = 0;
    expect_penalised(o, seen, 5, logits, logits, 5);
}

/* A window that slides for long still counts right. */
static void long_history(void **state) {
    (void)state;
    carat_sampling o = plain();
    o.presence_penalty = 1;
    o.repeat_last_n = 3;
    o.top_k = 10;
    sampler s;
    carat_error err = {0};
    assert_true(sampler_create(&s, &o, &err));
    for (int32_t i = 0; i < 10000; i++) {
        sampler_accept(&s, i % 7);
        assert_int_equal(sampler_needs(&s), 10 + (i < 2 ? i + 1 : 3));
    }
    sampler_accept(&s, 5);
    sampler_accept(&s, 5);
    sampler_accept(&s, 5);
    assert_int_equal(sampler_needs(&s), 11);
    assert_true(s.history.len < 2000);
    sampler_accept(&s, -1); /* is no token */
    assert_int_equal(sampler_needs(&s), 11);
    sampler_free(&s);
}

/* ---- how many are enough ------------------------------------------------------------------ */

static void needs(void **state) {
    (void)state;
    static const struct {
        float temperature;
        int32_t top_k;
        float repeat, frequency, presence;
        int32_t last_n;
        uint32_t want;
    } cases[] = {
        {1, 64, 1, 0, 0, 64, 64},   {1, 0, 1, 0, 0, 64, 0},   {0, 0, 1, 0, 0, 64, 1},
        {0, 40, 1, 0, 0, 64, 1},    {1, 64, 2, 0, 0, 64, 67}, {1, 64, 1, 1, 0, 64, 67},
        {1, 64, 1, 0, 1, 2, 66},    {0, 64, 2, 0, 0, 64, 4},  {1, 64, 0.5f, 0, 0, 64, 0},
        {1, 64, 1, -1, 0, 64, 0},   {1, 64, 1, 0, -1, 64, 0}, {0, 64, 0.5f, 0, 0, 64, 0},
        {1, 64, 0.5f, 0, 0, 0, 64}, {1, 0, 2, 0, 0, 64, 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        carat_sampling o = plain();
        o.temperature = cases[i].temperature;
        o.top_k = cases[i].top_k;
        o.repeat_penalty = cases[i].repeat;
        o.frequency_penalty = cases[i].frequency;
        o.presence_penalty = cases[i].presence;
        o.repeat_last_n = cases[i].last_n;
        sampler s;
        carat_error err = {0};
        assert_true(sampler_create(&s, &o, &err));
        const int32_t seen[] = {8, 9, 9, 7};
        for (size_t k = 0; k < COUNT(seen); k++) sampler_accept(&s, seen[k]);
        if (sampler_needs(&s) != cases[i].want) fail_msg("case %zu: %u", i, sampler_needs(&s));
        sampler_free(&s);
    }
}

static int by_logit(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->id - y->id;
}

/* The best k give what the whole vocabulary gives, in whatever order they come. */
static void best_k_are_enough(void **state) {
    (void)state;
    enum { N = 2000 };
    static candidate all[N], some[N];
    uint64_t x = 7;
    for (int round = 0; round < 200; round++) {
        carat_sampling o = plain();
        o.seed = (uint64_t)round + 1;
        o.top_k = 1 + round % 50;
        o.top_p = round % 3 ? 0.9f : 1;
        o.min_p = round % 5 ? 0 : 0.05f;
        o.temperature = round % 7 ? 1.5f : 0;
        o.repeat_penalty = round % 2 ? 1.3f : 1;
        o.presence_penalty = round % 4 ? 2 : 0;
        o.repeat_last_n = 40;
        sampler a, b;
        carat_error err = {0};
        assert_true(sampler_create(&a, &o, &err) && sampler_create(&b, &o, &err));
        for (int32_t i = 0; i < N; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            all[i] = (candidate){i, (float)(x >> 40) / 1e6f - 8};
        }
        memcpy(some, all, sizeof all);
        qsort(some, N, sizeof *some, by_logit);
        for (int i = 0; i < 60; i++) { /* the best ones were seen */
            sampler_accept(&a, some[i].id);
            sampler_accept(&b, some[i].id);
        }
        uint32_t n = sampler_needs(&a);
        assert_true(n > 0 && n < 200);
        for (uint32_t i = 0; i < n / 2; i += 3) { /* shuffle a little */
            candidate t = some[i];
            some[i] = some[n - 1 - i];
            some[n - 1 - i] = t;
        }
        int32_t from_some = sampler_pick(&a, some, n);
        assert_int_equal(sampler_pick(&b, all, N), from_some);
        sampler_free(&a);
        sampler_free(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(wrong_options),
        cmocka_unit_test(greedy),
        cmocka_unit_test(top_k),
        cmocka_unit_test(top_p),
        cmocka_unit_test(min_p),
        cmocka_unit_test(temperature_is_last),
        cmocka_unit_test(frequencies),
        cmocka_unit_test(random_numbers),
        cmocka_unit_test(seeds),
        cmocka_unit_test(penalties),
        cmocka_unit_test(long_history),
        cmocka_unit_test(needs),
        cmocka_unit_test(best_k_are_enough),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
