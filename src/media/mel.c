/* mel: from samples to a log-mel spectrogram. Any rate and any number of channels becomes one
 * channel at 16 kHz, windows of it become magnitudes of frequencies, those become bands.
 *
 * Computed in f64: a spectrogram of 30 s is some 70 million multiplications.
 *
 * Flow: a decoder before; model/audio_cpu.c after. */
#include "media/media.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

/* ---- one channel at 16 kHz ---- */

#define MIN_RATE     1000u
#define MAX_RATE     768000u
#define MAX_CHANNELS 64u
#define CROSSINGS    32u  /* of zero, on each side of the low-pass filter's middle */
#define STEPS        512u /* of its table between two crossings; in between a straight line */
#define PASS         0.95 /* of the lower rate's half */
#define SHAPE        8.0  /* of the Kaiser window */

/* The modified Bessel function of the first kind and order 0. */
static double bessel(double x) {
    double sum = 1, term = 1;
    for (int k = 1; term > 1e-16 * sum; k++) {
        term *= x / (2 * k) * (x / (2 * k));
        sum += term;
    }
    return sum;
}

/* Half of a low-pass filter, windowed: table [CROSSINGS * STEPS + 2]. */
static void make_filter(double *table) {
    for (uint32_t i = 0; i < CROSSINGS * STEPS + 2; i++) {
        const double t = (double)i / STEPS, edge = t / CROSSINGS;
        const double sinc = t > 0 ? sin(PI * t) / (PI * t) : 1;
        table[i] = edge < 1 ? sinc * bessel(SHAPE * sqrt(1 - edge * edge)) / bessel(SHAPE) : 0;
    }
}

/* mono [n] at `rate` as it sounds at MEL_RATE: out [n_out] */
static void low_pass(const double *table, const float *mono, uint64_t n, uint32_t rate, float *out,
                     uint64_t n_out) {
    const double cut = PASS * (rate < MEL_RATE ? 1 : (double)MEL_RATE / rate); /* of the input's */
    const double reach = CROSSINGS / cut;
#pragma omp parallel for schedule(static)
    for (uint64_t i = 0; i < n_out; i++) {
        const double at = (double)(i * rate / MEL_RATE) + (double)(i * rate % MEL_RATE) / MEL_RATE;
        const uint64_t lo = at > reach ? (uint64_t)ceil(at - reach) : 0;
        const uint64_t hi = at + reach < (double)(n - 1) ? (uint64_t)(at + reach) : n - 1;
        double sum = 0;
        for (uint64_t j = lo; j <= hi; j++) {
            const double t = fabs((double)j - at) * cut * STEPS;
            const uint32_t k = (uint32_t)t;
            sum += (double)mono[j] * (table[k] + (t - k) * (table[k + 1] - table[k]));
        }
        out[i] = (float)(sum * cut);
    }
}

static bool check_sound(const float *samples, uint64_t n, uint32_t n_channel, uint32_t rate,
                        carat_error *err) {
    if (rate < MIN_RATE || rate > MAX_RATE)
        return fail(err, CARAT_E_ARGUMENT, "audio: %u samples a second; %u to %u", rate, MIN_RATE,
                    MAX_RATE);
    if (!n_channel || n_channel > MAX_CHANNELS)
        return fail(err, CARAT_E_ARGUMENT, "audio: %u channels; 1 to %u", n_channel, MAX_CHANNELS);
    if (!n || n > UINT32_MAX)
        return fail(err, CARAT_E_ARGUMENT, "audio: %llu samples", (unsigned long long)n);
    for (uint64_t i = 0; i < n * n_channel; i++)
        if (!isfinite(samples[i]))
            return fail(err, CARAT_E_ARGUMENT, "audio: sample %llu is not a finite number",
                        (unsigned long long)(i / n_channel));
    return true;
}

bool mel_resample(arena *a, const float *samples, uint64_t n, uint32_t n_channel, uint32_t rate,
                  float **out, uint64_t *n_out, carat_error *err) {
    if (!check_sound(samples, n, n_channel, rate, err)) return false;
    arena *m = arena_create(err);
    if (!m) return false;
    *n_out = n * MEL_RATE / rate;
    *out = arena_alloc(a, *n_out, sizeof **out);
    float *mono = rate == MEL_RATE ? *out : arena_alloc(m, n, sizeof *mono);
    double *table = arena_alloc(m, CROSSINGS * STEPS + 2, sizeof *table);
    const bool ok =
        (*out && mono && table) || fail_memory(err, (n + *n_out) * sizeof *mono, "a sound");
    for (uint64_t i = 0; i < n && ok; i++) {
        double sum = 0;
        for (uint32_t c = 0; c < n_channel; c++) sum += (double)samples[i * n_channel + c];
        mono[i] = (float)(sum / n_channel);
    }
    if (ok && rate != MEL_RATE) {
        make_filter(table);
        low_pass(table, mono, n, rate, *out, *n_out);
    }
    arena_free(m);
    return ok;
}

/* ---- spectrogram ---- */

