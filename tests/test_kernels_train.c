/* The kernels of training that go by rows or by single values, against the CPU's operations: odd
 * shapes, both results that are set and such that are added to, guard words around the outputs.
 * Needs an adapter; a software one is enough. */
#include "batch_test.h"

#include "train/ops_train.h"
#include "train/train.h"

static gpu_view input(const void *data, size_t n) { return kt_in(data, n * 4); }

/* An output of n values that holds `data`, which is also where the expected ones begin. */
static kt_output output(const float *data, size_t n) { return kt_out_with(data, n * 4); }

static float *copy(const float *data, size_t n) {
    float *out = kt_take(n, sizeof *out);
    memcpy(out, data, n * sizeof *out);
    return out;
}

static float *zeros(size_t n) { return kt_take(n, sizeof(float)); }

/* ---- norms: norm_rope, back_norm_rope ---- */

enum { NOTHING, BASE, IN_PLACE };

static void one_norm_add(uint32_t n_tok, uint32_t n, int adds) {
    const size_t size = (size_t)n_tok * n;
    float *x = values(size), *base = values(size), *w = values(8 + n), *want = kt_take(size, 4);
    const vector v = {.n = n, .offset = 8, .data = w + 8};
    for (uint32_t i = 0; i < n && n_tok > 1; i++) x[i] *= 1e-3f; /* where eps counts */
    ref_rmsnorm(x, v.data, n_tok, n, EPS, want);
    for (size_t i = 0; i < size; i++)
        want[i] = 0.75f * (adds == NOTHING ? want[i] : base[i] + want[i]);
    const gpu_buffer vectors = input(w, 8 + n).buffer;
    const gpu_view in = input(x, size), other = input(base, size);
    const kt_output out = output(adds == IN_PLACE ? base : NULL, size);
    begin();
    op_norm_add(kt.steps, vectors, &v, EPS, 0.75f, in,
                adds == NOTHING ? (gpu_view){0}
                : adds == BASE  ? other
                                : out.view,
                out.view, n_tok);
    end();
    kt_compare("norm_rope", fetch(out), want, size, KT_F32);
    kt_reset();
}

static void test_norm_add(void **state) {
    (void)state;
    one_norm_add(1, 4, NOTHING);
    one_norm_add(3, 36, BASE);
    one_norm_add(2, 260, IN_PLACE);
    one_norm_add(5, 1536, BASE);
    one_norm_add(2, 2052, NOTHING);
}

static void one_back_rmsnorm(uint32_t n_row, uint32_t n, bool with_weight, bool add) {
    const size_t size = (size_t)n_row * n;
    float *x = values(size), *dout = values(size), *w = values(4 + n);
    float *dx = values(size), *want = add ? copy(dx, size) : zeros(size);
    const vector v = {.n = n, .offset = 4};
    for (size_t i = 0; i < size; i++) dout[i] += x[i]; /* so that both terms count */
    memset(x, 0, n * sizeof *x); /* a row that only eps keeps from a division by zero */
    back_rmsnorm(x, with_weight ? w + 4 : NULL, dout, n_row, n, EPS, want);
    const gpu_buffer vectors = input(w, 4 + n).buffer;
    const gpu_view in = input(x, size), given = input(dout, size);
    const kt_output out = output(dx, size);
    begin();
    op_back_rmsnorm(kt.steps, vectors, with_weight ? &v : NULL, n, EPS, in, given, out.view, n_row,
                    add);
    end();
    const float *got = fetch(out);
    kt_compare("back_norm_rope, zeros", got, want, n, KT_F32);
    if (n_row > 1) kt_compare("back_norm_rope", got + n, want + n, size - n, KT_F32);
    kt_reset();
}

static void test_back_rmsnorm(void **state) {
    (void)state;
    one_back_rmsnorm(1, 4, true, false);
    one_back_rmsnorm(3, 36, false, true);
    one_back_rmsnorm(4, 256, true, true);
    one_back_rmsnorm(2, 1540, false, false);
    one_back_rmsnorm(3, 2048, true, false);
    one_back_rmsnorm(65537, 4, true, true); /* more rows than workgroups in one direction */
}

