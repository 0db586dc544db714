/* conversation: the messages of a chat as JSON text, one object each, so that they can be cut,
 * saved and handed to the engine as they are, and the pictures and sounds that belong to them. Does
 * not check what they mean: the engine does.
 *
 * Flow: the user's words and answer.c before; carat_chat() after. */
#include "cli.h"

#include <string.h>

bool conversation_create(conversation *c, carat_error *err) {
    *c = (conversation){0};
    c->memory = arena_create(err);
    if (!c->memory) return false;
    c->items = arena_alloc(c->memory, MAX_MESSAGES, sizeof *c->items);
    c->media = arena_alloc(c->memory, 1, sizeof *c->media);
    return (c->items && c->media) ||
           fail_memory(err, MAX_MESSAGES * sizeof *c->items, "the conversation");
}

void conversation_free(conversation *c) {
    buf_free(&c->text);
    if (c->media) media_cut(c->media, 0);
    arena_free(c->memory);
    *c = (conversation){0};
}

void conversation_cut(conversation *c, size_t n) {
    if (n >= c->n) return;
    c->text.len = c->items[n].offset;
    media_cut(c->media, c->items[n].media);
    c->n = n;
}

/* Takes what was appended to c->text since `offset`, and to c->media since `media`, as one
 * message. */
static bool take_message(conversation *c, size_t offset, size_t media, char role,
                         carat_error *err) {
    bool full = c->n == MAX_MESSAGES;
    if (full || c->text.failed) {
        size_t len = c->text.len - offset;
        c->text.len = offset;
        c->text.failed = false;
        media_cut(c->media, media);
        return full ? fail(err, CARAT_E_ARGUMENT, "more than %d messages", MAX_MESSAGES)
                    : fail_memory(err, len, "the conversation");
    }
    c->items[c->n++] = (message){offset, c->text.len - offset, media, role};
    return true;
}

static void put_text_field(buf *b, const char *name, const char *text, size_t n) {
    size_t bad = utf8_invalid(text, n);
    if (bad) warn("%zu byte(s) of the text are not UTF-8 and became U+FFFD", bad);
    buf_printf(b, ",\"%s\":", name);
    json_write_string(b, text ? text : "", n);
}

bool conversation_add(conversation *c, const char *role, const char *text, size_t n,
                      carat_error *err) {
    size_t offset = c->text.len;
    buf_printf(&c->text, "{\"role\":\"%s\"", role);
    put_text_field(&c->text, "content", text, n);
    buf_puts(&c->text, "}");
    return take_message(c, offset, c->media->n, role[0], err);
}

bool conversation_add_user(conversation *c, attachments *with, const char *text, size_t n,
                           carat_error *err) {
    const size_t offset = c->text.len, media = c->media->n;
    attachments_end(with);
    if (with->media.n == 0) return conversation_add(c, "user", text, n, err);
    if (with->parts.failed) return fail_memory(err, with->parts.len, "the message");
    if (!media_move(c->media, &with->media, err)) return false;
    buf_puts(&c->text, "{\"role\":\"user\",\"content\":[");
    buf_put(&c->text, with->parts.data, with->parts.len);
    buf_puts(&c->text, "{\"type\":\"text\"");
    put_text_field(&c->text, "text", text, n);
    buf_puts(&c->text, "}]}");
    attachments_free(with);
    return take_message(c, offset, media, 'u', err);
}

/* The calls as OpenAI writes them; each gets the number of its place as id. */
static bool put_calls(conversation *c, const answer *a, carat_error *err) {
    arena *memory = arena_create(err);
    json *calls = NULL;
    buf list = {0};
    buf_printf(&list, "[%s]", a->calls.data ? a->calls.data : "");
    bool ok = memory && !list.failed &&
              json_parse(memory, list.data, list.len, "the tool calls", &calls, err);
    if (ok) {
        buf_puts(&c->text, ",\"tool_calls\":[");
        for (size_t i = 0; i < calls->n; i++) {
            buf_printf(&c->text, "%s{\"id\":\"call_%zu_%zu\",\"type\":\"function\",\"function\":",
                       i ? "," : "", c->n, i);
            json_write(&c->text, json_at(calls, i));
            buf_puts(&c->text, "}");
        }
        buf_puts(&c->text, "]");
    }
    buf_free(&list);
    arena_free(memory);
    return ok ? true : fail_memory(err, a->calls.len, "the tool calls");
}

bool conversation_add_answer(conversation *c, const answer *a, carat_error *err) {
    size_t offset = c->text.len;
    buf_puts(&c->text, "{\"role\":\"assistant\"");
    put_text_field(&c->text, "content", a->text.data, a->text.len);
    if (a->thinking.len) put_text_field(&c->text, "reasoning", a->thinking.data, a->thinking.len);
    if (a->n_calls && !put_calls(c, a, err)) {
        c->text.len = offset;
        return false;
    }
    buf_puts(&c->text, "}");
    return take_message(c, offset, c->media->n, 'a', err);
}

