/* train_gpu_none: stands where train_gpu.c is not yet: learning
 * needs the CPU. Weak, so that the real ones take their place. */
#include "train/train_gpu.h"

static bool none(carat_error *err) {
    return fail(err, CARAT_E_UNSUPPORTED, "train: learning on a GPU is not built in; use the CPU");
}

__attribute__((weak)) bool train_gpu_open(const model *m, gpu *g, kernel_cache *cache,
                                          trainer *plan, lora *adapter, adamw *moments,
                                          uint64_t budget, train_gpu **out, carat_error *err) {
    (void)m, (void)g, (void)cache, (void)plan, (void)adapter, (void)moments, (void)budget;
    *out = NULL;
    return none(err);
}

__attribute__((weak)) void train_gpu_free(train_gpu *t) { (void)t; }

__attribute__((weak)) uint64_t train_gpu_estimate(const model *m, const lora *adapter,
                                                  uint32_t n_batch, uint64_t budget) {
    (void)m, (void)adapter, (void)n_batch;
    return budget;
}

__attribute__((weak)) bool train_gpu_advance(train_gpu *t, bool *busy, train_event *event,
                                             carat_error *err) {
    (void)t, (void)busy, (void)event;
    return none(err);
}

__attribute__((weak)) void train_gpu_progress(const train_gpu *t, uint32_t *done, uint32_t *total) {
    (void)t;
    *done = *total = 0;
}

__attribute__((weak)) bool train_gpu_fetch(train_gpu *t, bool *busy, carat_error *err) {
    (void)t, (void)busy;
    return none(err);
}

__attribute__((weak)) bool train_gpu_has_effect(train_gpu *t, bool *busy, bool *effect,
                                                carat_error *err) {
    (void)t, (void)busy, (void)effect;
    return none(err);
}

__attribute__((weak)) uint64_t train_gpu_bytes(const train_gpu *t) {
    (void)t;
    return 0;
}