typedef struct head_case {
    uint32_t n_tok, n_head, head_dim, n_rot;
    bool with_weight, add;
} head_case;

/* Both ways. Angles are real ones, so that a rotation is one. */
static void one_heads(head_case c) {
    const uint32_t width = c.n_head * c.head_dim;
    const size_t size = (size_t)c.n_tok * width;
    float *raw = values(size), *dout = values(size), *w = values(4 + c.head_dim);
    float *draw = values(size), *want = kt_take(size, 4);
    for (size_t i = 0; i < size; i++) dout[i] += raw[i];
    float *want_back = c.add ? copy(draw, size) : zeros(size), *turned = copy(dout, size);
    float *cs = kt_take((size_t)c.n_tok * c.n_rot * 2 + 1, 4);
    for (uint32_t i = 0; i < c.n_tok * c.n_rot; i++) {
        cs[2 * i] = cosf((float)i);
        cs[2 * i + 1] = sinf((float)i);
    }
    const vector v = {.n = c.head_dim, .offset = 4};
    const float *w_data = c.with_weight ? w + 4 : NULL;
    ref_rmsnorm(raw, w_data, c.n_tok * c.n_head, c.head_dim, EPS, want);
    for (uint32_t t = 0; t < c.n_tok; t++) {
        const float *angle = cs + (size_t)t * c.n_rot * 2;
        ref_rope(want + (size_t)t * width, angle, c.n_head, c.head_dim, c.n_rot);
        back_rope(turned + (size_t)t * width, angle, c.n_head, c.head_dim, c.n_rot);
    }
    back_rmsnorm(raw, w_data, turned, c.n_tok * c.n_head, c.head_dim, EPS, want_back);
    const heads_op h = {
        .w = c.with_weight ? &v : NULL,
        .n_head = c.n_head,
        .head_dim = c.head_dim,
        .n_rot = c.n_rot,
        .eps = EPS,
        .vectors = c.with_weight ? input(w, 4 + c.head_dim).buffer : (gpu_buffer){0},
        .cos_sin = c.n_rot ? input(cs, (size_t)c.n_tok * c.n_rot * 2) : (gpu_view){.size = 0},
    };
    const gpu_view in = input(raw, size), given = input(dout, size);
    const kt_output out = kt_out(size * 4), back = output(draw, size);
    begin();
    op_heads(kt.steps, &h, in, out.view, c.n_tok);
    op_back_heads(kt.steps, &h, in, given, back.view, c.n_tok, c.add);
    end();
    kt_compare("norm_rope: heads", fetch(out), want, size, KT_F32);
    kt_compare("back_norm_rope: heads", fetch(back), want_back, size, KT_F32);
    kt_reset();
}

static void test_heads(void **state) {
    (void)state;
    one_heads((head_case){1, 1, 4, 2, true, false});
    one_heads((head_case){3, 4, 32, 16, true, true});
    one_heads((head_case){2, 3, 256, 128, true, false});
    one_heads((head_case){3, 2, 512, 64, true, false});
    one_heads((head_case){5, 2, 128, 7, false, true});
    one_heads((head_case){4, 1, 256, 0, false, false});
}

/* ---- geglu ---- */

