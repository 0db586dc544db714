/* Pictures and sounds in conversations: nano's golden answers through the public interface, what is
 * encoded again and what is not, and every way in which parts, media and models may not fit. On the
 * CPU, and again on a GPU where there is one. */
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures),
        cmocka_unit_test(sounds),
        cmocka_unit_test(second_turn),
    };
    int failed = RUN_ON("cpu", "media on the CPU", tests, open_nano, close_nano);
    return failed + RUN_ON("gpu", "media on a GPU", tests, open_nano, close_nano);
}
