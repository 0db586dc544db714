/* The kernels of the experts, and the whole feed-forward part with experts, against the CPU's
 * operations. Needs an adapter; a software one is enough. */
#include "moe_test.h"

#include "model/text_gpu.h"

/* ---- routing ---- */

/* Whether expert e comes before f. */
static bool before(const float *logits, uint32_t e, uint32_t f) {
    return logits[e] > logits[f] || (logits[e] == logits[f] && e < f);
}

static void pick(const float *logits, uint32_t n_expert, uint32_t n_used, uint32_t *ids,
                 float *weights) {
    float sum = 0;
    for (uint32_t e = 0; e < n_expert; e++) {
        uint32_t rank = 0;
        for (uint32_t f = 0; f < n_expert; f++) rank += before(logits, f, e);
        if (rank < n_used) ids[rank] = e;
    }
    for (uint32_t i = 0; i < n_used; i++) sum += weights[i] = expf(logits[ids[i]] - logits[ids[0]]);
    for (uint32_t i = 0; i < n_used; i++) weights[i] /= sum;
}

static void one_topk(uint32_t n_tok, uint32_t n_expert, uint32_t n_used, bool ties) {
    float *logits = values(n_tok * n_expert), *weights = kt_take(n_tok * n_used, 4);
    uint32_t *ids = kt_take(n_tok * n_used, 4);
    for (uint32_t i = 0; i < n_tok * n_expert; i++)
        logits[i] = ties ? roundf(logits[i] * 2) : logits[i] * 10;
    for (uint32_t t = 0; t < n_tok; t++)
        pick(logits + t * n_expert, n_expert, n_used, ids + t * n_used, weights + t * n_used);
    const gpu_view in = kt_in(logits, n_tok * n_expert * 4);
    const kt_output out = kt_out(n_tok * n_used * 4), share = kt_out(n_tok * n_used * 4);
    const moe_topk_args args = {.n_expert = n_expert, .n_used = n_used};
    begin();
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_moe_topk,
                                        .args = &args,
                                        .views = {in, out.view, share.view},
                                        .x = n_tok});
    end();
    assert_memory_equal(fetch(out), ids, n_tok * n_used * 4);
    kt_compare("moe_topk", fetch(share), weights, n_tok * n_used, KT_F32);
    kt_reset();
}

static void test_moe_topk(void **state) {
    (void)state;
    one_topk(1, 1, 1, false);
    one_topk(3, 8, 2, false);
    one_topk(33, 128, 8, false);
    one_topk(5, 256, 8, false);
    one_topk(7, 31, 5, true);
}

static void one_lists(uint32_t n_pick, uint32_t n_expert, uint32_t skip) {
    const uint32_t n_tile = n_expert + n_pick / 64;
    uint32_t *ids = kt_take(n_pick, 4), *want = kt_take(n_pick, 4), n = 0;
    const float *v = values(n_pick);
    for (uint32_t i = 0; i < n_pick; i++) {
        ids[i] = (uint32_t)(fabsf(v[i]) * (float)n_expert) % n_expert;
        if (ids[i] == skip) ids[i] = 0;
    }
    for (uint32_t e = 0; e < n_expert; e++)
        for (uint32_t i = 0; i < n_pick; i++)
            if (ids[i] == e) want[n++] = i;
    const gpu_view in = kt_in(ids, n_pick * 4);
    const kt_output order = kt_out(n_pick * 4), tiles = kt_out(n_tile * 16);
    const moe_lists_args args = {.n_pick = n_pick, .n_expert = n_expert, .n_tile = n_tile};
    begin();
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_moe_lists,
                                        .args = &args,
                                        .views = {in, order.view, tiles.view}});
    end();
    assert_memory_equal(fetch(order), want, n_pick * 4);
    const uint32_t *tile = fetch(tiles);
    uint32_t place = 0;
    for (uint32_t i = 0; i < n_tile; i++, tile += 4) {
        assert_true(tile[2] <= 64);
        if (tile[2]) assert_int_equal(tile[1], place);
        for (uint32_t j = 0; j < tile[2]; j++) assert_int_equal(ids[want[place + j]], tile[0]);
        place += tile[2];
    }
    assert_int_equal(place, n_pick);
    kt_reset();
}

