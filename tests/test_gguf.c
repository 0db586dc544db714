/* GGUF headers: what is read, what is refused and with which words. */
#include "gguf_build.h"
#include "test_memory.h"

/* Opens bytes that lie in memory of exactly their size, until close_bytes(). */
static char *exact;

static bool open_bytes(const buf *b, gguf **g, carat_error *err) {
    source *src;
    exact = malloc(b->len ? b->len : 1);
    assert_non_null(exact);
    memcpy(exact, b->data, b->len);
    bool ok = source_memory(memory, "test.gguf", exact, b->len, &src, err) &&
              gguf_open_source(memory, src, g, err);
    if (!ok) free(exact);
    return ok;
}

static gguf *accept(buf *b) {
    gguf *g = NULL;
    carat_error err = {0};
    if (!open_bytes(b, &g, &err)) fail_msg("%s", err.message);
    buf_free(b);
    return g;
}

static void close_bytes(gguf *g) {
    gguf_close(g);
    free(exact);
}

static void refuse(buf *b, carat_code code, const char *why) {
    gguf *g;
    carat_error err = {0};
    assert_false(b->failed);
    if (open_bytes(b, &g, &err)) fail_msg("accepted: %s", why);
    if (strstr(err.message, why) == NULL) fail_msg("\"%s\" instead of \"%s\"", err.message, why);
    assert_int_equal(err.code, code);
    buf_free(b);
}

/* ---- what is read ---- */

static void test_every_kind(void **state) {
    (void)state;
    static const struct {
        const char *key;
        uint32_t kind;
        uint64_t bits;
        unsigned n_byte;
    } numbers[] = {{"u8", GGUF_U8, 200, 1},
                   {"i8", GGUF_I8, 0xff, 1},
                   {"u16", GGUF_U16, 50000, 2},
                   {"i16", GGUF_I16, 0x8000, 2},
                   {"i32", GGUF_I32, 77, 4},
                   {"f32", GGUF_F32, 0x3fc00000, 4},
                   {"bool", GGUF_BOOL, 1, 1},
                   {"u64", GGUF_U64, UINT64_MAX, 8},
                   {"i64", GGUF_I64, (uint64_t)-5, 8},
                   {"f64", GGUF_F64, 0x4004000000000000, 8}};
    buf b = {0};
    put_head(&b, 0, COUNT(numbers) + 5);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        put_key(&b, numbers[i].key, numbers[i].kind);
        put_number(&b, numbers[i].bits, numbers[i].n_byte);
    }
    put_key(&b, "string", GGUF_STRING);
    put_string(&b, "text");
    put_key(&b, "i16s", GGUF_ARRAY);
    put_number(&b, GGUF_I16, 4);
    put_number(&b, 3, 8);
    put_number(&b, 0xffff00050004, 6);
    put_key(&b, "bools", GGUF_ARRAY);
    put_number(&b, GGUF_BOOL, 4);
    put_number(&b, 2, 8);
    put_number(&b, 0x0100, 2);
    put_key(&b, "u64s", GGUF_ARRAY);
    put_number(&b, GGUF_U64, 4);
    put_number(&b, 2, 8);
    put_number(&b, UINT32_MAX, 8);
    put_number(&b, (uint64_t)UINT32_MAX + 1, 8);
    put_key(&b, "strings", GGUF_ARRAY);
    put_number(&b, GGUF_STRING, 4);
    put_number(&b, 3, 8);
    put_string(&b, "a");
    put_string(&b, "");
    put_string(&b, "ccc");
    gguf *g = accept(&b);

    uint32_t u;
    float f;
    bool t = false;
    gguf_string s;
    assert_true(gguf_get_u32(g, "u8", &u) && u == 200);
    assert_true(gguf_get_u32(g, "u16", &u) && u == 50000);
    assert_true(gguf_get_u32(g, "i32", &u) && u == 77);
    assert_false(gguf_get_u32(g, "i8", &u)); /* negative */
    assert_int_equal(gguf_find(g, "i8")->as.i, -1);
    assert_int_equal(gguf_find(g, "i16")->as.i, -32768);
    assert_false(gguf_get_u32(g, "u64", &u)); /* too large */
    assert_true(gguf_find(g, "u64")->as.u == UINT64_MAX);
    assert_int_equal(gguf_find(g, "i64")->as.i, -5);
    assert_false(gguf_get_u32(g, "f32", &u));
    assert_false(gguf_get_u32(g, "bool", &u));
    assert_false(gguf_get_u32(g, "string", &u));
    assert_false(gguf_get_u32(g, "i16s", &u));
    assert_false(gguf_get_u32(g, "none", &u));
    assert_int_equal(u, 77);
    assert_true(gguf_get_f32(g, "f32", &f) && f == 1.5f);
    assert_true(gguf_get_f32(g, "f64", &f) && f == 2.5f);
    assert_false(gguf_get_f32(g, "i32", &f));
    assert_true(gguf_get_bool(g, "bool", &t) && t);
    assert_false(gguf_get_bool(g, "u8", &t));
    assert_true(gguf_get_string(g, "string", &s) && s.len == 4);
    assert_string_equal(s.text, "text");
    assert_false(gguf_get_string(g, "strings", &s));

    const gguf_value *v = gguf_find(g, "i16s");
    assert_true(v->kind == GGUF_ARRAY && v->item == GGUF_I16 && v->n == 3);
    assert_true(gguf_array_u32(v, 1, &u) && u == 5);
    assert_false(gguf_array_u32(v, 2, &u)); /* -1 */
    assert_false(gguf_array_u32(v, 3, &u));
    assert_false(gguf_array_u32(NULL, 0, &u));
    v = gguf_find(g, "bools");
    assert_true(gguf_array_u32(v, 0, &u) && u == 0);
    assert_true(gguf_array_u32(v, 1, &u) && u == 1);
    v = gguf_find(g, "u64s");
    assert_true(gguf_array_u32(v, 0, &u) && u == UINT32_MAX);
    assert_false(gguf_array_u32(v, 1, &u));
    v = gguf_find(g, "strings");
    assert_false(gguf_array_u32(v, 0, &u));
    const gguf_string *items = v->as.items;
    assert_string_equal(items[0].text, "a");
    assert_true(items[1].len == 0 && items[1].text[0] == 0);
    assert_string_equal(items[2].text, "ccc");
    close_bytes(g);
}

