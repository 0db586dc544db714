/* bind: every tensor of a GGUF to its field, once, with the shape that the configuration asks for.
 * binder.c finds and checks one tensor after the other; bind.c is the list of the text model's,
 * encoder_bind.c of the encoders'. Afterwards binder_load() reads the small ones.
 *
 * Flow: config.c before, weights.c after. */
#ifndef CARAT_BIND_H
#define CARAT_BIND_H

#include "model/encoder.h"

/* Numbers to read from a tensor of n values. */
typedef struct number_ref {
    const gguf_tensor *tensor;
    float *to;
    uint32_t n;
    bool infinite; /* may be */
} number_ref;

typedef struct binder {
    arena *a;
    const gguf *gguf;
    char prefix[24];     /* "blk.3." while layer 3 is bound, "" outside the layers */
    weight **matrices;   /* [n_matrix] and NULL: what must be resident, after binder_close() in file
                            order */
    vector **vectors;    /* [n_vector] to be packed and read; tensor NULL: to be made up */
    number_ref *numbers; /* [n_number] */
    uint32_t n_matrix, n_vector, n_number;
    uint32_t max_matrix, max_vector, max_number;
    uint64_t n_params;
    char complaints[420];
    size_t len;
    uint32_t n_complaint, n_named;
    carat_code code; /* UNSUPPORTED while only types are wrong */
    bool no_memory;
} binder;

/* Room for at most so many tensors. */
void binder_open(binder *b, arena *a, const gguf *g, uint32_t max_matrix, uint32_t max_vector,
                 uint32_t max_number);
/* Reports all mismatches together, the first ones by name; otherwise the lists are complete.
 * what: begins the message, "model". */
bool binder_close(binder *b, const char *what, carat_error *err);
/* Reads what was bound: numbers to their places, vectors packed into one array of *n_all floats
 * (those without a tensor are ones), each starting at a multiple of 4. */
bool binder_load(binder *b, const char *what, const float **all, uint32_t *n_all, carat_error *err);

/* From here on `name` follows the prefix; NULL: there is none. */
const gguf_tensor *bind_find(const binder *b, const char *name);
/* A vector of n numbers. alias: another name that older files use, or NULL. */
void bind_vec(binder *b, const char *name, const char *alias, uint32_t n, vector *v);
void bind_optional_vec(binder *b, const char *name, const char *alias, uint32_t n, vector *v);
/* A vector of all numbers of a tensor of any shape: n_row times n_col. */
void bind_flat_vec(binder *b, const char *name, uint32_t n_col, uint32_t n_row, vector *v);
void bind_numbers(binder *b, const gguf_tensor *t, uint32_t n, float *to);
/* One number that may be missing, or infinite; *to is what it is otherwise. */
void bind_limit(binder *b, const char *name, float *to);
/* A matrix [n_row, n_col] that must be resident, with NVFP4's external scale if it has one. */
void bind_mat(binder *b, const char *name, uint32_t n_col, uint32_t n_row, weight *w);
/* The same for a tensor whose inner dimensions make up a row: [n_row, .., ..]. */
void bind_flat_mat(binder *b, const char *name, uint32_t n_col, uint32_t n_row, weight *w);
/* n_expert of them. */
void bind_experts(binder *b, const char *name, uint32_t n_col, uint32_t n_row, uint32_t n_expert,
                  weight *w);
/* n_expert matrices: neither resident by itself nor with a scale. */
void bind_bare(binder *b, const char *name, uint32_t n_col, uint32_t n_row, uint32_t n_expert,
               weight *w);
void bind_external_scale(binder *b, const char *name, weight *w);
void bind_resident(binder *b, weight *w);

/* bind.c: fills m->weights and m->matrices by m->config. What is to be read stays in b. */
bool weights_bind(arena *a, model *m, binder *b, carat_error *err);

/* encoder_config.c: from metadata and shapes. n_text: the width that soft tokens must have. */
bool vision_config_read(const gguf *g, uint32_t n_text, vision_config *out, carat_error *err);

/* Names that differ between the layouts; some name one tensor here and another one there. */
typedef struct audio_layout {
    const char *input, *output, *output_bias;                /* outside the layers */
    const char *attn_norm, *post_attn_norm, *rel, *out_norm; /* in a layer */
} audio_layout;

const audio_layout *audio_layout_of(const gguf *g);
bool audio_config_read(const gguf *g, uint32_t n_text, audio_config *out, carat_error *err);

#endif
