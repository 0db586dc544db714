/* gguf: the header of a GGUF file, or of a split set, as keys and tensors. Owns every check of the
 * container; what a key or a tensor means is model/'s business. Reads no weights.
 *
 * Layout (little-endian, versions 2 and 3): magic, version, number of tensors, number of keys; the
 * keys with their values; the tensors' names, shapes, types and offsets; padding; data. Strings
 * are a u64 length and bytes. Numbers in a damaged file can be anything, so each is held against
 * what the rest of the file could contain before it is used.
 *
 * Flow: source.c before; model/config.c and model/weights.c after. */
#include "file/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 256 * 1024,       /* bytes read at a time */
    VALUES_MAX = 1 << 16,     /* real files: about 60 keys, */
    TENSORS_MAX = 1 << 18,    /* 2,100 tensors, */
    ITEMS_MAX = 1 << 24,      /* 514,906 merges, */
    STRING_MAX = 1 << 26,     /* a template of 20 KB, */
    NAME_MAX_BYTES = 1 << 10, /* names of 60 bytes */
    VALUE_BYTES = 8 + 1 + 4 + 1,
    TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8
};

/* Both sorted by name. */
typedef struct name_index {
    const gguf_string **keys;    /* [n_value] first members of gguf_value */
    const gguf_string **tensors; /* [n_tensor] first members of gguf_tensor */
} name_index;

/* One file being read. */
typedef struct reader {
    arena *a;
    source *src;
    uint64_t pos;   /* of the next byte */
    uint64_t start; /* of the block in memory */
    size_t have;    /* its length */
    unsigned char *block;
    carat_error *err;
} reader;

/* One file read: what it adds to the set. */
typedef struct part {
    uint64_t n_value, n_tensor;
    gguf_value *values;
    gguf_tensor *tensors;
} part;

/* ---- bytes -------------------------------------------------------------------------------- */

static uint64_t left(const reader *r) { return r->src->size - r->pos; }

static bool no_memory(reader *r, uint64_t n) { return fail_memory(r->err, n, r->src->name); }

static bool take(reader *r, void *dst, size_t n) {
    if (n > left(r))
        return fail(r->err, CARAT_E_FORMAT, "gguf: %s: ends inside its header", r->src->name);
    for (char *to = dst; n > 0;) {
        uint64_t at = r->pos - r->start; /* wraps when pos is before the block: then too large */
        if (at >= r->have) {
            r->start = r->pos;
            r->have = left(r) < BLOCK ? (size_t)left(r) : BLOCK;
            if (!source_read(r->src, r->start, r->block, r->have, r->err)) {
                r->have = 0;
                return false;
            }
            at = 0;
        }
        size_t m = r->have - (size_t)at < n ? r->have - (size_t)at : n;
        memcpy(to, r->block + at, m);
        to += m;
        r->pos += m;
        n -= m;
    }
    return true;
}

/* A little-endian number of n <= 8 bytes. */
static bool take_number(reader *r, unsigned n, uint64_t *out) {
    unsigned char b[8];
    if (!take(r, b, n)) return false;
    *out = 0;
    for (unsigned i = n; i-- > 0;) *out = *out << 8 | b[i];
    return true;
}

static bool take_u32(reader *r, uint32_t *out) {
    uint64_t n;
    if (!take_number(r, 4, &n)) return false;
    *out = (uint32_t)n;
    return true;
}

static bool take_length(reader *r, uint64_t max, uint64_t *n) {
    if (!take_number(r, 8, n)) return false;
    if (*n > max || *n > left(r))
        return fail(r->err, CARAT_E_FORMAT,
                    "gguf: %s: a string of %" PRIu64 " bytes at byte %" PRIu64 " is too long",
                    r->src->name, *n, r->pos - 8);
    return true;
}

static bool take_string(reader *r, uint64_t max, gguf_string *s) {
    uint64_t n;
    if (!take_length(r, max, &n)) return false;
    char *text = arena_alloc(r->a, (size_t)n + 1, 1);
    if (text == NULL) return no_memory(r, n);
    *s = (gguf_string){text, (size_t)n};
    return take(r, text, (size_t)n);
}

