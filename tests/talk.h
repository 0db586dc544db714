/* talk: what the tests of the public interface share: a model on a device, a session, and an
 * answer with everything that its events said. Only carat.h is used. */
#ifndef CARAT_TESTS_TALK_H
#define CARAT_TESTS_TALK_H

#include "base/base.h"
#include "file/file.h"

/* After carat's headers: it has a macro fail(). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NANO "models/nano.gguf"

static const char *device_name = "cpu"; /* what open_talk() opens */
static uint32_t token_limit;            /* of an answer; 0: none. A GPU in software is slow. */
static carat_error err;

/* The call succeeds, or the test fails with its message. */
#define REQUIRE(call)                                                                              \
    do {                                                                                           \
        err = (carat_error){0};                                                                    \
        if (!(call)) fail_msg("%s: %s", #call, err.message);                                       \
    } while (0)

/* The call fails with this code, and says this. */
#define REFUSE(call, wanted, words)                                                                \
    do {                                                                                           \
        err = (carat_error){0};                                                                    \
        if (call) fail_msg("%s: did not fail", #call);                                             \
        if (err.code != (wanted)) fail_msg("%s: code %d, %s", #call, (int)err.code, err.message);  \
        if (!strstr(err.message, words)) fail_msg("%s: says %s", #call, err.message);              \
    } while (0)

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

static inline void no_such_device(void **state) {
    (void)state;
    err = (carat_error){0};
    carat_device_open(device_name, &err);
    printf("SKIPPED: the tests on a %s: %s\n", device_name, err.message);
    skip();
}

/* Whether device_name can be opened; answers are short when it is a GPU in software. */
static inline bool have_device(void) {
    carat_device *dev = carat_device_open(device_name, NULL);
    token_limit = dev && strstr(carat_device_name(dev), "SwiftShader") ? 2 : 0;
    carat_device_close(dev);
    return dev != NULL;
}

/* Runs the tests with the device `name`, or one that is skipped when it cannot be opened. */
#define RUN_ON(name, group, tests, setup, teardown)                                                \
    (device_name = (name),                                                                         \
     have_device() ? cmocka_run_group_tests_name(group, tests, setup, teardown)                    \
                   : cmocka_run_group_tests_name(                                                  \
                         group, ((const struct CMUnitTest[]){cmocka_unit_test(no_such_device)}),   \
                         NULL, NULL))

/* For tests whose point is a long answer. */
#define NEEDS_A_FAST_DEVICE()                                                                      \
    do {                                                                                           \
        if (token_limit) {                                                                         \
            printf("skipped on a GPU in software: too slow\n");                                    \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

static inline void close_talk(talk *t) {
    carat_session_free(t->ses);
    carat_engine_close(t->eng);
    carat_device_close(t->dev);
}

/* What the events of a job said. Free with free_answer(). */
typedef struct answer {
    buf text, thinking, calls, notices; /* calls and notices: one a line */
    id_list tokens;                     /* with logprobs: those generated, the end token left out */
    uint32_t n_progress, n_text, n_score;
    double score; /* sum of SCORE's */
    float first_logprob;
    carat_finish_reason finish;
    carat_stats stats;
    bool ok; /* false: it failed, and err says why */
} answer;

static inline void note_event(answer *a, const carat_event *ev) {
    switch (ev->kind) {
    case CARAT_EVENT_PROGRESS:
        a->n_progress++;
        break;
    case CARAT_EVENT_TEXT:
        a->n_text++;
        buf_put(&a->text, ev->text, ev->length);
        break;
    case CARAT_EVENT_THINKING:
        buf_put(&a->thinking, ev->text, ev->length);
        break;
    case CARAT_EVENT_TOOL_CALL:
        buf_put(&a->calls, ev->text, ev->length);
        buf_puts(&a->calls, "\n");
        break;
    case CARAT_EVENT_NOTICE:
        buf_put(&a->notices, ev->text, ev->length);
        buf_puts(&a->notices, "\n");
        break;
    case CARAT_EVENT_SCORE:
        a->n_score++;
        a->score += (double)ev->logprob;
        break;
    case CARAT_EVENT_DONE:
        a->finish = ev->finish;
        break;
    case CARAT_EVENT_PENDING:
        break;
    }
    if (ev->token >= 0 && ev->kind != CARAT_EVENT_SCORE) {
        if (a->tokens.len == 0) a->first_logprob = ev->logprob;
        ids_put(&a->tokens, ev->token);
    }
}

static inline void start_answer(answer *a) {
    *a = (answer){0};
    buf_put(&a->text, "", 0); /* so that data is a string */
    buf_put(&a->thinking, "", 0);
    buf_put(&a->calls, "", 0);
    buf_put(&a->notices, "", 0);
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
