/* generate: the job that answers. Pictures and sounds -> soft tokens; prompt -> chunks -> logits ->
 * token -> reply -> events, until an end token, a stop string, a limit or a cancel.
 *
 * On a GPU the next step is submitted before the events of a token are told, so that the device
 * works while the caller prints. All that the answer depends on (seq, sampler, reply) is the
 * job's own, so when the device is lost the session is computed again and the answer goes on.
 *
 * Flow: conversation.c, session.c, token/sampler.c and token/reply.c before; the caller after. */
#include "model/conversation.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_TOP = 20, NEEDS_ALL = 192 }; /* of 256 candidates, some may be suppressed ids */

typedef struct generate {
    carat_job job;
    enum { PREPARE, ENCODE, PROMPT, ANSWER, END } state;
    int32_t *seq; /* [n_ctx + 1] the prompt, then what was generated; soft tokens are negative */
    encode encode;
    uint32_t n_seq, n_prompt, max_tokens;
    sampler sampler;
    reply *reply;
    constraint *constraint; /* NULL: any token may come */
    candidate *pool;        /* [n_vocab, or more] what the sampler picks from */
    bool ignore_stop, logprobs;
    uint32_t n_top; /* alternatives to report */
    /* The token whose text is being told. */
    int32_t token; /* -1: it was told */
    float logprob;
    carat_logprob top[MAX_TOP];
    double start, encode_start, answer_start;
} generate;

/* ---- log-probabilities ---- */

/* log of the sum of exp of x [n]. */
static float log_sum_exp(const float *x, uint32_t n) {
    float max = -INFINITY;
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        if (x[i] > max) max = x[i];
    for (uint32_t i = 0; i < n; i++) sum += exp((double)(x[i] - max));
    return max + (float)log(sum);
}

/* The n best of x [n_x], in order. */
static void best(const float *x, uint32_t n_x, carat_logprob *out, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) out[i] = (carat_logprob){-1, -INFINITY};
    for (uint32_t id = 0; n && id < n_x; id++) {
        if (!(x[id] > out[n - 1].logprob)) continue;
        uint32_t at = n - 1;
        for (; at && x[id] > out[at - 1].logprob; at--) out[at] = out[at - 1];
        out[at] = (carat_logprob){(int32_t)id, x[id]};
    }
}

static void note_logprobs(generate *g, const step_result *r) {
    uint32_t n_vocab = g->job.engine->model->config.n_vocab;
    float lse = r->top ? r->lse : log_sum_exp(r->logits, n_vocab), own = -INFINITY;
    if (r->top) {
        for (uint32_t i = 0; i < r->n_top; i++)
            if (r->top[i].id == g->token) own = r->top[i].logit;
        for (uint32_t i = 0; i < g->n_top; i++)
            g->top[i] = i < r->n_top ? (carat_logprob){r->top[i].id, r->top[i].logit}
                                     : (carat_logprob){-1, -INFINITY};
    } else {
        own = r->logits[g->token];
        best(r->logits, n_vocab, g->top, g->n_top);
    }
    g->logprob = own - lse;
    for (uint32_t i = 0; i < g->n_top; i++) g->top[i].logprob -= lse;
}

/* ---- a token ---- */

static void hash_result(generate *g, const step_result *r) {
    const void *data = r->top ? (const void *)r->top : r->logits;
    size_t n = r->top ? r->n_top * sizeof *r->top
                      : g->job.engine->model->config.n_vocab * sizeof *r->logits;
    g->job.stats.logits_hash = hash_bytes(g->job.stats.logits_hash, data, n);
}

