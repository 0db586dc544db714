/* The arena that the tests of a program share, of an allocator that counts; afterwards nothing may
 * be left. memory_setup(), memory_teardown(): for the group of tests. */
#ifndef TEST_MEMORY_H
#define TEST_MEMORY_H

#include "failing_malloc.h"

/* After carat's headers: it has a macro fail(). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static arena *memory;

static inline int memory_setup(void **state) {
    (void)state;
    memory = arena_create(NULL);
    return memory == NULL;
}

static inline int memory_teardown(void **state) {
    (void)state;
    arena_free(memory);
    assert_int_equal(n_living, 0);
    return 0;
}

#endif
