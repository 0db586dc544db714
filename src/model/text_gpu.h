/* text_gpu: the fast twin of text_cpu.c. Same stages, same names, fused for the device:
 * decode_gpu.c runs one token in at most 7 dispatches a dense layer, prefill_gpu.c a chunk of the
 * prompt with tiled matmuls, moe_gpu.c the experts of both.
 *
 * Nothing here waits: a run is submitted, its results are read back with gpu_read().
 *
 * Flow: model/weights.c and gpu/upload.c before; session.c after. */
#ifndef CARAT_TEXT_GPU_H
#define CARAT_TEXT_GPU_H

#include "gpu/kernel.h"
#include "model/encoder.h"
#include "model/lora_gpu.h"
#include "model/ple_gpu.h"

#define TEXT_GPU_CHUNK      512u  /* tokens of a prefill chunk, at most */
#define TEXT_GPU_CANDIDATES 256u  /* logits that come back from a step */
#define TEXT_GPU_LISTED     1024u /* room for them: more are listed when logits tie */
#define TEXT_GPU_BINS       2048u /* of the histogram that finds them */
#define TEXT_GPU_MAX_SPLIT  64u   /* of the keys in decode attention */
#define TEXT_GPU_SCORE_ROWS 32u   /* rows of logits at a time while scoring */

/* What changes with every step; binding 1 of the kernels that ask for it (lib/step.wgsl). */
typedef struct step_uniform {
    uint32_t pos;   /* of the first token of this run */
    uint32_t n_tok; /* tokens of this run */
    uint32_t free[2];
} step_uniform;

/* K and V of one owning layer: f16 pairs, [n_slot, n_kv * head_dim] each. Position p is in slot
 * p % n_slot: n_slot = window for sliding layers (a ring), n_ctx for global ones. */
typedef struct kv_gpu {
    gpu_buffer k, v;
    uint32_t n_slot, row_bytes;
} kv_gpu;

/* Inputs of decode, which takes one token: also of the last one of a prompt, when the layers above
 * the last KV owner run for it alone. They are in one buffer, since each write costs time between
 * two tokens: the token's id at byte 0, the others at these. */
enum {
    ONE_STEP = 256,                    /* step_uniform */
    ONE_ROPE = 512,                    /* [n_rot, 2] f32 for sliding layers */
    ONE_ROPE_GLOBAL = ONE_ROPE + 2048, /* the same for global ones */
    ONE_PLE = ONE_ROPE_GLOBAL + 2048,  /* [n_layer * n_ple] f32: scaled row of the table */
};
typedef struct one_token {
    gpu_buffer inputs;
    gpu_buffer ple; /* [n_layer, n_ple] projection of the embedding, then ple_input's e */
    uint8_t *host;  /* what goes to `inputs` */
    uint32_t pos;   /* the position that `host` is for; UINT32_MAX: none */
} one_token;

