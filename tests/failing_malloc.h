/* Memory that runs out on demand: arena.c, the only place that allocates, is compiled into the
 * test with an allocator that fails at its n-th call. So the library's own arena.o stays out.
 *
 *     for (failing_at = 0; ...; failing_at++) { n_malloc = 0; run(); }    every call fails once
 *
 * Include before cmocka.h. */
#ifndef FAILING_MALLOC_H
#define FAILING_MALLOC_H

#include <stdlib.h>

static long failing_at = -1; /* which call fails; -1: none */
static long n_malloc;        /* calls so far */
static long n_living;        /* blocks not yet freed */

static void *failing_malloc(size_t n) {
    if (n_malloc++ == failing_at) return NULL;
    n_living++;
    return malloc(n);
}

static void *failing_realloc(void *old, size_t n) {
    if (n_malloc++ == failing_at) return NULL;
    if (old == NULL) n_living++;
    return realloc(old, n);
}

static void failing_free(void *p) {
    if (p) n_living--;
    free(p);
}

#define malloc  failing_malloc
#define realloc failing_realloc
#define free    failing_free
#include "base/arena.c"
#undef malloc
#undef realloc
#undef free

#endif
