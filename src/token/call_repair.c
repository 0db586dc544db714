/* token/call_repair.c: the slips that models make in tool calls, mended in this order:
 *
 *   bare text where the tool's schema takes a string is quoted (only when asked for),
 *   'a value in single quotes' becomes a string,
 *   a string that is open at the end is closed, in front of one final bracket,
 *   brackets that are open at the end are closed, if one of the others applied.
 *
 * Only a string at the very end can be closed: one left open further up stays an error.
 *
 * Flow: call.c comes here after strict parsing failed, and parses the result strictly. */
#include "token/call_repair.h"

#include <string.h>

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static const char *skip_space(const char *s, const char *end) {
    while (s < end && is_space(*s)) s++;
    return s;
}

/* Behind the string that begins at s, or the end of the text. */
static const char *skip_string(const char *s, const char *end) {
    char close = *s++;
    while (s < end && *s != close) s += close == '"' && *s == '\\' && end - s > 1 ? 2 : 1;
    return s < end ? s + 1 : end;
}

static void put_quote(buf *out) {
    static const char quote = CALL_QUOTE;
    buf_put(out, &quote, 1);
}

/* ---- bare text by schema ------------------------------------------------------------------ */

static bool takes_string(const json *property) {
    const json *type = json_get(property, "type");
    for (size_t i = 0; type && type->kind == JSON_ARRAY && i < type->n; i++)
        if (json_is_string(&type->items[i], "string")) return true;
    return json_is_string(type, "string");
}

static bool is_text(const json *s, const char *text, size_t n) {
    return s && s->kind == JSON_STRING && s->len == n && !memcmp(s->text, text, n);
}

static const json *find_properties(const json *tools, const call_parts *call) {
    for (size_t i = 0; tools && tools->kind == JSON_ARRAY && i < tools->n; i++) {
        const json *tool = &tools->items[i], *function = json_get(tool, "function");
        if (!function) function = tool;
        if (is_text(json_get(function, "name"), call->name, call->name_len))
            return json_get(json_get(function, "parameters"), "properties");
    }
    return NULL;
}

/* The property whose name, and then a colon, is at s. *value is where its value begins. */
static const json *property_at(const json *properties, const char *s, const char *end,
                               const char **value) {
    s = skip_space(s, end);
    for (size_t i = 0; properties && properties->kind == JSON_OBJECT && i < properties->n; i++) {
        const json *name = &properties->keys[i];
        if (name->len >= (size_t)(end - s) || memcmp(s, name->text, name->len)) continue;
        const char *colon = skip_space(s + name->len, end);
        if (colon == end || *colon != ':') continue;
        *value = skip_space(colon + 1, end);
        return &properties->items[i];
    }
    return NULL;
}

/* White space before stop left out. */
static const char *trim_end(const char *s, const char *stop) {
    while (stop > s && is_space(stop[-1])) stop--;
    return stop;
}

/* Whether the value at s, that ends at stop, is anything but bare text. */
static bool is_structured(const char *s, const char *stop) {
    if (s == stop || strchr("\xFF\"'{[", *s)) return true; /* also for a zero byte */
    stop = trim_end(s, stop);
    size_t n = call_number_length(s, stop);
    if (!n) n = call_word_length(s, stop);
    return n == (size_t)(stop - s);
}

/* Where bare text ends: at a comma before a known property's name, else at the last brace. */
static const char *bare_end(const json *properties, const char *s, const char *end) {
    const char *brace = end, *unused;
    for (const char *at = s; at < end; at++) {
        if (*at == ',' && property_at(properties, at + 1, end, &unused)) return at;
        if (*at == '}') brace = at;
    }
    return brace;
}

/* Behind the value at s: at a comma outside of strings and brackets, or at the end. */
static const char *skip_value(const char *s, const char *end) {
    for (int depth = 0; s < end;) {
        if (*s == CALL_QUOTE || *s == '"') {
            s = skip_string(s, end);
            continue;
        }
        if (*s == '{' || *s == '[') depth++;
        if (*s == '}' || *s == ']') depth--;
        if (depth < 0 || (depth == 0 && *s == ',')) return s;
        s++;
    }
    return s;
}

