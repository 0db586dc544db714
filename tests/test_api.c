/* The public interface, on nano: answers, thinking, tools, stop strings, limits, cancelling,
 * log-probabilities, scores, descriptions; and what it refuses. On the CPU, and again on a GPU
 * (a software adapter will do) where there is one. */
#include "talk.h"

#define SUM   "[{\"role\":\"user\",\"content\":\"What is 23 + 45?\"}]"
#define STORY "[{\"role\":\"user\",\"content\":\"Tell me a story about a fox and a owl.\"}]"

static talk nano; /* one for all tests of a device */

static int open_nano(void **state) {
    (void)state;
    open_talk(&nano, 512);
    return 0;
}

static int close_nano(void **state) {
    (void)state;
    close_talk(&nano);
    return 0;
}

static void a_sum(void **state) {
    (void)state;
    answer a = ask(nano.ses, SUM);
    assert_true(a.ok);
    assert_text(&a, "23 + 45 = 68.");
    assert_int_equal(a.finish, token_limit ? CARAT_FINISH_LENGTH : CARAT_FINISH_STOP);
    assert_int_equal(a.stats.n_prompt, 17);
    assert_int_equal(a.stats.n_generated, a.tokens.len + !token_limit);
    assert_true(a.n_progress > 0 && a.stats.bytes_read > 1000000);
    assert_true(a.stats.prompt_s > 0 && a.stats.generate_s > 0);
    assert_true((a.stats.n_dispatch > 0) == carat_device_is_gpu(nano.dev));
    free_answer(&a);
}

static json *read_golden(arena *memory) {
    source *src;
    json *out;
    REQUIRE(source_open(memory, "tests/golden/nano/text.json", &src, &err));
    char *text = arena_alloc(memory, (size_t)src->size, 1);
    REQUIRE(source_read(src, 0, text, (size_t)src->size, &err));
    REQUIRE(json_parse(memory, text, (size_t)src->size, "golden", &out, &err));
    source_close(src);
    return out;
}

/* One conversation of the golden set: the same prompt, and greedily the same tokens. */
static void golden_conversation(const json *c) {
    buf messages = {0}, tools = {0};
    const json *ids = json_get(c, "greedy_ids"), *with = json_get(c, "tools");
    json_write(&messages, json_get(c, "messages"));
    json_write(&tools, with);
    carat_chat_desc desc = {.messages = messages.data,
                            .tools = with->kind == JSON_ARRAY ? tools.data : NULL,
                            .thinking = json_bool(json_get(c, "thinking"), false)};
    char *prompt;
    REQUIRE(prompt = carat_render(nano.eng, &desc, &err));
    assert_string_equal(prompt, json_string(json_get(c, "prompt"), ""));
    carat_string_free(prompt);

    answer a = ask_with(nano.ses, desc);
    if (!a.ok) fail_msg("%s: %s", json_string(json_get(c, "name"), ""), err.message);
    assert_int_equal(a.tokens.len + 1, ids->n);
    for (size_t i = 0; i < a.tokens.len; i++)
        assert_int_equal(a.tokens.data[i], (int)json_number(json_at(ids, i), -1));
    assert_int_equal(a.stats.n_prompt, json_get(c, "ids")->n);
    free_answer(&a);
    buf_free(&messages);
    buf_free(&tools);
}

static void golden_answers(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    arena *memory = arena_create(NULL);
    json *set = read_golden(memory);
    assert_int_equal(set->n, 15);
    for (size_t i = 0; i < set->n; i++) golden_conversation(&set->items[i]);
    arena_free(memory);
}

static void thinking(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    const char *m = "[{\"role\":\"user\",\"content\":\"Reverse the word ember.\"}]";
    answer a = ask_with(nano.ses, (carat_chat_desc){.messages = m, .thinking = true});
    assert_true(a.ok);
    assert_string_equal(a.thinking.data, "e-m-b-e-r backwards is r-e-b-m-e.");
    assert_string_equal(a.text.data, "rebme");
    free_answer(&a);
}

