/* ops_train_matmul: the products of training; see ops_train.h. A frozen weight is read through its
 * blocks, tile after tile as in ops_gpu.c; the matrices of an adapter are f32.
 *
 * Flow: gpu/kernel.c below, back_gpu.c above. */
#include "train/ops_train.h"

#include "file/file.h"
#include "kernels.h"

typedef struct back_call {
    uint32_t type, n_tok, n_row, n_col;
    gpu_view w, dout, din;
    uint32_t dout0, dout_stride;
    float scale;
    bool add;
} back_call;

static void run_back(kernel_steps *s, const back_call *c, parts_gpu room) {
    const sum_cut cut =
        cut_sums(s, &kernel_back_matmul, c->type, room, c->n_tok, c->n_col, c->n_row);
    const back_matmul_args args = {
        .n_tok = c->n_tok,
        .n_row = c->n_row,
        .n_col = c->n_col,
        .dout0 = c->dout0,
        .dout_stride = c->dout_stride,
        .scale = c->scale,
        .add = c->add && cut.n_part == 1,
        .n_term = cut.n_term,
    };
    run_tiles(s,
              (kernel_call){
                  .kernel = &kernel_back_matmul,
                  .formats = {c->type},
                  .args = &args,
                  .views = {c->dout, c->w, cut.n_part > 1 ? room.view : c->din, c->dout},
                  .z = cut.n_part,
              },
              c->n_tok, c->n_col);
    if (cut.n_part > 1)
        op_sum_parts(s, room.view, cut.n_part, (uint64_t)c->n_tok * c->n_col, c->din, c->add);
}

void op_back_matmul(kernel_steps *s, const weight *w, parts_gpu room, gpu_view dout, gpu_view din,
                    uint32_t n_tok, bool add) {
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *tile = &w->tiles[i];
        const back_call call = {
            .type = w->type,
            .n_tok = n_tok,
            .n_row = tile->n_row,
            .n_col = w->n_col,
            .w = whole(tile->buffer),
            .dout = dout,
            .din = din,
            .dout0 = tile->row0,
            .dout_stride = w->n_row,
            .scale = w->scale,
            .add = add || i > 0, /* every tile has its share of the sums */
        };
        run_back(s, &call, room);
    }
}

void op_matrix(kernel_steps *s, const matrix_gpu *m, parts_gpu room, float scale, gpu_view x,
               gpu_view out, uint32_t n_tok, bool add) {
    const sum_cut cut = cut_sums(s, &kernel_matmul, QUANT_F32, room, n_tok, m->n_row, m->n_col);
    const matmul_args args = {
        .n_tok = n_tok,
        .n_row = m->n_row,
        .n_col = m->n_col,
        .out_stride = m->n_row,
        .scale = scale,
        .add = add && cut.n_part == 1,
        .n_term = cut.n_term,
    };
    run_tiles(s,
              (kernel_call){
                  .kernel = &kernel_matmul,
                  .formats = {QUANT_F32},
                  .args = &args,
                  .views = {x, m->view, cut.n_part > 1 ? room.view : out},
                  .z = cut.n_part,
              },
              n_tok, m->n_row);
    if (cut.n_part > 1)
        op_sum_parts(s, room.view, cut.n_part, (uint64_t)n_tok * m->n_row, out, add);
}

void op_back_matrix(kernel_steps *s, const matrix_gpu *m, parts_gpu room, float scale,
                    gpu_view dout, gpu_view din, uint32_t n_tok, bool add) {
    const back_call call = {
        .type = QUANT_F32,
        .n_tok = n_tok,
        .n_row = m->n_row,
        .n_col = m->n_col,
        .w = m->view,
        .dout = dout,
        .din = din,
        .dout_stride = m->n_row,
        .scale = scale,
        .add = add,
    };
    run_back(s, &call, room);
}

void op_outer(kernel_steps *s, parts_gpu room, gpu_view a, uint32_t n_a, gpu_view b, uint32_t n_b,
              float scale, gpu_view out, uint32_t n_tok, bool add) {
    const sum_cut cut = cut_sums(s, &kernel_outer, QUANT_F32, room, n_a, n_b, n_tok);
    const outer_args args = {.n_tok = n_tok,
                             .n_a = n_a,
                             .n_b = n_b,
                             .scale = scale,
                             .add = add && cut.n_part == 1,
                             .n_term = cut.n_term};
    run_tiles(s,
              (kernel_call){
                  .kernel = &kernel_outer,
                  .formats = {QUANT_F32},
                  .args = &args,
                  .views = {a, b, cut.n_part > 1 ? room.view : out, a},
                  .z = cut.n_part,
              },
              n_a, n_b);
    if (cut.n_part > 1) op_sum_parts(s, room.view, cut.n_part, (uint64_t)n_a * n_b, out, add);
}
