/* What the program makes of picture and sound files: pixels and samples of every format, what is
 * turned, cut, too large or something else; base64 and data: URLs; media in messages. */
#include "picture_test.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- PNG ---- */

static void png_colours(void **state) {
    (void)state;
    buf b = {0};
    png_begin(&b, 2, 1, 8, 0); /* grey */
    png_end(&b, (const uint8_t[]){10, 200}, 2, 1);
    check_pixels(&b, 2, 1, (const uint8_t[]){10, 10, 10, 200, 200, 200}, 0);
    png_begin(&b, 8, 1, 1, 0); /* black and white */
    png_end(&b, (const uint8_t[]){0x81}, 1, 1);
    check_pixels(&b, 8, 1, (const uint8_t[24]){255, 255, 255, [21] = 255, 255, 255}, 0);
    png_begin(&b, 1, 2, 16, 2); /* 16 bits */
    png_end(&b, (const uint8_t[]){1, 255, 2, 255, 3, 255, 254, 0, 253, 0, 252, 0}, 6, 2);
    check_pixels(&b, 1, 2, (const uint8_t[]){1, 2, 3, 254, 253, 252}, 1);
    png_begin(&b, 2, 1, 8, 4); /* grey with alpha, on white */
    png_end(&b, (const uint8_t[]){100, 255, 100, 0}, 4, 1);
    check_pixels(&b, 2, 1, (const uint8_t[]){100, 100, 100, 255, 255, 255}, 0);
    png_begin(&b, 3, 1, 8, 6); /* colours with alpha */
    png_end(&b, (const uint8_t[]){0, 0, 0, 51, 9, 8, 7, 255, 255, 0, 10, 128}, 12, 1);
    check_pixels(&b, 3, 1, (const uint8_t[]){204, 204, 204, 9, 8, 7, 255, 127, 132}, 0);
    png_begin(&b, 4, 1, 2, 3); /* a palette, of which one colour is transparent */
    png_chunk(&b, "PLTE", (const uint8_t[]){1, 2, 3, 4, 5, 6, 7, 8, 9}, 9);
    png_chunk(&b, "tRNS", (const uint8_t[]){255, 0}, 2);
    png_end(&b, (const uint8_t[]){0x18}, 1, 1);
    check_pixels(&b, 4, 1, (const uint8_t[]){1, 2, 3, 255, 255, 255, 7, 8, 9, 1, 2, 3}, 0);
}

static void sizes(void **state) {
    (void)state;
    buf b = {0};
    png_begin(&b, 20000, 20000, 8, 2); /* nothing of that size is ever allocated */
    png_end(&b, (const uint8_t[3]){0}, 3, 1);
    refused(&b, "p: 20000 x 20000 pixels; carat takes 100 million");
    png_begin(&b, 70000, 1, 8, 0);
    png_end(&b, (const uint8_t[3]){0}, 3, 1);
    refused(&b, "p: 70000 x 1 pixels; carat takes 100 million, and 65535 on a side");
    png_begin(&b, 0, 1, 8, 0);
    png_end(&b, (const uint8_t[3]){0}, 3, 1);
    refused(&b, "p: a picture without pixels");
    png_begin(&b, 9000, 9000, 8, 0); /* far too few bytes */
    png_end(&b, (const uint8_t[3]){0}, 3, 1);
    refused(&b, "p: a PNG picture cannot be read");
}

/* ---- GIF, BMP ---- */

static void gif_frames(void **state) {
    (void)state;
    const uint8_t index[6] = {0, 1, 1, 0, 0, 1};
    buf b = {0};
    gif_file(&b, 3, 2, index, -1);
    check_pixels(
        &b, 3, 2,
        (const uint8_t[]){255, 0, 0, 0, 0, 255, 0, 0, 255, 255, 0, 0, 255, 0, 0, 0, 0, 255}, 0);
    gif_file(&b, 2, 1, index, 1);
    check_pixels(&b, 2, 1, (const uint8_t[]){255, 0, 0, 255, 255, 255}, 0);
    gif_file(&b, 3, 2, index, -1);
    for (size_t n = b.len - 2; n > 6; n--) { /* without what ends the frame */
        media_list l = {0};
        b.len = n;
        REFUSES("p: the GIF is cut short", decode(&b, &l));
    }
    buf_free(&b);
}

