/* media_probe: what the bytes of a file are, told by its first ones and never by its name; whether
 * a picture or a sound goes on to its end, which decoders are lax about; how a JPEG is turned, and
 * whether its segments are what stb_image believes they are. Every offset in these bytes may be a
 * lie.
 *
 * Flow: media.c before; media_image.c and media_sound.c after. */
#include "media.h"

#include <string.h>

static uint32_t little(const uint8_t *p, size_t n) {
    uint32_t v = 0;
    for (size_t i = n; i > 0; i--) v = v << 8 | p[i - 1];
    return v;
}

static uint32_t big(const uint8_t *p, size_t n) {
    uint32_t v = 0;
    for (size_t i = 0; i < n; i++) v = v << 8 | p[i];
    return v;
}

/* ---- what it is ---- */

typedef struct magic {
    size_t at;
    const char *bytes;
    size_t n;
    const char *name;
    picture_format format;
} magic;

#define MAGIC(at, bytes, name, format)                                                             \
    { at, bytes, sizeof bytes - 1, name, format }

static const magic magics[] = {
    MAGIC(0, "\x89PNG\r\n\x1a\n", "a PNG picture", PICTURE_PNG),
    MAGIC(0, "\xff\xd8\xff", "a JPEG picture", PICTURE_JPEG),
    MAGIC(0, "GIF87a", "a GIF picture", PICTURE_GIF),
    MAGIC(0, "GIF89a", "a GIF picture", PICTURE_GIF),
    MAGIC(0, "BM", "a BMP picture", PICTURE_BMP),
    MAGIC(8, "WEBPVP8", "a WebP picture", PICTURE_WEBP),
    MAGIC(0, "II*\0", "a TIFF picture", PICTURE_UNKNOWN),
    MAGIC(0, "MM\0*", "a TIFF picture", PICTURE_UNKNOWN),
    MAGIC(4, "ftyphei", "a HEIC picture", PICTURE_UNKNOWN),
    MAGIC(4, "ftypmif1", "a HEIF picture", PICTURE_UNKNOWN),
    MAGIC(4, "ftypavif", "an AVIF picture", PICTURE_UNKNOWN),
    MAGIC(4, "ftypM4A", "an MPEG-4 sound", PICTURE_UNKNOWN),
    MAGIC(4, "ftyp", "an MPEG-4 video", PICTURE_UNKNOWN),
    MAGIC(0, "\x1a\x45\xdf\xa3", "a Matroska or WebM video", PICTURE_UNKNOWN),
    MAGIC(8, "AVI ", "an AVI video", PICTURE_UNKNOWN),
    MAGIC(8, "WAVE", "a WAV sound", PICTURE_UNKNOWN),
    MAGIC(8, "AIFF", "an AIFF sound", PICTURE_UNKNOWN),
    MAGIC(0, "fLaC", "a FLAC sound", PICTURE_UNKNOWN),
    MAGIC(0, "OggS", "an Ogg sound", PICTURE_UNKNOWN),
    MAGIC(0, "ID3", "an MP3 sound", PICTURE_UNKNOWN),
    MAGIC(0, "PK\3\4", "a ZIP archive", PICTURE_UNKNOWN),
    MAGIC(0, "\x1f\x8b", "a gzip archive", PICTURE_UNKNOWN),
    MAGIC(0, "7z\xbc\xaf", "a 7z archive", PICTURE_UNKNOWN),
    MAGIC(0, "%PDF", "a PDF document", PICTURE_UNKNOWN),
    MAGIC(0, "8BPS", "a Photoshop picture", PICTURE_UNKNOWN),
    MAGIC(0, "GGUF", "a GGUF model", PICTURE_UNKNOWN),
    MAGIC(0, "<svg", "an SVG drawing", PICTURE_UNKNOWN),
    MAGIC(0, "<?xml", "XML, perhaps an SVG drawing", PICTURE_UNKNOWN),
    MAGIC(0, "<!DOCTYPE html", "a web page", PICTURE_UNKNOWN),
    MAGIC(0, "<html", "a web page", PICTURE_UNKNOWN),
};

static const magic *find_magic(const uint8_t *data, size_t n) {
    for (size_t i = 0; i < COUNT(magics); i++) {
        const magic *m = &magics[i];
        if (n >= m->at + m->n && memcmp(data + m->at, m->bytes, m->n) == 0) return m;
    }
    return NULL;
}

