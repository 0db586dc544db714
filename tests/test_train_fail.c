/* Training when things fail: on the null device every creation, submit and read fails once, on the
 * CPU every allocation; jobs, trainers, engines and devices go in any order; disks are full. Each
 * time there is one clear error or a notice, what was learned and is at hand stays whole, nothing
 * is leaked, and the trainer goes on. */
#include "failing_malloc.h"

#include "gpu/gpu_null.h"
#include "train/trainer.h"

#include "talk.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];
static talk cpu; /* nano on the CPU */

static const char *in_folder(const char *name) {
    static char path[8][128];
    static size_t next;
    char *p = path[next++ % COUNT(path)];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

/* ---- runs ---- */

/* Two steps of one short sample each, in two layers, then a measurement. */
static carat_train_desc usual(void) {
    return (carat_train_desc){.data = in_folder("data.jsonl"),
                              .targets = "q down embed",
                              .rank = 4,
                              .dropout = 0.1f,
                              .first_layer = 8,
                              .eval_share = 0.3f,
                              .n_step = 2,
                              .batch_tokens = 1,
                              .seed = 5};
}

static carat_trainer *open_run(carat_engine *eng) {
    carat_train_desc d = usual();
    carat_trainer *tr;
    REQUIRE(tr = carat_trainer_open(eng, &d, &err));
    return tr;
}

static bool has_effect(carat_trainer *tr, bool *effect) {
    err = (carat_error){0};
    return carat_finish(carat_trainer_check(tr, effect, &err), &err);
}

static bool learn(carat_trainer *tr, uint32_t n_step) {
    err = (carat_error){0};
    return carat_finish(carat_train(tr, n_step, &err), &err);
}

/* What is on the host belongs together, and nobody uses it. */
static void assert_whole(const carat_trainer *tr) {
    assert_null(tr->job);
    assert_int_equal(tr->moments.step, tr->held.step);
    assert_int_equal(tr->plan->state.step, tr->held.step);
    assert_int_equal(tr->plan->state.at, tr->held.at);
    for (uint64_t i = 0; i < tr->adapter->n_value; i++)
        assert_true(isfinite(tr->adapter->values[i]) && isfinite(tr->moments.m[i]));
}

/* It goes on to the end, and could be saved there. */
static void assert_usable(carat_trainer *tr) {
    carat_train_state s;
    bool effect = true;
    assert_whole(tr);
    if (!learn(tr, 0)) fail_msg("it does not go on: %s", err.message);
    carat_trainer_state(tr, &s);
    assert_true(s.finished && s.step == 2);
    assert_whole(tr);
    REQUIRE(has_effect(tr, &effect));
    REQUIRE(carat_trainer_save(tr, in_folder("usable.safetensors"), &err));
}

/* ---- the null device ---- */

typedef struct lender { /* of more of them */
    uint32_t n_left;
    gpu *last;
} lender;

static gpu *lend(void *user, carat_error *e) {
    lender *l = user;
    if (!l->n_left) {
        (fail)(e, CARAT_E_DEVICE, "gpu: there is none");
        return NULL;
    }
    l->n_left--;
    return l->last = gpu_null_open(&(gpu_null_desc){.delay = 1}, e);
}

static gpu *open_null(talk *t, const gpu_null_desc *desc, lender *l) {
    gpu *g;
    *t = (talk){0};
    REQUIRE(g = gpu_null_open(desc, &err));
    REQUIRE(t->dev = carat_device_from_gpu(g, lend, l, &err));
    REQUIRE(t->eng = carat_engine_open(&(carat_engine_desc){.path = NANO}, t->dev, &err));
    REQUIRE(carat_finish(carat_load(t->eng, &err), &err));
    return l->last = g;
}

/* What was made when the weights were there: failures are counted from then on. */
typedef struct made {
    uint32_t buffers, pipelines, binds, submits, reads;
    uint64_t alive;
} made;

static made at_load(void) {
    talk t;
    lender l = {0};
    const gpu *g = open_null(&t, &(gpu_null_desc){0}, &l);
    const gpu_null_counts n = gpu_null_count(g);
    const made m = {.buffers = (uint32_t)n.n_buffer_made,
                    .pipelines = (uint32_t)g->stats.n_pipeline,
                    .binds = (uint32_t)g->stats.n_bind,
                    .submits = (uint32_t)g->stats.n_submit,
                    .reads = (uint32_t)n.n_read,
                    .alive = n.n_buffer};
    close_talk(&t);
    return m;
}

/* Nothing is left of a run, and WebGPU would have had no complaint. */
static void assert_clean(const gpu *g, const made *m) {
    const gpu_null_counts n = gpu_null_count(g);
    assert_string_equal(gpu_null_complaint(g), "");
    assert_int_equal(n.n_buffer, m->alive);
    assert_int_equal(n.n_bind, m->binds);
    assert_int_equal(n.n_reading, 0);
}

static void all_calls(void **state) {
    (void)state;
    const made m = at_load();
    talk t;
    lender l = {0};
    bool effect = true;
    carat_adapter *ad;
    const gpu *g = open_null(&t, &(gpu_null_desc){.delay = 2}, &l);
    carat_trainer *tr = open_run(t.eng);
    if (!learn(tr, 1)) fail_msg("%s", err.message);
    assert_whole(tr);
    REQUIRE(carat_trainer_save(tr, in_folder("run.safetensors"), &err));
    REQUIRE(carat_trainer_resume(tr, in_folder("run.safetensors"), &err));
    assert_usable(tr);
    REQUIRE(has_effect(tr, &effect));
    assert_false(effect);
    REQUIRE(ad = carat_trainer_adapter(tr, &err));
    REQUIRE(carat_adapter_save(ad, in_folder("null.gguf"), &err));
    carat_adapter_close(ad);
    carat_trainer_free(tr);
    assert_clean(g, &m);
    close_talk(&t);
}

/* Learns, and checks, on a device that fails once: an error with this code, and then it goes on.
 * False: it did not fail. */
static bool fails_once(const gpu_null_desc *desc, const made *m, carat_code code) {
    talk t;
    lender l = {0};
    const gpu *g = open_null(&t, desc, &l);
    carat_trainer *tr = open_run(t.eng);
    bool effect;
    const bool failed = !learn(tr, 0) || !has_effect(tr, &effect);
    if (failed && err.code != code) fail_msg("code %d: %s", (int)err.code, err.message);
    if (failed) assert_usable(tr);
    carat_trainer_free(tr);
    assert_clean(g, m);
    close_talk(&t);
    return failed;
}

static void creations(void **state) {
    (void)state;
    const made m = at_load();
    gpu_null_desc d = {.fail_buffer = m.buffers + 1};
    while (fails_once(&d, &m, CARAT_E_MEMORY)) d.fail_buffer += 9;
    assert_true(d.fail_buffer > m.buffers + 60);
    d = (gpu_null_desc){.fail_pipeline = m.pipelines + 1};
    while (fails_once(&d, &m, CARAT_E_DEVICE)) d.fail_pipeline++;
    assert_true(d.fail_pipeline > m.pipelines + 15);
    d = (gpu_null_desc){.fail_bind = m.binds + 1};
    while (fails_once(&d, &m, CARAT_E_DEVICE)) d.fail_bind += 37;
    assert_true(d.fail_bind > m.binds + 200);
}

static void reads(void **state) {
    (void)state;
    const made m = at_load();
    gpu_null_desc d = {.fail_read = m.reads + 1, .delay = 1};
    while (fails_once(&d, &m, CARAT_E_MEMORY)) d.fail_read++;
    assert_true(d.fail_read > m.reads + 9); /* two steps, a measurement, and the way back */
}

/* ---- a device that is lost ---- */

static bool is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

static bool same_files(const char *a, const char *b) {
    char buffers[2][4096];
    FILE *f[2] = {fopen(a, "rb"), fopen(b, "rb")};
    bool same = f[0] && f[1];
    for (size_t n = 1; same && n;) {
        n = fread(buffers[0], 1, sizeof buffers[0], f[0]);
        same = fread(buffers[1], 1, sizeof buffers[1], f[1]) == n &&
               !memcmp(buffers[0], buffers[1], n);
    }
    for (int i = 0; i < 2; i++)
        if (f[i]) fclose(f[i]);
    return same;
}

static uint32_t n_notice;

/* All steps, counting notices. */
static bool learn_noticing(carat_trainer *tr) {
    carat_job *job;
    carat_event ev = {0};
    bool ok = true;
    n_notice = 0;
    REQUIRE(job = carat_train(tr, 0, &err));
    while (ok && ev.kind != CARAT_EVENT_DONE) {
        ok = carat_wait(job, &ev, &err);
        n_notice += ok && ev.kind == CARAT_EVENT_NOTICE;
    }
    carat_job_free(job);
    return ok;
}

/* Lost at submit `at`; with another device, or the CPU, that comes to what it does alone. */
static bool lost_at(uint32_t at, uint32_t n_more, const made *m) {
    talk t;
    lender l = {.n_left = n_more};
    open_null(&t, &(gpu_null_desc){.lose_at = at, .delay = 1}, &l);
    carat_trainer *tr = open_run(t.eng);
    if (!learn_noticing(tr)) fail_msg("lost at submit %u: %s", at, err.message);
    const bool lost = n_notice > 0;
    assert_whole(tr);
    assert_true(n_notice < 2 && tr->held.step == 2);
    if (lost && !n_more) {
        REQUIRE(carat_trainer_save(tr, in_folder("lost.safetensors"), &err));
        if (!same_files(in_folder("alone.safetensors"), in_folder("lost.safetensors")))
            fail_msg("lost at submit %u: it did not go on from where it was", at);
    }
    carat_trainer_free(tr);
    if (n_more || !lost) assert_clean(l.last, m);
    close_talk(&t);
    return lost;
}

/* What nothing disturbs. */
static void learn_alone(void) {
    carat_trainer *tr = open_run(cpu.eng);
    assert_true(learn(tr, 0));
    REQUIRE(carat_trainer_save(tr, in_folder("alone.safetensors"), &err));
    carat_trainer_free(tr);
}

static void lost(void **state) {
    (void)state;
    const made m = at_load();
    uint32_t n = 0;
    learn_alone();
    while (lost_at(m.submits + n + 2, 1, &m)) n += 2;
    assert_true(n > 30);
    for (uint32_t i = n; i > 0; i -= i + 12 > n || i < 9 ? 1 : 9) /* all while it is brought back */
        assert_true(lost_at(m.submits + i, 0, &m));
}

/* ---- limits ---- */

static void limits(void **state) {
    (void)state;
    const made m = at_load();
    talk t;
    lender l = {0};
    carat_trainer *tr;
    carat_train_desc d = usual();
    gpu *g = open_null(&t, &(gpu_null_desc){0}, &l);
    d.batch_tokens = 1u << 20;
    REQUIRE(tr = carat_trainer_open(t.eng, &d, &err));
    assert_false(learn(tr, 0));
    assert_int_equal(err.code, CARAT_E_MEMORY);
    if (!strstr(err.message, "batches of 1048576 tokens need") ||
        !strstr(err.message, "null allows 128 MB: train with shorter samples or smaller batches"))
        fail_msg("%s", err.message);
    assert_whole(tr);
    carat_trainer_free(tr);
    assert_clean(g, &m);
    tr = open_run(t.eng);
    const uint64_t most = g->info.max_binding;
    g->info.max_binding = 4096;
    assert_false(learn(tr, 0));
    if (!strstr(err.message, "choose a lower rank")) fail_msg("%s", err.message);
    assert_clean(g, &m);
    g->info.max_binding = most;
    assert_usable(tr);
    carat_trainer_free(tr);
    assert_clean(g, &m);
    close_talk(&t);
}

/* ---- out of memory ---- */

/* Files of a whole life; those of the first one are kept to compare with. */
static const char *const files[] = {"life.safetensors", "life.gguf",
                                    "there/adapter_model.safetensors", "there/adapter_config.json",
                                    "merged.gguf"};
static const char *const new_files[] = {"new/adapter_model.safetensors", "new/adapter_config.json"};

static bool save_adapter(carat_adapter *ad) {
    const carat_adapter_use use = {ad, 1};
    return carat_adapter_save(ad, in_folder("life.gguf"), &err) &&
           carat_adapter_save(ad, in_folder("there"), &err) &&
           carat_adapter_save(ad, in_folder("new"), &err) &&
           carat_finish(carat_merge(cpu.eng, &use, 1, in_folder("merged.gguf"), NULL, &err), &err);
}

static bool live(void) {
    bool effect;
    const carat_train_desc d = usual();
    carat_trainer *tr = carat_trainer_open(cpu.eng, &d, &err);
    carat_adapter *ad = NULL;
    char *text = tr ? carat_trainer_report(tr, &err) : NULL;
    bool ok = text && carat_finish(carat_train(tr, 1, &err), &err) &&
              carat_finish(carat_trainer_check(tr, &effect, &err), &err) &&
              carat_trainer_save(tr, in_folder("life.safetensors"), &err) &&
              carat_trainer_resume(tr, in_folder("life.safetensors"), &err);
    carat_string_free(text);
    if (ok) ad = carat_trainer_adapter(tr, &err);
    ok = ad && save_adapter(ad);
    carat_adapter_close(ad);
    carat_trainer_free(tr);
    return ok;
}

static void remove_new(void) {
    for (size_t i = 0; i < COUNT(new_files); i++) unlink(in_folder(new_files[i]));
    rmdir(in_folder("new"));
}

static void keep_copies(void) {
    char command[200];
    snprintf(command, sizeof command, "cd %s && mkdir kept && cp -r life.* there new merged* kept",
             folder);
    assert_int_equal(system(command), 0);
}

/* No file of the life is another one than it was, none is half, and a new folder is whole. */
static void assert_files(void) {
    char path[64];
    for (size_t i = 0; i < COUNT(files); i++) {
        snprintf(path, sizeof path, "kept/%s", files[i]);
        if (!same_files(in_folder(files[i]), in_folder(path))) fail_msg("%s changed", files[i]);
    }
    for (size_t i = 0; i < COUNT(new_files) && is_file(in_folder("new")); i++) {
        snprintf(path, sizeof path, "kept/%s", new_files[i]);
        if (!same_files(in_folder(new_files[i]), in_folder(path)))
            fail_msg("%s is not whole", new_files[i]);
    }
    DIR *dir = opendir(folder);
    for (const struct dirent *e; (e = readdir(dir));)
        if (strstr(e->d_name, ".part")) fail_msg("%s was left", e->d_name);
    closedir(dir);
}

static int setup_life(void **state) {
    (void)state;
    if (is_file(in_folder("kept"))) return 0;
    mkdir(in_folder("there"), 0700);
    REQUIRE(live());
    keep_copies();
    return 0;
}

static void memory(void **state) {
    (void)state;
    const long before = n_living;
    for (long at = 0;; at++) {
        remove_new();
        err = (carat_error){0};
        n_malloc = 0;
        failing_at = at;
        const bool ok = live();
        failing_at = -1;
        if (n_living != before) fail_msg("allocation %ld: a leak", at);
        assert_files();
        if (n_malloc <= at) { /* none failed */
            if (!ok) fail_msg("%s", err.message);
            assert_true(at > 30);
            return;
        }
        if (!ok && (err.code != CARAT_E_MEMORY || !strstr(err.message, "out of memory")))
            fail_msg("allocation %ld: code %d, %s", at, (int)err.code, err.message);
    }
}

/* Each allocation of a job fails once; the same trainer then goes on. */
static void job_memory(carat_engine *eng) {
    for (long at = 0, n = 1; at < n; at++) {
        carat_trainer *tr = open_run(eng);
        n_malloc = 0;
        failing_at = at;
        const bool ok = learn(tr, 1);
        failing_at = -1;
        n = n_malloc;
        if (!ok && (err.code != CARAT_E_MEMORY || !strstr(err.message, "out of memory")))
            fail_msg("allocation %ld: code %d, %s", at, (int)err.code, err.message);
        assert_usable(tr);
        carat_trainer_free(tr);
    }
}

static void memory_of_jobs(void **state) {
    (void)state;
    const made m = at_load();
    talk t;
    lender l = {0};
    job_memory(cpu.eng);
    const gpu *g = open_null(&t, &(gpu_null_desc){0}, &l);
    job_memory(t.eng);
    assert_clean(g, &m);
    close_talk(&t);
}

/* ---- a full disk ---- */

static void full_disk(void **state) {
    (void)state;
    struct rlimit limit, small;
    carat_trainer *tr = open_run(cpu.eng);
    carat_adapter *ad;
    remove_new();
    if (!learn(tr, 0)) fail_msg("%s", err.message);
    REQUIRE(ad = carat_trainer_adapter(tr, &err));
    const carat_adapter_use use = {ad, 1};
    void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    const rlim_t sizes[] = {0, 4000, 40000}; /* nothing, not even the configuration; one of two */
    for (size_t i = 0; i < COUNT(sizes); i++) {
        carat_error e[5] = {0};
        bool ok[5];
        small = limit;
        small.rlim_cur = sizes[i];
        setrlimit(RLIMIT_FSIZE, &small);
        ok[0] = carat_trainer_save(tr, in_folder("life.safetensors"), &e[0]);
        ok[1] = carat_adapter_save(ad, in_folder("life.gguf"), &e[1]);
        ok[2] = carat_adapter_save(ad, in_folder("there"), &e[2]);
        ok[3] = carat_adapter_save(ad, in_folder("new"), &e[3]);
        ok[4] = carat_finish(carat_merge(cpu.eng, &use, 1, in_folder("merged.gguf"), NULL, &e[4]),
                             &e[4]);
        setrlimit(RLIMIT_FSIZE, &limit);
        for (size_t k = 0; k < COUNT(ok); k++) {
            assert_false(ok[k]);
            assert_int_equal(e[k].code, CARAT_E_IO);
            assert_non_null(strstr(e[k].message, folder)); /* which file */
        }
        assert_files();
        assert_false(is_file(in_folder("new")));
    }
    signal(SIGXFSZ, before);
    carat_adapter_close(ad);
    assert_usable(tr);
    carat_trainer_free(tr);
}

/* ---- whatever goes first ---- */

typedef enum end { FREE_JOB, CANCEL, FREE_TRAINER, UNLOAD, CLOSE_ENGINE, CLOSE_DEVICE } end;

/* Advances a job n times, then ends it in this way. False: it was over before. */
static bool end_after(uint32_t n, end how, bool check, const made *m) {
    talk t;
    lender l = {0};
    carat_event ev = {0};
    bool effect, over = false;
    const gpu *g = open_null(&t, &(gpu_null_desc){.delay = 3}, &l);
    carat_trainer *tr = open_run(t.eng);
    carat_job *job = check ? carat_trainer_check(tr, &effect, &err) : carat_train(tr, 0, &err);
    for (uint32_t i = 0; i < n && !over; i++) {
        REQUIRE(carat_advance(job, &ev, &err));
        over = ev.kind == CARAT_EVENT_DONE;
    }
    if (how == FREE_TRAINER) carat_trainer_free(tr);
    if (how == CANCEL) carat_cancel(job);
    if (how == UNLOAD) engine_unload(t.eng);
    if (how == CLOSE_ENGINE) carat_engine_close(t.eng);
    if (how == CLOSE_DEVICE) carat_device_close(t.dev);
    if (how == FREE_TRAINER || how == CLOSE_ENGINE || how == CLOSE_DEVICE)
        if (!over) REFUSE(carat_wait(job, &ev, &err), CARAT_E_ARGUMENT, "");
    if (how == CANCEL || how == UNLOAD) {
        const bool ok = carat_finish(job, &err);
        assert_int_equal(ok, over || how == UNLOAD || !check);
    } else {
        carat_job_free(job);
    }
    if (how == CLOSE_ENGINE) {
        REFUSE(carat_train(tr, 0, &err), CARAT_E_ARGUMENT, "closed");
        REFUSE(carat_trainer_save(tr, in_folder("no"), &err), CARAT_E_ARGUMENT, "closed");
        REFUSE(carat_trainer_adapter(tr, &err), CARAT_E_ARGUMENT, "closed");
        REFUSE(carat_trainer_report(tr, &err), CARAT_E_ARGUMENT, "closed");
        t.eng = NULL;
    } else if (how == CLOSE_DEVICE) {
        REFUSE(carat_train(tr, 0, &err), CARAT_E_ARGUMENT, "no device");
        assert_whole(tr);
        t.dev = NULL;
    } else if (how != FREE_TRAINER) {
        assert_usable(tr);
    }
    if (how != FREE_TRAINER) carat_trainer_free(tr);
    if (how < CLOSE_ENGINE) assert_clean(g, m);
    close_talk(&t);
    return !over;
}

static void any_order(void **state) {
    (void)state;
    const made m = at_load();
    static const uint32_t steps[] = {3, 3, 13, 13, 17, 17};
    for (end how = FREE_JOB; how <= CLOSE_DEVICE; how++)
        for (int check = 0; check < 2; check++) {
            uint32_t n = 0;
            while (end_after(n, how, check, &m)) n += steps[how];
            assert_true(n > 3);
        }
}

/* A chat in the middle is not asked for, but does no harm. */
static void chat_in_between(void **state) {
    (void)state;
    carat_event ev = {0};
    carat_job *job;
    carat_session *ses;
    learn_alone();
    carat_trainer *tr = open_run(cpu.eng);
    REQUIRE(ses = carat_session_create(cpu.eng, &(carat_session_desc){.n_ctx = 64}, &err));
    REQUIRE(job = carat_train(tr, 0, &err));
    while (ev.kind != CARAT_EVENT_STEP) REQUIRE(carat_wait(job, &ev, &err));
    answer a = ask_with(ses, (carat_chat_desc){.messages = "[]", .max_tokens = 2});
    if (!a.ok) fail_msg("%s", err.message);
    free_answer(&a);
    REQUIRE(carat_finish(job, &err));
    REQUIRE(carat_trainer_save(tr, in_folder("chat.safetensors"), &err));
    assert_true(same_files(in_folder("alone.safetensors"), in_folder("chat.safetensors")));
    carat_session_free(ses);
    carat_trainer_free(tr);
}

/* ---- the group ---- */

static int setup(void **state) {
    static const char rows[] = "{\"text\":\"one is red\"}\n"
                               "{\"prompt\":\"two\",\"completion\":\"blue\"}\n"
                               "{\"prompt\":\"six\",\"completion\":\"pink\"}\n";
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/carat-train-fail-%ld", (long)getpid());
    if (mkdir(folder, 0700) != 0) return -1;
    REQUIRE(file_write(in_folder("data.jsonl"), rows, strlen(rows), &err));
    open_talk(&cpu, 64);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    close_talk(&cpu);
    assert_int_equal(n_living, 0);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_calls),      cmocka_unit_test(creations),
        cmocka_unit_test(reads),          cmocka_unit_test(lost),
        cmocka_unit_test(limits),         cmocka_unit_test_setup(memory, setup_life),
        cmocka_unit_test(memory_of_jobs), cmocka_unit_test_setup(full_disk, setup_life),
        cmocka_unit_test(any_order),      cmocka_unit_test(chat_in_between),
    };
    return RUN_ON("cpu", "training that fails", tests, setup, teardown);
}
