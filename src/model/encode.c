/* encode: the pictures and sounds of one prompt on their way to soft tokens: only those that the
 * session does not hold, one after the other, a step at a time. Loads the encoder that is needed.
 * Where the session is on a GPU, so are the encoders; when they do not fit, the CPU encodes and the
 * soft tokens are sent there.
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
    vision_gpu_free(e->vision_gpu);
    audio_gpu_free(e->audio_gpu);
    e->vision_gpu = NULL;
    e->audio_gpu = NULL;
    if (device_gpu(e)) gpu_buffer_free(device_gpu(e), e->filled);
    e->filled = (gpu_buffer){0};
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

static size_t row_bytes(const encode *e) {
    return e->session->engine->model->config.n_embd * sizeof(float);
}

static void tell(uint64_t done, uint64_t total, carat_event *ev) {
    *ev = (carat_event){.kind = CARAT_EVENT_PROGRESS, .token = -1, .done = done, .total = total};
    ev->text = "encode";
    ev->length = strlen(ev->text);
}

/* The weights for the medium under way. *ready: they are there, and *ev is left alone. */
static bool load(encode *e, gpu *g, bool *ready, carat_event *ev, carat_error *err) {
    const carat_media_kind kind = e->media[e->at].kind;
    uint64_t done = 0, total = 0;
    bool busy = false;
    if (!encoders_load(encoders_of(e), kind, g, &busy, ready, err)) return false;
    if (*ready) return true;
    encoders_progress(encoders_of(e), kind, &done, &total);
    *ev = (carat_event){.kind = busy ? CARAT_EVENT_PENDING : CARAT_EVENT_PROGRESS, .token = -1};
    ev->done = done;
    ev->total = total;
    return true;
}

/* ---- on the CPU ---- */

static bool start_cpu(encode *e, const medium *m, carat_error *err) {
    const encoders *all = encoders_of(e);
    e->n_step = 0;
    e->rows = arena_alloc(e->memory, m->n_soft, row_bytes(e));
    if (!e->rows) return fail_memory(err, m->n_soft * row_bytes(e), "soft tokens");
    if (m->kind == CARAT_MEDIA_IMAGE)
        return vision_cpu_create(all->vision, m->patches.data, m->patches.n_col, m->patches.n_row,
                                 NULL, &e->vision, err);
    return audio_cpu_create(all->audio, m->sound, m->n, NULL, &e->audio, err);
}

/* A layer; after the last one the rows are there. */
static bool step_cpu(encode *e, carat_event *ev, carat_error *err) {
    const medium *m = &e->media[e->at];
    const encoders *all = encoders_of(e);
    const uint32_t n_layer =
        m->kind == CARAT_MEDIA_IMAGE ? all->vision->config.n_layer : all->audio->config.n_layer;
    bool ready = false, finished = false;
    if (!load(e, NULL, &ready, ev, err)) return false;
    if (!ready) return true;
    if (!e->vision && !e->audio && !start_cpu(e, m, err)) return false;
    if (e->vision)
        vision_cpu_advance(e->vision, e->rows, &finished);
    else
        audio_cpu_advance(e->audio, e->rows, &finished);
    e->n_step++;
    tell(e->done + (finished ? m->n_soft : (uint64_t)m->n_soft * e->n_step / n_layer), e->total,
         ev);
    if (!finished) return true;
    e->soft.spans[e->at].rows = e->rows;
    encode_stop(e);
    return true;
}

/* Rows that the CPU computed, to the device. */
static bool send(encode *e, carat_error *err) {
    soft_span *s = &e->soft.spans[e->at];
    const size_t bytes = s->n * row_bytes(e);
    s->device = gpu_buffer_create(device_gpu(e), bytes, GPU_STORAGE, "soft tokens", err);
    if (!s->device.id) return false;
    gpu_write(device_gpu(e), s->device, 0, s->rows, bytes);
    return true;
}

/* ---- on the GPU ---- */

static bool start_gpu(encode *e, const medium *m, carat_error *err) {
    const encoders *all = encoders_of(e);
    const encoder_gpu *weights = all->towers[m->kind].device;
    carat_device *dev = e->session->engine->device;
    const image_patches *p = &m->patches;
    e->filled =
        gpu_buffer_create(dev->gpu, m->n_soft * row_bytes(e), GPU_STORAGE, "soft tokens", err);
    if (!e->filled.id) return false;
    if (m->kind == CARAT_MEDIA_IMAGE)
        return (e->vision_gpu || vision_gpu_create(all->vision, weights, dev->gpu, dev->cache,
                                                   &e->vision_gpu, err)) &&
               vision_gpu_begin(e->vision_gpu, p->data, p->n_col, p->n_row, e->filled, err);
    return (e->audio_gpu ||
            audio_gpu_create(all->audio, weights, dev->gpu, dev->cache, &e->audio_gpu, err)) &&
           audio_gpu_begin(e->audio_gpu, m->sound, m->n, e->filled, err);
}

static void tell_gpu(const encode *e, const medium *m, carat_event *ev) {
    uint64_t done = 0, total = 0;
    if (m->kind == CARAT_MEDIA_IMAGE)
        vision_gpu_progress(e->vision_gpu, &done, &total);
    else
        audio_gpu_progress(e->audio_gpu, &done, &total);
    tell(e->done + (total ? m->n_soft * done / total : 0), e->total, ev);
}

static bool step_gpu(encode *e, carat_event *ev, carat_error *err) {
    const medium *m = &e->media[e->at];
    gpu *g = device_gpu(e);
    bool ready = false, finished = false;
    if (!load(e, g, &ready, ev, err)) return false;
    if (!ready) return true;
    *ev = (carat_event){.kind = CARAT_EVENT_PENDING, .token = -1};
    if (encoder_gpu_busy(g)) return true;
    carat_error why = {0};
    if (!e->filled.id && !start_gpu(e, m, &why)) {
        encode_stop(e);
        e->on_cpu = why.code == CARAT_E_MEMORY;
        return e->on_cpu || fail(err, why.code, "%s", why.message);
    }
    if (!(m->kind == CARAT_MEDIA_IMAGE ? vision_gpu_advance(e->vision_gpu, &finished, err)
                                       : audio_gpu_advance(e->audio_gpu, &finished, err)))
        return false;
    tell_gpu(e, m, ev);
    if (!finished) return true;
    e->soft.spans[e->at].device = e->filled;
    e->filled = (gpu_buffer){0};
    return true;
}

/* ---- both ---- */

bool encode_advance(encode *e, bool *finished, carat_event *ev, carat_error *err) {
    while (e->at < e->soft.n && is_ready(e, e->at)) e->at++;
    *finished = e->at == e->soft.n;
    if (*finished) {
        encode_stop(e);
        return true;
    }
    const soft_span *s = &e->soft.spans[e->at];
    const bool on_gpu = e->session->gpu && !e->on_cpu && !s->rows &&
                        !encoders_of(e)->towers[e->media[e->at].kind].no_room;
    *ev = (carat_event){.kind = CARAT_EVENT_PENDING, .token = -1};
    if (on_gpu ? !step_gpu(e, ev, err) : !s->rows && !step_cpu(e, ev, err)) return false;
    if (e->session->gpu && s->rows && !s->device.id && !send(e, err)) return false;
    if (is_ready(e, e->at)) e->done += s->n;
    return true;
}
