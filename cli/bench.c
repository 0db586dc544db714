/* bench: how fast a model runs here. Prompts of several lengths, generation at several depths of
 * context, encoders, learning, loading, memory, and all beside the bandwidth that this device
 * really has.
 *
 * The tokens are pseudo-random and always the same, and sampling is greedy: so the hash of all
 * logits repeats on one device.
 *
 * Flow: main.c and runtime.c before; bench_encoders.c measures pictures and sounds,
 * bench_train.c learning. */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { MAX_TESTS = 32, WARM_PROMPT = 32, WARM_ANSWER = 4 };

static const option bench_options[] = {
    OPTION("pp", 0, TEXT, pp, "LIST", "lengths of prompts to read; default: 128,512,2048"),
    OPTION("tg", 0, TEXT, tg, "LIST",
           "tokens of context before generating; default: 0,2048,8192. \"none\" as a list leaves "
           "these tests out"),
    OPTION("generate", 'n', U32, generate, "N", "tokens to generate; default: 64", .min = 2,
           .max = 1 << 20),
    OPTION("reps", 'r', U32, reps, "N", "runs of each test, of which the median counts; default: 3",
           .min = 1, .max = MAX_REPS),
    OPTION("encoders", 0, FLAG, encoders, NULL,
           "also encode a picture of 768 x 768 pixels and 30 seconds of sound"),
    OPTION("train", 0, FLAG, training, NULL, "also let an adapter on all seven matrices learn"),
    OPTION("train-rank", 0, U32, train.rank, "N", "its rank; default: 16", .min = 1, .max = 1024),
    OPTION("train-tokens", 0, U32, train_tokens, "N", "tokens of a step; default: 2048", .min = 2,
           .max = 1 << 24),
    OPTION("train-batch", 0, U32, train.batch_tokens, "N",
           "tokens of a batch; with fewer than a step has, gradients are accumulated; default: "
           "those of a step",
           .min = 2, .max = 1 << 24),
    OPTION("train-memory", 0, F64, memory, "GB",
           "memory for it beside the weights: with less, more is computed again; default: 4",
           .min = 1e-3, .max = 1e6),
    OPTION("json", 0, FLAG, json, NULL, "print one JSON object"),
    OPTION("csv", 0, TEXT, csv, "FILE",
           "also append a line for each test to a file; a new file gets a header"),
    {0}};
static const option_group group = {"tests and output", bench_options};

typedef struct test {
    bool generates;
    uint32_t n;     /* tokens: of the prompt, or of the context before generating */
    bool skipped;   /* it does not fit the model's context */
    double rate;    /* tokens a second, median */
    double seconds; /* of one run at that rate */
    uint32_t n_dispatch;
    uint64_t step_bytes;
} test;

typedef struct bench {
    runtime runtime;
    const settings *settings;
    test tests[MAX_TESTS];
    size_t n_test;
    encoder_test encoders[2];
    size_t n_encoder;
    train_test train; /* where settings->training */
    uint32_t n_generate, reps, n_ctx;
    uint64_t hash; /* over the logits of all runs */
    double bandwidth;
    uint64_t host_bytes, device_bytes;
} bench;

/* ---- which tests ---- */

static bool add_tests(bench *b, bool generates, const char *list, carat_error *err) {
    if (strcmp(list, "none") == 0) return true;
    while (*list) {
        char number[16];
        uint32_t n = 0;
        size_t len = strcspn(list, ",");
        snprintf(number, sizeof number, "%.*s", (int)min_u32((uint32_t)len, 15), list);
        if (!parse_u32(number, &n) || n > 1 << 24 || (!generates && n == 0))
            return fail(err, CARAT_E_ARGUMENT, "bench: '%s' is no list of token counts", list);
        if (b->n_test == MAX_TESTS)
            return fail(err, CARAT_E_ARGUMENT, "bench: more than %d tests", MAX_TESTS);
        b->tests[b->n_test++] = (test){.generates = generates, .n = n};
        list += len + (list[len] == ',');
    }
    return true;
}

