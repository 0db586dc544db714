/* session: the tokens of one conversation and the K and V that were computed for them, on the
 * engine's device. Goes back to a common prefix, runs tokens, reads logits; text_cpu and text_gpu
 * look the same from here.
 *
 * The tokens held are always exactly those that were run, so whatever ends a job (a stop string,
 * a cancel, an error), the next one finds its prefix. Flow: engine.c and text_*.c before,
 * generate.c, score.c and save.c after. */
#include "model/engine.h"

#include <math.h>
#include <string.h>

enum { DEFAULT_CONTEXT = 8192, LEAST_CONTEXT = 1024, AHEAD = 2 };
#define BIG_RINGS (256ull << 20) /* bytes of a snapshot from which one must do */

static gpu *device_gpu(const carat_session *ses) { return ses->engine->device->gpu; }

/* ---- creating ---- */

static bool make_kv(carat_session *ses, carat_error *err) {
    const model *m = ses->engine->model;
    carat_device *dev = ses->engine->device;
    if (!dev->gpu) {
        if (!text_cpu_create(m, ses->n_ctx, &ses->cpu, err)) return false;
        text_cpu_adapt(ses->cpu, ses->engine->uses, ses->engine->n_use);
        return true;
    }
    if (!engine_adapters_ready(ses->engine, err) ||
        !text_gpu_create(m, dev->gpu, dev->cache, ses->n_ctx, &ses->gpu, err))
        return false;
    if (!text_gpu_adapt(ses->gpu, ses->engine->adapted, err)) {
        session_close(ses);
        return false;
    }
    if (text_gpu_read_bytes(ses->gpu, true) <= ses->read_cap &&
        text_gpu_read_bytes(ses->gpu, false) <= ses->read_cap)
        return true;
    session_close(ses);
    return fail(err, CARAT_E_UNSUPPORTED, "session: the results of a step need more room");
}

bool session_open(carat_session *ses, carat_error *err) {
    carat_error e = {0};
    if (ses->cpu || ses->gpu || make_kv(ses, &e)) return true;
    if (e.code == CARAT_E_MEMORY && encoders_resident(&ses->engine->encoders)) {
        carat_engine_release_encoders(ses->engine); /* they can come back */
        return make_kv(ses, err);
    }
    return fail(err, e.code, "%s", e.message);
}

static void drop_snapshots(carat_session *ses, uint32_t from) {
    while (ses->n_snapshot > from) {
        kv_snapshot *s = &ses->snapshots[--ses->n_snapshot];
        gpu_buffer_free(device_gpu(ses), s->buffer);
        *s = (kv_snapshot){0};
    }
}

void session_close(carat_session *ses) {
    if (ses->encode) encode_close(ses->encode);
    if (ses->gpu) {
        /* A read that nobody wants any more; where gpu_wait() cannot wait, the device keeps it. */
        for (int i = 0; i < AHEAD + 2 && !session_idle(ses); i++) gpu_wait(device_gpu(ses));
        ses->ticket.id = 0;
        drop_snapshots(ses, 0);
        text_gpu_free(ses->gpu);
    }
    text_cpu_free(ses->cpu);
    ses->gpu = NULL;
    ses->cpu = NULL;
    ses->n_token = 0;
}

static carat_session *create(carat_engine *eng, uint32_t n_ctx, carat_error *err) {
    arena *a = arena_create(err);
    if (!a) return NULL;
    size_t cap = (size_t)eng->model->config.n_vocab * sizeof(float);
    if (cap < 64u << 10) cap = 64u << 10; /* candidates and scores need less */
    carat_session *ses = arena_alloc(a, 1, sizeof *ses);
    int32_t *tokens = ses ? arena_alloc(a, n_ctx, sizeof *tokens) : NULL;
    void *read = tokens ? arena_alloc(a, cap, 1) : NULL;
    candidate *top = read ? arena_alloc(a, TEXT_GPU_LISTED, sizeof *top) : NULL;
    if (!top) {
        fail_memory(err, cap + n_ctx * sizeof *tokens, "a session");
        arena_free(a);
        return NULL;
    }
    *ses = (carat_session){.memory = a,
                           .engine = eng,
                           .n_ctx = n_ctx,
                           .tokens = tokens,
                           .read = read,
                           .read_cap = cap,
                           .top = top};
    if (eng->resident && !session_open(ses, err)) {
        arena_free(a);
        return NULL;
    }
    ses->next = eng->sessions;
    eng->sessions = ses;
    return ses;
}

