/* train: a model learns a LoRA adapter from a file of samples. Tells first what will be done, keeps
 * a checkpoint while it learns, and ends with a folder that PEFT and `--adapter` take.
 *
 * Flow: runtime.c before; train_show.c tells of it, train_curve.c draws its loss. */
#include "train.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct training {
    settings *settings;
    runtime runtime;
    carat_trainer *trainer;
    train_view view;
    curve curve;
    buf checkpoint; /* its path */
    uint32_t saved; /* step of the checkpoint that is there; 0: none */
    bool interrupted;
} training;

/* ---- options ---- */

static const option run_options[] = {
    OPTION("out", 'o', TEXT, out, "DIR",
           "folder for the adapter, the checkpoint and the curve of the loss; made if need be"),
    OPTION("gguf", 0, TEXT, gguf, "FILE", "write the adapter as GGUF, too, for llama.cpp, Ollama"),
    OPTION("report", 0, FLAG, report, NULL, "only say what would be done"),
    OPTION("resume", 0, FLAG, resume, NULL,
           "go on from the checkpoint in DIR; the options must be the same"),
    OPTION("save-every", 0, U32, save_every, "N", "steps between checkpoints; default: 50",
           .min = 1, .max = 1 << 30),
    OPTION("json", 0, FLAG, json, NULL, "one JSON object a line, for programs"),
    {0}};

static const option adapter_options[] = {
    OPTION("rank", 'r', U32, train.rank, "N",
           "rank of the matrices: more learns more, and takes more memory; default: 16", .min = 1,
           .max = 1024),
    OPTION("alpha", 0, F32, train.alpha, "X",
           "strength: the adapter counts alpha / rank; default: twice the rank", .min = 1e-6,
           .max = 1e6),
    OPTION("rslora", 0, FLAG, train.rslora, NULL, "strength alpha / sqrt(rank), for high ranks"),
    OPTION("targets", 0, TEXT, train.targets, "LIST",
           "matrices that are adapted, of q,k,v,o,gate,up,down,embed,head; default: the first "
           "seven"),
    OPTION("first-layer", 0, U32, train.first_layer, "N", "the first layer that learns; default: 0",
           .max = 1 << 20),
    OPTION("layers", 0, U32, train.n_layer, "N", "how many layers learn from there; default: all",
           .min = 1, .max = 1 << 20),
    OPTION("dropout", 0, F32, train.dropout, "X",
           "share of what the adapter sees that is dropped while it learns; default: 0",
           .max = 0.99),
    OPTION("from", 0, TEXT, train.adapter, "FILE",
           "go on with this adapter, whose shape decides; default: a new one"),
    {0}};

static const option data_options[] = {
    OPTION("learn", 0, CHOICE, learn, "replies|all",
           "what is learned: what the model says (the default), or every token"),
    OPTION("max-length", 0, U32, train.max_length, "N",
           "tokens of a sample, at most; the rest is cut; default: 2048", .min = 2, .max = 1 << 20),
    OPTION("drop-long", 0, FLAG, train.drop_long, NULL,
           "leave samples out that are too long, in place of cutting them"),
    OPTION("stop-at-bad", 0, FLAG, train.stop_at_bad, NULL,
           "stop at a row that cannot be used, in place of counting it"),
    OPTION("eval", 0, F32, train.eval_share, "X",
           "share of the samples held out to measure by; default: 0", .max = 0.9),
    {0}};

