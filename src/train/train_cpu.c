/* train_cpu: learning on the CPU, a batch at a time.
 *
 * Flow: train.c says what, back_cpu.c and adamw.c do it. */
#include "train/train.h"

#include <math.h>
#include <string.h>

/* Keeps all that the way back needs, or computes it again where that takes too much. */
static bool make_room(train_cpu *t, const model *m, uint64_t budget, carat_error *err) {
    for (int recompute = 0;; recompute++) {
        if (!back_cpu_create(m, t->adapter, t->plan->n_batch, recompute, &t->back, err))
            return false;
        t->n_again = recompute ? m->config.n_layer - back_first_layer(t->adapter) : 0;
        if (recompute || train_cpu_bytes(t) <= budget) return true;
        back_cpu_free(t->back);
        t->back = NULL;
    }
}

bool train_cpu_open(const model *m, trainer *plan, lora *adapter, adamw *moments, uint64_t budget,
                    train_cpu **out, carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return false;
    train_cpu *t = arena_alloc(memory, 1, sizeof *t);
    bool ok = t || fail_memory(err, sizeof *t, "training");
    if (ok) {
        *t = (train_cpu){.plan = plan, .adapter = adapter, .moments = moments, .memory = memory};
        ok = lora_like(memory, adapter, &t->grad, err) && make_room(t, m, budget, err);
    }
    if (ok) {
        *out = t;
    } else {
        arena_free(memory);
    }
    return ok;
}

void train_cpu_free(train_cpu *t) {
    if (!t) return;
    back_cpu_free(t->back);
    arena_free(t->memory);
}

bool train_cpu_advance(train_cpu *t, train_event *event, carat_error *err) {
    train_work w;
    double loss = 0, norm = 0;
    trainer_next(t->plan, &w);
    const bool learn = w.kind == TRAIN_LEARN;
    if (learn && w.first) memset(t->grad->values, 0, (size_t)t->grad->n_value * sizeof(float));
    if (w.kind != TRAIN_DONE &&
        !back_cpu_run(t->back, &w.batch, w.scale, learn ? t->grad : NULL, &loss, err))
        return false;
    if (learn && w.last) norm = clip_norm(t->grad->values, t->grad->n_value, t->plan->options.clip);
    if (!trainer_took(t->plan, &w, loss, norm, event, err)) return false;
    if (learn && w.last) adamw_step(t->moments, t->adapter->values, t->grad->values, w.lr);
    return true;
}

/* The gradients beside the network's own; values and moments are the caller's. */
uint64_t train_cpu_bytes(const train_cpu *t) {
    return back_cpu_bytes(t->back) + t->grad->n_value * sizeof(float);
}

bool train_cpu_has_effect(train_cpu *t, bool *effect, carat_error *err) {
    lora *bare;
    back_cpu *back;
    double with, without;
    train_batch batch;
    trainer_first(t->plan, &batch);
    if (!back_cpu_run(t->back, &batch, 1, NULL, &with, err) ||
        !lora_empty(t->memory, t->adapter->model, &bare, err) ||
        !back_cpu_create(t->adapter->model, bare, batch.n_tok, true, &back, err))
        return false;
    const bool ok = back_cpu_run(back, &batch, 1, NULL, &without, err);
    back_cpu_free(back);
    *effect = with != without;
    return ok;
}
