/* ple_gpu: rows of the per-layer table for many tokens at once: copied to the device as they are in
 * the file, a fifth of their values' size, and expanded there.
 *
 * Flow: weights.c reads the file; text_gpu.c and train/back_gpu.c call. */
#ifndef CARAT_PLE_GPU_H
#define CARAT_PLE_GPU_H

#include "model/ops_gpu.h"

/* The rows on the host, as they are in the file and as kernels read them. */
typedef struct ple_host {
    uint8_t *raw, *packed;
} ple_host;

/* Bytes of a buffer for n_tok rows of all layers, as they are stored or as values, f32. 0: the
 * model has no table. */
uint64_t ple_buffer_bytes(const model *m, uint32_t n_tok);
bool ple_host_create(arena *a, const model *m, uint32_t n_tok, ple_host *out, carat_error *err);
/* Copies the first n_layer layers' blocks of the rows of ids [n_tok] to a buffer. */
bool ple_rows_write(const ple_host *h, gpu *g, const model *m, const int32_t *ids, uint32_t n_tok,
                    uint32_t n_layer, gpu_buffer to, carat_error *err);
/* out [n_tok, n_layer, n_ple] = those rows, scaled by sqrt(n_ple). */
void op_ple_rows(kernel_steps *s, const model *m, gpu_view rows, uint32_t n_tok, uint32_t n_layer,
                 gpu_view out);

#endif
