/* Fuzzes GGUF headers: whatever opens must be found again and lie inside the file. */
#include "file/file.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const gguf *g, uint64_t size) {
    uint32_t u;
    float f;
    bool t;
    gguf_string s;
    char text[96];
    for (uint64_t i = 0; i < g->n_value; i++) {
        const gguf_value *v = &g->values[i];
        gguf_get_u32(g, v->key.text, &u);
        gguf_get_f32(g, v->key.text, &f);
        gguf_get_bool(g, v->key.text, &t);
        gguf_get_string(g, v->key.text, &s);
        if (strlen(v->key.text) == v->key.len && gguf_find(g, v->key.text) != v) abort();
        if (v->kind != GGUF_ARRAY) continue;
        for (uint64_t k = 0; k < v->n && v->item != GGUF_STRING; k++) gguf_array_u32(v, k, &u);
        for (uint64_t k = 0; k < v->n && v->item == GGUF_STRING; k++) {
            const gguf_string *item = (const gguf_string *)v->as.items + k;
            if (item->text[item->len] != 0) abort();
        }
    }
    for (uint64_t i = 0; i < g->n_tensor; i++) {
        const gguf_tensor *w = &g->tensors[i];
        if (strlen(w->name.text) == w->name.len && gguf_find_tensor(g, w->name.text) != w) abort();
        if (w->offset > size || w->size > size - w->offset) abort();
        if (strlen(gguf_shape(w, text)) >= sizeof text) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    void *bytes = malloc(n ? n : 1); /* ends where the input does */
    carat_error err = {0};
    arena *a = arena_create(NULL);
    source *src;
    gguf *g;
    if (n) memcpy(bytes, data, n);
    if (source_memory(a, "input", bytes, n, &src, &err) && gguf_open_source(a, src, &g, &err)) {
        check(g, n);
        gguf_close(g);
    } else if (err.code == CARAT_OK || err.code == CARAT_E_MEMORY)
        abort();
    if (arena_bytes(a) > 65536 + 64 * n) abort(); /* memory in proportion to the file */
    arena_free(a);
    free(bytes);
    return 0;
}
