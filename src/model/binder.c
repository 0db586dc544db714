/* binder: finds one tensor after the other by name, checks its shape and type, and keeps lists of
 * what is to be read; mismatches are gathered and reported together. Then reads the small tensors.
 * Does not know which tensors a network has.
 *
 * Flow: file/gguf.c before; bind.c and encoder_bind.c use it, weights.c after. */
#include "model/bind.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAMED    8
#define READ_NUMBERS 256u /* plain values read at once */

typedef struct full_name {
    char text[96];
} full_name;

static full_name with_prefix(const binder *b, const char *name) {
    full_name f;
    snprintf(f.text, sizeof f.text, "%s%s", b->prefix, name);
    return f;
}

const gguf_tensor *bind_find(const binder *b, const char *name) {
    return gguf_find_tensor(b->gguf, with_prefix(b, name).text);
}

/* ---- complaints ---- */

__attribute__((format(printf, 3, 4))) static void complain(binder *b, carat_code code,
                                                           const char *fmt, ...) {
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (code == CARAT_E_FORMAT) b->code = code;
    b->n_complaint++;
    const size_t n = strlen(text) + 2;
    if (b->n_named >= MAX_NAMED || b->len + n >= sizeof b->complaints) return;
    b->len += (size_t)snprintf(b->complaints + b->len, sizeof b->complaints - b->len, "%s%s",
                               b->n_named ? "; " : "", text);
    b->n_named++;
}

static void complain_missing(binder *b, const char *name) {
    complain(b, CARAT_E_FORMAT, "%s is missing", with_prefix(b, name).text);
}

static bool complain_shape(binder *b, const gguf_tensor *t, uint32_t ne0, uint32_t ne1,
                           uint32_t ne2) {
    char is[96], want[48];
    if (ne2 > 1)
        snprintf(want, sizeof want, "[%u, %u, %u]", ne2, ne1, ne0);
    else if (ne1 > 1)
        snprintf(want, sizeof want, "[%u, %u]", ne1, ne0);
    else
        snprintf(want, sizeof want, "[%u]", ne0);
    complain(b, CARAT_E_FORMAT, "%s is %s, not %s", t->name.text, gguf_shape(t, is), want);
    return false;
}

static bool check_shape(binder *b, const gguf_tensor *t, uint32_t ne0, uint32_t ne1, uint32_t ne2) {
    return (t->ne[0] == ne0 && t->ne[1] == ne1 && t->ne[2] == ne2 && t->ne[3] == 1) ||
           complain_shape(b, t, ne0, ne1, ne2);
}

static bool check_type(binder *b, const gguf_tensor *t, bool plain) {
    const quant_format *f = quant_find(t->type);
    const char *name = quant_name(t->type);
    if (f && t->ne[0] % f->n_value == 0 && (!plain || f->n_value == 1)) return true;
    if (!name)
        complain(b, CARAT_E_UNSUPPORTED, "%s is of the unknown type %u", t->name.text, t->type);
    else if (plain)
        complain(b, CARAT_E_UNSUPPORTED, "%s is %s, not F32", t->name.text, name);
    else
        complain(b, CARAT_E_UNSUPPORTED, "%s is %s, which carat does not run", t->name.text, name);
    return false;
}

/* ---- one tensor ---- */

/* Lists v; takes t as its tensor if that is as it should be. */
static void take_vec(binder *b, const gguf_tensor *t, bool good_shape, uint32_t n, vector *v) {
    assert(b->n_vector < b->max_vector);
    *v = (vector){.n = n};
    b->vectors[b->n_vector++] = v;
    if (!t || !good_shape || !check_type(b, t, true)) return;
    v->tensor = t;
    b->n_params += n;
}

void bind_optional_vec(binder *b, const char *name, const char *alias, uint32_t n, vector *v) {
    const gguf_tensor *t = bind_find(b, name);
    if (!t && alias) t = bind_find(b, alias);
    take_vec(b, t, t && check_shape(b, t, n, 1, 1), n, v);
}

