/* ops_gpu: see ops_gpu.h. A weight that is too large for one binding is in tiles of rows: one
 * dispatch for each.
 *
 * Flow: gpu/kernel.c below; prefill_gpu.c, moe_gpu.c and text_gpu.c above. */
#include "model/ops_gpu.h"

#include "kernels.h"

#define TILE_TOKENS  64u /* of lib/tile */
#define TILE_OUTPUTS 64u
#define MATRIX_TILE  128u   /* outputs of lib/tile.matrix */
#define MIN_TERMS    128u   /* of a part */
#define STEP_TERMS   32u    /* of which there is a multiple in a part: TILE_TERMS of either */
#define FLAT_VALUES  256u   /* of a workgroup */
#define FLAT_GROUPS  65535u /* of a dispatch in one direction, on any device; as lib/flat has it */
#define NONE         UINT32_MAX

void run_flat(kernel_steps *s, kernel_call call, uint64_t n) {
    assert(n <= UINT32_MAX / FLAT_VALUES);
    call.x = min_u32((uint32_t)n, FLAT_GROUPS);
    call.y = div_up((uint32_t)n, FLAT_GROUPS);
    if (n) kernel_run(s, &call);
}

void run_values(kernel_steps *s, const kernel_call *call, uint64_t n) {
    run_flat(s, *call, (n + FLAT_VALUES - 1) / FLAT_VALUES);
}

/* Outputs that a workgroup makes of its 64 tokens: more on matrix units. */
static uint32_t tile_outputs(const kernel_steps *s, const kernel *k, const uint32_t *formats) {
    const kernel *picked = kernel_pick(k, formats, kernel_device(s));
    return k->matrix && picked == k->matrix ? MATRIX_TILE : TILE_OUTPUTS;
}

void run_tiles(kernel_steps *s, kernel_call call, uint32_t n_tok, uint32_t n_out) {
    call.x = div_up(n_out, tile_outputs(s, call.kernel, call.formats));
    call.y = div_up(n_tok, TILE_TOKENS);
    kernel_run(s, &call);
}

sum_cut cut_sums(const kernel_steps *s, const kernel *k, uint32_t type, parts_gpu room,
                 uint32_t n_tok, uint32_t n_out, uint32_t n_term) {
    const uint32_t n_tile = tile_outputs(s, k, &type);
    const uint32_t groups = div_up(n_out, n_tile) * div_up(n_tok, TILE_TOKENS);
    const uint32_t most = PARTS_MOST / (TILE_TOKENS * n_tile); /* they keep a large device busy */
    const uint64_t made = (uint64_t)n_tok * n_out, fit = made % 4 ? 0 : room.n / made;
    uint32_t n = min_u32(most / groups, n_term / MIN_TERMS);
    n = fit < n ? (uint32_t)fit : n;
    if (n < 2) return (sum_cut){1, n_term};
    const uint32_t each = (uint32_t)round_up(div_up(n_term, n), STEP_TERMS);
    return (sum_cut){div_up(n_term, each), each};
}

void op_sum_parts(kernel_steps *s, gpu_view parts, uint32_t n_part, uint64_t n, gpu_view out,
                  bool add) {
    const sum_parts_args args = {.n = (uint32_t)n, .n_part = n_part, .add = add};
    assert(n % 4 == 0 && n_part && n * n_part / 4 <= UINT32_MAX && n <= UINT32_MAX);
    run_values(s,
               &(kernel_call){
                   .kernel = &kernel_sum_parts,
                   .args = &args,
                   .views = {parts, out},
               },
               n / 4);
}

void op_matmul(kernel_steps *s, const weight *w, uint32_t n_row, gpu_view x, gpu_view out,
               uint32_t n_tok) {
    op_matmul_cut(s, w, n_row, (parts_gpu){0}, false, x, out, n_tok);
}