/* Tokens of context that a test needs, BOS included. */
static uint32_t needs(const bench *b, const test *t) {
    return t->n + 2 + (t->generates ? b->n_generate : 0);
}

static bool plan(bench *b, const char *model, carat_error *err) {
    const settings *s = b->settings;
    runtime r = {0};
    b->n_generate = s->generate ? s->generate : 64;
    b->reps = s->reps ? s->reps : 3;
    b->n_ctx = WARM_PROMPT + WARM_ANSWER + 2;
    bool ok = add_tests(b, false, s->pp ? s->pp : "128,512,2048", err) &&
              add_tests(b, true, s->tg ? s->tg : "0,2048,8192", err) &&
              runtime_open(&r, s, model, err);
    for (size_t i = 0; ok && i < b->n_test; i++) {
        test *t = &b->tests[i];
        t->skipped = needs(b, t) > r.info.n_ctx_train;
        if (!t->skipped) b->n_ctx = max_u32(b->n_ctx, needs(b, t));
    }
    if (ok && s->training) ok = bench_train_plan(s, &b->train, err);
    if (ok && s->encoders) {
        b->n_ctx = max_u32(b->n_ctx, ENCODER_CONTEXT);
        if (!r.info.has_vision && !r.info.has_audio)
            ok = fail(err, CARAT_E_UNSUPPORTED,
                      "%s has no encoders; llama.cpp's models have them in a second file, the "
                      "projector",
                      r.info.name);
    }
    runtime_close(&r);
    return ok;
}

/* ---- running ---- */

/* n ordinary tokens, the same for the same seed. */
static bool make_tokens(const bench *b, uint64_t seed, uint32_t n, id_list *out, carat_error *err) {
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    char piece[256];
    while (out->len < n && !out->failed) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        int32_t id = (int32_t)((state >> 33) % b->runtime.info.n_vocab);
        int64_t len = carat_detokenize(b->runtime.engine, &id, 1, false, piece, sizeof piece, err);
        if (len < 0) return false;
        if (len > 0) ids_put(out, id);
    }
    return out->failed ? fail_memory(err, n * sizeof(int32_t), "the tokens") : true;
}

static bool complete(bench *b, const id_list *v, uint32_t n_generate, carat_stats *st,
                     carat_error *err) {
    carat_sampling greedy = CARAT_SAMPLING_DEFAULT;
    greedy.temperature = 0;
    carat_chat_desc desc = {.max_tokens = n_generate, .sampling = &greedy, .ignore_stop = true};
    carat_job *job = carat_complete(b->runtime.session, v->data, v->len, &desc, err);
    if (!runtime_finish(job, "measuring", st, err)) return false;
    b->hash = (b->hash ^ st->logits_hash) * 0x100000001b3u;
    return true;
}