static void test_moe_lists(void **state) {
    (void)state;
    one_lists(2, 4, 1);
    one_lists(1, 1, 9);
    one_lists(66, 8, 3);
    one_lists(513, 3, 1);
    one_lists(2600, 128, 100);
}

/* ---- the parts ---- */

static void row_router(uint32_t n_tok, uint32_t n_embd, uint32_t n_expert) {
    weight *w = matrix(QUANT_F32, n_expert, n_embd, n_expert);
    const size_t n = (size_t)n_tok * n_embd, n_out = (size_t)n_tok * n_expert;
    float *y = values(n), *norm = values(4 + n_embd), *z = kt_take(n, 4), *want = kt_take(n_out, 4);
    ref_rmsnorm(y, norm + 4, n_tok, n_embd, EPS, z);
    ref_matmul(w, 0, z, n_tok, want);
    const kt_output out = kt_out(n_out * 4);
    const moe_router_args args = {.n_tok = n_tok,
                                  .n_embd = n_embd,
                                  .n_expert = n_expert,
                                  .w_router = 4,
                                  .eps = EPS,
                                  .scale = w->scale};
    kt_run(&(kernel_call){.kernel = &kernel_moe_router,
                          .formats = {QUANT_F32},
                          .args = &args,
                          .views = {kt_in(y, n * 4), kt_in(norm, (4 + n_embd) * 4),
                                    whole(w->tiles[0].buffer), out.view},
                          .x = div_up(n_expert, 8),
                          .y = div_up(n_tok, 4)});
    kt_compare("moe_router", fetch(out), want, n_out, KT_F32);
    kt_reset();
}

static void test_moe_router(void **state) {
    (void)state;
    row_router(1, 16, 1);
    row_router(31, 48, 8);
    row_router(33, 528, 31);
    row_router(4, 1040, 33);
}

static void row_geglu(uint32_t type, uint32_t n_tok, uint32_t n_row, uint32_t n_col) {
    const uint32_t n_expert = 3;
    const picks p = make_picks(n_tok, 2, n_expert);
    weight *w = matrix(type, n_expert * 2 * n_row, n_col, n_expert * 2 * n_row);
    w->n_row = n_row, w->scale = 1;
    const size_t n = (size_t)p.n * n_row;
    float *x = values((size_t)n_tok * n_col), *scales = values(2 * n_expert);
    float *want = kt_take(n, 4), *gate = kt_take(n_row, 4), *up = kt_take(n_row, 4);
    for (uint32_t i = 0; i < p.n; i++) {
        const uint32_t e = p.ids[p.order[i]];
        const float *in = x + (size_t)(p.order[i] / p.n_used) * n_col;
        ref_matmul(w, 2 * e, in, 1, gate);
        ref_matmul(w, 2 * e + 1, in, 1, up);
        for (uint32_t r = 0; r < n_row; r++) gate[r] *= scales[e], up[r] *= scales[n_expert + e];
        ref_geglu(gate, up, n_row, want + (size_t)i * n_row);
    }
    const kt_output out = kt_out(n * 4);
    const gpu_view weights = whole(w->tiles[0].buffer);
    const moe_geglu_args args = {.n_used = p.n_used,
                                 .n_row = n_row,
                                 .n_col = n_col,
                                 .a_rows = 2 * n_row,
                                 .b_rows = 2 * n_row,
                                 .b_row0 = n_row,
                                 .n_expert = n_expert,
                                 .n_scale = n_expert};
    kt_run(
        &(kernel_call){.kernel = &kernel_moe_geglu,
                       .formats = {type, type},
                       .args = &args,
                       .views = {kt_in(p.order, p.n * 4), kt_in(p.tiles, p.n_tile * 16),
                                 kt_in(scales, 2 * n_expert * 4),
                                 kt_in(x, (size_t)n_tok * n_col * 4), weights, weights, out.view},
                       .x = div_up(n_row, 32),
                       .y = p.n_tile});
    kt_compare("moe_geglu", fetch(out), want, n, KT_F32);
    kt_reset();
}

