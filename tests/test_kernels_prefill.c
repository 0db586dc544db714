/* The kernels of prefill against the CPU's operations: odd shapes, formats, guard words around the
 * outputs. Needs an adapter; a software one is enough. */
#include "gpu/kernel.h" /* before cmocka, which makes a macro of fail */
#include "model/ops_gpu.h"

#include "kernels.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUARD_BYTES 256u
#define GUARD       0xdeadbeefu
#define EPS         1e-6f

static gpu *dev;
static kernel_cache *cache;
static kernel_steps *steps;
static arena *memory;
static uint32_t seed = 1;

static void check(bool ok, const carat_error *err) {
    if (!ok) print_message("%s\n", err->message);
    assert_true(ok);
}

static int open_device(void **state) {
    (void)state;
    carat_error err = {0};
    dev = gpu_dawn_open(NULL, &err);
    if (dev) cache = kernel_cache_create(dev, &err);
    if (cache) steps = kernel_steps_create(cache, 64, &err);
    if (steps) memory = arena_create(&err);
    if (!memory) print_message("NO DEVICE: %s\n", err.message);
    return memory ? 0 : 1;
}

static int close_device(void **state) {
    (void)state;
    kernel_steps_free(steps);
    kernel_cache_free(cache);
    gpu_close(dev);
    arena_free(memory);
    return 0;
}

/* ---- values ---- */

static void *take(size_t n, size_t size) {
    void *p = arena_alloc(memory, n ? n : 1, size);
    assert_non_null(p);
    return p;
}

/* Uniform in [-1, 1). */
static float value(void) {
    seed = seed * 1664525u + 1013904223u;
    return (float)(int32_t)seed / 2147483648.0f;
}

static float *values(size_t n) {
    float *v = take(n, sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = value();
    return v;
}

static double nmse(const float *got, const float *want, size_t n) {
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(isfinite(got[i]));
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        power += (double)want[i] * want[i];
    }
    return error / (power > 0 ? power : 1);
}

static void expect(const float *got, const float *want, size_t n, double bound, const char *what) {
    const double e = nmse(got, want, n);
    if (e > bound) print_message("%s: NMSE %g > %g\n", what, e, bound);
    assert_true(e <= bound);
}

/* ---- buffers with guards: 256 bytes before and after the values ---- */

static gpu_view upload(const void *data, size_t n_byte) {
    carat_error err = {0};
    const size_t n_word = GUARD_BYTES / 4 * 2 + n_byte / 4;
    uint32_t *all = take(n_word, 4);
    for (size_t i = 0; i < n_word; i++) all[i] = GUARD;
    if (data) memcpy(all + GUARD_BYTES / 4, data, n_byte);
    gpu_buffer b = gpu_buffer_create(dev, n_word * 4, GPU_STORAGE, "test", &err);
    check(b.id != 0, &err);
    gpu_write(dev, b, 0, all, n_word * 4);
    return (gpu_view){.buffer = b, .offset = GUARD_BYTES};
}

/* The values back; the guards must be whole. Frees the buffer. */
static void *download(gpu_view v, size_t n_byte) {
    carat_error err = {0};
    const size_t n = GUARD_BYTES * 2 + n_byte;
    uint8_t *all = take(n, 1);
    gpu_ticket t = gpu_read(dev, v.buffer, 0, n, &err);
    check(t.id != 0, &err);
    gpu_poll_result r;
    while ((r = gpu_poll(dev, t, all, &err)) == GPU_PENDING) gpu_wait(dev);
    check(r == GPU_READY, &err);
    const uint32_t *before = (uint32_t *)(void *)all,
                   *after = (uint32_t *)(void *)(all + GUARD_BYTES + n_byte);
    for (size_t i = 0; i < GUARD_BYTES / 4; i++) {
        assert_int_equal(before[i], GUARD);
        assert_int_equal(after[i], GUARD);
    }
    gpu_buffer_free(dev, v.buffer);
    return all + GUARD_BYTES;
}

