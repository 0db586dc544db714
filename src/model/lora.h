/* lora: adapters. For any of a layer's seven projections, for the embedding and for the head, a
 * pair of small matrices A and B whose product is added to the frozen one: y = W x + s B (A x).
 * lora.c makes and applies them, lora_read.c and lora_write.c know the two kinds of files: PEFT's
 * safetensors with adapter_config.json, and llama.cpp's GGUF adapters.
 *
 * All values of an adapter are one array, so that an optimiser sees a vector. A gradient, and each
 * moment, is an adapter of the same shape.
 *
 * Flow: weights.c before; text_cpu.c applies them, train/ learns them. */
#ifndef CARAT_LORA_H
#define CARAT_LORA_H

#include "model/model.h"

#define LORA_MAX_RANK 1024u

typedef enum lora_target {
    LORA_Q,
    LORA_K,
    LORA_V,
    LORA_OUT,
    LORA_GATE,
    LORA_UP,
    LORA_DOWN,
    LORA_TARGETS
} lora_target;

/* What people call what is adapted: the targets, the embedding, the head. */
enum { LORA_EMBED = LORA_TARGETS, LORA_HEAD, LORA_NAMES };
extern const char *const lora_names[LORA_NAMES];

typedef struct lora_pair {
    uint32_t rank; /* 0: nothing is added here */
    uint32_t n_col, n_row;
    float alpha, scale; /* scale: alpha / rank, or alpha / sqrt(rank) */
    float *a;           /* [rank, n_col]; of the embedding [rank, n_vocab] */
    float *b;           /* [n_row, rank] */
} lora_pair;

typedef struct lora {
    const model *model;
    uint32_t n_layer;
    lora_pair *layers; /* [n_layer, LORA_TARGETS] */
    lora_pair embed;   /* n_col n_vocab, n_row n_embd */
    lora_pair head;
    float *values; /* [n_value] all a and b, in the order of lora_pairs() */
    uint64_t n_value;
    uint32_t n_ignored; /* pairs of the file that do nothing here: K and V of layers that share */
    bool rslora;        /* scale is alpha / sqrt(rank) */
    float dropout;      /* as the file says, or as it is trained */
} lora;

/* An adapter in use; several add up. */
typedef struct lora_use {
    const lora *lora;
    float scale; /* the user's, 1 as it was trained */
} lora_use;

/* ---- lora.c ---- */

/* What a new adapter adapts. */
typedef struct lora_plan {
    uint32_t rank;
    float alpha;
    bool rslora;
    bool target[LORA_TARGETS];
    bool embed, head;
    uint32_t first, end; /* layers [first, end); end 0: all */
    float dropout;
    uint64_t seed;
} lora_plan;

/* Slot i of [0, lora_slots()): layers in order with their projections, then embedding, then head.
 * Those with rank 0 are not used. */
uint32_t lora_slots(const lora *l);
lora_pair *lora_slot(const lora *l, uint32_t i);
static inline lora_pair *lora_at(const lora *l, uint32_t il, lora_target p) {
    return &l->layers[(size_t)il * LORA_TARGETS + p];
}
/* The frozen matrix under a projection; NULL: this layer computes no such thing (K and V where
 * another layer's are read, V where it is K). */
const weight *lora_weight(const model *m, uint32_t il, lora_target p);

/* Empty; slots are to be filled with ranks and alphas, then lora_allocate(). */
bool lora_empty(arena *a, const model *m, lora **out, carat_error *err);
/* Sizes from the model, scale from alpha, zeroed values. Refuses ranks that are 0 or absurd. */
bool lora_allocate(arena *a, lora *l, carat_error *err);
bool lora_check_rank(uint64_t rank, const char *name, carat_error *err);
/* A new adapter that changes nothing yet: A random as PEFT draws it, B zero (of the embedding the
 * other way round). */
bool lora_create(arena *a, const model *m, const lora_plan *plan, lora **out, carat_error *err);
/* Zeros in the shape of l: for gradients and moments. */
bool lora_like(arena *a, const lora *l, lora **out, carat_error *err);
bool lora_copy(arena *a, const lora *l, lora **out, carat_error *err);

/* out [n_tok, n_row] += scale * p->scale * B (A in), in [n_tok, n_col]. Rank 0: nothing. */
void ref_lora(const lora_pair *p, float scale, const float *in, uint32_t n_tok, float *out);
/* x [n_embd] += scale * p->scale * B A[:, token] */
void ref_lora_embed(const lora_pair *p, float scale, int32_t token, float *x);

/* A number that depends on every bit of key and of place: all that training draws. */
uint64_t lora_random(uint64_t key, uint64_t place);
float lora_uniform(uint64_t key, uint64_t place); /* in [0, 1) */

/* ---- lora_read.c ---- */

/* A file of either kind, or a directory with adapter_model.safetensors. PEFT's
 * configuration is read from beside the file. Refuses adapters of another model, naming the tensor
 * and its size. */
bool lora_open(arena *a, const model *m, const char *path, lora **out, carat_error *err);
/* The same from bytes or other sources; config [n] is the text of adapter_config.json. */
bool lora_open_peft(arena *a, const model *m, source *src, const char *config, size_t n, lora **out,
                    carat_error *err);
bool lora_open_gguf(arena *a, const model *m, const gguf *g, lora **out, carat_error *err);

/* ---- lora_write.c ---- */

/* dir/adapter_model.safetensors and dir/adapter_config.json; dir must exist. */
bool lora_write_peft(const lora *l, const char *dir, carat_error *err);
bool lora_write_gguf(const lora *l, const char *path, carat_error *err);
/* The files' bytes. */
void lora_put_safetensors(const lora *l, buf *out);
void lora_put_config(const lora *l, buf *out);
void lora_put_gguf(const lora *l, buf *out);
/* "self_attn.q_proj" and "attn_q.weight": a projection's name in either kind of file. */
const char *lora_peft_name(lora_target p);
const char *lora_gguf_name(lora_target p);

#endif
