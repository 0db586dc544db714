/* gpu_web: gpu.h over WebGPU in a browser. The other half is web/gpu.js, which owns the device and
 * gives out the ids; this file hands the calls over and keeps count.
 *
 * Nothing waits here: what a call did wrong is known later, and told by the next submit or poll.
 * Flow: model/device.c before, web/gpu.js after. */
#include "gpu/gpu.h"

#include <string.h>

#define IMPORT(name) __attribute__((import_module("gpu"), import_name(#name))) extern

/* The numbers of gpu_info, in the order of web/gpu.js. */
enum {
    SOFTWARE,
    SUBGROUPS,
    SUBGROUP_MIN,
    SUBGROUP_MAX,
    PACKED_DOT,
    MAX_BUFFER,
    MAX_BINDING,
    MAX_STORAGE_BUFFERS,
    MAX_WORKGROUP_BYTES,
    MAX_INVOCATIONS,
    MAX_GROUPS,
    N_NUMBER
};

IMPORT(open)
bool js_open(double numbers[N_NUMBER], char *name, size_t name_cap, char *backend,
             size_t backend_cap);
IMPORT(close) void js_close(void);
/* A carat_code and its sentence; 0: nothing went wrong. */
IMPORT(error) uint32_t js_error(char *message, size_t cap);
IMPORT(buffer) uint32_t js_buffer(double size, uint32_t usage, const char *label);
IMPORT(free_buffer) double js_free_buffer(uint32_t id); /* its size */
IMPORT(write) void js_write(uint32_t id, double offset, const void *data, size_t n);
IMPORT(pipeline) uint32_t js_pipeline(const gpu_pipeline_desc *desc);
IMPORT(free_pipeline) void js_free_pipeline(uint32_t id);
IMPORT(bind) uint32_t js_bind(uint32_t pipeline, const gpu_view *views, uint32_t n);
IMPORT(free_bind) void js_free_bind(uint32_t id);
IMPORT(dispatch)
void js_dispatch(uint32_t pipeline, uint32_t bind, uint32_t x, uint32_t y, uint32_t z);
IMPORT(copy)
void js_copy(uint32_t dst, double dst_offset, uint32_t src, double src_offset, double n);
IMPORT(submit) void js_submit(void);
IMPORT(read) uint32_t js_read(uint32_t buffer, double offset, size_t n);
IMPORT(poll) uint32_t js_poll(uint32_t ticket, void *dst);
IMPORT(pending) uint32_t js_pending(void);

_Static_assert(sizeof(void *) == 4 && offsetof(gpu_pipeline_desc, bindings) == 12 &&
                   offsetof(gpu_pipeline_desc, constants) == 20 && sizeof(gpu_constant) == 16 &&
                   offsetof(gpu_view, offset) == 8 && sizeof(gpu_view) == 24,
               "gpu.js reads them");

static bool healthy(gpu *g, carat_error *err) {
    char message[400];
    uint32_t code = js_error(message, sizeof message);
    if (code == CARAT_E_DEVICE_LOST) g->lost = true;
    return code == 0 || fail(err, (carat_code)code, "%s", message);
}

static void web_close(gpu *g) {
    (void)g;
    js_close();
}

/* ---- buffers ------------------------------------------------------------------------------- */

static gpu_buffer web_buffer_create(gpu *g, uint64_t size, gpu_usage usage, const char *label,
                                    carat_error *err) {
    gpu_buffer none = {0};
    size = round_up(size ? size : 4, 4);
    if (g->lost) {
        healthy(g, err);
        return none;
    }
    if (size > g->info.max_buffer) {
        fail(err, CARAT_E_MEMORY, "gpu: buffer %s: %llu bytes; the device allows %llu", label,
             (unsigned long long)size, (unsigned long long)g->info.max_buffer);
        return none;
    }
    gpu_stats *stats = &g->stats;
    stats->buffer_bytes += size;
    if (stats->buffer_bytes > stats->peak_buffer_bytes)
        stats->peak_buffer_bytes = stats->buffer_bytes;
    return (gpu_buffer){js_buffer((double)size, usage, label)};
}

static void web_buffer_free(gpu *g, gpu_buffer b) {
    g->stats.buffer_bytes -= (uint64_t)js_free_buffer(b.id);
}

static void web_write(gpu *g, gpu_buffer b, uint64_t offset, const void *data, size_t n) {
    (void)g;
    assert(offset % 4 == 0 && n % 4 == 0);
    js_write(b.id, (double)offset, data, n);
}