/* ---- keys and values ---------------------------------------------------------------------- */

/* Bytes of a number; 0: not one. */
static unsigned kind_bytes(uint32_t kind) {
    static const unsigned char bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return kind < COUNT(bytes) ? bytes[kind] : 0;
}

static int64_t sign_extend(uint64_t bits, unsigned n_byte) {
    unsigned shift = 64 - 8 * n_byte;
    uint64_t sign = UINT64_C(1) << 63 >> shift;
    return (int64_t)((bits ^ sign) - sign);
}

static double to_double(uint64_t bits, unsigned n_byte) {
    double d;
    float f;
    uint32_t low = (uint32_t)bits;
    memcpy(&f, &low, sizeof f);
    memcpy(&d, &bits, sizeof d);
    return n_byte == 4 ? (double)f : d;
}

static bool is_signed(gguf_kind k) {
    return k == GGUF_I8 || k == GGUF_I16 || k == GGUF_I32 || k == GGUF_I64;
}

static bool take_scalar(reader *r, gguf_value *v) {
    uint64_t bits;
    unsigned n = kind_bytes(v->kind);
    if (!take_number(r, n, &bits)) return false;
    if (v->kind == GGUF_BOOL && bits > 1)
        return fail(r->err, CARAT_E_FORMAT, "gguf: %s: key %s: a bool is %" PRIu64, r->src->name,
                    v->key.text, bits);
    if (v->kind == GGUF_F32 || v->kind == GGUF_F64)
        v->as.f = to_double(bits, n);
    else if (is_signed(v->kind))
        v->as.i = sign_extend(bits, n);
    else
        v->as.u = bits;
    return true;
}

/* The strings of an array, in one block: the first pass adds up the lengths, the second copies. */
static bool take_strings(reader *r, gguf_value *v) {
    size_t n = (size_t)v->n;
    uint64_t total = n, len, start = r->pos;
    for (size_t i = 0; i < n; i++, total += len) {
        if (!take_length(r, STRING_MAX, &len)) return false;
        r->pos += len;
    }
    gguf_string *s = arena_alloc(r->a, n, sizeof *s);
    char *text = total < SIZE_MAX ? arena_alloc(r->a, (size_t)total, 1) : NULL;
    if (s == NULL || text == NULL) return no_memory(r, total);
    v->as.items = s;
    r->pos = start;
    for (size_t i = 0; i < n; i++, text += len + 1, total -= len + 1) {
        if (!take_number(r, 8, &len)) return false;
        if (len >= total) /* only when the file was changed between the passes */
            return fail(r->err, CARAT_E_IO, "gguf: %s: changed while it was read", r->src->name);
        if (!take(r, text, (size_t)len)) return false;
        s[i] = (gguf_string){text, (size_t)len};
    }
    return true;
}

static bool take_array(reader *r, gguf_value *v) {
    uint32_t item;
    if (!take_u32(r, &item) || !take_number(r, 8, &v->n)) return false;
    unsigned n_byte = item == GGUF_STRING ? 8 : kind_bytes(item);
    if (n_byte == 0)
        return fail(r->err, CARAT_E_FORMAT, "gguf: %s: key %s: an array of items of kind %u",
                    r->src->name, v->key.text, item);
    if (v->n > ITEMS_MAX || v->n > left(r) / n_byte)
        return fail(r->err, CARAT_E_FORMAT, "gguf: %s: key %s: an array of %" PRIu64 " items",
                    r->src->name, v->key.text, v->n);
    v->item = (gguf_kind)item;
    if (item == GGUF_STRING) return take_strings(r, v);
    size_t bytes = (size_t)v->n * n_byte;
    void *items = arena_alloc(r->a, bytes, 1);
    if (items == NULL) return no_memory(r, bytes);
    v->as.items = items;
    return take(r, items, bytes);
}

