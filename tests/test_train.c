/* Training as a whole: data into samples, the order of a run, and what other trainers of this
 * network got wrong: each a test by its name. */
#include "golden_lora.h"

#include "train/train.h"

#include <unistd.h>

#define CTX 256

static lora_fixture f;

static int setup(void **state) {
    (void)state;
    open_lora(&f, 1e-5);
    f.g.n_compared = 1;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    close_lora(&f);
    return 0;
}

/* ---- data ---- */

static dataset *try_data(const char *name, const char *text, dataset_options o) {
    source *s;
    dataset *d = NULL;
    err = (carat_error){0};
    REQUIRE(source_memory(f.g.memory, name, text, strlen(text), &s, &err));
    if (!dataset_open(f.g.model->tokenizer, s, &o, &d, &err)) return NULL;
    return d;
}

static dataset *open_data(const char *name, const char *text, dataset_options o) {
    dataset *d = try_data(name, text, o);
    if (!d) fail_msg("%s: %s", name, err.message);
    return d;
}

static void shows(const dataset *d, uint32_t i, const char *want) {
    buf b = {0};
    dataset_show(d, f.g.model->tokenizer, i, &b);
    assert_string_equal(b.data, want);
    buf_free(&b);
}

#define ASKED "<bos><|turn>user\nHi<turn|>\n<|turn>model\n"

/* A begin-of-sequence token in front; what the model says is learned, its end with it, no more. */
static void formats(void **state) {
    (void)state;
    const char *lines = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},"
                        "{\"role\":\"assistant\",\"content\":\"Yes.\"}]}\n"
                        "{\"prompt\":\"Hi\",\"completion\":\"Yes.\"}\n\r\n"
                        "{\"instruction\":\"Hi\",\"input\":\"\",\"output\":\"Yes.\"}\n"
                        "{\"instruction\":\"Hi\",\"input\":\"you\",\"output\":\"Yes.\"}\n"
                        "{\"text\":\"Hi\"}\n"
                        "{\"text\":\"<bos>Hi<turn|>\"}";
    dataset *d = open_data("a.jsonl", lines, (dataset_options){0});
    assert_int_equal(d->n, 6);
    for (uint32_t i = 0; i < 3; i++) shows(d, i, ASKED "[[Yes.<turn|>]]\n");
    shows(d, 3, "<bos><|turn>user\nHi\n\nyou<turn|>\n<|turn>model\n[[Yes.<turn|>]]\n");
    shows(d, 4, "<bos>[[Hi<eos>]]");
    shows(d, 5, "<bos>[[Hi<turn|>]]");
    assert_int_equal(d->samples[5].line, 7);
    dataset_free(d);
    const char *list = " [{\"prompt\":\"Hi\",\"completion\":\"Yes.\"}]";
    d = open_data("a.json", list, (dataset_options){.learn_all = true});
    shows(d, 0, "<bos>[[<|turn>user\nHi<turn|>\n<|turn>model\nYes.<turn|>\n]]");
    dataset_free(d);
    const char *csv = "prompt,completion\r\n\"Hi\",\"Yes.\"\r\n\r\nHi,\"Yes, \"\"so\"\"\n.\"\n";
    d = open_data("a.csv", csv, (dataset_options){0});
    assert_int_equal(d->n, 2);
    shows(d, 0, ASKED "[[Yes.<turn|>]]\n");
    shows(d, 1, ASKED "[[Yes, \"so\"\n.<turn|>]]\n");
    dataset_free(d);
}