typedef struct text_gpu {
    const model *model;
    gpu *gpu;
    kernel_cache *cache;
    kernel_steps *decode, *prefill; /* memoised call sequences */
    uint32_t n_ctx, n_chunk;        /* n_chunk <= TEXT_GPU_CHUNK, or a larger picture's */
    kv_gpu kv[MODEL_MAX_LAYERS];    /* of owners */
    /* Prefill's window of a sliding layer: the ring's tokens in order, then the chunk's.
     * [0] for most layers, [1] for the donor of the shared ones, whose keys must last. */
    gpu_buffer stage_k[2], stage_v[2];
    one_token one;
    /* Inputs of a prefill run, written before it. */
    gpu_buffer step;                      /* step_uniform */
    gpu_buffer ids;                       /* [n_chunk] u32 */
    gpu_buffer last_seen;                 /* [n_chunk] u32, see attention.wgsl; if there are */
    bool pictures;                        /* whose tokens see each other */
    gpu_buffer rope_sliding, rope_global; /* [n_chunk, n_rot, 2] f32 */
    /* Values of a run, f32. */
    gpu_buffer x[2];       /* [n_chunk, n_embd] residual stream, ping-pong */
    gpu_buffer norm;       /* [n_chunk, n_embd] */
    gpu_buffer qkv;        /* decode: [q, k, v] raw rows of one token, then h */
    gpu_view h;            /* decode: [n_embd] residual stream that attention's update is for */
    gpu_buffer q, k, v;    /* prefill: [n_chunk, n_head * head_dim], [n_chunk, n_kv * head_dim] */
    gpu_buffer attn;       /* [n_chunk, n_head * head_dim]; decode: partial results of the splits */
    gpu_buffer attn_stat;  /* decode: maximum and sum of each split */
    gpu_buffer attn_out;   /* [n_chunk, n_embd] */
    gpu_buffer act;        /* [n_chunk, n_ff] gelu(gate) * up */
    gpu_buffer ffn_out;    /* [n_chunk, n_embd] */
    gpu_buffer ple_token;  /* [n_chunk, n_layer * n_ple] scaled rows of the table; n_owner of them
                              unless all layers run */
    gpu_buffer ple_proj;   /* the same rows as they are stored, written before a run; then
                              [n_chunk, n_layer * n_ple] projection of the embedding, raw */
    gpu_buffer ple_gate;   /* [n_chunk, n_ple] */
    gpu_buffer ple_out;    /* [n_chunk, n_embd] */
    gpu_buffer logits;     /* [max(1, TEXT_GPU_SCORE_ROWS), n_vocab] */
    gpu_buffer topk;       /* candidates: u32 count, f32 logsumexp, ..., then (id, logit) pairs */
    gpu_buffer scores;     /* [n_chunk] log-probabilities */
    gpu_buffer targets;    /* [n_chunk] i32, -1: none */
    gpu_buffer topk_work;  /* histogram */
    gpu_buffer parts;      /* prefill: sums that several workgroups share; none in software */
    const lora_gpu *lora;  /* adapters in use, or NULL */
    gpu_buffer lora_u;     /* [n_chunk, lora_gpu_inner()] */
    gpu_buffer lora_delta; /* [n_chunk, lora_gpu_delta()] what they add to gate and up */
    float *rope_host;      /* staging for the inputs above */
    int32_t *ids_host;     /* [n_chunk] */
    ple_host ple;          /* [n_chunk] */
    uint32_t x_at;         /* which x holds the residual stream now */
    struct moe_gpu *moe;   /* moe_gpu.c's own buffers, or NULL */
    arena *memory;
} text_gpu;

/* ---- text_gpu.c ---- */

/* Weights must be on the device (weight.tiles, weights.vector_buffer). */
bool text_gpu_create(const model *m, gpu *g, kernel_cache *cache, uint32_t n_ctx, text_gpu **out,
                     carat_error *err);
void text_gpu_free(text_gpu *t);
/* From the next run on these adapters are added; borrowed. NULL: none. What was computed before
 * stays, so it is for the beginning. On failure none are in use. */
bool text_gpu_adapt(text_gpu *t, const lora_gpu *adapters, carat_error *err);
/* Bytes that text_gpu_create() will take: fixed and for each token of context. */
void text_gpu_memory(const model *m, uint64_t *kv_fixed, uint64_t *kv_token, uint64_t *scratch);

/* Submits a run of ids [n_tok] at pos.. With `head` the last token's logits are computed and its
 * candidates selected; text_gpu_read(), which must follow, submits the end of it and reads them.
 * n_tok <= n_chunk. */
bool text_gpu_run(text_gpu *t, const int32_t *ids, uint32_t n_tok, uint32_t pos, bool head,
                  carat_error *err);
/* The same with soft tokens (span.device); with `head` the last one must be a token. A picture
 * whose tokens see each other must be in one run, for which n_tok may be larger than n_chunk. */
bool text_gpu_run_soft(text_gpu *t, const text_input *in, bool head, carat_error *err);
/* Starts reading the candidates (all = false) or all logits [n_vocab] (all = true). */
gpu_ticket text_gpu_read(text_gpu *t, bool all, carat_error *err);
size_t text_gpu_read_bytes(const text_gpu *t, bool all);
/* Unpacks what text_gpu_read(false) brought: candidates best first (room for
 * TEXT_GPU_LISTED, TEXT_GPU_CANDIDATES are meant). *lse:
 * log of the sum of exp of all logits. Returns their number; 0: too many ties, read all. */
