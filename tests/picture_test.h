/* What the tests of picture files share: decoding one from memory and comparing its pixels. */
#ifndef CARAT_PICTURE_TEST_H
#define CARAT_PICTURE_TEST_H

#include "../cli/media.h"
#include "picture_file.h"

#include "require.h" /* after carat's headers */

#include <stdlib.h>
#include <string.h>

#define REFUSES(text, call)                                                                        \
    do {                                                                                           \
        err = (carat_error){0};                                                                    \
        assert_false(call);                                                                        \
        if (!strstr(err.message, text)) fail_msg("%s", err.message);                               \
    } while (0)

static inline bool decode(const buf *b, media_list *l) {
    return media_add_bytes(l, CARAT_MEDIA_IMAGE, "p", (const uint8_t *)b->data, b->len, &err);
}

/* The pixels of a file, which is freed, within `slack` levels. */
static inline void check_pixels(buf *b, uint32_t width, uint32_t height, const uint8_t *want,
                                int slack) {
    media_list l = {0};
    REQUIRE(decode(b, &l));
    assert_int_equal(l.n, 1);
    assert_int_equal(l.items[0].width, width);
    assert_int_equal(l.items[0].height, height);
    for (uint32_t i = 0; i < width * height * 3; i++)
        if (abs(l.items[0].rgb[i] - want[i]) > slack)
            fail_msg("byte %u is %u, not %u", i, l.items[0].rgb[i], want[i]);
    media_cut(&l, 0);
    assert_int_equal(l.bytes, 0);
    buf_free(b);
}

/* A file, which is freed, is refused in a sentence that has `text` in it. */
static inline void refused(buf *b, const char *text) {
    media_list l = {0};
    REFUSES(text, decode(b, &l));
    assert_int_equal(l.n, 0);
    buf_free(b);
}

#endif
