/* A directory of the test's own, and paths in it. Who makes files removes them. */
#ifndef TEMP_DIR_H
#define TEMP_DIR_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static bool make_dir(void) {
    snprintf(dir, sizeof dir, "/tmp/carat-test-%ld", (long)getpid());
    return mkdir(dir, 0700) == 0;
}

#endif
