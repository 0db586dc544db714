/* A harness for rows of the kernel table: makes buffers from arrays, with guard words around the
 * outputs, runs a kernel in each of its variants and compares with a reference.
 *
 *     static void row(const kernel *k, uint32_t n) {
 *         float *x = kt_floats(n, 1), *got = kt_take(n, 4), *want = kt_take(n, 4);
 *         kt_output out = kt_out(n * 4);
 *         my_args args = {.n = n};
 *         kt_run(&(kernel_call){.kernel = k, .args = &args, .views = {kt_in(x, n * 4), out.view}});
 *         kt_read(out, got);
 *         kt_compare(k->name, got, want, n, KT_F32);
 *     }
 *     for (const kernel *k = NULL; (k = kt_next(&kernel_my, k));) row(k, 33), kt_reset();
 *
 * Include it before cmocka's users: it includes cmocka itself. kt_setup, kt_teardown: for the group
 * of tests. */
#ifndef CARAT_KERNEL_TEST_H
#define CARAT_KERNEL_TEST_H

#include "file/file.h"
#include "gpu/kernel.h"
#include "gpu/upload.h"
#include "gpu_record.h"
#include "kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define KT_F32   1e-7 /* bounds of the normalised mean square error */
#define KT_F16   5e-6 /* where f16 is stored */
#define KT_GUARD 256u
#define KT_MARK  0xa5u

typedef struct kt_output {
    gpu_view view; /* goes on to the buffer's end, so that a write too far hits the guard */
    size_t bytes;
} kt_output;

static struct {
    gpu *gpu;
    kernel_cache *cache;
    kernel_steps *steps;
    arena *memory;
    kernel plain[256]; /* kernels without variants, to force the baseline */
    uint32_t n_plain;
    gpu_buffer buffers[256]; /* freed by kt_reset() */
    uint32_t n_buffer;
} kt;

static inline void kt_check(bool ok, const carat_error *err) {
    if (!ok) print_message("%s\n", err->message);
    assert_true(ok);
}

static inline int kt_setup(void **state) {
    (void)state;
    carat_error err = {0};
    kt.gpu = record_open(&err);
    if (!kt.gpu) print_message("NO DEVICE: %s\n", err.message);
    if (!kt.gpu) return 1;
    kt.cache = kernel_cache_create(kt.gpu, &err);
    kt.steps = kt.cache ? kernel_steps_create(kt.cache, 64, &err) : NULL;
    kt.memory = arena_create(&err);
    return kt.steps && kt.memory ? 0 : 1;
}

/* Frees what the rows so far have made. */
static inline void kt_reset(void) {
    kernel_steps_forget(kt.steps);
    while (kt.n_buffer) gpu_buffer_free(kt.gpu, kt.buffers[--kt.n_buffer]);
    arena_free(kt.memory);
    kt.memory = arena_create(NULL);
    assert_non_null(kt.memory);
}

static inline int kt_teardown(void **state) {
    (void)state;
    kt_reset();
    arena_free(kt.memory);
    kernel_steps_free(kt.steps);
    kernel_cache_free(kt.cache);
    gpu_close(kt.gpu);
    return 0;
}

/* Walks through the variants of k that the device can run: the baseline first (last = NULL), then
 * the subgroup variant; NULL at the end. */
static inline const kernel *kt_next(const kernel *k, const kernel *last) {
    const gpu_info *info = &kt.gpu->info;
    uint32_t i = 0;
    while (i < kt.n_plain && strcmp(kt.plain[i].name, k->name) != 0) i++;
    if (!last) {
        assert_true(i < COUNT(kt.plain));
        kt.plain[i] = *k;
        kt.plain[i].subgroup = kt.plain[i].matrix = NULL;
        if (i == kt.n_plain) kt.n_plain++;
        return &kt.plain[i];
    }
    if (last == &kt.plain[i] && k->subgroup && kernel_runs(k->subgroup, info)) return k->subgroup;
    return NULL;
}

#include "kernel_data.h"

/* ---- buffers: they live until kt_reset() ---- */

static inline gpu_buffer kt_buffer(uint64_t size, gpu_usage usage) {
    carat_error err = {0};
    assert_true(kt.n_buffer < COUNT(kt.buffers));
    gpu_buffer b = gpu_buffer_create(kt.gpu, size, usage, "test", &err);
    kt_check(b.id != 0, &err);
    return kt.buffers[kt.n_buffer++] = b;
}

