/* gpu_null: a device that runs nothing. It checks every call as WebGPU would, counts, fails on
 * demand, and answers reads with zeros. For tests of all that is above gpu.h.
 *
 * Flow: opened by tests in place of gpu_dawn_open(). */
#ifndef CARAT_GPU_NULL_H
#define CARAT_GPU_NULL_H

#include "gpu/gpu.h"

/* Zero-initialise; 0 means the stated default. Counts of creations and submits begin at 1. */
typedef struct gpu_null_desc {
    uint64_t max_buffer;          /* 256 MiB, as all limits here WebGPU's minimum */
    uint64_t max_binding;         /* 128 MiB */
    uint32_t max_storage_buffers; /* 8 */
    uint64_t memory;              /* bytes of all buffers together; no limit */
    uint32_t fail_buffer, fail_pipeline, fail_bind; /* which creation fails; none */
    uint32_t fail_read;                             /* which gpu_read() cannot be started; none */
    uint32_t lose_at; /* the submit (a read submits, too) at which the device is lost; never */
    uint32_t delay;   /* polls and waits before a submit's work is done; done at once */
    bool subgroups;
} gpu_null_desc;

typedef struct gpu_null_counts {
    uint64_t n_buffer, n_pipeline, n_bind;           /* alive */
    uint64_t n_reading;                              /* reads that were not polled to their end */
    uint64_t n_buffer_made, n_write, n_copy, n_read; /* so far */
    uint64_t bytes_written;                          /* by gpu_write() */
    uint64_t n_refused;                              /* calls that WebGPU would not accept */
    uint64_t memory_bytes;                           /* host memory of the device itself */
} gpu_null_counts;

gpu *gpu_null_open(const gpu_null_desc *desc, carat_error *err);
gpu_null_counts gpu_null_count(const gpu *g);
/* The first call that WebGPU would not accept; "" when there was none. Such a call also makes the
 * next gpu_submit() fail. */
const char *gpu_null_complaint(const gpu *g);

#endif
