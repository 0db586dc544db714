/* media_parts: pictures and sounds where they are named: in the parts of messages, as OpenAI and
 * Ollama write them or as carat saves them, and by the options of the command line.
 *
 * Parts: {"type":"image"|"audio","path":FILE} or "data":BASE64, {"type":"image_url","image_url":
 * {"url":DATA-URL}}, {"type":"input_image","image_url":DATA-URL}, {"type":"input_audio",
 * "input_audio":{"data":BASE64}}, {"type":"video","paths":[FILE...],"times":[SECONDS...]}; beside
 * the content of a message "images":[BASE64...].
 *
 * Flow: conversation.c, run.c, commands.c and serve_ask.c before; media.c after. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- what a message names ---- */

/* How a message is read. */
typedef struct reader {
    arena *memory;
    media_refs *refs;
    bool files;       /* parts may name files */
    media_list *list; /* read at once, into here, and keep the parts as they are; NULL: only refs */
    bool lenient;
} reader;

static bool is_type(const json *part, const char *type) {
    return json_is_string(json_get(part, "type"), type);
}

static media_ref *new_ref(reader *r, carat_media_kind kind, carat_error *err) {
    static const char *const names[] = {"image", "audio"};
    char name[32];
    size_t count = 1;
    if (r->refs->n == MEDIA_MAX) {
        fail(err, CARAT_E_UNSUPPORTED, "more than %d pictures and sounds", MEDIA_MAX);
        return NULL;
    }
    for (size_t i = 0; i < r->refs->n; i++) count += r->refs->items[i].kind == kind;
    media_ref *ref = &r->refs->items[r->refs->n++];
    snprintf(name, sizeof name, "%s %zu", names[kind], count);
    *ref = (media_ref){.kind = kind, .what = arena_copy(r->memory, name, strlen(name))};
    if (ref->what) return ref;
    fail_memory(err, strlen(name), "a message");
    return NULL;
}

static bool add_text(reader *r, carat_media_kind kind, const json *text, carat_error *err) {
    media_ref *ref = new_ref(r, kind, err);
    if (!ref) return false;
    if (!text || text->kind != JSON_STRING || text->len == 0)
        return fail(err, CARAT_E_ARGUMENT, "%s: the message does not hold it as base64", ref->what);
    ref->text = text->text;
    ref->len = text->len;
    return true;
}

static bool add_path(reader *r, carat_media_kind kind, const json *path, double time,
                     carat_error *err) {
    media_ref *ref = new_ref(r, kind, err);
    if (!ref) return false;
    if (!r->files)
        return fail(err, CARAT_E_UNSUPPORTED, "%s: a file; send its content in base64", ref->what);
    if (!path || path->kind != JSON_STRING || strlen(path->text) != path->len || !path->len)
        return fail(err, CARAT_E_FORMAT, "%s: not the path of a file", ref->what);
    ref->path = ref->what = path->text;
    ref->time = time;
    return true;
}

static bool add_plain(reader *r, carat_media_kind kind, const json *part, carat_error *err) {
    const json *path = json_get(part, "path");
    if (path) return add_path(r, kind, path, 0, err);
    return add_text(r, kind, json_get(part, "data"), err);
}

static bool add_video(reader *r, const json *part, carat_error *err) {
    const json *paths = json_get(part, "paths"), *times = json_get(part, "times");
    if (!paths || paths->kind != JSON_ARRAY || paths->n == 0 || !times || times->n != paths->n)
        return fail(err, CARAT_E_UNSUPPORTED,
                    "video: send its frames as pictures, or the paths and times of its frames");
    for (size_t i = 0; i < paths->n; i++) {
        double time = json_number(json_at(times, i), -1);
        if (!(time >= 0 && time < 1e6))
            return fail(err, CARAT_E_FORMAT, "video: the time of frame %zu is no second", i);
        if (!add_path(r, CARAT_MEDIA_IMAGE, json_at(paths, i), time, err)) return false;
    }
    return json_number(json_get(part, "frames"), (double)paths->n) == (double)paths->n ||
           fail(err, CARAT_E_FORMAT, "video: it has %zu paths, which is not its frames", paths->n);
}

