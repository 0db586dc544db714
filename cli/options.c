/* options: reads a command's options from its tables and writes its help from the same tables, so
 * that the two cannot disagree. Owns the groups of options that commands share.
 *
 * Flow: main.c before, the commands after. */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const option model_options[] = {
    OPTION("device", 0, CHOICE, device, "auto|gpu|cpu",
           "where to compute: the best GPU or else the CPU (auto, the default), a GPU or an "
           "error, or the CPU reference"),
    OPTION("template", 0, CHOICE, template_, "small|large",
           "chat template of the small models (E2B, E4B) or of the large ones; default: by the "
           "model's shape"),
    OPTION("mmproj", 0, TEXT, projector, "FILE",
           "GGUF file with the vision and audio encoders; default: in the model's file, or beside "
           "it"),
    OPTION("adapter", 0, LIST, adapters, "FILE[:SCALE]",
           "LoRA adapter to add: a folder of PEFT's, its .safetensors file, or a GGUF; in place of "
           "the model's own; may be given again"),
    OPTION("verbose", 'v', FLAG, verbose, NULL, "speed, memory and a hash of the logits to stderr",
           .live = true),
    OPTION("help", 'h', FLAG, help, NULL, "this text"),
    {0}};

static const option session_options[] = {
    OPTION("context", 'c', U32, context, "N",
           "tokens of context; default: 8192, or what the model or the memory allows", .min = 1,
           .max = 1 << 30),
    OPTION("keep", 0, FLAG, keep, NULL,
           "when the conversation does not fit, drop its oldest turns instead of failing",
           .live = true),
    {0}};

static const option answer_options[] = {
    OPTION("system", 's', TEXT, system, "TEXT", "the system prompt"),
    OPTION("tools", 0, TEXT, tools, "FILE",
           "JSON array of functions that the model may call, as OpenAI and Ollama write them"),
    OPTION("thinking", 0, FLAG, thinking, NULL, "let the model think before it answers",
           .live = true),
    OPTION("max-tokens", 'n', U32, max_tokens, "N",
           "end the answer after N tokens; 0, the default: when the model ends it or the context "
           "is full",
           .max = 1 << 30, .live = true),
    OPTION("stop", 0, LIST, stops, "TEXT",
           "end the answer before this text; may be given up to 16 times"),
    OPTION("json-schema", 0, TEXT, json_schema, "FILE|{...}",
           "the answer is JSON that this JSON Schema allows"),
    OPTION("json-object", 0, FLAG, json_object, NULL, "the answer is any JSON object"),
    {0}};

static const option media_options[] = {
    OPTION("image", 0, MEDIA, media, "FILE",
           "a picture in front of the text: PNG, JPEG, WebP, GIF or BMP; may be given again"),
    OPTION("audio", 0, MEDIA, media, "FILE",
           "a sound of 10 minutes at most: WAV, FLAC, OGG or MP3; may be given again"),
    OPTION("video-frame", 0, MEDIA, media, "SECONDS:FILE",
           "a frame of a video and its time; frames given one after the other are one video"),
    OPTION(
        "image-tokens", 0, U32, image_tokens, "N",
        "tokens that a picture may take: 70, 140, 280 (the default), 560 or 1120; more show more "
        "detail",
        .max = 1120, .live = true),
    {0}};

static const option sampling_options[] = {
    OPTION("temperature", 't', F32, sampling.temperature, "X",
           "0 always takes the likeliest token; default: 1", .max = 100, .live = true),
    OPTION("top-k", 0, I32, sampling.top_k, "N",
           "choose among the N likeliest tokens; 0: all; default: 64", .max = 1 << 30,
           .live = true),
    OPTION("top-p", 0, F32, sampling.top_p, "X",
           "choose among the likeliest tokens whose probabilities sum up to X; 1: all; default: "
           "0.95",
           .max = 1, .live = true),
    OPTION("min-p", 0, F32, sampling.min_p, "X",
           "leave out tokens less than X times as likely as the likeliest; default: 0", .max = 1,
           .live = true),
    OPTION("repeat-penalty", 0, F32, sampling.repeat_penalty, "X",
           "divide the logits of recent tokens by X; default: 1, which changes nothing",
           .min = 0.01, .max = 100, .live = true),
    OPTION("frequency-penalty", 0, F32, sampling.frequency_penalty, "X",
           "lower the logit of a recent token by X for each time it occurred; default: 0",
           .min = -100, .max = 100, .live = true),
    OPTION("presence-penalty", 0, F32, sampling.presence_penalty, "X",
           "lower the logit of every recent token by X; default: 0", .min = -100, .max = 100,
           .live = true),
    OPTION("repeat-last-n", 0, I32, sampling.repeat_last_n, "N",
           "how many tokens are recent; 0: none; -1: the whole context; default: 64", .min = -1,
           .max = 1 << 30, .live = true),
    OPTION("seed", 0, U64, sampling.seed, "N",
           "the same seed gives the same answer; 0, the default: a new one every time",
           .max = 0x1p64, .live = true),
    {0}};

