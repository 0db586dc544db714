/* A GGUF file with a few things changed, for tests of what reads it: keys and tensors of a base
 * file dropped, renamed, retyped, reshaped or overwritten, then written to memory again. */
#ifndef GGUF_EDIT_H
#define GGUF_EDIT_H

#include "file/file.h"

/* After carat's headers: it has a macro fail(). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

/* An edit says only what it changes. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

typedef enum edit_kind {
    EDIT_END,
    DROP_KEY,
    SET_U32, /* adds the key where it is missing, as the next three do */
    SET_F32,
    SET_STRING,
    SET_ARRAY, /* u32 [n] */
    DROP_TENSOR,
    RENAME_TENSOR,
    SET_SHAPE, /* array [n], fastest first; the data stays */
    SET_TYPE,  /* u */
    SET_DATA,  /* writes f as the first f32 of the tensor */
    ADD_TENSOR /* F32 of shape array [n], filled with f */
} edit_kind;

typedef struct edit {
    edit_kind kind;
    const char *name;
    uint32_t u;
    float f;
    const char *text; /* a string, or the new name */
    uint32_t n;
    uint32_t array[16];
} edit;

static inline void edit_put(buf *b, uint64_t v, size_t n) { buf_put(b, &v, n); }

static inline void edit_put_text(buf *b, const char *s, size_t n) {
    edit_put(b, n, 8);
    buf_put(b, s, n);
}

static inline const edit *edit_find(const edit *e, const char *name) {
    for (; e->kind; e++)
        if (!strcmp(e->name, name)) return e;
    return NULL;
}

static inline size_t edit_kind_bytes(gguf_kind k) {
    static const size_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return bytes[k];
}

/* A value as the file had it. */
static inline void edit_put_value(buf *b, const gguf_value *v) {
    edit_put_text(b, v->key.text, v->key.len);
    edit_put(b, v->kind, 4);
    const float f32 = (float)v->as.f;
    if (v->kind == GGUF_STRING) {
        edit_put_text(b, v->as.s.text, v->as.s.len);
    } else if (v->kind == GGUF_F32) {
        buf_put(b, &f32, 4);
    } else if (v->kind != GGUF_ARRAY) {
        edit_put(b, v->as.u, edit_kind_bytes(v->kind)); /* little-endian; a double's bits */
    } else {
        edit_put(b, v->item, 4);
        edit_put(b, v->n, 8);
        const gguf_string *s = v->as.items;
        if (v->item != GGUF_STRING)
            buf_put(b, v->as.items, (size_t)v->n * edit_kind_bytes(v->item));
        for (uint64_t i = 0; i < v->n && v->item == GGUF_STRING; i++)
            edit_put_text(b, s[i].text, s[i].len);
    }
}

static inline void edit_put_new_value(buf *b, const edit *e) {
    static const gguf_kind kinds[] = {[SET_U32] = GGUF_U32,
                                      [SET_F32] = GGUF_F32,
                                      [SET_STRING] = GGUF_STRING,
                                      [SET_ARRAY] = GGUF_ARRAY};
    edit_put_text(b, e->name, strlen(e->name));
    edit_put(b, kinds[e->kind], 4);
    if (e->kind == SET_U32) edit_put(b, e->u, 4);
    if (e->kind == SET_F32) buf_put(b, &e->f, 4);
    if (e->kind == SET_STRING) edit_put_text(b, e->text, strlen(e->text));
    if (e->kind == SET_ARRAY) {
        edit_put(b, GGUF_U32, 4);
        edit_put(b, e->n, 8);
        for (uint32_t i = 0; i < e->n; i++) edit_put(b, e->array[i], 4);
    }
}

static inline bool edit_sets_key(const edit *e) {
    return e->kind >= SET_U32 && e->kind <= SET_ARRAY;
}

