/* serve_ollama: the HTTP API of Ollama: chat, generate, and what is told of the models. Requests
 * become tasks; what the worker says becomes JSON, in one piece or as lines.
 *
 * Flow: serve_http.c before; serve_engine.c calls the shapes. */
#include "serve_http.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <time.h>

/* ---- writing ---- */

void ollama_error(const carat_error *err, int status, buf *out) {
    (void)status;
    buf_puts(out, "{\"error\":");
    json_write_string(out, err->message, strlen(err->message));
    buf_puts(out, "}\n");
}

static void stream_error(const carat_error *err, buf *out) { ollama_error(err, 500, out); }

/* RFC 3339, in UTC. */
static void put_time(buf *out, int64_t seconds, long ns) {
    char text[64] = "";
    struct tm tm;
    time_t t = (time_t)seconds;
    if (gmtime_r(&t, &tm)) strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    buf_printf(out, "\"%s.%09ldZ\"", text, ns);
}

static void put_head(const task *t, buf *out) {
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    buf_puts(out, "{\"model\":");
    json_write_string(out, t->model, strlen(t->model));
    buf_puts(out, ",\"created_at\":");
    put_time(out, now.tv_sec, now.tv_nsec);
}

static void put_member(buf *out, const char *name, const buf *text) {
    buf_printf(out, ",\"%s\":", name);
    json_write_string(out, text->data ? text->data : "", text->len);
}

static void put_scores(const buf *scores, buf *out) {
    if (scores->len) buf_printf(out, ",\"logprobs\":[%s]", scores->data);
}

static uint64_t ns(double seconds) { return seconds > 0 ? (uint64_t)(seconds * 1e9) : 0; }

/* Why it ended, and the figures. Calls end an answer like any other here. */
static void put_end(const task *t, buf *out) {
    const carat_stats *st = &t->answer.stats;
    const char *why = t->kind == TASK_LOAD                      ? "load"
                      : t->kind == TASK_UNLOAD                  ? "unload"
                      : t->answer.finish == CARAT_FINISH_LENGTH ? "length"
                                                                : "stop";
    buf_printf(out, ",\"done\":true,\"done_reason\":\"%s\"", why);
    if (t->kind == TASK_CHAT || t->kind == TASK_COMPLETE)
        buf_printf(out,
                   ",\"total_duration\":%" PRIu64 ",\"load_duration\":%" PRIu64
                   ",\"prompt_eval_count\":%u,\"prompt_eval_duration\":%" PRIu64
                   ",\"eval_count\":%u,\"eval_duration\":%" PRIu64,
                   ns(t->total_s), ns(t->load_s), st->n_prompt, ns(st->prompt_s), st->n_generated,
                   ns(st->generate_s));
    buf_puts(out, "}\n");
}

static void put_call(task *t, const json *call, buf *out) {
    char id[40];
    random_id("call_", id);
    buf_printf(out, "{\"id\":\"%s\",\"function\":{\"index\":%zu,\"name\":", id, t->answer.n_calls);
    json_write(out, json_get(call, "name"));
    buf_puts(out, ",\"arguments\":");
    json_write(out, json_get(call, "arguments"));
    buf_puts(out, "}}");
}

/* ---- chat ---- */

/* ,"message":{"role":"assistant","content":text */
static void message_begin(const char *text, size_t n, buf *out) {
    buf_puts(out, ",\"message\":{\"role\":\"assistant\",\"content\":");
    json_write_string(out, text, n);
}

static void put_thinking(const char *text, size_t n, buf *out) {
    if (n == 0) return;
    buf_puts(out, ",\"thinking\":");
    json_write_string(out, text, n);
}

static void put_calls(const char *calls, size_t n, buf *out) {
    if (n) buf_printf(out, ",\"tool_calls\":[%s]", calls);
}

/* The parts of a piece, of which it has one. */
static void put_piece(const part *p, buf *out) {
    if (p->kind == CARAT_EVENT_THINKING) put_thinking(p->text, p->len, out);
    if (p->kind == CARAT_EVENT_TOOL_CALL) put_calls(p->text, p->len, out);
}

static void chat_piece(task *t, const part *p, buf *out) {
    put_head(t, out);
    message_begin(p->text, p->kind == CARAT_EVENT_TEXT ? p->len : 0, out);
    put_piece(p, out);
    buf_puts(out, "}");
    put_scores(p->scores, out);
    buf_puts(out, ",\"done\":false}\n");
}

static void chat_end(task *t, buf *out) {
    put_head(t, out);
    message_begin("", 0, out);
    buf_puts(out, "}");
    put_end(t, out);
}

static void chat_whole(task *t, buf *out) {
    const answer *a = &t->answer;
    put_head(t, out);
    message_begin(a->text.data ? a->text.data : "", a->text.len, out);
    put_thinking(a->thinking.data, a->thinking.len, out);
    put_calls(a->calls.data, a->calls.len, out);
    buf_puts(out, "}");
    put_scores(&a->logprobs, out);
    put_end(t, out);
}