static void test_moe_geglu(void **state) {
    (void)state;
    row_geglu(QUANT_F32, 1, 1, 16);
    row_geglu(QUANT_F32, 31, 33, 48);
    row_geglu(QUANT_F32, 97, 31, 32);
    row_geglu(QUANT_Q4_K, 33, 65, 256);
}

static void row_down(uint32_t type, uint32_t n_tok, uint32_t n_row, uint32_t n_col) {
    const uint32_t n_expert = 3;
    const picks p = make_picks(n_tok, 2, n_expert);
    weight *w = matrix(type, n_expert * n_row, n_col, n_expert * n_row);
    w->n_row = n_row, w->scale = 1;
    const size_t n = (size_t)p.n * n_row;
    float *act = values((size_t)p.n * n_col), *shares = values(p.n), *scales = values(n_expert);
    float *want = kt_take(n, 4);
    for (uint32_t i = 0; i < p.n; i++) {
        float *row = want + (size_t)p.order[i] * n_row;
        const uint32_t e = p.ids[p.order[i]];
        ref_matmul(w, e, act + (size_t)i * n_col, 1, row);
        for (uint32_t r = 0; r < n_row; r++) row[r] *= shares[p.order[i]] * scales[e];
    }
    const kt_output out = kt_out(n * 4);
    const moe_down_args args = {.n_row = n_row, .n_col = n_col, .n_expert = n_expert};
    kt_run(&(kernel_call){.kernel = &kernel_moe_down,
                          .formats = {type},
                          .args = &args,
                          .views = {kt_in(p.order, p.n * 4), kt_in(p.tiles, p.n_tile * 16),
                                    kt_in(scales, n_expert * 4), kt_in(shares, p.n * 4),
                                    kt_in(act, (size_t)p.n * n_col * 4), whole(w->tiles[0].buffer),
                                    out.view},
                          .x = div_up(n_row, 64),
                          .y = p.n_tile});
    kt_compare("moe_down", fetch(out), want, n, KT_F32);
    kt_reset();
}

static void test_moe_down(void **state) {
    (void)state;
    row_down(QUANT_F32, 1, 1, 16);
    row_down(QUANT_F32, 31, 63, 48);
    row_down(QUANT_F32, 97, 65, 32);
    row_down(QUANT_Q8_0, 33, 31, 96);
}

static void row_sum(uint32_t n_tok, uint32_t n, uint32_t n_used) {
    const size_t all = (size_t)n_tok * n;
    float *dense = values(all), *part = values(all * n_used), *w = values(2 * n);
    float *want = kt_take(all, 4), *sum = kt_take(all, 4);
    for (uint32_t t = 0; t < n_tok; t++)
        for (uint32_t j = 0; j < n_used; j++)
            for (uint32_t i = 0; i < n; i++) sum[t * n + i] += part[(t * n_used + j) * n + i];
    ref_rmsnorm(dense, w, n_tok, n, EPS, want);
    ref_rmsnorm(sum, w + n, n_tok, n, EPS, sum);
    for (size_t i = 0; i < all; i++) want[i] += sum[i];
    const kt_output out = kt_out(all * 4);
    const moe_sum_args args = {.n = n, .n_used = n_used, .w_experts = n, .eps = EPS};
    kt_run(&(kernel_call){.kernel = &kernel_moe_sum,
                          .args = &args,
                          .views = {kt_in(w, 2 * n * 4), kt_in(dense, all * 4),
                                    kt_in(part, all * n_used * 4), out.view},
                          .x = n_tok});
    kt_compare("moe_sum", fetch(out), want, all, KT_F32);
    kt_reset();
}

static void test_moe_sum(void **state) {
    (void)state;
    row_sum(1, 4, 1);
    row_sum(3, 1028, 8);
    row_sum(31, 36, 2);
}

/* ---- the parts for one token ---- */

