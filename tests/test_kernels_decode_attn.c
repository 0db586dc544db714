/* The kernels for one token that attend, merge the splits of the keys and choose the candidates
 * among the logits, against the CPU's operations: rings that wrap, empty splits, ties, guard words
 * around the outputs. Needs an adapter; a software one is enough. */
#include "decode_test.h"

#include "model/text_gpu.h"

/* ---- attention ---- */

typedef struct attn_case {
    uint32_t head_dim, n_head, n_kv, n_rot;
    uint32_t pos, window, n_slot; /* of the ring */
    bool owner, k_eq_v;
    uint32_t n_split;
} attn_case;

/* K or V of a layer: f16 [n_slot, n_kv * head_dim]. */
typedef struct cache_data {
    uint16_t *before;
    float *after; /* as the kernel should leave it */
    kt_output buffer;
} cache_data;

typedef struct attn_data {
    attn_case c;
    uint32_t n_kv_dim, first;           /* n_kv * head_dim; the first visible position */
    float *qkv, *vectors, *rope, *want; /* want [n_head * head_dim] */
    cache_data k, v;
    kt_output out, stat;
} attn_data;

/* Random values where a position can be seen, not-a-numbers elsewhere. `own`: this token's row,
 * NULL when it is in the cache already. */
static cache_data make_cache(const attn_data *d, const float *own) {
    const uint32_t width = d->n_kv_dim, n = d->c.n_slot * width;
    cache_data cache = {.before = kt_take(n, 2), .after = kt_take(n, 4)};
    const float *random = values(n);
    memset(cache.before, 0x7f, n * 2);
    for (uint32_t pos = d->first; pos < d->c.pos + !own; pos++)
        for (uint32_t i = 0; i < width; i++) {
            const uint32_t at = pos % d->c.n_slot * width + i;
            cache.before[at] = float_to_half(random[at]);
        }
    for (uint32_t i = 0; i < n; i++) cache.after[i] = half_to_float(cache.before[i]);
    for (uint32_t i = 0; own && i < width; i++)
        cache.after[d->c.pos % d->c.n_slot * width + i] = half_to_float(float_to_half(own[i]));
    cache.buffer = kt_out_with(cache.before, n * 2);
    return cache;
}

/* Norm and rotation, as text_cpu.c does it; then every head over the keys it sees. */
static void attend(attn_data *d) {
    const attn_case *c = &d->c;
    const uint32_t width = d->n_kv_dim, n_key = c->pos + 1 - d->first;
    float *q = kt_take(c->n_head * c->head_dim, 4), *scores = kt_take(n_key, 4);
    float *k = kt_take(width, 4), *v = kt_take(width, 4);
    const float *raw = d->qkv, *raw_k = raw + c->n_head * c->head_dim;
    ref_rmsnorm(raw, d->vectors, c->n_head, c->head_dim, EPS, q);
    ref_rope(q, d->rope, c->n_head, c->head_dim, c->n_rot);
    if (c->owner) {
        ref_rmsnorm(raw_k, d->vectors + c->head_dim, c->n_kv, c->head_dim, EPS, k);
        ref_rope(k, d->rope, c->n_kv, c->head_dim, c->n_rot);
        ref_rmsnorm(c->k_eq_v ? raw_k : raw_k + width, NULL, c->n_kv, c->head_dim, EPS, v);
    }
    d->k = make_cache(d, c->owner ? k : NULL);
    d->v = make_cache(d, c->owner ? v : NULL);
    float *keys = kt_take(n_key * width, 4), *vals = kt_take(n_key * width, 4);
    for (uint32_t i = 0; i < n_key; i++) {
        const size_t slot = (d->first + i) % c->n_slot * width;
        memcpy(keys + i * width, d->k.after + slot, width * 4);
        memcpy(vals + i * width, d->v.after + slot, width * 4);
    }
    for (uint32_t h = 0; h < c->n_head; h++) {
        const uint32_t kv = h / (c->n_head / c->n_kv) * c->head_dim;
        ref_attend(q + h * c->head_dim, keys + kv, vals + kv, n_key, width, c->head_dim, scores,
                   d->want + h * c->head_dim);
    }
}

