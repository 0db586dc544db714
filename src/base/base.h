/* base: errors, memory, growable bytes, JSON. Everything else includes this; it includes nothing
 * of carat but the public header.
 *
 * Flow: bytes enter through file/ next. */
#ifndef CARAT_BASE_H
#define CARAT_BASE_H

#include "carat.h"

#include <assert.h>
#include <stdarg.h>

/* ---- error.c ---- */

/* Fills *err (unless NULL or already filled: the first message wins) and returns false. */
bool fail(carat_error *err, carat_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* fail() for an allocation of n bytes that was refused. what: for whom, e.g. "the KV cache". */
bool fail_memory(carat_error *err, uint64_t n, const char *what);
/* Bytes of the well-formed UTF-8 character at text [n]; 0: none there. */
size_t utf8_length(const char *text, size_t n);

/* ---- clock.c ---- */

double seconds_now(void); /* of a monotonic clock */

/* ---- arena.c: the only malloc ---- */

/* Memory with one lifetime: allocated piecewise, freed at once. */
typedef struct arena arena;

arena *arena_create(carat_error *err);
void arena_free(arena *a); /* NULL is fine */
/* n zeroed items of size bytes, 16-byte aligned. NULL when out of memory or n * size overflows. */
void *arena_alloc(arena *a, uint64_t n, size_t size);
/* A copy of s [n] with a terminating zero. */
char *arena_copy(arena *a, const char *s, size_t n);
size_t arena_bytes(const arena *a); /* bytes taken from the system */

/* Growable bytes; zero-initialise, free with buf_free(). Writing past memory sets `failed` and
 * leaves the rest alone, so callers check once at the end. data is always zero-terminated once
 * something was written. */
typedef struct buf {
    char *data;
    size_t len, cap;
    bool failed;
} buf;

void buf_put(buf *b, const void *data, size_t n);
void buf_puts(buf *b, const char *s);
void buf_printf(buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_reset(buf *b); /* len = 0, failed = false, memory kept */
void buf_free(buf *b);
char *buf_take(buf *b); /* hands out data (free with carat_string_free()); NULL if failed */

/* Growable token ids, with the same rules. */
typedef struct id_list {
    int32_t *data;
    size_t len, cap;
    bool failed;
} id_list;

void ids_put(id_list *v, int32_t id);
void ids_append(id_list *v, const int32_t *id, size_t n);
void ids_free(id_list *v);

/* ---- json.c ---- */

typedef enum json_kind {
    JSON_NULL,
    JSON_BOOL,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
} json_kind;

/* One value; the tree lives in the arena it was parsed into. Pointers may be NULL-checked by kind:
 * every json_* reader accepts NULL and the wrong kind. */
typedef struct json json;
struct json {
    json_kind kind;
    bool truth;       /* bool */
    const char *text; /* string: decoded UTF-8, may hold zeros; number: the source text */
    size_t len;       /* of text */
    size_t n;         /* array: items; object: members */
    json *items;      /* [n] the values */
    json *keys;       /* [n] object: the keys, strings */
};

/* Parses one value (RFC 8259, depth <= 64, nothing but white space after it). Lone surrogates
 * become U+FFFD; invalid UTF-8 is an error. `what` names the text in messages. */
bool json_parse(arena *a, const char *text, size_t n, const char *what, json **out,
                carat_error *err);
const json *json_get(const json *object, const char *key); /* NULL: absent; last duplicate wins */
const json *json_at(const json *array, size_t i);          /* NULL: out of range */
bool json_is_string(const json *v, const char *s);         /* is it exactly this string? */
const char *json_string(const json *v, const char *otherwise);
double json_number(const json *v, double otherwise);
bool json_bool(const json *v, bool otherwise);
void json_write_string(buf *b, const char *s, size_t n); /* with quotes; invalid UTF-8 -> U+FFFD */
void json_write(buf *b, const json *v);                  /* compact; numbers as they came */

/* ---- sha256.c ---- */

void sha256(const void *data, size_t n, unsigned char digest[32]);

/* ---- small pieces ---- */

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static inline uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }
static inline uint32_t div_up(uint32_t n, uint32_t by) { return (n + by - 1) / by; }
static inline uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }
static inline uint32_t max_u32(uint32_t a, uint32_t b) { return a > b ? a : b; }

/* FNV-1a, 64 bits: goes on from h, at first FNV_START. */
#define FNV_START 0xcbf29ce484222325u
static inline uint64_t hash_bytes(uint64_t h, const void *data, size_t n) {
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

#endif
