/* trainer: the public calls around a run: it is opened from a description, reported, shown, saved,
 * gone on with, and its adapter handed out. Computes nothing.
 *
 * Flow: dataset.c, train.c and model/lora.c before; trainer_job.c, which learns, after. */
#include "train/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_RANK   16u
#define DEFAULT_RATE   2e-4
#define DEFAULT_BATCH  512u /* more are no faster, and take more memory */
#define DEFAULT_STEP   2048u
#define DEFAULT_STEPS  8u /* of an epoch, at least: small data makes small batches */
#define DEFAULT_EPOCHS 3u
#define DEFAULT_BUDGET 4000000000ull

/* ---- what a description means ---- */

/* One name of a list; *at moves behind it. False: there is none any more. */
static bool next_name(const char **at, const char **name, size_t *n) {
    *at += strspn(*at, " \t\n,");
    *name = *at;
    *n = strcspn(*at, " \t\n,");
    *at += *n;
    return *n > 0;
}

static bool read_targets(const char *text, lora_plan *plan, carat_error *err) {
    const char *name;
    size_t n;
    while (next_name(&text, &name, &n)) {
        uint32_t i = 0;
        while (i < LORA_NAMES && (strlen(lora_names[i]) != n || memcmp(lora_names[i], name, n)))
            i++;
        if (i == LORA_NAMES)
            return fail(err, CARAT_E_ARGUMENT,
                        "targets: there is no %.*s; there are q k v o gate up down embed head",
                        (int)(n < 40 ? n : 40), name);
        if (i < LORA_TARGETS) plan->target[i] = true;
        plan->embed |= i == LORA_EMBED;
        plan->head |= i == LORA_HEAD;
    }
    return true;
}

/* A number in [0, most). */
static bool check_share(const char *what, double x, double most, carat_error *err) {
    return (x >= 0 && x < most) ||
           fail(err, CARAT_E_ARGUMENT, "train: %s of %g; it is at least 0 and below %g", what, x,
                most);
}

static bool new_adapter(carat_trainer *tr, const carat_train_desc *d, carat_error *err) {
    const uint32_t n_layer = tr->guest.engine->model->config.n_layer;
    const uint32_t rank = d->rank ? d->rank : DEFAULT_RANK;
    lora_plan plan = {.rank = rank,
                      .alpha = d->alpha > 0 ? d->alpha : 2 * (float)rank,
                      .rslora = d->rslora,
                      .first = d->first_layer,
                      .end = n_layer,
                      .dropout = d->dropout,
                      .seed = d->seed};
    if (d->n_layer && d->first_layer < n_layer) {
        if (d->n_layer > n_layer - d->first_layer)
            return fail(err, CARAT_E_ARGUMENT, "train: %u layers from %u on; the model has %u",
                        d->n_layer, d->first_layer, n_layer);
        plan.end = d->first_layer + d->n_layer;
    }
    return check_share("an alpha", (double)d->alpha, 1e6, err) &&
           read_targets(d->targets ? d->targets : "q k v o gate up down", &plan, err) &&
           lora_create(tr->memory, tr->guest.engine->model, &plan, &tr->adapter, err);
}

/* A copy of one that is there. */
static bool given_adapter(carat_trainer *tr, const carat_train_desc *d, carat_error *err) {
    carat_adapter *from = carat_adapter_open(tr->guest.engine, d->adapter, err);
    const bool ok = from && lora_copy(tr->memory, from->lora, &tr->adapter, err);
    if (ok && d->dropout > 0) tr->adapter->dropout = d->dropout;
    carat_adapter_close(from);
    return ok;
}

static bool open_adapter(carat_trainer *tr, const carat_train_desc *d, carat_error *err) {
    return check_share("dropout", (double)d->dropout, 1, err) &&
           (d->adapter ? given_adapter(tr, d, err) : new_adapter(tr, d, err)) &&
           adamw_open(tr->memory, tr->adapter->n_value, d->weight_decay, &tr->moments, err);
}

static bool open_data(carat_trainer *tr, const carat_train_desc *d, carat_error *err) {
    const carat_engine *eng = tr->guest.engine;
    const dataset_options o = {.learn_all = d->learn == CARAT_LEARN_ALL,
                               .stop_at_bad = d->stop_at_bad,
                               .drop_long = d->drop_long,
                               .max_len = d->max_length,
                               .large = eng->large};
    source *src;
    if (!d->data) return fail(err, CARAT_E_ARGUMENT, "train: no data is given");
    tr->name = arena_copy(tr->memory, d->data, strlen(d->data));
    if (!tr->name) return fail_memory(err, strlen(d->data), "a file's name");
    if (!source_open(tr->memory, d->data, &src, err)) return false;
    const bool ok = dataset_open(eng->model->tokenizer, src, &o, &tr->data, err);
    source_close(src);
    return ok;
}