static bool take_value(reader *r, gguf_value *v) {
    uint32_t kind;
    if (!take_string(r, NAME_MAX_BYTES, &v->key) || !take_u32(r, &kind)) return false;
    if (v->key.len == 0)
        return fail(r->err, CARAT_E_FORMAT, "gguf: %s: a key is empty", r->src->name);
    v->kind = (gguf_kind)kind;
    if (kind == GGUF_STRING) return take_string(r, STRING_MAX, &v->as.s);
    if (kind == GGUF_ARRAY) return take_array(r, v);
    if (kind_bytes(kind)) return take_scalar(r, v);
    return fail(r->err, CARAT_E_FORMAT, "gguf: %s: key %s: a value of kind %u", r->src->name,
                v->key.text, kind);
}

/* ---- tensors ------------------------------------------------------------------------------ */

/* Bytes of a tensor from its shape; 0 for a type of unknown size. */
static bool measure(reader *r, gguf_tensor *t) {
    const quant_format *q = quant_find(t->type);
    uint64_t n = 1;
    char shape[96];
    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (t->ne[i] == 0 || t->ne[i] > INT64_MAX / 8 / n)
            return fail(r->err, CARAT_E_FORMAT, "gguf: %s: tensor %s: a shape of %s", r->src->name,
                        t->name.text, gguf_shape(t, shape));
        n *= t->ne[i];
    }
    if (q == NULL) return true;
    if (t->ne[0] % q->n_value)
        return fail(r->err, CARAT_E_FORMAT,
                    "gguf: %s: tensor %s: rows of %s are not whole blocks of %u", r->src->name,
                    t->name.text, gguf_shape(t, shape), q->n_value);
    t->size = n / q->n_value * q->n_byte;
    return true;
}

static bool take_tensor(reader *r, gguf_tensor *t) {
    *t = (gguf_tensor){.ne = {1, 1, 1, 1}, .src = r->src};
    if (!take_string(r, NAME_MAX_BYTES, &t->name) || !take_u32(r, &t->n_dims)) return false;
    if (t->name.len == 0)
        return fail(r->err, CARAT_E_FORMAT, "gguf: %s: a tensor has no name", r->src->name);
    if (t->n_dims < 1 || t->n_dims > GGUF_MAX_DIMS)
        return fail(r->err, CARAT_E_FORMAT, "gguf: %s: tensor %s: %u dimensions", r->src->name,
                    t->name.text, t->n_dims);
    for (uint32_t i = 0; i < t->n_dims; i++)
        if (!take_number(r, 8, &t->ne[i])) return false;
    return take_u32(r, &t->type) && take_number(r, 8, &t->offset) && measure(r, t);
}

/* Makes offsets absolute; every tensor must start aligned and end inside the file. */
static bool place_tensors(reader *r, part *p, uint32_t alignment) {
    uint64_t size = r->src->size, data = round_up(r->pos, alignment);
    for (uint64_t i = 0; i < p->n_tensor; i++) {
        gguf_tensor *t = &p->tensors[i];
        if (t->offset % alignment)
            return fail(r->err, CARAT_E_FORMAT,
                        "gguf: %s: tensor %s: offset %" PRIu64 " is not a multiple of %u",
                        r->src->name, t->name.text, t->offset, alignment);
        if (data > size || t->offset > size - data || t->size > size - data - t->offset)
            return fail(r->err, CARAT_E_FORMAT,
                        "gguf: %s: tensor %s (%" PRIu64 " bytes at %" PRIu64 " of the data) ends "
                        "after the file's %" PRIu64 " bytes; is it complete?",
                        r->src->name, t->name.text, t->size, t->offset, size);
        t->offset += data;
    }
    return true;
}

/* ---- one file ----------------------------------------------------------------------------- */