/* Without guards. */
static gpu_buffer plain(const void *data, size_t n_byte) {
    carat_error err = {0};
    gpu_buffer b = gpu_buffer_create(dev, n_byte, GPU_STORAGE, "test", &err);
    check(b.id != 0, &err);
    gpu_write(dev, b, 0, data, n_byte);
    return b;
}

static void begin(void) {
    kernel_steps_forget(steps);
    kernel_begin(steps);
}

static void end(void) {
    carat_error err = {0};
    check(kernel_end(steps, &err), &err);
    check(gpu_submit(dev, &err), &err);
}

static void drop(gpu_view v) { gpu_buffer_free(dev, v.buffer); }

/* ---- weights ---- */

/* A random F32 matrix in tiles of rows_a_tile rows. */
static weight *matrix(uint32_t n_row, uint32_t n_col, uint32_t rows_a_tile) {
    weight *w = take(1, sizeof *w);
    float *v = values((size_t)n_row * n_col);
    *w = (weight){.type = QUANT_F32, .n_row = n_row, .n_col = n_col, .n_expert = 1, .scale = 0.5f};
    w->host = (const uint8_t *)v;
    w->n_tile = div_up(n_row, rows_a_tile);
    w->tiles = take(w->n_tile, sizeof *w->tiles);
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const uint32_t row0 = i * rows_a_tile, n = min_u32(rows_a_tile, n_row - row0);
        const gpu_buffer b = plain(v + (size_t)row0 * n_col, (size_t)n * n_col * 4);
        w->tiles[i] = (weight_tile){b, row0, n};
    }
    return w;
}

static void drop_matrix(weight *w) {
    for (uint32_t i = 0; i < w->n_tile; i++) gpu_buffer_free(dev, w->tiles[i].buffer);
}

/* ---- matmul ---- */

static void one_matmul(uint32_t n_tok, uint32_t n_row, uint32_t n_col, uint32_t rows_a_tile) {
    weight *w = matrix(n_row, n_col, rows_a_tile);
    float *x = values((size_t)n_tok * n_col), *want = take((size_t)n_tok * n_row, 4);
    ref_matmul(w, 0, x, n_tok, want);
    const gpu_view in = upload(x, (size_t)n_tok * n_col * 4);
    const gpu_view out = upload(NULL, (size_t)n_tok * n_row * 4);
    begin();
    op_matmul(steps, w, n_row, in, out, n_tok);
    end();
    char what[64];
    snprintf(what, sizeof what, "matmul %u x %u x %u", n_tok, n_row, n_col);
    expect(download(out, (size_t)n_tok * n_row * 4), want, (size_t)n_tok * n_row, 1e-7, what);
    drop(in);
    drop_matrix(w);
}

static void test_matmul(void **state) {
    (void)state;
    static const uint32_t sizes[] = {1, 31, 33, 63, 64, 65};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        one_matmul(sizes[i], sizes[COUNT(sizes) - 1 - i], 48, 1000);
        one_matmul(sizes[i], sizes[i], 16, 1000);
    }
    one_matmul(130, 200, 256, 1000);
    one_matmul(33, 150, 64, 70); /* three tiles */
}

static void one_geglu(uint32_t n_tok, uint32_t n_ff, uint32_t n_col, uint32_t tile_a,
                      uint32_t tile_b) {
    weight *gate = matrix(n_ff, n_col, tile_a), *up = matrix(n_ff, n_col, tile_b);
    const size_t n = (size_t)n_tok * n_ff;
    float *x = values((size_t)n_tok * n_col), *a = take(n, 4), *b = take(n, 4);
    ref_matmul(gate, 0, x, n_tok, a);
    ref_matmul(up, 0, x, n_tok, b);
    ref_geglu(a, b, n, a);
    const gpu_view in = upload(x, (size_t)n_tok * n_col * 4), out = upload(NULL, n * 4);
    begin();
    op_matmul_geglu(steps, gate, up, in, out, n_tok);
    end();
    expect(download(out, n * 4), a, n, 1e-7, "matmul_geglu");
    drop(in);
    drop_matrix(gate);
    drop_matrix(up);
}

