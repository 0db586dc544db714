/* safetensors: a file of named tensors behind a JSON header: adapters, checkpoints, golden values.
 *
 * Flow: file.h before; model/lora_read.c and train/checkpoint.c after. */
#ifndef CARAT_SAFETENSORS_H
#define CARAT_SAFETENSORS_H

#include "file/file.h"

typedef struct safetensor {
    const char *name;
    char dtype[8]; /* "F32", "F16", "BF16", "U8", ... */
    uint32_t n_dims;
    uint64_t ne[8];        /* slowest first, as the file says */
    uint64_t offset, size; /* absolute bytes */
} safetensor;

typedef struct safetensors {
    source *src;
    size_t n;
    const safetensor *tensors; /* [n] */
    const json *metadata;      /* "__metadata__", or NULL */
} safetensors;

bool safetensors_open(arena *a, source *src, safetensors **out, carat_error *err);
const safetensor *safetensors_find(const safetensors *s, const char *name);
/* Reads a tensor of F32, F16 or BF16 as f32 [its element count]. */
bool safetensors_read_f32(const safetensors *s, const safetensor *t, float *out, carat_error *err);

#endif
