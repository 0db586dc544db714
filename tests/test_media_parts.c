/* Parts of messages and the media that they stand for: what matches, what does not and how that is
 * said; models without encoders and projectors of other models; sounds that are cut, turns that are
 * dropped, videos; relatives whose pictures' tokens see each other. On the CPU. */
#include "gpu/gpu_null.h" /* before talk.h, which has an err */
#include "model/conversation.h"

#include "media_talk.h"

#define FAMILY "tests/golden/family/"

static talk nano;
static uint8_t pixels[64 * 48 * 3];
static float noise[16000];
static const carat_media picture = {.rgb = pixels, .width = 64, .height = 48};
static const carat_media hiss = {
    .kind = CARAT_MEDIA_AUDIO, .samples = noise, .n_sample = 8000, .n_channel = 1, .rate = 16000};

static int open_nano(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 37 % 251);
    for (size_t i = 0; i < COUNT(noise); i++) noise[i] = 0.2f * sinf((float)(i * i % 977));
    open_talk(&nano, 1024);
    return 0;
}

static int close_nano(void **state) {
    (void)state;
    close_talk(&nano);
    return 0;
}

static carat_chat_desc describe(const char *messages, const carat_media *media, size_t n) {
    return (carat_chat_desc){
        .messages = messages, .media = media, .n_media = n, .image_tokens = 70};
}

/* What the session makes of a conversation: text and ids. */
static prompt build(const talk *t, arena *a, carat_chat_desc desc) {
    prompt p;
    REQUIRE(prompt_build(t->eng, a, &desc, carat_session_context(t->ses), &p, &err));
    return p;
}

static uint32_t count_soft(const prompt *p) {
    uint32_t n = 0;
    for (size_t i = 0; i < p->ids.len; i++) n += p->ids.data[i] < 0;
    return n;
}

/* ---- parts ---- */

