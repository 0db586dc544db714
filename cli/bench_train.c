/* bench_train: how fast a LoRA adapter learns here: steps of a number of tokens on all seven kinds
 * of matrices, in batches that may be smaller. The samples are random words of the model's own
 * vocabulary, the same on every run, each as long as a batch, and every token of them is learned:
 * the most that so many tokens can cost.
 *
 * Flow: bench.c before and after. */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    DEFAULT_TOKENS = 2048,
    WORD_TRIES = 64 /* tokens that are looked at for each word, on average and at most */
};

/* ---- what is asked for ---- */

bool bench_train_plan(const settings *s, train_test *t, carat_error *err) {
    const uint32_t step = s->train_tokens ? s->train_tokens : DEFAULT_TOKENS;
    *t = (train_test){.rank = s->train.rank ? s->train.rank : 16,
                      .step_tokens = step,
                      .batch_tokens = s->train.batch_tokens ? s->train.batch_tokens : step};
    snprintf(t->name, sizeof t->name, "train%u/%ur%u", step, t->batch_tokens, t->rank);
    return step % t->batch_tokens == 0 ||
           fail(err, CARAT_E_ARGUMENT,
                "bench: a step of %u tokens is no whole number of batches of %u", step,
                t->batch_tokens);
}

/* ---- samples ---- */

/* The letters of an ordinary token, if it has nothing else but a blank before them; else "". */
static bool letters_of(const runtime *r, int32_t id, char word[256], carat_error *err) {
    char piece[256];
    const int64_t len = carat_detokenize(r->engine, &id, 1, false, piece, sizeof piece, err);
    word[0] = 0;
    if (len < 0) return false;
    if (len >= (int64_t)sizeof piece) return true;
    const int64_t begin = len > 0 && piece[0] == ' ';
    for (int64_t i = begin; i < len; i++)
        if ((piece[i] | 32) < 'a' || (piece[i] | 32) > 'z') return true;
    memcpy(word, piece + begin, (size_t)(len - begin));
    word[len - begin] = 0;
    return true;
}

/* A row of n words; they are n tokens at least. */
static bool put_row(const runtime *r, uint64_t *state, uint32_t n, buf *out, carat_error *err) {
    uint32_t found = 0;
    buf_puts(out, "{\"text\":\"");
    for (uint64_t i = 0; found < n; i++) {
        char word[256];
        if (i == (uint64_t)n * WORD_TRIES)
            return fail(err, CARAT_E_UNSUPPORTED, "bench: %s has hardly a word in its vocabulary",
                        r->info.name);
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        if (!letters_of(r, (int32_t)((*state >> 33) % r->info.n_vocab), word, err)) return false;
        if (word[0]) buf_printf(out, "%s%s", found++ ? " " : "", word);
    }
    buf_puts(out, "\"}\n");
    return !out->failed || fail_memory(err, out->len, "samples");
}

static bool write_samples(const runtime *r, const char *path, uint32_t n, uint32_t n_word,
                          carat_error *err) {
    uint64_t state = 1;
    buf rows = {0};
    bool ok = true;
    for (uint32_t i = 0; ok && i < n; i++) ok = put_row(r, &state, n_word, &rows, err);
    FILE *f = ok ? fopen(path, "w") : NULL;
    if (ok && (!f || fwrite(rows.data, 1, rows.len, f) != rows.len))
        ok = fail(err, CARAT_E_IO, "%s: %s", path, strerror(errno));
    if (f && fclose(f) != 0 && ok) ok = fail(err, CARAT_E_IO, "%s: %s", path, strerror(errno));
    buf_free(&rows);
    return ok;
}

/* The file is there only while it is read. */
static carat_trainer *open_trainer(const runtime *r, const settings *s, const train_test *t,
                                   uint32_t n_step, carat_error *err) {
    char dir[] = "/tmp/carat-bench-XXXXXX", path[64];
    const uint32_t n_batch = t->step_tokens / t->batch_tokens;
    carat_train_desc desc = {.data = path,
                             .rank = t->rank,
                             .max_length = t->batch_tokens,
                             .batch_tokens = t->batch_tokens,
                             .n_accumulate = n_batch,
                             .n_epoch = 1,
                             .memory = (uint64_t)(s->memory * 1e9)};
    if (!mkdtemp(dir)) {
        fail(err, CARAT_E_IO, "%s: %s", dir, strerror(errno));
        return NULL;
    }
    snprintf(path, sizeof path, "%s/samples.jsonl", dir);
    const bool ok = write_samples(r, path, n_step * n_batch, t->batch_tokens, err);
    carat_trainer *tr = ok ? carat_trainer_open(r->engine, &desc, err) : NULL;
    unlink(path);
    rmdir(dir);
    return tr;
}

