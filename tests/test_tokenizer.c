/* The tokenizer: all reference vectors on the real vocabulary, nano's, a textbook merge loop to
 * compare with, long inputs, UTF-8 borders, damaged files. */
#include "test_memory.h"
#include "token_util.h"
#include "token/vocab.h"

#include <time.h>

static const tokenizer *real, *nano;
static const json *vectors;

static int setup(void **state) {
    if (memory_setup(state)) return 1;
    nano = load_tokenizer(memory, NANO);
    vectors = load_json(memory, "tests/golden/tokenizer-vectors.json");
    if (have_vocab()) real = load_tokenizer(memory, VOCAB);
    return 0;
}

static void check_encode(const char *group, bool specials, size_t at_least) {
    const json *cases = json_get(vectors, group);
    assert_true(cases && cases->n >= at_least);
    for (size_t i = 0; i < cases->n; i++) {
        const json *text = json_get(&cases->items[i], "text");
        id_list got = {0};
        tokenizer_encode(real, text->text, text->len, specials, &got);
        assert_false(got.failed);
        assert_ids(text->text, &got, json_get(&cases->items[i], "ids"));
        ids_free(&got);
    }
}

static void encode_vectors(void **state) {
    (void)state;
    SKIP_WITHOUT_VOCAB(real);
    check_encode("encode", true, 467);
}

static void encode_plain_vectors(void **state) {
    (void)state;
    SKIP_WITHOUT_VOCAB(real);
    check_encode("encode_plain", false, 15);
}

static void decode_vectors(void **state) {
    (void)state;
    SKIP_WITHOUT_VOCAB(real);
    const json *cases = json_get(vectors, "decode");
    assert_true(cases && cases->n >= 18);
    for (size_t i = 0; i < cases->n; i++) {
        const json *want = json_get(&cases->items[i], "ids");
        const char *want_hex = json_string(json_get(&cases->items[i], "bytes_hex"), "");
        const json *skipped = json_get(&cases->items[i], "text_skip_special");
        buf all = {0}, hex = {0}, plain = {0};
        for (size_t k = 0; k < want->n; k++) {
            int32_t id = (int32_t)json_number(&want->items[k], -1);
            tokenizer_decode(real, id, true, &all);
            tokenizer_decode(real, id, false, &plain);
        }
        for (size_t k = 0; k < all.len; k++) buf_printf(&hex, "%02x", (uint8_t)all.data[k]);
        assert_string_equal(hex.data ? hex.data : "", want_hex);
        if (!strstr(skipped->text, "\xEF\xBF\xBD")) { /* the file shows broken UTF-8 as U+FFFD */
            assert_int_equal(plain.len, skipped->len);
            if (plain.len) assert_memory_equal(plain.data, skipped->text, plain.len);
        }
        buf_free(&all);
        buf_free(&hex);
        buf_free(&plain);
    }
}

static void real_ids(void **state) {
    (void)state;
    SKIP_WITHOUT_VOCAB(real);
    static const int32_t specials[SPECIAL_COUNT] = {
        0,  1,   2,   3,   4,   46,     47,     48,     49,     50,     51,     52,
        98, 100, 101, 105, 106, 255999, 256000, 258880, 258881, 258882, 258883, 258884};
    assert_int_equal(real->n_vocab, 262144);
    assert_memory_equal(real->specials, specials, sizeof specials);
    assert_int_equal(real->n_stop, 3);
    assert_int_equal(real->stops[0], 1);
    assert_int_equal(real->stops[1], 50);
    assert_int_equal(real->stops[2], 106);
    assert_true(tokenizer_is_stop(real, 106) && !tokenizer_is_stop(real, 105));
    assert_true(!tokenizer_is_stop(real, 212) && !tokenizer_is_stop(real, -1)); /* </s> */
    assert_false(tokenizer_is_stop(real, 262144));
    assert_true(tokenizer_is_special(real, 52) && !tokenizer_is_special(real, 212));
    /* pad bos unk mask, seven media markers, <unused0> .. <unused6226> */
    assert_int_equal(real->n_suppressed, 4 + 7 + 6227);
    for (uint32_t i = 0; i < real->n_suppressed; i++) {
        if (i) assert_true(real->suppressed[i] > real->suppressed[i - 1]);
        assert_false(tokenizer_is_stop(real, real->suppressed[i]));
    }
}

