/* The null device, and what stands on gpu.h alone, tested with it: sequences of kernel calls and
 * the upload of weights, at WebGPU's minimum limits and with every creation failing once. */
#include "gpu/gpu_null.h"
#include "gpu/handle.h"
#include "gpu/kernel.h"
#include "gpu/upload.h"
#include "file/file.h"
#include "kernels.h"
#include "model/model.h"

#include <ctype.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static gpu *open_null(gpu_null_desc desc) {
    gpu *g = gpu_null_open(&desc, NULL);
    assert_non_null(g);
    return g;
}

static gpu_buffer make(gpu *g, uint64_t size, gpu_usage usage) {
    carat_error err = {0};
    gpu_buffer b = gpu_buffer_create(g, size, usage, "test", &err);
    assert_int_equal(err.code, CARAT_OK);
    return b;
}

/* ---- handles ---- */

static void test_handles(void **state) {
    (void)state;
    arena *a = arena_create(NULL);
    handle_table *t = arena_alloc(a, 1, sizeof *t);
    t->memory = a;
    uint32_t ids[600];
    for (uint32_t i = 0; i < 600; i++) {
        ids[i] = handle_take(t);
        assert_true(ids[i] != 0);
        handle_find(t, ids[i])->size = i;
    }
    for (uint32_t i = 0; i < 600; i++) assert_int_equal(handle_find(t, ids[i])->size, i);
    assert_null(handle_find(t, 0));
    size_t bytes = arena_bytes(a);
    for (uint32_t round = 0; round < 40000; round++) { /* generations wrap */
        uint32_t old = ids[round % 600];
        handle_drop(t, old);
        assert_null(handle_find(t, old));
        ids[round % 600] = handle_take(t);
        assert_int_not_equal(ids[round % 600], old);
    }
    assert_int_equal(t->n_used, 600);
    assert_int_equal(arena_bytes(a), bytes);
    arena_free(a);
}

/* ---- the device's own checks ---- */

static void refused(gpu *g, const char *about) {
    carat_error err = {0};
    assert_false(gpu_submit(g, &err));
    assert_int_equal(err.code, CARAT_E_DEVICE);
    if (!strstr(err.message, about)) fail_msg("\"%s\" is not about %s", err.message, about);
    err = (carat_error){0};
    assert_true(gpu_submit(g, &err)); /* told once */
}

static void test_ranges(void **state) {
    (void)state;
    gpu *g = open_null((gpu_null_desc){0});
    gpu_buffer a = make(g, 100, GPU_STORAGE), b = make(g, 50, GPU_STORAGE);
    uint32_t words[32] = {0};
    carat_error err = {0};
    gpu_write(g, a, 96, words, 4);
    gpu_copy(g, a, 0, b, 0, 52);
    assert_true(gpu_submit(g, &err));
    assert_string_equal(gpu_null_complaint(g), "");
    gpu_write(g, a, 96, words, 8);
    refused(g, "write");
    gpu_write(g, a, 2, words, 4);
    refused(g, "not words");
    gpu_copy(g, a, 0, b, 4, 52);
    refused(g, "copy from");
    gpu_copy(g, a, 0, a, 16, 4);
    refused(g, "same buffer");
    gpu_buffer_free(g, b);
    gpu_write(g, b, 0, words, 4);
    refused(g, "does not exist");
    assert_non_null(strstr(gpu_null_complaint(g), "write"));
    assert_int_equal(gpu_null_count(g).n_refused, 5);
    gpu_close(g);
}

