/* The GPU audio encoder beyond golden values: encoders of random weights against the CPU, with
 * sounds longer than a piece, one after the other and broken off; E2B's real sizes and 30 s on a
 * pretended device with WebGPU's smallest limits; and every failure that such a device can have. */
#include "golden_gpu.h"

#include "gpu/gpu_null.h"
#include "media/media.h"
#include "model/encoder_gpu.h"

#include <time.h>

/* An encoder without a file, on the host and on a device. */
typedef struct ears {
    arena *memory;
    gpu *gpu;
    bool on_host; /* else the numbers do not matter */
    uint32_t seed;
    float *vectors;
    audio a;
    encoder_gpu weights;
    weight *list[256]; /* whose tiles are freed */
    uint32_t n_list;
} ears;

static float noise(ears *e) { /* in [-1, 1) */
    e->seed = e->seed * 1664525u + 1013904223u;
    return (float)(e->seed >> 8) / (1 << 23) - 1;
}

static void *take(ears *e, uint64_t n, size_t size) {
    void *p = arena_alloc(e->memory, n, size);
    assert_non_null(p);
    return p;
}

/* n values near `middle`, at most `size` away. */
static vector make_vector(ears *e, uint32_t n, float middle, float size) {
    const uint32_t at = e->a.n_vectors;
    for (uint32_t i = 0; i < n; i++) e->vectors[at + i] = middle + size * noise(e);
    e->a.n_vectors += (n + 3) / 4 * 4;
    return (vector){.data = e->vectors + at, .n = n, .offset = at};
}

static void make_matrix(ears *e, uint32_t n_row, uint32_t n_col, weight *w) {
    const uint64_t n = (uint64_t)n_row * n_col, size = n * (e->on_host ? 4 : 2);
    *w = (weight){.type = e->on_host ? QUANT_F32 : QUANT_BF16,
                  .n_row = n_row,
                  .n_col = n_col,
                  .n_expert = 1,
                  .scale = 1,
                  .n_tile = 1};
    w->tiles = take(e, 1, sizeof *w->tiles);
    *w->tiles = (weight_tile){.n_row = n_row};
    assert_true(e->n_list < COUNT(e->list));
    e->list[e->n_list++] = w;
    w->tiles->buffer = gpu_buffer_create(e->gpu, size, GPU_STORAGE, "matrix", &err);
    assert_int_not_equal(w->tiles->buffer.id, 0);
    if (!e->on_host) return;
    float *values = take(e, n, sizeof *values);
    for (uint64_t i = 0; i < n; i++) values[i] = 1.7f / sqrtf((float)n_col) * noise(e);
    gpu_write(e->gpu, w->tiles->buffer, 0, values, size);
    w->host = (const uint8_t *)values;
}

/* Limits that some values reach. */
static void make_clipped(ears *e, uint32_t n_row, uint32_t n_col, clipped *c) {
    make_matrix(e, n_row, n_col, &c->w);
    c->in_min = -2, c->in_max = 1.5f, c->out_min = -1.5f, c->out_max = 2;
}

static void make_ffn(ears *e, audio_ffn *f) {
    const audio_config *c = &e->a.config;
    f->norm = make_vector(e, c->n_embd, 1, 0.5f);
    make_clipped(e, c->n_ff, c->n_embd, &f->up);
    make_clipped(e, c->n_embd, c->n_ff, &f->down);
    f->post_norm = make_vector(e, c->n_embd, 1, 0.5f);
}

static void make_layer(ears *e, audio_layer *l) {
    const audio_config *c = &e->a.config;
    const uint32_t d = c->n_embd;
    clipped *const square[5] = {&l->q, &l->k, &l->v, &l->out, &l->conv_out};
    vector *const norms[5] = {&l->attn_norm, &l->post_attn_norm, &l->conv_norm, &l->mid_norm,
                              &l->out_norm};
    make_ffn(e, &l->ffn[0]);
    for (int i = 0; i < 5; i++) make_clipped(e, d, d, square[i]);
    make_clipped(e, 2 * d, d, &l->conv_in);
    for (int i = 0; i < 5; i++) *norms[i] = make_vector(e, d, 1, 0.5f);
    l->dim_scale = make_vector(e, c->head_dim, 1, 0.9f);
    make_matrix(e, d, d, &l->rel);
    l->conv = make_vector(e, d * c->n_kernel, 0, 1);
    make_ffn(e, &l->ffn[1]);
}

