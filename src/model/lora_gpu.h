/* lora_gpu: the adapters in use, on the device. The projections that read the same input are a
 * group: u = A x is made for all of them and all adapters at once (their ranks side by side), then
 * B u is added. For many tokens these are two dispatches; for one token the stages do it themselves
 * (decode_gpu.c). A and B are f16, normed by rank so that their range does not matter.
 *
 * Flow: lora.c before; engine.c owns them, text_gpu.c, prefill_gpu.c, decode_gpu.c and moe_gpu.c
 * add them. CPU twin: ref_lora(). */
#ifndef CARAT_LORA_GPU_H
#define CARAT_LORA_GPU_H

#include "gpu/kernel.h"
#include "model/lora.h"

typedef enum lora_input {
    LORA_INPUT_QKV, /* Q, K, V: their rows one after the other */
    LORA_INPUT_OUT,
    LORA_INPUT_FFN, /* gate, up */
    LORA_INPUT_DOWN,
    LORA_INPUTS
} lora_input;

typedef struct lora_group {
    gpu_buffer buffer; /* one for all groups of a layer. Factors [n_rank] f32,
                             A [n_rank, n_col] f16, B [n_row, rank] f16; of
                             the embedding A [n_col, n_rank] */
    uint32_t rank;     /* of a target, all adapters together; a multiple of 8; 0: nothing to add */
    uint32_t n_rank;   /* of all targets */
    uint32_t n_col, n_row;
    uint32_t end0, end1;      /* rows where the first and the second target end */
    uint32_t factors, a0, b0; /* where these begin: words, multiples of 4 */
} lora_group;

typedef struct lora_gpu lora_gpu;

/* Packs and writes n > 0 adapters of model m. CARAT_E_MEMORY when there is no room. */
bool lora_gpu_create(const model *m, gpu *g, const lora_use *uses, uint32_t n, lora_gpu **out,
                     carat_error *err);
void lora_gpu_free(lora_gpu *l);
uint64_t lora_gpu_bytes(const lora_gpu *l);
/* Floats a token that u and delta (of gate and up) need at most. */
uint32_t lora_gpu_inner(const lora_gpu *l);
uint32_t lora_gpu_delta(const lora_gpu *l);
/* The largest rank of the down projections. */
uint32_t lora_gpu_down(const lora_gpu *l);

/* What is added in layer il, to embeddings, to logits; NULL: nothing. l may be NULL. */
const lora_group *lora_gpu_at(const lora_gpu *l, uint32_t il, lora_input which);
const lora_group *lora_gpu_embed(const lora_gpu *l);
const lora_group *lora_gpu_head(const lora_gpu *l);

/* ---- recording; g NULL: nothing ---- */

/* u [n_tok, n_rank] = factors * A x, x [n_tok, n_col]. */
void op_lora_down(kernel_steps *s, const lora_group *g, gpu_view x, gpu_buffer u, uint32_t n_tok);
/* out [n_tok, n_row] (+)= rows [row0, row0 + n_row) of B u. */
void op_lora_up(kernel_steps *s, const lora_group *g, uint32_t row0, uint32_t n_row, gpu_buffer u,
                gpu_buffer out, uint32_t n_tok, bool add);
/* Both: out [n_tok, g->n_row] += B A x. */
void op_lora(kernel_steps *s, const lora_group *g, gpu_view x, gpu_buffer u, gpu_buffer out,
             uint32_t n_tok);
/* x [n_tok, n_embd] += scale * B A[:, ids]. */
void op_lora_embed(kernel_steps *s, const lora_group *g, float scale, gpu_buffer ids, gpu_buffer x,
                   uint32_t n_tok);

#endif