static void test_tensors(void **state) {
    (void)state;
    buf b = {0};
    put_head(&b, 3, 1);
    put_u32(&b, "general.alignment", 64);
    put_string(&b, "matrix");
    put_number(&b, 2, 4);
    put_number(&b, 256, 8);
    put_number(&b, 3, 8);
    put_number(&b, QUANT_Q6_K, 4);
    put_number(&b, 64, 8);
    put_tensor(&b, "vector", 5, QUANT_F32, 0);
    put_tensor(&b, "strange", 5, 99, 704);
    while (b.len % 64) put_number(&b, 0, 1);
    size_t data = b.len;
    for (int i = 0; i < 704; i++) put_number(&b, 0, 1);
    gguf *g = accept(&b);

    char text[96];
    const gguf_tensor *t = gguf_find_tensor(g, "matrix");
    assert_int_equal(t->size, 630);
    assert_int_equal(t->offset, data + 64);
    assert_int_equal(t->ne[1], 3);
    assert_int_equal(t->ne[3], 1);
    assert_string_equal(gguf_shape(t, text), "[3, 256] Q6_K");
    assert_ptr_equal(t->src, g->sources[0]);
    t = gguf_find_tensor(g, "strange");
    assert_int_equal(t->size, 0);
    assert_string_equal(gguf_shape(t, text), "[5] type 99");
    assert_string_equal(g->tensors[1].name.text, "vector"); /* in the file's order */
    assert_null(gguf_find_tensor(g, "vecto"));
    assert_null(gguf_find_tensor(g, "vectors"));
    close_bytes(g);
}

static void test_longest_shape(void **state) {
    (void)state;
    char text[96];
    gguf_tensor t = {.n_dims = 4, .type = UINT32_MAX};
    for (int i = 0; i < 4; i++) t.ne[i] = UINT64_MAX;
    assert_true(strlen(gguf_shape(&t, text)) < sizeof text);
}

