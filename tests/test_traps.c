/* What other trainers of this network got wrong, each a test by its name. On the CPU, which is what
 * the device is compared with (test_train_gpu.c). That layers read the donor's K and V as from a
 * cache is same_loss_as_with_a_cache in test_train.c.
 *
 * Most compare a gradient with what the loss does along it, forwards alone. */
#include "golden_lora.h"

#include "train/train.h"

#define CTX  256
#define RANK 3u

static lora_fixture f;
static lora *all;  /* adapts everything, with values that matter */
static lora *grad; /* [all's shape] of the last learn() */
static back_cpu *back;

static lora *random_adapter(uint32_t rank) {
    lora *l;
    lora_plan plan = {.rank = rank, .alpha = 2 * (float)rank, .embed = true, .head = true};
    for (lora_target t = 0; t < LORA_TARGETS; t++) plan.target[t] = true;
    REQUIRE(lora_create(f.g.memory, f.g.model, &plan, &l, &err));
    for (uint64_t i = 0; i < l->n_value; i++) l->values[i] = 0.05f * (2 * lora_uniform(5, i) - 1);
    return l;
}

static void adapt(lora *l) {
    back_cpu_free(back);
    all = l;
    REQUIRE(lora_like(f.g.memory, all, &grad, &err));
    REQUIRE(back_cpu_create(f.g.model, all, CTX, false, &back, &err));
}

static int setup(void **state) {
    (void)state;
    open_lora(&f, 1e-5);
    f.g.n_compared = 1;
    adapt(random_adapter(RANK));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    back_cpu_free(back);
    close_lora(&f);
    return 0;
}

static train_batch example(void) {
    static const uint32_t start[CTX];
    return (train_batch){
        .n_tok = f.n_id[0], .tokens = f.ids[0], .start = start, .weight = f.weight[0]};
}

static double learn(const train_batch *batch, float scale) {
    double loss;
    memset(grad->values, 0, (size_t)grad->n_value * sizeof(float));
    REQUIRE(back_cpu_run(back, batch, scale, grad, &loss, &err));
    return loss;
}

static double loss_of(const train_batch *batch) {
    double loss;
    REQUIRE(back_cpu_run(back, batch, 1, NULL, &loss, &err));
    return loss;
}

/* ---- a gradient against the loss ---- */

static uint64_t pair_values(const lora_pair *p) {
    return (uint64_t)p->rank * ((uint64_t)p->n_col + p->n_row);
}

/* Leaves only what `keep` wants of the gradient; its norm. */
static double only(bool (*keep)(uint32_t slot)) {
    double sum = 0;
    for (uint32_t i = 0; i < lora_slots(grad); i++) {
        lora_pair *p = lora_slot(grad, i);
        for (uint64_t k = 0; k < pair_values(p); k++) { /* B lies behind A */
            if (!keep(i)) p->a[k] = 0;
            sum += (double)p->a[k] * (double)p->a[k];
        }
    }
    return sqrt(sum);
}

static void move(double by) {
    for (uint64_t i = 0; i < all->n_value; i++)
        all->values[i] += (float)(by * (double)grad->values[i]);
}

/* Along the gradient's kept part, of this norm, the loss rises by its square. */
static void expect_slope(const train_batch *batch, double norm) {
    assert_true(norm > 1e-4);
    lora *before;
    REQUIRE(lora_copy(f.g.memory, all, &before, &err));
    const double step = 0.01 * loss_of(batch) / (norm * norm);
    move(step);
    const double above = loss_of(batch);
    move(-2 * step);
    const double below = loss_of(batch);
    memcpy(all->values, before->values, (size_t)all->n_value * sizeof(float));
    const double slope = (above - below) / (2 * step) / (norm * norm);
    if (fabs(slope - 1) > 0.02) fail_msg("the loss rises %g times as fast as it should", slope);
}

static void check_gradient(const train_batch *batch, bool (*keep)(uint32_t slot)) {
    learn(batch, 1);
    expect_slope(batch, only(keep));
}

static bool everything(uint32_t slot) {
    (void)slot;
    return true;
}

/* K and V of layers that others share. */
static bool of_donors(uint32_t slot) {
    const model_config *c = &f.g.model->config;
    const uint32_t il = slot / LORA_TARGETS, p = slot % LORA_TARGETS;
    for (uint32_t i = 0; i < c->n_layer && (p == LORA_K || p == LORA_V); i++)
        if (!c->layers[i].owns_kv && c->layers[i].donor == il) return true;
    return false;
}

