/* Pictures and sounds in conversations: nano's golden answers through the public interface, what is
 * encoded again and what is not, and every way in which parts, media and models may not fit. On the
 * CPU, and again on a GPU where there is one. */
#include "gpu/gpu_null.h" /* before talk.h, which has an err */
#include "model/engine.h"

#include "media_talk.h"

#define STAR  "[" PARTS(IMAGE "," TEXT("What shape is brown?")) "]"
#define HEARD "[" PARTS(AUDIO "," TEXT("Write down what is said.")) "]"

static talk nano; /* one for all tests of a device */

static int open_nano(void **state) {
    (void)state;
    open_talk(&nano, 1024);
    return 0;
}

static int close_nano(void **state) {
    (void)state;
    close_talk(&nano);
    return 0;
}

/* ---- golden answers ---- */

/* An answer without the end of turn that golden texts have. */
static void expect_golden(const json *c, const char *greedy, const carat_media *m,
                          uint32_t budget) {
    buf messages = {0}, text = {0};
    const char *end = strstr(greedy, "<turn|>");
    buf_puts(&messages, m->kind == CARAT_MEDIA_IMAGE ? "[{\"role\":\"user\",\"content\":[" IMAGE ","
                                                     : "[{\"role\":\"user\",\"content\":[" AUDIO
                                                       ",");
    buf_printf(&messages, "{\"type\":\"text\",\"text\":\"%s\"}]}]",
               json_string(json_get(c, "question"), ""));
    buf_put(&text, greedy, end ? (size_t)(end - greedy) : strlen(greedy));
    const carat_chat_desc desc = {
        .messages = messages.data, .media = m, .n_media = 1, .image_tokens = budget};
    answer a = ask_with(nano.ses, desc);
    if (!a.ok) fail_msg("%s", err.message);
    assert_text(&a, text.data);
    assert_int_equal(carat_count(nano.eng, &desc, &err), a.stats.n_prompt);
    free_answer(&a);
    buf_free(&messages);
    buf_free(&text);
}

static void pictures(void **state) {
    (void)state;
    arena *a = arena_create(NULL);
    const json *all = load_json(a, GOLDEN "vision.json");
    assert_int_equal(all->n, 10);
    const size_t n = token_limit ? 1 : all->n;
    for (size_t i = 0; i < n; i++) {
        const json *c = &all->items[i], *b = json_get(json_get(c, "budgets"), "70");
        carat_media m = load_image(json_string(json_get(c, "name"), ""));
        expect_golden(c, json_string(json_get(b, "greedy_text"), ""), &m, 70);
        free_image(&m);
    }
    arena_free(a);
}

static void sounds(void **state) {
    (void)state;
    arena *a = arena_create(NULL);
    const json *all = load_json(a, GOLDEN "audio.json");
    assert_int_equal(all->n, 5);
    const size_t n = token_limit ? 1 : all->n;
    for (size_t i = 0; i < n; i++) {
        const json *c = &all->items[i];
        carat_media m = load_audio(a, json_string(json_get(c, "name"), ""));
        expect_golden(c, json_string(json_get(c, "greedy_text"), ""), &m, 0);
    }
    if (!token_limit) {
        carat_media m = load_audio(a, "speech_5_44k_stereo");
        expect_golden(&all->items[1], "purple six blue", &m, 0);
    }
    arena_free(a);
}

/* ---- what is encoded again ---- */

