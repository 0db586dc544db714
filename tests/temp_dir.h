/* A directory of the test's own, and paths in it. Who makes files removes them. */
#ifndef TEMP_DIR_H
#define TEMP_DIR_H

#include "test_memory.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static bool make_dir(void) {
    snprintf(dir, sizeof dir, "/tmp/carat-test-%ld", (long)getpid());
    return mkdir(dir, 0700) == 0;
}

/* A path below it. */
static char *path_of(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *path_of(const char *fmt, ...) {
    char rest[512], *path = arena_alloc(memory, 600, 1);
    va_list args;
    va_start(args, fmt);
    vsnprintf(rest, sizeof rest, fmt, args);
    va_end(args);
    assert_non_null(path);
    snprintf(path, 600, "%s/%s", dir, rest);
    return path;
}

#endif
