/* job: what takes long, a step at a time. The calls of carat.h that every job has, what every job
 * does first (weights, KV), what it does when the device goes away; and the plainest job, loading.
 *
 * Flow: engine.c and session.c before; generate.c, score.c and save.c are the other jobs. */
#include "model/engine.h"

#include <stdio.h>
#include <string.h>

/* ---- creating, advancing, ending ---- */

carat_job *job_create(const job_class *class, carat_engine *eng, carat_session *ses,
                      carat_error *err) {
    if (!eng || !eng->device) {
        fail(err, CARAT_E_ARGUMENT, "the engine is closed, or has no device");
        return NULL;
    }
    if (ses && ses->job) {
        fail(err, CARAT_E_ARGUMENT, "session: another job is using it; end that one first");
        return NULL;
    }
    arena *a = arena_create(err);
    carat_job *job = a ? arena_alloc(a, 1, class->size) : NULL;
    if (!job) {
        if (a) fail_memory(err, class->size, "a job");
        arena_free(a);
        return NULL;
    }
    job->class = class;
    job->memory = a;
    job->engine = eng;
    job->session = ses;
    if (ses) ses->job = job;
    return job;
}

static void end(carat_job *job) {
    job->over = true;
    if (job->session && job->session->job == job) job->session->job = NULL;
}

bool carat_advance(carat_job *job, carat_event *ev, carat_error *err) {
    *ev = (carat_event){.token = -1};
    if (job->over) {
        if (!job->done) return fail(err, CARAT_E_ARGUMENT, "job: it has ended with an error");
        *ev = (carat_event){.kind = CARAT_EVENT_DONE, .token = -1, .finish = job->finish};
        return true;
    }
    carat_error e = {0};
    if (!job->class->advance(job, ev, &e)) {
        end(job);
        return fail(err, e.code, "%s", e.message);
    }
    if (ev->kind == CARAT_EVENT_DONE) {
        job->finish = ev->finish;
        job->done = true;
        end(job);
    }
    return true;
}

bool carat_wait(carat_job *job, carat_event *ev, carat_error *err) {
    for (;;) {
        if (!carat_advance(job, ev, err)) return false;
        if (ev->kind != CARAT_EVENT_PENDING) return true;
        gpu *g = job->engine->device->gpu;
        if (g) gpu_wait(g);
    }
}

bool carat_finish(carat_job *job, carat_error *err) {
    if (!job) return false; /* creating it failed, and *err says why */
    carat_event ev = {0};
    bool ok = true;
    while (ok && ev.kind != CARAT_EVENT_DONE) ok = carat_wait(job, &ev, err);
    carat_job_free(job);
    return ok;
}

void carat_cancel(carat_job *job) { atomic_store(&job->cancelled, true); }

void carat_job_stats(const carat_job *job, carat_stats *stats) { *stats = job->stats; }

void carat_job_free(carat_job *job) {
    if (!job) return;
    end(job);
    if (job->class->free) job->class->free(job);
    arena_free(job->memory);
}

/* ---- what every job does ---- */

/* A piece of the weights; *ev: how far they are. */
static bool load_piece(carat_engine *eng, carat_event *ev, carat_error *err) {
    bool busy = false;
    if (!engine_load_advance(eng, &busy, err)) return false;
    ev->kind = busy ? CARAT_EVENT_PENDING : CARAT_EVENT_PROGRESS;
    engine_load_progress(eng, &ev->done, &ev->total);
    return true;
}

bool job_prepare(carat_job *job, bool *ready, carat_event *ev, carat_error *err) {
    carat_engine *eng = job->engine;
    *ready = false;
    if (!eng->resident) {
        if (!engine_load_begin(eng, err) || !load_piece(eng, ev, err)) return false;
        if (eng->resident) job->stats.load_s += eng->load_s;
        return true;
    }
    *ready = !job->session;
    if (*ready) return true;
    if (!session_open(job->session, err)) return false;
    *ready = session_idle(job->session); /* else PENDING, which *ev is */
    return true;
}

bool job_recover(carat_job *job, const carat_error *e, carat_error *err) {
    carat_device *dev = job->engine->device;
    if (!device_lost(dev, e) || job->n_lost == 2) return fail(err, e->code, "%s", e->message);
    job->n_lost++;
    if (dev->gpu && !device_recover(dev, job->n_lost == 1, err)) return false;
    snprintf(job->notice, sizeof job->notice, "the GPU was lost; carrying on with %s", dev->name);
    job->has_notice = true;
    return true;
}

bool job_notice(carat_job *job, carat_event *ev) {
    if (!job->has_notice) return false;
    job->has_notice = false;
    *ev = (carat_event){.kind = CARAT_EVENT_NOTICE, .token = -1, .text = job->notice};
    ev->length = strlen(job->notice);
    return true;
}

/* ---- loading ---- */

static bool load_advance(carat_job *job, carat_event *ev, carat_error *err) {
    carat_engine *eng = job->engine;
    if (eng->resident) {
        job->stats.load_s = eng->load_s;
        ev->kind = CARAT_EVENT_DONE;
        return true;
    }
    if (atomic_load(&job->cancelled)) {
        engine_unload(eng);
        return fail(err, CARAT_E_CANCELLED, "loading %s was cancelled", eng->name);
    }
    return engine_load_begin(eng, err) && load_piece(eng, ev, err);
}

carat_job *carat_load(carat_engine *eng, carat_error *err) {
    static const job_class class = {.size = sizeof(carat_job), .advance = load_advance};
    return job_create(&class, eng, NULL, err);
}
