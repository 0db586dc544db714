/* The GPU vision encoder against golden values of independent implementations (tower, soft tokens,
 * what the text network on the CPU makes of them), and against the CPU's encoder where there are
 * none: without a tower, with limits and scales that no golden file has. Bound: 2e-3 relative error
 * of each tensor, equal greedy ids. On a GPU in software one picture is seen. Last, large towers on
 * a device that runs nothing, at WebGPU's minimum limits. CPU twin: test_golden_vision.c. */
#include "golden_gpu.h"
#include "golden_soft.h"

#include "gguf_edit.h"
#include "gpu/gpu_null.h"
#include "media/media.h"
#include "model/encoder_gpu.h"
#include "picture.h"

#define SOFT_TOKEN 17 /* nano's <|image|> */

/* An encoder on the device. */
typedef struct eyes {
    vision *v;
    encoder_gpu *weights;
    vision_gpu *gpu;
} eyes;

static eyes open_eyes(vision *v) {
    eyes e = {.v = v};
    REQUIRE(encoder_gpu_create(device, v->matrices, v->vectors, v->n_vectors, &e.weights, &err));
    for (bool done = false, busy = false; !done;) {
        REQUIRE(encoder_gpu_load(e.weights, &busy, &done, &err));
        if (busy) gpu_wait(device);
    }
    uint64_t done, total;
    encoder_gpu_progress(e.weights, &done, &total);
    assert_true(done == total && total > 0);
    REQUIRE(vision_gpu_create(v, e.weights, device, cache, &e.gpu, &err));
    return e;
}

static void close_eyes(eyes *e) {
    vision_gpu_free(e->gpu);
    encoder_gpu_free(e->weights);
}

static void advance(eyes *e, bool *finished) {
    REQUIRE(vision_gpu_advance(e->gpu, finished, &err));
    while (encoder_gpu_busy(device)) gpu_wait(device);
}

/* Soft tokens [n_soft, n_out] and the tower's output [n_soft, n_embd]. */
static float *see(golden *g, eyes *e, const image_patches *p, float **tower) {
    const vision_config *c = &e->v->config;
    const size_t n = vision_soft_tokens(e->v, p->n_col, p->n_row);
    float *soft = golden_alloc(g, n * c->n_out, sizeof *soft);
    *tower = golden_alloc(g, n * c->n_embd, sizeof **tower);
    gpu_buffer to = gpu_buffer_create(device, n * c->n_out * 4, GPU_STORAGE, "soft", &err);
    assert_int_not_equal(to.id, 0);
    REQUIRE(vision_gpu_begin(e->gpu, p->data, p->n_col, p->n_row, to, &err));
    for (bool finished = false; !finished;) advance(e, &finished);
    uint64_t done, total;
    vision_gpu_progress(e->gpu, &done, &total);
    assert_true(done == total);
    wait_read(gpu_read(device, to, 0, n * c->n_out * 4, &err), soft);
    wait_read(gpu_read(device, vision_gpu_tower(e->gpu), 0, n * c->n_embd * 4, &err), *tower);
    gpu_buffer_free(device, to);
    return soft;
}

/* ---- nano ---- */

static image_patches prepare(golden *g, const char *file, const vision *v, uint32_t budget) {
    char path[256];
    uint32_t width, height;
    image_patches p;
    snprintf(path, sizeof path, "tests/golden/nano/%s", file);
    uint8_t *rgb = picture_load(path, &width, &height);
    if (!rgb) fail_msg("cannot read %s", path);
    REQUIRE(image_prepare(g->memory, rgb, width, height, v->config.side, v->config.pool, budget, &p,
                          &err));
    picture_free(rgb);
    return p;
}

static void check_picture(golden *g, text_cpu *text, eyes *e, const json *c, const char *budget) {
    char tower_name[64], soft_name[64], logits_name[64];
    const char *name = json_string(json_get(c, "name"), "");
    snprintf(tower_name, sizeof tower_name, "tower.%s.%s", name, budget);
    snprintf(soft_name, sizeof soft_name, "embed.%s.%s", name, budget);
    snprintf(logits_name, sizeof logits_name, "logits.%s.%s", name, budget);
    const vision_config *v = &e->v->config;
    const json *b = json_get(json_get(c, "budgets"), budget);
    const image_patches p =
        prepare(g, json_string(json_get(c, "file"), ""), e->v, (uint32_t)atoi(budget));
    const uint32_t n = vision_soft_tokens(e->v, p.n_col, p.n_row);
    assert_int_equal(n, json_number(json_get(b, "soft_tokens"), 0));
    float *tower, *soft = see(g, e, &p, &tower);
    const bool stored = safetensors_find(g->tensors, tower_name) != NULL;
    if (stored) golden_compare(g, tower_name, tower, n, v->n_embd);
    if (stored) golden_compare(g, soft_name, soft, n, v->n_out);
    golden_answer(g, text, json_get(b, "ids"), json_get(b, "greedy_ids"), SOFT_TOKEN, soft, n, true,
                  stored ? logits_name : NULL);
}

