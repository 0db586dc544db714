/* upload: streams the matrices of a model from their files to the device: read a piece, pack it,
 * write it, submit, next. A matrix larger than a binding of the device becomes several tiles of
 * whole rows.
 *
 * The host holds two pieces; the device is asked to catch up when it is a few pieces behind.
 *
 * Flow: file/source.c and gpu/pack.c before; the kernels read the tiles. */
#include "gpu/upload.h"
#include "model/model.h"

#include <string.h>

#define PIECE_BYTES  (8u << 20)
#define PIECES_AHEAD 4u

struct upload {
    arena *memory;
    gpu *gpu;
    weight **matrices;
    uint32_t matrix, tile; /* what is being loaded */
    uint64_t block;        /* of the tile: the first one not loaded */
    uint8_t *raw, *packed; /* [PIECE_BYTES] */
    uint64_t bytes_done, bytes_total;
};

/* ---- planning ------------------------------------------------------------------------------ */

/* Rows of one tile: as many as a binding takes, whole experts if possible, eights of blocks kept
 * whole. 0: not even one row fits. */
static uint32_t rows_per_tile(const gpu *g, const weight *w) {
    uint64_t most = g->info.max_binding;
    if (most > g->info.max_buffer) most = g->info.max_buffer;
    const uint32_t least = upload_row_step(w->type, w->n_col);
    const uint32_t step = 64 * least; /* kernels take rows in groups */
    uint64_t rows = most / upload_packed_bytes(w->type, (uint64_t)step * w->n_col) * step;
    uint64_t all = (uint64_t)w->n_row * w->n_expert;
    if (rows >= all) return (uint32_t)all;
    if (w->n_expert > 1) {
        uint64_t whole = w->n_row;
        while (whole % least) whole *= 2;
        if (rows >= whole) rows = rows / whole * whole;
    }
    return (uint32_t)rows;
}

static bool plan_tiles(arena *a, const gpu *g, weight *w, carat_error *err) {
    uint64_t all = (uint64_t)w->n_row * w->n_expert;
    if (all > UINT32_MAX)
        return fail(err, CARAT_E_UNSUPPORTED, "tensor %s: too many rows", w->tensor->name.text);
    uint32_t rows = rows_per_tile(g, w);
    if (!rows)
        return fail(err, CARAT_E_MEMORY, "tensor %s: a row is larger than a binding of %s",
                    w->tensor->name.text, g->info.name);
    uint32_t n = div_up((uint32_t)all, rows);
    if (n > w->n_tile || !w->tiles) w->tiles = arena_alloc(a, n, sizeof *w->tiles);
    if (!w->tiles) return fail_memory(err, n * sizeof *w->tiles, "the tiles of a matrix");
    w->n_tile = n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t row0 = i * rows;
        w->tiles[i] = (weight_tile){.row0 = row0, .n_row = min_u32(rows, (uint32_t)all - row0)};
    }
    return true;
}

bool upload_create(arena *a, gpu *g, weight **matrices, upload **out, carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return false;
    upload *u = arena_alloc(memory, 1, sizeof *u);
    if (u) {
        *u = (upload){.memory = memory, .gpu = g, .matrices = matrices};
        u->raw = arena_alloc(memory, PIECE_BYTES, 1);
        u->packed = arena_alloc(memory, PIECE_BYTES, 1);
    }
    bool ok = u && u->raw && u->packed;
    if (!ok) fail_memory(err, 2 * PIECE_BYTES, "the pieces of weights on their way");
    for (weight **w = matrices; ok && *w; w++) {
        ok = plan_tiles(a, g, *w, err);
        u->bytes_total += (*w)->tensor->size;
    }
    if (ok)
        *out = u;
    else
        arena_free(memory);
    return ok;
}

void upload_free(upload *u) {
    if (u) arena_free(u->memory);
}

void upload_free_weights(gpu *g, weight **matrices) {
    for (weight **w = matrices; *w; w++)
        for (uint32_t i = 0; i < (*w)->n_tile; i++) {
            gpu_buffer_free(g, (*w)->tiles[i].buffer);
            (*w)->tiles[i].buffer = (gpu_buffer){0};
        }
}

uint64_t upload_bytes_done(const upload *u) { return u->bytes_done; }
uint64_t upload_bytes_total(const upload *u) { return u->bytes_total; }

/* ---- a piece ------------------------------------------------------------------------------- */

/* Blocks of a piece: a multiple of eight, so that their bytes are one of 4. */
static uint64_t blocks_per_piece(const weight *w) {
    const quant_format *f = quant_find(w->type);
    uint64_t packed = upload_packed_bytes(w->type, 8ull * f->n_value);
    uint64_t larger = packed > 8 * f->n_byte ? packed : 8 * f->n_byte;
    return PIECE_BYTES / larger * 8;
}

static bool load_piece(upload *u, weight *w, weight_tile *t, carat_error *err) {
    const quant_format *f = quant_find(w->type);
    uint64_t row_blocks = w->n_col / f->n_value, first = t->row0 * row_blocks + u->block;
    uint64_t left = t->n_row * row_blocks - u->block, n = blocks_per_piece(w);
    if (n > left) n = left;
    size_t bytes = (size_t)(n * f->n_byte);
    size_t packed = (size_t)upload_packed_bytes(w->type, n * f->n_value);
    const gguf_tensor *tensor = w->tensor;
    assert(first * f->n_byte + bytes <= tensor->size);
    if (!source_read(tensor->src, tensor->offset + first * f->n_byte, u->raw, bytes, err))
        return false;
    upload_pack(w->type, u->raw, n, u->packed);
    uint64_t at = upload_packed_bytes(w->type, u->block * f->n_value);
    gpu_write(u->gpu, t->buffer, at, u->packed, packed);
    u->block += n;
    u->bytes_done += bytes;
    return gpu_submit(u->gpu, err);
}

bool upload_advance(upload *u, bool *busy, bool *done, carat_error *err) {
    weight *w = u->matrices[u->matrix];
    uint32_t behind = gpu_pending(u->gpu);
    *busy = behind >= (w ? PIECES_AHEAD : 1);
    *done = !w && !*busy;
    if (*busy || *done) return !u->gpu->lost || gpu_submit(u->gpu, err);
    weight_tile *t = &w->tiles[u->tile];
    if (!t->buffer.id)
        t->buffer =
            gpu_buffer_create(u->gpu, upload_packed_bytes(w->type, (uint64_t)t->n_row * w->n_col),
                              GPU_STORAGE, w->tensor->name.text, err);
    if (!t->buffer.id || !load_piece(u, w, t, err)) return false;
    if (u->block < (uint64_t)t->n_row * w->n_col / quant_find(w->type)->n_value) return true;
    u->block = 0;
    if (++u->tile < w->n_tile) return true;
    u->tile = 0;
    u->matrix++;
    return true;
}