static void mismatches(void **state) {
    (void)state;
    const carat_media both[2] = {picture, hiss};
    struct {
        const char *messages;
        size_t n;
        const char *says;
    } cases[] = {
        {"[" USER("Hello") "]", 1, "parts for 0 images, and 1 is given"},
        {"[" PARTS(IMAGE) "]", 0, "at least 1 image, and 0 are given"},
        {"[" PARTS(IMAGE "," IMAGE) "]", 1, "at least 2 images, and 1 is given"},
        {"[" PARTS(IMAGE) "]", 2, "parts for 0 sounds, and 1 is given"},
        {"[" PARTS(AUDIO "," AUDIO) "]", 2, "at least 2 sounds, and 1 is given"},
        {"[" PARTS("{\"type\":\"video\"}") "]", 1, "a video needs \"frames\""},
        {"[" PARTS("{\"type\":\"video\",\"frames\":0}") "]", 1, "a video needs \"frames\""},
        {"[" PARTS("{\"type\":\"video\",\"frames\":1.5}") "]", 1, "a video needs \"frames\""},
        {"[" PARTS("{\"type\":\"video\",\"frames\":2}") "]", 1, "at least 2 images"},
        {"[{\"role\":\"system\",\"content\":[" IMAGE "]}," USER("Hi") "]", 1, "only be text"},
        {"[{\"role\":\"user\",\"content\":\"x\",\"images\":[\"a\",\"b\"]}]", 1, "at least 2"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        carat_chat_desc desc = describe(cases[i].messages, both, cases[i].n);
        REFUSE(carat_chat(nano.ses, &desc, &err), CARAT_E_ARGUMENT, cases[i].says);
    }
}

static void bad_media(void **state) {
    (void)state;
    static const char seen[] = "[" PARTS(IMAGE) "]", heard[] = "[" PARTS(AUDIO) "]";
    struct {
        const char *messages;
        carat_media m;
        const char *says;
    } cases[] = {
        {seen, {.rgb = pixels, .width = 0, .height = 3}, "a picture of 0x3 pixels"},
        {seen, {.rgb = pixels, .width = 70000, .height = 3}, "a picture of 70000x3 pixels"},
        {seen, {.width = 3, .height = 3}, "no pixels"},
        {heard, {.kind = CARAT_MEDIA_AUDIO, .n_sample = 5, .rate = 16000}, "no samples"},
        {heard, {.kind = 1, .samples = noise, .n_sample = 5, .n_channel = 1}, "0 samples a second"},
        {heard,
         {.kind = 1, .samples = noise, .n_sample = 160, .n_channel = 1, .rate = 16000},
         "10.0 ms are too short"},
        {heard,
         {.kind = 1, .samples = noise, .n_sample = 115200000, .n_channel = 1, .rate = 16000},
         "120.0 minutes; at most 10"},
        {heard, {.kind = 1, .samples = noise, .n_sample = 999, .rate = 16000}, "0 channels"},
        {seen, {.kind = (carat_media_kind)7, .rgb = pixels}, "neither an image nor audio"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        carat_chat_desc desc = describe(cases[i].messages, &cases[i].m, 1);
        REFUSE(carat_chat(nano.ses, &desc, &err), CARAT_E_ARGUMENT, cases[i].says);
    }
    carat_chat_desc desc = describe(seen, &picture, 1);
    desc.image_tokens = 71;
    REFUSE(carat_chat(nano.ses, &desc, &err), CARAT_E_ARGUMENT, "71; there are 70");
    desc = describe(seen, NULL, 1);
    REFUSE(carat_chat(nano.ses, &desc, &err), CARAT_E_ARGUMENT, "there are none");
}

/* All ways to name a picture or a sound are one; what people write is never one. */
static void shapes_of_parts(void **state) {
    (void)state;
    static const char *const same[] = {
        "[" PARTS(IMAGE "," TEXT("Hi")) "]",
        "[" PARTS("{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}," TEXT("Hi")) "]",
        "[" PARTS("{\"type\":\"input_image\"}," TEXT("Hi")) "]",
        "[{\"role\":\"user\",\"content\":\"Hi\",\"images\":[\"x\"]}]"};
    arena *a = arena_create(NULL);
    prompt first = build(&nano, a, describe(same[0], &picture, 1));
    assert_int_equal(count_soft(&first), 63);
    for (size_t i = 1; i < COUNT(same); i++) {
        prompt p = build(&nano, a, describe(same[i], &picture, 1));
        assert_int_equal(p.ids.len, first.ids.len);
        assert_memory_equal(p.ids.data, first.ids.data, p.ids.len * sizeof(int32_t));
        prompt_free(&p);
    }
    prompt_free(&first);
    prompt p = build(&nano, a, describe("[" USER("<|image|> <|audio|>") "]", NULL, 0));
    assert_int_equal(count_soft(&p), 0);
    prompt_free(&p);
    arena_free(a);
}

static void in_order(void **state) {
    (void)state;
    const carat_media m[3] = {hiss, picture, hiss};
    arena *a = arena_create(NULL);
    prompt p = build(&nano, a, describe("[" PARTS(IMAGE "," AUDIO "," AUDIO) "]", m, 3));
    assert_int_equal(p.n_medium, 3);
    assert_int_equal(p.media[0].kind, CARAT_MEDIA_IMAGE);
    assert_int_equal(p.media[1].kind, CARAT_MEDIA_AUDIO);
    assert_true(p.media[1].hash == p.media[2].hash && p.media[0].hash != p.media[1].hash);
    assert_int_equal(p.ids.data[p.media[1].pos], p.ids.data[p.media[2].pos]);
    const tokenizer *t = nano.eng->model->tokenizer;
    for (int i = 0; i < 3; i++) {
        const int32_t *at = p.ids.data + p.media[i].pos;
        assert_int_equal(at[-1], t->specials[i ? SPECIAL_AUDIO_BEGIN : SPECIAL_IMAGE_BEGIN]);
        assert_int_equal(at[p.media[i].n_soft],
                         t->specials[i ? SPECIAL_AUDIO_END : SPECIAL_IMAGE_END]);
    }
    prompt_free(&p);
    arena_free(a);
}

static void video(void **state) {
    (void)state;
    carat_media m[3] = {picture, picture, picture};
    static const char messages[] =
        "[" PARTS(TEXT("Look") ",{\"type\":\"video\",\"frames\":3}," TEXT("What is it?")) "]";
    m[1].time = 1.9;
    m[2].time = 75;
    carat_chat_desc desc = describe(messages, m, 3);
    desc.image_tokens = 1120; /* frames have 70 */
    char *text = carat_render(nano.eng, &desc, &err);
    assert_non_null(text);
    if (!strstr(text, "Look00:00 <|image|> 00:01 <|image|> 01:15 <|image|>What is it?<turn|>"))
        fail_msg("%s", text);
    carat_string_free(text);
    arena *a = arena_create(NULL);
    prompt p = build(&nano, a, desc);
    assert_int_equal(p.n_medium, 3);
    assert_int_equal(count_soft(&p), 3 * 63);
    prompt_free(&p);
    arena_free(a);
}

/* ---- long sounds, full contexts ---- */

static void clips(void **state) {
    (void)state;
    const uint64_t n = 31 * 1000;
    float *long_noise = calloc(n, sizeof *long_noise);
    for (uint64_t i = 0; i < n; i++) long_noise[i] = noise[i % COUNT(noise)];
    carat_media m = {.kind = CARAT_MEDIA_AUDIO,
                     .samples = long_noise,
                     .n_sample = n,
                     .n_channel = 1,
                     .rate = 1000};
    carat_session *ses;
    REQUIRE(ses = carat_session_create(nano.eng, &(carat_session_desc){.n_ctx = 2048}, &err));
    talk t = {nano.dev, nano.eng, ses};
    arena *a = arena_create(NULL);
    static const char messages[] = "[" PARTS(AUDIO "," TEXT("Transcribe the audio.")) "]";
    prompt p = build(&t, a, describe(messages, &m, 1));
    assert_int_equal(p.n_medium, 2);
    assert_int_equal(p.n_cut, 1);
    assert_int_equal(p.n_piece, 2);
    assert_int_equal(p.media[0].n_soft, 750);
    assert_int_equal(p.media[1].n_soft, 25);
    prompt_free(&p);
    answer x = ask_with(
        ses, (carat_chat_desc){.messages = messages, .media = &m, .n_media = 1, .max_tokens = 2});
    if (!x.ok) fail_msg("%s", err.message);
    assert_string_equal(x.notices.data,
                        "sounds of more than 30 s are heard in pieces of 30 s: 1 was cut into 2\n");
    assert_int_equal(x.stats.n_encoded, 750 + 25);
    free_answer(&x);
    arena_free(a);
    carat_session_free(ses);
    free(long_noise);
}

/* What is left out takes its pictures along; those that stay are the right ones. */
static void dropped(void **state) {
    (void)state;
    uint8_t grey[3] = {100, 100, 100};
    const carat_media m[2] = {picture, {.rgb = grey, .width = 1, .height = 1}};
    static const char messages[] =
        "[" PARTS(IMAGE "," TEXT("One")) "," MODEL("Yes.") "," PARTS(IMAGE "," TEXT("Two")) "]";
    static const char rest[] = "[" PARTS(IMAGE "," TEXT("Two")) "]";
    carat_session *ses;
    REQUIRE(ses = carat_session_create(nano.eng, &(carat_session_desc){.n_ctx = 128}, &err));
    talk t = {nano.dev, nano.eng, ses};
    arena *a = arena_create(NULL);
    carat_chat_desc desc = describe(messages, m, 2);
    REFUSE(carat_chat(ses, &desc, &err), CARAT_E_CONTEXT, "the context holds 128");
    desc.keep_oldest_out = true;
    prompt p = build(&t, a, desc), q = build(&t, a, describe(rest, &m[1], 1));
    assert_int_equal(p.n_dropped, 2);
    assert_int_equal(p.n_medium, 1);
    assert_int_equal(p.ids.len, q.ids.len);
    assert_memory_equal(p.ids.data, q.ids.data, q.ids.len * sizeof(int32_t));
    prompt_free(&p);
    prompt_free(&q);
    arena_free(a);
    carat_session_free(ses);
}

/* ---- models ---- */

static carat_engine *open_model(const char *path, const char *projector, carat_device *dev) {
    return carat_engine_open(&(carat_engine_desc){.path = path, .projector = projector}, dev, &err);
}

static void models(void **state) {
    (void)state;
    carat_engine *eng;
    carat_model_info info;
    carat_engine_desc desc;
    REFUSE(open_model(NANO, FAMILY "moe-mmproj.gguf", NULL), CARAT_E_FORMAT,
           "belongs to another model: its soft tokens are");
    REFUSE(open_model(NANO, FAMILY "moe.gguf", NULL), CARAT_E_FORMAT, "there is no encoder in it");
    REFUSE(open_model(NANO, "nowhere.gguf", NULL), CARAT_E_NOT_FOUND, "nowhere.gguf");
    carat_engine_info(nano.eng, &info);
    assert_true(info.has_vision && info.has_audio && info.encoder_bytes > 1000000);
    carat_model *found;
    REQUIRE(found = carat_model_find(FAMILY "moe.gguf", &desc, &err)); /* of three that lie there */
    assert_string_equal(desc.projector, FAMILY "moe-mmproj.gguf");
    REQUIRE(eng = carat_engine_open(&desc, NULL, &err));
    carat_engine_info(eng, &info);
    assert_true(info.has_vision && !info.has_audio);
    char *about = carat_engine_describe(eng, &err);
    assert_non_null(strstr(about, "\"encoders\":{\"file\":\"" FAMILY "moe-mmproj.gguf\""));
    assert_non_null(strstr(about, "\"audio\":null}"));
    carat_string_free(about);
    carat_engine_close(eng);
    carat_model_free(found);
}

static void no_encoder(void **state) {
    (void)state;
    talk t;
    carat_device *dev;
    REQUIRE(dev = carat_device_open("cpu", &err));
    open_talk_with(&t, dev, &(carat_engine_desc){.path = FAMILY "moe.gguf"}, 256);
    carat_chat_desc desc = describe("[" PARTS(IMAGE) "]", &picture, 1);
    REFUSE(carat_chat(t.ses, &desc, &err), CARAT_E_UNSUPPORTED, "has no vision encoder");
    desc = describe("[" PARTS(AUDIO) "]", &hiss, 1);
    REFUSE(carat_chat(t.ses, &desc, &err), CARAT_E_UNSUPPORTED, "has no audio encoder");
    close_talk(&t);
}

/* Pictures of every size in a model whose pictures' tokens see each other, behind a text that no
 * chunk ends with. On the CPU with few tokens, on a device that computes nothing with all. */
static void whole_pictures(void **state) {
    (void)state;
    static const char messages[] =
        "[" USER("Some words before the picture, so that it is somewhere.") "," MODEL(
            "Yes.") "," PARTS(TEXT("Look:") "," IMAGE "," IMAGE "," TEXT("And now?")) "]";
    static const uint32_t sizes[] = {70, 280, 560, 1120};
    const carat_media m[2] = {picture, picture};
    for (size_t i = 0; i < COUNT(sizes) + 1; i++) {
        talk t;
        carat_device *dev;
        const bool cpu = i == COUNT(sizes);
        gpu *g = cpu ? NULL : gpu_null_open(&(gpu_null_desc){.delay = 1}, &err);
        REQUIRE(dev = cpu ? carat_device_open("cpu", &err)
                          : carat_device_from_gpu(g, NULL, NULL, &err));
        open_talk_with(
            &t, dev,
            &(carat_engine_desc){.path = FAMILY "moe.gguf", .projector = FAMILY "moe-mmproj.gguf"},
            cpu ? 512 : 4096);
        answer a = ask_with(t.ses, (carat_chat_desc){.messages = messages,
                                                     .media = m,
                                                     .n_media = 2,
                                                     .image_tokens = cpu ? 70 : sizes[i],
                                                     .max_tokens = 2,
                                                     .ignore_stop = true});
        if (!a.ok) fail_msg("%u soft tokens: %s", cpu ? 70 : sizes[i], err.message);
        assert_true(a.stats.n_encoded > (cpu ? 70 : sizes[i]) * 3 / 2);
        free_answer(&a);
        if (g) assert_string_equal(gpu_null_complaint(g), "");
        carat_session_free(t.ses);
        carat_engine_close(t.eng);
        if (g) assert_int_equal(gpu_null_count(g).n_buffer, 0);
        carat_device_close(t.dev);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mismatches),      cmocka_unit_test(bad_media),
        cmocka_unit_test(shapes_of_parts), cmocka_unit_test(in_order),
        cmocka_unit_test(video),           cmocka_unit_test(clips),
        cmocka_unit_test(dropped),         cmocka_unit_test(models),
        cmocka_unit_test(no_encoder),      cmocka_unit_test(whole_pictures),
    };
    return cmocka_run_group_tests_name("parts of messages", tests, open_nano, close_nano);
}
