/* rows: what a line of data says. Four kinds of objects become messages or bare text; a record of a
 * CSV file becomes such an object. Knows no tokens.
 *
 * Flow: dataset.c reads the file and calls this. */
#include "train/train.h"

#include <string.h>

/* ---- objects ---- */

static const json *text_of(const json *object, const char *key) {
    const json *v = json_get(object, key);
    return v && v->kind == JSON_STRING ? v : NULL;
}

static json string_of(const char *s) {
    return (json){.kind = JSON_STRING, .text = s, .len = strlen(s)};
}

static bool object_of(arena *a, const char *role, const json *content, json *out) {
    json *keys = arena_alloc(a, 2, sizeof *keys), *items = arena_alloc(a, 2, sizeof *items);
    if (!keys || !items) return false;
    keys[0] = string_of("role"), items[0] = string_of(role);
    keys[1] = string_of("content"), items[1] = *content;
    *out = (json){.kind = JSON_OBJECT, .n = 2, .items = items, .keys = keys};
    return true;
}

/* A question and its answer as two messages. */
static bool two_messages(arena *a, const json *user, const json *answer, const json **out,
                         carat_error *err) {
    json *list = arena_alloc(a, 1, sizeof *list), *items = arena_alloc(a, 2, sizeof *items);
    if (!list || !items || !object_of(a, "user", user, &items[0]) ||
        !object_of(a, "assistant", answer, &items[1]))
        return fail_memory(err, sizeof *items, "a sample");
    *list = (json){.kind = JSON_ARRAY, .n = 2, .items = items};
    *out = list;
    return true;
}

/* Two lists of messages, one behind the other. */
static bool joined(arena *a, const json *x, const json *y, const json **out, carat_error *err) {
    json *list = arena_alloc(a, 1, sizeof *list);
    json *items = arena_alloc(a, x->n + y->n, sizeof *items);
    if (!list || !items) return fail_memory(err, (x->n + y->n) * sizeof *items, "a sample");
    for (size_t i = 0; i < x->n + y->n; i++) items[i] = i < x->n ? x->items[i] : y->items[i - x->n];
    *list = (json){.kind = JSON_ARRAY, .n = x->n + y->n, .items = items};
    *out = list;
    return true;
}

/* The instruction and, after an empty line, its input. */
static bool question(arena *a, const json *instruction, const json *input, json *out,
                     carat_error *err) {
    *out = *instruction;
    if (!input || !input->len) return true;
    char *text = arena_alloc(a, instruction->len + input->len + 3, 1);
    if (!text) return fail_memory(err, input->len, "a sample");
    memcpy(text, instruction->text, instruction->len);
    memcpy(text + instruction->len, "\n\n", 2);
    memcpy(text + instruction->len + 2, input->text, input->len);
    *out = (json){.kind = JSON_STRING, .text = text, .len = instruction->len + 2 + input->len};
    return true;
}

bool row_read(arena *a, const json *object, row *out, carat_error *err) {
    const json *messages = json_get(object, "messages");
    const json *prompt = json_get(object, "prompt"), *completion = json_get(object, "completion");
    const json *instruction = text_of(object, "instruction"), *output = text_of(object, "output");
    *out = (row){.tools = json_get(object, "tools")};
    if (out->tools && out->tools->kind != JSON_ARRAY) out->tools = NULL;
    if (object->kind != JSON_OBJECT) return fail(err, CARAT_E_FORMAT, "is not an object");
    if (messages) {
        out->messages = messages;
        return (messages->kind == JSON_ARRAY && messages->n) ||
               fail(err, CARAT_E_FORMAT, "messages is not a list with something in it");
    }
    if (prompt && completion && prompt->kind == JSON_ARRAY && completion->kind == JSON_ARRAY)
        return joined(a, prompt, completion, &out->messages, err);
    if (text_of(object, "prompt") && text_of(object, "completion"))
        return two_messages(a, prompt, completion, &out->messages, err);
    if (instruction && output) {
        json asked;
        return question(a, instruction, text_of(object, "input"), &asked, err) &&
               two_messages(a, &asked, output, &out->messages, err);
    }
    out->text = text_of(object, "text");
    return out->text || fail(err, CARAT_E_FORMAT,
                             "has neither messages, nor prompt and completion, nor instruction and "
                             "output, nor text");
}

/* ---- CSV (RFC 4180) ---- */

/* A field into b: quoted ones may hold commas, line ends and doubled quotes. */
static bool csv_field(const char *text, size_t n, size_t *at, uint32_t *line, buf *b,
                      carat_error *err) {
    if (*at >= n || text[*at] != '"') {
        while (*at < n && text[*at] != ',' && text[*at] != '\n' && text[*at] != '\r')
            buf_put(b, &text[(*at)++], 1);
        return true;
    }
    for (++*at;; ++*at) {
        if (*at >= n) return fail(err, CARAT_E_FORMAT, "a quote is not closed");
        if (text[*at] == '"' && (*at + 1 >= n || text[*at + 1] != '"')) break;
        if (text[*at] == '"') ++*at;
        *line += text[*at] == '\n';
        buf_put(b, &text[*at], 1);
    }
    ++*at;
    return *at >= n || strchr(",\r\n", text[*at]) ||
           fail(err, CARAT_E_FORMAT, "text after a closing quote");
}

static void end_of_line(const char *text, size_t n, size_t *at, uint32_t *line) {
    while (*at < n && text[*at] != '\n') ++*at;
    *at += *at < n;
    ++*line;
}

bool csv_record(arena *a, const char *text, size_t n, const json *head, size_t *at, uint32_t *line,
                json *out, carat_error *err) {
    buf fields = {0}, b = {0};
    bool ok = true;
    for (bool more = true; ok && more;) {
        buf_reset(&b);
        ok = csv_field(text, n, at, line, &b, err);
        const char *copy = ok ? arena_copy(a, b.data ? b.data : "", b.len) : NULL;
        const json field = {.kind = JSON_STRING, .text = copy, .len = b.len};
        if (ok && (!copy || b.failed)) ok = fail_memory(err, b.len, "a field");
        buf_put(&fields, &field, sizeof field);
        more = *at < n && text[*at] == ',';
        *at += more;
    }
    end_of_line(text, n, at, line);
    const size_t n_field = fields.len / sizeof(json);
    if (ok && head && n_field != head->n)
        ok =
            fail(err, CARAT_E_FORMAT, "%zu fields, but the first line names %zu", n_field, head->n);
    json *items = ok ? arena_alloc(a, n_field, sizeof *items) : NULL;
    if (ok && (!items || fields.failed)) ok = fail_memory(err, fields.len, "a record");
    if (ok) {
        memcpy(items, fields.data, fields.len);
        *out = (json){.kind = head ? JSON_OBJECT : JSON_ARRAY, .n = n_field, .items = items};
        out->keys = head ? head->items : NULL;
    }
    buf_free(&fields);
    buf_free(&b);
    return ok;
}