static void test_limits(void **state) {
    (void)state;
    gpu *g = open_null((gpu_null_desc){.memory = 300u << 20});
    carat_error err = {0};
    assert_int_equal(gpu_buffer_create(g, (256u << 20) + 4, GPU_STORAGE, "big", &err).id, 0);
    assert_int_equal(err.code, CARAT_E_MEMORY);
    gpu_buffer a = make(g, 256u << 20, GPU_STORAGE);
    err = (carat_error){0};
    assert_int_equal(gpu_buffer_create(g, 64u << 20, GPU_STORAGE, "more", &err).id, 0);
    assert_int_equal(err.code, CARAT_E_MEMORY);
    gpu_buffer_free(g, a);
    make(g, 64u << 20, GPU_STORAGE);
    assert_true(g->stats.peak_buffer_bytes == 256u << 20);
    gpu_close(g);
}

static void test_binds(void **state) {
    (void)state;
    gpu *g = open_null((gpu_null_desc){0});
    carat_error err = {0};
    static const uint8_t kinds[] = {GPU_BIND_UNIFORM, GPU_BIND_READ, GPU_BIND_READ_WRITE};
    gpu_pipeline p = gpu_pipeline_create(
        g,
        &(gpu_pipeline_desc){
            .label = "p", .wgsl = "fn main() {}", .n_binding = 3, .bindings = kinds},
        &err);
    assert_true(p.id != 0);
    gpu_buffer u = make(g, 512, GPU_UNIFORM), s = make(g, 1024, GPU_STORAGE);
    gpu_buffer t = make(g, 1024, GPU_STORAGE), big = make(g, 200u << 20, GPU_STORAGE);
    const gpu_view good[3] = {{u, 256, 16}, {s, 0, 0}, {t, 256, 0}};
    gpu_bind b = gpu_bind_create(g, p, good, 3, &err);
    assert_true(b.id != 0);
    const gpu_view bad[][3] = {
        {{s, 0, 16}, {s, 0, 0}, {t, 0, 0}},       /* not a uniform */
        {{u, 0, 16}, {s, 128, 0}, {t, 0, 0}},     /* offset */
        {{u, 0, 16}, {s, 0, 1028}, {t, 0, 0}},    /* size */
        {{u, 0, 16}, {s, 0, 256}, {s, 512, 256}}, /* read and written */
        {{u, 0, 16}, {big, 0, 0}, {t, 0, 0}},     /* larger than a binding */
        {{u, 0, 16}, {{0}, 0, 0}, {t, 0, 0}},     /* no buffer */
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        err = (carat_error){0};
        assert_int_equal(gpu_bind_create(g, p, bad[i], 3, &err).id, 0);
        assert_int_equal(err.code, CARAT_E_DEVICE);
    }
    gpu_dispatch(g, p, b, 1, 1, 1);
    assert_true(gpu_submit(g, &err));
    gpu_dispatch(g, p, b, 65536, 1, 1);
    refused(g, "65536");
    gpu_buffer_free(g, t);
    gpu_dispatch(g, p, b, 1, 1, 1);
    refused(g, "freed");
    gpu_close(g);
}