static bool suppressed(const tokenizer *t, int32_t id) {
    uint32_t lo = 0, hi = t->n_suppressed;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (t->suppressed[mid] < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < t->n_suppressed && t->suppressed[lo] == id;
}

/* Whether the best candidates are too few to sample from. */
static bool needs_all(const generate *g) {
    uint32_t needs = sampler_needs(&g->sampler);
    return needs == 0 || needs > NEEDS_ALL;
}

/* Fills the pool with what may be sampled, of the best ones no more than the sampler looks at;
 * returns how many there are. */
static uint32_t fill_pool(generate *g, const step_result *r) {
    const model *m = g->job.engine->model;
    const uint32_t n_from = r->top ? r->n_top : m->config.n_vocab;
    const uint32_t most = r->top && !g->constraint ? sampler_needs(&g->sampler) : n_from;
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_from && n < most; i++) {
        candidate c = r->top ? r->top[i] : (candidate){(int32_t)i, r->logits[i]};
        if (!isnan(c.logit) && !suppressed(m->tokenizer, c.id)) g->pool[n++] = c;
    }
    return n;
}

/* Whether the n best tokens that a constraint allows, of the listed ones, do to sample from: there
 * are as many as the sampler looks at, or all that are not listed weigh next to nothing. */
static bool enough(const generate *g, const step_result *r, uint32_t n) {
    double listed = 0, allowed = 0;
    if (n >= sampler_needs(&g->sampler) || r->n_top >= g->job.engine->model->config.n_vocab)
        return true;
    if (!g->constraint) return false;
    for (uint32_t i = 0; i < r->n_top; i++) listed += exp((double)(r->top[i].logit - r->lse));
    for (uint32_t i = 0; i < n; i++) allowed += exp((double)(g->pool[i].logit - r->lse));
    return n && 1 - listed <= 0.01 * allowed;
}

/* Runs the last token of seq and starts reading what follows it. */
static bool run_token(generate *g, carat_error *err) {
    carat_session *ses = g->job.session;
    gpu *dev = g->job.engine->device->gpu;
    uint64_t before = dev ? dev->stats.n_dispatch : 0;
    if (!session_run(ses, &g->seq[ses->n_token], 1, NULL, true, err)) return false;
    if (dev) g->job.stats.n_dispatch = (uint32_t)(dev->stats.n_dispatch - before);
    return session_read(ses, needs_all(g), err);
}

static void finish(generate *g, carat_finish_reason why) {
    g->job.finish = why;
    g->state = END;
}

/* What a sampled token means for the answer; runs it when there is more to come. */
static bool take_token(generate *g, carat_error *err) {
    const tokenizer *t = g->job.engine->model->tokenizer;
    bool stopped = false;
    g->job.stats.n_generated++;
    sampler_accept(&g->sampler, g->token);
    if (g->constraint && !constraint_accept(g->constraint, g->token, err)) return false;
    if (!g->ignore_stop && tokenizer_is_stop(t, g->token)) {
        g->token = -1;
        finish(g, reply_n_calls(g->reply) ? CARAT_FINISH_TOOL_CALLS : CARAT_FINISH_STOP);
        return reply_end(g->reply, err);
    }
    g->seq[g->n_seq++] = g->token;
    if (!reply_feed(g->reply, g->token, &stopped, err)) return false;
    if (stopped) {
        finish(g, CARAT_FINISH_STOP);
        return true;
    }
    if (g->n_seq > g->job.session->n_ctx || g->job.stats.n_generated == g->max_tokens) {
        finish(g, CARAT_FINISH_LENGTH);
        return reply_end(g->reply, err);
    }
    return !g->job.session->gpu || run_token(g, err);
}

/* From the logits of a step to the next token. *pending: there is nothing yet. */
static bool answer(generate *g, bool *pending, carat_error *err) {
    carat_session *ses = g->job.session;
    step_result r;
    if (ses->n_token < g->n_seq && !run_token(g, err)) return false; /* on the CPU, only now */
    gpu_poll_result state = session_poll(ses, &r, err);
    *pending = state == GPU_PENDING;
    if (state != GPU_READY) return state == GPU_PENDING;
    uint32_t n_read = fill_pool(g, &r), n = n_read;
    if (g->constraint)
        n = constraint_filter(g->constraint, g->pool, n_read, sampler_needs(&g->sampler));
    if (r.top && !enough(g, &r, n)) {
        *pending = true;
        return session_read(ses, true, err);
    }
    if (n == 0 && n_read)
        return fail(err, CARAT_E_UNSUPPORTED,
                    "json schema: %s has no token that could go on with the answer",
                    g->job.engine->name);
    if (n == 0)
        return fail(err, CARAT_E_FORMAT, "%s computes no number for any token: it is damaged",
                    g->job.engine->name);
    if (g->answer_start == 0) {
        g->answer_start = seconds_now();
        g->job.stats.prompt_s = g->answer_start - g->start;
    }
    g->token = sampler_pick(&g->sampler, g->pool, n);
    if (g->logprobs) note_logprobs(g, &r);
    const bool ok = take_token(g, err);
    hash_result(g, &r); /* now, so that the device need not wait for it */
    return ok;
}