static void test_nano(void **state) {
    (void)state;
    gguf *g;
    carat_error err = {0};
    if (!gguf_open(memory, "models/nano.gguf", &g, &err)) fail_msg("%s", err.message);
    assert_int_equal(g->n_value, 52);
    assert_int_equal(g->n_tensor, 522);
    assert_int_equal(g->file_bytes, 18284448);
    for (uint64_t i = 0; i < g->n_value; i++)
        assert_ptr_equal(gguf_find(g, g->values[i].key.text), &g->values[i]);
    for (uint64_t i = 0; i < g->n_tensor; i++)
        assert_ptr_equal(gguf_find_tensor(g, g->tensors[i].name.text), &g->tensors[i]);
    gguf_close(g);
    gguf_close(NULL);
}

/* ---- what is refused ---- */

static void test_heads(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        carat_code code;
        const char *why;
    } cases[] = {
        {"", 0, CARAT_E_FORMAT, "ends inside its header"},
        {"GGU", 3, CARAT_E_FORMAT, "ends inside its header"},
        {"GGML\3\0\0\0", 8, CARAT_E_FORMAT, "not a GGUF file (it starts with 47 47 4d 4c)"},
        {"GGUF\3\0\0\0", 8, CARAT_E_FORMAT, "ends inside its header"},
        {"GGUF\0\0\0\3", 8, CARAT_E_UNSUPPORTED, "big-endian"},
        {"GGUF\1\0\0\0", 8, CARAT_E_UNSUPPORTED, "version 1 is obsolete"},
        {"GGUF\0\0\0\0", 8, CARAT_E_UNSUPPORTED, "version 0 is not known"},
        {"GGUF\4\0\0\0", 8, CARAT_E_UNSUPPORTED, "version 4 is not known"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        buf b = {0};
        buf_put(&b, cases[i].bytes, cases[i].n);
        refuse(&b, cases[i].code, cases[i].why);
    }
    buf b = {0};
    put_head(&b, 0, 0);
    b.data[4] = 2;
    close_bytes(accept(&b));
}

static void test_counts(void **state) {
    (void)state;
    static const uint64_t counts[] = {2, 1000, 1u << 31, UINT32_MAX, INT64_MAX, UINT64_MAX};
    for (size_t i = 0; i < COUNT(counts); i++) {
        buf b = {0};
        put_head(&b, 0, counts[i]);
        put_number(&b, 0, 8);
        refuse(&b, CARAT_E_FORMAT, "keys cannot be in it");
        put_head(&b, counts[i], 0);
        put_number(&b, 0, 8);
        refuse(&b, CARAT_E_FORMAT, "tensors cannot be in it");
        put_head(&b, 0, 1);
        put_string(&b, "key");
        put_number(&b, GGUF_STRING, 4);
        put_number(&b, counts[i], 8);
        put_number(&b, 0, 1);
        refuse(&b, CARAT_E_FORMAT, "is too long");
        put_head(&b, 0, 1);
        put_number(&b, counts[i] | 64, 8);
        put_number(&b, 0, 8);
        refuse(&b, CARAT_E_FORMAT, "is too long");
        for (uint32_t item = GGUF_U8; item <= GGUF_F64; item++) {
            if (item == GGUF_ARRAY) continue;
            put_head(&b, 0, 1);
            put_key(&b, "key", GGUF_ARRAY);
            put_number(&b, item, 4);
            put_number(&b, counts[i], 8);
            put_number(&b, 0, 1);
            refuse(&b, CARAT_E_FORMAT, "key key: an array of ");
        }
    }
}