static void test_reads(void **state) {
    (void)state;
    gpu *g = open_null((gpu_null_desc){.delay = 2, .lose_at = 3});
    carat_error err = {0};
    gpu_buffer b = make(g, 64, GPU_STORAGE);
    uint8_t got[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    gpu_ticket t = gpu_read(g, b, 4, 7, &err);
    assert_int_equal(gpu_poll(g, t, got, &err), GPU_PENDING);
    assert_int_equal(gpu_poll(g, t, got, &err), GPU_PENDING);
    assert_int_equal(gpu_poll(g, t, got, &err), GPU_READY);
    assert_int_equal(got[6], 0);
    assert_int_equal(got[7], 8);
    t = gpu_read(g, b, 0, 4, &err);
    assert_false(gpu_submit(g, &err));
    assert_int_equal(err.code, CARAT_E_DEVICE_LOST);
    assert_true(g->lost);
    err = (carat_error){0};
    assert_int_equal(gpu_poll(g, t, got, &err), GPU_FAILED);
    assert_int_equal(err.code, CARAT_E_DEVICE_LOST);
    gpu_close(g);
}

/* ---- sequences of kernel calls ---- */

typedef struct sequence {
    gpu *g;
    kernel_cache *cache;
    kernel_steps *steps;
    gpu_buffer weights, out[2];
} sequence;

static bool open_sequence(sequence *q, gpu_null_desc desc, carat_error *err) {
    *q = (sequence){.g = open_null(desc)};
    q->weights = gpu_buffer_create(q->g, 1 << 16, GPU_STORAGE, "weights", err);
    for (int i = 0; i < 2; i++)
        q->out[i] = gpu_buffer_create(q->g, 1 << 16, GPU_STORAGE, "out", err);
    q->cache = kernel_cache_create(q->g, err);
    if (q->cache && q->weights.id && q->out[0].id && q->out[1].id)
        q->steps = kernel_steps_create(q->cache, 8, err);
    return q->steps != NULL;
}

static void close_sequence(sequence *q) {
    kernel_steps_free(q->steps);
    kernel_cache_free(q->cache);
    assert_int_equal(gpu_null_count(q->g).n_bind, 0);
    assert_int_equal(gpu_null_count(q->g).n_pipeline, 0);
    gpu_close(q->g);
}

static bool run_sequence(sequence *q, uint32_t n, carat_error *err) {
    kernel_begin(q->steps);
    for (uint32_t i = 0; i < 6; i++) {
        dequantise_args args = {.first = i, .n = n};
        kernel_run(q->steps,
                   &(kernel_call){.kernel = &kernel_dequantise,
                                  .formats = {i % 3 == 2 ? QUANT_Q6_K : QUANT_Q4_K},
                                  .args = &args,
                                  .views = {{.buffer = q->weights}, {.buffer = q->out[i & 1]}},
                                  .x = n});
    }
    return kernel_end(q->steps, err) && gpu_submit(q->g, err);
}

static void test_steps(void **state) {
    (void)state;
    sequence q;
    carat_error err = {0};
    assert_true(open_sequence(&q, (gpu_null_desc){0}, &err));
    assert_true(run_sequence(&q, 10, &err));
    assert_int_equal(kernel_calls(q.steps), 6);
    assert_int_equal(q.g->stats.n_pipeline, 2);
    assert_int_equal(q.g->stats.n_bind, 6);
    gpu_null_counts before = gpu_null_count(q.g);
    assert_int_equal(before.n_write, 1); /* all arguments at once */
    for (int i = 0; i < 5; i++) assert_true(run_sequence(&q, 10, &err));
    gpu_null_counts after = gpu_null_count(q.g);
    assert_memory_equal(&before, &after, sizeof before); /* nothing made, nothing written */
    assert_int_equal(q.g->stats.n_dispatch, 36);
    assert_true(run_sequence(&q, 11, &err)); /* other arguments */
    after = gpu_null_count(q.g);
    assert_int_equal(after.n_write, before.n_write + 1);
    assert_int_equal(after.n_bind, before.n_bind);
    q.out[0] = make(q.g, 1 << 16, GPU_STORAGE); /* other buffers: 3 bind groups change */
    assert_true(run_sequence(&q, 11, &err));
    assert_int_equal(q.g->stats.n_bind, 9);
    assert_int_equal(gpu_null_count(q.g).n_bind, 6);
    assert_string_equal(gpu_null_complaint(q.g), "");
    close_sequence(&q);
}

/* The same slot twice between two submits, with other arguments: a submit comes in between. */
static void test_steps_twice(void **state) {
    (void)state;
    sequence q;
    carat_error err = {0};
    assert_true(open_sequence(&q, (gpu_null_desc){0}, &err));
    for (uint32_t n = 1; n <= 3; n++) {
        dequantise_args args = {.n = n};
        kernel_begin(q.steps);
        kernel_run(q.steps, &(kernel_call){.kernel = &kernel_dequantise,
                                           .formats = {QUANT_F32},
                                           .args = &args,
                                           .views = {{.buffer = q.weights}, {.buffer = q.out[0]}}});
        assert_true(kernel_end(q.steps, &err));
    }
    assert_int_equal(q.g->stats.n_submit, 2);
    close_sequence(&q);
}

static void test_steps_errors(void **state) {
    (void)state;
    sequence q;
    carat_error err = {0};
    assert_true(open_sequence(&q, (gpu_null_desc){0}, &err));
    dequantise_args args = {0};
    kernel_call call = {.kernel = &kernel_dequantise,
                        .formats = {QUANT_F32},
                        .args = &args,
                        .views = {{.buffer = q.weights}, {.buffer = q.out[0]}}};
    kernel_begin(q.steps);
    call.x = 70000;
    kernel_run(q.steps, &call);
    assert_false(kernel_end(q.steps, &err));
    assert_non_null(strstr(err.message, "dequantise: 70000 x 1 x 1"));
    err = (carat_error){0};
    kernel_begin(q.steps);
    call.x = 1;
    for (int i = 0; i < 9; i++) kernel_run(q.steps, &call);
    assert_false(kernel_end(q.steps, &err));
    assert_non_null(strstr(err.message, "more than 8 calls"));
    err = (carat_error){0};
    kernel_begin(q.steps);
    call.formats[0] = 99;
    kernel_run(q.steps, &call);
    assert_false(kernel_end(q.steps, &err));
    assert_int_equal(err.code, CARAT_E_UNSUPPORTED);
    err = (carat_error){0};
    assert_true(run_sequence(&q, 1, &err)); /* none the worse for it */
    close_sequence(&q);
}

/* Every creation fails once; afterwards the same sequence works. */
static void test_steps_failures(void **state) {
    (void)state;
    for (uint32_t i = 1; i <= 4 + 2 + 6; i++) {
        gpu_null_desc desc = {0};
        if (i <= 4)
            desc.fail_buffer = i;
        else if (i <= 6)
            desc.fail_pipeline = i - 4;
        else
            desc.fail_bind = i - 6;
        sequence q;
        carat_error err = {0};
        bool opened = open_sequence(&q, desc, &err);
        assert_int_equal(opened, i > 4);
        if (opened) {
            assert_false(run_sequence(&q, 3, &err));
            err = (carat_error){0};
            assert_true(run_sequence(&q, 3, &err));
        }
        close_sequence(&q);
    }
}

static void test_variants(void **state) {
    (void)state;
    static const kernel subgroup = {.name = "k.subgroup", .enables = "enable subgroups;\n"};
    static const kernel matrix = {.name = "k.matrix",
                                  .enables = "enable f16;\nenable subgroups;\n"};
    static const kernel k = {
        .name = "k", .enables = "", .n_format = 2, .subgroup = &subgroup, .matrix = &matrix};
    const uint32_t f[] = {QUANT_Q4_K, QUANT_BF16}, exact[] = {QUANT_Q4_K, QUANT_F32};
    gpu_info info = {0};
    assert_ptr_equal(kernel_pick(&k, f, &info), &k);
    info = (gpu_info){.subgroups = true, .subgroup_min = 4, .subgroup_max = 4};
    assert_ptr_equal(kernel_pick(&k, f, &info), &k);
    info.subgroup_max = 32;
    assert_ptr_equal(kernel_pick(&k, f, &info), &subgroup);
    info.subgroup_matrix = true;
    assert_ptr_equal(kernel_pick(&k, f, &info), &matrix);
    assert_ptr_equal(kernel_pick(&k, exact, &info), &subgroup);
    info.subgroups = false;
    assert_ptr_equal(kernel_pick(&k, f, &info), &k);
}

/* ---- sources ---- */

/* Plain WGSL is a packed text, too, and only a format's library has its `$` replaced. */
static void test_plain_source(void **state) {
    (void)state;
    const char *const includes[] = {"let a=1;\n", "let b=$;\n", NULL};
    const kernel k = {
        .name = "k", .enables = "enable f16;\n", .source = "fn main(){}\n", .includes = includes};
    const gpu_info info = {.subgroup_min = 8};
    carat_error err = {0};
    buf wgsl = {0};
    assert_true(kernel_assemble(&k, NULL, &info, &wgsl, &err));
    assert_string_equal(wgsl.data, "enable f16;\nconst SUBGROUP = 8u;\nlet a=1;\nlet b=$;\n"
                                   "fn main(){}\n");
    buf_free(&wgsl);
}

static void check_source(const kernel *k, const uint32_t formats[3], const gpu_info *info) {
    carat_error err = {0};
    buf wgsl = {0};
    int open = 0;
    if (!kernel_assemble(k, formats, info, &wgsl, &err)) fail_msg("%s", err.message);
    for (const char *p = wgsl.data; *p; p++) {
        if (*p == '$' || (!isprint((unsigned char)*p) && *p != '\n'))
            fail_msg("%s: there is a byte %d", k->name, *p);
        open += (*p == '{') - (*p == '}');
    }
    if (open || !strstr(wgsl.data, "fn main(")) fail_msg("%s: is not whole", k->name);
    buf_free(&wgsl);
}

/* What tools/embed has packed. */
static void test_packed_sources(void **state) {
    (void)state;
    static const uint32_t formats[][3] = {{QUANT_Q4_K, QUANT_Q6_K, QUANT_Q8_0},
                                          {QUANT_F16, QUANT_BF16, QUANT_F32}};
    static const gpu_info infos[] = {
        {.subgroups = false},
        {.subgroups = true, .subgroup_min = 32, .subgroup_max = 32, .packed_dot = true}};
    gpu_info matrix = infos[1];
    matrix.subgroup_matrix = true;
    for (uint32_t i = 0; i < kernel_table_n; i++) {
        for (size_t j = 0; j < 2; j++)
            check_source(kernel_pick(kernel_table[i], formats[j], &infos[j]), formats[j],
                         &infos[j]);
        check_source(kernel_pick(kernel_table[i], formats[0], &matrix), formats[0], &matrix);
    }
}

/* ---- uploading ---- */

#define N_MATRIX 3

typedef struct load {
    gpu *g;
    arena *memory;
    source *src;
    gguf_tensor tensors[N_MATRIX];
    weight weights[N_MATRIX];
    weight *list[N_MATRIX + 1];
    upload *upload;
} load;

/* Q8_0 with an odd number of blocks a row, Q4_K, F16; more than a piece in the first. */
static void open_load(load *l, gpu_null_desc desc) {
    static const struct {
        uint32_t type, n_row, n_col, n_expert;
    } shapes[N_MATRIX] = {
        {QUANT_Q8_0, 30001, 32 * 9, 1}, {QUANT_Q4_K, 64, 512, 4}, {QUANT_F16, 100, 48, 1}};
    *l = (load){.g = open_null(desc), .memory = arena_create(NULL)};
    uint64_t at = 0;
    for (uint32_t i = 0; i < N_MATRIX; i++) {
        const quant_format *f = quant_find(shapes[i].type);
        uint64_t n = (uint64_t)shapes[i].n_row * shapes[i].n_col * shapes[i].n_expert;
        l->tensors[i] = (gguf_tensor){.name = {"some tensor", 11},
                                      .type = shapes[i].type,
                                      .offset = at,
                                      .size = n / f->n_value * f->n_byte};
        l->weights[i] = (weight){.tensor = &l->tensors[i],
                                 .type = shapes[i].type,
                                 .n_row = shapes[i].n_row,
                                 .n_col = shapes[i].n_col,
                                 .n_expert = shapes[i].n_expert};
        at += l->tensors[i].size;
        l->list[i] = &l->weights[i];
    }
    void *data = arena_alloc(l->memory, at, 1);
    assert_non_null(data);
    assert_true(source_memory(l->memory, "weights", data, at, &l->src, NULL));
    for (uint32_t i = 0; i < N_MATRIX; i++) l->tensors[i].src = l->src;
}

static bool run_load(load *l, carat_error *err) {
    if (!upload_create(l->memory, l->g, l->list, &l->upload, err)) return false;
    bool busy, done = false, ok = true;
    while (!done && (ok = upload_advance(l->upload, &busy, &done, err)))
        if (busy) gpu_wait(l->g);
    if (ok) {
        assert_int_equal(upload_bytes_done(l->upload), upload_bytes_total(l->upload));
        assert_int_equal(upload_bytes_total(l->upload), l->src->size);
    }
    upload_free(l->upload);
    return ok;
}

static void close_load(load *l) {
    upload_free_weights(l->g, l->list);
    assert_int_equal(gpu_null_count(l->g).n_buffer, 0);
    gpu_close(l->g);
    arena_free(l->memory);
}

static void test_upload(void **state) {
    (void)state;
    for (uint32_t small = 0; small < 2; small++) {
        load l;
        carat_error err = {0};
        open_load(&l, (gpu_null_desc){.max_binding = small ? 200000 : 0, .delay = 3});
        assert_true(run_load(&l, &err));
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < N_MATRIX; i++) {
            const weight *w = &l.weights[i];
            uint32_t row = 0;
            for (uint32_t j = 0; j < w->n_tile; j++) {
                assert_int_equal(w->tiles[j].row0, row);
                if (w->type == QUANT_Q8_0) assert_int_equal(row % 8, 0);  /* whole eights */
                if (w->n_expert > 1) assert_int_equal(row % w->n_row, 0); /* whole experts */
                row += w->tiles[j].n_row;
                uint64_t n = upload_packed_bytes(w->type, (uint64_t)w->tiles[j].n_row * w->n_col);
                if (small) assert_true(n <= 200000);
                bytes += n;
            }
            assert_int_equal(row, w->n_row * w->n_expert);
        }
        assert_int_equal(l.weights[0].n_tile > 1, small);
        assert_int_equal(l.g->stats.buffer_bytes, bytes);
        assert_int_equal(gpu_null_count(l.g).bytes_written, bytes);
        assert_string_equal(gpu_null_complaint(l.g), "");
        upload_free_weights(l.g, l.list);
        assert_true(run_load(&l, &err)); /* again */
        close_load(&l);
    }
}