/* Copies arguments [n], bare text quoted. */
static bool quote_bare_text(const json *properties, const char *arguments, size_t n, buf *out) {
    const char *at = arguments + 1, *end = arguments + n, *copied = arguments, *value;
    bool changed = false;
    while (at < end) {
        const json *property = property_at(properties, at, end, &value);
        const char *stop = skip_value(property ? value : at, end);
        const char *bare = takes_string(property) ? bare_end(properties, value, end) : NULL;
        if (bare && !is_structured(value, bare)) {
            buf_put(out, copied, (size_t)(value - copied));
            put_quote(out);
            buf_put(out, value, (size_t)(trim_end(value, bare) - value));
            put_quote(out);
            copied = stop = bare;
            changed = true;
        }
        at = stop < end ? stop + 1 : end;
    }
    buf_put(out, copied, (size_t)(end - copied));
    return changed;
}

/* ---- quotes and brackets ------------------------------------------------------------------ */

/* The quote that closes the one in front of s: one that something can follow. */
static const char *closing_quote(const char *s, const char *end) {
    for (; s < end; s++) {
        if (*s != '\'') continue;
        const char *next = skip_space(s + 1, end);
        if (next == end || *next == ',' || *next == '}' || *next == ']' || *next == CALL_QUOTE)
            return s;
    }
    return NULL;
}

/* Copies text [n], values in single quotes as strings. */
static bool convert_single_quotes(const char *text, size_t n, buf *out) {
    bool changed = false, none = false, value = false; /* value: one may begin here */
    for (const char *at = text, *end = text + n; at < end;) {
        bool open = value && *at == '\'' && !none;
        const char *close = open ? closing_quote(at + 1, end) : NULL, *next = at + 1;
        none = none || (open && !close); /* further on there is none either */
        if (close) {
            put_quote(out);
            buf_put(out, at + 1, (size_t)(close - at - 1));
            put_quote(out);
            next = close + 1;
            if (next < end && *next == CALL_QUOTE) next++;
            changed = true;
        } else {
            if (*at == CALL_QUOTE || *at == '"') next = skip_string(at, end);
            buf_put(out, at, (size_t)(next - at));
        }
        value = *at == ':' || *at == '[' || *at == ',' || (value && is_space(*at));
        at = next;
    }
    return changed;
}

/* Closes a string that is open at the end. */
static bool close_string(buf *b) {
    static const char quote = CALL_QUOTE;
    size_t n_quote = 0;
    for (size_t i = 0; i < b->len; i++) n_quote += b->data[i] == CALL_QUOTE;
    if (n_quote % 2 == 0) return false;
    while (b->len && is_space(b->data[b->len - 1])) b->len--;
    char last = b->len ? b->data[b->len - 1] : 0;
    bool bracket = last == '}' || last == ']';
    if (bracket) b->len--;
    buf_put(b, &quote, 1);
    if (bracket) buf_put(b, &last, 1);
    return true;
}

static void close_brackets(buf *b) {
    buf open = {0}; /* the closing brackets that are due */
    for (const char *at = b->data, *end = at + b->len; at < end;) {
        if (*at == CALL_QUOTE || *at == '"') {
            at = skip_string(at, end);
            continue;
        }
        if (*at == '{') buf_puts(&open, "}");
        if (*at == '[') buf_puts(&open, "]");
        if (open.len && *at == open.data[open.len - 1]) open.len--;
        at++;
    }
    while (open.len) buf_put(b, &open.data[--open.len], 1);
    if (open.failed) b->failed = true;
    buf_free(&open);
}

bool call_repair(const call_parts *call, const json *tools, buf *out) {
    buf quoted = {0};
    bool changed = false;
    const json *properties = find_properties(tools, call);
    if (properties)
        changed = quote_bare_text(properties, call->arguments, call->arguments_len, &quoted);
    else
        buf_put(&quoted, call->arguments, call->arguments_len);

    if (!quoted.failed) {
        changed |= convert_single_quotes(quoted.data, quoted.len, out);
        if (!out->failed) changed |= close_string(out);
        if (!out->failed && changed) close_brackets(out);
    }
    if (quoted.failed) out->failed = true;
    buf_free(&quoted);
    return changed;
}
