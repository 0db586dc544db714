/* serve_engine: the worker, which owns the device, the one engine that is loaded and a session for
 * each of the last conversations. Loads on demand, picks the session that knows most of a prompt,
 * runs the job and hands its events to the task's shape.
 *
 * Flow: serve_queue.c brings tasks and takes bytes; the shapes of serve_openai.c and
 * serve_ollama.c write them. */
#include "serve.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A conversation that was answered: what was computed for it is kept. */
typedef struct slot {
    carat_session *session;
    buf text; /* its prompt */
    uint64_t used;
} slot;

typedef struct worker {
    server *server;
    carat_device *device;
    char name[512]; /* of the model that is loaded; "": none */
    struct stat file;
    carat_model *found;
    carat_engine_desc desc;
    carat_engine *engine;
    slot slots[MAX_SESSIONS];
    media_list media; /* of the task that runs, until its job has begun */
    uint64_t turn;
    double expires; /* when the model goes; INFINITY: never */
} worker;

/* ---- the model ---- */

static void publish(worker *w) {
    loaded_model *m = &w->server->loaded;
    uint32_t n_ctx = 0;
    for (size_t i = 0; i < MAX_SESSIONS; i++)
        if (w->slots[i].session) n_ctx = max_u32(n_ctx, carat_session_context(w->slots[i].session));
    pthread_mutex_lock(&w->server->loaded_lock);
    *m = (loaded_model){.expires = w->expires, .n_ctx = n_ctx};
    if (w->engine) {
        snprintf(m->name, sizeof m->name, "%s", w->name);
        carat_engine_info(w->engine, &m->info);
        m->on_gpu = carat_device_is_gpu(w->device);
        const char *q = m->info.quantisation;
        snprintf(m->quantisation, sizeof m->quantisation, "%s", q ? q : "");
    }
    pthread_mutex_unlock(&w->server->loaded_lock);
}

static void slot_close(slot *s) {
    carat_session_free(s->session);
    buf_free(&s->text);
    *s = (slot){0};
}

static void unload(worker *w) {
    for (size_t i = 0; i < MAX_SESSIONS; i++) slot_close(&w->slots[i]);
    carat_engine_close(w->engine);
    carat_model_free(w->found);
    w->engine = NULL;
    w->found = NULL;
    w->name[0] = 0;
    w->expires = INFINITY;
    publish(w);
}

static bool same_text(const char *a, const char *b) { return a && b ? !strcmp(a, b) : a == b; }

/* Whether what is loaded is still what the name means. */
static bool is_loaded(const worker *w, const carat_engine_desc *desc, const struct stat *st) {
    return w->engine && same_text(w->desc.path, desc->path) &&
           same_text(w->desc.projector, desc->projector) &&
           same_text(w->desc.adapter, desc->adapter) && same_text(w->desc.system, desc->system) &&
           same_text(w->desc.params, desc->params) && same_text(w->desc.messages, desc->messages) &&
           w->file.st_ino == st->st_ino && w->file.st_size == st->st_size &&
           w->file.st_mtim.tv_sec == st->st_mtim.tv_sec &&
           w->file.st_mtim.tv_nsec == st->st_mtim.tv_nsec;
}

static void show_progress(const worker *w, const carat_event *ev, double *due) {
    if (ev->total == 0 || now_s() < *due) return;
    *due = now_s() + PROGRESS_S;
    progress("loading %s  %d %%", w->name, (int)(100 * ev->done / ev->total));
}

/* Streams the weights; ends early when nobody wants them any more. */
static bool load_weights(worker *w, task *t, carat_error *err) {
    carat_job *job = carat_load(w->engine, err);
    if (!job) return false;
    carat_event ev;
    double due = 0;
    bool ok;
    while ((ok = carat_wait(job, &ev, err)) && ev.kind != CARAT_EVENT_DONE) {
        show_progress(w, &ev, &due);
        if (task_cancelled(t)) carat_cancel(job);
    }
    progress_end();
    carat_job_free(job);
    return ok;
}

static bool load(worker *w, task *t, carat_error *err) {
    carat_engine_desc desc = {0};
    carat_model *found = carat_model_find(t->target, &desc, err);
    struct stat st = {0};
    if (!found) return false;
    desc.template_ = w->server->settings->template_;
    if (desc.path && stat(desc.path, &st) == 0 && is_loaded(w, &desc, &st)) {
        carat_model_free(found);
        return true;
    }
    double start = now_s();
    if (!w->device) w->device = carat_device_open(w->server->settings->device, err);
    carat_engine *engine = w->device ? carat_engine_open(&desc, w->device, err) : NULL;
    const text_list *adapters = &w->server->settings->adapters;
    if (!engine ||
        (adapters->n && !runtime_adapt(engine, adapters, err))) { /* what is loaded stays */
        carat_engine_close(engine);
        carat_model_free(found);
        return false;
    }
    unload(w);
    w->found = found;
    w->desc = desc;
    w->file = st;
    w->engine = engine;
    snprintf(w->name, sizeof w->name, "%s", t->model);
    bool ok = load_weights(w, t, err);
    if (ok)
        publish(w);
    else
        unload(w);
    t->load_s = now_s() - start;
    return ok;
}