/* 2 x 2 pixels of 24 bits; rows: negative: from the top to the bottom. */
static void bmp_file(buf *b, int32_t rows) {
    buf_puts(b, "BM");
    put_little(b, 54 + 16, 4);
    put_little(b, 0, 4);
    put_little(b, 54, 4);
    put_little(b, 40, 4);
    put_little(b, 2, 4);
    put_little(b, (uint32_t)rows, 4);
    put_little(b, 1, 2);
    put_little(b, 24, 2);
    for (int i = 0; i < 6; i++) put_little(b, 0, 4);
    for (uint32_t y = 0; y < 2; y++) {
        put_big(b, 0x010203 + y * 0x101010, 3);
        put_big(b, 0x040506 + y * 0x101010, 3);
        put_little(b, 0, 2);
    }
}

static void bmp_rows(void **state) {
    (void)state;
    buf b = {0};
    bmp_file(&b, -2);
    check_pixels(&b, 2, 2, (const uint8_t[]){3, 2, 1, 6, 5, 4, 19, 18, 17, 22, 21, 20}, 0);
    bmp_file(&b, 2);
    check_pixels(&b, 2, 2, (const uint8_t[]){19, 18, 17, 22, 21, 20, 3, 2, 1, 6, 5, 4}, 0);
    bmp_file(&b, 2);
    for (size_t n = b.len - 1; n > 2; n--) {
        media_list l = {0};
        b.len = n;
        REFUSES("p: the BMP is cut short", decode(&b, &l));
    }
    buf_free(&b);
}

/* n_pixel pixels in a row of four bytes, in a file with a palette of n_colour greys: 10, 20, ... */
static void bmp_palette(buf *b, uint32_t bits, uint32_t n_colour, uint32_t n_pixel, uint32_t row) {
    buf_puts(b, "BM");
    put_little(b, 54 + 4 * n_colour + 4, 4);
    put_little(b, 0, 4);
    put_little(b, 54 + 4 * n_colour, 4);
    put_little(b, 40, 4);
    put_little(b, n_pixel, 4);
    put_little(b, 1, 4);
    put_little(b, 1, 2);
    put_little(b, bits, 2);
    for (int i = 0; i < 6; i++) put_little(b, 0, 4);
    for (uint32_t i = 1; i <= n_colour; i++) put_little(b, 0x0a0a0a * i, 4);
    put_big(b, row, 4);
}

/* What is behind the pixels in their bytes, or in their row, counts for nothing. */
static void bmp_palettes(void **state) {
    (void)state;
    static const char missing[] =
        "p: the BMP has pixels whose colours cannot be read from its palette";
    buf b = {0};
    bmp_palette(&b, 8, 3, 3, 0x020001ff);
    check_pixels(&b, 3, 1, (const uint8_t[]){30, 30, 30, 10, 10, 10, 20, 20, 20}, 0);
    bmp_palette(&b, 4, 2, 3, 0x101fffff);
    check_pixels(&b, 3, 1, (const uint8_t[]){20, 20, 20, 10, 10, 10, 20, 20, 20}, 0);
    bmp_palette(&b, 1, 1, 2, 0x3fffffff);
    check_pixels(&b, 2, 1, (const uint8_t[]){10, 10, 10, 10, 10, 10}, 0);
    bmp_palette(&b, 8, 3, 3, 0x02000300);
    refused(&b, missing);
    bmp_palette(&b, 4, 2, 3, 0x10200000);
    refused(&b, missing);
    bmp_palette(&b, 1, 1, 2, 0x40000000);
    refused(&b, missing);
    bmp_palette(&b, 8, 0, 1, 0);
    refused(&b, missing);
}

/* ---- files as they are found ---- */

static const char *const pictures[] = {
    "shapes.jpg",      "shapes.gif", "shapes.bmp", "shapes.webp", "shapes16.png",
    "progressive.jpg", "turned.jpg", "wide.png",   "one.png",     "frames.gif"};
static const char *const sounds[] = {"stop.flac", "stop.ogg", "stop.mp3"};

static void read_file(const char *name, buf *out) {
    char path[256];
    snprintf(path, sizeof path, "tests/media/%s", name);
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("cannot read %s", path);
    char piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0;) buf_put(out, piece, n);
    fclose(f);
}

static bool can_read(const char *name) {
    if (strstr(name, ".webp") && !has_webp()) return false;
    return has_stb();
}