carat_session *carat_session_create(carat_engine *eng, const carat_session_desc *desc,
                                    carat_error *err) {
    if (!eng->resident && !eng->was_resident) {
        fail(err, CARAT_E_ARGUMENT, "session: the weights of %s are not loaded", eng->name);
        return NULL;
    }
    uint32_t trained = eng->model->config.n_ctx_train, n_ctx = desc ? desc->n_ctx : 0;
    if (n_ctx > trained && trained) {
        fail(err, CARAT_E_ARGUMENT, "session: %u tokens of context, and %s was made for %u", n_ctx,
             eng->name, trained);
        return NULL;
    }
    if (n_ctx) return create(eng, n_ctx, err);
    double asked = json_number(json_get(eng->params, "num_ctx"), DEFAULT_CONTEXT);
    n_ctx = asked >= 1 && asked <= 1 << 24 ? (uint32_t)asked : DEFAULT_CONTEXT;
    if (trained) n_ctx = min_u32(trained, n_ctx);
    for (;; n_ctx /= 2) { /* what the memory allows */
        carat_error e = {0};
        carat_session *ses = create(eng, n_ctx, &e);
        if (ses) return ses;
        if (e.code != CARAT_E_MEMORY || n_ctx / 2 < LEAST_CONTEXT) {
            fail(err, e.code, "%s", e.message);
            return NULL;
        }
    }
}

void carat_session_free(carat_session *ses) {
    if (!ses) return;
    if (ses->job) { /* it can only be freed now */
        ses->job->over = true;
        ses->job->session = NULL;
    }
    if (ses->engine) {
        session_close(ses);
        carat_session **at = &ses->engine->sessions;
        while (*at != ses) at = &(*at)->next;
        *at = ses->next;
    }
    if (ses->encode) encode_free(ses->encode);
    arena_free(ses->memory);
}

uint32_t carat_session_context(const carat_session *ses) { return ses->n_ctx; }
uint32_t carat_session_length(const carat_session *ses) { return ses->n_token; }

/* ---- going back ---- */

bool session_idle(carat_session *ses) {
    if (!ses->ticket.id) return true;
    carat_error e = {0};
    if (gpu_poll(device_gpu(ses), ses->ticket, ses->read, &e) == GPU_PENDING) return false;
    ses->ticket.id = 0;
    return true;
}

/* How far back towards `pos` the rings lead when `length` tokens were run: pos, or 0. */
static uint32_t reach(const carat_session *ses, uint32_t length, uint32_t pos) {
    if (pos >= length) return length;
    return text_gpu_can_rewind(ses->gpu, length, pos) ? pos : 0;
}

static void seek_gpu(carat_session *ses, uint32_t pos) {
    uint32_t to = reach(ses, ses->n_token, pos), best = SESSION_SNAPSHOTS;
    for (uint32_t i = 0; i < ses->n_snapshot; i++) {
        uint32_t there = reach(ses, ses->snapshots[i].pos, pos);
        if (there <= to) continue;
        to = there;
        best = i;
    }
    if (best < SESSION_SNAPSHOTS) text_gpu_rewind(ses->gpu, &ses->snapshots[best]);
    uint32_t n = 0; /* those that are still on the way of this conversation stay */
    while (n < ses->n_snapshot && ses->snapshots[n].pos <= to) n++;
    drop_snapshots(ses, n);
    ses->n_token = to;
}

void session_seek(carat_session *ses, const int32_t *id, uint32_t n) {
    uint32_t same = 0;
    while (same < ses->n_token && same + 1 < n && ses->tokens[same] == id[same]) same++;
    while (same && same < n && id[same - 1] < 0 && id[same] < 0) same--; /* inside of a picture */
    if (ses->gpu)
        seek_gpu(ses, same);
    else
        ses->n_token = same;
}

