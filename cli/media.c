/* media: files and bytes that hold pictures and sounds, how much of them is taken, and the list of
 * what was decoded. A file must be a regular one: nothing here waits.
 *
 * Flow: media_parts.c before; media_image.c and media_sound.c decode. */
#include "media.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the list ---- */

static uint64_t bytes_of(const carat_media *m) {
    return m->kind == CARAT_MEDIA_IMAGE ? (uint64_t)m->width * m->height * 3
                                        : m->n_sample * m->n_channel * sizeof(float);
}

static void media_free(carat_media *m) {
    free((void *)(uintptr_t)m->rgb);
    free((void *)(uintptr_t)m->samples);
    *m = (carat_media){0};
}

void media_cut(media_list *l, size_t n) {
    for (; l->n > n; l->n--) {
        l->bytes -= bytes_of(&l->items[l->n - 1]);
        media_free(&l->items[l->n - 1]);
    }
}

static bool has_room(const media_list *l, uint64_t n, uint64_t bytes, carat_error *err) {
    if (l->n + n > MEDIA_MAX)
        return fail(err, CARAT_E_UNSUPPORTED, "more than %d pictures and sounds", MEDIA_MAX);
    return l->bytes + bytes <= MEDIA_MAX_BYTES ||
           fail(err, CARAT_E_UNSUPPORTED,
                "the pictures and sounds together need more than %d MiB of memory",
                (int)(MEDIA_MAX_BYTES >> 20));
}

/* Takes m over, or frees it. */
static bool add(media_list *l, carat_media *m, carat_error *err) {
    if (!has_room(l, 1, bytes_of(m), err)) {
        media_free(m);
        return false;
    }
    l->bytes += bytes_of(m);
    l->items[l->n++] = *m;
    return true;
}

bool media_move(media_list *to, media_list *from, carat_error *err) {
    if (!has_room(to, from->n, from->bytes, err)) return false;
    memcpy(to->items + to->n, from->items, from->n * sizeof *from->items);
    to->n += from->n;
    to->bytes += from->bytes;
    *from = (media_list){0};
    return true;
}

/* ---- bytes and files ---- */

bool media_add_bytes(media_list *l, carat_media_kind kind, const char *what, const uint8_t *data,
                     size_t n, carat_error *err) {
    carat_media m = {0};
    const sound_source src = {-1, data, n};
    if (!has_room(l, 1, 0, err)) return false;
    if (kind == CARAT_MEDIA_AUDIO && !wav_whole(data, n, n))
        return fail(err, CARAT_E_FORMAT, "%s: the WAV is cut short", what);
    return (kind == CARAT_MEDIA_IMAGE ? image_decode(what, data, n, &m, err)
                                      : sound_decode(what, &src, &m, err)) &&
           add(l, &m, err);
}

static bool read_bytes(int fd, uint8_t *data, size_t n) {
    for (size_t at = 0; at < n;) {
        ssize_t got = pread(fd, data + at, n - at, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        at += (size_t)got;
    }
    return true;
}

static bool add_image_file(media_list *l, int fd, const char *path, uint64_t size, double time,
                           carat_error *err) {
    if (size > MEDIA_MAX_FILE)
        return fail(err, CARAT_E_UNSUPPORTED,
                    "%s: %llu bytes; the file of a picture may have %d MiB", path,
                    (unsigned long long)size, (int)(MEDIA_MAX_FILE >> 20));
    uint8_t *data = malloc(size + 1);
    if (!data) return fail_memory(err, size, path);
    bool ok = read_bytes(fd, data, (size_t)size) ||
              fail(err, CARAT_E_IO, "%s: it changed while it was read", path);
    ok = ok && media_add_bytes(l, CARAT_MEDIA_IMAGE, path, data, (size_t)size, err);
    if (ok) l->items[l->n - 1].time = time;
    free(data);
    return ok;
}

/* The head is enough to tell what it is; libsndfile reads the rest from the file. */
static bool add_sound_file(media_list *l, int fd, const char *path, uint64_t size,
                           carat_error *err) {
    enum { HEAD = 65536 };
    uint8_t *head = malloc(HEAD);
    sound_source src = {fd, head, size < HEAD ? (size_t)size : HEAD};
    carat_media m = {0};
    bool ok = head || fail_memory(err, HEAD, path);
    ok = ok && (read_bytes(fd, head, src.n) ||
                fail(err, CARAT_E_IO, "%s: it changed while it was read", path));
    if (ok && size == 0) ok = fail(err, CARAT_E_FORMAT, "%s: empty, not a sound", path);
    if (ok && !wav_whole(head, src.n, size))
        ok = fail(err, CARAT_E_FORMAT, "%s: the WAV is cut short", path);
    ok = ok && sound_decode(path, &src, &m, err) && add(l, &m, err);
    free(head);
    return ok;
}

bool media_add_file(media_list *l, carat_media_kind kind, const char *path, double time,
                    carat_error *err) {
    struct stat st;
    if (!has_room(l, 1, 0, err)) return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not be waited for */
    if (fd < 0) return fail(err, CARAT_E_IO, "%s: %s", path, strerror(errno));
    bool ok = fstat(fd, &st) == 0;
    if (!ok)
        fail(err, CARAT_E_IO, "%s: %s", path, strerror(errno));
    else if (S_ISDIR(st.st_mode))
        ok = fail(err, CARAT_E_ARGUMENT, "%s: a directory, not a file", path);
    else if (!S_ISREG(st.st_mode))
        ok = fail(err, CARAT_E_ARGUMENT, "%s: a pipe or a device; pictures and sounds are files",
                  path);
    else
        ok = kind == CARAT_MEDIA_IMAGE
                 ? add_image_file(l, fd, path, (uint64_t)st.st_size, time, err)
                 : add_sound_file(l, fd, path, (uint64_t)st.st_size, err);
    close(fd);
    return ok;
}

/* ---- in words ---- */

const char *media_duration(double seconds, char text[32]) {
    const double minutes = floor(seconds / 60);
    if (seconds < 60)
        snprintf(text, 32, "%.1f s", seconds);
    else if (minutes < 60)
        snprintf(text, 32, "%.0f min %.0f s", minutes, floor(seconds - 60 * minutes));
    else
        snprintf(text, 32, "%.0f h %.0f min", floor(minutes / 60), fmod(minutes, 60));
    return text;
}

const char *media_summary(const carat_media *m, char text[48]) {
    char seconds[32];
    if (m->kind == CARAT_MEDIA_IMAGE)
        snprintf(text, 48, "%u x %u pixels", m->width, m->height);
    else
        snprintf(text, 48, "%s of sound", media_duration((double)m->n_sample / m->rate, seconds));
    return text;
}