static bool check_head(reader *r, const unsigned char head[4], uint32_t version) {
    const char *name = r->src->name;
    if (memcmp(head, "GGUF", 4) != 0)
        return fail(r->err, CARAT_E_FORMAT,
                    "gguf: %s: is not a GGUF file (it starts with %02x %02x %02x %02x)", name,
                    head[0], head[1], head[2], head[3]);
    if (version != 0 && (version & 0xffff) == 0)
        return fail(r->err, CARAT_E_UNSUPPORTED, "gguf: %s: is a big-endian file", name);
    if (version == 1)
        return fail(r->err, CARAT_E_UNSUPPORTED,
                    "gguf: %s: version 1 is obsolete; convert the model again", name);
    if (version != 2 && version != 3)
        return fail(r->err, CARAT_E_UNSUPPORTED, "gguf: %s: version %u is not known", name,
                    version);
    return true;
}

static const gguf_value *part_find(const part *p, const char *key) {
    for (uint64_t i = 0; i < p->n_value; i++)
        if (strcmp(p->values[i].key.text, key) == 0) return &p->values[i];
    return NULL;
}

static bool value_u32(const gguf_value *v, uint32_t *out) {
    if (v == NULL || kind_bytes(v->kind) == 0 || v->kind == GGUF_BOOL) return false;
    if (v->kind == GGUF_F32 || v->kind == GGUF_F64) return false;
    if (is_signed(v->kind) && v->as.i < 0) return false;
    uint64_t u = is_signed(v->kind) ? (uint64_t)v->as.i : v->as.u;
    if (u > UINT32_MAX) return false;
    *out = (uint32_t)u;
    return true;
}

static bool take_alignment(reader *r, const part *p, uint32_t *alignment) {
    const gguf_value *v = part_find(p, "general.alignment");
    *alignment = 32;
    if (v == NULL) return true;
    if (!value_u32(v, alignment) || *alignment == 0 || (*alignment & (*alignment - 1)))
        return fail(r->err, CARAT_E_FORMAT,
                    "gguf: %s: general.alignment must be an integer and a power of two",
                    r->src->name);
    return true;
}

static bool take_part(reader *r, part *p) {
    unsigned char magic[4];
    uint32_t version, alignment;
    if (!take(r, magic, sizeof magic)) return false;
    if (memcmp(magic, "GGUF", 4) != 0) return check_head(r, magic, 3);
    if (!take_u32(r, &version) || !check_head(r, magic, version)) return false;
    if (!take_number(r, 8, &p->n_tensor) || !take_number(r, 8, &p->n_value)) return false;
    if (p->n_value > VALUES_MAX || p->n_value > left(r) / VALUE_BYTES)
        return fail(r->err, CARAT_E_FORMAT, "gguf: %s: %" PRIu64 " keys cannot be in it",
                    r->src->name, p->n_value);
    if (p->n_tensor > TENSORS_MAX || p->n_tensor > left(r) / TENSOR_BYTES)
        return fail(r->err, CARAT_E_FORMAT, "gguf: %s: %" PRIu64 " tensors cannot be in it",
                    r->src->name, p->n_tensor);
    p->values = arena_alloc(r->a, (size_t)p->n_value, sizeof *p->values);
    if (p->values == NULL) return no_memory(r, p->n_value * sizeof *p->values);
    p->tensors = arena_alloc(r->a, (size_t)p->n_tensor, sizeof *p->tensors);
    if (p->tensors == NULL) return no_memory(r, p->n_tensor * sizeof *p->tensors);
    for (uint64_t i = 0; i < p->n_value; i++)
        if (!take_value(r, &p->values[i])) return false;
    for (uint64_t i = 0; i < p->n_tensor; i++)
        if (!take_tensor(r, &p->tensors[i])) return false;
    return take_alignment(r, p, &alignment) && place_tensors(r, p, alignment);
}

static bool read_part(arena *a, source *src, part *p, carat_error *err) {
    arena *scratch = arena_create(err);
    if (scratch == NULL) return false;
    size_t block = src->size < BLOCK ? (size_t)src->size : BLOCK;
    reader r = {.a = a, .src = src, .block = arena_alloc(scratch, block, 1), .err = err};
    bool ok = r.block ? take_part(&r, p) : no_memory(&r, block);
    arena_free(scratch);
    return ok;
}

/* ---- the whole set ------------------------------------------------------------------------ */