static void make_tower(ears *e) {
    audio *a = &e->a;
    const audio_config *c = &a->config;
    for (int i = 0; i < 2; i++) {
        const uint32_t n_in = i ? c->n_conv[0] : 1;
        a->conv[i] = make_vector(e, 9 * n_in * c->n_conv[i], 0, 1);
        a->conv_norm[i] = make_vector(e, c->n_conv[i], 1, 0.5f);
    }
    make_matrix(e, c->n_embd, MEL_BANDS / 4 * c->n_conv[1], &a->input);
    a->layers = take(e, c->n_layer, sizeof *a->layers);
    for (uint32_t il = 0; il < c->n_layer; il++) make_layer(e, &a->layers[il]);
    make_matrix(e, c->n_mid, c->n_embd, &a->output);
    a->output_bias = make_vector(e, c->n_mid, 0, 1);
}

static void open_ears(ears *e, gpu *g, bool on_host, audio_config config) {
    *e = (ears){.memory = arena_create(&err), .gpu = g, .on_host = on_host, .seed = 7};
    assert_non_null(e->memory);
    e->a.config = config;
    e->vectors = take(e, 1 << 20, sizeof *e->vectors);
    if (!config.direct) make_tower(e);
    make_matrix(e, config.n_out, config.direct ? config.frame : config.n_mid, &e->a.project);
    const uint64_t bytes = (e->a.n_vectors + 4ull) * sizeof *e->vectors;
    assert_true(e->a.n_vectors < 1 << 20);
    e->a.vectors = e->vectors;
    e->weights.vectors = gpu_buffer_create(g, bytes, GPU_STORAGE, "vectors", &err);
    assert_int_not_equal(e->weights.vectors.id, 0);
    gpu_write(g, e->weights.vectors, 0, e->vectors, bytes);
}

static void close_ears(ears *e) {
    for (uint32_t i = 0; i < e->n_list; i++) gpu_buffer_free(e->gpu, e->list[i]->tiles->buffer);
    gpu_buffer_free(e->gpu, e->weights.vectors);
    arena_free(e->memory);
}

static const audio_config e2b = {
    .n_layer = 12,
    .n_embd = 1024,
    .n_ff = 4096,
    .n_head = 8,
    .head_dim = 128,
    .n_conv = {128, 32},
    .n_kernel = 5,
    .n_mid = 1536,
    .n_out = 1536,
};

/* ---- against the CPU ---- */

static float *hear_cpu(ears *e, const float *input, uint32_t n) {
    audio_cpu *t;
    float *soft = take(e, (uint64_t)audio_soft_tokens(&e->a, n) * e->a.config.n_out, sizeof *soft);
    REQUIRE(audio_cpu_create(&e->a, input, n, NULL, &t, &err));
    for (bool finished = false; !finished;) audio_cpu_advance(t, soft, &finished);
    audio_cpu_free(t);
    return soft;
}

/* Steps of an encoding; `most`: it is broken off after as many. */
static uint32_t advance(audio_gpu *t, uint32_t most) {
    uint64_t done, total, before = 0;
    uint32_t n = 0;
    for (bool finished = false; !finished && n < most; n++) {
        REQUIRE(audio_gpu_advance(t, &finished, &err));
        audio_gpu_progress(t, &done, &total);
        assert_true(done > before && done <= total && finished == (done == total));
        before = done;
    }
    return n;
}

static void check_sound(ears *e, audio_gpu *t, const float *input, uint32_t n) {
    const size_t n_value = (size_t)audio_soft_tokens(&e->a, n) * e->a.config.n_out;
    const gpu_buffer soft = gpu_buffer_create(device, n_value * 4, GPU_STORAGE, "soft", &err);
    assert_int_not_equal(soft.id, 0);
    REQUIRE(audio_gpu_begin(t, input, n, soft, &err));
    advance(t, UINT32_MAX);
    const float *want = hear_cpu(e, input, n);
    float *is = take(e, n_value, sizeof *is);
    wait_read(gpu_read(device, soft, 0, n_value * 4, &err), is);
    distance d = {0};
    distance_add(&d, is, want, n_value);
    const double error = sqrt(d.diff / d.norm);
    print_message("%u of input: relative error %.2g\n", n, error);
    assert_true(error < 1e-4);
    gpu_buffer_free(device, soft);
}

static float *random_input(ears *e, uint32_t n, float middle, float size) {
    float *x = take(e, n, sizeof *x);
    for (uint32_t i = 0; i < n; i++) x[i] = middle + size * noise(e);
    return x;
}

