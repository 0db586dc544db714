/* on_device: runs a group of tests on a device by name: the CPU, then a GPU where there is one. */
#ifndef CARAT_TESTS_ON_DEVICE_H
#define CARAT_TESTS_ON_DEVICE_H

#include "base/base.h"
#include "file/file.h"

#include "require.h" /* after carat's headers */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *device_name = "cpu"; /* what open_talk() opens */
static uint32_t token_limit;            /* of an answer; 0: none. A GPU in software is slow. */

static inline void no_such_device(void **state) {
    (void)state;
    err = (carat_error){0};
    carat_device_open(device_name, &err);
    printf("SKIPPED: the tests on a %s: %s\n", device_name, err.message);
    skip();
}

/* Whether device_name can be opened; answers are short when it is a GPU in software. */
static inline bool have_device(void) {
    carat_device *dev = carat_device_open(device_name, NULL);
    token_limit = dev && strstr(carat_device_name(dev), "SwiftShader") ? 2 : 0;
    carat_device_close(dev);
    return dev != NULL;
}

/* Runs the tests with the device `name`, or one that is skipped when it cannot be opened. */
#define RUN_ON(name, group, tests, setup, teardown)                                                \
    (device_name = (name),                                                                         \
     have_device() ? cmocka_run_group_tests_name(group, tests, setup, teardown)                    \
                   : cmocka_run_group_tests_name(                                                  \
                         group, ((const struct CMUnitTest[]){cmocka_unit_test(no_such_device)}),   \
                         NULL, NULL))

/* For tests whose point is a long answer. */
#define NEEDS_A_FAST_DEVICE()                                                                      \
    do {                                                                                           \
        if (token_limit) {                                                                         \
            printf("skipped on a GPU in software: too slow\n");                                    \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

#endif