static void row_one_in(uint32_t type, uint32_t n_embd, uint32_t n_row, uint32_t n_expert) {
    weight *gate = matrix(type, n_row, n_embd, n_row), *up = matrix(type, n_row, n_embd, n_row);
    weight *router = matrix(QUANT_F32, n_expert, n_embd, n_expert);
    float *y = values(n_embd), *w = values(2 * n_embd), *z = kt_take(n_embd, 4);
    float *act = kt_take(n_row, 4), *b = kt_take(n_row, 4), *logits = kt_take(n_expert, 4);
    ref_rmsnorm(y, w, 1, n_embd, EPS, z);
    ref_matmul(gate, 0, z, 1, act);
    ref_matmul(up, 0, z, 1, b);
    ref_geglu(act, b, n_row, act);
    ref_rmsnorm(y, w + n_embd, 1, n_embd, EPS, z);
    ref_matmul(router, 0, z, 1, logits);
    const kt_output out = kt_out(n_row * 4), routed = kt_out(n_expert * 4);
    const moe_one_in_args args = {.n_embd = n_embd,
                                  .n_row = n_row,
                                  .n_expert = n_expert,
                                  .eps = EPS,
                                  .w_router = n_embd,
                                  .scale_gate = gate->scale,
                                  .scale_up = up->scale,
                                  .scale_router = router->scale};
    kt_run(&(kernel_call){.kernel = &kernel_moe_one_in,
                          .formats = {type, type, QUANT_F32},
                          .args = &args,
                          .views = {kt_in(y, n_embd * 4), kt_in(w, 2 * n_embd * 4),
                                    whole(gate->tiles[0].buffer), whole(up->tiles[0].buffer),
                                    whole(router->tiles[0].buffer), out.view, routed.view},
                          .x = div_up(n_row, 8) + div_up(n_expert, 8)});
    kt_compare("moe_one_in: act", fetch(out), act, n_row, KT_F32);
    kt_compare("moe_one_in: logits", fetch(routed), logits, n_expert, KT_F32);
    kt_reset();
}

static void test_moe_one_in(void **state) {
    (void)state;
    row_one_in(QUANT_F32, 16, 1, 1);
    row_one_in(QUANT_F32, 1040, 33, 31);
    row_one_in(QUANT_Q4_K, 512, 31, 9);
}

static void row_one_act(uint32_t type, uint32_t n_embd, uint32_t n_row, uint32_t n_expert) {
    const uint32_t n_used = min_u32(n_expert, 3);
    weight *gate = matrix(type, n_expert * n_row, n_embd, n_expert * n_row);
    weight *up = matrix(type, n_expert * n_row, n_embd, n_expert * n_row);
    gate->n_row = up->n_row = n_row, gate->scale = up->scale = 1;
    float *y = values(n_embd), *w = values(n_embd), *logits = values(n_expert);
    float *scales = values(2 * n_expert), *z = kt_take(n_embd, 4), *share = kt_take(n_used, 4);
    float *a = kt_take(n_row, 4), *b = kt_take(n_row, 4), *want = kt_take(n_used * n_row, 4);
    uint32_t *ids = kt_take(n_used, 4);
    pick(logits, n_expert, n_used, ids, share);
    ref_rmsnorm(y, w, 1, n_embd, EPS, z);
    for (uint32_t j = 0; j < n_used; j++) {
        ref_matmul(gate, ids[j], z, 1, a);
        ref_matmul(up, ids[j], z, 1, b);
        for (uint32_t r = 0; r < n_row; r++)
            a[r] *= scales[ids[j]], b[r] *= scales[n_expert + ids[j]];
        ref_geglu(a, b, n_row, want + j * n_row);
    }
    const kt_output out = kt_out(n_used * n_row * 4);
    const moe_one_act_args args = {.n_used = n_used,
                                   .n_row = n_row,
                                   .n_embd = n_embd,
                                   .a_rows = n_row,
                                   .b_rows = n_row,
                                   .n_expert = n_expert,
                                   .n_scale = n_expert,
                                   .eps = EPS};
    kt_run(&(kernel_call){.kernel = &kernel_moe_one_act,
                          .formats = {type, type},
                          .args = &args,
                          .views = {kt_in(y, n_embd * 4), kt_in(w, n_embd * 4),
                                    kt_in(logits, n_expert * 4), kt_in(scales, 2 * n_expert * 4),
                                    whole(gate->tiles[0].buffer), whole(up->tiles[0].buffer),
                                    out.view},
                          .x = div_up(n_row, 8),
                          .y = n_used});
    kt_compare("moe_one_act", fetch(out), want, n_used * n_row, KT_F32);
    kt_reset();
}

