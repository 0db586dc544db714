/* JSON: the grammar, both ways, and what is refused. */
#include "test_memory.h"

#include <math.h>

/* Parses from memory that ends where the text does. */
static bool parse(const char *text, size_t n, json **out, carat_error *err) {
    char *exact = malloc(n ? n : 1);
    assert_non_null(exact);
    memcpy(exact, text, n);
    bool ok = json_parse(memory, exact, n, "test", out, err);
    free(exact);
    return ok;
}

static json *accept(const char *text) {
    json *v = NULL;
    carat_error err = {0};
    if (!parse(text, strlen(text), &v, &err)) fail_msg("%s: %s", text, err.message);
    return v;
}

static void refuse(const char *text, const char *why) {
    json *v;
    carat_error err = {0};
    if (parse(text, strlen(text), &v, &err)) fail_msg("accepted %s", text);
    assert_int_equal(err.code, CARAT_E_FORMAT);
    if (strstr(err.message, why) == NULL) fail_msg("%s: \"%s\"", text, err.message);
}

static void test_values(void **state) {
    (void)state;
    json *v =
        accept(" {\"a\" : [1, -2.5e3 ,true,false,null], \"b\":{}, \"\":\"x\" ,\"c\":[ ]}\r\n\t");
    assert_int_equal(v->kind, JSON_OBJECT);
    assert_int_equal(v->n, 4);
    const json *a = json_get(v, "a");
    assert_int_equal(a->n, 5);
    assert_true(json_number(json_at(a, 0), 9) == 1);
    assert_true(json_number(json_at(a, 1), 9) == -2500);
    assert_true(json_bool(json_at(a, 2), false));
    assert_false(json_bool(json_at(a, 3), true));
    assert_int_equal(json_at(a, 4)->kind, JSON_NULL);
    assert_null(json_at(a, 5));
    assert_int_equal(json_get(v, "b")->kind, JSON_OBJECT);
    assert_int_equal(json_get(v, "c")->n, 0);
    assert_string_equal(json_string(json_get(v, ""), "none"), "x");
    assert_int_equal(accept("0")->kind, JSON_NUMBER);
    assert_string_equal(accept("\"alone\"")->text, "alone");
}

static void test_readers_accept_anything(void **state) {
    (void)state;
    json *v = accept("[1]");
    assert_null(json_get(NULL, "a"));
    assert_null(json_get(v, "a"));
    assert_null(json_at(NULL, 0));
    assert_null(json_at(json_at(v, 0), 0));
    assert_false(json_is_string(NULL, ""));
    assert_false(json_is_string(v, ""));
    assert_string_equal(json_string(v, "other"), "other");
    assert_string_equal(json_string(NULL, "other"), "other");
    assert_true(json_number(NULL, 7) == 7);
    assert_true(json_number(v, 7) == 7);
    assert_true(json_bool(NULL, true));
    assert_true(json_bool(v, true));
}