void session_clear(carat_session *ses) {
    drop_snapshots(ses, 0);
    ses->n_token = 0;
}

void session_snapshot(carat_session *ses) {
    uint32_t window = ses->engine->model->config.window;
    if (!ses->gpu || window == 0 || ses->n_ctx <= window) return; /* rings that never wrap */
    uint64_t fixed = 0, token = 0, scratch = 0;
    text_gpu_memory(ses->engine->model, &fixed, &token, &scratch);
    uint32_t keep = fixed > BIG_RINGS ? 1 : SESSION_SNAPSHOTS;
    if (ses->n_snapshot && ses->snapshots[ses->n_snapshot - 1].pos == ses->n_token) return;
    if (ses->n_snapshot == keep) { /* the oldest goes */
        gpu_buffer_free(device_gpu(ses), ses->snapshots[0].buffer);
        memmove(&ses->snapshots[0], &ses->snapshots[1], (keep - 1) * sizeof(kv_snapshot));
        ses->n_snapshot--;
    }
    kv_snapshot s = {0};
    if (text_gpu_snapshot(ses->gpu, ses->n_token, &s, NULL)) ses->snapshots[ses->n_snapshot++] = s;
}

/* ---- running ---- */

uint32_t session_chunk(const carat_session *ses) {
    return ses->gpu ? min_u32(ses->gpu->n_chunk, TEXT_GPU_CHUNK)
                    : 64; /* small: a cancel is seen between chunks */
}

uint32_t session_next(const carat_session *ses, const soft_list *soft, uint32_t left) {
    const uint32_t from = ses->n_token, n = min_u32(left, session_chunk(ses)), end = from + n;
    if (!ses->engine->model->config.vision_bidirectional) return n;
    for (uint32_t i = 0; i < soft->n; i++) {
        const soft_span *s = &soft->spans[i];
        if (!s->picture || end <= s->pos || end - s->pos >= s->n) continue;
        return s->pos > from ? s->pos - from : s->pos + s->n - from;
    }
    return n;
}

bool session_busy(const carat_session *ses) {
    return ses->gpu && gpu_pending(device_gpu(ses)) >= AHEAD;
}

void session_hold(carat_session *ses, const int32_t *id, uint32_t n) {
    memcpy(ses->tokens + ses->n_token, id, n * sizeof *id);
    ses->n_token += n;
}

bool session_run(carat_session *ses, const int32_t *id, uint32_t n, const soft_list *soft,
                 bool head, carat_error *err) {
    assert(n && n <= ses->n_ctx - ses->n_token);
    text_input in = {.tokens = id, .n_tok = n, .pos = ses->n_token};
    if (soft) in.spans = soft->spans, in.n_span = soft->n;
    bool ok = ses->gpu ? text_gpu_run_soft(ses->gpu, &in, head, err)
                       : text_cpu_forward_soft(ses->cpu, &in, head ? 1 : 0, ses->read, NULL, err);
    if (ok)
        session_hold(ses, id, n);
    else
        session_clear(ses); /* what the rings hold now is anybody's guess */
    return ok;
}

bool session_read(carat_session *ses, bool all, carat_error *err) {
    ses->read_all = all;
    if (!ses->gpu) return true;
    ses->ticket = text_gpu_read(ses->gpu, all, err);
    return ses->ticket.id != 0;
}

gpu_poll_result session_poll(carat_session *ses, step_result *out, carat_error *err) {
    *out = (step_result){.logits = ses->read};
    if (!ses->gpu) return GPU_READY;
    gpu_poll_result r = gpu_poll(device_gpu(ses), ses->ticket, ses->read, err);
    if (r == GPU_PENDING) return r;
    ses->ticket.id = 0;
    if (r == GPU_FAILED || ses->read_all) return r;
    uint32_t n = text_gpu_candidates(ses->gpu, ses->read, ses->top, &out->lse);
    if (n == 0) return session_read(ses, true, err) ? GPU_PENDING : GPU_FAILED;
    *out = (step_result){.top = ses->top, .n_top = n, .lse = out->lse};
    return GPU_READY;
}
