/* Fuzzes replies: a byte of options, then what the model says. It is fed as tokens and once more
 * with every character as byte tokens, which must give the same; every part must be valid UTF-8 and
 * every call JSON. The text is also read as a call directly. */
#include "token/token.h"
#include "token/vocab.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const tokenizer *nano;
static const json *tools;

static void load(void) {
    static const char schema[] =
        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\","
        "\"properties\":{\"a\":{\"type\":\"string\"},\"b\":{\"type\":[\"string\",\"null\"]},"
        "\"n\":{\"type\":\"number\"}}}}}]";
    static arena *memory;
    gguf *g;
    tokenizer *t;
    json *parsed;
    memory = arena_create(NULL);
    if (!gguf_open(memory, "models/nano.gguf", &g, NULL) ||
        !tokenizer_create(memory, g, &t, NULL) ||
        !json_parse(memory, schema, sizeof schema - 1, "schema", &parsed, NULL))
        abort();
    gguf_close(g);
    nano = t;
    tools = parsed;
}

static void check_json(const char *text, size_t n) {
    arena *a = arena_create(NULL);
    json *v;
    if (!json_parse(a, text, n, "call", &v, NULL)) abort();
    const json *arguments = json_get(v, "arguments");
    if (!json_get(v, "name") || !arguments || arguments->kind != JSON_OBJECT) abort();
    arena_free(a);
}

/* All parts of a kind after one another. */
typedef struct reading {
    buf kinds[3];
} reading;

static uint32_t take(reply *r, reading *out) {
    reply_part p;
    uint32_t n_calls = 0;
    while (reply_next(r, &p)) {
        if (!p.len) abort();
        for (size_t at = 0, len; at < p.len; at += len)
            if (!(len = utf8_length(p.text + at, p.len - at))) abort();
        if (p.kind == REPLY_CALL) check_json(p.text, p.len), n_calls++;
        buf_put(&out->kinds[p.kind], p.text, p.len);
    }
    return n_calls;
}

static void feed(const id_list *ids, uint8_t options, reading *out) {
    static const char *const stops[] = {"END", "a\n", "\xC3\xA9", "E", "NDX"};
    static const size_t n_stops[] = {0, 1, 3, 5};
    carat_error err = {0};
    reply *r;
    uint32_t n_calls = 0;
    bool stopped;
    if (!reply_create(nano, options & 16 ? tools : NULL, options & 1, options & 2, stops,
                      n_stops[options >> 2 & 3], &r, &err))
        abort();
    for (size_t i = 0; i < ids->len; i++) {
        if (!reply_feed(r, ids->data[i], &stopped, &err)) abort();
        n_calls += take(r, out);
    }
    if (!reply_end(r, &err)) abort();
    n_calls += take(r, out);
    if (n_calls != reply_n_calls(r)) abort();
    reply_free(r);
}

static void put_bytewise(const id_list *ids, id_list *out) {
    for (size_t i = 0; i < ids->len; i++) {
        buf text = {0};
        if (tokenizer_is_special(nano, ids->data[i]))
            ids_put(out, ids->data[i]);
        else
            tokenizer_decode(nano, ids->data[i], true, &text);
        for (size_t k = 0; k < text.len; k++)
            ids_put(out, ((const vocab *)nano->tables)->byte_id[(uint8_t)text.data[k]]);
        buf_free(&text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!nano) load();
    if (!n) return 0;
    const char *text = (const char *)data + 1;
    id_list whole = {0}, bytewise = {0};
    reading a = {0}, b = {0};
    tokenizer_encode(nano, text, n - 1, true, &whole);
    put_bytewise(&whole, &bytewise);
    feed(&whole, data[0], &a);
    feed(&bytewise, data[0], &b);
    for (size_t i = 0; i < 3; i++) {
        buf *x = &a.kinds[i], *y = &b.kinds[i];
        if (x->len != y->len || (x->len && memcmp(x->data, y->data, x->len))) abort();
        buf_free(x);
        buf_free(y);
    }
    ids_free(&whole);
    ids_free(&bytewise);

    buf call = {0};
    carat_error err = {0};
    if (reply_parse_call(text, n - 1, data[0] & 16 ? tools : NULL, &call, &err))
        check_json(call.data, call.len);
    else if (err.code != CARAT_E_FORMAT || call.len)
        abort();
    buf_free(&call);
    return 0;
}
