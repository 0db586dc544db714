/* engine: one model on one device. Opens and checks the file, streams the weights to where they
 * are computed with, and forgets them when the device goes away. Text <-> ids for the caller.
 *
 * Runs nothing. Flow: model/weights.c, gpu/upload.c and device.c before; session.c after. */
#include "model/engine.h"

#include <string.h>

/* ---- opening ---- */

static bool parse_defaults(carat_engine *eng, const carat_engine_desc *desc, carat_error *err) {
    arena *a = eng->memory;
    json *params = NULL, *messages = NULL;
    if (desc->params &&
        !json_parse(a, desc->params, strlen(desc->params), "default options", &params, err))
        return false;
    if (params && params->kind != JSON_OBJECT)
        return fail(err, CARAT_E_FORMAT, "default options: not a JSON object");
    if (desc->messages &&
        !json_parse(a, desc->messages, strlen(desc->messages), "default messages", &messages, err))
        return false;
    if (messages && messages->kind != JSON_ARRAY)
        return fail(err, CARAT_E_FORMAT, "default messages: not a JSON array");
    if (desc->system && *desc->system) {
        eng->system = arena_copy(a, desc->system, strlen(desc->system));
        if (!eng->system) return fail_memory(err, strlen(desc->system), "the system prompt");
    }
    eng->params = params;
    eng->messages = messages;
    return true;
}

/* The large template is that of the models without per-layer embeddings (12B, 26B, 31B). */
static bool choose_template(carat_engine *eng, const char *name, carat_error *err) {
    eng->large = eng->model->config.n_ple == 0;
    if (!name) return true;
    eng->large = strcmp(name, "large") == 0;
    return eng->large || strcmp(name, "small") == 0 ||
           fail(err, CARAT_E_ARGUMENT, "template %s: there are small and large", name);
}

static bool name_model(carat_engine *eng, const char *path, carat_error *err) {
    gguf_string name = {0};
    if (!gguf_get_string(eng->model->gguf, "general.name", &name) || name.len == 0) {
        const char *slash = strrchr(path, '/');
        name.text = slash ? slash + 1 : path;
        name.len = strlen(name.text);
    }
    eng->name = arena_copy(eng->memory, name.text, name.len);
    return eng->name || fail_memory(err, name.len, "the model's name");
}

static bool open_model(carat_engine *eng, const carat_engine_desc *desc, carat_error *err) {
    gguf *g = NULL;
    if (!desc || !desc->path) return fail(err, CARAT_E_ARGUMENT, "engine: no model file is given");
    if (!gguf_open(eng->memory, desc->path, &g, err)) return false;
    if (!model_open(eng->memory, g, &eng->model, err)) {
        gguf_close(g);
        return false;
    }
    eng->matrices = model_matrices(eng->memory, eng->model, err);
    eng->fingerprint = model_fingerprint(eng->model);
    return eng->matrices && name_model(eng, desc->path, err) &&
           encoders_open(eng->memory, eng->model, desc->projector, &eng->encoders, err) &&
           choose_template(eng, desc->template_, err) && parse_defaults(eng, desc, err);
}

carat_engine *carat_engine_open(const carat_engine_desc *desc, carat_device *dev,
                                carat_error *err) {
    arena *a = arena_create(err);
    if (!a) return NULL;
    carat_engine *eng = arena_alloc(a, 1, sizeof *eng);
    if (!eng) {
        fail_memory(err, sizeof *eng, "an engine");
        arena_free(a);
        return NULL;
    }
    eng->memory = a;
    if (!open_model(eng, desc, err)) {
        carat_engine_close(eng);
        return NULL;
    }
    carat_adapter_use use = {.scale = 1};
    if (desc->adapter && (!(use.adapter = carat_adapter_open(eng, desc->adapter, err)) ||
                          !carat_engine_adapt(eng, &use, 1, err))) {
        carat_adapter_close(use.adapter);
        carat_engine_close(eng);
        return NULL;
    }
    carat_adapter_close(use.adapter); /* when it is used no more */
    eng->device = dev;
    if (dev) {
        eng->next = dev->engines;
        dev->engines = eng;
    }
    return eng;
}

void carat_engine_close(carat_engine *eng) {
    if (!eng) return;
    engine_unload(eng);
    for (carat_session *ses = eng->sessions; ses; ses = ses->next) ses->engine = NULL;
    for (engine_guest *guest = eng->guests; guest; guest = guest->next) guest->engine = NULL;
    carat_engine **at = eng->device ? &eng->device->engines : NULL;
    while (at && *at && *at != eng) at = &(*at)->next;
    if (at && *at) *at = eng->next;
    engine_close_adapters(eng);
    encoders_close(&eng->encoders);
    if (eng->model) model_close(eng->model);
    arena_free(eng->memory);
}

/* ---- weights ---- */

static bool begin_gpu(carat_engine *eng, carat_error *err) {
    gpu *g = eng->device->gpu;
    model_weights *w = &eng->model->weights;
    size_t n = (size_t)w->n_vectors * sizeof(float);
    w->vector_buffer = gpu_buffer_create(g, n ? n : 4, GPU_STORAGE, "vectors", err);
    if (!w->vector_buffer.id) return false;
    if (n) gpu_write(g, w->vector_buffer, 0, w->vectors, n);
    return upload_create(eng->memory, g, eng->matrices, &eng->upload, err);
}