/* Giving up in the middle leaves nothing behind. */
static void give_up(golden *g, eyes *e, const json *c) {
    const image_patches p = prepare(g, json_string(json_get(c, "file"), ""), e->v, 70);
    gpu_buffer to = gpu_buffer_create(device, 1 << 20, GPU_STORAGE, "soft", &err);
    bool finished;
    REQUIRE(vision_gpu_begin(e->gpu, p.data, p.n_row, p.n_col, to, &err)); /* another shape */
    advance(e, &finished);
    assert_false(finished);
    gpu_buffer_free(device, to);
}

static void nano(void **state) {
    (void)state;
    golden g;
    vision *v;
    if (!device) skip();
    golden_open(&g, "models/nano.gguf", "tests/golden/nano/vision", BOUND);
    text_cpu *text = golden_cpu(&g, SOFT_CTX);
    REQUIRE(vision_open(g.memory, g.model->gguf, g.model->config.n_embd, &v, &err));
    eyes e = open_eyes(v);
    uint32_t n = 0;
    for (size_t i = 0; i < g.json->n; i++) {
        const json *c = &g.json->items[i];
        const char *name = json_string(json_get(c, "name"), "");
        const bool tall = !strcmp(name, "tall");
        if (device->info.software && !tall) continue;
        if (device->info.software) give_up(&g, &e, c);
        check_picture(&g, text, &e, c, "70");
        n += 3;
        if (!device->info.software && (tall || !strcmp(name, "shapes_9")))
            check_picture(&g, text, &e, c, "280");
    }
    assert_int_equal(g.n_compared, n);
    close_eyes(&e);
    text_cpu_free(text);
    golden_close(&g);
}

/* ---- the family ---- */

static vision *open_relative(golden *g, gguf **file, const char *name) {
    char path[128];
    vision *v;
    golden_open_relative(g, name, BOUND);
    snprintf(path, sizeof path, "tests/golden/family/%s-mmproj.gguf", name);
    REQUIRE(gguf_open(g->memory, path, file, &err));
    REQUIRE(vision_open(g->memory, *file, g->model->config.n_embd, &v, &err));
    return v;
}

static image_patches golden_patches(golden *g) {
    const json *grid = json_get(json_get(g->json, "picture"), "grid");
    image_patches p = {.n_col = (uint32_t)json_number(json_at(grid, 0), 0),
                       .n_row = (uint32_t)json_number(json_at(grid, 1), 0)};
    const safetensor *t = safetensors_find(g->tensors, "picture.patches");
    uint8_t *bytes = golden_alloc(g, t->size, 1);
    assert_int_equal(t->size, (uint64_t)p.n_col * p.n_row * 768);
    REQUIRE(source_read(g->tensors->src, t->offset, bytes, t->size, &err));
    p.data = bytes;
    return p;
}

static void check_relative(const char *name) {
    golden g;
    gguf *file;
    if (!device) skip();
    vision *v = open_relative(&g, &file, name);
    eyes e = open_eyes(v);
    const image_patches p = golden_patches(&g);
    const uint32_t n = vision_soft_tokens(v, p.n_col, p.n_row);
    float *tower, *soft = see(&g, &e, &p, &tower);
    golden_compare(&g, "picture.tower", tower, n, v->config.n_embd);
    golden_compare(&g, "picture.embed", soft, n, v->config.n_out);
    close_eyes(&e);
    gguf_close(file);
    golden_close(&g);
}

static void family_e4b(void **state) {
    (void)state;
    check_relative("e4b");
}

static void family_moe(void **state) {
    (void)state;
    check_relative("moe");
}

/* ---- against the CPU's encoder ---- */

