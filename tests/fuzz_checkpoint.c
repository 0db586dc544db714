/* Fuzzes checkpoints of a small run on nano: what is read must leave a run that goes on to its end,
 * what is refused must leave it as it was. So that seeds stay good, the fingerprint of an input,
 * where it has one, is made that of the run. */
#include "train/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char mark[] = "\"fingerprint\":\"";
enum { DIGITS = 16 };

static struct {
    trainer *plan;
    lora *adapter;
    adamw moments;
    char fingerprint[DIGITS];
} run;

static void require(bool ok, const carat_error *err) {
    if (ok) return;
    fprintf(stderr, "%s\n", err->message);
    abort();
}

/* The run's fingerprint from a checkpoint of it. */
static void read_fingerprint(arena *a) {
    char path[64];
    source *src;
    carat_error err = {0};
    snprintf(path, sizeof path, "/tmp/carat-fuzz-%ld", (long)getpid());
    require(checkpoint_write(path, run.plan, run.adapter, &run.moments, &err), &err);
    require(source_open(a, path, &src, &err), &err);
    char *bytes = arena_alloc(a, src->size, 1);
    require(source_read(src, 0, bytes, (size_t)src->size, &err), &err);
    const char *at = memmem(bytes, (size_t)src->size, mark, strlen(mark));
    if (!at) abort();
    memcpy(run.fingerprint, at + strlen(mark), DIGITS);
    source_close(src);
    unlink(path);
}

static void open_run(void) {
    static const char text[] =
        "{\"text\":\"one two\"}\n{\"text\":\"three\"}\n{\"text\":\"four\"}\n";
    const train_options o = {.lr = 1e-3, .n_epoch = 3, .seed = 1, .eval_share = 0.3, .patience = 9};
    const lora_plan plan = {.rank = 1, .alpha = 1, .target = {[LORA_K] = true}, .end = 1};
    carat_error err = {0};
    arena *a = arena_create(&err);
    gguf *g;
    model *m = NULL;
    source *src;
    dataset *d;
    require(gguf_open(a, "models/nano.gguf", &g, &err), &err);
    require(model_open(a, g, &m, &err), &err);
    require(source_memory(a, "x.jsonl", text, strlen(text), &src, &err), &err);
    require(dataset_open(m->tokenizer, src, &(dataset_options){0}, &d, &err), &err);
    require(trainer_open(d, &o, &run.plan, &err), &err);
    require(lora_create(a, m, &plan, &run.adapter, &err), &err);
    require(adamw_open(a, run.adapter->n_value, 0, &run.moments, &err), &err);
    read_fingerprint(a);
}

static void go_on(void) {
    trainer *t = run.plan;
    train_work w;
    train_event e;
    for (uint64_t i = 0; i < run.adapter->n_value; i++)
        if (!isfinite(run.adapter->values[i])) abort();
    for (uint32_t i = 0;; i++) {
        trainer_next(t, &w);
        if (w.kind == TRAIN_DONE) break;
        if (i > 100 || !w.batch.n_tok || !trainer_took(t, &w, 1, 1, &e, NULL)) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!run.plan) open_run();
    char *bytes = malloc(n ? n : 1); /* ends where the input does */
    carat_error err = {0};
    arena *a = arena_create(NULL);
    source *src;
    if (n) memcpy(bytes, data, n);
    char *at = n ? memmem(bytes, n, mark, strlen(mark)) : NULL;
    if (at && (size_t)(bytes + n - at) >= strlen(mark) + DIGITS)
        memcpy(at + strlen(mark), run.fingerprint, DIGITS);
    const train_state before = {.best_eval = 1e300};
    trainer_rewind(run.plan, &before);
    if (!source_memory(a, "input", bytes, n, &src, &err)) abort();
    if (checkpoint_read(src, run.plan, run.adapter, &run.moments, &err))
        go_on();
    else if (err.code == CARAT_OK || err.code == CARAT_E_MEMORY || run.plan->state.step ||
             run.plan->state.best_eval != before.best_eval)
        abort();
    arena_free(a);
    free(bytes);
    return 0;
}
