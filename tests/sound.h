/* sound: WAV files of 16-bit samples, for tests of what is done with the samples. */
#ifndef CARAT_TESTS_SOUND_H
#define CARAT_TESTS_SOUND_H

#include "load_json.h"

typedef struct sound {
    float *samples; /* [n, n_channel] */
    uint64_t n;
    uint32_t n_channel, rate;
} sound;

static inline uint32_t sound_u32(const uint8_t *p, uint32_t n_byte) {
    uint32_t v = 0;
    for (uint32_t i = 0; i < n_byte; i++) v |= (uint32_t)p[i] << 8 * i;
    return v;
}

static inline sound sound_load(arena *a, const char *path) {
    carat_error e = {0};
    source *src = NULL;
    sound s = {0};
    if (!source_open(a, path, &src, &e)) fail_msg("%s", e.message);
    uint8_t *file = arena_alloc(a, (size_t)src->size, 1);
    assert_non_null(file);
    if (!source_read(src, 0, file, (size_t)src->size, &e)) fail_msg("%s", e.message);
    for (uint64_t at = 12; at + 8 <= src->size; at += 8 + sound_u32(file + at + 4, 4)) {
        const uint8_t *body = file + at + 8;
        if (!memcmp(file + at, "fmt ", 4)) {
            assert_int_equal(sound_u32(body + 14, 2), 16);
            s.n_channel = sound_u32(body + 2, 2);
            s.rate = sound_u32(body + 4, 4);
        }
        if (memcmp(file + at, "data", 4)) continue;
        s.n = sound_u32(file + at + 4, 4) / (2 * s.n_channel);
        s.samples = arena_alloc(a, (size_t)s.n * s.n_channel, sizeof *s.samples);
        assert_non_null(s.samples);
        for (uint64_t i = 0; i < s.n * s.n_channel; i++)
            s.samples[i] = (float)(int16_t)sound_u32(body + 2 * i, 2) / 32768;
    }
    source_close(src);
    assert_non_null(s.samples);
    return s;
}

#endif