static bool donors_k(uint32_t slot) { return of_donors(slot) && slot % LORA_TARGETS == LORA_K; }
static bool donors_v(uint32_t slot) { return of_donors(slot) && slot % LORA_TARGETS == LORA_V; }

static bool of_last_down(uint32_t slot) {
    return slot == (f.g.model->config.n_layer - 1) * LORA_TARGETS + LORA_DOWN;
}

static bool of_head(uint32_t slot) { return lora_slot(grad, slot) == &grad->head; }
static bool of_embedding(uint32_t slot) { return lora_slot(grad, slot) == &grad->embed; }

/* ---- the traps ---- */

/* The layers that share add their part to the donor's gradient. */
static void shared_layers_contribute(void **state) {
    (void)state;
    const train_batch batch = example();
    uint32_t n = 0;
    for (uint32_t i = 0; i < lora_slots(grad); i++) n += of_donors(i);
    assert_true(n >= 2);
    check_gradient(&batch, donors_k);
    check_gradient(&batch, donors_v);
}

/* What was summed for a donor is gone by the next batch. */
static void shared_gradients_are_let_go(void **state) {
    (void)state;
    const train_batch batch = example();
    lora *first;
    learn(&batch, 1);
    REQUIRE(lora_copy(f.g.memory, grad, &first, &err));
    learn(&batch, 1);
    assert_memory_equal(first->values, grad->values, (size_t)grad->n_value * sizeof(float));
}

/* The cap is in the loss, so it is in its gradient: a low one, which all logits feel. */
static void softcap(void **state) {
    (void)state;
    const train_batch batch = example();
    float *cap = &f.g.model->config.softcap;
    const float usual = *cap;
    assert_true(usual > 0);
    const double loss = loss_of(&batch);
    *cap = 3;
    const double capped = loss_of(&batch);
    check_gradient(&batch, of_head);
    *cap = 0;
    const double bare = loss_of(&batch);
    *cap = usual;
    assert_true(fabs(capped - loss) > 0.01 * loss && fabs(bare - loss) > 1e-6 * loss);
}

/* What the last layer adds to the stream reaches the loss also through its per-layer embedding's
 * gate, projection and norm. */
static void per_layer_embeddings(void **state) {
    (void)state;
    const train_batch batch = example();
    assert_true(f.g.model->config.n_ple > 0);
    check_gradient(&batch, of_last_down);
    check_gradient(&batch, of_embedding);
}

/* Where only the last token is learned, all before it have gradients. */
static void earlier_positions(void **state) {
    (void)state;
    float last[CTX] = {0};
    train_batch batch = example();
    last[batch.n_tok - 1] = 1;
    batch.weight = last;
    check_gradient(&batch, of_donors);
    learn(&batch, 1);
    const lora_pair *p = &grad->embed;
    for (uint32_t t = 0; t + 1 < batch.n_tok; t++) {
        double sum = 0;
        for (uint32_t r = 0; r < p->rank; r++)
            sum += fabs((double)p->a[(size_t)r * p->n_col + (uint32_t)batch.tokens[t]]);
        if (!(sum > 0)) fail_msg("token %u has no gradient", t);
    }
    expect_slope(&batch, only(of_embedding));
}

/* The gradient is that of the mean that is reported: whether a step's samples, which have unequal
 * numbers of targets, lie in one batch or in two. */
static void mean_and_scale_agree(void **state) {
    (void)state;
    static const char text[] = "{\"prompt\":\"one\",\"completion\":\"red\"}\n"
                               "{\"prompt\":\"two\",\"completion\":\"green, blue and white\"}\n";
    double loss[2], norm[2];
    for (uint32_t apart = 0; apart < 2; apart++) {
        source *s;
        dataset *d;
        trainer *plan;
        train_cpu *cpu;
        adamw moments;
        train_event e = TRAIN_BATCH;
        const train_options o = {
            .lr = 1e-3, .n_accumulate = 1 + apart, .n_batch = 100, .pack = !apart};
        lora *l;
        REQUIRE(lora_copy(f.g.memory, all, &l, &err));
        REQUIRE(source_memory(f.g.memory, "two.jsonl", text, sizeof text - 1, &s, &err));
        REQUIRE(dataset_open(f.g.model->tokenizer, s, &(dataset_options){0}, &d, &err));
        REQUIRE(trainer_open(d, &o, &plan, &err));
        REQUIRE(adamw_open(f.g.memory, l->n_value, 0, &moments, &err));
        REQUIRE(train_cpu_open(f.g.model, plan, l, &moments, 0, &cpu, &err));
        assert_int_equal(plan->n_step, 1);
        while (e != TRAIN_STEP) REQUIRE(train_cpu_advance(cpu, &e, &err));
        loss[apart] = plan->step_loss;
        norm[apart] = plan->grad_norm;
        if (!apart) { /* along its own gradient the mean falls as the norm says */
            const double step = 0.01 * loss[0] / norm[0];
            double after = 0;
            train_work w;
            for (uint64_t i = 0; i < l->n_value; i++)
                l->values[i] =
                    all->values[i] - (float)(step * (double)cpu->grad->values[i] / norm[0]);
            plan->state.step = plan->state.at = plan->state.epoch = 0;
            trainer_next(plan, &w);
            REQUIRE(back_cpu_run(cpu->back, &w.batch, 1, NULL, &after, &err));
            const double fell = loss[0] - after / (double)plan->n_target;
            if (fabs(fell / (step * norm[0]) - 1) > 0.1) fail_msg("it falls by %g", fell);
        }
        train_cpu_free(cpu);
        trainer_free(plan);
        dataset_free(d);
    }
    assert_true(fabs(loss[0] - loss[1]) < 1e-6 * loss[0]);
    assert_true(fabs(norm[0] - norm[1]) < 1e-4 * norm[0]);
}

