/* pack: blocks as they are in a file -> blocks as the kernels read them, every one at a multiple of
 * 4 bytes (the packed layout of upload.h).
 *
 * Flow: file/quant.c knows the blocks' sizes; upload.c packs what it reads; kernels/lib/ reads. */
#include "gpu/upload.h"

#include <string.h>

/* Formats that are stored as pairs of blocks. */
typedef struct pairing {
    uint32_t type;
    uint32_t scale_at, scale_bytes; /* of the scale within the block */
} pairing;

static const pairing *find_pairing(uint32_t type) {
    static const pairing pairings[] = {
        {QUANT_Q4_0, 0, 2},   {QUANT_Q5_0, 0, 2},   {QUANT_Q8_0, 0, 2},  {QUANT_Q3_K, 108, 2},
        {QUANT_Q6_K, 208, 2}, {QUANT_IQ4_NL, 0, 2}, {QUANT_MXFP4, 0, 1},
    };
    for (size_t i = 0; i < COUNT(pairings); i++)
        if (pairings[i].type == type) return &pairings[i];
    return NULL;
}

static uint64_t pair_bytes(const pairing *p, const quant_format *f) {
    return 4 + 2 * (uint64_t)(f->n_byte - p->scale_bytes);
}

uint64_t upload_packed_bytes(uint32_t type, uint64_t n) {
    const quant_format *f = quant_find(type);
    const pairing *p = find_pairing(type);
    assert(f && n % f->n_value == 0);
    uint64_t n_block = n / f->n_value;
    return p ? (n_block + 1) / 2 * pair_bytes(p, f) : n_block * f->n_byte;
}

void upload_pack(uint32_t type, const void *blocks, uint64_t n_block, void *out) {
    const quant_format *f = quant_find(type);
    const pairing *p = find_pairing(type);
    assert(f);
    if (!p) {
        memcpy(out, blocks, (size_t)n_block * f->n_byte);
        return;
    }
    uint32_t rest = f->n_byte - p->scale_bytes, tail = p->scale_at + p->scale_bytes;
    const uint8_t *from = blocks;
    uint8_t *to = out;
    memset(to, 0, (size_t)upload_packed_bytes(type, n_block * f->n_value));
    for (uint64_t b = 0; b < n_block; b++, from += f->n_byte) {
        uint8_t *pair = to + (b >> 1) * pair_bytes(p, f);
        uint8_t *half = pair + 4 + (b & 1) * rest;
        memcpy(pair + 2 * (b & 1), from + p->scale_at, p->scale_bytes);
        memcpy(half, from, p->scale_at);
        memcpy(half + p->scale_at, from + tail, f->n_byte - tail);
    }
}

uint32_t upload_row_step(uint32_t type, uint32_t n_col) {
    const quant_format *f = quant_find(type);
    assert(f && n_col % f->n_value == 0);
    return find_pairing(type) && n_col / f->n_value % 2 ? 2 : 1;
}
