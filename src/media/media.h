/* media: pictures and sounds, decoded by somebody else, as the encoders want them. image.c makes
 * patches of pixels, mel.c a log-mel spectrogram of samples. No files, no weights.
 *
 * Flow: a decoder (the program's, the browser's) before; model/vision_cpu.c, model/audio_cpu.c
 * and their GPU twins after. */
#ifndef CARAT_MEDIA_H
#define CARAT_MEDIA_H

#include "base/base.h"

/* ---- image.c ---- */

#define IMAGE_MAX_SIDE   65535u /* pixels */
#define IMAGE_MAX_BUDGET 1120u  /* soft tokens: the largest that Gemma 4 knows */

/* The size that a picture is scaled to, up or down, so that it nearly fills `budget` cells of
 * cell x cell pixels: multiples of cell that keep the sides' ratio but for rounding. */
bool image_fit(uint32_t width, uint32_t height, uint32_t cell, uint32_t budget, uint32_t *to_width,
               uint32_t *to_height, carat_error *err);
/* Bicubic with antialiasing, in 8-bit steps as Pillow does it: rgb [height, width, 3] to
 * out [to_height, to_width, 3]. */
bool image_resize(const uint8_t *rgb, uint32_t width, uint32_t height, uint8_t *out,
                  uint32_t to_width, uint32_t to_height, carat_error *err);
/* Cuts rgb [height, width, 3], whose sides are multiples of side, into squares from left to right
 * and from top to bottom: out [n_patch, side, side, 3]. */
void image_cut(const uint8_t *rgb, uint32_t width, uint32_t height, uint32_t side, uint8_t *out);

/* Patches of a picture, and how many of them are in a row and in a column. */
typedef struct image_patches {
    const uint8_t *data; /* [n_row, n_col, side, side, 3], the arena's */
    uint32_t n_col, n_row;
} image_patches;

/* All of the above: a picture cut into patches of `side` pixels, `pool` x `pool` of which become
 * one of at most `budget` soft tokens. */
bool image_prepare(arena *a, const uint8_t *rgb, uint32_t width, uint32_t height, uint32_t side,
                   uint32_t pool, uint32_t budget, image_patches *out, carat_error *err);

/* ---- mel.c ---- */

#define MEL_RATE        16000u /* samples a second that the encoders hear */
#define MEL_BANDS       128u
#define MEL_MAX_SAMPLES (30 * MEL_RATE) /* the longest clip that Gemma 4 was trained with */

/* samples [n, n_channel] at `rate` a second, in [-1, 1], to one channel (the mean of all) at
 * MEL_RATE: *out [*n_out], the arena's. */
bool mel_resample(arena *a, const float *samples, uint64_t n, uint32_t n_channel, uint32_t rate,
                  float **out, uint64_t *n_out, carat_error *err);
/* Frames of n samples at MEL_RATE: 100 a second, none for 160 samples or fewer. */
uint32_t mel_frames(uint64_t n);
/* The natural logarithm of the energy in bands, out [mel_frames(n), MEL_BANDS], of samples [n] at
 * MEL_RATE; n <= MEL_MAX_SAMPLES. */
bool mel_spectrogram(const float *samples, uint64_t n, float *out, carat_error *err);

#endif