bool conversation_add_result(conversation *c, const char *id, const char *name, const char *text,
                             size_t n, carat_error *err) {
    size_t offset = c->text.len;
    buf_puts(&c->text, "{\"role\":\"tool\"");
    put_text_field(&c->text, "tool_call_id", id, strlen(id));
    put_text_field(&c->text, "name", name, strlen(name));
    put_text_field(&c->text, "content", text, n);
    buf_puts(&c->text, "}");
    return take_message(c, offset, c->media->n, 't', err);
}

bool conversation_set_system(conversation *c, const char *text, carat_error *err) {
    conversation next = {.items = c->items, .media = c->media, .memory = c->memory};
    size_t skip = c->n > 0 && c->items[0].role == 's' ? 1 : 0, n = c->n - skip;
    size_t from = n ? c->items[skip].offset : c->text.len;
    bool given = text && *text;
    if (given && n == MAX_MESSAGES) return fail(err, CARAT_E_ARGUMENT, "too many messages");
    if (given) {
        buf_puts(&next.text, "{\"role\":\"system\"");
        put_text_field(&next.text, "content", text, strlen(text));
        buf_puts(&next.text, "}");
    }
    size_t at = next.text.len;
    if (n) buf_put(&next.text, c->text.data + from, c->text.len - from);
    if (next.text.failed) {
        buf_free(&next.text);
        return fail_memory(err, c->text.len, "the conversation");
    }
    memmove(c->items + given, c->items + skip, n * sizeof *c->items);
    for (size_t i = 0; i < n; i++) c->items[given + i].offset += at - from;
    if (given) c->items[0] = (message){0, at, 0, 's'};
    next.n = n + given;
    buf_free(&c->text);
    *c = next;
    return true;
}

bool conversation_parse(conversation *c, const char *text, size_t n, const char *what, bool lenient,
                        carat_error *err) {
    arena *memory = arena_create(err);
    json *root = NULL;
    bool ok = memory && json_parse(memory, text ? text : "", n, what, &root, err);
    const json *list = root;
    if (ok && root->kind == JSON_OBJECT) list = json_get(root, "messages");
    if (ok && (!list || list->kind != JSON_ARRAY))
        ok = fail(err, CARAT_E_FORMAT, "%s: not a JSON array of messages", what);
    for (size_t i = 0; ok && i < list->n; i++) {
        const json *item = json_at(list, i);
        const char *role = json_string(json_get(item, "role"), "");
        size_t offset = c->text.len, media = c->media->n;
        if (!*role) {
            ok = fail(err, CARAT_E_FORMAT, "%s: message %zu has no role", what, i);
            break;
        }
        ok = media_load(item, lenient, c->media, &c->text, err);
        if (!ok) c->text.len = offset;
        ok = ok && take_message(c, offset, media, strcmp(role, "model") == 0 ? 'a' : role[0], err);
    }
    arena_free(memory);
    return ok;
}

void conversation_write(const conversation *c, buf *out) {
    buf_puts(out, "[");
    for (size_t i = 0; i < c->n; i++) {
        if (i) buf_puts(out, ",\n ");
        buf_put(out, c->text.data + c->items[i].offset, c->items[i].len);
    }
    buf_puts(out, "]");
}

/* ---- what the user hands in ---- */

bool attach_options(attachments *a, const settings *s, carat_error *err) {
    for (size_t i = 0; i < s->media.n; i++)
        if (!attach(a, s->media.items[i].option, s->media.items[i].value, err)) return false;
    return true;
}

bool tools_read(const char *path, buf *out, carat_error *err) {
    arena *memory = arena_create(err);
    json *tools = NULL;
    bool ok = memory && read_all(path, out, err) &&
              json_parse(memory, out->data ? out->data : "", out->len, path, &tools, err);
    if (ok && tools->kind != JSON_ARRAY)
        ok = fail(err, CARAT_E_FORMAT, "%s: not a JSON array of tools", path);
    arena_free(memory);
    return ok;
}

bool schema_read(const settings *s, buf *out, carat_error *err) {
    const char *given = s->json_schema;
    if (!given && s->json_object) given = "{\"type\":\"object\"}";
    if (!given) return true;
    bool is_text = given[strspn(given, " \t\r\n")] == '{';
    if (is_text)
        buf_puts(out, given);
    else if (!read_all(given, out, err))
        return false;
    arena *memory = arena_create(err);
    json *schema = NULL;
    bool ok = memory && json_parse(memory, out->data ? out->data : "", out->len,
                                   is_text ? "--json-schema" : given, &schema, err);
    arena_free(memory);
    return ok;
}

bool prompt_read(const char *const *args, size_t n, const char *file, buf *out, carat_error *err) {
    bool after_text = false, has_stdin = false;
    for (size_t i = 0; i < n; i++) {
        bool is_stdin = strcmp(args[i], "-") == 0;
        if (is_stdin && has_stdin) continue;
        if (out->len) buf_puts(out, is_stdin || !after_text ? "\n\n" : " ");
        if (is_stdin && !read_all("-", out, err)) return false;
        if (!is_stdin) buf_puts(out, args[i]);
        after_text = !is_stdin;
        has_stdin |= is_stdin;
    }
    if (file && out->len) buf_puts(out, "\n\n");
    if (file && !read_all(file, out, err)) return false;
    if (n == 0 && !file && !stdin_is_terminal() && !read_all("-", out, err)) return false;
    return out->failed ? fail_memory(err, out->len, "the prompt") : true;
}
