/* Pictures to patches and samples to spectrograms, against values computed elsewhere, and what is
 * refused. */
#include "media/media.h"

#include "require.h" /* after carat's headers */

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

#define REFUSES(text, call) REFUSE(call, CARAT_E_ARGUMENT, text)

/* ---- pictures ---- */

/* Grey levels of a line, scaled along x and along y. */
static void check_line(const uint8_t *in, uint32_t n, const uint8_t *want, uint32_t m) {
    uint8_t rgb[64 * 3], out[64 * 3];
    for (uint32_t i = 0; i < 3 * n; i++) rgb[i] = in[i / 3];
    for (int down = 0; down < 2; down++) {
        if (down)
            REQUIRE(image_resize(rgb, 1, n, out, 1, m, &err));
        else
            REQUIRE(image_resize(rgb, n, 1, out, m, 1, &err));
        for (uint32_t i = 0; i < 3 * m; i++)
            if (out[i] != want[i / 3]) fail_msg("place %u is %u, not %u", i, out[i], want[i / 3]);
    }
}

static void resize_lines(void **state) {
    (void)state;
    const uint8_t ramp[10] = {0, 10, 20, 30, 40, 50, 60, 70, 80, 90};
    const uint8_t step[3] = {0, 128, 255};
    const uint8_t comb[10] = {255, 0, 255, 0, 255, 0, 255, 0, 255, 0};
    const uint8_t one[1] = {77}, same[5] = {77, 77, 77, 77, 77};
    check_line(ramp, 10, (const uint8_t[]){8, 32, 58, 82}, 4);
    check_line(step, 3, (const uint8_t[]){0, 22, 91, 165, 234, 255}, 6);
    check_line(comb, 10, (const uint8_t[]){144, 127, 128, 111}, 4);
    check_line(comb, 10, comb, 10);
    check_line(one, 1, same, 5);
    check_line(same, 5, one, 1);
}

/* Channels and axes are not mixed up: each corner keeps its colour. */
static void resize_corners(void **state) {
    (void)state;
    static uint8_t in[40][60][3], out[90][30][3];
    for (uint32_t y = 0; y < 40; y++)
        for (uint32_t x = 0; x < 60; x++) {
            in[y][x][0] = x < 30 ? 200 : 10;
            in[y][x][1] = y < 20 ? 100 : 20;
            in[y][x][2] = x < 30 && y < 20 ? 50 : 30;
        }
    REQUIRE(image_resize(in[0][0], 60, 40, out[0][0], 30, 90, &err));
    assert_memory_equal(out[0][0], ((uint8_t[]){200, 100, 50}), 3);
    assert_memory_equal(out[0][29], ((uint8_t[]){10, 100, 30}), 3);
    assert_memory_equal(out[89][0], ((uint8_t[]){200, 20, 30}), 3);
    assert_memory_equal(out[89][29], ((uint8_t[]){10, 20, 30}), 3);
}

static void sizes(void **state) {
    (void)state;
    static const struct {
        uint32_t width, height, budget, to_width, to_height, n_token;
    } cases[] = {
        {1, 1, 280, 768, 768, 256},
        {500, 500, 70, 384, 384, 64},
        {500, 500, 140, 528, 528, 121},
        {500, 500, 560, 1104, 1104, 529},
        {500, 500, 1120, 1584, 1584, 1089},
        {1024, 768, 70, 432, 336, 63},
        {640, 480, 140, 624, 480, 130},
        {4032, 3024, 280, 912, 672, 266},
        {1024, 768, 560, 1296, 960, 540},
        {1024, 768, 1120, 1824, 1344, 1064},
        {1920, 1080, 70, 528, 288, 66},
        {1920, 1080, 280, 1056, 576, 264},
        {1080, 1920, 280, 576, 1056, 264},
        {1920, 1080, 1120, 2112, 1200, 1100},
        {100, 1000, 70, 96, 1248, 52},
        {100, 1000, 280, 240, 2496, 260},
        {100, 1000, 1120, 480, 5040, 1050},
        {5000, 10, 70, 3360, 48, 70},
        {5000, 10, 280, 13440, 48, 280},
        {5000, 10, 560, 25392, 48, 529},
        {5000, 10, 1120, 35904, 48, 748},
        {10, 5000, 280, 48, 13440, 280},
        {10000, 3, 280, 13440, 48, 280},
        {65535, 1, 1120, 53760, 48, 1120},
        {7, 7, 1, 48, 48, 1},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint32_t w, h;
        REQUIRE(image_fit(cases[i].width, cases[i].height, 48, cases[i].budget, &w, &h, &err));
        if (w != cases[i].to_width || h != cases[i].to_height ||
            w / 48 * (h / 48) > cases[i].budget)
            fail_msg("%ux%u for %u: %ux%u", cases[i].width, cases[i].height, cases[i].budget, w, h);
        assert_int_equal(w / 48 * (h / 48), cases[i].n_token);
    }
    uint32_t w, h;
    REFUSES("a picture of 0x5 pixels", image_fit(0, 5, 48, 280, &w, &h, &err));
    REFUSES("a picture of 5x70000 pixels", image_fit(5, 70000, 48, 280, &w, &h, &err));
    REFUSES("0 soft tokens for a picture; 1 to 1120", image_fit(5, 5, 48, 0, &w, &h, &err));
    REFUSES("1121 soft tokens", image_fit(5, 5, 48, 1121, &w, &h, &err));
}

