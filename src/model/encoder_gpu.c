/* encoder_gpu: see encoder_gpu.h. The weights of an encoder on the device, piece by piece; and the
 * matrices with clamped ends, which both encoders are made of.
 *
 * Flow: gpu/upload.c before; vision_gpu.c, audio_gpu.c after. */
#include "model/encoder_gpu.h"

#include "kernels.h"

#include <float.h>
#include <math.h>

#define TILE_COLS 32u /* a multiple of lib/tile's terms */

#define ENOUGH_TILES 768u /* of 64 x 64 in a matmul: they keep a large device busy */
#define PART_COLS    512u /* a part's columns, at least: shorter ones cost more than they bring */

/* ---- weights ---- */

/* The tiles that are planned live in e's memory: without it there are none. */
static void forget_tiles(weight **matrices) {
    for (weight **w = matrices; *w; w++) {
        (*w)->tiles = NULL;
        (*w)->n_tile = 0;
    }
}

bool encoder_gpu_create(gpu *g, weight **matrices, const float *vectors, uint32_t n_vectors,
                        encoder_gpu **out, carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return false;
    encoder_gpu *e = arena_alloc(memory, 1, sizeof *e);
    if (!e) {
        arena_free(memory);
        return fail_memory(err, sizeof *e, "an encoder");
    }
    *e = (encoder_gpu){.memory = memory,
                       .gpu = g,
                       .matrices = matrices,
                       .host_vectors = vectors,
                       .n_vectors = n_vectors};
    forget_tiles(matrices);
    if (!upload_create(memory, g, matrices, &e->upload, err)) {
        encoder_gpu_free(e);
        return false;
    }
    e->bytes = upload_bytes_total(e->upload);
    *out = e;
    return true;
}

static bool load_vectors(encoder_gpu *e, carat_error *err) {
    const size_t bytes = max_u32(e->n_vectors, 4) * sizeof *e->host_vectors;
    e->vectors = gpu_buffer_create(e->gpu, bytes, GPU_STORAGE, "vectors of an encoder", err);
    if (!e->vectors.id) return false;
    gpu_write(e->gpu, e->vectors, 0, e->host_vectors, e->n_vectors * sizeof *e->host_vectors);
    return true;
}

bool encoder_gpu_load(encoder_gpu *e, bool *busy, bool *done, carat_error *err) {
    *busy = false;
    *done = !e->upload;
    if (*done) return true;
    if (!e->vectors.id && !load_vectors(e, err)) return false;
    if (!upload_advance(e->upload, busy, done, err)) return false;
    if (!*done) return true;
    upload_free(e->upload);
    e->upload = NULL;
    return true;
}

void encoder_gpu_progress(const encoder_gpu *e, uint64_t *done, uint64_t *total) {
    *done = e->upload ? upload_bytes_done(e->upload) : e->bytes;
    *total = e->bytes;
}

void encoder_gpu_free(encoder_gpu *e) {
    if (!e) return;
    upload_free(e->upload);
    upload_free_weights(e->gpu, e->matrices);
    forget_tiles(e->matrices);
    gpu_buffer_free(e->gpu, e->vectors);
    arena_free(e->memory);
}

/* ---- operations ---- */

float encoder_gpu_limit(float limit) { return fmaxf(-FLT_MAX, fminf(limit, FLT_MAX)); }

/* parts > 1: the output's limits and silu are left to whoever adds them. */
static void run_clipped(kernel_steps *s, const clipped *c, bool silu, gpu_view x, gpu_view out,
                        uint32_t n_tok, uint32_t n_part) {
    const weight *w = &c->w;
    const bool whole_sum = n_part == 1;
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *tile = &w->tiles[i];
        const matmul_clipped_args args = {
            .n_tok = n_tok,
            .n_row = tile->n_row,
            .n_col = w->n_col,
            .out0 = tile->row0,
            .out_stride = w->n_row,
            .scale = w->scale,
            .in_min = encoder_gpu_limit(c->in_min),
            .in_max = encoder_gpu_limit(c->in_max),
            .out_min = encoder_gpu_limit(whole_sum ? c->out_min : -INFINITY),
            .out_max = encoder_gpu_limit(whole_sum ? c->out_max : INFINITY),
            .silu = silu,
            .k_part = (uint32_t)round_up(div_up(w->n_col, n_part), TILE_COLS),
        };
        run_tiles(s,
                  (kernel_call){
                      .kernel = &kernel_matmul_clipped,
                      .formats = {w->type},
                      .args = &args,
                      .views = {x, {.buffer = tile->buffer}, out},
                      .z = n_part,
                  },
                  n_tok, args.n_row);
    }
}

void op_clipped(kernel_steps *s, const clipped *c, gpu_view x, gpu_view out, uint32_t n_tok) {
    run_clipped(s, c, false, x, out, n_tok, 1);
}

void op_clipped_silu(kernel_steps *s, const clipped *c, gpu_view x, gpu_view out, uint32_t n_tok) {
    run_clipped(s, c, true, x, out, n_tok, 1);
}

uint32_t op_clipped_count(const clipped *c, uint32_t n_tok) {
    const uint32_t n_tile = div_up(c->w.n_row, 64) * div_up(n_tok, 64);
    const uint32_t n = min_u32(ENOUGH_TILES / n_tile, c->w.n_col / PART_COLS);
    return max_u32(min_u32(n, CLIPPED_MAX_PARTS), 1);
}

void op_clipped_parts(kernel_steps *s, const clipped *c, gpu_view x, gpu_view out, uint32_t n_tok,
                      uint32_t n_part) {
    run_clipped(s, c, false, x, out, n_tok, n_part);
}

void op_geglu_clipped(kernel_steps *s, const clipped *gate, const clipped *up, gpu_view x,
                      gpu_view out, uint32_t n_tok) {
    /* The tiles of the two may be cut differently: go from cut to cut. */
    uint32_t a = 0, b = 0;
    for (uint32_t row = 0; row < gate->w.n_row;) {
        const weight_tile *ta = &gate->w.tiles[a], *tb = &up->w.tiles[b];
        const uint32_t end_a = ta->row0 + ta->n_row, end_b = tb->row0 + tb->n_row;
        const uint32_t end = min_u32(end_a, end_b);
        const geglu_clipped_args args = {
            .n_tok = n_tok,
            .n_row = end - row,
            .n_col = gate->w.n_col,
            .a_row0 = row - ta->row0,
            .b_row0 = row - tb->row0,
            .out0 = row,
            .out_stride = gate->w.n_row,
            .scale_a = gate->w.scale,
            .scale_b = up->w.scale,
            .in_min = encoder_gpu_limit(gate->in_min),
            .in_max = encoder_gpu_limit(gate->in_max),
            .gate_min = encoder_gpu_limit(gate->out_min),
            .gate_max = encoder_gpu_limit(gate->out_max),
            .up_min = encoder_gpu_limit(up->out_min),
            .up_max = encoder_gpu_limit(up->out_max),
        };
        run_tiles(s,
                  (kernel_call){
                      .kernel = &kernel_geglu_clipped,
                      .formats = {gate->w.type, up->w.type},
                      .args = &args,
                      .views = {x, {.buffer = ta->buffer}, {.buffer = tb->buffer}, out},
                  },
                  n_tok, 2 * args.n_row);
        row = end;
        a += end == end_a;
        b += end == end_b;
    }
}
