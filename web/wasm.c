/* wasm: carat.h and carat_train.h flattened for JavaScript. One wasm instance holds one device, one
 * model, one session and one training run; a job and an adapter are pointers. Everything that JavaScript passes is checked here or further in.
 *
 * A call goes: begin(), room() for each text or array and its bytes written there, the call itself.
 * What it gave, result() or error(), stays until the next begin(). The structs that JavaScript
 * reads are asserted to lie as web/engine.js takes them.
 *
 * Flow: web/engine.js before, carat.h after. */
#include "base/base.h"
#include "carat_train.h"

#include <math.h>
#include <string.h>

#define EXPORT(type, name, ...)                                                                    \
    type web_##name(__VA_ARGS__) __attribute__((export_name(#name)));                              \
    type web_##name(__VA_ARGS__)

static carat_device *device;
static carat_engine *engine;
static carat_session *session;
static carat_trainer *trainer;

/* ---- one call ------------------------------------------------------------------------------ */

typedef struct bytes {
    const void *data;
    size_t n;
} bytes;

static arena *call; /* what one call needs */
static carat_error error;
static bytes result;
static carat_media *media; /* [n_media] pictures and sounds of the next chat, render or count */
static size_t n_media, max_media;

_Static_assert(offsetof(carat_error, message) == 4 && offsetof(bytes, n) == 4, "see engine.js");

EXPORT(bool, begin, void) {
    arena_free(call);
    result = (bytes){0};
    media = NULL;
    n_media = max_media = 0;
    error = (carat_error){0};
    call = arena_create(&error);
    return call != NULL;
}

/* n bytes and a zero after them, of the call; NULL when out of memory. */
EXPORT(void *, room, size_t n) {
    void *p = n < SIZE_MAX ? arena_alloc(call, n + 1, 1) : NULL;
    if (!p) fail_memory(&error, n, "a call from JavaScript");
    return p;
}

EXPORT(const carat_error *, error, void) { return &error; }

/* Bytes, or ids and how many. */
EXPORT(const bytes *, result, void) { return &result; }

static bool give(const void *data, size_t n) {
    result = (bytes){data, n};
    return data != NULL;
}

static bool have(const void *what, const char *name) {
    return what || fail(&error, CARAT_E_ARGUMENT, "there is no %s", name);
}

/* Takes s, which carat.h gave out. */
static bool give_string(char *s) {
    if (!s) return fail_memory(&error, 0, "a text");
    size_t n = strlen(s);
    char *copy = web_room(n);
    if (copy) memcpy(copy, s, n);
    carat_string_free(s);
    return give(copy, n);
}

/* ---- device and model ---------------------------------------------------------------------- */

EXPORT(bool, open_device, const char *kind) {
    carat_device_close(device);
    device = carat_device_open(kind, &error);
    return device != NULL;
}

EXPORT(void, close, void) {
    carat_trainer_free(trainer);
    carat_session_free(session);
    carat_engine_close(engine);
    carat_device_close(device);
    trainer = NULL;
    session = NULL;
    engine = NULL;
    device = NULL;
}

EXPORT(bool, open_model, const char *path, const char *projector, const char *system,
       const char *params, const char *messages, const char *template) {
    carat_trainer_free(trainer);
    carat_session_free(session);
    trainer = NULL;
    session = NULL;
    carat_engine_close(engine);
    engine = carat_engine_open(&(carat_engine_desc){.path = path,
                                                    .projector = projector,
                                                    .system = system,
                                                    .params = params,
                                                    .messages = messages,
                                                    .template_ = template},
                               device, &error);
    return engine != NULL;
}

EXPORT(bool, tokenize, const char *text, size_t n, bool specials) {
    if (!have(engine, "model")) return false;
    size_t cap = n + 16; /* a token is a byte at least, and there may be a BOS */
    int32_t *ids = cap < SIZE_MAX / 4 ? web_room(cap * sizeof *ids) : NULL;
    int64_t got = ids ? carat_tokenize(engine, text, n, specials, ids, cap, &error) : -1;
    return got >= 0 && give(ids, (size_t)got < cap ? (size_t)got : cap);
}

