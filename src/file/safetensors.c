/* safetensors: a JSON header and raw tensors, the format of LoRA adapters and of reference values
 * in tests. Owns the checks of the header; does not know what a tensor is for.
 *
 * Layout: u64 length of the header, the header {"name": {"dtype", "shape", "data_offsets"}, ...},
 * the data. Offsets count from the end of the header; the last dimension is the fastest.
 *
 * Flow: source.c before; adapters and tests after. */
#include "file/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_MAX = 100000000 /* the reference implementation's limit */ };

static const struct {
    const char *name;
    uint32_t bytes;
} dtypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2},    {"I64", 8},
              {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
              {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

static uint32_t dtype_bytes(const char *name) {
    for (size_t i = 0; i < COUNT(dtypes); i++)
        if (strcmp(dtypes[i].name, name) == 0) return dtypes[i].bytes;
    return 0;
}

static bool bad_tensor(const safetensors *s, const char *name, const char *why, carat_error *err) {
    return fail(err, CARAT_E_FORMAT, "safetensors: %s: tensor %s: %s", s->src->name, name, why);
}

/* A whole number from 0 to 2^63 - 1, exactly. */
static bool exact(const json *v, uint64_t *out) {
    if (v == NULL || v->kind != JSON_NUMBER || v->len > 18) return false;
    *out = 0;
    for (size_t i = 0; i < v->len; i++) {
        if (v->text[i] < '0' || v->text[i] > '9') return false;
        *out = *out * 10 + (uint64_t)(v->text[i] - '0');
    }
    return true;
}

/* The shape, and the bytes that it needs (0: a dtype of unknown size). */
static bool read_shape(const safetensors *s, safetensor *t, const json *shape, uint64_t *bytes,
                       carat_error *err) {
    if (shape == NULL || shape->kind != JSON_ARRAY || shape->n > COUNT(t->ne))
        return bad_tensor(s, t->name, "shape is not a list of at most 8 numbers", err);
    *bytes = dtype_bytes(t->dtype);
    t->n_dims = (uint32_t)shape->n;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (!exact(json_at(shape, i), &t->ne[i]) || (t->ne[i] && *bytes > INT64_MAX / t->ne[i]))
            return bad_tensor(s, t->name, "shape has impossible numbers", err);
        *bytes *= t->ne[i];
    }
    return true;
}

static bool read_tensor(const safetensors *s, safetensor *t, const json *v, uint64_t data,
                        carat_error *err) {
    const char *dtype = json_string(json_get(v, "dtype"), NULL);
    const json *span = json_get(v, "data_offsets");
    uint64_t begin, end, bytes = 0;
    if (dtype == NULL || strlen(dtype) >= sizeof t->dtype)
        return bad_tensor(s, t->name, "dtype missing or unknown", err);
    memcpy(t->dtype, dtype, strlen(dtype) + 1);
    if (!read_shape(s, t, json_get(v, "shape"), &bytes, err)) return false;
    if (!exact(json_at(span, 0), &begin) || !exact(json_at(span, 1), &end) || span->n != 2 ||
        begin > end)
        return bad_tensor(s, t->name, "data_offsets are not two rising numbers", err);
    if (end > s->src->size - data)
        return bad_tensor(s, t->name, "ends after the file; is it complete?", err);
    if (dtype_bytes(dtype) && end - begin != bytes)
        return bad_tensor(s, t->name, "data_offsets do not fit the shape", err);
    t->offset = data + begin;
    t->size = end - begin;
    return true;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const safetensor *)a)->name, ((const safetensor *)b)->name);
}

static int compare_places(const void *a, const void *b) {
    const safetensor *x = *(const safetensor *const *)a, *y = *(const safetensor *const *)b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->size > y->size) - (x->size < y->size);
}