static void check_twins(golden *g, vision *v, const image_patches *p, const char *what) {
    vision_cpu *cpu;
    const size_t n = (size_t)vision_soft_tokens(v, p->n_col, p->n_row) * v->config.n_out;
    float *want = golden_alloc(g, n, sizeof *want), *tower;
    golden_load(g, v->matrices);
    REQUIRE(vision_cpu_create(v, p->data, p->n_col, p->n_row, NULL, &cpu, &err));
    for (bool finished = false; !finished;) vision_cpu_advance(cpu, want, &finished);
    vision_cpu_free(cpu);
    eyes e = open_eyes(v);
    distance d = {0};
    distance_add(&d, see(g, &e, p, &tower), want, n);
    golden_check(g, what, &d);
    close_eyes(&e);
}

/* Gate and up clamp their input differently, and a layer ends in a scale by channel. */
static void unlike_limits(void **state) {
    (void)state;
    golden g;
    gguf *file;
    if (!device) skip();
    vision *v = open_relative(&g, &file, "e4b");
    const image_patches p = golden_patches(&g);
    for (uint32_t il = 0; il < v->config.n_layer; il++) {
        vision_layer *l = &v->layers[il];
        l->gate.in_max = 0.5f;
        l->up.in_min = -0.25f;
        l->up.out_max = 0.125f;
        l->down.in_min = -0.0625f;
        l->scale = l->attn_norm; /* of the right length, on the device, too */
    }
    check_twins(&g, v, &p, "limits");
    gguf_close(file);
    golden_close(&g);
}

static float noise(uint32_t *seed) { /* in [-1, 1) */
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) / (1 << 23) - 1;
}

/* The encoder without a tower: names and shapes of its tensors, filled with noise. */
static void direct(void **state) {
    (void)state;
    enum {
        SIDE = 4,
        PIXELS = 3 * SIDE * SIDE,
        WIDTH = 80,
        PLACES = 9,
        COL = 7,
        ROW = 3,
        OUT = 128
    };
    golden g;
    if (!device) skip();
    golden_open_relative(&g, "e4b", BOUND);
    assert_int_equal(g.model->config.n_embd, OUT);
    const edit edits[] = {
        {ADD_TENSOR, "v.patch_embd.weight", .n = 2, .array = {PIXELS, WIDTH}},
        {ADD_TENSOR, "v.patch_embd.bias", .n = 1, .array = {WIDTH}},
        {ADD_TENSOR, "v.patch_norm.1.weight", .n = 1, .array = {PIXELS}},
        {ADD_TENSOR, "v.patch_norm.1.bias", .n = 1, .array = {PIXELS}},
        {ADD_TENSOR, "v.patch_norm.2.weight", .n = 1, .array = {WIDTH}},
        {ADD_TENSOR, "v.patch_norm.2.bias", .n = 1, .array = {WIDTH}},
        {ADD_TENSOR, "v.patch_norm.3.weight", .n = 1, .array = {WIDTH}},
        {ADD_TENSOR, "v.patch_norm.3.bias", .n = 1, .array = {WIDTH}},
        {ADD_TENSOR, "v.position_embd.weight", .n = 3, .array = {WIDTH, PLACES, 2}},
        {ADD_TENSOR, "mm.input_projection.weight", .n = 2, .array = {WIDTH, OUT}},
        {0}};
    gguf *file = gguf_edit(g.memory, g.model->gguf, edits);
    uint32_t seed = 5;
    for (const edit *e = edits; e->kind; e++) {
        const gguf_tensor *t = gguf_find_tensor(file, e->name);
        float *x = (float *)((const uint8_t *)t->src->memory + t->offset);
        for (uint64_t i = 0; i < t->size / sizeof *x; i++) x[i] = noise(&seed);
    }
    vision *v;
    REQUIRE(vision_open(g.memory, file, OUT, &v, &err));
    assert_true(v->config.direct);
    uint8_t *bytes = golden_alloc(&g, COL * ROW, PIXELS);
    for (size_t i = 0; i < COL * ROW * PIXELS; i++) bytes[i] = (uint8_t)(128 + 127 * noise(&seed));
    const image_patches p = {.data = bytes, .n_col = COL, .n_row = ROW};
    check_twins(&g, v, &p, "direct");
    gguf_close(file);
    golden_close(&g);
}

/* ---- large towers, on a device that runs nothing ---- */

typedef struct paper { /* a vision whose matrices have shapes, and no values */
    arena *memory;
    gpu *gpu;
    gguf_tensor tensor;
    vision v;
    encoder_gpu weights;
} paper;

