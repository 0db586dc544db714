/* moe_gpu: what training shares with moe_gpu.c: which experts a token's router picks, their tokens
 * side by side, and the experts' scales.
 *
 * Flow: ops_gpu.h below; moe_gpu.c and train/experts_gpu.c above. */
#ifndef CARAT_MOE_GPU_H
#define CARAT_MOE_GPU_H

#include "model/ops_gpu.h"

#define MOE_MAX_EXPERTS 256u /* of moe_topk.wgsl and moe_lists.wgsl */

enum { MOE_SCALE_GATE, MOE_SCALE_UP, MOE_SCALE_DOWN, MOE_N_SCALE };

/* n_pick = n_tok * n_expert_used of them. */
typedef struct moe_picks {
    gpu_buffer logits;      /* [n_tok, n_expert] */
    gpu_buffer ids, weight; /* [n_pick] */
    gpu_buffer order;       /* [n_pick] picks by expert */
    gpu_buffer tiles;       /* [moe_gpu_tiles(), 4] see moe_lists.wgsl */
} moe_picks;

/* Whether the kernels take this many experts, and the device holds each whole in a binding. */
bool moe_gpu_check(const model *m, carat_error *err);
uint32_t moe_gpu_tiles(const model_config *c, uint32_t n_tok);
/* Fills picks, reading y [n_tok, n_embd]. */
void moe_gpu_route(kernel_steps *s, const model *m, uint32_t il, gpu_view y, const moe_picks *picks,
                   uint32_t n_tok);
/* NVFP4's external scales, and each expert's own: out [MOE_N_SCALE, n_expert] of one layer. */
void moe_gpu_scales(const layer_weights *w, uint32_t n_expert, float *out);

#endif
