/* serve_openai: the HTTP API of OpenAI: chat completions, completions, models. Requests become
 * tasks; what the worker says becomes JSON, in one piece or as server-sent events.
 *
 * Flow: serve_http.c before; serve_engine.c calls the shapes. */
#include "serve_http.h"

#include <inttypes.h>
#include <string.h>

/* ---- writing ---- */

void openai_error(const carat_error *err, int status, buf *out) {
    const char *type = status == 404   ? "not_found_error"
                       : status >= 500 ? "api_error"
                                       : "invalid_request_error";
    const char *code = err->code == CARAT_E_NOT_FOUND ? "\"model_not_found\""
                       : err->code == CARAT_E_CONTEXT ? "\"context_length_exceeded\""
                                                      : "null";
    buf_puts(out, "{\"error\":{\"message\":");
    json_write_string(out, err->message, strlen(err->message));
    buf_printf(out, ",\"type\":\"%s\",\"param\":null,\"code\":%s}}", type, code);
}

static void stream_error(const carat_error *err, buf *out) {
    buf_puts(out, "data: ");
    openai_error(err, 500, out);
    buf_puts(out, "\n\n");
}

static void put_quoted(buf *out, const buf *text) {
    json_write_string(out, text->data ? text->data : "", text->len);
}

/* {"id":...,"object":...,"created":...,"model":..., */
static void put_head(const task *t, const char *object, buf *out) {
    buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%" PRId64 ",\"model\":", t->id,
               object, t->created);
    json_write_string(out, t->model, strlen(t->model));
    buf_puts(out, ",\"system_fingerprint\":\"carat-" CARAT_VERSION "\",");
}

static void put_usage(const task *t, buf *out) {
    const carat_stats *st = &t->answer.stats;
    buf_printf(out,
               "\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u,"
               "\"prompt_tokens_details\":{\"cached_tokens\":%u}}",
               st->n_prompt, st->n_generated, st->n_prompt + st->n_generated, st->n_reused);
}

static const char *finish_of(const task *t) {
    return t->answer.finish == CARAT_FINISH_NONE ? "stop" : finish_name(t->answer.finish);
}

/* ---- chat ---- */

static void chunk_begin(task *t, buf *out) {
    buf_puts(out, "data: ");
    put_head(t, "chat.completion.chunk", out);
    buf_puts(out, "\"choices\":[{\"index\":0,\"delta\":");
}

static void chunk_end(const task *t, const char *finish, buf *out) {
    if (finish)
        buf_printf(out, ",\"finish_reason\":\"%s\"}]", finish);
    else
        buf_puts(out, ",\"finish_reason\":null}]");
    if (t->usage) buf_puts(out, ",\"usage\":null");
    buf_puts(out, "}\n\n");
}

static void chat_start(task *t, buf *out) {
    chunk_begin(t, out);
    buf_puts(out, "{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null");
    chunk_end(t, NULL, out);
}

static void put_logprobs(const task *t, const buf *scores, buf *out) {
    if (t->desc.n_logprobs && scores->len)
        buf_printf(out, ",\"logprobs\":{\"content\":[%s],\"refusal\":null}", scores->data);
    else
        buf_puts(out, ",\"logprobs\":null");
}

/* Thinking goes out under both names that are in use. */
static void chat_piece(task *t, const part *p, buf *out) {
    chunk_begin(t, out);
    if (p->kind == CARAT_EVENT_TOOL_CALL) {
        buf_printf(out, "{\"tool_calls\":[%s]}", p->text);
    } else if (p->kind == CARAT_EVENT_THINKING) {
        buf_puts(out, "{\"reasoning\":");
        json_write_string(out, p->text, p->len);
        buf_puts(out, ",\"reasoning_content\":");
        json_write_string(out, p->text, p->len);
        buf_puts(out, "}");
    } else {
        buf_puts(out, "{\"content\":");
        json_write_string(out, p->text, p->len);
        buf_puts(out, "}");
    }
    put_logprobs(t, p->scores, out);
    chunk_end(t, NULL, out);
}

