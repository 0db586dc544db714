/* Out of memory: every growth of every arena fails once, in a session's whole life from opening
 * the file to a restored conversation. Each time there is one clear error and nothing is leaked;
 * and answering asks for no memory at all once it is under way. */
#include "failing_malloc.h"

#include "carat_train.h"
#include "gpu/gpu_null.h"
#include "model/engine.h"

#include "media_talk.h"

#include <unistd.h>

#define SAVED   "build/test_oom.saved"
#define ADAPTER "tests/golden/nano/adapter"
#define DATA    "build/test_oom.jsonl"
#define FOLDER  "build/test_oom.adapter"

static const char STORY[] =
    "[{\"role\":\"user\",\"content\":\"Tell me a story about a fox and a owl.\"}]";

static bool finish(carat_job *job) { return carat_finish(job, &err); }

/* What a program does with a session; false at the first error. */
static bool use_session(carat_engine *eng, carat_session *ses) {
    static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"add\"}}]";
    static const char *const stop[] = {"owl"};
    static const int32_t ids[] = {2, 300, 303};
    carat_sampling s = greedy();
    carat_chat_desc desc = {.messages = "[{\"role\":\"user\",\"content\":\"Hello\"}]",
                            .tools = tools,
                            .stop = stop,
                            .n_stop = 1,
                            .sampling = &s,
                            .n_logprobs = 3,
                            .max_tokens = 2};
    char *text = carat_render(eng, &desc, &err);
    carat_string_free(text);
    if (!text || !finish(carat_chat(ses, &desc, &err))) return false;
    s.repeat_penalty = 1.1f; /* needs all logits, and a history */
    desc.sampling = &s;
    return finish(carat_complete(ses, ids, 3, &desc, &err)) &&
           finish(carat_score(ses, ids, 3, &err)) && finish(carat_session_save(ses, SAVED, &err)) &&
           finish(carat_session_restore(ses, SAVED, &err));
}

static bool use_engine(carat_engine *eng) {
    char *about = carat_engine_describe(eng, &err);
    carat_string_free(about);
    if (!about || !finish(carat_load(eng, &err))) return false;
    carat_session *ses = carat_session_create(eng, &(carat_session_desc){.n_ctx = 128}, &err);
    bool ok = ses && use_session(eng, ses);
    carat_session_free(ses);
    return ok;
}

/* An adapter beside the one of the description, then that one alone again. */
static bool use_adapters(carat_engine *eng) {
    carat_adapter_use uses[] = {{carat_adapter_open(eng, ADAPTER, &err), 1},
                                {carat_adapter_open(eng, ADAPTER, &err), 0.5f}};
    const bool ok = uses[0].adapter && uses[1].adapter && carat_engine_adapt(eng, uses, 2, &err) &&
                    use_engine(eng) && carat_engine_adapt(eng, uses, 1, &err) && use_engine(eng);
    carat_adapter_close(uses[0].adapter);
    carat_adapter_close(uses[1].adapter);
    return ok;
}

static bool live_with(carat_device *dev, const char *adapter) {
    const carat_engine_desc desc = {.path = NANO,
                                    .system = "Be kind.",
                                    .params = "{\"top_k\":3,\"stop\":\"x\"}",
                                    .adapter = adapter};
    carat_engine *eng = dev ? carat_engine_open(&desc, dev, &err) : NULL;
    bool ok = eng && (adapter ? use_adapters(eng) : use_engine(eng));
    carat_engine_close(eng);
    carat_device_close(dev);
    return ok;
}

static bool live_on(carat_device *dev) { return live_with(dev, NULL); }

static bool live(void) { return live_on(carat_device_open("cpu", &err)); }

/* With all of the GPU path but its results. */
static bool live_on_null(void) {
    gpu *g = gpu_null_open(&(gpu_null_desc){0}, &err);
    return g && live_on(carat_device_from_gpu(g, NULL, NULL, &err));
}