const option_group options_model = {"general", model_options};
const option_group options_session = {"context", session_options};
const option_group options_answer = {"answer", answer_options};
const option_group options_media = {"pictures and sounds, in the order given", media_options};
const option_group options_sampling = {
    "sampling (defaults: the model's own parameters, then Gemma's recommendation)",
    sampling_options};

#define REPEAT_NOT_GIVEN INT32_MIN

static settings defaults(void) {
    settings s = {.device = "auto", .logprobs = -1, .sampling = CARAT_SAMPLING_DEFAULT};
    s.host = "127.0.0.1";
    s.port = 11435;
    s.idle = 60;
    s.waiting = 16;
    s.sampling.repeat_last_n = REPEAT_NOT_GIVEN;
    s.clip = 1;
    s.save_every = 50;
    return s;
}

carat_sampling settings_sampling(const settings *s) {
    carat_sampling out = s->sampling;
    if (out.repeat_last_n == REPEAT_NOT_GIVEN)
        out.repeat_last_n = -1;
    else if (out.repeat_last_n == -1)
        out.repeat_last_n = -2;
    return out;
}

carat_chat_desc settings_answer(const settings *s, const carat_sampling *sampling) {
    return (carat_chat_desc){.thinking = s->thinking,
                             .keep_oldest_out = s->keep,
                             .max_tokens = s->max_tokens,
                             .stop = s->stops.items,
                             .n_stop = s->stops.n,
                             .image_tokens = s->image_tokens,
                             .sampling = sampling};
}

/* ---- numbers ---- */

bool parse_number(const char *text, double *out) {
    char *end = NULL;
    double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v)) return false;
    *out = v;
    return true;
}

static bool parse_u64(const char *text, uint64_t *out) {
    if (*text < '0' || *text > '9') return false;
    char *end = NULL;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (*end || errno) return false;
    *out = v;
    return true;
}

bool parse_u32(const char *text, uint32_t *out) {
    uint64_t v = 0;
    if (!parse_u64(text, &v) || v > UINT32_MAX) return false;
    *out = (uint32_t)v;
    return true;
}

/* ---- what was meant ---- */

/* Edits (insert, delete, replace, swap of neighbours) from a to b, for short words. */
static size_t edit_distance(const char *a, const char *b) {
    enum { LONGEST = 32 };
    size_t na = strlen(a), nb = strlen(b);
    if (na > LONGEST || nb > LONGEST) return LONGEST;
    size_t d[LONGEST + 1][LONGEST + 1];
    for (size_t i = 0; i <= na; i++) d[i][0] = i;
    for (size_t j = 0; j <= nb; j++) d[0][j] = j;
    for (size_t i = 1; i <= na; i++)
        for (size_t j = 1; j <= nb; j++) {
            size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && d[i - 2][j - 2] + 1 < best) best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[na][nb];
}

const char *suggest(const char *word, const char *const *words, size_t n) {
    const char *best = NULL;
    size_t len = strlen(word), best_distance = len < 4 ? 2 : 3;
    for (size_t i = 0; i < n; i++) {
        if (len > 1 && strncmp(word, words[i], len) == 0) return words[i];
        size_t distance = edit_distance(word, words[i]);
        if (distance >= best_distance) continue;
        best = words[i];
        best_distance = distance;
    }
    return best;
}

/* ---- reading ---- */

static const option *find_option(const command *cmd, const char *name, size_t len) {
    for (size_t g = 0; g < MAX_GROUPS && cmd->groups[g]; g++)
        for (const option *o = cmd->groups[g]->options; o->name; o++)
            if (strncmp(o->name, name, len) == 0 && !o->name[len]) return o;
    return NULL;
}

static const option *find_letter(const command *cmd, char letter) {
    for (size_t g = 0; g < MAX_GROUPS && cmd->groups[g]; g++)
        for (const option *o = cmd->groups[g]->options; o->name; o++)
            if (o->letter == letter) return o;
    return NULL;
}

static bool unknown_option(const command *cmd, const char *given, size_t len) {
    const char *names[64];
    char word[64];
    size_t n = 0;
    snprintf(word, sizeof word, "%.*s", (int)min_u32((uint32_t)len, 63), given);
    for (size_t g = 0; g < MAX_GROUPS && cmd->groups[g]; g++)
        for (const option *o = cmd->groups[g]->options; o->name && n < COUNT(names); o++)
            names[n++] = o->name;
    const char *meant = suggest(word, names, n);
    if (meant)
        usage_error("%s: no option --%s; did you mean --%s?", cmd->name, word, meant);
    else
        usage_error("%s: no option --%s; `carat help %s` lists them", cmd->name, word, cmd->name);
    return false;
}

