/* token/call.c: a tool call as the model writes it -> JSON.
 *
 *     call   = "call:" name object
 *     object = "{" [ key ":" value { "," key ":" value } ] "}"
 *     key    = anything up to ":", or a string
 *     value  = string | object | array | number | true | false | null
 *     string = QUOTE anything QUOTE, nothing escaped | a JSON string
 *
 * Parsing is strict. What fails is mended by call_repair.c and parsed strictly again. Keys keep
 * their order; duplicates are passed on, of which readers of JSON take the last.
 *
 * Flow: reply.c collects the text between the call tokens; the JSON goes to the program. */
#include "token/call_repair.h"

#include <string.h>

enum { DEPTH_MAX = 60 }; /* so that json_parse() takes the result */

typedef struct parser {
    const char *start, *at, *end;
    buf *out;
    int depth;
    carat_error *err;
} parser;

static bool parse_value(parser *p);

static bool wrong(parser *p, const char *what) {
    return fail(p->err, CARAT_E_FORMAT, "tool call: %s at byte %zu", what,
                (size_t)(p->at - p->start));
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static void skip_space(parser *p) {
    while (p->at < p->end && is_space(*p->at)) p->at++;
}

/* Takes c, after white space. */
static bool take(parser *p, char c) {
    skip_space(p);
    if (p->at == p->end || *p->at != c) return false;
    p->at++;
    return true;
}

/* ---- strings ------------------------------------------------------------------------------ */

static bool parse_quoted(parser *p) {
    const char *from = ++p->at;
    const char *close = memchr(from, CALL_QUOTE, (size_t)(p->end - from));
    if (!close) return wrong(p, "a string does not end");
    json_write_string(p->out, from, (size_t)(close - from));
    p->at = close + 1;
    return true;
}

/* Length of the escape sequence at s, 0: none. */
static size_t escape_length(const char *s, const char *end) {
    if (end - s < 2 || !strchr("\"\\/bfnrtu", s[1]) || !s[1]) return 0;
    if (s[1] != 'u') return 2;
    for (size_t i = 2; i < 6; i++)
        if (s + i >= end || !memchr("0123456789abcdefABCDEF", s[i], 22)) return 0;
    return 6;
}

/* A JSON string, copied; raw control characters in it are escaped. */
static bool parse_json_string(parser *p) {
    buf_puts(p->out, "\"");
    for (p->at++; p->at < p->end && *p->at != '"' && *p->at != CALL_QUOTE;) {
        size_t len = 1;
        if (*p->at == '\\' && !(len = escape_length(p->at, p->end)))
            return wrong(p, "an unknown escape");
        if ((uint8_t)*p->at < 0x20)
            buf_printf(p->out, "\\u%04x", (unsigned)*p->at);
        else
            buf_put(p->out, p->at, len);
        p->at += len;
    }
    if (p->at == p->end || *p->at != '"') return wrong(p, "a string does not end");
    p->at++;
    buf_puts(p->out, "\"");
    return true;
}

/* ---- values ------------------------------------------------------------------------------- */

size_t call_number_length(const char *s, const char *end) {
    const char *at = s;
    if (at < end && *at == '-') at++;
    const char *first = at;
    while (at < end && is_digit(*at)) at++;
    if (at == first || (*first == '0' && at - first > 1)) return 0;
    if (at < end && *at == '.') {
        const char *point = at++;
        while (at < end && is_digit(*at)) at++;
        if (at == point + 1) return 0;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-')) at++;
        const char *exponent = at;
        while (at < end && is_digit(*at)) at++;
        if (at == exponent) return 0;
    }
    return (size_t)(at - s);
}

size_t call_word_length(const char *s, const char *end) {
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < COUNT(words); i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(end - s) >= n && !memcmp(s, words[i], n)) return n;
    }
    return 0;
}

static bool parse_plain(parser *p) {
    size_t n = call_number_length(p->at, p->end);
    if (!n) n = call_word_length(p->at, p->end);
    if (!n) return wrong(p, "a value is expected");
    buf_put(p->out, p->at, n);
    p->at += n;
    return true;
}

static bool parse_key(parser *p) {
    skip_space(p);
    if (p->at < p->end && *p->at == CALL_QUOTE) return parse_quoted(p);
    if (p->at < p->end && *p->at == '"') return parse_json_string(p);
    const char *from = p->at;
    while (p->at < p->end && *p->at != ':' && *p->at != '}' && *p->at != CALL_QUOTE) p->at++;
    const char *to = p->at;
    while (to > from && is_space(to[-1])) to--;
    if (to == from || *from == ',') return wrong(p, "a key is expected");
    json_write_string(p->out, from, (size_t)(to - from));
    return true;
}

static bool parse_object(parser *p) {
    buf_puts(p->out, "{");
    p->at++;
    for (bool first = true; !(first && take(p, '}')); first = false) {
        if (!parse_key(p)) return false;
        if (!take(p, ':')) return wrong(p, "\":\" is expected");
        buf_puts(p->out, ":");
        if (!parse_value(p)) return false;
        if (take(p, '}')) break;
        if (!take(p, ',')) return wrong(p, "\",\" or \"}\" is expected");
        buf_puts(p->out, ",");
    }
    buf_puts(p->out, "}");
    return true;
}

