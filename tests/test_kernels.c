/* The kernel table: every kernel in every variant against its CPU twin, on odd shapes, with guard
 * words around the outputs. This file: the tensor formats and the pieces of kernels/lib/. */
#include "kernel_test.h"

static void run_dequantise(const kernel *k, uint32_t type, gpu_view w, uint32_t first, uint32_t n,
                           float *got) {
    kt_output out = kt_out((size_t)n * 64);
    dequantise_args args = {.first = first, .n = n};
    kt_run(&(kernel_call){.kernel = k,
                          .formats = {type},
                          .args = &args,
                          .views = {w, out.view},
                          .x = 3,
                          .y = div_up(n, 3 * 64)});
    kt_read(out, got);
}

/* Random blocks; an odd number of them, from the middle of a block, and to the end. */
static void test_formats(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(kt_formats); i++) {
        uint32_t type = kt_formats[i];
        const quant_format *f = quant_find(type);
        uint32_t n_block = f->n_value == 1 ? 16 * 77 : f->n_value == 256 ? 13 : 77;
        uint32_t n = n_block * f->n_value, first = 3;
        uint8_t *blocks = kt_blocks(type, n, 1, 7);
        float *want = kt_take(n, 4), *got = kt_take(n, 4);
        f->dequantise(blocks, want, n);
        run_dequantise(&kernel_dequantise, type, kt_pack(type, blocks, n), first, n / 16 - first,
                       got);
        kt_compare(f->name, got, want + 16 * first, n - 16 * first, 1e-13);
        kt_reset();
    }
}

/* Every f16 as a scale: subnormals, zeros of both signs. */
static void test_small_scales(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(kt_scale_table); i++) {
        const kt_scales *s = &kt_scale_table[i];
        const quant_format *f = quant_find(s->type);
        uint32_t n_block = 61, n = n_block * f->n_value;
        uint8_t *blocks = kt_blocks(s->type, n, 1, 9);
        for (uint32_t b = 0; b < n_block; b++)
            for (int j = 0; j < 2; j++) {
                uint16_t h = (uint16_t)((b * 37 + (uint32_t)j * 11) % 0x440 | (b & 1) << 15);
                if (s->at[j] >= 0) memcpy(blocks + b * f->n_byte + s->at[j], &h, 2);
            }
        float *want = kt_take(n, 4), *got = kt_take(n, 4);
        f->dequantise(blocks, want, n);
        run_dequantise(&kernel_dequantise, s->type, kt_pack(s->type, blocks, n), 0, n / 16, got);
        kt_compare(f->name, got, want, n, 1e-13);
        kt_reset();
    }
}

static void test_all_halves(void **state) {
    (void)state;
    uint32_t n = 0;
    uint16_t *all = kt_take(65536, 2);
    for (uint32_t h = 0; h < 65536; h++)
        if ((h & 0x7c00) != 0x7c00) all[n++] = (uint16_t)h;
    float *got = kt_take(n, 4);
    run_dequantise(&kernel_dequantise, QUANT_F16, kt_in(all, (size_t)n * 2), 0, n / 16, got);
    for (uint32_t i = 0; i < n; i++)
        if (got[i] < half_to_float(all[i]) || got[i] > half_to_float(all[i]))
            fail_msg("f16 %04x is %a, not %a", all[i], (double)got[i],
                     (double)half_to_float(all[i]));
    kt_reset();
}

/* out[16 w ..]: four sums and maxima after each other in workgroup w, from one invocation. */
static const char reduce_source[] =
    "struct Args { n: u32 }\n"
    "@group(0) @binding(0) var<uniform> args: Args;\n"
    "@group(0) @binding(1) var<storage, read> x: array<f32>;\n"
    "@group(0) @binding(2) var<storage, read_write> out: array<f32>;\n"
    "@compute @workgroup_size(256)\n"
    "fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {\n"
    "  for (var i = 0u; i < args.n; i++) {\n"
    "    let v = x[(wid.x * args.n + i) * 256 + lid];\n"
    "    let sum = workgroup_sum(v, lid);\n"
    "    let top = workgroup_max(v, lid);\n"
    "    if (lid == (37 * i) % 256) {\n"
    "      out[(wid.x * args.n + i) * 2] = sum;\n"
    "      out[(wid.x * args.n + i) * 2 + 1] = top;\n"
    "    }\n"
    "  }\n"
    "}\n";

/* out[c] = 64 values of chunk c of A times those of x; lib/dot64.wgsl. */
static const char dot64_source[] =
    "struct Args { n: u32 }\n"
    "@group(0) @binding(0) var<uniform> args: Args;\n"
    "@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;\n"
    "@group(0) @binding(2) var<storage, read> wA: array<WA>;\n"
    "@group(0) @binding(3) var<storage, read_write> out: array<f32>;\n"
    "@compute @workgroup_size(64)\n"
    "fn main(@builtin(global_invocation_id) at: vec3<u32>) {\n"
    "  if (at.x >= args.n) { return; }\n"
    "  let g = groups64A(at.x);\n"
    "  let groups = vec4<u32>(g.x, g.x + 1, g.y, g.y + 1);\n"
    "  var v: Input64;\n"
    "  for (var i = 0u; i < 4; i++) {\n"
    "    let j = 4 * groups[i];\n"
    "    let r = input16(mat4x4<f32>(x[j], x[j + 1], x[j + 2], x[j + 3]));\n"
    "    v.high[i] = r.high;\n"
    "    v.low[i] = r.low;\n"
    "    v.scale[i] = r.scale;\n"
    "    v.sum[i] = r.sum;\n"
    "  }\n"
    "  out[at.x] = dot64A(at.x, v);\n"
    "}\n";

