/* Builds GGUF files in memory, right or wrong, for tests. */
#ifndef GGUF_BUILD_H
#define GGUF_BUILD_H

#include "file/file.h"

#include <string.h>

static inline void put_number(buf *b, uint64_t value, unsigned n_byte) {
    for (unsigned i = 0; i < n_byte; i++) buf_put(b, &(char){(char)(value >> 8 * i)}, 1);
}

static inline void put_string(buf *b, const char *s) {
    put_number(b, strlen(s), 8);
    buf_puts(b, s);
}

static inline void put_head(buf *b, uint64_t n_tensor, uint64_t n_value) {
    buf_puts(b, "GGUF");
    put_number(b, 3, 4);
    put_number(b, n_tensor, 8);
    put_number(b, n_value, 8);
}

static inline void put_key(buf *b, const char *key, uint32_t kind) {
    put_string(b, key);
    put_number(b, kind, 4);
}

/* A key with an integer of 4 bytes. */
static inline void put_u32(buf *b, const char *key, uint32_t value) {
    put_key(b, key, GGUF_U32);
    put_number(b, value, 4);
}

/* A tensor of one dimension. */
static inline void put_tensor(buf *b, const char *name, uint64_t n, uint32_t type,
                              uint64_t offset) {
    put_string(b, name);
    put_number(b, 1, 4);
    put_number(b, n, 8);
    put_number(b, type, 4);
    put_number(b, offset, 8);
}

/* Zeros up to a multiple of 32, then n more. */
static inline void put_data(buf *b, size_t n) {
    while (b->len % 32) put_number(b, 0, 1);
    for (size_t i = 0; i < n; i++) put_number(b, 0, 1);
}

#endif
