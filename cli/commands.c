/* commands: what begins with a slash in a chat. Owns saving and loading a conversation.
 *
 * Flow: chat.c before. */
#include "chat.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- saving and loading ---- */

/* A path as typed, with ~/ replaced and a suffix. NULL after a report. */
static char *path_of(const char *typed, const char *suffix, buf *out) {
    const char *home = getenv("HOME");
    bool at_home = typed[0] == '~' && typed[1] == '/' && home;
    buf_printf(out, "%s%s%s", at_home ? home : "", at_home ? typed + 1 : typed, suffix);
    return out->failed ? NULL : out->data;
}

static void command_save(chat *c, const char *arg) {
    buf path = {0}, kv = {0}, text = {0};
    carat_error err = {0};
    buf_puts(&text, "{\"model\":");
    json_write_string(&text, c->runtime.name, strlen(c->runtime.name));
    buf_puts(&text, ",\n\"messages\":\n");
    conversation_write(&c->talk, &text);
    buf_puts(&text, "}\n");
    bool ok = path_of(arg, "", &path) && path_of(arg, ".kv", &kv) && !text.failed;
    if (!ok) fail_memory(&err, text.len, "the conversation");
    ok = ok && write_beside(path.data, text.data, text.len, &err);
    ok = ok && runtime_finish(carat_session_save(c->runtime.session, kv.data, &err), "saving", NULL,
                              &err);
    if (ok)
        printf("saved %zu messages to %s, what was computed for them to %s\n", c->talk.n, path.data,
               kv.data);
    else
        report(&err);
    buf_free(&path);
    buf_free(&kv);
    buf_free(&text);
}

/* Brings back what was computed; without it the conversation is read again. */
static void restore(chat *c, const char *kv) {
    struct stat st;
    carat_error err = {0};
    if (stat(kv, &st) != 0) {
        printf("no %s: the conversation will be read again\n", kv);
        return;
    }
    if (runtime_finish(carat_session_restore(c->runtime.session, kv, &err), "loading", NULL, &err))
        return;
    report(&err);
    puts("the conversation will be read again");
}

static void command_load(chat *c, const char *arg) {
    buf path = {0}, kv = {0}, text = {0};
    carat_error err = {0};
    conversation talk;
    bool ok = conversation_create(&talk, &err);
    if (ok && (!path_of(arg, "", &path) || !path_of(arg, ".kv", &kv)))
        ok = fail_memory(&err, strlen(arg), "a file's name");
    ok = ok && read_all(path.data, &text, &err) &&
         conversation_parse(&talk, text.data, text.len, path.data, true, &err);
    if (ok) {
        conversation_free(&c->talk);
        c->talk = talk;
        restore(c, kv.data);
        printf("%zu messages\n", c->talk.n);
    } else {
        report(&err);
        conversation_free(&talk);
    }
    buf_free(&path);
    buf_free(&kv);
    buf_free(&text);
}

/* ---- pictures and sounds ---- */

static void attach_one(chat *c, const char *kind, const char *arg) {
    media_list *media = &c->waiting.media;
    buf path = {0};
    carat_error err = {0};
    char text[48];
    if (strcmp(arg, "off") == 0) {
        printf("%zu taken back\n", media->n);
        attachments_free(&c->waiting);
    } else if (path_of(arg, "", &path) && attach(&c->waiting, kind, path.data, &err)) {
        printf("%sattached to the next message: %s, %s%s\n", dim(stdout), arg,
               media_summary(&media->items[media->n - 1], text), plain(stdout));
    } else {
        report(&err);
    }
    buf_free(&path);
}

static void command_image(chat *c, const char *arg) { attach_one(c, "image", arg); }
static void command_audio(chat *c, const char *arg) { attach_one(c, "audio", arg); }

/* ---- the conversation ---- */

static void command_retry(chat *c, const char *arg) {
    (void)arg;
    size_t before = chat_before_last_user(c);
    if (before == c->talk.n) {
        puts("there is nothing to answer");
        return;
    }
    conversation_cut(&c->talk, before + 1);
    chat_answer(c);
}

static void command_undo(chat *c, const char *arg) {
    (void)arg;
    size_t before = chat_before_last_user(c), n = c->talk.n;
    conversation_cut(&c->talk, before);
    printf("%zu messages taken back, %zu left\n", n - before, before);
}

static void command_clear(chat *c, const char *arg) {
    (void)arg;
    conversation_cut(&c->talk, c->talk.n && c->talk.items[0].role == 's' ? 1 : 0);
    puts("a new conversation");
}

static void command_system(chat *c, const char *arg) {
    carat_error err = {0};
    if (!*arg) {
        bool given = c->talk.n && c->talk.items[0].role == 's';
        if (given) put_text(stdout, c->talk.text.data, c->talk.items[0].len);
        puts(given ? "" : "no system prompt");
    } else if (!conversation_set_system(&c->talk, strcmp(arg, "off") == 0 ? "" : arg, &err)) {
        report(&err);
    }
}

static void command_tools(chat *c, const char *arg) {
    if (!*arg) {
        puts(c->tools.len ? c->tools.data : "no tools");
        return;
    }
    buf path = {0}, tools = {0};
    carat_error err = {0};
    if (strcmp(arg, "off") == 0 ||
        (path_of(arg, "", &path) && tools_read(path.data, &tools, &err))) {
        buf_free(&c->tools);
        c->tools = tools;
    } else {
        report(&err);
        buf_free(&tools);
    }
    buf_free(&path);
}

