/* safetensors: headers read and refused, values of every dtype that is read. */
#include "file/file.h"
#include "file/safetensors.h"
#include "test_memory.h"

static char *exact; /* the bytes under test, in memory of exactly their size */

static source *make(const char *header, uint64_t length, size_t n_data) {
    source *s;
    size_t n = 8 + strlen(header) + n_data;
    free(exact);
    exact = malloc(n);
    assert_non_null(exact);
    for (int i = 0; i < 8; i++) exact[i] = (char)(length >> 8 * i);
    memcpy(exact + 8, header, strlen(header));
    for (size_t i = 0; i < n_data; i++) exact[n - n_data + i] = (char)i;
    assert_true(source_memory(memory, "test", exact, n, &s, NULL));
    return s;
}

static safetensors *accept(const char *header, size_t n_data) {
    safetensors *s = NULL;
    carat_error err = {0};
    if (!safetensors_open(memory, make(header, strlen(header), n_data), &s, &err))
        fail_msg("%s: %s", header, err.message);
    return s;
}

static void refuse(const char *header, size_t n_data, const char *why) {
    safetensors *s;
    carat_error err = {0};
    if (safetensors_open(memory, make(header, strlen(header), n_data), &s, &err))
        fail_msg("accepted %s", header);
    assert_int_equal(err.code, CARAT_E_FORMAT);
    if (strstr(err.message, why) == NULL) fail_msg("%s: \"%s\"", header, err.message);
}

static void test_tensors(void **state) {
    (void)state;
    safetensors *s = accept("{\"__metadata__\":{\"format\":\"pt\"},"
                            "\"z\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]},"
                            "\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]},"
                            "\"e\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[4,4]}}  ",
                            28);
    assert_int_equal(s->n, 3);
    assert_string_equal(json_string(json_get(s->metadata, "format"), ""), "pt");
    const safetensor *t = safetensors_find(s, "z");
    assert_string_equal(t->dtype, "F32");
    assert_true(t->n_dims == 2 && t->ne[0] == 2 && t->ne[1] == 3 && t->size == 24);
    assert_int_equal(t->offset + t->size, s->src->size);
    t = safetensors_find(s, "a");
    assert_true(t->n_dims == 0 && t->size == 1);
    assert_null(safetensors_find(s, "none"));
    assert_int_equal(accept("{}", 0)->n, 0);
    assert_null(safetensors_find(accept("{}", 0), "x"));
}

static void test_values(void **state) {
    (void)state;
    float y[3];
    carat_error err = {0};
    safetensors *s = accept("{\"f\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                            "\"h\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[8,14]},"
                            "\"b\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[14,16]},"
                            "\"i\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[16,20]}}",
                            20);
    memcpy(exact + s->src->size - 20, "\0\0\x80\x3f\0\0\0\xc0\0\x3c\1\0\xff\xfb\x49\x40", 16);
    assert_true(safetensors_read_f32(s, safetensors_find(s, "f"), y, &err));
    assert_true(y[0] == 1 && y[1] == -2);
    assert_true(safetensors_read_f32(s, safetensors_find(s, "h"), y, &err));
    assert_true(y[0] == 1 && y[1] == 0x1p-24f && y[2] == -65504);
    assert_true(safetensors_read_f32(s, safetensors_find(s, "b"), y, &err));
    assert_true(y[0] == 3.140625f);
    assert_false(safetensors_read_f32(s, safetensors_find(s, "i"), y, &err));
    assert_int_equal(err.code, CARAT_E_UNSUPPORTED);
}

static void test_many_values(void **state) {
    (void)state; /* more than one piece of a read */
    enum { N = 5000 };
    float *y = malloc(N * sizeof *y);
    assert_non_null(y);
    safetensors *s =
        accept("{\"f\":{\"dtype\":\"BF16\",\"shape\":[5000],\"data_offsets\":[0,10000]}}", 2 * N);
    for (size_t i = 0; i < N; i++) { /* bf16 of i rounded down to its 8 leading bits */
        float f = (float)i;
        memcpy(exact + s->src->size - 2 * N + 2 * i, (char *)&f + 2, 2);
    }
    assert_true(safetensors_read_f32(s, s->tensors, y, NULL));
    for (size_t i = 0; i < N; i++) assert_true(y[i] <= (float)i && y[i] > (float)i * 0.99f - 1e-9f);
    free(y);
}

