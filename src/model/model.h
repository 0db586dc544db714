/* model: the network. config.c reads what it looks like, weights.c binds every tensor to a field
 * and checks its shape. text_cpu.c is the definition, text_gpu.c the fast twin.
 *
 * Flow: file/gguf.c before; text_cpu.c, text_gpu.c after; engine.c owns it. */
#ifndef CARAT_MODEL_H
#define CARAT_MODEL_H

#include "base/base.h"
#include "file/file.h"
#include "gpu/gpu.h"
#include "token/token.h"

#define MODEL_MAX_LAYERS 256

/* ---- config.c ---- */

typedef struct layer_config {
    bool sliding; /* sliding-window attention, else global */
    bool owns_kv; /* computes and stores its own K and V */
    bool k_eq_v;  /* V is the raw K projection (no attn_v tensor) */
    bool moe;
    uint32_t donor; /* the layer whose KV is read: itself, or for shared layers the donor */
    uint32_t n_head, n_kv, head_dim, n_ff;
    uint32_t n_rot; /* rotated pairs: head_dim/2, fewer on global layers */
    float rope_base;
    uint32_t window; /* keys visible, the query included; 0: all */
} layer_config;

typedef struct model_config {
    uint32_t n_layer, n_embd, n_vocab, n_ctx_train;
    uint32_t n_ple;   /* per-layer embedding width; 0: none */
    uint32_t n_owner; /* layers [0, n_owner) own KV */
    uint32_t n_expert, n_expert_used, n_ff_expert;
    uint32_t window;        /* of the sliding layers */
    float rms_eps, softcap; /* softcap 0: off */
    bool vision_bidirectional;
    layer_config layers[MODEL_MAX_LAYERS];
} model_config;

/* From metadata and tensor shapes only. */
bool config_read(const gguf *g, model_config *out, carat_error *err);

/* ---- weights.c, bind.c ---- */

/* A row range of a weight that fits one binding of the device. */
typedef struct weight_tile {
    gpu_buffer buffer;
    uint32_t row0, n_row;
} weight_tile;

/* A matrix [n_row, n_col] (rows of n_col contiguous values), or n_expert of them. */
typedef struct weight {
    const gguf_tensor *tensor;       /* NULL: this model has none */
    uint32_t type;                   /* quant_type */
    uint32_t n_col, n_row, n_expert; /* n_expert 1 for plain matrices */
    const uint8_t *host;             /* [n_expert, n_row, n_col] blocks as in the file; CPU only */
    float scale;                     /* NVFP4's external scale, 1 otherwise */
    const float *expert_scale;       /* [n_expert] NVFP4's, or NULL */
    weight_tile *tiles;              /* [n_tile] GPU only; rows count over all experts */
    uint32_t n_tile;
} weight;

/* A vector of f32, always resident on the host; offset is its place in weights.vectors. */
typedef struct vector {
    const gguf_tensor *tensor; /* NULL: absent (data may still be a default) */
    const float *data;         /* [n] */
    uint32_t n;
    uint32_t offset; /* in floats, into the packed vector buffer on the GPU */
} vector;

typedef struct layer_weights {
    vector attn_norm, q_norm, k_norm, post_attn_norm, ffn_norm, post_ffn_norm;
    weight q, k, v, out; /* k, v: owners only; v.tensor NULL with k_eq_v */
    weight gate, up, down;
    float scale;               /* layer_output_scale, 1 when absent */
    weight ple_gate, ple_proj; /* n_ple > 0 */
    vector ple_norm;
    weight router;             /* MoE from here on; [n_expert, n_embd] */
    vector router_scale;       /* [n_embd] */
    weight gate_up_exps;       /* fused: rows 0..n_ff_expert-1 gate, then up; or */
    weight gate_exps, up_exps; /* split */
    weight down_exps;
    vector down_exps_scale; /* [n_expert], ones when absent */
    vector pre_norm_2, post_norm_1, post_norm_2;
} layer_weights;

typedef struct model_weights {
    weight embed;   /* token_embd [n_vocab, n_embd] */
    weight *output; /* the head: output.weight where there is one, else &embed */
    vector output_norm;
    vector rope_freqs;     /* [head_dim/2 of global layers] divisors of the angle */
    weight ple_embed;      /* [n_vocab, n_layer * n_ple]; rows are read from the file */
    weight ple_model_proj; /* [n_layer * n_ple, n_embd] */
    vector ple_proj_norm;  /* [n_ple] */
    layer_weights layers[MODEL_MAX_LAYERS];
    const float *vectors; /* [n_vectors] every vector, packed; each starts at a multiple of 4 */
    uint32_t n_vectors;
    gpu_buffer vector_buffer; /* the same on the GPU */
    uint64_t n_params;        /* of the text model, dead tensors left out */
} model_weights;

typedef struct model {
    gguf *gguf;
    model_config config;
    model_weights weights;
    tokenizer *tokenizer;
    weight **matrices; /* [n_matrix] and NULL: what model_matrices() hands out */
    uint32_t n_matrix;
    uint8_t *ple_row; /* scratch: a row of the PLE table as it is in the file */
} model;

/* Reads config and tokenizer, binds every tensor and loads the vectors (the small F32 ones). All
 * mismatches (missing, wrong shape, format not supported) are reported together, at most 8 named.
 * The gguf is owned by the model from then on (not after a failure); arena memory. */
bool model_open(arena *a, gguf *g, model **out, carat_error *err);
void model_close(model *m);
/* Reads the first n values of a row of the PLE table from the file, scaled by sqrt(n_ple):
 * out [n], n <= n_layer * n_ple and a multiple of n_ple. */
