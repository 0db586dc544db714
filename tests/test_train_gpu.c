/* Training on the device: golden gradients and 20 steps of AdamW; gradients of every relative,
 * adapted everywhere, on packed samples and with dropout, against the CPU; kept against computed
 * again, and a run against one that was fetched and opened again. CPU twin: test_golden_lora.c,
 * test_grad.c, test_train.c. */
#include "golden_gpu.h"

#include "golden_lora.h"
#include "train/back_gpu.h"
#include "train/train_gpu.h"

#include <stdlib.h>

/* ---- a network on both ---- */

enum { N_TOK = 48 }; /* the relatives' window is 32 */

typedef struct network {
    golden g;
    lora *adapter, *grad; /* grad: as the device has it, then as the CPU */
    adamw moments;
    adapter_gpu *there;
    train_batch batch;
    int32_t tokens[N_TOK];
    uint32_t start[N_TOK];
    float weight[N_TOK];
} network;

/* Random tokens of two packed samples. */
static void random_batch(network *n, uint32_t n_tok, uint32_t second) {
    const uint32_t n_vocab = n->g.model->config.n_vocab;
    for (uint32_t i = 0; i < n_tok; i++) {
        n->tokens[i] = (int32_t)(lora_random(6, i) % (i % 2 ? n_vocab : 7));
        n->start[i] = i < second ? 0 : second;
        n->weight[i] = i != n->start[i] && i % 3 ? 1 : 0;
    }
    n->batch = (train_batch){n_tok, n->tokens, n->start, n->weight, 99};
}

static void open_adapter(network *n, float dropout, bool everything, uint32_t first) {
    lora_plan plan = {.rank = 3,
                      .alpha = 6,
                      .embed = everything,
                      .head = everything,
                      .dropout = dropout,
                      .first = first,
                      .seed = 1};
    for (lora_target t = 0; t < LORA_TARGETS; t++) plan.target[t] = true;
    REQUIRE(lora_create(n->g.memory, n->g.model, &plan, &n->adapter, &err));
    for (uint64_t i = 0; i < n->adapter->n_value; i++)
        n->adapter->values[i] = 0.05f * (2 * lora_uniform(5, i) - 1);
}

static void open_network(network *n, const char *relative) {
    if (!device) skip();
    if (relative)
        golden_open_relative(&n->g, relative, 1e-3);
    else
        golden_open_nano(&n->g, 1e-3);
    text_cpu_free(golden_cpu(&n->g, 16));
    upload_model(&n->g);
}

static void put_adapter(network *n) {
    REQUIRE(lora_like(n->g.memory, n->adapter, &n->grad, &err));
    REQUIRE(adamw_open(n->g.memory, n->adapter->n_value, 0, &n->moments, &err));
    REQUIRE(adapter_gpu_create(device, n->adapter, &n->moments, &n->there, &err));
}

static void close_network(network *n) {
    adapter_gpu_free(n->there);
    upload_free_weights(device, n->g.model->matrices);
    gpu_buffer_free(device, n->g.model->weights.vector_buffer);
    golden_close(&n->g);
}

/* A run of a batch on the device; its loss. */
static double run_batch(back_gpu *b, const back_run *run) {
    bool finished = false;
    REQUIRE(back_gpu_begin(b, run, &err));
    while (!finished) {
        REQUIRE(back_gpu_advance(b, &finished, &err));
        if (!finished) gpu_wait(device);
    }
    float outcome[512];
    double loss = 0;
    assert_true(b->n_target && b->n_target <= COUNT(outcome));
    wait_read(gpu_read(device, b->outcome, 0, b->n_target * 4, &err), outcome);
    for (uint32_t i = 0; i < b->n_target; i++) loss += (double)outcome[i];
    return loss;
}

/* The device's gradients, one pair after the other, without what fills the ranks up. */
static void fetch_gradients(const network *n, lora *out) {
    for (uint32_t i = 0; i < lora_slots(out); i++) {
        const lora_pair *p = lora_slot(out, i);
        const pair_gpu *q = &n->there->pairs[i];
        if (!p->rank) continue;
        float *a = golden_alloc((golden *)(uintptr_t)&n->g, q->da.view.size / 4, 4);
        float *b = golden_alloc((golden *)(uintptr_t)&n->g, q->db.view.size / 4, 4);
        wait_read(gpu_read(device, q->da.view.buffer, q->da.view.offset, q->da.view.size, &err), a);
        wait_read(gpu_read(device, q->db.view.buffer, q->db.view.offset, q->db.view.size, &err), b);
        memcpy(p->a, a, (size_t)p->rank * p->n_col * 4);
        for (uint32_t r = 0; r < p->n_row; r++)
            memcpy(p->b + (size_t)r * p->rank, b + (size_t)r * q->rank, p->rank * 4);
    }
}