/* Sounds of more tokens than are convolved at once, of fewer, of one; odd numbers of frames. */
static void random_tower(void **state) {
    (void)state;
    ears e;
    audio_gpu *t;
    if (!device) skip();
    open_ears(&e, device, true,
              (audio_config){.n_layer = 4,
                             .n_embd = 48,
                             .n_ff = 80,
                             .n_head = 4,
                             .head_dim = 12,
                             .n_conv = {12, 8},
                             .n_kernel = 3,
                             .n_mid = 32,
                             .n_out = 20});
    REQUIRE(audio_gpu_create(&e.a, &e.weights, device, cache, &t, &err));
    const float *mel = random_input(&e, 1100 * MEL_BANDS, -3, 3);
    check_sound(&e, t, mel, 1);
    check_sound(&e, t, mel, 1099);
    check_sound(&e, t, mel + MEL_BANDS, 83);
    const gpu_buffer soft = gpu_buffer_create(device, 275 * 20 * 4, GPU_STORAGE, "soft", &err);
    REQUIRE(audio_gpu_begin(t, mel, 1100, soft, &err)); /* given up, in software at once */
    if (!device->info.software) assert_int_equal(advance(t, 1), 1);
    gpu_buffer_free(device, soft);
    check_sound(&e, t, mel, 30);
    audio_gpu_free(t);
    close_ears(&e);
}

/* How long a sound takes when everything is compiled. */
static void print_time(ears *e, audio_gpu *t, const float *mel, uint32_t n) {
    const uint64_t bytes = (uint64_t)audio_soft_tokens(&e->a, n) * e->a.config.n_out * 4;
    const gpu_buffer soft = gpu_buffer_create(device, bytes, GPU_STORAGE, "soft", &err);
    struct timespec from, to;
    float first;
    clock_gettime(CLOCK_MONOTONIC, &from);
    REQUIRE(audio_gpu_begin(t, mel, n, soft, &err));
    advance(t, UINT32_MAX);
    wait_read(gpu_read(device, soft, 0, sizeof first, &err), &first);
    clock_gettime(CLOCK_MONOTONIC, &to);
    print_message("%u layers, %u frames: %.1f ms on %s\n", e->a.config.n_layer, n,
                  (double)(to.tv_sec - from.tv_sec) * 1e3 +
                      (double)(to.tv_nsec - from.tv_nsec) * 1e-6,
                  device->info.name);
    gpu_buffer_free(device, soft);
}

/* E2B's widths: all of 30 s, in software a layer of half a second. */
static void wide_tower(void **state) {
    (void)state;
    ears e;
    audio_gpu *t;
    if (!device) skip();
    audio_config config = e2b;
    const uint32_t n = device->info.software ? 50 : mel_frames(MEL_MAX_SAMPLES);
    if (device->info.software) config.n_layer = 1;
    open_ears(&e, device, true, config);
    REQUIRE(audio_gpu_create(&e.a, &e.weights, device, cache, &t, &err));
    const float *mel = random_input(&e, n * MEL_BANDS, -3, 3);
    check_sound(&e, t, mel, n);
    if (!device->info.software) print_time(&e, t, mel, n);
    audio_gpu_free(t);
    close_ears(&e);
}

/* 12B's: samples go straight to the projector. */
static void without_tower(void **state) {
    (void)state;
    ears e;
    audio_gpu *t;
    if (!device) skip();
    open_ears(&e, device, true, (audio_config){.direct = true, .frame = 640, .n_out = 96});
    REQUIRE(audio_gpu_create(&e.a, &e.weights, device, cache, &t, &err));
    const float *samples = random_input(&e, 4000, 0, 1);
    check_sound(&e, t, samples, 640 * 5);
    check_sound(&e, t, samples, 640 * 2 + 1); /* the rest of its last frame are zeros */
    check_sound(&e, t, samples, 3);
    audio_gpu_free(t);
    close_ears(&e);
}

/* ---- a pretended device ---- */

/* 30 s through E2B's tower: what WebGPU's smallest limits allow, in few dispatches. */
static void real_size(void **state) {
    (void)state;
    ears e;
    audio_gpu *t;
    gpu *g;
    REQUIRE(g = gpu_null_open(&(gpu_null_desc){0}, &err));
    kernel_cache *pipelines = kernel_cache_create(g, &err);
    assert_non_null(pipelines);
    open_ears(&e, g, false, e2b);
    const uint32_t n = mel_frames(MEL_MAX_SAMPLES), n_soft = audio_soft_tokens(&e.a, n);
    assert_int_equal(n_soft, 750);
    const float *mel = take(&e, (uint64_t)n * MEL_BANDS, sizeof *mel);
    const gpu_buffer soft = gpu_buffer_create(g, n_soft * 1536 * 4, GPU_STORAGE, "soft", &err);
    REQUIRE(audio_gpu_create(&e.a, &e.weights, g, pipelines, &t, &err));
    const uint64_t without = g->stats.buffer_bytes;
    for (int i = 0; i < 2; i++) {
        const gpu_stats before = g->stats;
        REQUIRE(audio_gpu_begin(t, mel, n, soft, &err));
        assert_int_equal(advance(t, UINT32_MAX), 12);
        const uint64_t n_dispatch = g->stats.n_dispatch - before.n_dispatch;
        if (i) assert_int_equal(n_dispatch, 12 * 14 + 3 * 2 + 5);
        if (i) assert_int_equal(g->stats.n_bind, before.n_bind); /* all are used again */
        if (!i)
            print_message("30 s: %.1f MB beside the weights\n",
                          (double)(g->stats.buffer_bytes - without) / 1e6);
    }
    const uint64_t rel = 12ull * AUDIO_REACH * 1024 * 4;
    assert_int_equal(g->stats.buffer_bytes - without, audio_gpu_memory(&e.a, n) + rel);
    assert_int_equal(audio_gpu_begin(t, mel, n + 2, soft, &err), false);
    assert_int_equal(err.code, CARAT_E_ARGUMENT);
    err = (carat_error){0};
    assert_false(audio_gpu_begin(t, mel, 0, soft, &err));
    assert_string_equal(err.message, "audio: there is nothing to hear");
    audio_gpu_free(t);
    gpu_buffer_free(g, soft);
    close_ears(&e);
    kernel_cache_free(pipelines);
    assert_string_equal(gpu_null_complaint(g), "");
    assert_int_equal(gpu_null_count(g).n_buffer, 0);
    gpu_close(g);
}

