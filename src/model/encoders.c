/* encoders: the vision and the audio encoder of a model, from its own file or a projector file, and
 * their weights: loaded when the first picture or sound comes, dropped on request.
 *
 * Encodes nothing. Flow: encoder_bind.c before, media.c and encode.c after. */
#include "model/media.h"

#include <inttypes.h>
#include <string.h>

static const char *const names[MEDIA_KINDS] = {"vision", "audio"};

/* ---- opening ---- */

static void settle(tower *t, weight **matrices, const float *vectors, uint32_t n) {
    t->matrices = matrices;
    t->vectors = vectors;
    t->n_vectors = n;
    t->fingerprint = hash_bytes(FNV_START, vectors, n * sizeof *vectors);
    for (weight **w = matrices; *w; w++) {
        const uint64_t place[2] = {(*w)->tensor->offset, (*w)->tensor->size};
        t->fingerprint = hash_bytes(t->fingerprint, place, sizeof place);
        t->total += (*w)->tensor->size;
    }
}

static bool open_one(arena *a, const gguf *g, uint32_t n_embd, carat_media_kind kind, encoders *e,
                     carat_error *err) {
    tower *t = &e->towers[kind];
    if (kind == CARAT_MEDIA_IMAGE) {
        if (!vision_open(a, g, n_embd, &e->vision, err)) return false;
        settle(t, e->vision->matrices, e->vision->vectors, e->vision->n_vectors);
    } else {
        if (!audio_open(a, g, n_embd, &e->audio, err)) return false;
        settle(t, e->audio->matrices, e->audio->vectors, e->audio->n_vectors);
    }
    return true;
}

static bool present(const gguf *g, carat_media_kind kind) {
    return kind == CARAT_MEDIA_IMAGE ? vision_present(g) : audio_present(g);
}

bool encoders_open(arena *a, const model *m, const char *projector, encoders *out,
                   carat_error *err) {
    *out = (encoders){0};
    if (projector && !gguf_open(a, projector, &out->file, err)) return false;
    gguf *own = out->file;
    if (own && !present(own, CARAT_MEDIA_IMAGE) && !present(own, CARAT_MEDIA_AUDIO))
        return fail(err, CARAT_E_FORMAT, "%s: no projector: there is no encoder in it", own->name);
    for (uint32_t kind = 0; kind < MEDIA_KINDS; kind++) {
        tower *t = &out->towers[kind];
        if (own && present(own, kind)) {
            if (!open_one(a, own, m->config.n_embd, kind, out, err)) return false;
        } else if (present(m->gguf, kind) &&
                   !open_one(a, m->gguf, m->config.n_embd, kind, out, &t->why) &&
                   (t->why.code == CARAT_E_MEMORY || t->why.code == CARAT_E_IO)) {
            return fail(err, t->why.code, "%s", t->why.message);
        }
    }
    return true;
}

void encoders_close(encoders *e) {
    if (e->file) gguf_close(e->file);
    e->file = NULL;
}

bool encoders_have(const encoders *e, carat_media_kind kind, const char *name, carat_error *err) {
    const tower *t = &e->towers[kind];
    if (t->matrices) return true;
    if (t->why.code)
        return fail(err, CARAT_E_UNSUPPORTED, "%s has no %s encoder that carat runs: %s", name,
                    names[kind], t->why.message);
    return fail(err, CARAT_E_UNSUPPORTED, "%s has no %s encoder%s", name, names[kind],
                e->file ? "" : "; llama.cpp's models have it in a second file, the projector");
}

/* ---- weights ---- */

static void drop_host(tower *t) {
    for (weight **w = t->matrices; w && *w; w++) (*w)->host = NULL;
    arena_free(t->host);
    t->host = NULL;
    t->on_host = false;
    t->loaded = 0;
}

static void drop_device(tower *t) {
    encoder_gpu_free(t->device);
    t->device = NULL;
    t->on_device = false;
}

static bool load_host(tower *t, carat_error *err) {
    if (!t->host) t->host = arena_create(err);
    t->on_host = t->host && !t->matrices[0];
    if (t->host && !t->on_host &&
        !weights_load_host(t->matrices, t->host, &t->loaded, &t->on_host, err))
        drop_host(t);
    return t->host != NULL;
}

