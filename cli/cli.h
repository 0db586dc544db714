/* cli: the command line around carat.h. main.c finds the command, options.c reads its options and
 * writes its help, runtime.c opens device, model and session, answer.c shows a job's events; then
 * one file a command.
 *
 * Uses the public header and base/ (text buffers, JSON), nothing else of the engine.
 *
 * Flow: main.c -> options.c -> a command -> runtime.c -> carat.h -> answer.c -> the terminal. */
#ifndef CARAT_CLI_H
#define CARAT_CLI_H

#include "media.h"
#include "options.h"
#include "term.h"

/* ---- runtime.c ---- */

/* A model, ready to work. */
typedef struct runtime {
    const char *name; /* as the user wrote it */
    carat_device *device;
    carat_model *model;
    carat_engine_desc desc;
    carat_engine *engine;
    carat_session *session;
    carat_model_info info;
    double load_s;
} runtime;

/* Adds these adapters, FILE[:SCALE] each, and no others. */
bool runtime_adapt(carat_engine *engine, const text_list *adapters, carat_error *err);
/* Finds and opens a model without a device: to tokenize and inspect. */
bool runtime_open(runtime *r, const settings *s, const char *model, carat_error *err);
/* Opens the device too, loads the weights (with progress) and creates a session of n_ctx tokens. */
bool runtime_load(runtime *r, const settings *s, const char *model, uint32_t n_ctx,
                  carat_error *err);
void runtime_close(runtime *r);
/* Runs a job that has no output, with progress under a title; frees it. job NULL: fails. */
bool runtime_finish(carat_job *job, const char *title, carat_stats *stats, carat_error *err);
/* ids of text [n]. */
bool runtime_tokenize(const runtime *r, const char *text, size_t n, bool specials, id_list *out,
                      carat_error *err);
/* Appends the text of one token. */
bool runtime_piece(const runtime *r, int32_t id, bool specials, buf *out, carat_error *err);
/* Tokens a second: of the prompt those that were computed; of the answer all but the first, whose
 * logits are the prompt's. */
double prompt_rate(const carat_stats *st);
double generate_rate(const carat_stats *st);
/* Speed, memory and logits hash of a job, dimmed. */
void runtime_report(const runtime *r, const carat_stats *st, FILE *f);

/* ---- answer.c ---- */

typedef struct answer {
    buf text, thinking;
    buf calls, logprobs, notices; /* items of JSON arrays, separated by commas */
    size_t n_calls;
    carat_finish_reason finish;
    carat_stats stats;
    bool interrupted;
} answer;

typedef struct answer_view {
    const runtime *runtime;
    bool quiet;         /* collect only */
    bool logprobs;      /* collect them too: an event with a token carries its score */
    bool show_thinking; /* to stderr where stdout is no terminal */
} answer_view;

/* Runs a chat or completion job to its end and frees it, showing its events. job NULL: fails. */
bool answer_run(carat_job *job, const answer_view *view, answer *out, carat_error *err);
void answer_free(answer *a);
const char *finish_name(carat_finish_reason reason);

/* ---- conversation.c: the messages as JSON ---- */

typedef struct message {
    size_t offset, len; /* into conversation.text: one JSON object */
    size_t media;       /* into conversation.media: the first that is not of an earlier message */
    char role;          /* s u a t: system, user, assistant, tool */
} message;

#define MAX_MESSAGES 4096

typedef struct conversation {
    buf text;
    message *items; /* [n] */
    size_t n;
    media_list *media; /* of the messages, in order */
    arena *memory;
} conversation;

bool conversation_create(conversation *c, carat_error *err);
void conversation_free(conversation *c);
void conversation_cut(conversation *c, size_t n); /* keeps the first n messages */
/* A message of text only. Warns when invalid UTF-8 had to be replaced. */
bool conversation_add(conversation *c, const char *role, const char *text, size_t n,
                      carat_error *err);
/* A message of the user, with what is attached in front of the text; empties `with`. */
bool conversation_add_user(conversation *c, attachments *with, const char *text, size_t n,
                           carat_error *err);
bool conversation_add_answer(conversation *c, const answer *a, carat_error *err);
bool conversation_add_result(conversation *c, const char *id, const char *name, const char *text,
                             size_t n, carat_error *err);
/* Puts the system message first, replacing the one that is there; NULL or "" removes it. */
bool conversation_set_system(conversation *c, const char *text, carat_error *err);
/* Appends the messages of a JSON array, or of an object's "messages", and reads the files that
 * they name; lenient: goes on without those that cannot be read. */
bool conversation_parse(conversation *c, const char *text, size_t n, const char *what, bool lenient,
                        carat_error *err);
void conversation_write(const conversation *c, buf *out); /* as a JSON array */
/* Attaches what the options name. */
bool attach_options(attachments *a, const settings *s, carat_error *err);
/* Reads a file with a JSON array of tools into *out. */
bool tools_read(const char *path, buf *out, carat_error *err);
/* The JSON schema that the options ask for, from a file or as it is; *out empty: none. */
bool schema_read(const settings *s, buf *out, carat_error *err);
/* The words of a command line as one prompt: "-" is stdin, file (or NULL) comes last. */
bool prompt_read(const char *const *args, size_t n, const char *file, buf *out, carat_error *err);

#endif
