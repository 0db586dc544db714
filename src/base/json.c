/* json: text to a tree and back (RFC 8259). Strict: no comments, no trailing commas, no NaN.
 *
 * The text is copied into the arena once; strings are decoded in place there (a decoded string is
 * never longer than its source), so a tree costs the text plus one struct a value. Values under
 * construction wait on a stack until their array or object closes and its size is known.
 *
 * Flow: after file/source.c for safetensors and Ollama's manifests, before token/chat.c for
 * conversations. */
#include "base/base.h"

#include <math.h>
#include <string.h>

enum { DEPTH_MAX = 64 };

typedef struct parser {
    arena *a;
    const char *what;
    char *start, *at, *end; /* *end is 0 */
    buf stack;              /* of json: children of what is still open */
    int depth;
    carat_error *err;
} parser;

static bool parse_value(parser *p, json *v);

static bool wrong(parser *p, const char *why) {
    return fail(p->err, CARAT_E_FORMAT, "%s: %s at byte %zu", p->what, why,
                (size_t)(p->at - p->start));
}

static void skip_space(parser *p) {
    while (*p->at == ' ' || *p->at == '\n' || *p->at == '\t' || *p->at == '\r') p->at++;
}

static bool parse_word(parser *p, const char *word) {
    size_t n = strlen(word);
    if ((size_t)(p->end - p->at) < n || memcmp(p->at, word, n) != 0)
        return wrong(p, "unknown word");
    p->at += n;
    return true;
}

/* ---- numbers ---- */

static bool digits(char **at) {
    char *s = *at;
    while (**at >= '0' && **at <= '9') ++*at;
    return *at > s;
}

static bool parse_number(parser *p, json *v) {
    char *s = p->at;
    if (*p->at == '-') p->at++;
    char *first = p->at;
    if (!digits(&p->at)) return wrong(p, "bad number");
    if (*first == '0' && p->at - first > 1) return wrong(p, "number with a leading zero");
    if (*p->at == '.') {
        p->at++;
        if (!digits(&p->at)) return wrong(p, "number without digits after its point");
    }
    if (*p->at == 'e' || *p->at == 'E') {
        p->at++;
        if (*p->at == '+' || *p->at == '-') p->at++;
        if (!digits(&p->at)) return wrong(p, "number without digits in its exponent");
    }
    *v = (json){.kind = JSON_NUMBER, .text = s, .len = (size_t)(p->at - s)};
    return true;
}

/* ---- strings ---- */

static bool hex4(parser *p, unsigned *code) {
    *code = 0;
    for (int i = 0; i < 4; i++, p->at++) {
        char c = *p->at;
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                : 16;
        if (digit > 15) return wrong(p, "bad \\u escape");
        *code = *code << 4 | digit;
    }
    return true;
}

static char *put_utf8(char *to, unsigned code) {
    if (code < 0x80) {
        *to++ = (char)code;
        return to;
    }
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    unsigned lead = more == 1 ? 0xc0 : more == 2 ? 0xe0 : 0xf0;
    *to++ = (char)(lead | code >> 6 * more);
    while (more-- > 0) *to++ = (char)(0x80 | (code >> 6 * more & 0x3f));
    return to;
}

/* After "\u": one code point, of a surrogate pair if there is one. */
static bool parse_unicode(parser *p, char **to) {
    unsigned code, low;
    if (!hex4(p, &code)) return false;
    if (code >= 0xd800 && code < 0xdc00 && p->at[0] == '\\' && p->at[1] == 'u') {
        char *second = p->at;
        p->at += 2;
        if (!hex4(p, &low)) return false;
        if (low >= 0xdc00 && low < 0xe000)
            code = 0x10000 + ((code - 0xd800) << 10) + low - 0xdc00;
        else
            p->at = second; /* not a pair: the second stands for itself */
    }
    if (code >= 0xd800 && code < 0xe000) code = 0xfffd;
    *to = put_utf8(*to, code);
    return true;
}

static bool parse_escape(parser *p, char **to) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char c = p->at[1];
    p->at += 2;
    if (c == 'u') return parse_unicode(p, to);
    const char *name = c ? strchr(names, c) : NULL;
    if (name == NULL) {
        p->at -= 2;
        return wrong(p, "unknown escape");
    }
    *(*to)++ = values[name - names];
    return true;
}