static void test_matmul_geglu(void **state) {
    (void)state;
    one_geglu(1, 1, 16, 100, 100);
    one_geglu(31, 33, 48, 100, 100);
    one_geglu(65, 31, 32, 100, 100);
    one_geglu(64, 64, 128, 100, 100);
    one_geglu(33, 100, 64, 40, 56); /* cut differently */
}

/* ---- norms ---- */

static void test_rmsnorm(void **state) {
    (void)state;
    static const uint32_t widths[] = {4, 36, 256, 1028, 2048};
    for (size_t i = 0; i < COUNT(widths); i++) {
        const uint32_t n = widths[i], n_tok = 3;
        float *x = values(n_tok * n), *w = values(8 + n), *want = take(n_tok * n, 4);
        const vector v = {.n = n, .offset = 8, .data = w + 8};
        ref_rmsnorm(x, v.data, n_tok, n, EPS, want);
        for (uint32_t j = 0; j < n_tok * n; j++) want[j] *= 0.25f;
        const gpu_buffer packed = plain(w, (8 + n) * 4);
        const gpu_view in = upload(x, n_tok * n * 4), out = upload(NULL, n_tok * n * 4);
        begin();
        op_rmsnorm(steps, packed, &v, EPS, 0.25f, in, out, n_tok);
        end();
        expect(download(out, n_tok * n * 4), want, n_tok * n, 1e-10, "rmsnorm");
        drop(in);
        gpu_buffer_free(dev, packed);
    }
}

static void one_add_rmsnorm(uint32_t n_tok, uint32_t n, bool with_norm) {
    float *x = values(n_tok * n), *u = values(n_tok * n), *w = values(2 * n);
    float *y = take(n_tok * n, 4), *norm = take(n_tok * n, 4);
    const vector post = {.n = n, .offset = 0}, next = {.n = n, .offset = n};
    ref_rmsnorm(u, w, n_tok, n, EPS, y);
    for (uint32_t i = 0; i < n_tok * n; i++) y[i] = 0.75f * (x[i] + y[i]);
    ref_rmsnorm(y, w + n, n_tok, n, EPS, norm);
    const gpu_buffer packed = plain(w, 2 * n * 4);
    const gpu_view update = upload(u, n_tok * n * 4), stream = upload(x, n_tok * n * 4);
    const gpu_view out = upload(NULL, n_tok * n * 4);
    begin();
    op_add_rmsnorm(steps, packed, &post, with_norm ? &next : NULL, EPS, 0.75f, update, stream, out,
                   n_tok);
    end();
    expect(download(stream, n_tok * n * 4), y, n_tok * n, 1e-10, "add_rmsnorm: x");
    const float *got = download(out, n_tok * n * 4);
    if (with_norm) expect(got, norm, n_tok * n, 1e-10, "add_rmsnorm: norm");
    if (!with_norm) assert_int_equal(*(const uint32_t *)(const void *)got, GUARD);
    drop(update);
    gpu_buffer_free(dev, packed);
}

static void test_add_rmsnorm(void **state) {
    (void)state;
    one_add_rmsnorm(1, 4, true);
    one_add_rmsnorm(3, 260, true);
    one_add_rmsnorm(2, 1540, true);
    one_add_rmsnorm(2, 64, false);
}

/* ---- q, k, v ---- */

typedef struct heads {
    uint32_t n_tok, n_head, n_kv, head_dim, n_rot, row0;
} heads;

static float half_of(uint32_t word, uint32_t i) {
    return half_to_float((uint16_t)(word >> 16 * i));
}

/* Rows row0.. of stored pairs as f32; the rows before must be untouched. */
static float *stored(gpu_view v, const heads *h) {
    const uint32_t n = h->n_kv * h->head_dim;
    const uint32_t *words = download(v, (size_t)(h->row0 + h->n_tok) * n * 2);
    for (uint32_t i = 0; i < h->row0 * n / 2; i++) assert_int_equal(words[i], GUARD);
    float *out = take((size_t)h->n_tok * n, 4);
    words += h->row0 * n / 2;
    for (uint32_t i = 0; i < h->n_tok * n; i++) out[i] = half_of(words[i / 2], i % 2);
    return out;
}

