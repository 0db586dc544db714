/* media: what the pictures and sounds of a conversation become: which part of which message stands
 * for which of them, how many soft tokens each will be, where these are in the prompt; and, once
 * the prompt is settled, the work that needs no weights: patches and spectrograms.
 *
 * A soft token is a negative id, made of all that it depends on: so a session finds what it holds
 * of a conversation with pictures as it does with text.
 *
 * Flow: conversation.c calls it between token/chat.c and the ids; encode.c after. */
#include "model/engine.h"

#include <math.h>
#include <string.h>

#define CLIP_SECONDS (MEL_MAX_SAMPLES / MEL_RATE)
#define MAX_CLIPS    20u
#define IMAGE_BUDGET 280u
#define FRAME_BUDGET 70u
#define MAX_FRAMES   4096u

/* ---- ids ---- */

int32_t medium_id(uint64_t of, uint32_t i) {
    uint64_t x = of + (i + 1) * 0x9e3779b97f4a7c15u; /* splitmix64 */
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (int32_t)(-1 - (int64_t)((x ^ x >> 31) >> 33));
}

/* ---- parts of messages ---- */

static const char *const kind_names[MEDIA_KINDS][2] = {{"image", "images"}, {"sound", "sounds"}};

/* While parts are matched with what is given. */
typedef struct matching {
    media_plan *p;
    uint32_t next[MEDIA_KINDS]; /* the next of desc->media of this kind, at the earliest */
    uint32_t n_named[MEDIA_KINDS];
    carat_error *err;
} matching;

static uint32_t count_kind(const carat_chat_desc *d, carat_media_kind kind) {
    uint32_t n = 0;
    for (size_t i = 0; i < d->n_media; i++) n += d->media[i].kind == kind;
    return n;
}

static bool does_not_match(const matching *m, carat_media_kind kind) {
    const uint32_t n = count_kind(m->p->desc, kind), named = m->n_named[kind];
    return fail(m->err, CARAT_E_ARGUMENT, "the messages have parts for %s%u %s, and %u %s given",
                n < named ? "at least " : "", named, kind_names[kind][named != 1], n,
                n == 1 ? "is" : "are");
}

/* The next n media of a kind go to this part. */
static bool match(matching *m, const json *part, carat_media_kind kind, uint32_t n) {
    media_plan *p = m->p;
    const carat_chat_desc *d = p->desc;
    p->parts[p->n_part++] = (media_part){.part = part, .first = p->n_order, .n = n};
    m->n_named[kind] += n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t *next = &m->next[kind];
        while (*next < d->n_media && d->media[*next].kind != kind) ++*next;
        if (*next == d->n_media) return does_not_match(m, kind);
        p->order[p->n_order++] = (*next)++;
    }
    return true;
}

static bool match_video(matching *m, const json *part, size_t i, arena *a) {
    media_plan *p = m->p;
    const double n = json_number(json_get(part, "frames"), 0);
    if (!(n >= 1 && n <= MAX_FRAMES && n == floor(n)))
        return fail(m->err, CARAT_E_ARGUMENT,
                    "messages[%zu]: a video needs \"frames\", a number from 1 to %u", i,
                    MAX_FRAMES);
    double *times = arena_alloc(a, (uint64_t)n, sizeof *times);
    if (!times) return fail_memory(m->err, (uint64_t)n * sizeof *times, "a video");
    const uint32_t first = p->n_order;
    if (!match(m, part, CARAT_MEDIA_IMAGE, (uint32_t)n)) return false;
    for (uint32_t k = 0; k < (uint32_t)n; k++) {
        times[k] = p->desc->media[p->order[first + k]].time;
        p->sizes[p->order[first + k]].budget = FRAME_BUDGET;
    }
    p->videos[p->n_video++] = (chat_video){part, times, (size_t)n};
    return true;
}

static bool match_part(matching *m, const json *part, size_t i, arena *a) {
    const char *mark = chat_placeholder(part);
    if (!mark) return true;
    const bool sound = strcmp(mark, "<|audio|>") == 0, video = strcmp(mark, "<|video|>") == 0;
    const carat_media_kind kind = sound ? CARAT_MEDIA_AUDIO : CARAT_MEDIA_IMAGE;
    const carat_engine *eng = m->p->engine;
    if (!encoders_have(&eng->encoders, kind, eng->name, m->err)) return false;
    return video ? match_video(m, part, i, a) : match(m, part, kind, 1);
}

static bool is_list(const json *v) { return v && v->kind == JSON_ARRAY; }

