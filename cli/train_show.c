/* train_show: what `carat train` says, to people or, with --json, to programs: one object a line.
 * A report before the run, then how it goes: on one line of a terminal, else a line now and then.
 *
 * Flow: train.c before. */
#include "train.h"

#include <math.h>
#include <string.h>

#define PLAIN_LINES 50u /* of a run, about, where there is no terminal */

/* ---- the report ---- */

static double number(const json *object, const char *key) {
    return json_number(json_get(object, key), 0);
}

static void put_words(const json *list, buf *b) {
    for (size_t i = 0; i < (list ? list->n : 0); i++)
        buf_printf(b, "%s%s", i ? " " : "", json_string(&list->items[i], ""));
}

static void report_rows(table *t, const json *r) {
    table_cell(t, "data");
    table_cell(t, "%s, rows %.0f, samples %.0f", json_string(json_get(r, "data"), ""),
               number(r, "rows"), number(r, "samples"));
    if (number(r, "eval_samples") > 0) {
        table_cell(t, "held out");
        table_cell(t, "samples to measure by %.0f, to learn from %.0f", number(r, "eval_samples"),
                   number(r, "train_samples"));
    }
    const json *lengths = json_get(r, "lengths");
    table_cell(t, "tokens");
    table_cell(t, "%.0f, of which %.0f are learned (%.0f %%)", number(r, "tokens"),
               number(r, "learned_tokens"),
               100 * number(r, "learned_tokens") / number(r, "tokens"));
    table_cell(t, "lengths");
    table_cell(t, "%.0f tokens the shortest sample, %.0f the median, %.0f the longest",
               number(lengths, "shortest"), number(lengths, "median"), number(lengths, "longest"));
}

/* What was left out or cut, where anything was. */
static void report_losses(table *t, const json *r) {
    static const struct {
        const char *key, *name, *what;
    } kinds[] = {{"bad", "bad rows", "left out"},
                 {"cut", "long rows", "cut (--max-length says where)"},
                 {"dropped", "long rows", "left out (--max-length says when)"},
                 {"nothing_learned", "empty rows", "left out: nothing in them is learned"}};
    for (size_t i = 0; i < COUNT(kinds); i++) {
        if (number(r, kinds[i].key) <= 0) continue;
        const bool bad = i == 0;
        table_cell(t, "%s", kinds[i].name);
        table_cell(t, "%.0f %s%s%.160s", number(r, kinds[i].key), kinds[i].what,
                   bad ? ", the first: " : "",
                   bad ? json_string(json_get(r, "first_bad"), "") : "");
    }
}

static void report_run(table *t, const json *r, const runtime *rt) {
    char text[24], other[24];
    buf targets = {0};
    const json *a = json_get(r, "adapter"), *m = json_get(r, "memory");
    put_words(json_get(a, "targets"), &targets);
    table_cell(t, "adapter");
    table_cell(t, "rank %.0f, alpha %g, %s of layers %.0f to %.0f: %s parameters",
               number(a, "rank"), number(a, "alpha"), targets.data ? targets.data : "",
               number(a, "first_layer"), number(a, "first_layer") + number(a, "n_layer") - 1,
               human_count((uint64_t)number(a, "parameters"), text));
    buf_free(&targets);
    table_cell(t, "run");
    table_cell(t, "steps %.0f, epochs %.0f, batches a step %.0f, tokens a batch up to %.0f",
               number(r, "steps"), number(r, "epochs"), number(r, "accumulate"),
               number(r, "batch_tokens"));
    table_cell(t, "memory");
    table_cell(t, "about %s for the run beside %s of weights on %s",
               human_bytes((uint64_t)number(m, "run"), text),
               human_bytes((uint64_t)number(m, "weights"), other), carat_device_name(rt->device));
}

static void print_report(const train_view *v, const json *r, const char *sample) {
    table t = {.columns = "ll"};
    report_rows(&t, r);
    report_losses(&t, r);
    report_run(&t, r, v->runtime);
    table_print(&t, stdout, false);
    printf("%sthe first sample; between [[ and ]] is what is learned:%s\n", dim(stdout),
           plain(stdout));
    put_text(stdout, sample, strlen(sample));
    puts("");
    fflush(stdout);
}

bool show_report(train_view *v, const carat_trainer *tr, carat_error *err) {
    char *text = carat_trainer_report(tr, err);
    char *sample = text ? carat_trainer_sample(tr, 0, err) : NULL;
    arena *memory = sample ? arena_create(err) : NULL;
    json *r;
    bool ok = memory && json_parse(memory, text, strlen(text), "the report", &r, err);
    if (ok && v->json) {
        buf b = {0};
        buf_printf(&b, "{\"event\":\"report\",\"report\":%s,\"sample\":", text);
        json_write_string(&b, sample, strlen(sample));
        buf_puts(&b, "}");
        ok = print_buf(&b, err);
    } else if (ok) {
        print_report(v, r, sample);
    }
    arena_free(memory);
    carat_string_free(sample);
    carat_string_free(text);
    return ok;
}

/* ---- the run ---- */

static const char *human_time(double seconds, char text[24]) {
    const unsigned s = seconds < 4e9 ? (unsigned)(seconds + 0.5) : 4000000000u;
    if (s < 60)
        snprintf(text, 24, "%u s", s);
    else if (s < 3600)
        snprintf(text, 24, "%u:%02u min", s / 60, s % 60);
    else
        snprintf(text, 24, "%u:%02u h", s / 3600, s / 60 % 60);
    return text;
}

/* Tokens a second, without the first step where there are others. */
static double rate_of(const train_view *v, const carat_train_state *s) {
    const double seconds = s->seconds - v->seconds;
    return seconds > 0 ? (double)(s->n_token - v->tokens) / seconds : 0;
}