/* ---- the job ---- */

/* The next piece of text, with the token that brought it. */
static bool tell(generate *g, carat_event *ev) {
    static const carat_event_kind kinds[] = {[REPLY_TEXT] = CARAT_EVENT_TEXT,
                                             [REPLY_THINKING] = CARAT_EVENT_THINKING,
                                             [REPLY_CALL] = CARAT_EVENT_TOOL_CALL};
    reply_part part = {.kind = REPLY_TEXT, .text = ""};
    bool more = reply_next(g->reply, &part);
    if (!more && !(g->logprobs && g->token >= 0)) return false;
    *ev = (carat_event){.kind = kinds[part.kind], .text = part.text, .length = part.len};
    ev->token = g->token;
    if (g->logprobs && g->token >= 0) {
        ev->logprob = g->logprob;
        ev->top = g->top;
        ev->n_top = g->n_top;
    }
    g->token = -1;
    return true;
}

/* One chunk of what the session does not hold yet. */
static bool read_prompt(generate *g, carat_event *ev, carat_error *err) {
    carat_session *ses = g->job.session;
    if (session_busy(ses)) return true; /* *ev is PENDING */
    const soft_list *soft = &g->encode.soft;
    uint32_t left = g->n_seq - ses->n_token, n = session_next(ses, soft, left);
    if (!session_run(ses, &g->seq[ses->n_token], n, soft, n == left, err)) return false;
    *ev = (carat_event){.kind = CARAT_EVENT_PROGRESS, .token = -1};
    ev->done = ses->n_token;
    ev->total = g->n_seq;
    if (n < left) return true;
    g->state = ANSWER;
    encode_close(&g->encode);
    if (!session_read(ses, needs_all(g), err)) return false;
    session_snapshot(ses);
    return true;
}

/* One step of what the session does not hold yet, until the device has done all of it. *told: *ev
 * is what to report. */
static bool encode_media(generate *g, bool *told, carat_event *ev, carat_error *err) {
    bool finished = false;
    gpu *device = g->job.session->gpu ? g->job.engine->device->gpu : NULL;
    if (!encode_advance(&g->encode, &finished, ev, err)) return false;
    if (finished && g->encode.total && device && !device->lost && gpu_pending(device)) {
        *ev = (carat_event){.kind = CARAT_EVENT_PENDING, .token = -1};
        finished = false;
    }
    *told = !finished;
    if (!finished) return true;
    if (g->encode.total) g->job.stats.encode_s += seconds_now() - g->encode_start;
    g->job.stats.n_encoded += (uint32_t)g->encode.total;
    g->state = PROMPT;
    return true;
}

static void tell_end(generate *g, carat_event *ev) {
    encode_close(&g->encode);
    if (g->answer_start > 0) g->job.stats.generate_s = seconds_now() - g->answer_start;
    *ev = (carat_event){.kind = CARAT_EVENT_DONE, .token = -1, .finish = g->job.finish};
}

