/* score: the log-probability of every token of a text, given those before it.
 *
 * Runs the text from its beginning, so the session's earlier tokens are given up. Flow: session.c
 * before; the caller (perplexity) after. */
#include "model/engine.h"

#include <math.h>
#include <string.h>

enum { CPU_CHUNK = 16 }; /* rows of logits in host memory at a time */

typedef struct score {
    carat_job job;
    enum { PREPARE, RUN, READ } state;
    int32_t *id; /* [n + 1] the text, then -1: row i is about id[i + 1] */
    uint32_t n;
    uint32_t told;  /* tokens whose score was told, the first (which has none) included */
    float *logits;  /* [CPU_CHUNK, n_vocab] */
    float *scores;  /* [TEXT_GPU_CHUNK] of the last run */
    uint32_t first; /* what scores[0] is about */
    uint32_t n_score;
} score;

static float log_probability(const float *logits, uint32_t n, int32_t id) {
    double max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++) max = fmax(max, (double)logits[i]);
    for (uint32_t i = 0; i < n; i++) sum += exp((double)logits[i] - max);
    return (float)((double)logits[id] - max - log(sum));
}

static bool run_cpu(score *s, const int32_t *id, uint32_t n, carat_error *err) {
    carat_session *ses = s->job.session;
    uint32_t n_vocab = s->job.engine->model->config.n_vocab;
    if (!s->logits)
        s->logits = arena_alloc(s->job.memory, (size_t)CPU_CHUNK * n_vocab, sizeof(float));
    if (!s->logits) return fail_memory(err, 4ull * CPU_CHUNK * n_vocab, "logits");
    if (!text_cpu_forward(ses->cpu, id, n, ses->n_token, n, s->logits, NULL, err)) return false;
    for (uint32_t i = 0; i < n; i++)
        s->scores[i] = id[i + 1] < 0
                           ? 0
                           : log_probability(s->logits + (size_t)i * n_vocab, n_vocab, id[i + 1]);
    return true;
}

static bool run_gpu(score *s, const int32_t *id, uint32_t n, carat_error *err) {
    carat_session *ses = s->job.session;
    if (!text_gpu_score(ses->gpu, id, id + 1, n, ses->n_token, err)) return false;
    ses->ticket = text_gpu_read_scores(ses->gpu, n, err);
    return ses->ticket.id != 0;
}

static bool run(score *s, carat_event *ev, carat_error *err) {
    carat_session *ses = s->job.session;
    const int32_t *id = s->id + ses->n_token;
    uint32_t n = min_u32(s->n - ses->n_token, ses->gpu ? session_chunk(ses) : CPU_CHUNK);
    s->first = ses->n_token + 1;
    s->n_score = n;
    if (!(ses->gpu ? run_gpu(s, id, n, err) : run_cpu(s, id, n, err))) {
        session_clear(ses);
        return false;
    }
    session_hold(ses, id, n);
    s->state = READ;
    *ev = (carat_event){.kind = CARAT_EVENT_PROGRESS, .token = -1};
    ev->done = ses->n_token;
    ev->total = s->n;
    return true;
}

/* The scores of the last run, once they are there. */
static bool fetch(score *s, bool *pending, carat_error *err) {
    carat_session *ses = s->job.session;
    *pending = false;
    if (!ses->ticket.id) return true;
    gpu_poll_result r = gpu_poll(s->job.engine->device->gpu, ses->ticket, ses->read, err);
    *pending = r == GPU_PENDING;
    if (*pending) return true;
    ses->ticket.id = 0;
    if (r == GPU_FAILED) return false;
    memcpy(s->scores, ses->read, s->n_score * sizeof *s->scores);
    return true;
}

/* The next score that was not told; false: none of this run is left. */
static bool tell(score *s, carat_event *ev) {
    if (s->told < s->first) s->told = s->first; /* only the very first token has no score */
    if (s->told >= s->first + s->n_score || s->told >= s->n) return false;
    *ev = (carat_event){.kind = CARAT_EVENT_SCORE, .token = s->id[s->told]};
    ev->logprob = s->scores[s->told - s->first];
    s->told++;
    return true;
}

static void end(score *s, carat_event *ev) {
    s->job.stats.prompt_s += seconds_now();
    *ev = (carat_event){.kind = CARAT_EVENT_DONE, .token = -1};
}

static bool step(score *s, carat_event *ev, carat_error *err) {
    carat_session *ses = s->job.session;
    bool wait = false;
    for (;;) {
        if (atomic_load(&s->job.cancelled)) {
            end(s, ev);
            return true;
        }
        if (job_notice(&s->job, ev)) return true;
        if (!ses->cpu && !ses->gpu) s->state = PREPARE; /* another job's loss */
        switch (s->state) {
        case PREPARE:
            if (!job_prepare(&s->job, &wait, ev, err)) return false;
            if (!wait) return true;
            session_clear(ses);
            s->state = RUN;
            break;
        case RUN:
            if (ses->n_token < s->n) return run(s, ev, err);
            end(s, ev);
            return true;
        case READ:
            if (!fetch(s, &wait, err)) return false;
            if (wait) {
                ev->kind = CARAT_EVENT_PENDING;
                return true;
            }
            if (tell(s, ev)) return true;
            s->state = RUN;
            break;
        }
    }
}

static bool score_advance(carat_job *job, carat_event *ev, carat_error *err) {
    carat_error e = {0};
    if (step((score *)job, ev, &e)) return true;
    if (!job_recover(job, &e, err)) return false;
    ((score *)job)->state = PREPARE;
    *ev = (carat_event){.kind = CARAT_EVENT_PENDING, .token = -1};
    return true;
}

/* Room for the ids, checked. */
static bool begin(score *s, const int32_t *id, size_t n, carat_error *err) {
    carat_session *ses = s->job.session;
    uint32_t n_vocab = s->job.engine->model->config.n_vocab;
    if (n == 0) return fail(err, CARAT_E_ARGUMENT, "score: no tokens are given");
    if (n > ses->n_ctx)
        return fail(err, CARAT_E_CONTEXT, "the text has %zu tokens and the context holds %u", n,
                    ses->n_ctx);
    s->n = (uint32_t)n;
    s->id = arena_alloc(s->job.memory, n + 1, sizeof *s->id);
    s->scores = arena_alloc(s->job.memory, TEXT_GPU_CHUNK, sizeof *s->scores);
    if (!s->id || !s->scores) return fail_memory(err, n * sizeof *id, "tokens");
    for (size_t i = 0; i < n; i++) {
        if (id[i] < 0 || (uint32_t)id[i] >= n_vocab)
            return fail(err, CARAT_E_ARGUMENT, "token %zu: there is no id %d", i, id[i]);
        s->id[i] = id[i];
    }
    s->id[n] = -1;
    s->job.stats.n_prompt = s->n;
    s->job.stats.prompt_s = -seconds_now();
    return true;
}

carat_job *carat_score(carat_session *ses, const int32_t *id, size_t n, carat_error *err) {
    static const job_class class = {.size = sizeof(score), .advance = score_advance};
    carat_job *job = job_create(&class, ses->engine, ses, err);
    if (!job || begin((score *)job, id, n, err)) return job;
    carat_job_free(job);
    return NULL;
}
