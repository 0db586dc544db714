/* ops_train: the operations of training on the device, one function each: those of the way forward
 * that keep what the way back needs, and the derivatives. Each has a twin in ops_cpu.c, lora.c,
 * ops_back.c or adamw.c, which is its definition and what tests/test_kernels_train*.c compare with.
 * Recording only: kernel_end() reports failures.
 *
 * All values are f32, rows contiguous unless a stride is named; n_tok counts tokens. "add": the
 * result is added to what is there, else it takes its place.
 *
 * Flow: gpu/kernel.h and model/ops_gpu.h below, back_gpu.c above. */
#ifndef CARAT_OPS_TRAIN_H
#define CARAT_OPS_TRAIN_H

#include "gpu/kernel.h"
#include "model/ops_gpu.h"

/* ---- ops_train_matmul.c ---- */

/* A matrix of f32 on the device, [n_row, n_col]; n_col a multiple of 16. */
typedef struct matrix_gpu {
    gpu_view view;
    uint32_t n_row, n_col;
} matrix_gpu;

/* din [n_tok, n_col] (add) = dout [n_tok, n_row] W, read through its blocks. Twin: back_matmul() */
void op_back_matmul(kernel_steps *s, const weight *w, parts_gpu room, gpu_view dout, gpu_view din,
                    uint32_t n_tok, bool add);
/* out [n_tok, n_row] (add) = scale * x [n_tok, n_col] M^T */
void op_matrix(kernel_steps *s, const matrix_gpu *m, parts_gpu room, float scale, gpu_view x,
               gpu_view out, uint32_t n_tok, bool add);
/* din [n_tok, n_col] (add) = scale * dout [n_tok, n_row] M */
void op_back_matrix(kernel_steps *s, const matrix_gpu *m, parts_gpu room, float scale,
                    gpu_view dout, gpu_view din, uint32_t n_tok, bool add);
/* out [n_a, n_b] (add) = scale * a^T b, a [n_tok, n_a], b [n_tok, n_b]; n_b a multiple of 16. */
void op_outer(kernel_steps *s, parts_gpu room, gpu_view a, uint32_t n_a, gpu_view b, uint32_t n_b,
              float scale, gpu_view out, uint32_t n_tok, bool add);

/* ---- ops_train_attention.c: span [n_tok, 2] u32: where a token's sample begins and ends ---- */

/* out [n_tok, n_head, head_dim] = softmax(q k^T) v over the keys of the token's own sample up to
 * itself and within the layer's window; k, v [n_tok, n_kv, head_dim]. lse [n_tok, n_head]: log of
 * the sum of exp of the scores. Twin: ref_attend() */
void op_train_attention(kernel_steps *s, const layer_config *l, gpu_view q, gpu_view k, gpu_view v,
                        gpu_view span, gpu_view out, gpu_view lse, uint32_t n_tok);
/* What op_train_attention() read and made, and dout; dq is set, dk and dv are added to. delta
 * [n_tok, n_head] is scratch, parts room for at least n_tok * n_head * head_dim. Twin:
 * back_attend() */
typedef struct back_attention_op {
    gpu_view q, k, v, span, out, lse, dout, delta, dq, dk, dv;
    parts_gpu parts;
} back_attention_op;
void op_back_attention(kernel_steps *s, const layer_config *l, const back_attention_op *a,
                       uint32_t n_tok);

/* ---- ops_train.c ---- */

/* out [n_tok, w.n] = scale * (base + rms(x) * w); base.buffer.id 0: nothing. out may be base. */
void op_norm_add(kernel_steps *s, gpu_buffer vectors, const vector *w, float eps, float scale,
                 gpu_view x, gpu_view base, gpu_view out, uint32_t n_tok);
/* dx (add) = of rms(x) * w, rows [n_row, n]; w NULL: no weight. Twin: back_rmsnorm() */
void op_back_rmsnorm(kernel_steps *s, gpu_buffer vectors, const vector *w, uint32_t n, float eps,
                     gpu_view x, gpu_view dout, gpu_view dx, uint32_t n_row, bool add);