/* A call as an event, then the conversation with its result. */
static void tool_calls(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    arena *memory = arena_create(NULL);
    json *set = read_golden(memory);
    const json *c = NULL;
    buf messages = {0}, tools = {0};
    for (size_t i = 0; i < set->n; i++)
        if (json_is_string(json_get(&set->items[i], "name"), "tool_call")) c = &set->items[i];
    json_write(&messages, json_get(c, "messages"));
    json_write(&tools, json_get(c, "tools"));
    answer a =
        ask_with(nano.ses, (carat_chat_desc){.messages = messages.data, .tools = tools.data});
    assert_true(a.ok);
    assert_string_equal(a.calls.data,
                        "{\"name\":\"get_time\",\"arguments\":{\"city\":\"Belgrade\"}}\n");
    assert_string_equal(a.text.data, "");
    assert_int_equal(a.finish, CARAT_FINISH_TOOL_CALLS);
    free_answer(&a);
    buf_free(&messages);
    buf_free(&tools);
    arena_free(memory);
}

static void stop_strings(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    const char *const stop[] = {"never", " lived near"};
    answer a = ask_with(nano.ses, (carat_chat_desc){.messages = STORY, .stop = stop, .n_stop = 2});
    assert_true(a.ok);
    assert_string_equal(a.text.data, "Once upon a time, a fox named Grace");
    assert_int_equal(a.finish, CARAT_FINISH_STOP);
    free_answer(&a);
    expect(nano.ses, SUM, "23 + 45 = 68."); /* the session goes on */
}

static void limits(void **state) {
    (void)state;
    answer a = ask_with(nano.ses, (carat_chat_desc){.messages = STORY, .max_tokens = 4});
    assert_true(a.ok);
    assert_int_equal(a.finish, CARAT_FINISH_LENGTH);
    assert_int_equal(a.tokens.len, 4);
    assert_int_equal(a.stats.n_generated, 4);
    free_answer(&a);
    NEEDS_A_FAST_DEVICE();
    a = ask_with(nano.ses,
                 (carat_chat_desc){.messages = SUM, .max_tokens = 40, .ignore_stop = true});
    assert_true(a.ok);
    assert_int_equal(a.stats.n_generated, 40);
    assert_int_equal(a.finish, CARAT_FINISH_LENGTH);
    free_answer(&a);
}

/* A context that is full ends the answer; the last token is told though it is not run. */
static void full_context(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    carat_session *small;
    REQUIRE(small = carat_session_create(nano.eng, &(carat_session_desc){.n_ctx = 40}, &err));
    assert_int_equal(carat_session_context(small), 40);
    answer a = ask(small, STORY);
    assert_true(a.ok);
    assert_int_equal(a.finish, CARAT_FINISH_LENGTH);
    assert_int_equal(a.tokens.len, 40 - a.stats.n_prompt + 1);
    assert_int_equal(carat_session_length(small), 40);
    assert_memory_equal(a.text.data, "Once upon a time, a fox named Grace lived near", 46);
    free_answer(&a);
    expect(small, SUM, "23 + 45 = 68.");
    carat_session_free(small);
}

static void cancelling(void **state) {
    (void)state;
    carat_job *job;
    carat_event ev = {0};
    carat_sampling s = greedy();
    int n_text = 0;
    carat_chat_desc desc = {.messages = STORY, .sampling = &s};
    REQUIRE(job = carat_chat(nano.ses, &desc, &err));
    REFUSE(carat_chat(nano.ses, &desc, &err), CARAT_E_ARGUMENT, "another job");
    while (n_text < (token_limit ? 2 : 5)) {
        REQUIRE(carat_wait(job, &ev, &err));
        assert_int_not_equal(ev.kind, CARAT_EVENT_DONE);
        n_text += ev.kind == CARAT_EVENT_TEXT;
    }
    carat_cancel(job);
    REQUIRE(carat_advance(job, &ev, &err));
    assert_int_equal(ev.kind, CARAT_EVENT_DONE);
    assert_int_equal(ev.finish, CARAT_FINISH_NONE);
    REQUIRE(carat_advance(job, &ev, &err)); /* it stays over */
    assert_int_equal(ev.kind, CARAT_EVENT_DONE);
    carat_job_free(job);
    expect(nano.ses, SUM, "23 + 45 = 68.");
    REQUIRE(job = carat_chat(nano.ses, &desc, &err)); /* one that is dropped in its middle */
    REQUIRE(carat_wait(job, &ev, &err));
    REQUIRE(carat_wait(job, &ev, &err));
    carat_job_free(job);
    expect(nano.ses, SUM, "23 + 45 = 68.");
}