static weight paper_matrix(paper *p, uint32_t n_row, uint32_t n_col) {
    const uint64_t bytes = (uint64_t)n_row * n_col * 2;
    weight_tile *tile = arena_alloc(p->memory, 1, sizeof *tile);
    *tile = (weight_tile){.n_row = n_row};
    tile->buffer = gpu_buffer_create(p->gpu, bytes, GPU_STORAGE, "matrix", &err);
    assert_int_not_equal(tile->buffer.id, 0);
    return (weight){.type = QUANT_F16,
                    .n_col = n_col,
                    .n_row = n_row,
                    .n_expert = 1,
                    .scale = 1,
                    .tiles = tile,
                    .n_tile = 1};
}

static clipped paper_clipped(paper *p, uint32_t n_row, uint32_t n_col) {
    return (clipped){paper_matrix(p, n_row, n_col), -INFINITY, INFINITY, -INFINITY, INFINITY};
}

static void paper_open(paper *p, vision_config c, gpu_null_desc device_desc) {
    static const float one = 1;
    const vector all = {.n = c.n_embd, .data = &one}, single = {.n = 1, .data = &one};
    const uint64_t places = 2ull * c.n_pos * c.n_embd * 4;
    *p = (paper){.memory = arena_create(&err), .gpu = gpu_null_open(&device_desc, &err)};
    vision *v = &p->v;
    v->config = c;
    const uint32_t pixels = 3 * c.side * c.side;
    v->patch = paper_matrix(p, c.n_embd, pixels);
    v->project = paper_matrix(p, c.n_out, c.n_embd);
    v->layers = arena_alloc(p->memory, max_u32(c.n_layer, 1), sizeof *v->layers);
    const clipped wide = paper_clipped(p, c.n_embd, c.n_embd);
    const clipped grow = paper_clipped(p, max_u32(c.n_ff, 1), c.n_embd);
    const clipped shrink = paper_clipped(p, c.n_embd, max_u32(c.n_ff, 1));
    for (uint32_t il = 0; il < c.n_layer; il++)
        v->layers[il] = (vision_layer){all,  all,  all,  all,  all,  all,    wide,
                                       wide, wide, wide, grow, grow, shrink, single};
    p->tensor = (gguf_tensor){.type = QUANT_F32, .size = places};
    v->position = (weight){.tensor = &p->tensor,
                           .type = QUANT_F32,
                           .n_col = c.n_embd,
                           .n_row = c.n_pos,
                           .n_expert = 2,
                           .scale = 1};
    void *zeros = arena_alloc(p->memory, places, 1);
    REQUIRE(source_memory(p->memory, "places", zeros, places, &p->tensor.src, &err));
    p->weights.vectors = gpu_buffer_create(p->gpu, 1 << 20, GPU_STORAGE, "vectors", &err);
}

/* Encodes a picture and checks that the device had nothing to complain of; returns dispatches. */
static uint64_t paper_see(paper *p, uint32_t n_col, uint32_t n_row) {
    const vision_config *c = &p->v.config;
    kernel_cache *kernels = kernel_cache_create(p->gpu, &err);
    vision_gpu *t;
    const size_t n_soft = vision_soft_tokens(&p->v, n_col, n_row);
    uint8_t *patches = arena_alloc(p->memory, (size_t)n_col * n_row, 3 * c->side * c->side);
    gpu_buffer soft = gpu_buffer_create(p->gpu, n_soft * c->n_out * 4, GPU_STORAGE, "soft", &err);
    REQUIRE(vision_gpu_create(&p->v, &p->weights, p->gpu, kernels, &t, &err));
    const uint64_t before = p->gpu->stats.buffer_bytes, n_dispatch = p->gpu->stats.n_dispatch;
    REQUIRE(vision_gpu_begin(t, patches, n_col, n_row, soft, &err));
    assert_true(p->gpu->stats.buffer_bytes - before == vision_gpu_memory(&p->v, n_col, n_row));
    uint64_t last = 0, done = 0, total;
    for (bool finished = false; !finished; last = done) {
        REQUIRE(vision_gpu_advance(t, &finished, &err));
        vision_gpu_progress(t, &done, &total);
        assert_true(done > last && done <= total);
        assert_true(done - last < 200000000000u); /* 400 GFLOP */
    }
    assert_true(done == total);
    assert_string_equal(gpu_null_complaint(p->gpu), "");
    const uint64_t n = p->gpu->stats.n_dispatch - n_dispatch;
    vision_gpu_free(t);
    gpu_buffer_free(p->gpu, soft);
    assert_true(p->gpu->stats.buffer_bytes <= before);
    kernel_cache_free(kernels);
    return n;
}