static attn_data make_attention(attn_case c) {
    const uint32_t n_q = c.n_head * c.head_dim, n_kv = c.n_kv * c.head_dim;
    attn_data d = {.c = c, .n_kv_dim = n_kv};
    d.first = c.window && c.pos + 1 > c.window ? c.pos + 1 - c.window : 0;
    d.qkv = values(n_q + 2 * n_kv);
    d.vectors = values(2 * c.head_dim);
    /* Scores of a deviation of about 2, so that many keys count. */
    for (uint32_t i = 0; i < c.head_dim; i++) d.vectors[i] *= 2 / sqrtf((float)c.head_dim);
    d.rope = kt_take(c.n_rot * 2, 4);
    for (uint32_t i = 0; i < c.n_rot; i++) {
        const float angle = (float)c.pos / (1 + (float)i);
        d.rope[2 * i] = cosf(angle);
        d.rope[2 * i + 1] = sinf(angle);
    }
    d.want = kt_take(n_q, 4);
    attend(&d);
    d.out = kt_out(c.n_split * n_q * 4);
    d.stat = kt_out(c.n_split * c.n_head * 8);
    return d;
}

static void run_attn(const attn_data *d) {
    const attn_case *c = &d->c;
    const uint32_t n_q = c->n_head * c->head_dim, n_row = n_q + (c->owner ? 2 * d->n_kv_dim : 0);
    const step_uniform step = {.pos = c->pos, .n_tok = 1};
    const decode_attn_args args = {.n_head = c->n_head,
                                   .n_kv = c->n_kv,
                                   .n_rot = c->n_rot,
                                   .n_split = c->n_split,
                                   .window = c->window,
                                   .n_slot = c->n_slot,
                                   .owner = c->owner,
                                   .k_eq_v = c->k_eq_v,
                                   .w_q = 0,
                                   .w_k = c->head_dim,
                                   .eps = EPS};
    begin();
    kernel_run(
        kt.steps,
        &(kernel_call){.kernel = &kernel_decode_attn,
                       .constants = &(gpu_constant){"HEAD_DIM", c->head_dim},
                       .n_constant = 1,
                       .args = &args,
                       .views = {kt_uniform(&step, sizeof step), kt_in(d->qkv, n_row * 4),
                                 kt_in(d->vectors, c->head_dim * 8), kt_in(d->rope, c->n_rot * 8),
                                 d->k.buffer.view, d->v.buffer.view, d->out.view, d->stat.view},
                       .x = c->n_head,
                       .y = c->n_split});
    end();
}

/* Makes one of the splits, which are finite even where they have no key. */
static float *merge(const float *out, const float *stat, uint32_t n_split, uint32_t n_head,
                    uint32_t head_dim) {
    float *merged = kt_take(n_head * head_dim, 4);
    for (uint32_t h = 0; h < n_head; h++) {
        double most = -INFINITY, total = 0;
        for (uint32_t s = 0; s < n_split; s++)
            most = fmax(most, (double)stat[2 * (s * n_head + h)]);
        for (uint32_t s = 0; s < n_split; s++) {
            const float *pair = stat + 2 * (s * n_head + h);
            total += (double)pair[1] * exp((double)pair[0] - most);
        }
        for (uint32_t i = h * head_dim; i < (h + 1) * head_dim; i++) {
            double sum = 0;
            for (uint32_t s = 0; s < n_split; s++)
                sum += (double)out[s * n_head * head_dim + i] *
                       exp((double)stat[2 * (s * n_head + h)] - most);
            merged[i] = (float)(sum / total);
        }
    }
    return merged;
}