static void two_sessions(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    carat_session *other;
    carat_job *jobs[2];
    answer a[2];
    bool over[2] = {false, false};
    carat_sampling s = greedy();
    const char *const ask_for[] = {SUM, STORY};
    REQUIRE(other = carat_session_create(nano.eng, &(carat_session_desc){.n_ctx = 128}, &err));
    carat_session *const ses[] = {nano.ses, other};
    for (int i = 0; i < 2; i++) {
        carat_chat_desc desc = {.messages = ask_for[i], .sampling = &s};
        start_answer(&a[i]);
        REQUIRE(jobs[i] = carat_chat(ses[i], &desc, &err));
    }
    while (!over[0] || !over[1]) /* in turns */
        for (int i = 0; i < 2; i++) {
            carat_event ev;
            if (over[i]) continue;
            REQUIRE(carat_wait(jobs[i], &ev, &err));
            note_event(&a[i], &ev);
            over[i] = ev.kind == CARAT_EVENT_DONE;
        }
    assert_string_equal(a[0].text.data, "23 + 45 = 68.");
    assert_memory_equal(a[1].text.data, "Once upon a time, a fox named Grace lived", 40);
    for (int i = 0; i < 2; i++) {
        carat_job_free(jobs[i]);
        free_answer(&a[i]);
    }
    carat_session_free(other);
}

/* A seed decides; the hash of the logits tells that two runs computed the same. */
static void seeds(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    carat_sampling s = CARAT_SAMPLING_DEFAULT;
    s.seed = 7;
    s.temperature = 1.5f;
    carat_chat_desc desc = {.messages = STORY, .sampling = &s, .max_tokens = 30};
    answer a = ask_with(nano.ses, desc), b = ask_with(nano.ses, desc);
    assert_true(a.ok && b.ok);
    assert_string_equal(a.text.data, b.text.data);
    s.seed = 8;
    answer c = ask_with(nano.ses, desc);
    assert_string_not_equal(a.text.data, c.text.data);
    answer g1 = ask(nano.ses, SUM), g2 = ask(nano.ses, SUM), g3 = ask(nano.ses, STORY);
    assert_true(g1.stats.logits_hash == g2.stats.logits_hash);
    assert_true(g1.stats.logits_hash != g3.stats.logits_hash);
    answer *all[] = {&a, &b, &c, &g1, &g2, &g3};
    for (size_t i = 0; i < COUNT(all); i++) free_answer(all[i]);
}

/* Alternatives are sorted, hold the token itself when greedy, and are probabilities. */
static void logprobs(void **state) {
    (void)state;
    carat_job *job;
    carat_event ev = {0};
    carat_sampling s = greedy();
    int n = 0;
    carat_chat_desc desc = {
        .messages = SUM, .sampling = &s, .n_logprobs = 5, .max_tokens = token_limit};
    REQUIRE(job = carat_chat(nano.ses, &desc, &err));
    while (ev.kind != CARAT_EVENT_DONE) {
        double sum = 0;
        REQUIRE(carat_wait(job, &ev, &err));
        if (ev.kind != CARAT_EVENT_TEXT || ev.token < 0) continue;
        n++;
        assert_int_equal(ev.n_top, 5);
        assert_int_equal(ev.top[0].token, ev.token);
        assert_true(ev.top[0].logprob == ev.logprob);
        for (size_t i = 0; i < ev.n_top; i++) {
            sum += exp((double)ev.top[i].logprob);
            assert_true(i == 0 || ev.top[i].logprob <= ev.top[i - 1].logprob);
        }
        assert_true(sum > 0.5 && sum < 1.0001);
    }
    assert_int_equal(n, token_limit ? token_limit : 9);
    carat_job_free(job);
    desc.n_logprobs = 21;
    REFUSE(carat_chat(nano.ses, &desc, &err), CARAT_E_ARGUMENT, "at most 20");
}