void bind_vec(binder *b, const char *name, const char *alias, uint32_t n, vector *v) {
    if (bind_find(b, name) || (alias && bind_find(b, alias)))
        bind_optional_vec(b, name, alias, n, v);
    else
        complain_missing(b, name);
}

static bool count_is(const gguf_tensor *t, uint64_t n) {
    uint64_t all = 1;
    for (uint32_t i = 0; i < GGUF_MAX_DIMS; i++) { /* no factor of n is larger than it */
        if (t->ne[i] > n || !t->ne[i]) return false;
        all *= t->ne[i];
        if (all > n) return false;
    }
    return all == n;
}

void bind_flat_vec(binder *b, const char *name, uint32_t n_col, uint32_t n_row, vector *v) {
    const uint32_t n = n_col * n_row;
    const gguf_tensor *t = bind_find(b, name);
    if (t)
        take_vec(b, t, count_is(t, n) || complain_shape(b, t, n_col, n_row, 1), n, v);
    else
        complain_missing(b, name);
}

void bind_numbers(binder *b, const gguf_tensor *t, uint32_t n, float *to) {
    if (!check_shape(b, t, n, 1, 1) || !check_type(b, t, true)) return;
    assert(b->n_number < b->max_number);
    b->numbers[b->n_number++] = (number_ref){t, to, n, false};
}

void bind_limit(binder *b, const char *name, float *to) {
    const gguf_tensor *t = bind_find(b, name);
    if (!t) return;
    bind_numbers(b, t, 1, to);
    if (b->n_number) b->numbers[b->n_number - 1].infinite = true;
}

void bind_bare(binder *b, const char *name, uint32_t n_col, uint32_t n_row, uint32_t n_expert,
               weight *w) {
    const gguf_tensor *t = bind_find(b, name);
    *w = (weight){.n_col = n_col, .n_row = n_row, .n_expert = n_expert, .scale = 1};
    if (!t) {
        complain_missing(b, name);
        return;
    }
    if (!check_shape(b, t, n_col, n_row, n_expert) || !check_type(b, t, false)) return;
    w->tensor = t;
    w->type = t->type;
    b->n_params += (uint64_t)n_col * n_row * n_expert;
}

void bind_resident(binder *b, weight *w) {
    if (!w->tensor) return;
    assert(b->n_matrix < b->max_matrix);
    b->matrices[b->n_matrix++] = w;
}

/* NVFP4 holds its range in a second tensor: X.weight's is X.scale, one number a matrix. */
void bind_external_scale(binder *b, const char *name, weight *w) {
    if (!w->tensor || w->type != QUANT_NVFP4) return;
    char scale[64];
    const size_t stem = strlen(name) - strlen(".weight");
    snprintf(scale, sizeof scale, "%.*s.scale", (int)stem, name);
    const gguf_tensor *t = bind_find(b, scale);
    if (!t) return;
    float *to = &w->scale;
    if (w->n_expert > 1) w->expert_scale = to = arena_alloc(b->a, w->n_expert, sizeof *to);
    if (to)
        bind_numbers(b, t, w->n_expert, to);
    else
        b->no_memory = true;
}

void bind_experts(binder *b, const char *name, uint32_t n_col, uint32_t n_row, uint32_t n_expert,
                  weight *w) {
    bind_bare(b, name, n_col, n_row, n_expert, w);
    bind_external_scale(b, name, w);
    bind_resident(b, w);
}

void bind_mat(binder *b, const char *name, uint32_t n_col, uint32_t n_row, weight *w) {
    bind_experts(b, name, n_col, n_row, 1, w);
}

void bind_flat_mat(binder *b, const char *name, uint32_t n_col, uint32_t n_row, weight *w) {
    const gguf_tensor *t = bind_find(b, name);
    if (!t || t->n_dims < 3) {
        bind_mat(b, name, n_col, n_row, w);
        return;
    }
    *w = (weight){.n_col = n_col, .n_row = n_row, .n_expert = 1, .scale = 1};
    const uint64_t outer = t->ne[t->n_dims - 1];
    if (!(outer == n_row && count_is(t, (uint64_t)n_col * n_row)))
        complain_shape(b, t, n_col, n_row, 1);
    else if (check_type(b, t, false)) {
        w->tensor = t;
        w->type = t->type;
        b->n_params += (uint64_t)n_col * n_row;
        bind_resident(b, w);
    }
}

