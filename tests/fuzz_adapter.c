/* Fuzzes adapters for nano. An input is the text of a configuration, a zero, and a safetensors file
 * or a GGUF: what opens must have sizes of the model and finite values, and be written and applied
 * without reading or writing outside of anything; what does not must say why. */
#include "model/lora.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const model *nano(void) {
    static model *m;
    carat_error err = {0};
    gguf *g;
    arena *a = m ? NULL : arena_create(&err);
    if (a && (!gguf_open(a, "models/nano.gguf", &g, &err) || !model_open(a, g, &m, &err))) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    return m;
}

static void apply(const lora_pair *p, bool embed) {
    float *in = calloc(p->n_col, sizeof *in), *out = calloc(p->n_row, sizeof *out);
    if (embed)
        ref_lora_embed(p, 1, (int32_t)p->n_col - 1, out);
    else
        ref_lora(p, 1, in, 1, out);
    free(in);
    free(out);
}

static void check(const lora *l) {
    buf b = {0};
    uint64_t n = 0;
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i);
        if (!p->rank) continue;
        if (p->rank > LORA_MAX_RANK || !isfinite(p->alpha) || p->a != l->values + n) abort();
        n += (uint64_t)p->rank * (p->n_col + p->n_row);
        apply(p, p == &l->embed);
    }
    if (!n || n != l->n_value) abort();
    for (uint64_t i = 0; i < n; i++)
        if (!isfinite(l->values[i])) abort();
    lora_put_config(l, &b);
    lora_put_safetensors(l, &b);
    lora_put_gguf(l, &b);
    buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const uint8_t *zero = n ? memchr(data, 0, n) : NULL;
    const size_t n_config = zero ? (size_t)(zero - data) : 0, n_file = zero ? n - n_config - 1 : 0;
    char *config = malloc(n_config + 1);
    void *file = malloc(n_file ? n_file : 1); /* ends where the input does */
    carat_error err = {0};
    arena *a = arena_create(NULL);
    source *src;
    gguf *g;
    lora *l = NULL;
    if (n_config) memcpy(config, data, n_config);
    if (n_file) memcpy(file, zero + 1, n_file);
    bool ok = source_memory(a, "input", file, n_file, &src, &err);
    if (n_file >= 4 && !memcmp(file, "GGUF", 4)) {
        ok = gguf_open_source(a, src, &g, &err);
        if (ok) {
            ok = lora_open_gguf(a, nano(), g, &l, &err);
            gguf_close(g);
        }
    } else {
        ok = ok && lora_open_peft(a, nano(), src, config, n_config, &l, &err);
    }
    if (ok)
        check(l);
    else if (err.code == CARAT_OK || err.code == CARAT_E_MEMORY || !err.message[0])
        abort();
    arena_free(a);
    free(config);
    free(file);
    return 0;
}