static void one_qkv_post(const heads *h) {
    const size_t n_q = (size_t)h->n_tok * h->n_head * h->head_dim;
    const size_t n_k = (size_t)h->n_tok * h->n_kv * h->head_dim;
    float *q = values(n_q), *k = values(n_k), *v = values(n_k), *w = values(2 * h->head_dim);
    float *cs = values((size_t)h->n_tok * h->n_rot * 2);
    float *want_q = take(n_q, 4), *want_k = take(n_k, 4), *want_v = take(n_k, 4);
    ref_rmsnorm(q, w, h->n_tok * h->n_head, h->head_dim, EPS, want_q);
    ref_rmsnorm(k, w + h->head_dim, h->n_tok * h->n_kv, h->head_dim, EPS, want_k);
    ref_rmsnorm(v, NULL, h->n_tok * h->n_kv, h->head_dim, EPS, want_v);
    for (uint32_t t = 0; t < h->n_tok; t++) {
        const float *angle = cs + (size_t)t * h->n_rot * 2;
        ref_rope(want_q + (size_t)t * h->n_head * h->head_dim, angle, h->n_head, h->head_dim,
                 h->n_rot);
        ref_rope(want_k + (size_t)t * h->n_kv * h->head_dim, angle, h->n_kv, h->head_dim, h->n_rot);
    }
    const gpu_view vectors = upload(w, 2 * h->head_dim * 4);
    const gpu_view angles = upload(cs, (size_t)h->n_tok * h->n_rot * 8);
    const gpu_view gq = upload(q, n_q * 4), gk = upload(k, n_k * 4), gv = upload(v, n_k * 4);
    const size_t bytes = (size_t)(h->row0 + h->n_tok) * h->n_kv * h->head_dim * 2;
    const gpu_view to_k = upload(NULL, bytes), to_v = upload(NULL, bytes);
    const qkv_post_args args = {.n_head = h->n_head,
                                .n_kv = h->n_kv,
                                .head_dim = h->head_dim,
                                .n_rot = h->n_rot,
                                .row0 = h->row0,
                                .w_q = 0,
                                .w_k = h->head_dim,
                                .eps = EPS};
    begin();
    kernel_run(steps, &(kernel_call){.kernel = &kernel_qkv_post,
                                     .args = &args,
                                     .views = {vectors, angles, gk, gv, gq, to_k, to_v},
                                     .x = div_up(h->n_head + 2 * h->n_kv, 4),
                                     .y = h->n_tok});
    end();
    expect(download(gq, n_q * 4), want_q, n_q, 1e-10, "qkv_post: q");
    expect(stored(to_k, h), want_k, n_k, 5e-6, "qkv_post: k");
    expect(stored(to_v, h), want_v, n_k, 5e-6, "qkv_post: v");
    drop(vectors);
    drop(angles);
    drop(gk);
    drop(gv);
}

static void test_qkv_post(void **state) {
    (void)state;
    one_qkv_post(&(heads){1, 4, 1, 32, 16, 0});
    one_qkv_post(&(heads){3, 4, 2, 64, 8, 5});
    one_qkv_post(&(heads){2, 3, 1, 256, 128, 1});
    one_qkv_post(&(heads){2, 8, 1, 512, 64, 2});
    one_qkv_post(&(heads){2, 2, 2, 128, 7, 0});
}

/* ---- attention ---- */

typedef struct attention_case {
    uint32_t n_tok, n_head, n_kv, head_dim, first, window;
} attention_case;

static float *as_halves(const float *v, size_t n, gpu_view *out) {
    uint16_t *half = take(n, 2);
    float *rounded = take(n, 4);
    for (size_t i = 0; i < n; i++) half[i] = float_to_half(v[i]);
    for (size_t i = 0; i < n; i++) rounded[i] = half_to_float(half[i]);
    *out = upload(half, n * 2);
    return rounded;
}

