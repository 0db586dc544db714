/* Adapters on the GPU: golden logits and what nano says after 20 steps of training; adapters of
 * several ranks at once against the CPU, on relatives with shared keys, per-layer embeddings and
 * experts; scores; and nothing left when they are taken away. CPU twin: test_golden_lora.c. */
#include "golden_gpu.h"

#include "golden_lora.h"

/* What is adapted on the device. */
static lora_gpu *adapt(fixture *f, const lora_use *uses, uint32_t n) {
    lora_gpu *l;
    REQUIRE(lora_gpu_create(f->g.model, device, uses, n, &l, &err));
    REQUIRE(text_gpu_adapt(f->text, l, &err));
    return l;
}

static void forget(fixture *f, lora_gpu *l) {
    REQUIRE(text_gpu_adapt(f->text, NULL, &err));
    lora_gpu_free(l);
}

static float *take_logits(fixture *f, uint32_t n) {
    return golden_alloc(&f->g, (size_t)n * f->n_vocab, sizeof(float));
}

/* Logits of tokens [n], each by a decode step, the first `prompt` ones in one run. */
static float *all_logits(fixture *f, const int32_t *tokens, uint32_t n, uint32_t prompt) {
    float *out = take_logits(f, n);
    if (prompt) feed(f, tokens, prompt, 0);
    for (uint32_t i = prompt; i < n; i++) {
        run(f, tokens + i, 1, i);
        memcpy(out + (size_t)i * f->n_vocab, f->logits, f->n_vocab * sizeof *out);
    }
    return out;
}

/* Rows [first, end) of logits against what they should be. */
static void check(fixture *f, const char *name, const float *is, const float *want, uint32_t first,
                  uint32_t end) {
    const size_t at = (size_t)first * f->n_vocab;
    distance d = {0};
    distance_add(&d, is + at, want + at, (size_t)(end - first) * f->n_vocab);
    golden_check(&f->g, name, &d);
}

/* ---- nano's golden adapter ---- */

static void open_golden_adapter(fixture *f, const char *tensors, lora **out) {
    size_t n;
    source *s, *c;
    char text[4096];
    REQUIRE(source_open(f->g.memory, tensors, &s, &err));
    REQUIRE(source_open(f->g.memory, "tests/golden/nano/adapter/adapter_config.json", &c, &err));
    n = (size_t)c->size;
    assert_true(n < sizeof text);
    REQUIRE(source_read(c, 0, text, n, &err));
    source_close(c);
    REQUIRE(lora_open_peft(f->g.memory, f->g.model, s, text, n, out, &err));
}

static void golden_logits(void **state) {
    (void)state;
    fixture f;
    source *s;
    lora *adapter;
    int32_t *ids;
    open_fixture(&f, NULL);
    const json *j = load_json(f.g.memory, "tests/golden/nano/lora.json");
    const uint32_t n =
        golden_ids(&f.g, json_get(json_at(json_get(j, "examples"), 0), "ids"), &ids) - 1;
    REQUIRE(lora_open(f.g.memory, f.g.model, ADAPTER, &adapter, &err));
    source_close(f.g.tensors->src);
    REQUIRE(source_open(f.g.memory, "tests/golden/nano/lora_grads.safetensors", &s, &err));
    REQUIRE(safetensors_open(f.g.memory, s, &f.g.tensors, &err));

    float *bare = take_logits(&f, 1);
    run(&f, ids, n, 0);
    memcpy(bare, f.logits, f.n_vocab * sizeof *bare);
    run(&f, ids, 1, 0);
    const uint32_t n_call = kernel_calls(f.text->decode);

    const lora_use one = {adapter, 1};
    lora_gpu *l = adapt(&f, &one, 1);
    const safetensor *t = safetensors_find(f.g.tensors, "logits");
    float *want = take_logits(&f, n);
    REQUIRE(safetensors_read_f32(f.g.tensors, t, want, &err));
    const uint32_t prompt = device->info.software ? n - 4 : 0;
    const float *is = all_logits(&f, ids, n, prompt);
    print_message("dispatches a step: %u, with adapters %u\n", n_call,
                  kernel_calls(f.text->decode));
    check(&f, "decode", is, want, prompt, n);
    run(&f, ids, n, 0);
    distance d = {0};
    distance_add(&d, f.logits, want + (size_t)(n - 1) * f.n_vocab, f.n_vocab);
    golden_check(&f.g, "a prompt's logits", &d);
    forget(&f, l);

    run(&f, ids, n, 0); /* as if it had never been there */
    assert_memory_equal(f.logits, bare, f.n_vocab * sizeof *bare);
    run(&f, ids, 1, 0);
    assert_int_equal(kernel_calls(f.text->decode), n_call);
    close_fixture(&f);
}

