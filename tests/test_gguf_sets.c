/* GGUF sets of files, memory that runs out, sources that fail, time for a real vocabulary. */
#include "gguf_build.h"

static bool fail_read(carat_error *err) { return fail(err, CARAT_E_IO, "the disk is gone"); }

#include "temp_dir.h"

#include <fcntl.h>
#include <inttypes.h>
#include <time.h>
#include <unistd.h>

static int setup(void **state) { return memory_setup(state) || !make_dir(); }

static int teardown(void **state) {
    return memory_teardown(state) || rmdir(dir); /* every test removes its files */
}

/* ---- split sets ---- */

static void write_buf(const char *name, buf *b) {
    carat_error err = {0};
    if (!file_write(path_of("%s", name), b->data, b->len, &err)) fail_msg("%s", err.message);
    buf_free(b);
}

/* File no of a set with one tensor in each. */
static void write_part(const char *name, uint32_t no, uint32_t count, uint32_t n_tensor,
                       const char *tensor) {
    buf b = {0};
    put_head(&b, 1, 3);
    put_key(&b, "split.no", GGUF_U16);
    put_number(&b, no, 2);
    put_key(&b, "split.count", GGUF_U16);
    put_number(&b, count, 2);
    put_key(&b, "split.tensors.count", GGUF_I32);
    put_number(&b, n_tensor, 4);
    put_tensor(&b, tensor, 8 * (no + 1), QUANT_F32, 0);
    put_data(&b, 32 * (no + 1));
    write_buf(name, &b);
}

#define PART(i) "m-0000" #i "-of-00003.gguf"

static void write_set(void) {
    write_part(PART(1), 0, 3, 3, "a");
    write_part(PART(2), 1, 3, 3, "b");
    write_part(PART(3), 2, 3, 3, "c");
}

static void remove_set(void) {
    unlink(path_of(PART(1)));
    unlink(path_of(PART(2)));
    unlink(path_of(PART(3)));
}

static int open_files(void) {
    int n = 0;
    for (int fd = 0; fd < 256; fd++) n += fcntl(fd, F_GETFD) != -1;
    return n;
}

static void refuse_set(const char *first, carat_code code, const char *why) {
    gguf *g;
    carat_error err = {0};
    int before = open_files();
    assert_false(gguf_open(memory, path_of("%s", first), &g, &err));
    if (strstr(err.message, why) == NULL) fail_msg("\"%s\" instead of \"%s\"", err.message, why);
    assert_int_equal(err.code, code);
    assert_int_equal(open_files(), before);
}

static void test_split_set(void **state) {
    (void)state;
    gguf *g;
    carat_error err = {0};
    int before = open_files();
    write_set();
    if (!gguf_open(memory, path_of(PART(1)), &g, &err)) fail_msg("%s", err.message);
    assert_int_equal(g->n_source, 3);
    assert_int_equal(g->n_tensor, 3);
    assert_int_equal(g->n_value, 3);
    const gguf_tensor *t = gguf_find_tensor(g, "c");
    assert_int_equal(t->size, 96);
    assert_ptr_equal(t->src, g->sources[2]);
    assert_int_equal(t->offset + t->size, t->src->size);
    assert_int_equal(g->file_bytes,
                     g->sources[0]->size + g->sources[1]->size + g->sources[2]->size);
    gguf_close(g);
    assert_int_equal(open_files(), before);
    remove_set();
}