static kernel_steps *open_steps(const network *n) {
    kernel_steps *s = kernel_steps_create(cache, 8 * n->there->n_group, &err);
    if (!s) fail_msg("%s", err.message);
    return s;
}

static void clear(const network *n, kernel_steps *s) {
    kernel_begin(s);
    adapter_gpu_clear(n->there, s);
    REQUIRE(kernel_end(s, &err));
}

static double relative_error(double is, double want) { return fabs(is - want) / fabs(want); }

/* Of losses and norms over 20 steps. Matrix units round the frozen weights to f16 on the way back,
 * after which each gradient still has to be within 1e-3 of the golden one. */
static double curve_bound(void) { return device->info.subgroup_matrix ? 1e-2 : 1e-3; }

/* ---- nano's golden values ---- */

static void compare_pairs(network *n, const lora *is) {
    for (uint32_t i = 0; i < lora_slots(is); i++) {
        const lora_pair *p = lora_slot(is, i);
        char name[128];
        if (!p->rank) continue;
        for (int side = 0; side < 2; side++) {
            snprintf(name, sizeof name,
                     "base_model.model.model.language_model.layers.%u.%s.lora_%c.weight",
                     i / LORA_TARGETS, lora_peft_name(i % LORA_TARGETS), "AB"[side]);
            golden_compare(&n->g, name, side ? p->b : p->a, side ? p->n_row : p->rank,
                           side ? p->rank : p->n_col);
        }
    }
}

static void open_tensors(network *n, const char *path) {
    source *s;
    source_close(n->g.tensors->src);
    REQUIRE(source_open(n->g.memory, path, &s, &err));
    REQUIRE(safetensors_open(n->g.memory, s, &n->g.tensors, &err));
}

typedef struct example {
    int32_t *ids;
    float *weight;
    uint32_t n;
    float learned;
} example;

static void open_example(network *n, const json *e, example *out) {
    out->n = golden_ids(&n->g, json_get(e, "ids"), &out->ids);
    out->weight = golden_alloc(&n->g, out->n, sizeof(float));
    out->learned = 0;
    for (uint32_t k = 0; k < out->n; k++) {
        out->weight[k] = (float)json_number(json_at(json_get(e, "target"), k), -1);
        out->learned += out->weight[k];
    }
}

/* Steps of the golden run: a GPU in software takes ten seconds for each. */
static size_t golden_steps(size_t all) { return runs_all("3 golden steps") ? all : 3; }

/* The loss, the norm and each of the 120 gradients, then 20 steps with both examples each. */
static void golden_training(void **state) {
    (void)state;
    enum { N_MAX = 64 };
    static const uint32_t start[N_MAX];
    network n = {0};
    example ex[2];
    back_gpu *b;
    float norms[MODEL_MAX_LAYERS + 2];
    open_network(&n, NULL);
    REQUIRE(lora_open(n.g.memory, n.g.model, ADAPTER, &n.adapter, &err));
    put_adapter(&n);
    const json *j = load_json(n.g.memory, "tests/golden/nano/lora.json");
    const json *o = json_get(j, "adamw"), *losses = json_get(j, "losses");
    const double max = json_number(json_get(o, "clip_norm"), 0);
    for (size_t i = 0; i < 2; i++) open_example(&n, json_at(json_get(j, "examples"), i), &ex[i]);
    open_tensors(&n, "tests/golden/nano/lora_grads.safetensors");
    REQUIRE(back_gpu_create(n.g.model, device, cache, n.there, N_MAX, UINT64_MAX, &b, &err));
    kernel_steps *s = open_steps(&n);

    train_batch batch = {ex[0].n, ex[0].ids, start, ex[0].weight, 0};
    clear(&n, s);
    const double loss =
        run_batch(b, &(back_run){.batch = &batch, .scale = 1 / ex[0].learned, .learn = true});
    const double want = json_number(json_get(j, "loss0"), 0);
    print_message("loss: relative error %.2g\n",
                  relative_error(loss / (double)ex[0].learned, want));
    assert_true(relative_error(loss / (double)ex[0].learned, want) < 1e-5);
    fetch_gradients(&n, n.grad);
    compare_pairs(&n, n.grad);
    assert_int_equal(n.g.n_compared, 120);

    double worst = 0;
    n.moments.weight_decay = json_number(json_get(o, "weight_decay"), 0);
    assert_int_equal(losses->n, 20);
    const size_t n_step = golden_steps(losses->n);
    for (size_t step = 0; step < n_step; step++) {
        double sum = 0, squares = 0;
        clear(&n, s);
        for (int i = 0; i < 2; i++) {
            batch = (train_batch){ex[i].n, ex[i].ids, start, ex[i].weight, 0};
            const float scale = 1 / (2 * ex[i].learned);
            sum += (double)scale *
                   run_batch(b, &(back_run){.batch = &batch, .scale = scale, .learn = true});
        }
        adapter_gpu_norms(n.there, s, whole(b->outcome), N_MAX);
        REQUIRE(kernel_end(s, &err));
        wait_read(gpu_read(device, b->outcome, N_MAX * 4, n.there->n_group * 4, &err), norms);
        for (uint32_t i = 0; i < n.there->n_group; i++)
            squares += n.there->groups[i].n ? (double)norms[i] : 0;
        const double norm = sqrt(squares), scale = max / (norm + 1e-6);
        adapter_gpu_step(n.there, s, scale < 1 ? (float)scale : 1,
                         json_number(json_get(o, "lr"), 0));
        REQUIRE(kernel_end(s, &err));
        const json *is = &losses->items[step];
        worst = fmax(worst, relative_error(sum, json_number(json_at(is, 0), 0)));
        worst = fmax(worst, relative_error(norm, json_number(json_at(is, 1), 0)));
    }
    print_message("%zu steps: losses and norms, worst relative error %.2g\n", n_step, worst);
    assert_true(worst < curve_bound());
    for (bool busy = true; busy;) {
        REQUIRE(adapter_gpu_fetch(n.there, &busy, &err));
        if (busy) gpu_wait(device);
    }
    open_tensors(&n, "tests/golden/nano/lora_after20.safetensors");
    if (n_step == losses->n) compare_pairs(&n, n.adapter);
    kernel_steps_free(s);
    back_gpu_free(b);
    close_network(&n);
}