static bool step(generate *g, carat_event *ev, carat_error *err) {
    carat_session *ses = g->job.session;
    for (;;) {
        if (atomic_load(&g->job.cancelled))
            g->job.finish = CARAT_FINISH_NONE, g->state = END;
        else if (job_notice(&g->job, ev) || tell(g, ev))
            return true;
        if (!ses->cpu && !ses->gpu && g->state != END) g->state = PREPARE; /* another job's loss */
        bool wait = false;
        switch (g->state) {
        case PREPARE:
            if (!job_prepare(&g->job, &wait, ev, err)) return false;
            if (!wait) return true;
            session_seek(ses, g->seq, g->n_seq);
            if (g->job.n_lost == 0) g->job.stats.n_reused = ses->n_token;
            encode_begin(&g->encode);
            g->encode_start = seconds_now();
            g->state = ENCODE;
            break;
        case ENCODE:
            if (!encode_media(g, &wait, ev, err)) return false;
            if (wait) return true;
            break;
        case PROMPT:
            return read_prompt(g, ev, err);
        case ANSWER:
            if (!answer(g, &wait, err)) return false;
            if (wait) return true;
            break;
        case END:
            tell_end(g, ev);
            return true;
        }
    }
}

static bool generate_advance(carat_job *job, carat_event *ev, carat_error *err) {
    generate *g = (generate *)job;
    carat_error e = {0};
    if (step(g, ev, &e)) return true;
    if (!job_recover(job, &e, err)) return false;
    g->state = PREPARE;
    *ev = (carat_event){.kind = CARAT_EVENT_PENDING, .token = -1};
    job_notice(job, ev);
    return true;
}

static void generate_free(carat_job *job) {
    generate *g = (generate *)job;
    encode_free(&g->encode);
    reply_free(g->reply);
    constraint_free(g->constraint);
    sampler_free(&g->sampler);
}

/* ---- creating ---- */

/* Stop strings of the model's own options; [*n], in the arena. */
static const char *const *default_stops(arena *a, const json *params, size_t *n) {
    const json *stop = json_get(params, "stop");
    size_t n_item = stop && stop->kind == JSON_ARRAY ? stop->n : 0;
    const char **out = arena_alloc(a, n_item + 1, sizeof *out);
    *n = 0;
    if (!out) return NULL;
    if (stop && stop->kind == JSON_STRING) out[(*n)++] = stop->text;
    for (size_t i = 0; i < n_item; i++)
        if (stop->items[i].kind == JSON_STRING) out[(*n)++] = stop->items[i].text;
    return out;
}

static bool set_options(generate *g, const carat_chat_desc *desc, carat_error *err) {
    const json *params = g->job.engine->params;
    carat_sampling resolved, unset = CARAT_SAMPLING_DEFAULT;
    double predict = json_number(json_get(params, "num_predict"), 0);
    bool only_own = desc->n_logprobs == CARAT_LOGPROBS_TOKEN_ONLY;
    if (desc->n_logprobs > MAX_TOP && !only_own)
        return fail(err, CARAT_E_ARGUMENT, "logprobs: %u alternatives, at most %u",
                    desc->n_logprobs, (unsigned)MAX_TOP);
    g->logprobs = desc->n_logprobs > 0;
    g->n_top = only_own ? 0 : min_u32(desc->n_logprobs, g->job.engine->model->config.n_vocab);
    g->ignore_stop = desc->ignore_stop;
    g->max_tokens = desc->max_tokens;
    if (!g->max_tokens && predict >= 1 && predict < 1e9) g->max_tokens = (uint32_t)predict;
    return sampling_resolve(desc->sampling ? desc->sampling : &unset, params, &resolved, err) &&
           sampler_create(&g->sampler, &resolved, err) &&
           sampler_reserve(&g->sampler, g->job.engine->model->config.n_vocab,
                           (size_t)g->job.session->n_ctx + 1, err);
}