/* Tools' results come from outside; the call, and the token that asks for its result, do not. */
static void tools_and_thoughts(void **state) {
    (void)state;
    const char *call =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\","
        "\"tool_calls\":[{\"id\":\"1\",\"function\":{\"name\":\"f\",\"arguments\":{}}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"7\"},"
        "{\"role\":\"assistant\",\"content\":\"Seven.\"}]}\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\","
        "\"reasoning\":\"Hm.\",\"content\":\"Yes.\"}]}\n";
    dataset *d = open_data("a.jsonl", call, (dataset_options){0});
    shows(d, 0,
          ASKED "[[<|tool_call>call:f{}<tool_call|><|tool_response>]]response:f{value:"
                "<|\"|>7<|\"|>}<tool_response|>[[Seven.<turn|>]]\n");
    shows(d, 1,
          "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\n"
          "[[<|channel>thought\nHm.\n<channel|>Yes.<turn|>]]\n");
    dataset_free(d);
}

static void golden_samples(void **state) {
    (void)state;
    buf line = {0}, said = {0};
    const tokenizer *t = f.g.model->tokenizer;
    uint32_t first = 0;
    while (f.weight[0][first] == 0) first++;
    buf_puts(&line, "{\"prompt\":");
    for (uint32_t i = 4; i < first - 5; i++) tokenizer_decode(t, f.ids[0][i], false, &said);
    json_write_string(&line, said.data, said.len);
    buf_puts(&line, ",\"completion\":");
    buf_reset(&said);
    for (uint32_t i = first; f.weight[0][i + 1] > 0; i++)
        tokenizer_decode(t, f.ids[0][i], false, &said);
    json_write_string(&line, said.data, said.len);
    buf_puts(&line, "}");
    dataset *d = open_data("a.jsonl", line.data, (dataset_options){0});
    assert_int_equal(d->samples[0].n, f.n_id[0]);
    assert_memory_equal(d->ids.data, f.ids[0], f.n_id[0] * sizeof(int32_t));
    for (uint32_t i = 0; i < f.n_id[0]; i++)
        assert_int_equal(d->target.data[i], f.weight[0][i] > 0);
    dataset_free(d);
    buf_free(&line);
    buf_free(&said);
}

#define GOOD "{\"prompt\":\"Hi\",\"completion\":\"Yes.\"}\n"

static void refused(const char *text, dataset_options o, const char *why) {
    if (try_data("bad.jsonl", text, o)) fail_msg("taken: %s", text);
    if (!strstr(err.message, why)) fail_msg("\"%s\" does not say \"%s\"", err.message, why);
}

static void bad_rows(void **state) {
    (void)state;
    const char *text = GOOD "{\"prompt\":\n{}\n[1]\n\"x\"\n{\"messages\":[]}\n"
                            "{\"messages\":[{\"role\":\"alien\",\"content\":\"x\"}]}\n" GOOD;
    dataset *d = open_data("bad.jsonl", text, (dataset_options){0});
    assert_int_equal(d->n, 2);
    assert_int_equal(d->n_bad, 6);
    assert_int_equal(d->n_row, 8);
    assert_non_null(strstr(d->bad, "line 2: "));
    dataset_free(d);
    refused(text, (dataset_options){.stop_at_bad = true}, "data: line 2: ");
    refused("", (dataset_options){0}, "is empty");
    refused("\n \n", (dataset_options){0}, "is empty");
    refused("{}\n{}\n", (dataset_options){0}, "not one of 2 rows");
    refused("{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}", (dataset_options){0},
            "to learn");
    refused(GOOD, (dataset_options){.max_len = 4}, "cut off");
    refused(GOOD, (dataset_options){.max_len = 4, .drop_long = true}, "too long");
    d = open_data("a.jsonl", GOOD, (dataset_options){.max_len = 11});
    assert_int_equal(d->n_cut, 1);
    assert_int_equal(d->samples[0].n, 11);
    dataset_free(d);
    assert_null(try_data("a.csv", "prompt,completion\nHi\n", (dataset_options){0}));
    assert_non_null(strstr(err.message, "1 fields, but the first line names 2"));
    assert_null(try_data("a.csv", "prompt,completion\nHi,\"Yes\n", (dataset_options){0}));
    assert_non_null(strstr(err.message, "quote"));
}

/* ---- traps ---- */

static train_batch batch_of(int i) {
    static const uint32_t start[CTX];
    return (train_batch){
        .n_tok = f.n_id[i], .tokens = f.ids[i], .start = start, .weight = f.weight[i]};
}

