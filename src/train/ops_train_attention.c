/* ops_train_attention: attention of training on the device, whole samples at once, and its way
 * back. The scores are never stored: the way back makes them again and finds a row's softmax from
 * its log of sums.
 *
 * Flow: back_gpu.c calls it. CPU twin: ref_attend(), back_attend() and the masks of back_cpu.c. */
#include "train/ops_train.h"

#include "kernels.h"

#include <string.h>

#define OWN_ROWS    32u /* of lib/attend */
#define NARROW      256u
#define WIDEST      512u
#define WANT_GROUPS 512u /* that keep a large device busy */

static gpu_constant wide(const layer_config *l) {
    assert(l->head_dim % 32 == 0 && l->head_dim <= WIDEST);
    return (gpu_constant){.name = "WIDE", .value = l->head_dim > NARROW};
}

static uint32_t query_groups(const layer_config *l, uint32_t n_tok) {
    return div_up(n_tok * (l->n_head / l->n_kv), OWN_ROWS);
}

void op_train_attention(kernel_steps *s, const layer_config *l, gpu_view q, gpu_view k, gpu_view v,
                        gpu_view span, gpu_view out, gpu_view lse, uint32_t n_tok) {
    const gpu_constant constant = wide(l);
    const train_attention_args args = {.n_tok = n_tok,
                                       .n_head = l->n_head,
                                       .n_kv = l->n_kv,
                                       .head_dim = l->head_dim,
                                       .window = l->window};
    kernel_run(s, &(kernel_call){.kernel = &kernel_train_attention,
                                 .constants = &constant,
                                 .n_constant = 1,
                                 .args = &args,
                                 .views = {q, k, v, span, out, lse},
                                 .x = query_groups(l, n_tok),
                                 .y = l->n_kv});
}

static void back_delta(kernel_steps *s, const layer_config *l, const back_attention_op *a,
                       uint32_t n_tok) {
    const back_attention_delta_args args = {.n_row = n_tok * l->n_head, .head_dim = l->head_dim};
    kernel_run(s, &(kernel_call){.kernel = &kernel_back_attention_delta,
                                 .args = &args,
                                 .views = {a->out, a->dout, a->delta},
                                 .x = div_up(args.n_row, 8)});
}

/* In how many parts a query's keys, or a key's queries, are taken, to have enough to do at a
 * time. */
static uint32_t count_parts(const layer_config *l, const back_attention_op *a, uint32_t n_tok) {
    const uint64_t n = (uint64_t)n_tok * l->n_head * l->head_dim, fit = a->parts.n / n;
    const uint32_t want = min_u32(WANT_GROUPS / (query_groups(l, n_tok) * l->n_kv), n_tok / 128);
    return max_u32(fit < want ? (uint32_t)fit : want, 1);
}

/* back_attention_q and back_attention_kv: but for what they write, their arguments and bindings are
 * the same. call: the rest. */
static void run_back(kernel_steps *s, const layer_config *l, const back_attention_op *a,
                     uint32_t n_tok, kernel_call call, gpu_view out) {
    const back_attention_q_args args = {.n_tok = n_tok,
                                        .n_head = l->n_head,
                                        .n_kv = l->n_kv,
                                        .head_dim = l->head_dim,
                                        .window = l->window};
    const gpu_view views[] = {a->q, a->k, a->v, a->span, a->lse, a->dout, a->delta, out};
    memcpy(call.views, views, sizeof views);
    call.args = &args;
    call.y = l->n_kv;
    kernel_run(s, &call);
}
_Static_assert(sizeof(back_attention_q_args) == sizeof(back_attention_kv_args), "the same");

static void back_queries(kernel_steps *s, const layer_config *l, const back_attention_op *a,
                         uint32_t n_tok) {
    const uint32_t n_part = count_parts(l, a, n_tok);
    const gpu_constant constant = wide(l);
    const kernel_call call = {.kernel = &kernel_back_attention_q,
                              .constants = &constant,
                              .n_constant = 1,
                              .x = query_groups(l, n_tok),
                              .z = n_part};
    run_back(s, l, a, n_tok, call, n_part > 1 ? a->parts.view : a->dq);
    if (n_part > 1)
        op_sum_parts(s, a->parts.view, n_part, (uint64_t)n_tok * l->n_head * l->head_dim, a->dq,
                     false);
}

/* Parts for each query head of a group, then their sum. */
static void back_keys(kernel_steps *s, const layer_config *l, const back_attention_op *a,
                      uint32_t n_tok, bool values) {
    const uint32_t n_part = count_parts(l, a, n_tok) * (l->n_head / l->n_kv);
    const gpu_constant constants[] = {wide(l), {.name = "VALUES", .value = values}};
    const kernel_call call = {.kernel = &kernel_back_attention_kv,
                              .constants = constants,
                              .n_constant = COUNT(constants),
                              .x = div_up(n_tok, OWN_ROWS),
                              .z = n_part};
    run_back(s, l, a, n_tok, call, a->parts.view);
    op_sum_parts(s, a->parts.view, n_part, (uint64_t)n_tok * l->n_kv * l->head_dim,
                 values ? a->dv : a->dk, true);
}

void op_back_attention(kernel_steps *s, const layer_config *l, const back_attention_op *a,
                       uint32_t n_tok) {
    back_delta(s, l, a, n_tok);
    back_queries(s, l, a, n_tok);
    back_keys(s, l, a, n_tok, true);
    back_keys(s, l, a, n_tok, false);
}
