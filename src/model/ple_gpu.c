/* ple_gpu: see ple_gpu.h.
 *
 * Flow: weights.c and gpu/upload.h below; text_gpu.c and train/back_gpu.c above. */
#include "model/ple_gpu.h"

#include "file/file.h"
#include "gpu/upload.h"
#include "kernels.h"

#include <math.h>

/* Blocks of a row that hold the first n_layer layers' values. */
static uint32_t row_blocks(const model *m, uint32_t n_layer) {
    const quant_format *f = quant_find(m->weights.ple_embed.type);
    return div_up(n_layer * m->config.n_ple, f->n_value);
}

static uint64_t stored_bytes(const model *m, uint32_t n_tok) {
    const weight *w = &m->weights.ple_embed;
    return m->config.n_ple ? upload_packed_bytes(w->type, (uint64_t)n_tok * w->n_col) : 0;
}

uint64_t ple_buffer_bytes(const model *m, uint32_t n_tok) {
    const uint64_t values = 4ull * n_tok * m->config.n_layer * m->config.n_ple;
    const uint64_t stored = round_up(stored_bytes(m, n_tok), 4); /* more if there are few values */
    return values > stored ? values : stored;
}

bool ple_host_create(arena *a, const model *m, uint32_t n_tok, ple_host *out, carat_error *err) {
    const uint64_t n = stored_bytes(m, n_tok);
    *out = (ple_host){0};
    if (!n) return true;
    out->raw = arena_alloc(a, n, 1);
    out->packed = arena_alloc(a, n, 1);
    return (out->raw && out->packed) || fail_memory(err, 2 * n, "per-layer rows");
}

bool ple_rows_write(const ple_host *h, gpu *g, const model *m, const int32_t *ids, uint32_t n_tok,
                    uint32_t n_layer, gpu_buffer to, carat_error *err) {
    const uint32_t type = m->weights.ple_embed.type;
    const quant_format *f = quant_find(type);
    if (!m->config.n_ple) return true;
    const uint32_t n = row_blocks(m, n_layer);
    for (uint32_t i = 0; i < n_tok; i++)
        if (!model_ple_blocks(m, ids[i], n, h->raw + (size_t)i * n * f->n_byte, err)) return false;
    upload_pack(type, h->raw, (uint64_t)n_tok * n, h->packed);
    const uint64_t bytes = upload_packed_bytes(type, (uint64_t)n_tok * n * f->n_value);
    gpu_write(g, to, 0, h->packed, (size_t)round_up(bytes, 4));
    return true;
}

void op_ple_rows(kernel_steps *s, const model *m, gpu_view rows, uint32_t n_tok, uint32_t n_layer,
                 gpu_view out) {
    const weight *w = &m->weights.ple_embed;
    const ple_rows_args args = {.n_tok = n_tok,
                                .n_col = row_blocks(m, n_layer) * quant_find(w->type)->n_value,
                                .n_out = n_layer * m->config.n_ple,
                                .scale = sqrtf((float)m->config.n_ple) * w->scale};
    run_values(s,
               &(kernel_call){
                   .kernel = &kernel_ple_rows,
                   .formats = {w->type},
                   .args = &args,
                   .views = {rows, out},
               },
               (uint64_t)n_tok * args.n_out / 16);
}