picture_format picture_probe(const uint8_t *data, size_t n) {
    const magic *m = find_magic(data, n);
    return m ? m->format : PICTURE_UNKNOWN;
}

const char *file_kind(const uint8_t *data, size_t n) {
    const magic *m = find_magic(data, n);
    return m ? m->name : NULL;
}

/* ---- JPEG: a list of segments, FF MARKER LENGTH(2) ..., between which are scans ---- */

/* The orientation in EXIF data, a TIFF file of its own; 1: not told. */
static uint32_t exif_orientation(const uint8_t *p, size_t n) {
    enum { ORIENTATION = 0x0112, SHORT = 3, LONG = 4, ENTRY = 12 };
    if (n < 8) return 1;
    bool is_little = memcmp(p, "II*\0", 4) == 0;
    if (!is_little && memcmp(p, "MM\0*", 4) != 0) return 1;
    uint32_t (*number)(const uint8_t *, size_t) = is_little ? little : big;
    uint64_t at = number(p + 4, 4);
    if (at + 2 > n) return 1;
    uint32_t n_entry = number(p + at, 2);
    at += 2;
    for (uint32_t i = 0; i < n_entry && at + ENTRY <= n; i++, at += ENTRY) {
        if (number(p + at, 2) != ORIENTATION) continue;
        uint32_t type = number(p + at + 2, 2), count = number(p + at + 4, 4);
        if (count != 1 || (type != SHORT && type != LONG)) return 1;
        uint32_t value = number(p + at + 8, type == SHORT ? 2 : 4);
        return value >= 1 && value <= 8 ? value : 1;
    }
    return 1;
}

/* What the segments up to a place have brought. Of a set, bit i: number i is there. */
typedef struct jpeg_state {
    jpeg_info *info;
    const uint8_t *components; /* [n_component, 3] an id, how dense, its table of steps; or NULL */
    bool progressive;
    uint32_t steps; /* tables of quantisation */
    uint32_t codes; /* tables of codes: from 0 of the averages (DC), from 16 of the rest (AC) */
    uint32_t begun; /* components whose averages are there */
    uint32_t n_scan;
} jpeg_state;

static bool is_in(uint32_t set, uint32_t i) { return i < 32 && (set >> i & 1); }

/* Tables, each of a byte and of 64 numbers of one or two bytes. */
static bool take_steps(jpeg_state *s, const uint8_t *p, size_t n) {
    for (size_t at = 0; at < n;) {
        const size_t size = p[at] & 0x10 ? 129 : 65;
        if (p[at] & ~0x13 || size > n - at) return false;
        s->steps |= 1u << (p[at] & 3);
        at += size;
    }
    return true;
}

/* Tables, each of a byte, the number of codes of 1 to 16 bits, and a byte for each code. Codes
 * count up from 0 and none is all ones. No picture needs as many as MOST, and stb_image would take
 * one more for none. */
static bool take_codes(jpeg_state *s, const uint8_t *p, size_t n) {
    enum { HEAD = 17, MOST = 255 };
    for (size_t at = 0; at < n;) {
        uint32_t n_code = 0, next = 0;
        if (n - at < HEAD || p[at] & ~0x13) return false;
        for (uint32_t len = 1; len < HEAD; len++) {
            n_code += p[at + len];
            next = 2 * next + p[at + len];
            if (next >= 1u << len) return false;
        }
        if (n_code > MOST || n_code > n - at - HEAD) return false;
        s->codes |= 1u << p[at];
        at += HEAD + n_code;
    }
    return true;
}

static bool take_frame(jpeg_state *s, uint8_t marker, const uint8_t *p, size_t n) {
    if (s->components || n < 6 || p[5] < 1 || p[5] > 4 || n != 6 + 3 * (size_t)p[5]) return false;
    s->info->n_bit = p[0];
    s->info->height = big(p + 1, 2);
    s->info->width = big(p + 3, 2);
    s->info->n_component = p[5];
    s->info->arithmetic = marker > 0xc2;
    s->progressive = marker == 0xc2;
    s->components = p + 6;
    return true;
}

/* Whether what a scan names is there: components, each with its two tables of codes, and what it
 * brings of them. */