static void patches(void **state) {
    (void)state;
    uint8_t rgb[4 * 6 * 3], out[sizeof rgb];
    for (uint32_t i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)i;
    image_cut(rgb, 6, 4, 2, out);
    /* The second patch begins two pixels to the right, its second line one line below. */
    assert_memory_equal(out + 12, rgb + 6, 6);
    assert_memory_equal(out + 18, rgb + 18 + 6, 6);
    /* The fourth is below the first. */
    assert_memory_equal(out + 36, rgb + 36, 6);

    arena *a = arena_create(&err);
    image_patches p;
    REQUIRE(image_prepare(a, rgb, 6, 4, 16, 3, 70, &p, &err));
    assert_int_equal(p.n_col, 30);
    assert_int_equal(p.n_row, 18);
    REQUIRE(image_prepare(a, rgb, 1, 1, 16, 3, 70, &p, &err));
    for (uint32_t i = 0; i < 576 * 768; i++) assert_int_equal(p.data[i], rgb[i % 3]);
    arena_free(a);
}

/* ---- sounds ---- */

/* A value above the noise of the input's f32 must be right to 1e-4. */
static void check_band(const float *mel, uint32_t frame, uint32_t band, double want) {
    const double is = (double)mel[frame * MEL_BANDS + band];
    if (fabs(is - want) > (want > -3 ? 1e-4 : 2e-2))
        fail_msg("frame %u, band %u: %g, not %g", frame, band, is, want);
}

static void mel_of_a_tone(void **state) {
    (void)state;
    static float x[16000], mel[99 * MEL_BANDS];
    static const uint32_t band[9] = {1, 2, 3, 4, 43, 44, 45, 64, 127};
    static const double first[9] = {0.657476, -0.527250, 0.455710, -0.052009, 3.538363,
                                    3.706066, 3.700100,  0.574585, -0.635151};
    static const double later[9] = {-5.195252, -6.037427, -5.550797, -5.901525, 3.820512,
                                    4.323617,  4.298320,  -4.815591, -6.874334};
    for (int i = 0; i < 16000; i++) x[i] = (float)sin(2 * PI * 1000 * i / 16000);
    assert_int_equal(mel_frames(16000), 99);
    REQUIRE(mel_spectrogram(x, 16000, mel, &err));
    double mean = 0;
    for (uint32_t i = 0; i < 99; i++) {
        assert_true(mel[i * MEL_BANDS] == (float)log(1e-3)); /* there is no bin in band 0 */
        for (uint32_t j = 0; j < 9; j++) check_band(mel, i, band[j], i ? later[j] : first[j]);
        for (uint32_t j = 0; j < MEL_BANDS; j++) mean += (double)mel[i * MEL_BANDS + j];
    }
    assert_true(fabs(mean / (99 * MEL_BANDS) - -4.856518) < 1e-3);
}

static void mel_of_a_chirp(void **state) {
    (void)state;
    static float x[8000], mel[49 * MEL_BANDS];
    static const uint32_t band[8] = {1, 5, 10, 20, 40, 64, 100, 127}, frame[3] = {0, 20, 48};
    static const double want[3][8] = {
        {1.646192, 1.639135, 1.670353, 0.460400, -1.021212, -2.072880, -2.890277, -2.933162},
        {-5.602084, -6.221692, -6.346601, -5.283468, 2.732544, -5.837268, -6.830287, -6.899495},
        {-6.810180, -6.720705, -6.768020, -6.746367, -5.866612, -0.066304, -6.756300, -6.889959}};
    static const uint32_t top_frame[6] = {0, 10, 20, 30, 40, 48}, top[6] = {13, 28, 38, 47, 55, 61};
    for (int i = 0; i < 8000; i++) {
        const double t = i / 16000.0;
        x[i] = (float)(0.5 * sin(2 * PI * (200 * t + 1500 * t * t)));
    }
    assert_int_equal(mel_frames(8000), 49);
    REQUIRE(mel_spectrogram(x, 8000, mel, &err));
    for (uint32_t i = 0; i < 3; i++)
        for (uint32_t j = 0; j < 8; j++) check_band(mel, frame[i], band[j], want[i][j]);
    for (uint32_t i = 0; i < 6; i++)
        for (uint32_t j = 0; j < MEL_BANDS; j++)
            assert_true(mel[top_frame[i] * MEL_BANDS + j] <=
                        mel[top_frame[i] * MEL_BANDS + top[i]]);
}