/* Says how much was wanted when there was too little. */
static bool no_room(const carat_engine *eng, const carat_error *e, carat_error *err) {
    if (e->code != CARAT_E_MEMORY) return fail(err, e->code, "%s", e->message);
    carat_model_info info;
    engine_memory(eng, &info);
    return fail(err, e->code, "%s needs %.2f GB for its weights on %s, and there is no room: %s",
                eng->name, (double)info.weight_bytes * 1e-9, carat_device_name(eng->device),
                e->message);
}

bool engine_load_begin(carat_engine *eng, carat_error *err) {
    carat_device *dev = eng->device;
    if (dev->gpu && dev->gpu->lost && !device_recover(dev, true, err)) return false;
    if (eng->resident || eng->loading) return true;
    carat_error e = {0};
    eng->load_start = seconds_now();
    eng->loading = true;
    eng->loaded = 0;
    if (!dev->gpu) eng->host = arena_create(&e);
    if (dev->gpu ? begin_gpu(eng, &e) : eng->host != NULL) return true;
    engine_unload(eng);
    return no_room(eng, &e, err);
}

bool engine_load_advance(carat_engine *eng, bool *busy, carat_error *err) {
    carat_error e = {0};
    bool done = false;
    *busy = false;
    bool ok = eng->device->gpu
                  ? upload_advance(eng->upload, busy, &done, &e)
                  : weights_load_host(eng->matrices, eng->host, &eng->loaded, &done, &e);
    if (!ok) {
        no_room(eng, &e, err);
        engine_unload(eng);
        return false;
    }
    if (!done) return true;
    upload_free(eng->upload);
    eng->upload = NULL;
    eng->loading = false;
    eng->resident = eng->was_resident = true;
    eng->load_s = seconds_now() - eng->load_start;
    return true;
}

void engine_load_progress(const carat_engine *eng, uint64_t *done, uint64_t *total) {
    *total = eng->upload ? upload_bytes_total(eng->upload) : model_matrix_bytes(eng->model);
    *done = eng->resident ? *total : eng->upload ? upload_bytes_done(eng->upload) : eng->loaded;
}

void engine_unload(carat_engine *eng) {
    for (carat_session *ses = eng->sessions; ses; ses = ses->next) session_close(ses);
    for (engine_guest *guest = eng->guests; guest; guest = guest->next) guest->drop(guest);
    gpu *g = eng->device ? eng->device->gpu : NULL;
    lora_gpu_free(eng->adapted);
    eng->adapted = NULL;
    upload_free(eng->upload);
    eng->upload = NULL;
    if (g && eng->matrices) {
        upload_free_weights(g, eng->matrices);
        gpu_buffer_free(g, eng->model->weights.vector_buffer);
        eng->model->weights.vector_buffer = (gpu_buffer){0};
    }
    for (weight **w = eng->matrices; w && *w; w++) (*w)->host = NULL;
    arena_free(eng->host);
    eng->host = NULL;
    eng->loading = eng->resident = false;
    encoders_release(&eng->encoders);
}

void engine_join(carat_engine *eng, engine_guest *guest) {
    guest->engine = eng;
    guest->next = eng->guests;
    eng->guests = guest;
}

void engine_leave(engine_guest *guest) {
    engine_guest **at = guest->engine ? &guest->engine->guests : NULL;
    while (at && *at != guest) at = &(*at)->next;
    if (at) *at = guest->next;
}

void carat_engine_release_encoders(carat_engine *eng) {
    for (carat_session *ses = eng->sessions; ses; ses = ses->next)
        if (ses->encode) encode_stop(ses->encode);
    encoders_release(&eng->encoders);
}

/* ---- text and ids ---- */

int64_t carat_tokenize(const carat_engine *eng, const char *text, size_t n, bool specials,
                       int32_t *out, size_t cap, carat_error *err) {
    id_list v = {0};
    tokenizer_encode(eng->model->tokenizer, text, n, specials, &v);
    int64_t n_id = (int64_t)v.len;
    if (v.failed) {
        fail_memory(err, n, "tokens");
        n_id = -1;
    } else if (out && v.len) {
        memcpy(out, v.data, (v.len < cap ? v.len : cap) * sizeof *out);
    }
    ids_free(&v);
    return n_id;
}

int64_t carat_detokenize(const carat_engine *eng, const int32_t *id, size_t n, bool specials,
                         char *out, size_t cap, carat_error *err) {
    buf b = {0};
    for (size_t i = 0; i < n; i++) tokenizer_decode(eng->model->tokenizer, id[i], specials, &b);
    int64_t len = (int64_t)b.len;
    if (b.failed) {
        fail_memory(err, n, "text");
        len = -1;
    } else if (out && b.len) {
        memcpy(out, b.data, b.len < cap ? b.len : cap);
    }
    buf_free(&b);
    return len;
}