static bool take_scan(jpeg_state *s, const uint8_t *p, size_t n) {
    if (!s->components || n < 4 || n != 4 + 2 * (size_t)p[0]) return false;
    const uint8_t *band = p + n - 3; /* the first and the last frequency, and which of their bits */
    const bool averages = !s->progressive || (band[0] == 0 && band[2] < 0x10);
    const bool rest = !s->progressive || band[0] > 0;
    for (const uint8_t *named = p + 1; named < band; named += 2) {
        uint32_t i = 0;
        while (i < s->info->n_component && s->components[3 * i] != named[0]) i++;
        if (i == s->info->n_component || !is_in(s->steps, s->components[3 * i + 2])) return false;
        if (averages && !is_in(s->codes, named[1] >> 4)) return false;
        if (rest && !is_in(s->codes, 16 + (named[1] & 15))) return false;
        if (averages) s->begun |= 1u << i;
    }
    return true;
}

/* The segment of marker with body [n]. */
static void jpeg_segment(jpeg_state *s, uint8_t marker, const uint8_t *body, size_t n) {
    enum { CODES = 0xc4, SCAN = 0xda, STEPS = 0xdb, APP1 = 0xe1, APP14 = 0xee };
    enum { MOST_SCANS = 100 }; /* a scan of a few bytes takes as long as the picture is large */
    static const char exif[6] = "Exif\0", adobe[5] = "Adobe";
    const bool is_frame =
        marker >= 0xc0 && marker <= 0xcf && marker != CODES && marker != 0xc8 && marker != 0xcc;
    const char *fault = NULL;
    if (is_frame && !take_frame(s, marker, body, n)) fault = "its header is wrong";
    if (marker == STEPS && !take_steps(s, body, n)) fault = "a table of steps is wrong";
    if (marker == CODES && !take_codes(s, body, n)) fault = "a table of codes is wrong";
    if (marker == SCAN && !take_scan(s, body, n)) fault = "a scan without its tables";
    if (marker == SCAN && ++s->n_scan > MOST_SCANS) fault = "it has too many scans";
    if (marker == APP1 && n > sizeof exif && memcmp(body, exif, sizeof exif) == 0)
        s->info->orientation = exif_orientation(body + sizeof exif, n - sizeof exif);
    if (marker == APP14 && n >= 12 && memcmp(body, adobe, sizeof adobe) == 0) s->info->adobe = true;
    if (!s->info->fault) s->info->fault = fault;
}

/* Where the next marker is at or behind `at`; n: there is none. FF 00 is data, FF D0 to FF D7 only
 * part the data. */
static size_t jpeg_next(const uint8_t *p, size_t n, size_t at) {
    while (at + 1 < n) {
        const uint8_t *ff = memchr(p + at, 0xff, n - at - 1);
        if (!ff) break;
        at = (size_t)(ff - p);
        if (p[at + 1] == 0xff)
            at++;
        else if (p[at + 1] == 0 || p[at + 1] == 1 || (p[at + 1] >= 0xd0 && p[at + 1] <= 0xd7))
            at += 2;
        else
            return at;
    }
    return n;
}

void jpeg_scan(const uint8_t *p, size_t n, jpeg_info *out) {
    enum { START = 0xd8, END = 0xd9 };
    jpeg_state s = {.info = out};
    *out = (jpeg_info){.orientation = 1};
    for (size_t at = jpeg_next(p, n, 0); at < n; at = jpeg_next(p, n, at)) {
        uint8_t marker = p[at + 1];
        at += 2;
        if (marker == START) continue;
        if (marker == END) {
            out->whole = s.begun == (1u << out->n_component) - 1;
            return;
        }
        if (at + 2 > n) return;
        size_t len = big(p + at, 2);
        if (len < 2 || len > n - at) return;
        jpeg_segment(&s, marker, p + at + 2, len - 2);
        at += len;
    }
}

/* ---- GIF ---- */

/* Behind blocks of at most 255 bytes, the last of which is empty; n: they are cut off. */
static size_t gif_blocks(const uint8_t *p, size_t n, size_t at) {
    while (at < n && p[at]) at += (size_t)p[at] + 1;
    return at < n ? at + 1 : n;
}

/* Bytes of the colours that a byte of flags announces. */
static size_t gif_colours(uint8_t flags) { return flags & 0x80 ? (size_t)6 << (flags & 7) : 0; }

bool gif_whole(const uint8_t *p, size_t n) {
    enum { EXTENSION = 0x21, FRAME = 0x2c, SCREEN = 13, DESCRIPTION = 10 };
    if (n < SCREEN) return false;
    for (size_t at = SCREEN + gif_colours(p[10]); at + DESCRIPTION < n;) {
        if (p[at] == FRAME) {
            at += DESCRIPTION + gif_colours(p[at + 9]) + 1;
            while (at < n && p[at]) at += (size_t)p[at] + 1;
            return at < n;
        }
        if (p[at] != EXTENSION) return false;
        at = gif_blocks(p, n, at + 2);
    }
    return false;
}

