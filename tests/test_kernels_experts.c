/* The experts in training, their kernels and the whole of them forwards and backwards, against the
 * CPU's. Needs an adapter; a software one is enough. */
#include "moe_test.h"

#include "train/back.h"
#include "train/experts_gpu.h"

/* ---- the kernels ---- */

#define N_EXPERT 3u

/* The experts' matrices, of which rows row0 .. + n_row - 1 are used; and the places of picks. */
typedef struct row_data {
    picks p;
    weight *w;
    uint32_t row0, n_row, n_col, n_in; /* n_in: values of a row that goes in */
    float *scales, *weights, *in;
    gpu_view order, tiles, scales_in, weights_in, in_view;
} row_data;

static row_data make_row(uint32_t type, uint32_t n_tok, uint32_t n_row, uint32_t n_col, bool back) {
    row_data d = {.p = make_picks(n_tok, 2, N_EXPERT), .row0 = 16, .n_row = n_row, .n_col = n_col};
    d.w = matrix(type, N_EXPERT * (n_row + 32), n_col, N_EXPERT * (n_row + 32));
    d.w->n_row = n_row + 32, d.w->scale = 1, d.n_in = back ? n_row : n_col;
    d.scales = values(N_EXPERT), d.weights = values(d.p.n);
    d.in = values((size_t)d.p.n * d.n_in); /* more than enough where a row is a token's */
    d.order = kt_in(d.p.order, d.p.n * 4), d.tiles = kt_in(d.p.tiles, d.p.n_tile * 16);
    d.scales_in = kt_in(d.scales, N_EXPERT * 4), d.weights_in = kt_in(d.weights, d.p.n * 4);
    d.in_view = kt_in(d.in, (size_t)d.p.n * d.n_in * 4);
    return d;
}

static void row_matmul(uint32_t type, uint32_t n_tok, uint32_t n_row, uint32_t n_col,
                       uint32_t n_share) {
    const row_data d = make_row(type, n_tok, n_row, n_col, false);
    float *all = kt_take(d.w->n_row, 4), *want = kt_take((size_t)d.p.n * n_row, 4);
    for (uint32_t i = 0; i < d.p.n; i++) {
        ref_matmul(d.w, d.p.ids[i], d.in + (size_t)(i / n_share) * n_col, 1, all);
        for (uint32_t r = 0; r < n_row; r++)
            want[i * n_row + r] = d.scales[d.p.ids[i]] * all[d.row0 + r];
    }
    const kt_output out = kt_out((size_t)d.p.n * n_row * 4);
    const moe_matmul_args args = {.n_row = n_row,
                                  .n_col = n_col,
                                  .row0 = d.row0,
                                  .expert_rows = d.w->n_row,
                                  .n_expert = N_EXPERT,
                                  .n_share = n_share};
    kt_run(&(kernel_call){
        .kernel = &kernel_moe_matmul,
        .formats = {type},
        .args = &args,
        .views =
            {d.order, d.tiles, d.scales_in, d.in_view, {.buffer = d.w->tiles[0].buffer}, out.view},
        .x = div_up(n_row, 64),
        .y = d.p.n_tile});
    kt_compare("moe_matmul", fetch(out), want, (size_t)d.p.n * n_row, KT_F32);
    kt_reset();
}

static void test_matmul(void **state) {
    (void)state;
    row_matmul(QUANT_F32, 1, 16, 16, 2);
    row_matmul(QUANT_F32, 97, 80, 48, 1);
    row_matmul(QUANT_Q4_K, 33, 96, 256, 2);
}