/* Scoring a text gives the log-probabilities that generating it reported. */
static void scores(void **state) {
    (void)state;
    int32_t ids[256];
    char *prompt;
    answer a = ask(nano.ses, SUM);
    assert_true(a.ok);
    REQUIRE(prompt = carat_render(nano.eng, &(carat_chat_desc){.messages = SUM}, &err));
    int64_t n = carat_tokenize(nano.eng, prompt, strlen(prompt), true, ids, 200, &err);
    assert_int_equal(n, a.stats.n_prompt);
    ids[n] = a.tokens.data[0];
    err = (carat_error){0};
    answer s = run_job(carat_score(nano.ses, ids, (size_t)n + 1, &err));
    if (!s.ok) fail_msg("%s", err.message);
    assert_int_equal(s.n_score, n);
    err = (carat_error){0};
    answer less = run_job(carat_score(nano.ses, ids, (size_t)n, &err));
    assert_true(fabs(s.score - less.score - (double)a.first_logprob) < 2e-3);
    assert_true(s.score < 0 && s.score > -200);
    for (int i = 0; i < 256; i++) ids[i] = 300 + i;
    free_answer(&s);
    s = run_job(carat_score(nano.ses, ids, 256, &err)); /* several chunks on the CPU */
    assert_true(s.ok);
    assert_int_equal(s.n_score, 255);
    REFUSE(carat_score(nano.ses, ids, 0, &err), CARAT_E_ARGUMENT, "no tokens");
    REFUSE(carat_score(nano.ses, ids, 513, &err), CARAT_E_CONTEXT, "513");
    ids[3] = 1 << 20;
    REFUSE(carat_score(nano.ses, ids, 5, &err), CARAT_E_ARGUMENT, "1048576");
    carat_string_free(prompt);
    free_answer(&a);
    free_answer(&s);
    free_answer(&less);
}

/* Raw ids continue as the chat with the same prompt does; a BOS is put in front. */
static void completion(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    int32_t ids[64];
    const char *text = "<|turn>user\nWhat is 23 + 45?<turn|>\n<|turn>model\n";
    int64_t n = carat_tokenize(nano.eng, text, strlen(text), true, ids, 64, &err);
    carat_sampling s = greedy();
    err = (carat_error){0};
    answer a =
        run_job(carat_complete(nano.ses, ids, (size_t)n, &(carat_chat_desc){.sampling = &s}, &err));
    if (!a.ok) fail_msg("%s", err.message);
    assert_string_equal(a.text.data, "23 + 45 = 68.");
    assert_int_equal(a.stats.n_prompt, n + 1);
    free_answer(&a);
    a = run_job(carat_complete(nano.ses, NULL, 0, &(carat_chat_desc){.max_tokens = 3}, &err));
    assert_true(a.ok && a.stats.n_prompt == 1);
    free_answer(&a);
}

static void text_and_ids(void **state) {
    (void)state;
    int32_t ids[64];
    char text[64] = {0};
    int64_t n = carat_tokenize(nano.eng, "a fox <turn|>", 13, false, ids, 64, &err);
    assert_true(n > 4);
    assert_int_equal(carat_detokenize(nano.eng, ids, (size_t)n, false, text, 64, &err), 13);
    assert_string_equal(text, "a fox <turn|>");
    assert_int_equal(carat_tokenize(nano.eng, "<turn|>", 7, true, ids, 0, &err), 1);
    assert_int_equal(carat_tokenize(nano.eng, "", 0, true, ids, 64, &err), 0);
}

static void descriptions(void **state) {
    (void)state;
    carat_model_info info;
    carat_engine_info(nano.eng, &info);
    assert_int_equal(info.n_vocab, 2048);
    assert_true(info.n_params > 10000000 && info.weight_bytes > 5000000);
    assert_true(info.kv_bytes_token > 0 && info.scratch_bytes > 0 && info.sliding_window > 0);
    arena *memory = arena_create(NULL);
    json *d;
    char *text;
    REQUIRE(text = carat_engine_describe(nano.eng, &err));
    REQUIRE(json_parse(memory, text, strlen(text), "description", &d, &err));
    assert_true(json_is_string(json_get(d, "architecture"), "gemma4"));
    assert_int_equal(json_get(d, "layers")->n, info.n_layer);
    double bytes = 0;
    const json *types = json_get(d, "types"), *tensors = json_get(d, "tensors");
    for (size_t i = 0; i < types->n; i++)
        bytes += json_number(json_get(&types->items[i], "bytes"), 0);
    for (size_t i = 0; i < tensors->n; i++)
        bytes -= json_number(json_get(&tensors->items[i], "bytes"), 0);
    assert_true(bytes == 0);
    assert_true(json_number(json_get(json_get(d, "memory"), "total"), 0) >
                (double)info.weight_bytes);
    carat_string_free(text);
    arena_free(memory);
}