#define FRAME 320u /* samples: 20 ms */
#define HOP   160u
#define LEFT  160u /* zeros before the first sample */
#define FFT   512u
#define BINS  (FFT / 2 + 1)
#define TOP   8000.0 /* Hz */
#define FLOOR 1e-3

typedef struct plan {
    double window[FRAME];
    double cosine[FFT / 2], sine[FFT / 2];
    uint32_t reversed[FFT];
    uint32_t
        band[BINS];    /* bin k is on the rising side of this one, falling side of the one before */
    double rise[BINS]; /* how much of it belongs to the former */
} plan;

static double mel_to_hz(double mel) { return 700 * (pow(10, mel / 2595) - 1); }
static double hz_to_mel(double hz) { return 2595 * log10(1 + hz / 700); }

static void make_plan(plan *p) {
    for (uint32_t i = 0; i < FRAME; i++) p->window[i] = 0.5 - 0.5 * cos(2 * PI * i / FRAME);
    for (uint32_t i = 0; i < FFT / 2; i++) {
        p->cosine[i] = cos(2 * PI * i / FFT);
        p->sine[i] = -sin(2 * PI * i / FFT);
    }
    for (uint32_t i = 0; i < FFT; i++)
        p->reversed[i] = p->reversed[i / 2] / 2 + (i % 2) * (FFT / 2);
    /* The edges of the bands are equally far apart in mel; band b has its top on edge b + 1. */
    const double step = hz_to_mel(TOP) / (MEL_BANDS + 1);
    for (uint32_t k = 0, b = 0; k < BINS; k++) {
        const double hz = (double)k * MEL_RATE / FFT;
        while (b < MEL_BANDS && mel_to_hz((b + 1) * step) <= hz) b++;
        const double low = mel_to_hz(b * step), high = mel_to_hz((b + 1) * step);
        p->band[k] = b;
        p->rise[k] = hz < high ? (hz - low) / (high - low) : 1;
    }
}

/* In place, decimation in time. */
static void transform(const plan *p, double *re, double *im) {
    for (uint32_t i = 0; i < FFT; i++) {
        const uint32_t j = p->reversed[i];
        if (j <= i) continue;
        const double t = re[i];
        re[i] = re[j];
        re[j] = t;
    }
    for (uint32_t half = 1; half < FFT; half *= 2)
        for (uint32_t at = 0; at < FFT; at += 2 * half)
            for (uint32_t i = 0; i < half; i++) {
                const uint32_t a = at + i, b = a + half, turn = i * (FFT / 2 / half);
                const double c = p->cosine[turn], s = p->sine[turn];
                const double x = re[b] * c - im[b] * s, y = re[b] * s + im[b] * c;
                re[b] = re[a] - x;
                im[b] = im[a] - y;
                re[a] += x;
                im[a] += y;
            }
}

uint32_t mel_frames(uint64_t n) { return n > HOP ? (uint32_t)((n - 1) / HOP) : 0; }

/* Frame i begins LEFT samples before sample HOP * i. */
static void one_frame(const plan *p, const float *samples, uint64_t n, uint32_t i, float *out) {
    double re[FFT] = {0}, im[FFT] = {0}, band[MEL_BANDS + 2] = {0};
    for (uint32_t j = 0; j < FRAME; j++) {
        const uint64_t at = (uint64_t)HOP * i + j;
        if (at >= LEFT && at - LEFT < n) re[j] = (double)samples[at - LEFT] * p->window[j];
    }
    transform(p, re, im);
    /* band[b + 1] is band b, so that the side before the first one has a place, too */
    for (uint32_t k = 0; k < BINS; k++) {
        const double size = sqrt(re[k] * re[k] + im[k] * im[k]);
        band[p->band[k] + 1] += p->rise[k] * size;
        band[p->band[k]] += (1 - p->rise[k]) * size;
    }
    for (uint32_t b = 0; b < MEL_BANDS; b++) out[b] = (float)log(band[b + 1] + FLOOR);
}

bool mel_spectrogram(const float *samples, uint64_t n, float *out, carat_error *err) {
    if (n > MEL_MAX_SAMPLES)
        return fail(err, CARAT_E_ARGUMENT, "audio: %.1f s at once; at most %u",
                    (double)n / MEL_RATE, MEL_MAX_SAMPLES / MEL_RATE);
    if (!mel_frames(n))
        return fail(err, CARAT_E_ARGUMENT,
                    "audio: %.1f ms are too short; there must be more than %u",
                    (double)n * 1000 / MEL_RATE, HOP * 1000 / MEL_RATE);
    arena *m = arena_create(err);
    plan *p = m ? arena_alloc(m, 1, sizeof *p) : NULL;
    const bool ok = p || fail_memory(err, sizeof *p, "a spectrogram");
    if (ok) make_plan(p);
    for (uint32_t i = 0; ok && i < mel_frames(n); i++)
        one_frame(p, samples, n, i, out + (size_t)i * MEL_BANDS);
    arena_free(m);
    return ok;
}