/* This token's row is as computed here, within f16; all others are untouched. */
static void check_cache(const char *what, const attn_data *d, const cache_data *cache) {
    const uint16_t *got = fetch(cache->buffer);
    const uint32_t width = d->n_kv_dim, own = d->c.pos % d->c.n_slot;
    float *row = kt_take(width, 4);
    for (uint32_t slot = 0; slot < d->c.n_slot; slot++) {
        if (slot == own && d->c.owner) continue;
        assert_memory_equal(got + slot * width, cache->before + slot * width, width * 2);
    }
    for (uint32_t i = 0; i < width; i++) row[i] = half_to_float(got[own * width + i]);
    kt_compare(what, row, cache->after + own * width, width, KT_F16);
}

static void one_attn(attn_case c) {
    const attn_data d = make_attention(c);
    run_attn(&d);
    char what[128];
    snprintf(what, sizeof what, "decode_attn %u/%u heads dim %u pos %u window %u split %u",
             c.n_head, c.n_kv, c.head_dim, c.pos, c.window, c.n_split);
    const float *out = fetch(d.out), *stat = fetch(d.stat);
    for (uint32_t i = 0; i < c.n_split * c.n_head * c.head_dim; i++) assert_true(isfinite(out[i]));
    /* This token's own K and V may be rounded the other way; the others are the same numbers. */
    kt_compare(what, merge(out, stat, c.n_split, c.n_head, c.head_dim), d.want,
               c.n_head * c.head_dim, c.owner ? KT_F16 : KT_F32);
    check_cache("decode_attn: keys", &d, &d.k);
    check_cache("decode_attn: values", &d, &d.v);
    kt_reset();
}

static void test_attn(void **state) {
    (void)state;
    /* dim, heads, kv, rotated, pos, window, slots, owner, k_eq_v, splits */
    one_attn((attn_case){32, 2, 2, 16, 0, 0, 8, true, false, 1}); /* nothing but itself */
    one_attn((attn_case){32, 1, 1, 16, 0, 0, 1, false, false, 4});
    one_attn((attn_case){32, 4, 2, 16, 5, 0, 8, true, false, 4});
    one_attn((attn_case){32, 8, 1, 16, 300, 0, 301, true, false, 1}); /* three blocks */
    one_attn((attn_case){32, 8, 1, 16, 20, 0, 64, true, false, 64});  /* empty splits */
    one_attn((attn_case){32, 3, 1, 16, 31, 32, 32, true, false, 1});  /* the ring is just full */
    one_attn((attn_case){32, 6, 2, 16, 32, 32, 32, true, true, 3});   /* and starts again */
    one_attn((attn_case){32, 4, 1, 16, 100, 32, 48, false, false, 2});
    one_attn((attn_case){64, 2, 1, 8, 130, 128, 128, true, false, 1});
    one_attn((attn_case){64, 5, 1, 32, 259, 0, 260, false, false, 2});
    one_attn((attn_case){128, 4, 4, 64, 200, 33, 33, true, false, 4});
    one_attn((attn_case){128, 16, 2, 16, 128, 0, 129, true, true, 1});
    one_attn((attn_case){256, 8, 1, 128, 700, 512, 512, true, false, 4});
    one_attn((attn_case){256, 4, 2, 128, 400, 0, 512, false, false, 1}); /* four blocks */
    one_attn((attn_case){256, 2, 2, 32, 1023, 512, 512, false, false, 64});
    one_attn((attn_case){512, 8, 1, 64, 150, 0, 200, true, true, 1}); /* three blocks */
    one_attn((attn_case){512, 2, 1, 256, 64, 0, 65, true, false, 1});
    one_attn((attn_case){512, 5, 1, 64, 63, 64, 64, false, false, 64});
}

/* ---- merge ---- */