/* ---- without a device, and what is refused ---- */

static void no_device(void **state) {
    (void)state;
    carat_engine *eng;
    int32_t ids[16];
    REQUIRE(eng = carat_engine_open(&(carat_engine_desc){.path = NANO}, NULL, &err));
    assert_true(carat_tokenize(eng, "hello", 5, false, ids, 16, &err) > 0);
    REFUSE(carat_load(eng, &err), CARAT_E_ARGUMENT, "no device");
    REFUSE(carat_session_create(eng, NULL, &err), CARAT_E_ARGUMENT, "not loaded");
    carat_engine_close(eng);
    REFUSE(carat_device_open("tpu", &err), CARAT_E_ARGUMENT, "tpu");
}

static void bad_files(void **state) {
    (void)state;
    REFUSE(carat_engine_open(&(carat_engine_desc){.path = "Makefile"}, NULL, &err), CARAT_E_FORMAT,
           "Makefile");
    REFUSE(carat_engine_open(&(carat_engine_desc){.path = "none.gguf"}, NULL, &err),
           CARAT_E_NOT_FOUND, "none.gguf");
    REFUSE(carat_engine_open(&(carat_engine_desc){0}, NULL, &err), CARAT_E_ARGUMENT, "no model");
    REFUSE(carat_engine_open(&(carat_engine_desc){.path = NANO, .template_ = "huge"}, NULL, &err),
           CARAT_E_ARGUMENT, "huge");
    REFUSE(carat_engine_open(&(carat_engine_desc){.path = NANO, .params = "[1]"}, NULL, &err),
           CARAT_E_FORMAT, "options");
    REFUSE(carat_engine_open(&(carat_engine_desc){.path = NANO, .messages = "{"}, NULL, &err),
           CARAT_E_FORMAT, "messages");
}

static void bad_messages(void **state) {
    (void)state;
    const struct {
        const char *messages;
        carat_code code;
        const char *words;
    } rows[] = {{NULL, CARAT_E_ARGUMENT, "none"},
                {"", CARAT_E_FORMAT, "messages"},
                {"{}", CARAT_E_ARGUMENT, "not a JSON array"},
                {"[1]", CARAT_E_FORMAT, "message"},
                {"[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]", CARAT_E_ARGUMENT,
                 "1 image, and 0 are given"},
                {"[{\"role\":\"user\",\"content\":\"a\",\"images\":[\"x\"]}]", CARAT_E_ARGUMENT,
                 "1 image, and 0 are given"},
                {"[{\"role\":\"user\",\"content\":\"\xff\"}]", CARAT_E_FORMAT, "UTF-8"}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        carat_chat_desc desc = {.messages = rows[i].messages};
        REFUSE(carat_chat(nano.ses, &desc, &err), rows[i].code, rows[i].words);
    }
    carat_chat_desc desc = {.messages = SUM, .tools = "7"};
    REFUSE(carat_chat(nano.ses, &desc, &err), CARAT_E_ARGUMENT, "tools");
    answer a = ask(nano.ses, "[{\"role\":\"user\",\"content\":\"\"}]"); /* empty is fine */
    assert_true(a.ok);
    free_answer(&a);
    carat_sampling s = CARAT_SAMPLING_DEFAULT;
    s.top_p = 7;
    desc = (carat_chat_desc){.messages = SUM, .sampling = &s};
    REFUSE(carat_chat(nano.ses, &desc, &err), CARAT_E_ARGUMENT, "top_p");
    REFUSE(carat_session_create(nano.eng, &(carat_session_desc){.n_ctx = 1u << 30}, &err),
           CARAT_E_ARGUMENT, "1073741824");
}

