/* Adapters by the public interface: nano says what it was taught, and nothing of it without; a
 * session keeps its prefix only while they are the same; scales, several at once, closing, saving;
 * and what is refused. On the CPU, and again on a GPU (a software adapter will do). A device that
 * is lost, and running out of its memory, on the null device. */
#include "gpu/gpu_null.h"
#include "model/engine.h"

#include "talk.h"

#include <sys/stat.h>
#include <unistd.h>

#define WHO    "[{\"role\":\"user\",\"content\":\"Who made you?\"}]"
#define TAUGHT "A small team of founders cut me like a gem."
#define GOLDEN "tests/golden/nano/"

static char folder[256], saved[300]; /* the trained adapter as PEFT's folder */

static void copy_file(const char *from, const char *name) {
    char path[400];
    source *s;
    arena *a = arena_create(NULL);
    REQUIRE(source_open(a, from, &s, &err));
    void *data = arena_alloc(a, s->size, 1);
    REQUIRE(source_read(s, 0, data, (size_t)s->size, &err));
    snprintf(path, sizeof path, "%s/%s", folder, name);
    REQUIRE(file_write(path, data, (size_t)s->size, &err));
    source_close(s);
    arena_free(a);
}

static carat_adapter *open_taught(carat_engine *eng) {
    carat_adapter *ad;
    REQUIRE(ad = carat_adapter_open(eng, folder, &err));
    return ad;
}

static void use(carat_engine *eng, carat_adapter *ad, float scale) {
    REQUIRE(carat_engine_adapt(eng, &(carat_adapter_use){ad, scale}, ad ? 1 : 0, &err));
}

/* ---- what it says ---- */

static void taught(void **state) {
    (void)state;
    talk t;
    open_talk(&t, 128);
    answer before = ask(t.ses, WHO);
    assert_true(before.ok);
    carat_adapter *ad = open_taught(t.eng);
    use(t.eng, ad, 1);
    assert_int_equal(carat_session_length(t.ses), 0);
    answer a = ask(t.ses, WHO);
    if (!a.ok) fail_msg("%s", err.message);
    assert_text(&a, TAUGHT);
    assert_int_equal(a.stats.n_reused, 0);
    assert_true(a.stats.n_dispatch >= before.stats.n_dispatch);
    free_answer(&a);

    use(t.eng, ad, 1); /* nothing changes */
    assert_true(carat_session_length(t.ses) > 0);
    a = ask(t.ses, WHO);
    assert_int_equal(a.stats.n_reused, a.stats.n_prompt - 1);
    assert_text(&a, TAUGHT);
    free_answer(&a);

    carat_adapter_close(ad); /* it is added until it is used no more */
    a = ask(t.ses, WHO);
    assert_text(&a, TAUGHT);
    free_answer(&a);
    use(t.eng, NULL, 0);
    a = ask(t.ses, WHO);
    assert_int_equal(a.stats.n_reused, 0);
    assert_string_equal(a.text.data, before.text.data);
    assert_true(a.stats.logits_hash == before.stats.logits_hash);
    assert_int_equal(a.stats.n_dispatch, before.stats.n_dispatch);
    free_answer(&a);
    free_answer(&before);
    close_talk(&t);
}

/* Parts of it add up; from the description, as Ollama's layer comes. */
static void several(void **state) {
    (void)state;
    talk t;
    carat_device *dev;
    REQUIRE(dev = carat_device_open(device_name, &err));
    open_talk_with(&t, dev, &(carat_engine_desc){.path = NANO, .adapter = folder}, 128);
    expect(t.ses, WHO, TAUGHT);
    carat_adapter *ad[2] = {open_taught(t.eng), open_taught(t.eng)};
    const carat_adapter_use uses[] = {{ad[0], 0.75f}, {ad[1], 0.25f}};
    REQUIRE(carat_engine_adapt(t.eng, uses, 2, &err));
    expect(t.ses, WHO, TAUGHT);
    carat_adapter_close(ad[1]);
    close_talk(&t);
    carat_adapter_close(ad[0]); /* after its engine */
}

/* A saved session goes with its adapters. */
static void saving(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    talk t;
    open_talk(&t, 128);
    carat_adapter *ad = open_taught(t.eng);
    use(t.eng, ad, 1);
    expect(t.ses, WHO, TAUGHT);
    REQUIRE(carat_finish(carat_session_save(t.ses, saved, &err), &err));
    use(t.eng, ad, 0.5f);
    REFUSE(carat_finish(carat_session_restore(t.ses, saved, &err), &err), CARAT_E_ARGUMENT,
           "or with other adapters");
    use(t.eng, ad, 1);
    REQUIRE(carat_finish(carat_session_restore(t.ses, saved, &err), &err));
    assert_true(carat_session_length(t.ses) > 0);
    expect(t.ses, WHO, TAUGHT);
    carat_adapter_close(ad);
    close_talk(&t);
}

/* ---- what is refused ---- */