/* ---- the lists ---- */

void binder_open(binder *b, arena *a, const gguf *g, uint32_t max_matrix, uint32_t max_vector,
                 uint32_t max_number) {
    *b = (binder){.a = a,
                  .gguf = g,
                  .max_matrix = max_matrix,
                  .max_vector = max_vector,
                  .max_number = max_number,
                  .code = CARAT_E_UNSUPPORTED};
    b->matrices = arena_alloc(a, (size_t)max_matrix + 1, sizeof(weight *));
    b->vectors = arena_alloc(a, max_vector, sizeof(vector *));
    b->numbers = arena_alloc(a, max_number, sizeof(number_ref));
    b->no_memory = !b->matrices || !b->vectors || !b->numbers;
}

static int by_place(const void *a, const void *b) {
    const weight *x = *(weight *const *)a, *y = *(weight *const *)b;
    return (x->tensor > y->tensor) - (x->tensor < y->tensor);
}

bool binder_close(binder *b, const char *what, carat_error *err) {
    if (b->no_memory)
        return fail(err, CARAT_E_MEMORY, "%s: out of memory for its tensor table", what);
    if (b->n_complaint > b->n_named)
        return fail(err, b->code, "%s: %s; and %u more", what, b->complaints,
                    b->n_complaint - b->n_named);
    if (b->n_complaint) return fail(err, b->code, "%s: %s", what, b->complaints);
    qsort(b->matrices, b->n_matrix, sizeof *b->matrices, by_place);
    return true;
}

/* ---- reading ---- */

/* Reads t [n], of a plain float type, as f32 and refuses NaN and, unless it may be, infinity. */
static bool read_numbers(const gguf_tensor *t, float *out, uint32_t n, bool infinite,
                         const char *what, carat_error *err) {
    const quant_format *f = quant_find(t->type);
    uint8_t raw[READ_NUMBERS * sizeof(float)];
    for (uint32_t at = 0; at < n; at += READ_NUMBERS) {
        const uint32_t m = min_u32(READ_NUMBERS, n - at);
        const uint64_t offset = t->offset + (uint64_t)at * f->n_byte;
        if (!source_read(t->src, offset, raw, (size_t)m * f->n_byte, err)) return false;
        f->dequantise(raw, out + at, m);
    }
    for (uint32_t i = 0; i < n; i++)
        if (isnan(out[i]) || (!infinite && isinf(out[i])))
            return fail(err, CARAT_E_FORMAT, "%s: %s holds a number that is not finite", what,
                        t->name.text);
    return true;
}

bool binder_load(binder *b, const char *what, const float **all, uint32_t *n_all,
                 carat_error *err) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < b->n_vector; i++) {
        b->vectors[i]->offset = (uint32_t)n;
        n += round_up(b->vectors[i]->n, 4);
        if (n > UINT32_MAX) return fail(err, CARAT_E_FORMAT, "%s: its vectors are too long", what);
    }
    float *packed = arena_alloc(b->a, n, sizeof *packed);
    if (!packed) return fail_memory(err, n * sizeof *packed, "the model's vectors");
    for (uint32_t i = 0; i < b->n_vector; i++) {
        vector *v = b->vectors[i];
        float *data = packed + v->offset;
        for (uint32_t j = 0; j < v->n; j++) data[j] = 1;
        if (v->tensor && !read_numbers(v->tensor, data, v->n, false, what, err)) return false;
        v->data = data;
    }
    for (uint32_t i = 0; i < b->n_number; i++) {
        const number_ref *r = &b->numbers[i];
        if (!read_numbers(r->tensor, r->to, r->n, r->infinite, what, err)) return false;
    }
    *all = packed;
    *n_all = (uint32_t)n;
    return true;
}
