/* token/vocab: the tables behind a tokenizer, and the merge procedure that works on them. Private
 * to src/token.
 *
 * vocab.c builds them from a GGUF's keys, bpe.c encodes with them, tokenizer.c decodes. */
#ifndef CARAT_VOCAB_H
#define CARAT_VOCAB_H

#include "token/token.h"

/* One rule: the neighbours left, right become result. Its index is its rank: lower goes first. */
typedef struct merge {
    int32_t left, right, result;
} merge;

typedef enum token_flag {
    TOKEN_SPECIAL = 1, /* one of the control tokens */
    TOKEN_BYTE = 2,    /* <0xNN> */
    TOKEN_STOP = 4,
    TOKEN_SUPPRESSED = 8
} token_flag;

typedef struct vocab {
    uint32_t n;      /* tokens */
    char *text;      /* all pieces, one after the other */
    uint32_t *start; /* [n + 1] where each begins in text */
    uint8_t *flags;  /* [n] of token_flag */
    int32_t byte_id[256];

    uint64_t *slots; /* hash table text -> id: hash << 32 | id + 1; 0 is free */
    uint32_t slot_mask;

    uint32_t n_merge;
    merge *merges;         /* [n_merge] by rank */
    uint32_t *merge_slots; /* hash table pair -> rank + 1; 0 is free */
    uint32_t merge_mask;
    uint64_t *joints; /* bit set by hash: these two characters may end up in one piece */
} vocab;

/* Reads tokenizer.ggml.tokens and .merges. */
bool vocab_create(arena *a, const gguf *g, vocab **out, carat_error *err);
int32_t vocab_find(const vocab *v, const char *text, size_t n); /* -1: no such token */
const char *vocab_text(const vocab *v, int32_t id, size_t *n);

#define NO_MERGE UINT32_MAX
uint32_t vocab_merge_rank(const vocab *v, int32_t left, int32_t right); /* or NO_MERGE */
/* Whether any merge may join these two neighbouring characters, each as its UTF-8 bytes packed by
 * pack_char(). Never wrong when it says no. */
bool vocab_may_join(const vocab *v, uint32_t a, uint32_t b);
uint32_t pack_char(const char *c, size_t n);

/* ---- bpe.c ---- */

/* Encodes text that comes in pieces. Merges cross the pieces, control tokens do not. */
typedef struct encoder {
    const tokenizer *t;
    id_list *out;
    buf pending; /* text since the last control token, spaces already U+2581 */
    buf symbols, heap;
} encoder;

void encoder_text(encoder *e, const char *text, size_t n, bool specials);
void encoder_end(encoder *e); /* encodes what is pending and frees */

#endif