/* Seconds that the rest will take; 0: not known yet. */
static double left(const train_view *v, const carat_train_state *s) {
    const uint32_t done = s->step - v->first_step, counted = done - (v->tokens > 0);
    return counted ? (s->seconds - v->seconds) / counted * (s->n_step - s->step) : 0;
}

static uint64_t memory_of(const train_view *v) {
    const uint64_t device = carat_device_peak_bytes(v->runtime->device);
    return device ? device : host_peak_bytes();
}

/* The state in a line. */
static void put_state(const train_view *v, const carat_train_state *s, buf *b) {
    char text[24];
    buf_printf(b, "step %u of %u", s->step, s->n_step);
    if (isfinite(s->loss)) buf_printf(b, "  loss %.4f", s->loss);
    if (isfinite(s->eval_loss)) buf_printf(b, "  eval %.4f", s->eval_loss);
    if (isfinite(s->loss)) buf_printf(b, "  lr %.3g", s->rate);
    if (rate_of(v, s) > 0) buf_printf(b, "  %.0f tok/s", rate_of(v, s));
    if (left(v, s) > 0) buf_printf(b, "  %s left", human_time(left(v, s), text));
    buf_printf(b, "  %s", human_bytes(memory_of(v), text));
}

void show_progress(train_view *v, const carat_train_state *s, const carat_event *ev) {
    if (v->json || !stderr_is_terminal() || now_s() < v->due) return;
    v->due = now_s() + PROGRESS_S;
    buf b = {0};
    put_state(v, s, &b);
    if (ev && ev->total)
        buf_printf(&b, "  (%s %llu of %llu tokens)",
                   ev->text && !strcmp(ev->text, "eval") ? "measuring" : "at",
                   (unsigned long long)ev->done, (unsigned long long)ev->total);
    if (!b.failed) progress("%s", b.data);
    buf_free(&b);
}

static void put_real(buf *b, const char *key, double x) {
    if (isfinite(x))
        buf_printf(b, ",\"%s\":%.9g", key, x);
    else
        buf_printf(b, ",\"%s\":null", key);
}

static void print_json(const train_view *v, const carat_train_state *s, const char *event) {
    buf b = {0};
    buf_printf(&b, "{\"event\":\"%s\",\"step\":%u,\"n_step\":%u,\"epoch\":%u", event, s->step,
               s->n_step, s->epoch);
    put_real(&b, "loss", s->loss);
    put_real(&b, "eval_loss", s->eval_loss);
    put_real(&b, "best_eval", s->best_eval);
    put_real(&b, "rate", s->rate);
    put_real(&b, "grad_norm", s->grad_norm);
    buf_printf(&b, ",\"tokens\":%llu", (unsigned long long)s->n_token);
    put_real(&b, "seconds", s->seconds);
    put_real(&b, "tokens_per_second", rate_of(v, s));
    put_real(&b, "seconds_left", left(v, s));
    buf_printf(&b, ",\"memory\":%llu}", (unsigned long long)memory_of(v));
    print_buf(&b, NULL);
    fflush(stdout);
}

static void print_line(const train_view *v, const carat_train_state *s) {
    buf b = {0};
    put_state(v, s, &b);
    print_buf(&b, NULL);
    fflush(stdout);
}

/* Once, after the first steps: how long it will take. */
static void tell_time(train_view *v, const carat_train_state *s) {
    char text[24];
    const uint32_t done = s->step - v->first_step;
    if (v->told_time || v->json || done < 3 || s->step == s->n_step) return;
    v->told_time = true;
    progress_end();
    printf("%sabout %s for the %u steps that are left, as the first %u went%s\n", dim(stdout),
           human_time(left(v, s), text), s->n_step - s->step, done, plain(stdout));
    fflush(stdout);
}

void show_step(train_view *v, const carat_train_state *s) {
    const uint32_t every = s->n_step / PLAIN_LINES + 1;
    tell_time(v, s);
    if (v->json)
        print_json(v, s, "step");
    else if (stderr_is_terminal())
        show_progress(v, s, NULL);
    else if (s->step == 1 || s->step % every == 0 || s->step == s->n_step)
        print_line(v, s);
    if (v->tokens == 0) {
        v->tokens = s->n_token;
        v->seconds = s->seconds;
    }
}

void show_eval(train_view *v, const carat_train_state *s) {
    if (v->json) {
        print_json(v, s, "eval");
        return;
    }
    progress_end();
    printf("step %u of %u  held out: loss %.4f, perplexity %.4g%s\n", s->step, s->n_step,
           s->eval_loss, exp(s->eval_loss), s->eval_loss <= s->best_eval ? "" : ", no better");
    fflush(stdout);
}

void show_notice(train_view *v, const char *text, size_t n) {
    buf b = {0};
    progress_end();
    if (v->json) {
        buf_puts(&b, "{\"event\":\"notice\",\"text\":");
        json_write_string(&b, text, n);
        buf_puts(&b, "}");
        print_buf(&b, NULL);
    } else {
        fprintf(stderr, "%scarat: %.*s%s\n", dim(stderr), (int)n, text, plain(stderr));
    }
    fflush(stdout);
}

void show_done(train_view *v, const char *what, uint32_t step, const char *fmt, ...) {
    buf b = {0};
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    progress_end();
    if (v->json) {
        buf_printf(&b, "{\"event\":\"%s\",\"step\":%u,\"text\":", what, step);
        json_write_string(&b, text, strlen(text));
        buf_puts(&b, "}");
        print_buf(&b, NULL);
    } else {
        puts(text);
    }
    fflush(stdout);
}
