/* eval: how well a model predicts a text. The text is cut into windows that overlap, so that
 * every token but the first few is judged with at least window - stride tokens before it.
 *
 * Flow: main.c and runtime.c before; carat_score() does the work. */
#include "cli.h"

#include <math.h>
#include <string.h>

enum { DEFAULT_WINDOW = 2048 };

static const option eval_options[] = {
    OPTION("context", 'c', U32, context, "N",
           "tokens of a window; default: 2048, or what the model allows", .min = 2, .max = 1 << 30),
    OPTION("stride", 0, U32, stride, "N",
           "new tokens in each window after the first; default: half a window", .min = 1,
           .max = 1 << 30),
    OPTION("per-token", 0, FLAG, per_token, NULL,
           "the log-probability of every token, as tab-separated lines or within --json"),
    OPTION("json", 0, FLAG, json, NULL, "print one JSON object"),
    {0}};
static const option_group group = {"windows and output", eval_options};

typedef struct evaluation {
    const runtime *runtime;
    const settings *settings;
    buf text;
    id_list tokens; /* of the whole text */
    size_t done;    /* of these, judged */
    double nats;    /* sum of their negative log-probabilities */
    uint32_t n_window;
    double seconds;
    buf items; /* --json --per-token: items of an array */
} evaluation;

static bool token_out(evaluation *e, size_t i, float logprob, carat_error *err) {
    buf piece = {0}, quoted = {0};
    bool ok = runtime_piece(e->runtime, e->tokens.data[i], true, &piece, err);
    const char *text = piece.data ? piece.data : "";
    if (e->settings->json) {
        buf_printf(&e->items, "%s{\"id\":%d,\"logprob\":%.6g,\"piece\":", e->items.len ? ",\n" : "",
                   e->tokens.data[i], (double)logprob);
        json_write_string(&e->items, text, piece.len);
        buf_puts(&e->items, "}");
    } else {
        put_visible(&quoted, text, piece.len);
        printf("%zu\t%d\t%.6f\t%s\n", i, e->tokens.data[i], (double)logprob,
               quoted.failed ? "" : quoted.data);
    }
    buf_free(&piece);
    buf_free(&quoted);
    return ok;
}

/* Follows the job over a window whose first token (after the BOS) is tokens[start]. */
static bool follow(evaluation *e, carat_job *job, size_t start, carat_error *err) {
    if (!job) return false;
    size_t at = start;
    carat_event ev;
    bool ok;
    interrupt_watch(job);
    while ((ok = carat_wait(job, &ev, err)) && ev.kind != CARAT_EVENT_DONE) {
        if (ev.kind != CARAT_EVENT_SCORE) continue;
        size_t i = at++;
        if (i < e->done) continue;
        if (!isfinite(ev.logprob)) {
            ok = fail(err, CARAT_E_FORMAT, "token %zu of the text has no probability", i);
            break;
        }
        e->nats -= (double)ev.logprob;
        e->done = i + 1;
        if (e->settings->per_token && !token_out(e, i, ev.logprob, err)) break;
    }
    bool stopped = interrupted();
    interrupt_watch(NULL);
    carat_job_free(job);
    if (ok && stopped) return fail(err, CARAT_E_CANCELLED, "interrupted");
    return ok && ev.kind == CARAT_EVENT_DONE;
}

/* Judges tokens [done, end), with those before as far as they fit behind a BOS. */
static bool judge_window(evaluation *e, size_t end, size_t capacity, int32_t bos,
                         carat_error *err) {
    size_t start = end > capacity ? end - capacity : 0, from = e->done;
    id_list window = {0};
    ids_put(&window, bos);
    ids_append(&window, e->tokens.data + start, end - start);
    bool ok =
        window.failed
            ? fail_memory(err, window.len * sizeof(int32_t), "a window")
            : follow(e, carat_score(e->runtime->session, window.data, window.len, err), start, err);
    ids_free(&window);
    e->n_window++;
    if (ok && e->done != end)
        return fail(err, CARAT_E_FORMAT, "eval: %zu scores for %zu tokens", e->done - from,
                    end - from);
    return ok;
}

static bool evaluate(evaluation *e, carat_error *err) {
    id_list bos = {0};
    bool ok = runtime_tokenize(e->runtime, "<bos>", 5, true, &bos, err) &&
              runtime_tokenize(e->runtime, e->text.data ? e->text.data : "", e->text.len, false,
                               &e->tokens, err);
    if (ok && bos.len != 1) ok = fail(err, CARAT_E_FORMAT, "the vocabulary has no <bos>");
    if (ok && e->tokens.len == 0) ok = fail(err, CARAT_E_ARGUMENT, "the text is empty");
    size_t capacity = carat_session_context(e->runtime->session) - 1, n = e->tokens.len;
    size_t stride = e->settings->stride ? e->settings->stride : (capacity + 1) / 2;
    if (stride > capacity) stride = capacity;
    double start = now_s();
    while (ok && e->done < n) {
        size_t step = e->done ? stride : capacity;
        progress("judging  %zu of %zu tokens", e->done, n);
        ok = judge_window(e, n - e->done < step ? n : e->done + step, capacity, bos.data[0], err);
    }
    progress_end();
    e->seconds = now_s() - start;
    ids_free(&bos);
    return ok;
}