/* However large a gradient is on its way back, nothing bounds it there. */
static void no_clipping_inside(void **state) {
    (void)state;
    const train_batch batch = example();
    lora *one;
    learn(&batch, 1);
    REQUIRE(lora_copy(f.g.memory, grad, &one, &err));
    learn(&batch, 1 << 20);
    for (uint64_t i = 0; i < one->n_value; i++) one->values[i] *= 1 << 20;
    distance d = {0};
    distance_add(&d, grad->values, one->values, grad->n_value);
    assert_true(sqrt(d.diff / d.norm) < 1e-6);
}

/* Neither A nor B of any matrix has a gradient of zeros only. */
static void no_gradient_is_silently_zero(void **state) {
    (void)state;
    const train_batch batch = example();
    learn(&batch, 1);
    for (uint32_t i = 0; i < lora_slots(grad); i++) {
        const lora_pair *p = lora_slot(grad, i);
        double sum[2] = {0};
        for (uint64_t k = 0; p->rank && k < pair_values(p); k++)
            sum[k >= (uint64_t)p->rank * p->n_col] += fabs((double)p->a[k]);
        if (p->rank && !(sum[0] > 0 && sum[1] > 0)) fail_msg("slot %u: %g %g", i, sum[0], sum[1]);
    }
}

static void rank_above_64(void **state) {
    (void)state;
    const train_batch batch = example();
    adapt(random_adapter(80));
    check_gradient(&batch, everything);
    const lora_pair *p = lora_at(grad, 0, LORA_Q);
    double last = 0;
    learn(&batch, 1);
    for (uint32_t i = 0; i < p->n_col; i++) last += fabs((double)p->a[79 * (size_t)p->n_col + i]);
    assert_true(last > 0);
    adapt(random_adapter(RANK));
}

/* One, and only one, in front of whatever kind of row. */
static void begin_of_sequence(void **state) {
    (void)state;
    static const char text[] =
        "{\"prompt\":\"one\",\"completion\":\"red\"}\n{\"text\":\"Hi\"}\n{\"text\":\"<bos>Hi\"}\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},"
        "{\"role\":\"assistant\",\"content\":\"Yes\"}]}\n"
        "{\"instruction\":\"Hi\",\"output\":\"Yes\"}\n";
    source *s;
    dataset *d;
    const int32_t bos = f.g.model->tokenizer->specials[SPECIAL_BOS];
    REQUIRE(source_memory(f.g.memory, "bos.jsonl", text, sizeof text - 1, &s, &err));
    REQUIRE(dataset_open(f.g.model->tokenizer, s, &(dataset_options){0}, &d, &err));
    assert_int_equal(d->n, 5);
    for (uint32_t i = 0; i < d->n; i++)
        for (uint32_t k = 0; k < d->samples[i].n; k++)
            assert_int_equal(d->ids.data[d->samples[i].begin + k] == bos, k == 0);
    dataset_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_layers_contribute),
        cmocka_unit_test(shared_gradients_are_let_go),
        cmocka_unit_test(softcap),
        cmocka_unit_test(per_layer_embeddings),
        cmocka_unit_test(earlier_positions),
        cmocka_unit_test(mean_and_scale_agree),
        cmocka_unit_test(no_clipping_inside),
        cmocka_unit_test(no_gradient_is_silently_zero),
        cmocka_unit_test(rank_above_64),
        cmocka_unit_test(begin_of_sequence),
    };
    return cmocka_run_group_tests_name("traps", tests, setup, teardown);
}