static void real_is_small_and_fast(void **state) {
    (void)state;
    SKIP_WITHOUT_VOCAB(real);
    carat_error err = {0};
    arena *file = arena_create(&err), *own = arena_create(&err);
    gguf *g = NULL;
    tokenizer *t = NULL;
    assert_true(gguf_open(file, VOCAB, &g, &err));
    clock_t start = clock();
    assert_true(tokenizer_create(own, g, &t, &err));
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    print_message("create: %.3f s, %.1f MB\n", seconds, (double)arena_bytes(own) / 1e6);
    assert_true(arena_bytes(own) < 30u << 20);
    assert_true(seconds < 1); /* of CPU time; 0.06 s, sanitizers take longer */
    gguf_close(g);
    arena_free(file);
    arena_free(own);
}

static void nano_ids(void **state) {
    (void)state;
    static const char text[] = "<bos><|turn>user\nRepeat: caf\u00E9 \U0001F48E "
                               "\u4F60\u597D<turn|>\n<|turn>model\n";
    static const int32_t want[] = {2,   4,   395, 279, 987, 305, 494, 349, 218,
                                   192, 374, 263, 182, 169, 165, 374, 251, 212,
                                   183, 252, 188, 212, 5,   279, 4,   397, 279};
    id_list got = {0};
    buf back = {0};
    tokenizer_encode(nano, text, sizeof text - 1, true, &got);
    assert_int_equal(got.len, COUNT(want));
    assert_memory_equal(got.data, want, sizeof want);
    for (size_t i = 0; i < got.len; i++) tokenizer_decode(nano, got.data[i], true, &back);
    assert_string_equal(back.data, text);
    assert_int_equal(nano->specials[SPECIAL_MASK], -1);
    assert_int_equal(nano->n_stop, 3);
    assert_true(tokenizer_is_stop(nano, 1) && tokenizer_is_stop(nano, 5));
    assert_true(tokenizer_is_stop(nano, 13));
    ids_free(&got);
    buf_free(&back);
}

/* ---- against the definition --------------------------------------------------------------- */

static uint64_t seed = 88172645463325252u;
static uint32_t random_below(uint32_t n) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % n;
}

/* Merging by the book: of all neighbours the pair with the lowest rank, the leftmost of equals. */
static void encode_slowly(const vocab *v, const char *text, size_t n, id_list *out) {
    int32_t s[512];
    size_t len = 0;
    for (size_t at = 0, step; at < n; at += step) {
        step = utf8_length(text + at, n - at);
        bool space = text[at] == ' ';
        s[len++] = vocab_find(v, space ? "\u2581" : text + at, space ? 3 : step);
        assert_true(s[len - 1] >= 0);
    }
    for (;;) {
        uint32_t best = NO_MERGE;
        size_t at = 0;
        for (size_t i = 0; i + 1 < len; i++) {
            uint32_t rank = vocab_merge_rank(v, s[i], s[i + 1]);
            if (rank < best) best = rank, at = i;
        }
        if (best == NO_MERGE) break;
        s[at] = v->merges[best].result;
        memmove(s + at + 1, s + at + 2, (len - at - 2) * sizeof *s);
        len--;
    }
    ids_append(out, s, len);
}

static void compare_with_definition(const tokenizer *t) {
    static const char *const parts[] = {
        "a",      "e",      "t",  "th",     "er", "in", " ", " ",   "\n", "\t",   "> </", "1",
        "\u00E9", "\u4F60", "on", "\u2581", ".",  "=",  "A", "ing", "o",  " the", "n",    "::::"};
    for (int round = 0; round < 3000; round++) {
        char text[512];
        size_t n = 0;
        for (uint32_t k = 1 + random_below(40); k; k--) {
            const char *part = parts[random_below(COUNT(parts))];
            if (vocab_find(t->tables, part, strlen(part)) < 0 && (uint8_t)part[0] >= 0x80) continue;
            for (uint32_t r = 1 + (random_below(8) == 0 ? random_below(5) : 0); r; r--) {
                memcpy(text + n, part, strlen(part));
                n += strlen(part);
            }
        }
        for (size_t i = 0; i < n; i++) /* a vocabulary may lack tabs */
            if (text[i] != ' ' && (uint8_t)text[i] < 0x80 && vocab_find(t->tables, text + i, 1) < 0)
                text[i] = 'e';
        id_list want = {0}, got = {0};
        encode_slowly(t->tables, text, n, &want);
        tokenizer_encode(t, text, n, false, &got);
        assert_int_equal(got.len, want.len);
        if (want.len) assert_memory_equal(got.data, want.data, want.len * sizeof *want.data);
        ids_free(&want);
        ids_free(&got);
    }
}

