/* Sessions: what is reused equals what is computed again, also after edits; saving and restoring
 * equals going on; overflow, turns dropped on demand, and what a saved file may look like. On the
 * CPU, and again on a GPU where there is one. */
#include "talk.h"

#include <unistd.h>

#define USER(text)  "{\"role\":\"user\",\"content\":\"" text "\"}"
#define MODEL(text) "{\"role\":\"assistant\",\"content\":\"" text "\"}"
#define FILE_NAME   "build/test_session.saved"

static const char ROSA[] = "[" USER("My name is Rosa.") "]";
static const char NAME[] = "[" USER("My name is Rosa.") "," MODEL(
    "Nice to meet you, Rosa.") "," USER("What is my name?") "]";
static const char SUM[] = "[" USER("What is 23 + 45?") "]";

static talk nano; /* one for all tests of a device */

static int open_nano(void **state) {
    (void)state;
    open_talk(&nano, 1024);
    return 0;
}

static int close_nano(void **state) {
    (void)state;
    close_talk(&nano);
    unlink(FILE_NAME);
    return 0;
}

static carat_session *new_session(uint32_t n_ctx) {
    carat_session *ses;
    REQUIRE(ses = carat_session_create(nano.eng, &(carat_session_desc){.n_ctx = n_ctx}, &err));
    return ses;
}

static void assert_same_tokens(const answer *a, const answer *b) {
    assert_true(a->ok && b->ok);
    assert_int_equal(a->tokens.len, b->tokens.len);
    assert_memory_equal(a->tokens.data, b->tokens.data, a->tokens.len * sizeof(int32_t));
    assert_string_equal(a->text.data, b->text.data);
}

static answer fresh_answer(uint32_t n_ctx, const char *messages) {
    carat_session *fresh = new_session(n_ctx);
    answer a = ask(fresh, messages);
    assert_int_equal(a.stats.n_reused, 0);
    carat_session_free(fresh);
    return a;
}

/* The answer in this session is this one. Returns what was reused. */
static uint32_t same_as(carat_session *ses, const char *messages, const answer *want) {
    answer a = ask(ses, messages);
    assert_same_tokens(&a, want);
    assert_true(fabs((double)(a.first_logprob - want->first_logprob)) < 1e-2);
    uint32_t reused = a.stats.n_reused;
    free_answer(&a);
    return reused;
}

/* The same with the answer that a fresh session gives. */
static uint32_t same_as_fresh(carat_session *ses, const char *messages) {
    answer fresh = fresh_answer(carat_session_context(ses), messages);
    uint32_t reused = same_as(ses, messages, &fresh);
    free_answer(&fresh);
    return reused;
}

static void going_on(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    carat_session *ses = new_session(512);
    answer a = ask(ses, ROSA);
    assert_true(a.ok);
    uint32_t length = carat_session_length(ses);
    assert_int_equal(length, a.stats.n_prompt + a.tokens.len);
    buf next = {0};
    buf_printf(&next, "[" USER("My name is Rosa.") "," MODEL("%s") "," USER("What is my name?") "]",
               a.text.data);
    assert_true(same_as_fresh(ses, next.data) >= length - 1); /* prompt and answer */
    expect(ses, next.data, "Your name is Rosa.");
    buf_free(&next);
    free_answer(&a);
    carat_session_free(ses);
}

/* The same prompt again: all of it but the last token is there. */
static void regenerating(void **state) {
    (void)state;
    answer a = ask(nano.ses, NAME), b = ask(nano.ses, NAME);
    assert_same_tokens(&a, &b);
    assert_int_equal(b.stats.n_reused, b.stats.n_prompt - 1);
    free_answer(&a);
    free_answer(&b);
}

/* Words changed in the middle: what is before them is reused. */
static void edits(void **state) {
    (void)state;
    carat_session *ses = new_session(512);
    static const char *const edited[] = {
        "[" USER("My name is Rosa.") "," MODEL("Nice to meet you, Rosa.") "," USER("Hello") "]",
        "[" USER("My name is Paul.") "," MODEL("Hi.") "," USER("What is my name?") "]",
        "[" USER("My name is Rosa.") "]",
        "[" USER("What is 2 + 2?") "]",
    };
    answer a = ask(ses, NAME);
    for (size_t i = 0; i < COUNT(edited); i++) {
        uint32_t reused = same_as_fresh(ses, edited[i]);
        assert_true(reused >= 3); /* <bos><|turn>user */
    }
    free_answer(&a);
    carat_session_free(ses);
}

/* A conversation much longer than the sliding window, so that rings have wrapped when it is gone
 * back in: to the end of the prompt, into the prompt, to its start. */