static void one_merge(uint32_t n_split, uint32_t n_head, uint32_t head_dim) {
    const uint32_t n_q = n_head * head_dim;
    float *attn = values(n_split * n_q), *stat = values(n_split * n_head * 2);
    for (uint32_t i = 0; i < n_split * n_head; i++) { /* every third split is empty */
        const bool empty = i / n_head % 3 == 2;
        stat[2 * i] = empty ? -1e30f : 5 * stat[2 * i];
        stat[2 * i + 1] = empty ? 0 : 1 + fabsf(stat[2 * i + 1]);
        if (empty) memset(attn + i * head_dim, 0, head_dim * 4);
    }
    const float *want = merge(attn, stat, n_split, n_head, head_dim);
    const kt_output out = kt_out_with(attn, n_split * n_q * 4);
    const decode_merge_args args = {.n_head = n_head, .head_dim = head_dim, .n_split = n_split};
    run_with((kernel_call){.kernel = &kernel_decode_merge,
                           .args = &args,
                           .views = {out.view, kt_in(stat, n_split * n_head * 8)},
                           .x = n_head,
                           .y = div_up(head_dim, 64)},
             0, 0, 0);
    const float *got = fetch(out);
    kt_compare("decode_merge", got, want, n_q, KT_F32);
    assert_memory_equal(got + n_q, attn + n_q, (n_split - 1) * n_q * 4);
    kt_reset();
}

static void test_merge(void **state) {
    (void)state;
    one_merge(1, 3, 32);
    one_merge(3, 2, 64);
    one_merge(5, 8, 256);
    one_merge(63, 1, 128);
    one_merge(64, 5, 512);
}

/* ---- candidates ---- */

#define CAPACITY  TEXT_GPU_LISTED
#define PER_GROUP (256u * 16)

typedef struct topk_case {
    uint32_t n, k;
    float cap;
    float size; /* deviation of the logits */
    float step; /* they are rounded to multiples of it; 0: not */
} topk_case;

typedef struct topk_data {
    topk_case c;
    uint32_t n_group;
    float high;    /* bins go from -high to high */
    float *logits; /* [n] before */
    kt_output capped, work, found;
} topk_data;

static topk_data make_topk(topk_case c) {
    topk_data d = {.c = c, .n_group = div_up(c.n, PER_GROUP), .high = c.cap > 0 ? c.cap : 64};
    d.logits = values(c.n);
    for (uint32_t i = 0; i < c.n; i++) {
        d.logits[i] *= c.size;
        if (c.step > 0) d.logits[i] = roundf(d.logits[i] / c.step) * c.step;
    }
    d.capped = kt_out_with(d.logits, c.n * 4);
    uint32_t *work = kt_take(TEXT_GPU_BINS + d.n_group, 4); /* cleared */
    d.work = kt_out_with(work, (TEXT_GPU_BINS + d.n_group) * 4);
    d.found = kt_out((4 + 2 * CAPACITY) * 4);
    return d;
}

static void run_topk(const topk_data *d) {
    const float per_unit = TEXT_GPU_BINS / (2 * d->high);
    const topk_count_args count = {
        .n = d->c.n, .cap = d->c.cap, .low = -d->high, .bins_per_unit = per_unit, .shift = d->high};
    const topk_select_args select = {.n = d->c.n,
                                     .k = d->c.k,
                                     .n_sum = d->n_group,
                                     .low = -d->high,
                                     .bins_per_unit = per_unit,
                                     .shift = d->high};
    const gpu_view logits = d->capped.view, work = d->work.view, found = d->found.view;
    begin();
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_topk_count,
                                        .args = &count,
                                        .views = {logits, work, found},
                                        .x = d->n_group});
    kernel_run(kt.steps, &(kernel_call){.kernel = &kernel_topk_select,
                                        .args = &select,
                                        .views = {logits, work, found},
                                        .x = d->n_group});
    end();
}

/* Every logit is counted once, in its bin or, at an edge, the one beside it. */
static void check_histogram(const topk_data *d, const float *logits) {
    const uint32_t *got = fetch(d->work);
    const double per_unit = TEXT_GPU_BINS / (2 * (double)d->high);
    int *least = kt_take(TEXT_GPU_BINS, sizeof *least),
        *most = kt_take(TEXT_GPU_BINS, sizeof *most);
    uint32_t total = 0;
    for (uint32_t i = 0; i < d->c.n; i++) {
        const double at = ((double)logits[i] + (double)d->high) * per_unit;
        const int low = (int)fmin(fmax(at - 1e-3, 0), TEXT_GPU_BINS - 1);
        const int up = (int)fmin(fmax(at + 1e-3, 0), TEXT_GPU_BINS - 1);
        if (low == up) least[low]++;
        if (low != up) most[low]++;
        most[up]++;
    }
    for (uint32_t b = 0; b < TEXT_GPU_BINS; b++) {
        total += got[b];
        if ((int)got[b] < least[b] || (int)got[b] > most[b])
            fail_msg("topk_count: %u in bin %u, not %d to %d", got[b], b, least[b], most[b]);
    }
    assert_int_equal(total, d->c.n);
}

