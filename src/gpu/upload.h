/* upload: weights from the file to GPU buffers, in pieces of at most 8 MiB, repacked on the way so
 * that every block starts at a multiple of 4 bytes. Never more than a few pieces in host memory.
 *
 * Packed layout. A format whose block is a multiple of 4 bytes (F32, Q4_1, Q5_1, Q2_K, Q4_K, Q5_K,
 * IQ4_XS, NVFP4) and F16, BF16 stay as they are. The others (Q4_0, Q5_0, Q8_0, Q3_K, Q6_K, IQ4_NL,
 * MXFP4) are stored as eights of blocks, counted through the whole tensor: block b is number b % 8
 * of eight b / 8. An eight is 16 bytes with the eight 16-bit scales (MXFP4: its 8-bit exponents,
 * zero-extended), then the blocks' remaining bytes in file order, which are at multiples of 16
 * bytes for all but Q5_0 and Q3_K. So an eight costs exactly eight blocks (MXFP4: 144 bytes for
 * 136). What is missing of the last eight is zero.
 *   bytes of an eight: Q4_0, IQ4_NL, MXFP4 144, Q5_0 176, Q8_0 272, Q3_K 880, Q6_K 1680.
 * kernels/lib/ (one file a format) reads this layout.
 *
 * Flow: file/gguf.c before, model/text_gpu.c after. */
#ifndef CARAT_UPLOAD_H
#define CARAT_UPLOAD_H

#include "file/file.h"
#include "gpu/gpu.h"

/* Bytes of n values of a type in the packed layout. */
uint64_t upload_packed_bytes(uint32_t type, uint64_t n);
/* Packs blocks [n_block] in file order; out has upload_packed_bytes(). */
void upload_pack(uint32_t type, const void *blocks, uint64_t n_block, void *out);
/* How many rows of n_col values may start a tile: a multiple that keeps eights whole. */
uint32_t upload_row_step(uint32_t type, uint32_t n_col);

struct weight;

/* One weight after the other, a piece at a time. */
typedef struct upload upload;

/* matrices: NULL-terminated, see model_matrices(). Their tiles are planned here, in memory of a,
 * which outlives the upload, and get their buffers as they are loaded. */
bool upload_create(arena *a, gpu *g, struct weight **matrices, upload **out, carat_error *err);
/* Does one piece. *done: all is submitted and finished. Returns true with *busy when the device
 * should work first. */
bool upload_advance(upload *u, bool *busy, bool *done, carat_error *err);
uint64_t upload_bytes_done(const upload *u);
uint64_t upload_bytes_total(const upload *u);
void upload_free(upload *u); /* keeps the buffers that are already in the weights */
/* Frees the buffers of the tiles; the matrices can be uploaded again. */
void upload_free_weights(gpu *g, struct weight **matrices);

#endif
