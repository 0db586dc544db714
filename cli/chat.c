/* chat: a conversation on the terminal. Owns the loop, the answers and the results of tools that
 * the user types in.
 *
 * Flow: main.c, runtime.c and line.c before; commands.c for what begins with a slash. */
#include "chat.h"

#include <string.h>
#include <sys/stat.h>

static void say(const char *text) { printf("%s%s%s\n", dim(stdout), text, plain(stdout)); }

size_t chat_before_last_user(const chat *c) {
    for (size_t i = c->talk.n; i > 0; i--)
        if (c->talk.items[i - 1].role == 'u') return i - 1;
    return c->talk.n;
}

/* ---- tools ---- */

/* Asks for the result of one call. False: the user gave up. */
static bool ask_result(chat *c, const json *call, const char *id) {
    const char *name = json_string(json_get(call, "name"), "tool");
    char prompt[96];
    snprintf(prompt, sizeof prompt, "result of %.64s> ", name);
    buf result = {0};
    carat_error err = {0};
    bool ok = line_read(c->lines, prompt, &result) == LINE_OK && !result.failed;
    if (ok && !conversation_add_result(&c->talk, id, name, result.data ? result.data : "",
                                       result.len, &err)) {
        report(&err);
        ok = false;
    }
    buf_free(&result);
    return ok;
}

/* Asks for the results of the calls of the last message. */
static bool ask_results(chat *c) {
    const message *m = &c->talk.items[c->talk.n - 1];
    carat_error err = {0};
    arena *memory = arena_create(&err);
    json *root = NULL;
    bool ok = memory && json_parse(memory, c->talk.text.data + m->offset, m->len, "the tool calls",
                                   &root, &err);
    if (!ok) report(&err);
    const json *calls = json_get(root, "tool_calls");
    for (size_t i = 0; ok && calls && i < calls->n; i++) {
        const json *call = json_at(calls, i);
        ok = ask_result(c, json_get(call, "function"), json_string(json_get(call, "id"), ""));
    }
    arena_free(memory);
    return ok;
}

/* ---- answers ---- */

static carat_job *start(chat *c, const buf *messages, const carat_sampling *sampling,
                        carat_error *err) {
    carat_chat_desc desc = settings_answer(c->settings, sampling);
    desc.messages = messages->data;
    desc.media = c->talk.media->items;
    desc.n_media = c->talk.media->n;
    desc.tools = c->tools.len ? c->tools.data : NULL;
    desc.json_schema = c->schema.data;
    return carat_chat(c->runtime.session, &desc, err);
}

/* What is worth telling about how an answer ended. */
static void tell_end(const answer *a) {
    if (a->interrupted)
        say("(stopped)");
    else if (a->finish == CARAT_FINISH_LENGTH)
        say("(cut: max-tokens reached or the context is full)");
    else if (!a->text.len && !a->n_calls)
        say("(no answer)");
}

/* One answer of the model. *calls: it waits for results of tools. */
static bool answer_once(chat *c, bool *calls, carat_error *err) {
    buf messages = {0};
    answer a = {0};
    carat_sampling sampling = settings_sampling(c->settings);
    answer_view view = {.runtime = &c->runtime, .show_thinking = c->settings->show_thinking};
    conversation_write(&c->talk, &messages);
    bool ok = messages.failed ? fail_memory(err, c->talk.text.len, "the conversation")
                              : answer_run(start(c, &messages, &sampling, err), &view, &a, err);
    if (a.text.len && a.text.data[a.text.len - 1] != '\n') putchar('\n');
    if (ok) {
        tell_end(&a);
        c->last = a.stats;
        if (a.text.len || a.n_calls) ok = conversation_add_answer(&c->talk, &a, err);
        if (c->settings->verbose) runtime_report(&c->runtime, &a.stats, stderr);
    }
    *calls = ok && a.n_calls && !a.interrupted;
    answer_free(&a);
    buf_free(&messages);
    return ok;
}

void chat_answer(chat *c) {
    size_t before = chat_before_last_user(c);
    carat_error err = {0};
    bool calls = true;
    while (calls) {
        if (!answer_once(c, &calls, &err)) {
            report(&err);
            if (err.code == CARAT_E_CONTEXT || err.code == CARAT_E_FORMAT) {
                conversation_cut(&c->talk, before);
                say("(the message was taken back; /set keep on drops the oldest turns)");
            } else {
                say("(the conversation is kept; /retry answers again)");
            }
            return;
        }
        if (calls && !ask_results(c)) {
            conversation_cut(&c->talk, before);
            say("(the message was taken back)");
            return;
        }
    }
}

