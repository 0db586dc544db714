/* options: what a command line can say, and what a command is. options.c reads it and writes the
 * help. */
#ifndef CARAT_CLI_OPTIONS_H
#define CARAT_CLI_OPTIONS_H

#include "carat_train.h"
#include "media.h"

#define MAX_STOPS 16

typedef struct text_list {
    const char *items[MAX_STOPS]; /* [n] */
    size_t n;
} text_list;

/* Pictures and sounds in the order in which they were given. */
typedef struct media_args {
    struct {
        const char *option, *value;
    } items[MEDIA_MAX]; /* [n] */
    size_t n;
} media_args;

/* What the options of all commands say; a command reads those that it offers. */
typedef struct settings {
    bool help, verbose, json;
    const char *device, *template_, *projector;
    text_list adapters; /* FILE[:SCALE] */
    uint32_t context;   /* 0: the default */
    /* The prompt and the answer. */
    const char *system, *messages, *tools, *file, *json_schema;
    bool json_object, thinking, show_thinking, raw, keep;
    uint32_t image_tokens; /* 0: the default */
    media_args media;
    uint32_t max_tokens;
    int32_t logprobs; /* -1: none */
    text_list stops;
    carat_sampling sampling; /* repeat_last_n as the user counts: see settings_sampling() */
    /* tokenize */
    bool ids, count, specials;
    const char *decode;
    /* eval */
    uint32_t stride;
    bool per_token;
    /* bench */
    const char *pp, *tg, *csv;
    uint32_t reps, generate, train_tokens;
    bool encoders, training;
    /* inspect */
    bool tensors;
    /* merge, train */
    const char *out, *type, *gguf, *learn, *schedule;
    /* train */
    carat_train_desc train;
    double clip, memory; /* GB */
    uint32_t save_every;
    bool report, resume;
    /* adapter */
    const char *model;
    /* serve */
    const char *host, *app, *preload;
    uint32_t port, idle, waiting;
    text_list allow_hosts, allow_origins;
} settings;

typedef enum option_kind {
    OPTION_FLAG,   /* bool */
    OPTION_TEXT,   /* const char * */
    OPTION_CHOICE, /* const char *, one of `value`, separated by | */
    OPTION_LIST,   /* appended to a text_list */
    OPTION_MEDIA,  /* appended to media_args */
    OPTION_U32,
    OPTION_I32,
    OPTION_U64,
    OPTION_F32,
    OPTION_F64
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
extern const option_group options_model, options_session, options_answer, options_sampling,
    options_media;

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
    command_list, command_bench, command_serve, command_merge, command_train, command_adapter;

/* Reads argv [argc] (without the program and the command) into *s; the words that are no options
 * are moved to the front of argv, their number to *n_args. False: printed what is wrong. */
bool options_read(const command *cmd, int argc, const char **argv, settings *s, size_t *n_args);
void options_help(const command *cmd); /* to stdout */
/* Changes a live option; value may be "default". False: printed what is wrong. */
bool options_set(const command *cmd, const char *name, const char *value, settings *s);
void options_show(const command *cmd, const settings *s); /* the live ones, to stdout */
/* The sampling for carat.h: -1 for repeat_last_n means the whole context here, as in Ollama. */
carat_sampling settings_sampling(const settings *s);
/* What is wanted of an answer; the caller adds the messages, tools and tokens. */
carat_chat_desc settings_answer(const settings *s, const carat_sampling *sampling);
/* The word of words [n] that was probably meant, or NULL. */
const char *suggest(const char *word, const char *const *words, size_t n);
/* Numbers with nothing behind them. */
bool parse_number(const char *text, double *out);
bool parse_u32(const char *text, uint32_t *out);

#endif