/* Tokens of a step where none are asked for. */
static uint32_t step_tokens(const carat_trainer *tr) {
    const size_t part = tr->data->ids.len / DEFAULT_STEPS;
    return part < DEFAULT_STEP ? (uint32_t)part : DEFAULT_STEP;
}

static uint32_t batch_tokens(const carat_trainer *tr, const carat_train_desc *d) {
    return d->batch_tokens ? d->batch_tokens : min_u32(step_tokens(tr), DEFAULT_BATCH);
}

static uint32_t batches(const carat_trainer *tr, const carat_train_desc *d) {
    if (d->n_accumulate || d->batch_tokens) return d->n_accumulate;
    return max_u32(1, step_tokens(tr) / DEFAULT_BATCH);
}

static bool open_plan(carat_trainer *tr, const carat_train_desc *d, carat_error *err) {
    const train_options o = {.lr = d->learning_rate != 0 ? d->learning_rate : DEFAULT_RATE,
                             .weight_decay = d->weight_decay,
                             .clip = d->clip < 0   ? 0
                                     : d->clip > 0 ? d->clip
                                                   : 1,
                             .n_accumulate = batches(tr, d),
                             .n_epoch = d->n_epoch  ? d->n_epoch
                                        : d->n_step ? UINT32_MAX
                                                    : DEFAULT_EPOCHS,
                             .n_step = d->n_step,
                             .n_warmup = d->n_warmup,
                             .schedule = (schedule)d->schedule,
                             .seed = d->seed,
                             .n_batch = batch_tokens(tr, d),
                             .pack = d->batch_tokens != 1,
                             .eval_share = (double)d->eval_share,
                             .eval_every = d->eval_every,
                             .patience = d->patience};
    return trainer_open(tr->data, &o, &tr->plan, err);
}

/* ---- opening ---- */

static void drop(engine_guest *guest) { trainer_run_close((carat_trainer *)guest); }

carat_trainer *carat_trainer_open(carat_engine *eng, const carat_train_desc *desc,
                                  carat_error *err) {
    arena *a = arena_create(err);
    carat_trainer *tr = a ? arena_alloc(a, 1, sizeof *tr) : NULL;
    if (!tr) {
        fail_memory(err, sizeof *tr, "a training run");
        arena_free(a);
        return NULL;
    }
    *tr = (carat_trainer){.memory = a, .loss = NAN, .eval_loss = NAN};
    tr->budget = desc->memory ? desc->memory : DEFAULT_BUDGET;
    tr->guest.drop = drop;
    engine_join(eng, &tr->guest);
    bool ok = open_data(tr, desc, err) && open_plan(tr, desc, err) && open_adapter(tr, desc, err);
    if (ok) {
        tr->held = tr->plan->state;
        ok = !eng->device || eng->device->gpu || trainer_run_open(tr, err);
    }
    if (ok) return tr;
    carat_trainer_free(tr);
    return NULL;
}

void carat_trainer_free(carat_trainer *tr) {
    if (!tr) return;
    if (tr->job) { /* it can only be freed now */
        tr->job->job.over = true;
        tr->job->trainer = NULL;
    }
    engine_leave(&tr->guest);
    trainer_run_close(tr);
    trainer_free(tr->plan);
    dataset_free(tr->data);
    arena_free(tr->memory);
}

/* ---- telling ---- */

/* What was learned about is gone with it. */
static bool engine_is_open(const carat_trainer *tr, carat_error *err) {
    return tr->guest.engine || fail(err, CARAT_E_ARGUMENT, "train: the engine was closed");
}

