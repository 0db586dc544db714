/* serve_ask: from the JSON of a request to a task, in the parts that both APIs share. Says what is
 * wrong by name; never guesses.
 *
 * Flow: serve_openai.c and serve_ollama.c call it; the task goes to serve_reply.c. */
#include "serve_http.h"

#include <math.h>
#include <string.h>
#include <sys/random.h>

bool ask_parse(exchange *x, const json **out, carat_error *err) {
    json *root = NULL;
    const char *body = x->body.data ? x->body.data : "";
    if (x->body.len == 0)
        return fail(err, CARAT_E_ARGUMENT, "the request has no body; it should be a JSON object");
    if (!json_parse(x->memory, body, x->body.len, "the request", &root, err)) return false;
    if (root->kind != JSON_OBJECT)
        return fail(err, CARAT_E_ARGUMENT, "the request is no JSON object");
    *out = root;
    return true;
}

task *ask_task(exchange *x, const json *request, const task_shape *shape, answered *done) {
    carat_error err = {0};
    model_list list;
    const json *name = json_get(request, "model");
    if (name && name->kind != JSON_STRING && name->kind != JSON_NULL) {
        *done = reply_error(x, 400, "model: not a string");
        return NULL;
    }
    if (!models_read(x->server, x->memory, &list, &err)) {
        *done = reply_failure(x, 500, &err);
        return NULL;
    }
    const model_entry *e = models_find(x->server, &list, json_string(name, NULL), &err);
    if (!e) {
        *done = reply_failure(x, err.code == CARAT_E_NOT_FOUND ? 404 : 400, &err);
        return NULL;
    }
    task *t = &x->task;
    task_open(t, x->memory);
    x->has_task = true;
    t->shape = shape;
    t->model = e->name;
    t->target = e->target;
    t->desc.thinking = x->server->settings->thinking;
    t->desc.image_tokens = x->server->settings->image_tokens;
    return t;
}

/* ---- values ---- */

static const json *given(const json *o, const char *key) {
    const json *v = json_get(o, key);
    return v && v->kind != JSON_NULL ? v : NULL;
}

bool ask_number(const json *o, const char *key, double min, double max, double *out,
                carat_error *err) {
    const json *v = given(o, key);
    if (!v) return true;
    double x = json_number(v, NAN);
    if (!(x >= min && x <= max))
        return fail(err, CARAT_E_ARGUMENT, "%s: not a number from %g to %g", key, min, max);
    *out = x;
    return true;
}

bool ask_float(const json *o, const char *key, double min, double max, float *out,
               carat_error *err) {
    double x = NAN;
    if (!ask_number(o, key, min, max, &x, err)) return false;
    if (!isnan(x)) *out = (float)x;
    return true;
}

bool ask_whole(const json *o, const char *key, double min, double max, int32_t *out,
               carat_error *err) {
    double x = NAN;
    if (!ask_number(o, key, min, max, &x, err)) return false;
    if (isnan(x)) return true;
    if (x != floor(x)) return fail(err, CARAT_E_ARGUMENT, "%s: not a whole number", key);
    *out = (int32_t)x;
    return true;
}

bool ask_bool(const json *o, const char *key, bool *out, carat_error *err) {
    const json *v = given(o, key);
    if (v && v->kind != JSON_BOOL)
        return fail(err, CARAT_E_ARGUMENT, "%s: neither true nor false", key);
    *out = json_bool(v, *out);
    return true;
}

/* Negative: a new one every time, which carat.h writes as 0; its own 0 is a seed like others. */
bool ask_seed(const json *o, uint64_t *out, carat_error *err) {
    double x = -1;
    if (!ask_number(o, "seed", -0x1p63, 0x1p63, &x, err)) return false;
    if (x != floor(x)) return fail(err, CARAT_E_ARGUMENT, "seed: not a whole number");
    *out = x < 0 ? 0 : x == 0 ? UINT64_MAX : (uint64_t)x;
    return true;
}

bool ask_stops(arena *a, const json *o, carat_chat_desc *desc, carat_error *err) {
    const json *v = given(o, "stop");
    if (!v) return true;
    size_t n = v->kind == JSON_ARRAY ? v->n : 1;
    if (n > MAX_STOPS)
        return fail(err, CARAT_E_ARGUMENT, "stop: %zu texts, at most %d", n, MAX_STOPS);
    const char **stops = arena_alloc(a, n + 1, sizeof *stops);
    if (!stops) return fail_memory(err, n * sizeof *stops, "stop");
    for (size_t i = 0; i < n; i++) {
        const json *item = v->kind == JSON_ARRAY ? json_at(v, i) : v;
        if (item->kind != JSON_STRING)
            return fail(err, CARAT_E_ARGUMENT, "stop: neither a string nor a list of them");
        if (item->len) stops[desc->n_stop++] = item->text;
    }
    desc->stop = stops;
    return true;
}

const char *ask_text(arena *a, const json *v) {
    buf b = {0};
    json_write(&b, v);
    const char *text = b.failed ? NULL : arena_copy(a, b.data, b.len);
    buf_free(&b);
    return text;
}

bool ask_messages(task *t, const json *messages, carat_error *err) {
    if (!messages || messages->kind != JSON_ARRAY)
        return fail(err, CARAT_E_ARGUMENT, "messages: not a list");
    if (messages->n == 0) return fail(err, CARAT_E_ARGUMENT, "messages: there are none");
    buf b = {0};
    bool ok = true;
    t->media = arena_alloc(t->memory, 1, sizeof *t->media);
    if (!t->media) return fail_memory(err, sizeof *t->media, "the messages");
    buf_puts(&b, "[");
    for (size_t i = 0; ok && i < messages->n; i++) {
        if (i) buf_puts(&b, ",");
        ok = media_take(t->memory, json_at(messages, i), t->media, &b, err);
    }
    buf_puts(&b, "]");
    if (ok && !b.failed) t->desc.messages = arena_copy(t->memory, b.data, b.len);
    buf_free(&b);
    return ok && (t->desc.messages || fail_memory(err, 0, "the messages"));
}

bool ask_tools(arena *a, const json *tools, carat_chat_desc *desc, carat_error *err) {
    if (!tools || tools->kind == JSON_NULL) return true;
    if (tools->kind != JSON_ARRAY) return fail(err, CARAT_E_ARGUMENT, "tools: not a list");
    if (tools->n == 0) return true;
    desc->tools = ask_text(a, tools);
    return desc->tools || fail_memory(err, 0, "the tools");
}

bool ask_logprobs(bool wanted, int32_t n, carat_chat_desc *desc, carat_error *err) {
    if (n > 0 && !wanted)
        return fail(err, CARAT_E_ARGUMENT, "top_logprobs: given without logprobs");
    if (wanted) desc->n_logprobs = n > 0 ? (uint32_t)n : CARAT_LOGPROBS_TOKEN_ONLY;
    return true;
}

bool ask_schema(task *t, const json *schema, carat_error *err) {
    t->desc.json_schema = schema ? ask_text(t->memory, schema) : "{\"type\":\"object\"}";
    return t->desc.json_schema || fail_memory(err, 0, "the schema");
}

void random_id(const char *prefix, char out[40]) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz012345";
    unsigned char bytes[24] = {0};
    if (getrandom(bytes, sizeof bytes, 0) < 0) memset(bytes, 0, sizeof bytes);
    int n = snprintf(out, 40, "%.12s", prefix);
    for (size_t i = 0; i < sizeof bytes; i++) out[n++] = letters[bytes[i] & 31];
    out[n] = 0;
}
