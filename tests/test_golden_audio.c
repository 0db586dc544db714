/* The CPU audio encoder against golden values of independent implementations: spectrogram, tower,
 * soft tokens, last logits and greedy answers. Bounds: 1e-4 relative error of each tensor, equal
 * greedy ids. */
#include "golden_sound.h"

#define BOUND 1e-4

typedef struct fixture {
    golden g;
    text_cpu *text;
    audio *audio;
} fixture;

static void open_nano(fixture *f) {
    golden_open(&f->g, "models/nano.gguf", "tests/golden/nano/audio", BOUND);
    f->text = golden_cpu(&f->g, SOFT_CTX);
    const model *m = f->g.model;
    REQUIRE(audio_open(f->g.memory, m->gguf, m->config.n_embd, &f->audio, &err));
    golden_load(&f->g, f->audio->matrices);
}

static void close_fixture(fixture *f) {
    text_cpu_free(f->text);
    golden_close(&f->g);
}

/* ---- the encoder ---- */

typedef struct tower {
    golden *g;
    const char *name; /* golden tensor */
} tower;

static void check_tower(void *user, const char *name, int il, const float *data, uint32_t n_tok,
                        uint32_t width) {
    const tower *t = user;
    (void)il;
    if (!strcmp(name, "tower")) golden_compare(t->g, t->name, data, n_tok, width);
}

/* Soft tokens [n, n_out]; `tower_name` NULL: not compared. */
static float *encode(golden *g, const audio *a, const float *mel, uint32_t n_frame,
                     const char *tower_name) {
    tower check = {g, tower_name};
    const tap taps = {check_tower, &check};
    audio_cpu *t;
    const size_t n = audio_soft_tokens(a, n_frame);
    float *soft = golden_alloc(g, n * a->config.n_out, sizeof *soft);
    REQUIRE(audio_cpu_create(a, mel, n_frame, tower_name ? &taps : NULL, &t, &err));
    for (bool finished = false; !finished;) audio_cpu_advance(t, soft, &finished);
    audio_cpu_free(t);
    return soft;
}

/* ---- nano ---- */

static void check_recording(fixture *f, const json *c) {
    golden *g = &f->g;
    static const char *const kinds[4] = {"mel", "tower", "embed", "logits"};
    char names[4][64];
    for (int i = 0; i < 4; i++)
        snprintf(names[i], sizeof names[i], "%s.%s", kinds[i],
                 json_string(json_get(c, "name"), ""));
    uint32_t n_frame;
    const float *mel = golden_hear(g, json_string(json_get(c, "file"), ""), &n_frame);
    assert_int_equal(n_frame, json_number(json_get(c, "valid_frames"), 0));
    if (safetensors_find(g->tensors, names[0])) {
        /* The golden one may have a frame more, of zeros: it was computed in a batch. */
        const uint32_t n_stored = (uint32_t)json_number(json_get(c, "mel_frames"), 0);
        float *padded = golden_alloc(g, (size_t)n_stored * MEL_BANDS, sizeof *padded);
        memcpy(padded, mel, (size_t)n_frame * MEL_BANDS * sizeof *mel);
        golden_compare(g, names[0], padded, n_stored, MEL_BANDS);
    }
    const uint32_t n = audio_soft_tokens(f->audio, n_frame);
    assert_int_equal(n, json_number(json_get(c, "soft_tokens"), 0));
    const float *soft = encode(g, f->audio, mel, n_frame, names[1]);
    golden_compare(g, names[2], soft, n, f->audio->config.n_out);
    golden_answer(g, f->text, json_get(c, "ids"), json_get(c, "greedy_ids"), SOFT_TOKEN, soft, n,
                  false, names[3]);
}

static void nano(void **state) {
    (void)state;
    fixture f;
    open_nano(&f);
    assert_int_equal(f.g.json->n, 5);
    for (size_t i = 0; i < f.g.json->n; i++) check_recording(&f, &f.g.json->items[i]);
    assert_int_equal(f.g.n_compared, 17);
    close_fixture(&f);
}

/* The same words from 44.1 kHz in stereo, whose numbers differ a little. */
static void stereo(void **state) {
    (void)state;
    fixture f;
    open_nano(&f);
    const json *c = json_at(f.g.json, 1);
    assert_string_equal(json_string(json_get(c, "name"), ""), "speech_5");
    uint32_t n_frame;
    const float *mel = golden_hear(&f.g, "speech_5_44k_stereo.wav", &n_frame);
    assert_int_equal(n_frame, json_number(json_get(c, "valid_frames"), 0));
    const float *soft = encode(&f.g, f.audio, mel, n_frame, NULL);
    golden_answer(&f.g, f.text, json_get(c, "ids"), json_get(c, "greedy_ids"), SOFT_TOKEN, soft,
                  audio_soft_tokens(f.audio, n_frame), false, NULL);
    f.g.n_compared++;
    close_fixture(&f);
}

/* A token hears nothing that comes after its four frames: 640 samples each. What follows sample
 * 16000 changes nothing before token 25, bit by bit, and something after it. */
static void causal(void **state) {
    (void)state;
    fixture f;
    open_nano(&f);
    enum { N = 24000, CHANGED = 16000, TOKEN = CHANGED / 640 };
    float *x = golden_alloc(&f.g, N, sizeof *x), *soft[2];
    const uint32_t n_frame = mel_frames(N), width = f.audio->config.n_out;
    for (uint32_t i = 0; i < N; i++) x[i] = 0.3f * sinf((float)i * (0.05f + (float)i * 1e-5f));
    for (int i = 0; i < 2; i++) {
        float *mel = golden_alloc(&f.g, (size_t)n_frame * MEL_BANDS, sizeof *mel);
        REQUIRE(mel_spectrogram(x, N, mel, &err));
        soft[i] = encode(&f.g, f.audio, mel, n_frame, NULL);
        for (uint32_t j = CHANGED; j < N; j++) x[j] = 0;
    }
    assert_memory_equal(soft[0], soft[1], TOKEN * width * sizeof(float));
    assert_memory_not_equal(soft[0] + TOKEN * width, soft[1] + TOKEN * width,
                            width * sizeof(float));
    f.g.n_compared++;
    close_fixture(&f);
}

/* Silence is heard without a NaN, and the shortest sound is one token. */
static void silence(void **state) {
    (void)state;
    fixture f;
    open_nano(&f);
    static const uint32_t lengths[2] = {161, 16000};
    for (int i = 0; i < 2; i++) {
        float *x = golden_alloc(&f.g, lengths[i], sizeof *x);
        const uint32_t n_frame = mel_frames(lengths[i]);
        float *mel = golden_alloc(&f.g, (size_t)n_frame * MEL_BANDS, sizeof *mel);
        REQUIRE(mel_spectrogram(x, lengths[i], mel, &err));
        const uint32_t n = audio_soft_tokens(f.audio, n_frame);
        assert_int_equal(n, i ? 25 : 1);
        const float *soft = encode(&f.g, f.audio, mel, n_frame, NULL);
        for (uint32_t j = 0; j < n * f.audio->config.n_out; j++) assert_true(isfinite(soft[j]));
    }
    f.g.n_compared++;
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nano),
        cmocka_unit_test(stereo),
        cmocka_unit_test(causal),
        cmocka_unit_test(silence),
    };
    return cmocka_run_group_tests_name("golden_audio", tests, NULL, NULL);
}
