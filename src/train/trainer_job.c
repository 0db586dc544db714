/* trainer_job: learning as a job. Weights, then batch after batch of what train.c plans, on the CPU
 * or on a GPU; at the end, whatever it was, what has been learned is on the host.
 *
 * When the GPU goes away, the run goes on from what was brought back last, on another one or on the
 * CPU.
 *
 * Flow: trainer.c before, train_cpu.c and train_gpu.c below, model/job.c around. */
#include "train/trainer.h"

#include <stdio.h>
#include <string.h>

/* ---- what learns ---- */

bool trainer_run_open(carat_trainer *tr, carat_error *err) {
    const carat_engine *eng = tr->guest.engine;
    if (tr->cpu || tr->gpu) return true;
    if (!eng->device->gpu)
        return train_cpu_open(eng->model, tr->plan, tr->adapter, &tr->moments, tr->budget, &tr->cpu,
                              err);
    return train_gpu_open(eng->model, eng->device->gpu, eng->device->cache, tr->plan, tr->adapter,
                          &tr->moments, tr->budget, &tr->gpu, err);
}

void trainer_run_close(carat_trainer *tr) {
    train_cpu_free(tr->cpu);
    train_gpu_free(tr->gpu);
    tr->cpu = NULL;
    tr->gpu = NULL;
    tr->in_batch = false;
    tr->moments.step = tr->held.step;
    if (tr->plan) trainer_rewind(tr->plan, &tr->held);
}

uint64_t trainer_run_bytes(const carat_trainer *tr) {
    const carat_engine *eng = tr->guest.engine;
    const uint64_t state = 3 * tr->adapter->n_value * sizeof(float);
    if (!eng) return 0;
    if (tr->cpu) return train_cpu_bytes(tr->cpu) + state;
    if (tr->gpu) return train_gpu_bytes(tr->gpu);
    if (eng->device && !eng->device->gpu) return state;
    return train_gpu_estimate(eng->model, tr->adapter, tr->plan->n_batch, tr->budget);
}

/* A batch, or on a GPU a piece of one; then *busy, and *event is not set. */
static bool run_advance(carat_trainer *tr, bool *busy, train_event *event, carat_error *err) {
    *busy = false;
    if (tr->cpu) {
        if (!train_cpu_advance(tr->cpu, event, err)) return false;
        tr->held = tr->plan->state;
        return true;
    }
    const bool ok = train_gpu_advance(tr->gpu, busy, event, err);
    tr->in_batch = ok && *busy;
    return ok;
}

/* Brings to the host what has been learned. */
static bool run_fetch(carat_trainer *tr, bool *busy, carat_error *err) {
    *busy = false;
    if (tr->gpu && !train_gpu_fetch(tr->gpu, busy, err)) return false;
    if (!*busy) tr->held = tr->plan->state;
    return true;
}

/* ---- the job ---- */

typedef struct learn {
    trainer_job base;
    enum { PREPARE, RUN, FETCH } state;
    uint32_t until;  /* step */
    uint32_t told;   /* pieces of the batch */
    carat_error why; /* what ended it; code 0: nothing went wrong */
} learn;

static void rest(carat_trainer *tr) {
    if (tr->since > 0) tr->seconds += seconds_now() - tr->since;
    tr->since = 0;
}

static void tell_progress(learn *l, carat_event *ev) {
    const carat_trainer *tr = l->base.trainer;
    const trainer *p = tr->plan;
    uint32_t piece = 0, pieces = 1;
    if (tr->in_batch) train_gpu_progress(tr->gpu, &piece, &pieces);
    *ev = (carat_event){.kind = CARAT_EVENT_PENDING, .token = -1};
    if (tr->in_batch && piece == l->told) return;
    l->told = piece;
    ev->kind = CARAT_EVENT_PROGRESS;
    ev->text = p->state.eval_due ? "eval" : "step";
    ev->length = strlen(ev->text);
    ev->done = p->n_token_done;
    if (tr->in_batch && pieces) ev->done += (uint64_t)p->n_batch_token * piece / pieces;
    ev->total = p->n_token;
}

/* What has happened, as an event of the job. */
static void tell(learn *l, train_event event, carat_event *ev) {
    carat_trainer *tr = l->base.trainer;
    const trainer *p = tr->plan;
    if (event == TRAIN_BATCH) {
        tell_progress(l, ev);
        return;
    }
    *ev = (carat_event){.token = -1, .done = p->state.step, .total = p->n_step};
    ev->kind = event == TRAIN_STEP ? CARAT_EVENT_STEP : CARAT_EVENT_EVAL;
    if (event == TRAIN_STEP)
        tr->loss = p->step_loss;
    else
        tr->eval_loss = p->eval_loss;
}

