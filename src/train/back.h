/* back: the loss of a batch of tokens and its exact gradients, on the CPU: what the kernels of
 * training are tested against. ops_back.c has the operations' derivatives, experts_back.c those of
 * a mixture of experts, back_cpu.c the network forwards and backwards.
 *
 * The frozen matrices are read as they are stored; only the adapter has gradients.
 *
 * Flow: dataset.c makes the batches before, adamw.c uses the gradients after. */
#ifndef CARAT_BACK_H
#define CARAT_BACK_H

#include "model/lora.h"

/* ---- ops_back.c: given the gradient of what an operation puts out, those of what it takes in.
 * "+=": is added to what is there. ---- */

/* din [n_tok, n_col] += dout [n_tok, n_row] W */
void back_matmul(const weight *w, uint32_t expert, const float *dout, uint32_t n_tok, float *din);
/* dx += of ref_rmsnorm(x, w); rows [n_tok, n] */
void back_rmsnorm(const float *x, const float *w, const float *dout, uint32_t n_tok, uint32_t n,
                  float eps, float *dx);
/* In place: a rotation back. */
void back_rope(float *dx, const float *cos_sin, uint32_t n_head, uint32_t head_dim, uint32_t n_rot);
/* One head and query, as ref_attend(); scores [2 n] is scratch. dq is set, dk and dv += */
void back_attend(const float *q, const float *k, const float *v, const float *dout, uint32_t n,
                 uint32_t stride, uint32_t head_dim, float *scores, float *dq, float *dk,
                 float *dv);
/* out = gelu(gate) up; dgate and dup are set; dup may be NULL, and either may be dout. */
void back_geglu(const float *gate, const float *up, const float *dout, size_t n, float *dgate,
                float *dup);
/* y is what the cap put out; dx in place of dy */
void back_softcap(const float *y, size_t n, float cap, float *dx);
/* -log softmax(logits)[target]; logits become the gradient of `scale` times that. */
double back_cross_entropy(float *logits, size_t n, int32_t target, float scale);
/* As ref_lora() with scale 1: grad += (of A and B), din += unless NULL. inner [2, n_tok, rank] is
 * scratch. in is what A saw, after dropout. */
void back_lora(const lora_pair *p, const float *in, const float *dout, uint32_t n_tok, float *inner,
               lora_pair *grad, float *din);
/* As ref_lora_embed() with scale 1: grad += */
void back_lora_embed(const lora_pair *p, int32_t token, const float *dx, lora_pair *grad);
/* out = in with each value dropped with probability p, else divided by 1 - p; by key and place. */
void ref_dropout(const float *in, size_t n, float p, uint64_t key, float *out);

/* ---- experts_back.c ---- */

typedef struct experts experts; /* room for one token */

bool experts_create(arena *a, const model *m, experts **out, carat_error *err);
/* sum [n_tok, n_embd] = (19) of y [n_tok, n_embd], before its norm */
void experts_forward(experts *x, uint32_t il, const float *y, uint32_t n_tok, float *sum);
/* dy += given dsum; which experts are chosen counts as constant, how much they count does not */
void experts_backward(experts *x, uint32_t il, const float *y, const float *dsum, uint32_t n_tok,
                      float *dy);

/* ---- back_cpu.c ---- */

/* Tokens whose logits are there at once; on the device, too, since dropout goes by place. A view of
 * as many u32 there is a multiple of 256 bytes, which views want. */
#define BACK_HEAD_ROWS 64u

/* Tokens of one sample, or of several packed behind each other, which do not see each other. */
typedef struct train_batch {
    uint32_t n_tok;
    const int32_t *tokens; /* [n_tok] */
    const uint32_t *start; /* [n_tok] where the token's sample begins */
    const float *weight;   /* [n_tok] how much its prediction counts; 0: not */
    uint64_t seed;         /* of dropout */
} train_batch;

typedef struct back_cpu back_cpu;

/* Room for batches of n_max tokens. recompute: only the layers' inputs are kept, the rest is
 * computed again on the way back. Matrices must be resident. The adapter is borrowed. */
bool back_cpu_create(const model *m, const lora *adapter, uint32_t n_max, bool recompute,
                     back_cpu **out, carat_error *err);
void back_cpu_free(back_cpu *b);
/* *loss = sum of weight * -log p(token). grad += scale times its gradients; NULL: only the loss,
 * without dropout. */
bool back_cpu_run(back_cpu *b, const train_batch *batch, float scale, lora *grad, double *loss,
                  carat_error *err);
uint64_t back_cpu_bytes(const back_cpu *b);
/* Which values a slot's dropout drops; block: the first of the head's rows, 0 in layers. */
static inline uint64_t back_dropout_key(const train_batch *in, uint32_t slot, uint32_t block) {
    return lora_random(lora_random(in->seed, slot), block);
}
/* The lowest layer that gradients have to reach; n_layer: only the head is adapted. */
uint32_t back_first_layer(const lora *adapter);

#endif
