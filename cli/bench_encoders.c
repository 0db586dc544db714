/* bench_encoders: how fast pictures and sounds become soft tokens: a picture of 768 x 768 pixels at
 * 280 soft tokens at most, and 30 seconds of sound, the longest that is encoded at once. Noise, the
 * same on every machine.
 *
 * Flow: bench.c before and after. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum {
    SIDE = 768, /* pixels */
    RATE = 16000,
    SECONDS = 30,
    BANDS = 128, /* of a spectrogram */
    HEARD = 12,  /* tokens that one hears, itself included */
    DISTANCES = 13,
    TAPS = 5 /* of the convolution in an audio layer */
};

/* ---- what it takes ---- */

static double number(const json *e, const char *key) { return json_number(json_get(e, key), 0); }

/* Multiplications and additions for n soft tokens; the rest is less than 1 % of them. */
static double vision_flop(const json *e, double n) {
    const double d = number(e, "n_embd"), ff = number(e, "n_ff"), side = number(e, "patch");
    const double n_patch = n * number(e, "pool") * number(e, "pool");
    const double products = 8 * d * d + 6 * d * ff, attention = 4 * n_patch * d;
    return number(e, "n_layer") * n_patch * (products + attention) +
           2 * n_patch * 3 * side * side * d + 2 * n * d * number(e, "n_out");
}

static double audio_flop(const json *e, double n) {
    const double d = number(e, "n_embd"), ff = number(e, "n_ff"), mid = number(e, "n_mid");
    const double c0 = json_number(json_at(json_get(e, "n_conv"), 0), 0),
                 c1 = json_number(json_at(json_get(e, "n_conv"), 1), 0);
    if (json_bool(json_get(e, "direct"), false))
        return 2 * n * number(e, "frame") * number(e, "n_out");
    const double products = 8 * d * ff + 14 * d * d + 2 * TAPS * d, attention = 6 * HEARD * d;
    const double conv = 2 * 9 * c0 * (2 * n) * (BANDS / 2) + 2 * 9 * c0 * c1 * n * (BANDS / 4);
    return number(e, "n_layer") * (n * (products + attention) + 2 * DISTANCES * d * d) + conv +
           2 * n * (BANDS / 4 * c1 * d + d * mid + mid * number(e, "n_out"));
}

/* ---- measuring ---- */

static uint32_t noise(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Another one for another seed, or the session would know it. NULL: no memory. */
static void *make_picture(uint64_t seed, carat_media *out) {
    const size_t n = (size_t)SIDE * SIDE * 3;
    uint8_t *rgb = malloc(n);
    for (size_t i = 0; rgb && i < n; i++) rgb[i] = (uint8_t)(noise(&seed) >> 8);
    *out = (carat_media){.kind = CARAT_MEDIA_IMAGE, .rgb = rgb, .width = SIDE, .height = SIDE};
    return rgb;
}

static void *make_sound(uint64_t seed, carat_media *out) {
    const size_t n = (size_t)RATE * SECONDS;
    float *samples = malloc(n * sizeof *samples);
    for (size_t i = 0; samples && i < n; i++)
        samples[i] = ((float)(noise(&seed) >> 8) / (1 << 22) - 1) / 4;
    *out = (carat_media){
        .kind = CARAT_MEDIA_AUDIO, .samples = samples, .n_sample = n, .n_channel = 1, .rate = RATE};
    return samples;
}

static bool run_once(const runtime *r, bool sound, uint64_t seed, double *prepare_s,
                     carat_stats *st, carat_error *err) {
    carat_media media;
    void *data = sound ? make_sound(seed, &media) : make_picture(seed, &media);
    if (!data) return fail_memory(err, (uint64_t)SIDE * SIDE * 3, "what is to be encoded");
    carat_sampling greedy = CARAT_SAMPLING_DEFAULT;
    greedy.temperature = 0;
    const carat_chat_desc desc = {
        .messages = sound ? "[{\"role\":\"user\",\"content\":[{\"type\":\"audio\"}]}]"
                          : "[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]",
        .media = &media,
        .n_media = 1,
        .max_tokens = 1,
        .sampling = &greedy,
        .ignore_stop = true};
    const double start = now_s();
    carat_job *job = carat_chat(r->session, &desc, err);
    *prepare_s = now_s() - start;
    const bool ok = runtime_finish(job, "measuring the encoders", st, err);
    free(data);
    return ok;
}

static bool measure(const runtime *r, bool sound, uint32_t reps, encoder_test *t,
                    carat_error *err) {
    double prepare[MAX_REPS], encode[MAX_REPS], first;
    carat_stats st;
    if (!run_once(r, sound, 1, &first, &st, err)) return false;
    *t = (encoder_test){.name = sound ? "audio30s" : "image768",
                        .title = sound ? "30 s of sound" : "768 x 768 picture",
                        .n_soft = st.n_encoded,
                        .first_s = st.encode_s};
    for (uint32_t i = 0; i < reps; i++) {
        if (!run_once(r, sound, 2 + i, &prepare[i], &st, err)) return false;
        encode[i] = st.encode_s;
    }
    t->prepare_s = bench_median(prepare, reps);
    t->median_s = bench_median(encode, reps);
    t->best_s = encode[0];
    return true;
}

static bool measure_all(const runtime *r, const json *encoders, uint32_t reps, encoder_test *out,
                        size_t *n, carat_error *err) {
    if (r->info.has_vision) {
        encoder_test *t = &out[(*n)++];
        if (!measure(r, false, reps, t, err)) return false;
        t->gflop = 1e-9 * vision_flop(json_get(encoders, "vision"), t->n_soft);
    }
    if (r->info.has_audio) {
        encoder_test *t = &out[(*n)++];
        if (!measure(r, true, reps, t, err)) return false;
        t->gflop = 1e-9 * audio_flop(json_get(encoders, "audio"), t->n_soft);
    }
    return true;
}

bool bench_encoders(const runtime *r, uint32_t reps, encoder_test *out, size_t *n,
                    carat_error *err) {
    *n = 0;
    arena *memory = arena_create(err);
    char *text = memory ? carat_engine_describe(r->engine, err) : NULL;
    json *m = NULL;
    const bool ok = text && json_parse(memory, text, strlen(text), "the description", &m, err) &&
                    measure_all(r, json_get(m, "encoders"), reps, out, n, err);
    carat_string_free(text);
    arena_free(memory);
    return ok;
}