static void attend(const attention_case *c, uint32_t t, uint32_t head, const float *q,
                   const float *k, const float *v, float *out) {
    const uint32_t kv = head / (c->n_head / c->n_kv), pos = c->first + t, d = c->head_dim;
    const uint32_t from = c->window && pos + 1 > c->window ? pos + 1 - c->window : 0;
    float *s = take(pos + 1, 4);
    for (uint32_t j = from; j <= pos; j++) {
        const float *key = k + (size_t)(j * c->n_kv + kv) * d;
        for (uint32_t i = 0; i < d; i++) s[j] += q[i] * key[i];
    }
    ref_softmax(s + from, pos + 1 - from);
    for (uint32_t i = 0; i < d; i++) out[i] = 0;
    for (uint32_t j = from; j <= pos; j++)
        for (uint32_t i = 0; i < d; i++) out[i] += s[j] * v[(size_t)(j * c->n_kv + kv) * d + i];
}

static void one_attention(attention_case c) {
    const uint32_t n_key = c.first + c.n_tok;
    const size_t n_q = (size_t)c.n_tok * c.n_head * c.head_dim;
    const size_t n_k = (size_t)n_key * c.n_kv * c.head_dim;
    gpu_view gk, gv;
    float *q = values(n_q), *want = take(n_q, 4);
    for (size_t i = 0; i < n_q; i++) q[i] *= 4 / sqrtf((float)c.head_dim);
    const float *k = as_halves(values(n_k), n_k, &gk), *v = as_halves(values(n_k), n_k, &gv);
    for (uint32_t t = 0; t < c.n_tok; t++)
        for (uint32_t h = 0; h < c.n_head; h++) {
            const size_t at = (size_t)(t * c.n_head + h) * c.head_dim;
            attend(&c, t, h, q + at, k, v, want + at);
        }
    const gpu_view gq = upload(q, n_q * 4), out = upload(NULL, n_q * 4);
    const attention_args args = {.n_tok = c.n_tok,
                                 .n_head = c.n_head,
                                 .n_kv = c.n_kv,
                                 .head_dim = c.head_dim,
                                 .n_key = n_key,
                                 .first = c.first,
                                 .window = c.window};
    begin();
    kernel_run(steps, &(kernel_call){.kernel = &kernel_attention,
                                     .args = &args,
                                     .views = {gq, gk, gv, out},
                                     .x = div_up(c.n_tok * (c.n_head / c.n_kv), 32),
                                     .y = c.n_kv});
    end();
    char what[96];
    snprintf(what, sizeof what, "attention %u tok %u/%u heads dim %u first %u window %u", c.n_tok,
             c.n_head, c.n_kv, c.head_dim, c.first, c.window);
    expect(download(out, n_q * 4), want, n_q, 1e-7, what);
    drop(gq);
    drop(gk);
    drop(gv);
}

static void test_attention(void **state) {
    (void)state;
    one_attention((attention_case){1, 1, 1, 32, 0, 0});
    one_attention((attention_case){31, 4, 2, 32, 0, 0});
    one_attention((attention_case){33, 4, 1, 64, 7, 16});
    one_attention((attention_case){65, 2, 2, 32, 64, 64});
    one_attention((attention_case){5, 8, 1, 256, 130, 0});
    one_attention((attention_case){7, 16, 1, 512, 70, 0});
    one_attention((attention_case){40, 6, 2, 128, 63, 32});
    one_attention((attention_case){70, 3, 1, 32, 200, 65});
    one_attention((attention_case){2, 1, 1, 32, 500, 1});
}

/* ---- per-layer embeddings, scores ---- */