static void test_values_refused(void **state) {
    (void)state;
    buf b = {0};
    put_head(&b, 0, 1);
    put_key(&b, "key", 13);
    put_number(&b, 0, 8);
    refuse(&b, CARAT_E_FORMAT, "key key: a value of kind 13");
    put_head(&b, 0, 1);
    put_key(&b, "", GGUF_U8);
    put_number(&b, 0, 8);
    refuse(&b, CARAT_E_FORMAT, "a key is empty");
    put_head(&b, 0, 1);
    put_key(&b, "key", GGUF_BOOL);
    put_number(&b, 2, 1);
    refuse(&b, CARAT_E_FORMAT, "a bool is 2");
    put_head(&b, 0, 1);
    put_key(&b, "key", GGUF_ARRAY);
    put_number(&b, GGUF_ARRAY, 4);
    put_number(&b, 1, 8);
    refuse(&b, CARAT_E_FORMAT, "items of kind 9");
    put_head(&b, 0, 3);
    put_u32(&b, "same", 1);
    put_u32(&b, "other", 1);
    put_u32(&b, "same", 2);
    refuse(&b, CARAT_E_FORMAT, "key same occurs twice");
    static const uint32_t alignments[] = {0, 3, 48, UINT32_MAX};
    for (size_t i = 0; i < COUNT(alignments); i++) {
        put_head(&b, 0, 1);
        put_u32(&b, "general.alignment", alignments[i]);
        refuse(&b, CARAT_E_FORMAT, "general.alignment must be");
    }
    put_head(&b, 0, 1);
    put_key(&b, "general.alignment", GGUF_STRING);
    put_string(&b, "32");
    refuse(&b, CARAT_E_FORMAT, "general.alignment must be");
}

static void put_matrix(buf *b, uint32_t n_dims, const uint64_t *ne, uint32_t type) {
    put_head(b, 1, 0);
    put_string(b, "w");
    put_number(b, n_dims, 4);
    for (uint32_t i = 0; i < n_dims && i < 4; i++) put_number(b, ne[i], 8);
    put_number(b, type, 4);
    put_number(b, 0, 8);
    put_data(b, 64);
}