static double nats_per_token(const evaluation *e) { return e->nats / (double)e->tokens.len; }
static double bits_per_byte(const evaluation *e) { return e->nats / log(2) / (double)e->text.len; }

static bool print_json(const evaluation *e, const char *file, carat_error *err) {
    double nats = nats_per_token(e), bits = bits_per_byte(e);
    uint32_t window = carat_session_context(e->runtime->session);
    buf b = {0};
    buf_puts(&b, "{\"file\":");
    json_write_string(&b, file, strlen(file));
    buf_puts(&b, ",\"model\":");
    json_write_string(&b, e->runtime->info.name, strlen(e->runtime->info.name));
    buf_printf(&b,
               ",\"tokens\":%zu,\"bytes\":%zu,\"windows\":%u,\"context\":%u,"
               "\"nats_per_token\":%.8g,\"perplexity\":%.8g,\"bits_per_byte\":%.8g,"
               "\"seconds\":%.3f",
               e->tokens.len, e->text.len, e->n_window, window, nats, exp(nats), bits, e->seconds);
    if (e->settings->per_token) {
        buf_puts(&b, ",\"per_token\":[\n");
        buf_put(&b, e->items.data, e->items.len);
        buf_puts(&b, "]");
    }
    buf_puts(&b, "}");
    b.failed |= e->items.failed;
    return print_buf(&b, err);
}

static void print_table(const evaluation *e) {
    double nats = nats_per_token(e);
    uint32_t window = carat_session_context(e->runtime->session);
    FILE *f = e->settings->per_token ? stderr : stdout;
    table t = {.columns = "lrl"};
    table_cell(&t, "tokens");
    table_cell(&t, "%zu", e->tokens.len);
    table_cell(&t, "of %zu bytes, %u window%s of %u", e->text.len, e->n_window,
               e->n_window == 1 ? "" : "s", window);
    table_cell(&t, "nats/token");
    table_cell(&t, "%.4f", nats);
    table_cell(&t, "mean negative log-probability");
    table_cell(&t, "perplexity");
    table_cell(&t, "%.4f", exp(nats));
    table_cell(&t, "e to the power of that");
    table_cell(&t, "bits/byte");
    table_cell(&t, "%.4f", bits_per_byte(e));
    table_cell(&t, "comparable between vocabularies");
    table_cell(&t, "tokens/s");
    table_cell(&t, "%.1f", e->seconds > 0 ? (double)e->tokens.len / e->seconds : 0);
    table_cell(&t, "on %s", carat_device_name(e->runtime->device));
    fflush(stdout);
    table_print(&t, f, false);
}

/* The window: what was asked for, else the default or what the model was trained for. */
static uint32_t window_of(const settings *s, const char *model, carat_error *err) {
    runtime r = {0};
    uint32_t window = s->context;
    if (!window && runtime_open(&r, s, model, err))
        window = min_u32(DEFAULT_WINDOW, r.info.n_ctx_train);
    runtime_close(&r);
    return window;
}

static int run(settings *s, const char *const *args, size_t n) {
    (void)n;
    carat_error err = {0};
    runtime r = {0};
    evaluation e = {.runtime = &r, .settings = s};
    interrupt_install(false);
    bool ok = read_all(args[1], &e.text, &err);
    uint32_t window = ok ? window_of(s, args[0], &err) : 0;
    ok = ok && window && runtime_load(&r, s, args[0], window, &err);
    if (ok && s->per_token && !s->json) puts("index\tid\tlogprob\tpiece");
    ok = ok && evaluate(&e, &err);
    if (ok && s->json) ok = print_json(&e, args[1], &err);
    if (ok && !s->json) print_table(&e);
    int code = ok ? EXIT_OK : report(&err);
    buf_free(&e.text);
    buf_free(&e.items);
    ids_free(&e.tokens);
    runtime_close(&r);
    return code;
}

const command command_eval = {
    .name = "eval",
    .summary = "measure how well a model predicts a text",
    .usage = "MODEL FILE",
    .about = "Computes the probability that the model gives to every token of a text file (- is "
             "stdin) and prints the mean negative log-probability, the perplexity and the bits for "
             "each byte. The text is judged in windows that overlap; each begins with a BOS "
             "token. Lower is better; a comparison is fair with equal windows only.",
    .examples = "  carat eval gemma4:e2b book.txt\n"
                "  carat eval nano notes.txt --context 512 --stride 256 --json\n"
                "  carat eval nano notes.txt --per-token > tokens.tsv\n",
    .groups = {&group, &options_model},
    .min_args = 2,
    .max_args = 2,
    .run = run,
};