/* Every part of message i, and each of its "images". */
static bool match_message(matching *m, const json *message, size_t i, arena *a) {
    const json *images = json_get(message, "images"), *content = json_get(message, "content");
    const json *results = json_get(message, "tool_responses"), *role = json_get(message, "role");
    const carat_engine *eng = m->p->engine;
    const uint32_t before = m->p->n_part;
    for (size_t k = 0; is_list(images) && k < images->n; k++)
        if (!encoders_have(&eng->encoders, CARAT_MEDIA_IMAGE, eng->name, m->err) ||
            !match(m, &images->items[k], CARAT_MEDIA_IMAGE, 1))
            return false;
    for (size_t k = 0; is_list(content) && k < content->n; k++)
        if (!match_part(m, &content->items[k], i, a)) return false;
    for (size_t k = 0; is_list(results) && k < results->n; k++) {
        const json *parts = json_get(&results->items[k], "response");
        for (size_t j = 0; is_list(parts) && j < parts->n; j++)
            if (!match_part(m, &parts->items[j], i, a)) return false;
    }
    const bool system = json_is_string(role, "system") || json_is_string(role, "developer");
    return !system || i || m->p->n_part == before ||
           fail(m->err, CARAT_E_ARGUMENT,
                "messages[0]: the system message has a picture or a sound; it can only be text");
}

/* At least as many as there are parts that stand for media. */
static uint64_t count_parts(const json *messages) {
    uint64_t n = 0;
    for (size_t i = 0; i < messages->n; i++) {
        const json *m = &messages->items[i],
                   *lists[2] = {json_get(m, "images"), json_get(m, "content")};
        const json *results = json_get(m, "tool_responses");
        for (size_t k = 0; k < 2; k++)
            if (is_list(lists[k])) n += lists[k]->n;
        for (size_t k = 0; is_list(results) && k < results->n; k++) {
            const json *parts = json_get(&results->items[k], "response");
            if (is_list(parts)) n += parts->n;
        }
    }
    return n;
}

/* ---- sizes ---- */

static bool plan_image(const vision *v, const carat_media *m, media_size *s, carat_error *err) {
    const vision_config *c = &v->config;
    uint32_t width, height;
    if (!m->rgb) return fail(err, CARAT_E_ARGUMENT, "image: there are no pixels");
    if (!image_fit(m->width, m->height, c->side * c->pool, s->budget, &width, &height, err))
        return false;
    const uint32_t n_col = width / c->side, n_row = height / c->side;
    if (n_col > c->n_pos || n_row > c->n_pos)
        return fail(err, CARAT_E_ARGUMENT,
                    "image: %ux%u pixels become %ux%u patches, and the model knows %u a side; crop "
                    "it, or give it fewer soft tokens",
                    m->width, m->height, n_col, n_row, c->n_pos);
    s->n_clip = 1;
    s->n_soft = s->n_last = vision_soft_tokens(v, n_col, n_row);
    return true;
}

/* Soft tokens of n samples at MEL_RATE; 0: too few to hear. */
static uint32_t clip_soft(const audio *a, uint64_t n) {
    const uint32_t units = a->config.direct ? (uint32_t)n : mel_frames(n);
    return units ? audio_soft_tokens(a, units) : 0;
}

static bool plan_sound(const audio *a, const carat_media *m, media_size *s, carat_error *err) {
    if (!m->samples || !m->n_sample) return fail(err, CARAT_E_ARGUMENT, "audio: no samples");
    if (!m->rate) return fail(err, CARAT_E_ARGUMENT, "audio: 0 samples a second");
    if (m->n_sample / m->rate >= MAX_CLIPS * CLIP_SECONDS &&
        m->n_sample > (uint64_t)m->rate * MAX_CLIPS * CLIP_SECONDS)
        return fail(err, CARAT_E_ARGUMENT,
                    "audio: %.1f minutes; at most %u are heard at once, so cut it",
                    (double)m->n_sample / m->rate / 60, MAX_CLIPS * CLIP_SECONDS / 60);
    const uint64_t n = m->n_sample * MEL_RATE / m->rate, tail = n % MEL_MAX_SAMPLES;
    const uint32_t whole = (uint32_t)(n / MEL_MAX_SAMPLES), last = clip_soft(a, tail);
    if (!whole && !last)
        return fail(err, CARAT_E_ARGUMENT, "audio: %.1f ms are too short to be heard",
                    (double)m->n_sample * 1000 / m->rate);
    s->n_clip = whole + (last > 0);
    s->n_soft = clip_soft(a, MEL_MAX_SAMPLES);
    s->n_last = last ? last : s->n_soft;
    return true;
}

static bool plan_sizes(media_plan *p, carat_error *err) {
    const encoders *e = &p->engine->encoders;
    for (size_t i = 0; i < p->desc->n_media; i++) {
        const carat_media *m = &p->desc->media[i];
        if (!(m->kind == CARAT_MEDIA_AUDIO ? plan_sound(e->audio, m, &p->sizes[i], err)
                                           : plan_image(e->vision, m, &p->sizes[i], err)))
            return false;
    }
    return true;
}