static void nano_by_definition(void **state) {
    (void)state;
    compare_with_definition(nano);
}

static void real_by_definition(void **state) {
    (void)state;
    SKIP_WITHOUT_VOCAB(real);
    compare_with_definition(real);
}

/* Any bytes but U+2581 itself come back as they were. */
static void bytes_round_trip(void **state) {
    (void)state;
    for (int round = 0; round < 2000; round++) {
        char text[64];
        size_t n = random_below(sizeof text);
        for (size_t i = 0; i < n; i++) {
            text[i] = (char)random_below(256);
            if ((uint8_t)text[i] == 0x81) text[i] = 'x';
        }
        const tokenizer *t = real && round % 2 ? real : nano;
        id_list got = {0};
        buf back = {0};
        tokenizer_encode(t, text, n, round % 3 == 0, &got);
        for (size_t i = 0; i < got.len; i++) tokenizer_decode(t, got.data[i], true, &back);
        assert_int_equal(back.len, n);
        if (n) assert_memory_equal(back.data, text, n);
        ids_free(&got);
        buf_free(&back);
    }
}

static void invalid_bytes_stand_alone(void **state) {
    (void)state;
    static const char text[] = "a\xC3\xE2\x96\xF5z";
    const vocab *v = nano->tables;
    int32_t want[] = {vocab_find(v, "a", 1), v->byte_id[0xC3], v->byte_id[0xE2],
                      v->byte_id[0x96],      v->byte_id[0xF5], vocab_find(v, "z", 1)};
    id_list got = {0};
    tokenizer_encode(nano, text, sizeof text - 1, true, &got);
    assert_int_equal(got.len, COUNT(want));
    assert_memory_equal(got.data, want, sizeof want);
    ids_free(&got);
}

static void out_of_range_ids_decode_to_nothing(void **state) {
    (void)state;
    buf out = {0};
    tokenizer_decode(nano, -1, true, &out);
    tokenizer_decode(nano, (int32_t)nano->n_vocab, true, &out);
    tokenizer_decode(nano, INT32_MAX, true, &out);
    assert_int_equal(out.len, 0);
    buf_free(&out);
}

/* ---- long inputs -------------------------------------------------------------------------- */

static void long_run(const tokenizer *t, char c) {
    size_t n = 1u << 20;
    char *text = arena_alloc(memory, n, 1);
    memset(text, c, n);
    id_list got = {0};
    buf back = {0};
    clock_t start = clock();
    tokenizer_encode(t, text, n, true, &got);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    print_message("1 MiB of '%c': %.2f s, %zu tokens\n", c < ' ' ? '?' : c, seconds, got.len);
    assert_false(got.failed);
    assert_true(seconds < 5); /* of CPU time; 0.2 s, quadratic would take hours */
    for (size_t i = 0; i < got.len; i++) tokenizer_decode(t, got.data[i], true, &back);
    assert_int_equal(back.len, n);
    assert_memory_equal(back.data, text, n);
    ids_free(&got);
    buf_free(&back);
}

static void long_runs(void **state) {
    (void)state;
    static const char runs[] = {'a', ' ', '\n', '<', '\x01'};
    for (size_t i = 0; i < COUNT(runs); i++) {
        if (real) long_run(real, runs[i]);
        long_run(nano, runs[i]);
    }
}

/* ---- UTF-8 -------------------------------------------------------------------------------- */

static void utf8_borders(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t n, complete;
    } cases[] = {
        {"", 0, 0},
        {"abc", 3, 3},
        {"a\xC3", 2, 1},
        {"a\xC3\xA9", 3, 3},
        {"\xE2\x96", 2, 0},
        {"\xF0\x9F\xAB", 3, 0},
        {"\xF0\x9F\xAB\xA0", 4, 4},
        {"x\xF0", 2, 1},
        {"\xFF", 1, 1},             /* never begins a character */
        {"\xA9", 1, 1},             /* continues nothing */
        {"\xE0\x80", 2, 2},         /* overlong: can no longer become one */
        {"\xED\xA0", 2, 2},         /* half a surrogate */
        {"\xF4\x90", 2, 2},         /* beyond U+10FFFF */
        {"\xA9\xA9\xA9\xA9", 4, 4}, /* no lead byte within reach */
        {"a\xC3\xA9\xE2\x96", 5, 3},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_int_equal(utf8_complete(cases[i].text, cases[i].n), cases[i].complete);
}