static void row_back_matmul(uint32_t type, uint32_t n_tok, uint32_t n_row, uint32_t n_col,
                            bool by_token) {
    const row_data d = make_row(type, n_tok, n_row, n_col, true);
    const uint32_t n_share = by_token ? d.p.n_used : 1;
    const size_t n = (size_t)d.p.n * n_col;
    float *old = values(n), *want = kt_take(n, 4), *all = kt_take(d.w->n_row, 4);
    if (!by_token) memcpy(want, old, n * 4);
    for (uint32_t i = 0; i < d.p.n; i++) {
        const float f = d.scales[d.p.ids[i]] * (by_token ? d.weights[i] : 1);
        for (uint32_t r = 0; r < n_row; r++)
            all[d.row0 + r] = f * d.in[(size_t)(i / n_share) * n_row + r];
        back_matmul(d.w, d.p.ids[i], all, 1, want + (size_t)i * n_col);
    }
    const kt_output din = kt_out_with(old, n * 4);
    const back_moe_matmul_args args = {.n_row = n_row,
                                       .n_col = n_col,
                                       .row0 = d.row0,
                                       .expert_rows = d.w->n_row,
                                       .n_expert = N_EXPERT,
                                       .n_share = n_share,
                                       .weighted = by_token,
                                       .add = !by_token};
    kt_run(&(kernel_call){.kernel = &kernel_back_moe_matmul,
                          .formats = {type},
                          .args = &args,
                          .views = {d.order,
                                    d.tiles,
                                    d.scales_in,
                                    d.weights_in,
                                    d.in_view,
                                    {.buffer = d.w->tiles[0].buffer},
                                    din.view},
                          .x = div_up(n_col, 64),
                          .y = d.p.n_tile});
    kt_compare("back_moe_matmul", fetch(din), want, n, KT_F32);
    kt_reset();
}

static void test_back_matmul(void **state) {
    (void)state;
    row_back_matmul(QUANT_F32, 1, 16, 16, true);
    row_back_matmul(QUANT_F32, 97, 48, 80, false);
    row_back_matmul(QUANT_Q4_K, 33, 96, 256, true);
}

static void row_mix(uint32_t n_tok, uint32_t n, uint32_t n_used, bool weighted) {
    const size_t all = (size_t)n_tok * n;
    const float *part = values(all * n_used), *weights = values((size_t)n_tok * n_used);
    float *want = kt_take(all, 4);
    for (uint32_t i = 0; i < n_tok * n_used; i++)
        for (uint32_t c = 0; c < n; c++)
            want[i / n_used * n + c] += part[i * n + c] * (weighted ? weights[i] : 1);
    const kt_output out = kt_out(all * 4);
    const moe_mix_args args = {.n = n, .n_used = n_used, .weighted = weighted};
    kt_run(&(kernel_call){.kernel = &kernel_moe_mix,
                          .args = &args,
                          .views = {kt_in(weights, (size_t)n_tok * n_used * 4),
                                    kt_in(part, all * n_used * 4), out.view},
                          .x = div_up(n, 1024),
                          .y = n_tok});
    kt_compare("moe_mix", fetch(out), want, all, KT_F32);
    kt_reset();
}

static void row_back_topk(uint32_t n_tok, uint32_t n, uint32_t n_expert, uint32_t n_used) {
    const picks p = make_picks(n_tok, n_used, n_expert);
    const float *part = values((size_t)p.n * n), *dsum = values((size_t)n_tok * n);
    const float *weights = values(p.n);
    float *want = kt_take((size_t)n_tok * n_expert, 4), *dshare = kt_take(p.n, 4);
    for (uint32_t t = 0; t < n_tok; t++) {
        float mean = 0;
        for (uint32_t i = t * n_used; i < (t + 1) * n_used; i++) {
            dshare[i] = ref_dot(dsum + (size_t)t * n, part + (size_t)i * n, n);
            mean += weights[i] * dshare[i];
        }
        for (uint32_t i = t * n_used; i < (t + 1) * n_used; i++)
            want[t * n_expert + p.ids[i]] = 0.5f * weights[i] * (dshare[i] - mean);
    }
    const kt_output out = kt_out((size_t)n_tok * n_expert * 4);
    const back_moe_topk_args args = {.n = n, .n_used = n_used, .n_expert = n_expert, .scale = 0.5f};
    kt_run(&(kernel_call){.kernel = &kernel_back_moe_topk,
                          .args = &args,
                          .views = {kt_in(p.ids, p.n * 4), kt_in(weights, p.n * 4),
                                    kt_in(part, (size_t)p.n * n * 4),
                                    kt_in(dsum, (size_t)n_tok * n * 4), out.view},
                          .x = n_tok});
    kt_compare("back_moe_topk", fetch(out), want, (size_t)n_tok * n_expert, KT_F32);
    kt_reset();
}

static void test_sums(void **state) {
    (void)state;
    row_mix(1, 4, 1, true);
    row_mix(3, 1028, 8, true);
    row_mix(31, 36, 2, false);
    row_back_topk(1, 4, 2, 2);
    row_back_topk(7, 1028, 31, 5);
    row_back_topk(3, 36, 256, 8);
}

