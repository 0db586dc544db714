/* Fuzzes the encoders of damaged files: what opens must encode a small picture and a short sound
 * without reading or writing outside of anything; what does not must say why. */
#include "media/media.h"
#include "model/encoder.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define N_TEXT 4 /* the width of the model that the soft tokens are for */

static bool load(arena *a, weight **matrices, carat_error *err) {
    uint64_t done = 0;
    bool finished = !matrices[0];
    while (!finished)
        if (!weights_load_host(matrices, a, &done, &finished, err)) return false;
    return true;
}

static bool see(arena *a, const gguf *g, carat_error *err) {
    static const uint8_t pixels[64 * 64 * 3] = {1, 2, 3, 4, 5};
    vision *v;
    vision_cpu *t;
    image_patches p;
    if (!vision_open(a, g, N_TEXT, &v, err) || !load(a, v->matrices, err) ||
        !image_prepare(a, pixels, 64, 64, v->config.side, v->config.pool, 2, &p, err) ||
        !vision_cpu_create(v, p.data, p.n_col, p.n_row, NULL, &t, err))
        return false;
    const uint32_t n = vision_soft_tokens(v, p.n_col, p.n_row);
    float *soft = malloc((size_t)n * N_TEXT * sizeof *soft); /* ends where the tokens do */
    for (bool finished = false; !finished;) vision_cpu_advance(t, soft, &finished);
    free(soft);
    vision_cpu_free(t);
    return true;
}

static bool hear(arena *m, const gguf *g, carat_error *err) {
    static const float mel[10 * MEL_BANDS] = {1, 2, 3};
    audio *a;
    audio_cpu *t;
    if (!audio_open(m, g, N_TEXT, &a, err) || !load(m, a->matrices, err) ||
        !audio_cpu_create(a, mel, 10, NULL, &t, err))
        return false;
    const uint32_t n = audio_soft_tokens(a, 10);
    float *soft = malloc((size_t)n * N_TEXT * sizeof *soft);
    for (bool finished = false; !finished;) audio_cpu_advance(t, soft, &finished);
    free(soft);
    audio_cpu_free(t);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    void *bytes = malloc(n ? n : 1); /* ends where the input does */
    carat_error err = {0};
    arena *a = arena_create(NULL);
    source *src;
    gguf *g;
    if (n) memcpy(bytes, data, n);
    if (source_memory(a, "input", bytes, n, &src, &err) && gguf_open_source(a, src, &g, &err)) {
        if (!see(a, g, &err) && err.code == CARAT_OK) abort();
        err = (carat_error){0};
        if (!hear(a, g, &err) && err.code == CARAT_OK) abort();
        gguf_close(g);
    }
    arena_free(a);
    free(bytes);
    return 0;
}
