/* source: bytes with a size, read at an offset. Owns the checks that no read leaves the file; does
 * not cache, and does not know what the bytes mean. Also writes whole files.
 *
 * Flow: first of all; gguf.c and safetensors.c read through it. */
#include "file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef O_CLOEXEC
#define O_CLOEXEC 0
#endif

/* One system call moves at most this much: some systems refuse more than 2 GiB. */
enum { CALL_MAX = 1 << 30 };

static bool fail_errno(carat_error *err, const char *path, const char *verb) {
    int e = errno;
    if (e == ENOENT || e == ENOTDIR) return fail(err, CARAT_E_NOT_FOUND, "%s: no such file", path);
    if (e == ENOSPC) return fail(err, CARAT_E_IO, "%s: cannot %s: the disk is full", path, verb);
    return fail(err, CARAT_E_IO, "%s: cannot %s: %s", path, verb, strerror(e));
}

static bool file_read(source *s, uint64_t offset, void *dst, size_t n, carat_error *err) {
    char *to = dst;
    while (n > 0) {
        ssize_t got = pread(s->fd, to, n < CALL_MAX ? n : CALL_MAX, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail_errno(err, s->name, "read");
        if (got == 0) return fail(err, CARAT_E_IO, "%s: became shorter while it was read", s->name);
        to += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return true;
}

static void file_close(source *s) {
    close(s->fd);
    s->fd = -1;
}

bool source_open(arena *a, const char *path, source **out, carat_error *err) {
    struct stat st;
    source *s = arena_alloc(a, 1, sizeof *s);
    char *name = arena_copy(a, path, strlen(path));
    if (s == NULL || name == NULL) return fail_memory(err, sizeof *s, path);
    /* O_NONBLOCK: do not hang on a pipe before it is seen to be one. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return fail_errno(err, path, "open");
    bool ok = fstat(fd, &st) == 0 ? true : fail_errno(err, path, "open");
    if (ok && !S_ISREG(st.st_mode)) ok = fail(err, CARAT_E_IO, "%s: is not a regular file", path);
    if (!ok) {
        close(fd);
        return false;
    }
    *s = (source){name, (uint64_t)st.st_size, file_read, file_close, NULL, fd};
    *out = s;
    return true;
}

static bool memory_read(source *s, uint64_t offset, void *dst, size_t n, carat_error *err) {
    (void)err;
    memcpy(dst, (const char *)s->memory + (size_t)offset, n);
    return true;
}

static void memory_close(source *s) { s->memory = NULL; }

bool source_memory(arena *a, const char *name, const void *data, size_t n, source **out,
                   carat_error *err) {
    source *s = arena_alloc(a, 1, sizeof *s);
    char *copy = arena_copy(a, name, strlen(name));
    if (s == NULL || copy == NULL) return fail_memory(err, sizeof *s, name);
    *s = (source){copy, n, memory_read, memory_close, data, -1};
    *out = s;
    return true;
}

bool source_read(source *s, uint64_t offset, void *dst, size_t n, carat_error *err) {
    if (offset > s->size || n > s->size - offset)
        return fail(err, CARAT_E_FORMAT,
                    "%s: ends at byte %" PRIu64 ", but %zu bytes at %" PRIu64 " were expected",
                    s->name, s->size, n, offset);
    return n == 0 || s->read(s, offset, dst, n, err);
}

void source_close(source *s) {
    if (s && s->close) {
        s->close(s);
        s->close = NULL;
    }
}

/* ---- writing ------------------------------------------------------------------------------ */

static bool write_all(int fd, const file_part *part) {
    const char *data = part->data;
    size_t n = part->n;
    while (n > 0) {
        ssize_t put = write(fd, data, n < CALL_MAX ? n : CALL_MAX);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return false;
        data += put;
        n -= (size_t)put;
    }
    return true;
}

/* The name in the directory is durable only once the directory is written too; where a system
 * cannot do that, the file itself is complete all the same. */
static void sync_directory(char *path) {
    char *slash = strrchr(path, '/');
    if (slash) slash[1] = 0;
    int fd = open(slash ? path : ".", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

bool file_write_parts(const char *path, const file_part *parts, size_t n, carat_error *err) {
    buf beside = {0};
    buf_printf(&beside, "%s.part-%ld", path, (long)getpid());
    if (beside.failed) {
        buf_free(&beside);
        return fail_memory(err, strlen(path), "a file name");
    }
    unlink(beside.data); /* left by a crash of a process with our number */
    int fd = open(beside.data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    bool ok = fd >= 0 || fail_errno(err, path, "write");
    if (ok) {
        for (size_t i = 0; ok && i < n; i++) ok = write_all(fd, &parts[i]);
        ok = (ok && fsync(fd) == 0) || fail_errno(err, path, "write");
        if (close(fd) != 0 && ok) ok = fail_errno(err, path, "write");
        if (ok && rename(beside.data, path) != 0) ok = fail_errno(err, path, "replace");
        if (!ok) unlink(beside.data);
    }
    if (ok) sync_directory(beside.data);
    buf_free(&beside);
    return ok;
}

bool file_write(const char *path, const void *data, size_t n, carat_error *err) {
    return file_write_parts(path, &(file_part){data, n}, 1, err);
}