/* Adds what a part names; nothing for a part of text. */
static bool add_part(reader *r, const json *part, carat_error *err) {
    const json *url = json_get(part, "image_url");
    if (url && url->kind == JSON_OBJECT) url = json_get(url, "url");
    if (is_type(part, "image")) return add_plain(r, CARAT_MEDIA_IMAGE, part, err);
    if (is_type(part, "audio")) return add_plain(r, CARAT_MEDIA_AUDIO, part, err);
    if (is_type(part, "video")) return add_video(r, part, err);
    if (is_type(part, "image_url") || is_type(part, "input_image"))
        return add_text(r, CARAT_MEDIA_IMAGE, url, err);
    if (is_type(part, "input_audio"))
        return add_text(r, CARAT_MEDIA_AUDIO, json_get(json_get(part, "input_audio"), "data"), err);
    return true;
}

/* ---- reading it ---- */

static bool read_ref(const media_ref *ref, media_list *l, carat_error *err) {
    buf bytes = {0};
    if (ref->path) return media_add_file(l, ref->kind, ref->path, ref->time, err);
    bool ok = media_text_decode(ref->what, ref->text, ref->len, &bytes, err) &&
              media_add_bytes(l, ref->kind, ref->what,
                              (const uint8_t *)(bytes.data ? bytes.data : ""), bytes.len, err);
    buf_free(&bytes);
    return ok;
}

bool media_read(const media_refs *refs, media_list *l, carat_error *err) {
    for (size_t i = 0; i < refs->n; i++)
        if (!read_ref(&refs->items[i], l, err)) return false;
    return true;
}

/* The refs from `first` on; *skip: they cannot be read and are forgotten. */
static bool read_now(reader *r, size_t first, bool *skip, carat_error *err) {
    const size_t n = r->list ? r->list->n : 0;
    carat_error e = {0};
    *skip = false;
    for (size_t i = first; r->list && i < r->refs->n; i++) {
        if (read_ref(&r->refs->items[i], r->list, &e)) continue;
        if (!r->lenient) return fail(err, e.code, "%s", e.message);
        warn("%s; the message goes on without it", e.message);
        media_cut(r->list, n);
        r->refs->n = first;
        *skip = true;
        return true;
    }
    return true;
}

static bool write_parts(reader *r, const json *content, buf *out, carat_error *err) {
    bool comma = false;
    buf_puts(out, "[");
    for (size_t i = 0; i < content->n; i++) {
        const json *part = json_at(content, i);
        const size_t first = r->refs->n;
        bool skip;
        if (!add_part(r, part, err) || !read_now(r, first, &skip, err)) return false;
        if (skip) continue;
        if (comma) buf_puts(out, ",");
        comma = true;
        if (r->list || r->refs->n == first)
            json_write(out, part);
        else
            buf_puts(out, r->refs->items[first].kind == CARAT_MEDIA_IMAGE ? "{\"type\":\"image\"}"
                                                                          : "{\"type\":\"audio\"}");
    }
    buf_puts(out, "]");
    return true;
}

static bool write_images(reader *r, const json *images, buf *out, carat_error *err) {
    bool comma = false;
    buf_puts(out, "[");
    for (size_t i = 0; i < images->n; i++) {
        const size_t first = r->refs->n;
        bool skip;
        if (!add_text(r, CARAT_MEDIA_IMAGE, json_at(images, i), err) ||
            !read_now(r, first, &skip, err))
            return false;
        if (skip) continue;
        if (comma) buf_puts(out, ",");
        comma = true;
        if (r->list)
            json_write(out, json_at(images, i));
        else
            buf_puts(out, "\"\"");
    }
    buf_puts(out, "]");
    return true;
}

static bool is_array(const json *v) { return v && v->kind == JSON_ARRAY; }

