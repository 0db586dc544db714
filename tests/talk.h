/* talk: what the tests of the public interface share: a model on a device, a session, and an
 * answer with everything that its events said. Only carat.h is used. */
#ifndef CARAT_TESTS_TALK_H
#define CARAT_TESTS_TALK_H

#include "on_device.h"

#define NANO "models/nano.gguf"

typedef struct talk {
    carat_device *dev;
    carat_engine *eng;
    carat_session *ses;
} talk;

static inline void open_talk_with(talk *t, carat_device *dev, const carat_engine_desc *desc,
                                  uint32_t n_ctx) {
    *t = (talk){.dev = dev};
    REQUIRE(t->eng = carat_engine_open(desc, dev, &err));
    REQUIRE(carat_finish(carat_load(t->eng, &err), &err));
    REQUIRE(t->ses = carat_session_create(t->eng, &(carat_session_desc){.n_ctx = n_ctx}, &err));
}

static inline void open_talk(talk *t, uint32_t n_ctx) {
    carat_device *dev;
    REQUIRE(dev = carat_device_open(device_name, &err));
    open_talk_with(t, dev, &(carat_engine_desc){.path = NANO}, n_ctx);
}

static inline void close_talk(talk *t) {
    carat_session_free(t->ses);
    carat_engine_close(t->eng);
    carat_device_close(t->dev);
}

/* What the events of a job said. Free with free_answer(). */
typedef struct answer {
    buf text, thinking, calls, notices; /* calls and notices: one a line */
    id_list tokens;                     /* with logprobs: those generated, the end token left out */
    uint32_t n_progress, n_score;
    double score; /* sum of SCORE's */
    float first_logprob;
    carat_finish_reason finish;
    carat_stats stats;
    bool ok; /* false: it failed, and err says why */
} answer;

static inline void note_line(buf *b, const carat_event *ev) {
    buf_put(b, ev->text, ev->length);
    buf_puts(b, "\n");
}

static inline void note_event(answer *a, const carat_event *ev) {
    switch (ev->kind) {
    case CARAT_EVENT_PENDING:
    case CARAT_EVENT_STEP:
    case CARAT_EVENT_EVAL:
        break;
    case CARAT_EVENT_PROGRESS:
        a->n_progress++;
        break;
    case CARAT_EVENT_TEXT:
        buf_put(&a->text, ev->text, ev->length);
        break;
    case CARAT_EVENT_THINKING:
        buf_put(&a->thinking, ev->text, ev->length);
        break;
    case CARAT_EVENT_TOOL_CALL:
        note_line(&a->calls, ev);
        break;
    case CARAT_EVENT_NOTICE:
        note_line(&a->notices, ev);
        break;
    case CARAT_EVENT_SCORE:
        a->n_score++, a->score += (double)ev->logprob;
        break;
    case CARAT_EVENT_DONE:
        a->finish = ev->finish;
        break;
    }
    if (ev->token < 0 || ev->kind == CARAT_EVENT_SCORE) return;
    if (a->tokens.len == 0) a->first_logprob = ev->logprob;
    ids_put(&a->tokens, ev->token);
}

static inline void start_answer(answer *a) {
    *a = (answer){0};
    buf *const all[] = {&a->text, &a->thinking, &a->calls, &a->notices};
    for (size_t i = 0; i < COUNT(all); i++) buf_puts(all[i], ""); /* so that data is a string */
}

/* Runs a job to its end, or to an error, and frees it. */
static inline answer run_job(carat_job *job) {
    answer a;
    carat_event ev = {0};
    start_answer(&a);
    if (!job) return a;
    a.ok = true;
    while (a.ok && ev.kind != CARAT_EVENT_DONE) {
        a.ok = carat_wait(job, &ev, &err);
        if (a.ok) note_event(&a, &ev);
    }
    carat_job_stats(job, &a.stats);
    carat_job_free(job);
    return a;
}

static inline void free_answer(answer *a) {
    buf_free(&a->text);
    buf_free(&a->thinking);
    buf_free(&a->calls);
    buf_free(&a->notices);
    ids_free(&a->tokens);
}

static inline carat_sampling greedy(void) {
    carat_sampling s = CARAT_SAMPLING_DEFAULT;
    s.temperature = 0;
    return s;
}

/* A greedy answer with token ids; desc may ask for more. */
static inline answer ask_with(carat_session *ses, carat_chat_desc desc) {
    carat_sampling s = greedy();
    if (!desc.sampling) desc.sampling = &s;
    if (!desc.n_logprobs) desc.n_logprobs = CARAT_LOGPROBS_TOKEN_ONLY;
    if (!desc.max_tokens) desc.max_tokens = token_limit;
    err = (carat_error){0};
    return run_job(carat_chat(ses, &desc, &err));
}

static inline answer ask(carat_session *ses, const char *messages) {
    return ask_with(ses, (carat_chat_desc){.messages = messages});
}

/* The text of an answer: exactly this, or what the limit left of it. */
static inline void assert_text(const answer *a, const char *text) {
    if (!token_limit || a->text.len == 0) assert_string_equal(a->text.data, text);
    if (strncmp(a->text.data, text, a->text.len))
        fail_msg("\"%s\", not \"%s\"", a->text.data, text);
}

/* Asks, and expects this answer. */
static inline void expect(carat_session *ses, const char *messages, const char *text) {
    answer a = ask(ses, messages);
    if (!a.ok) fail_msg("%s", err.message);
    assert_text(&a, text);
    free_answer(&a);
}

#endif