static const option rate_options[] = {
    OPTION("epochs", 'e', U32, train.n_epoch, "N",
           "how often every sample is seen; default: 3, or as --steps needs", .min = 1,
           .max = 1 << 20),
    OPTION("steps", 0, U32, train.n_step, "N", "end after N steps; default: as the epochs have",
           .min = 1, .max = 1 << 30),
    OPTION("learning-rate", 0, F64, train.learning_rate, "X",
           "how far a step goes; default: 0.0002", .min = 1e-12, .max = 1e30),
    OPTION("schedule", 0, CHOICE, schedule, "cosine|linear|constant",
           "how the rate falls towards the end; default: cosine"),
    OPTION("warmup", 0, U32, train.n_warmup, "N", "steps in which the rate rises; default: 0",
           .max = 1 << 30),
    OPTION("batch-tokens", 0, U32, train.batch_tokens, "N",
           "tokens of a batch, into which short samples are packed; 1: a sample each; default: "
           "512, or an eighth of the data where that is less",
           .max = 1 << 24),
    OPTION(
        "accumulate", 0, U32, train.n_accumulate, "N",
        "batches of a step; default: 1, or without --batch-tokens as many as make 2048 tokens or "
        "an eighth of the data",
        .min = 1, .max = 1 << 20),
    OPTION("weight-decay", 0, F64, train.weight_decay, "X",
           "how much of every value a step takes away, times the rate; default: 0", .max = 0.99),
    OPTION("clip", 0, F64, clip, "X", "the gradient's norm, at most; 0: any; default: 1",
           .max = 1e9),
    OPTION("eval-every", 0, U32, train.eval_every, "N",
           "steps between measurements on what is held out; default: only at the end", .min = 1,
           .max = 1 << 30),
    OPTION("patience", 0, U32, train.patience, "N",
           "stop when N measurements brought nothing; default: never", .max = 1 << 20),
    OPTION("seed", 0, U64, train.seed, "N",
           "of the adapter, the order and dropout: the same gives the same adapter; default: 0",
           .max = 0x1p64),
    {0}};

static const option general_options[] = {
    OPTION("device", 0, CHOICE, device, "auto|gpu|cpu",
           "where to compute: the best GPU or else the CPU (auto, the default), a GPU or an "
           "error, or the CPU reference"),
    OPTION("memory", 0, F64, memory, "GB",
           "memory for the run beside the weights: with less, more is computed again; default: "
           "4",
           .min = 0.001, .max = 1e5),
    OPTION("template", 0, CHOICE, template_, "small|large",
           "chat template of the small models (E2B, E4B) or of the large ones; default: by the "
           "model's shape"),
    OPTION("help", 'h', FLAG, help, NULL, "this text"),
    {0}};

static const option_group run_group = {"run", run_options},
                          adapter_group = {"adapter", adapter_options},
                          data_group = {"data", data_options},
                          rate_group = {"learning", rate_options},
                          general_group = {"general", general_options};

static carat_train_desc desc_of(const settings *s, const char *data) {
    carat_train_desc d = s->train;
    d.data = data;
    d.clip = s->clip > 0 ? s->clip : -1;
    d.memory = (uint64_t)(s->memory * 1e9);
    if (s->learn && !strcmp(s->learn, "all")) d.learn = CARAT_LEARN_ALL;
    if (s->schedule && !strcmp(s->schedule, "linear")) d.schedule = CARAT_SCHEDULE_LINEAR;
    if (s->schedule && !strcmp(s->schedule, "constant")) d.schedule = CARAT_SCHEDULE_CONSTANT;
    return d;
}

/* ---- keeping ---- */

static bool exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

/* A path in the folder; "" when there is no memory for it, which no file has. */
static const char *path_in(const training *t, const char *name, buf *out) {
    buf_reset(out);
    buf_printf(out, "%s/%s", t->settings->out, name);
    return out->failed ? "" : out->data;
}

/* What has been learned so far, and the curve up to there. */
static bool keep(training *t, carat_error *err) {
    carat_train_state s;
    carat_error e = {0};
    carat_trainer_state(t->trainer, &s);
    if (carat_trainer_save(t->trainer, t->checkpoint.data, &e) &&
        curve_write(&t->curve, t->settings->out, &e)) {
        t->saved = s.step;
        return true;
    }
    if (t->saved)
        return fail(err, e.code,
                    "%s; the checkpoint of step %u is as it was: --resume goes on "
                    "from there",
                    e.message, t->saved);
    return fail(err, e.code, "%s; there is no checkpoint yet", e.message);
}

/* A checkpoint that nobody asked to go on from is not written over, unless its run came to its
 * end. */