/* ---- BMP ---- */

enum { BMP_OLD = 12, BMP_RLE8 = 1, BMP_RLE4 = 2 };

typedef struct bmp_head {
    uint32_t width, height, bits, coding;
    uint64_t start, row; /* bytes: where the pixels begin, and of a row of them (below 2^46) */
    int64_t n_colour;    /* of its palette, that stb_image reads: of the old kind four too few */
} bmp_head;

static bool bmp_read(const uint8_t *p, size_t n, bmp_head *out) {
    if (n < 34) return false;
    const uint32_t start = little(p + 10, 4), head = little(p + 14, 4);
    const uint32_t rows = little(p + 22, 4); /* negative: from the top to the bottom */
    if (head == BMP_OLD)
        *out = (bmp_head){.width = little(p + 18, 2),
                          .height = little(p + 20, 2),
                          .bits = little(p + 24, 2),
                          .n_colour = ((int64_t)start - 38) / 3};
    else
        *out = (bmp_head){.width = little(p + 18, 4),
                          .height = rows >> 31 ? 0 - rows : rows,
                          .bits = little(p + 28, 2),
                          .coding = little(p + 30, 4),
                          .n_colour = ((int64_t)start - 14 - head) / 4};
    out->start = start;
    out->row = ((uint64_t)out->width * out->bits + 31) / 32 * 4;
    return true;
}

/* A compressed one counts as whole: its bytes are not told. */
bool bmp_whole(const uint8_t *p, size_t n) {
    bmp_head h;
    if (!bmp_read(p, n, &h)) return false;
    if (h.coding == BMP_RLE8 || h.coding == BMP_RLE4) return true;
    return h.start <= n && (h.height == 0 || h.row <= (n - h.start) / h.height);
}

bool bmp_coloured(const uint8_t *p, size_t n) {
    bmp_head h;
    if (!bmp_read(p, n, &h)) return false;
    if (h.coding != 0 || h.width == 0 || (h.bits != 1 && h.bits != 4 && h.bits != 8)) return true;
    if (h.n_colour >= 1 << h.bits) return true; /* every colour that there can be */
    for (uint64_t y = 0; y < h.height; y++)
        for (uint64_t bit = 0; bit < (uint64_t)h.width * h.bits; bit += h.bits) {
            const uint32_t byte = p[h.start + y * h.row + bit / 8];
            const uint32_t colour = byte >> (8 - h.bits - bit % 8) & ((1u << h.bits) - 1);
            if (colour >= h.n_colour) return false;
        }
    return true;
}

/* ---- sizes ---- */

bool picture_size(const uint8_t *p, size_t n, uint32_t *width, uint32_t *height) {
    enum { PNG_HEAD = 24, GIF_HEAD = 10 };
    jpeg_info j;
    bmp_head b;
    *width = *height = 0;
    switch (picture_probe(p, n)) {
    case PICTURE_PNG:
        if (n < PNG_HEAD) return false;
        *width = big(p + 16, 4);
        *height = big(p + 20, 4);
        return true;
    case PICTURE_GIF:
        if (n < GIF_HEAD) return false;
        *width = little(p + 6, 2);
        *height = little(p + 8, 2);
        return true;
    case PICTURE_BMP:
        if (!bmp_read(p, n, &b)) return false;
        *width = b.width;
        *height = b.height;
        return true;
    case PICTURE_JPEG:
        jpeg_scan(p, n, &j);
        *width = j.width;
        *height = j.height;
        return j.n_component > 0;
    default:
        return false;
    }
}

/* ---- WAV ---- */

bool wav_whole(const uint8_t *p, size_t n, uint64_t file_bytes) {
    enum { STREAMED = 0x7f000000 }; /* this many and more: written without knowing the length */
    if (n < 12 || memcmp(p, "RIFF", 4) != 0 || memcmp(p + 8, "WAVE", 4) != 0) return true;
    for (uint64_t at = 12; at + 8 <= n;) {
        uint32_t len = little(p + at + 4, 4);
        if (memcmp(p + at, "data", 4) == 0) return len >= STREAMED || at + 8 + len <= file_bytes;
        at += 8 + (uint64_t)len + (len & 1);
    }
    return true;
}
