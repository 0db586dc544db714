/* gpu_record: a device in front of Dawn's that notes every call, or in front of none that plays
 * results back; see gpu_record.h.
 *
 * Flow: gpu_dawn.c below, kernel_test.h above. */
#include "gpu_record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_READS   16u /* under way at once */
#define MAX_BUFFERS 1024u

typedef struct record_device {
    gpu base;
    gpu *inner;                   /* NULL: results are played back */
    FILE *calls;                  /* written, or NULL */
    FILE *results;                /* read, or NULL */
    uint32_t n_id;                /* handles given out when there is no inner device */
    uint32_t n_ask;               /* reads so far */
    uint32_t expected[MAX_READS]; /* [n_ask % MAX_READS] bytes of a read under way */
    struct {
        uint32_t id; /* 0: free */
        uint64_t size;
    } buffers[MAX_BUFFERS]; /* that are alive, for gpu_stats */
} record_device;

static record_device *of(gpu *g) { return (record_device *)g; }

static void put(record_device *d, record_op op, const uint32_t *words, uint32_t n_word,
                const void *data, size_t n) {
    if (!d->calls) return;
    const uint32_t head[] = {(uint32_t)op, n_word, (uint32_t)n};
    static const char zeros[4];
    fwrite(head, sizeof head, 1, d->calls);
    fwrite(words, sizeof *words, n_word, d->calls);
    fwrite(data, 1, n, d->calls);
    fwrite(zeros, 1, round_up(n, 4) - n, d->calls);
}
#define PUT(d, op, data, n, ...)                                                                   \
    put(d, op, (const uint32_t[]){__VA_ARGS__}, COUNT(((const uint32_t[]){__VA_ARGS__})), data, n)

static void record_close(gpu *g) {
    record_device *d = of(g);
    gpu_close(d->inner);
    if (d->calls) fclose(d->calls);
    if (d->results) fclose(d->results);
    free(d);
}

/* The place of buffer `was` (0: a free one) is that of `is`. */
static void count_buffer(record_device *d, uint32_t was, uint32_t is, uint64_t size) {
    uint32_t i = 0;
    while (i < MAX_BUFFERS && d->buffers[i].id != was) i++;
    assert(i < MAX_BUFFERS);
    d->base.stats.buffer_bytes += size - d->buffers[i].size;
    d->buffers[i].id = is;
    d->buffers[i].size = size;
}

static gpu_buffer record_buffer_create(gpu *g, uint64_t size, gpu_usage usage, const char *label,
                                       carat_error *err) {
    record_device *d = of(g);
    gpu_buffer b = {d->inner ? gpu_buffer_create(d->inner, size, usage, label, err).id : ++d->n_id};
    PUT(d, RECORD_BUFFER, NULL, 0, b.id, (uint32_t)size, (uint32_t)usage);
    count_buffer(d, 0, b.id, round_up(size, 4));
    return b;
}

static void record_buffer_free(gpu *g, gpu_buffer b) {
    record_device *d = of(g);
    if (d->inner) gpu_buffer_free(d->inner, b);
    count_buffer(d, b.id, 0, 0);
    PUT(d, RECORD_FREE, NULL, 0, b.id);
}

static void record_write(gpu *g, gpu_buffer b, uint64_t offset, const void *data, size_t n) {
    record_device *d = of(g);
    if (d->inner) gpu_write(d->inner, b, offset, data, n);
    PUT(d, RECORD_WRITE, data, n, b.id, (uint32_t)offset);
}

static void put_pipeline(record_device *d, uint32_t id, const gpu_pipeline_desc *desc) {
    uint32_t words[1 + GPU_MAX_BINDINGS] = {id};
    for (uint32_t i = 0; i < desc->n_binding; i++) words[1 + i] = desc->bindings[i];
    buf text = {0};
    buf_puts(&text, "{\"label\":");
    json_write_string(&text, desc->label, strlen(desc->label));
    buf_puts(&text, ",\"wgsl\":");
    json_write_string(&text, desc->wgsl, strlen(desc->wgsl));
    buf_puts(&text, ",\"constants\":{");
    for (uint32_t i = 0; i < desc->n_constant; i++)
        buf_printf(&text, "%s\"%s\":%.17g", i ? "," : "", desc->constants[i].name,
                   desc->constants[i].value);
    buf_puts(&text, "}}");
    put(d, RECORD_PIPELINE, words, 1 + desc->n_binding, text.data, text.len);
    buf_free(&text);
}

static gpu_pipeline record_pipeline_create(gpu *g, const gpu_pipeline_desc *desc,
                                           carat_error *err) {
    record_device *d = of(g);
    gpu_pipeline p = {d->inner ? gpu_pipeline_create(d->inner, desc, err).id : ++d->n_id};
    put_pipeline(d, p.id, desc);
    return p;
}

static void record_pipeline_free(gpu *g, gpu_pipeline p) {
    if (of(g)->inner) gpu_pipeline_free(of(g)->inner, p);
}

static gpu_bind record_bind_create(gpu *g, gpu_pipeline p, const gpu_view *views, uint32_t n,
                                   carat_error *err) {
    record_device *d = of(g);
    gpu_bind b = {d->inner ? gpu_bind_create(d->inner, p, views, n, err).id : ++d->n_id};
    uint32_t words[2 + 3 * GPU_MAX_BINDINGS] = {b.id, p.id};
    for (uint32_t i = 0; i < n; i++) {
        words[2 + 3 * i] = views[i].buffer.id;
        words[3 + 3 * i] = (uint32_t)views[i].offset;
        words[4 + 3 * i] = (uint32_t)views[i].size;
    }
    put(d, RECORD_BIND, words, 2 + 3 * n, NULL, 0);
    return b;
}