static bool parse_string(parser *p, json *v) {
    char *s = ++p->at, *to = s;
    while (*p->at != '"') {
        if (*p->at == '\\') {
            if (!parse_escape(p, &to)) return false;
            continue;
        }
        if (p->at == p->end) return wrong(p, "string without an end");
        if ((unsigned char)*p->at < 0x20) return wrong(p, "control character in a string");
        size_t len = utf8_length(p->at, (size_t)(p->end - p->at));
        if (len == 0) return wrong(p, "invalid UTF-8");
        while (len-- > 0) *to++ = *p->at++;
    }
    p->at++;
    *to = 0; /* at most where the closing quote was */
    *v = (json){.kind = JSON_STRING, .text = s, .len = (size_t)(to - s)};
    return true;
}

/* ---- arrays and objects ---- */

static bool push(parser *p, const json *v) {
    buf_put(&p->stack, v, sizeof *v);
    if (p->stack.failed) return fail_memory(p->err, p->stack.len * 2, p->what);
    return true;
}

/* Moves every step-th value of the stack, from byte `from` on, into the arena. */
static bool pop(parser *p, size_t from, size_t step, size_t n, json **out) {
    *out = arena_alloc(p->a, n, sizeof **out);
    if (*out == NULL) return fail_memory(p->err, n * sizeof **out, p->what);
    for (size_t i = 0; i < n; i++)
        memcpy(&(*out)[i], p->stack.data + from + i * step * sizeof **out, sizeof **out);
    return true;
}

static bool parse_member(parser *p) {
    json key;
    if (*p->at != '"') return wrong(p, "expected a key");
    if (!parse_string(p, &key) || !push(p, &key)) return false;
    skip_space(p);
    if (*p->at != ':') return wrong(p, "expected ':'");
    p->at++;
    return true;
}

static bool parse_list(parser *p, json *v) {
    bool object = *p->at++ == '{';
    char close = object ? '}' : ']';
    size_t from = p->stack.len, n = 0, step = object ? 2 : 1;
    if (++p->depth > DEPTH_MAX) return wrong(p, "nested too deeply");
    skip_space(p);
    while (n > 0 || *p->at != close) {
        json item;
        skip_space(p);
        if (object && !parse_member(p)) return false;
        if (!parse_value(p, &item) || !push(p, &item)) return false;
        n++;
        skip_space(p);
        if (*p->at == close) break;
        if (*p->at != ',') return wrong(p, object ? "expected ',' or '}'" : "expected ',' or ']'");
        p->at++;
    }
    p->at++;
    p->depth--;
    *v = (json){.kind = object ? JSON_OBJECT : JSON_ARRAY, .n = n};
    if (n == 0) return true;
    if (object && !pop(p, from, step, n, &v->keys)) return false;
    if (!pop(p, from + (step - 1) * sizeof *v, step, n, &v->items)) return false;
    p->stack.len = from;
    return true;
}

static bool parse_value(parser *p, json *v) {
    skip_space(p);
    switch (*p->at) {
    case '{':
    case '[':
        return parse_list(p, v);
    case '"':
        return parse_string(p, v);
    case 'n':
        *v = (json){.kind = JSON_NULL};
        return parse_word(p, "null");
    case 't':
        *v = (json){.kind = JSON_BOOL, .truth = true};
        return parse_word(p, "true");
    case 'f':
        *v = (json){.kind = JSON_BOOL};
        return parse_word(p, "false");
    default:
        if (p->at == p->end) return wrong(p, "value missing");
        return parse_number(p, v);
    }
}

bool json_parse(arena *a, const char *text, size_t n, const char *what, json **out,
                carat_error *err) {
    parser p = {.a = a, .what = what, .err = err};
    json *root = arena_alloc(a, 1, sizeof *root);
    p.start = p.at = arena_copy(a, text, n);
    if (root == NULL || p.start == NULL) return fail_memory(err, n, what);
    p.end = p.start + n;
    bool ok = parse_value(&p, root);
    if (ok) {
        skip_space(&p);
        if (p.at != p.end) ok = wrong(&p, "more text after the value");
    }
    buf_free(&p.stack);
    if (ok) *out = root;
    return ok;
}