static bool check_free(training *t, carat_error *err) {
    buf path = {0};
    const bool finished = exists(path_in(t, "adapter_model.safetensors", &path));
    buf_free(&path);
    if (finished || !exists(t->checkpoint.data)) return true;
    return fail(err, CARAT_E_ARGUMENT,
                "%s is of a run that did not come to its end: go on with it by --resume, or remove "
                "it",
                t->checkpoint.data);
}

static bool resume(training *t, carat_error *err) {
    carat_train_state s;
    buf path = {0};
    if (!exists(t->checkpoint.data))
        return fail(err, CARAT_E_NOT_FOUND, "%s: there is nothing to go on from",
                    t->checkpoint.data);
    if (!carat_trainer_resume(t->trainer, t->checkpoint.data, err)) return false;
    carat_trainer_state(t->trainer, &s);
    curve_read(&t->curve, path_in(t, "loss.csv", &path), s.step);
    buf_free(&path);
    t->saved = t->view.first_step = s.step;
    show_done(&t->view, "resumed", s.step, "going on after step %u of %u", s.step, s.n_step);
    return true;
}

static bool open_folder(training *t, carat_error *err) {
    const char *dir = t->settings->out;
    buf_printf(&t->checkpoint, "%s/checkpoint.safetensors", dir);
    if (t->checkpoint.failed) return fail_memory(err, strlen(dir), "a path");
    if (mkdir(dir, 0777) != 0 && errno != EEXIST)
        return fail(err, CARAT_E_IO, "%s: %s", dir, strerror(errno));
    return t->settings->resume ? resume(t, err) : check_free(t, err);
}

/* ---- learning ---- */

static void show_event(training *t, const carat_event *ev) {
    carat_train_state s;
    carat_trainer_state(t->trainer, &s);
    switch (ev->kind) {
    case CARAT_EVENT_STEP:
        curve_step(&t->curve, &s);
        show_step(&t->view, &s);
        break;
    case CARAT_EVENT_EVAL:
        curve_eval(&t->curve, &s);
        show_eval(&t->view, &s);
        break;
    case CARAT_EVENT_PROGRESS:
        if (ev->text) show_progress(&t->view, &s, ev);
        break;
    case CARAT_EVENT_NOTICE:
        show_notice(&t->view, ev->text, ev->length);
        break;
    default:
        break;
    }
}

/* As many steps as there are to the next checkpoint. */
static bool learn_some(training *t, uint32_t n_step, carat_error *err) {
    carat_job *job = carat_train(t->trainer, n_step, err);
    if (!job) return false;
    interrupt_watch(job);
    carat_event ev = {0};
    bool ok = true;
    while (ok && ev.kind != CARAT_EVENT_DONE) {
        ok = carat_wait(job, &ev, err);
        if (ok) show_event(t, &ev);
    }
    t->interrupted = interrupted();
    interrupt_watch(NULL);
    carat_job_free(job);
    progress_end();
    return ok;
}

/* Until the end, or Ctrl-C; what was learned is kept. */
static bool learn(training *t, carat_error *err) {
    const uint32_t every = t->settings->save_every;
    carat_train_state s;
    interrupt_install(true);
    for (carat_trainer_state(t->trainer, &s);
         !s.finished && !t->interrupted && !interrupted(); /* the latter: while it was kept */
         carat_trainer_state(t->trainer, &s)) {
        carat_error e = {0};
        if (!learn_some(t, every - s.step % every, &e)) {
            carat_trainer_state(t->trainer, &s);
            if (!t->saved) return fail(err, e.code, "%s", e.message);
            return fail(err, e.code, "%s; the checkpoint of step %u is in %s", e.message, t->saved,
                        t->settings->out);
        }
        if (!keep(t, err)) return false;
    }
    if (s.finished) return true;
    show_done(&t->view, "stopped", s.step,
              "stopped after step %u of %u; the same command with --resume goes on", s.step,
              s.n_step);
    return fail(err, CARAT_E_CANCELLED, "interrupted");
}