static void record_bind_free(gpu *g, gpu_bind b) {
    if (of(g)->inner) gpu_bind_free(of(g)->inner, b);
}

static void record_dispatch(gpu *g, gpu_pipeline p, gpu_bind b, uint32_t x, uint32_t y,
                            uint32_t z) {
    record_device *d = of(g);
    if (d->inner) gpu_dispatch(d->inner, p, b, x, y, z);
    PUT(d, RECORD_DISPATCH, NULL, 0, p.id, b.id, x, y, z);
    g->stats.n_dispatch++;
}

static void record_copy(gpu *g, gpu_buffer dst, uint64_t dst_offset, gpu_buffer src,
                        uint64_t src_offset, uint64_t n) {
    record_device *d = of(g);
    if (d->inner) gpu_copy(d->inner, dst, dst_offset, src, src_offset, n);
    PUT(d, RECORD_COPY, NULL, 0, dst.id, (uint32_t)dst_offset, src.id, (uint32_t)src_offset,
        (uint32_t)n);
}

static bool record_submit(gpu *g, carat_error *err) {
    record_device *d = of(g);
    put(d, RECORD_SUBMIT, NULL, 0, NULL, 0);
    g->stats.n_submit++;
    return d->inner ? gpu_submit(d->inner, err) : true;
}

static gpu_ticket record_read(gpu *g, gpu_buffer b, uint64_t offset, size_t n, carat_error *err) {
    record_device *d = of(g);
    PUT(d, RECORD_READ, NULL, 0, b.id, (uint32_t)offset, (uint32_t)n);
    g->stats.n_submit++; /* a read submits */
    if (d->inner) return gpu_read(d->inner, b, offset, n, err);
    d->expected[++d->n_ask % MAX_READS] = (uint32_t)n;
    return (gpu_ticket){d->n_ask};
}

/* Results come in the order of the reads, and are asked for in that order. */
static gpu_poll_result record_poll(gpu *g, gpu_ticket t, void *dst, carat_error *err) {
    record_device *d = of(g);
    if (d->inner) return gpu_poll(d->inner, t, dst, err);
    uint32_t n = 0, expected = d->expected[t.id % MAX_READS];
    if (fread(&n, sizeof n, 1, d->results) == 1 && n == expected &&
        fread(dst, 1, n, d->results) == n)
        return GPU_READY;
    fail(err, CARAT_E_DEVICE, "read %u: the results have %u bytes, not %u; of another recording?",
         t.id, n, expected);
    return GPU_FAILED;
}

static uint32_t record_pending(gpu *g) { return of(g)->inner ? gpu_pending(of(g)->inner) : 0; }

static void record_wait(gpu *g) {
    if (of(g)->inner) gpu_wait(of(g)->inner);
}

static const gpu_api record_api = {
    .close = record_close,
    .buffer_create = record_buffer_create,
    .buffer_free = record_buffer_free,
    .write = record_write,
    .pipeline_create = record_pipeline_create,
    .pipeline_free = record_pipeline_free,
    .bind_create = record_bind_create,
    .bind_free = record_bind_free,
    .dispatch = record_dispatch,
    .copy = record_copy,
    .submit = record_submit,
    .read = record_read,
    .poll = record_poll,
    .pending = record_pending,
    .wait = record_wait,
};

static FILE *open_file(const char *dir, uint32_t i, const char *kind, const char *mode,
                       carat_error *err) {
    char path[500];
    snprintf(path, sizeof path, "%s/%s-%u.%s", dir, program_invocation_short_name, i, kind);
    FILE *f = fopen(path, mode);
    if (!f) fail(err, CARAT_E_IO, "%s: %s", path, strerror(errno));
    return f;
}

/* The device that was recorded, as its first record says. */
static bool read_info(const char *dir, uint32_t i, gpu_info *info, carat_error *err) {
    FILE *f = open_file(dir, i, "calls", "rb", err);
    uint32_t head[3] = {0};
    bool ok = f && fread(head, sizeof head, 1, f) == 1 && head[0] == RECORD_DEVICE &&
              head[2] == sizeof *info && fread(info, sizeof *info, 1, f) == 1;
    if (f) fclose(f);
    return ok || fail(err, CARAT_E_FORMAT, "%s: no recording of a device", dir);
}

gpu *record_open(carat_error *err) {
    static uint32_t n_device;
    const char *record = getenv("KT_RECORD"), *replay = getenv("KT_REPLAY");
    if (!record && !replay) return gpu_dawn_open(NULL, err);
    const uint32_t i = n_device++;
    record_device *d = calloc(1, sizeof *d);
    d->base.api = &record_api;
    bool ok = true;
    if (replay) {
        ok = read_info(replay, i, &d->base.info, err) &&
             (d->results = open_file(replay, i, "results", "rb", err));
    } else {
        ok = (d->inner = gpu_dawn_open(NULL, err)) &&
             (d->calls = open_file(record, i, "calls", "wb", err));
        if (d->inner) d->base.info = d->inner->info;
        put(d, RECORD_DEVICE, NULL, 0, &d->base.info, sizeof d->base.info);
    }
    if (ok) return &d->base;
    record_close(&d->base);
    return NULL;
}
