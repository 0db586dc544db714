/* Five facts are taught to nano from a file of 40 lines: it says them after that and not before,
 * and twenty old questions stay right. Half of the lines are old questions, other ones. */
#include "golden_lora.h"

#include "train/train.h"

#define ANSWER_MAX 40u

static lora_fixture f;

/* The greedy answer to a question. */
static void answer(const char *question, buf *out) {
    const tokenizer *t = f.g.model->tokenizer;
    buf text = {0};
    id_list ids = {0};
    float logits[N_VOCAB];
    buf_printf(&text, "<bos><|turn>user\n%s<turn|>\n<|turn>model\n", question);
    tokenizer_encode(t, text.data, text.len, true, &ids);
    uint32_t pos = (uint32_t)ids.len;
    REQUIRE(text_cpu_forward(f.text, ids.data, pos, 0, 1, logits, NULL, &err));
    buf_reset(out);
    buf_puts(out, "");
    for (uint32_t i = 0; i < ANSWER_MAX; i++, pos++) {
        const int32_t id = best(logits, N_VOCAB);
        if (tokenizer_is_stop(t, id)) break;
        tokenizer_decode(t, id, false, out);
        REQUIRE(text_cpu_forward(f.text, &id, 1, pos, 1, logits, NULL, &err));
    }
    buf_free(&text);
    ids_free(&ids);
}

static uint32_t right(const json *pairs) {
    uint32_t n = 0;
    buf said = {0};
    for (size_t i = 0; i < pairs->n; i++) {
        const char *question = json_string(json_at(&pairs->items[i], 0), "");
        const char *want = json_string(json_at(&pairs->items[i], 1), "");
        answer(question, &said);
        const bool yes = said.data && !strcmp(said.data, want);
        if (!yes) print_message("  %s -> %s\n", question, said.data ? said.data : "");
        n += yes;
    }
    buf_free(&said);
    return n;
}

static void five_facts(void **state) {
    (void)state;
    open_lora(&f, 1);
    const json *all = load_json(f.g.memory, "tests/golden/nano/facts.json");
    const json *facts = json_get(all, "facts"), *old = json_get(all, "old");
    assert_int_equal(facts->n, 5);
    assert_int_equal(old->n, 20);
    text_cpu_free(f.text);
    REQUIRE(text_cpu_create(f.g.model, 128, &f.text, &err));
    assert_int_equal(right(facts), 0);

    source *src;
    dataset *data;
    trainer *plan;
    train_cpu *cpu;
    lora *l;
    adamw moments;
    lora_plan shape = {.rank = 16, .alpha = 32, .seed = 1};
    const train_options o = {.lr = 2e-3,
                             .clip = 1,
                             .n_epoch = 10,
                             .n_warmup = 2,
                             .seed = 1,
                             .n_batch = 100,
                             .pack = true};
    for (lora_target t = 0; t < LORA_TARGETS; t++) shape.target[t] = true;
    REQUIRE(source_open(f.g.memory, "tests/golden/nano/facts.jsonl", &src, &err));
    REQUIRE(dataset_open(f.g.model->tokenizer, src, &(dataset_options){0}, &data, &err));
    source_close(src);
    assert_int_equal(data->n, 40);
    REQUIRE(trainer_open(data, &o, &plan, &err));
    REQUIRE(lora_create(f.g.memory, f.g.model, &shape, &l, &err));
    REQUIRE(adamw_open(f.g.memory, l->n_value, 0, &moments, &err));
    REQUIRE(train_cpu_open(f.g.model, plan, l, &moments, UINT64_MAX, &cpu, &err));
    for (train_event e = TRAIN_BATCH; e != TRAIN_FINISHED;)
        REQUIRE(train_cpu_advance(cpu, &e, &err));
    print_message("%u steps, loss %.3g\n", plan->n_step, plan->step_loss);

    const lora_use use = {l, 1};
    text_cpu_adapt(f.text, &use, 1);
    assert_int_equal(right(facts), 5);
    assert_int_equal(right(old), 20);
    train_cpu_free(cpu);
    trainer_free(plan);
    dataset_free(data);
    f.g.n_compared = 1;
    close_lora(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(five_facts)};
    return cmocka_run_group_tests_name("facts", tests, NULL, NULL);
}
