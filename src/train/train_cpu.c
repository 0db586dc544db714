/* train_cpu: learning on the CPU, a batch at a time.
 *
 * Flow: train.c says what, back_cpu.c and adamw.c do it. */
#include "train/train.h"

#include <math.h>
#include <string.h>

bool train_cpu_open(const model *m, trainer *plan, lora *adapter, bool recompute, train_cpu **out,
                    carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return false;
    train_cpu *t = arena_alloc(memory, 1, sizeof *t);
    bool ok = t || fail_memory(err, sizeof *t, "training");
    if (ok) {
        *t = (train_cpu){.plan = plan, .adapter = adapter, .memory = memory};
        ok = lora_like(memory, adapter, &t->grad, err) &&
             adamw_open(memory, adapter->n_value, plan->options.weight_decay, &t->optimiser, err) &&
             back_cpu_create(m, adapter, plan->n_batch, recompute, &t->back, err);
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
    if (learn && w.last) adamw_step(&t->optimiser, t->adapter->values, t->grad->values, w.lr);
    return true;
}

bool train_cpu_save(const train_cpu *t, const char *path, carat_error *err) {
    return checkpoint_write(path, t->plan, t->adapter, t->optimiser.m, t->optimiser.v, err);
}

bool train_cpu_resume(train_cpu *t, source *src, carat_error *err) {
    if (!checkpoint_read(src, t->plan, t->adapter, t->optimiser.m, t->optimiser.v, err))
        return false;
    t->optimiser.step = t->plan->state.step;
    return true;
}

bool train_cpu_has_effect(train_cpu *t, bool *effect, carat_error *err) {
    const dataset *d = t->plan->data;
    const sample *s = &d->samples[0];
    lora *bare;
    back_cpu *back;
    double with, without;
    trainer *p = t->plan;
    for (uint32_t i = 0; i < s->n; i++) {
        p->start[i] = 0;
        p->weight[i] = i && d->target.data[s->begin + i] ? 1 : 0;
    }
    const train_batch batch = {
        .n_tok = s->n, .tokens = d->ids.data + s->begin, .start = p->start, .weight = p->weight};
    if (!back_cpu_run(t->back, &batch, 1, NULL, &with, err) ||
        !lora_empty(t->memory, t->adapter->model, &bare, err) ||
        !back_cpu_create(t->adapter->model, bare, s->n, true, &back, err))
        return false;
    const bool ok = back_cpu_run(back, &batch, 1, NULL, &without, err);
    back_cpu_free(back);
    *effect = with != without;
    return ok;
}
