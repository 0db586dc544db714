/* pack: blocks as they are in a file -> blocks as the kernels read them, every one at a multiple of
 * 4 bytes (the packed layout of upload.h).
 *
 * Flow: file/quant.c knows the blocks' sizes; upload.c packs what it reads; kernels/lib/ reads. */
#include "gpu/upload.h"

#include <string.h>

#define EIGHT 8u

/* A format that is stored as eights of blocks: where the scale is in a block. */
typedef struct gathering {
    uint32_t type;
    uint32_t scale_at, scale_bytes;
} gathering;

static const gathering *find_gathering(uint32_t type) {
    static const gathering list[] = {
        {QUANT_Q4_0, 0, 2},   {QUANT_Q5_0, 0, 2},   {QUANT_Q8_0, 0, 2},  {QUANT_Q3_K, 108, 2},
        {QUANT_Q6_K, 208, 2}, {QUANT_IQ4_NL, 0, 2}, {QUANT_MXFP4, 0, 1},
    };
    for (size_t i = 0; i < COUNT(list); i++)
        if (list[i].type == type) return &list[i];
    return NULL;
}

static uint64_t eight_bytes(const gathering *p, const quant_format *f) {
    return 2 * EIGHT + EIGHT * (uint64_t)(f->n_byte - p->scale_bytes);
}

uint64_t upload_packed_bytes(uint32_t type, uint64_t n) {
    const quant_format *f = quant_find(type);
    const gathering *p = find_gathering(type);
    assert(f && n % f->n_value == 0);
    uint64_t n_block = n / f->n_value;
    return p ? (n_block + EIGHT - 1) / EIGHT * eight_bytes(p, f) : n_block * f->n_byte;
}

void upload_pack(uint32_t type, const void *blocks, uint64_t n_block, void *out) {
    const quant_format *f = quant_find(type);
    const gathering *p = find_gathering(type);
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
        uint8_t *eight = to + b / EIGHT * eight_bytes(p, f);
        uint8_t *own = eight + 2 * EIGHT + b % EIGHT * rest;
        memcpy(eight + 2 * (b % EIGHT), from + p->scale_at, p->scale_bytes);
        memcpy(own, from, p->scale_at);
        memcpy(own + p->scale_at, from + tail, f->n_byte - tail);
    }
}

uint32_t upload_row_step(uint32_t type, uint32_t n_col) {
    const quant_format *f = quant_find(type);
    assert(f && n_col % f->n_value == 0);
    uint32_t step = 1;
    if (find_gathering(type))
        while (n_col / f->n_value * step % EIGHT) step *= 2;
    return step;
}
