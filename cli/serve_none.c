/* serve_none: stands in for all of `carat serve` where the header of libmicrohttpd was missing when
 * carat was built. */
#include "serve.h"

int serve_start(const settings *s, const char *const *models, size_t n) {
    (void)s;
    (void)models;
    (void)n;
    fprintf(stderr, "carat: serve: this carat was built without libmicrohttpd; install "
                    "libmicrohttpd-dev and build it again\n");
    return EXIT_ERROR;
}
