/* golden_sound: the recordings of the golden audio tests as the audio encoder wants them. */
#ifndef CARAT_TESTS_GOLDEN_SOUND_H
#define CARAT_TESTS_GOLDEN_SOUND_H

#include "golden_soft.h"

#include "media/media.h"
#include "sound.h"

#define SOFT_TOKEN 20 /* nano's <|audio|> */

/* A file's spectrogram [*n_frame, MEL_BANDS]. */
static inline float *golden_hear(golden *g, const char *file, uint32_t *n_frame) {
    char path[256];
    float *mono;
    uint64_t n;
    snprintf(path, sizeof path, "tests/golden/nano/%s", file);
    const sound s = sound_load(g->memory, path);
    REQUIRE(mel_resample(g->memory, s.samples, s.n, s.n_channel, s.rate, &mono, &n, &err));
    *n_frame = mel_frames(n);
    float *mel = golden_alloc(g, (size_t)*n_frame * MEL_BANDS, sizeof *mel);
    REQUIRE(mel_spectrogram(mono, n, mel, &err));
    return mel;
}

#endif