/* ---- sessions ---- */

static size_t common_prefix(const buf *a, const buf *b) {
    size_t n = 0, max = a->len < b->len ? a->len : b->len;
    while (n < max && a->data[n] == b->data[n]) n++;
    return n;
}

static bool slot_fits(const slot *s, uint32_t n_ctx) {
    return s->session && carat_session_context(s->session) >= n_ctx;
}

/* The slot that was used least recently, a free one first. With n_ctx only those that hold so
 * much; NULL: none. */
static slot *oldest_slot(worker *w, bool any, uint32_t n_ctx) {
    slot *oldest = NULL;
    for (size_t i = 0; i < MAX_SESSIONS; i++) {
        slot *s = &w->slots[i];
        if (!any && !slot_fits(s, n_ctx)) continue;
        if (!oldest || s->used < oldest->used) oldest = s;
    }
    return oldest;
}

/* A session for a new conversation: in a free slot, or in place of the oldest one. When there is
 * no memory for one more, one that is there has to do. */
static slot *new_session(worker *w, uint32_t n_ctx, carat_error *err) {
    carat_session_desc desc = {.n_ctx = n_ctx};
    carat_error e = {0};
    slot *s = oldest_slot(w, true, 0);
    if (slot_fits(s, n_ctx)) return s;
    slot_close(s);
    s->session = carat_session_create(w->engine, &desc, &e);
    if (s->session) return s;
    slot *other = e.code == CARAT_E_MEMORY ? oldest_slot(w, false, n_ctx) : NULL;
    if (other) return other;
    if (e.code == CARAT_E_MEMORY) {
        for (size_t i = 0; i < MAX_SESSIONS; i++) slot_close(&w->slots[i]);
        s->session = carat_session_create(w->engine, &desc, err);
        return s->session ? s : NULL;
    }
    fail(err, e.code, "%s", e.message);
    return NULL;
}

/* Tokens of context: what is asked, at most what the model was made for. The first session of a
 * model decides when nothing is asked, so that later ones are not smaller. */
static uint32_t context_for(const worker *w, const task *t) {
    uint32_t n = t->n_ctx ? t->n_ctx : w->server->settings->context;
    carat_model_info info;
    carat_engine_info(w->engine, &info);
    if (info.n_ctx_train) n = min_u32(n, info.n_ctx_train);
    for (size_t i = 0; i < MAX_SESSIONS && !n; i++)
        if (w->slots[i].session) n = carat_session_context(w->slots[i].session);
    return n;
}

/* The session that knows most of the prompt, if taking it costs its own conversation little;
 * else a new one. */
static slot *pick_session(worker *w, const task *t, const buf *text, carat_error *err) {
    uint32_t n_ctx = context_for(w, t);
    slot *best = NULL;
    size_t most = 0;
    for (size_t i = 0; i < MAX_SESSIONS; i++) {
        slot *s = &w->slots[i];
        if (!slot_fits(s, n_ctx)) continue;
        size_t same = common_prefix(&s->text, text);
        if (same <= most || same < s->text.len / 2) continue;
        best = s;
        most = same;
    }
    return best ? best : new_session(w, n_ctx, err);
}

/* ---- an answer ---- */

/* The prompt as text, by which conversations are told apart. */
static bool prompt_text(worker *w, task *t, buf *text, carat_error *err) {
    if (t->kind == TASK_COMPLETE) {
        buf_put(text, t->prompt, t->prompt_len);
    } else {
        char *rendered = carat_render(w->engine, &t->desc, err);
        if (!rendered) return false;
        buf_puts(text, rendered);
        carat_string_free(rendered);
    }
    return !text->failed || fail_memory(err, text->len, "the prompt");
}

static carat_job *complete(worker *w, slot *s, task *t, carat_error *err) {
    int64_t n = carat_tokenize(w->engine, t->prompt, t->prompt_len, true, NULL, 0, err);
    if (n < 0) return NULL;
    int32_t *ids = arena_alloc(t->memory, (size_t)n + 1, sizeof *ids);
    if (!ids) {
        fail_memory(err, (uint64_t)n * sizeof *ids, "the prompt");
        return NULL;
    }
    carat_tokenize(w->engine, t->prompt, t->prompt_len, true, ids, (size_t)n, err);
    return carat_complete(s->session, ids, (size_t)n, &t->desc, err);
}