EXPORT(bool, detokenize, const int32_t *ids, size_t n, bool specials) {
    if (!have(engine, "model")) return false;
    int64_t size = carat_detokenize(engine, ids, n, specials, NULL, 0, &error);
    char *text = size >= 0 ? web_room((size_t)size) : NULL;
    if (!text) return false;
    size = carat_detokenize(engine, ids, n, specials, text, (size_t)size, &error);
    return size >= 0 && give(text, (size_t)size);
}

/* ---- pictures and sounds -------------------------------------------------------------------- */

/* Before add_image() and add_audio(): how many there will be. */
EXPORT(bool, expect_media, size_t n) {
    media = n < SIZE_MAX / sizeof *media ? arena_alloc(call, n, sizeof *media) : NULL;
    max_media = media ? n : 0;
    return media || fail_memory(&error, n, "a call from JavaScript");
}

static bool add_media(carat_media m) {
    if (n_media == max_media)
        return fail(&error, CARAT_E_ARGUMENT, "more pictures and sounds than expected");
    media[n_media++] = m;
    return true;
}

/* rgb: [height, width, 3], a room() of the call; time: a video's frame's second. */
EXPORT(bool, add_image, const uint8_t *rgb, uint32_t width, uint32_t height, double time) {
    return add_media((carat_media){
        .kind = CARAT_MEDIA_IMAGE, .rgb = rgb, .width = width, .height = height, .time = time});
}

/* samples: [n, n_channel], a room() of the call. */
EXPORT(bool, add_audio, const float *samples, size_t n, uint32_t n_channel, uint32_t rate) {
    return add_media((carat_media){.kind = CARAT_MEDIA_AUDIO,
                                   .samples = samples,
                                   .n_sample = n,
                                   .n_channel = n_channel,
                                   .rate = rate});
}

/* ---- what an answer is asked for with ------------------------------------------------------- */

/* The number `key` of the options, which must be in least .. most; absent: `otherwise`. */
static double number(const json *options, const char *key, double least, double most,
                     double otherwise) {
    const json *v = json_get(options, key);
    if (!v || v->kind == JSON_NULL) return otherwise;
    double x = json_number(v, NAN);
    if (x >= least && x <= most) return x;
    fail(&error, CARAT_E_ARGUMENT, "%s: it must be a number from %.16g to %.16g", key, least, most);
    return otherwise;
}

static void read_sampling(const json *o, carat_sampling *s) {
    *s = CARAT_SAMPLING_DEFAULT;
    s->temperature = (float)number(o, "temperature", 0, 100, s->temperature);
    s->top_k = (int32_t)number(o, "topK", 0, INT32_MAX, s->top_k);
    s->top_p = (float)number(o, "topP", 0, 1, s->top_p);
    s->min_p = (float)number(o, "minP", 0, 1, s->min_p);
    s->repeat_penalty = (float)number(o, "repeatPenalty", 0, 100, s->repeat_penalty);
    s->frequency_penalty = (float)number(o, "frequencyPenalty", -100, 100, NAN);
    s->presence_penalty = (float)number(o, "presencePenalty", -100, 100, NAN);
    double last = number(o, "repeatLastN", -1, INT32_MAX, -2);
    s->repeat_last_n = last < -1 ? -1 : last < 0 ? -2 : (int32_t)last; /* JavaScript's -1: all */
    s->seed = (uint64_t)number(o, "seed", 0, 9007199254740991.0, 0);
}

static void read_stop(const json *stop, carat_chat_desc *desc) {
    if (!stop || stop->kind == JSON_NULL) return;
    const char **texts = stop->kind == JSON_ARRAY ? web_room(stop->n * sizeof *texts) : NULL;
    for (size_t i = 0; texts && i < stop->n; i++) {
        texts[i] = json_string(json_at(stop, i), NULL);
        if (!texts[i] || !texts[i][0]) texts = NULL;
    }
    if (!texts)
        fail(&error, CARAT_E_ARGUMENT, "stop: it must be an array of strings that are not empty");
    desc->stop = texts;
    desc->n_stop = texts ? stop->n : 0;
}

