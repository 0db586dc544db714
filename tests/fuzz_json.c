/* Fuzzes JSON: whatever parses must be written again and parse to the same. */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool same(const json *a, const json *b) {
    if (a->kind != b->kind || a->truth != b->truth || a->len != b->len || a->n != b->n)
        return false;
    if (a->len && memcmp(a->text, b->text, a->len) != 0) return false;
    for (size_t i = 0; i < a->n; i++) {
        if (!same(&a->items[i], &b->items[i])) return false;
        if (a->kind == JSON_OBJECT && !same(&a->keys[i], &b->keys[i])) return false;
    }
    return true;
}

static void read_all(const json *v) {
    json_number(v, 0);
    for (size_t i = 0; i < v->n; i++) {
        if (v->kind == JSON_OBJECT && !json_get(v, v->keys[i].text)) {
            if (strlen(v->keys[i].text) == v->keys[i].len) abort();
        }
        read_all(json_at(v, i) ? json_at(v, i) : &v->items[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    char *text = malloc(n ? n : 1); /* ends where the input does */
    arena *a = arena_create(NULL);
    json *v, *again;
    carat_error err = {0};
    buf b = {0};
    if (n) memcpy(text, data, n);
    if (json_parse(a, text, n, "input", &v, &err)) {
        if (n < 4096) read_all(v);
        json_write(&b, v);
        if (!json_parse(a, b.data, b.len, "output", &again, &err) || !same(v, again)) abort();
    } else if (err.code != CARAT_E_FORMAT)
        abort();
    buf_free(&b);
    arena_free(a);
    free(text);
    return 0;
}
