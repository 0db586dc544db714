/* bandwidth: how fast the device reads its memory, measured, so that speeds can be given in
 * percent of what is possible.
 *
 * Flow: gpu/kernel.c before; `carat bench` after. Native: it waits. */
#include "model/engine.h"

#include "kernels.h"

#include <math.h>
#include <string.h>

enum {
    GROUPS = 4096,
    ROUNDS = 5,  /* the best one counts */
    REPEATS = 32 /* reads of the buffer in a round on the GPU, so that the round trip is small */
};

#define GPU_BYTES      (1ull << 30)
#define SOFTWARE_BYTES (16ull << 20) /* where a CPU pretends to be the GPU */
#define GPU_MIN_BYTES  (16ull << 20)
#define CPU_BYTES      (128ull << 20)

/* ---- GPU ---- */

typedef struct probe {
    gpu *gpu;
    kernel_steps *steps;
    gpu_buffer data, out;
    uint64_t n_byte;
} probe;

/* The largest buffer up to GPU_BYTES that one binding and the free memory allow. */
static bool make_buffers(probe *p, carat_error *err) {
    const gpu_info *info = &p->gpu->info;
    carat_error why = {0};
    uint64_t n = info->software ? SOFTWARE_BYTES : GPU_BYTES;
    while (n > info->max_binding || n > info->max_buffer) n /= 2;
    for (; n >= GPU_MIN_BYTES && !p->data.id; n /= 2) {
        why = (carat_error){0};
        p->data = gpu_buffer_create(p->gpu, n, GPU_STORAGE, "bandwidth", &why);
        p->n_byte = n;
    }
    if (!p->data.id) return fail(err, CARAT_E_MEMORY, "bandwidth: %s", why.message);
    p->out = gpu_buffer_create(p->gpu, GROUPS * 4, GPU_STORAGE, "bandwidth sums", err);
    return p->out.id != 0;
}

static bool wait_for_sums(probe *p, carat_error *err) {
    uint32_t sums[GROUPS];
    gpu_ticket t = gpu_read(p->gpu, p->out, 0, sizeof sums, err);
    if (!t.id) return false;
    gpu_poll_result r;
    while ((r = gpu_poll(p->gpu, t, sums, err)) == GPU_PENDING) gpu_wait(p->gpu);
    return r == GPU_READY;
}

/* Reads the buffer `repeats` times; *seconds it took. */
static bool read_rounds(probe *p, uint32_t repeats, double *seconds, carat_error *err) {
    const bandwidth_args args = {.n = (uint32_t)(p->n_byte / 16), .n_group = GROUPS};
    const kernel_call call = {.kernel = &kernel_bandwidth,
                              .args = &args,
                              .views = {{.buffer = p->data}, {.buffer = p->out}},
                              .x = GROUPS};
    double start = seconds_now();
    kernel_begin(p->steps);
    for (uint32_t i = 0; i < repeats; i++) kernel_run(p->steps, &call);
    if (!kernel_end(p->steps, err) || !gpu_submit(p->gpu, err) || !wait_for_sums(p, err))
        return false;
    *seconds = seconds_now() - start;
    return true;
}

static double gpu_bandwidth(carat_device *dev, carat_error *err) {
    probe p = {.gpu = dev->gpu, .steps = kernel_steps_create(dev->cache, REPEATS, err)};
    double best = INFINITY, seconds = 0;
    uint32_t repeats = dev->gpu->info.software ? 1 : REPEATS;
    bool ok = p.steps && make_buffers(&p, err) && read_rounds(&p, repeats, &seconds, err);
    for (int i = 0; ok && i < ROUNDS; i++) {
        ok = read_rounds(&p, repeats, &seconds, err);
        best = fmin(best, seconds);
    }
    kernel_steps_free(p.steps);
    gpu_buffer_free(p.gpu, p.data);
    gpu_buffer_free(p.gpu, p.out);
    return ok ? (double)(p.n_byte * repeats) / best : 0;
}

/* ---- CPU ---- */

static uint64_t sum_words(const uint64_t *data, size_t n) {
    uint64_t sum = 0;
#pragma omp parallel for reduction(+ : sum)
    for (size_t i = 0; i < n; i++) sum += data[i];
    return sum;
}

static double cpu_bandwidth(carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return 0;
    const size_t n = CPU_BYTES / sizeof(uint64_t);
    uint64_t *data = arena_alloc(memory, n, sizeof *data);
    if (!data) {
        arena_free(memory);
        fail_memory(err, CPU_BYTES, "the bandwidth measurement");
        return 0;
    }
    memset(data, 1, CPU_BYTES); /* so that every page is really there */
    double best = INFINITY;
    bool right = true; /* looking at the sum keeps the reads from being left out */
    for (int i = 0; i < ROUNDS; i++) {
        double start = seconds_now();
        right &= sum_words(data, n) == n * 0x0101010101010101u;
        best = fmin(best, seconds_now() - start);
    }
    arena_free(memory);
    if (!right) fail(err, CARAT_E_DEVICE, "bandwidth: the memory does not hold what was written");
    return right ? (double)CPU_BYTES / best : 0;
}

double carat_device_bandwidth(carat_device *dev, carat_error *err) {
    return dev->gpu ? gpu_bandwidth(dev, err) : cpu_bandwidth(err);
}