static void mel_lengths(void **state) {
    (void)state;
    static float x[MEL_MAX_SAMPLES + 1], mel[2999 * MEL_BANDS];
    assert_int_equal(mel_frames(0), 0);
    assert_int_equal(mel_frames(160), 0);
    assert_int_equal(mel_frames(161), 1);
    assert_int_equal(mel_frames(640), 3);
    assert_int_equal(mel_frames(800), 4);
    assert_int_equal(mel_frames(32000), 199);
    assert_int_equal(mel_frames(MEL_MAX_SAMPLES), 2999);
    REQUIRE(mel_spectrogram(x, MEL_MAX_SAMPLES, mel, &err));
    for (uint32_t i = 0; i < 2999 * MEL_BANDS; i++) assert_true(mel[i] == (float)log(1e-3));
    REFUSES("10.0 ms are too short; there must be more than 10",
            mel_spectrogram(x, 160, mel, &err));
    REFUSES("30.0 s at once; at most 30", mel_spectrogram(x, MEL_MAX_SAMPLES + 1, mel, &err));
}

/* ---- resampling ---- */

/* A tone of `hz` on n_channel channels at `rate`, resampled; the largest difference from the tone
 * at 16 kHz, away from the ends. */
static double resampled_error(uint32_t rate, uint32_t n_channel, double hz, double amplitude) {
    arena *a = arena_create(&err);
    float *x = arena_alloc(a, (size_t)rate * n_channel, sizeof *x), *y;
    uint64_t n;
    assert_non_null(x);
    for (uint32_t i = 0; i < rate; i++)
        for (uint32_t c = 0; c < n_channel; c++) /* channels differ; their mean is the tone */
            x[i * n_channel + c] = (float)((0.5 + (double)c / (n_channel > 1 ? n_channel - 1 : 2)) *
                                           sin(2 * PI * hz * i / rate) * (n_channel > 1 ? 1 : 2));
    REQUIRE(mel_resample(a, x, rate, n_channel, rate, &y, &n, &err));
    assert_int_equal(n, 16000);
    double worst = 0;
    for (uint32_t i = 1000; i < 15000; i++)
        worst = fmax(worst, fabs((double)y[i] - amplitude * sin(2 * PI * hz * i / 16000.0)));
    arena_free(a);
    return worst;
}

static void resampling(void **state) {
    (void)state;
    /* Tones below 6.9 kHz come through; above 8.3 kHz nothing is left, where it would alias. */
    static const uint32_t rates[] = {8000, 11025, 16000, 22050, 44100, 48000, 44101, 96000};
    for (size_t i = 0; i < COUNT(rates); i++) {
        const double top = rates[i] < 16000 ? rates[i] * 0.43 : 6900;
        assert_true(resampled_error(rates[i], 1, 440, 1) < 2e-4);
        assert_true(resampled_error(rates[i], 2, 440, 1) < 2e-4);
        assert_true(resampled_error(rates[i], 3, top, 1) < 2e-3);
        if (rates[i] > 20000) assert_true(resampled_error(rates[i], 1, 8300, 0) < 2e-3);
    }
}

static void refused_sounds(void **state) {
    (void)state;
    arena *a = arena_create(&err);
    float x[4] = {0, 1, NAN, 0}, *y;
    uint64_t n;
    REFUSES("999 samples a second; 1000 to 768000", mel_resample(a, x, 2, 1, 999, &y, &n, &err));
    REFUSES("0 channels; 1 to 64", mel_resample(a, x, 2, 0, 16000, &y, &n, &err));
    REFUSES("0 samples", mel_resample(a, x, 0, 1, 16000, &y, &n, &err));
    REFUSES("sample 1 is not a finite number", mel_resample(a, x, 2, 2, 16000, &y, &n, &err));
    x[2] = 3;
    REQUIRE(mel_resample(a, x, 2, 2, 16000, &y, &n, &err));
    assert_int_equal(n, 2);
    assert_true(y[0] == 0.5f && y[1] == 1.5f);
    REQUIRE(mel_resample(a, x, 1, 1, 44100, &y, &n, &err)); /* less than one sample of 16 kHz */
    assert_int_equal(n, 0);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resize_lines),   cmocka_unit_test(resize_corners),
        cmocka_unit_test(sizes),          cmocka_unit_test(patches),
        cmocka_unit_test(mel_of_a_tone),  cmocka_unit_test(mel_of_a_chirp),
        cmocka_unit_test(mel_lengths),    cmocka_unit_test(resampling),
        cmocka_unit_test(refused_sounds),
    };
    return cmocka_run_group_tests_name("media", tests, NULL, NULL);
}