static lora *gradient(const lora *adapter, const train_batch *batches, uint32_t n, bool recompute,
                      double *loss) {
    lora *grad;
    back_cpu *b;
    *loss = 0;
    REQUIRE(lora_like(f.g.memory, adapter, &grad, &err));
    REQUIRE(back_cpu_create(f.g.model, adapter, CTX, recompute, &b, &err));
    for (uint32_t i = 0; i < n; i++) {
        double part;
        REQUIRE(back_cpu_run(b, &batches[i], 1, grad, &part, &err));
        *loss += part;
    }
    back_cpu_free(b);
    return grad;
}

static double apart(const lora *is, const lora *want) {
    distance d = {0};
    distance_add(&d, is->values, want->values, want->n_value);
    return sqrt(d.diff / d.norm);
}

static void packed_equals_unpacked(void **state) {
    (void)state;
    int32_t tokens[CTX];
    uint32_t start[CTX], n = 0;
    float counts[CTX];
    double apart_loss, packed_loss;
    for (int i = 0; i < 2; i++)
        for (uint32_t k = 0, first = n; k < f.n_id[i]; k++, n++) {
            tokens[n] = f.ids[i][k];
            start[n] = first;
            counts[n] = f.weight[i][k];
        }
    const train_batch two[] = {batch_of(0), batch_of(1)};
    const train_batch one = {.n_tok = n, .tokens = tokens, .start = start, .weight = counts};
    const lora *want = gradient(f.adapter, two, 2, false, &apart_loss);
    const lora *is = gradient(f.adapter, &one, 1, false, &packed_loss);
    assert_true(fabs(apart_loss - packed_loss) < 1e-9 * apart_loss);
    assert_true(apart(is, want) < 1e-6);
}

static void recomputed_equals_stored(void **state) {
    (void)state;
    double a, b;
    const train_batch batch = batch_of(0);
    const lora *stored = gradient(f.adapter, &batch, 1, false, &a);
    const lora *again = gradient(f.adapter, &batch, 1, true, &b);
    assert_true(a == b);
    assert_memory_equal(stored->values, again->values, stored->n_value * sizeof(float));
}

/* No slot's gradient is zero; and the loss is what inference says, one token after the other, so
 * that layers read the donor's K and V in training exactly as from the cache. */
static void same_loss_as_with_a_cache(void **state) {
    (void)state;
    double loss, want = 0;
    const train_batch batch = batch_of(0);
    const lora *grad = gradient(f.adapter, &batch, 1, false, &loss);
    for (uint32_t i = 0; i < lora_slots(grad); i++) {
        const lora_pair *p = lora_slot(grad, i);
        double sum[2] = {0};
        if (!p->rank) continue;
        for (size_t k = 0; k < (size_t)p->rank * p->n_col; k++) sum[0] += fabs((double)p->a[k]);
        for (size_t k = 0; k < (size_t)p->rank * p->n_row; k++) sum[1] += fabs((double)p->b[k]);
        assert_true(sum[0] > 0 && sum[1] > 0);
    }
    const lora_use use = {f.adapter, 1};
    float logits[N_VOCAB];
    text_cpu_adapt(f.text, &use, 1);
    for (uint32_t i = 0; i + 1 < f.n_id[0]; i++) {
        REQUIRE(text_cpu_forward(f.text, &f.ids[0][i], 1, i, 1, logits, NULL, &err));
        if (f.weight[0][i + 1] > 0) want += back_cross_entropy(logits, N_VOCAB, f.ids[0][i + 1], 1);
    }
    assert_true(fabs(loss - want) < 1e-6 * want);
}