static void one_geglu(uint32_t n_tok, uint32_t n, uint32_t stride, uint32_t up0, bool with_dup) {
    const size_t size = (size_t)n_tok * n, all = (size_t)n_tok * stride;
    float *gate = values(size), *up = values(all), *dout = values(size), *dup = values(all);
    float *want = kt_take(size, 4), *want_gate = kt_take(size, 4), *want_up = copy(dup, all);
    for (size_t i = 0; i < size; i++) gate[i] *= 2;
    gate[0] = 200, gate[size - 1] = -200; /* where tanh may overflow */
    for (uint32_t t = 0; t < n_tok; t++) {
        const size_t at = (size_t)t * n, there = (size_t)t * stride + up0;
        ref_geglu(gate + at, up + there, n, want + at);
        back_geglu(gate + at, up + there, dout + at, n, want_gate + at, want_up + there);
    }
    const geglu_up other = {input(up, all), stride, up0};
    const gpu_view in = input(gate, size), given = input(dout, size);
    const kt_output out = kt_out(size * 4), dgate = kt_out(size * 4), to_up = output(dup, all);
    begin();
    op_geglu(kt.steps, in, &other, out.view, n_tok, n);
    op_back_geglu(kt.steps, in, &other, given, dgate.view,
                  with_dup ? to_up.view : (gpu_view){.size = 0}, n_tok, n);
    end();
    kt_compare("geglu", fetch(out), want, size, KT_F32);
    kt_compare("geglu: dgate", fetch(dgate), want_gate, size, KT_F32);
    kt_compare("geglu: dup", fetch(to_up), with_dup ? want_up : dup, all, KT_F32);
    kt_reset();
}

static void test_geglu(void **state) {
    (void)state;
    one_geglu(1, 1, 1, 0, true);
    one_geglu(3, 37, 37, 0, true);
    one_geglu(5, 48, 48 * 3, 48, true);
    one_geglu(2, 300, 333, 33, false);
}

/* ---- by value: scale, dropout, adamw ---- */

static void one_scale(size_t n, float scale) {
    float *x = values(n), *want = copy(x, n);
    for (size_t i = 0; i < n; i++) want[i] = scale == 0 ? 0 : want[i] * scale;
    if (scale == 0) x[n / 2] = NAN;
    const kt_output out = output(x, n);
    begin();
    if (scale == 0)
        op_zero(kt.steps, out.view, n);
    else
        op_scale(kt.steps, out.view, n, scale);
    end();
    kt_compare("scale", fetch(out), want, n, 0);
    kt_reset();
}

static void test_scale(void **state) {
    (void)state;
    one_scale(1, -1.5f);
    one_scale(257, 0.3f);
    one_scale(1000, 0);
}

/* The same values are dropped, to the bit, and about as many as shall be. */
static void one_dropout(size_t n, float p, uint64_t key, bool add) {
    float *x = values(n), *there = values(n), *want = kt_take(n, 4);
    size_t dropped = 0;
    ref_dropout(x, n, p, key, want);
    for (size_t i = 0; i < n; i++) dropped += want[i] == 0;
    for (size_t i = 0; i < n && add; i++) want[i] += there[i];
    const gpu_view in = input(x, n);
    const kt_output out = output(there, n);
    begin();
    op_dropout(kt.steps, in, n, p, key, out.view, add);
    end();
    const float *got = fetch(out);
    if (add) kt_compare("dropout", got, want, n, 1e-13);
    if (!add) assert_memory_equal(got, want, n * 4);
    const double share = (double)dropped / (double)n, spread = sqrt(p * (1 - p) / (double)n);
    if (fabs(share - p) > 4 * spread) fail_msg("%g of %zu dropped, not %g", share, n, p);
    kt_reset();
}

static void test_dropout(void **state) {
    (void)state;
    one_dropout(1000, 0, 1, false);
    one_dropout(257, 0.5f, 0x123456789abcdef0u, false);
    one_dropout(20000, 0.1f, 0xfffffffffffffff0u, true);
    one_dropout(20001, 0.9f, 7, false);
}

/* Masks of keys that differ in any one bit have as much in common as chance will have it. */
static void test_dropout_keys(void **state) {
    (void)state;
    enum { N = 4096 };
    float *ones = kt_take(N, 4), *a = kt_take(N, 4), *b = kt_take(N, 4);
    for (int i = 0; i < N; i++) ones[i] = 1;
    ref_dropout(ones, N, 0.5f, 42, a);
    for (uint32_t bit = 0; bit < 64; bit++) {
        int same = 0, moved = 0;
        ref_dropout(ones, N, 0.5f, 42 ^ 1ull << bit, b);
        for (int i = 0; i < N; i++) same += a[i] == b[i];
        for (int i = 1; i < N; i++) moved += a[i] == b[i - 1];
        assert_in_range(same, N / 2 - 160, N / 2 + 160); /* five deviations */
        assert_in_range(moved, N / 2 - 160, N / 2 + 160);
    }
    kt_reset();
}