static bool live_adapted_on_null(void) {
    gpu *g = gpu_null_open(&(gpu_null_desc){0}, &err);
    return g && live_with(carat_device_from_gpu(g, NULL, NULL, &err), ADAPTER);
}

/* ---- pictures and sounds ---- */

static float hum[4000];
static uint8_t dots[30 * 20 * 3];
static const carat_media seen = {.rgb = dots, .width = 30, .height = 20};
static const carat_media heard = {.kind = CARAT_MEDIA_AUDIO,
                                  .samples = hum,
                                  .n_sample = COUNT(hum),
                                  .n_channel = 1,
                                  .rate = 22050};

static bool see_and_hear(carat_device *dev, const char *messages, const carat_media *media,
                         size_t n) {
    carat_sampling s = greedy();
    carat_chat_desc desc = {.messages = messages,
                            .media = media,
                            .n_media = n,
                            .image_tokens = 70,
                            .sampling = &s,
                            .max_tokens = 2};
    carat_engine *eng =
        dev ? carat_engine_open(&(carat_engine_desc){.path = NANO}, dev, &err) : NULL;
    carat_session *ses = NULL;
    bool ok = eng && finish(carat_load(eng, &err)) &&
              (ses = carat_session_create(eng, &(carat_session_desc){.n_ctx = 256}, &err)) &&
              finish(carat_chat(ses, &desc, &err)) &&
              finish(carat_session_save(ses, SAVED, &err)) &&
              finish(carat_session_restore(ses, SAVED, &err));
    carat_session_free(ses);
    carat_engine_close(eng);
    carat_device_close(dev);
    return ok;
}

/* On the CPU a sound, which is quicker than a picture. */
static bool hear(void) {
    return see_and_hear(carat_device_open("cpu", &err), "[" PARTS(AUDIO) "]", &heard, 1);
}

static bool see_and_hear_on_null(void) {
    static const char messages[] =
        "[" PARTS("{\"type\":\"video\",\"frames\":1}," IMAGE "," AUDIO) "]";
    const carat_media m[3] = {seen, seen, heard};
    gpu *g = gpu_null_open(&(gpu_null_desc){0}, &err);
    return g && see_and_hear(carat_device_from_gpu(g, NULL, NULL, &err), messages, m, 3);
}

static bool find_models(void) {
    carat_engine_desc desc;
    carat_model *m = carat_model_find("nano", &desc, &err);
    char *list = m ? carat_model_list(&err) : NULL;
    carat_string_free(list);
    carat_model_free(m);
    return list != NULL;
}

/* ---- training: a model that is there learns a step ---- */

static talk taught;

static bool learn(void) {
    const carat_train_desc d = {
        .data = DATA, .rank = 2, .first_layer = 9, .n_step = 1, .dropout = 0.1f};
    carat_trainer *tr = carat_trainer_open(taught.eng, &d, &err);
    char *report = tr ? carat_trainer_report(tr, &err) : NULL;
    char *shown = report ? carat_trainer_sample(tr, 0, &err) : NULL;
    carat_adapter *ad = NULL;
    bool effect,
        ok = shown && finish(carat_train(tr, 0, &err)) && carat_trainer_save(tr, SAVED, &err) &&
             carat_trainer_resume(tr, SAVED, &err) &&
             finish(carat_trainer_check(tr, &effect, &err)) &&
             (ad = carat_trainer_adapter(tr, &err)) && carat_adapter_save(ad, FOLDER, &err);
    carat_adapter_close(ad);
    carat_string_free(shown);
    carat_string_free(report);
    carat_trainer_free(tr);
    return ok;
}