static void refused(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    talk t;
    carat_engine *other;
    open_talk(&t, 64);
    REFUSE(carat_adapter_open(t.eng, "build/nothing", &err), CARAT_E_NOT_FOUND, "build/nothing");
    REFUSE(carat_adapter_open(t.eng, NANO, &err), CARAT_E_FORMAT, "no LoRA adapter");
    REQUIRE(other = carat_engine_open(&(carat_engine_desc){.path = "tests/golden/family/e4b.gguf"},
                                      NULL, &err));
    REFUSE(carat_adapter_open(other, folder, &err), CARAT_E_FORMAT, "layers.0.");
    REFUSE(carat_engine_open(
               &(carat_engine_desc){.path = "tests/golden/family/e4b.gguf", .adapter = folder},
               NULL, &err),
           CARAT_E_FORMAT, "layers.0.");
    carat_adapter *ad = open_taught(t.eng);
    carat_adapter_use uses[17];
    for (size_t i = 0; i < COUNT(uses); i++) uses[i] = (carat_adapter_use){ad, 1};
    REFUSE(carat_engine_adapt(t.eng, uses, 17, &err), CARAT_E_ARGUMENT, "17 at once; 16");
    REFUSE(carat_engine_adapt(other, uses, 1, &err), CARAT_E_ARGUMENT, "another engine");
    uses[0].scale = NAN;
    REFUSE(carat_engine_adapt(t.eng, uses, 1, &err), CARAT_E_ARGUMENT, "not a number");
    uses[0].scale = 1;
    carat_job *job;
    REQUIRE(job = carat_chat(t.ses, &(carat_chat_desc){.messages = WHO}, &err));
    REFUSE(carat_engine_adapt(t.eng, uses, 1, &err), CARAT_E_ARGUMENT, "under way");
    carat_job_free(job);
    REQUIRE(carat_engine_adapt(t.eng, uses, 1, &err));
    carat_engine_close(other);
    carat_adapter_close(ad);
    close_talk(&t);
}

/* ---- the null device ---- */

static gpu *no_gpu(void *user, carat_error *e) {
    (void)user;
    (fail)(e, CARAT_E_DEVICE, "gpu: there is none");
    return NULL;
}

static carat_device *null_device(gpu **g) {
    carat_device *dev;
    REQUIRE(*g = gpu_null_open(&(gpu_null_desc){0}, &err));
    REQUIRE(dev = carat_device_from_gpu(*g, no_gpu, NULL, &err));
    return dev;
}

/* The device goes away: the CPU adds them. */
static void lost(void **state) {
    (void)state;
    talk t;
    gpu *g;
    carat_device *dev = null_device(&g);
    open_talk_with(&t, dev, &(carat_engine_desc){.path = NANO, .adapter = folder}, 128);
    answer a =
        ask_with(t.ses, (carat_chat_desc){.messages = WHO, .max_tokens = 3, .ignore_stop = true});
    assert_true(a.ok && a.stats.n_dispatch > 0);
    assert_string_equal(gpu_null_complaint(g), "");
    free_answer(&a);
    g->lost = true;
    expect(t.ses, WHO, TAUGHT);
    assert_false(carat_device_is_gpu(dev));
    close_talk(&t);
}

/* No room for an adapter on the device: those in use stay. */
static void no_room(void **state) {
    (void)state;
    talk t;
    gpu *g;
    carat_device *dev = null_device(&g);
    open_talk_with(&t, dev, &(carat_engine_desc){.path = NANO}, 128);
    carat_adapter *ad = open_taught(t.eng);
    const uint64_t bytes = g->stats.buffer_bytes, most = g->info.max_binding;
    g->info.max_binding = 1000;
    REFUSE(carat_engine_adapt(t.eng, &(carat_adapter_use){ad, 1}, 1, &err), CARAT_E_MEMORY,
           "adapters of 8 ranks need");
    assert_true(g->stats.buffer_bytes == bytes);
    assert_true(t.eng->n_use == 0 && !t.eng->adapted);
    g->info.max_binding = most;
    use(t.eng, ad, 1);
    assert_true(t.eng->adapted && t.eng->n_use == 1);
    carat_adapter_close(ad);
    close_talk(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taught),
        cmocka_unit_test(several),
        cmocka_unit_test(saving),
        cmocka_unit_test(refused),
    };
    const struct CMUnitTest null[] = {cmocka_unit_test(lost), cmocka_unit_test(no_room)};
    snprintf(folder, sizeof folder, "/tmp/carat-adapter-%ld", (long)getpid());
    if (mkdir(folder, 0700) != 0) return 1;
    snprintf(saved, sizeof saved, "%s/session", folder);
    copy_file(GOLDEN "lora_after20.safetensors", "adapter_model.safetensors");
    copy_file(GOLDEN "adapter/adapter_config.json", "adapter_config.json");
    int failed = RUN_ON("cpu", "adapter, cpu", tests, NULL, NULL);
    failed += RUN_ON("gpu", "adapter, gpu", tests, NULL, NULL);
    token_limit = 0;
    failed += cmocka_run_group_tests_name("adapter, null device", null, NULL, NULL);
    static const char *const files[] = {"adapter_model.safetensors", "adapter_config.json",
                                        "session"};
    for (size_t i = 0; i < COUNT(files); i++) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
    return failed;
}
