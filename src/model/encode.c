/* encode: the pictures and sounds of one prompt on their way to soft tokens: only those that the
 * session does not hold, one after the other, a layer at a time. Loads the encoder that is needed.
 *
 * Flow: media.c and encoders.c before; generate.c advances it; text_cpu.c and text_gpu.c take the
 * soft tokens. */
#include "model/engine.h"

#include <string.h>

static gpu *device_gpu(const encode *e) {
    const carat_session *ses = e->session;
    return ses && ses->engine && ses->engine->device ? ses->engine->device->gpu : NULL;
}

/* ---- a job's ---- */

bool encode_create(encode *e, carat_session *ses, arena *a, const medium *media, uint32_t n,
                   carat_error *err) {
    soft_span *spans = arena_alloc(a, (uint64_t)n + 1, sizeof *spans);
    if (!spans) return fail_memory(err, n * sizeof *spans, "pictures and sounds");
    if (ses->encode) encode_free(ses->encode); /* a job's that has ended */
    *e = (encode){.session = ses, .memory = a, .media = media, .soft = {spans, n}};
    for (uint32_t i = 0; i < n; i++)
        spans[i] = (soft_span){.pos = media[i].pos,
                               .n = media[i].n_soft,
                               .picture = media[i].kind == CARAT_MEDIA_IMAGE};
    ses->encode = e;
    return true;
}

void encode_stop(encode *e) {
    vision_cpu_free(e->vision);
    audio_cpu_free(e->audio);
    e->vision = NULL;
    e->audio = NULL;
}

void encode_close(encode *e) {
    gpu *g = device_gpu(e);
    encode_stop(e);
    for (uint32_t i = 0; i < e->soft.n; i++) {
        if (g) gpu_buffer_free(g, e->soft.spans[i].device);
        e->soft.spans[i].device = (gpu_buffer){0};
    }
}

void encode_free(encode *e) {
    if (!e->session) return;
    encode_close(e);
    e->session->encode = NULL;
    e->session = NULL;
}

/* ---- steps ---- */

static bool is_held(const encode *e, uint32_t i) {
    const soft_span *s = &e->soft.spans[i];
    return e->session->n_token >= s->pos + s->n;
}

static bool is_ready(const encode *e, uint32_t i) {
    const soft_span *s = &e->soft.spans[i];
    return is_held(e, i) || (e->session->gpu ? s->device.id != 0 : s->rows != NULL);
}

void encode_begin(encode *e) {
    e->at = 0;
    e->done = e->total = 0;
    for (uint32_t i = 0; i < e->soft.n; i++)
        if (!is_ready(e, i)) e->total += e->soft.spans[i].n;
}

static encoders *encoders_of(const encode *e) { return &e->session->engine->encoders; }

/* How far the one under way is, in soft tokens. */
static uint64_t part_done(const encode *e) {
    const medium *m = &e->media[e->at];
    const encoders *all = encoders_of(e);
    const uint32_t n_layer =
        m->kind == CARAT_MEDIA_IMAGE ? all->vision->config.n_layer : all->audio->config.n_layer;
    return n_layer ? (uint64_t)m->n_soft * e->n_step / n_layer : 0;
}

static void tell(const encode *e, uint64_t done, uint64_t total, carat_event *ev) {
    (void)e;
    *ev = (carat_event){.kind = CARAT_EVENT_PROGRESS, .token = -1, .done = done, .total = total};
    ev->text = "encode";
    ev->length = strlen(ev->text);
}

static bool start(encode *e, const medium *m, carat_error *err) {
    const encoders *all = encoders_of(e);
    const uint64_t n = (uint64_t)m->n_soft * e->session->engine->model->config.n_embd;
    e->n_step = 0;
    e->rows = arena_alloc(e->memory, n, sizeof *e->rows);
    if (!e->rows) return fail_memory(err, n * sizeof *e->rows, "soft tokens");
    if (m->kind == CARAT_MEDIA_IMAGE)
        return vision_cpu_create(all->vision, m->patches.data, m->patches.n_col, m->patches.n_row,
                                 NULL, &e->vision, err);
    return audio_cpu_create(all->audio, m->sound, m->n, NULL, &e->audio, err);
}

/* A layer; after the last one the rows are there. */
static bool step(encode *e, carat_error *err) {
    bool finished = false;
    if (!e->vision && !e->audio && !start(e, &e->media[e->at], err)) return false;
    if (e->vision)
        vision_cpu_advance(e->vision, e->rows, &finished);
    else
        audio_cpu_advance(e->audio, e->rows, &finished);
    e->n_step++;
    if (!finished) return true;
    encode_stop(e);
    e->soft.spans[e->at].rows = e->rows;
    return true;
}

/* Rows that the CPU computed, to the device. */
static bool to_device(encode *e, carat_error *err) {
    soft_span *s = &e->soft.spans[e->at];
    gpu *g = device_gpu(e);
    const size_t bytes = (size_t)s->n * e->session->engine->model->config.n_embd * sizeof(float);
    s->device = gpu_buffer_create(g, bytes, GPU_STORAGE, "soft tokens", err);
    if (!s->device.id) return false;
    gpu_write(g, s->device, 0, s->rows, bytes);
    return true;
}

bool encode_advance(encode *e, bool *finished, carat_event *ev, carat_error *err) {
    while (e->at < e->soft.n && is_ready(e, e->at)) e->at++;
    *finished = e->at == e->soft.n;
    if (*finished) return true;
    const soft_span *s = &e->soft.spans[e->at];
    bool ready = false;
    if (!s->rows) {
        const carat_media_kind kind = e->media[e->at].kind;
        const tower *t = &encoders_of(e)->towers[kind];
        if (!encoders_load(encoders_of(e), kind, &ready, err)) return false;
        tell(e, t->loaded, t->total, ev);
        if (!ready) return true;
        if (!step(e, err)) return false;
    }
    tell(e, e->done + part_done(e), e->total, ev);
    if (!s->rows) return true;
    if (e->session->gpu && !to_device(e, err)) return false;
    e->done += s->n;
    return true;
}
