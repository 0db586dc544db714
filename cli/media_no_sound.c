/* media_no_sound: built when libsndfile's header is missing. */
#include "media.h"

const char *sound_library(void) { return NULL; }

bool sound_decode(const char *what, const sound_source *src, carat_media *out, carat_error *err) {
    (void)src;
    (void)out;
    return fail(err, CARAT_E_UNSUPPORTED,
                "%s: this carat was built without libsndfile, which reads sounds (Debian: "
                "libsndfile1-dev)",
                what);
}
