/* media_image: the bytes of a picture to RGB: chooses the decoder, refuses what decoders would show
 * wrong, puts what is transparent on white and turns what EXIF says is turned.
 *
 * Flow: media.c before; media_probe.c, media_stb.c and media_webp.c do the parts. */
#include "media.h"

#include <stdlib.h>
#include <string.h>

static bool unknown_picture(const char *what, const uint8_t *data, size_t n, carat_error *err) {
    const char *kind = file_kind(data, n);
    if (n == 0) return fail(err, CARAT_E_FORMAT, "%s: empty, not a picture", what);
    return fail(err, CARAT_E_UNSUPPORTED,
                "%s: not a picture that carat reads (PNG, JPEG, WebP, GIF, BMP)%s%s", what,
                kind ? "; it looks like " : "", kind ? kind : "");
}

static bool check_jpeg(const char *what, const jpeg_info *j, carat_error *err) {
    if (j->n_component == 4 && !j->adobe)
        return fail(err, CARAT_E_UNSUPPORTED,
                    "%s: a JPEG of four colours that does not say which; save it as RGB", what);
    if (j->arithmetic || (j->n_bit && j->n_bit != 8))
        return fail(err, CARAT_E_UNSUPPORTED,
                    "%s: a JPEG in a coding that carat does not read; save it as baseline or "
                    "progressive, with 8 bits",
                    what);
    if (j->fault) return fail(err, CARAT_E_FORMAT, "%s: the JPEG is damaged: %s", what, j->fault);
    return j->whole || fail(err, CARAT_E_FORMAT, "%s: the JPEG is cut short", what);
}

/* What decoders are lax about; *orientation as EXIF has it. */
static bool check(const char *what, picture_format format, const uint8_t *data, size_t n,
                  uint32_t *orientation, carat_error *err) {
    jpeg_info j = {.orientation = 1};
    if (format == PICTURE_JPEG) {
        jpeg_scan(data, n, &j);
        *orientation = j.orientation;
        return check_jpeg(what, &j, err);
    }
    if (format == PICTURE_GIF && !gif_whole(data, n))
        return fail(err, CARAT_E_FORMAT, "%s: the GIF is cut short", what);
    if (format == PICTURE_BMP && !bmp_whole(data, n))
        return fail(err, CARAT_E_FORMAT, "%s: the BMP is cut short", what);
    if (format == PICTURE_BMP && !bmp_coloured(data, n))
        return fail(err, CARAT_E_FORMAT,
                    "%s: the BMP has pixels whose colours cannot be read from its palette", what);
    return true;
}

static bool check_size(const char *what, const pixels *p, carat_error *err) {
    if (p->width == 0 || p->height == 0)
        return fail(err, CARAT_E_FORMAT, "%s: a picture without pixels", what);
    if (p->width <= MEDIA_MAX_SIDE && p->height <= MEDIA_MAX_SIDE &&
        (uint64_t)p->width * p->height <= MEDIA_MAX_PIXELS)
        return true;
    return fail(err, CARAT_E_UNSUPPORTED,
                "%s: %u x %u pixels; carat takes %u million, and %u on a side", what, p->width,
                p->height, MEDIA_MAX_PIXELS / 1000000, MEDIA_MAX_SIDE);
}

/* RGBA to RGB in place. */
static void put_on_white(pixels *p) {
    const size_t n = (size_t)p->width * p->height;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *from = p->data + 4 * i;
        const uint32_t alpha = from[3];
        for (size_t k = 0; k < 3; k++)
            p->data[3 * i + k] = (uint8_t)((from[k] * alpha + 255 * (255 - alpha) + 127) / 255);
    }
    p->n_channel = 3;
    uint8_t *smaller = realloc(p->data, n * 3);
    if (smaller) p->data = smaller;
}

/* RGB [height, width, 3] so that EXIF's orientation becomes 1. */
static bool turn(pixels *p, uint32_t orientation) {
    const bool transposed = orientation >= 5;
    const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 ||
                            orientation == 8; /* as its columns, seen in the file */
    const bool from_below =
        orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const uint32_t width = transposed ? p->height : p->width;
    const uint32_t height = transposed ? p->width : p->height;
    uint8_t *out = malloc((size_t)width * height * 3), *to = out;
    if (!out) return false;
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++, to += 3) {
            uint32_t col = transposed ? y : x, row = transposed ? x : y;
            if (from_right) col = p->width - 1 - col;
            if (from_below) row = p->height - 1 - row;
            memcpy(to, p->data + 3 * ((size_t)row * p->width + col), 3);
        }
    free(p->data);
    *p = (pixels){out, width, height, 3};
    return true;
}

bool image_decode(const char *what, const uint8_t *data, size_t n, carat_media *out,
                  carat_error *err) {
    const picture_format format = picture_probe(data, n);
    const bool is_webp = format == PICTURE_WEBP;
    uint32_t orientation = 1;
    pixels p = {0};
    const char *why = NULL;
    if (format == PICTURE_UNKNOWN) return unknown_picture(what, data, n, err);
    if (!check(what, format, data, n, &orientation, err)) return false;
    if (is_webp && !webp_size(data, n, &p, &why))
        return fail(err, CARAT_E_FORMAT, "%s: %s cannot be read: %s", what, file_kind(data, n),
                    why);
    if (!is_webp && !picture_size(data, n, &p.width, &p.height))
        return fail(err, CARAT_E_FORMAT, "%s: %s, cut short", what, file_kind(data, n));
    if (!check_size(what, &p, err)) return false;
    p.n_channel = format == PICTURE_JPEG ? 3 : 4;
    if (!(is_webp ? webp_decode : stb_decode)(data, n, &p, &why))
        return fail(err, CARAT_E_FORMAT, "%s: %s cannot be read: %s", what, file_kind(data, n),
                    why);
    if (p.n_channel == 4) put_on_white(&p);
    if (orientation > 1 && !turn(&p, orientation)) {
        free(p.data);
        return fail_memory(err, (uint64_t)p.width * p.height * 3, what);
    }
    *out = (carat_media){
        .kind = CARAT_MEDIA_IMAGE, .rgb = p.data, .width = p.width, .height = p.height};
    return true;
}