/* Some steps of the optimiser, the gradient scaled as clipping would. */
static void test_adamw(void **state) {
    (void)state;
    enum { N = 1030, STEPS = 3 };
    adamw o;
    assert_true(adamw_open(kt.memory, N, 1, &o, NULL));
    float *want = values(N), *grad = kt_take(N, 4);
    const kt_output v = output(want, N), m1 = output(o.m, N), m2 = output(o.v, N);
    for (int step = 1; step <= STEPS; step++) {
        float *g = values(N);
        for (int i = 0; i < N / 8; i++) g[i] *= 1e-8f; /* where eps counts */
        const double lr = 1e-2 / step;
        const adamw_op op = {
            .values = v.view,
            .grad = input(g, N),
            .m = m1.view,
            .v = m2.view,
            .grad_scale = 0.25f,
            .keep = (float)(1 - lr * o.weight_decay),
            .rate = (float)(lr / (1 - pow(o.beta1, step))),
            .b1 = (float)(1 - o.beta1),
            .b2 = (float)o.beta2,
            .c2 = (float)(1 - o.beta2),
            .root = (float)sqrt(1 - pow(o.beta2, step)),
            .eps = (float)o.eps,
        };
        for (int i = 0; i < N; i++) grad[i] = 0.25f * g[i];
        adamw_step(&o, want, grad, lr);
        begin();
        op_adamw(kt.steps, &op, N);
        end();
    }
    kt_compare("adamw", fetch(v), want, N, KT_F32);
    kt_compare("adamw: m", fetch(m1), o.m, N, KT_F32);
    kt_compare("adamw: v", fetch(m2), o.v, N, KT_F32);
    kt_reset();
}

/* ---- rows and columns ---- */

static void test_copy_rows(void **state) {
    (void)state;
    enum { ROWS = 5, N = 36, INDICES = 3 };
    static const uint32_t index[INDICES] = {4, 0, 3};
    float *all = values(ROWS * N), *some = values(INDICES * N), *want = copy(all, ROWS * N);
    float *gathered = kt_take(INDICES * N, 4);
    for (int i = 0; i < INDICES; i++) {
        memcpy(gathered + i * N, all + index[i] * N, N * 4);
        memcpy(want + index[i] * N, some + i * N, N * 4);
    }
    const gpu_view at = input(index, INDICES), from = input(all, ROWS * N);
    const gpu_view rows = input(some, INDICES * N);
    const kt_output out = kt_out(sizeof(float) * INDICES * N), into = output(all, ROWS * N);
    begin();
    op_gather_rows(kt.steps, at, from, out.view, INDICES, N);
    op_scatter_rows(kt.steps, at, rows, into.view, INDICES, N);
    end();
    kt_compare("copy_rows", fetch(out), gathered, INDICES * N, 0);
    kt_compare("copy_rows: scatter", fetch(into), want, ROWS * N, 0);
    kt_reset();
}