static bool parse_array(parser *p) {
    buf_puts(p->out, "[");
    p->at++;
    for (bool first = true; !(first && take(p, ']')); first = false) {
        if (!parse_value(p)) return false;
        if (take(p, ']')) break;
        if (!take(p, ',')) return wrong(p, "\",\" or \"]\" is expected");
        buf_puts(p->out, ",");
    }
    buf_puts(p->out, "]");
    return true;
}

static bool parse_value(parser *p) {
    skip_space(p);
    char c = p->at < p->end ? *p->at : 0;
    if (c == CALL_QUOTE) return parse_quoted(p);
    if (c == '"') return parse_json_string(p);
    if (c != '{' && c != '[') return parse_plain(p);
    if (p->depth == DEPTH_MAX) return wrong(p, "too many brackets");
    p->depth++;
    bool ok = c == '{' ? parse_object(p) : parse_array(p);
    p->depth--;
    return ok;
}

/* ---- the whole ---------------------------------------------------------------------------- */

bool call_split(const char *text, size_t n, call_parts *out) {
    static const char prefix[] = "call:";
    const char *end = text + n;
    while (text < end && is_space(*text)) text++;
    while (end > text && is_space(end[-1])) end--;
    if ((size_t)(end - text) < sizeof prefix - 1 || memcmp(text, prefix, sizeof prefix - 1))
        return false;
    text += sizeof prefix - 1;
    const char *open = memchr(text, '{', (size_t)(end - text));
    if (!open) return false;
    const char *name_end = open;
    while (text < name_end && is_space(*text)) text++;
    while (name_end > text && is_space(name_end[-1])) name_end--;
    *out = (call_parts){text, (size_t)(name_end - text), open, (size_t)(end - open)};
    return out->name_len && !memchr(text, CALL_QUOTE, out->name_len);
}

static bool parse_strictly(const call_parts *call, const char *arguments, size_t n, buf *out,
                           carat_error *err) {
    size_t before = out->len;
    buf_puts(out, "{\"name\":");
    json_write_string(out, call->name, call->name_len);
    buf_puts(out, ",\"arguments\":");
    parser p = {arguments, arguments, arguments + n, out, 0, err};
    bool ok = parse_value(&p);
    skip_space(&p);
    if (ok && p.at < p.end) ok = wrong(&p, "something follows its end");
    buf_puts(out, "}");
    if (!ok && !out->failed) out->len = before;
    return ok;
}

bool call_parse(const char *text, size_t n, const json *tools, buf *out, carat_error *err) {
    call_parts call;
    if (!call_split(text, n, &call))
        return fail(err, CARAT_E_FORMAT, "tool call: call:NAME{...} is expected");
    carat_error first = {0};
    bool ok = parse_strictly(&call, call.arguments, call.arguments_len, out, &first);

    buf mended = {0};
    for (int pass = 0; !ok && !out->failed && pass < (tools ? 2 : 1); pass++) {
        carat_error again = {0};
        buf_reset(&mended);
        bool changed = call_repair(&call, pass ? tools : NULL, &mended);
        if (mended.failed) break;
        ok = changed && parse_strictly(&call, mended.data, mended.len, out, &again);
    }
    bool no_memory = out->failed || mended.failed;
    buf_free(&mended);
    if (no_memory) return fail_memory(err, n, "a tool call");
    return ok || fail(err, first.code, "%s", first.message);
}

void put_valid_utf8(buf *out, const char *text, size_t n, bool keep_quotes) {
    for (size_t at = 0, len; at < n; at += len) {
        len = utf8_length(text + at, n - at);
        if (len || (keep_quotes && text[at] == CALL_QUOTE)) {
            if (!len) len = 1;
            buf_put(out, text + at, len);
            continue;
        }
        /* what begins a character but does not end it counts as one */
        for (len = n - at < 3 ? n - at : 3; len > 1 && utf8_complete(text + at, len) != 0;) len--;
        buf_puts(out, "\xEF\xBF\xBD");
    }
}

bool reply_parse_call(const char *text, size_t n, const json *tools, buf *out, carat_error *err) {
    static const char quote[] = "<|\"|>";
    static const char mark = CALL_QUOTE;
    buf call = {0};
    for (const char *end = text + n; text < end;) {
        const char *at = memmem(text, (size_t)(end - text), quote, sizeof quote - 1);
        put_valid_utf8(&call, text, (size_t)((at ? at : end) - text), false);
        if (at) buf_put(&call, &mark, 1);
        text = at ? at + sizeof quote - 1 : end;
    }
    bool ok = call.failed ? fail_memory(err, n, "a tool call")
                          : call_parse(call.data ? call.data : "", call.len, tools, out, err);
    buf_free(&call);
    return ok;
}