static uint32_t read_logprobs(const json *v) {
    if (v && v->kind == JSON_BOOL) return v->truth ? CARAT_LOGPROBS_TOKEN_ONLY : 0;
    double x = v && v->kind != JSON_NULL ? json_number(v, NAN) : 0;
    if (x >= 0 && x <= 20) return x < 1 ? 0 : (uint32_t)x;
    fail(&error, CARAT_E_ARGUMENT, "logprobs: it must be true, false or a number from 0 to 20");
    return 0;
}

/* options: a JSON object, or NULL. What desc points to lives as long as the call. */
static bool read_request(const char *messages, const char *tools, const char *options,
                         carat_chat_desc *desc) {
    json *o = NULL;
    if (options && !json_parse(call, options, strlen(options), "options", &o, &error)) return false;
    carat_sampling *sampling = web_room(sizeof *sampling);
    if (!sampling) return false;
    *desc = (carat_chat_desc){
        .messages = messages,
        .media = media,
        .n_media = n_media,
        .image_tokens = (uint32_t)number(o, "imageTokens", 0, UINT32_MAX, 0),
        .tools = tools,
        .thinking = json_bool(json_get(o, "thinking"), false),
        .keep_oldest_out = json_bool(json_get(o, "dropOldest"), false),
        .max_tokens = (uint32_t)number(o, "maxTokens", 0, UINT32_MAX, 0),
        .n_logprobs = read_logprobs(json_get(o, "logprobs")),
        .json_schema = json_string(json_get(o, "schema"), NULL),
        .ignore_stop = json_bool(json_get(o, "ignoreStop"), false),
        .sampling = sampling,
    };
    read_sampling(o, sampling);
    read_stop(json_get(o, "stop"), desc);
    return !error.code;
}

EXPORT(bool, render, const char *messages, const char *tools, const char *options) {
    carat_chat_desc desc;
    return have(engine, "model") && read_request(messages, tools, options, &desc) &&
           give_string(carat_render(engine, &desc, &error));
}

/* How many tokens that prompt has; 0: error(). */
EXPORT(uint32_t, count, const char *messages, const char *tools, const char *options) {
    carat_chat_desc desc;
    bool ok = have(engine, "model") && read_request(messages, tools, options, &desc);
    int64_t n = ok ? carat_count(engine, &desc, &error) : 0;
    return n > 0 ? (uint32_t)n : 0;
}

/* ---- session and jobs ----------------------------------------------------------------------- */

EXPORT(bool, create_session, uint32_t n_ctx) {
    if (!have(engine, "model")) return false;
    carat_session_free(session);
    session = carat_session_create(engine, &(carat_session_desc){n_ctx}, &error);
    return session != NULL;
}

EXPORT(uint32_t, context, void) { return session ? carat_session_context(session) : 0; }
EXPORT(uint32_t, length, void) { return session ? carat_session_length(session) : 0; }

EXPORT(carat_job *, load, void) { return carat_load(engine, &error); }

EXPORT(carat_job *, chat, const char *messages, const char *tools, const char *options) {
    carat_chat_desc desc;
    bool ok = have(session, "session") && read_request(messages, tools, options, &desc);
    return ok ? carat_chat(session, &desc, &error) : NULL;
}

EXPORT(carat_job *, complete, const int32_t *ids, size_t n, const char *options) {
    carat_chat_desc desc;
    bool ok = have(session, "session") && read_request(NULL, NULL, options, &desc);
    return ok ? carat_complete(session, ids, n, &desc, &error) : NULL;
}

EXPORT(carat_job *, score, const int32_t *ids, size_t n) {
    return have(session, "session") ? carat_score(session, ids, n, &error) : NULL;
}

EXPORT(carat_job *, save, const char *path) {
    return have(session, "session") ? carat_session_save(session, path, &error) : NULL;
}

EXPORT(carat_job *, restore, const char *path) {
    return have(session, "session") ? carat_session_restore(session, path, &error) : NULL;
}

_Static_assert(offsetof(carat_event, text) == 4 && offsetof(carat_event, length) == 8 &&
                   offsetof(carat_event, done) == 16 && offsetof(carat_event, total) == 24 &&
                   offsetof(carat_event, token) == 32 && offsetof(carat_event, logprob) == 36 &&
                   offsetof(carat_event, top) == 40 && offsetof(carat_event, n_top) == 44 &&
                   offsetof(carat_event, finish) == 48 && sizeof(carat_logprob) == 8,
               "see engine.js");

