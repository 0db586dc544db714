/* media: pictures and sounds of a conversation, from files or bytes to what carat.h takes.
 *
 *   media.c        files and bytes, limits, the list      media_probe.c  what bytes are, EXIF
 *   media_image.c  any picture -> RGB                     media_stb.c    PNG JPEG GIF BMP
 *   media_text.c   base64, data: URLs                     media_webp.c   WebP
 *   media_parts.c  media in messages and on the           media_sound.c  WAV FLAC OGG MP3
 *                  command line
 *
 * stb_image, libwebp and libsndfile are optional: without their headers media_no_*.c are built in
 * place of media_stb.c, media_webp.c and media_sound.c, and say so when they are asked.
 *
 * Flow: options.c, commands.c and serve_ask.c before; carat_chat_desc.media after. */
#ifndef CARAT_CLI_MEDIA_H
#define CARAT_CLI_MEDIA_H

#include "base/base.h"

#include <stdio.h>

#define MEDIA_MAX         128                 /* pictures and sounds of a conversation */
#define MEDIA_MAX_BYTES   ((uint64_t)1 << 30) /* of them all, decoded */
#define MEDIA_MAX_FILE    ((uint64_t)1 << 28) /* bytes of a picture's file */
#define MEDIA_MAX_SIDE    65535u
#define MEDIA_MAX_PIXELS  100000000u
#define MEDIA_MAX_SECONDS 600u /* carat_chat() hears 20 clips of 30 s at most */
#define MEDIA_MAX_RATE    192000u

/* ---- media.c ---- */

typedef struct media_list {
    carat_media items[MEDIA_MAX]; /* [n] rgb and samples are the list's, from malloc() */
    size_t n;
    uint64_t bytes;
} media_list;

/* Reads a regular file that holds a picture or a sound. */
bool media_add_file(media_list *l, carat_media_kind kind, const char *path, double time,
                    carat_error *err);
/* The same for the content of such a file; what: its name in messages. */
bool media_add_bytes(media_list *l, carat_media_kind kind, const char *what, const uint8_t *data,
                     size_t n, carat_error *err);
void media_cut(media_list *l, size_t n); /* frees all but the first n */
/* Moves what `from` holds to the end of `to`. */
bool media_move(media_list *to, media_list *from, carat_error *err);
/* "128 x 96 pixels", "1.2 s, 16000 Hz"; text [48] holds the result. */
const char *media_summary(const carat_media *m, char text[48]);
const char *media_duration(double seconds, char text[32]); /* "2 h 0 min", "1.2 s" */

/* ---- media_image.c, media_sound.c: from bytes, or for sounds an open file (fd >= 0) ---- */

bool image_decode(const char *what, const uint8_t *data, size_t n, carat_media *out,
                  carat_error *err);
typedef struct sound_source {
    int fd;              /* read from its start; stays open. -1: data */
    const uint8_t *data; /* [n] */
    size_t n;
} sound_source;
bool sound_decode(const char *what, const sound_source *src, carat_media *out, carat_error *err);
const char *sound_library(void); /* NULL: none */

/* ---- media_stb.c, media_webp.c: pixels in memory of malloc() ---- */

typedef struct pixels {
    uint8_t *data; /* [height, width, n_channel] */
    uint32_t width, height, n_channel;
} pixels;

/* The size as the file's head tells it, and n_channel (3 or 4), are given. *why: what is wrong. */
bool stb_decode(const uint8_t *data, size_t n, pixels *p, const char **why);
bool webp_size(const uint8_t *data, size_t n, pixels *out, const char **why);
bool webp_decode(const uint8_t *data, size_t n, pixels *p, const char **why);
bool has_stb(void), has_webp(void);

/* ---- media_probe.c ---- */

typedef enum picture_format {
    PICTURE_UNKNOWN,
    PICTURE_PNG,
    PICTURE_JPEG,
    PICTURE_GIF,
    PICTURE_BMP,
    PICTURE_WEBP
} picture_format;

picture_format picture_probe(const uint8_t *data, size_t n);
/* The size that the head of a file tells, which may be anything; not of WebP. False: the head is
 * cut. */
bool picture_size(const uint8_t *data, size_t n, uint32_t *width, uint32_t *height);
/* What bytes look like: "a ZIP archive"; NULL: nothing known. */
const char *file_kind(const uint8_t *data, size_t n);

typedef struct jpeg_info {
    uint32_t orientation; /* of EXIF, 1 to 8; 1 when nothing is said */
    uint32_t width, height, n_component, n_bit;
    bool arithmetic;   /* or another coding that nobody uses */
    bool adobe;        /* the components' colours are told */
    bool whole;        /* it goes on to its end marker, and each component is there */
    const char *fault; /* what is wrong with its segments, in which stb_image trusts; or NULL */
} jpeg_info;

void jpeg_scan(const uint8_t *data, size_t n, jpeg_info *out);
bool gif_whole(const uint8_t *data, size_t n); /* as far as the end of the first frame */
bool bmp_whole(const uint8_t *data, size_t n);
/* Whether a whole one names only colours of its palette: for others stb_image shows its stack. */
bool bmp_coloured(const uint8_t *data, size_t n);
/* Whether as many bytes of sound are there as a WAV's header says. True for what is no WAV. */
bool wav_whole(const uint8_t *data, size_t n, uint64_t file_bytes);

/* ---- media_text.c ---- */

/* Text [n] that holds bytes: base64 (RFC 4648, either alphabet, padding and line ends optional) or
 * a data: URL of it. Any other URL is refused. what: its name in messages. */
bool media_text_decode(const char *what, const char *text, size_t n, buf *out, carat_error *err);

/* ---- media_parts.c ---- */

/* A picture or a sound that a message names. */
typedef struct media_ref {
    carat_media_kind kind;
    const char *what; /* its name in messages */
    const char *path; /* of its file, or NULL: */
    const char *text; /* [len] as media_text_decode() takes it */
    size_t len;
    double time;
} media_ref;

typedef struct media_refs {
    media_ref items[MEDIA_MAX]; /* [n] */
    size_t n;
} media_refs;

/* Appends a message to out with its media taken out: what remains of a part is its type. The refs
 * and their texts live in a. A part that names a file is refused. */
bool media_take(arena *a, const json *m, media_refs *refs, buf *out, carat_error *err);
/* Decodes refs into l. */
bool media_read(const media_refs *refs, media_list *l, carat_error *err);
/* Reads what a message names, files too, into l, and appends the message as it is to out. lenient:
 * what cannot be read is left out, with a warning. */
bool media_load(const json *m, bool lenient, media_list *l, buf *out, carat_error *err);

/* Media that wait for the message they belong to. */
typedef struct attachments {
    media_list media;
    buf parts;        /* of a message's content, each followed by a comma */
    size_t n_frame;   /* of a video to which more may come */
    buf paths, times; /* of its frames */
} attachments;

/* kind: "image", "audio", or "video-frame" with SECONDS:FILE. */
bool attach(attachments *a, const char *kind, const char *value, carat_error *err);
void attachments_end(attachments *a); /* the frames so far are a video */
void attachments_free(attachments *a);

#endif