static const char *const no_includes[] = {NULL};
#define DOT64                                                                                      \
    {                                                                                              \
        .name = "dot64", .enables = "", .source = dot64_source, .includes = no_includes,           \
        .n_format = 1, .n_binding = 4,                                                             \
        .bindings = {GPU_BIND_UNIFORM, GPU_BIND_READ, GPU_BIND_READ, GPU_BIND_READ_WRITE},         \
        .args_bytes = 16                                                                           \
    }

/* A whole row against the reference: which chunk holds which values does not matter. */
static void check_dot64(const kernel *k) {
    for (size_t i = 0; i < COUNT(kt_formats); i++) {
        uint32_t n_row = 33, n_col = 768, n = n_row * n_col;
        kt_matrix w = kt_weights(kt_formats[i], n_row, n_col, 3);
        float *x = kt_floats(n, 11), *part = kt_take(n / 64, 4), got[33], want[33];
        kt_output out = kt_out(n / 64 * 4);
        kt_run(&(kernel_call){.kernel = k,
                              .formats = {kt_formats[i]},
                              .args = &(uint32_t[4]){n / 64},
                              .views = {kt_in(x, n * 4), w.view, out.view},
                              .x = div_up(n / 64, 64)});
        kt_read(out, part);
        for (uint32_t r = 0; r < n_row; r++) {
            double sum = 0, sum_got = 0;
            for (uint32_t c = r * n_col; c < (r + 1) * n_col; c++)
                sum += (double)w.values[c] * (double)x[c];
            for (uint32_t c = 0; c < n_col / 64; c++) sum_got += (double)part[r * (n_col / 64) + c];
            want[r] = (float)sum;
            got[r] = (float)sum_got;
        }
        kt_compare(quant_find(kt_formats[i])->name, got, want, n_row, 1e-8);
        kt_reset();
    }
}

static void test_dot64(void **state) {
    (void)state;
    static const kernel k = DOT64;
    check_dot64(&k);
}

/* The same where WGSL lacks dot4I8Packed(). */
static void test_dot64_plain(void **state) {
    (void)state;
    static const kernel k = DOT64; /* the cache tells kernels apart by their address */
    carat_error err = {0};
    buf wgsl = {0};
    kt.gpu->info.packed_dot = false;
    kt_check(kernel_assemble(&k, &kt_formats[0], &kt.gpu->info, &wgsl, &err), &err);
    assert_null(strstr(wgsl.data, "4xI8"));
    assert_null(strstr(wgsl.data, "I8Packed"));
    buf_free(&wgsl);
    check_dot64(&k);
    kt.gpu->info.packed_dot = true;
}

static const char *lib_source(const char *name) {
    for (const kernel_lib *lib = kernel_lib_table; lib->name; lib++)
        if (strcmp(lib->name, name) == 0) return lib->source;
    fail_msg("no lib/%s.wgsl", name);
    return NULL;
}

static void check_reduce(const char *lib, const char *enables) {
    static const uint32_t n_group = 5, n = 4;
    const char *includes[] = {lib_source(lib), NULL};
    static kernel kernels[2]; /* they must outlive the cache */
    kernel *k = &kernels[enables[0] != 0];
    *k = (kernel){.name = lib,
                  .enables = enables,
                  .source = reduce_source,
                  .includes = includes,
                  .n_binding = 3,
                  .bindings = {GPU_BIND_UNIFORM, GPU_BIND_READ, GPU_BIND_READ_WRITE},
                  .args_bytes = 16};
    float *x = kt_floats(n_group * n * 256, 5), want[5 * 4 * 2], got[5 * 4 * 2];
    for (uint32_t i = 0; i < n_group * n; i++) {
        double sum = 0;
        float top = x[256 * i];
        for (uint32_t j = 0; j < 256; j++) {
            sum += (double)x[256 * i + j];
            top = fmaxf(top, x[256 * i + j]);
        }
        want[2 * i] = (float)sum;
        want[2 * i + 1] = top;
    }
    kt_output out = kt_out(sizeof got);
    kt_run(&(kernel_call){.kernel = k,
                          .args = &(uint32_t[4]){n},
                          .views = {kt_in(x, n_group * n * 1024), out.view},
                          .x = n_group});
    kt_read(out, got);
    kt_compare(lib, got, want, COUNT(got), 1e-12);
    kt_reset();
}

static void test_reduce(void **state) {
    (void)state;
    check_reduce("reduce", "");
    if (kt.gpu->info.subgroups) check_reduce("reduce.subgroup", "enable subgroups;\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),    cmocka_unit_test(test_small_scales),
        cmocka_unit_test(test_all_halves), cmocka_unit_test(test_reduce),
        cmocka_unit_test(test_dot64),      cmocka_unit_test(test_dot64_plain),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
