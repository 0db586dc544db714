/* Files of tools/synth with the encoders of the family in their real size: they open, their weights
 * go to a device, and pictures and sounds through it, at WebGPU's minimum limits and at larger
 * ones. The files are hollow and the device runs nothing: what is tested is shapes and limits. */
#include "gpu/gpu_null.h"
#include "media/media.h"
#include "model/encoder_gpu.h"

#include <unistd.h>

#include "on_device.h" /* after carat's headers */

static char path[64];

typedef struct towers {
    arena *memory;
    gguf *file;
    gpu *gpu;
    kernel_cache *kernels;
} towers;

static towers open_towers(const char *name, gpu_null_desc limits) {
    char command[128];
    towers t = {.memory = arena_create(&err), .gpu = gpu_null_open(&limits, &err)};
    snprintf(path, sizeof path, "/tmp/carat-towers-%d.gguf", (int)getpid());
    snprintf(command, sizeof command, "build/synth %s %s --projector --hollow >/dev/null", name,
             path);
    if (system(command) != 0) fail_msg("%s: failed", command);
    assert_non_null(t.memory);
    assert_non_null(t.gpu);
    t.kernels = kernel_cache_create(t.gpu, &err);
    assert_non_null(t.kernels);
    REQUIRE(gguf_open(t.memory, path, &t.file, &err));
    unlink(path);
    return t;
}

static void close_towers(towers *t) {
    kernel_cache_free(t->kernels);
    assert_string_equal(gpu_null_complaint(t->gpu), "");
    assert_int_equal(gpu_null_count(t->gpu).n_buffer, 0);
    gpu_close(t->gpu);
    gguf_close(t->file);
    arena_free(t->memory);
}

static encoder_gpu *load(towers *t, weight **matrices, const float *vectors, uint32_t n) {
    encoder_gpu *e;
    REQUIRE(encoder_gpu_create(t->gpu, matrices, vectors, n, &e, &err));
    for (bool busy = false, done = false; !done;) REQUIRE(encoder_gpu_load(e, &busy, &done, &err));
    return e;
}

static void see(towers *t, uint32_t n_text, uint32_t n_col, uint32_t n_row, uint32_t n_soft) {
    vision *v;
    vision_gpu *at_work;
    REQUIRE(vision_open(t->memory, t->file, n_text, &v, &err));
    assert_int_equal(vision_soft_tokens(v, n_col, n_row), n_soft);
    encoder_gpu *e = load(t, v->matrices, v->vectors, v->n_vectors);
    uint8_t *patches =
        arena_alloc(t->memory, (size_t)n_col * n_row, 3 * v->config.side * v->config.side);
    assert_non_null(patches);
    gpu_buffer soft = gpu_buffer_create(t->gpu, 4ull * n_soft * n_text, GPU_STORAGE, "soft", &err);
    REQUIRE(vision_gpu_create(v, e, t->gpu, t->kernels, &at_work, &err));
    REQUIRE(vision_gpu_begin(at_work, patches, n_col, n_row, soft, &err));
    for (bool finished = false; !finished;) REQUIRE(vision_gpu_advance(at_work, &finished, &err));
    vision_gpu_free(at_work);
    gpu_buffer_free(t->gpu, soft);
    encoder_gpu_free(e);
}

static void hear(towers *t, uint32_t n_text, uint32_t n) {
    audio *a;
    audio_gpu *at_work;
    REQUIRE(audio_open(t->memory, t->file, n_text, &a, &err));
    const uint32_t n_soft = audio_soft_tokens(a, n);
    assert_int_equal(n_soft, 750);
    encoder_gpu *e = load(t, a->matrices, a->vectors, a->n_vectors);
    float *input = arena_alloc(t->memory, n, a->config.direct ? 4 : 4 * MEL_BANDS);
    assert_non_null(input);
    gpu_buffer soft = gpu_buffer_create(t->gpu, 4ull * n_soft * n_text, GPU_STORAGE, "soft", &err);
    REQUIRE(audio_gpu_create(a, e, t->gpu, t->kernels, &at_work, &err));
    REQUIRE(audio_gpu_begin(at_work, input, n, soft, &err));
    for (bool finished = false; !finished;) REQUIRE(audio_gpu_advance(at_work, &finished, &err));
    audio_gpu_free(at_work);
    gpu_buffer_free(t->gpu, soft);
    encoder_gpu_free(e);
}

static const gpu_null_desc minimum = {0},
                           large = {.max_buffer = 4ull << 30, .max_binding = 2ull << 30};

static void e2b(void **state) {
    (void)state;
    towers t = open_towers("e2b", minimum);
    see(&t, 1536, 48, 48, 256);
    hear(&t, 1536, mel_frames(MEL_MAX_SAMPLES));
    close_towers(&t);
}

static void e2b_with_room(void **state) {
    (void)state;
    towers t = open_towers("e2b", large);
    see(&t, 1536, 48, 48, 256);
    close_towers(&t);
}

static void large_tower(void **state) {
    (void)state;
    towers t = open_towers("31b", minimum);
    see(&t, 5376, 57, 42, 266);
    close_towers(&t);
}

static void without_towers(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        towers t = open_towers("12b", i ? large : minimum);
        see(&t, 3840, 16, 16, 256);
        hear(&t, 3840, 480000);
        close_towers(&t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(e2b),
        cmocka_unit_test(e2b_with_room),
        cmocka_unit_test(large_tower),
        cmocka_unit_test(without_towers),
    };
    return cmocka_run_group_tests_name("towers", tests, NULL, NULL);
}