/* ---- reading the tree --------------------------------------------------------------------- */

const json *json_get(const json *object, const char *key) {
    if (object == NULL || object->kind != JSON_OBJECT) return NULL;
    for (size_t i = object->n; i-- > 0;)
        if (json_is_string(&object->keys[i], key)) return &object->items[i];
    return NULL;
}

const json *json_at(const json *array, size_t i) {
    if (array == NULL || array->kind != JSON_ARRAY || i >= array->n) return NULL;
    return &array->items[i];
}

bool json_is_string(const json *v, const char *s) {
    if (v == NULL || v->kind != JSON_STRING) return false;
    return v->len == strlen(s) && memcmp(v->text, s, v->len) == 0;
}

const char *json_string(const json *v, const char *otherwise) {
    return v && v->kind == JSON_STRING ? v->text : otherwise;
}

bool json_bool(const json *v, bool otherwise) {
    return v && v->kind == JSON_BOOL ? v->truth : otherwise;
}

/* Not strtod(): that one takes the decimal point from the user's locale. Exact for numbers of at
 * most 15 digits and moderate size (as people write them), within a few ulp for the rest. */
double json_number(const json *v, double otherwise) {
    if (v == NULL || v->kind != JSON_NUMBER) return otherwise;
    const char *s = v->text, *end = v->text + v->len;
    bool negative = *s == '-', point = false;
    uint64_t digit = 0;
    int scale = 0, exponent = 0;
    for (s += negative; s < end && *s != 'e' && *s != 'E'; s++) {
        if (*s == '.') {
            point = true;
            continue;
        }
        bool room = digit < 1000000000000000000;
        if (room) digit = digit * 10 + (uint64_t)(*s - '0');
        if (room && point && scale > -100000) scale--;
        if (!room && !point && scale < 100000) scale++;
    }
    bool down = s + 1 < end && s[1] == '-';
    for (s++; s < end; s++)
        if (*s >= '0' && *s <= '9' && exponent < 100000) exponent = exponent * 10 + (*s - '0');
    scale += down ? -exponent : exponent;
    double x = (double)digit;
    if (digit == 0)
        x = 0;
    else if (scale >= 0 && scale <= 22)
        x *= pow(10, scale);
    else if (scale < 0 && scale >= -22)
        x /= pow(10, -scale);
    else if (scale < -300)
        x = x * 1e-290 * pow(10, scale + 290); /* not through a zero */
    else
        x *= pow(10, scale);
    return negative ? -x : x;
}

/* ---- writing ------------------------------------------------------------------------------ */

void json_write_string(buf *b, const char *s, size_t n) {
    buf_put(b, "\"", 1);
    for (size_t i = 0, len; i < n; i += len) {
        unsigned char c = (unsigned char)s[i];
        len = utf8_length(s + i, n - i);
        if (len == 0) {
            buf_puts(b, "\xef\xbf\xbd");
            len = 1;
        } else if (c == '"' || c == '\\')
            buf_printf(b, "\\%c", c);
        else if (c == '\n')
            buf_puts(b, "\\n");
        else if (c == '\t')
            buf_puts(b, "\\t");
        else if (c == '\r')
            buf_puts(b, "\\r");
        else if (c < 0x20 || c == 0x7f)
            buf_printf(b, "\\u%04x", c);
        else
            buf_put(b, s + i, len);
    }
    buf_put(b, "\"", 1);
}

void json_write(buf *b, const json *v) {
    switch (v ? v->kind : JSON_NULL) {
    case JSON_NULL:
        buf_puts(b, "null");
        break;
    case JSON_BOOL:
        buf_puts(b, v->truth ? "true" : "false");
        break;
    case JSON_NUMBER:
        buf_put(b, v->text, v->len);
        break;
    case JSON_STRING:
        json_write_string(b, v->text, v->len);
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        buf_puts(b, v->kind == JSON_ARRAY ? "[" : "{");
        for (size_t i = 0; i < v->n; i++) {
            if (i) buf_puts(b, ",");
            if (v->kind == JSON_OBJECT) {
                json_write(b, &v->keys[i]);
                buf_puts(b, ":");
            }
            json_write(b, &v->items[i]);
        }
        buf_puts(b, v->kind == JSON_ARRAY ? "]" : "}");
        break;
    }
}