/* ---- the plan ---- */

static bool image_budget(const carat_chat_desc *desc, uint32_t *out, carat_error *err) {
    static const uint32_t known[] = {70, 140, 280, 560, 1120};
    *out = desc->image_tokens ? desc->image_tokens : IMAGE_BUDGET;
    for (size_t i = 0; i < COUNT(known); i++)
        if (*out == known[i]) return true;
    return fail(err, CARAT_E_ARGUMENT, "image tokens: %u; there are 70, 140, 280, 560 and 1120",
                *out);
}

static bool allocate(arena *a, const json *messages, media_plan *p, carat_error *err) {
    const uint64_t n_part = count_parts(messages), n = p->desc->n_media;
    p->parts = arena_alloc(a, n_part + 1, sizeof *p->parts);
    p->videos = arena_alloc(a, n_part + 1, sizeof *p->videos);
    p->order = arena_alloc(a, n + 1, sizeof *p->order);
    p->sizes = arena_alloc(a, n + 1, sizeof *p->sizes);
    p->places = arena_alloc(a, n * MAX_CLIPS + 1, sizeof *p->places);
    return (p->parts && p->videos && p->order && p->sizes && p->places) ||
           fail_memory(err, n_part * sizeof *p->parts, "the parts of a conversation");
}

bool media_plan_create(arena *a, const carat_engine *eng, const carat_chat_desc *desc,
                       const json *messages, media_plan *out, carat_error *err) {
    uint32_t budget = 0;
    *out = (media_plan){.engine = eng, .desc = desc};
    matching m = {.p = out, .err = err};
    if (desc->n_media > UINT32_MAX / MAX_CLIPS || (desc->n_media && !desc->media))
        return fail(err, CARAT_E_ARGUMENT, "media: %zu are given and there are none",
                    desc->n_media);
    if (!image_budget(desc, &budget, err) || !allocate(a, messages, out, err)) return false;
    for (size_t i = 0; i < desc->n_media; i++) {
        if ((unsigned)desc->media[i].kind >= MEDIA_KINDS)
            return fail(err, CARAT_E_ARGUMENT, "media[%zu]: neither an image nor audio", i);
        out->sizes[i].budget = budget;
    }
    for (size_t i = 0; i < messages->n; i++)
        if (!match_message(&m, &messages->items[i], i, a)) return false;
    for (uint32_t kind = 0; kind < MEDIA_KINDS; kind++)
        if (m.n_named[kind] != count_kind(desc, kind)) return does_not_match(&m, kind);
    return plan_sizes(out, err);
}

/* ---- places in the prompt ---- */

static void put_clips(media_plan *p, const tokenizer *t, uint32_t index, id_list *out) {
    const bool sound = p->desc->media[index].kind == CARAT_MEDIA_AUDIO;
    const media_size *s = &p->sizes[index];
    for (uint32_t clip = 0; clip < s->n_clip; clip++) {
        ids_put(out, t->specials[sound ? SPECIAL_AUDIO_BEGIN : SPECIAL_IMAGE_BEGIN]);
        p->places[p->n_place++] = (media_place){index, clip, (uint32_t)out->len};
        const uint32_t n = clip + 1 < s->n_clip ? s->n_soft : s->n_last;
        for (uint32_t i = 0; i < n; i++) ids_put(out, -1);
        ids_put(out, t->specials[sound ? SPECIAL_AUDIO_END : SPECIAL_IMAGE_END]);
    }
}

/* The next medium of a placeholder; its part was matched. */
static uint32_t next_of(media_plan *p, const json *part) {
    uint32_t i = 0;
    while (i + 1 < p->n_part && p->parts[i].part != part) i++;
    media_part *found = &p->parts[i];
    assert(found->part == part && found->n_placed < found->n);
    return p->order[found->first + found->n_placed++];
}

static bool check_marks(const media_plan *p, const tokenizer *t, carat_error *err) {
    static const special marks[] = {SPECIAL_IMAGE, SPECIAL_IMAGE_BEGIN, SPECIAL_IMAGE_END,
                                    SPECIAL_AUDIO, SPECIAL_AUDIO_BEGIN, SPECIAL_AUDIO_END};
    for (size_t i = 0; i < COUNT(marks); i++)
        if (t->specials[marks[i]] < 0)
            return fail(err, CARAT_E_UNSUPPORTED,
                        "%s: its vocabulary has no tokens for pictures and sounds",
                        p->engine->name);
    return true;
}

