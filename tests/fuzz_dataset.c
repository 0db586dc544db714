/* Fuzzes training data with nano's tokenizer. The first byte of an input chooses between JSON and
 * CSV and sets options, the second is the longest sample, the rest is the file: samples must lie
 * inside of the tokens, begin with a BOS and have something to learn, and make up a run. */
#include "train/train.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const tokenizer *nano(void) {
    static tokenizer *t;
    carat_error err = {0};
    gguf *g;
    arena *a = t ? NULL : arena_create(&err);
    if (a && (!gguf_open(a, "models/nano.gguf", &g, &err) || !tokenizer_create(a, g, &t, &err))) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    return t;
}

static void check_samples(const dataset *d, uint32_t max) {
    const int32_t bos = nano()->specials[SPECIAL_BOS];
    uint64_t all = 0;
    buf shown = {0};
    if (!d->n || d->ids.len != d->target.len) abort();
    if (d->n + d->n_bad + d->n_dropped + d->n_unlearned != d->n_row) abort();
    for (uint32_t i = 0; i < d->n; i++) {
        const sample *s = &d->samples[i];
        uint32_t n_target = 0;
        if (s->begin > d->ids.len || s->n > d->ids.len - s->begin || s->n > max) abort();
        if (d->ids.data[s->begin] != bos || d->target.data[s->begin]) abort();
        for (uint32_t k = 0; k < s->n; k++) n_target += d->target.data[s->begin + k] != 0;
        if (!n_target || n_target != s->n_target) abort();
        all += n_target;
        dataset_show(d, nano(), i, &shown);
        buf_reset(&shown);
    }
    if (all != d->n_target) abort();
    buf_free(&shown);
}

static void run(const dataset *d) {
    const train_options o = {.lr = 1, .n_epoch = 2, .seed = d->n, .pack = true, .eval_share = 0.3};
    trainer *t;
    train_work w;
    train_event e;
    if (!trainer_open(d, &o, &t, NULL)) abort();
    for (uint32_t i = 0; i < 50; i++) {
        trainer_next(t, &w);
        if (w.kind == TRAIN_DONE) break;
        if (!w.batch.n_tok || !trainer_took(t, &w, 1, 1, &e, NULL)) abort();
    }
    trainer_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 2) return 0;
    void *bytes = malloc(n - 2 ? n - 2 : 1); /* ends where the input does */
    const dataset_options o = {.learn_all = data[0] & 2,
                               .stop_at_bad = data[0] & 4,
                               .drop_long = data[0] & 8,
                               .large = data[0] & 16,
                               .max_len = data[1]};
    carat_error err = {0};
    arena *a = arena_create(NULL);
    source *src;
    dataset *d;
    memcpy(bytes, data + 2, n - 2);
    if (!source_memory(a, data[0] & 1 ? "input.csv" : "input.jsonl", bytes, n - 2, &src, &err))
        abort();
    if (dataset_open(nano(), src, &o, &d, &err)) {
        check_samples(d, o.max_len ? o.max_len : 2048);
        run(d);
        dataset_free(d);
    } else if (err.code == CARAT_OK || err.code == CARAT_E_MEMORY || !err.message[0]) {
        abort();
    }
    arena_free(a);
    free(bytes);
    return 0;
}