static inline uint64_t edit_put_values(buf *b, const gguf *g, const edit *edits) {
    uint64_t n = 0;
    for (uint64_t i = 0; i < g->n_value; i++) {
        const edit *e = edit_find(edits, g->values[i].key.text);
        if (e && (e->kind == DROP_KEY || edit_sets_key(e))) continue;
        edit_put_value(b, &g->values[i]);
        n++;
    }
    for (const edit *e = edits; e->kind; e++)
        if (edit_sets_key(e)) {
            edit_put_new_value(b, e);
            n++;
        }
    return n;
}

/* One tensor's info, its data appended to `data`. */
static inline void edit_put_tensor(buf *info, buf *data, const gguf_tensor *t, const edit *e) {
    static const char zeros[32];
    carat_error problem = {0};
    const char *name = e && e->kind == RENAME_TENSOR ? e->text : t->name.text;
    const bool shape = e && e->kind == SET_SHAPE;
    edit_put_text(info, name, strlen(name));
    edit_put(info, shape ? e->n : t->n_dims, 4);
    for (uint32_t i = 0; i < (shape ? e->n : t->n_dims); i++)
        edit_put(info, shape ? e->array[i] : t->ne[i], 8);
    edit_put(info, e && e->kind == SET_TYPE ? e->u : t->type, 4);
    edit_put(info, data->len, 8);
    char *bytes = malloc((size_t)t->size);
    assert_non_null(bytes);
    if (!source_read(t->src, t->offset, bytes, (size_t)t->size, &problem))
        fail_msg("%s", problem.message);
    if (e && e->kind == SET_DATA) memcpy(bytes, &e->f, sizeof e->f);
    buf_put(data, bytes, (size_t)t->size);
    buf_put(data, zeros, (size_t)(round_up(data->len, 32) - data->len));
    free(bytes);
}

static inline void edit_add_tensor(buf *info, buf *data, const edit *e) {
    edit_put_text(info, e->name, strlen(e->name));
    edit_put(info, e->n, 4);
    uint64_t n = 1;
    for (uint32_t i = 0; i < e->n; n *= e->array[i++]) edit_put(info, e->array[i], 8);
    edit_put(info, QUANT_F32, 4);
    edit_put(info, data->len, 8);
    for (uint64_t i = 0; i < round_up(n, 8); i++) buf_put(data, &e->f, sizeof e->f);
}

/* g with the edits (the last one EDIT_END); out lives in `a`, which also holds its bytes. */
static inline gguf *gguf_edit(arena *a, const gguf *g, const edit *edits) {
    static const char zeros[32];
    carat_error problem = {0};
    buf values = {0}, info = {0}, data = {0}, file = {0};
    uint64_t n_tensor = 0;
    const uint64_t n_value = edit_put_values(&values, g, edits);
    for (uint64_t i = 0; i < g->n_tensor; i++) {
        const edit *e = edit_find(edits, g->tensors[i].name.text);
        if (e && e->kind == DROP_TENSOR) continue;
        edit_put_tensor(&info, &data, &g->tensors[i], e);
        n_tensor++;
    }
    for (const edit *e = edits; e->kind; e++)
        if (e->kind == ADD_TENSOR) {
            edit_add_tensor(&info, &data, e);
            n_tensor++;
        }
    buf_put(&file, "GGUF\3\0\0\0", 8);
    edit_put(&file, n_tensor, 8);
    edit_put(&file, n_value, 8);
    buf_put(&file, values.data, values.len);
    buf_put(&file, info.data, info.len);
    buf_put(&file, zeros, (size_t)(round_up(file.len, 32) - file.len));
    buf_put(&file, data.data, data.len);
    assert_false(file.failed || values.failed || info.failed || data.failed);

    source *src = NULL;
    gguf *out = NULL;
    void *bytes = arena_alloc(a, file.len, 1);
    assert_non_null(bytes);
    memcpy(bytes, file.data, file.len);
    if (!source_memory(a, "edited", bytes, file.len, &src, &problem) ||
        !gguf_open_source(a, src, &out, &problem))
        fail_msg("%s", problem.message);
    buf_free(&values);
    buf_free(&info);
    buf_free(&data);
    buf_free(&file);
    return out;
}

#endif