/* Beyond the window of 128, all at once and as inference does it. */
static void windows(void **state) {
    (void)state;
    enum { N = 150 };
    int32_t tokens[N];
    uint32_t start[N] = {0};
    float counts[N], *logits = golden_alloc(&f.g, (size_t)N * N_VOCAB, sizeof *logits);
    for (uint32_t i = 0; i < N; i++) {
        tokens[i] = i ? (int32_t)(280 + i * 37 % 1700) : 2;
        counts[i] = i ? 1 : 0;
    }
    const train_batch batch = {.n_tok = N, .tokens = tokens, .start = start, .weight = counts};
    const lora_use use = {f.adapter, 1};
    double loss, want = 0;
    back_cpu *b;
    text_cpu *t;
    REQUIRE(back_cpu_create(f.g.model, f.adapter, N, true, &b, &err));
    REQUIRE(back_cpu_run(b, &batch, 1, NULL, &loss, &err));
    REQUIRE(text_cpu_create(f.g.model, N, &t, &err));
    text_cpu_adapt(t, &use, 1);
    REQUIRE(text_cpu_forward(t, tokens, N, 0, N, logits, NULL, &err));
    for (size_t i = 0; i + 1 < N; i++)
        want += back_cross_entropy(logits + i * N_VOCAB, N_VOCAB, tokens[i + 1], 1);
    assert_true(fabs(loss - want) < 1e-6 * want);
    text_cpu_free(t);
    back_cpu_free(b);
}

/* Gradients stop below the lowest adapter, and are the same above. */
static void lowest_layer(void **state) {
    (void)state;
    lora *high, *all;
    double a, b;
    enum { FIRST = 6 }; /* its K and V come from below */
    REQUIRE(lora_like(f.g.memory, f.adapter, &all, &err));
    memcpy(all->values, f.adapter->values, all->n_value * sizeof(float));
    REQUIRE(lora_empty(f.g.memory, f.g.model, &high, &err));
    for (uint32_t i = 0; i < lora_slots(all); i++) {
        lora_pair *p = lora_slot(all, i);
        if (i < FIRST * LORA_TARGETS && p->rank)
            memset(p->b, 0, (size_t)p->n_row * p->rank * sizeof(float));
        else
            *lora_slot(high, i) = *p;
    }
    REQUIRE(lora_allocate(f.g.memory, high, &err));
    const size_t skipped = (size_t)(all->n_value - high->n_value);
    memcpy(high->values, all->values + skipped, high->n_value * sizeof(float));
    assert_int_equal(back_first_layer(high), FIRST);
    const train_batch batch = batch_of(0);
    const lora *of_all = gradient(all, &batch, 1, false, &a);
    const lora *of_high = gradient(high, &batch, 1, false, &b);
    assert_true(a == b);
    assert_memory_equal(of_high->values, of_all->values + skipped, high->n_value * sizeof(float));
}

/* ---- runs ---- */

static const char *const facts = "{\"prompt\":\"one\",\"completion\":\"red\"}\n"
                                 "{\"prompt\":\"two\",\"completion\":\"green and blue\"}\n"
                                 "{\"prompt\":\"three\",\"completion\":\"white\"}\n"
                                 "{\"prompt\":\"four\",\"completion\":\"black\"}\n"
                                 "{\"prompt\":\"five or six\",\"completion\":\"yellow\"}\n";

typedef struct session {
    dataset *data;
    trainer *plan;
    lora *adapter;
    adamw *moments;
    train_cpu *cpu;
} session;

static const train_options usual = {.lr = 3e-3,
                                    .weight_decay = 0.01,
                                    .clip = 1,
                                    .n_accumulate = 2,
                                    .n_epoch = 2,
                                    .n_warmup = 2,
                                    .seed = 11,
                                    .n_batch = 30,
                                    .pack = true,
                                    .eval_share = 0.2,
                                    .eval_every = 2};