static void second_turn(void **state) {
    (void)state;
    carat_media m[2] = {load_image("shapes_0"), load_image("shapes_2")};
    carat_session *ses;
    REQUIRE(ses = carat_session_create(nano.eng, &(carat_session_desc){.n_ctx = 512}, &err));
    assert_int_equal(expect_media(ses, STAR, m, 1, "The star is brown."), 64);
    if (token_limit) { /* a GPU in software */
        assert_int_equal(expect_media(ses, STAR, m, 1, "The star is brown."), 0);
        carat_session_free(ses);
        free_image(&m[0]);
        free_image(&m[1]);
        return;
    }
    static const char more[] = "[" PARTS(IMAGE "," TEXT("What shape is brown?")) "," MODEL(
        "The star is brown.") "," USER("What color is the background?") "]";
    answer a = ask_media(ses, more, m, 1);
    assert_true(a.ok);
    assert_int_equal(a.stats.n_encoded, 0);
    assert_true(a.stats.n_reused > 64);
    free_answer(&a);
    assert_int_equal(expect_media(ses, STAR, m, 1, "The star is brown."), 0); /* back */
    assert_int_equal(expect_media(ses,
                                  "[" PARTS(IMAGE "," TEXT("What color is the background?")) "]",
                                  &m[1], 1, "The background is blue."),
                     60); /* another picture in its place */
    assert_int_equal(expect_media(ses, STAR, m, 1, "The star is brown."), 64);
    carat_session_free(ses);
    free_image(&m[0]);
    free_image(&m[1]);
}

/* Two pictures and a sound in one prompt, in order; then without the last turn. */
static void several(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    arena *a = arena_create(NULL);
    carat_media m[3] = {load_image("shapes_0"), load_audio(a, "speech_3"), load_image("shapes_2")};
    static const char both[] =
        "[" PARTS(IMAGE "," TEXT("What shape is brown?")) "," MODEL("The star is brown.") "," PARTS(
            AUDIO "," TEXT(
                "Write down what is said.")) "," MODEL("goodbye") "," PARTS(IMAGE
                                                                            "," TEXT(
                                                                                "What color is the "
                                                                                "background?")) "]";
    answer x = ask_media(nano.ses, both, m, 3);
    assert_true(x.ok);
    assert_string_equal(x.text.data, "The background is blue.");
    free_answer(&x);
    x = ask_media(nano.ses, STAR, m, 1);
    assert_true(x.ok);
    assert_int_equal(x.stats.n_encoded, 0);
    assert_string_equal(x.text.data, "The star is brown.");
    free_answer(&x);
    free_image(&m[0]);
    free_image(&m[2]);
    arena_free(a);
}

/* ---- interrupted ---- */

/* Advances a job to its n-th PROGRESS of encoding. */
static void advance_to(carat_job *job, uint32_t n) {
    carat_event ev;
    while (n) {
        REQUIRE(carat_wait(job, &ev, &err));
        assert_int_not_equal(ev.kind, CARAT_EVENT_DONE);
        if (ev.kind != CARAT_EVENT_PROGRESS || !ev.text) continue;
        assert_string_equal(ev.text, "encode");
        assert_true(ev.done <= ev.total && ev.total == 64);
        n--;
    }
}

static carat_job *begin_star(const carat_media *m) {
    static carat_sampling s;
    s = greedy();
    carat_chat_desc desc = {
        .messages = STAR, .media = m, .n_media = 1, .image_tokens = 70, .sampling = &s};
    carat_job *job;
    REQUIRE(job = carat_chat(nano.ses, &desc, &err));
    return job;
}

static void cancelled(void **state) {
    (void)state;
    carat_media m = load_image("shapes_0");
    for (uint32_t at = 1; at < 4; at++) {
        expect(nano.ses, "[" USER("What is 23 + 45?") "]", "23 + 45 = 68.");
        carat_job *job = begin_star(&m);
        carat_event ev;
        advance_to(job, at);
        carat_cancel(job);
        REQUIRE(carat_wait(job, &ev, &err));
        assert_int_equal(ev.kind, CARAT_EVENT_DONE);
        assert_int_equal(ev.finish, CARAT_FINISH_NONE);
        if (at == 2) { /* while another one goes on, the first is still there */
            assert_int_equal(expect_media(nano.ses, STAR, &m, 1, "The star is brown."), 64);
        }
        carat_job_free(job);
        if (token_limit) break;
    }
    expect_media(nano.ses, STAR, &m, 1, "The star is brown.");
    free_image(&m);
}

