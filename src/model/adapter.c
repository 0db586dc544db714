/* adapter: the adapters of an engine that are open, and those in use, with their scales. Changing
 * the latter takes away what the engine's sessions have computed. Also writes one.
 *
 * Flow: lora_read.c and lora_write.c before; session.c, which hands them to the network, after. */
#include "model/engine.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the list of open ones ---- */

static void adapter_free(carat_adapter *ad) {
    if (ad->engine) {
        carat_adapter **at = &ad->engine->adapters;
        while (*at != ad) at = &(*at)->next;
        *at = ad->next;
    }
    arena_free(ad->memory);
}

static bool in_use(const carat_adapter *ad) {
    const carat_engine *eng = ad->engine;
    for (uint32_t i = 0; eng && i < eng->n_use; i++)
        if (eng->uses[i].lora == ad->lora) return true;
    return false;
}

/* Those that were closed while they were in use. */
static void sweep(carat_engine *eng) {
    for (carat_adapter *ad = eng->adapters, *next; ad; ad = next) {
        next = ad->next;
        if (ad->closed && !in_use(ad)) adapter_free(ad);
    }
}

void engine_close_adapters(carat_engine *eng) {
    eng->n_use = 0;
    sweep(eng);
    for (carat_adapter *ad = eng->adapters; ad; ad = ad->next) ad->engine = NULL;
    eng->adapters = NULL;
}

/* ---- opening ---- */

/* Over all values and what they are multiplied with. */
static uint64_t hash_lora(const lora *l) {
    uint64_t h = hash_bytes(FNV_START, l->values, (size_t)l->n_value * sizeof(float));
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i);
        h = hash_bytes(hash_bytes(h, &p->rank, sizeof p->rank), &p->scale, sizeof p->scale);
    }
    return h;
}

/* A folder, however it is written, becomes one that ends in a slash. */
static bool open_lora(carat_adapter *ad, const char *path, carat_error *err) {
    source *inside;
    buf b = {0};
    carat_error e = {0};
    buf_printf(&b, "%s/adapter_model.safetensors", path);
    const bool folder = !b.failed && source_open(ad->memory, b.data, &inside, &e);
    if (folder) source_close(inside);
    if (b.failed) fail_memory(&e, strlen(path), path);
    buf_reset(&b);
    buf_printf(&b, folder ? "%s/" : "%s", path);
    bool ok = false;
    if (b.failed || e.code == CARAT_E_MEMORY)
        fail_memory(err, strlen(path), path);
    else
        ok = lora_open(ad->memory, ad->engine->model, b.data, &ad->lora, err);
    buf_free(&b);
    return ok;
}

static carat_adapter *adapter_create(carat_engine *eng, carat_error *err) {
    arena *a = arena_create(err);
    carat_adapter *ad = a ? arena_alloc(a, 1, sizeof *ad) : NULL;
    if (ad)
        *ad = (carat_adapter){.memory = a, .engine = eng, .next = eng->adapters};
    else
        fail_memory(err, sizeof *ad, "an adapter");
    if (!ad) arena_free(a);
    return ad;
}

/* ok: ad has its lora and joins the others; else it goes. */
static carat_adapter *adapter_ready(carat_adapter *ad, bool ok) {
    if (ok) {
        ad->hash = hash_lora(ad->lora);
        ad->engine->adapters = ad;
    } else if (ad) {
        arena_free(ad->memory);
    }
    return ok ? ad : NULL;
}

carat_adapter *carat_adapter_open(carat_engine *eng, const char *path, carat_error *err) {
    carat_adapter *ad = adapter_create(eng, err);
    return adapter_ready(ad, ad && open_lora(ad, path, err));
}

carat_adapter *engine_adopt(carat_engine *eng, const lora *l, carat_error *err) {
    carat_adapter *ad = adapter_create(eng, err);
    const bool ok = ad && lora_copy(ad->memory, l, &ad->lora, err);
    return adapter_ready(ad, ok);
}

void carat_adapter_close(carat_adapter *adapter) {
    if (!adapter) return;
    adapter->closed = true;
    if (!in_use(adapter)) adapter_free(adapter);
}

/* ---- using ---- */

