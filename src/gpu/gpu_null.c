/* gpu_null: checks, counts, fails on demand; see gpu_null.h. It runs no kernel and keeps no data.
 *
 * Flow: gpu.h before; nothing after. */
#include "gpu/gpu_null.h"
#include "gpu/handle.h"

#include <stdio.h>
#include <string.h>

#define UNIFORM_ALIGN 256u
#define MAX_UNIFORM   65536u

typedef struct null_bind {
    uint32_t n, pipeline;
    gpu_view views[GPU_MAX_BINDINGS];
} null_bind;

typedef struct null_pipeline {
    uint32_t n;
    uint8_t bindings[GPU_MAX_BINDINGS];
} null_pipeline;

typedef struct null_device {
    gpu base;
    arena *memory;
    gpu_null_desc desc;
    gpu_null_counts counts;
    uint64_t n_pipeline_made, n_bind_made, n_read_asked, n_submitted;
    handle_table buffers, pipelines, binds, reads;
    uint64_t clock, busy_until; /* polls and waits so far */
    carat_error complaint;      /* the first ever */
    carat_error error;          /* that no submit has reported yet */
} null_device;

/* Notes a call that WebGPU would refuse. */
static void refuse(null_device *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void refuse(null_device *d, const char *fmt, ...) {
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    d->counts.n_refused++;
    fail(&d->complaint, CARAT_E_DEVICE, "gpu: %s", text);
    fail(&d->error, CARAT_E_DEVICE, "gpu: %s", text);
}

static bool healthy(null_device *d, carat_error *err) {
    if (d->base.lost) return fail(err, CARAT_E_DEVICE_LOST, "gpu: the device was lost");
    if (!d->error.code) return true;
    carat_error e = d->error;
    d->error = (carat_error){0};
    return fail(err, e.code, "%s", e.message);
}

const char *gpu_null_complaint(const gpu *g) { return ((const null_device *)g)->complaint.message; }

gpu_null_counts gpu_null_count(const gpu *g) {
    const null_device *d = (const null_device *)g;
    gpu_null_counts c = d->counts;
    c.n_buffer = d->buffers.n_used;
    c.n_pipeline = d->pipelines.n_used;
    c.n_bind = d->binds.n_used;
    c.n_reading = d->reads.n_used;
    c.memory_bytes = arena_bytes(d->memory);
    return c;
}

/* ---- buffers ------------------------------------------------------------------------------- */

static gpu_buffer null_buffer_create(gpu *g, uint64_t size, gpu_usage usage, const char *label,
                                     carat_error *err) {
    null_device *d = (null_device *)g;
    gpu_buffer none = {0};
    size = round_up(size ? size : 4, 4);
    if (!healthy(d, err)) return none;
    bool refused = ++d->counts.n_buffer_made == d->desc.fail_buffer;
    if (refused || size > g->info.max_buffer ||
        (d->desc.memory && g->stats.buffer_bytes + size > d->desc.memory)) {
        fail(err, CARAT_E_MEMORY, "gpu: buffer %s: no %llu bytes", label, (unsigned long long)size);
        return none;
    }
    uint32_t id = handle_take(&d->buffers);
    if (!id) {
        fail_memory(err, sizeof(handle_slot), "a buffer's handle");
        return none;
    }
    handle_slot *s = handle_find(&d->buffers, id);
    s->size = size;
    s->flags = usage;
    g->stats.buffer_bytes += size;
    if (g->stats.buffer_bytes > g->stats.peak_buffer_bytes)
        g->stats.peak_buffer_bytes = g->stats.buffer_bytes;
    return (gpu_buffer){id};
}

static void null_buffer_free(gpu *g, gpu_buffer b) {
    null_device *d = (null_device *)g;
    handle_slot *s = handle_find(&d->buffers, b.id);
    if (!s) {
        refuse(d, "buffer %#x is freed, but does not exist", b.id);
        return;
    }
    g->stats.buffer_bytes -= s->size;
    handle_drop(&d->buffers, b.id);
}

/* A range of a buffer for a write, copy or read. */
static bool check_range(null_device *d, const char *what, gpu_buffer b, uint64_t offset,
                        uint64_t n) {
    const handle_slot *s = handle_find(&d->buffers, b.id);
    if (!s)
        refuse(d, "%s: buffer %#x does not exist", what, b.id);
    else if (offset % 4 || n % 4)
        refuse(d, "%s: %llu bytes at %llu are not words", what, (unsigned long long)n,
               (unsigned long long)offset);
    else if (offset > s->size || n > s->size - offset)
        refuse(d, "%s: %llu bytes at %llu of a buffer of %llu", what, (unsigned long long)n,
               (unsigned long long)offset, (unsigned long long)s->size);
    else
        return true;
    return false;
}

static void null_write(gpu *g, gpu_buffer b, uint64_t offset, const void *data, size_t n) {
    null_device *d = (null_device *)g;
    (void)data;
    check_range(d, "write", b, offset, n);
    d->counts.n_write++;
    d->counts.bytes_written += n;
}

static void null_copy(gpu *g, gpu_buffer dst, uint64_t dst_offset, gpu_buffer src,
                      uint64_t src_offset, uint64_t n) {
    null_device *d = (null_device *)g;
    check_range(d, "copy to", dst, dst_offset, n);
    check_range(d, "copy from", src, src_offset, n);
    if (dst.id == src.id) refuse(d, "copy: source and target are the same buffer");
    d->counts.n_copy++;
}

/* ---- pipelines and bind groups ------------------------------------------------------------- */

static gpu_pipeline null_pipeline_create(gpu *g, const gpu_pipeline_desc *desc, carat_error *err) {
    null_device *d = (null_device *)g;
    gpu_pipeline none = {0};
    if (!healthy(d, err)) return none;
    if (++d->n_pipeline_made == d->desc.fail_pipeline) {
        fail(err, CARAT_E_DEVICE, "gpu: kernel %s: refused on demand", desc->label);
        return none;
    }
    uint32_t n_storage = 0;
    for (uint32_t i = 0; i < desc->n_binding; i++)
        n_storage += desc->bindings[i] != GPU_BIND_UNIFORM;
    if (n_storage > g->info.max_storage_buffers || !strstr(desc->wgsl, "fn main(")) {
        fail(err, CARAT_E_DEVICE, "gpu: kernel %s: %u storage buffers, or no main", desc->label,
             n_storage);
        return none;
    }
    null_pipeline *p = arena_alloc(d->memory, 1, sizeof *p);
    uint32_t id = p ? handle_take(&d->pipelines) : 0;
    if (!id) {
        fail_memory(err, sizeof *p, "a pipeline");
        return none;
    }
    p->n = desc->n_binding;
    memcpy(p->bindings, desc->bindings, desc->n_binding);
    handle_find(&d->pipelines, id)->object = p;
    g->stats.n_pipeline++;
    return (gpu_pipeline){id};
}

static void null_pipeline_free(gpu *g, gpu_pipeline p) {
    null_device *d = (null_device *)g;
    if (!handle_find(&d->pipelines, p.id))
        refuse(d, "pipeline %#x does not exist", p.id);
    else
        handle_drop(&d->pipelines, p.id);
}

/* What WebGPU asks of binding i. */
static bool check_view(const null_device *d, gpu_binding_kind kind, const gpu_view *v, uint32_t i,
                       carat_error *err) {
    const handle_slot *s = handle_find(&d->buffers, v->buffer.id);
    if (!s)
        return fail(err, CARAT_E_DEVICE, "gpu: binding %u: buffer %#x does not exist", i,
                    v->buffer.id);
    bool uniform = kind == GPU_BIND_UNIFORM;
    if (!(s->flags & (uint32_t)(uniform ? GPU_UNIFORM : GPU_STORAGE)))
        return fail(err, CARAT_E_DEVICE, "gpu: binding %u: the buffer is not for this use", i);
    uint64_t size = v->size ? v->size : s->size - (v->offset < s->size ? v->offset : s->size);
    if (v->offset % UNIFORM_ALIGN || size % 4 || size == 0 || v->offset > s->size ||
        size > s->size - v->offset)
        return fail(err, CARAT_E_DEVICE, "gpu: binding %u: %llu bytes at %llu of a buffer of %llu",
                    i, (unsigned long long)size, (unsigned long long)v->offset,
                    (unsigned long long)s->size);
    if (size > (uniform ? MAX_UNIFORM : d->base.info.max_binding))
        return fail(err, CARAT_E_DEVICE, "gpu: binding %u: %llu bytes; the device allows %llu", i,
                    (unsigned long long)size, (unsigned long long)d->base.info.max_binding);
    return true;
}

/* A buffer that a dispatch writes must not be bound a second time, but for writing elsewhere. */
static bool check_aliases(const null_pipeline *p, const gpu_view *views, carat_error *err) {
    for (uint32_t i = 0; i < p->n; i++)
        for (uint32_t j = 0; j < i; j++) {
            const gpu_view *a = &views[i], *b = &views[j];
            bool write_a = p->bindings[i] == GPU_BIND_READ_WRITE;
            bool write_b = p->bindings[j] == GPU_BIND_READ_WRITE;
            if (a->buffer.id != b->buffer.id || !(write_a || write_b)) continue;
            bool apart = (a->size && a->offset + a->size <= b->offset) ||
                         (b->size && b->offset + b->size <= a->offset);
            if (!(write_a && write_b && apart))
                return fail(err, CARAT_E_DEVICE,
                            "gpu: bindings %u and %u are one buffer, and it is written", j, i);
        }
    return true;
}

static gpu_bind null_bind_create(gpu *g, gpu_pipeline p, const gpu_view *views, uint32_t n,
                                 carat_error *err) {
    null_device *d = (null_device *)g;
    gpu_bind none = {0};
    if (!healthy(d, err)) return none;
    const handle_slot *s = handle_find(&d->pipelines, p.id);
    const null_pipeline *pipeline = s ? s->object : NULL;
    if (!pipeline || pipeline->n != n) {
        fail(err, CARAT_E_DEVICE, "gpu: bind group: no such pipeline, or not %u bindings", n);
        return none;
    }
    for (uint32_t i = 0; i < n; i++)
        if (!check_view(d, pipeline->bindings[i], &views[i], i, err)) return none;
    if (!check_aliases(pipeline, views, err)) return none;
    if (++d->n_bind_made == d->desc.fail_bind) {
        fail(err, CARAT_E_DEVICE, "gpu: bind group: refused on demand");
        return none;
    }
    null_bind *b = arena_alloc(d->memory, 1, sizeof *b);
    uint32_t id = b ? handle_take(&d->binds) : 0;
    if (!id) {
        fail_memory(err, sizeof *b, "a bind group");
        return none;
    }
    *b = (null_bind){.n = n, .pipeline = p.id};
    memcpy(b->views, views, n * sizeof *views);
    handle_find(&d->binds, id)->object = b;
    g->stats.n_bind++;
    return (gpu_bind){id};
}

static void null_bind_free(gpu *g, gpu_bind b) {
    null_device *d = (null_device *)g;
    if (!handle_find(&d->binds, b.id))
        refuse(d, "bind group %#x does not exist", b.id);
    else
        handle_drop(&d->binds, b.id);
}

/* ---- commands ------------------------------------------------------------------------------ */

static void null_dispatch(gpu *g, gpu_pipeline p, gpu_bind b, uint32_t x, uint32_t y, uint32_t z) {
    null_device *d = (null_device *)g;
    const handle_slot *s = handle_find(&d->binds, b.id);
    const null_bind *bind = s ? s->object : NULL;
    g->stats.n_dispatch++;
    if (!bind || bind->pipeline != p.id || !handle_find(&d->pipelines, p.id))
        refuse(d, "dispatch: bind group %#x is not one of pipeline %#x", b.id, p.id);
    for (uint32_t i = 0; bind && i < bind->n; i++)
        if (!handle_find(&d->buffers, bind->views[i].buffer.id))
            refuse(d, "dispatch: the buffer of binding %u was freed", i);
    uint32_t most = g->info.max_groups;
    if (x > most || y > most || z > most)
        refuse(d, "dispatch: %u x %u x %u workgroups; the device allows %u", x, y, z, most);
}

static bool null_submit(gpu *g, carat_error *err) {
    null_device *d = (null_device *)g;
    g->stats.n_submit++;
    if (++d->n_submitted == d->desc.lose_at) g->lost = true;
    d->busy_until = d->clock + d->desc.delay;
    return healthy(d, err);
}

static gpu_ticket null_read(gpu *g, gpu_buffer b, uint64_t offset, size_t n, carat_error *err) {
    null_device *d = (null_device *)g;
    gpu_ticket none = {0};
    check_range(d, "read", b, offset, round_up(n, 4));
    if (!null_submit(g, err)) return none;
    uint32_t id = ++d->n_read_asked == d->desc.fail_read ? 0 : handle_take(&d->reads);
    if (!id) {
        fail_memory(err, n, "a read");
        return none;
    }
    d->counts.n_read++;
    handle_find(&d->reads, id)->size = n;
    return (gpu_ticket){id};
}

static gpu_poll_result null_poll(gpu *g, gpu_ticket t, void *dst, carat_error *err) {
    null_device *d = (null_device *)g;
    const handle_slot *s = handle_find(&d->reads, t.id);
    assert(s && "a ticket that is gone");
    if (!g->lost && d->clock++ < d->busy_until) return GPU_PENDING;
    size_t n = (size_t)s->size;
    handle_drop(&d->reads, t.id);
    if (!healthy(d, err)) return GPU_FAILED;
    memset(dst, 0, n);
    return GPU_READY;
}

static uint32_t null_pending(gpu *g) {
    null_device *d = (null_device *)g;
    return d->clock++ < d->busy_until;
}

static void null_wait(gpu *g) {
    null_device *d = (null_device *)g;
    d->clock = d->busy_until;
}

static void null_close(gpu *g) { arena_free(((null_device *)g)->memory); }

static const gpu_api null_api = {
    .close = null_close,
    .buffer_create = null_buffer_create,
    .buffer_free = null_buffer_free,
    .write = null_write,
    .pipeline_create = null_pipeline_create,
    .pipeline_free = null_pipeline_free,
    .bind_create = null_bind_create,
    .bind_free = null_bind_free,
    .dispatch = null_dispatch,
    .copy = null_copy,
    .submit = null_submit,
    .read = null_read,
    .poll = null_poll,
    .pending = null_pending,
    .wait = null_wait,
};

gpu *gpu_null_open(const gpu_null_desc *desc, carat_error *err) {
    arena *memory = arena_create(err);
    null_device *d = memory ? arena_alloc(memory, 1, sizeof *d) : NULL;
    if (!d) {
        fail_memory(err, sizeof *d, "the null device");
        arena_free(memory);
        return NULL;
    }
    if (desc) d->desc = *desc;
    d->memory = d->buffers.memory = d->pipelines.memory = d->binds.memory = memory;
    d->reads.memory = memory;
    d->base.api = &null_api;
    d->base.info = (gpu_info){
        .name = "null",
        .backend = "none",
        .subgroups = d->desc.subgroups,
        .subgroup_min = d->desc.subgroups ? 32 : 0,
        .subgroup_max = d->desc.subgroups ? 32 : 0,
        .max_buffer = d->desc.max_buffer ? d->desc.max_buffer : 256u << 20,
        .max_binding = d->desc.max_binding ? d->desc.max_binding : 128u << 20,
        .max_storage_buffers = d->desc.max_storage_buffers ? d->desc.max_storage_buffers : 8,
        .max_workgroup_bytes = 16384,
        .max_invocations = 256,
        .max_groups = 65535,
    };
    return &d->base;
}