/* One run of a test; *rate in tokens a second. */
static bool run_once(bench *b, test *t, uint32_t rep, double *rate, carat_error *err) {
    carat_stats st;
    id_list v = {0};
    /* Another prompt each time, or the session would know it; the same context each time. */
    bool ok = make_tokens(b, t->generates ? 1 : 2 + rep, max_u32(t->n, 1), &v, err) &&
              complete(b, &v, t->generates ? b->n_generate : 1, &st, err);
    ids_free(&v);
    if (!ok) return false;
    *rate = t->generates ? generate_rate(&st) : prompt_rate(&st);
    t->n_dispatch = st.n_dispatch;
    t->step_bytes = st.bytes_read;
    return true;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, uint32_t n) {
    qsort(values, n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static bool run_test(bench *b, test *t, carat_error *err) {
    double rates[MAX_REPS];
    for (uint32_t i = 0; i < b->reps; i++)
        if (!run_once(b, t, i, &rates[i], err)) return false;
    t->rate = bench_median(rates, b->reps);
    return true;
}

/* Compiles the pipelines, which is no part of any test. */
static bool warm_up(bench *b, carat_error *err) {
    carat_stats st;
    id_list v = {0};
    bool ok = make_tokens(b, 0, WARM_PROMPT, &v, err) && complete(b, &v, WARM_ANSWER, &st, err);
    ids_free(&v);
    return ok;
}

static bool run_tests(bench *b, const char *model, carat_error *err) {
    b->hash = 0xcbf29ce484222325u;
    if (!runtime_load(&b->runtime, b->settings, model, b->n_ctx, err) || !warm_up(b, err))
        return false;
    for (size_t i = 0; i < b->n_test; i++)
        if (!b->tests[i].skipped && !run_test(b, &b->tests[i], err)) return false;
    if (b->settings->encoders &&
        !bench_encoders(&b->runtime, b->reps, b->encoders, &b->n_encoder, err))
        return false;
    if (b->settings->training && !bench_train(&b->runtime, b->settings, b->reps, &b->train, err))
        return false;
    /* Before the bandwidth kernel, which takes memory of its own. */
    b->host_bytes = host_peak_bytes();
    b->device_bytes = carat_device_peak_bytes(b->runtime.device);
    progress("measuring the bandwidth of %s", carat_device_name(b->runtime.device));
    b->bandwidth = carat_device_bandwidth(b->runtime.device, err);
    progress_end();
    return b->bandwidth > 0;
}

/* ---- results ---- */

static const char *test_name(const test *t, char text[32]) {
    snprintf(text, 32, t->generates ? "tg@%u" : "pp%u", t->n);
    return text;
}

/* Weight bytes a second; only decode reads them once a token. */
static double test_bandwidth(const test *t) {
    return t->generates ? t->rate * (double)t->step_bytes : 0;
}

static void print_head(const bench *b) {
    const carat_model_info *info = &b->runtime.info;
    char a[24], c[24];
    table t = {.columns = "ll"};
    table_cell(&t, "model");
    table_cell(&t, "%s, %s parameters, %s", info->name, human_count(info->n_params, a),
               info->quantisation ? info->quantisation : "mixed types");
    table_cell(&t, "device");
    table_cell(&t, "%s", carat_device_name(b->runtime.device));
    table_cell(&t, "bandwidth");
    table_cell(&t, "%s/s, measured", human_bytes((uint64_t)b->bandwidth, a));
    table_cell(&t, "load");
    table_cell(&t, "%s in %.2f s, %s/s", human_bytes(info->weight_bytes, a), b->runtime.load_s,
               human_bytes((uint64_t)((double)info->weight_bytes / b->runtime.load_s), c));
    table_cell(&t, "memory");
    table_cell(&t, "%s host, %s device at most", human_bytes(b->host_bytes, a),
               human_bytes(b->device_bytes, c));
    table_cell(&t, "logits");
    table_cell(&t, "%016llx", (unsigned long long)b->hash);
    table_print(&t, stdout, false);
}

static void print_table(const bench *b) {
    static const char *const head[] = {"test",       "tok/s", "ms/token",
                                       "dispatches", "GB/s",  "of bandwidth"};
    table t = {.columns = "lrrrrr"};
    print_head(b);
    if (b->n_test) putchar('\n');
    for (size_t i = 0; b->n_test && i < COUNT(head); i++) table_cell(&t, "%s", head[i]);
    for (size_t i = 0; i < b->n_test; i++) {
        const test *x = &b->tests[i];
        char name[32];
        double read = test_bandwidth(x);
        if (x->skipped) continue;
        table_cell(&t, "%s", test_name(x, name));
        table_cell(&t, "%.1f", x->rate);
        table_cell(&t, "%.3f", x->rate > 0 ? 1e3 / x->rate : 0);
        if (!x->generates) {
            for (int empty = 0; empty < 3; empty++) table_cell(&t, "%s", "");
            continue;
        }
        table_cell(&t, "%u", x->n_dispatch);
        table_cell(&t, "%.2f", read * 1e-9);
        table_cell(&t, "%.1f %%", 100 * read / b->bandwidth);
    }
    table_print(&t, stdout, true);
    for (size_t i = 0; i < b->n_test; i++) {
        char name[32];
        if (b->tests[i].skipped)
            printf("%s was left out: the model's context is %u tokens\n",
                   test_name(&b->tests[i], name), b->runtime.info.n_ctx_train);
    }
}

static double gflop_rate(const encoder_test *t) { return t->gflop / t->median_s; }

static void print_encoders(const bench *b) {
    static const char *const head[] = {"encoder",   "tokens", "first ms", "best ms",
                                       "median ms", "GFLOP",  "GFLOP/s",  "prepared"};
    table t = {.columns = "lrrrrrrr"};
    if (!b->n_encoder) return;
    putchar('\n');
    for (size_t i = 0; i < COUNT(head); i++) table_cell(&t, "%s", head[i]);
    for (size_t i = 0; i < b->n_encoder; i++) {
        const encoder_test *x = &b->encoders[i];
        table_cell(&t, "%s", x->title);
        table_cell(&t, "%u", x->n_soft);
        table_cell(&t, "%.1f", 1e3 * x->first_s);
        table_cell(&t, "%.1f", 1e3 * x->best_s);
        table_cell(&t, "%.1f", 1e3 * x->median_s);
        table_cell(&t, "%.1f", x->gflop);
        table_cell(&t, "%.1f", gflop_rate(x));
        table_cell(&t, "%.1f ms", 1e3 * x->prepare_s);
    }
    table_print(&t, stdout, true);
}

/* The longest prompt that was measured, to compare with; NULL: none. */
static const test *longest_prompt(const bench *b) {
    const test *longest = NULL;
    for (size_t i = 0; i < b->n_test; i++) {
        const test *t = &b->tests[i];
        if (!t->generates && !t->skipped && (!longest || t->n > longest->n)) longest = t;
    }
    return longest;
}

static void print_train(const bench *b) {
    static const char *const head[] = {"learning", "batch",         "tok/s",   "first ms",
                                       "best ms",  "step ms",       "GFLOP/s", "again",
                                       "it holds", "beside weights"};
    const train_test *x = &b->train;
    const test *prompt = longest_prompt(b);
    char text[24];
    table t = {.columns = prompt ? "lrrrrrrrrrr" : "lrrrrrrrrr"};
    if (!b->settings->training) return;
    putchar('\n');
    for (size_t i = 0; i < COUNT(head); i++) table_cell(&t, "%s", head[i]);
    if (prompt) table_cell(&t, "of pp%u", prompt->n);
    table_cell(&t, "rank %u, %u tokens", x->rank, x->step_tokens);
    table_cell(&t, "%u", x->batch_tokens);
    table_cell(&t, "%.1f", x->rate);
    table_cell(&t, "%.1f", 1e3 * x->first_s);
    table_cell(&t, "%.1f", 1e3 * x->best_s);
    table_cell(&t, "%.1f", 1e3 * x->median_s);
    table_cell(&t, "%.1f", x->gflop / x->median_s);
    table_cell(&t, "%u of %u", x->n_again, b->runtime.info.n_layer);
    table_cell(&t, "%s", human_bytes(x->run_bytes, text));
    table_cell(&t, "%s", x->beside_bytes ? human_bytes(x->beside_bytes, text) : "");
    if (prompt) table_cell(&t, "%.1f %%", 100 * x->rate / prompt->rate);
    table_print(&t, stdout, true);
}

static void put_json_string(buf *out, const char *name, const char *text) {
    buf_printf(out, "\"%s\":", name);
    json_write_string(out, text ? text : "", text ? strlen(text) : 0);
}

static void put_json_train(const train_test *t, buf *out) {
    buf_printf(out,
               ",\n\"train\":{\"test\":\"%s\",\"rank\":%u,\"step_tokens\":%u,\"batch_tokens\":%u,"
               "\"tokens_per_s\":%.3f,\"first_ms\":%.3f,\"best_ms\":%.3f,\"median_ms\":%.3f,"
               "\"gflop\":%.4f,\"gflop_per_s\":%.3f,\"layers_again\":%u,\"run_bytes\":%llu,"
               "\"beside_weights\":%llu}",
               t->name, t->rank, t->step_tokens, t->batch_tokens, t->rate, 1e3 * t->first_s,
               1e3 * t->best_s, 1e3 * t->median_s, t->gflop, t->gflop / t->median_s, t->n_again,
               (unsigned long long)t->run_bytes, (unsigned long long)t->beside_bytes);
}

static bool print_json(const bench *b, carat_error *err) {
    const carat_model_info *info = &b->runtime.info;
    buf out = {0};
    buf_puts(&out, "{");
    put_json_string(&out, "model", info->name);
    buf_puts(&out, ",");
    put_json_string(&out, "quantisation", info->quantisation);
    buf_puts(&out, ",");
    put_json_string(&out, "device", carat_device_name(b->runtime.device));
    buf_printf(&out,
               ",\"version\":\"" CARAT_VERSION "\",\"parameters\":%llu,\"weight_bytes\":%llu,"
               "\"load_s\":%.4f,\"bandwidth\":%.6g,\"host_bytes\":%llu,\"device_bytes\":%llu,"
               "\"logits_hash\":\"%016llx\",\"tests\":[",
               (unsigned long long)info->n_params, (unsigned long long)info->weight_bytes,
               b->runtime.load_s, b->bandwidth, (unsigned long long)b->host_bytes,
               (unsigned long long)b->device_bytes, (unsigned long long)b->hash);
    for (size_t i = 0; i < b->n_test; i++) {
        const test *t = &b->tests[i];
        char name[32];
        buf_printf(&out, "%s\n{\"test\":\"%s\"", i ? "," : "", test_name(t, name));
        if (t->skipped)
            buf_puts(&out, ",\"skipped\":true}");
        else
            buf_printf(&out,
                       ",\"tokens_per_s\":%.3f,\"dispatches\":%u,\"bytes_per_token\":%llu,"
                       "\"bytes_per_s\":%.6g}",
                       t->rate, t->n_dispatch, (unsigned long long)t->step_bytes,
                       test_bandwidth(t));
    }
    buf_puts(&out, "],\"encoders\":[");
    for (size_t i = 0; i < b->n_encoder; i++) {
        const encoder_test *t = &b->encoders[i];
        buf_printf(&out,
                   "%s\n{\"test\":\"%s\",\"tokens\":%u,\"first_ms\":%.3f,\"best_ms\":%.3f,"
                   "\"median_ms\":%.3f,\"gflop\":%.4f,\"gflop_per_s\":%.3f,\"prepare_ms\":%.3f}",
                   i ? "," : "", t->name, t->n_soft, 1e3 * t->first_s, 1e3 * t->best_s,
                   1e3 * t->median_s, t->gflop, gflop_rate(t), 1e3 * t->prepare_s);
    }
    buf_puts(&out, "]");
    if (b->settings->training) put_json_train(&b->train, &out);
    buf_puts(&out, "}");
    return print_buf(&out, err);
}

/* A field in quotes, those inside doubled. */
static void put_csv(FILE *f, const char *text) {
    fputc('"', f);
    for (; text && *text; text++) {
        if (*text == '"') fputc('"', f);
        fputc(*text, f);
    }
    fputs("\",", f);
}

/* What a line begins with: of every test. */
static void put_csv_start(const bench *b, FILE *f, const char *day) {
    fprintf(f, "%s," CARAT_VERSION ",", day);
    put_csv(f, carat_device_name(b->runtime.device));
    put_csv(f, b->runtime.info.name);
    put_csv(f, b->runtime.info.quantisation);
}

static void put_csv_test(const bench *b, FILE *f, const test *t) {
    char name[32];
    fprintf(f, "%s,%.2f,%u,%.3f,%.2f,%.2f,%.3f,%.3f,%.1f,%.1f,%016llx,,,,\n", test_name(t, name),
            t->rate, t->n_dispatch, test_bandwidth(t) * 1e-9,
            100 * test_bandwidth(t) / b->bandwidth, b->bandwidth * 1e-9, b->runtime.load_s,
            (double)b->runtime.info.weight_bytes * 1e-9 / b->runtime.load_s,
            (double)b->device_bytes * 1e-6, (double)b->host_bytes * 1e-6,
            (unsigned long long)b->hash);
}

static void put_csv_train(const bench *b, FILE *f) {
    const train_test *t = &b->train;
    fprintf(f, "%s,%.2f,,,,,%.3f,%.3f,%.1f,%.1f,,%.3f,%.3f,%.4f,%.2f\n", t->name, t->rate,
            b->runtime.load_s, (double)b->runtime.info.weight_bytes * 1e-9 / b->runtime.load_s,
            (double)b->device_bytes * 1e-6, (double)b->host_bytes * 1e-6, 1e3 * t->best_s,
            1e3 * t->median_s, t->gflop, t->gflop / t->median_s);
}

static bool append_csv(const bench *b, carat_error *err) {
    const char *path = b->settings->csv;
    struct stat st;
    bool fresh = stat(path, &st) != 0 || st.st_size == 0;
    FILE *f = fopen(path, "a");
    if (!f) return fail(err, CARAT_E_IO, "%s: cannot be written", path);
    char day[32];
    time_t now = time(NULL);
    strftime(day, sizeof day, "%Y-%m-%d", gmtime(&now));
    if (fresh)
        fputs("date,version,device,model,quantisation,test,tokens_per_s,dispatches,gb_per_s,"
              "percent_of_bandwidth,bandwidth_gb_per_s,load_s,load_gb_per_s,device_mb,host_mb,"
              "logits_hash,best_ms,median_ms,gflop,gflop_per_s\n",
              f);
    for (size_t i = 0; i < b->n_test; i++) {
        if (b->tests[i].skipped) continue;
        put_csv_start(b, f, day);
        put_csv_test(b, f, &b->tests[i]);
    }
    for (size_t i = 0; i < b->n_encoder; i++) {
        const encoder_test *t = &b->encoders[i];
        put_csv_start(b, f, day);
        fprintf(f, "%s,%.2f,,,,,,,%.1f,%.1f,,%.3f,%.3f,%.4f,%.2f\n", t->name,
                t->n_soft / t->median_s, (double)b->device_bytes * 1e-6,
                (double)b->host_bytes * 1e-6, 1e3 * t->best_s, 1e3 * t->median_s, t->gflop,
                gflop_rate(t));
    }
    if (b->settings->training) {
        put_csv_start(b, f, day);
        put_csv_train(b, f);
    }
    bool bad = ferror(f) != 0;
    if (fclose(f) != 0 || bad) return fail(err, CARAT_E_IO, "%s: cannot be written", path);
    return true;
}

static int run(settings *s, const char *const *args, size_t n) {
    (void)n;
    carat_error err = {0};
    bench b = {.settings = s};
    interrupt_install(false);
    bool ok = plan(&b, args[0], &err) && run_tests(&b, args[0], &err);
    if (ok && s->json) ok = print_json(&b, &err);
    if (ok && !s->json) {
        print_table(&b);
        print_encoders(&b);
        print_train(&b);
    }
    if (ok && s->csv) ok = append_csv(&b, &err);
    int code = ok ? EXIT_OK : report(&err);
    runtime_close(&b.runtime);
    return code;
}

const command command_bench = {
    .name = "bench",
    .summary = "measure the speed of a model here",
    .usage = "MODEL",
    .about =
        "Measures how fast prompts are read (pp), how fast text is generated behind a context "
        "(tg), and loading, memory and the bandwidth of the device. GB/s are the weights read "
        "for a token; their share of the bandwidth says how much is left to gain. The hash is "
        "over all logits of text and repeats on one device. --encoders adds what pictures and "
        "sounds take after a first run, which loads their encoders. --train adds how fast a "
        "LoRA adapter learns random words, after a first step, and the memory that this takes; "
        "\"again\" are the layers that are computed twice to hold less.",
    .examples = "  carat bench gemma4:e2b\n"
                "  carat bench nano --device cpu --pp 128 --tg 0 --reps 1\n"
                "  carat bench gemma4:e2b --encoders --pp none --tg none\n"
                "  carat bench gemma4:e2b --train --train-batch 1024 --pp none --tg none\n"
                "  carat bench gemma4:e2b --csv bench/results/laptop.csv\n",
    .groups = {&group, &options_model},
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