/* ---- damaged files ------------------------------------------------------------------------ */

static const char *const base_tokens[] = {"<bos>", "<eos>", "<|turn>", "<turn|>", "a",
                                          "b",     "ab",    "\u2581",  "c"};
static const char *const base_merges[] = {"a b"};

/* A vocabulary of base_tokens, extra tokens and all byte tokens but those from n_bytes on. */
static void put_tokens(buf *b, const char *const *extra, size_t n_extra, unsigned n_bytes) {
    put_key(b, "tokenizer.ggml.tokens", 9);
    put_u32(b, 8);
    put_u64(b, COUNT(base_tokens) + n_extra + n_bytes);
    for (size_t i = 0; i < COUNT(base_tokens); i++)
        put_text(b, base_tokens[i], strlen(base_tokens[i]));
    for (size_t i = 0; i < n_extra; i++) put_text(b, extra[i], strlen(extra[i]));
    for (unsigned i = 0; i < n_bytes; i++) {
        char text[16];
        snprintf(text, sizeof text, "<0x%02X>", i);
        put_text(b, text, 6);
    }
}

static bool create(arena *a, const buf *file, tokenizer **t, carat_error *err) {
    source *src;
    gguf *g = NULL;
    if (!source_memory(a, "test", file->data, file->len, &src, err) ||
        !gguf_open_source(a, src, &g, err))
        return false;
    bool ok = tokenizer_create(a, g, t, err);
    gguf_close(g);
    return ok;
}

static void refuse(buf *file, const char *message) {
    carat_error err = {0};
    tokenizer *t = NULL;
    arena *a = arena_create(NULL);
    assert_false(create(a, file, &t, &err));
    assert_int_equal(err.code, CARAT_E_FORMAT);
    if (!strstr(err.message, message)) fail_msg("\"%s\" lacks \"%s\"", err.message, message);
    arena_free(a);
    buf_free(file);
}

static void small_vocabulary(void **state) {
    (void)state;
    static const char *const extra[] = {"<unused7>", "<unusedX>", "<pad>"};
    carat_error err = {0};
    tokenizer *t = NULL;
    arena *a = arena_create(NULL);
    buf b = {0};
    put_header(&b, 4);
    put_tokens(&b, extra, COUNT(extra), 256);
    put_strings(&b, "tokenizer.ggml.merges", base_merges, COUNT(base_merges));
    put_key(&b, "tokenizer.ggml.eot_token_id", 4);
    put_u32(&b, 8);
    put_key(&b, "tokenizer.ggml.suppress_tokens", 9);
    put_u32(&b, 5);
    put_u64(&b, 2);
    put_u32(&b, 4);
    put_u32(&b, 1); /* an end token: stays */
    assert_true(create(a, &b, &t, &err));
    assert_int_equal(t->n_stop, 3); /* <eos>, <turn|>, c */
    assert_true(tokenizer_is_stop(t, 1) && tokenizer_is_stop(t, 3) && tokenizer_is_stop(t, 8));
    static const int32_t suppressed[] = {0, 4, 9, 11}; /* <bos> a <unused7> <pad> */
    assert_int_equal(t->n_suppressed, COUNT(suppressed));
    assert_memory_equal(t->suppressed, suppressed, sizeof suppressed);
    id_list got = {0};
    tokenizer_encode(t, "ab c", 4, true, &got);
    static const int32_t want[] = {6, 7, 8};
    assert_int_equal(got.len, COUNT(want));
    assert_memory_equal(got.data, want, sizeof want);
    ids_free(&got);
    arena_free(a);
    buf_free(&b);
}

static void bad_tokens(void **state) {
    (void)state;
    static const char *const repeated[] = {"x", "ab"}, *const empty[] = {"x", ""};
    buf b = {0};
    put_header(&b, 0);
    refuse(&b, "has no tokenizer.ggml.tokens");
    put_header(&b, 1);
    put_strings(&b, "tokenizer.ggml.tokens", NULL, 0);
    refuse(&b, "vocabulary is empty");
    put_header(&b, 1);
    put_key(&b, "tokenizer.ggml.tokens", 4);
    put_u32(&b, 7);
    refuse(&b, "tokenizer.ggml.tokens is not an array of strings");
    put_header(&b, 1);
    put_tokens(&b, repeated, 2, 256);
    refuse(&b, "token 10 repeats token 6, \"ab\"");
    put_header(&b, 1);
    put_tokens(&b, empty, 2, 256);
    refuse(&b, "token 10 is empty");
    put_header(&b, 1);
    put_tokens(&b, NULL, 0, 255);
    refuse(&b, "lacks <0xFF>");
}