void op_matmul_cut(kernel_steps *s, const weight *w, uint32_t n_row, parts_gpu room, bool exact,
                   gpu_view x, gpu_view out, uint32_t n_tok) {
    /* Parts have the shape of all that is made, so a weight in tiles is not cut. */
    const bool one = w->tiles[0].n_row >= n_row;
    const sum_cut cut =
        cut_sums(s, &kernel_matmul, w->type, one ? room : (parts_gpu){0}, n_tok, n_row, w->n_col);
    for (uint32_t i = 0; i < w->n_tile && w->tiles[i].row0 < n_row; i++) {
        const weight_tile *tile = &w->tiles[i];
        const matmul_args args = {
            .n_tok = n_tok,
            .n_row = min_u32(tile->n_row, n_row - tile->row0),
            .n_col = w->n_col,
            .out0 = tile->row0,
            .out_stride = n_row,
            .scale = w->scale,
            .n_term = cut.n_term,
        };
        run_tiles(s,
                  (kernel_call){
                      .kernel = &kernel_matmul,
                      .formats = {w->type},
                      .constants = &(gpu_constant){"EXACT", exact},
                      .n_constant = 1,
                      .args = &args,
                      .views = {x, {.buffer = tile->buffer}, cut.n_part > 1 ? room.view : out},
                      .z = cut.n_part,
                  },
                  n_tok, args.n_row);
    }
    if (cut.n_part > 1) op_sum_parts(s, room.view, cut.n_part, (uint64_t)n_tok * n_row, out, false);
}

void op_matmul_geglu(kernel_steps *s, const weight *gate, const weight *up, gpu_view x,
                     gpu_buffer delta, gpu_view out, uint32_t n_tok) {
    const gpu_view added = delta.id ? whole(delta) : x; /* not read */
    /* The tiles of the two may be cut differently: go from cut to cut. */
    uint32_t a = 0, b = 0;
    for (uint32_t row = 0; row < gate->n_row;) {
        const weight_tile *ta = &gate->tiles[a], *tb = &up->tiles[b];
        const uint32_t end_a = ta->row0 + ta->n_row, end_b = tb->row0 + tb->n_row;
        const uint32_t end = min_u32(end_a, end_b);
        const matmul_geglu_args args = {
            .n_tok = n_tok,
            .n_row = end - row,
            .n_col = gate->n_col,
            .a_row0 = row - ta->row0,
            .b_row0 = row - tb->row0,
            .out0 = row,
            .out_stride = gate->n_row,
            .scale_a = gate->scale,
            .scale_b = up->scale,
        };
        run_tiles(s,
                  (kernel_call){
                      .kernel = &kernel_matmul_geglu,
                      .formats = {gate->type, up->type},
                      .constants = &(gpu_constant){"ADAPTED", delta.id != 0},
                      .n_constant = 1,
                      .args = &args,
                      .views = {x, {.buffer = ta->buffer}, {.buffer = tb->buffer}, out, added},
                  },
                  n_tok, 2 * args.n_row);
        row = end;
        a += end == end_a;
        b += end == end_b;
    }
}

void op_rmsnorm(kernel_steps *s, gpu_buffer vectors, const vector *w, float eps, float scale,
                gpu_view x, gpu_view out, uint32_t n_tok) {
    const rmsnorm_args args = {.n = w->n, .w_norm = w->offset, .eps = eps, .scale = scale};
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_rmsnorm,
                      .args = &args,
                      .views = {{.buffer = vectors}, x, out},
                      .x = n_tok,
                  });
}

void op_add_rmsnorm(kernel_steps *s, gpu_buffer vectors, const vector *post, const vector *w,
                    float eps, float scale, gpu_view update, gpu_view x, gpu_view norm,
                    uint32_t n_tok) {
    const add_rmsnorm_args args = {
        .n = post->n,
        .w_post = post->offset,
        .w_norm = w ? w->offset : NONE,
        .eps = eps,
        .scale = scale,
    };
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_add_rmsnorm,
                      .args = &args,
                      .views = {{.buffer = vectors}, update, x, norm},
                      .x = n_tok,
                  });
}

void op_embed(kernel_steps *s, const weight *w, float scale, gpu_view ids, gpu_view out,
              uint32_t n_tok) {
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const embed_args args = {.n_tok = n_tok,
                                 .n_col = w->n_col,
                                 .row0 = w->tiles[i].row0,
                                 .n_row = w->tiles[i].n_row,
                                 .scale = scale * w->scale};
        kernel_run(s, &(kernel_call){
                          .kernel = &kernel_embed,
                          .formats = {w->type},
                          .args = &args,
                          .views = {ids, {.buffer = w->tiles[i].buffer}, out},
                          .x = div_up(n_tok * (w->n_col / 16), 64),
                      });
    }
}

void op_ple_input(kernel_steps *s, gpu_buffer vectors, const vector *w, float eps, float in_scale,
                  gpu_view token, gpu_view e, uint32_t n_run, uint32_t n_tok) {
    const ple_input_args args = {
        .n_run = n_run, .n_ple = w->n, .w_norm = w->offset, .eps = eps, .in_scale = in_scale};
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_ple_input,
                      .args = &args,
                      .views = {{.buffer = vectors}, token, e},
                      .x = n_run,
                      .y = n_tok,
                  });
}
