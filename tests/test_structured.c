/* Structured output on nano: whatever the sampler would like, the answer is JSON of the schema. */
#include "random_schema.h"
#include "talk.h"

static talk nano;

static int open_nano(void **state) {
    (void)state;
    open_talk(&nano, 2048);
    return 0;
}

static int close_nano(void **state) {
    (void)state;
    close_talk(&nano);
    return 0;
}

static const char PERSON[] =
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":10},"
    "\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":120},\"tags\":{\"type\":\"array\","
    "\"items\":{\"enum\":[\"red\",\"green\",\"blue\"]},\"minItems\":1,\"maxItems\":3}},"
    "\"required\":[\"name\",\"age\",\"tags\"]}";
static const char WHO[] = "[{\"role\":\"user\",\"content\":\"Who are you?\"}]";

/* The answer is a value of the schema. */
static void assert_value(const char *schema, const answer *a) {
    arena *memory = arena_create(NULL);
    json *root = NULL, *value = NULL;
    const char *why = "";
    REQUIRE(json_parse(memory, schema, strlen(schema), "schema", &root, &err));
    err = (carat_error){0};
    if (!json_parse(memory, a->text.data, a->text.len, "the answer", &value, &err))
        fail_msg("%s gave %s: %s", schema, a->text.data, err.message);
    if (!schema_satisfied(root, root, value, &why))
        fail_msg("%s gave %s: %s", schema, a->text.data, why);
    arena_free(memory);
}

/* Asks with a schema at temperature 1; the answer ends by itself and is a value of it. */
static void ask_value(const char *schema, const carat_sampling *sampling) {
    answer a = ask_with(nano.ses, (carat_chat_desc){.messages = WHO,
                                                    .json_schema = schema,
                                                    .sampling = sampling,
                                                    .max_tokens = 1500});
    if (!a.ok) fail_msg("%s: %s", schema, err.message);
    assert_int_equal(a.finish, CARAT_FINISH_STOP);
    assert_string_equal(a.thinking.data, "");
    assert_value(schema, &a);
    free_answer(&a);
}

static void a_person(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    carat_sampling s = CARAT_SAMPLING_DEFAULT;
    ask_value(PERSON, NULL); /* greedy */
    for (s.seed = 1; s.seed <= 3; s.seed++) ask_value(PERSON, &s);
    ask_value("{\"type\":\"object\"}", NULL);
}

/* Every way that candidates reach the sampler: all of them, a few, with penalties, one. */
static void all_samplings(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    carat_sampling s = CARAT_SAMPLING_DEFAULT;
    s.seed = 7;
    s.top_k = 0;
    s.temperature = 5;
    s.top_p = 1;
    ask_value(PERSON, &s);
    s.repeat_penalty = 1.5f;
    ask_value(PERSON, &s);
    s.repeat_penalty = 0.5f;
    ask_value(PERSON, &s);
    s = CARAT_SAMPLING_DEFAULT;
    s.seed = 8;
    s.top_k = 1;
    ask_value(PERSON, &s);
    s.top_k = 64;
    s.frequency_penalty = 1;
    s.min_p = 0.1f;
    ask_value(PERSON, &s);
}

static void random_schemas(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    uint64_t random = 2026;
    carat_sampling s = CARAT_SAMPLING_DEFAULT;
    int whole = 0;
    for (s.seed = 1; s.seed <= 20; s.seed++) {
        buf schema = {0};
        random_schema(&schema, &random);
        answer a = ask_with(nano.ses, (carat_chat_desc){.messages = WHO,
                                                        .json_schema = schema.data,
                                                        .sampling = &s,
                                                        .max_tokens = 200});
        if (!a.ok) fail_msg("%s: %s", schema.data, err.message);
        if (a.finish == CARAT_FINISH_STOP) {
            assert_value(schema.data, &a);
            whole++;
        }
        free_answer(&a);
        buf_free(&schema);
    }
    print_message("%d of 20 within 200 tokens\n", whole);
    assert_true(whole >= 15);
}

