/* Errors, arenas, growable arrays, SHA-256. */
#include "failing_malloc.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

/* ---- errors ---- */

#undef fail /* cmocka's; the one of base.h is meant here */

static void test_first_message_wins(void **state) {
    (void)state;
    carat_error err = {0};
    assert_false(fail(&err, CARAT_E_IO, "first %d", 1));
    assert_false(fail(&err, CARAT_E_FORMAT, "second"));
    assert_int_equal(err.code, CARAT_E_IO);
    assert_string_equal(err.message, "first 1");
    assert_false(fail(NULL, CARAT_E_IO, "nobody listens"));
}

static void test_messages_are_printable(void **state) {
    (void)state;
    carat_error err = {0};
    fail(&err, CARAT_E_IO, "%s", "a\x1b[2J\n\xff\xc2\x9b ok \xc3\xa4\x7f");
    assert_string_equal(err.message, "a?[2J???? ok \xc3\xa4?");
}

static void test_long_messages_are_cut(void **state) {
    (void)state;
    char text[2048];
    for (size_t shift = 0; shift < 3; shift++) { /* the cut falls inside a character */
        carat_error err = {0};
        memset(text, 'x', shift);
        for (size_t i = shift; i + 3 < sizeof text; i += 3) memcpy(text + i, "\xe2\x82\xac", 4);
        fail(&err, CARAT_E_IO, "%s", text);
        assert_int_equal(strlen(err.message), sizeof err.message - 1);
        for (size_t i = 0, n = strlen(err.message), len; i < n; i += len) {
            len = utf8_length(err.message + i, n - i);
            assert_int_not_equal(len, 0);
        }
    }
}

static void test_memory_messages(void **state) {
    (void)state;
    carat_error err = {0}, big = {0};
    assert_false(fail_memory(&err, 100, "a list"));
    assert_int_equal(err.code, CARAT_E_MEMORY);
    assert_string_equal(err.message, "out of memory: 100 bytes for a list");
    fail_memory(&big, 3 << 19, "the KV cache");
    assert_string_equal(big.message, "out of memory: 1.5 MiB for the KV cache");
}

static void test_utf8_length(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t len;
    } cases[] = {{"a", 1},
                 {"\xc2\x80", 2},
                 {"\xc3\xa4xx", 2},
                 {"\xe0\xa0\x80", 3},
                 {"\xed\x9f\xbf", 3},
                 {"\xee\x80\x80", 3},
                 {"\xf0\x90\x80\x80", 4},
                 {"\xf4\x8f\xbf\xbf", 4},
                 {"", 0},
                 {"\x80", 0},
                 {"\xbf", 0},
                 {"\xc0\x80", 0},         /* overlong */
                 {"\xc1\xbf", 0},         /* overlong */
                 {"\xe0\x9f\xbf", 0},     /* overlong */
                 {"\xf0\x8f\xbf\xbf", 0}, /* overlong */
                 {"\xed\xa0\x80", 0},     /* surrogate */
                 {"\xf4\x90\x80\x80", 0}, /* past the end of Unicode */
                 {"\xf5\x80\x80\x80", 0},
                 {"\xff", 0},
                 {"\xc3", 0}, /* cut */
                 {"\xe2\x82", 0},
                 {"\xf0\x9f\x98", 0},
                 {"\xe2\x41\x82", 0},
                 {"\xf0\x9f\x98\x41", 0}};
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_int_equal(utf8_length(cases[i].text, strlen(cases[i].text)), cases[i].len);
}

/* ---- arenas ---- */

static void test_arena_gives_zeroed_aligned_memory(void **state) {
    (void)state;
    carat_error err = {0};
    arena *a = arena_create(&err);
    assert_non_null(a);
    unsigned char *seen[2000];
    for (size_t i = 0; i < 2000; i++) {
        size_t n = i % 7 == 0 ? i * 17 : i % 50;
        seen[i] = arena_alloc(a, n, 1);
        assert_non_null(seen[i]);
        assert_int_equal((uintptr_t)seen[i] % 16, 0);
        for (size_t k = 0; k < n; k++) assert_int_equal(seen[i][k], 0);
        memset(seen[i], (int)(i % 251) + 1, n);
    }
    for (size_t i = 0; i < 2000; i++) { /* no two share bytes */
        size_t n = i % 7 == 0 ? i * 17 : i % 50;
        for (size_t k = 0; k < n; k++) assert_int_equal(seen[i][k], i % 251 + 1);
    }
    assert_true(arena_bytes(a) > 2000 * 50 / 7);
    arena_free(a);
    arena_free(NULL);
    assert_int_equal(n_living, 0);
}

static void test_arena_wastes_little(void **state) {
    (void)state;
    arena *a = arena_create(NULL);
    size_t total = 0;
    for (size_t i = 0; i < 3000; i++, total += 3008) assert_non_null(arena_alloc(a, 3008, 1));
    assert_true(arena_bytes(a) < total + total / 4 + 65536);
    arena_free(a);
}

