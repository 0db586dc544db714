/* media_no_stb: built when stb_image's header is missing. */
#include "media.h"

bool has_stb(void) { return false; }

bool stb_decode(const uint8_t *data, size_t n, pixels *p, const char **why) {
    (void)data;
    (void)n;
    (void)p;
    *why = "this carat was built without stb_image (Debian: libstb-dev)";
    return false;
}
