/* Fuzzes safetensors headers: whatever opens must be found again and lie inside the file. */
#include "file/file.h"
#include "file/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const safetensors *s, uint64_t size) {
    for (size_t i = 0; i < s->n; i++) {
        const safetensor *t = &s->tensors[i];
        if (safetensors_find(s, t->name) != t) abort();
        if (t->offset > size || t->size > size - t->offset) abort();
        uint64_t n = 1;
        for (uint32_t k = 0; k < t->n_dims; k++) n *= t->ne[k];
        float *out = malloc(n <= size ? (n ? n : 1) * sizeof *out : 1);
        if (n <= size || strstr(t->dtype, "F16") || strcmp(t->dtype, "F32") == 0)
            safetensors_read_f32(s, t, out, NULL);
        free(out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    void *bytes = malloc(n ? n : 1); /* ends where the input does */
    carat_error err = {0};
    arena *a = arena_create(NULL);
    source *src;
    safetensors *s;
    if (n) memcpy(bytes, data, n);
    if (source_memory(a, "input", bytes, n, &src, &err) && safetensors_open(a, src, &s, &err))
        check(s, n);
    else if (err.code != CARAT_E_FORMAT)
        abort();
    arena_free(a);
    free(bytes);
    return 0;
}