/* out [n_tok, n_head, head_dim] = rope(rms(raw) * w); w NULL: no weight; n_rot 0: no rotation, and
 * cos_sin [n_tok, n_rot, 2] is not read. Twin: ref_rmsnorm(), ref_rope() */
typedef struct heads_op {
    const vector *w;
    uint32_t n_head, head_dim, n_rot;
    float eps;
    gpu_buffer vectors;
    gpu_view cos_sin;
} heads_op;
void op_heads(kernel_steps *s, const heads_op *h, gpu_view raw, gpu_view out, uint32_t n_tok);
/* draw (add) = given dout. Twin: back_rope(), back_rmsnorm() */
void op_back_heads(kernel_steps *s, const heads_op *h, gpu_view raw, gpu_view dout, gpu_view draw,
                   uint32_t n_tok, bool add);
/* out [n_tok, n] = gelu(gate) * up, its rows `stride` apart, from up0 on. Twin: ref_geglu() */
typedef struct geglu_up {
    gpu_view view;
    uint32_t stride, up0;
} geglu_up;
void op_geglu(kernel_steps *s, gpu_view gate, const geglu_up *up, gpu_view out, uint32_t n_tok,
              uint32_t n);
/* dgate [n_tok, n] and dup (lies as up does; id 0: not wanted) are set. Twin: back_geglu() */
void op_back_geglu(kernel_steps *s, gpu_view gate, const geglu_up *up, gpu_view dout,
                   gpu_view dgate, gpu_view dup, uint32_t n_tok, uint32_t n);
/* x [n] *= scale */
void op_scale(kernel_steps *s, gpu_view x, uint64_t n, float scale);
void op_zero(kernel_steps *s, gpu_view x, uint64_t n);
/* out [n] (add) = dropout of in: by key and place. Twin: ref_dropout() */
void op_dropout(kernel_steps *s, gpu_view in, uint64_t n, float p, uint64_t key, gpu_view out,
                bool add);
/* dst[i] = src[index[i]], and dst[index[i]] = src[i]: rows [n_index, n], n a multiple of 4. */
void op_gather_rows(kernel_steps *s, gpu_view index, gpu_view src, gpu_view dst, uint32_t n_index,
                    uint32_t n);
void op_scatter_rows(kernel_steps *s, gpu_view index, gpu_view src, gpu_view dst, uint32_t n_index,
                     uint32_t n);
/* u [n_tok, rank] = columns ids[t] of a [rank, n_col]; and the other way round, da (added to): next
 * [n_tok] is the next token with the same id, n_tok if none, + NEXT_FIRST if no earlier one. */
#define NEXT_FIRST 0x80000000u
void op_gather_columns(kernel_steps *s, const matrix_gpu *a, gpu_view ids, gpu_view u,
                       uint32_t n_tok);
void op_scatter_columns(kernel_steps *s, const matrix_gpu *da, gpu_view ids, gpu_view next,
                        gpu_view du, uint32_t n_tok);
/* logits [n_row, n_vocab] before the cap (0: none) become the gradient of scale * weight[i] * nll;
 * loss[i] = weight[i] * nll of target[i]; from row at0 of targets, weights and loss on. parts
 * [n_row, LOSS_PARTS, 4] is scratch. Twin: ref_softcap(), back_cross_entropy(), back_softcap() */
#define LOSS_PARTS(n_vocab) div_up(n_vocab, 8192u) /* as lib/loss has it */
typedef struct cross_entropy_op {
    gpu_view logits, targets, weights, loss, parts;
    uint32_t n_vocab, at0;
    float cap, scale;
} cross_entropy_op;
void op_cross_entropy(kernel_steps *s, const cross_entropy_op *c, uint32_t n_row);
/* out[at] = sum of x [n] squared, in f32. out.offset 0. Twin: clip_norm() */
void op_sum_squares(kernel_steps *s, gpu_view x, uint64_t n, gpu_view out, uint32_t at);
/* One step of values [n] given grad_scale * grad. Twin: adamw_step() */
typedef struct adamw_op {
    gpu_view values, grad, m, v;
    float grad_scale, keep, rate, b1, b2, c2, root, eps; /* as adamw_step() names them */
} adamw_op;
void op_adamw(kernel_steps *s, const adamw_op *o, uint64_t n);

#endif