static bool is_choice(const char *choices, const char *value) {
    size_t len = strlen(value);
    for (const char *c = choices; *c;) {
        size_t n = strcspn(c, "|");
        if (n == len && memcmp(c, value, n) == 0) return true;
        c += n + (c[n] == '|');
    }
    return false;
}

static bool bad_number(const command *cmd, const option *o, const char *value) {
    bool whole = o->kind != OPTION_F32 && o->kind != OPTION_F64;
    if (o->max >= 1 << 30)
        usage_error("%s: --%s wants %s of at least %g, not '%s'", cmd->name, o->name,
                    whole ? "a whole number" : "a number", o->min, value);
    else
        usage_error("%s: --%s wants %s from %g to %g, not '%s'", cmd->name, o->name,
                    whole ? "a whole number" : "a number", o->min, o->max, value);
    return false;
}

static bool set_number(const command *cmd, const option *o, const char *value, void *field) {
    double v = 0;
    if (!parse_number(value, &v) || v < o->min || v > o->max) return bad_number(cmd, o, value);
    if (o->kind == OPTION_F32) {
        *(float *)field = (float)v;
        return true;
    }
    if (o->kind == OPTION_F64) {
        *(double *)field = v;
        return true;
    }
    if (o->kind == OPTION_U64) return parse_u64(value, field) || bad_number(cmd, o, value);
    if (value[strspn(value, "-0123456789")]) return bad_number(cmd, o, value);
    if (o->kind == OPTION_U32)
        *(uint32_t *)field = (uint32_t)v;
    else
        *(int32_t *)field = (int32_t)v;
    return true;
}

static bool set_option(const command *cmd, const option *o, const char *value, settings *s) {
    void *field = (char *)s + o->offset;
    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)field = true;
        return true;
    case OPTION_TEXT:
        *(const char **)field = value;
        return true;
    case OPTION_CHOICE:
        *(const char **)field = value;
        if (is_choice(o->value, value)) return true;
        usage_error("%s: --%s is one of %s, not '%s'", cmd->name, o->name, o->value, value);
        return false;
    case OPTION_LIST: {
        text_list *list = field;
        if (list->n < MAX_STOPS) {
            list->items[list->n++] = value;
            return true;
        }
        usage_error("%s: --%s was given more than %d times", cmd->name, o->name, MAX_STOPS);
        return false;
    }
    case OPTION_MEDIA: {
        media_args *list = field;
        if (list->n < MEDIA_MAX) {
            list->items[list->n].option = o->name;
            list->items[list->n++].value = value;
            return true;
        }
        usage_error("%s: more than %d pictures and sounds", cmd->name, MEDIA_MAX);
        return false;
    }
    default:
        return set_number(cmd, o, value, field);
    }
}

/* A word such as "-5" or "- x" is text, "-" is stdin. */
static bool looks_like_option(const char *word) {
    return word[0] == '-' && word[1] && (word[1] < '0' || word[1] > '9') && word[1] != ' ';
}

/* One option at argv[*i]; advances *i over its value. */
static bool read_option(const command *cmd, int argc, const char **argv, int *i, settings *s) {
    const char *word = argv[*i], *value = NULL;
    const option *o;
    if (word[1] == '-') {
        size_t len = strcspn(word + 2, "=");
        o = find_option(cmd, word + 2, len);
        if (!o) return unknown_option(cmd, word + 2, len);
        if (word[2 + len] == '=') value = word + 3 + len;
    } else {
        o = find_letter(cmd, word[1]);
        if (!o) {
            usage_error("%s: no option -%c; `carat help %s` lists them, and text that begins with "
                        "- goes behind --",
                        cmd->name, word[1], cmd->name);
            return false;
        }
        if (word[2]) value = word + 2;
    }
    if (o->kind == OPTION_FLAG) {
        if (!value) return set_option(cmd, o, NULL, s);
        usage_error("%s: --%s takes no value", cmd->name, o->name);
        return false;
    }
    if (!value && *i + 1 < argc) value = argv[++*i];
    if (value) return set_option(cmd, o, value, s);
    usage_error("%s: --%s wants a value: %s", cmd->name, o->name, o->value);
    return false;
}

bool options_read(const command *cmd, int argc, const char **argv, settings *s, size_t *n_args) {
    *s = defaults();
    bool only_words = false;
    size_t n = 0;
    for (int i = 0; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0)
            only_words = true;
        else if (only_words || !looks_like_option(argv[i]))
            argv[n++] = argv[i];
        else if (!read_option(cmd, argc, argv, &i, s))
            return false;
    }
    *n_args = n;
    return true;
}