static session open_session(const char *data, train_options o, uint32_t rank) {
    session s;
    lora_plan plan = {.rank = rank, .alpha = 16, .dropout = 0.1f, .seed = 3, .first = 8};
    plan.target[LORA_Q] = plan.target[LORA_UP] = plan.target[LORA_DOWN] = true;
    s.data = open_data("facts.jsonl", data, (dataset_options){0});
    REQUIRE(trainer_open(s.data, &o, &s.plan, &err));
    REQUIRE(lora_create(f.g.memory, f.g.model, &plan, &s.adapter, &err));
    s.moments = golden_alloc(&f.g, 1, sizeof *s.moments);
    REQUIRE(adamw_open(f.g.memory, s.adapter->n_value, o.weight_decay, s.moments, &err));
    REQUIRE(train_cpu_open(f.g.model, s.plan, s.adapter, s.moments, 0, &s.cpu, &err));
    return s;
}

static void close_session(session *s) {
    train_cpu_free(s->cpu);
    trainer_free(s->plan);
    dataset_free(s->data);
}

/* Advances n times, or to the end. */
static void advance(session *s, uint32_t n) {
    train_event e = TRAIN_BATCH;
    for (uint32_t i = 0; i < n && e != TRAIN_FINISHED; i++)
        REQUIRE(train_cpu_advance(s->cpu, &e, &err));
    assert_true(n < 1000 || e == TRAIN_FINISHED);
}

/* Stopped anywhere, also in the middle of a step or an evaluation, and gone on with: the same
 * adapter to the last bit. */
static void resume_equals_no_interruption(void **state) {
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "/tmp/carat-train-%ld.safetensors", (long)getpid());
    session whole = open_session(facts, usual, 4);
    advance(&whole, 1000);
    assert_int_equal(whole.plan->state.step, whole.plan->n_step);
    for (uint32_t stop = 2; stop < 8; stop += 2) { /* in a step, after one, in an evaluation */
        session a = open_session(facts, usual, 4), b = open_session(facts, usual, 4);
        source *src;
        advance(&a, stop);
        REQUIRE(checkpoint_write(path, a.plan, a.adapter, a.moments, &err));
        close_session(&a);
        memset(b.adapter->values, 7, b.adapter->n_value * sizeof(float));
        REQUIRE(source_open(f.g.memory, path, &src, &err));
        REQUIRE(checkpoint_read(src, b.plan, b.adapter, b.moments, &err));
        source_close(src);
        advance(&b, 1000);
        assert_memory_equal(b.adapter->values, whole.adapter->values,
                            b.adapter->n_value * sizeof(float));
        assert_true(b.plan->eval_loss == whole.plan->eval_loss);
        close_session(&b);
    }
    /* A checkpoint of another run. */
    train_options other = usual;
    other.lr = 1e-3;
    session b = open_session(facts, other, 4);
    source *src;
    REQUIRE(source_open(f.g.memory, path, &src, &err));
    assert_false(checkpoint_read(src, b.plan, b.adapter, b.moments, &err));
    assert_non_null(strstr(err.message, "another model, data, adapter or options"));
    source_close(src);
    close_session(&b);
    close_session(&whole);
    unlink(path);
}

/* Each epoch has every sample once; the scale of a step's gradients is one over its targets. */
static void order(void **state) {
    (void)state;
    train_options o = usual;
    o.pack = false;
    o.n_epoch = 3;
    session s = open_session(facts, o, 4);
    assert_int_equal(s.plan->n_eval, 1);
    uint32_t seen[6] = {0}, steps = 0;
    double counted = 0;
    for (train_work w; trainer_next(s.plan, &w), w.kind != TRAIN_DONE;) {
        train_event e;
        for (uint32_t i = 0; i < w.batch.n_tok && w.kind == TRAIN_LEARN; i++)
            counted += (double)w.batch.weight[i] * (double)w.scale;
        if (w.kind == TRAIN_LEARN) seen[w.line]++;
        if (w.kind == TRAIN_LEARN && w.last) {
            assert_true(fabs(counted - 1) < 1e-5);
            counted = 0;
            steps++;
        }
        REQUIRE(trainer_took(s.plan, &w, 1, 1, &e, &err));
    }
    uint32_t held = 0;
    for (uint32_t line = 1; line < 6; line++) {
        assert_true(seen[line] == 3 || seen[line] == 0);
        held += seen[line] == 0;
    }
    assert_int_equal(held, 1);
    assert_int_equal(steps, s.plan->n_step);
    close_session(&s);
}