/* What Ollama keeps beside a model: a system prompt, options, messages. */
static void defaults(void **state) {
    (void)state;
    carat_engine *eng;
    carat_engine_desc desc = {.path = NANO,
                              .system = "Answer in uppercase.",
                              .params = "{\"num_predict\":4,\"stop\":[\"x\"]}",
                              .messages = "[{\"role\":\"user\",\"content\":\"Hi\"},"
                                          "{\"role\":\"assistant\",\"content\":\"Yes\"}]"};
    REQUIRE(eng = carat_engine_open(&desc, NULL, &err));
    char *text;
    REQUIRE(text = carat_render(eng, &(carat_chat_desc){.messages = SUM}, &err));
    assert_string_equal(text, "<bos><|turn>system\nAnswer in uppercase.<turn|>\n<|turn>user\nHi"
                              "<turn|>\n<|turn>model\nYes<turn|>\n<|turn>user\nWhat is 23 + 45?"
                              "<turn|>\n<|turn>model\n");
    carat_string_free(text);
    const char *own = "[{\"role\":\"system\",\"content\":\"Own.\"},"
                      "{\"role\":\"user\",\"content\":\"A\"}]";
    REQUIRE(text = carat_render(eng, &(carat_chat_desc){.messages = own}, &err));
    assert_string_equal(text, "<bos><|turn>system\nOwn.<turn|>\n<|turn>user\nHi<turn|>\n"
                              "<|turn>model\nYes<turn|>\n<|turn>user\nA<turn|>\n<|turn>model\n");
    carat_string_free(text);
    carat_engine_close(eng);
}

static void default_options(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    talk t;
    carat_device *dev;
    REQUIRE(dev = carat_device_open(device_name, &err));
    carat_engine_desc desc = {.path = NANO,
                              .params = "{\"num_predict\":4,\"temperature\":0,\"num_ctx\":99}"};
    open_talk_with(&t, dev, &desc, 0);
    assert_int_equal(carat_session_context(t.ses), 99);
    carat_sampling none = CARAT_SAMPLING_DEFAULT;
    answer a = ask_with(t.ses, (carat_chat_desc){.messages = SUM, .sampling = &none});
    assert_true(a.ok);
    assert_int_equal(a.tokens.len, 4);
    assert_string_equal(a.text.data, "23 + 4");
    free_answer(&a);
    close_talk(&t);
}

static void finding(void **state) {
    (void)state;
    carat_engine_desc desc;
    carat_model *m;
    REQUIRE(m = carat_model_find("nano", &desc, &err));
    assert_non_null(strstr(desc.path, "nano.gguf"));
    carat_model_free(m);
    REQUIRE(m = carat_model_find(NANO, &desc, &err));
    assert_string_equal(desc.path, NANO);
    carat_model_free(m);
    REFUSE(carat_model_find("./none", &desc, &err), CARAT_E_NOT_FOUND, "./none");
    REFUSE(carat_model_find("nobody/has-this:tag", &desc, &err), CARAT_E_NOT_FOUND, "carat list");
    REFUSE(carat_model_find("not a name", &desc, &err), CARAT_E_NOT_FOUND, "carat list");
    REFUSE(carat_model_find("", &desc, &err), CARAT_E_ARGUMENT, "no model");
    char *list;
    REQUIRE(list = carat_model_list(&err));
    assert_non_null(strstr(list, "{\"name\":\"nano\""));
    carat_string_free(list);
}

static const struct CMUnitTest on_device[] = {
    cmocka_unit_test(a_sum),           cmocka_unit_test(golden_answers),
    cmocka_unit_test(thinking),        cmocka_unit_test(tool_calls),
    cmocka_unit_test(stop_strings),    cmocka_unit_test(limits),
    cmocka_unit_test(full_context),    cmocka_unit_test(cancelling),
    cmocka_unit_test(two_sessions),    cmocka_unit_test(seeds),
    cmocka_unit_test(logprobs),        cmocka_unit_test(scores),
    cmocka_unit_test(completion),      cmocka_unit_test(text_and_ids),
    cmocka_unit_test(descriptions),    cmocka_unit_test(bad_messages),
    cmocka_unit_test(default_options),
};

int main(void) {
    const struct CMUnitTest anywhere[] = {cmocka_unit_test(no_device), cmocka_unit_test(bad_files),
                                          cmocka_unit_test(defaults), cmocka_unit_test(finding)};
    int failed = cmocka_run_group_tests_name("api", anywhere, NULL, NULL);
    failed += RUN_ON("cpu", "api on the CPU", on_device, open_nano, close_nano);
    failed += RUN_ON("gpu", "api on the GPU", on_device, open_nano, close_nano);
    return failed;
}