static void test_moe_one_act(void **state) {
    (void)state;
    row_one_act(QUANT_F32, 16, 1, 1);
    row_one_act(QUANT_F32, 1040, 33, 5);
    row_one_act(QUANT_Q5_0, 96, 31, 33);
}

static void row_one_down(uint32_t type, uint32_t n_row, uint32_t n_col, uint32_t n_expert) {
    const uint32_t n_used = min_u32(n_expert, 3);
    weight *w = matrix(type, n_expert * n_row, n_col, n_expert * n_row);
    w->n_row = n_row, w->scale = 1;
    float *logits = values(n_expert), *scales = values(n_expert), *act = values(n_used * n_col);
    float *share = kt_take(n_used, 4), *x = kt_take(n_row, 4), *want = kt_take(n_row, 4);
    uint32_t *ids = kt_take(n_used, 4);
    pick(logits, n_expert, n_used, ids, share);
    for (uint32_t j = 0; j < n_used; j++) {
        ref_matmul(w, ids[j], act + j * n_col, 1, x);
        for (uint32_t r = 0; r < n_row; r++) want[r] += share[j] * scales[ids[j]] * x[r];
    }
    const kt_output out = kt_out(n_row * 4);
    const moe_one_down_args args = {.n_row = n_row,
                                    .n_col = n_col,
                                    .n_used = n_used,
                                    .n_expert = n_expert,
                                    .n_held = n_expert,
                                    .first = 1};
    kt_run(&(kernel_call){.kernel = &kernel_moe_one_down,
                          .formats = {type},
                          .args = &args,
                          .views = {kt_in(logits, n_expert * 4), kt_in(scales, n_expert * 4),
                                    kt_in(act, n_used * n_col * 4), whole(w->tiles[0].buffer),
                                    out.view},
                          .x = div_up(n_row, 16)});
    kt_compare("moe_one_down", fetch(out), want, n_row, KT_F32);
    kt_reset();
}

static void test_moe_one_down(void **state) {
    (void)state;
    row_one_down(QUANT_F32, 1, 16, 1);
    row_one_down(QUANT_F32, 33, 1040, 5);
    row_one_down(QUANT_Q5_0, 31, 96, 33);
}

/* ---- the whole part ---- */

/* gelu(gate x) * (up x) of expert e. */
static void expert_act(const moe_case *c, const layer_weights *w, uint32_t e, const float *x,
                       float *act) {
    float *both = kt_take(2 * c->n_ff_expert, 4);
    if (c->fused) {
        ref_matmul(&w->gate_up_exps, e, x, 1, both);
    } else {
        ref_matmul(&w->gate_exps, e, x, 1, both);
        ref_matmul(&w->up_exps, e, x, 1, both + c->n_ff_expert);
    }
    ref_geglu(both, both + c->n_ff_expert, c->n_ff_expert, act);
}

/* One token: out [n_embd]. */
static void want_moe(const moe_case *c, const layer_weights *w, const float *y, float *out) {
    const uint32_t d = c->n_embd;
    float *z = kt_take(d, 4), *a = kt_take(c->n_ff, 4), *b = kt_take(c->n_ff, 4),
          *x = kt_take(d, 4);
    float *logits = kt_take(c->n_expert, 4), *share = kt_take(c->n_used, 4), *sum = kt_take(d, 4);
    uint32_t *ids = kt_take(c->n_used, 4);
    ref_rmsnorm(y, w->ffn_norm.data, 1, d, EPS, z);
    ref_matmul(&w->gate, 0, z, 1, a);
    ref_matmul(&w->up, 0, z, 1, b);
    ref_geglu(a, b, c->n_ff, a);
    ref_matmul(&w->down, 0, a, 1, out);
    ref_rmsnorm(out, w->post_norm_1.data, 1, d, EPS, out);
    ref_rmsnorm(y, w->router_scale.data, 1, d, EPS, z);
    for (uint32_t i = 0; i < d; i++) z[i] /= sqrtf((float)d);
    ref_matmul(&w->router, 0, z, 1, logits);
    pick(logits, c->n_expert, c->n_used, ids, share);
    ref_rmsnorm(y, w->pre_norm_2.data, 1, d, EPS, z);
    float *act = kt_take(c->n_ff_expert, 4);
    for (uint32_t j = 0; j < c->n_used; j++) {
        expert_act(c, w, ids[j], z, act);
        ref_matmul(&w->down_exps, ids[j], act, 1, x);
        const float scale = share[j] * w->down_exps_scale.data[ids[j]];
        for (uint32_t i = 0; i < d; i++) sum[i] += scale * x[i];
    }
    ref_rmsnorm(sum, w->post_norm_2.data, 1, d, EPS, sum);
    for (uint32_t i = 0; i < d; i++) out[i] += sum[i];
}