static void test_split_refused(void **state) {
    (void)state;
    write_set();
    refuse_set(PART(2), CARAT_E_ARGUMENT, "is file 2 of 3; open the first one");
    unlink(path_of(PART(2)));
    refuse_set(PART(1), CARAT_E_NOT_FOUND, "file 2 of 3: ");
    write_part(PART(2), 2, 3, 3, "b");
    refuse_set(PART(1), CARAT_E_FORMAT, "should be file 2 of 3, but says it is file 3 of 3");
    write_part(PART(2), 1, 4, 3, "b");
    refuse_set(PART(1), CARAT_E_FORMAT, "but says it is file 2 of 4");
    write_part(PART(2), 1, 3, 3, "a");
    refuse_set(PART(1), CARAT_E_FORMAT, "tensor a occurs twice");
    unlink(path_of(PART(2)));
    assert_int_equal(symlink(path_of(PART(1)), path_of(PART(2))), 0); /* a cycle */
    refuse_set(PART(1), CARAT_E_FORMAT, "but says it is file 1 of 3");
    unlink(path_of(PART(2)));
    buf b = {0};
    put_head(&b, 0, 0);
    write_buf(PART(2), &b);
    refuse_set(PART(1), CARAT_E_FORMAT, "is not part of a split set");
    buf_puts(&b, "GGUF and then nothing");
    write_buf(PART(2), &b);
    refuse_set(PART(1), CARAT_E_UNSUPPORTED, PART(2));
    write_set();
    write_part(PART(1), 0, 3, 4, "a");
    refuse_set(PART(1), CARAT_E_FORMAT, "has 3 tensors instead of 4");
    write_part(PART(1), 0, 2, 3, "a");
    refuse_set(PART(1), CARAT_E_FORMAT, "is not named ...-00001-of-00002.gguf");
    write_part("m.gguf", 0, 3, 3, "a");
    refuse_set("m.gguf", CARAT_E_FORMAT, "is not named ...-00001-of-00003.gguf");
    unlink(path_of("m.gguf"));
    remove_set();
}

static void test_set_of_one(void **state) {
    (void)state;
    gguf *g;
    carat_error err = {0};
    for (uint32_t count = 0; count < 2; count++) {
        write_part("m.gguf", 0, count, 1, "a");
        if (!gguf_open(memory, path_of("m.gguf"), &g, &err)) fail_msg("%s", err.message);
        assert_int_equal(g->n_source, 1);
        gguf_close(g);
    }
    unlink(path_of("m.gguf"));
}

/* ---- memory, reading, time ---- */

/* Every call for memory fails once, with arenas that are full to every degree before. */
static void fail_everywhere(const char *path) {
    int before = open_files();
    for (size_t full = 0; full < 4096; full += 16) {
        bool ok = false;
        for (long at = 0; !ok; at++) {
            carat_error err = {0};
            gguf *g = NULL;
            arena *a = arena_create(&err);
            assert_non_null(arena_alloc(a, full, 1));
            n_malloc = 0;
            failing_at = at;
            ok = gguf_open(a, path, &g, &err);
            failing_at = -1;
            assert_int_equal(err.code, ok ? CARAT_OK : CARAT_E_MEMORY);
            if (ok) gguf_close(g);
            arena_free(a);
        }
    }
    assert_int_equal(open_files(), before);
}

static void test_out_of_memory(void **state) {
    (void)state;
    write_set();
    fail_everywhere(path_of(PART(1)));
    remove_set();
    buf b = {0};
    char text[32];
    put_head(&b, 100, 2);
    put_key(&b, "words", GGUF_ARRAY);
    put_number(&b, GGUF_STRING, 4);
    put_number(&b, 300, 8);
    for (int i = 0; i < 300; i++) put_string(&b, "a word of 18 bytes");
    put_key(&b, "numbers", GGUF_ARRAY);
    put_number(&b, GGUF_U8, 4);
    put_number(&b, 5000, 8);
    for (int i = 0; i < 5000; i++) put_number(&b, 1, 1);
    for (unsigned i = 0; i < 100; i++)
        put_tensor(&b, (sprintf(text, "blk.%u.weight", i), text), 8, QUANT_F32, 32 * i);
    put_data(&b, 32 * 100);
    write_buf("big.gguf", &b);
    fail_everywhere(path_of("big.gguf"));
    unlink(path_of("big.gguf"));
}

/* A source that fails, or changes under the reader, from a certain read on. */
static long n_read, bad_from;
static bool bad_changes;

static bool bad_read(source *s, uint64_t offset, void *dst, size_t n, carat_error *err) {
    memcpy(dst, (const char *)s->memory + offset, n);
    if (n_read++ < bad_from) return true;
    if (!bad_changes) return fail_read(err);
    memset(dst, 0x41, n);
    return true;
}