static carat_job *start(worker *w, task *t, carat_error *err) {
    buf text = {0};
    slot *s = prompt_text(w, t, &text, err) ? pick_session(w, t, &text, err) : NULL;
    carat_job *job = !s                     ? NULL
                     : t->kind == TASK_CHAT ? carat_chat(s->session, &t->desc, err)
                                            : complete(w, s, t, err);
    if (!job) {
        buf_free(&text);
        return NULL;
    }
    buf_free(&s->text);
    s->text = text;
    s->used = ++w->turn;
    return job;
}

/* Pictures and sounds are decoded only now: of all tasks that wait, one has them in memory. */
static carat_job *start_with_media(worker *w, task *t, carat_error *err) {
    bool ok = !t->media || media_read(t->media, &w->media, err);
    t->desc.media = w->media.items;
    t->desc.n_media = w->media.n;
    carat_job *job = ok ? start(w, t, err) : NULL;
    t->desc.n_media = 0; /* the job has its own */
    media_cut(&w->media, 0);
    return job;
}

/* A call in the API's shape, with its JSON text parsed. */
static void put_call(task *t, const carat_event *ev, buf *out) {
    arena *a = arena_create(NULL);
    json *call = NULL;
    if (a && json_parse(a, ev->text, ev->length, "a call", &call, NULL))
        t->shape->call(t, call, out);
    else
        out->failed = true;
    arena_free(a);
    t->answer.n_calls++;
}

/* One event of a stream. */
static bool tell(task *t, const carat_event *ev, const buf *scores, buf *out) {
    buf call = {0};
    part p = {.kind = ev->kind, .text = ev->text, .len = ev->length, .scores = scores};
    if (ev->kind == CARAT_EVENT_TOOL_CALL) {
        put_call(t, ev, &call);
        p.text = call.data;
        p.len = call.len;
        out->failed = out->failed || call.failed;
    }
    bool silent = p.len == 0 && scores->len == 0;
    if (!silent) t->shape->piece(t, &p, out);
    buf_free(&call);
    return silent || task_write(t, out);
}

static void collect(task *t, const carat_event *ev, const buf *scores) {
    answer *a = &t->answer;
    if (ev->kind == CARAT_EVENT_TEXT) buf_put(&a->text, ev->text, ev->length);
    if (ev->kind == CARAT_EVENT_THINKING) buf_put(&a->thinking, ev->text, ev->length);
    if (ev->kind == CARAT_EVENT_TOOL_CALL) {
        if (a->calls.len) buf_puts(&a->calls, ",");
        put_call(t, ev, &a->calls);
    }
    if (scores->len == 0) return;
    if (a->logprobs.len) buf_puts(&a->logprobs, ",");
    buf_put(&a->logprobs, scores->data, scores->len);
}

/* Follows the job to its end. False: *err, which is empty when nobody wants the rest. */
static bool follow(worker *w, task *t, carat_job *job, carat_error *err) {
    buf scores = {0}, out = {0};
    carat_event ev;
    bool ok = true, wanted = true;
    while (ok && wanted && (ok = carat_wait(job, &ev, err)) && ev.kind != CARAT_EVENT_DONE) {
        bool scored = t->desc.n_logprobs && ev.token >= 0;
        bool said = ev.kind == CARAT_EVENT_TEXT || ev.kind == CARAT_EVENT_THINKING ||
                    ev.kind == CARAT_EVENT_TOOL_CALL;
        buf_reset(&scores);
        buf_reset(&out);
        if (scored && said) t->shape->score(t, &ev, &scores);
        if (said && t->stream)
            wanted = tell(t, &ev, &scores, &out);
        else if (said)
            collect(t, &ev, &scores);
        else if (ev.kind == CARAT_EVENT_NOTICE && w->server->settings->verbose)
            warn("%.*s", (int)ev.length, ev.text);
        wanted = wanted && !task_cancelled(t);
    }
    carat_job_stats(job, &t->answer.stats);
    if (ok && wanted) t->answer.finish = ev.finish;
    buf_free(&scores);
    buf_free(&out);
    return ok && wanted;
}

/* ---- a task ---- */

static int load_status(carat_code code) {
    if (code == CARAT_E_NOT_FOUND) return 404;
    if (code == CARAT_E_CANCELLED) return 503;
    return code == CARAT_E_UNSUPPORTED || code == CARAT_E_ARGUMENT ? 400 : 500;
}

