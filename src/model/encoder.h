/* encoder: the eyes and ears of a model, which turn a picture or a sound into soft tokens: rows of
 * the text model's width that stand where tokens would. encoder_config.c reads what they look like,
 * encoder_bind.c binds their tensors; vision_cpu.c and audio_cpu.c are the definition.
 *
 * They are in the model's own file (Ollama) or in a projector file beside it (llama.cpp's mmproj);
 * both have the same structs here.
 *
 * Flow: media/ makes patches and spectrograms before; text_cpu.c takes the soft tokens after. */
#ifndef CARAT_ENCODER_H
#define CARAT_ENCODER_H

#include "model/model.h"

#define ENCODER_EPS 1e-6f /* of every RMS norm; files carry other numbers, which nobody means */

/* A matrix whose input and output are clamped. No clamp: infinite. */
typedef struct clipped {
    weight w;
    float in_min, in_max, out_min, out_max;
} clipped;

/* ---- vision ---- */

typedef struct vision_config {
    bool direct; /* no tower: a square of pixels becomes a soft token in one step (12B) */
    uint32_t n_layer, n_embd, n_ff, n_head, head_dim;
    uint32_t side;  /* of a patch, in pixels */
    uint32_t pool;  /* pool x pool patches become one soft token */
    uint32_t n_pos; /* rows and columns of patches that have a position */
    uint32_t n_out; /* of a soft token */
    bool standardize;
    float rope_base;
} vision_config;

typedef struct vision_layer {
    vector attn_norm, q_norm, k_norm, post_attn_norm, ffn_norm, post_ffn_norm;
    clipped q, k, v, out, gate, up, down;
    vector scale; /* [1] or [n_embd], of the stream; 1 when absent */
} vision_layer;

typedef struct vision {
    vision_config config;
    weight patch;    /* [n_embd, 3 * side * side], pixels by channel, row, column */
    weight position; /* [2, n_pos, n_embd] of columns, then rows; read from the file when needed */
    vector std_bias, std_scale;               /* [n_embd] standardize */
    vector norm[3], norm_bias[3], patch_bias; /* direct */
    weight project;                           /* [n_out, n_embd] */
    vision_layer *layers;                     /* [n_layer] */
    weight **matrices;                        /* NULL-terminated: what must be resident */
    const float *vectors;                     /* [n_vectors] */
    uint32_t n_vectors;
} vision;

/* Whether there are tensors of a vision encoder in a file. */
bool vision_present(const gguf *g);
/* Binds the vision encoder of g to a text model n_text wide. Matrices are not read. */
bool vision_open(arena *a, const gguf *g, uint32_t n_text, vision **out, carat_error *err);
/* Embeddings of the first n columns (axis 0) or rows (axis 1), from the file: out [n, n_embd]. */
bool vision_positions(const vision *v, uint32_t axis, uint32_t n, float *out, carat_error *err);

/* ---- vision_cpu.c ---- */

typedef struct vision_cpu vision_cpu;

/* Begins with a picture of n_row x n_col patches [n_row, n_col, side, side, 3], which is borrowed.
 * Matrices must be resident. Taps: "patch_embd" (il -1), in layer il the names that text has, then
 * (il n_layer) "tower" (pooled) and "soft". taps may be NULL. */
bool vision_cpu_create(const vision *v, const uint8_t *patches, uint32_t n_col, uint32_t n_row,
                       const tap *taps, vision_cpu **out, carat_error *err);
void vision_cpu_free(vision_cpu *t);
uint32_t vision_soft_tokens(const vision *v, uint32_t n_col, uint32_t n_row);
/* Whether a picture of so many patches can be encoded. */
bool vision_check_grid(const vision_config *c, uint32_t n_col, uint32_t n_row, carat_error *err);
/* cos and sin of n columns or rows: out [n, head_dim/4, 2]. */
void vision_rope_rows(const vision_config *c, uint32_t n, float *out);
/* One layer further; when that was the last, fills soft [n_soft, n_out] and *finished is true. */
void vision_cpu_advance(vision_cpu *t, float *soft, bool *finished);

/* ---- audio ---- */

#define AUDIO_REACH 12u /* tokens that one hears, itself included */

