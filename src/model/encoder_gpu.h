/* encoder_gpu: the fast twins of vision_cpu.c and audio_cpu.c: the same stages, fused for the
 * device. encoder_gpu.c brings an encoder's weights there and has what both share; vision_gpu.c and
 * audio_gpu.c turn pictures and sounds into soft tokens that stay on the device.
 *
 * Nothing here waits. An encoding is begun, then advanced: each step submits some work (tens of
 * milliseconds on a slow device). Whoever advances it lets the device catch up in between, see
 * encoder_gpu_busy(); stopping in the middle is free.
 *
 * Flow: encoder_bind.c and gpu/upload.c before; prefill_gpu.c takes the soft tokens. */
#ifndef CARAT_ENCODER_GPU_H
#define CARAT_ENCODER_GPU_H

#include "gpu/upload.h"
#include "model/encoder.h"
#include "model/ops_gpu.h"

/* ---- weights: encoder_gpu.c ---- */

/* What one encoder has on the device: its matrices (their weight.tiles) and its packed vectors. */
typedef struct encoder_gpu {
    arena *memory;
    gpu *gpu;
    weight **matrices;
    const float *host_vectors; /* [n_vectors] */
    uint32_t n_vectors;
    gpu_buffer vectors; /* [n_vectors] f32; vector.offset counts in it */
    upload *upload;     /* NULL when all is there */
    uint64_t bytes;     /* of the matrices in the file */
} encoder_gpu;

/* Begins to bring an encoder to the device: matrices, vectors and n_vectors of a vision (or audio),
 * which outlives it. Not a second time before encoder_gpu_free(). */
bool encoder_gpu_create(gpu *g, weight **matrices, const float *vectors, uint32_t n_vectors,
                        encoder_gpu **out, carat_error *err);
/* One piece further. *busy: the device should work first. *done: all is there. */
bool encoder_gpu_load(encoder_gpu *e, bool *busy, bool *done, carat_error *err);
void encoder_gpu_progress(const encoder_gpu *e, uint64_t *done, uint64_t *total); /* bytes */
/* Frees what is on the device, whatever has been loaded; it can be created again. Encodings that
 * use it must be freed before. NULL is fine. */
void encoder_gpu_free(encoder_gpu *e);

/* Whether the device has enough to do: then poll or wait before advancing an encoding. */
static inline bool encoder_gpu_busy(gpu *g) { return g->api->pending(g) >= 3; }

/* ---- vision_gpu.c ---- */

typedef struct vision_gpu vision_gpu;

/* For any number of pictures, one after the other. e must be loaded completely before the first one
 * begins; v, e, g and cache outlive it. */
bool vision_gpu_create(const vision *v, const encoder_gpu *e, gpu *g, kernel_cache *cache,
                       vision_gpu **out, carat_error *err);
void vision_gpu_free(vision_gpu *t);
/* Bytes of device memory that a picture of n_col x n_row patches takes beside the weights. They are
 * kept for the next picture until vision_gpu_free(). */
uint64_t vision_gpu_memory(const vision *v, uint32_t n_col, uint32_t n_row);
/* Begins with a picture of n_row x n_col patches [n_row, n_col, side, side, 3], which may be freed
 * afterwards. soft [n_soft, n_out] f32 (GPU_STORAGE, n_soft = vision_soft_tokens()) is filled when
 * all is done. An encoding that was under way is given up. */
bool vision_gpu_begin(vision_gpu *t, const uint8_t *patches, uint32_t n_col, uint32_t n_row,
                      gpu_buffer soft, carat_error *err);
/* Submits some more. *finished: all is submitted; what is recorded after finds soft filled. */
bool vision_gpu_advance(vision_gpu *t, bool *finished, carat_error *err);
void vision_gpu_progress(const vision_gpu *t, uint64_t *done, uint64_t *total); /* work */
/* [n_soft, n_embd] f32 of the last picture: pooled, standardised; valid until the next one. */
gpu_buffer vision_gpu_tower(const vision_gpu *t);

/* ---- audio_gpu.c: the same for sounds ---- */

typedef struct audio_gpu audio_gpu;

bool audio_gpu_create(const audio *a, const encoder_gpu *e, gpu *g, kernel_cache *cache,
                      audio_gpu **out, carat_error *err);
void audio_gpu_free(audio_gpu *t);
/* For n frames of a spectrogram; direct: for n samples. */
uint64_t audio_gpu_memory(const audio *a, uint32_t n);
/* Begins with a spectrogram [n, MEL_BANDS]; direct: with samples [n] at MEL_RATE. It may be freed
 * afterwards. soft [n_soft, n_out] f32, n_soft = audio_soft_tokens(). */
bool audio_gpu_begin(audio_gpu *t, const float *input, uint32_t n, gpu_buffer soft,
                     carat_error *err);
bool audio_gpu_advance(audio_gpu *t, bool *finished, carat_error *err);
void audio_gpu_progress(const audio_gpu *t, uint64_t *done, uint64_t *total);
/* [n_soft, n_mid] f32 of the last sound; valid until the next one. */
gpu_buffer audio_gpu_tower(const audio_gpu *t);

/* ---- operations of both: encoder_gpu.c ---- */

#define CLIPPED_MAX_PARTS 4u

/* out [n_tok, n_row] = clamp(clamp(x [n_tok, n_col]) * W^T). */
void op_clipped(kernel_steps *s, const clipped *c, gpu_view x, gpu_view out, uint32_t n_tok);
/* The same, then y * sigmoid(y) of it. */
void op_clipped_silu(kernel_steps *s, const clipped *c, gpu_view x, gpu_view out, uint32_t n_tok);
/* The same as op_clipped() in parts that are still to be added, then clamped as the output is:
 * out [n_part, n_tok, n_row]. op_clipped_count(): how many it takes to keep a device busy. */
void op_clipped_parts(kernel_steps *s, const clipped *c, gpu_view x, gpu_view out, uint32_t n_tok,
                      uint32_t n_part);
uint32_t op_clipped_count(const clipped *c, uint32_t n_tok); /* 1 to CLIPPED_MAX_PARTS */
/* out [n_tok, n_ff] = gelu(gate x) * (up x), clamped both; they must clamp their input alike. */
void op_geglu_clipped(kernel_steps *s, const clipped *gate, const clipped *up, gpu_view x,
                      gpu_view out, uint32_t n_tok);
/* A limit as kernels take it: WGSL has no infinities. */
float encoder_gpu_limit(float limit);

#endif