/* The average of the middle of a picture of the same subject is the same in all formats. */
static void formats(void **state) {
    (void)state;
    uint32_t sums[3] = {0};
    for (size_t i = 0; i < 6; i++) {
        buf b = {0};
        media_list l = {0};
        if (!can_read(pictures[i])) {
            print_message("skipped: %s, which this build cannot read\n", pictures[i]);
            continue;
        }
        read_file(pictures[i], &b);
        REQUIRE(decode(&b, &l));
        assert_int_equal(l.items[0].width, 128);
        uint32_t sum[3] = {0};
        for (size_t k = 0; k < 128 * 128 * 3; k++) sum[k % 3] += l.items[0].rgb[k];
        for (int c = 0; c < 3; c++) {
            if (i == 0) sums[c] = sum[c];
            if (abs((int)(sum[c] / 16384) - (int)(sums[c] / 16384)) > 2)
                fail_msg("%s: channel %d is %u", pictures[i], c, sum[c] / 16384);
        }
        media_cut(&l, 0);
        buf_free(&b);
    }
}

static void other_files(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *text;
        size_t n;
    } others[] = {
        {"PK\3\4zip", "it looks like a ZIP archive", 7},
        {"%PDF-1.7", "it looks like a PDF document", 8},
        {"RIFF\1\0\0\0WAVEfmt ", "it looks like a WAV sound", 16},
        {"\0\0\0\x18"
         "ftypheic",
         "it looks like a HEIC picture", 12},
        {"hello", "p: not a picture that carat reads (PNG, JPEG, WebP, GIF, BMP)", 5},
        {"", "p: empty, not a picture", 0},
    };
    for (size_t i = 0; i < COUNT(others); i++) {
        buf b = {0};
        buf_put(&b, others[i].bytes, others[i].n);
        refused(&b, others[i].text);
    }
}

/* Cut anywhere, or with a byte changed: refused in a sentence, or a picture. */
static void damaged_files(void **state) {
    (void)state;
    uint32_t random = 1, n_refused = 0;
    for (size_t i = 0; i < COUNT(pictures); i++) {
        buf b = {0};
        if (!can_read(pictures[i])) continue;
        read_file(pictures[i], &b);
        for (size_t k = 0; k < 60; k++) {
            media_list l = {0};
            const size_t len = b.len;
            random = random * 1664525 + 1013904223;
            const size_t at = (random >> 4) % len;
            const char before = b.data[at];
            if (k % 2)
                b.len = at;
            else
                b.data[at] = (char)(before ^ (1 << random % 8));
            err = (carat_error){0};
            if (decode(&b, &l)) {
                assert_int_not_equal(l.items[0].width, 0);
            } else {
                assert_int_not_equal(err.code, CARAT_OK);
                n_refused++;
            }
            media_cut(&l, 0);
            b.len = len;
            b.data[at] = before;
        }
        buf_free(&b);
    }
    if (has_stb()) assert_true(n_refused > 200);
}

/* ---- sounds ---- */

static bool hear(const buf *b, media_list *l) {
    return media_add_bytes(l, CARAT_MEDIA_AUDIO, "s", (const uint8_t *)b->data, b->len, &err);
}

/* A WAV of n_byte bytes of data, of which `given` are there. format: 1 whole numbers, 3 floats. */
static void wav_file(buf *b, uint32_t format, uint32_t n_channel, uint32_t rate, uint32_t bits,
                     const void *data, uint32_t n_byte, uint32_t given) {
    buf_puts(b, "RIFF");
    put_little(b, 36 + n_byte, 4);
    buf_puts(b, "WAVEfmt ");
    put_little(b, 16, 4);
    put_little(b, format, 2);
    put_little(b, n_channel, 2);
    put_little(b, rate, 4);
    put_little(b, rate * n_channel * bits / 8, 4);
    put_little(b, n_channel * bits / 8, 2);
    put_little(b, bits, 2);
    buf_puts(b, "data");
    put_little(b, n_byte, 4);
    buf_put(b, data, given);
}

