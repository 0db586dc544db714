/* train: learning an adapter. dataset.c turns files into samples of tokens, back.h has the loss and
 * its gradients, adamw.c changes the adapter by them, train.c does one after the other in steps
 * that never take longer than one batch, checkpoint.c keeps it all in a file.
 *
 * Flow: token/chat.c and model/lora.c before. */
#ifndef CARAT_TRAIN_H
#define CARAT_TRAIN_H

#include "train/back.h"

/* ---- adamw.c ---- */

/* PyTorch's AdamW: weight decay apart from the gradient, moments with bias correction. */
typedef struct adamw {
    double beta1, beta2, eps, weight_decay;
    uint64_t n;
    float *m, *v;  /* [n] moments */
    uint32_t step; /* done */
} adamw;

/* Moments zero; betas 0.9 and 0.999, eps 1e-8. */
bool adamw_open(arena *a, uint64_t n, double weight_decay, adamw *out, carat_error *err);
void adamw_step(adamw *o, float *values, const float *grad, double lr);
/* The norm of all; where it is above max (0: none), grad is scaled down to max. */
double clip_norm(float *grad, uint64_t n, double max);

typedef enum schedule { SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_CONSTANT } schedule;

/* Of step [0, n_step): rises over n_warmup steps to lr, then falls to 0 (or stays). */
double schedule_lr(schedule s, double lr, uint32_t step, uint32_t n_warmup, uint32_t n_step);

#endif