static inline gpu_view kt_in_as(const void *data, size_t n, gpu_usage usage) {
    uint8_t *padded = kt_take(round_up(n, 16), 1);
    memcpy(padded, data, n);
    gpu_buffer b = kt_buffer(round_up(n, 16), usage);
    gpu_write(kt.gpu, b, 0, padded, round_up(n, 16));
    return (gpu_view){.buffer = b};
}

/* An input with n bytes of data. */
static inline gpu_view kt_in(const void *data, size_t n) { return kt_in_as(data, n, GPU_STORAGE); }
static inline gpu_view kt_uniform(const void *data, size_t n) {
    return kt_in_as(data, n, GPU_UNIFORM);
}

/* An output of n bytes that holds `data` (NULL: the guard's mark), between guards. */
static inline kt_output kt_out_with(const void *data, size_t n) {
    size_t whole = KT_GUARD + round_up(n, 256) + KT_GUARD;
    uint8_t *bytes = kt_take(whole, 1);
    memset(bytes, KT_MARK, whole);
    if (data) memcpy(bytes + KT_GUARD, data, n);
    gpu_buffer b = kt_buffer(whole, GPU_STORAGE);
    gpu_write(kt.gpu, b, 0, bytes, whole);
    return (kt_output){{.buffer = b, .offset = KT_GUARD}, n};
}
static inline kt_output kt_out(size_t n) { return kt_out_with(NULL, n); }

/* Submits what was run, brings an output back and checks its guards. */
static inline void kt_read(kt_output out, void *dst) {
    carat_error err = {0};
    size_t whole = KT_GUARD + round_up(out.bytes, 256) + KT_GUARD;
    uint8_t *bytes = kt_take(whole, 1);
    gpu_ticket t = gpu_read(kt.gpu, out.view.buffer, 0, whole, &err);
    kt_check(t.id != 0, &err);
    gpu_poll_result r;
    while ((r = gpu_poll(kt.gpu, t, bytes, &err)) == GPU_PENDING) gpu_wait(kt.gpu);
    kt_check(r == GPU_READY, &err);
    for (size_t i = 0; i < whole; i++)
        if ((i < KT_GUARD || i >= KT_GUARD + out.bytes) && bytes[i] != KT_MARK)
            fail_msg("guard broken at byte %td of an output of %zu", (ptrdiff_t)(i - KT_GUARD),
                     out.bytes);
    memcpy(dst, bytes + KT_GUARD, out.bytes);
}

/* ---- running and comparing ---- */

static inline void kt_run(const kernel_call *call) {
    carat_error err = {0};
    kernel_begin(kt.steps);
    kernel_run(kt.steps, call);
    kt_check(kernel_end(kt.steps, &err), &err);
    kt_check(gpu_submit(kt.gpu, &err), &err);
}

/* Blocks in the packed layout, as an input. */
static inline gpu_view kt_pack(uint32_t type, const void *blocks, uint64_t n) {
    uint8_t *packed = kt_take(upload_packed_bytes(type, n), 1);
    upload_pack(type, blocks, n / quant_find(type)->n_value, packed);
    return kt_in(packed, upload_packed_bytes(type, n));
}

typedef struct kt_matrix {
    uint32_t type, n_row, n_col;
    const uint8_t *blocks; /* as in a file */
    float *values;         /* [n_row, n_col] */
    gpu_view view;         /* packed */
} kt_matrix;

/* A random matrix whose products with values of deviation 1 have about that deviation, too. */
static inline kt_matrix kt_weights(uint32_t type, uint32_t n_row, uint32_t n_col, uint32_t seed) {
    uint64_t n = (uint64_t)n_row * n_col;
    kt_matrix m = {.type = type, .n_row = n_row, .n_col = n_col};
    m.blocks = kt_blocks(type, n, 2.0f / sqrtf((float)n_col), seed);
    m.values = kt_take(n, sizeof *m.values);
    quant_find(type)->dequantise(m.blocks, m.values, n);
    m.view = kt_pack(type, m.blocks, n);
    return m;
}

#endif
