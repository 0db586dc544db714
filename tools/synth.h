/* synth: what the parts of tools/synth share. synth.c knows the models and writes the file,
 * synth_towers.c has their encoders, synth_blocks.c makes random tensor blocks, synth_vocab.c
 * invents a vocabulary. */
#ifndef CARAT_SYNTH_H
#define CARAT_SYNTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- synth.c: errors, tensors, the growing header ---- */

_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void *grow(void *p, size_t n); /* realloc() that does not fail */

typedef enum tensor_fill { /* what a tensor is; all but WEIGHT are F32 */
                           WEIGHT,
                           NORM,
                           QK_NORM,
                           SCALE,
                           ROPE_FREQS,
                           ROUTER,
                           LOW, /* the limits of a clamp */
                           HIGH
} tensor_fill;

/* A tensor, sizes fastest first; 0 for those at the end that it does not have. */
void add(tensor_fill fill, uint32_t type, const char *name, uint64_t ne0, uint64_t ne1,
         uint64_t ne2);
void add_4d(tensor_fill fill, uint32_t type, const char *name, const uint64_t ne[4]);

enum { U32 = 4, I32 = 5, FLOAT = 6, BOOL = 7, STRING = 8, ARRAY = 9 }; /* GGUF's kinds of values */

void put(const void *data, size_t n);
void put_u32(uint32_t v);
void put_u64(uint64_t v);
void put_f32(float v);
void put_string(const char *s);
void key_u32(const char *name, uint32_t v);
void key_f32(const char *name, float v);
void key_bool(const char *name, bool v);
void key_string(const char *name, const char *v);
/* A key of an array of n items of a kind, which follow. Returns where n is, to patch it. */
size_t key_array(const char *name, uint32_t kind, uint64_t n);
void patch_u64(size_t at, uint64_t v);

/* ---- synth_blocks.c ---- */

enum { F32 = 0, F16 = 1, Q4_0 = 2, Q5_0 = 6, Q8_0 = 8, Q4_K = 12, Q6_K = 14, BF16 = 30, N_TYPE };

#define SIGMA 0.02f /* standard deviation of a weight */

/* A block, and the bytes of it [vary, vary + n_vary) that may be changed at will under a mask.
 * Types without blocks are handled 32 values at a time. */
typedef struct block_type {
    const char *name;
    uint32_t n_value, n_byte, vary, n_vary;
    uint64_t mask;
    void (*fill)(uint8_t *block);
} block_type;

extern const block_type block_types[N_TYPE];

void rng_seed(uint64_t seed);
uint64_t rng(void);
float uniform(float lo, float hi);
float gauss(void); /* about N(0, 1), at most 3.5 away from 0 */

/* ---- synth_towers.c ---- */

typedef struct vision_shape {
    uint32_t n_layer; /* 0: there is no tower, squares of pixels become soft tokens at once */
    uint32_t n_embd, n_head, n_ff, n_pos;
    bool clipped; /* matrices have limits; else the tower's output is standardised */
} vision_shape;

typedef struct audio_shape {
    uint32_t n_layer; /* 0: as above, frames of samples */
    uint32_t n_embd, n_head, n_ff, n_mid;
} audio_shape;

/* Of a model n_out wide; audio NULL: it cannot hear. */
typedef struct towers {
    const vision_shape *vision;
    const audio_shape *audio;
    uint32_t n_out;
    bool projector; /* as in llama.cpp's projector file, else as in Ollama's one file */
} towers;

extern const vision_shape vision_small, vision_large, vision_direct, vision_mini, vision_mini_large;
extern const audio_shape audio_conformer, audio_direct, audio_mini;

void add_towers(const towers *t);        /* their tensors */
void put_towers_config(const towers *t); /* their keys */

/* ---- synth_vocab.c ---- */

enum { REAL_VOCAB = 262144, MIN_VOCAB = 8192 };

/* Puts tokenizer.ggml.tokens and .merges, .scores and .token_type. */
void put_vocabulary(uint32_t n_vocab, bool ollama);

#endif
