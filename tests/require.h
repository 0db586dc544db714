/* require: calls that can fail, in a test: they succeed, or fail as they should; if not, the test
 * fails with their sentence. With cmocka, so it comes after carat's headers: that has a macro
 * fail(). */
#ifndef CARAT_TESTS_REQUIRE_H
#define CARAT_TESTS_REQUIRE_H

#include "carat.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

static carat_error err;

#define REQUIRE(call)                                                                              \
    do {                                                                                           \
        err = (carat_error){0};                                                                    \
        if (!(call)) fail_msg("%s: %s", #call, err.message);                                       \
    } while (0)

/* The call fails with this code, and says this. */
#define REFUSE(call, wanted, words)                                                                \
    do {                                                                                           \
        err = (carat_error){0};                                                                    \
        if (call) fail_msg("%s: did not fail", #call);                                             \
        if (err.code != (wanted)) fail_msg("%s: code %d, %s", #call, (int)err.code, err.message);  \
        if (!strstr(err.message, words)) fail_msg("%s: says %s", #call, err.message);              \
    } while (0)

#endif
