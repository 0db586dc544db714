/* ops_train: the operations of training that go by rows or by single values; see ops_train.h.
 *
 * A dispatch binds no buffer twice when it writes it, so an operand that a kernel does not read is
 * bound as another one that it does.
 *
 * Flow: gpu/kernel.c below, back_gpu.c and train_gpu.c above. */
#include "train/ops_train.h"

#include "kernels.h"

#define NONE UINT32_MAX

static gpu_view either(gpu_view v, gpu_view otherwise) { return v.buffer.id ? v : otherwise; }

/* ---- norms ---- */

static void norm_rope(kernel_steps *s, const heads_op *h, norm_rope_args args, gpu_view x,
                      gpu_view base, gpu_view out) {
    args.n = h->head_dim;
    args.n_head = h->n_head;
    args.n_rot = h->n_rot;
    args.w_norm = h->w ? h->w->offset : NONE;
    args.eps = h->eps;
    assert(args.n % 4 == 0);
    run_flat(s,
             (kernel_call){
                 .kernel = &kernel_norm_rope,
                 .args = &args,
                 .views = {either(whole(h->vectors), x), either(h->cos_sin, x), x, base, out},
             },
             args.n_row);
}

void op_norm_add(kernel_steps *s, gpu_buffer vectors, const vector *w, float eps, float scale,
                 gpu_view x, gpu_view base, gpu_view out, uint32_t n_tok) {
    enum { NOTHING, BASE, OUT }; /* what the kernel adds */
    const heads_op h = {.w = w, .n_head = 1, .head_dim = w->n, .eps = eps, .vectors = vectors};
    const bool in_place = base.buffer.id == out.buffer.id;
    norm_rope_args args = {.n_row = n_tok, .scale = scale, .adds = in_place ? OUT : BASE};
    if (!base.buffer.id) args.adds = NOTHING;
    norm_rope(s, &h, args, x, args.adds == BASE ? base : x, out);
}

void op_heads(kernel_steps *s, const heads_op *h, gpu_view raw, gpu_view out, uint32_t n_tok) {
    norm_rope(s, h, (norm_rope_args){.n_row = n_tok * h->n_head, .scale = 1}, raw, raw, out);
}

static void back_norm_rope(kernel_steps *s, const heads_op *h, gpu_view x, gpu_view dout,
                           gpu_view dx, uint32_t n_row, bool add) {
    const back_norm_rope_args args = {
        .n_row = n_row,
        .n = h->head_dim,
        .n_head = h->n_head,
        .n_rot = h->n_rot,
        .w_norm = h->w ? h->w->offset : NONE,
        .add = add,
        .eps = h->eps,
    };
    assert(args.n % 4 == 0);
    run_flat(s,
             (kernel_call){
                 .kernel = &kernel_back_norm_rope,
                 .args = &args,
                 .views = {either(whole(h->vectors), x), either(h->cos_sin, x), x, dout, dx},
             },
             n_row);
}

void op_back_rmsnorm(kernel_steps *s, gpu_buffer vectors, const vector *w, uint32_t n, float eps,
                     gpu_view x, gpu_view dout, gpu_view dx, uint32_t n_row, bool add) {
    const heads_op h = {.w = w, .n_head = 1, .head_dim = n, .eps = eps, .vectors = vectors};
    back_norm_rope(s, &h, x, dout, dx, n_row, add);
}

void op_back_heads(kernel_steps *s, const heads_op *h, gpu_view raw, gpu_view dout, gpu_view draw,
                   uint32_t n_tok, bool add) {
    back_norm_rope(s, h, raw, dout, draw, n_tok * h->n_head, add);
}

/* ---- GeGLU ---- */

static void geglu(kernel_steps *s, gpu_view gate, const geglu_up *up, gpu_view dout,
                  const geglu_up *out, bool slope, uint32_t n_tok, uint32_t n) {
    const geglu_args args = {
        .n_value = n_tok * n,
        .n = n,
        .up_stride = up->stride,
        .up0 = up->up0,
        .out_stride = out->stride,
        .out0 = out->up0,
        .slope = slope,
    };
    run_values(s,
               &(kernel_call){
                   .kernel = &kernel_geglu,
                   .args = &args,
                   .views = {gate, up->view, dout, out->view},
               },
               (uint64_t)n_tok * n);
}

void op_geglu(kernel_steps *s, gpu_view gate, const geglu_up *up, gpu_view out, uint32_t n_tok,
              uint32_t n) {
    geglu(s, gate, up, gate, &(geglu_up){out, n, 0}, false, n_tok, n);
}

void op_back_geglu(kernel_steps *s, gpu_view gate, const geglu_up *up, gpu_view dout,
                   gpu_view dgate, gpu_view dup, uint32_t n_tok, uint32_t n) {
    geglu(s, gate, up, dout, &(geglu_up){dgate, n, 0}, true, n_tok, n);
    if (!dup.buffer.id) return;
    const geglu_up by = {dout, n, 0}, to = {dup, up->stride, up->up0};
    geglu(s, gate, &by, dout, &to, false, n_tok, n);
}

