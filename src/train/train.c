/* train: the order of a run: which samples make up which batch of which step, at which rate, and
 * when to look at the samples held out. Computes nothing: trainer_next() says what is to be done,
 * whoever does it (train_cpu.c) reports to trainer_took().
 *
 * Nothing here draws from a stream of random numbers: the order of an epoch depends on the seed and
 * its number alone. So where a run stands is a few numbers, and it goes on exactly.
 *
 * The gradient of a step is that of the mean over all learned tokens of all its batches: their
 * number is known before the first one.
 *
 * Flow: dataset.c before; train_cpu.c after; checkpoint.c keeps the state. */
#include "train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HELD_OUT 0x68656c64u /* key of what is held out, whatever the order is */

/* ---- order ---- */

static void shuffle(uint32_t *list, uint32_t n, uint64_t key) {
    for (uint32_t i = n; i > 1; i--) {
        const uint32_t k = (uint32_t)(lora_random(key, i) % i), x = list[k];
        list[k] = list[i - 1];
        list[i - 1] = x;
    }
}

/* The order of an epoch, always from the same beginning. */
static void order_epoch(trainer *t, uint32_t epoch) {
    uint32_t n = 0;
    if (t->ordered == epoch) return;
    for (uint32_t i = 0, k = 0; i < t->data->n; i++) {
        const bool held = k < t->n_eval && t->eval[k] == i;
        if (!held) t->train[n++] = i;
        k += held;
    }
    shuffle(t->train, n, lora_random(t->options.seed, epoch));
    t->ordered = epoch;
}

/* How many of the samples from `at` on make up a batch. */
static uint32_t batch_samples(const trainer *t, const uint32_t *list, uint32_t n, uint32_t at) {
    uint32_t tokens = 0, count = 0;
    while (at + count < n && (count == 0 || t->options.pack)) {
        tokens += t->data->samples[list[at + count]].n;
        if (count && tokens > t->n_batch) break;
        count++;
    }
    return count;
}

/* The step that begins at state.at: its batches, targets and end. */
static uint32_t plan_step(trainer *t) {
    uint32_t at = t->state.at;
    t->n_batches = 0;
    t->n_target = t->n_token = 0;
    for (; t->n_batches < t->options.n_accumulate && at < t->n_train; t->n_batches++) {
        const uint32_t n = batch_samples(t, t->train, t->n_train, at);
        for (uint32_t i = 0; i < n; i++) {
            t->n_target += t->data->samples[t->train[at + i]].n_target;
            t->n_token += t->data->samples[t->train[at + i]].n;
        }
        at += n;
    }
    return at;
}

static void count_steps(trainer *t) {
    uint32_t n = 0;
    const uint32_t most = t->options.n_step ? t->options.n_step : UINT32_MAX;
    for (uint32_t epoch = 0; epoch < t->options.n_epoch && n < most; epoch++) {
        order_epoch(t, epoch);
        for (t->state.at = 0; t->state.at < t->n_train && n < most; n++) t->state.at = plan_step(t);
        t->n_epoch++;
    }
    t->n_step = n;
    t->state.at = 0;
}

/* ---- opening ---- */

static bool check_options(const train_options *o, carat_error *err) {
    if (!(o->lr > 0) || !isfinite(o->lr))
        return fail(err, CARAT_E_ARGUMENT, "train: a learning rate of %g", o->lr);
    if (!(o->weight_decay >= 0 && o->weight_decay < 1))
        return fail(err, CARAT_E_ARGUMENT, "train: a weight decay of %g", o->weight_decay);
    if (!(o->eval_share >= 0 && o->eval_share < 1))
        return fail(err, CARAT_E_ARGUMENT, "train: a share of %g to be held out", o->eval_share);
    if (!(o->clip >= 0)) return fail(err, CARAT_E_ARGUMENT, "train: clipping at %g", o->clip);
    return true;
}

static bool allocate(trainer *t, carat_error *err) {
    const dataset *d = t->data;
    t->train = arena_alloc(t->memory, d->n, sizeof *t->train);
    t->eval = arena_alloc(t->memory, d->n, sizeof *t->eval);
    t->tokens = arena_alloc(t->memory, t->n_batch, sizeof *t->tokens);
    t->start = arena_alloc(t->memory, t->n_batch, sizeof *t->start);
    t->weight = arena_alloc(t->memory, t->n_batch, sizeof *t->weight);
    return (t->train && t->eval && t->tokens && t->start && t->weight) ||
           fail_memory(err, d->n * sizeof *t->train, "the order of the samples");
}

