/* device: what computes. A GPU with its compiled kernels, or the CPU; and what happens when the
 * GPU goes away: another one, or the CPU, in the same carat_device.
 *
 * Knows nothing of models. Flow: gpu/gpu_dawn.c or gpu_web.c and gpu/kernel.c before,
 * model/engine.c after. */
#include "model/engine.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static gpu *reopen_gpu(void *user, carat_error *err) {
    (void)user;
    return gpu_open(err);
}

static carat_device *device_create(carat_error *err) {
    arena *a = arena_create(err);
    carat_device *dev = a ? arena_alloc(a, 1, sizeof *dev) : NULL;
    if (!dev) {
        if (a) fail_memory(err, sizeof *dev, "a device");
        arena_free(a);
        return NULL;
    }
    dev->memory = a;
    dev->reopen = reopen_gpu;
    return dev;
}

/* why: the reason that there is no GPU, or NULL. */
static void use_cpu(carat_device *dev, const char *why) {
    if (why)
        snprintf(dev->name, sizeof dev->name, "CPU reference (no GPU: %.200s)", why);
    else
        snprintf(dev->name, sizeof dev->name, "CPU reference");
}

/* Takes g, also on failure. */
static bool use_gpu(carat_device *dev, gpu *g, carat_error *err) {
    kernel_cache *cache = kernel_cache_create(g, err);
    if (!cache) {
        gpu_close(g);
        return false;
    }
    dev->gpu = g;
    dev->cache = cache;
    snprintf(dev->name, sizeof dev->name, "%s (%s)", g->info.name, g->info.backend);
    return true;
}

static void drop_gpu(carat_device *dev) {
    kernel_cache_free(dev->cache);
    if (dev->gpu && dev->gpu->stats.peak_buffer_bytes > dev->peak_bytes)
        dev->peak_bytes = dev->gpu->stats.peak_buffer_bytes;
    gpu_close(dev->gpu);
    dev->cache = NULL;
    dev->gpu = NULL;
}

carat_device *carat_device_from_gpu(gpu *g, gpu_reopen reopen, void *user, carat_error *err) {
    carat_device *dev = device_create(err);
    if (!dev) {
        gpu_close(g);
        return NULL;
    }
    if (!use_gpu(dev, g, err)) {
        carat_device_close(dev);
        return NULL;
    }
    dev->reopen = reopen;
    dev->reopen_user = user;
    return dev;
}

static carat_device *open_cpu(const char *why, carat_error *err) {
    carat_device *dev = device_create(err);
    if (dev) use_cpu(dev, why);
    return dev;
}

carat_device *carat_device_open(const char *name, carat_error *err) {
    bool any = !name || strcmp(name, "auto") == 0;
    if (!any && strcmp(name, "cpu") == 0) return open_cpu(NULL, err);
    if (!any && strcmp(name, "gpu") != 0) {
        fail(err, CARAT_E_ARGUMENT, "device %s: there are auto, gpu and cpu", name);
        return NULL;
    }
    carat_error why = {0};
    gpu *g = gpu_open(&why);
    if (g && any && g->info.software) {
        fail(&why, CARAT_E_DEVICE, "%s is a software adapter", g->info.name);
        gpu_close(g);
        g = NULL;
    }
    if (g) return carat_device_from_gpu(g, reopen_gpu, NULL, err);
    if (any) return open_cpu(why.message, err);
    fail(err, why.code, "%s", why.message);
    return NULL;
}

void carat_device_close(carat_device *dev) {
    if (!dev) return;
    for (carat_engine *eng = dev->engines; eng; eng = eng->next) {
        engine_unload(eng);
        eng->device = NULL;
    }
    drop_gpu(dev);
    arena_free(dev->memory);
}

const char *carat_device_name(const carat_device *dev) { return dev->name; }

bool carat_device_is_gpu(const carat_device *dev) { return dev->gpu != NULL; }

uint64_t carat_device_peak_bytes(const carat_device *dev) {
    uint64_t now = dev->gpu ? dev->gpu->stats.peak_buffer_bytes : 0;
    return now > dev->peak_bytes ? now : dev->peak_bytes;
}

bool device_lost(const carat_device *dev, const carat_error *e) {
    return e->code == CARAT_E_DEVICE_LOST || (dev && dev->gpu && dev->gpu->lost);
}

bool device_recover(carat_device *dev, bool reopen, carat_error *err) {
    for (carat_engine *eng = dev->engines; eng; eng = eng->next) engine_unload(eng);
    drop_gpu(dev);
    carat_error why = {0};
    gpu *g = reopen && dev->reopen ? dev->reopen(dev->reopen_user, &why) : NULL;
    if (g && !use_gpu(dev, g, &why) && why.code == CARAT_E_MEMORY)
        return fail(err, why.code, "%s", why.message);
    if (!dev->gpu) use_cpu(dev, why.code ? why.message : "it was lost");
    return true;
}
