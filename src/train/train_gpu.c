/* train_gpu: learning on the device, a batch at a time: what train_cpu.c does, in pieces that never
 * wait. A step is taken when its loss and its gradient's norm are here and are numbers.
 *
 * Flow: train.c says what, back_gpu.c and adapter_gpu.c do it. */
#include "train/train_gpu.h"

#include "train/back_gpu.h"

#include <math.h>
#include <string.h>

#define GROUP_CALLS 4u /* dispatches of a group in a step: clear, norm (two at most), AdamW */

typedef enum stage { STAGE_IDLE, STAGE_RUN, STAGE_READ } stage;

struct train_gpu {
    trainer *plan;
    gpu *gpu;
    arena *memory;
    adapter_gpu *adapter;
    back_gpu *back;
    kernel_steps *steps; /* a step: clear, norms, AdamW */
    float *outcome;      /* [n_max + n_group], see back_gpu.h */
    stage stage;
    gpu_ticket ticket;
    bool torn;          /* a step was taken in part: what is on the device is worth nothing */
    train_work work;    /* under way */
    uint32_t n_effect;  /* of has_effect's two runs, those that are done */
    double effect_loss; /* of the first */
};

static uint32_t n_outcome(const train_gpu *t) { return t->back->n_max + t->adapter->n_group; }

bool train_gpu_open(const model *m, gpu *g, kernel_cache *cache, trainer *plan, lora *adapter,
                    adamw *moments, uint64_t budget, train_gpu **out, carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return false;
    train_gpu *t = arena_alloc(memory, 1, sizeof *t);
    if (!t) {
        arena_free(memory);
        return fail_memory(err, sizeof *t, "training on the device");
    }
    *t = (train_gpu){.plan = plan, .gpu = g, .memory = memory};
    const uint64_t held = adapter_gpu_estimate(adapter);
    bool ok = adapter_gpu_create(g, adapter, moments, &t->adapter, err) &&
              back_gpu_create(m, g, cache, t->adapter, plan->n_batch,
                              budget > held ? budget - held : 0, &t->back, err);
    if (ok) t->steps = kernel_steps_create(cache, GROUP_CALLS * t->adapter->n_group, err);
    ok = ok && t->steps;
    if (ok) t->outcome = arena_alloc(memory, n_outcome(t), sizeof *t->outcome);
    ok = ok && (t->outcome || fail_memory(err, n_outcome(t) * sizeof(float), "losses"));
    if (!ok) {
        train_gpu_free(t);
        return false;
    }
    *out = t;
    return true;
}

void train_gpu_free(train_gpu *t) {
    if (!t) return;
    if (t->stage == STAGE_READ) back_drop_read(t->gpu, t->ticket, t->outcome);
    kernel_steps_free(t->steps);
    back_gpu_free(t->back);
    adapter_gpu_free(t->adapter);
    arena_free(t->memory);
}

uint64_t train_gpu_estimate(const model *m, const lora *l, uint32_t n_batch, uint64_t budget) {
    const uint64_t held = adapter_gpu_estimate(l);
    return held + back_gpu_estimate(m, l, n_batch, budget > held ? budget - held : 0);
}

uint64_t train_gpu_bytes(const train_gpu *t) { return t->adapter->bytes + t->back->bytes; }

uint32_t train_gpu_again(const train_gpu *t) { return t->back->kept - t->back->first; }

void train_gpu_progress(const train_gpu *t, uint32_t *done, uint32_t *total) {
    *done = t->stage == STAGE_IDLE ? 0 : t->back->piece;
    *total = t->stage == STAGE_IDLE ? 0 : t->back->n_piece;
}

/* ---- a run over a batch ---- */

static bool begin(train_gpu *t, const back_run *run, carat_error *err) {
    if (!back_gpu_begin(t->back, run, err)) return false;
    t->stage = STAGE_RUN;
    return true;
}

/* Goes on with the run; with norms, the gradients' are asked for in the end. Not *busy: the outcome
 * is here. */