static int compare_names(const void *a, const void *b) {
    const gguf_string *x = *(const gguf_string *const *)a, *y = *(const gguf_string *const *)b;
    int order = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);
    return order ? order : (x->len > y->len) - (x->len < y->len);
}

static int compare_places(const void *a, const void *b) {
    const gguf_tensor *x = *(const gguf_tensor *const *)a, *y = *(const gguf_tensor *const *)b;
    if (x->src != y->src) return (uintptr_t)x->src < (uintptr_t)y->src ? -1 : 1;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->size > y->size) - (x->size < y->size);
}

/* Sorts names [n]; two equal ones are an error. */
static bool sort_names(const gguf *g, const gguf_string **names, uint64_t n, const char *what,
                       carat_error *err) {
    qsort(names, (size_t)n, sizeof *names, compare_names);
    for (uint64_t i = 1; i < n; i++)
        if (compare_names(&names[i - 1], &names[i]) == 0)
            return fail(err, CARAT_E_FORMAT, "gguf: %s: %s %s occurs twice", g->name, what,
                        names[i]->text);
    return true;
}

static bool check_overlap(arena *scratch, const gguf *g, carat_error *err) {
    size_t n = (size_t)g->n_tensor;
    const gguf_tensor **at = arena_alloc(scratch, n, sizeof *at);
    if (at == NULL) return fail_memory(err, n * sizeof *at, g->name);
    for (size_t i = 0; i < n; i++) at[i] = &g->tensors[i];
    qsort(at, n, sizeof *at, compare_places);
    for (size_t i = 1; i < n; i++)
        if (at[i - 1]->src == at[i]->src && at[i - 1]->size > at[i]->offset - at[i - 1]->offset)
            return fail(err, CARAT_E_FORMAT, "gguf: %s: tensors %s and %s overlap", g->name,
                        at[i - 1]->name.text, at[i]->name.text);
    return true;
}

static bool make_index(arena *a, gguf *g, carat_error *err) {
    name_index *index = arena_alloc(a, 1, sizeof *index);
    size_t n_key = (size_t)g->n_value, n_tensor = (size_t)g->n_tensor;
    const gguf_string **keys = arena_alloc(a, n_key, sizeof *keys);
    const gguf_string **tensors = arena_alloc(a, n_tensor, sizeof *tensors);
    if (index == NULL || keys == NULL || tensors == NULL)
        return fail_memory(err, (n_key + n_tensor) * sizeof *keys, g->name);
    for (size_t i = 0; i < n_key; i++) keys[i] = &g->values[i].key;
    for (size_t i = 0; i < n_tensor; i++) tensors[i] = &g->tensors[i].name;
    *index = (name_index){keys, tensors};
    g->index = index;
    if (!sort_names(g, keys, n_key, "key", err)) return false;
    if (!sort_names(g, tensors, n_tensor, "tensor", err)) return false;
    arena *scratch = arena_create(err);
    bool ok = scratch && check_overlap(scratch, g, err);
    arena_free(scratch);
    return ok;
}

/* "x-00002-of-00005.gguf" -> x, 2, 5; false: another kind of name. */
static bool split_name(const char *path, size_t *prefix, unsigned *no, unsigned *count) {
    static const char form[] = "-ddddd-of-ddddd.gguf";
    const size_t n = strlen(path), n_form = sizeof form - 1;
    if (n < n_form) return false;
    const char *tail = path + n - n_form;
    for (size_t i = 0; i < n_form; i++)
        if (form[i] == 'd' ? tail[i] < '0' || tail[i] > '9' : tail[i] != form[i]) return false;
    *prefix = n - n_form;
    *no = (unsigned)strtoul(tail + 1, NULL, 10);
    *count = (unsigned)strtoul(tail + 10, NULL, 10);
    return true;
}

