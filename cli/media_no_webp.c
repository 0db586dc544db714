/* media_no_webp: built when libwebp's header is missing. */
#include "media.h"

static const char reason[] = "this carat was built without libwebp (Debian: libwebp-dev)";

bool has_webp(void) { return false; }

bool webp_size(const uint8_t *data, size_t n, pixels *out, const char **why) {
    (void)data;
    (void)n;
    (void)out;
    *why = reason;
    return false;
}

bool webp_decode(const uint8_t *data, size_t n, pixels *p, const char **why) {
    (void)data;
    (void)n;
    (void)p;
    *why = reason;
    return false;
}