static bool load_device(tower *t, gpu *g, bool *busy, carat_error *err) {
    if ((t->device ||
         encoder_gpu_create(g, t->matrices, t->vectors, t->n_vectors, &t->device, err)) &&
        encoder_gpu_load(t->device, busy, &t->on_device, err))
        return true;
    drop_device(t);
    return false;
}

bool encoders_load(encoders *e, carat_media_kind kind, gpu *g, bool *busy, bool *ready,
                   carat_error *err) {
    tower *t = &e->towers[kind];
    carat_error why = {0};
    *busy = false;
    *ready = g ? t->on_device : t->on_host;
    if (*ready) return true;
    const bool ok = g ? load_device(t, g, busy, &why) : load_host(t, &why);
    *ready = g ? t->on_device : t->on_host;
    t->no_room = g && !ok && why.code == CARAT_E_MEMORY;
    if (ok || t->no_room) return true;
    if (why.code != CARAT_E_MEMORY) return fail(err, why.code, "%s", why.message);
    return fail(err, why.code, "the %s encoder needs %.2f GB, and there is no room: %s",
                names[kind], (double)t->total * 1e-9, why.message);
}

void encoders_progress(const encoders *e, carat_media_kind kind, uint64_t *done, uint64_t *total) {
    const tower *t = &e->towers[kind];
    *done = t->loaded;
    *total = t->total;
    if (t->device) encoder_gpu_progress(t->device, done, total);
}

bool encoders_resident(const encoders *e) {
    for (uint32_t kind = 0; kind < MEDIA_KINDS; kind++)
        if (e->towers[kind].host || e->towers[kind].device) return true;
    return false;
}

void encoders_release(encoders *e) {
    for (uint32_t kind = 0; kind < MEDIA_KINDS; kind++) {
        drop_host(&e->towers[kind]);
        drop_device(&e->towers[kind]);
        e->towers[kind].no_room = false;
    }
}

/* ---- what is known about them ---- */

static uint64_t tower_bytes(const tower *t, bool packed) {
    if (!packed) return t->total;
    uint64_t bytes = 0;
    for (weight **w = t->matrices; w && *w; w++)
        bytes += upload_packed_bytes((*w)->type, (uint64_t)(*w)->n_col * (*w)->n_row);
    return bytes;
}

uint64_t encoders_bytes(const encoders *e, bool packed) {
    uint64_t bytes = 0;
    for (uint32_t kind = 0; kind < MEDIA_KINDS; kind++)
        bytes += tower_bytes(&e->towers[kind], packed) + e->towers[kind].n_vectors * sizeof(float);
    return bytes;
}

static void put_tower(buf *b, const tower *t, bool direct, const uint32_t size[6]) {
    buf_printf(b,
               "{\"direct\":%s,\"n_layer\":%u,\"n_embd\":%u,\"n_ff\":%u,\"n_head\":%u,"
               "\"head_dim\":%u,\"n_out\":%u,\"bytes\":%" PRIu64,
               direct ? "true" : "false", size[0], size[1], size[2], size[3], size[4], size[5],
               t->total);
}

void encoders_describe(const encoders *e, buf *b) {
    buf_puts(b, "\"encoders\":{\"file\":");
    if (e->file)
        json_write_string(b, e->file->name, strlen(e->file->name));
    else
        buf_puts(b, "null");
    buf_puts(b, ",\"vision\":");
    if (e->vision) {
        const vision_config *c = &e->vision->config;
        const uint32_t size[6] = {c->n_layer, c->n_embd, c->n_ff, c->n_head, c->head_dim, c->n_out};
        put_tower(b, &e->towers[CARAT_MEDIA_IMAGE], c->direct, size);
        buf_printf(b, ",\"patch\":%u,\"pool\":%u,\"standardize\":%s}", c->side, c->pool,
                   c->standardize ? "true" : "false");
    } else {
        buf_puts(b, "null");
    }
    buf_puts(b, ",\"audio\":");
    if (e->audio) {
        const audio_config *c = &e->audio->config;
        const uint32_t size[6] = {c->n_layer, c->n_embd, c->n_ff, c->n_head, c->head_dim, c->n_out};
        put_tower(b, &e->towers[CARAT_MEDIA_AUDIO], c->direct, size);
        buf_printf(b, ",\"n_mid\":%u,\"n_conv\":[%u,%u],\"frame\":%u}", c->n_mid, c->n_conv[0],
                   c->n_conv[1], c->frame);
    } else {
        buf_puts(b, "null");
    }
    buf_puts(b, "}");
}