/* Reads the rest of a split set whose first file is parts[0]. */
static bool read_siblings(arena *a, gguf *g, part *parts, uint32_t count, carat_error *err) {
    size_t prefix;
    unsigned no, of;
    if (!split_name(g->name, &prefix, &no, &of) || no != 1 || of != count)
        return fail(err, CARAT_E_FORMAT,
                    "gguf: %s: is the first of %u files, but is not named ...-00001-of-%05u.gguf",
                    g->name, count, count);
    for (uint32_t i = 1; i < count; i++) {
        carat_error cause = {0};
        uint32_t its_no, its_count;
        size_t room = strlen(g->name) + 24;
        char *path = arena_alloc(a, room, 1);
        if (path == NULL) return fail_memory(err, room, g->name);
        snprintf(path, room, "%.*s-%05u-of-%05u.gguf", (int)prefix, g->name, i + 1, count);
        if (!source_open(a, path, &g->sources[i], &cause))
            return fail(err, cause.code, "gguf: file %u of %u: %s", i + 1, count, cause.message);
        g->n_source++;
        if (!read_part(a, g->sources[i], &parts[i], err)) return false;
        if (!value_u32(part_find(&parts[i], "split.no"), &its_no) ||
            !value_u32(part_find(&parts[i], "split.count"), &its_count))
            return fail(err, CARAT_E_FORMAT, "gguf: %s: is not part of a split set", path);
        if (its_no != i || its_count != count)
            return fail(err, CARAT_E_FORMAT,
                        "gguf: %s: should be file %u of %u, but says it is file %" PRIu64 " of %u",
                        path, i + 1, count, (uint64_t)its_no + 1, its_count);
    }
    return true;
}

/* Puts the parts' tensors behind each other. */
static bool merge(arena *a, gguf *g, const part *parts, carat_error *err) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < g->n_source; i++) {
        n += parts[i].n_tensor;
        g->file_bytes += g->sources[i]->size;
    }
    g->n_value = parts[0].n_value;
    g->values = parts[0].values;
    g->n_tensor = n;
    g->tensors = parts[0].tensors;
    if (g->n_source == 1) return true;
    uint32_t expected;
    if (value_u32(part_find(&parts[0], "split.tensors.count"), &expected) && expected != n)
        return fail(err, CARAT_E_FORMAT, "gguf: %s: the set has %" PRIu64 " tensors instead of %u",
                    g->name, n, expected);
    gguf_tensor *all = n <= SIZE_MAX ? arena_alloc(a, (size_t)n, sizeof *all) : NULL;
    if (all == NULL) return fail_memory(err, n * sizeof *all, g->name);
    g->tensors = all;
    for (uint32_t i = 0; i < g->n_source; i++)
        for (uint64_t k = 0; k < parts[i].n_tensor; k++) *all++ = parts[i].tensors[k];
    return true;
}

static bool open_set(arena *a, source *first, bool siblings, gguf *g, carat_error *err) {
    part head = {0};
    uint32_t no = 0, count = 1;
    g->sources = arena_alloc(a, 1, sizeof *g->sources);
    if (g->sources == NULL) {
        source_close(first);
        return fail_memory(err, sizeof *g->sources, g->name);
    }
    g->sources[0] = first;
    g->n_source = 1;
    if (!read_part(a, first, &head, err)) return false;
    value_u32(part_find(&head, "split.count"), &count);
    value_u32(part_find(&head, "split.no"), &no);
    if (count > UINT16_MAX)
        return fail(err, CARAT_E_FORMAT, "gguf: %s: a set of %u files", g->name, count);
    if (count < 2) return merge(a, g, &head, err);
    if (no != 0)
        return fail(err, CARAT_E_ARGUMENT, "gguf: %s: is file %u of %u; open the first one",
                    g->name, no < count ? no + 1 : no, count);
    if (!siblings)
        return fail(err, CARAT_E_UNSUPPORTED, "gguf: %s: is one of %u files of a split set",
                    g->name, count);
    part *parts = arena_alloc(a, count, sizeof *parts);
    source **sources = arena_alloc(a, count, sizeof *sources);
    if (parts == NULL || sources == NULL) return fail_memory(err, count * sizeof *parts, g->name);
    parts[0] = head;
    sources[0] = first;
    g->sources = sources;
    return read_siblings(a, g, parts, count, err) && merge(a, g, parts, err);
}

