/* load_json: JSON of a file or a string; stops the test when it cannot be read. */
#ifndef LOAD_JSON_H
#define LOAD_JSON_H

#include "file/file.h"

/* After carat's headers: it has a macro fail(). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

static inline const json *parse_json(arena *a, const char *text) {
    json *out = NULL;
    carat_error err = {0};
    if (!json_parse(a, text, strlen(text), "test", &out, &err)) fail_msg("%s", err.message);
    return out;
}

static inline const json *load_json(arena *a, const char *path) {
    carat_error err = {0};
    source *src = NULL;
    json *out = NULL;
    if (!source_open(a, path, &src, &err)) fail_msg("%s", err.message);
    char *text = arena_alloc(a, (size_t)src->size + 1, 1);
    assert_non_null(text);
    bool ok = source_read(src, 0, text, (size_t)src->size, &err) &&
              json_parse(a, text, (size_t)src->size, path, &out, &err);
    source_close(src);
    if (!ok) fail_msg("%s", err.message);
    return out;
}

#endif