static void one_columns(uint32_t n_tok, uint32_t rank, uint32_t n_col, uint32_t n_id) {
    const size_t size = (size_t)rank * n_col, n_u = (size_t)n_tok * rank;
    uint32_t *ids = kt_take(n_tok, 4), *next = kt_take(n_tok, 4);
    float *a = values(size), *du = values(n_u), *u = kt_take(n_u, 4), *want = copy(a, size);
    for (uint32_t t = 0; t < n_tok; t++) ids[t] = t * t % n_id * (n_col / n_id);
    for (uint32_t t = 0; t < n_tok; t++) {
        uint32_t later = t + 1, before = 0;
        while (later < n_tok && ids[later] != ids[t]) later++;
        while (ids[before] != ids[t]) before++;
        next[t] = later + (before == t ? NEXT_FIRST : 0);
        for (uint32_t r = 0; r < rank; r++) {
            const size_t at = (size_t)r * n_col + ids[t];
            u[(size_t)t * rank + r] = a[at];
            want[at] += du[(size_t)t * rank + r];
        }
    }
    const kt_output matrix_out = output(a, size), out = kt_out(n_u * 4), given = output(du, n_u);
    const matrix_gpu m = {.view = matrix_out.view, .n_row = rank, .n_col = n_col};
    const gpu_view to = input(ids, n_tok), chain = input(next, n_tok);
    begin();
    op_gather_columns(kt.steps, &m, to, out.view, n_tok);
    op_scatter_columns(kt.steps, &m, to, chain, given.view, n_tok);
    end();
    kt_compare("columns", fetch(out), u, n_u, 0);
    kt_compare("columns: scatter", fetch(matrix_out), want, size, KT_F32);
    kt_reset();
}

static void test_columns(void **state) {
    (void)state;
    one_columns(1, 1, 16, 1);
    one_columns(33, 3, 48, 1); /* all the same */
    one_columns(50, 16, 208, 13);
}

/* ---- sums ---- */

typedef struct loss_case {
    uint32_t n_row, n_vocab;
    float cap, size;
} loss_case;

static void one_cross_entropy(loss_case c) {
    enum { AT0 = 3 };
    const size_t n = (size_t)c.n_row * c.n_vocab;
    const float scale = 0.125f;
    float *logits = values(n), *weights = values(AT0 + c.n_row), *want = copy(logits, n);
    float *capped = kt_take(c.n_vocab, 4), *losses = values(AT0 + c.n_row + 1);
    float *want_losses = copy(losses, AT0 + c.n_row + 1);
    int32_t *targets = kt_take(AT0 + c.n_row, 4);
    for (size_t i = 0; i < n; i++) want[i] = logits[i] *= c.size;
    for (uint32_t i = 0; i < c.n_row; i++) {
        float *at = want + (size_t)i * c.n_vocab;
        targets[AT0 + i] = (int32_t)(i * 7919 % c.n_vocab);
        weights[AT0 + i] = i == 1 ? 0 : fabsf(weights[AT0 + i]);
        if (c.cap > 0) ref_softcap(at, c.n_vocab, c.cap);
        memcpy(capped, at, c.n_vocab * sizeof *at);
        const float w = weights[AT0 + i];
        const double nll = back_cross_entropy(at, c.n_vocab, targets[AT0 + i], scale * w);
        want_losses[AT0 + i] = w * (float)nll;
        if (c.cap > 0) back_softcap(capped, c.n_vocab, c.cap, at);
    }
    const kt_output inout = output(logits, n), out = output(losses, AT0 + c.n_row + 1);
    const cross_entropy_op op = {
        .logits = inout.view,
        .targets = input(targets, AT0 + c.n_row),
        .weights = input(weights, AT0 + c.n_row),
        .loss = out.view,
        .parts = kt_out(c.n_row * LOSS_PARTS(c.n_vocab) * 16).view,
        .n_vocab = c.n_vocab,
        .at0 = AT0,
        .cap = c.cap,
        .scale = scale,
    };
    begin();
    op_cross_entropy(kt.steps, &op, c.n_row);
    end();
    const float *got = fetch(out);
    kt_compare("cross_entropy", fetch(inout), want, n, KT_F32);
    kt_compare("cross_entropy_parts", got + AT0, want_losses + AT0, c.n_row, KT_F32);
    assert_memory_equal(got, losses, AT0 * 4);
    assert_memory_equal(got + AT0 + c.n_row, losses + AT0 + c.n_row, 4);
    kt_reset();
}

static void test_cross_entropy(void **state) {
    (void)state;
    one_cross_entropy((loss_case){1, 3, 0, 1});
    one_cross_entropy((loss_case){3, 257, 30, 20});
    one_cross_entropy((loss_case){2, 5000, 30, 60});
    one_cross_entropy((loss_case){4, 1000, 0, 200}); /* softmax almost a one */
    one_cross_entropy((loss_case){2, 262144, 30, 5});
}

