/* runtime: what every command that needs a model does first. Finds it, opens it, streams its
 * weights to the device with progress on stderr, and creates a session.
 *
 * Flow: options.c before; answer.c and the commands after. */
#include "cli.h"

#include "carat_adapter.h"

#include <string.h>

/* The scale at the end of FILE:SCALE; 1, and *len all of it, when there is none. */
static float adapter_scale(const char *text, size_t *len) {
    const char *colon = strrchr(text, ':');
    double scale;
    *len = strlen(text);
    if (!colon || colon == text || !parse_number(colon + 1, &scale)) return 1;
    *len = (size_t)(colon - text);
    return (float)scale;
}

bool runtime_adapt(carat_engine *engine, const text_list *adapters, carat_error *err) {
    carat_adapter_use uses[MAX_STOPS] = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < adapters->n; i++) {
        size_t n;
        buf path = {0};
        uses[i].scale = adapter_scale(adapters->items[i], &n);
        buf_put(&path, adapters->items[i], n);
        buf_put(&path, "", 1);
        ok = path.failed ? fail_memory(err, n, "a path")
                         : (uses[i].adapter = carat_adapter_open(engine, path.data, err)) != NULL;
        buf_free(&path);
    }
    ok = ok && carat_engine_adapt(engine, uses, adapters->n, err);
    for (size_t i = 0; i < adapters->n; i++) carat_adapter_close(uses[i].adapter);
    return ok;
}

bool runtime_open(runtime *r, const settings *s, const char *model, carat_error *err) {
    r->name = model;
    r->model = carat_model_find(model, &r->desc, err);
    if (!r->model) return false;
    r->desc.template_ = s->template_;
    if (s->projector) r->desc.projector = s->projector;
    r->engine = carat_engine_open(&r->desc, r->device, err);
    if (!r->engine) return false;
    if (s->adapters.n && !runtime_adapt(r->engine, &s->adapters, err)) return false;
    carat_engine_info(r->engine, &r->info);
    return true;
}

bool runtime_load(runtime *r, const settings *s, const char *model, uint32_t n_ctx,
                  carat_error *err) {
    progress("opening %s", model);
    r->device = carat_device_open(s->device, err);
    if (!r->device || !runtime_open(r, s, model, err)) return false;
    char title[256];
    snprintf(title, sizeof title, "loading %s on %s", model, carat_device_name(r->device));
    double start = now_s();
    if (!runtime_finish(carat_load(r->engine, err), title, NULL, err)) return false;
    r->load_s = now_s() - start;
    carat_session_desc desc = {.n_ctx = n_ctx};
    r->session = carat_session_create(r->engine, &desc, err);
    return r->session != NULL;
}

void runtime_close(runtime *r) {
    carat_session_free(r->session);
    carat_engine_close(r->engine);
    carat_device_close(r->device);
    carat_model_free(r->model);
    *r = (runtime){0};
}

/* Bytes are shown as such, tokens as a number; *due: when to show again. */
static void show_progress(const char *title, const carat_event *ev, double *due) {
    char done[24], total[24];
    if (now_s() < *due) return;
    *due = now_s() + PROGRESS_S;
    if (ev->total >= 1 << 20)
        progress("%s  %s of %s", title, human_bytes(ev->done, done), human_bytes(ev->total, total));
    else if (ev->total > 0)
        progress("%s  %llu of %llu", title, (unsigned long long)ev->done,
                 (unsigned long long)ev->total);
}

bool runtime_finish(carat_job *job, const char *title, carat_stats *stats, carat_error *err) {
    if (!job) return false;
    progress("%s", title);
    interrupt_watch(job);
    carat_event ev;
    double due = 0;
    bool ok;
    while ((ok = carat_wait(job, &ev, err)) && ev.kind != CARAT_EVENT_DONE)
        if (ev.kind == CARAT_EVENT_PROGRESS) show_progress(title, &ev, &due);
    if (ok && stats) carat_job_stats(job, stats);
    bool cancelled = ok && interrupted();
    interrupt_watch(NULL);
    carat_job_free(job);
    progress_end();
    return cancelled ? fail(err, CARAT_E_CANCELLED, "interrupted") : ok;
}

bool runtime_tokenize(const runtime *r, const char *text, size_t n, bool specials, id_list *out,
                      carat_error *err) {
    int64_t count = carat_tokenize(r->engine, text, n, specials, NULL, 0, err);
    if (count < 0) return false;
    size_t at = out->len;
    for (int64_t i = 0; i < count; i++) ids_put(out, 0);
    if (out->failed) return fail_memory(err, (uint64_t)count * sizeof *out->data, "the tokens");
    return count == 0 || carat_tokenize(r->engine, text, n, specials, out->data + at, (size_t)count,
                                        err) == count;
}

bool runtime_piece(const runtime *r, int32_t id, bool specials, buf *out, carat_error *err) {
    char piece[1024];
    int64_t n = carat_detokenize(r->engine, &id, 1, specials, piece, sizeof piece, err);
    if (n < 0) return false;
    buf_put(out, piece, n < (int64_t)sizeof piece ? (size_t)n : sizeof piece);
    return !out->failed || fail_memory(err, (uint64_t)n, "the text");
}

static double rate(double n, double seconds) { return seconds > 0 ? n / seconds : 0; }

double prompt_rate(const carat_stats *st) {
    return rate((double)st->n_prompt - st->n_reused, st->prompt_s);
}

double generate_rate(const carat_stats *st) {
    return st->n_generated ? rate(st->n_generated - 1.0, st->generate_s) : 0;
}

void runtime_report(const runtime *r, const carat_stats *st, FILE *f) {
    char text[24], other[24];
    table t = {.columns = "ll"};
    table_cell(&t, "model");
    table_cell(&t, "%s, %s parameters, %s", r->info.name, human_count(r->info.n_params, text),
               r->info.quantisation ? r->info.quantisation : "mixed types");
    table_cell(&t, "device");
    table_cell(&t, "%s", carat_device_name(r->device));
    table_cell(&t, "load");
    table_cell(&t, "%s in %.2f s, %s/s", human_bytes(r->info.weight_bytes, text), r->load_s,
               human_bytes((uint64_t)rate((double)r->info.weight_bytes, r->load_s), other));
    table_cell(&t, "prompt");
    table_cell(&t, "%u tokens (%u reused) in %.3f s, %.1f tok/s", st->n_prompt, st->n_reused,
               st->prompt_s, prompt_rate(st));
    if (st->n_encoded) {
        table_cell(&t, "media");
        table_cell(&t, "%u tokens of pictures and sounds in %.3f s of these", st->n_encoded,
                   st->encode_s);
    }
    table_cell(&t, "answer");
    table_cell(&t, "%u tokens in %.3f s, %.1f tok/s", st->n_generated, st->generate_s,
               generate_rate(st));
    table_cell(&t, "step");
    table_cell(&t, "%u dispatches, %s of weights", st->n_dispatch,
               human_bytes(st->bytes_read, text));
    table_cell(&t, "memory");
    table_cell(&t, "%s host, %s device at most", human_bytes(host_peak_bytes(), text),
               human_bytes(carat_device_peak_bytes(r->device), other));
    table_cell(&t, "context");
    table_cell(&t, "%u of %u tokens", carat_session_length(r->session),
               carat_session_context(r->session));
    table_cell(&t, "logits");
    table_cell(&t, "%016llx", (unsigned long long)st->logits_hash);
    fputs(dim(f), f);
    table_print(&t, f, false);
    fputs(plain(f), f);
}
