/* checkpoint: a run's state in a file: a safetensors file with the adapter's values and both
 * moments, and the rest as metadata. It is written beside its place and renamed, so that there is
 * always a whole one.
 *
 * Reals are kept as the bits they are: what goes on from a checkpoint goes on exactly.
 *
 * Flow: train.c before and after. */
#include "train/train.h"

#include "file/safetensors.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT 1u

static uint64_t bits_of(double x) {
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static double real_of(uint64_t u) {
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static uint64_t mix(uint64_t h, uint64_t x) { return hash_bytes(h, &x, sizeof x); }

/* What must be the same for a run to go on: options, data, shape of the adapter, model. */
static uint64_t fingerprint(const trainer *t, const lora *l) {
    const train_options *o = &t->options;
    const uint64_t all[] = {FORMAT,
                            model_fingerprint(l->model),
                            t->data->hash,
                            bits_of(o->lr),
                            bits_of(o->weight_decay),
                            bits_of(o->clip),
                            o->n_accumulate,
                            o->n_warmup,
                            o->schedule,
                            o->seed,
                            t->n_batch,
                            t->n_step,
                            o->pack,
                            bits_of(o->eval_share),
                            o->eval_every,
                            o->patience,
                            bits_of((double)l->dropout)};
    uint64_t h = FNV_START;
    for (size_t i = 0; i < COUNT(all); i++) h = mix(h, all[i]);
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i);
        h = mix(mix(h, p->rank), bits_of((double)p->scale));
    }
    return h;
}

/* The state as names and numbers, to be written and read. */
typedef struct field {
    const char *name;
    uint64_t value;
} field;

enum { N_FIELD = 8 };

static void fields_of(const trainer *t, const lora *l, field out[N_FIELD]) {
    const train_state *s = &t->state;
    const field all[N_FIELD] = {{"fingerprint", fingerprint(t, l)},
                                {"step", s->step},
                                {"epoch", s->epoch},
                                {"at", s->at},
                                {"n_worse", s->n_worse},
                                {"best_eval", bits_of(s->best_eval)},
                                {"stopped", s->stopped},
                                {"eval_due", s->eval_due}};
    memcpy(out, all, sizeof all);
}

static void put_tensor(buf *b, const char *name, uint64_t i, uint64_t n) {
    const uint64_t bytes = n * sizeof(float);
    buf_printf(b,
               ",\"%s\":{\"dtype\":\"F32\",\"shape\":[%" PRIu64 "],\"data_offsets\":[%" PRIu64
               ",%" PRIu64 "]}",
               name, n, i * bytes, (i + 1) * bytes);
}

bool checkpoint_write(const char *path, const trainer *t, const lora *adapter, const adamw *moments,
                      carat_error *err) {
    buf header = {0};
    field fields[N_FIELD];
    unsigned char length[8];
    fields_of(t, adapter, fields);
    buf_puts(&header, "{\"__metadata__\":{");
    for (size_t i = 0; i < N_FIELD; i++)
        buf_printf(&header, "%s\"%s\":\"%016" PRIx64 "\"", i ? "," : "", fields[i].name,
                   fields[i].value);
    buf_puts(&header, "}");
    put_tensor(&header, "adapter", 0, adapter->n_value);
    put_tensor(&header, "m", 1, adapter->n_value);
    put_tensor(&header, "v", 2, adapter->n_value);
    buf_puts(&header, "}");
    while (header.len % 8 && !header.failed) buf_puts(&header, " ");
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)header.len >> 8 * i);
    const size_t bytes = (size_t)adapter->n_value * sizeof(float);
    const file_part parts[] = {{length, sizeof length},
                               {header.data, header.len},
                               {adapter->values, bytes},
                               {moments->m, bytes},
                               {moments->v, bytes}};
    const bool ok = header.failed ? fail_memory(err, header.len, "a checkpoint")
                                  : file_write_parts(path, parts, COUNT(parts), err);
    buf_free(&header);
    return ok;
}

static bool read_field(const safetensors *s, field *f, carat_error *err) {
    const char *text = json_string(json_get(s->metadata, f->name), NULL);
    char *end;
    if (!text || strlen(text) != 16)
        return fail(err, CARAT_E_FORMAT, "checkpoint: %s: %s is missing", s->src->name, f->name);
    f->value = strtoull(text, &end, 16);
    return !*end ||
           fail(err, CARAT_E_FORMAT, "checkpoint: %s: %s is damaged", s->src->name, f->name);
}

static bool read_values(const safetensors *s, const char *name, uint64_t n, float *out,
                        carat_error *err) {
    const safetensor *t = safetensors_find(s, name);
    if (!t || strcmp(t->dtype, "F32") != 0 || t->n_dims != 1 || t->ne[0] != n)
        return fail(err, CARAT_E_FORMAT, "checkpoint: %s: %s is missing or of another size",
                    s->src->name, name);
    if (!safetensors_read_f32(s, t, out, err)) return false;
    for (uint64_t i = 0; i < n; i++)
        if (!isfinite(out[i]))
            return fail(err, CARAT_E_FORMAT, "checkpoint: %s: %s holds values that are not finite",
                        s->src->name, name);
    return true;
}

static bool damaged(const safetensors *s, carat_error *err) {
    return fail(err, CARAT_E_FORMAT, "checkpoint: %s is damaged", s->src->name);
}

static bool read_state(const safetensors *s, const trainer *t, const lora *l, train_state *out,
                       carat_error *err) {
    field f[N_FIELD];
    fields_of(t, l, f);
    const uint64_t expected = f[0].value;
    for (size_t i = 0; i < N_FIELD; i++)
        if (!read_field(s, &f[i], err)) return false;
    if (f[0].value != expected)
        return fail(err, CARAT_E_ARGUMENT,
                    "checkpoint: %s is of a run with another model, data, adapter or options",
                    s->src->name);
    for (size_t i = 1; i < 5; i++) /* numbers of 32 bits */
        if (f[i].value > UINT32_MAX) return damaged(s, err);
    *out = (train_state){.step = (uint32_t)f[1].value,
                         .epoch = (uint32_t)f[2].value,
                         .at = (uint32_t)f[3].value,
                         .n_worse = (uint32_t)f[4].value,
                         .best_eval = real_of(f[5].value),
                         .stopped = f[6].value != 0,
                         .eval_due = f[7].value != 0 && t->n_eval};
    return out->step < t->n_step ? out->at < t->n_train || damaged(s, err)
                                 : out->step == t->n_step || damaged(s, err);
}

bool checkpoint_read(source *src, trainer *t, lora *adapter, adamw *moments, carat_error *err) {
    arena *scratch = arena_create(err);
    safetensors *s;
    train_state state;
    const uint64_t n = adapter->n_value;
    float *values = scratch ? arena_alloc(scratch, 3 * n, sizeof *values) : NULL;
    bool ok = values || fail_memory(err, 3 * n * sizeof *values, "a checkpoint");
    ok = ok && safetensors_open(scratch, src, &s, err) && read_state(s, t, adapter, &state, err) &&
         read_values(s, "adapter", n, values, err) && read_values(s, "m", n, values + n, err) &&
         read_values(s, "v", n, values + 2 * n, err);
    if (ok) { /* all of it, or nothing */
        const size_t bytes = (size_t)n * sizeof *values;
        memcpy(adapter->values, values, bytes);
        memcpy(moments->m, values + n, bytes);
        memcpy(moments->v, values + 2 * n, bytes);
        moments->step = state.step;
        trainer_rewind(t, &state);
    }
    arena_free(scratch);
    return ok;
}