/* The listed ones are logits, none twice; none that is left out is larger than one of them; and the
 * last bin is needed: without it there are fewer than k. */
static void check_found(const topk_data *d, const float *logits, const uint32_t *found) {
    const uint32_t n = found[0], listed = min_u32(n, CAPACITY);
    bool *taken = kt_take(d->c.n, sizeof *taken);
    float lowest = INFINITY;
    uint32_t n_above = 0, n_equal = 0;
    assert_true(n >= min_u32(d->c.k, d->c.n) && n <= d->c.n);
    for (uint32_t i = 0; i < listed; i++) {
        const uint32_t id = found[4 + 2 * i];
        assert_true(id < d->c.n && !taken[id]);
        assert_memory_equal(found + 5 + 2 * i, logits + id, 4);
        taken[id] = true;
        lowest = fminf(lowest, logits[id]);
    }
    const float bin = 2 * d->high / TEXT_GPU_BINS;
    for (uint32_t i = 0; i < d->c.n; i++) {
        if (n <= CAPACITY && !taken[i]) assert_true(logits[i] < lowest);
        n_above += logits[i] > lowest + bin && logits[i] < d->high - bin;
        n_equal += logits[i] >= lowest;
    }
    if (n <= CAPACITY) assert_int_equal(n, n_equal);
    assert_true(n_above < d->c.k);
    for (uint32_t i = listed; i < CAPACITY; i++) /* the rest is as it was */
        assert_int_equal(found[4 + 2 * i], KT_MARK * 0x01010101u);
}

static void one_topk(topk_case c) {
    const topk_data d = make_topk(c);
    run_topk(&d);
    const float *logits = fetch(d.capped);
    const uint32_t *found = fetch(d.found);
    double sum = 0;
    float lse;
    if (c.cap > 0) ref_softcap(d.logits, c.n, c.cap);
    kt_compare("topk_count", logits, d.logits, c.n, KT_F32);
    for (uint32_t i = 0; i < c.n; i++) sum += exp((double)logits[i]);
    memcpy(&lse, found + 1, 4);
    if (!(fabs((double)lse - log(sum)) < 1e-4))
        fail_msg("topk_select: the log of the sum is %g, not %g", (double)lse, log(sum));
    check_histogram(&d, logits);
    check_found(&d, logits, found);
    kt_reset();
}

static void test_topk(void **state) {
    (void)state;
    one_topk((topk_case){1, 1, 0, 5, 0});
    one_topk((topk_case){31, 31, 30, 20, 0});
    one_topk((topk_case){255, 255, 30, 20, 0.5f});
    one_topk((topk_case){257, 256, 0, 5, 0});
    one_topk((topk_case){4095, 256, 30, 20, 0});
    one_topk((topk_case){4097, 256, 0, 10, 0});
    one_topk((topk_case){20001, 256, 30, 10, 0});
    one_topk((topk_case){20001, 40, 0, 10, 0.25f}); /* ties */
    one_topk((topk_case){20001, 256, 0, 5, 10});    /* more than can be listed */
    one_topk((topk_case){9000, 256, 0, 0, 0});      /* all the same */
    one_topk((topk_case){5000, 256, 0, 35, 0});     /* beyond the bins */
    one_topk((topk_case){5000, 256, 30, 400, 0});   /* most are at the cap */
    one_topk((topk_case){5000, 1, 30, 15, 0});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attn),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_topk),
    };
    return RUN_VARIANTS("attention and candidates of decode", tests);
}