static bool check_tensors(const safetensors *s, carat_error *err) {
    for (size_t i = 1; i < s->n; i++)
        if (compare_names(&s->tensors[i - 1], &s->tensors[i]) == 0)
            return bad_tensor(s, s->tensors[i].name, "occurs twice", err);
    arena *scratch = arena_create(err);
    if (scratch == NULL) return false;
    const safetensor **at = arena_alloc(scratch, s->n, sizeof *at);
    bool ok = at || fail_memory(err, s->n * sizeof *at, s->src->name);
    if (ok) {
        for (size_t i = 0; i < s->n; i++) at[i] = &s->tensors[i];
        qsort(at, s->n, sizeof *at, compare_places);
        for (size_t i = 1; i < s->n && ok; i++)
            if (at[i]->offset - at[i - 1]->offset < at[i - 1]->size)
                ok = bad_tensor(s, at[i]->name, "overlaps another", err);
    }
    arena_free(scratch);
    return ok;
}

static bool read_tensors(arena *a, safetensors *s, const json *header, uint64_t data,
                         carat_error *err) {
    if (header->kind != JSON_OBJECT)
        return fail(err, CARAT_E_FORMAT, "safetensors: %s: the header is not an object",
                    s->src->name);
    safetensor *t = arena_alloc(a, header->n, sizeof *t);
    if (t == NULL) return fail_memory(err, header->n * sizeof *t, s->src->name);
    s->tensors = t;
    for (size_t i = 0; i < header->n; i++) {
        if (json_is_string(&header->keys[i], "__metadata__")) {
            s->metadata = &header->items[i];
            continue;
        }
        t[s->n].name = header->keys[i].text;
        if (strlen(t[s->n].name) != header->keys[i].len)
            return bad_tensor(s, t[s->n].name, "a zero in its name", err);
        if (!read_tensor(s, &t[s->n], &header->items[i], data, err)) return false;
        s->n++;
    }
    qsort(t, s->n, sizeof *t, compare_names);
    return check_tensors(s, err);
}

bool safetensors_open(arena *a, source *src, safetensors **out, carat_error *err) {
    unsigned char b[8];
    uint64_t n = 0;
    if (!source_read(src, 0, b, sizeof b, err)) return false;
    for (int i = 8; i-- > 0;) n = n << 8 | b[i];
    if (n > src->size - 8 || n > HEADER_MAX)
        return fail(err, CARAT_E_FORMAT, "safetensors: %s: a header of %" PRIu64 " bytes",
                    src->name, n);
    arena *scratch = arena_create(err);
    if (scratch == NULL) return false;
    json *header;
    safetensors *s = arena_alloc(a, 1, sizeof *s);
    char *text = arena_alloc(scratch, (size_t)n, 1);
    bool ok = (s && text) || fail_memory(err, n, src->name);
    ok = ok && source_read(src, 8, text, (size_t)n, err) &&
         json_parse(a, text, (size_t)n, src->name, &header, err);
    arena_free(scratch);
    if (!ok) return false;
    s->src = src;
    if (!read_tensors(a, s, header, 8 + n, err)) return false;
    *out = s;
    return true;
}

const safetensor *safetensors_find(const safetensors *s, const char *name) {
    safetensor wanted = {.name = name};
    return bsearch(&wanted, s->tensors, s->n, sizeof wanted, compare_names);
}

bool safetensors_read_f32(const safetensors *s, const safetensor *t, float *out, carat_error *err) {
    uint32_t type = strcmp(t->dtype, "F32") == 0    ? QUANT_F32
                    : strcmp(t->dtype, "F16") == 0  ? QUANT_F16
                    : strcmp(t->dtype, "BF16") == 0 ? QUANT_BF16
                                                    : QUANT_TYPE_END;
    const quant_format *q = quant_find(type);
    if (q == NULL)
        return fail(err, CARAT_E_UNSUPPORTED, "safetensors: %s: tensor %s: cannot read %s as F32",
                    s->src->name, t->name, t->dtype);
    unsigned char piece[4096];
    for (uint64_t at = 0, n; at < t->size; at += n) {
        n = t->size - at < sizeof piece ? t->size - at : sizeof piece;
        if (!source_read(s->src, t->offset + at, piece, (size_t)n, err)) return false;
        q->dequantise(piece, out, (size_t)n / q->n_byte);
        out += n / q->n_byte;
    }
    return true;
}