static void read_back(gpu_buffer b, void *dst, size_t n) {
    carat_error err = {0};
    gpu_ticket ticket = gpu_read(kt.gpu, b, 0, n, &err);
    gpu_poll_result r;
    while ((r = gpu_poll(kt.gpu, ticket, dst, &err)) == GPU_PENDING) gpu_wait(kt.gpu);
    kt_check(r == GPU_READY, &err);
}

static void one_moe(moe_case c) {
    carat_error err = {0};
    const size_t n = (size_t)c.n_tok * c.n_embd;
    model *m = moe_model(&c);
    float *y = values(n), *want = kt_take(n, 4);
    for (uint32_t t = 0; t < c.n_tok; t++)
        want_moe(&c, &m->weights.layers[0], y + t * c.n_embd, want + t * c.n_embd);
    float *zeros = kt_take((size_t)c.n_tok * (c.n_embd + c.n_ff), 4);
    text_gpu t = {
        .model = m, .gpu = kt.gpu, .cache = kt.cache, .n_chunk = c.n_tok, .memory = kt.memory};
    t.norm = kt_in(zeros, n * 4).buffer;
    t.act = kt_in(zeros, (size_t)c.n_tok * c.n_ff * 4).buffer;
    t.ffn_out = kt_in(zeros, n * 4).buffer;
    const gpu_buffer in = kt_in(y, n * 4).buffer;
    kt_check(moe_gpu_create(&t, &err), &err);
    begin();
    moe_gpu_ffn(&t, kt.steps, 0, in, c.n_tok);
    end();
    char what[80];
    snprintf(what, sizeof what, "moe_gpu_ffn: %u tokens, %u experts, %u used", c.n_tok, c.n_expert,
             c.n_used);
    float *got = kt_take(n, 4);
    read_back(t.ffn_out, got, n * 4);
    kt_compare(what, got, want, n, KT_F32);
    moe_gpu_free(&t);
    assert_null(t.moe);
    kt_reset();
}

static void test_moe_ffn(void **state) {
    (void)state;
    one_moe((moe_case){1, 64, 48, 32, 8, 2, true, 8});
    one_moe((moe_case){1, 64, 80, 48, 31, 4, true, 7});
    one_moe((moe_case){1, 48, 16, 16, 7, 3, false, 2});
    one_moe((moe_case){1, 2112, 80, 2064, 3, 2, false, 3});
    one_moe((moe_case){31, 64, 48, 16, 5, 3, false, 2});
    one_moe((moe_case){33, 32, 16, 48, 4, 1, true, 3});
    one_moe((moe_case){200, 48, 32, 32, 3, 2, true, 100});
    one_moe((moe_case){2, 128, 64, 64, 128, 8, false, 100});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moe_topk),     cmocka_unit_test(test_moe_lists),
        cmocka_unit_test(test_moe_router),   cmocka_unit_test(test_moe_geglu),
        cmocka_unit_test(test_moe_down),     cmocka_unit_test(test_moe_sum),
        cmocka_unit_test(test_moe_one_in),   cmocka_unit_test(test_moe_one_act),
        cmocka_unit_test(test_moe_one_down), cmocka_unit_test(test_moe_ffn),
    };
    return cmocka_run_group_tests_name("kernels of the experts", tests, kt_setup, kt_teardown);
}
