/* Training by the public interface, on nano: the report, a run and its events, stopping and going
 * on to the last bit, files, and what is refused. On the CPU; what a GPU changes for the job, on
 * the null device. */
#include "carat_train.h"
#include "gpu/gpu_null.h"
#include "model/engine.h"
#include "talk.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static talk nano;
static char folder[64];

/* ---- files ---- */

static const char *in_folder(const char *name) {
    static char path[16][128];
    static size_t next;
    char *p = path[next++ % COUNT(path)];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static const char *write_data(const char *name, const char *text) {
    const char *path = in_folder(name);
    REQUIRE(file_write(path, text, strlen(text), &err));
    return path;
}

static bool is_there(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

/* Whether two files hold the same. */
static bool same_files(const char *a, const char *b) {
    arena *memory = arena_create(NULL);
    const char *path[2] = {a, b};
    void *data[2];
    source *s[2];
    for (int i = 0; i < 2; i++) {
        REQUIRE(source_open(memory, path[i], &s[i], &err));
        data[i] = arena_alloc(memory, s[i]->size, 1);
        REQUIRE(source_read(s[i], 0, data[i], (size_t)s[i]->size, &err));
        source_close(s[i]);
    }
    const bool same = s[0]->size == s[1]->size && !memcmp(data[0], data[1], (size_t)s[0]->size);
    arena_free(memory);
    return same;
}

/* ---- runs ---- */

static const char *const colours = "{\"prompt\":\"one\",\"completion\":\"red\"}\n"
                                   "{\"prompt\":\"two\",\"completion\":\"green and blue\"}\n"
                                   "{\"prompt\":\"three\",\"completion\":\"white\"}\n"
                                   "{\"prompt\":\"four\",\"completion\":\"black\"}\n"
                                   "{\"prompt\":\"five or six\",\"completion\":\"yellow\"}\n";

/* Small, and only the upper layers, so that it is quick. */
static carat_train_desc usual(const char *data) {
    return (carat_train_desc){.data = data,
                              .targets = "q, up down",
                              .rank = 4,
                              .first_layer = 8,
                              .learning_rate = 3e-3,
                              .weight_decay = 0.01,
                              .n_epoch = 2,
                              .n_warmup = 1,
                              .batch_tokens = 30,
                              .seed = 11};
}

static carat_trainer *open_run(const carat_train_desc *d) {
    carat_trainer *tr;
    REQUIRE(tr = carat_trainer_open(nano.eng, d, &err));
    return tr;
}

static carat_train_state state_of(const carat_trainer *tr) {
    carat_train_state s;
    carat_trainer_state(tr, &s);
    return s;
}

typedef struct outcome {
    uint32_t n_step, n_eval, n_progress;
    bool ok;
} outcome;

/* Lets it learn n steps (0: all); cancels after the step `stop`, or within it (then -stop). */
static outcome learn(carat_trainer *tr, uint32_t n, int stop) {
    carat_job *job;
    carat_event ev = {0};
    outcome o = {.ok = true};
    REQUIRE(job = carat_train(tr, n, &err));
    while (o.ok && ev.kind != CARAT_EVENT_DONE) {
        o.ok = carat_wait(job, &ev, &err);
        o.n_step += o.ok && ev.kind == CARAT_EVENT_STEP;
        o.n_eval += o.ok && ev.kind == CARAT_EVENT_EVAL;
        o.n_progress += o.ok && ev.kind == CARAT_EVENT_PROGRESS;
        if (ev.kind == CARAT_EVENT_STEP) {
            assert_int_equal(ev.done, state_of(tr).step);
            assert_int_equal(ev.total, state_of(tr).n_step);
            if ((int)ev.done == stop) carat_cancel(job);
        }
        if (ev.kind == CARAT_EVENT_PROGRESS && ev.text) {
            assert_true(ev.done <= ev.total);
            if (-(int)state_of(tr).step == stop + 1) carat_cancel(job);
        }
    }
    carat_job_free(job);
    return o;
}

static void learn_all(carat_trainer *tr) {
    outcome o = learn(tr, 0, 0);
    if (!o.ok) fail_msg("%s", err.message);
    assert_true(state_of(tr).finished);
}

static void save_adapter(carat_trainer *tr, const char *path) {
    carat_adapter *ad;
    REQUIRE(ad = carat_trainer_adapter(tr, &err));
    REQUIRE(carat_adapter_save(ad, path, &err));
    carat_adapter_close(ad);
}

static bool has_effect(carat_trainer *tr) {
    bool effect = true;
    REQUIRE(carat_finish(carat_trainer_check(tr, &effect, &err), &err));
    return effect;
}

/* ---- what it says ---- */

static void expect_number(const json *report, const char *key, double want) {
    const double is = json_number(json_get(report, key), -1);
    if (is != want) fail_msg("%s: %g, not %g", key, is, want);
}

static void report(void **state) {
    (void)state;
    const char *text = "{\"prompt\":\"one\",\"completion\":\"red\"}\n\n"
                       "rubbish\n{\"prompt\":\"two\",\"completion\":\"green and blue\"}\n"
                       "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}\n[]\n";
    carat_train_desc d = usual(write_data("mixed.jsonl", text));
    arena *memory = arena_create(NULL);
    json *r;
    char *said;
    d.max_length = 14;
    carat_trainer *tr = open_run(&d);
    REQUIRE(said = carat_trainer_report(tr, &err));
    REQUIRE(json_parse(memory, said, strlen(said), "report", &r, &err));
    expect_number(r, "rows", 5);
    expect_number(r, "bad", 2);
    expect_number(r, "cut", 1);
    expect_number(r, "dropped", 0);
    expect_number(r, "nothing_learned", 1);
    expect_number(r, "samples", 2);
    expect_number(json_get(r, "lengths"), "longest", 14);
    expect_number(r, "epochs", 2);
    expect_number(json_get(r, "adapter"), "rank", 4);
    expect_number(json_get(r, "adapter"), "first_layer", 8);
    assert_non_null(strstr(json_string(json_get(r, "first_bad"), ""), "line 3: "));
    assert_true(json_number(json_get(json_get(r, "memory"), "run"), 0) > 1e5);
    const double tokens = json_number(json_get(r, "tokens"), 0);
    const double learned = json_number(json_get(r, "learned_tokens"), 0);
    assert_true(learned > 2 && learned < tokens);
    carat_string_free(said);
    REQUIRE(said = carat_trainer_sample(tr, 0, &err));
    assert_string_equal(said, "<bos><|turn>user\none<turn|>\n<|turn>model\n[[red<turn|>]]\n");
    carat_string_free(said);
    REFUSE(carat_trainer_sample(tr, 2, &err), CARAT_E_ARGUMENT, "no sample 2");
    carat_trainer_free(tr);
    arena_free(memory);
}

/* Events, state, and an adapter that changes what is said only once it has learned. */
static void a_run(void **state) {
    (void)state;
    carat_train_desc d = usual(write_data("colours.jsonl", colours));
    d.eval_share = 0.2f;
    d.eval_every = 2;
    d.n_accumulate = 2;
    carat_trainer *tr = open_run(&d);
    carat_train_state s = state_of(tr);
    assert_true(s.step == 0 && s.n_step > 1 && !s.finished && s.n_token == 0);
    assert_true(isnan(s.loss) && isnan(s.eval_loss) && isnan(s.best_eval));
    assert_false(has_effect(tr));
    outcome o = learn(tr, 1, 0);
    if (!o.ok) fail_msg("%s", err.message);
    assert_int_equal(o.n_step, 1);
    const double first = state_of(tr).loss;
    o = learn(tr, 0, 0);
    if (!o.ok) fail_msg("%s", err.message);
    s = state_of(tr);
    assert_true(s.finished && s.step == s.n_step && o.n_step == s.n_step - 1);
    assert_int_equal(o.n_eval, s.n_step / 2 + s.n_step % 2);
    assert_true(o.n_progress > 0 && s.n_token > 60 && s.seconds > 0 && s.grad_norm > 0);
    assert_true(s.device_bytes > 0 && isfinite(s.best_eval) && s.best_eval <= s.eval_loss);
    assert_true(s.loss < first);
    assert_true(has_effect(tr));
    assert_true(learn(tr, 0, 0).n_step == 0); /* nothing is left to do */
    carat_trainer_free(tr);
}

/* Cancelled within a step and after one, saved, gone on with by another trainer: not a bit differs
 * from a run without interruption. */
static void stopping_changes_nothing(void **state) {
    (void)state;
    const char *whole = in_folder("whole.gguf"), *parts = in_folder("parts.gguf");
    carat_train_desc d = usual(write_data("colours.jsonl", colours));
    d.eval_share = 0.2f;
    d.eval_every = 1;
    d.n_accumulate = 2;
    d.dropout = 0.1f;
    carat_trainer *tr = open_run(&d);
    learn_all(tr);
    const carat_train_state end = state_of(tr);
    save_adapter(tr, whole);
    carat_trainer_free(tr);
    static const int stops[] = {1, -3}; /* the third has two batches */
    for (size_t i = 0; i < COUNT(stops); i++) {
        const char *saved = in_folder("stopped.safetensors");
        tr = open_run(&d);
        outcome o = learn(tr, 0, stops[i]);
        assert_true(o.ok && !state_of(tr).finished);
        const uint32_t step = state_of(tr).step;
        assert_int_equal(step, stops[i] > 0 ? stops[i] : -stops[i] - 1);
        REQUIRE(carat_trainer_save(tr, saved, &err));
        if (i) { /* also without a file between */
            learn_all(tr);
            save_adapter(tr, parts);
            assert_true(same_files(whole, parts));
        }
        carat_trainer_free(tr);
        tr = open_run(&d);
        REQUIRE(carat_trainer_resume(tr, saved, &err));
        assert_true(state_of(tr).step == step && isnan(state_of(tr).loss));
        learn_all(tr);
        save_adapter(tr, parts);
        assert_true(same_files(whole, parts));
        assert_true(state_of(tr).eval_loss == end.eval_loss);
        carat_trainer_free(tr);
    }
}

/* Up to the last good step all stays, and can be saved. */
static void nan_loss(void **state) {
    (void)state;
    const char *before = in_folder("before.safetensors"), *after = in_folder("after.safetensors");
    carat_train_desc d = usual(write_data("colours.jsonl", colours));
    d.learning_rate = 1e30;
    d.weight_decay = 0;
    d.n_warmup = 0;
    d.n_epoch = 4;
    carat_trainer *tr = open_run(&d);
    uint32_t step = 0;
    outcome o = {.ok = true};
    while (o.ok) {
        step = state_of(tr).step;
        REQUIRE(carat_trainer_save(tr, before, &err));
        err = (carat_error){0};
        o = learn(tr, 1, 0);
    }
    char where[64];
    snprintf(where, sizeof where, "not a number in step %u, at line ", step + 1);
    if (!strstr(err.message, where)) fail_msg("%s", err.message);
    assert_int_equal(state_of(tr).step, step);
    REQUIRE(carat_trainer_save(tr, after, &err));
    assert_true(same_files(before, after));
    carat_trainer_free(tr);
}

/* An adapter is gone on from, in its own shape; it comes back as PEFT's folder and as GGUF. */
static void from_an_adapter(void **state) {
    (void)state;
    carat_train_desc d = usual(write_data("colours.jsonl", colours));
    carat_trainer *tr = open_run(&d);
    learn_all(tr);
    const char *peft = in_folder("colours"), *file = in_folder("colours.gguf");
    save_adapter(tr, peft);
    save_adapter(tr, peft); /* over what is there */
    save_adapter(tr, file);
    const double loss = state_of(tr).loss;
    carat_trainer_free(tr);
    d.adapter = file;
    d.rank = 64; /* the adapter's own counts */
    carat_trainer *a = open_run(&d);
    d.adapter = peft;
    carat_trainer *b = open_run(&d);
    assert_true(has_effect(a));
    assert_true(learn(a, 1, 0).ok && learn(b, 1, 0).ok);
    assert_true(fabs(state_of(a).loss - state_of(b).loss) < 1e-6);
    assert_true(state_of(a).loss < 1.2 * loss);
    char *said = carat_trainer_report(a, &err);
    assert_non_null(strstr(said, "\"rank\":4,"));
    carat_string_free(said);
    carat_trainer_free(a);
    carat_trainer_free(b);
    carat_adapter *ad;
    REQUIRE(ad = carat_adapter_open(nano.eng, file, &err));
    REFUSE(carat_adapter_save(ad, in_folder("no/such/folder"), &err), CARAT_E_IO, "no/such/folder");
    REFUSE(carat_adapter_save(ad, in_folder("colours.jsonl"), &err), CARAT_E_ARGUMENT,
           "neither a folder nor ends in .gguf");
    REFUSE(carat_adapter_save(ad, "", &err), CARAT_E_ARGUMENT, "no file");
    carat_adapter_close(ad);
}

/* ---- what is refused ---- */

#define REFUSE_RUN(d, code, words) REFUSE(carat_trainer_open(nano.eng, d, &err), code, words)

static void bad_data(void **state) {
    (void)state;
    carat_train_desc d = usual(NULL);
    REFUSE_RUN(&d, CARAT_E_ARGUMENT, "no data");
    d.data = in_folder("nothing.jsonl");
    REFUSE_RUN(&d, CARAT_E_NOT_FOUND, "nothing.jsonl");
    d.data = write_data("empty.jsonl", "\n \n");
    REFUSE_RUN(&d, CARAT_E_FORMAT, "is empty");
    d.data = write_data("masked.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n"
                                        "{\"messages\":[{\"role\":\"user\",\"content\":\"b\"}]}\n");
    REFUSE_RUN(&d, CARAT_E_FORMAT, "in none of 2 rows is there anything to learn");
    d.data = write_data("bad.jsonl", "{\"text\":\"a\"}\n{\"text\":\n");
    d.stop_at_bad = true;
    REFUSE_RUN(&d, CARAT_E_FORMAT, "line 2: ");
}

static void bad_options(void **state) {
    (void)state;
    const carat_train_desc good = usual(write_data("colours.jsonl", colours));
    carat_train_desc d = good;
    d.rank = 1000000;
    REFUSE_RUN(&d, CARAT_E_ARGUMENT, "a rank of 1000000");
    d = good, d.targets = "q,w";
    REFUSE_RUN(&d, CARAT_E_ARGUMENT, "there is no w; there are q k v o");
    d = good, d.targets = " , ";
    REFUSE_RUN(&d, CARAT_E_ARGUMENT, "nothing is to be adapted");
    d = good, d.first_layer = 10;
    REFUSE_RUN(&d, CARAT_E_ARGUMENT, "the model has 10");
    d = good, d.n_layer = UINT32_MAX;
    REFUSE_RUN(&d, CARAT_E_ARGUMENT, "the model has 10");
    d = good, d.dropout = 1;
    REFUSE_RUN(&d, CARAT_E_ARGUMENT, "dropout of 1");
    d = good, d.alpha = -1;
    REFUSE_RUN(&d, CARAT_E_ARGUMENT, "alpha of -1");
    d = good, d.learning_rate = -1;
    REFUSE_RUN(&d, CARAT_E_ARGUMENT, "learning rate of -1");
    d = good, d.eval_share = 1;
    REFUSE_RUN(&d, CARAT_E_ARGUMENT, "share of 1");
    d = good, d.adapter = in_folder("nothing");
    REFUSE_RUN(&d, CARAT_E_NOT_FOUND, "nothing");
}

/* The message names the matrix. */
static void other_models_adapter(void **state) {
    (void)state;
    carat_engine *other;
    carat_train_desc d = usual(write_data("colours.jsonl", colours));
    d.adapter = "tests/golden/nano/adapter/adapter_model.safetensors";
    REQUIRE(other = carat_engine_open(&(carat_engine_desc){.path = "tests/golden/family/e4b.gguf"},
                                      NULL, &err));
    REFUSE(carat_trainer_open(other, &d, &err), CARAT_E_FORMAT, "layers.0.");
    carat_engine_close(other);
}

static void other_checkpoints(void **state) {
    (void)state;
    const char *path = in_folder("run.safetensors");
    carat_train_desc d = usual(write_data("colours.jsonl", colours));
    carat_trainer *tr = open_run(&d);
    REQUIRE(carat_trainer_save(tr, path, &err));
    carat_trainer_free(tr);
    d.learning_rate = 1e-3;
    tr = open_run(&d);
    REFUSE(carat_trainer_resume(tr, path, &err), CARAT_E_ARGUMENT,
           "another model, data, adapter or options");
    REFUSE(carat_trainer_resume(tr, d.data, &err), CARAT_E_FORMAT, "colours.jsonl");
    REFUSE(carat_trainer_resume(tr, in_folder("nothing"), &err), CARAT_E_NOT_FOUND, "nothing");
    carat_trainer_free(tr);
}

/* A full disk: the former checkpoint is as it was. */
static void full_disk(void **state) {
    (void)state;
    const char *path = in_folder("run.safetensors"), *copy = in_folder("copy.safetensors");
    struct rlimit limit, small;
    carat_train_desc d = usual(write_data("colours.jsonl", colours));
    carat_trainer *tr = open_run(&d);
    REQUIRE(carat_trainer_save(tr, path, &err));
    REQUIRE(carat_trainer_save(tr, copy, &err));
    assert_true(learn(tr, 1, 0).ok);
    void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = 10000;
    setrlimit(RLIMIT_FSIZE, &small);
    err = (carat_error){0};
    const bool ok = carat_trainer_save(tr, path, &err);
    const carat_error said = err;
    carat_adapter *ad = carat_trainer_adapter(tr, NULL);
    const bool folder_ok = carat_adapter_save(ad, in_folder("full"), NULL);
    setrlimit(RLIMIT_FSIZE, &limit);
    signal(SIGXFSZ, before);
    carat_adapter_close(ad);
    assert_false(ok || folder_ok);
    assert_int_equal(said.code, CARAT_E_IO);
    assert_non_null(strstr(said.message, "run.safetensors"));
    assert_true(same_files(path, copy));
    assert_false(is_there(in_folder("full")));
    REQUIRE(carat_trainer_save(tr, path, &err));
    assert_false(same_files(path, copy));
    carat_trainer_free(tr);
}

/* One job at a time; whatever is freed first. */
static void jobs(void **state) {
    (void)state;
    carat_train_desc d = usual(write_data("colours.jsonl", colours));
    carat_trainer *tr = open_run(&d);
    carat_job *job, *chat;
    carat_event ev;
    bool effect;
    REQUIRE(chat = carat_chat(nano.ses, &(carat_chat_desc){.messages = "[]"}, &err));
    REFUSE(carat_train(tr, 0, &err), CARAT_E_ARGUMENT, "session is under way");
    carat_job_free(chat);
    REQUIRE(job = carat_train(tr, 0, &err));
    REFUSE(carat_train(tr, 0, &err), CARAT_E_ARGUMENT, "run is under way");
    REFUSE(carat_trainer_check(tr, &effect, &err), CARAT_E_ARGUMENT, "run is under way");
    REFUSE(carat_trainer_save(tr, in_folder("no"), &err), CARAT_E_ARGUMENT, "under way");
    REFUSE(carat_trainer_resume(tr, in_folder("no"), &err), CARAT_E_ARGUMENT, "under way");
    REFUSE(carat_trainer_adapter(tr, &err), CARAT_E_ARGUMENT, "under way");
    REQUIRE(carat_wait(job, &ev, &err));
    carat_job_free(job); /* in the middle */
    learn_all(tr);
    REQUIRE(job = carat_trainer_check(tr, &effect, &err));
    carat_cancel(job);
    REFUSE(carat_wait(job, &ev, &err), CARAT_E_CANCELLED, "cancelled");
    carat_job_free(job);
    REQUIRE(job = carat_train(tr, 0, &err));
    carat_trainer_free(tr);
    REFUSE(carat_wait(job, &ev, &err), CARAT_E_ARGUMENT, "ended");
    carat_job_free(job);
}

/* The weights go between two jobs: they are loaded again, and nothing is lost. */
static void weights_come_back(void **state) {
    (void)state;
    carat_train_desc d = usual(write_data("colours.jsonl", colours));
    carat_trainer *a = open_run(&d), *b = open_run(&d);
    learn_all(a);
    assert_true(learn(b, 1, 0).ok);
    engine_unload(nano.eng);
    learn_all(b);
    save_adapter(a, in_folder("a.gguf"));
    save_adapter(b, in_folder("b.gguf"));
    assert_true(same_files(in_folder("a.gguf"), in_folder("b.gguf")));
    carat_trainer_free(a);
    carat_trainer_free(b);
}

/* ---- the null device: what a GPU computes is 0 there ---- */

static gpu *no_gpu(void *user, carat_error *e) {
    (void)user;
    (fail)(e, CARAT_E_DEVICE, "gpu: there is none");
    return NULL;
}

/* nano on it, in the place of the one on the CPU, which comes back with close_null(). */
static talk cpu_nano;

static gpu *open_null(const gpu_null_desc *desc) {
    gpu *g;
    carat_device *dev;
    cpu_nano = nano;
    REQUIRE(g = gpu_null_open(desc, &err));
    REQUIRE(dev = carat_device_from_gpu(g, no_gpu, NULL, &err));
    open_talk_with(&nano, dev, &(carat_engine_desc){.path = NANO}, 64);
    return g;
}

static void close_null(void) {
    close_talk(&nano);
    nano = cpu_nano;
}

/* Events as on the CPU, though nothing is there at once; memory as the report said. */
static void null_run(void **state) {
    (void)state;
    carat_train_desc d = usual(write_data("colours.jsonl", colours));
    d.eval_share = 0.2f;
    d.eval_every = 1;
    d.n_accumulate = 2;
    gpu *g = open_null(&(gpu_null_desc){.delay = 3});
    const uint64_t before = g->stats.buffer_bytes;
    carat_trainer *tr = open_run(&d);
    const uint64_t estimate = state_of(tr).device_bytes;
    outcome o = learn(tr, 0, 2);
    assert_true(o.ok && o.n_step == 2 && o.n_eval == 1 && o.n_progress > 2);
    assert_int_equal(state_of(tr).step, 2);
    assert_int_equal(state_of(tr).device_bytes, estimate);
    /* Beside what grows with the model there are the arguments of the dispatches. */
    assert_in_range(g->stats.buffer_bytes - before, estimate, estimate + (2 << 20));
    learn_all(tr);
    assert_false(has_effect(tr));
    assert_string_equal(gpu_null_complaint(g), "");
    /* Given up in the middle, and begun again. */
    carat_job *job;
    carat_event ev;
    bool effect;
    REQUIRE(job = carat_trainer_check(tr, &effect, &err));
    REQUIRE(carat_advance(job, &ev, &err));
    carat_job_free(job);
    assert_false(has_effect(tr));
    assert_string_equal(gpu_null_complaint(g), "");
    carat_trainer_free(tr);
    assert_true(g->stats.buffer_bytes == before);
    close_null();
}

/* Lost before anything was brought back: the CPU begins anew, as if it had been alone. */
static void lost(void **state) {
    (void)state;
    carat_train_desc d = usual(write_data("colours.jsonl", colours));
    carat_trainer *tr = open_run(&d);
    learn_all(tr);
    save_adapter(tr, in_folder("cpu.gguf"));
    carat_trainer_free(tr);
    gpu *g = open_null(&(gpu_null_desc){0});
    tr = open_run(&d);
    carat_job *job;
    carat_event ev = {0};
    buf notices = {0};
    REQUIRE(job = carat_train(tr, 0, &err));
    while (ev.kind != CARAT_EVENT_DONE) {
        REQUIRE(carat_wait(job, &ev, &err));
        if (ev.kind == CARAT_EVENT_NOTICE) buf_puts(&notices, ev.text);
        if (ev.kind == CARAT_EVENT_STEP && ev.done == 2 && !notices.len) g->lost = true;
    }
    carat_job_free(job);
    assert_non_null(strstr(notices.data, "the GPU was lost; carrying on with CPU"));
    assert_non_null(strstr(notices.data, "from step 0 on: what was learned in 2 steps"));
    assert_false(carat_device_is_gpu(nano.dev));
    save_adapter(tr, in_folder("lost.gguf"));
    assert_true(same_files(in_folder("cpu.gguf"), in_folder("lost.gguf")));
    buf_free(&notices);
    carat_trainer_free(tr);
    close_null();
}

/* No room for the run: it can be tried again with room. */
static void no_room(void **state) {
    (void)state;
    carat_train_desc d = usual(write_data("colours.jsonl", colours));
    gpu *g = open_null(&(gpu_null_desc){0});
    carat_trainer *tr = open_run(&d);
    const uint64_t before = g->stats.buffer_bytes, most = g->info.max_buffer;
    g->info.max_buffer = 1000;
    err = (carat_error){0};
    assert_false(learn(tr, 0, 0).ok);
    assert_int_equal(err.code, CARAT_E_MEMORY);
    assert_true(g->stats.buffer_bytes == before);
    g->info.max_buffer = most;
    learn_all(tr);
    carat_trainer_free(tr);
    close_null();
}

/* ---- the group ---- */

static int setup(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/carat-trainer-%ld", (long)getpid());
    if (mkdir(folder, 0700) != 0) return -1;
    open_talk(&nano, 64);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    close_talk(&nano);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(report),
        cmocka_unit_test(a_run),
        cmocka_unit_test(stopping_changes_nothing),
        cmocka_unit_test(nan_loss),
        cmocka_unit_test(from_an_adapter),
        cmocka_unit_test(bad_data),
        cmocka_unit_test(bad_options),
        cmocka_unit_test(other_models_adapter),
        cmocka_unit_test(other_checkpoints),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(jobs),
        cmocka_unit_test(weights_come_back),
        cmocka_unit_test(null_run),
        cmocka_unit_test(lost),
        cmocka_unit_test(no_room),
    };
    return RUN_ON("cpu", "trainer", tests, setup, teardown);
}
