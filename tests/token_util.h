/* Shared by the tests of src/token: files, the vocabularies, a minimal GGUF writer. */
#ifndef TOKEN_UTIL_H
#define TOKEN_UTIL_H

#include "token/token.h"

#include "load_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VOCAB "build/vocab.gguf"
#define NANO  "models/nano.gguf"

/* The tokenizer of a GGUF file, whose own memory is gone when this returns. */
static inline tokenizer *load_tokenizer(arena *a, const char *path) {
    carat_error err = {0};
    tokenizer *t = NULL;
    gguf *g = NULL;
    arena *file = arena_create(&err);
    if (!gguf_open(file, path, &g, &err) || !tokenizer_create(a, g, &t, &err))
        fail_msg("%s", err.message);
    gguf_close(g);
    arena_free(file);
    return t;
}

/* The real vocabulary, which tools/vocab.mjs builds; false when it cannot be had. */
static inline bool have_vocab(void) {
    FILE *f = fopen(VOCAB, "rb");
    if (!f && system("node tools/vocab.mjs " VOCAB) == 0) f = fopen(VOCAB, "rb");
    if (f) fclose(f);
    return f != NULL;
}

#define SKIP_WITHOUT_VOCAB(t)                                                                      \
    do {                                                                                           \
        if (!(t)) {                                                                                \
            print_message("SKIPPED: %s: no real vocabulary (tools/vocab.mjs failed)\n", __func__); \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

static inline void assert_ids(const char *what, const id_list *got, const json *want) {
    bool same = got->len == want->n;
    for (size_t i = 0; same && i < want->n; i++)
        same = got->data[i] == (int32_t)json_number(&want->items[i], -1);
    if (same) return;
    print_message("%s:\n  want", what);
    for (size_t i = 0; i < want->n; i++) print_message(" %g", json_number(&want->items[i], -1));
    print_message("\n  got ");
    for (size_t i = 0; i < got->len; i++) print_message(" %d", got->data[i]);
    print_message("\n");
    fail_msg("other ids: %s", what);
}

/* ---- a GGUF of tokenizer keys ---- */

static inline void put_u32(buf *b, uint32_t v) { buf_put(b, &v, sizeof v); }
static inline void put_u64(buf *b, uint64_t v) { buf_put(b, &v, sizeof v); }
static inline void put_text(buf *b, const char *s, size_t n) {
    put_u64(b, n);
    buf_put(b, s, n);
}
static inline void put_key(buf *b, const char *key, uint32_t kind) {
    put_text(b, key, strlen(key));
    put_u32(b, kind);
}
static inline void put_strings(buf *b, const char *key, const char *const *s, size_t n) {
    put_key(b, key, 9);
    put_u32(b, 8);
    put_u64(b, n);
    for (size_t i = 0; i < n; i++) put_text(b, s[i], strlen(s[i]));
}
static inline void put_header(buf *b, uint64_t n_key) {
    buf_put(b, "GGUF", 4);
    put_u32(b, 3);
    put_u64(b, 0);
    put_u64(b, n_key);
}

#endif