/* Fails the first allocation, then the second, ... until there are no more. */
static void every_growth(bool (*run)(void)) {
    long before = n_living;
    for (long at = 0;; at++) {
        failing_at = at;
        n_malloc = 0;
        err = (carat_error){0};
        bool ok = run();
        failing_at = -1;
        if (n_living != before) fail_msg("allocation %ld: a leak", at);
        if (n_malloc <= at) { /* none failed */
            if (!ok) fail_msg("%s", err.message);
            assert_true(at > 3);
            return;
        }
        if (ok) continue; /* it could do without that one */
        if (err.code != CARAT_E_MEMORY || !strstr(err.message, "out of memory"))
            fail_msg("allocation %ld: code %d, %s", at, (int)err.code, err.message);
    }
}

static void whole_life(void **state) {
    (void)state;
    every_growth(live);
    unlink(SAVED);
}

static void whole_life_on_a_gpu(void **state) {
    (void)state;
    every_growth(live_on_null);
    unlink(SAVED);
}

static void whole_life_adapted(void **state) {
    (void)state;
    every_growth(live_adapted_on_null);
    unlink(SAVED);
}

static void media(void **state) {
    (void)state;
    every_growth(hear);
    unlink(SAVED);
}

static void media_on_a_gpu(void **state) {
    (void)state;
    every_growth(see_and_hear_on_null);
    unlink(SAVED);
}

static void training(void **state) {
    (void)state;
    static const char data[] = "{\"prompt\":\"one\",\"completion\":\"red\"}\n";
    REQUIRE(file_write(DATA, data, sizeof data - 1, &err));
    open_talk(&taught, 64);
    assert_true(learn()); /* what the engine keeps is there then */
    every_growth(learn);
    close_talk(&taught);
    unlink(SAVED);
    unlink(DATA);
    unlink(FOLDER "/adapter_model.safetensors");
    unlink(FOLDER "/adapter_config.json");
    rmdir(FOLDER);
}

static void finding(void **state) {
    (void)state;
    every_growth(find_models);
}

/* No memory for each token: neither greedily nor with all that costs more. */
static void answer_long(carat_device *dev) {
    talk t;
    assert_non_null(dev);
    open_talk_with(&t, dev, &(carat_engine_desc){.path = NANO}, 512);
    carat_sampling all[2] = {greedy(), CARAT_SAMPLING_DEFAULT};
    all[1].repeat_penalty = 1.1f;
    all[1].seed = 3;
    for (int i = 0; i < 2; i++) {
        carat_job *job;
        carat_event ev;
        carat_chat_desc desc = {.messages = STORY, .sampling = &all[i], .ignore_stop = true};
        desc.n_logprobs = i ? 5 : CARAT_LOGPROBS_TOKEN_ONLY; /* an event for every token */
        REQUIRE(job = carat_chat(t.ses, &desc, &err));
        uint32_t length = 0, first = 0;
        long before = 0;
        while (first == 0 || length < first + 50) {
            REQUIRE(carat_wait(job, &ev, &err));
            assert_int_not_equal(ev.kind, CARAT_EVENT_DONE);
            length = carat_session_length(t.ses);
            if (first || ev.kind == CARAT_EVENT_PROGRESS) continue;
            first = length;
            before = n_malloc;
        }
        if (n_malloc != before) fail_msg("%ld allocations in 50 tokens", n_malloc - before);
        carat_job_free(job);
    }
    close_talk(&t);
}

static void steady_state(void **state) {
    (void)state;
    answer_long(carat_device_open("cpu", &err));
}

static void steady_state_on_a_gpu(void **state) {
    (void)state;
    gpu *g = gpu_null_open(&(gpu_null_desc){0}, &err);
    answer_long(carat_device_from_gpu(g, NULL, NULL, &err));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(steady_state),
                                       cmocka_unit_test(steady_state_on_a_gpu),
                                       cmocka_unit_test(finding),
                                       cmocka_unit_test(whole_life),
                                       cmocka_unit_test(whole_life_on_a_gpu),
                                       cmocka_unit_test(whole_life_adapted),
                                       cmocka_unit_test(training),
                                       cmocka_unit_test(media),
                                       cmocka_unit_test(media_on_a_gpu)};
    return cmocka_run_group_tests_name("out of memory", tests, NULL, NULL);
}