/* NULL: error(). */
EXPORT(const carat_event *, advance, carat_job *job) {
    static carat_event event;
    error = (carat_error){0};
    return carat_advance(job, &event, &error) ? &event : NULL;
}

EXPORT(void, cancel, carat_job *job) { carat_cancel(job); }

_Static_assert(offsetof(carat_stats, load_s) == 16 && offsetof(carat_stats, generate_s) == 32 &&
                   offsetof(carat_stats, n_dispatch) == 40 &&
                   offsetof(carat_stats, bytes_read) == 56 &&
                   offsetof(carat_stats, encode_s) == 64 && offsetof(carat_stats, n_encoded) == 72,
               "see engine.js");

EXPORT(const carat_stats *, stats, carat_job *job) {
    static carat_stats stats;
    carat_job_stats(job, &stats);
    return &stats;
}

EXPORT(void, free_job, carat_job *job) { carat_job_free(job); }

/* ---- adapters and training ------------------------------------------------------------------ */

/* path NULL: the run's, as it is now. */
EXPORT(carat_adapter *, open_adapter, const char *path) {
    if (path) return have(engine, "model") ? carat_adapter_open(engine, path, &error) : NULL;
    return have(trainer, "training run") ? carat_trainer_adapter(trainer, &error) : NULL;
}

EXPORT(void, close_adapter, carat_adapter *adapter) { carat_adapter_close(adapter); }

EXPORT(bool, save_adapter, const carat_adapter *adapter, const char *path) {
    return carat_adapter_save(adapter, path, &error);
}

_Static_assert(sizeof(carat_adapter_use) == 8 && offsetof(carat_adapter_use, scale) == 4,
               "see engine.js");

EXPORT(bool, adapt, const carat_adapter_use *uses, size_t n) {
    return have(engine, "model") && carat_engine_adapt(engine, uses, n, &error);
}

static const char *choose(const json *options, const char *key, const char *const *names, size_t n,
                          size_t *out) {
    const char *name = json_string(json_get(options, key), names[0]);
    for (*out = 0; *out < n; ++*out)
        if (!strcmp(name, names[*out])) return name;
    fail(&error, CARAT_E_ARGUMENT, "%s: there is no %s", key, name);
    return NULL;
}

static void read_training(const json *o, carat_train_desc *d) {
    static const char *const learn[] = {"replies", "all"}, *const schedules[] = {"cosine", "linear",
                                                                                 "constant"};
    size_t i;
    d->targets = json_string(json_get(o, "targets"), NULL);
    d->rank = (uint32_t)number(o, "rank", 0, UINT32_MAX, 0);
    d->alpha = (float)number(o, "alpha", 0, 1e6, 0);
    d->rslora = json_bool(json_get(o, "rslora"), false);
    d->dropout = (float)number(o, "dropout", 0, 1, 0);
    d->first_layer = (uint32_t)number(o, "firstLayer", 0, UINT32_MAX, 0);
    d->n_layer = (uint32_t)number(o, "layers", 0, UINT32_MAX, 0);
    if (choose(o, "learn", learn, COUNT(learn), &i)) d->learn = (carat_learn)i;
    d->stop_at_bad = json_bool(json_get(o, "stopAtBad"), false);
    d->drop_long = json_bool(json_get(o, "dropLong"), false);
    d->max_length = (uint32_t)number(o, "maxLength", 0, UINT32_MAX, 0);
    d->eval_share = (float)number(o, "evalShare", 0, 1, 0);
    d->learning_rate = number(o, "learningRate", 0, 1e6, 0);
    d->weight_decay = number(o, "weightDecay", 0, 1e6, 0);
    d->clip = number(o, "clip", -1, 1e6, 0);
    if (choose(o, "schedule", schedules, COUNT(schedules), &i)) d->schedule = (carat_schedule)i;
    d->n_warmup = (uint32_t)number(o, "warmup", 0, UINT32_MAX, 0);
    d->n_epoch = (uint32_t)number(o, "epochs", 0, UINT32_MAX, 0);
    d->n_step = (uint32_t)number(o, "steps", 0, UINT32_MAX, 0);
    d->batch_tokens = (uint32_t)number(o, "batchTokens", 0, UINT32_MAX, 0);
    d->n_accumulate = (uint32_t)number(o, "accumulate", 0, UINT32_MAX, 0);
    d->eval_every = (uint32_t)number(o, "evalEvery", 0, UINT32_MAX, 0);
    d->patience = (uint32_t)number(o, "patience", 0, UINT32_MAX, 0);
    d->seed = (uint64_t)number(o, "seed", 0, 9007199254740991.0, 0);
    d->memory = (uint64_t)number(o, "memory", 0, 9007199254740991.0, 0);
}