/* The sentence that it learned, as PyTorch says it with the trained adapter. */
static void golden_sentence(void **state) {
    (void)state;
    fixture f;
    lora *adapter;
    int32_t *ids;
    open_fixture(&f, NULL);
    const json *j = load_json(f.g.memory, "tests/golden/nano/lora.json");
    const json *e = json_at(json_get(j, "examples"), 0), *greedy = json_get(j, "greedy_after20");
    golden_ids(&f.g, json_get(e, "ids"), &ids);
    open_golden_adapter(&f, "tests/golden/nano/lora_after20.safetensors", &adapter);
    /* In parts: as many numbers as in several_nano, so that the kernels are there for both. */
    const lora_use parts[] = {{adapter, 0.25f}, {adapter, 0.5f}, {adapter, 0.25f}};
    lora_gpu *l = adapt(&f, parts, COUNT(parts));
    uint32_t pos = 0;
    while (json_number(json_at(json_get(e, "target"), pos), 0) == 0) pos++;
    run(&f, ids, pos, 0);
    const size_t n = device->info.software ? 5 : greedy->n;
    for (size_t i = 0; i < n; i++, pos++) {
        const int32_t id = best(f.logits, f.n_vocab);
        assert_int_equal(id, (int32_t)json_number(&greedy->items[i], -1));
        run(&f, &id, 1, pos);
    }
    forget(&f, l);
    f.g.n_compared++;
    close_fixture(&f);
}

/* ---- several adapters, everything adapted, against the CPU ---- */

/* n values as the device has them: f16 parts of the largest. */
static void round_values(float *x, size_t n, size_t step) {
    float most = 0;
    for (size_t i = 0; i < n; i++) most = fmaxf(most, fabsf(x[i * step]));
    for (size_t i = 0; i < n; i++)
        x[i * step] = half_to_float(float_to_half(x[i * step] / most)) * most;
}

/* Random, and strong enough to be seen. */
static lora *random_adapter(fixture *f, uint32_t rank, uint64_t seed, bool words) {
    lora_plan plan = {.rank = rank, .alpha = 0.5f * (float)rank, .seed = seed};
    lora *l;
    for (lora_target p = 0; p < LORA_TARGETS; p++) plan.target[p] = true;
    plan.embed = plan.head = words;
    REQUIRE(lora_create(f->g.memory, f->g.model, &plan, &l, &err));
    const float size = 0.1f / sqrtf((float)rank);
    for (uint64_t i = 0; i < l->n_value; i++)
        l->values[i] += size * (lora_uniform(seed + 1, i) - 0.5f);
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i);
        for (uint32_t r = 0; r < p->rank; r++) {
            round_values(p->a + (size_t)r * p->n_col, p->n_col, 1);
            round_values(p->b + r, p->n_row, p->rank);
        }
    }
    return l;
}

static void check_several(const char *name) {
    enum { N = 40, PROMPT = 36 };
    fixture f;
    int32_t *ids;
    open_fixture(&f, name);
    assert_true(golden_ids(&f.g, json_get(name ? f.g.json : json_at(f.g.json, 10), "ids"), &ids) >=
                N);
    const lora_use uses[] = {{random_adapter(&f, 7, 1, true), 1},
                             {random_adapter(&f, 1, 3, false), -0.5f},
                             {random_adapter(&f, 16, 5, true), 0.7f}};
    text_cpu *cpu = golden_cpu(&f.g, N_CTX);
    text_cpu_round_kv(cpu);
    float *want = take_logits(&f, N), *bare = take_logits(&f, N);
    REQUIRE(text_cpu_forward(cpu, ids, N, 0, N, bare, NULL, &err));
    text_cpu_adapt(cpu, uses, COUNT(uses));
    REQUIRE(text_cpu_forward(cpu, ids, N, 0, N, want, NULL, &err));
    distance moved = {0};
    distance_add(&moved, bare, want, (size_t)N * f.n_vocab);
    print_message("adapters move the logits by %.2g\n", sqrt(moved.diff / moved.norm));
    assert_true(sqrt(moved.diff / moved.norm) > 0.05);

    lora_gpu *l = adapt(&f, uses, COUNT(uses));
    const float *is = all_logits(&f, ids, N, PROMPT);
    distance d = {0};
    distance_add(&d, is + (size_t)PROMPT * f.n_vocab, want + (size_t)PROMPT * f.n_vocab,
                 (size_t)(N - PROMPT) * f.n_vocab);
    golden_check(&f.g, "several adapters", &d);
    run(&f, ids, N, 0);
    d = (distance){0};
    distance_add(&d, f.logits, want + (size_t)(N - 1) * f.n_vocab, f.n_vocab);
    golden_check(&f.g, "several adapters, a prompt", &d);

    float scores[N]; /* scores see all layers and the head */
    REQUIRE(text_gpu_score(f.text, ids, ids + 1, N - 1, 0, &err));
    wait_read(text_gpu_read_scores(f.text, N - 1, &err), scores);
    for (uint32_t i = 0; i + 1 < N; i++) {
        double sum = 0;
        const float *row = want + (size_t)i * f.n_vocab;
        for (uint32_t v = 0; v < f.n_vocab; v++) sum += exp((double)row[v]);
        const double lp = (double)row[ids[i + 1]] - log(sum);
        if (fabs(lp - (double)scores[i]) > 0.02)
            fail_msg("token %u: a log-probability of %g, not %g", i, (double)scores[i], lp);
    }
    forget(&f, l);
    text_cpu_free(cpu);
    close_fixture(&f);
}

static void several_nano(void **state) {
    (void)state;
    check_several(NULL);
}

/* What it has, nano and moe have, too. */
static void several_e4b(void **state) {
    (void)state;
    if (!device || !runs_all("skipped: several_e4b")) skip();
    check_several("e4b");
}

static void several_moe(void **state) {
    (void)state;
    check_several("moe");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_logits), cmocka_unit_test(golden_sentence),
        cmocka_unit_test(several_nano),  cmocka_unit_test(several_e4b),
        cmocka_unit_test(several_moe),
    };
    return cmocka_run_group_tests_name("lora_gpu", tests, open_device, close_device);
}
