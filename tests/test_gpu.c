/* The device waist over Dawn: buffers, pipelines, order of writes and dispatches, reading back,
 * errors. Needs an adapter; a software one is enough. */
#include "gpu/gpu.h" /* before cmocka, which makes a macro of fail */
#if __has_include(<webgpu.h>)
#include "gpu/dawn.h"
#endif

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static gpu *dev;

static int open_device(void **state) {
    (void)state;
    carat_error err = {0};
    dev = gpu_dawn_open(NULL, &err);
    if (!dev) print_message("NO DEVICE: %s\n", err.message);
    return dev ? 0 : 1;
}

static int close_device(void **state) {
    (void)state;
    gpu_close(dev);
    return 0;
}

static void check(bool ok, const carat_error *err) {
    if (!ok) print_message("%s\n", err->message);
    assert_true(ok);
}

static gpu_buffer make(uint64_t size, gpu_usage usage) {
    carat_error err = {0};
    gpu_buffer b = gpu_buffer_create(dev, size, usage, "test", &err);
    check(b.id != 0, &err);
    return b;
}

static void finish_read(gpu_ticket t, void *dst) {
    carat_error err = {0};
    gpu_poll_result r;
    while ((r = gpu_poll(dev, t, dst, &err)) == GPU_PENDING) gpu_wait(dev);
    check(r == GPU_READY, &err);
}

static void read_back(gpu_buffer b, uint64_t offset, void *dst, size_t n) {
    carat_error err = {0};
    gpu_ticket t = gpu_read(dev, b, offset, n, &err);
    check(t.id != 0, &err);
    finish_read(t, dst);
}

/* data[i] = data[i] * MUL + args.add */
static const char affine_wgsl[] =
    "override MUL: u32 = 1;\n"
    "struct Args { add: u32 }\n"
    "@group(0) @binding(0) var<uniform> args: Args;\n"
    "@group(0) @binding(1) var<storage, read_write> data: array<u32>;\n"
    "@compute @workgroup_size(64)\n"
    "fn main(@builtin(global_invocation_id) at: vec3<u32>) {\n"
    "  if (at.x < arrayLength(&data)) {\n"
    "    data[at.x] = data[at.x] * MUL + args.add;\n"
    "  }\n"
    "}\n";
static const uint8_t affine_bindings[] = {GPU_BIND_UNIFORM, GPU_BIND_READ_WRITE};

static gpu_pipeline affine(double mul) {
    carat_error err = {0};
    gpu_pipeline p =
        gpu_pipeline_create(dev,
                            &(gpu_pipeline_desc){.label = "affine",
                                                 .wgsl = affine_wgsl,
                                                 .n_binding = 2,
                                                 .bindings = affine_bindings,
                                                 .n_constant = 1,
                                                 .constants = &(gpu_constant){"MUL", mul}},
                            &err);
    check(p.id != 0, &err);
    return p;
}

static gpu_bind bind2(gpu_pipeline p, gpu_buffer args, gpu_view data) {
    carat_error err = {0};
    gpu_view views[2] = {{.buffer = args, .size = 16}, data};
    gpu_bind b = gpu_bind_create(dev, p, views, 2, &err);
    check(b.id != 0, &err);
    return b;
}

static void test_info(void **state) {
    (void)state;
    const gpu_info *i = &dev->info;
    print_message("device: %s (%s)%s, subgroups %u..%u\n", i->name, i->backend,
                  i->software ? ", software" : "", i->subgroup_min, i->subgroup_max);
    assert_true(i->name[0] && i->backend[0]);
    assert_true(i->max_buffer >= 256u << 20);
    assert_true(i->max_binding >= 128u << 20);
    assert_true(i->max_storage_buffers >= 8 && i->max_invocations >= 256);
    assert_true(i->max_workgroup_bytes >= 16384 && i->max_groups >= 65535);
}

static void test_missing_library(void **state) {
    (void)state;
    carat_error err = {0};
    assert_null(gpu_dawn_open("/nowhere/libdawn.so", &err));
    assert_int_equal(err.code, CARAT_E_DEVICE);
    assert_non_null(strstr(err.message, "/nowhere/libdawn.so"));
}

