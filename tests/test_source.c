/* Sources: bytes in memory and in files; files written whole. */
#include "file/file.h"
#include "temp_dir.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static int setup(void **state) { return memory_setup(state) || !make_dir(); }

static int teardown(void **state) {
    return memory_teardown(state) || rmdir(dir); /* every test removes its files */
}

static int open_files(void) {
    int n = 0;
    for (int fd = 0; fd < 256; fd++) n += fcntl(fd, F_GETFD) != -1;
    return n;
}

static void test_memory_source(void **state) {
    (void)state;
    source *s;
    char out[8] = "";
    assert_true(source_memory(memory, "bytes", "abcdef", 6, &s, NULL));
    assert_true(source_read(s, 2, out, 4, NULL));
    assert_memory_equal(out, "cdef", 4);
    assert_true(source_read(s, 6, out, 0, NULL));
    static const struct {
        uint64_t offset;
        size_t n;
    } outside[] = {{0, 7}, {6, 1}, {7, 0}, {UINT64_MAX, 1}, {5, SIZE_MAX}, {UINT64_MAX, SIZE_MAX}};
    for (size_t i = 0; i < COUNT(outside); i++) {
        carat_error err = {0};
        assert_false(source_read(s, outside[i].offset, out, outside[i].n, &err));
        assert_int_equal(err.code, CARAT_E_FORMAT);
    }
    source_close(s);
    source_close(s);
    source_close(NULL);
}

static void refuse_file(const char *path, carat_code code, const char *why) {
    source *s;
    carat_error err = {0};
    int before = open_files();
    assert_false(source_open(memory, path, &s, &err));
    assert_int_equal(err.code, code);
    if (strstr(err.message, why) == NULL) fail_msg("\"%s\" instead of \"%s\"", err.message, why);
    assert_int_equal(open_files(), before);
}

static void test_file_source(void **state) {
    (void)state;
    source *s;
    char out[8] = "";
    carat_error err = {0};
    refuse_file(path_of("none"), CARAT_E_NOT_FOUND, "no such file");
    refuse_file(dir, CARAT_E_IO, "is not a regular file");
    assert_int_equal(mkfifo(path_of("pipe"), 0600), 0);
    refuse_file(path_of("pipe"), CARAT_E_IO, "is not a regular file");
    unlink(path_of("pipe"));
    assert_true(file_write(path_of("f"), "abcdef", 6, &err));
    assert_true(source_open(memory, path_of("f"), &s, &err));
    assert_int_equal(s->size, 6);
    assert_true(source_read(s, 3, out, 3, &err));
    assert_memory_equal(out, "def", 3);
    assert_int_equal(truncate(path_of("f"), 4), 0);
    assert_false(source_read(s, 3, out, 3, &err));
    assert_int_equal(err.code, CARAT_E_IO);
    assert_non_null(strstr(err.message, "became shorter"));
    source_close(s);
    unlink(path_of("f"));
}

static void test_file_write(void **state) {
    (void)state;
    source *s;
    char out[4];
    carat_error err = {0};
    assert_true(file_write(path_of("f"), "old", 3, &err));
    assert_false(file_write(path_of("none/f"), "x", 1, &err));
    assert_int_equal(err.code, CARAT_E_NOT_FOUND);

    /* A file that cannot be written whole leaves the old one, and nothing beside it. */
    struct rlimit limit, small;
    char big[8192] = {0};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = (struct rlimit){4096, limit.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    err = (carat_error){0};
    bool ok = file_write(path_of("f"), big, sizeof big, &err);
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_false(ok);
    assert_int_equal(err.code, CARAT_E_IO);
    assert_true(source_open(memory, path_of("f"), &s, NULL));
    assert_int_equal(s->size, 3);
    source_close(s);

    err = (carat_error){0};
    assert_true(file_write(path_of("f"), "new!", 4, &err));
    assert_true(source_open(memory, path_of("f"), &s, &err));
    assert_true(source_read(s, 0, out, 4, &err));
    assert_memory_equal(out, "new!", 4);
    source_close(s);
    failing_at = n_malloc;
    assert_false(file_write(path_of("f"), "x", 1, &err));
    failing_at = -1;
    unlink(path_of("f"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_source),
        cmocka_unit_test(test_file_source),
        cmocka_unit_test(test_file_write),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