/* Whether it has taken its steps; an evaluation belongs to the step before it. */
static bool enough(const learn *l) {
    const train_state *s = &l->base.trainer->plan->state;
    if (atomic_load(&l->base.job.cancelled)) return true;
    return !s->eval_due && s->step >= l->until;
}

static bool run(learn *l, carat_event *ev, carat_error *err) {
    carat_trainer *tr = l->base.trainer;
    bool busy;
    train_event event;
    if (!tr->in_batch && enough(l)) {
        l->state = FETCH;
        return true;
    }
    if (!run_advance(tr, &busy, &event, err)) return false;
    if (busy)
        tell_progress(l, ev);
    else if (event == TRAIN_FINISHED)
        l->state = FETCH;
    else
        tell(l, event, ev);
    return true;
}

static bool fetch(learn *l, carat_event *ev, carat_error *err) {
    bool busy;
    if (!run_fetch(l->base.trainer, &busy, err)) return false;
    if (busy) return true;
    rest(l->base.trainer);
    if (l->why.code) return fail(err, l->why.code, "%s", l->why.message);
    ev->kind = CARAT_EVENT_DONE;
    return true;
}

static bool prepare(learn *l, carat_event *ev, carat_error *err) {
    carat_trainer *tr = l->base.trainer;
    bool ready = false;
    if (atomic_load(&l->base.job.cancelled)) { /* nothing was changed */
        rest(tr);
        ev->kind = CARAT_EVENT_DONE;
        return true;
    }
    if (!job_prepare(&l->base.job, &ready, ev, err)) return false;
    if (!ready) return true;
    if (!trainer_run_open(tr, err)) return false;
    if (tr->since <= 0) tr->since = seconds_now();
    l->state = RUN;
    return true;
}

static bool step(learn *l, carat_event *ev, carat_error *err) {
    const carat_trainer *tr = l->base.trainer;
    if (job_notice(&l->base.job, ev)) return true;
    if (!tr->cpu && !tr->gpu) l->state = PREPARE; /* another job's loss */
    switch (l->state) {
    case PREPARE:
        return prepare(l, ev, err);
    case RUN:
        return run(l, ev, err);
    case FETCH:
        return fetch(l, ev, err);
    }
    return true;
}

/* After a failure. True: it goes on. */
static bool recover(learn *l, const carat_error *e, carat_error *err) {
    carat_trainer *tr = l->base.trainer;
    const uint32_t was = tr->plan->state.step;
    if (l->state == RUN && !device_lost(l->base.job.engine->device, e)) {
        l->why = *e;
        l->state = FETCH; /* what was learned before stays */
        tr->in_batch = false;
        trainer_rewind(tr->plan, &tr->plan->state);
        return true;
    }
    carat_error last = {0};
    if (!job_recover(&l->base.job, l->why.code ? &l->why : e, &last)) {
        rest(tr);
        if (tr->gpu) trainer_run_close(tr); /* what it learned cannot be brought back */
        const uint32_t is = tr->plan->state.step;
        if (was == is) return fail(err, last.code, "%s", last.message);
        return fail(err, last.code, "%s; what was learned in %u steps after step %u is lost",
                    last.message, was - is, is);
    }
    if (was != tr->plan->state.step) {
        const size_t n = strlen(l->base.job.notice);
        snprintf(l->base.job.notice + n, sizeof l->base.job.notice - n,
                 ", from step %u on: what was learned in %u steps after it is lost",
                 tr->plan->state.step, was - tr->plan->state.step);
    }
    l->why = (carat_error){0};
    l->state = PREPARE;
    return true;
}

/* An engine or a device that was closed leaves nothing to go on with. */
static bool engine_is_there(const trainer_job *j, carat_error *err) {
    const carat_engine *eng = j->trainer->guest.engine;
    return (eng && eng->device) ||
           fail(err, CARAT_E_ARGUMENT, "train: the engine or its device was closed");
}

/* The trainer is free for the next job, and may be gone before this one is freed. */
static void leave(trainer_job *j) {
    if (j->trainer && j->trainer->job == j) j->trainer->job = NULL;
    j->trainer = NULL;
}