/* ---- by value ---- */

void op_scale(kernel_steps *s, gpu_view x, uint64_t n, float scale) {
    const scale_args args = {.n = (uint32_t)n, .scale = scale};
    run_values(s, &(kernel_call){.kernel = &kernel_scale, .args = &args, .views = {x}}, n);
}

void op_zero(kernel_steps *s, gpu_view x, uint64_t n) { op_scale(s, x, n, 0); }

void op_dropout(kernel_steps *s, gpu_view in, uint64_t n, float p, uint64_t key, gpu_view out,
                bool add) {
    const dropout_args args = {
        .n = (uint32_t)n,
        .key_low = (uint32_t)key,
        .key_high = (uint32_t)(key >> 32),
        .drop = (uint32_t)((double)p * 0x1p32),
        .keep = 1 / (1 - p),
        .add = add,
    };
    run_values(s, &(kernel_call){.kernel = &kernel_dropout, .args = &args, .views = {in, out}}, n);
}

void op_adamw(kernel_steps *s, const adamw_op *o, uint64_t n) {
    const adamw_args args = {
        .n = (uint32_t)n,
        .grad_scale = o->grad_scale,
        .keep = o->keep,
        .rate = o->rate,
        .b1 = o->b1,
        .b2 = o->b2,
        .c2 = o->c2,
        .root = o->root,
        .eps = o->eps,
    };
    run_values(s,
               &(kernel_call){
                   .kernel = &kernel_adamw,
                   .args = &args,
                   .views = {o->grad, o->values, o->m, o->v},
               },
               n);
}

/* ---- rows and columns ---- */

static void copy_rows(kernel_steps *s, gpu_view index, gpu_view src, gpu_view dst, uint32_t n_index,
                      uint32_t n, bool scatter) {
    const copy_rows_args args = {.n_value = n_index * (n / 4), .n4 = n / 4, .scatter = scatter};
    assert(n % 4 == 0);
    run_values(s,
               &(kernel_call){
                   .kernel = &kernel_copy_rows,
                   .args = &args,
                   .views = {index, src, dst},
               },
               (uint64_t)n_index * (n / 4));
}

void op_gather_rows(kernel_steps *s, gpu_view index, gpu_view src, gpu_view dst, uint32_t n_index,
                    uint32_t n) {
    copy_rows(s, index, src, dst, n_index, n, false);
}

void op_scatter_rows(kernel_steps *s, gpu_view index, gpu_view src, gpu_view dst, uint32_t n_index,
                     uint32_t n) {
    copy_rows(s, index, src, dst, n_index, n, true);
}

static void columns(kernel_steps *s, const matrix_gpu *a, gpu_view ids, gpu_view next, gpu_view u,
                    uint32_t n_tok, bool scatter) {
    const columns_args args = {
        .n_tok = n_tok,
        .rank = a->n_row,
        .n_col = a->n_col,
        .scatter = scatter,
    };
    run_values(s,
               &(kernel_call){
                   .kernel = &kernel_columns,
                   .args = &args,
                   .views = {ids, next, a->view, u},
               },
               (uint64_t)n_tok * a->n_row);
}

void op_gather_columns(kernel_steps *s, const matrix_gpu *a, gpu_view ids, gpu_view u,
                       uint32_t n_tok) {
    columns(s, a, ids, ids, u, n_tok, false);
}

void op_scatter_columns(kernel_steps *s, const matrix_gpu *da, gpu_view ids, gpu_view next,
                        gpu_view du, uint32_t n_tok) {
    columns(s, da, ids, next, du, n_tok, true);
}

/* ---- sums ---- */

void op_cross_entropy(kernel_steps *s, const cross_entropy_op *c, uint32_t n_row) {
    const uint32_t n_part = LOSS_PARTS(c->n_vocab);
    const cross_entropy_parts_args parts = {.n_vocab = c->n_vocab, .at0 = c->at0, .cap = c->cap};
    const cross_entropy_args args = {
        .n_vocab = c->n_vocab,
        .at0 = c->at0,
        .cap = c->cap,
        .scale = c->scale,
    };
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_cross_entropy_parts,
                      .args = &parts,
                      .views = {c->targets, c->logits, c->parts},
                      .x = n_row,
                      .y = n_part,
                  });
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_cross_entropy,
                      .args = &args,
                      .views = {c->targets, c->weights, c->parts, c->logits, c->loss},
                      .x = n_row,
                      .y = n_part,
                  });
}

void op_sum_squares(kernel_steps *s, gpu_view x, uint64_t n, gpu_view out, uint32_t at) {
    const sum_squares_args args = {.n = (uint32_t)n, .at = at};
    assert(n <= UINT32_MAX);
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_sum_squares,
                      .args = &args,
                      .views = {x, out},
                  });
}