static void long_rewinds(void **state) {
    (void)state;
    carat_model_info info;
    carat_engine_info(nano.eng, &info);
    assert_true(info.sliding_window < 200);
    carat_session *ses = new_session(1024);
    buf head = {0}, a = {0}, b = {0}, c = {0};
    for (int i = 0; i < 70; i++) buf_printf(&head, "word %d, ", i);
    buf_printf(&a, "[" USER("%s What is 23 + 45?") "]", head.data);
    buf_printf(&b, "[" USER("%s What is 23 + 46?") "]", head.data);
    buf_printf(&c, "[" USER("%.200s What is 23 + 45?") "]", head.data);
    answer fresh = ask(ses, a.data);
    assert_int_equal(fresh.stats.n_reused, 0);
    assert_true(carat_session_length(ses) > 2 * info.sliding_window);
    assert_true(same_as(ses, a.data, &fresh) > 200); /* back to the snapshot */
    same_as_fresh(ses, b.data);
    same_as_fresh(ses, c.data);
    same_as(ses, a.data, &fresh);
    same_as_fresh(ses, SUM);
    free_answer(&fresh);
    buf_free(&head);
    buf_free(&a);
    buf_free(&b);
    buf_free(&c);
    carat_session_free(ses);
}

/* ---- overflow ---- */

static void overflow(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    carat_session *ses = new_session(64);
    buf m = {0};
    buf_puts(&m, "[" USER("Repeat these words after me, please:"));
    for (int i = 0; i < 12; i++)
        buf_puts(&m, "," MODEL("Yes, I am ready.") "," USER("What is 23 + 45?"));
    buf_puts(&m, "]");
    carat_chat_desc desc = {.messages = m.data};
    REFUSE(carat_chat(ses, &desc, &err), CARAT_E_CONTEXT, "the context holds 64 (8 of them");
    desc.max_tokens = 1000;
    REFUSE(carat_chat(ses, &desc, &err), CARAT_E_CONTEXT, "(16 of them");
    expect(ses, SUM, "23 + 45 = 68."); /* it is none the worse for it */
    answer a = ask_with(ses, (carat_chat_desc){.messages = m.data, .keep_oldest_out = true});
    assert_true(a.ok);
    assert_non_null(strstr(a.notices.data, "messages were left out"));
    assert_true(a.stats.n_prompt <= 56);
    free_answer(&a);
    buf_free(&m);
    carat_session_free(ses);
}

/* The system message stays, turns go whole, and the last message is never dropped. */
static void what_is_dropped(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
#define UPPER "[{\"role\":\"system\",\"content\":\"Answer in uppercase.\"},"
#define KENYA USER("What is the capital of Kenya?") "]"
    static const char conversation[] = UPPER USER("one two three four five six") "," MODEL(
        "seven eight") "," USER("nine ten eleven") "," MODEL("twelve") "," KENYA;
    static const char kept[] = UPPER KENYA;
    carat_session *ses = new_session(48), *other = new_session(48);
    answer a = ask_with(ses, (carat_chat_desc){.messages = conversation, .keep_oldest_out = true});
    answer b = ask(other, kept);
    assert_same_tokens(&a, &b);
    assert_int_equal(a.stats.n_prompt, b.stats.n_prompt);
    assert_string_equal(a.notices.data,
                        "the context is full: the oldest 4 messages were left out\n");
    assert_string_equal(b.notices.data, "");
    free_answer(&a);
    free_answer(&b);
    carat_session_free(ses);
    carat_session_free(other);
    ses = new_session(16);
    carat_chat_desc desc = {.messages = kept, .keep_oldest_out = true};
    REFUSE(carat_chat(ses, &desc, &err), CARAT_E_CONTEXT, "holds 16");
    carat_session_free(ses);
}

/* ---- files ---- */

static void save(carat_session *ses) {
    REQUIRE(carat_finish(carat_session_save(ses, FILE_NAME, &err), &err));
}

static void save_and_restore(void **state) {
    (void)state;
    carat_session *ses = new_session(512), *back = new_session(256);
    answer a = ask(ses, ROSA);
    save(ses);
    REQUIRE(carat_finish(carat_session_restore(back, FILE_NAME, &err), &err));
    assert_int_equal(carat_session_length(back), carat_session_length(ses));
    answer b = ask(ses, NAME), c = ask(back, NAME);
    assert_same_tokens(&b, &c);
    assert_true(b.stats.n_reused > 0);
    assert_int_equal(b.stats.n_reused, c.stats.n_reused);
    assert_true(b.stats.logits_hash == c.stats.logits_hash); /* bit for bit */
    answer *all[] = {&a, &b, &c};
    for (size_t i = 0; i < COUNT(all); i++) free_answer(all[i]);
    carat_session_free(ses);
    carat_session_free(back);
}