/* id [n]: the prompt, at least one. */
static bool begin(generate *g, const int32_t *id, size_t n, const carat_chat_desc *desc,
                  const prompt *p, carat_error *err) {
    carat_session *ses = g->job.session;
    const model *m = g->job.engine->model;
    size_t n_stop = desc->n_stop;
    const char *const *stop = desc->stop;
    if (n_stop == 0) stop = default_stops(g->job.memory, g->job.engine->params, &n_stop);
    g->token = -1;
    g->start = seconds_now();
    g->job.stats.logits_hash = FNV_START;
    g->job.stats.bytes_read = engine_step_bytes(g->job.engine);
    g->job.stats.n_prompt = g->n_prompt = g->n_seq = (uint32_t)n;
    g->seq = arena_alloc(g->job.memory, (size_t)ses->n_ctx + 1, sizeof *g->seq);
    g->pool =
        arena_alloc(g->job.memory, max_u32(m->config.n_vocab, TEXT_GPU_LISTED), sizeof *g->pool);
    if (!g->seq || !g->pool || !stop) return fail_memory(err, 0, "an answer");
    memcpy(g->seq, id, n * sizeof *id);
    if (!set_options(g, desc, err)) return false;
    for (size_t i = 0; i < n; i++)
        if (id[i] >= 0) sampler_accept(&g->sampler, id[i]);
    if (!encode_create(&g->encode, ses, g->job.memory, p ? p->media : NULL, p ? p->n_medium : 0,
                       err))
        return false;
    if (desc->json_schema &&
        !constraint_create(g->job.memory, m->tokenizer, desc, p, &g->constraint, err))
        return false;
    return reply_create(m->tokenizer, p ? p->tools : NULL, p ? desc->thinking : true,
                        p ? p->text.opens_thought : false, stop, n_stop, &g->reply, err);
}

static carat_job *generate_create(carat_session *ses, carat_error *err) {
    static const job_class class = {
        .size = sizeof(generate), .advance = generate_advance, .free = generate_free};
    return job_create(&class, ses->engine, ses, err);
}

/* What the user should know about the prompt. */
static void note_changes(carat_job *job, const prompt *p) {
    size_t n = 0;
    job->has_notice = p->n_dropped || p->n_cut;
    if (p->n_dropped)
        n = (size_t)snprintf(job->notice, sizeof job->notice,
                             "the context is full: the oldest %u messages were left out%s",
                             p->n_dropped, p->n_cut ? "; " : "");
    if (p->n_cut)
        snprintf(job->notice + n, sizeof job->notice - n,
                 "sounds of more than 30 s are heard in pieces of 30 s: %u %s cut into %u",
                 p->n_cut, p->n_cut == 1 ? "was" : "were", p->n_piece);
}

carat_job *carat_chat(carat_session *ses, const carat_chat_desc *desc, carat_error *err) {
    carat_job *job = generate_create(ses, err);
    if (!job) return NULL;
    prompt p = {0};
    bool ok = prompt_build(ses->engine, job->memory, desc, ses->n_ctx, &p, err) &&
              begin((generate *)job, p.ids.data, p.ids.len, desc, &p, err);
    note_changes(job, &p);
    prompt_free(&p);
    if (ok) return job;
    carat_job_free(job);
    return NULL;
}

/* id [n] with a BOS in front, or as they are when there is one. */
static bool with_bos(const carat_engine *eng, const int32_t *id, size_t n, id_list *out,
                     carat_error *err) {
    const tokenizer *t = eng->model->tokenizer;
    int32_t bos = t->specials[SPECIAL_BOS];
    if (bos >= 0 && (n == 0 || id[0] != bos)) ids_put(out, bos);
    for (size_t i = 0; i < n; i++) {
        if (id[i] < 0 || (uint32_t)id[i] >= t->n_vocab)
            return fail(err, CARAT_E_ARGUMENT, "token %zu: there is no id %d", i, id[i]);
        ids_put(out, id[i]);
    }
    if (out->failed) return fail_memory(err, n * sizeof *id, "tokens");
    return out->len || fail(err, CARAT_E_ARGUMENT, "no tokens are given");
}

carat_job *carat_complete(carat_session *ses, const int32_t *id, size_t n,
                          const carat_chat_desc *desc, carat_error *err) {
    static const carat_chat_desc plain = {0};
    carat_job *job = generate_create(ses, err);
    if (!job) return NULL;
    id_list v = {0};
    bool ok = with_bos(ses->engine, id, n, &v, err);
    if (ok && v.len + 1 > ses->n_ctx)
        ok = fail(err, CARAT_E_CONTEXT, "the text has %zu tokens and the context holds %u", v.len,
                  ses->n_ctx);
    ok = ok && begin((generate *)job, v.data, v.len, desc ? desc : &plain, NULL, err);
    ids_free(&v);
    if (ok) return job;
    carat_job_free(job);
    return NULL;
}