bool media_expand(media_plan *p, const chat_prompt *text, id_list *ids, carat_error *err) {
    const tokenizer *t = p->engine->model->tokenizer;
    const json *const *part = (const json *const *)(const void *)text->media.data;
    const size_t n_part = text->media.len / sizeof *part;
    p->n_place = 0;
    if (!n_part || ids->failed) return true;
    if (!check_marks(p, t, err)) return false;
    for (uint32_t i = 0; i < p->n_part; i++) p->parts[i].n_placed = 0;
    id_list out = {0};
    size_t k = 0;
    for (size_t i = 0; i < ids->len; i++) {
        const int32_t id = ids->data[i];
        if (id != t->specials[SPECIAL_IMAGE] && id != t->specials[SPECIAL_AUDIO]) {
            ids_put(&out, id);
        } else {
            assert(k < n_part);
            put_clips(p, t, next_of(p, part[k++]), &out);
        }
    }
    ids_free(ids);
    *ids = out;
    return true;
}

/* ---- preparing ---- */

static uint64_t start_hash(const encoders *e, carat_media_kind kind, uint32_t a, uint32_t b) {
    const uint64_t head[3] = {e->towers[kind].fingerprint, a, b};
    return hash_bytes(FNV_START, head, sizeof head);
}

static bool prepare_image(arena *a, const media_plan *p, uint32_t index, medium *out,
                          carat_error *err) {
    const encoders *e = &p->engine->encoders;
    const vision_config *c = &e->vision->config;
    const carat_media *m = &p->desc->media[index];
    image_patches *got = &out->patches;
    if (!image_prepare(a, m->rgb, m->width, m->height, c->side, c->pool, p->sizes[index].budget,
                       got, err))
        return false;
    out->kind = CARAT_MEDIA_IMAGE;
    out->n_soft = vision_soft_tokens(e->vision, got->n_col, got->n_row);
    out->hash = hash_bytes(start_hash(e, out->kind, got->n_col, got->n_row), got->data,
                           (size_t)got->n_col * got->n_row * c->side * c->side * 3);
    return true;
}

/* samples [n] at MEL_RATE, which stay. */
static bool prepare_clip(arena *a, const encoders *e, const float *samples, uint64_t n, medium *out,
                         carat_error *err) {
    size_t width = 1;
    out->kind = CARAT_MEDIA_AUDIO;
    out->sound = samples;
    out->n = (uint32_t)n;
    if (!e->audio->config.direct) {
        width = MEL_BANDS;
        out->n = mel_frames(n);
        float *mel = arena_alloc(a, out->n, MEL_BANDS * sizeof *mel);
        if (!mel) return fail_memory(err, out->n * MEL_BANDS * sizeof *mel, "a spectrogram");
        if (!mel_spectrogram(samples, n, mel, err)) return false;
        out->sound = mel;
    }
    out->n_soft = audio_soft_tokens(e->audio, out->n);
    out->hash = hash_bytes(start_hash(e, out->kind, out->n, (uint32_t)width), out->sound,
                           out->n * width * sizeof *out->sound);
    return true;
}

/* All clips of a sound: out [n_clip]. */
static bool prepare_sound(arena *a, const media_plan *p, uint32_t index, medium *out,
                          carat_error *err) {
    const encoders *e = &p->engine->encoders;
    const carat_media *m = &p->desc->media[index];
    arena *brief = e->audio->config.direct ? NULL : arena_create(err);
    float *samples = NULL;
    uint64_t n = 0;
    bool ok = (brief || e->audio->config.direct) &&
              mel_resample(brief ? brief : a, m->samples, m->n_sample, m->n_channel, m->rate,
                           &samples, &n, err);
    for (uint32_t clip = 0; ok && clip < p->sizes[index].n_clip; clip++) {
        const uint64_t at = (uint64_t)clip * MEL_MAX_SAMPLES, left = n - at;
        ok = prepare_clip(a, e, samples + at, left < MEL_MAX_SAMPLES ? left : MEL_MAX_SAMPLES,
                          &out[clip], err);
    }
    arena_free(brief);
    return ok;
}

bool media_prepare(arena *a, const media_plan *p, id_list *ids, medium **out, carat_error *err) {
    medium *all = arena_alloc(a, (uint64_t)p->n_place + 1, sizeof *all);
    if (!all) return fail_memory(err, p->n_place * sizeof *all, "pictures and sounds");
    for (uint32_t i = 0; i < p->n_place; i++) {
        const media_place *at = &p->places[i];
        const bool sound = p->desc->media[at->index].kind == CARAT_MEDIA_AUDIO;
        if (at->clip == 0 && !(sound ? prepare_sound(a, p, at->index, &all[i], err)
                                     : prepare_image(a, p, at->index, &all[i], err)))
            return false;
        all[i].pos = at->pos;
        for (uint32_t k = 0; k < all[i].n_soft; k++)
            ids->data[at->pos + k] = medium_id(all[i].hash, k);
    }
    *out = all;
    return true;
}