/* ---- all of it ---- */

/* Of the family's bound, 1e-4 of the size, squared. */
#define BOUND 1e-8

typedef struct run_case {
    moe_case moe;
    uint32_t at_once; /* tokens; fewer than there are: several pieces */
} run_case;

/* NVFP4's scales outside of the blocks. */
static void scale_experts(weight *w) {
    float *scale = values(w->n_expert);
    for (uint32_t e = 0; e < w->n_expert; e++) scale[e] = 1 + 0.25f * scale[e];
    w->expert_scale = scale;
}

static void compare(const char *name, const moe_case *c, kt_output got, const float *want) {
    char what[100];
    snprintf(what, sizeof what, "%s: %u tokens, %u of %u experts, %s", name, c->n_tok, c->n_used,
             c->n_expert, c->fused ? "fused" : "split");
    kt_compare(what, fetch(got), want, got.bytes / 4, BOUND);
}

static void one_run(run_case run) {
    carat_error err = {0};
    const moe_case *c = &run.moe;
    const size_t n = (size_t)c->n_tok * c->n_embd;
    model *m = moe_model(c);
    scale_experts(&m->weights.layers[0].down_exps);
    float *y = values(n), *dsum = values(n), *dy = values(n), *sum = kt_take(n, 4);
    const gpu_view in = kt_in(y, n * 4), given = kt_in(dsum, n * 4);
    const kt_output made = kt_out(n * 4), into = kt_out_with(dy, n * 4);
    experts *cpu = NULL;
    experts_gpu *x = NULL;
    kt_check(experts_create(kt.memory, m, &cpu, &err), &err);
    experts_forward(cpu, 0, y, c->n_tok, sum);
    experts_backward(cpu, 0, y, dsum, c->n_tok, dy);
    const uint64_t before = kt.gpu->stats.buffer_bytes;
    kt_check(experts_gpu_create(m, kt.gpu, run.at_once, &x, &err), &err);
    assert_int_equal(kt.gpu->stats.buffer_bytes - before, experts_gpu_bytes(m, run.at_once));
    begin();
    experts_gpu_forward(x, kt.steps, 0, in, made.view, c->n_tok);
    end();
    begin();
    experts_gpu_backward(x, kt.steps, 0, in, given, into.view, c->n_tok);
    end();
    compare("experts_gpu_forward", c, made, sum);
    compare("experts_gpu_backward", c, into, dy);
    const uint64_t held = kt.gpu->stats.buffer_bytes; /* with what reading took */
    experts_gpu_free(x);
    assert_int_equal(held - kt.gpu->stats.buffer_bytes, experts_gpu_bytes(m, run.at_once));
    kt_reset();
}

static void test_experts(void **state) {
    (void)state;
    one_run((run_case){{1, 64, 16, 32, 8, 2, true, 8}, 1});
    one_run((run_case){{31, 64, 16, 48, 31, 4, true, 7}, 31});
    one_run((run_case){{33, 48, 16, 16, 7, 3, false, 2}, 40});
    one_run((run_case){{5, 32, 16, 80, 4, 1, true, 3}, 8});
    one_run((run_case){{70, 128, 16, 64, 128, 8, false, 100}, 70});
    one_run((run_case){{150, 48, 16, 32, 3, 2, false, 100}, 64});
    one_run((run_case){{3, 2112, 16, 144, 3, 2, true, 3}, 3});
}

/* Experts that the kernels cannot do are refused, and nothing is left behind. */
static void test_refused(void **state) {
    (void)state;
    carat_error err = {0};
    experts_gpu *x = NULL;
    model *m = moe_model(&(moe_case){1, 16, 16, 16, 300, 2, true, 300});
    const uint64_t before = kt.gpu->stats.buffer_bytes;
    assert_false(experts_gpu_create(m, kt.gpu, 8, &x, &err));
    assert_non_null(strstr(err.message, "300 experts"));
    assert_int_equal(kt.gpu->stats.buffer_bytes, before);
    kt_reset();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul),  cmocka_unit_test(test_back_matmul),
        cmocka_unit_test(test_sums),    cmocka_unit_test(test_experts),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests_name("experts in training", tests, kt_setup, kt_teardown);
}