/* The loss of rows whose logits are not all finite is NaN, that of the others is not. */
static void test_loss_not_finite(void **state) {
    (void)state;
    enum { ROWS = 4, N = 300 };
    static const uint32_t targets[ROWS] = {0, 1, 2, 299};
    const float weights[ROWS] = {1, 1, 1, 1};
    float *logits = values(ROWS * N);
    logits[N + 299] = NAN;
    logits[2 * N] = INFINITY;
    logits[3 * N + 1] = -INFINITY;
    for (int capped = 0; capped < 2; capped++) {
        const kt_output inout = output(logits, ROWS * N), out = kt_out(ROWS * 4);
        const cross_entropy_op op = {
            .logits = inout.view,
            .targets = input(targets, ROWS),
            .weights = input(weights, ROWS),
            .loss = out.view,
            .parts = kt_out(ROWS * LOSS_PARTS(N) * 16).view,
            .n_vocab = N,
            .cap = capped ? 30 : 0,
            .scale = 1,
        };
        begin();
        op_cross_entropy(kt.steps, &op, ROWS);
        end();
        const float *got = fetch(out);
        assert_true(isfinite(got[0]));
        for (int i = 1; i < ROWS; i++) assert_true(isnan(got[i]));
    }
    kt_reset();
}

static void one_sum_parts(uint32_t n_part, size_t n, bool add) {
    float *parts = values(n_part * n), *there = values(n), *want = kt_take(n, 4);
    for (size_t i = 0; i < n; i++) {
        for (uint32_t z = 0; z < n_part; z++) want[i] += parts[z * n + i];
        if (add) want[i] += there[i];
    }
    const gpu_view in = input(parts, n_part * n);
    const kt_output out = output(there, n);
    begin();
    op_sum_parts(kt.steps, in, n_part, n, out.view, add);
    end();
    kt_compare("sum_parts", fetch(out), want, n, 0);
    kt_reset();
}

static void test_sum_parts(void **state) {
    (void)state;
    one_sum_parts(1, 4, false);
    one_sum_parts(2, 1028, true);
    one_sum_parts(8, 3000, true);
    one_sum_parts(5, 300000, false);
}

static void one_sum_squares(size_t n, float size, float bad) {
    enum { AT = 2 };
    float *x = values(n), *there = values(4);
    double sum = 0;
    for (size_t i = 0; i < n; i++) x[i] *= size;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    if (bad != 0) x[n - 1] = bad;
    const float want = (float)sum;
    const gpu_view in = input(x, n);
    const kt_output out = output(there, 4);
    begin();
    op_sum_squares(kt.steps, in, n, out.view, AT);
    end();
    float *got = fetch(out);
    if (bad != 0) assert_true(isnan(got[AT]));
    if (bad == 0) kt_compare("sum_squares", got + AT, &want, 1, 1e-12);
    got[AT] = there[AT];
    assert_memory_equal(got, there, 4 * sizeof *got);
    kt_reset();
}

static void test_sum_squares(void **state) {
    (void)state;
    one_sum_squares(1, 3, 0);
    one_sum_squares(255, 1, 0);
    one_sum_squares(4097, 1e-12f, 0);
    one_sum_squares(600001, 1, 0);
    one_sum_squares(5000, 1, NAN);
    one_sum_squares(5001, 1, -INFINITY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm_add),      cmocka_unit_test(test_back_rmsnorm),
        cmocka_unit_test(test_heads),         cmocka_unit_test(test_geglu),
        cmocka_unit_test(test_scale),         cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_dropout_keys),  cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_copy_rows),     cmocka_unit_test(test_columns),
        cmocka_unit_test(test_cross_entropy), cmocka_unit_test(test_loss_not_finite),
        cmocka_unit_test(test_sum_parts),     cmocka_unit_test(test_sum_squares),
    };
    return cmocka_run_group_tests_name("kernels of training", tests, kt_setup, kt_teardown);
}