static void test_buffer(void **state) {
    (void)state;
    uint64_t before = dev->stats.buffer_bytes;
    gpu_buffer b = make(1022, GPU_STORAGE);
    assert_true(dev->stats.buffer_bytes == before + 1024);
    assert_true(dev->stats.peak_buffer_bytes >= before + 1024);
    uint32_t got[256], want[256] = {0};
    memset(got, 1, sizeof got);
    read_back(b, 0, got, 1024);
    assert_memory_equal(got, want, 1024);
    for (uint32_t i = 0; i < 8; i++) want[10 + i] = i * 7 + 1;
    gpu_write(dev, b, 40, want + 10, 32);
    read_back(b, 0, got, 1023);
    assert_memory_equal(got, want, 1023);
    read_back(b, 44, got, 5);
    assert_memory_equal(got, want + 11, 5);
    gpu_buffer_free(dev, b);
    gpu_buffer c = make(16, GPU_UNIFORM);
    assert_int_not_equal(b.id, c.id);
    gpu_buffer_free(dev, c);
    gpu_buffer_free(dev, (gpu_buffer){0});
}

static void test_too_large(void **state) {
    (void)state;
    carat_error err = {0};
    gpu_buffer b = gpu_buffer_create(dev, UINT64_C(1) << 60, GPU_STORAGE, "giant", &err);
    assert_int_equal(b.id, 0);
    assert_int_equal(err.code, CARAT_E_MEMORY);
    assert_non_null(strstr(err.message, "giant"));
    assert_non_null(strstr(err.message, "1152921504606846976"));
}

/* Dispatches see each other's results, a copy what came before it; a write comes before what is
 * recorded, and after what was submitted. */
static void test_order(void **state) {
    (void)state;
    carat_error err = {0};
    gpu_buffer data = make(400, GPU_STORAGE), copy = make(400, GPU_STORAGE);
    gpu_buffer args = make(16, GPU_UNIFORM);
    gpu_pipeline p2 = affine(2), p3 = affine(3);
    gpu_bind b2 = bind2(p2, args, (gpu_view){.buffer = data});
    gpu_bind b3 = bind2(p3, args, (gpu_view){.buffer = data});
    uint32_t add[4] = {5}, start[100], got[100];
    for (uint32_t i = 0; i < 100; i++) start[i] = i;
    gpu_write(dev, data, 0, start, sizeof start);
    gpu_dispatch(dev, p2, b2, 2, 1, 1); /* 2 i + 1 */
    gpu_copy(dev, copy, 0, data, 0, 400);
    gpu_dispatch(dev, p3, b3, 2, 1, 1); /* 6 i + 4 */
    add[0] = 1;
    gpu_write(dev, args, 0, add, sizeof add);
    check(gpu_submit(dev, &err), &err);
    add[0] = 100;
    gpu_write(dev, args, 0, add, sizeof add);
    gpu_dispatch(dev, p2, b2, 2, 1, 1); /* 12 i + 108 */
    read_back(data, 0, got, sizeof got);
    for (uint32_t i = 0; i < 100; i++) assert_int_equal(got[i], 12 * i + 108);
    read_back(copy, 0, got, sizeof got);
    for (uint32_t i = 0; i < 100; i++) assert_int_equal(got[i], 2 * i + 1);
    gpu_bind_free(dev, b2);
    gpu_bind_free(dev, b3);
    gpu_pipeline_free(dev, p2);
    gpu_pipeline_free(dev, p3);
    gpu_buffer_free(dev, data);
    gpu_buffer_free(dev, copy);
    gpu_buffer_free(dev, args);
}

/* A buffer that recorded commands use may be freed before they are submitted. */
static void test_free_while_recorded(void **state) {
    (void)state;
    carat_error err = {0};
    gpu_buffer a = make(256, GPU_STORAGE), b = make(256, GPU_STORAGE);
    uint32_t seven[64], got[64];
    for (uint32_t i = 0; i < 64; i++) seven[i] = 7 + i;
    gpu_write(dev, a, 0, seven, 256);
    gpu_copy(dev, b, 0, a, 0, 256);
    gpu_buffer_free(dev, a);
    check(gpu_submit(dev, &err), &err);
    read_back(b, 0, got, 256);
    assert_memory_equal(got, seven, 256);
    gpu_buffer_free(dev, b);
}

static void test_view_offset(void **state) {
    (void)state;
    gpu_buffer data = make(1024, GPU_STORAGE), args = make(16, GPU_UNIFORM);
    gpu_pipeline p = affine(1);
    gpu_bind b = bind2(p, args, (gpu_view){.buffer = data, .offset = 256, .size = 512});
    uint32_t one[4] = {1}, got[256];
    gpu_write(dev, args, 0, one, sizeof one);
    gpu_dispatch(dev, p, b, 4, 1, 1);
    read_back(data, 0, got, sizeof got);
    for (uint32_t i = 0; i < 256; i++) assert_int_equal(got[i], i >= 64 && i < 192);
    gpu_bind_free(dev, b);
    gpu_pipeline_free(dev, p);
    gpu_buffer_free(dev, data);
    gpu_buffer_free(dev, args);
}

