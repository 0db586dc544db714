/* run: one prompt, one answer. Reads the prompt and the conversation, answers, prints.
 *
 * Flow: main.c and runtime.c before; answer.c shows the events. */
#include "cli.h"

#include <string.h>

static const option run_options[] = {
    OPTION("file", 'f', TEXT, file, "FILE",
           "read the prompt from a file, behind the words of the command line if there are any"),
    OPTION("messages", 0, TEXT, messages, "FILE",
           "JSON array of messages (role, content, ...): the conversation so far"),
    OPTION("raw", 0, FLAG, raw, NULL,
           "continue the prompt as it is, without the chat template; control tokens written in it "
           "count"),
    OPTION("json", 0, FLAG, json, NULL,
           "print one JSON object at the end: text, thinking, tool_calls, finish, tokens, timings"),
    OPTION("logprobs", 0, I32, logprobs, "N",
           "with --json: the log-probability of each token and of its N best alternatives",
           .max = 20),
    OPTION("show-thinking", 0, FLAG, show_thinking, NULL,
           "thinking to stderr when stdout is no terminal"),
    {0}};
static const option_group group = {"prompt and output", run_options};

static void put_string(buf *b, const char *name, const buf *text) {
    buf_printf(b, "\"%s\":", name);
    json_write_string(b, text->data ? text->data : "", text->len);
}

static bool print_json(const runtime *r, const settings *s, const answer *a, carat_error *err) {
    const carat_stats *st = &a->stats;
    buf b = {0};
    buf_puts(&b, "{");
    put_string(&b, "text", &a->text);
    buf_puts(&b, ",");
    put_string(&b, "thinking", &a->thinking);
    buf_printf(&b, ",\"tool_calls\":[%s],\"finish\":\"%s\"", a->calls.len ? a->calls.data : "",
               a->interrupted ? "interrupted" : finish_name(a->finish));
    buf_printf(&b, ",\"tokens\":{\"prompt\":%u,\"reused\":%u,\"generated\":%u}", st->n_prompt,
               st->n_reused, st->n_generated);
    buf_printf(&b,
               ",\"timings\":{\"load_s\":%.6f,\"prompt_s\":%.6f,\"generate_s\":%.6f,"
               "\"prompt_tokens_per_s\":%.2f,\"generate_tokens_per_s\":%.2f}",
               r->load_s, st->prompt_s, st->generate_s, prompt_rate(st), generate_rate(st));
    if (s->logprobs >= 0)
        buf_printf(&b, ",\"logprobs\":[%s]", a->logprobs.len ? a->logprobs.data : "");
    if (a->notices.len) buf_printf(&b, ",\"notices\":[%s]", a->notices.data);
    buf_puts(&b, ",\"model\":");
    json_write_string(&b, r->info.name, strlen(r->info.name));
    buf_puts(&b, ",\"device\":");
    const char *device = carat_device_name(r->device);
    json_write_string(&b, device, strlen(device));
    buf_printf(&b, ",\"logits_hash\":\"%016llx\"}", (unsigned long long)st->logits_hash);
    return print_buf(&b, err);
}

/* Everything the answer is made from. */
typedef struct request {
    buf prompt, tools, schema, messages;
    attachments media;
    conversation talk;
    id_list raw;
} request;

static void request_free(request *q) {
    buf_free(&q->prompt);
    buf_free(&q->tools);
    buf_free(&q->schema);
    buf_free(&q->messages);
    ids_free(&q->raw);
    attachments_free(&q->media);
    conversation_free(&q->talk);
}

static bool read_messages(conversation *c, const char *path, carat_error *err) {
    buf text = {0};
    bool ok =
        read_all(path, &text, err) && conversation_parse(c, text.data, text.len, path, false, err);
    buf_free(&text);
    return ok;
}

static bool is_blank(const buf *b) { return !b->data || strspn(b->data, " \t\r\n") == b->len; }

/* Reads all that the user gave, before the model is loaded. */
static bool request_read(request *q, const settings *s, const char *const *args, size_t n,
                         carat_error *err) {
    bool from_stdin = n > 0 || s->file || !s->messages; /* else the conversation is complete */
    if (!conversation_create(&q->talk, err)) return false;
    if (from_stdin && !prompt_read(args, n, s->file, &q->prompt, err)) return false;
    if (s->tools && !tools_read(s->tools, &q->tools, err)) return false;
    if (!schema_read(s, &q->schema, err)) return false;
    if (s->messages && !read_messages(&q->talk, s->messages, err)) return false;
    if (!attach_options(&q->media, s, err)) return false;
    bool has_media = q->media.media.n > 0;
    if (is_blank(&q->prompt) && !(s->raw && q->prompt.len) && q->talk.n == 0 && !has_media)
        return fail(err, CARAT_E_ARGUMENT,
                    "the prompt is empty; write it behind the model, or pipe it in");
    if (s->raw) return true;
    if ((q->prompt.len || has_media) &&
        !conversation_add_user(&q->talk, &q->media, q->prompt.data, q->prompt.len, err))
        return false;
    if (s->system && !conversation_set_system(&q->talk, s->system, err)) return false;
    conversation_write(&q->talk, &q->messages);
    return !q->messages.failed || fail_memory(err, q->talk.text.len, "the conversation");
}