static void test_ple_input(void **state) {
    (void)state;
    const uint32_t n_tok = 3, n_run = 5, n_ple = 32, n = n_tok * n_run * n_ple;
    float *b = values(n), *a = values(n), *w = values(n_ple), *want = take(n, 4);
    for (uint32_t i = 0; i < n; i++) want[i] = b[i] * 0.125f;
    ref_rmsnorm(want, w, n_tok * n_run, n_ple, EPS, want);
    for (uint32_t i = 0; i < n; i++) want[i] = (want[i] + a[i]) / sqrtf(2);
    const gpu_view vectors = upload(w, n_ple * 4), token = upload(a, n * 4), e = upload(b, n * 4);
    const ple_input_args args = {
        .n_run = n_run, .n_ple = n_ple, .w_norm = 0, .eps = EPS, .in_scale = 0.125f};
    begin();
    kernel_run(steps, &(kernel_call){.kernel = &kernel_ple_input,
                                     .args = &args,
                                     .views = {vectors, token, e},
                                     .x = n_run,
                                     .y = n_tok});
    end();
    expect(download(e, n * 4), want, n, 1e-10, "ple_input");
    drop(vectors);
    drop(token);
}

static void test_ple_gate(void **state) {
    (void)state;
    const uint32_t n_tok = 7, n_ple = 48, n_layer = 3, il = 1, n = n_tok * n_ple;
    float *gate = values(n), *e = values(n * n_layer), *want = take(n, 4);
    for (uint32_t i = 0; i < n; i++) {
        gate[i] *= 8;
        want[i] = ref_gelu(gate[i]) * e[i / n_ple * n_layer * n_ple + il * n_ple + i % n_ple];
    }
    const gpu_view input = upload(e, n * n_layer * 4), out = upload(gate, n * 4);
    const ple_gate_args args = {
        .n_tok = n_tok, .n_ple = n_ple, .e_stride = n_layer * n_ple, .e0 = il * n_ple};
    begin();
    kernel_run(steps, &(kernel_call){.kernel = &kernel_ple_gate,
                                     .args = &args,
                                     .views = {input, out},
                                     .x = div_up(n, 256)});
    end();
    expect(download(out, n * 4), want, n, 1e-10, "ple_gate");
    drop(input);
}

static void one_logprob(uint32_t n_vocab, float cap) {
    const uint32_t n_tok = 4, target0 = 2;
    const int32_t targets[6] = {0, 0, 5, (int32_t)n_vocab - 1, -1, 0};
    float *logits = values(n_tok * n_vocab), want[4];
    for (uint32_t i = 0; i < n_tok * n_vocab; i++) logits[i] *= 60;
    const gpu_view in = upload(logits, n_tok * n_vocab * 4), to = upload(targets, sizeof targets);
    const gpu_view out = upload(NULL, sizeof targets);
    const logprob_args args = {.n_vocab = n_vocab, .target0 = target0, .cap = cap};
    begin();
    kernel_run(
        steps,
        &(kernel_call){.kernel = &kernel_logprob, .args = &args, .views = {in, to, out}, .x = 4});
    end();
    for (uint32_t t = 0; t < n_tok; t++) {
        float *row = logits + t * n_vocab;
        double sum = 0;
        if (cap > 0) ref_softcap(row, n_vocab, cap);
        for (uint32_t i = 0; i < n_vocab; i++) sum += exp((double)row[i]);
        const int32_t target = targets[target0 + t];
        want[t] = target < 0 ? 0 : row[target] - (float)log(sum);
    }
    const float *got = download(out, sizeof targets);
    for (uint32_t t = 0; t < n_tok; t++)
        assert_true(fabsf(got[target0 + t] - want[t]) < 1e-4f * (1 + fabsf(want[t])));
    drop(in);
    drop(to);
}

static void test_logprob(void **state) {
    (void)state;
    one_logprob(31, 0);
    one_logprob(257, 30);
    one_logprob(5000, 30);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm),      cmocka_unit_test(test_add_rmsnorm),
        cmocka_unit_test(test_ple_input),    cmocka_unit_test(test_ple_gate),
        cmocka_unit_test(test_logprob),      cmocka_unit_test(test_qkv_post),
        cmocka_unit_test(test_attention),    cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_matmul_geglu),
    };
    return cmocka_run_group_tests_name("kernels of prefill", tests, open_device, close_device);
}