/* ---- against the CPU ---- */

/* Gradients of one kind of pairs: far apart only as much as f32 is. */
static void compare_kinds(network *n, const lora *is, const lora *want) {
    static const char *const names[LORA_TARGETS + 2] = {"q",  "k",    "v",     "o",   "gate",
                                                        "up", "down", "embed", "head"};
    for (uint32_t kind = 0; kind < LORA_TARGETS + 2; kind++) {
        distance d = {0};
        for (uint32_t i = 0; i < lora_slots(want); i++) {
            const lora_pair *p = lora_slot(want, i), *q = lora_slot(is, i);
            const bool in_layer = i < want->n_layer * LORA_TARGETS;
            const uint32_t of = in_layer ? i % LORA_TARGETS : LORA_TARGETS + (p == &want->head);
            if (p->rank && of == kind)
                distance_add(&d, q->a, p->a, (size_t)p->rank * (p->n_row + p->n_col));
        }
        golden_check(&n->g, names[kind], &d);
    }
}

static void check_network(const char *name, float dropout) {
    network n = {0};
    back_cpu *cpu;
    back_gpu *b;
    lora *want;
    double loss;
    open_network(&n, name);
    open_adapter(&n, dropout, true, 0);
    put_adapter(&n);
    random_batch(&n, name ? N_TOK : 20, name ? 38 : 13);
    REQUIRE(lora_like(n.g.memory, n.adapter, &want, &err));
    REQUIRE(back_cpu_create(n.g.model, n.adapter, N_TOK, false, &cpu, &err));
    REQUIRE(back_cpu_run(cpu, &n.batch, 0.5f, want, &loss, &err));
    back_cpu_free(cpu);

    kernel_steps *s = open_steps(&n);
    const back_run run = {.batch = &n.batch, .scale = 0.5f, .learn = true};
    lora *kept;
    REQUIRE(lora_like(n.g.memory, n.adapter, &kept, &err));
    for (int all = name ? 0 : 1; all >= 0; all--) { /* nano: all kept; all computed again */
        REQUIRE(back_gpu_create(n.g.model, device, cache, n.there, N_TOK, all ? UINT64_MAX : 0, &b,
                                &err));
        assert_int_equal(b->kept, all ? 0 : n.g.model->config.n_layer);
        clear(&n, s);
        const double is = run_batch(b, &run);
        assert_true(relative_error(is, loss) < 1e-5);
        fetch_gradients(&n, all ? kept : n.grad);
        back_gpu_free(b);
    }
    compare_kinds(&n, n.grad, want);
    if (!name) assert_memory_equal(kept->values, n.grad->values, n.grad->n_value * sizeof(float));
    kernel_steps_free(s);
    close_network(&n);
}

static void nano_dropout(void **state) {
    (void)state;
    check_network(NULL, 0.3f);
}

static void relative_e4b(void **state) {
    (void)state;
    check_network("e4b", 0);
}

static void relative_dense31(void **state) {
    (void)state;
    check_network("dense31", 0);
}

static void relative_moe(void **state) {
    (void)state;
    check_network("moe", 0);
}