#define NEEDS_SOUND                                                                                \
    do {                                                                                           \
        (void)state;                                                                               \
        if (!sound_library()) {                                                                    \
            print_message("skipped: this build has no libsndfile\n");                              \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

static void wav_samples(void **state) {
    NEEDS_SOUND;
    const int16_t stereo[4] = {16384, 0, -32768, -16384};
    buf b = {0};
    media_list l = {0};
    wav_file(&b, 1, 2, 8000, 16, stereo, sizeof stereo, sizeof stereo);
    REQUIRE(hear(&b, &l));
    assert_int_equal(l.items[0].n_sample, 2);
    assert_int_equal(l.items[0].n_channel, 1);
    assert_int_equal(l.items[0].rate, 8000);
    assert_true(fabsf(l.items[0].samples[0] - 0.25f) < 1e-4f);
    assert_true(fabsf(l.items[0].samples[1] + 0.75f) < 1e-4f);
    media_cut(&l, 0);
    buf_free(&b);
    const float wrong[2] = {0.5f, NAN};
    wav_file(&b, 3, 1, 8000, 32, wrong, sizeof wrong, sizeof wrong);
    REFUSES("s: it holds samples that are not numbers", hear(&b, &l));
    buf_free(&b);
    wav_file(&b, 1, 2, 8000, 16, stereo, 8, 7);
    REFUSES("s: the WAV is cut short", hear(&b, &l));
    buf_free(&b);
    wav_file(&b, 1, 2, 8000, 16, stereo, 0, 0);
    REFUSES("s: a sound without samples", hear(&b, &l));
    buf_free(&b);
    wav_file(&b, 1, 2, 500000, 16, stereo, 8, 8);
    REFUSES("s: 500000 samples a second; carat takes 192000 at most", hear(&b, &l));
    buf_free(&b);
    REFUSES("s: not a sound that libsndfile reads", hear(&b, &l));
    buf_put(&b, "PK\3\4zip", 7);
    REFUSES("it looks like a ZIP archive", hear(&b, &l));
    buf_free(&b);
}

static void sound_formats(void **state) {
    NEEDS_SOUND;
    for (size_t i = 0; i < COUNT(sounds); i++) {
        buf b = {0};
        media_list l = {0};
        double energy = 0;
        read_file(sounds[i], &b);
        err = (carat_error){0};
        if (!hear(&b, &l)) { /* libsndfile below 1.1 knows no MP3 */
            assert_non_null(strstr(sounds[i], "mp3"));
            print_message("skipped: %s\n", err.message);
        } else {
            const carat_media *m = &l.items[0];
            double seconds = (double)m->n_sample / m->rate;
            for (uint64_t k = 0; k < m->n_sample; k++)
                energy += (double)m->samples[k] * m->samples[k];
            assert_true(seconds > 0.55 && seconds < 0.75);
            assert_true(sqrt(energy / (double)m->n_sample) > 0.01);
        }
        media_cut(&l, 0);
        for (size_t k = 1; k < 40; k++) { /* cut: refused, or shorter */
            const size_t len = b.len;
            b.len = len * k / 40;
            err = (carat_error){0};
            if (!hear(&b, &l)) assert_int_not_equal(err.code, CARAT_OK);
            media_cut(&l, 0);
            b.len = len;
        }
        b.len = b.len / 2;
        if (strstr(sounds[i], "flac")) REFUSES("s: ", hear(&b, &l));
        buf_free(&b);
    }
}

/* ---- files ---- */

static void paths(void **state) {
    (void)state;
    char dir[64], path[96];
    media_list l = {0};
    snprintf(dir, sizeof dir, "/tmp/carat-test-%ld", (long)getpid());
    assert_int_equal(mkdir(dir, 0700), 0);
    REFUSES(": a directory", media_add_file(&l, CARAT_MEDIA_IMAGE, dir, 0, &err));
    snprintf(path, sizeof path, "%s/x", dir);
    REFUSES("/x: No such file", media_add_file(&l, CARAT_MEDIA_AUDIO, path, 0, &err));
    assert_int_equal(mkfifo(path, 0600), 0);
    REFUSES("/x: a pipe", media_add_file(&l, CARAT_MEDIA_IMAGE, path, 0, &err));
    unlink(path);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    REFUSES("/x: empty", media_add_file(&l, CARAT_MEDIA_IMAGE, path, 0, &err));
    if (sound_library()) REFUSES("/x: empty", media_add_file(&l, CARAT_MEDIA_AUDIO, path, 0, &err));
    assert_int_equal(ftruncate(fd, (off_t)300 << 20), 0);
    REFUSES("a picture may have 256 MiB", media_add_file(&l, CARAT_MEDIA_IMAGE, path, 0, &err));
    if (sound_library()) { /* two hours of silence that take no room on the disk */
        buf b = {0};
        const uint32_t n_byte = 2 * 3600 * 16000 * 2;
        wav_file(&b, 1, 1, 16000, 16, "", n_byte, 0);
        assert_int_equal(ftruncate(fd, 44 + n_byte), 0);
        assert_int_equal(pwrite(fd, b.data, b.len, 0), b.len);
        REFUSES("/x: 2 h 0 min of sound; carat hears 10 min 0 s at most",
                media_add_file(&l, CARAT_MEDIA_AUDIO, path, 0, &err));
        buf_free(&b);
    }
    close(fd);
    unlink(path);
    rmdir(dir);
}

/* ---- text ---- */

static void base64(void **state) {
    (void)state;
    static const struct {
        const char *text, *bytes;
    } good[] = {{"", ""},
                {"Zg==", "f"},
                {"Zm8", "fo"},
                {"Zm9v\n", "foo"},
                {"Zm 9v\r\nYg==", "foob"},
                {"_-8=", "\xff\xef"},
                {"/+8=", "\xff\xef"},
                {"data:image/png;base64,Zm9v", "foo"},
                {"DATA:;BASE64,Zm9v", "foo"},
                {"data:audio/wav;codecs=1;base64,", ""}};
    static const struct {
        const char *text, *why;
    } bad[] = {{"Zm9v!", "x: not base64 (at byte 4)"},
               {"Zg==Zg", "x: not base64 (at byte 4)"},
               {"Zm9vZ", "x: the base64 is cut short"},
               {"Zg===", "x: the base64 is cut short"},
               {"data:image/png,Zm9v", "x: not a data: URL in base64"},
               {"data:image/png;base64", "x: not a data: URL in base64"},
               {"data:", "x: not a data: URL in base64"},
               {"https://example.org/p.png", "x: https://example.org/p.png: carat fetches nothing"},
               {"file:///etc/passwd", "carat fetches nothing"}};
    for (size_t i = 0; i < COUNT(good); i++) {
        buf b = {0};
        REQUIRE(media_text_decode("x", good[i].text, strlen(good[i].text), &b, &err));
        assert_int_equal(b.len, strlen(good[i].bytes));
        assert_memory_equal(b.data, good[i].bytes, b.len);
        buf_free(&b);
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        buf b = {0};
        REFUSES(bad[i].why, media_text_decode("x", bad[i].text, strlen(bad[i].text), &b, &err));
        buf_free(&b);
    }
}

/* ---- messages ---- */

static const char talk[] =
    "{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"QQ==\","
    "\"format\":\"wav\"}},{\"type\":\"text\",\"text\":\"hi\"},{\"type\":\"image_url\",\"image_"
    "url\":"
    "{\"url\":\"data:image/png;base64,QUI=\"}}],\"images\":[\"QUJD\"]}";

static void take(void **state) {
    (void)state;
    arena *a = arena_create(NULL);
    json *m = NULL;
    media_refs refs = {0};
    buf out = {0};
    REQUIRE(json_parse(a, talk, strlen(talk), "talk", &m, &err));
    REQUIRE(media_take(a, m, &refs, &out, &err));
    assert_string_equal(out.data,
                        "{\"images\":[\"\"],\"role\":\"user\",\"content\":[{\"type\":\"audio\"},"
                        "{\"type\":\"text\",\"text\":\"hi\"},{\"type\":\"image\"}]}");
    assert_int_equal(refs.n, 3);
    assert_string_equal(refs.items[0].what, "image 1");
    assert_string_equal(refs.items[1].what, "audio 1");
    assert_string_equal(refs.items[2].what, "image 2");
    static const char *const bad[] = {
        "{\"content\":[{\"type\":\"image\",\"path\":\"/etc/passwd\"}]}",
        "{\"content\":[{\"type\":\"image\"}]}",
        "{\"content\":[{\"type\":\"video\",\"frames\":2}]}",
        "{\"content\":[{\"type\":\"video\",\"paths\":[\"a\"],\"times\":[0]}]}",
        "{\"content\":[{\"type\":\"input_audio\"}]}",
        "{\"images\":[7]}",
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        REQUIRE(json_parse(a, bad[i], strlen(bad[i]), "talk", &m, &err));
        REFUSES("", media_take(a, m, &refs, &out, &err));
        assert_int_not_equal(err.code, CARAT_OK);
    }
    buf_free(&out);
    arena_free(a);
}

/* What attach() writes, media_load() reads. */
static void attached(void **state) {
    (void)state;
    attachments a = {0};
    if (!has_stb()) skip();
    REQUIRE(attach(&a, "video-frame", "0:tests/media/one.png", &err));
    REQUIRE(attach(&a, "video-frame", "1.5:tests/media/shapes.gif", &err));
    REQUIRE(attach(&a, "video-frame", "0:tests/media/one.png", &err)); /* another video */
    REQUIRE(attach(&a, "image", "tests/media/shapes.jpg", &err));
    REFUSES("wants SECONDS:FILE", attach(&a, "video-frame", "tests/media/one.png", &err));
    REFUSES("wants SECONDS:FILE", attach(&a, "video-frame", "-1:tests/media/one.png", &err));
    REFUSES("missing.png", attach(&a, "image", "missing.png", &err));
    attachments_end(&a);
    assert_int_equal(a.media.n, 4);
    assert_non_null(strstr(a.parts.data, "{\"type\":\"video\",\"frames\":2,\"paths\":[\"/"));
    assert_non_null(strstr(a.parts.data, "],\"times\":[0,1.5]},{\"type\":\"video\",\"frames\":1,"));

    buf text = {0}, out = {0};
    json *m = NULL;
    arena *memory = arena_create(NULL);
    media_list l = {0};
    buf_printf(&text, "{\"content\":[%s{\"type\":\"text\",\"text\":\"\"}]}", a.parts.data);
    REQUIRE(json_parse(memory, text.data, text.len, "message", &m, &err));
    REQUIRE(media_load(m, false, &l, &out, &err));
    assert_string_equal(out.data, text.data);
    assert_int_equal(l.n, 4);
    assert_true(l.items[1].time == 1.5);
    for (size_t i = 0; i < 4; i++) assert_int_equal(l.items[i].width, a.media.items[i].width);

    static const char gone[] = "{\"content\":[{\"type\":\"image\",\"path\":\"/nowhere/p.png\"},"
                               "{\"type\":\"text\",\"text\":\"x\"}]}";
    REQUIRE(json_parse(memory, gone, strlen(gone), "message", &m, &err));
    REFUSES("/nowhere/p.png: No such file", media_load(m, false, &l, &out, &err));
    buf_reset(&out);
    REQUIRE(media_load(m, true, &l, &out, &err)); /* with a warning on stderr */
    assert_string_equal(out.data, "{\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}");
    assert_int_equal(l.n, 4);
    media_cut(&l, 0);
    attachments_free(&a);
    buf_free(&text);
    buf_free(&out);
    arena_free(memory);
}

static void list_limits(void **state) {
    (void)state;
    buf b = {0};
    media_list l = {0}, more = {0};
    if (!has_stb()) skip();
    read_file("one.png", &b);
    for (size_t i = 0; i < MEDIA_MAX; i++) REQUIRE(decode(&b, &l));
    REFUSES("more than 128 pictures and sounds", decode(&b, &l));
    REQUIRE(decode(&b, &more));
    REFUSES("more than 128 pictures and sounds", media_move(&l, &more, &err));
    media_cut(&l, 1);
    REQUIRE(media_move(&l, &more, &err));
    assert_int_equal(l.n, 2);
    assert_int_equal(more.n, 0);
    l.bytes += MEDIA_MAX_BYTES - 8; /* as if they were large */
    REFUSES("together need more than 1024 MiB", decode(&b, &l));
    l.bytes -= MEDIA_MAX_BYTES - 8;
    media_cut(&l, 0);
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest with_pictures[] = {
        cmocka_unit_test(png_colours),  cmocka_unit_test(sizes),
        cmocka_unit_test(gif_frames),   cmocka_unit_test(bmp_rows),
        cmocka_unit_test(bmp_palettes), cmocka_unit_test(formats),
        cmocka_unit_test(other_files),  cmocka_unit_test(damaged_files),
        cmocka_unit_test(wav_samples),  cmocka_unit_test(sound_formats),
        cmocka_unit_test(paths),        cmocka_unit_test(base64),
        cmocka_unit_test(take),         cmocka_unit_test(attached),
        cmocka_unit_test(list_limits),
    };
    return cmocka_run_group_tests_name("decode", with_pictures, NULL, NULL);
}