static int ascending(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Holds some samples out, at least one, and leaves at least one to learn. */
static void hold_out(trainer *t) {
    const uint32_t n = t->data->n;
    const double share = t->options.eval_share;
    t->n_eval = share > 0 ? (uint32_t)(share * n + 0.5) : 0;
    if (share > 0 && !t->n_eval) t->n_eval = 1;
    if (t->n_eval >= n) t->n_eval = n - 1;
    t->n_train = n - t->n_eval;
    for (uint32_t i = 0; i < n; i++) t->eval[i] = i;
    shuffle(t->eval, n, lora_random(t->options.seed, HELD_OUT));
    qsort(t->eval, t->n_eval, sizeof *t->eval, ascending);
    for (uint32_t i = 0; i < t->n_eval; i++) {
        t->eval_target += t->data->samples[t->eval[i]].n_target;
        t->eval_token += t->data->samples[t->eval[i]].n;
    }
}

bool trainer_open(const dataset *d, const train_options *o, trainer **out, carat_error *err) {
    if (!check_options(o, err)) return false;
    arena *memory = arena_create(err);
    if (!memory) return false;
    trainer *t = arena_alloc(memory, 1, sizeof *t);
    bool ok = t || fail_memory(err, sizeof *t, "a run");
    if (ok) {
        *t = (trainer){.data = d, .options = *o, .memory = memory, .ordered = UINT32_MAX};
        t->options.n_accumulate = max_u32(1, o->n_accumulate);
        t->options.n_epoch = max_u32(1, o->n_epoch);
        t->n_batch = max_u32(o->n_batch, d->longest);
        t->state.best_eval = INFINITY;
        ok = allocate(t, err);
    }
    if (!ok) {
        arena_free(memory);
        return false;
    }
    hold_out(t);
    count_steps(t);
    *out = t;
    return true;
}

void trainer_free(trainer *t) {
    if (t) arena_free(t->memory);
}

/* ---- what comes next ---- */

static void fill_batch(trainer *t, const uint32_t *list, uint32_t n, train_work *w) {
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        const sample *s = &t->data->samples[list[i]];
        memcpy(t->tokens + at, t->data->ids.data + s->begin, s->n * sizeof *t->tokens);
        for (uint32_t k = 0; k < s->n; k++) {
            t->start[at + k] = at;
            t->weight[at + k] = k && t->data->target.data[s->begin + k] ? 1 : 0;
        }
        at += s->n;
    }
    t->n_batch_token = at;
    w->line = t->data->samples[list[0]].line;
    w->batch =
        (train_batch){.n_tok = at, .tokens = t->tokens, .start = t->start, .weight = t->weight};
}

static void next_eval(trainer *t, train_work *out) {
    const uint32_t n = batch_samples(t, t->eval, t->n_eval, t->next);
    *out =
        (train_work){.kind = TRAIN_EVAL, .first = t->next == 0, .last = t->next + n == t->n_eval};
    fill_batch(t, t->eval + t->next, n, out);
    t->n_target = t->eval_target;
    t->n_token = t->eval_token;
}

static void next_learn(trainer *t, train_work *out) {
    const train_options *o = &t->options;
    order_epoch(t, t->state.epoch);
    plan_step(t);
    if (t->batch == 0) t->next = t->state.at;
    const uint32_t n = batch_samples(t, t->train, t->n_train, t->next);
    *out =
        (train_work){.kind = TRAIN_LEARN,
                     .scale = 1 / (float)t->n_target,
                     .first = t->batch == 0,
                     .last = t->batch + 1 == t->n_batches,
                     .lr = schedule_lr(o->schedule, o->lr, t->state.step, o->n_warmup, t->n_step)};
    fill_batch(t, t->train + t->next, n, out);
    out->batch.seed = lora_random(lora_random(o->seed, t->state.step), t->batch);
}

void trainer_first(trainer *t, train_batch *out) {
    const uint32_t first = 0;
    train_work w;
    fill_batch(t, &first, 1, &w);
    *out = w.batch;
}

void trainer_next(trainer *t, train_work *out) {
    const bool over = t->state.stopped || t->state.step >= t->n_step;
    *out = (train_work){.kind = TRAIN_DONE};
    if (t->state.eval_due)
        next_eval(t, out);
    else if (!over)
        next_learn(t, out);
}

/* ---- what came of it ---- */

/* Nothing is done yet of what comes next. */
static void begin(trainer *t) {
    t->batch = t->next = 0;
    t->n_token_done = 0;
    t->loss = 0;
}

static void end_step(trainer *t, double norm) {
    const train_options *o = &t->options;
    train_state *s = &t->state;
    t->step_loss = t->loss / (double)t->n_target;
    t->grad_norm = norm;
    s->at = t->next;
    s->step++;
    if (s->at >= t->n_train) {
        s->at = 0;
        s->epoch++;
    }
    const bool now = o->eval_every && s->step % o->eval_every == 0;
    s->eval_due = t->n_eval && (now || s->step == t->n_step);
}

static void end_eval(trainer *t) {
    train_state *s = &t->state;
    t->eval_loss = t->loss / (double)t->n_target;
    s->n_worse = t->eval_loss < s->best_eval ? 0 : s->n_worse + 1;
    s->best_eval = fmin(s->best_eval, t->eval_loss);
    s->stopped = t->options.patience && s->n_worse >= t->options.patience;
    s->eval_due = false;
}

bool trainer_took(trainer *t, const train_work *w, double loss, double norm, train_event *event,
                  carat_error *err) {
    const bool learn = w->kind == TRAIN_LEARN;
    if (w->kind == TRAIN_DONE) {
        *event = TRAIN_FINISHED;
        return true;
    }
    if (!isfinite(loss) || (learn && w->last && !isfinite(norm)))
        return fail(err, CARAT_E_FORMAT,
                    "train: the %s is not a number in step %u, at line %u of the data; try a lower "
                    "learning rate",
                    isfinite(loss) ? "gradient" : "loss", t->state.step + 1, w->line);
    t->loss += loss;
    t->next += learn ? batch_samples(t, t->train, t->n_train, t->next)
                     : batch_samples(t, t->eval, t->n_eval, t->next);
    t->batch += learn;
    t->n_token_done += w->batch.n_tok;
    if (learn) t->n_learned += w->batch.n_tok;
    if (learn && w->last) t->rate = w->lr;
    *event = !w->last ? TRAIN_BATCH : learn ? TRAIN_STEP : TRAIN_EVALUATED;
    if (w->last && learn) end_step(t, norm);
    if (w->last && !learn) end_eval(t);
    if (w->last) begin(t);
    return true;
}

void trainer_rewind(trainer *t, const train_state *to) {
    t->state = *to;
    begin(t);
}