static const task_shape chat_shape = {.stream_type = "application/x-ndjson",
                                      .piece = chat_piece,
                                      .call = put_call,
                                      .score = put_score,
                                      .end = chat_end,
                                      .whole = chat_whole,
                                      .error = ollama_error,
                                      .stream_error = stream_error};

/* ---- generate ---- */

static void generate_piece(task *t, const part *p, buf *out) {
    put_head(t, out);
    buf_puts(out, ",\"response\":");
    json_write_string(out, p->text, p->kind == CARAT_EVENT_TEXT ? p->len : 0);
    put_piece(p, out);
    put_scores(p->scores, out);
    buf_puts(out, ",\"done\":false}\n");
}

static void generate_end(task *t, buf *out) {
    put_head(t, out);
    buf_puts(out, ",\"response\":\"\"");
    put_end(t, out);
}

static void generate_whole(task *t, buf *out) {
    const answer *a = &t->answer;
    put_head(t, out);
    put_member(out, "response", &a->text);
    put_thinking(a->thinking.data, a->thinking.len, out);
    put_calls(a->calls.data, a->calls.len, out);
    put_scores(&a->logprobs, out);
    put_end(t, out);
}

static const task_shape generate_shape = {.stream_type = "application/x-ndjson",
                                          .piece = generate_piece,
                                          .call = put_call,
                                          .score = put_score,
                                          .end = generate_end,
                                          .whole = generate_whole,
                                          .error = ollama_error,
                                          .stream_error = stream_error};

/* ---- reading ---- */

/* Ollama counts "off" and "all" below zero where carat has 0. */
static int32_t not_negative(int32_t n) { return n < 0 ? 0 : n; }

static bool read_options(const json *q, task *t, carat_error *err) {
    const json *o = json_get(q, "options");
    carat_sampling *s = &t->sampling;
    int32_t predict = 0, context = 0, last = -1, top_k = INT32_MIN;
    if (o && o->kind != JSON_OBJECT && o->kind != JSON_NULL)
        return fail(err, CARAT_E_ARGUMENT, "options: not an object");
    bool ok = ask_float(o, "temperature", 0, 100, &s->temperature, err) &&
              ask_whole(o, "top_k", INT32_MIN + 1, INT32_MAX, &top_k, err) &&
              ask_float(o, "top_p", 0, 1, &s->top_p, err) &&
              ask_float(o, "min_p", 0, 1, &s->min_p, err) &&
              ask_float(o, "repeat_penalty", 0.01, 100, &s->repeat_penalty, err) &&
              ask_float(o, "frequency_penalty", -100, 100, &s->frequency_penalty, err) &&
              ask_float(o, "presence_penalty", -100, 100, &s->presence_penalty, err) &&
              ask_seed(o, &s->seed, err) && ask_stops(t->memory, o, &t->desc, err) &&
              ask_whole(o, "num_predict", -2, INT32_MAX, &predict, err) &&
              ask_whole(o, "num_ctx", 0, 1 << 24, &context, err);
    const json *repeat = json_get(o, "repeat_last_n");
    if (!ok || !ask_whole(o, "repeat_last_n", -1, INT32_MAX, &last, err)) return false;
    if (repeat && repeat->kind == JSON_NUMBER) s->repeat_last_n = last < 0 ? -2 : last;
    if (top_k != INT32_MIN) s->top_k = not_negative(top_k);
    t->desc.max_tokens = (uint32_t)not_negative(predict);
    t->n_ctx = (uint32_t)context;
    return true;
}

/* true, false, or how much: any amount is "yes" for Gemma. */
static bool read_thinking(const json *q, task *t, carat_error *err) {
    static const char *const levels[] = {"low", "medium", "high", "max"};
    const json *think = json_get(q, "think");
    if (!think || think->kind == JSON_NULL) return true;
    if (think->kind == JSON_BOOL) {
        t->desc.thinking = think->truth;
        return true;
    }
    for (size_t i = 0; i < COUNT(levels); i++)
        if (json_is_string(think, levels[i])) return t->desc.thinking = true;
    return fail(err, CARAT_E_ARGUMENT, "think: none of true, false, low, medium, high and max");
}

/* Seconds, or "1h30m", "500ms" and the like; below zero: for ever. */
static bool read_keep_alive(const json *q, task *t, carat_error *err) {
    const json *v = json_get(q, "keep_alive");
    double total = 0;
    if (!v || v->kind == JSON_NULL) return true;
    if (v->kind == JSON_NUMBER) {
        double x = json_number(v, -1);
        t->keep_alive = x < 0 ? INFINITY : x;
        return true;
    }
    const char *s = json_string(v, "");
    bool negative = *s == '-', any = false;
    for (s += negative; *s; any = true) {
        double unit = 1;
        size_t n = strspn(s, "0123456789.");
        char number[32];
        if (n == 0 || n >= sizeof number) break;
        memcpy(number, s, n);
        number[n] = 0;
        s += n;
        if (strncmp(s, "ms", 2) == 0)
            unit = 1e-3, s += 2;
        else if (*s == 'h')
            unit = 3600, s++;
        else if (*s == 'm')
            unit = 60, s++;
        else if (*s == 's')
            s++;
        double x = 0;
        if (!parse_number(number, &x)) break;
        total += x * unit;
    }
    if (*s || !any) return fail(err, CARAT_E_ARGUMENT, "keep_alive: not a duration such as \"5m\"");
    t->keep_alive = negative ? INFINITY : total;
    return true;
}