/* data NULL: ends the run, if there is one. adapter: what it goes on from, or NULL. */
EXPORT(bool, open_trainer, const char *data, const char *adapter, const char *options) {
    json *o = NULL;
    carat_train_desc desc = {.data = data, .adapter = adapter};
    carat_trainer_free(trainer);
    trainer = NULL;
    if (!data) return true;
    if (!have(engine, "model")) return false;
    if (options && !json_parse(call, options, strlen(options), "options", &o, &error)) return false;
    read_training(o, &desc);
    if (!error.code) trainer = carat_trainer_open(engine, &desc, &error);
    return trainer != NULL;
}

EXPORT(carat_job *, train, uint32_t n_step) {
    return have(trainer, "training run") ? carat_train(trainer, n_step, &error) : NULL;
}

/* A checkpoint: writes it, or goes on from it. */
EXPORT(bool, checkpoint, const char *path, bool resume) {
    if (!have(trainer, "training run")) return false;
    return resume ? carat_trainer_resume(trainer, path, &error)
                  : carat_trainer_save(trainer, path, &error);
}

/* ---- what there is to say ------------------------------------------------------------------- */

static void put_real(buf *b, const char *key, double x) {
    if (isfinite(x))
        buf_printf(b, ",\"%s\":%.9g", key, x);
    else
        buf_printf(b, ",\"%s\":null", key);
}

static char *device_text(void) {
    buf b = {0};
    const char *name = carat_device_name(device);
    buf_puts(&b, "{\"name\":");
    json_write_string(&b, name, strlen(name));
    buf_printf(&b, ",\"isGpu\":%s", carat_device_is_gpu(device) ? "true" : "false");
    put_real(&b, "peakBytes", (double)carat_device_peak_bytes(device));
    buf_puts(&b, "}");
    return buf_take(&b);
}

static char *state_text(void) {
    buf b = {0};
    carat_train_state s;
    carat_trainer_state(trainer, &s);
    buf_printf(&b, "{\"step\":%u,\"steps\":%u,\"epoch\":%u,\"finished\":%s", s.step, s.n_step,
               s.epoch, s.finished ? "true" : "false");
    put_real(&b, "loss", s.loss);
    put_real(&b, "evalLoss", s.eval_loss);
    put_real(&b, "bestEval", s.best_eval);
    put_real(&b, "learningRate", s.rate);
    put_real(&b, "gradNorm", s.grad_norm);
    put_real(&b, "tokens", (double)s.n_token);
    put_real(&b, "seconds", s.seconds);
    put_real(&b, "deviceBytes", (double)s.device_bytes);
    buf_puts(&b, "}");
    return buf_take(&b);
}

/* Texts, most of them JSON. which: an adapter, or the number of a sample. */
EXPORT(bool, describe, uint32_t what, uintptr_t which) {
    enum { DEVICE, MODEL, ADAPTER, REPORT, SAMPLE, STATE };
    switch (what) {
    case DEVICE:
        return have(device, "device") && give_string(device_text());
    case MODEL:
        return have(engine, "model") && give_string(carat_engine_describe(engine, &error));
    case ADAPTER:
        return give_string(carat_adapter_describe((carat_adapter *)which, &error));
    default:
        break;
    }
    if (!have(trainer, "training run")) return false;
    if (what == REPORT) return give_string(carat_trainer_report(trainer, &error));
    if (what == STATE) return give_string(state_text());
    return give_string(carat_trainer_sample(trainer, (uint32_t)which, &error));
}