static void test_upload_failures(void **state) {
    (void)state;
    for (uint32_t i = 1;; i++) {
        load l;
        carat_error err = {0};
        open_load(&l, (gpu_null_desc){.max_binding = 4000000, .fail_buffer = i});
        bool ok = run_load(&l, &err);
        if (!ok) assert_int_equal(err.code, CARAT_E_MEMORY);
        close_load(&l);
        if (ok) break;
    }
    for (uint32_t i = 1;; i++) {
        load l;
        carat_error err = {0};
        open_load(&l, (gpu_null_desc){.lose_at = i, .delay = 2});
        bool ok = run_load(&l, &err);
        if (!ok) assert_int_equal(err.code, CARAT_E_DEVICE_LOST);
        close_load(&l);
        if (ok) break;
    }
    load l;
    carat_error err = {0};
    open_load(&l, (gpu_null_desc){.max_binding = 64});
    assert_false(run_load(&l, &err));
    assert_int_equal(err.code, CARAT_E_MEMORY);
    assert_non_null(strstr(err.message, "some tensor"));
    close_load(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handles),        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_limits),         cmocka_unit_test(test_binds),
        cmocka_unit_test(test_reads),          cmocka_unit_test(test_steps),
        cmocka_unit_test(test_steps_twice),    cmocka_unit_test(test_steps_errors),
        cmocka_unit_test(test_steps_failures), cmocka_unit_test(test_variants),
        cmocka_unit_test(test_plain_source),   cmocka_unit_test(test_packed_sources),
        cmocka_unit_test(test_upload),         cmocka_unit_test(test_upload_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