/* A few tokens, on every device. */
static void one_word(void **state) {
    (void)state;
    static const char schema[] = "{\"enum\":[\"yes\",\"no\",null]}";
    answer a = ask_with(
        nano.ses, (carat_chat_desc){.messages = WHO, .json_schema = schema, .max_tokens = 12});
    if (!a.ok) fail_msg("%s", err.message);
    assert_int_equal(a.finish, CARAT_FINISH_STOP);
    assert_value(schema, &a);
    free_answer(&a);
}

/* The schema is about the text only. */
static void thinking_first(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    carat_chat_desc desc = {.messages =
                                "[{\"role\":\"user\",\"content\":\"Reverse the word ember.\"}]",
                            .thinking = true,
                            .json_schema = "{\"type\":\"string\",\"pattern\":\"^[a-z]{5}$\"}"};
    answer a = ask_with(nano.ses, desc);
    assert_true(a.ok);
    assert_string_equal(a.thinking.data, "e-m-b-e-r backwards is r-e-b-m-e.");
    assert_value(desc.json_schema, &a);
    free_answer(&a);
}

static void tools_or_text(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    carat_chat_desc desc = {
        .messages = "[{\"role\":\"user\",\"content\":\"What time is it in Belgrade?\"}]",
        .tools = "[{\"type\":\"function\",\"function\":{\"name\":\"get_time\",\"description\":"
                 "\"Get the local time in a city.\",\"parameters\":{\"type\":\"object\","
                 "\"properties\":{\"city\":{\"type\":\"string\",\"description\":\"The city\"}},"
                 "\"required\":[\"city\"]}}}]",
        .json_schema = PERSON};
    answer a = ask_with(nano.ses, desc);
    assert_true(a.ok);
    assert_string_equal(a.calls.data,
                        "{\"name\":\"get_time\",\"arguments\":{\"city\":\"Belgrade\"}}\n");
    assert_string_equal(a.text.data, "");
    assert_int_equal(a.finish, CARAT_FINISH_TOOL_CALLS);
    free_answer(&a);
    desc.tools = NULL;
    a = ask_with(nano.ses, desc); /* the call that it would like to make is no JSON */
    assert_true(a.ok);
    assert_string_equal(a.calls.data, "");
    assert_value(PERSON, &a);
    free_answer(&a);
}

static void without_a_template(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    static const int32_t ids[] = {2, 300, 303};
    carat_sampling s = greedy();
    carat_chat_desc desc = {.json_schema = PERSON, .sampling = &s, .thinking = true};
    answer a;
    REQUIRE((a = run_job(carat_complete(nano.ses, ids, 3, &desc, &err))).ok);
    assert_string_equal(a.thinking.data, "");
    assert_value(PERSON, &a);
    free_answer(&a);
}

static void limits(void **state) {
    (void)state;
    answer a = ask_with(nano.ses,
                        (carat_chat_desc){.messages = WHO, .json_schema = PERSON, .max_tokens = 2});
    assert_true(a.ok);
    assert_int_equal(a.finish, CARAT_FINISH_LENGTH);
    assert_int_equal(a.text.data[0], '{');
    free_answer(&a);
    carat_chat_desc desc = {.messages = WHO, .json_schema = "{\"not\":{}}"};
    REFUSE(carat_chat(nano.ses, &desc, &err), CARAT_E_UNSUPPORTED, "\"not\" at # is not supported");
    desc.json_schema = "{";
    REFUSE(carat_chat(nano.ses, &desc, &err), CARAT_E_FORMAT, "json schema: ");
}

static const struct CMUnitTest on_device[] = {
    cmocka_unit_test(a_person),       cmocka_unit_test(all_samplings),
    cmocka_unit_test(random_schemas), cmocka_unit_test(one_word),
    cmocka_unit_test(thinking_first), cmocka_unit_test(tools_or_text),
    cmocka_unit_test(limits),         cmocka_unit_test(without_a_template),
};

int main(void) {
    int failed = RUN_ON("cpu", "structured output on the CPU", on_device, open_nano, close_nano);
    failed += RUN_ON("gpu", "structured output on the GPU", on_device, open_nano, close_nano);
    return failed;
}