static bool learn_advance(carat_job *job, carat_event *ev, carat_error *err) {
    learn *l = (learn *)job;
    carat_error e = {0};
    if (!engine_is_there(&l->base, err)) {
        leave(&l->base);
        return false;
    }
    if (step(l, ev, &e)) {
        if (ev->kind == CARAT_EVENT_DONE) leave(&l->base);
        return true;
    }
    if (recover(l, &e, err)) {
        *ev = (carat_event){.kind = CARAT_EVENT_PENDING, .token = -1};
        return true;
    }
    leave(&l->base);
    return false;
}

/* Freed before its end: what a GPU learned since the last fetch is lost. */
static void learn_free(carat_job *job) {
    trainer_job *j = (trainer_job *)job;
    carat_trainer *tr = j->trainer;
    if (!tr) return;
    rest(tr);
    if (tr->gpu) trainer_run_close(tr);
    leave(j);
}

/* A job of a trainer that has none, while no session of its engine has one. */
static trainer_job *create(const job_class *class, carat_trainer *tr, carat_error *err) {
    carat_engine *eng = tr->guest.engine;
    bool ok = !tr->job || fail(err, CARAT_E_ARGUMENT, "train: a job of the run is under way");
    for (const carat_session *ses = eng ? eng->sessions : NULL; ok && ses; ses = ses->next)
        if (ses->job && !ses->job->over)
            ok = fail(err, CARAT_E_ARGUMENT, "train: a job of a session is under way");
    trainer_job *j = ok ? (trainer_job *)job_create(class, eng, NULL, err) : NULL;
    if (!j) return NULL;
    j->trainer = tr;
    tr->job = j;
    return j;
}

carat_job *carat_train(carat_trainer *tr, uint32_t n_step, carat_error *err) {
    static const job_class class = {
        .size = sizeof(learn), .advance = learn_advance, .free = learn_free};
    learn *l = (learn *)create(&class, tr, err);
    if (!l) return NULL;
    const uint32_t step = tr->plan->state.step;
    l->until = n_step && n_step < UINT32_MAX - step ? step + n_step : UINT32_MAX;
    return &l->base.job;
}

/* ---- does it change anything? ---- */

typedef struct check {
    trainer_job base;
    bool *effect;
} check;

static bool check_step(check *c, carat_event *ev, carat_error *err) {
    carat_trainer *tr = c->base.trainer;
    carat_job *job = &c->base.job;
    bool ready = false, busy = false;
    if (atomic_load(&job->cancelled))
        return fail(err, CARAT_E_CANCELLED, "the check of the adapter was cancelled");
    if (job_notice(job, ev)) return true;
    if (!tr->cpu && !tr->gpu) {
        if (!job_prepare(job, &ready, ev, err)) return false;
        return !ready || trainer_run_open(tr, err);
    }
    if (!(tr->cpu ? train_cpu_has_effect(tr->cpu, c->effect, err)
                  : train_gpu_has_effect(tr->gpu, &busy, c->effect, err)))
        return false;
    ev->kind = busy ? CARAT_EVENT_PENDING : CARAT_EVENT_DONE;
    return true;
}

/* Given up in the middle: a GPU may be at a batch. Nothing is lost, as there is nothing that was
 * not brought back. */
static void check_free(carat_job *job) {
    trainer_job *j = (trainer_job *)job;
    carat_trainer *tr = j->trainer;
    if (tr && tr->gpu) trainer_run_close(tr);
    leave(j);
}

static bool check_advance(carat_job *job, carat_event *ev, carat_error *err) {
    check *c = (check *)job;
    carat_error e = {0};
    if (!engine_is_there(&c->base, err)) {
        leave(&c->base);
        return false;
    }
    if (check_step(c, ev, &e)) {
        if (ev->kind == CARAT_EVENT_DONE) leave(&c->base);
        return true;
    }
    if (job_recover(job, &e, err)) {
        *ev = (carat_event){.kind = CARAT_EVENT_PENDING, .token = -1};
        return true;
    }
    check_free(job);
    return false;
}

carat_job *carat_trainer_check(carat_trainer *tr, bool *effect, carat_error *err) {
    static const job_class class = {
        .size = sizeof(check), .advance = check_advance, .free = check_free};
    check *c = (check *)create(&class, tr, err);
    if (!c) return NULL;
    c->effect = effect;
    *effect = false;
    return &c->base.job;
}