static bool go_on(train_gpu *t, bool norms, bool *busy, carat_error *err) {
    bool finished = true;
    *busy = true;
    if (t->stage == STAGE_RUN) {
        if (!back_gpu_advance(t->back, &finished, err)) return false;
        if (!finished) return true;
        if (norms) adapter_gpu_norms(t->adapter, t->steps, whole(t->back->outcome), t->back->n_max);
        if (!kernel_end(t->steps, err)) return false;
        t->ticket = gpu_read(t->gpu, t->back->outcome, 0, n_outcome(t) * sizeof(float), err);
        if (!t->ticket.id) return false;
        t->stage = STAGE_READ;
    }
    switch (gpu_poll(t->gpu, t->ticket, t->outcome, err)) {
    case GPU_PENDING:
        return true;
    case GPU_FAILED:
        return false;
    case GPU_READY:
        break;
    }
    t->stage = STAGE_IDLE;
    *busy = false;
    return true;
}

static double loss_of(const train_gpu *t) {
    double sum = 0;
    for (uint32_t i = 0; i < t->back->n_target; i++) sum += (double)t->outcome[i];
    return sum;
}

static double norm_of(const train_gpu *t) {
    double sum = 0;
    for (uint32_t i = 0; i < t->adapter->n_group; i++)
        if (t->adapter->groups[i].n) sum += (double)t->outcome[t->back->n_max + i];
    return sqrt(sum);
}

/* ---- learning ---- */

static bool begin_work(train_gpu *t, carat_error *err) {
    const bool learn = t->work.kind == TRAIN_LEARN;
    if (learn && t->work.first) {
        kernel_begin(t->steps);
        adapter_gpu_clear(t->adapter, t->steps);
    }
    if (!kernel_end(t->steps, err)) return false;
    return begin(t, &(back_run){.batch = &t->work.batch, .scale = t->work.scale, .learn = learn},
                 err);
}

static bool take_step(train_gpu *t, double norm, carat_error *err) {
    const double max = t->plan->options.clip, scale = max / (norm + 1e-6);
    adapter_gpu_step(t->adapter, t->steps, max > 0 && scale < 1 ? (float)scale : 1, t->work.lr);
    kernel_hand_over(t->steps);
    t->torn = !kernel_end(t->steps, err);
    return !t->torn;
}

static bool advance(train_gpu *t, bool *busy, train_event *event, carat_error *err) {
    *busy = false;
    if (t->stage == STAGE_IDLE) {
        trainer_next(t->plan, &t->work);
        if (t->work.kind == TRAIN_DONE) return trainer_took(t->plan, &t->work, 0, 0, event, err);
        if (!begin_work(t, err)) return false;
    }
    const bool step = t->work.kind == TRAIN_LEARN && t->work.last;
    if (!go_on(t, step, busy, err)) return false;
    if (*busy) return true;
    const double norm = step ? norm_of(t) : 0;
    return trainer_took(t->plan, &t->work, loss_of(t), norm, event, err) &&
           (!step || take_step(t, norm, err));
}

bool train_gpu_advance(train_gpu *t, bool *busy, train_event *event, carat_error *err) {
    const bool ok = advance(t, busy, event, err);
    if (!ok) t->stage = STAGE_IDLE; /* the batch is given up */
    return ok;
}

bool train_gpu_fetch(train_gpu *t, bool *busy, carat_error *err) {
    assert(t->stage == STAGE_IDLE);
    if (t->torn) return fail(err, CARAT_E_DEVICE, "train: the last step was taken in part");
    return adapter_gpu_fetch(t->adapter, busy, err);
}

static bool compare(train_gpu *t, bool *busy, bool *effect, carat_error *err) {
    if (t->stage == STAGE_IDLE) {
        trainer_first(t->plan, &t->work.batch);
        const back_run run = {.batch = &t->work.batch, .bare = t->n_effect == 1};
        if (!begin(t, &run, err)) return false;
    }
    if (!go_on(t, false, busy, err)) return false;
    if (*busy) return true;
    const double loss = loss_of(t);
    *busy = t->n_effect == 0;
    *effect = loss < t->effect_loss || loss > t->effect_loss;
    t->effect_loss = loss;
    t->n_effect = (t->n_effect + 1) % 2;
    return true;
}

bool train_gpu_has_effect(train_gpu *t, bool *busy, bool *effect, carat_error *err) {
    const bool ok = compare(t, busy, effect, err);
    if (!ok) {
        t->stage = STAGE_IDLE;
        t->n_effect = 0;
    }
    return ok;
}