/* The adapter as files, if it does anything. */
static bool finish(training *t, carat_error *err) {
    const settings *s = t->settings;
    carat_train_state state;
    bool effect = false;
    if (!runtime_finish(carat_trainer_check(t->trainer, &effect, err), "checking", NULL, err))
        return false;
    if (!effect)
        return fail(err, CARAT_E_FORMAT,
                    "the adapter does not change what the model says, so it was not written; try a "
                    "higher learning rate, or more steps");
    carat_adapter *adapter = carat_trainer_adapter(t->trainer, err);
    const bool ok = adapter && carat_adapter_save(adapter, s->out, err) &&
                    (!s->gguf || carat_adapter_save(adapter, s->gguf, err));
    carat_adapter_close(adapter);
    carat_trainer_state(t->trainer, &state);
    if (ok)
        show_done(&t->view, "done", state.step,
                  "the adapter is in %s%s%s; try it: carat run %s --adapter %s", s->out,
                  s->gguf ? " and in " : "", s->gguf ? s->gguf : "", t->runtime.name, s->out);
    return ok;
}

/* ---- the command ---- */

static bool open_all(training *t, const char *const *args, carat_error *err) {
    runtime *r = &t->runtime;
    const carat_train_desc desc = desc_of(t->settings, args[1]);
    progress("opening %s", args[0]);
    r->device = carat_device_open(t->settings->device, err);
    if (!r->device || !runtime_open(r, t->settings, args[0], err)) return false;
    progress("reading %s", args[1]);
    t->trainer = carat_trainer_open(r->engine, &desc, err);
    progress_end();
    return t->trainer && show_report(&t->view, t->trainer, err);
}

static int run(settings *s, const char *const *args, size_t n) {
    (void)n;
    if (!s->out && !s->report)
        return usage_error("train: --out DIR says where the adapter is to go");
    carat_error err = {0};
    training t = {.settings = s};
    t.view = (train_view){.json = s->json, .runtime = &t.runtime};
    interrupt_install(false);
    interrupt_install_term();
    bool ok = open_all(&t, args, &err);
    if (ok && !s->report) {
        char title[256];
        snprintf(title, sizeof title, "loading %s on %s", args[0],
                 carat_device_name(t.runtime.device));
        ok = open_folder(&t, &err) &&
             runtime_finish(carat_load(t.runtime.engine, &err), title, NULL, &err) &&
             learn(&t, &err) && finish(&t, &err);
    }
    const int code = ok ? EXIT_OK : report(&err);
    carat_trainer_free(t.trainer);
    runtime_close(&t.runtime);
    buf_free(&t.curve.points);
    buf_free(&t.checkpoint);
    return code;
}

const command command_train = {
    .name = "train",
    .summary = "teach a model: a LoRA adapter learns from samples",
    .usage = "MODEL DATA --out DIR",
    .about =
        "Teaches a model what is in DATA, without changing its file: what is learned is a LoRA "
        "adapter, a few small matrices beside the model's own. First it says what will be done, "
        "and shows a sample as it is learned.\n\n"
        "DATA is a .jsonl file with an object a line, a .json file with a list of them, or a .csv "
        "file. A row has {\"messages\": [...]} as in a chat, {\"prompt\", \"completion\"}, "
        "{\"instruction\", \"input\", \"output\"} or {\"text\"}.\n\n"
        "DIR holds checkpoint.safetensors while it learns, from which --resume goes on exactly "
        "(Ctrl-C writes it, too), loss.csv and loss.svg, and at the end the adapter as PEFT has "
        "it, which --adapter DIR takes.",
    .examples = "  carat train gemma4:e2b faq.jsonl --report\n"
                "  carat train gemma4:e2b faq.jsonl --out faq --eval 0.1 --eval-every 20\n"
                "  carat train gemma4:e2b faq.jsonl --out faq --resume\n"
                "  carat run gemma4:e2b --adapter faq \"When are you open?\"\n",
    .groups = {&run_group, &adapter_group, &data_group, &rate_group, &general_group},
    .min_args = 2,
    .max_args = 2,
    .run = run,
};