static void test_strings(void **state) {
    (void)state;
    json *v = accept("\"\\\"\\\\\\/\\b\\f\\n\\r\\t \\u0041\\u00e4\\u20AC\\ud83d\\ude00\"");
    assert_string_equal(v->text, "\"\\/\b\f\n\r\t A\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
    v = accept("\"a\\u0000b\"");
    assert_int_equal(v->len, 3);
    assert_memory_equal(v->text, "a\0b", 4);
    assert_false(json_is_string(v, "a"));
    assert_true(json_is_string(accept("\"a\""), "a"));
    assert_string_equal(accept("\"\xf0\x9f\x98\x80 \x7f\"")->text, "\xf0\x9f\x98\x80 \x7f");
}

static void test_lone_surrogates(void **state) {
    (void)state;
    assert_string_equal(accept("\"\\ud800\"")->text, "\xef\xbf\xbd");
    assert_string_equal(accept("\"\\udc00x\"")->text, "\xef\xbf\xbdx");
    assert_string_equal(accept("\"\\ud800\\n\"")->text, "\xef\xbf\xbd\n");
    assert_string_equal(accept("\"\\ud800\\u0041\"")->text, "\xef\xbf\xbd"
                                                            "A");
    assert_string_equal(accept("\"\\ud800\\ud83d\\ude00\"")->text, "\xef\xbf\xbd\xf0\x9f\x98\x80");
}

static void test_last_duplicate_wins(void **state) {
    (void)state;
    json *v = accept("{\"a\":1,\"b\":2,\"a\":3}");
    assert_true(json_number(json_get(v, "a"), 0) == 3);
    assert_int_equal(v->n, 3);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "value missing at byte 0"},
        {"  ", "value missing at byte 2"},
        {"nul", "unknown word"},
        {"True", "bad number"},
        {"truex", "more text"},
        {"NaN", "bad number"},
        {"-Infinity", "bad number"},
        {"01", "leading zero"},
        {"-", "bad number"},
        {"-01", "leading zero"},
        {"+1", "bad number"},
        {".5", "bad number"},
        {"1.", "after its point"},
        {"1.e5", "after its point"},
        {"1e", "exponent"},
        {"1e+", "exponent"},
        {"0x10", "more text"},
        {"1 2", "more text"},
        {"[1,]", "bad number"},
        {"[,1]", "bad number"},
        {"[1 2]", "expected ',' or ']'"},
        {"[1", "expected ',' or ']' at byte 2"},
        {"[", "value missing"},
        {"[1}", "expected ','"},
        {"{\"a\":1,}", "expected a key"},
        {"{\"a\" 1}", "expected ':'"},
        {"{\"a\":}", "bad number"},
        {"{a:1}", "expected a key"},
        {"{1:1}", "expected a key"},
        {"{\"a\":1", "expected ',' or '}'"},
        {"{", "expected a key"},
        {"\"", "without an end"},
        {"\"abc", "without an end"},
        {"\"a\\", "unknown escape"},
        {"\"\\x41\"", "unknown escape"},
        {"\"\\u12\"", "bad \\u escape"},
        {"\"\\u12g4\"", "bad \\u escape"},
        {"\"\\ud800\\u12\"", "bad \\u escape"},
        {"\"a\nb\"", "control character"},
        {"\"\x01\"", "control character"},
        {"\"\xff\"", "invalid UTF-8"},
        {"\"\xc3\"", "invalid UTF-8"},
        {"\"\xed\xa0\x80\"", "invalid UTF-8"},
        {"'a'", "bad number"},
        {"// x\n1", "bad number"},
        {"\xef\xbb\xbf"
         "1",
         "bad number"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) refuse(cases[i].text, cases[i].why);
    json *v;
    carat_error err = {0};
    assert_false(parse("1\0", 2, &v, &err)); /* a zero is not white space */
    err = (carat_error){0};
    assert_false(parse("\"a\0\"", 4, &v, &err));
}

static void test_depth(void **state) {
    (void)state;
    char text[2 * 65 + 1];
    for (int depth = 64; depth <= 65; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        text[2 * depth] = 0;
        if (depth == 64)
            accept(text);
        else
            refuse(text, "nested too deeply");
    }
    /* Depth counts what is open, not what there is. */
    buf b = {0};
    buf_puts(&b, "[");
    for (int i = 0; i < 1000; i++) buf_puts(&b, "[[]],");
    buf_puts(&b, "{}]");
    assert_int_equal(accept(b.data)->n, 1001);
    buf_free(&b);
}

/* Every beginning of a document is refused, and none is read past its end. */
static void test_truncated(void **state) {
    (void)state;
    static const char text[] =
        "{\"k\\u00e9y\":[true,null,-1.5e-7,\"\\ud83d\\ude00\xc3\xa4\",{}],\"b\":0}";
    json *v;
    for (size_t n = 0; n < sizeof text - 1; n++) {
        carat_error err = {0};
        assert_false(parse(text, n, &v, &err));
    }
    accept(text);
}

/* ---- numbers ---- */

static void test_exact_numbers(void **state) {
    (void)state;
    static const char *const texts[] = {"0",
                                        "-0",
                                        "0.95",
                                        "0.1",
                                        "-1.5",
                                        "1e22",
                                        "123456789012345",
                                        "2.5e-21",
                                        "0.7",
                                        "64",
                                        "1E3",
                                        "1e-5",
                                        "9007199254740992",
                                        "0.000001",
                                        "1.0000000000",
                                        "4294967296",
                                        "1.1e+10",
                                        "0e999"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        double got = json_number(accept(texts[i]), NAN), want = strtod(texts[i], NULL);
        if (got != want) fail_msg("%s: %.17g instead of %.17g", texts[i], got, want);
    }
    assert_true(signbit(json_number(accept("-0"), 1)));
}