static void command_set(chat *c, const char *arg) {
    char name[64];
    size_t len = strcspn(arg, " \t");
    const char *value = arg + len + strspn(arg + len, " \t");
    if (!*arg) {
        options_show(&command_chat, c->settings);
        return;
    }
    snprintf(name, sizeof name, "%.*s", (int)min_u32((uint32_t)len, 63), arg);
    if (*value)
        options_set(&command_chat, name, value, c->settings);
    else
        puts("/set NAME VALUE; the value may be \"default\"");
}

static void command_stats(chat *c, const char *arg) {
    (void)arg;
    if (c->last.n_prompt)
        runtime_report(&c->runtime, &c->last, stdout);
    else
        puts("no answer yet");
}

static void command_quit(chat *c, const char *arg) {
    (void)arg;
    c->quit = true;
}

static void command_help(chat *c, const char *arg);

/* ---- the table ---- */

enum { NO_ARG, MAY_ARG, NEEDS_ARG };

static void command_use_adapter(chat *c, const char *arg) {
    carat_error err = {0};
    const text_list list = {{arg}, strcmp(arg, "off") != 0};
    if (runtime_adapt(c->runtime.engine, &list, &err))
        puts(list.n ? "the adapter is in use from the next answer on" : "no adapter is in use");
    else
        report(&err);
}

static const struct slash {
    const char *name, *arg, *help;
    int wants;
    void (*run)(chat *c, const char *arg);
} slashes[] = {
    {"/help", "", "this text", NO_ARG, command_help},
    {"/set", "NAME VALUE", "change sampling and the like; alone: list them", MAY_ARG, command_set},
    {"/system", "TEXT", "set the system prompt; off: none; alone: show it", MAY_ARG,
     command_system},
    {"/tools", "FILE", "functions the model may call; off: none; alone: show them", MAY_ARG,
     command_tools},
    {"/adapter", "FILE[:SCALE]", "LoRA adapter to add, in place of others; off: none", NEEDS_ARG,
     command_use_adapter},
    {"/image", "FILE", "attach a picture to the next message; off: none", NEEDS_ARG, command_image},
    {"/audio", "FILE", "attach a sound to the next message; off: none", NEEDS_ARG, command_audio},
    {"/retry", "", "answer the last message again", NO_ARG, command_retry},
    {"/undo", "", "take back the last message and its answer", NO_ARG, command_undo},
    {"/clear", "", "begin a new conversation", NO_ARG, command_clear},
    {"/save", "FILE", "write the conversation to FILE, what was computed to FILE.kv", NEEDS_ARG,
     command_save},
    {"/load", "FILE", "bring it back", NEEDS_ARG, command_load},
    {"/stats", "", "speed and memory of the last answer", NO_ARG, command_stats},
    {"/quit", "", "leave; Ctrl-D does too", NO_ARG, command_quit},
};

static void command_help(chat *c, const char *arg) {
    (void)c;
    (void)arg;
    for (size_t i = 0; i < COUNT(slashes); i++) {
        const struct slash *s = &slashes[i];
        printf("  %-8s %-12s %s%s%s\n", s->name, s->arg, dim(stdout), s->help, plain(stdout));
    }
    printf("%s  A line that ends in \\ goes on; lines between \"\"\" and \"\"\" are one message.\n"
           "  Ctrl-C stops an answer. // at the beginning sends one slash.%s\n",
           dim(stdout), plain(stdout));
}

static const struct slash *find_slash(const char *line, size_t len) {
    for (size_t i = 0; i < COUNT(slashes); i++)
        if (strlen(slashes[i].name) == len && memcmp(slashes[i].name, line, len) == 0)
            return &slashes[i];
    return NULL;
}

static void unknown_slash(const char *line, size_t len) {
    const char *names[COUNT(slashes)];
    char word[32];
    for (size_t i = 0; i < COUNT(slashes); i++) names[i] = slashes[i].name;
    snprintf(word, sizeof word, "%.*s", (int)min_u32((uint32_t)len, 31), line);
    const char *meant = suggest(word, names, COUNT(slashes));
    if (meant)
        printf("no command %s; did you mean %s?\n", word, meant);
    else
        printf("no command %s; /help lists them, // sends a slash\n", word);
}

void chat_command(chat *c, const char *line) {
    char arg[4096];
    size_t len = strcspn(line, " \t\n");
    const char *rest = line + len + strspn(line + len, " \t\n");
    const struct slash *s = find_slash(line, len);
    if (!s) {
        unknown_slash(line, len);
        return;
    }
    int n = snprintf(arg, sizeof arg, "%s", rest);
    while (n > 0 && n < (int)sizeof arg && strchr(" \t\r\n", arg[n - 1])) arg[--n] = 0;
    if (n >= (int)sizeof arg)
        printf("%s: more than %zu bytes\n", s->name, sizeof arg - 1);
    else if (s->wants == NO_ARG && *arg)
        printf("%s takes nothing behind it\n", s->name);
    else if (s->wants == NEEDS_ARG && !*arg)
        printf("%s %s: %s\n", s->name, s->arg, s->help);
    else
        s->run(c, arg);
}