static carat_job *start(const runtime *r, request *q, const settings *s,
                        const carat_sampling *sampling, carat_error *err) {
    carat_chat_desc desc = settings_answer(s, sampling);
    desc.messages = q->messages.data;
    desc.media = q->talk.media->items;
    desc.n_media = q->talk.media->n;
    desc.tools = s->tools ? q->tools.data : NULL;
    desc.json_schema = q->schema.data;
    if (s->logprobs >= 0)
        desc.n_logprobs = s->logprobs ? (uint32_t)s->logprobs : CARAT_LOGPROBS_TOKEN_ONLY;
    if (!s->raw) return carat_chat(r->session, &desc, err);
    if (!runtime_tokenize(r, q->prompt.data, q->prompt.len, true, &q->raw, err)) return NULL;
    return carat_complete(r->session, q->raw.data, q->raw.len, &desc, err);
}

static int answer_request(request *q, const settings *s, const char *model) {
    carat_error err = {0};
    runtime r = {0};
    answer a = {0};
    carat_sampling sampling = settings_sampling(s);
    answer_view view = {.runtime = &r,
                        .quiet = s->json,
                        .logprobs = s->logprobs >= 0,
                        .show_thinking = s->show_thinking};
    bool ok = runtime_load(&r, s, model, s->context, &err) &&
              answer_run(start(&r, q, s, &sampling, &err), &view, &a, &err);
    bool unfinished = a.text.len && a.text.data[a.text.len - 1] != '\n';
    if (!s->json && unfinished) putchar('\n');
    int code = EXIT_OK;
    if (ok && s->json) ok = print_json(&r, s, &a, &err);
    if (!ok)
        code = report(&err);
    else if (a.interrupted)
        code = EXIT_INTERRUPTED;
    if (ok && s->verbose) {
        fflush(stdout);
        runtime_report(&r, &a.stats, stderr);
    }
    answer_free(&a);
    runtime_close(&r);
    return code;
}

static int run(settings *s, const char *const *args, size_t n) {
    if (s->raw && (s->messages || s->system || s->tools || s->media.n))
        return usage_error("run: --raw knows no --messages, --system or --tools, and no pictures "
                           "or sounds");
    if (s->logprobs >= 0 && !s->json) return usage_error("run: --logprobs needs --json");
    bool no_prompt = n == 1 && !s->file && !s->messages && !s->media.n;
    if (no_prompt && stdin_is_terminal())
        return usage_error("run: no prompt; write it behind the model, pipe it in, or use `carat "
                           "chat %s`",
                           args[0]);
    interrupt_install(false);
    carat_error err = {0};
    request q = {0};
    bool ok = request_read(&q, s, args + 1, n - 1, &err);
    int code = ok ? answer_request(&q, s, args[0]) : report(&err);
    request_free(&q);
    return code;
}

const command command_run = {
    .name = "run",
    .summary = "answer one prompt",
    .usage = "MODEL [PROMPT...]",
    .about = "Answers a prompt and prints the answer as it is made. The prompt is the words behind "
             "the model, a file, or what comes through stdin (where - stands, or when there is "
             "nothing else). The answer goes to stdout, all else to stderr. Thinking is shown "
             "dimmed on a terminal and hidden elsewhere.",
    .examples = "  carat run nano \"What is 23 + 45?\"\n"
                "  carat run gemma4:e2b \"Sum this up:\" --file notes.txt\n"
                "  git diff | carat run gemma4:e2b \"Write a commit message for this:\" -\n"
                "  carat run gemma4:e2b --json --temperature 0 \"Name three rivers.\"\n"
                "  carat run gemma4:e2b --image photo.jpg \"What is in this picture?\"\n"
                "  carat run gemma4:e2b --audio memo.wav \"Write down what is said.\"\n"
                "  carat run gemma4:e2b --video-frame 0:a.png --video-frame 1:b.png \"Describe the "
                "video.\"\n",
    .groups = {&group, &options_media, &options_answer, &options_sampling, &options_session,
               &options_model},
    .min_args = 1,
    .max_args = SIZE_MAX,
    .run = run,
};
