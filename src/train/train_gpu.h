/* train_gpu: learning on the device. back_gpu.c is the network forwards and backwards, train_gpu.c
 * holds the adapter, its gradients and moments there and takes the steps that train.c plans.
 *
 * Nothing here waits: train_gpu_advance() records and submits some of the work and says so.
 *
 * Flow: train.c and ops_train.h before; trainer_job.c after. CPU twin: train_cpu in train.h. */
#ifndef CARAT_TRAIN_GPU_H
#define CARAT_TRAIN_GPU_H

#include "gpu/kernel.h"
#include "train/train.h"

typedef struct train_gpu train_gpu;

/* Weights must be on the device. plan, adapter and moments (of the adapter's size) are borrowed:
 * what they hold is put on the device, what is learned comes back with train_gpu_fetch(). budget:
 * bytes beside the weights, which decide how many layers keep what their way back needs. */
bool train_gpu_open(const model *m, gpu *g, kernel_cache *cache, trainer *plan, lora *adapter,
                    adamw *moments, uint64_t budget, train_gpu **out, carat_error *err);
void train_gpu_free(train_gpu *t);
/* Bytes that it would hold, for the report before a run. */
uint64_t train_gpu_estimate(const model *m, const lora *adapter, uint32_t n_batch, uint64_t budget);

/* Goes on with the batch under way, or with the next one. *busy: the device is at it, call again
 * later; else *event is what has happened: a batch, a step, an evaluation, or the end. done of
 * total: pieces of the batch, of about the same size. */
bool train_gpu_advance(train_gpu *t, bool *busy, train_event *event, carat_error *err);
void train_gpu_progress(const train_gpu *t, uint32_t *done, uint32_t *total);
/* Brings the adapter's values and moments back. Between batches; *busy as above. */
bool train_gpu_fetch(train_gpu *t, bool *busy, carat_error *err);
/* The loss of the first sample with the adapter and without: *effect. Between batches. */
bool train_gpu_has_effect(train_gpu *t, bool *busy, bool *effect, carat_error *err);
uint64_t train_gpu_bytes(const train_gpu *t);
/* Layers that are computed again on the way back. */
uint32_t train_gpu_again(const train_gpu *t);

#endif