static void paper_close(paper *p) {
    gpu_close(p->gpu);
    arena_free(p->memory);
}

static const vision_config large = {.n_layer = 27,
                                    .n_embd = 1152,
                                    .n_ff = 4304,
                                    .n_head = 16,
                                    .head_dim = 72,
                                    .side = 16,
                                    .pool = 3,
                                    .n_pos = 10240,
                                    .n_out = 5376,
                                    .standardize = true,
                                    .rope_base = 100};
static const vision_config small = {.n_layer = 16,
                                    .n_embd = 768,
                                    .n_ff = 3072,
                                    .n_head = 12,
                                    .head_dim = 64,
                                    .side = 16,
                                    .pool = 3,
                                    .n_pos = 10240,
                                    .n_out = 1536,
                                    .rope_base = 100};

static void large_tower(void **state) {
    (void)state;
    paper p;
    paper_open(&p, large, (gpu_null_desc){0});
    assert_int_equal(paper_see(&p, 48, 48), 2 + 27 * 12 + 2); /* feed-forward in two pieces */
    paper_see(&p, 105, 96);
    paper_see(&p, 2244, 3);
    paper_close(&p);
}

static void small_tower(void **state) {
    (void)state;
    paper p;
    paper_open(&p, small, (gpu_null_desc){0});
    assert_int_equal(paper_see(&p, 24, 24), 2 + 16 * 10 + 2);
    assert_int_equal(paper_see(&p, 48, 48), 2 + 16 * 10 + 2);
    paper_see(&p, 105, 96);
    paper_close(&p);
}

/* A device that fails once: the error is told, and nothing stays. Returns whether it failed. */
static bool paper_fails(gpu_null_desc desc) {
    paper p;
    vision_gpu *t = NULL;
    vision_config c = small;
    c.n_layer = 2;
    paper_open(&p, c, desc);
    const uint64_t n_buffer = gpu_null_count(p.gpu).n_buffer;
    kernel_cache *kernels = kernel_cache_create(p.gpu, &err);
    uint8_t *patches = arena_alloc(p.memory, 36, 768);
    err = (carat_error){0};
    bool ok = vision_gpu_create(&p.v, &p.weights, p.gpu, kernels, &t, &err) &&
              vision_gpu_begin(t, patches, 6, 6, p.weights.vectors, &err);
    for (bool finished = false; ok && !finished;) ok = vision_gpu_advance(t, &finished, &err);
    assert_true(ok == !err.code && ok == !err.message[0]);
    vision_gpu_free(t);
    assert_true(gpu_null_count(p.gpu).n_buffer == n_buffer);
    assert_int_equal(gpu_null_count(p.gpu).n_bind, 0);
    kernel_cache_free(kernels);
    paper_close(&p);
    return !ok;
}

static void failing_device(void **state) {
    (void)state;
    assert_false(paper_fails((gpu_null_desc){0}));
    uint32_t n = 0;
    for (uint32_t i = 7; i < 30; i++) n += paper_fails((gpu_null_desc){.fail_buffer = i});
    assert_int_equal(n, 13); /* arguments of kernels, and the picture's */
    n = 0;
    for (uint32_t i = 1; i < 20; i++) n += paper_fails((gpu_null_desc){.fail_pipeline = i});
    assert_int_equal(n, 9);
    for (uint32_t i = 1; i < 20; i++) assert_true(paper_fails((gpu_null_desc){.fail_bind = i}));
    assert_true(paper_fails((gpu_null_desc){.lose_at = 1}));
}

static void large_direct(void **state) {
    (void)state;
    const vision_config c = {
        .direct = true, .n_embd = 3840, .side = 48, .pool = 1, .n_pos = 1120, .n_out = 3840};
    paper p;
    paper_open(&p, c, (gpu_null_desc){0});
    paper_see(&p, 35, 32);
    paper_close(&p);
}

int main(void) {
    const struct CMUnitTest seen[] = {
        cmocka_unit_test(nano),          cmocka_unit_test(family_e4b), cmocka_unit_test(family_moe),
        cmocka_unit_test(unlike_limits), cmocka_unit_test(direct),
    };
    const struct CMUnitTest paper_only[] = {
        cmocka_unit_test(large_tower),
        cmocka_unit_test(small_tower),
        cmocka_unit_test(large_direct),
        cmocka_unit_test(failing_device),
    };
    return cmocka_run_group_tests_name("golden_vision_gpu", seen, open_device, close_device) +
           cmocka_run_group_tests_name("vision at minimum limits", paper_only, NULL, NULL);
}