/* ---- changing them while the program runs ---- */

static size_t field_bytes(option_kind kind) {
    switch (kind) {
    case OPTION_FLAG:
        return sizeof(bool);
    case OPTION_U64:
    case OPTION_F64:
        return sizeof(uint64_t);
    case OPTION_TEXT:
    case OPTION_CHOICE:
        return sizeof(const char *);
    default:
        return sizeof(uint32_t);
    }
}

bool options_set(const command *cmd, const char *name, const char *value, settings *s) {
    char dashed[64];
    snprintf(dashed, sizeof dashed, "%s", name);
    for (char *c = dashed; *c; c++)
        if (*c == '_') *c = '-';
    const option *o = find_option(cmd, dashed, strlen(dashed));
    if (!o || !o->live) {
        usage_error("there is no '%s' to set; /set lists what there is", name);
        return false;
    }
    settings start = defaults();
    char *field = (char *)s + o->offset;
    if (strcmp(value, "default") == 0) {
        memcpy(field, (char *)&start + o->offset, field_bytes(o->kind));
        return true;
    }
    if (o->kind != OPTION_FLAG) return set_option(cmd, o, value, s);
    *(bool *)field = strcmp(value, "on") == 0;
    if (*(bool *)field || strcmp(value, "off") == 0) return true;
    usage_error("%s is on or off, not '%s'", name, value);
    return false;
}

static void show_value(table *t, const option *o, const settings *s) {
    settings start = defaults();
    const void *field = (const char *)s + o->offset;
    bool is_default = memcmp(field, (char *)&start + o->offset, field_bytes(o->kind)) == 0;
    if (o->kind == OPTION_FLAG)
        table_cell(t, "%s", *(const bool *)field ? "on" : "off");
    else if (is_default)
        table_cell(t, "default");
    else if (o->kind == OPTION_F32)
        table_cell(t, "%g", (double)*(const float *)field);
    else if (o->kind == OPTION_U64)
        table_cell(t, "%llu", (unsigned long long)*(const uint64_t *)field);
    else if (o->kind == OPTION_I32)
        table_cell(t, "%d", *(const int32_t *)field);
    else
        table_cell(t, "%u", *(const uint32_t *)field);
}

void options_show(const command *cmd, const settings *s) {
    table t = {.columns = "lll"};
    for (size_t g = 0; g < MAX_GROUPS && cmd->groups[g]; g++)
        for (const option *o = cmd->groups[g]->options; o->name; o++) {
            if (!o->live) continue;
            table_cell(&t, "  %s", o->name);
            show_value(&t, o, s);
            table_cell(&t, "%s%s%s", dim(stdout), o->help, plain(stdout));
        }
    table_print(&t, stdout, false);
}

/* ---- help ---- */

enum { HELP_COLUMN = 30, HELP_WIDTH = 90 };

/* Words of text from column on, at is where the line stands now. */
static void print_wrapped(const char *text, int column, int at) {
    while (*text) {
        if (*text == '\n') {
            printf("\n%*s", column, "");
            at = column;
            text++;
            continue;
        }
        int len = (int)strcspn(text, " \n");
        if (at > column && at + 1 + len > HELP_WIDTH) {
            printf("\n%*s", column, "");
            at = column;
        } else if (at > column) {
            putchar(' ');
            at++;
        }
        printf("%.*s", len, text);
        at += len;
        text += len;
        if (*text == ' ') text++;
    }
    putchar('\n');
}

static void print_option(const option *o) {
    char left[64];
    int n = o->letter ? snprintf(left, sizeof left, "  -%c, --%s", o->letter, o->name)
                      : snprintf(left, sizeof left, "      --%s", o->name);
    if (o->value) n += snprintf(left + n, sizeof left - (size_t)n, " %s", o->value);
    if (n > HELP_COLUMN - 2)
        printf("%s\n%*s", left, HELP_COLUMN, "");
    else
        printf("%-*s", HELP_COLUMN, left);
    print_wrapped(o->help, HELP_COLUMN, HELP_COLUMN);
}

void options_help(const command *cmd) {
    printf("carat %s: %s\n\nusage: carat %s [OPTION...]%s%s\n\n", cmd->name, cmd->summary,
           cmd->name, *cmd->usage ? " " : "", cmd->usage);
    print_wrapped(cmd->about, 0, 0);
    for (size_t g = 0; g < MAX_GROUPS && cmd->groups[g]; g++) {
        printf("\n%s\n", cmd->groups[g]->title);
        for (const option *o = cmd->groups[g]->options; o->name; o++) print_option(o);
    }
    printf("\nexamples\n%s\nexit codes\n"
           "  0 done   1 something failed   2 wrong usage   130 interrupted by Ctrl-C\n",
           cmd->examples);
}