/* ---- runs ---- */

/* A run of three steps over a few texts. */
typedef struct plan_of {
    dataset *data;
    trainer *plan;
    lora *adapter;
    adamw moments;
    train_gpu *gpu;
} plan_of;

static void open_gpu(network *n, plan_of *p) {
    REQUIRE(train_gpu_open(n->g.model, device, cache, p->plan, p->adapter, &p->moments, 0, &p->gpu,
                           &err));
    assert_true(train_gpu_bytes(p->gpu) >=
                train_gpu_estimate(n->g.model, p->adapter, p->plan->n_batch, 0));
}

static void open_plan(network *n, plan_of *p) {
    static const char rows[] = "{\"text\":\"A cat.\"}\n{\"text\":\"A dog is here.\"}\n"
                               "{\"text\":\"No bird.\"}\n";
    const train_options o = {.lr = 1e-2, .clip = 1, .n_step = 3, .n_epoch = 3, .seed = 1};
    lora_plan shape = {.rank = 17, .alpha = 17, .seed = 1, .target = {[LORA_Q] = true}};
    source *src;
    shape.target[LORA_DOWN] = true;
    REQUIRE(source_memory(n->g.memory, "rows.jsonl", rows, strlen(rows), &src, &err));
    REQUIRE(dataset_open(n->g.model->tokenizer, src, &(dataset_options){0}, &p->data, &err));
    REQUIRE(trainer_open(p->data, &o, &p->plan, &err));
    REQUIRE(lora_create(n->g.memory, n->g.model, &shape, &p->adapter, &err));
    REQUIRE(adamw_open(n->g.memory, p->adapter->n_value, 0.01, &p->moments, &err));
    open_gpu(n, p);
}

static void close_plan(plan_of *p) {
    train_gpu_free(p->gpu);
    trainer_free(p->plan);
    dataset_free(p->data);
}

/* Steps until `until`, then everything home. */
static void learn(plan_of *p, uint32_t until) {
    train_event e;
    bool busy = false;
    while (p->plan->state.step < until) {
        REQUIRE(train_gpu_advance(p->gpu, &busy, &e, &err));
        if (busy) gpu_wait(device);
    }
    for (busy = true; busy;) {
        REQUIRE(train_gpu_fetch(p->gpu, &busy, &err));
        if (busy) gpu_wait(device);
    }
}

static bool has_effect(plan_of *p) {
    bool busy = true, effect = false;
    while (busy) {
        REQUIRE(train_gpu_has_effect(p->gpu, &busy, &effect, &err));
        if (busy) gpu_wait(device);
    }
    return effect;
}

/* A rank that is no multiple of 16 comes back as it went; a run that was closed after a step and
 * opened again ends where one without a break does, to the bit, and where the CPU does. */
static void goes_on(void **state) {
    (void)state;
    network n = {0};
    plan_of whole_run, in_two, there;
    train_cpu *cpu;
    train_event e = TRAIN_BATCH;
    open_network(&n, "dense31");
    open_plan(&n, &whole_run);
    assert_false(has_effect(&whole_run));
    learn(&whole_run, 3);
    assert_true(has_effect(&whole_run));
    open_plan(&n, &in_two);
    learn(&in_two, 1);
    train_gpu_free(in_two.gpu);
    open_gpu(&n, &in_two);
    learn(&in_two, 3);
    const size_t bytes = (size_t)whole_run.adapter->n_value * sizeof(float);
    assert_memory_equal(in_two.adapter->values, whole_run.adapter->values, bytes);
    assert_memory_equal(in_two.moments.m, whole_run.moments.m, bytes);
    assert_memory_equal(in_two.moments.v, whole_run.moments.v, bytes);

    open_plan(&n, &there);
    REQUIRE(train_cpu_open(n.g.model, there.plan, there.adapter, &there.moments, UINT64_MAX, &cpu,
                           &err));
    while (e != TRAIN_FINISHED) REQUIRE(train_cpu_advance(cpu, &e, &err));
    train_cpu_free(cpu);
    assert_true(relative_error(whole_run.plan->step_loss, there.plan->step_loss) < 1e-4);
    distance d = {0};
    distance_add(&d, whole_run.moments.m, there.moments.m, (size_t)there.adapter->n_value);
    golden_check(&n.g, "moments after three steps", &d);
    close_plan(&there);
    close_plan(&in_two);
    close_plan(&whole_run);
    close_network(&n);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_training), cmocka_unit_test(nano_dropout),
        cmocka_unit_test(relative_e4b),    cmocka_unit_test(relative_dense31),
        cmocka_unit_test(relative_moe),    cmocka_unit_test(goes_on),
    };
    return cmocka_run_group_tests_name("train_gpu", tests, open_device, close_device);
}