uint32_t text_gpu_candidates(const text_gpu *t, const void *bytes, candidate *out, float *lse);
/* Scoring: submits a run in which every layer runs for every token; afterwards the log-probability
 * of ids[i + 1] given ids[..i] is at row i. targets [n_tok]: -1 for none. Read [n_tok] f32 with
 * text_gpu_read_scores(). */
bool text_gpu_score(text_gpu *t, const int32_t *ids, const int32_t *targets, uint32_t n_tok,
                    uint32_t pos, carat_error *err);
gpu_ticket text_gpu_read_scores(text_gpu *t, uint32_t n_tok, carat_error *err);
/* Copies of the rings at a position, so that a conversation can go back to it. */
typedef struct kv_snapshot {
    gpu_buffer buffer;
    uint32_t pos;
} kv_snapshot;
bool text_gpu_snapshot(text_gpu *t, uint32_t pos, kv_snapshot *out, carat_error *err);
void text_gpu_rewind(text_gpu *t, const kv_snapshot *snapshot);
/* Whether the rings still hold what a step at `pos` needs when `length` tokens were run. */
bool text_gpu_can_rewind(const text_gpu *t, uint32_t length, uint32_t pos);
/* KV of positions [0, n) for saving: piece by piece, in a fixed order of layers. */
typedef struct kv_piece {
    gpu_buffer buffer;
    uint64_t size;
} kv_piece;
uint32_t text_gpu_kv_pieces(const text_gpu *t, uint32_t n, kv_piece *out); /* [2 * n_layer] */

/* x[0] = embedding of n_tok tokens; x_at = 0. */
void text_gpu_embed(text_gpu *t, kernel_steps *s, gpu_buffer ids, uint32_t n_tok);

/* What adapters add to gate and up of layer il, whose input is in t->norm, in t->lora_delta; id 0
 * when they add nothing. */
gpu_buffer text_gpu_adapt_ffn(const text_gpu *t, kernel_steps *s, uint32_t il, uint32_t n_tok);

/* ---- decode_gpu.c ---- */

/* Embedding and PLE projection of one token. */
void decode_gpu_inputs(text_gpu *t, kernel_steps *s);
/* Layers [first, n_layer) and the final norm for one token at pos, whose residual stream is row 0
 * of x[x_at]; leaves the normed vector in t->norm. */
void decode_gpu_layers(text_gpu *t, kernel_steps *s, uint32_t first, uint32_t pos);
/* Logits of t->norm, and the candidates. */
void decode_gpu_head(text_gpu *t, kernel_steps *s);

/* ---- prefill_gpu.c ---- */

/* Embedding (of t->ids; soft tokens are copied), PLE inputs and layers [0, n_run) for all tokens of
 * in; K and V end up in t->kv. The residual stream [n_tok, n_embd] is left in x[x_at]. */
void prefill_gpu_layers(text_gpu *t, kernel_steps *s, const text_input *in, uint32_t n_run);

/* After it, with all layers run: log-probabilities of t->targets [n_tok] in t->scores. */
void prefill_gpu_scores(text_gpu *t, kernel_steps *s, uint32_t n_tok);

/* ---- moe_gpu.c ---- */

bool moe_gpu_create(text_gpu *t, carat_error *err);
uint64_t moe_gpu_bytes(const model_config *c, uint32_t n_chunk); /* that it will take */
void moe_gpu_free(text_gpu *t);
/* The feed-forward part of layer il for n_tok tokens: reads y (after attention, residual added,
 * [n_tok, n_embd]), writes rmsw(dense) + rmsw(experts) to ffn_out; the caller goes on with
 * post_ffn_norm and the residual. */
void moe_gpu_ffn(text_gpu *t, kernel_steps *s, uint32_t il, gpu_buffer y, uint32_t n_tok);

#endif