/* The encoders go in the middle of a picture, and afterwards. */
static void released(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    carat_media m = load_image("shapes_0");
    expect(nano.ses, "[" USER("What is 23 + 45?") "]", "23 + 45 = 68.");
    carat_job *job = begin_star(&m);
    advance_to(job, 2);
    carat_engine_release_encoders(nano.eng);
    answer a = run_job(job);
    if (!a.ok) fail_msg("%s", err.message);
    assert_string_equal(a.text.data, "The star is brown.");
    free_answer(&a);
    carat_engine_release_encoders(nano.eng);
    assert_int_equal(expect_media(nano.ses, STAR, &m, 1, "The star is brown."), 0);
    expect(nano.ses, "[" USER("What is 23 + 45?") "]", "23 + 45 = 68.");
    assert_int_equal(expect_media(nano.ses, STAR, &m, 1, "The star is brown."), 64);
    free_image(&m);
}

/* Session, engine and job end in any order, in the middle of a picture. */
static void any_order(void **state) {
    (void)state;
    carat_media m = load_image("shapes_0");
    carat_sampling s = greedy();
    carat_chat_desc desc = {.messages = STAR, .media = &m, .n_media = 1, .sampling = &s};
    for (int order = 0; order < 4; order++) {
        talk t;
        carat_job *job;
        carat_event ev = {0};
        open_talk(&t, 512);
        REQUIRE(job = carat_chat(t.ses, &desc, &err));
        while (!ev.text) REQUIRE(carat_wait(job, &ev, &err));
        if (order & 1) carat_session_free(t.ses);
        if (order & 1) t.ses = NULL;
        if (order & 2) carat_engine_close(t.eng);
        if (order & 2) t.eng = NULL;
        carat_job_free(job);
        close_talk(&t);
        if (token_limit) break;
    }
    free_image(&m);
}

/* ---- saved ---- */

#define SAVED "build/test_media_api.saved"

static void saved(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    carat_media m = load_image("shapes_0");
    carat_session *back;
    expect_media(nano.ses, STAR, &m, 1, "The star is brown.");
    const uint32_t length = carat_session_length(nano.ses);
    REQUIRE(carat_finish(carat_session_save(nano.ses, SAVED, &err), &err));
    REQUIRE(back = carat_session_create(nano.eng, &(carat_session_desc){.n_ctx = 512}, &err));
    REQUIRE(carat_finish(carat_session_restore(back, SAVED, &err), &err));
    assert_int_equal(carat_session_length(back), length);
    assert_int_equal(expect_media(back, STAR, &m, 1, "The star is brown."), 0);
    carat_session_free(back);
    free_image(&m);
}

/* Restored where its K and V mean nothing: the text before the picture is kept. */
static void saved_elsewhere(void **state) {
    (void)state;
    carat_media m = load_image("shapes_0");
    gpu *g;
    talk t;
    answer first =
        ask_media(nano.ses, "[" USER("Hello") "," MODEL("Hi.") "," PARTS(IMAGE) "]", &m, 1);
    assert_true(first.ok);
    free_answer(&first);
    REQUIRE(carat_finish(carat_session_save(nano.ses, SAVED, &err), &err));
    REQUIRE(g = gpu_null_open(&(gpu_null_desc){0}, &err));
    open_talk_with(&t, carat_device_from_gpu(g, NULL, NULL, &err),
                   &(carat_engine_desc){.path = NANO}, 512);
    answer a = run_job(carat_session_restore(t.ses, SAVED, &err));
    if (!a.ok) fail_msg("%s", err.message);
    assert_non_null(strstr(a.notices.data, "pictures or sounds"));
    const uint32_t n = carat_session_length(t.ses);
    assert_true(n > 8 && n < 40);
    free_answer(&a);
    close_talk(&t);
    free_image(&m);
    remove(SAVED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures),  cmocka_unit_test(sounds),    cmocka_unit_test(second_turn),
        cmocka_unit_test(several),   cmocka_unit_test(cancelled), cmocka_unit_test(released),
        cmocka_unit_test(any_order), cmocka_unit_test(saved),
    };
    const struct CMUnitTest apart[] = {cmocka_unit_test(saved_elsewhere)};
    device_name = "cpu";
    int failed = RUN_ON("cpu", "media on the CPU", tests, open_nano, close_nano);
    failed +=
        cmocka_run_group_tests_name("media saved on another device", apart, open_nano, close_nano);
    return failed + RUN_ON("gpu", "media on a GPU", tests, open_nano, close_nano);
}