static void test_arena_overflow(void **state) {
    (void)state;
    arena *a = arena_create(NULL);
    assert_null(arena_alloc(a, SIZE_MAX, 2));
    assert_null(arena_alloc(a, SIZE_MAX, 1));
    assert_null(arena_alloc(a, SIZE_MAX / 2 + 2, 2));
    assert_null(arena_alloc(a, 16, SIZE_MAX / 8));
    assert_null(arena_copy(a, "", SIZE_MAX));
    assert_non_null(arena_alloc(a, 0, 8));
    assert_string_equal(arena_copy(a, "carat and more", 5), "carat");
    assert_string_equal(arena_copy(a, NULL, 0), "");
    arena_free(a);
}

static void test_arena_out_of_memory(void **state) {
    (void)state;
    carat_error err = {0};
    failing_at = n_malloc;
    assert_null(arena_create(&err));
    assert_int_equal(err.code, CARAT_E_MEMORY);
    arena *a = arena_create(NULL);
    size_t before = arena_bytes(a);
    failing_at = n_malloc;
    assert_null(arena_alloc(a, 100000, 1)); /* needs a chunk of its own */
    assert_int_equal(arena_bytes(a), before);
    assert_non_null(arena_alloc(a, 100, 1)); /* the arena is still good */
    failing_at = -1;
    assert_non_null(arena_alloc(a, 100000, 1));
    arena_free(a);
    assert_int_equal(n_living, 0);
}

/* ---- growable arrays ---- */

static void test_buf(void **state) {
    (void)state;
    buf b = {0};
    for (int i = 0; i < 1000; i++) {
        buf_puts(&b, "ab");
        buf_put(&b, "c\0d", 3);
        buf_printf(&b, "%03d", i);
        assert_int_equal(b.len, (size_t)(i + 1) * 8);
        assert_int_equal(b.data[b.len], 0);
    }
    assert_memory_equal(b.data + 8 * 999, "abc\0d999", 8);
    buf_reset(&b);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");
    buf_puts(&b, "again");
    char *text = buf_take(&b);
    assert_string_equal(text, "again");
    assert_null(b.data);
    carat_string_free(text);
    text = buf_take(&b); /* nothing written is an empty text */
    assert_string_equal(text, "");
    carat_string_free(text);
    buf_free(&b);
    assert_int_equal(n_living, 0);
}

static void test_buf_out_of_memory(void **state) {
    (void)state;
    buf b = {0};
    buf_puts(&b, "kept");
    failing_at = n_malloc;
    char big[1000] = {0};
    buf_put(&b, big, sizeof big);
    failing_at = -1;
    assert_true(b.failed);
    buf_puts(&b, "ignored");
    buf_printf(&b, "%s", "ignored");
    assert_string_equal(b.data, "kept");
    assert_null(buf_take(&b));
    buf_put(&b, "x", SIZE_MAX);
    assert_true(b.failed);
    buf_reset(&b);
    buf_puts(&b, "good");
    assert_string_equal(b.data, "good");
    buf_free(&b);
    assert_int_equal(n_living, 0);
}

static void test_ids(void **state) {
    (void)state;
    id_list v = {0};
    int32_t three[] = {7, 8, 9};
    for (int32_t i = 0; i < 500; i++) {
        ids_put(&v, i);
        ids_append(&v, three, 3);
        ids_append(&v, three, 0);
    }
    assert_int_equal(v.len, 2000);
    assert_int_equal(v.data[4 * 499], 499);
    assert_int_equal(v.data[1999], 9);
    failing_at = n_malloc;
    while (!v.failed) ids_put(&v, 1);
    failing_at = -1;
    size_t len = v.len;
    ids_put(&v, 2);
    assert_int_equal(v.len, len);
    ids_free(&v);
    assert_int_equal(n_living, 0);
}

/* ---- SHA-256 ---- */

static void check_hash(const void *data, size_t n, const char *hex) {
    unsigned char digest[32];
    char text[65];
    sha256(data, n, digest);
    for (int i = 0; i < 32; i++) sprintf(text + 2 * i, "%02x", digest[i]);
    assert_string_equal(text, hex);
}

static void test_sha256(void **state) {
    (void)state;
    char a[1000];
    memset(a, 'a', sizeof a);
    check_hash("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_hash("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
               "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    check_hash("{\"temperature\":1,\"top_k\":64,\"top_p\":0.95}\n", 42,
               "56380ca2ab89f1f68c283f4d50863c0bcab52ae3f1b9a88e4ab5617b176f71a3");
    check_hash(a, 55, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
    check_hash(a, 64, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
    check_hash(a, 1000, "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_message_wins),
        cmocka_unit_test(test_messages_are_printable),
        cmocka_unit_test(test_long_messages_are_cut),
        cmocka_unit_test(test_memory_messages),
        cmocka_unit_test(test_utf8_length),
        cmocka_unit_test(test_arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(test_arena_wastes_little),
        cmocka_unit_test(test_arena_overflow),
        cmocka_unit_test(test_arena_out_of_memory),
        cmocka_unit_test(test_buf),
        cmocka_unit_test(test_buf_out_of_memory),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_sha256),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
