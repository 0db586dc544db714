/* clock: what the engine knows of time.
 *
 * Flow: jobs measure with it, gpu_dawn.c paces its waiting by it. */
#include "base/base.h"

#include <time.h>

double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
