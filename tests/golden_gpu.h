/* golden_gpu: a golden model on the GPU, and running tokens through it. The device is opened once
 * for all tests of a program, with what it has compiled: open_device(), close_device(). Without
 * one every test is skipped. */
#ifndef CARAT_TESTS_GOLDEN_GPU_H
#define CARAT_TESTS_GOLDEN_GPU_H

#include "golden.h"

#include "gpu/upload.h"
#include "model/text_gpu.h"

#include <stdlib.h>

#define BOUND 2e-3 /* of the relative error */
#define N_CTX 512

static gpu *device;
static kernel_cache *cache;

static inline int open_device(void **state) {
    (void)state;
    err = (carat_error){0};
    device = gpu_dawn_open(NULL, &err);
    if (!device) print_message("SKIPPED: every test here: %s\n", err.message);
    cache = device ? kernel_cache_create(device, &err) : NULL;
    return device && !cache;
}

static inline int close_device(void **state) {
    (void)state;
    kernel_cache_free(cache);
    gpu_close(device);
    return 0;
}

/* Whether a test runs all that it has: on a GPU in software only with TEST_SLOW=1. */
static inline bool runs_all(const char *less) {
    if (!device->info.software || getenv("TEST_SLOW")) return true;
    print_message("%s on a GPU in software; TEST_SLOW=1 runs all\n", less);
    return false;
}

/* A model on the device, with a session of N_CTX tokens. */
typedef struct fixture {
    golden g;
    text_gpu *text;
    uint32_t n_vocab;
    float *logits; /* [n_vocab] of the last run */
} fixture;

static inline void upload_model(golden *g) {
    model_weights *w = &g->model->weights;
    upload *u;
    w->vector_buffer = gpu_buffer_create(device, w->n_vectors * 4ull, GPU_STORAGE, "vectors", &err);
    assert_int_not_equal(w->vector_buffer.id, 0);
    gpu_write(device, w->vector_buffer, 0, w->vectors, w->n_vectors * 4ull);
    REQUIRE(upload_create(g->memory, device, model_matrices(g->memory, g->model, &err), &u, &err));
    for (bool done = false, busy = false; !done;) {
        REQUIRE(upload_advance(u, &busy, &done, &err));
        if (busy) gpu_wait(device);
    }
    upload_free(u);
}

/* name: of a relative in tests/golden/family; NULL: nano. */
static inline void open_fixture(fixture *f, const char *name) {
    if (!device) skip();
    if (name)
        golden_open_relative(&f->g, name, BOUND);
    else
        golden_open_nano(&f->g, BOUND);
    upload_model(&f->g);
    f->n_vocab = f->g.model->config.n_vocab;
    f->logits = golden_alloc(&f->g, f->n_vocab, sizeof(float));
    REQUIRE(text_gpu_create(f->g.model, device, cache, N_CTX, &f->text, &err));
}

static inline void close_fixture(fixture *f) {
    text_gpu_free(f->text);
    upload_free_weights(device, f->g.model->matrices);
    gpu_buffer_free(device, f->g.model->weights.vector_buffer);
    golden_close(&f->g);
}

static inline void wait_read(gpu_ticket ticket, void *dst) {
    gpu_poll_result r;
    assert_int_not_equal(ticket.id, 0);
    while ((r = gpu_poll(device, ticket, dst, &err)) == GPU_PENDING) gpu_wait(device);
    if (r != GPU_READY) fail_msg("read: %s", err.message);
}

/* n tokens at pos.., of which nothing is wanted but their K and V. */
static inline void feed(fixture *f, const int32_t *tokens, uint32_t n, uint32_t pos) {
    REQUIRE(text_gpu_run(f->text, tokens, n, pos, false, &err));
}

/* The same; f->logits are the last token's. */
static inline void run(fixture *f, const int32_t *tokens, uint32_t n, uint32_t pos) {
    REQUIRE(text_gpu_run(f->text, tokens, n, pos, true, &err));
    wait_read(text_gpu_read(f->text, true, &err), f->logits);
}

#endif