/* ---- pipelines and bind groups ------------------------------------------------------------- */

static gpu_pipeline web_pipeline_create(gpu *g, const gpu_pipeline_desc *desc, carat_error *err) {
    if (g->lost) {
        healthy(g, err);
        return (gpu_pipeline){0};
    }
    g->stats.n_pipeline++;
    return (gpu_pipeline){js_pipeline(desc)};
}

static void web_pipeline_free(gpu *g, gpu_pipeline p) {
    (void)g;
    js_free_pipeline(p.id);
}

static gpu_bind web_bind_create(gpu *g, gpu_pipeline p, const gpu_view *views, uint32_t n,
                                carat_error *err) {
    if (g->lost) {
        healthy(g, err);
        return (gpu_bind){0};
    }
    g->stats.n_bind++;
    return (gpu_bind){js_bind(p.id, views, n)};
}

static void web_bind_free(gpu *g, gpu_bind b) {
    (void)g;
    js_free_bind(b.id);
}

/* ---- recording and reading back ------------------------------------------------------------- */

static void web_dispatch(gpu *g, gpu_pipeline p, gpu_bind b, uint32_t x, uint32_t y, uint32_t z) {
    js_dispatch(p.id, b.id, x, y, z);
    g->stats.n_dispatch++;
}

static void web_copy(gpu *g, gpu_buffer dst, uint64_t dst_offset, gpu_buffer src,
                     uint64_t src_offset, uint64_t n) {
    (void)g;
    js_copy(dst.id, (double)dst_offset, src.id, (double)src_offset, (double)n);
}

static bool web_submit(gpu *g, carat_error *err) {
    js_submit();
    g->stats.n_submit++;
    return healthy(g, err);
}

static gpu_ticket web_read(gpu *g, gpu_buffer b, uint64_t offset, size_t n, carat_error *err) {
    if (!healthy(g, err)) return (gpu_ticket){0};
    g->stats.n_submit++;
    return (gpu_ticket){js_read(b.id, (double)offset, n)};
}

static gpu_poll_result web_poll(gpu *g, gpu_ticket t, void *dst, carat_error *err) {
    gpu_poll_result got = (gpu_poll_result)js_poll(t.id, dst);
    if (got == GPU_PENDING) return got;
    if (!healthy(g, err)) return GPU_FAILED;
    if (got == GPU_FAILED) fail(err, CARAT_E_DEVICE, "gpu: a result could not be read back");
    return got;
}

static uint32_t web_pending(gpu *g) {
    (void)g;
    return js_pending();
}

/* JavaScript waits, with Gpu.settled(). */
static void web_wait(gpu *g) { (void)g; }

/* ---- opening ------------------------------------------------------------------------------- */

gpu *gpu_open(carat_error *err) {
    static const gpu_api api = {
        .close = web_close,
        .buffer_create = web_buffer_create,
        .buffer_free = web_buffer_free,
        .write = web_write,
        .pipeline_create = web_pipeline_create,
        .pipeline_free = web_pipeline_free,
        .bind_create = web_bind_create,
        .bind_free = web_bind_free,
        .dispatch = web_dispatch,
        .copy = web_copy,
        .submit = web_submit,
        .read = web_read,
        .poll = web_poll,
        .pending = web_pending,
        .wait = web_wait,
    };
    static gpu g; /* JavaScript has one at a time, too */
    double n[N_NUMBER];
    g = (gpu){.api = &api};
    gpu_info *info = &g.info;
    if (!js_open(n, info->name, sizeof info->name, info->backend, sizeof info->backend)) {
        healthy(&g, err);
        return NULL;
    }
    info->software = n[SOFTWARE] > 0;
    info->subgroups = n[SUBGROUPS] > 0;
    info->subgroup_min = (uint32_t)n[SUBGROUP_MIN];
    info->subgroup_max = (uint32_t)n[SUBGROUP_MAX];
    info->packed_dot = n[PACKED_DOT] > 0;
    info->max_buffer = (uint64_t)n[MAX_BUFFER];
    info->max_binding = (uint64_t)n[MAX_BINDING];
    info->max_storage_buffers = (uint32_t)n[MAX_STORAGE_BUFFERS];
    info->max_workgroup_bytes = (uint32_t)n[MAX_WORKGROUP_BYTES];
    info->max_invocations = (uint32_t)n[MAX_INVOCATIONS];
    info->max_groups = (uint32_t)n[MAX_GROUPS];
    return &g;
}