static void bad_merges(void **state) {
    (void)state;
    static const char *const bad[] = {"ab", "a ", " b", "", "a x", "x b", "a a"};
    static const char *const message[] = {"is not a pair", "is not a pair", "is not a pair",
                                          "is not a pair", "no token",      "no token",
                                          "no token"};
    buf b = {0};
    put_header(&b, 1);
    put_tokens(&b, NULL, 0, 256);
    refuse(&b, "has no tokenizer.ggml.merges");
    for (size_t i = 0; i < COUNT(bad); i++) {
        put_header(&b, 2);
        put_tokens(&b, NULL, 0, 256);
        put_strings(&b, "tokenizer.ggml.merges", &bad[i], 1);
        refuse(&b, message[i]);
    }
}

static void bad_ids(void **state) {
    (void)state;
    buf b = {0};
    put_header(&b, 3);
    put_tokens(&b, NULL, 0, 256);
    put_strings(&b, "tokenizer.ggml.merges", base_merges, 1);
    put_key(&b, "tokenizer.ggml.eos_token_id", 4);
    put_u32(&b, 5000);
    refuse(&b, "eos_token_id is 5000, but there are 265 tokens");
    put_header(&b, 3);
    put_tokens(&b, NULL, 0, 256);
    put_strings(&b, "tokenizer.ggml.merges", base_merges, 1);
    put_strings(&b, "tokenizer.ggml.eos_token_ids", base_merges, 1);
    refuse(&b, "eos_token_ids is not a token id");
}

static void no_turn_markers(void **state) {
    (void)state;
    buf b = {0};
    put_header(&b, 2);
    put_key(&b, "tokenizer.ggml.tokens", 9);
    put_u32(&b, 8);
    put_u64(&b, 258);
    put_text(&b, "<bos>", 5);
    put_text(&b, "<eos>", 5);
    for (unsigned i = 0; i < 256; i++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", i);
        put_text(&b, text, 6);
    }
    put_strings(&b, "tokenizer.ggml.merges", NULL, 0);
    refuse(&b, "lacks <|turn>");
}

/* Creating and encoding, with every allocation failing once. */
static void memory_runs_out(void **state) {
    (void)state;
    static const char text[] = "ab<bos>\x01 cab \xFF";
    buf b = {0};
    put_header(&b, 2);
    put_tokens(&b, NULL, 0, 256);
    put_strings(&b, "tokenizer.ggml.merges", base_merges, 1);
    for (long at = 0;; at++) {
        long before = n_living;
        carat_error err = {0};
        tokenizer *t = NULL;
        id_list got = {0};
        n_malloc = 0;
        failing_at = at;
        arena *a = arena_create(&err);
        bool ok = a && create(a, &b, &t, &err);
        if (ok) tokenizer_encode(t, text, sizeof text - 1, true, &got);
        failing_at = -1;
        bool all = n_malloc <= at;
        if (!ok)
            assert_int_equal(err.code, CARAT_E_MEMORY);
        else
            assert_int_equal(got.failed, !all);
        ids_free(&got);
        arena_free(a);
        assert_int_equal(n_living, before);
        if (all) break;
        assert_true(at < 10000);
    }
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encode_vectors),
        cmocka_unit_test(encode_plain_vectors),
        cmocka_unit_test(decode_vectors),
        cmocka_unit_test(real_ids),
        cmocka_unit_test(real_is_small_and_fast),
        cmocka_unit_test(nano_ids),
        cmocka_unit_test(nano_by_definition),
        cmocka_unit_test(real_by_definition),
        cmocka_unit_test(bytes_round_trip),
        cmocka_unit_test(invalid_bytes_stand_alone),
        cmocka_unit_test(out_of_range_ids_decode_to_nothing),
        cmocka_unit_test(long_runs),
        cmocka_unit_test(utf8_borders),
        cmocka_unit_test(small_vocabulary),
        cmocka_unit_test(bad_tokens),
        cmocka_unit_test(bad_merges),
        cmocka_unit_test(bad_ids),
        cmocka_unit_test(no_turn_markers),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, setup, memory_teardown);
}
