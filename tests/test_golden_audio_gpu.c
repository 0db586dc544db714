/* The GPU audio encoder against golden values of independent implementations: tower, soft tokens,
 * and what the text network on the CPU makes of these: last logits and greedy answers. Bounds: 2e-3
 * relative error of each tensor, equal greedy ids. On a GPU in software only the shortest recording
 * is heard. CPU twin: test_golden_audio.c; shapes and failures: test_audio_gpu.c. */
#include "golden_gpu.h"

#include "golden_sound.h"
#include "model/encoder_gpu.h"

typedef struct ears {
    golden g;
    text_cpu *text;
    audio *audio;
    encoder_gpu *weights;
    audio_gpu *gpu;
} ears;

static void open_ears(ears *f) {
    if (!device) skip();
    golden_open(&f->g, "models/nano.gguf", "tests/golden/nano/audio", BOUND);
    f->text = golden_cpu(&f->g, SOFT_CTX);
    const model *m = f->g.model;
    REQUIRE(audio_open(f->g.memory, m->gguf, m->config.n_embd, &f->audio, &err));
    const audio *a = f->audio;
    REQUIRE(encoder_gpu_create(device, a->matrices, a->vectors, a->n_vectors, &f->weights, &err));
    for (bool done = false, busy = false; !done;) {
        REQUIRE(encoder_gpu_load(f->weights, &busy, &done, &err));
        if (busy) gpu_wait(device);
    }
    REQUIRE(audio_gpu_create(a, f->weights, device, cache, &f->gpu, &err));
}

static void close_ears(ears *f) {
    audio_gpu_free(f->gpu);
    encoder_gpu_free(f->weights);
    text_cpu_free(f->text);
    golden_close(&f->g);
}

static float *fetch(golden *g, gpu_buffer b, size_t n) {
    float *out = golden_alloc(g, n, sizeof *out);
    wait_read(gpu_read(device, b, 0, n * sizeof *out, &err), out);
    return out;
}

static void check_recording(ears *f, const json *c) {
    golden *g = &f->g;
    static const char *const kinds[3] = {"tower", "embed", "logits"};
    const audio_config *config = &f->audio->config;
    char names[3][64];
    for (int i = 0; i < 3; i++)
        snprintf(names[i], sizeof names[i], "%s.%s", kinds[i],
                 json_string(json_get(c, "name"), ""));
    uint32_t n_frame;
    const float *mel = golden_hear(g, json_string(json_get(c, "file"), ""), &n_frame);
    const uint32_t n = audio_soft_tokens(f->audio, n_frame);
    const gpu_buffer soft =
        gpu_buffer_create(device, n * config->n_out * 4ull, GPU_STORAGE, "soft tokens", &err);
    assert_int_not_equal(soft.id, 0);
    REQUIRE(audio_gpu_begin(f->gpu, mel, n_frame, soft, &err));
    for (bool finished = false; !finished;) REQUIRE(audio_gpu_advance(f->gpu, &finished, &err));
    golden_compare(g, names[0], fetch(g, audio_gpu_tower(f->gpu), (size_t)n * config->n_mid), n,
                   config->n_mid);
    const float *rows = fetch(g, soft, (size_t)n * config->n_out);
    golden_compare(g, names[1], rows, n, config->n_out);
    golden_answer(g, f->text, json_get(c, "ids"), json_get(c, "greedy_ids"), SOFT_TOKEN, rows, n,
                  false, names[2]);
    gpu_buffer_free(device, soft);
}

static void nano(void **state) {
    (void)state;
    ears f;
    open_ears(&f);
    assert_int_equal(f.g.json->n, 5);
    for (size_t i = 0; i < f.g.json->n; i++) {
        const json *c = &f.g.json->items[i];
        const bool shortest = !strcmp(json_string(json_get(c, "name"), ""), "speech_8");
        if (shortest || !device->info.software) check_recording(&f, c);
    }
    assert_int_equal(f.g.n_compared, device->info.software ? 3 : 15);
    close_ears(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(nano)};
    return cmocka_run_group_tests_name("golden_audio_gpu", tests, open_device, close_device);
}