static void test_all_numbers(void **state) {
    (void)state;
    static const char *const extremes[] = {"1e308",
                                           "1.7976931348623157e308",
                                           "1e-300",
                                           "2.2250738585072014e-308",
                                           "123456789e-310",
                                           "100000000000000000000000000000000000000",
                                           "0.0000000000000000000000000000000000123456789",
                                           "3.14159265358979323846264338327950288",
                                           "12345678901234567890123456789e-40"};
    char text[64];
    uint64_t random = 1;
    for (size_t i = 0; i < 20000 + COUNT(extremes); i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        double x = (double)(int64_t)random * exp2((double)(random >> 40 & 511) - 300);
        snprintf(text, sizeof text, "%.17g", x);
        const char *s = i < COUNT(extremes) ? extremes[i] : text;
        double got = json_number(accept(s), NAN), want = strtod(s, NULL);
        if (!(fabs(got - want) <= 1e-15 * fabs(want)))
            fail_msg("%s: %.17g instead of %.17g", s, got, want);
    }
    assert_true(json_number(accept("1e400"), 0) == INFINITY);
    assert_true(json_number(accept("-1e99999999999999999999"), 0) == -INFINITY);
    assert_true(json_number(accept("1e-400"), 1) == 0);
    assert_true(json_number(accept("1e-99999999999999999999"), 1) == 0);
}

/* ---- writing ---- */

static void test_writing(void **state) {
    (void)state;
    static const char text[] = "{\"a\":[1.50,-2E5,true,false,null],\"b\":{\"\\u0001\\\"\\\\\":"
                               "\"\\n\\r\\t\xc3\xa4\"},\"c\":[],\"d\":{}}";
    buf b = {0};
    json_write(&b, accept(text));
    assert_string_equal(b.data, text);
    buf_reset(&b);
    json_write_string(&b, "a\xff\0\xe2\x82z\x7f", 7);
    assert_string_equal(b.data, "\"a\xef\xbf\xbd\\u0000\xef\xbf\xbd\xef\xbf\xbdz\\u007f\"");
    buf_reset(&b);
    json_write_string(&b, "", 0);
    json_write(&b, NULL);
    assert_string_equal(b.data, "\"\"null");
    buf_free(&b);
}

/* ---- memory ---- */

static void test_large_and_linear(void **state) {
    (void)state;
    buf b = {0};
    buf_puts(&b, "[0");
    for (int i = 1; i < 300000; i++) buf_printf(&b, ",\"%d\"", i);
    buf_puts(&b, "]");
    json *v = accept(b.data);
    assert_int_equal(v->n, 300000);
    assert_string_equal(v->items[299999].text, "299999");
    buf_free(&b);
}

static void test_out_of_memory(void **state) {
    (void)state;
    buf text = {0};
    buf_puts(&text, "{\"x\":[");
    for (int i = 0; i < 3000; i++) buf_puts(&text, "{\"a\":[1,\"b\"]},");
    buf_puts(&text, "1]}");
    bool ok = false;
    long at = 0;
    for (; !ok; at++) {
        carat_error err = {0};
        json *v;
        n_malloc = 0;
        failing_at = at;
        arena *a = arena_create(&err);
        ok = a && json_parse(a, text.data, text.len, "test", &v, &err);
        failing_at = -1;
        assert_int_equal(err.code, ok ? CARAT_OK : CARAT_E_MEMORY);
        arena_free(a);
    }
    assert_true(at > 5);
    buf_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_readers_accept_anything),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_lone_surrogates),
        cmocka_unit_test(test_last_duplicate_wins),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_exact_numbers),
        cmocka_unit_test(test_all_numbers),
        cmocka_unit_test(test_writing),
        cmocka_unit_test(test_large_and_linear),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, memory_setup, memory_teardown);
}
