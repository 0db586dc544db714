/* The kernels that add adapters against the CPU's ref_lora(): odd ranks and shapes, rows of several
 * targets, guard words around the outputs; and what matmul_geglu takes from them. What the stages
 * of decode do themselves: test_kernels_decode.c. Needs an adapter; a software one is enough. */
#include "lora_test.h"

static const uint32_t ranks[] = {1, 7, 16, 64, 100};

/* ---- rows ---- */

static void check_rows(uint32_t rank, uint32_t n_tok, uint32_t n_col, const uint32_t *n_rows,
                       uint32_t n) {
    const group_data d = make_group(rank, n_col, n_rows, n, 8, false);
    const size_t n_out = (size_t)n_tok * d.g.n_row;
    float *x = values((size_t)n_tok * n_col), *old = values(n_out), *want = kt_take(n_out, 4);
    memcpy(want, old, n_out * 4);
    add_reference(&d, x, n_tok, want);
    const gpu_view in = kt_in(x, (size_t)n_tok * n_col * 4);
    const kt_output u = kt_out((size_t)n_tok * d.g.n_rank * 4), out = kt_out_with(old, n_out * 4);
    const lora_down_args down = {
        .n_col = n_col, .n_rank = d.g.n_rank, .factors = d.g.factors / 2, .a0 = d.g.a0 / 2};
    const lora_up_args up = {.n_row = d.g.n_row,
                             .rank = d.g.rank,
                             .n_rank = d.g.n_rank,
                             .end0 = d.g.end0,
                             .end1 = d.g.end1,
                             .b0 = d.g.b0,
                             .out_stride = d.g.n_row,
                             .add = 1};
    begin();
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_lora_down,
                                        .args = &down,
                                        .views = {in, d.store, u.view},
                                        .x = div_up(d.g.n_rank, 4),
                                        .y = n_tok});
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_lora_up,
                                        .args = &up,
                                        .views = {u.view, d.store, out.view},
                                        .x = div_up(d.g.n_row, 64),
                                        .y = n_tok});
    end();
    fetch(u); /* its guards */
    kt_compare("lora_down, lora_up", fetch(out), want, n_out, KT_F32);
    kt_reset();
}

static void test_rows(void **state) {
    (void)state;
    static const uint32_t qkv[] = {65, 33, 31}, one[] = {130}, two[] = {70, 70};
    for (size_t i = 0; i < COUNT(ranks); i++) {
        check_rows(ranks[i], 1, 64, qkv, 3);
        check_rows(ranks[i], 5, 1040, one, 1);
        check_rows(ranks[i], 3, 256, two, 2);
    }
}

/* ---- embeddings ---- */

static void test_embed(void **state) {
    (void)state;
    static const uint32_t n_rows[] = {136};
    static const int32_t ids[] = {0, 41, 7, 41};
    for (size_t i = 0; i < COUNT(ranks); i++) {
        const group_data d = make_group(ranks[i], 42, n_rows, 1, 0, true);
        const size_t n = COUNT(ids) * n_rows[0];
        float *old = values(n), *want = kt_take(n, 4);
        memcpy(want, old, n * 4);
        for (size_t t = 0; t < COUNT(ids); t++)
            ref_lora_embed(&d.pairs[0], 3, ids[t], want + t * n_rows[0]);
        const kt_output x = kt_out_with(old, n * 4);
        const lora_embed_args args = {
            .n_embd = n_rows[0], .n_rank = d.g.n_rank, .a0 = d.g.a0, .b0 = d.g.b0, .scale = 3};
        kt_run(&(kernel_call){.kernel = &kernel_lora_embed,
                              .args = &args,
                              .views = {kt_in(ids, sizeof ids), d.store, x.view},
                              .x = div_up(n_rows[0], 64),
                              .y = COUNT(ids)});
        kt_compare("lora_embed", fetch(x), want, n, KT_F32);
        kt_reset();
    }
}

/* ---- gate and up ---- */

static void test_geglu(void **state) {
    (void)state;
    enum { N_TOK = 35, N_FF = 52, N_COL = 64 };
    weight *gate = matrix(QUANT_F32, N_FF, N_COL, 40), *up = matrix(QUANT_F32, N_FF, N_COL, 16);
    const size_t n = N_TOK * N_FF;
    float *x = values(N_TOK * N_COL), *delta = values(2 * n), *a = kt_take(n, 4),
          *b = kt_take(n, 4);
    ref_matmul(gate, 0, x, N_TOK, a);
    ref_matmul(up, 0, x, N_TOK, b);
    for (size_t t = 0; t < N_TOK; t++)
        for (size_t i = 0; i < N_FF; i++) {
            a[t * N_FF + i] += delta[2 * t * N_FF + i];
            b[t * N_FF + i] += delta[(2 * t + 1) * N_FF + i];
        }
    ref_geglu(a, b, n, a);
    const gpu_view in = kt_in(x, N_TOK * N_COL * 4);
    const kt_output out = kt_out(n * 4);
    begin();
    op_matmul_geglu(kt.steps, gate, up, in, kt_in(delta, 2 * n * 4).buffer, out.view, N_TOK);
    end();
    kt_compare("matmul_geglu, adapted", fetch(out), a, n, KT_F32);
    kt_reset();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_geglu),
    };
    return RUN_VARIANTS("kernels_lora", tests);
}