static void save_nothing(void **state) {
    (void)state;
    carat_session *ses = new_session(64);
    save(ses);
    expect(ses, SUM, "23 + 45 = 68.");
    REQUIRE(carat_finish(carat_session_restore(ses, FILE_NAME, &err), &err));
    assert_int_equal(carat_session_length(ses), 0);
    expect(ses, SUM, "23 + 45 = 68.");
    REFUSE(carat_finish(carat_session_save(ses, "no/such/folder/x", &err), &err), CARAT_E_IO,
           "no/such/folder/x");
    REFUSE(carat_session_restore(ses, "no/such/file", &err), CARAT_E_NOT_FOUND, "no/such/file");
    carat_session_free(ses);
}

static uint8_t *read_file(size_t *n) {
    FILE *f = fopen(FILE_NAME, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    uint8_t *data = malloc(*n);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *n, f), *n);
    fclose(f);
    return data;
}

/* Restoring these bytes is refused with one sentence, and the session still works. */
static void refuse_file(carat_session *ses, const uint8_t *data, size_t n, const char *words) {
    carat_job *job;
    REQUIRE(file_write(FILE_NAME, data, n, &err));
    err = (carat_error){0};
    job = carat_session_restore(ses, FILE_NAME, &err);
    if (job) assert_false(carat_finish(job, &err));
    if (!strstr(err.message, words)) fail_msg("%s does not say %s", err.message, words);
}

static void damaged_files(void **state) {
    (void)state;
    carat_session *ses = new_session(256), *small = new_session(8);
    size_t n;
    answer a = ask(ses, ROSA);
    save(ses);
    uint8_t *data = read_file(&n);
    refuse_file(ses, data, 0, "too short");
    refuse_file(ses, data, 30, "too short");
    refuse_file(ses, data, n - 1, "cut off");
    refuse_file(ses, data, n / 2, "cut off");
    const struct {
        size_t at;
        const char *words;
    } flips[] = {{0, "not a saved session"},
                 {8, "of version"},
                 {16, "another model"},
                 {24, "cut off"},
                 {35, "cut off"},
                 {39, "cut off"},
                 {41, "does not have"},
                 {43, "checksum"}, /* a soft token */
                 {n / 2, "checksum"},
                 {n - 1, "checksum"}};
    for (size_t i = 0; i < COUNT(flips); i++) {
        data[flips[i].at] ^= 0x80;
        refuse_file(ses, data, n, flips[i].words);
        data[flips[i].at] ^= 0x80;
    }
    refuse_file(small, data, n, "the context holds 8");
    expect(ses, NAME, "Your name is Rosa.");
    free(data);
    free_answer(&a);
    carat_session_free(ses);
    carat_session_free(small);
}

/* A file from the other kind of device: the tokens are run again. */
static void other_device(void **state) {
    (void)state;
    talk cpu;
    carat_device *dev;
    REQUIRE(dev = carat_device_open("cpu", &err));
    open_talk_with(&cpu, dev, &(carat_engine_desc){.path = NANO}, 256);
    answer a = ask(cpu.ses, ROSA);
    save(cpu.ses);
    carat_session *ses = new_session(256);
    REQUIRE(carat_finish(carat_session_restore(ses, FILE_NAME, &err), &err));
    assert_int_equal(carat_session_length(ses), carat_session_length(cpu.ses));
    answer b = ask(ses, NAME), c = ask(cpu.ses, NAME);
    assert_same_tokens(&b, &c);
    assert_int_equal(b.stats.n_reused, c.stats.n_reused);
    answer *all[] = {&a, &b, &c};
    for (size_t i = 0; i < COUNT(all); i++) free_answer(all[i]);
    carat_session_free(ses);
    close_talk(&cpu);
}

static void other_model(void **state) {
    (void)state;
    carat_engine *eng;
    carat_session *ses;
    expect(nano.ses, SUM, "23 + 45 = 68.");
    save(nano.ses);
    REQUIRE(eng = carat_engine_open(&(carat_engine_desc){.path = "tests/golden/family/e4b.gguf"},
                                    nano.dev, &err));
    REQUIRE(carat_finish(carat_load(eng, &err), &err));
    REQUIRE(ses = carat_session_create(eng, NULL, &err));
    REFUSE(carat_session_restore(ses, FILE_NAME, &err), CARAT_E_ARGUMENT, "another model");
    carat_session_free(ses);
    carat_engine_close(eng);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(going_on),
    cmocka_unit_test(regenerating),
    cmocka_unit_test(edits),
    cmocka_unit_test(long_rewinds),
    cmocka_unit_test(overflow),
    cmocka_unit_test(what_is_dropped),
    cmocka_unit_test(save_and_restore),
    cmocka_unit_test(save_nothing),
    cmocka_unit_test(damaged_files),
    cmocka_unit_test(other_device),
    cmocka_unit_test(other_model),
};

int main(void) {
    int failed = RUN_ON("cpu", "sessions on the CPU", tests, open_nano, close_nano);
    failed += RUN_ON("gpu", "sessions on the GPU", tests, open_nano, close_nano);
    return failed;
}