static bool open_first(arena *a, source *src, bool siblings, gguf **out, carat_error *err) {
    gguf *g = arena_alloc(a, 1, sizeof *g);
    if (g == NULL) {
        source_close(src);
        return fail_memory(err, sizeof *g, "a GGUF file");
    }
    g->name = src->name;
    if (!open_set(a, src, siblings, g, err) || !make_index(a, g, err)) {
        gguf_close(g);
        return false;
    }
    *out = g;
    return true;
}

bool gguf_open(arena *a, const char *path, gguf **out, carat_error *err) {
    source *src;
    return source_open(a, path, &src, err) && open_first(a, src, true, out, err);
}

bool gguf_open_source(arena *a, source *src, gguf **out, carat_error *err) {
    return open_first(a, src, false, out, err);
}

void gguf_close(gguf *g) {
    if (g == NULL) return;
    for (uint32_t i = 0; i < g->n_source; i++) source_close(g->sources[i]);
    g->n_source = 0;
}

/* ---- asking ------------------------------------------------------------------------------- */

static const gguf_string *look_up(const gguf_string **names, uint64_t n, const char *name) {
    gguf_string wanted = {name, strlen(name)};
    const gguf_string *key = &wanted;
    const gguf_string **found = bsearch(&key, names, (size_t)n, sizeof *names, compare_names);
    return found ? *found : NULL;
}

const gguf_value *gguf_find(const gguf *g, const char *key) {
    const name_index *index = g->index;
    return (const gguf_value *)(const void *)look_up(index->keys, g->n_value, key);
}

const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name) {
    const name_index *index = g->index;
    return (const gguf_tensor *)(const void *)look_up(index->tensors, g->n_tensor, name);
}

bool gguf_get_u32(const gguf *g, const char *key, uint32_t *out) {
    return value_u32(gguf_find(g, key), out);
}

bool gguf_get_f32(const gguf *g, const char *key, float *out) {
    const gguf_value *v = gguf_find(g, key);
    if (v == NULL || (v->kind != GGUF_F32 && v->kind != GGUF_F64)) return false;
    *out = (float)v->as.f;
    return true;
}

bool gguf_get_bool(const gguf *g, const char *key, bool *out) {
    const gguf_value *v = gguf_find(g, key);
    if (v == NULL || v->kind != GGUF_BOOL) return false;
    *out = v->as.u != 0;
    return true;
}

bool gguf_get_string(const gguf *g, const char *key, gguf_string *out) {
    const gguf_value *v = gguf_find(g, key);
    if (v == NULL || v->kind != GGUF_STRING) return false;
    *out = v->as.s;
    return true;
}

bool gguf_array_u32(const gguf_value *v, uint64_t i, uint32_t *out) {
    if (v == NULL || v->kind != GGUF_ARRAY || i >= v->n) return false;
    gguf_value item = {.kind = v->item};
    unsigned n = kind_bytes(v->item);
    if (n == 0) return false;
    const unsigned char *b = (const unsigned char *)v->as.items + (size_t)i * n;
    uint64_t bits = 0;
    for (unsigned k = n; k-- > 0;) bits = bits << 8 | b[k];
    if (v->item == GGUF_BOOL) {
        *out = bits != 0;
        return true;
    }
    if (is_signed(v->item))
        item.as.i = sign_extend(bits, n);
    else
        item.as.u = bits;
    return value_u32(&item, out);
}

const char *gguf_shape(const gguf_tensor *t, char text[96]) {
    size_t at = 0;
    const char *type = quant_name(t->type);
    for (uint32_t i = t->n_dims; i-- > 0 && at < 96;)
        at += (size_t)snprintf(text + at, 96 - at, "%s%" PRIu64, at ? ", " : "[", t->ne[i]);
    if (at >= 96) return text;
    if (type)
        snprintf(text + at, 96 - at, "] %s", type);
    else
        snprintf(text + at, 96 - at, "] type %u", t->type);
    return text;
}