bool model_ple_row(const model *m, int32_t token, uint32_t n, float *out, carat_error *err);
/* Its first n blocks as they are in the file, not scaled. */
bool model_ple_blocks(const model *m, int32_t token, uint32_t n, uint8_t *out, carat_error *err);
/* cos and sin of positions pos.. for a layer type: out [n_tok, n_rot, 2]. Angles in f64; pair i is
 * (i, i + head_dim/2), pairs from n_rot on are not rotated. A type that no layer has: nothing. */
void model_rope_rows(const model *m, bool sliding, uint32_t pos, uint32_t n_tok, float *out);
/* Every matrix of the text model that the device must hold, in file order, for loading. NULL-
 * terminated; shared ones once; ple_embed is not among them. */
weight **model_matrices(arena *a, model *m, carat_error *err);
/* Bytes of these in the file. */
uint64_t model_matrix_bytes(const model *m);
/* For the CPU: reads the next piece (<= 8 MiB) of such a list into weight.host. *done: bytes read,
 * 0 at first; *finished: that was the last piece. On failure *done stays; memory is a's. */
bool weights_load_host(weight **matrices, arena *a, uint64_t *done, bool *finished,
                       carat_error *err);
/* A fingerprint of configuration, tensor table and vectors, to recognise the same model again. */
uint64_t model_fingerprint(const model *m);

/* ---- tap.c: named intermediate values, to compare two forwards layer by layer ---- */

/* data [n_tok, width]. Names: "embed" (il -1, scaled); in layer il "attn_norm", "q" "k" "v" (as
 * attention sees them: normed, rotated; owners only for k, v), "attn" (heads side by side),
 * "attn_out" (through Wo), "ffn_in" (normed), "ffn_out" and "ple" (before their post norms; with
 * experts "ffn_out" is the sum of both branches), "layer_out"; then, for tokens whose logits are
 * wanted, "final_norm" and "logits" (il n_layer). A long run comes in pieces of TEXT_CPU_CHUNK. */
typedef struct tap {
    void (*fn)(void *user, const char *name, int il, const float *data, uint32_t n_tok,
               uint32_t width);
    void *user;
} tap;

static inline void tap_out(const tap *t, const char *name, int il, const float *data,
                           uint32_t n_tok, uint32_t width) {
    if (t && t->fn) t->fn(t->user, name, il, data, n_tok, width);
}

/* ---- ops_cpu.c: the operations, textbook order, f32 ---- */

/* Products below which a second thread costs more than it brings (about 50 us of work). */
#define REF_PARALLEL (1u << 18)

float ref_dot(const float *a, const float *b, uint32_t n);
void ref_dequantise_row(const weight *w, uint64_t row, float *out); /* [n_col], scale applied */
/* out [n_tok, n_row] = in [n_tok, n_col] * W^T; OpenMP over rows. expert: which matrix. */
void ref_matmul(const weight *w, uint32_t expert, const float *in, uint32_t n_tok, float *out);
/* out = x / sqrt(mean(x^2) + eps) * w, rows [n_tok, n]; w NULL: no weight. In place is fine. */
void ref_rmsnorm(const float *x, const float *w, uint32_t n_tok, uint32_t n, float eps, float *out);
/* One token: x [n_head, head_dim], cos_sin [n_rot, 2]. */
void ref_rope(float *x, const float *cos_sin, uint32_t n_head, uint32_t head_dim, uint32_t n_rot);
/* One query head q [head_dim] over n keys k and values v, rows `stride` floats apart:
 * out [head_dim] = softmax(q k^T) v. scores [n] is scratch. No scale factor: Gemma 4 has none. */
void ref_attend(const float *q, const float *k, const float *v, uint32_t n, uint32_t stride,
                uint32_t head_dim, float *scores, float *out);
float ref_gelu(float x);
void ref_geglu(const float *gate, const float *up, size_t n, float *out);
void ref_softmax(float *x, size_t n);
void ref_softcap(float *x, size_t n, float cap);

/* ---- text_cpu.c: the definition of the text network ---- */

#define TEXT_CPU_CHUNK 256u /* tokens at a time */

typedef struct text_cpu text_cpu;

/* Weights must be resident (weight.host). Holds KV for n_ctx tokens (f32). */
bool text_cpu_create(const model *m, uint32_t n_ctx, text_cpu **out, carat_error *err);
void text_cpu_free(text_cpu *t);
/* From now on these n adapters (lora.h) are added; borrowed. n 0: none. */
struct lora_use;
void text_cpu_adapt(text_cpu *t, const struct lora_use *uses, uint32_t n);
/* From now on K and V are rounded to f16, as the GPU keeps them: for comparing the two forwards. */
void text_cpu_round_kv(text_cpu *t);
/* Runs tokens [n_tok] at positions pos.., writing KV. logits [n_out, n_vocab]: of the last n_out
 * tokens, soft-capped; n_out 0: none wanted. taps may be NULL. */
bool text_cpu_forward(text_cpu *t, const int32_t *tokens, uint32_t n_tok, uint32_t pos,
                      uint32_t n_out, float *logits, const tap *taps, carat_error *err);
/* The KV of positions [0, n) as bytes, for saving; and back. */
uint64_t text_cpu_kv_bytes(const text_cpu *t, uint32_t n);
void text_cpu_kv_save(const text_cpu *t, uint32_t n, void *out);
void text_cpu_kv_restore(text_cpu *t, uint32_t n, const void *in);

#endif
