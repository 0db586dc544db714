/* Adapters against golden values of PyTorch and PEFT, computed from nano's own file: the logits
 * with an adapter, the loss, every gradient, and 20 steps of AdamW. tests/golden/nano/lora.json. */
#include "golden_lora.h"

#include "train/train.h"

/* ---- inference ---- */

static float *adapted_logits(lora_fixture *f, const lora_use *uses, uint32_t n_use) {
    text_cpu_adapt(f->text, uses, n_use);
    float *logits = golden_alloc(&f->g, (size_t)f->n_id[0] * N_VOCAB, sizeof *logits);
    const uint32_t n = f->n_id[0] - 1;
    REQUIRE(text_cpu_forward(f->text, f->ids[0], n, 0, n, logits, NULL, &err));
    return logits;
}

static void logits(void **state) {
    (void)state;
    lora_fixture f;
    open_lora(&f, 1e-5);
    const uint32_t n = f.n_id[0] - 1;
    const lora_use one = {f.adapter, 1};
    golden_compare(&f.g, "logits", adapted_logits(&f, &one, 1), n, N_VOCAB);
    /* Two halves of it are as good, and nothing stays when it is taken away. */
    const lora_use halves[] = {{f.adapter, 0.25f}, {f.adapter, 0.75f}};
    golden_compare(&f.g, "logits", adapted_logits(&f, halves, 2), n, N_VOCAB);
    const float *bare = adapted_logits(&f, NULL, 0);
    text_cpu *fresh;
    REQUIRE(text_cpu_create(f.g.model, 64, &fresh, &err));
    float *again = golden_alloc(&f.g, (size_t)n * N_VOCAB, sizeof *again);
    REQUIRE(text_cpu_forward(fresh, f.ids[0], n, 0, n, again, NULL, &err));
    assert_memory_equal(bare, again, (size_t)n * N_VOCAB * sizeof *bare);
    text_cpu_free(fresh);
    close_lora(&f);
}

/* ---- learning ---- */

/* One example as a batch: ids, all of one sample. */
static train_batch batch_of(const lora_fixture *f, int i) {
    static const uint32_t start[64];
    return (train_batch){
        .n_tok = f->n_id[i], .tokens = f->ids[i], .start = start, .weight = f->weight[i]};
}

static float learned(const lora_fixture *f, int i) {
    float n = 0;
    for (uint32_t k = 0; k < f->n_id[i]; k++) n += f->weight[i][k];
    return n;
}

static back_cpu *open_back(lora_fixture *f, bool recompute) {
    back_cpu *b;
    REQUIRE(back_cpu_create(f->g.model, f->adapter, 64, recompute, &b, &err));
    return b;
}

static void pair_name(uint32_t slot, char side, char name[128]) {
    snprintf(name, 128, "base_model.model.model.language_model.layers.%u.%s.lora_%c.weight",
             slot / LORA_TARGETS, lora_peft_name(slot % LORA_TARGETS), side);
}

static void compare_pairs(lora_fixture *f, const lora *is) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < lora_slots(is); i++) {
        const lora_pair *p = lora_slot(is, i);
        char name[128];
        if (!p->rank) continue;
        pair_name(i, 'A', name);
        golden_compare(&f->g, name, p->a, p->rank, p->n_col);
        pair_name(i, 'B', name);
        golden_compare(&f->g, name, p->b, p->n_row, p->rank);
        n += 2;
    }
    assert_int_equal(n, 120);
}

static double relative(double is, double want) { return fabs(is - want) / fabs(want); }

/* The loss of the first example, and each of the 120 gradients. */
static void gradients(void **state) {
    (void)state;
    lora_fixture f;
    double loss;
    lora *grad;
    open_lora(&f, 1e-4);
    const double want = json_number(json_get(f.json, "loss0"), 0);
    back_cpu *b = open_back(&f, false);
    REQUIRE(lora_like(f.g.memory, f.adapter, &grad, &err));
    const train_batch batch = batch_of(&f, 0);
    const float n = learned(&f, 0);
    REQUIRE(back_cpu_run(b, &batch, 1 / n, grad, &loss, &err));
    assert_true(relative(loss / (double)n, want) < 1e-6);
    const double norm = clip_norm(grad->values, grad->n_value, 0);
    assert_true(relative(norm, json_number(json_get(f.json, "grad_norm"), 0)) < 1e-5);
    compare_pairs(&f, grad);
    back_cpu_free(b);
    close_lora(&f);
}

/* 20 steps from the golden adapter, both examples a step: the losses, the gradients' norms, the
 * adapter in the end, and what the model says with it. */
static void twenty_steps(void **state) {
    (void)state;
    lora_fixture f;
    lora *grad;
    adamw opt;
    open_lora(&f, 1e-3);
    const json *o = json_get(f.json, "adamw"), *losses = json_get(f.json, "losses");
    const double lr = json_number(json_get(o, "lr"), 0);
    back_cpu *b = open_back(&f, true);
    REQUIRE(lora_like(f.g.memory, f.adapter, &grad, &err));
    REQUIRE(adamw_open(f.g.memory, f.adapter->n_value, json_number(json_get(o, "weight_decay"), 0),
                       &opt, &err));
    assert_int_equal(losses->n, 20);
    double worst = 0;
    for (size_t step = 0; step < losses->n; step++) {
        double sum = 0;
        memset(grad->values, 0, grad->n_value * sizeof(float));
        for (int i = 0; i < 2; i++) {
            const train_batch batch = batch_of(&f, i);
            const float n = learned(&f, i);
            double loss;
            REQUIRE(back_cpu_run(b, &batch, 1 / (2 * n), grad, &loss, &err));
            sum += loss / (2 * (double)n);
        }
        const double norm =
            clip_norm(grad->values, grad->n_value, json_number(json_get(o, "clip_norm"), 0));
        const json *want = &losses->items[step];
        const double off = relative(sum, json_number(json_at(want, 0), 0));
        worst = fmax(worst, fmax(off, relative(norm, json_number(json_at(want, 1), 0))));
        adamw_step(&opt, f.adapter->values, grad->values, lr);
    }
    print_message("losses and norms: worst relative error %.2g\n", worst);
    assert_true(worst < 1e-3);
    source *s;
    source_close(f.g.tensors->src);
    REQUIRE(source_open(f.g.memory, "tests/golden/nano/lora_after20.safetensors", &s, &err));
    REQUIRE(safetensors_open(f.g.memory, s, &f.g.tensors, &err));
    compare_pairs(&f, f.adapter);

    const json *greedy = json_get(f.json, "greedy_after20");
    const lora_use use = {f.adapter, 1};
    uint32_t pos = 0;
    while (f.weight[0][pos] == 0) pos++;
    text_cpu_adapt(f.text, &use, 1);
    float logits[N_VOCAB];
    REQUIRE(text_cpu_forward(f.text, f.ids[0], pos, 0, 1, logits, NULL, &err));
    for (size_t i = 0; i < greedy->n; i++, pos++) {
        const int32_t id = best(logits, N_VOCAB);
        assert_int_equal(id, (int32_t)json_number(&greedy->items[i], -1));
        REQUIRE(text_cpu_forward(f.text, &id, 1, pos, 1, logits, NULL, &err));
    }
    assert_int_equal(greedy->n, 19);
    back_cpu_free(b);
    close_lora(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits),
        cmocka_unit_test(gradients),
        cmocka_unit_test(twenty_steps),
    };
    return cmocka_run_group_tests_name("golden_lora", tests, NULL, NULL);
}
