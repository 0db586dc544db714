/* media_sound: WAV, FLAC, OGG, MP3 and what else libsndfile reads, as one channel (the mean of all)
 * of samples. Reads no more than carat_chat() would hear. Built when libsndfile's header is there;
 * else media_no_sound.c is.
 *
 * Flow: media.c before. */
#include "media.h"

#include <math.h>
#include <sndfile.h>
#include <stdlib.h>
#include <string.h>

const char *sound_library(void) { return sf_version_string(); }

/* ---- bytes as a file ---- */

typedef struct bytes {
    const uint8_t *data; /* [n] */
    sf_count_t n, at;
} bytes;

static sf_count_t bytes_size(void *user) { return ((bytes *)user)->n; }
static sf_count_t bytes_tell(void *user) { return ((bytes *)user)->at; }

static sf_count_t bytes_seek(sf_count_t offset, int whence, void *user) {
    bytes *b = user;
    sf_count_t from = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? b->at : b->n;
    if (offset < -from || offset > b->n - from) return -1;
    return b->at = from + offset;
}

static sf_count_t bytes_read(void *to, sf_count_t n, void *user) {
    bytes *b = user;
    if (n > b->n - b->at) n = b->n - b->at;
    if (n <= 0) return 0;
    memcpy(to, b->data + b->at, (size_t)n);
    b->at += n;
    return n;
}

static SF_VIRTUAL_IO bytes_io = {
    .get_filelen = bytes_size, .seek = bytes_seek, .read = bytes_read, .tell = bytes_tell};

/* ---- samples ---- */

static bool too_long(const char *what, double seconds, carat_error *err) {
    char is[32], may[32];
    return fail(err, CARAT_E_UNSUPPORTED,
                "%s: %s of sound; carat hears %s at most (20 clips of 30 s)", what,
                media_duration(seconds, is), media_duration(MEDIA_MAX_SECONDS, may));
}

static bool check_info(const char *what, const SF_INFO *info, carat_error *err) {
    if (info->channels < 1 || info->samplerate < 1)
        return fail(err, CARAT_E_FORMAT, "%s: a sound without channels or rate", what);
    if ((uint32_t)info->samplerate > MEDIA_MAX_RATE)
        return fail(err, CARAT_E_UNSUPPORTED, "%s: %d samples a second; carat takes %u at most",
                    what, info->samplerate, MEDIA_MAX_RATE);
    bool told = info->frames > 0 && info->frames < SF_COUNT_MAX;
    double seconds = told ? (double)info->frames / info->samplerate : 0;
    return seconds <= MEDIA_MAX_SECONDS || too_long(what, seconds, err);
}

/* Frames [n, n_channel] to their means; false: one is not a number. */
static bool mix(const float *frames, size_t n, size_t n_channel, float *out) {
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (size_t c = 0; c < n_channel; c++) sum += frames[i * n_channel + c];
        out[i] = sum / (float)n_channel;
        if (!isfinite(out[i])) return false;
    }
    return true;
}

static bool read_all_samples(const char *what, SNDFILE *f, const SF_INFO *info, buf *out,
                             carat_error *err) {
    enum { PIECE = 4096 };
    const size_t n_channel = (size_t)info->channels;
    const uint64_t most = (uint64_t)MEDIA_MAX_SECONDS * (uint64_t)info->samplerate;
    float *frames = malloc(PIECE * n_channel * sizeof *frames), mono[PIECE];
    uint64_t n = 0;
    sf_count_t got = 1;
    bool ok = frames || fail_memory(err, PIECE * n_channel * sizeof *frames, what);
    while (ok && (got = sf_readf_float(f, frames, PIECE)) > 0) {
        n += (uint64_t)got;
        if (n > most) ok = too_long(what, (double)n / info->samplerate, err);
        if (ok && !mix(frames, (size_t)got, n_channel, mono))
            ok = fail(err, CARAT_E_FORMAT, "%s: it holds samples that are not numbers", what);
        if (ok) buf_put(out, mono, (size_t)got * sizeof *mono);
    }
    free(frames);
    if (!ok) return false;
    if (out->failed) return fail_memory(err, n * sizeof *mono, what);
    if (sf_error(f))
        return fail(err, CARAT_E_FORMAT, "%s: the sound cannot be read: %s", what, sf_strerror(f));
    const bool is_flac = (info->format & SF_FORMAT_TYPEMASK) == SF_FORMAT_FLAC;
    if (is_flac && (sf_count_t)n < info->frames) /* others only guess their length */
        return fail(err, CARAT_E_FORMAT, "%s: the sound is cut short", what);
    return n > 0 || fail(err, CARAT_E_FORMAT, "%s: a sound without samples", what);
}

bool sound_decode(const char *what, const sound_source *src, carat_media *out, carat_error *err) {
    bytes b = {src->data, (sf_count_t)src->n, 0};
    SF_INFO info = {0};
    buf samples = {0};
    SNDFILE *f = src->fd >= 0 ? sf_open_fd(src->fd, SFM_READ, &info, 0)
                              : sf_open_virtual(&bytes_io, SFM_READ, &info, &b);
    if (!f) {
        const char *kind = file_kind(src->data, src->n);
        return fail(err, CARAT_E_UNSUPPORTED,
                    "%s: not a sound that libsndfile reads (WAV, FLAC, OGG, MP3, ...)%s%s", what,
                    kind ? "; it looks like " : "", kind ? kind : "");
    }
    bool ok = check_info(what, &info, err) && read_all_samples(what, f, &info, &samples, err);
    sf_close(f);
    if (!ok) {
        buf_free(&samples);
        return false;
    }
    *out = (carat_media){.kind = CARAT_MEDIA_AUDIO,
                         .samples = (const float *)(void *)samples.data,
                         .n_sample = samples.len / sizeof(float),
                         .n_channel = 1,
                         .rate = (uint32_t)info.samplerate};
    return true;
}