static void test_bad_sources(void **state) {
    (void)state;
    enum { N = 60000 }; /* more than fits one block, so the strings are read twice */
    buf b = {0};
    put_head(&b, 0, 1);
    put_key(&b, "words", GGUF_ARRAY);
    put_number(&b, GGUF_STRING, 4);
    put_number(&b, N, 8);
    for (int i = 0; i < N; i++) put_string(&b, "word");
    for (int round = 0; round < 20; round++) {
        source *s;
        gguf *g;
        carat_error err = {0};
        bad_from = round / 2;
        bad_changes = round % 2;
        n_read = 0;
        assert_true(source_memory(memory, "bad", b.data, b.len, &s, &err));
        s->read = bad_read;
        if (gguf_open_source(memory, s, &g, &err)) {
            assert_true(n_read <= bad_from);
            gguf_close(g);
        } else
            assert_true(err.code == (bad_changes ? CARAT_E_FORMAT : CARAT_E_IO) ||
                        strstr(err.message, "changed while it was read"));
    }
    buf_free(&b);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* As many strings as a real vocabulary has, and many tensors. */
static void test_real_size(void **state) {
    (void)state;
    enum { N_TOKEN = 262144, N_MERGE = 514906, N_TENSOR = 20000 };
    buf b = {0};
    char text[32];
    put_head(&b, N_TENSOR, 3);
    put_key(&b, "tokens", GGUF_ARRAY);
    put_number(&b, GGUF_STRING, 4);
    put_number(&b, N_TOKEN, 8);
    for (int i = 0; i < N_TOKEN; i++) put_string(&b, (sprintf(text, "token%d", i), text));
    put_key(&b, "merges", GGUF_ARRAY);
    put_number(&b, GGUF_STRING, 4);
    put_number(&b, N_MERGE, 8);
    for (int i = 0; i < N_MERGE; i++) put_string(&b, (sprintf(text, "left%d right", i), text));
    put_key(&b, "types", GGUF_ARRAY);
    put_number(&b, GGUF_I32, 4);
    put_number(&b, N_TOKEN, 8);
    for (int i = 0; i < N_TOKEN; i++) put_number(&b, 1, 4);
    for (uint64_t i = 0; i < N_TENSOR; i++)
        put_tensor(&b, (sprintf(text, "blk.%" PRIu64 ".w", i), text), 8, QUANT_F32, 32 * i);
    put_data(&b, 32 * N_TENSOR);
    write_buf("big.gguf", &b);

    carat_error err = {0};
    gguf *g;
    arena *a = arena_create(&err);
    double start = seconds();
    if (!gguf_open(a, path_of("big.gguf"), &g, &err)) fail_msg("%s", err.message);
    double took = seconds() - start;
    const gguf_string *merges = gguf_find(g, "merges")->as.items;
    assert_string_equal(merges[N_MERGE - 1].text, "left514905 right");
    assert_string_equal(merges[70000].text, "left70000 right");
    print_message("%.0f ms, %.1f MiB\n", took * 1e3, (double)arena_bytes(a) / 1048576);
    assert_true(took < 2);
    assert_true(arena_bytes(a) < 40 << 20);
    gguf_close(g);
    arena_free(a);
    unlink(path_of("big.gguf"));
}

/* Offsets beyond 32 bits, in a file with a hole. */
static void test_more_than_4_gib(void **state) {
    (void)state;
    const uint64_t n = UINT64_C(5) << 28; /* floats */
    buf b = {0};
    float last[8] = {0};
    put_head(&b, 2, 0);
    put_tensor(&b, "large", n, QUANT_F32, 0);
    put_tensor(&b, "last", 8, QUANT_F32, 4 * n);
    put_data(&b, 0);
    uint64_t end = b.len + 4 * n + 32;
    write_buf("large.gguf", &b);
    if (truncate(path_of("large.gguf"), (off_t)end) != 0) {
        unlink(path_of("large.gguf"));
        print_message("NO ROOM for a sparse file of 5 GiB\n");
        skip();
    }
    int fd = open(path_of("large.gguf"), O_WRONLY);
    assert_int_equal(pwrite(fd, &(float){1.5f}, 4, (off_t)end - 4), 4);
    close(fd);
    gguf *g;
    carat_error err = {0};
    if (!gguf_open(memory, path_of("large.gguf"), &g, &err)) fail_msg("%s", err.message);
    const gguf_tensor *t = gguf_find_tensor(g, "last");
    assert_true(gguf_find_tensor(g, "large")->size == 4 * n && t->offset == end - 32);
    assert_true(source_read(t->src, t->offset, last, sizeof last, &err));
    assert_true(last[7] == 1.5f && last[0] == 0);
    gguf_close(g);
    unlink(path_of("large.gguf"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split_set),       cmocka_unit_test(test_split_refused),
        cmocka_unit_test(test_set_of_one),      cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_bad_sources),     cmocka_unit_test(test_real_size),
        cmocka_unit_test(test_more_than_4_gib),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
