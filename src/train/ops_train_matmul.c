/* ops_train_matmul: the products of training; see ops_train.h. A frozen weight is read through its
 * blocks, tile after tile as in ops_gpu.c; the matrices of an adapter are f32.
 *
 * Flow: gpu/kernel.c below, back_gpu.c above. */
#include "train/ops_train.h"

#include "file/file.h"
#include "kernels.h"

#define TILE 64u /* tokens and outputs of a workgroup, in lib/tile.wgsl */

typedef struct back_call {
    uint32_t type;
    gpu_view w, dout, din;
} back_call;

static void run_back(kernel_steps *s, const back_call *c, const back_matmul_args *args) {
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_back_matmul,
                      .formats = {c->type},
                      .args = args,
                      .views = {c->dout, c->w, c->din},
                      .x = div_up(args->n_col, TILE),
                      .y = div_up(args->n_tok, TILE),
                  });
}

void op_back_matmul(kernel_steps *s, const weight *w, gpu_view dout, gpu_view din, uint32_t n_tok,
                    bool add) {
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const weight_tile *tile = &w->tiles[i];
        const back_matmul_args args = {
            .n_tok = n_tok,
            .n_row = tile->n_row,
            .n_col = w->n_col,
            .dout0 = tile->row0,
            .dout_stride = w->n_row,
            .scale = w->scale,
            .add = add || i > 0, /* every tile has its share of the sums */
        };
        run_back(s, &(back_call){w->type, whole(tile->buffer), dout, din}, &args);
    }
}

void op_matrix(kernel_steps *s, const matrix_gpu *m, float scale, gpu_view x, gpu_view out,
               uint32_t n_tok, bool add) {
    const matmul_args args = {
        .n_tok = n_tok,
        .n_row = m->n_row,
        .n_col = m->n_col,
        .out_stride = m->n_row,
        .scale = scale,
        .add = add,
    };
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_matmul,
                      .formats = {QUANT_F32},
                      .args = &args,
                      .views = {x, m->view, out},
                      .x = div_up(m->n_row, TILE),
                      .y = div_up(n_tok, TILE),
                  });
}

void op_back_matrix(kernel_steps *s, const matrix_gpu *m, float scale, gpu_view dout, gpu_view din,
                    uint32_t n_tok, bool add) {
    const back_matmul_args args = {
        .n_tok = n_tok,
        .n_row = m->n_row,
        .n_col = m->n_col,
        .dout_stride = m->n_row,
        .scale = scale,
        .add = add,
    };
    run_back(s, &(back_call){QUANT_F32, m->view, dout, din}, &args);
}

void op_outer(kernel_steps *s, gpu_view a, uint32_t n_a, gpu_view b, uint32_t n_b, float scale,
              gpu_view out, uint32_t n_tok, bool add) {
    const outer_args args = {.n_tok = n_tok, .n_a = n_a, .n_b = n_b, .scale = scale, .add = add};
    kernel_run(s, &(kernel_call){
                      .kernel = &kernel_outer,
                      .args = &args,
                      .views = {a, b, out},
                      .x = div_up(n_b, TILE),
                      .y = div_up(n_a, TILE),
                  });
}