static int ask_status(carat_code code) {
    bool theirs = code == CARAT_E_ARGUMENT || code == CARAT_E_FORMAT ||
                  code == CARAT_E_UNSUPPORTED || code == CARAT_E_CONTEXT;
    return theirs ? 400 : 500;
}

static void end_with_error(task *t, carat_error *err, int status) {
    buf out = {0};
    fail(err, CARAT_E_CANCELLED, "the answer was given up");
    if (t->status) {
        t->shape->stream_error(err, &out);
    } else {
        t->shape->error(err, status, &out);
        task_begin(t, status, "application/json");
    }
    task_write(t, &out);
    buf_free(&out);
    task_end(t, true);
}

static void end_well(task *t) {
    buf out = {0};
    t->total_s = now_s() - t->start;
    if (t->stream) {
        t->shape->end(t, &out);
    } else {
        t->shape->whole(t, &out);
        task_begin(t, 200, "application/json");
    }
    const answer *a = &t->answer;
    bool failed = a->text.failed || a->thinking.failed || a->calls.failed || a->logprobs.failed;
    task_write(t, &out);
    buf_free(&out);
    task_end(t, !failed);
}

static void begin_stream(task *t) {
    buf out = {0};
    task_begin(t, 200, t->shape->stream_type);
    if (t->shape->start) t->shape->start(t, &out);
    if (out.len) task_write(t, &out);
    buf_free(&out);
}

static void answer_task(worker *w, task *t) {
    carat_error err = {0};
    carat_job *job = start_with_media(w, t, &err);
    if (!job) {
        end_with_error(t, &err, ask_status(err.code));
        return;
    }
    if (t->stream) begin_stream(t);
    bool ok = follow(w, t, job, &err);
    carat_job_free(job);
    publish(w);
    if (ok)
        end_well(t);
    else
        end_with_error(t, &err, err.code ? 500 : 503);
}

static void run_task(worker *w, task *t) {
    carat_error err = {0};
    double keep = t->keep_alive;
    bool answers = t->kind == TASK_CHAT || t->kind == TASK_COMPLETE;
    if (task_cancelled(t)) {
        end_with_error(t, &err, 503);
        return;
    }
    if (t->kind == TASK_UNLOAD) {
        if (strcmp(w->name, t->model) == 0) unload(w);
    } else if (!load(w, t, &err)) {
        end_with_error(t, &err, load_status(err.code));
        return;
    }
    t->engine = w->engine;
    if (answers)
        answer_task(w, t); /* the task may be gone behind this */
    else
        end_well(t);
    if (keep == 0) unload(w);
    w->expires = keep > 0 ? now_s() + keep : INFINITY;
    publish(w);
}

void *engine_worker(void *arg) {
    worker w = {.server = arg, .expires = INFINITY};
    while (!queue_stopping(w.server->queue)) {
        double wait = w.expires - now_s();
        task *t = queue_pop(w.server->queue, wait > 0 ? wait : 0);
        if (t)
            run_task(&w, t);
        else if (now_s() >= w.expires)
            unload(&w);
    }
    unload(&w);
    carat_device_close(w.device);
    return NULL;
}

/* ---- scores ---- */

void put_token_text(task *t, int32_t id, buf *out) {
    char piece[1024];
    int64_t n = id < 0 ? 0 : carat_detokenize(t->engine, &id, 1, true, piece, sizeof piece, NULL);
    if (n > (int64_t)sizeof piece) n = sizeof piece;
    if (n > 0) buf_put(out, piece, (size_t)n);
}

double finite_logprob(float logprob) { return isfinite(logprob) ? (double)logprob : -9999; }

static void put_token(task *t, int32_t id, float logprob, buf *out) {
    buf text = {0};
    put_token_text(t, id, &text);
    buf_puts(out, "{\"token\":");
    json_write_string(out, text.data ? text.data : "", text.len);
    buf_printf(out, ",\"logprob\":%.6g,\"bytes\":[", finite_logprob(logprob));
    for (size_t i = 0; i < text.len; i++)
        buf_printf(out, i ? ",%u" : "%u", (unsigned)(unsigned char)text.data[i]);
    buf_puts(out, "]");
    buf_free(&text);
}

void put_score(task *t, const carat_event *ev, buf *out) {
    put_token(t, ev->token, ev->logprob, out);
    buf_puts(out, ",\"top_logprobs\":[");
    for (size_t i = 0; i < ev->n_top; i++) {
        if (i) buf_puts(out, ",");
        put_token(t, ev->top[i].token, ev->top[i].logprob, out);
        buf_puts(out, "}");
    }
    buf_puts(out, "]}");
}
