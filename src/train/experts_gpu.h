/* experts_gpu: a mixture of experts in training, on the device: forwards, and the gradient of what
 * it reads. Which experts are chosen counts as constant, how much they count does not. Nothing is
 * kept from the way forward: the way back computes it again.
 *
 * Flow: called by back_gpu.c. CPU twin: experts_forward(), experts_backward(). */
#ifndef CARAT_EXPERTS_GPU_H
#define CARAT_EXPERTS_GPU_H

#include "gpu/kernel.h"
#include "model/model.h"

typedef struct experts_gpu experts_gpu;

/* Room for n_max tokens. Weights must be on the device, and are borrowed. */
bool experts_gpu_create(const model *m, gpu *g, uint32_t n_max, experts_gpu **out,
                        carat_error *err);
void experts_gpu_free(experts_gpu *x);
/* What it holds, or would hold, on the device. */
uint64_t experts_gpu_bytes(const model *m, uint32_t n_max);

/* sum [n_tok, n_embd] = (19) of y [n_tok, n_embd], before its norm */
void experts_gpu_forward(experts_gpu *x, kernel_steps *s, uint32_t il, gpu_view y, gpu_view sum,
                         uint32_t n_tok);
/* dy += given dsum */
void experts_gpu_backward(experts_gpu *x, kernel_steps *s, uint32_t il, gpu_view y, gpu_view dsum,
                          gpu_view dy, uint32_t n_tok);

#endif
