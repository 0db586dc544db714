/* The kernels of the experts, and the whole feed-forward part with experts, against the CPU's
 * operations. Needs an adapter; a software one is enough. */
#include "batch_test.h"

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

/* ---- the whole part ---- */

typedef struct moe_case {
    uint32_t n_tok, n_embd, n_ff, n_ff_expert, n_expert, n_used;
    bool fused;
    uint32_t experts_a_tile; /* of gate or gate and up; one more for the others */
} moe_case;

static weight experts(const moe_case *c, uint32_t n_row, uint32_t n_col, uint32_t experts_a_tile) {
    weight *w = matrix(QUANT_F32, c->n_expert * n_row, n_col, experts_a_tile * n_row);
    w->n_expert = c->n_expert;
    w->n_row = n_row;
    w->tensor = (const gguf_tensor *)(const void *)w; /* it is there */
    return *w;
}

static void add_vector(vector *out, float *packed, uint32_t n, uint32_t *at) {
    const float *v = values(n);
    for (uint32_t i = 0; i < n; i++) packed[*at + i] = 1 + 0.5f * v[i];
    *out = (vector){.data = packed + *at, .n = n, .offset = *at};
    *at += n;
}

/* A model of which only the experts of layer 0 are there. */
static model *moe_model(const moe_case *c) {
    model *m = kt_take(1, sizeof *m);
    layer_weights *w = &m->weights.layers[0];
    m->config = (model_config){.n_layer = 1,
                               .n_embd = c->n_embd,
                               .n_expert = c->n_expert,
                               .n_expert_used = c->n_used,
                               .n_ff_expert = c->n_ff_expert,
                               .rms_eps = EPS};
    m->config.layers[0] = (layer_config){.moe = true, .n_ff = c->n_ff};
    w->gate = *matrix(QUANT_F32, c->n_ff, c->n_embd, 1000);
    w->up = *matrix(QUANT_F32, c->n_ff, c->n_embd, 1000);
    w->down = *matrix(QUANT_F32, c->n_embd, c->n_ff, 1000);
    w->router = *matrix(QUANT_F32, c->n_expert, c->n_embd, 1000);
    w->router.scale = 4;
    if (c->fused) {
        w->gate_up_exps = experts(c, 2 * c->n_ff_expert, c->n_embd, c->experts_a_tile);
    } else {
        w->gate_exps = experts(c, c->n_ff_expert, c->n_embd, c->experts_a_tile);
        w->up_exps = experts(c, c->n_ff_expert, c->n_embd, c->experts_a_tile + 1);
        float *scale = values(c->n_expert);
        w->up_exps.expert_scale = scale;
    }
    w->down_exps = experts(c, c->n_embd, c->n_ff_expert, c->experts_a_tile + 1);
    uint32_t at = 4;
    float *packed = kt_take(8 * c->n_embd + c->n_expert, 4);
    add_vector(&w->ffn_norm, packed, c->n_embd, &at);
    add_vector(&w->router_scale, packed, c->n_embd, &at);
    add_vector(&w->pre_norm_2, packed, c->n_embd, &at);
    add_vector(&w->post_norm_1, packed, c->n_embd, &at);
    add_vector(&w->post_norm_2, packed, c->n_embd, &at);
    add_vector(&w->down_exps_scale, packed, c->n_expert, &at);
    m->weights.vector_buffer = kt_in(packed, at * 4).buffer;
    return m;
}

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
    kt_compare(what, got, want, n, tile_bound());
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
        cmocka_unit_test(test_moe_topk),
        cmocka_unit_test(test_moe_lists),
        cmocka_unit_test(test_moe_ffn),
    };
    return cmocka_run_group_tests_name("kernels of the experts", tests, kt_setup, kt_teardown);
}
