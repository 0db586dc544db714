/* cli: the command line around carat.h. main.c finds the command, options.c reads its options and
 * writes its help, runtime.c opens device, model and session, answer.c shows a job's events; then
 * one file a command.
 *
 * Uses the public header and base/ (text buffers, JSON), nothing else of the engine.
 *
 * Flow: main.c -> options.c -> a command -> runtime.c -> carat.h -> answer.c -> the terminal. */
#ifndef CARAT_CLI_H
#define CARAT_CLI_H

#include "base/base.h"

#include <stdio.h>

/* Exit codes; every --help names them. */
enum { EXIT_OK = 0, EXIT_ERROR = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

/* ---- options.c ---- */

#define MAX_STOPS 16

/* What the options of all commands say; a command reads those that it offers. */
typedef struct settings {
    bool help, verbose, json;
    const char *device, *template_;
    uint32_t context; /* 0: the default */
    /* The prompt and the answer. */
    const char *system, *messages, *tools, *file;
    bool thinking, show_thinking, raw, keep;
    uint32_t max_tokens;
    int32_t logprobs; /* -1: none */
    const char *stops[MAX_STOPS];
    size_t n_stop;
    carat_sampling sampling; /* repeat_last_n as the user counts: see settings_sampling() */
    /* tokenize */
    bool ids, count, specials;
    const char *decode;
    /* eval */
    uint32_t stride;
    bool per_token;
    /* bench */
    const char *pp, *tg, *csv;
    uint32_t reps, generate;
    /* inspect */
    bool tensors;
} settings;

typedef enum option_kind {
    OPTION_FLAG,   /* bool */
    OPTION_TEXT,   /* const char * */
    OPTION_CHOICE, /* const char *, one of `value`, separated by | */
    OPTION_STOP,   /* appended to settings.stops */
    OPTION_U32,
    OPTION_I32,
    OPTION_U64,
    OPTION_F32
} option_kind;

typedef struct option {
    const char *name; /* "max-tokens" */
    char letter;      /* 0: none */
    option_kind kind;
    size_t offset;     /* of its field in settings */
    const char *value; /* what the help calls its value */
    const char *help;
    double min, max; /* of numbers; both 0: any */
    bool live;       /* /set of chat may change it */
} option;

/* An entry of a table of options; min, max and live follow where they are needed. */
#define OPTION(name_, letter_, kind_, field, value_, help_, ...)                                   \
    {                                                                                              \
        .name = name_, .letter = letter_, .kind = OPTION_##kind_,                                  \
        .offset = offsetof(settings, field), .value = value_, .help = help_, __VA_ARGS__           \
    }

typedef struct option_group {
    const char *title;
    const option *options; /* ended by a NULL name */
} option_group;

/* Groups that several commands share. */
extern const option_group options_model, options_session, options_answer, options_sampling;

#define MAX_GROUPS 6

typedef struct command {
    const char *name, *summary; /* one line for the list of commands */
    const char *usage;          /* "MODEL [PROMPT...]" */
    const char *about;          /* paragraphs; wrapped by the help */
    const char *examples;       /* printed as they are */
    const option_group *groups[MAX_GROUPS];
    size_t min_args, max_args;
    int (*run)(settings *s, const char *const *args, size_t n); /* the exit code */
} command;

extern const command command_run, command_chat, command_tokenize, command_eval, command_inspect,
    command_list, command_bench;

/* Reads argv [argc] (without the program and the command) into *s; the words that are no options
 * are moved to the front of argv, their number to *n_args. False: printed what is wrong. */
bool options_read(const command *cmd, int argc, const char **argv, settings *s, size_t *n_args);
void options_help(const command *cmd); /* to stdout */
/* Changes a live option; value may be "default". False: printed what is wrong. */
bool options_set(const command *cmd, const char *name, const char *value, settings *s);
void options_show(const command *cmd, const settings *s); /* the live ones, to stdout */
/* The sampling for carat.h: -1 for repeat_last_n means the whole context here, as in Ollama. */
carat_sampling settings_sampling(const settings *s);
/* The word of words [n] that was probably meant, or NULL. */
const char *suggest(const char *word, const char *const *words, size_t n);
/* Numbers with nothing behind them. */
bool parse_number(const char *text, double *out);
bool parse_u32(const char *text, uint32_t *out);

/* ---- term.c: the terminal, text from outside, numbers for people ---- */

bool stdout_is_terminal(void);
bool stderr_is_terminal(void);
bool stdin_is_terminal(void);
/* ANSI codes, or "" where f is no terminal or NO_COLOR is set. */
const char *dim(FILE *f);
const char *bold(FILE *f);
const char *plain(FILE *f);
/* Writes text; on a terminal without the control characters that could command it. */
void put_text(FILE *f, const char *text, size_t n);
void warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int report(const carat_error *err); /* prints the error; returns the exit code for it */
int usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int flush_stdout(int code); /* code, or EXIT_ERROR when the output could not be written */

double now_s(void); /* seconds of a monotonic clock */
uint64_t host_peak_bytes(void);
/* "7.2 GB", "12.3 K"; text [24] holds the result. */
const char *human_bytes(uint64_t n, char text[24]);
const char *human_count(uint64_t n, char text[24]);

/* Rewrites one line of stderr; silent when that is no terminal. */
void progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void progress_end(void); /* removes the line */

bool read_all(const char *path, buf *out, carat_error *err); /* "-": stdin */
bool write_beside(const char *path, const void *data, size_t n, carat_error *err);
/* Invalid UTF-8 in text [n]: how many bytes of it are not part of a character. */
size_t utf8_invalid(const char *text, size_t n);
/* Bytes so that one sees them: in quotes, control bytes and broken UTF-8 as \xNN. */
void put_visible(buf *b, const char *s, size_t n);

/* A table: cells are added row by row, then printed with columns aligned. */
typedef struct table {
    const char *columns; /* one letter a column: l or r, for left and right */
    buf cells;           /* each ended by a zero */
    size_t n;
} table;
void table_cell(table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_print(table *t, FILE *f, bool header); /* and frees it; the first row is dimmed */

/* Ctrl-C. While a job is watched it is cancelled; otherwise the program ends, unless `keep` is on
 * (chat). A second Ctrl-C during the same job ends the program. */
void interrupt_install(bool keep);
void interrupt_watch(carat_job *job); /* NULL: none */
bool interrupted(void);               /* since interrupt_clear() */
void interrupt_clear(void);

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
    char role;          /* s u a t: system, user, assistant, tool */
} message;

#define MAX_MESSAGES 4096

typedef struct conversation {
    buf text;
    message *items; /* [n] */
    size_t n;
    arena *memory;
} conversation;

bool conversation_create(conversation *c, carat_error *err);
void conversation_free(conversation *c);
void conversation_cut(conversation *c, size_t n); /* keeps the first n messages */
/* A message of text only. Warns when invalid UTF-8 had to be replaced. */
bool conversation_add(conversation *c, const char *role, const char *text, size_t n,
                      carat_error *err);
bool conversation_add_answer(conversation *c, const answer *a, carat_error *err);
bool conversation_add_result(conversation *c, const char *id, const char *name, const char *text,
                             size_t n, carat_error *err);
/* Puts the system message first, replacing the one that is there; NULL or "" removes it. */
bool conversation_set_system(conversation *c, const char *text, carat_error *err);
/* Appends the messages of a JSON array, or of an object's "messages". */
bool conversation_parse(conversation *c, const char *text, size_t n, const char *what,
                        carat_error *err);
void conversation_write(const conversation *c, buf *out); /* as a JSON array */
/* Reads a file with a JSON array of tools into *out. */
bool tools_read(const char *path, buf *out, carat_error *err);
/* The words of a command line as one prompt: "-" is stdin, file (or NULL) comes last. */
bool prompt_read(const char *const *args, size_t n, const char *file, buf *out, carat_error *err);

/* ---- line.c: lines from the user, with editing and history on a terminal ---- */

typedef struct line_reader line_reader;
typedef enum line_result { LINE_OK, LINE_END, LINE_INTERRUPTED } line_result;

line_reader *line_open(arena *a, carat_error *err);
void line_close(line_reader *l); /* saves the history */
/* One entry: a line, lines joined by a trailing backslash, or a block between lines of three
 * quotation marks. */
line_result line_read(line_reader *l, const char *prompt, buf *out);

#endif