typedef struct audio_config {
    bool direct;    /* no tower: a frame of samples becomes a soft token in one step (12B) */
    uint32_t frame; /* direct: samples of a frame */
    uint32_t n_layer, n_embd, n_ff, n_head, head_dim;
    uint32_t n_conv[2]; /* channels of the two convolutions that shorten the spectrogram */
    uint32_t n_kernel;  /* tokens that the depthwise convolution sees */
    uint32_t n_mid;     /* width of the tower's output */
    uint32_t n_out;     /* of a soft token */
} audio_config;

typedef struct audio_ffn {
    vector norm, post_norm;
    clipped up, down;
} audio_ffn;

typedef struct audio_layer {
    audio_ffn ffn[2];                            /* before attention and convolution, and after */
    vector attn_norm, post_attn_norm, dim_scale; /* dim_scale [head_dim] of queries */
    clipped q, k, v, out;
    weight rel;                       /* [n_embd, n_embd] keys of distances */
    vector conv_norm, conv, mid_norm; /* conv [n_embd, n_kernel] */
    clipped conv_in, conv_out;        /* [2 n_embd, n_embd], [n_embd, n_embd] */
    vector out_norm;
} audio_layer;

typedef struct audio {
    audio_config config;
    vector conv[2];       /* [n_conv[0], 1, 3, 3], [n_conv[1], n_conv[0], 3, 3]: time, band last */
    vector conv_norm[2];  /* [n_conv[i]] */
    weight input;         /* [n_embd, bands / 4 * n_conv[1]] */
    weight output;        /* [n_mid, n_embd] */
    vector output_bias;   /* [n_mid] */
    weight project;       /* [n_out, n_mid] */
    audio_layer *layers;  /* [n_layer] */
    weight **matrices;    /* NULL-terminated: what must be resident */
    const float *vectors; /* [n_vectors] */
    uint32_t n_vectors;
} audio;

bool audio_present(const gguf *g);
bool audio_open(arena *a, const gguf *g, uint32_t n_text, audio **out, carat_error *err);
/* Soft tokens of n frames of a spectrogram; direct: of n samples. */
uint32_t audio_soft_tokens(const audio *a, uint32_t n);

/* ---- audio_cpu.c ---- */

typedef struct audio_cpu audio_cpu;

/* Begins with a spectrogram [n, MEL_BANDS]; direct: with samples [n] at MEL_RATE. Borrowed. Taps:
 * "conv" and "embed" (il -1), in layer il "ffn_a" "q" "k" "v" "attn" "attn_out" "conv_out" "ffn_b"
 * "layer_out", then (il n_layer) "tower" and "soft". */
bool audio_cpu_create(const audio *a, const float *input, uint32_t n, const tap *taps,
                      audio_cpu **out, carat_error *err);
void audio_cpu_free(audio_cpu *t);
/* As vision_cpu_advance(). */
void audio_cpu_advance(audio_cpu *t, float *soft, bool *finished);

/* ---- text_cpu.c: soft tokens among tokens ---- */

/* Soft tokens of one picture or sound, at positions [pos, pos + n). */
typedef struct soft_span {
    uint32_t pos, n;
    const float *rows; /* [n, n_embd] for the CPU */
    gpu_buffer device; /* the same on the GPU, for text_gpu.c */
    bool picture;      /* whose tokens see each other, in models where they do */
} soft_span;

typedef struct text_input {
    const int32_t *tokens; /* [n_tok] at pos..; anything where a soft token stands */
    uint32_t n_tok, pos;
    const soft_span
        *spans; /* [n_span] apart from each other; those outside of the run do nothing */
    uint32_t n_span;
} text_input;

/* text_cpu_forward() with soft tokens. A picture whose tokens see each other must be in one run. */
bool text_cpu_forward_soft(text_cpu *t, const text_input *in, uint32_t n_out, float *logits,
                           const tap *taps, carat_error *err);

/* ---- ops_cpu.c: what only encoders need ---- */

#define ENCODER_CHUNK 256u /* rows that go through a matrix at once */

/* out = clamp(W clamp(in)); scratch [min(n_tok, ENCODER_CHUNK), n_col]. in is left alone. */
void ref_clipped(const clipped *c, const float *in, uint32_t n_tok, float *scratch, float *out);
/* out = (x - mean) / sqrt(var + eps) * w + b, rows [n_tok, n]; b NULL: none. In place is fine. */
void ref_layernorm(const float *x, const float *w, const float *b, uint32_t n_tok, uint32_t n,
                   float eps, float *out);

#endif