static bool check_uses(const carat_engine *eng, const carat_adapter_use *uses, size_t n,
                       carat_error *err) {
    if (n > ENGINE_ADAPTERS)
        return fail(err, CARAT_E_ARGUMENT, "adapters: %zu at once; %u are possible", n,
                    ENGINE_ADAPTERS);
    for (size_t i = 0; i < n; i++) {
        if (!uses[i].adapter || uses[i].adapter->engine != eng)
            return fail(err, CARAT_E_ARGUMENT, "adapters: one was opened for another engine");
        if (!isfinite(uses[i].scale))
            return fail(err, CARAT_E_ARGUMENT, "adapters: a scale that is not a number");
    }
    for (const carat_session *ses = eng->sessions; ses; ses = ses->next)
        if (ses->job && !ses->job->over)
            return fail(err, CARAT_E_ARGUMENT, "adapters: a job of the engine is under way");
    return true;
}

static bool same_uses(const carat_engine *eng, const carat_adapter_use *uses, size_t n) {
    if (n != eng->n_use) return false;
    for (size_t i = 0; i < n; i++)
        if (uses[i].adapter->lora != eng->uses[i].lora || uses[i].scale != eng->uses[i].scale)
            return false;
    return true;
}

bool engine_adapters_ready(carat_engine *eng, carat_error *err) {
    gpu *g = eng->device ? eng->device->gpu : NULL;
    if (!g || !eng->n_use || eng->adapted) return true;
    return lora_gpu_create(eng->model, g, eng->uses, eng->n_use, &eng->adapted, err);
}

bool carat_engine_adapt(carat_engine *eng, const carat_adapter_use *uses, size_t n,
                        carat_error *err) {
    lora_use list[ENGINE_ADAPTERS];
    lora_gpu *ready = NULL;
    gpu *g = eng->device && eng->resident ? eng->device->gpu : NULL;
    if (!check_uses(eng, uses, n, err)) return false;
    if (same_uses(eng, uses, n)) return true;
    uint64_t h = 0;
    for (size_t i = 0; i < n; i++) {
        list[i] = (lora_use){uses[i].adapter->lora, uses[i].scale};
        h = hash_bytes(h, &uses[i].adapter->hash, sizeof h);
        h = hash_bytes(h, &uses[i].scale, sizeof(float));
    }
    if (g && n && !lora_gpu_create(eng->model, g, list, (uint32_t)n, &ready, err)) return false;
    for (carat_session *ses = eng->sessions; ses; ses = ses->next) session_close(ses);
    lora_gpu_free(eng->adapted);
    eng->adapted = ready;
    if (n) memcpy(eng->uses, list, n * sizeof *list);
    eng->n_use = (uint32_t)n;
    eng->uses_hash = h;
    sweep(eng);
    return true;
}

/* ---- writing ---- */

/* A new folder is written under another name first. */
static bool save_new_folder(const lora *l, const char *path, carat_error *err) {
    static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors"};
    size_t n = strlen(path);
    buf b = {0};
    while (n > 1 && path[n - 1] == '/') n--;
    buf_printf(&b, "%.*s.part-%ld", (int)n, path, (long)getpid());
    if (b.failed) {
        buf_free(&b);
        return fail_memory(err, n, path);
    }
    bool ok = mkdir(b.data, 0777) == 0 || fail(err, CARAT_E_IO, "%s: %s", path, strerror(errno));
    if (!ok) {
        buf_free(&b);
        return false;
    }
    ok = lora_write_peft(l, b.data, err);
    if (ok && rename(b.data, path) != 0)
        ok = fail(err, CARAT_E_IO, "%s: %s", path, strerror(errno));
    const size_t len = b.len;
    for (size_t i = 0; !ok && i < COUNT(files); i++) {
        buf_printf(&b, "/%s", files[i]);
        if (!b.failed) unlink(b.data);
        b.data[b.len = len] = 0;
    }
    if (!ok) rmdir(b.data);
    buf_free(&b);
    return ok;
}

bool carat_adapter_save(const carat_adapter *adapter, const char *path, carat_error *err) {
    const size_t n = path ? strlen(path) : 0;
    struct stat there;
    if (n == 0) return fail(err, CARAT_E_ARGUMENT, "adapter: no file is given");
    if (n > 5 && strcmp(path + n - 5, ".gguf") == 0)
        return lora_write_gguf(adapter->lora, path, err);
    if (stat(path, &there) != 0) return save_new_folder(adapter->lora, path, err);
    if (S_ISDIR(there.st_mode)) return lora_write_peft(adapter->lora, path, err);
    return fail(err, CARAT_E_ARGUMENT, "adapter: %s is neither a folder nor ends in .gguf", path);
}
