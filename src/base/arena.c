/* arena: the only place that asks the system for memory. Owns arenas (many objects, one lifetime)
 * and the two growable arrays, bytes and token ids.
 *
 * An arena is a list of chunks, newest first. Small objects share chunks, which double in size up
 * to 1 MiB; an object larger than a quarter of the next chunk gets one of its own, so little is
 * wasted. The arena itself lives in its first chunk.
 *
 * Flow: everything that lives longer than a call gets its memory here. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16, CHUNK_FIRST = 4096, CHUNK_LAST = 1024 * 1024 };

typedef struct chunk {
    struct chunk *next;
    size_t size; /* bytes after this header */
    size_t used;
} chunk;

struct arena {
    chunk *chunks;     /* what small objects are cut from is the first one */
    size_t next_chunk; /* size of the next shared chunk */
    size_t bytes;
};

/* The header's size, rounded up so that what follows it is aligned. */
enum { HEADER = (sizeof(chunk) + ALIGN - 1) / ALIGN * ALIGN };

static chunk *chunk_create(size_t size) {
    if (size > SIZE_MAX - HEADER) return NULL;
    chunk *c = malloc(HEADER + size);
    if (c) *c = (chunk){.size = size};
    return c;
}

arena *arena_create(carat_error *err) {
    chunk *c = chunk_create(CHUNK_FIRST);
    if (c == NULL) {
        fail_memory(err, CHUNK_FIRST, "an arena");
        return NULL;
    }
    arena *a = (arena *)(void *)((char *)c + HEADER);
    *a = (arena){.chunks = c, .next_chunk = 2 * CHUNK_FIRST, .bytes = HEADER + CHUNK_FIRST};
    c->used = (sizeof *a + ALIGN - 1) / ALIGN * ALIGN;
    return a;
}

void arena_free(arena *a) {
    if (a == NULL) return;
    for (chunk *c = a->chunks, *next; c; c = next) { /* one of them holds a itself */
        next = c->next;
        free(c);
    }
}

/* Makes room for n bytes: a new shared chunk in front, or a chunk of its own behind the front. */
static chunk *chunk_for(arena *a, size_t n) {
    bool own = n > a->next_chunk / 4;
    chunk *c = chunk_create(own ? n : a->next_chunk);
    if (c == NULL) return NULL;
    a->bytes += HEADER + c->size;
    if (own) {
        c->next = a->chunks->next;
        a->chunks->next = c;
    } else {
        c->next = a->chunks;
        a->chunks = c;
        if (a->next_chunk < CHUNK_LAST) a->next_chunk *= 2;
    }
    return c;
}

void *arena_alloc(arena *a, uint64_t n, size_t size) {
    if (size && n > (SIZE_MAX - ALIGN) / size) return NULL;
    size_t want = ((size_t)n * size + ALIGN - 1) / ALIGN * ALIGN;
    chunk *c = a->chunks;
    if (want > c->size - c->used) c = chunk_for(a, want);
    if (c == NULL) return NULL;
    char *p = (char *)c + HEADER + c->used;
    c->used += want;
    return memset(p, 0, want);
}

char *arena_copy(arena *a, const char *s, size_t n) {
    if (n == SIZE_MAX) return NULL;
    char *p = arena_alloc(a, (uint64_t)n + 1, 1);
    if (p && n) memcpy(p, s, n);
    return p;
}

size_t arena_bytes(const arena *a) { return a->bytes; }

/* ---- growable arrays ---------------------------------------------------------------------- */

/* Grows *data [*cap items of size bytes] to hold at least `want` items; false: unchanged. */
static bool grow(void *data, size_t *cap, size_t want, size_t size) {
    if (want <= *cap) return true;
    size_t n = *cap < SIZE_MAX / 4 / size ? *cap * 2 : *cap;
    if (n < 64) n = 64;
    if (n < want) n = want;
    if (n > SIZE_MAX / 2 / size) return false;
    void *old, *p;
    memcpy(&old, data, sizeof old); /* data is a pointer to a pointer of any type */
    p = realloc(old, n * size);
    if (p == NULL) return false;
    memcpy(data, &p, sizeof p);
    *cap = n;
    return true;
}

void buf_put(buf *b, const void *data, size_t n) {
    if (b->failed) return;
    if (n >= SIZE_MAX - b->len || !grow(&b->data, &b->cap, b->len + n + 1, 1)) {
        b->failed = true;
        return;
    }
    if (n) memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = 0;
}

void buf_puts(buf *b, const char *s) { buf_put(b, s, strlen(s)); }

void buf_printf(buf *b, const char *fmt, ...) {
    if (b->failed) return;
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0 || !grow(&b->data, &b->cap, b->len + (size_t)n + 1, 1))
        b->failed = true;
    else
        b->len += (size_t)vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
    va_end(again);
}

void buf_reset(buf *b) {
    b->len = 0;
    b->failed = false;
    if (b->data) b->data[0] = 0;
}

void buf_free(buf *b) {
    free(b->data);
    *b = (buf){0};
}

char *buf_take(buf *b) {
    buf_put(b, "", 0); /* an empty text is a text too */
    if (b->failed) {
        buf_free(b);
        return NULL;
    }
    char *text = b->data;
    *b = (buf){0};
    return text;
}

void carat_string_free(char *s) { free(s); }

void ids_append(id_list *v, const int32_t *id, size_t n) {
    if (v->failed) return;
    if (n > SIZE_MAX - v->len || !grow(&v->data, &v->cap, v->len + n, sizeof *v->data)) {
        v->failed = true;
        return;
    }
    if (n) memcpy(v->data + v->len, id, n * sizeof *id);
    v->len += n;
}

void ids_put(id_list *v, int32_t id) { ids_append(v, &id, 1); }

void ids_free(id_list *v) {
    free(v->data);
    *v = (id_list){0};
}