/* "images" come first, as carat_chat() counts them. */
static bool write_message(reader *r, const json *m, buf *out, carat_error *err) {
    if (!is_array(json_get(m, "content")) && !is_array(json_get(m, "images"))) {
        json_write(out, m);
        return true;
    }
    const json *images = json_get(m, "images");
    const char *comma = "";
    buf_puts(out, "{");
    if (is_array(images)) {
        buf_puts(out, "\"images\":");
        if (!write_images(r, images, out, err)) return false;
        comma = ",";
    }
    for (size_t i = 0; i < m->n; i++, comma = ",") {
        const json *key = &m->keys[i], *value = &m->items[i];
        const bool parts = is_array(value) && json_is_string(key, "content");
        if (json_is_string(key, "images") && is_array(value)) continue;
        buf_puts(out, comma);
        json_write(out, key);
        buf_puts(out, ":");
        if (!parts)
            json_write(out, value);
        else if (!write_parts(r, value, out, err))
            return false;
    }
    buf_puts(out, "}");
    return true;
}

bool media_take(arena *a, const json *m, media_refs *refs, buf *out, carat_error *err) {
    reader r = {.memory = a, .refs = refs};
    return write_message(&r, m, out, err);
}

bool media_load(const json *m, bool lenient, media_list *l, buf *out, carat_error *err) {
    media_refs refs = {0};
    reader r = {.refs = &refs, .files = true, .list = l, .lenient = lenient};
    const size_t n = l->n;
    r.memory = arena_create(err);
    bool ok = r.memory && write_message(&r, m, out, err);
    if (!ok) media_cut(l, n);
    arena_free(r.memory);
    return ok;
}

/* ---- what the user attaches ---- */

static void put_path(buf *b, const char *path) {
    char *whole = realpath(path, NULL);
    json_write_string(b, whole ? whole : path, strlen(whole ? whole : path));
    free(whole);
}

void attachments_end(attachments *a) {
    if (a->n_frame)
        buf_printf(&a->parts, "{\"type\":\"video\",\"frames\":%zu,\"paths\":[%s],\"times\":[%s]},",
                   a->n_frame, a->paths.data, a->times.data);
    a->n_frame = 0;
    buf_reset(&a->paths);
    buf_reset(&a->times);
}

/* A frame that is not later than the one before begins another video. */
static bool attach_frame(attachments *a, const char *value, carat_error *err) {
    char *end = NULL;
    double time = strtod(value, &end);
    if (end == value || *end != ':' || !end[1] || !(time >= 0 && time < 1e6))
        return fail(err, CARAT_E_ARGUMENT, "--video-frame wants SECONDS:FILE, not '%s'", value);
    media_list *l = &a->media;
    if (a->n_frame && time <= l->items[l->n - 1].time) attachments_end(a);
    if (!media_add_file(l, CARAT_MEDIA_IMAGE, end + 1, time, err)) return false;
    if (a->n_frame) {
        buf_puts(&a->paths, ",");
        buf_puts(&a->times, ",");
    }
    put_path(&a->paths, end + 1);
    buf_printf(&a->times, "%.10g", time);
    a->n_frame++;
    return true;
}

bool attach(attachments *a, const char *kind, const char *value, carat_error *err) {
    const bool is_image = strcmp(kind, "image") == 0;
    if (strcmp(kind, "video-frame") == 0) return attach_frame(a, value, err);
    if (!media_add_file(&a->media, is_image ? CARAT_MEDIA_IMAGE : CARAT_MEDIA_AUDIO, value, 0, err))
        return false;
    attachments_end(a);
    buf_printf(&a->parts, "{\"type\":\"%s\",\"path\":", is_image ? "image" : "audio");
    put_path(&a->parts, value);
    buf_puts(&a->parts, "},");
    return !a->parts.failed || fail_memory(err, a->parts.len, "the message");
}

void attachments_free(attachments *a) {
    media_cut(&a->media, 0);
    buf_free(&a->parts);
    buf_free(&a->paths);
    buf_free(&a->times);
    *a = (attachments){0};
}
