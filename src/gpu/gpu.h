/* gpu: the waist between the engine and a device. The engine speaks these calls; gpu_dawn.c
 * (native, Dawn loaded at run time), gpu_web.c (wasm imports) and gpu_null.c (validates and
 * records, for tests) implement them.
 *
 * Nothing here waits, except gpu_wait(). A call that cannot fail by itself reports trouble at the
 * next gpu_submit() or gpu_poll(): a device that is lost stays lost. */
#ifndef CARAT_GPU_H
#define CARAT_GPU_H

#include "base/base.h"

typedef struct gpu gpu;
typedef struct gpu_buffer {
    uint32_t id;
} gpu_buffer; /* id 0: none */
typedef struct gpu_pipeline {
    uint32_t id;
} gpu_pipeline;
typedef struct gpu_bind {
    uint32_t id;
} gpu_bind; /* a bind group */
typedef struct gpu_ticket {
    uint32_t id;
} gpu_ticket; /* a read under way */

typedef struct gpu_info {
    char name[128];   /* "NVIDIA H200" */
    char backend[32]; /* "Vulkan" */
    bool software;    /* a CPU pretends to be the device */
    bool subgroups;
    bool subgroup_matrix; /* 16 x 16 x 16, f16 factors, f32 sums, with subgroups of 32 */
    uint32_t subgroup_min, subgroup_max;
    bool packed_dot;              /* WGSL's dot4I8Packed() and pack4xI8() */
    uint64_t max_buffer;          /* bytes of one buffer */
    uint64_t max_binding;         /* bytes of one storage binding */
    uint32_t max_storage_buffers; /* a pipeline, >= 8 */
    uint32_t max_workgroup_bytes; /* >= 16384 */
    uint32_t max_invocations;     /* a workgroup, >= 256 */
    uint32_t max_groups;          /* a dispatch dimension, >= 65535 */
} gpu_info;

typedef enum gpu_usage {
    GPU_STORAGE = 1, /* kernels read and write it; also copy source and target */
    GPU_UNIFORM = 2, /* kernels read it as a uniform; also copy target */
} gpu_usage;

typedef enum gpu_binding_kind {
    GPU_BIND_UNIFORM,
    GPU_BIND_READ,       /* var<storage, read> */
    GPU_BIND_READ_WRITE, /* var<storage, read_write> */
} gpu_binding_kind;

typedef struct gpu_view {
    gpu_buffer buffer;
    uint64_t offset, size; /* bytes; offset a multiple of 256; size 0: to the end */
} gpu_view;

typedef struct gpu_constant { /* a WGSL `override` */
    const char *name;
    double value;
} gpu_constant;

#define GPU_MAX_BINDINGS 12

typedef struct gpu_pipeline_desc {
    const char *label;
    const char *wgsl; /* zero-terminated; one entry point named `main` */
    uint32_t n_binding;
    const uint8_t *bindings; /* [n_binding] gpu_binding_kind of @binding(i), @group(0) */
    uint32_t n_constant;
    const gpu_constant *constants;
} gpu_pipeline_desc;

typedef enum gpu_poll_result { GPU_PENDING, GPU_READY, GPU_FAILED } gpu_poll_result;

typedef struct gpu_stats {
    uint64_t buffer_bytes, peak_buffer_bytes; /* alive now, and at most so far */
    uint64_t n_submit, n_dispatch, n_pipeline, n_bind;
} gpu_stats;

/* What a back end implements; see the calls below for meanings. */
typedef struct gpu_api {
    void (*close)(gpu *g);
    gpu_buffer (*buffer_create)(gpu *g, uint64_t size, gpu_usage usage, const char *label,
                                carat_error *err);
    void (*buffer_free)(gpu *g, gpu_buffer b);
    void (*write)(gpu *g, gpu_buffer b, uint64_t offset, const void *data, size_t n);
    gpu_pipeline (*pipeline_create)(gpu *g, const gpu_pipeline_desc *desc, carat_error *err);
    void (*pipeline_free)(gpu *g, gpu_pipeline p);
    gpu_bind (*bind_create)(gpu *g, gpu_pipeline p, const gpu_view *views, uint32_t n,
                            carat_error *err);
    void (*bind_free)(gpu *g, gpu_bind b);
    void (*dispatch)(gpu *g, gpu_pipeline p, gpu_bind b, uint32_t x, uint32_t y, uint32_t z);
    void (*copy)(gpu *g, gpu_buffer dst, uint64_t dst_offset, gpu_buffer src, uint64_t src_offset,
                 uint64_t n);
    bool (*submit)(gpu *g, carat_error *err);
    gpu_ticket (*read)(gpu *g, gpu_buffer b, uint64_t offset, size_t n, carat_error *err);
    gpu_poll_result (*poll)(gpu *g, gpu_ticket t, void *dst, carat_error *err);
    uint32_t (*pending)(gpu *g);
    void (*wait)(gpu *g);
} gpu_api;

