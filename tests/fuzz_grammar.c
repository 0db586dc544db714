/* Any bytes as a JSON Schema, a zero byte, then any bytes as the answer: no crash, little time.
 * What the machine takes can be completed, and what it calls whole is JSON. */
#include "token/token.h"

#include <stdlib.h>
#include <string.h>

/* Takes the bytes that are allowed; the others are left out. */
static void feed(grammar *g, buf *text, const char *s, size_t n) {
    for (size_t i = 0; i < n && text->len < 4096; i++) {
        bool allowed = grammar_allows(g, s + i, 1);
        if (grammar_accept(g, s + i, 1) != allowed) abort();
        if (allowed) buf_put(text, s + i, 1);
    }
}

/* Some byte may follow, or it is whole. */
static void check(arena *a, grammar *g, const buf *text) {
    json *value;
    carat_error err = {0};
    bool any = false;
    for (unsigned b = 0; b < 256; b++) {
        char c = (char)b;
        any = any || grammar_allows(g, &c, 1);
    }
    if (!any && !grammar_ends(g)) abort();
    if (grammar_ends(g) && !json_parse(a, text->data, text->len, "answer", &value, &err)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const char *schema = (const char *)data, *end = n ? memchr(data, 0, n) : NULL;
    if (!end) return 0;
    arena *a = arena_create(NULL);
    carat_error err = {0};
    grammar *g;
    buf text = {0};
    if (grammar_create(a, schema, &g, &err)) {
        feed(g, &text, end + 1, (size_t)((const char *)data + n - end) - 1);
        check(a, g, &text);
    } else if ((err.code != CARAT_E_FORMAT && err.code != CARAT_E_UNSUPPORTED) || !err.message[0]) {
        abort();
    }
    if (arena_bytes(a) > 64u << 20) abort();
    buf_free(&text);
    arena_free(a);
    return 0;
}