/* Arguments are JSON in a string here. */
static void chat_call(task *t, const json *call, buf *out) {
    char id[40];
    buf arguments = {0};
    random_id("call_", id);
    buf_puts(out, "{");
    if (t->stream) buf_printf(out, "\"index\":%zu,", t->answer.n_calls);
    buf_printf(out, "\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":", id);
    json_write(out, json_get(call, "name"));
    buf_puts(out, ",\"arguments\":");
    json_write(&arguments, json_get(call, "arguments"));
    put_quoted(out, &arguments);
    buf_puts(out, "}}");
    buf_free(&arguments);
}

static void chat_end(task *t, buf *out) {
    chunk_begin(t, out);
    buf_puts(out, "{},\"logprobs\":null");
    chunk_end(t, finish_of(t), out);
    if (t->usage) {
        buf_puts(out, "data: ");
        put_head(t, "chat.completion.chunk", out);
        buf_puts(out, "\"choices\":[],");
        put_usage(t, out);
        buf_puts(out, "}\n\n");
    }
    buf_puts(out, "data: [DONE]\n\n");
}

static void chat_whole(task *t, buf *out) {
    const answer *a = &t->answer;
    put_head(t, "chat.completion", out);
    buf_puts(out, "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":");
    if (a->text.len || !a->n_calls)
        put_quoted(out, &a->text);
    else
        buf_puts(out, "null");
    if (a->thinking.len) {
        buf_puts(out, ",\"reasoning\":");
        put_quoted(out, &a->thinking);
        buf_puts(out, ",\"reasoning_content\":");
        put_quoted(out, &a->thinking);
    }
    if (a->n_calls) buf_printf(out, ",\"tool_calls\":[%s]", a->calls.data);
    buf_puts(out, ",\"refusal\":null}");
    put_logprobs(t, &a->logprobs, out);
    buf_printf(out, ",\"finish_reason\":\"%s\"}],", finish_of(t));
    put_usage(t, out);
    buf_puts(out, "}\n");
}

static const task_shape chat_shape = {.stream_type = "text/event-stream",
                                      .start = chat_start,
                                      .piece = chat_piece,
                                      .call = chat_call,
                                      .score = put_score,
                                      .end = chat_end,
                                      .whole = chat_whole,
                                      .error = openai_error,
                                      .stream_error = stream_error};

/* ---- completions ---- */

/* Four columns instead of a list of objects: the tokens are what answer.logprobs holds. */
static void text_score(task *t, const carat_event *ev, buf *out) {
    buf text = {0};
    put_token_text(t, ev->token, &text);
    put_quoted(out, &text);
    for (size_t i = 0; i < COUNT(t->marks); i++)
        if (t->marks[i].len) buf_puts(&t->marks[i], ",");
    buf_printf(&t->marks[0], "%.6g", finite_logprob(ev->logprob));
    buf_printf(&t->marks[2], "%zu", t->offset);
    buf_puts(&t->marks[1], "{");
    t->offset += text.len;
    for (size_t i = 0; i < ev->n_top; i++) {
        buf_reset(&text);
        put_token_text(t, ev->top[i].token, &text);
        if (i) buf_puts(&t->marks[1], ",");
        put_quoted(&t->marks[1], &text);
        buf_printf(&t->marks[1], ":%.6g", finite_logprob(ev->top[i].logprob));
    }
    buf_puts(&t->marks[1], "}");
    buf_free(&text);
}

/* Empties the columns. */
static void text_logprobs(task *t, const buf *tokens, buf *out) {
    if (!tokens->len || !t->marks[0].len) {
        buf_puts(out, ",\"logprobs\":null");
        return;
    }
    buf_printf(out,
               ",\"logprobs\":{\"tokens\":[%s],\"token_logprobs\":[%s],\"top_logprobs\":[%s],"
               "\"text_offset\":[%s]}",
               tokens->data, t->marks[0].data, t->marks[1].data, t->marks[2].data);
    for (size_t i = 0; i < COUNT(t->marks); i++) buf_reset(&t->marks[i]);
}

static void text_piece(task *t, const part *p, buf *out) {
    buf_puts(out, "data: ");
    put_head(t, "text_completion", out);
    buf_puts(out, "\"choices\":[{\"index\":0,\"text\":");
    json_write_string(out, p->text, p->len);
    text_logprobs(t, p->scores, out);
    buf_puts(out, ",\"finish_reason\":null}]");
    buf_puts(out, t->usage ? ",\"usage\":null}\n\n" : "}\n\n");
}

static void text_call(task *t, const json *call, buf *out) {
    (void)t;
    json_write(out, call); /* no tools are declared, so this is text like any other */
}

static void text_end(task *t, buf *out) {
    buf_puts(out, "data: ");
    put_head(t, "text_completion", out);
    buf_printf(out,
               "\"choices\":[{\"index\":0,\"text\":\"\",\"logprobs\":null,"
               "\"finish_reason\":\"%s\"}]",
               finish_of(t));
    buf_puts(out, t->usage ? ",\"usage\":null}\n\n" : "}\n\n");
    if (t->usage) {
        buf_puts(out, "data: ");
        put_head(t, "text_completion", out);
        buf_puts(out, "\"choices\":[],");
        put_usage(t, out);
        buf_puts(out, "}\n\n");
    }
    buf_puts(out, "data: [DONE]\n\n");
}

static void text_whole(task *t, buf *out) {
    put_head(t, "text_completion", out);
    buf_puts(out, "\"choices\":[{\"index\":0,\"text\":");
    put_quoted(out, &t->answer.text);
    text_logprobs(t, &t->answer.logprobs, out);
    buf_printf(out, ",\"finish_reason\":\"%s\"}],", finish_of(t));
    put_usage(t, out);
    buf_puts(out, "}\n");
}

static const task_shape text_shape = {.stream_type = "text/event-stream",
                                      .piece = text_piece,
                                      .call = text_call,
                                      .score = text_score,
                                      .end = text_end,
                                      .whole = text_whole,
                                      .error = openai_error,
                                      .stream_error = stream_error};

/* ---- reading ---- */

static bool read_limit(const json *q, const char *key, task *t, carat_error *err) {
    int32_t n = 0;
    if (!ask_whole(q, key, 1, INT32_MAX, &n, err)) return false;
    if (n) t->desc.max_tokens = (uint32_t)n;
    return true;
}

/* What both kinds of completion know. */
static bool read_common(const json *q, task *t, carat_error *err) {
    carat_sampling *s = &t->sampling;
    int32_t n = 1;
    bool ok = ask_whole(q, "n", 1, 128, &n, err) && ask_bool(q, "stream", &t->stream, err) &&
              ask_bool(json_get(q, "stream_options"), "include_usage", &t->usage, err) &&
              ask_float(q, "temperature", 0, 100, &s->temperature, err) &&
              ask_float(q, "top_p", 0, 1, &s->top_p, err) &&
              ask_whole(q, "top_k", 0, INT32_MAX, &s->top_k, err) &&
              ask_float(q, "min_p", 0, 1, &s->min_p, err) &&
              ask_float(q, "repeat_penalty", 0.01, 100, &s->repeat_penalty, err) &&
              ask_float(q, "frequency_penalty", -100, 100, &s->frequency_penalty, err) &&
              ask_float(q, "presence_penalty", -100, 100, &s->presence_penalty, err) &&
              ask_seed(q, &s->seed, err) && ask_stops(t->memory, q, &t->desc, err) &&
              read_limit(q, "max_tokens", t, err);
    if (!ok) return false;
    return n == 1 || fail(err, CARAT_E_UNSUPPORTED, "n: carat writes one answer to a request");
}

static bool read_tools(const json *q, task *t, carat_error *err) {
    const json *choice = json_get(q, "tool_choice");
    if (json_is_string(choice, "none")) return true;
    if (choice && choice->kind != JSON_NULL && !json_is_string(choice, "auto"))
        return fail(err, CARAT_E_UNSUPPORTED,
                    "tool_choice: only auto and none; a call cannot be forced");
    return ask_tools(t->memory, json_get(q, "tools"), &t->desc, err);
}

static bool read_format(const json *q, task *t, carat_error *err) {
    const json *format = json_get(q, "response_format"), *type = json_get(format, "type");
    if (!format || format->kind == JSON_NULL || json_is_string(type, "text")) return true;
    if (json_is_string(type, "json_object")) return ask_schema(t, NULL, err);
    if (!json_is_string(type, "json_schema"))
        return fail(err, CARAT_E_ARGUMENT,
                    "response_format: its type is none of text, json_object and json_schema");
    const json *schema = json_get(json_get(format, "json_schema"), "schema");
    if (schema) return ask_schema(t, schema, err);
    return fail(err, CARAT_E_ARGUMENT, "response_format: there is no json_schema.schema");
}

/* reasoning_effort as OpenAI has it; think and chat_template_kwargs as others do. */
static bool read_thinking(const json *q, task *t, carat_error *err) {
    const json *effort = json_get(q, "reasoning_effort");
    const json *extra = json_get(q, "chat_template_kwargs");
    if (!effort) effort = json_get(json_get(q, "reasoning"), "effort");
    if (effort && effort->kind == JSON_STRING) t->desc.thinking = !json_is_string(effort, "none");
    return ask_bool(extra, "enable_thinking", &t->desc.thinking, err) &&
           ask_bool(q, "think", &t->desc.thinking, err);
}

static bool read_chat(const json *q, task *t, carat_error *err) {
    bool logprobs = false;
    int32_t top = 0;
    return read_common(q, t, err) && read_limit(q, "max_completion_tokens", t, err) &&
           ask_messages(t, json_get(q, "messages"), err) && read_tools(q, t, err) &&
           read_format(q, t, err) && read_thinking(q, t, err) &&
           ask_bool(q, "logprobs", &logprobs, err) &&
           ask_whole(q, "top_logprobs", 0, 20, &top, err) &&
           ask_logprobs(logprobs, top, &t->desc, err);
}

answered route_v1_chat(exchange *x) {
    const json *q = NULL;
    carat_error err = {0};
    answered done = MHD_NO;
    if (!ask_parse(x, &q, &err)) return reply_failure(x, 400, &err);
    task *t = ask_task(x, q, &chat_shape, &done);
    if (!t) return done;
    random_id("chatcmpl-", t->id);
    return read_chat(q, t, &err) ? reply_task(x) : reply_failure(x, 400, &err);
}

static bool read_completion(const json *q, task *t, carat_error *err) {
    const json *prompt = json_get(q, "prompt"), *suffix = json_get(q, "suffix");
    int32_t top = -1;
    bool echo = false;
    if (prompt && prompt->kind == JSON_ARRAY && prompt->n == 1) prompt = json_at(prompt, 0);
    if (!prompt || prompt->kind != JSON_STRING)
        return fail(err, CARAT_E_ARGUMENT, "prompt: not a string (one prompt, as text)");
    if (suffix && suffix->kind == JSON_STRING && suffix->len)
        return fail(err, CARAT_E_UNSUPPORTED, "suffix: Gemma writes only at the end");
    if (!read_common(q, t, err) || !ask_bool(q, "echo", &echo, err) ||
        !ask_whole(q, "logprobs", 0, 20, &top, err))
        return false;
    if (echo) return fail(err, CARAT_E_UNSUPPORTED, "echo: carat sends the continuation only");
    t->kind = TASK_COMPLETE;
    t->prompt = prompt->text;
    t->prompt_len = prompt->len;
    return ask_logprobs(top >= 0, top, &t->desc, err);
}

answered route_v1_completions(exchange *x) {
    const json *q = NULL;
    carat_error err = {0};
    answered done = MHD_NO;
    if (!ask_parse(x, &q, &err)) return reply_failure(x, 400, &err);
    task *t = ask_task(x, q, &text_shape, &done);
    if (!t) return done;
    random_id("cmpl-", t->id);
    return read_completion(q, t, &err) ? reply_task(x) : reply_failure(x, 400, &err);
}

/* ---- models ---- */

static void put_model(const model_entry *e, buf *b) {
    buf_puts(b, "{\"id\":");
    json_write_string(b, e->name, strlen(e->name));
    buf_printf(b, ",\"object\":\"model\",\"created\":%" PRId64 ",\"owned_by\":\"carat\"}",
               e->modified);
}

answered route_v1_models(exchange *x) {
    model_list list;
    carat_error err = {0};
    buf b = {0};
    if (!models_read(x->server, x->memory, &list, &err)) return reply_failure(x, 500, &err);
    buf_puts(&b, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0, n = 0; i < list.n; i++) {
        if (!list.items[i].path) continue;
        if (n++) buf_puts(&b, ",");
        put_model(&list.items[i], &b);
    }
    buf_puts(&b, "]}\n");
    return reply_buf(x, 200, "application/json", &b);
}

answered route_v1_model(exchange *x) {
    model_list list;
    carat_error err = {0};
    buf b = {0};
    if (!models_read(x->server, x->memory, &list, &err)) return reply_failure(x, 500, &err);
    const model_entry *e = models_find(x->server, &list, x->path + strlen("/v1/models/"), &err);
    if (!e) return reply_failure(x, 404, &err);
    put_model(e, &b);
    return reply_buf(x, 200, "application/json", &b);
}