static void test_shapes_refused(void **state) {
    (void)state;
    static const uint64_t half = UINT64_C(1) << 32;
    static const struct {
        uint32_t n_dims;
        uint64_t ne[4];
        uint32_t type;
        const char *why;
    } cases[] = {
        {0, {0}, QUANT_F32, "tensor w: 0 dimensions"},
        {5, {1, 1, 1, 1}, QUANT_F32, "tensor w: 5 dimensions"},
        {UINT32_MAX, {1, 1, 1, 1}, QUANT_F32, "dimensions"},
        {1, {0}, QUANT_F32, "tensor w: a shape of [0] F32"},
        {2, {32, 0}, QUANT_Q4_0, "tensor w: a shape of [0, 32] Q4_0"},
        {1, {UINT64_MAX}, QUANT_F32, "a shape of"},
        {1, {UINT64_C(1) << 63}, QUANT_F32, "a shape of"},
        {2, {half, half}, QUANT_F32, "a shape of"},
        {4, {1 << 16, 1 << 16, 1 << 16, 1 << 16}, QUANT_F16, "a shape of"},
        {2, {half, half}, 99, "a shape of"},
        {2, {48, 2}, QUANT_Q4_0, "rows of [2, 48] Q4_0 are not whole blocks of 32"},
        {1, {128}, QUANT_Q4_K, "are not whole blocks of 256"},
        {1, {17}, QUANT_F32, "ends after the file's"},
        {1, {UINT64_C(1) << 59}, QUANT_F32, "ends after the file's"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        buf b = {0};
        put_matrix(&b, cases[i].n_dims, cases[i].ne, cases[i].type);
        refuse(&b, CARAT_E_FORMAT, cases[i].why);
    }
    buf b = {0};
    put_matrix(&b, 1, (uint64_t[]){16}, QUANT_F32); /* exactly to the end */
    close_bytes(accept(&b));
}

static void put_two(buf *b, const char *name, uint64_t n, uint64_t offset) {
    put_head(b, 2, 0);
    put_tensor(b, name, n, QUANT_F32, offset);
    put_tensor(b, "b", 8, QUANT_F32, 0);
    put_data(b, 96);
}

static void test_places_refused(void **state) {
    (void)state;
    buf b = {0};
    put_two(&b, "b", 8, 32);
    refuse(&b, CARAT_E_FORMAT, "tensor b occurs twice");
    put_two(&b, "", 8, 32);
    refuse(&b, CARAT_E_FORMAT, "a tensor has no name");
    put_two(&b, "a", 8, 16);
    refuse(&b, CARAT_E_FORMAT, "tensor a: offset 16 is not a multiple of 32");
    put_two(&b, "a", 16, 64);
    refuse(&b, CARAT_E_FORMAT, "tensor a (64 bytes at 64 of the data) ends after the file's");
    put_two(&b, "a", 8, UINT64_MAX - 31);
    refuse(&b, CARAT_E_FORMAT, "ends after the file's");
    put_two(&b, "a", 8, 1 << 20);
    refuse(&b, CARAT_E_FORMAT, "ends after the file's");
    put_two(&b, "a", 8, 0);
    refuse(&b, CARAT_E_FORMAT, "overlap");
    put_two(&b, "a", 9, 0);
    refuse(&b, CARAT_E_FORMAT, "overlap");
    put_head(&b, 2, 0); /* the long one comes first in the data, second in the header */
    put_tensor(&b, "a", 8, QUANT_F32, 32);
    put_tensor(&b, "long", 24, QUANT_F32, 0);
    put_data(&b, 96);
    refuse(&b, CARAT_E_FORMAT, "tensors long and a overlap");
    put_two(&b, "a", 16, 32); /* one behind the other, to the end */
    close_bytes(accept(&b));
}

static void test_no_room_for_data(void **state) {
    (void)state;
    buf b = {0};
    put_head(&b, 1, 1);
    put_u32(&b, "general.alignment", 1u << 31);
    put_tensor(&b, "a", 8, QUANT_F32, 0);
    put_data(&b, 96);
    refuse(&b, CARAT_E_FORMAT, "ends after the file's");
}

/* Every beginning of a file is refused, and none is read past its end. */
static void test_truncated(void **state) {
    (void)state;
    buf b = {0};
    put_head(&b, 2, 3);
    put_u32(&b, "one", 1);
    put_key(&b, "words", GGUF_ARRAY);
    put_number(&b, GGUF_STRING, 4);
    put_number(&b, 2, 8);
    put_string(&b, "first");
    put_string(&b, "second");
    put_key(&b, "text", GGUF_STRING);
    put_string(&b, "a text");
    put_tensor(&b, "a", 8, QUANT_F32, 0);
    put_tensor(&b, "b", 64, QUANT_Q8_0, 32);
    put_data(&b, 32 + 68);
    for (size_t n = 0; n < b.len; n++) {
        carat_error err = {0};
        gguf *g;
        buf cut = b;
        cut.len = n;
        assert_false(open_bytes(&cut, &g, &err));
        assert_int_equal(err.code, CARAT_E_FORMAT);
    }
    close_bytes(accept(&b));
}

/* No single damaged byte of a header may do more than give an error or another header. */
static void test_damaged(void **state) {
    (void)state;
    buf b = {0};
    put_head(&b, 1, 2);
    put_u32(&b, "general.alignment", 32);
    put_key(&b, "words", GGUF_ARRAY);
    put_number(&b, GGUF_STRING, 4);
    put_number(&b, 1, 8);
    put_string(&b, "first");
    put_tensor(&b, "a", 8, QUANT_F32, 0);
    put_data(&b, 32);
    for (size_t i = 0; i < b.len; i++) {
        char right = b.data[i];
        for (int bits = 0; bits < 8; bits++) {
            carat_error err = {0};
            gguf *g;
            b.data[i] = (char)(right ^ 1 << bits);
            if (open_bytes(&b, &g, &err))
                close_bytes(g);
            else
                assert_int_not_equal(err.code, CARAT_OK);
        }
        b.data[i] = right;
    }
    buf_free(&b);
}

static void test_split_set_in_memory(void **state) {
    (void)state;
    buf b = {0};
    put_head(&b, 0, 1);
    put_u32(&b, "split.count", 2);
    refuse(&b, CARAT_E_UNSUPPORTED, "one of 2 files of a split set");
    put_head(&b, 0, 1);
    put_u32(&b, "split.count", 70000);
    refuse(&b, CARAT_E_FORMAT, "a set of 70000 files");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_longest_shape),
        cmocka_unit_test(test_nano),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_values_refused),
        cmocka_unit_test(test_shapes_refused),
        cmocka_unit_test(test_places_refused),
        cmocka_unit_test(test_no_room_for_data),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_split_set_in_memory),

    };
    return cmocka_run_group_tests(tests, memory_setup, memory_teardown);
}