struct gpu { /* a back end's own struct starts with this */
    const gpu_api *api;
    gpu_info info;
    gpu_stats stats; /* kept by the back end */
    bool lost;
};

/* ---- opening ---- */

/* The best adapter of this machine, with every feature and limit above that it has; whichever of
 * gpu_dawn.c, gpu_web.c and gpu_none.c is linked. CARAT_E_DEVICE when there is none; the message
 * says why. */
gpu *gpu_open(carat_error *err);
/* The same natively. library: path of Dawn's shared library, NULL: beside the program, then the
 * usual places. */
gpu *gpu_dawn_open(const char *library, carat_error *err);

/* ---- calls ---- */

static inline void gpu_close(gpu *g) {
    if (g) g->api->close(g);
}

/* A zeroed buffer of `size` bytes (rounded up to 4). id 0 and *err on failure. */
static inline gpu_buffer gpu_buffer_create(gpu *g, uint64_t size, gpu_usage usage,
                                           const char *label, carat_error *err) {
    return g->api->buffer_create(g, size, usage, label, err);
}

/* Frees after the submitted work that uses it; id 0 is fine. */
static inline void gpu_buffer_free(gpu *g, gpu_buffer b) {
    if (b.id) g->api->buffer_free(g, b);
}

/* Writes n bytes (offset and n multiples of 4), before the commands recorded since the last
 * submit and after all submitted ones. data may be reused at once. */
static inline void gpu_write(gpu *g, gpu_buffer b, uint64_t offset, const void *data, size_t n) {
    g->api->write(g, b, offset, data, n);
}

/* Compiles. On failure *err holds the compiler's first message. */
static inline gpu_pipeline gpu_pipeline_create(gpu *g, const gpu_pipeline_desc *desc,
                                               carat_error *err) {
    return g->api->pipeline_create(g, desc, err);
}
static inline void gpu_pipeline_free(gpu *g, gpu_pipeline p) {
    if (p.id) g->api->pipeline_free(g, p);
}

/* views [n] in binding order. Lives until freed or its buffers are. */
static inline gpu_bind gpu_bind_create(gpu *g, gpu_pipeline p, const gpu_view *views, uint32_t n,
                                       carat_error *err) {
    return g->api->bind_create(g, p, views, n, err);
}
static inline void gpu_bind_free(gpu *g, gpu_bind b) {
    if (b.id) g->api->bind_free(g, b);
}

/* Records a dispatch of x * y * z workgroups. Recorded commands run in order; each sees what those
 * before it wrote. Nothing runs until gpu_submit(). */
static inline void gpu_dispatch(gpu *g, gpu_pipeline p, gpu_bind b, uint32_t x, uint32_t y,
                                uint32_t z) {
    g->api->dispatch(g, p, b, x, y, z);
}

/* Records a copy; offsets and n multiples of 4. */
static inline void gpu_copy(gpu *g, gpu_buffer dst, uint64_t dst_offset, gpu_buffer src,
                            uint64_t src_offset, uint64_t n) {
    g->api->copy(g, dst, dst_offset, src, src_offset, n);
}

/* Hands the recorded commands to the device. False when the device is lost or refused one. */
static inline bool gpu_submit(gpu *g, carat_error *err) { return g->api->submit(g, err); }

/* Starts reading n bytes as they are after everything recorded so far (it submits). Then poll. */
static inline gpu_ticket gpu_read(gpu *g, gpu_buffer b, uint64_t offset, size_t n,
                                  carat_error *err) {
    return g->api->read(g, b, offset, n, err);
}

/* GPU_READY: dst [n] is filled and the ticket is gone. GPU_FAILED: *err, and the ticket is gone. */
static inline gpu_poll_result gpu_poll(gpu *g, gpu_ticket t, void *dst, carat_error *err) {
    return g->api->poll(g, t, dst, err);
}

/* Submits that the device has not finished. Lets a stream of writes pace itself. */
static inline uint32_t gpu_pending(gpu *g) { return g->api->pending(g); }

/* Native: blocks until some pending work or read has finished. */
static inline void gpu_wait(gpu *g) { g->api->wait(g); }

#endif