static int ascending(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static bool put_lengths(const dataset *d, buf *b, carat_error *err) {
    arena *scratch = arena_create(err);
    uint32_t *n = scratch ? arena_alloc(scratch, d->n, sizeof *n) : NULL;
    const bool ok = n || fail_memory(err, d->n * sizeof *n, "a report");
    for (uint32_t i = 0; ok && i < d->n; i++) n[i] = d->samples[i].n;
    if (ok) {
        qsort(n, d->n, sizeof *n, ascending);
        buf_printf(b, "\"lengths\":{\"shortest\":%u,\"median\":%u,\"longest\":%u}", n[0],
                   n[d->n / 2], n[d->n - 1]);
    }
    arena_free(scratch);
    return ok;
}

static void put_rows(const carat_trainer *tr, buf *b) {
    const dataset *d = tr->data;
    buf_puts(b, "{\"model\":");
    json_write_string(b, tr->guest.engine->name, strlen(tr->guest.engine->name));
    buf_puts(b, ",\"data\":");
    json_write_string(b, tr->name, strlen(tr->name));
    buf_printf(b, ",\"rows\":%u,\"bad\":%u", d->n_row, d->n_bad);
    if (d->n_bad) {
        buf_puts(b, ",\"first_bad\":");
        json_write_string(b, d->bad, strlen(d->bad));
    }
    buf_printf(b, ",\"cut\":%u,\"dropped\":%u,\"nothing_learned\":%u", d->n_cut, d->n_dropped,
               d->n_unlearned);
    buf_printf(b, ",\"samples\":%u,\"train_samples\":%u,\"eval_samples\":%u", d->n,
               tr->plan->n_train, tr->plan->n_eval);
    buf_printf(b, ",\"tokens\":%zu,\"learned_tokens\":%" PRIu64 ",", d->ids.len, d->n_target);
}

char *carat_trainer_report(const carat_trainer *tr, carat_error *err) {
    const trainer *p = tr->plan;
    carat_model_info info;
    buf b = {0};
    if (!engine_is_open(tr, err)) return NULL;
    put_rows(tr, &b);
    const bool ok = put_lengths(tr->data, &b, err);
    buf_printf(&b, ",\"steps\":%u,\"epochs\":%u,\"batch_tokens\":%u,\"accumulate\":%u", p->n_step,
               p->n_epoch, p->n_batch, p->options.n_accumulate);
    buf_puts(&b, ",\"adapter\":");
    describe_lora(tr->adapter, &b);
    carat_engine_info(tr->guest.engine, &info);
    buf_printf(&b, ",\"memory\":{\"weights\":%" PRIu64 ",\"run\":%" PRIu64 "}}", info.weight_bytes,
               trainer_run_bytes(tr));
    char *text = buf_take(&b);
    if (ok && text) return text;
    carat_string_free(text);
    fail_memory(err, b.len, "a report");
    return NULL;
}

char *carat_trainer_sample(const carat_trainer *tr, uint32_t i, carat_error *err) {
    buf b = {0};
    if (!engine_is_open(tr, err)) return NULL;
    if (i >= tr->data->n) {
        fail(err, CARAT_E_ARGUMENT, "train: there is no sample %u; there are %u", i, tr->data->n);
        return NULL;
    }
    dataset_show(tr->data, tr->guest.engine->model->tokenizer, i, &b);
    char *text = buf_take(&b);
    if (!text) fail_memory(err, b.len, "a sample");
    return text;
}

void carat_trainer_state(const carat_trainer *tr, carat_train_state *out) {
    const trainer *p = tr->plan;
    const train_state *s = &p->state;
    *out = (carat_train_state){.step = s->step,
                               .n_step = p->n_step,
                               .epoch = s->epoch,
                               .finished = !s->eval_due && (s->stopped || s->step >= p->n_step),
                               .loss = tr->loss,
                               .eval_loss = tr->eval_loss,
                               .best_eval = isfinite(s->best_eval) ? s->best_eval : NAN,
                               .rate = p->rate,
                               .grad_norm = p->grad_norm,
                               .n_token = p->n_learned,
                               .device_bytes = trainer_run_bytes(tr)};
    out->n_again = tr->gpu ? train_gpu_again(tr->gpu) : tr->cpu ? tr->cpu->n_again : 0;
    out->seconds = tr->seconds + (tr->since > 0 ? seconds_now() - tr->since : 0);
}

/* ---- saving, going on ---- */

static bool at_rest(const carat_trainer *tr, carat_error *err) {
    return engine_is_open(tr, err) &&
           (!tr->job || fail(err, CARAT_E_ARGUMENT, "train: a job of the run is under way"));
}

bool carat_trainer_save(const carat_trainer *tr, const char *path, carat_error *err) {
    return at_rest(tr, err) && checkpoint_write(path, tr->plan, tr->adapter, &tr->moments, err);
}

bool carat_trainer_resume(carat_trainer *tr, const char *path, carat_error *err) {
    source *src;
    arena *scratch = arena_create(err);
    bool ok = scratch && at_rest(tr, err) && source_open(scratch, path, &src, err);
    if (ok) {
        ok = checkpoint_read(src, tr->plan, tr->adapter, &tr->moments, err);
        source_close(src);
    }
    if (ok) {
        tr->held = tr->plan->state;
        tr->loss = tr->eval_loss = NAN;
        if (tr->gpu) trainer_run_close(tr); /* what it holds is not that any more */
    }
    arena_free(scratch);
    return ok;
}

carat_adapter *carat_trainer_adapter(carat_trainer *tr, carat_error *err) {
    return at_rest(tr, err) ? engine_adopt(tr->guest.engine, tr->adapter, err) : NULL;
}