static void test_reads_overlap(void **state) {
    (void)state;
    carat_error err = {0};
    gpu_buffer b = make(64, GPU_STORAGE);
    gpu_ticket t[8];
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t word[1] = {i + 1};
        gpu_write(dev, b, 0, word, 4);
        t[i] = gpu_read(dev, b, 0, 4, &err);
        check(t[i].id != 0, &err);
    }
    for (uint32_t i = 8; i-- > 0;) {
        uint32_t got = 0;
        finish_read(t[i], &got);
        assert_int_equal(got, i + 1);
    }
    for (int i = 0; i < 600; i++) check(gpu_submit(dev, &err), &err);
    while (gpu_pending(dev)) gpu_wait(dev);
    gpu_buffer_free(dev, b);
}

static void test_bad_wgsl(void **state) {
    (void)state;
    carat_error err = {0};
    gpu_pipeline p = gpu_pipeline_create(
        dev, &(gpu_pipeline_desc){.label = "broken", .wgsl = "fn main( {"}, &err);
    assert_int_equal(p.id, 0);
    assert_int_equal(err.code, CARAT_E_DEVICE);
    assert_non_null(strstr(err.message, "broken"));
    err = (carat_error){0};
    check(gpu_submit(dev, &err), &err); /* the device is none the worse for it */
}

static void test_bad_bind(void **state) {
    (void)state;
    carat_error err = {0};
    gpu_pipeline p = affine(1);
    gpu_buffer uniform = make(16, GPU_UNIFORM);
    gpu_view views[2] = {{.buffer = uniform}, {.buffer = uniform}};
    gpu_bind b = gpu_bind_create(dev, p, views, 2, &err);
    assert_int_equal(b.id, 0);
    assert_int_equal(err.code, CARAT_E_DEVICE);
    gpu_pipeline_free(dev, p);
    gpu_buffer_free(dev, uniform);
}

/* What goes wrong while recording is told by the next submit, once. */
static void test_late_error(void **state) {
    (void)state;
    carat_error err = {0};
    gpu_buffer a = make(16, GPU_STORAGE), b = make(16, GPU_STORAGE);
    gpu_copy(dev, a, 0, b, 8, 16);
    assert_false(gpu_submit(dev, &err));
    assert_int_equal(err.code, CARAT_E_DEVICE);
    err = (carat_error){0};
    check(gpu_submit(dev, &err), &err);
    gpu_buffer_free(dev, a);
    gpu_buffer_free(dev, b);
}

/* A device that goes away: everything fails with one error, nothing hangs, and closing works. */
static void test_lost(void **state) {
    (void)state;
#if __has_include(<webgpu.h>)
    carat_error err = {0};
    gpu *g = gpu_dawn_open(NULL, &err);
    check(g != NULL, &err);
    gpu_buffer b = gpu_buffer_create(g, 1024, GPU_STORAGE, "test", &err);
    gpu_ticket t = gpu_read(g, b, 0, 1024, &err);
    check(t.id != 0, &err);
    dawn *d = (dawn *)g;
    d->wgpu.DeviceDestroy(d->device);
    uint8_t got[1024];
    gpu_poll_result r;
    while ((r = gpu_poll(g, t, got, &err)) == GPU_PENDING) gpu_wait(g);
    if (r == GPU_FAILED) assert_int_equal(err.code, CARAT_E_DEVICE_LOST);
    err = (carat_error){0};
    assert_false(gpu_submit(g, &err));
    assert_int_equal(err.code, CARAT_E_DEVICE_LOST);
    assert_true(g->lost);
    err = (carat_error){0};
    assert_int_equal(gpu_buffer_create(g, 64, GPU_STORAGE, "late", &err).id, 0);
    assert_int_equal(err.code, CARAT_E_DEVICE_LOST);
    err = (carat_error){0};
    assert_int_equal(gpu_read(g, b, 0, 4, &err).id, 0);
    assert_int_equal(err.code, CARAT_E_DEVICE_LOST);
    gpu_write(g, b, 0, got, 16);
    gpu_wait(g);
    gpu_buffer_free(g, b);
    gpu_close(g);
#else
    skip();
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_info),        cmocka_unit_test(test_missing_library),
        cmocka_unit_test(test_buffer),      cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_order),       cmocka_unit_test(test_free_while_recorded),
        cmocka_unit_test(test_view_offset), cmocka_unit_test(test_reads_overlap),
        cmocka_unit_test(test_bad_wgsl),    cmocka_unit_test(test_bad_bind),
        cmocka_unit_test(test_late_error),  cmocka_unit_test(test_lost),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