static bool hear_once(ears *e, gpu *g, kernel_cache *pipelines, const float *mel) {
    audio_gpu *t = NULL;
    bool finished = false;
    err = (carat_error){0};
    bool ok = audio_gpu_create(&e->a, &e->weights, g, pipelines, &t, &err) &&
              audio_gpu_begin(t, mel, 9, e->weights.vectors, &err);
    while (ok && !finished) ok = audio_gpu_advance(t, &finished, &err);
    audio_gpu_free(t);
    return ok;
}

/* False: something failed, as it should. desc counts from the first call of the encoder on. */
static bool short_life(gpu_null_desc desc) {
    ears e;
    gpu *g;
    REQUIRE(g = gpu_null_open(&desc, &err));
    kernel_cache *pipelines = kernel_cache_create(g, &err);
    assert_non_null(pipelines);
    open_ears(&e, g, false,
              (audio_config){.n_layer = 1,
                             .n_embd = 16,
                             .n_ff = 16,
                             .n_head = 1,
                             .head_dim = 16,
                             .n_conv = {4, 4},
                             .n_kernel = 5,
                             .n_mid = 16,
                             .n_out = 16});
    const float *mel = take(&e, 9 * MEL_BANDS, sizeof *mel);
    const bool ok = hear_once(&e, g, pipelines, mel);
    if (!ok) assert_int_not_equal(err.code, 0);
    if (!ok) assert_true(err.message[0] != 0);
    close_ears(&e);
    kernel_cache_free(pipelines);
    assert_int_equal(gpu_null_count(g).n_buffer, 0);
    assert_int_equal(gpu_null_count(g).n_bind, 0);
    assert_int_equal(gpu_null_count(g).n_pipeline, 0);
    gpu_close(g);
    return ok;
}

/* Whatever cannot be made: an error, nothing left behind. */
static void failures(void **state) {
    (void)state;
    enum { BEFORE = 15 }; /* buffers of the weights */
    uint32_t n_buffer = 0, n_pipeline = 0, n_bind = 0, n_submit = 0;
    while (!short_life((gpu_null_desc){.fail_buffer = BEFORE + ++n_buffer}))
        assert_true(n_buffer < 99);
    while (!short_life((gpu_null_desc){.fail_pipeline = ++n_pipeline}))
        assert_true(n_pipeline < 99);
    while (!short_life((gpu_null_desc){.fail_bind = ++n_bind})) assert_true(n_bind < 99);
    while (!short_life((gpu_null_desc){.lose_at = ++n_submit})) assert_true(n_submit < 99);
    print_message("%u buffers, %u pipelines, %u binds, %u submits\n", n_buffer - 1, n_pipeline - 1,
                  n_bind - 1, n_submit - 1);
    assert_true(n_buffer > 10 && n_pipeline > 5 && n_bind > 20 && n_submit > 1);
}

/* Widths that the kernels cannot read. */
static void odd_widths(void **state) {
    (void)state;
    const audio a = {.config = {.direct = true, .frame = 100, .n_out = 16}};
    audio_gpu *t;
    err = (carat_error){0};
    assert_false(audio_gpu_create(&a, NULL, NULL, NULL, &t, &err));
    assert_int_equal(err.code, CARAT_E_UNSUPPORTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_tower),  cmocka_unit_test(wide_tower),
        cmocka_unit_test(without_tower), cmocka_unit_test(real_size),
        cmocka_unit_test(failures),      cmocka_unit_test(odd_widths),
    };
    return cmocka_run_group_tests_name("audio_gpu", tests, open_device, close_device);
}
