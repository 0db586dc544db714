/* What the tests of the kernels for one token share, on top of batch_test.h: every test runs
 * twice, once with the kernels' baselines and once with their variants for subgroups, whatever the
 * device would pick for itself; and the residual stream as the kernels find it (lib/stream). */
#ifndef CARAT_DECODE_TEST_H
#define CARAT_DECODE_TEST_H

#include "batch_test.h"

#define NONE UINT32_MAX

/* ---- variants ---- */

static bool have_subgroups;

static inline int baseline_setup(void **state) {
    const int status = kt_setup(state);
    seed = 1;
    if (status == 0) {
        have_subgroups = kt.gpu->info.subgroups;
        kt.gpu->info.subgroup_max = 0;
        assert_ptr_equal(kernel_pick(&kernel_matvec, (uint32_t[3]){0}, &kt.gpu->info),
                         &kernel_matvec);
    }
    return status;
}

static inline int subgroup_setup(void **state) {
    const int status = kt_setup(state);
    seed = 1;
    if (status == 0) {
        kt.gpu->info.subgroup_max = 128; /* kernel_pick() leaves narrow ones out */
        assert_ptr_equal(kernel_pick(&kernel_matvec, (uint32_t[3]){0}, &kt.gpu->info),
                         kernel_matvec.subgroup);
    }
    return status;
}

static inline void no_subgroups(void **state) {
    (void)state;
    print_message("SKIPPED: the kernels' subgroup variants: the device has no subgroups\n");
    skip();
}

/* Runs the tests on both variants; the result is main()'s. */
#define RUN_VARIANTS(name, tests)                                                                  \
    RUN_BOTH(name ", baseline", baseline_setup, name ", subgroups", subgroup_setup,                \
             have_subgroups, no_subgroups, tests)

/* ---- one call ---- */

/* The TURNS of a stage whose input of n_col values is staged `input` at a time. */
static inline uint32_t turns_of(uint32_t lanes, uint32_t input, uint32_t n_col) {
    return div_up(min_u32(input, n_col), 64 * lanes);
}

/* Runs a call by itself; LANES, INPUT and TURNS are its constants, left out where lanes or input
 * is 0. */
static inline void run_with(kernel_call call, uint32_t lanes, uint32_t input, uint32_t n_col) {
    const gpu_constant constants[] = {
        {"LANES", lanes}, {"INPUT", input}, {"TURNS", input ? turns_of(lanes, input, n_col) : 0}};
    if (lanes) call.constants = constants;
    if (lanes) call.n_constant = input ? 3 : 1;
    begin();
    kernel_run(kt.steps, &call);
    end();
}

/* ---- the residual stream ---- */

typedef struct stream_data {
    uint32_t n, w_post, w_norm; /* n_embd; offsets into vectors, w_post NONE: no update pending */
    uint32_t w_more;            /* offset of 256 values for anything else */
    float scale, *vector;       /* [w_more + 256] */
    gpu_view base, update, vectors;
    kt_output out;  /* where a kernel writes h */
    float *pending; /* [n] update */
    float *h;       /* [n] (base + rms(update) * w_post) * scale, or base */
    float *normed;  /* [n] rms(h) * w_norm */
} stream_data;

static inline stream_data make_stream(uint32_t n, bool pending) {
    float *base = values(n), *update = values(n), *w = values(4 + 2 * n + 256);
    stream_data s = {.n = n, .w_post = pending ? 4 : NONE, .w_norm = 4 + n, .scale = 0.75f};
    s.w_more = s.w_norm + n;
    s.vector = w;
    s.pending = update;
    s.base = kt_in(base, n * 4);
    s.update = kt_in(update, n * 4);
    s.vectors = kt_in(w, (s.w_more + 256) * 4);
    s.out = kt_out(n * 4);
    s.h = kt_take(n, 4);
    s.normed = kt_take(n, 4);
    memcpy(s.h, base, n * 4);
    if (pending) {
        ref_rmsnorm(update, w + s.w_post, 1, n, EPS, s.h);
        for (uint32_t i = 0; i < n; i++) s.h[i] = (base[i] + s.h[i]) * s.scale;
    }
    ref_rmsnorm(s.h, w + s.w_norm, 1, n, EPS, s.normed);
    return s;
}

static inline void check_stream(const stream_data *s, const char *name) {
    char what[64];
    snprintf(what, sizeof what, "%s: h", name);
    kt_compare(what, fetch(s->out), s->h, s->n, KT_F32);
}

#endif
