/* ops_gpu: one function for each operation on batches of tokens, as ops_cpu.c has them for the CPU.
 * Values are f32 rows, one a token. Each records its dispatches; nothing runs yet.
 *
 * Flow: gpu/kernel.h below; prefill_gpu.c, moe_gpu.c and text_gpu.c above. */
#ifndef CARAT_OPS_GPU_H
#define CARAT_OPS_GPU_H

#include "gpu/kernel.h"
#include "model/model.h"

/* A call of n workgroups (lib/flat), in rows when they are too many for one; those too many in the
 * last do nothing. */
void run_flat(kernel_steps *s, kernel_call call, uint64_t n);
/* The same with a thread for each of n values. */
void run_values(kernel_steps *s, const kernel_call *call, uint64_t n);
/* A call of a kernel that includes lib/tile, without its x and y, for n_tok x n_out outputs. */
void run_tiles(kernel_steps *s, kernel_call call, uint32_t n_tok, uint32_t n_out);

/* Room for parts of sums, f32 [n]; n 0: none. A product of few tokens and outputs has few
 * workgroups: where there is room, its sums are cut among more of them, and the parts added. */
typedef struct parts_gpu {
    gpu_view view;
    uint64_t n;
} parts_gpu;

#define PARTS_MOST (1152u * 64 * 64) /* n of which more is not used */

/* How a product of n_tok x n_out sums of n_term terms is cut, which kernel k makes with a matrix of
 * this type by run_tiles(): the parts, and the terms of each. */
typedef struct sum_cut {
    uint32_t n_part, n_term;
} sum_cut;
sum_cut cut_sums(const kernel_steps *s, const kernel *k, uint32_t type, parts_gpu room,
                 uint32_t n_tok, uint32_t n_out, uint32_t n_term);
/* out [n] (add: to what is there) = sum of parts [n_part, n], in their order; n a multiple of 4. */
void op_sum_parts(kernel_steps *s, gpu_view parts, uint32_t n_part, uint64_t n, gpu_view out,
                  bool add);

/* out [n_tok, n_row] = x [n_tok, n_col] * (the first n_row rows of W)^T. */
void op_matmul(kernel_steps *s, const weight *w, uint32_t n_row, gpu_view x, gpu_view out,
               uint32_t n_tok);
/* exact: on matrix units, too, W is not rounded to f16, which costs half as much time again. */
void op_matmul_cut(kernel_steps *s, const weight *w, uint32_t n_row, parts_gpu room, bool exact,
                   gpu_view x, gpu_view out, uint32_t n_tok);
/* out [n_tok, n_row] = gelu(x * gate^T + delta[0]) * (x * up^T + delta[1]); delta [n_tok, 2, n_row]
 * is what adapters add, id 0: nothing. */
void op_matmul_geglu(kernel_steps *s, const weight *gate, const weight *up, gpu_view x,
                     gpu_buffer delta, gpu_view out, uint32_t n_tok);
/* out [n_tok, w.n] = scale * rms(x) * w; vectors: weights.vector_buffer. */
void op_rmsnorm(kernel_steps *s, gpu_buffer vectors, const vector *w, float eps, float scale,
                gpu_view x, gpu_view out, uint32_t n_tok);
/* x = scale * (x + rms(update) * post), in place; then norm = rms(x) * w. w NULL: no norm. */
void op_add_rmsnorm(kernel_steps *s, gpu_buffer vectors, const vector *post, const vector *w,
                    float eps, float scale, gpu_view update, gpu_view x, gpu_view norm,
                    uint32_t n_tok);

/* out [n_tok, n_col] = scale * the rows of W with these ids [n_tok] u32. */
void op_embed(kernel_steps *s, const weight *w, float scale, gpu_view ids, gpu_view out,
              uint32_t n_tok);
/* e [n_tok, n_run, w.n], in place on the projection: (rms(in_scale * e) * w + token) / sqrt(2), the
 * per-layer embeddings of the first n_run layers; token: scaled rows of the table. */
void op_ple_input(kernel_steps *s, gpu_buffer vectors, const vector *w, float eps, float in_scale,
                  gpu_view token, gpu_view e, uint32_t n_run, uint32_t n_tok);

static inline gpu_view whole(gpu_buffer b) { return (gpu_view){.buffer = b}; }

#endif