/* ---- what it takes ---- */

static double number(const json *object, const char *key) {
    return json_number(json_get(object, key), 0);
}

/* Tokens that one sees, itself included, on average over a sample of n. */
static double heard(double n, double window) {
    return window > 0 && window < n ? window - window * (window - 1) / (2 * n) : (n + 1) / 2;
}

/* Multiplications and additions for a token in samples of n: of a layer's matrices, which are there
 * on the way back once more (they do not learn), and of attention's two products, of which each has
 * two gradients. */
static double layer_flop(const json *config, const json *layer, double n) {
    const double d = number(config, "n_embd"), dim = number(layer, "head_dim");
    const double heads = number(layer, "n_head") * dim, kv = number(layer, "n_kv") * dim;
    double weights = d * (2 * heads + 3 * number(layer, "n_ff") + 2 * number(config, "n_ple"));
    if (json_bool(json_get(layer, "owns_kv"), false))
        weights += d * kv * (json_bool(json_get(layer, "k_eq_v"), false) ? 1 : 2);
    if (json_bool(json_get(layer, "moe"), false))
        weights += d * (number(config, "n_expert") +
                        3 * number(config, "n_expert_used") * number(config, "n_ff_expert"));
    return 4 * weights + 12 * heads * heard(n, number(layer, "window"));
}

/* The same of all: layers, head and the adapter, which has two gradients. What is computed again
 * for want of room is not counted. */
static double token_flop(const json *m, double n, double n_adapter) {
    const json *config = json_get(m, "config"), *layers = json_get(m, "layers");
    const double d = number(config, "n_embd");
    double flop = 4 * d * number(config, "n_vocab") + 6 * n_adapter +
                  2 * d * number(config, "n_layer") * number(config, "n_ple");
    for (size_t i = 0; i < (layers ? layers->n : 0); i++)
        flop += layer_flop(config, &layers->items[i], n);
    return flop;
}

static bool count_flop(const runtime *r, const carat_trainer *tr, train_test *t, carat_error *err) {
    arena *memory = arena_create(err);
    char *model = memory ? carat_engine_describe(r->engine, err) : NULL;
    char *run = model ? carat_trainer_report(tr, err) : NULL;
    json *m, *report;
    const bool ok = run && json_parse(memory, model, strlen(model), "the description", &m, err) &&
                    json_parse(memory, run, strlen(run), "the report", &report, err);
    if (ok)
        t->gflop =
            1e-9 * t->step_tokens *
            token_flop(m, t->batch_tokens, number(json_get(report, "adapter"), "parameters"));
    carat_string_free(run);
    carat_string_free(model);
    arena_free(memory);
    return ok;
}

/* ---- measuring ---- */

/* Seconds of all steps, one after the other. */
static bool learn(carat_trainer *tr, uint32_t n_step, double *seconds, carat_error *err) {
    uint32_t n = 0;
    carat_event ev = {0};
    carat_job *job = carat_train(tr, 0, err);
    bool ok = job != NULL;
    interrupt_watch(job);
    progress("learning");
    for (double since = now_s(); ok && ev.kind != CARAT_EVENT_DONE;) {
        ok = carat_wait(job, &ev, err);
        if (!ok || ev.kind != CARAT_EVENT_STEP) continue;
        const double now = now_s();
        if (n < n_step) seconds[n++] = now - since;
        since = now;
        progress("learning, %u of %u steps", n, n_step);
    }
    interrupt_watch(NULL);
    carat_job_free(job);
    progress_end();
    return ok && (n == n_step || fail(err, CARAT_E_CANCELLED, "interrupted"));
}

bool bench_train(runtime *r, const settings *s, uint32_t reps, train_test *t, carat_error *err) {
    double seconds[1 + MAX_REPS];
    carat_session_free(r->session); /* its memory is no part of this */
    r->session = NULL;
    carat_trainer *tr = open_trainer(r, s, t, 1 + reps, err);
    const bool ok = tr && learn(tr, 1 + reps, seconds, err) && count_flop(r, tr, t, err);
    if (ok) {
        carat_train_state state;
        const uint64_t peak = carat_device_peak_bytes(r->device), weights = r->info.weight_bytes;
        carat_trainer_state(tr, &state);
        t->first_s = seconds[0];
        t->median_s = bench_median(seconds + 1, reps);
        t->best_s = seconds[1];
        t->rate = (double)state.n_token / (1 + reps) / t->median_s;
        t->run_bytes = state.device_bytes;
        t->n_again = state.n_again;
        t->beside_bytes = peak > weights ? peak - weights : 0;
    }
    carat_trainer_free(tr);
    return ok;
}
