/* media_talk: pictures and recordings for the tests of the public interface. */
#ifndef CARAT_TESTS_MEDIA_TALK_H
#define CARAT_TESTS_MEDIA_TALK_H

#include "picture.h"
#include "sound.h" /* before talk.h, which has an err */

#include "talk.h"

#define GOLDEN "tests/golden/nano/"

#define USER(text)   "{\"role\":\"user\",\"content\":\"" text "\"}"
#define MODEL(text)  "{\"role\":\"assistant\",\"content\":\"" text "\"}"
#define PARTS(parts) "{\"role\":\"user\",\"content\":[" parts "]}"
#define TEXT(text)   "{\"type\":\"text\",\"text\":\"" text "\"}"
#define IMAGE        "{\"type\":\"image\"}"
#define AUDIO        "{\"type\":\"audio\"}"

static inline carat_media load_image(const char *name) {
    carat_media m = {.kind = CARAT_MEDIA_IMAGE};
    char path[128];
    snprintf(path, sizeof path, GOLDEN "%s.png", name);
    m.rgb = picture_load(path, &m.width, &m.height);
    if (!m.rgb) fail_msg("cannot read %s", path);
    return m;
}

static inline carat_media load_audio(arena *a, const char *name) {
    char path[128];
    snprintf(path, sizeof path, GOLDEN "%s.wav", name);
    const sound s = sound_load(a, path);
    return (carat_media){.kind = CARAT_MEDIA_AUDIO,
                         .samples = s.samples,
                         .n_sample = s.n,
                         .n_channel = s.n_channel,
                         .rate = s.rate};
}

static inline void free_image(carat_media *m) {
    picture_free((uint8_t *)(uintptr_t)m->rgb);
    *m = (carat_media){0};
}

/* Asks with n media, at 70 soft tokens a picture. */
static inline answer ask_media(carat_session *ses, const char *messages, const carat_media *media,
                               size_t n) {
    return ask_with(
        ses,
        (carat_chat_desc){.messages = messages, .media = media, .n_media = n, .image_tokens = 70});
}

/* One answer, exactly this text. Returns the soft tokens that were encoded. */
static inline uint32_t expect_media(carat_session *ses, const char *messages,
                                    const carat_media *media, size_t n, const char *text) {
    answer a = ask_media(ses, messages, media, n);
    if (!a.ok) fail_msg("%s", err.message);
    assert_text(&a, text);
    const uint32_t n_encoded = a.stats.n_encoded;
    free_answer(&a);
    return n_encoded;
}

#endif