static void nan_loss(void **state) {
    (void)state;
    train_options o = usual;
    o.eval_share = 0;
    session s = open_session(facts, o, 4);
    train_event e;
    advance(&s, 2);
    s.adapter->values[0] = NAN;
    lora *before;
    REQUIRE(lora_like(f.g.memory, s.adapter, &before, &err));
    memcpy(before->values, s.adapter->values, before->n_value * sizeof(float));
    assert_false(train_cpu_advance(s.cpu, &e, &err));
    assert_non_null(strstr(err.message, "not a number in step 2"));
    assert_non_null(strstr(err.message, "line"));
    assert_memory_equal(before->values, s.adapter->values, before->n_value * sizeof(float));
    close_session(&s);
}

/* Adapters that train but change nothing are known elsewhere. A rank above 64 learns, too. */
static void effect(void **state) {
    (void)state;
    train_options o = usual;
    o.eval_share = 0;
    o.n_epoch = 6;
    session s = open_session(facts, o, 96);
    bool changes;
    REQUIRE(train_cpu_has_effect(s.cpu, &changes, &err));
    assert_false(changes);
    advance(&s, 2);
    const double first = s.plan->step_loss;
    advance(&s, 1000);
    REQUIRE(train_cpu_has_effect(s.cpu, &changes, &err));
    assert_true(changes);
    print_message("loss %g -> %g\n", first, s.plan->step_loss);
    assert_true(s.plan->step_loss < 0.7 * first);
    close_session(&s);
}

static void patience(void **state) {
    (void)state;
    train_options o = usual;
    o.eval_every = 1;
    o.patience = 2;
    o.n_epoch = 50;
    session s = open_session(facts, o, 4);
    uint32_t n_eval = 0;
    for (train_work w; trainer_next(s.plan, &w), w.kind != TRAIN_DONE;) {
        train_event e;
        n_eval += w.kind == TRAIN_EVAL;
        REQUIRE(trainer_took(s.plan, &w, n_eval == 3 ? 1 : 2, 1, &e, &err));
    }
    assert_int_equal(n_eval, 5); /* better at the third, then two that are not */
    close_session(&s);
}

static void schedules(void **state) {
    (void)state;
    assert_true(schedule_lr(SCHEDULE_CONSTANT, 2, 50, 0, 100) == 2);
    assert_true(schedule_lr(SCHEDULE_LINEAR, 2, 50, 0, 100) == 1);
    assert_true(fabs(schedule_lr(SCHEDULE_COSINE, 2, 50, 0, 100) - 1) < 1e-9);
    assert_true(schedule_lr(SCHEDULE_COSINE, 2, 0, 0, 100) == 2);
    assert_true(fabs(schedule_lr(SCHEDULE_COSINE, 2, 0, 3, 100) - 0.5) < 1e-9);
    assert_true(schedule_lr(SCHEDULE_COSINE, 2, 3, 3, 100) == 2);
    assert_true(schedule_lr(SCHEDULE_LINEAR, 2, 99, 10, 100) > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats),
        cmocka_unit_test(tools_and_thoughts),
        cmocka_unit_test(golden_samples),
        cmocka_unit_test(bad_rows),
        cmocka_unit_test(packed_equals_unpacked),
        cmocka_unit_test(recomputed_equals_stored),
        cmocka_unit_test(same_loss_as_with_a_cache),
        cmocka_unit_test(windows),
        cmocka_unit_test(lowest_layer),
        cmocka_unit_test(resume_equals_no_interruption),
        cmocka_unit_test(order),
        cmocka_unit_test(nan_loss),
        cmocka_unit_test(effect),
        cmocka_unit_test(patience),
        cmocka_unit_test(schedules),
    };
    return cmocka_run_group_tests_name("train", tests, setup, teardown);
}