#define T(fields) "{\"a\":{" fields "}}"
#define B         "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}"

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *header, *why;
    } cases[] = {
        {"", "value missing"},
        {"[]", "not an object"},
        {"{", "expected a key"},
        {"{\"a\":1}", "dtype missing"},
        {T("\"shape\":[4],\"data_offsets\":[0,4]"), "dtype missing"},
        {T("\"dtype\":\"F3200000\",\"shape\":[1],\"data_offsets\":[0,4]"), "dtype missing or"},
        {T("\"dtype\":\"U8\",\"data_offsets\":[0,4]"), "shape is not"},
        {T("\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,4],\"data_offsets\":[0,4]"),
         "shape is not"},
        {T("\"dtype\":\"U8\",\"shape\":[-4],\"data_offsets\":[0,4]"), "impossible"},
        {T("\"dtype\":\"U8\",\"shape\":[4.0],\"data_offsets\":[0,4]"), "impossible"},
        {T("\"dtype\":\"U8\",\"shape\":[\"4\"],\"data_offsets\":[0,4]"), "impossible"},
        {T("\"dtype\":\"U8\",\"shape\":[1e0],\"data_offsets\":[0,4]"), "impossible"},
        {T("\"dtype\":\"U8\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,4]"),
         "impossible"},
        {T("\"dtype\":\"U8\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]"),
         "impossible"},
        {T("\"dtype\":\"U8\",\"shape\":[4]"), "data_offsets"},
        {T("\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0]"), "two rising"},
        {T("\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4,8]"), "two rising"},
        {T("\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,0]"), "two rising"},
        {T("\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[-4,0]"), "two rising"},
        {T("\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,4]"), "do not fit the shape"},
        {T("\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,4]"), "do not fit the shape"},
        {T("\"dtype\":\"U8\",\"shape\":[16],\"data_offsets\":[0,16]"), "ends after the file"},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[999999999999,1000000000000]"),
         "ends after the file"},
        {"{" B "," B "}", "occurs twice"},
        {"{" B ",\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}", "overlaps"},
        {"{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", "a zero in"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) refuse(cases[i].header, 8, cases[i].why);
}

static void test_lengths(void **state) {
    (void)state;
    static const uint64_t lengths[] = {3, 1000, UINT32_MAX, INT64_MAX, UINT64_MAX};
    safetensors *s;
    for (size_t i = 0; i < COUNT(lengths); i++) {
        carat_error err = {0};
        assert_false(safetensors_open(memory, make("{}", lengths[i], 0), &s, &err));
        assert_int_equal(err.code, CARAT_E_FORMAT);
    }
    for (size_t n = 0; n < 8; n++) {
        carat_error err = {0};
        source *src = make("{}", 2, 0);
        src->size = n;
        assert_false(safetensors_open(memory, src, &s, &err));
        assert_int_equal(err.code, CARAT_E_FORMAT);
    }
}

static void test_out_of_memory(void **state) {
    (void)state;
    buf b = {0};
    buf_puts(&b, "{");
    for (int i = 0; i < 500; i++)
        buf_printf(&b, "\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]},", i, i,
                   i + 1);
    buf_puts(&b, "\"__metadata__\":{}}");
    source *src = make(b.data, b.len, 500);
    bool ok = false;
    long at = 0;
    for (; !ok; at++) {
        carat_error err = {0};
        safetensors *s;
        n_malloc = 0;
        failing_at = at;
        arena *a = arena_create(&err);
        ok = a && safetensors_open(a, src, &s, &err);
        failing_at = -1;
        assert_int_equal(err.code, ok ? CARAT_OK : CARAT_E_MEMORY);
        arena_free(a);
    }
    assert_true(at > 5);
    buf_free(&b);
    free(exact);
    exact = NULL;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors),     cmocka_unit_test(test_values),
        cmocka_unit_test(test_many_values), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_lengths),     cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, memory_setup, memory_teardown);
}