/* ---- the loop ---- */

static void send(chat *c, const char *text, size_t n) {
    carat_error err = {0};
    if (conversation_add_user(&c->talk, &c->waiting, text, n, &err))
        chat_answer(c);
    else
        report(&err);
}

static void loop(chat *c) {
    buf line = {0};
    while (!c->quit) {
        line_result r = line_read(c->lines, ">>> ", &line);
        if (r == LINE_END) break;
        if (r == LINE_INTERRUPTED) {
            say("(Ctrl-D or /quit ends)");
            continue;
        }
        const char *text = line.data ? line.data : "";
        if (line.failed || text[strspn(text, " \t\r\n")] == 0) continue;
        if (text[0] == '/' && text[1] == '/')
            send(c, text + 1, line.len - 1);
        else if (text[0] == '/')
            chat_command(c, text);
        else
            send(c, text, line.len);
        fflush(stdout);
    }
    if (stdin_is_terminal() && !c->quit) putchar('\n');
    buf_free(&line);
}

static void greet(const chat *c) {
    if (!stdin_is_terminal()) return;
    const carat_model_info *info = &c->runtime.info;
    printf("%s%s%s", bold(stdout), c->runtime.name, plain(stdout));
    printf("%s  %s%s%s on %s, context %u\n/help for commands, Ctrl-D to leave%s\n", dim(stdout),
           info->size_label ? info->size_label : "", info->size_label ? " " : "",
           info->quantisation ? info->quantisation : "", carat_device_name(c->runtime.device),
           carat_session_context(c->runtime.session), plain(stdout));
}

static bool chat_open(chat *c, const char *model, carat_error *err) {
    const settings *s = c->settings;
    c->memory = arena_create(err);
    if (!c->memory || !conversation_create(&c->talk, err)) return false;
    if (s->system && !conversation_set_system(&c->talk, s->system, err)) return false;
    if (!attach_options(&c->waiting, s, err)) return false;
    if (s->tools && !tools_read(s->tools, &c->tools, err)) return false;
    if (!schema_read(s, &c->schema, err)) return false;
    interrupt_install(false);
    if (!runtime_load(&c->runtime, s, model, s->context, err)) return false;
    interrupt_install(true);
    c->lines = line_open(c->memory, err);
    return c->lines != NULL;
}

static int chat_run(settings *s, const char *const *args, size_t n) {
    (void)n;
    chat c = {.settings = s};
    carat_error err = {0};
    int code = EXIT_OK;
    umask(0077); /* what is saved is for the user's eyes only */
    if (chat_open(&c, args[0], &err)) {
        greet(&c);
        loop(&c);
    } else {
        code = report(&err);
    }
    line_close(c.lines);
    runtime_close(&c.runtime);
    conversation_free(&c.talk);
    attachments_free(&c.waiting);
    buf_free(&c.tools);
    buf_free(&c.schema);
    arena_free(c.memory);
    return code;
}

static const option chat_options[] = {OPTION("show-thinking", 0, FLAG, show_thinking, NULL,
                                             "thinking to stderr when stdout is no terminal"),
                                      {0}};
static const option_group group = {"output", chat_options};

const command command_chat = {
    .name = "chat",
    .summary = "talk with a model",
    .usage = "MODEL",
    .about = "Talks with a model, with line editing and a history. What was computed for the "
             "conversation is kept, so every answer costs only what is new. Ctrl-C stops an "
             "answer, Ctrl-D leaves. A line that ends in \\ goes on in the next one; lines between "
             "\"\"\" and \"\"\" are one message. Commands begin with a slash: /help lists them. "
             "Without a terminal every line of stdin is a message.\n\n"
             "The history is kept in $XDG_STATE_HOME/carat/history or "
             "~/.local/state/carat/history.",
    .examples = "  carat chat nano\n"
                "  carat chat gemma4:e2b --image plan.png\n"
                "  carat chat gemma4:e2b --thinking --system \"Answer in one sentence.\"\n",
    .groups = {&group, &options_media, &options_answer, &options_sampling, &options_session,
               &options_model},
    .min_args = 1,
    .max_args = 1,
    .run = chat_run,
};