static bool read_format(const json *q, task *t, carat_error *err) {
    const json *format = json_get(q, "format");
    bool none = !format || format->kind == JSON_NULL || json_is_string(format, "");
    if (none) return true;
    if (json_is_string(format, "json")) return ask_schema(t, NULL, err);
    if (format->kind == JSON_OBJECT) return ask_schema(t, format, err);
    return fail(err, CARAT_E_ARGUMENT, "format: neither \"json\" nor a schema");
}

/* What chat and generate both know. A conversation that is too long loses its oldest turns. */
static bool read_common(const json *q, task *t, carat_error *err) {
    bool logprobs = false;
    int32_t top = 0;
    t->stream = t->desc.keep_oldest_out = true;
    return ask_bool(q, "stream", &t->stream, err) &&
           ask_bool(q, "truncate", &t->desc.keep_oldest_out, err) && read_options(q, t, err) &&
           read_thinking(q, t, err) && read_keep_alive(q, t, err) && read_format(q, t, err) &&
           ask_bool(q, "logprobs", &logprobs, err) &&
           ask_whole(q, "top_logprobs", 0, 20, &top, err) &&
           ask_logprobs(logprobs, top, &t->desc, err);
}

/* Nothing to answer: the model is loaded, or with keep_alive 0 unloaded. */
static void only_load(task *t) {
    t->kind = t->keep_alive == 0 ? TASK_UNLOAD : TASK_LOAD;
    t->stream = false;
}

static bool read_chat(const json *q, task *t, carat_error *err) {
    const json *messages = json_get(q, "messages");
    if (!read_common(q, t, err)) return false;
    if (!messages || (messages->kind == JSON_ARRAY && messages->n == 0)) {
        only_load(t);
        return true;
    }
    return ask_messages(t, messages, err) &&
           ask_tools(t->memory, json_get(q, "tools"), &t->desc, err);
}

static answered answer_with(exchange *x, const task_shape *shape,
                            bool (*read)(const json *, task *, carat_error *)) {
    const json *q = NULL;
    carat_error err = {0};
    answered done = MHD_NO;
    if (!ask_parse(x, &q, &err)) return reply_failure(x, 400, &err);
    task *t = ask_task(x, q, shape, &done);
    if (!t) return done;
    return read(q, t, &err) ? reply_task(x) : reply_failure(x, 400, &err);
}

answered route_api_chat(exchange *x) { return answer_with(x, &chat_shape, read_chat); }

static json text_value(const char *text) {
    return (json){.kind = JSON_STRING, .text = text, .len = strlen(text)};
}

/* A prompt as the one message of a conversation, behind a system message if there is one. */
static bool read_prompt(const json *q, task *t, carat_error *err) {
    const json *prompt = json_get(q, "prompt"), *images = json_get(q, "images");
    const json *system = json_get(q, "system");
    const bool has_system = *json_string(system, "") != 0;
    const bool has_images = images && images->kind == JSON_ARRAY;
    json keys[3] = {text_value("role"), text_value("content"), text_value("images")};
    json first[2] = {text_value("system")}, second[3] = {text_value("user"), *prompt};
    if (has_system) first[1] = *system;
    if (has_images) second[2] = *images;
    json items[2] = {
        {.kind = JSON_OBJECT, .n = 2, .keys = keys, .items = first},
        {.kind = JSON_OBJECT, .n = has_images ? 3 : 2, .keys = keys, .items = second},
    };
    const json messages = {
        .kind = JSON_ARRAY, .n = has_system ? 2 : 1, .items = has_system ? items : items + 1};
    return ask_messages(t, &messages, err);
}

static bool read_generate(const json *q, task *t, carat_error *err) {
    const json *prompt = json_get(q, "prompt");
    bool raw = false;
    if (!read_common(q, t, err) || !ask_bool(q, "raw", &raw, err)) return false;
    if (*json_string(json_get(q, "suffix"), ""))
        return fail(err, CARAT_E_UNSUPPORTED, "suffix: Gemma writes only at the end");
    if (*json_string(json_get(q, "template"), ""))
        return fail(err, CARAT_E_UNSUPPORTED,
                    "template: the model's own is used; raw takes the prompt as it is");
    if (!prompt || json_is_string(prompt, "")) {
        only_load(t);
        return true;
    }
    if (prompt->kind != JSON_STRING) return fail(err, CARAT_E_ARGUMENT, "prompt: not a string");
    if (!raw) return read_prompt(q, t, err);
    t->kind = TASK_COMPLETE;
    t->prompt = prompt->text;
    t->prompt_len = prompt->len;
    return true;
}

answered route_api_generate(exchange *x) { return answer_with(x, &generate_shape, read_generate); }
