/* find: from a model's name as a user writes it to files: a path, the bundled nano model, or a
 * name in Ollama's store; and to the projector file with its encoders. Native only.
 *
 * Flow: file/ollama.c below; carat_engine_open() after. */
#include "model/engine.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

struct carat_model {
    arena *memory;
    ollama_model ollama;
};

static const char HINT[] = "`carat list` shows the models that there are";

static bool is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* The folder of the running program; false where the system does not say. */
static bool program_folder(char out[PATH_MAX]) {
    ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
    if (n <= 0) return false;
    out[n] = 0;
    char *slash = strrchr(out, '/');
    if (!slash) return false;
    *slash = 0;
    return true;
}

/* The bundled model: beside the program in the source tree, where `make install` puts it, or
 * below the current folder. NULL: not there; tried (if any) gets the places. */
static const char *find_nano(arena *a, buf *tried) {
    static const char *const places[] = {"../share/carat/nano.gguf", "../models/nano.gguf",
                                         "../../models/nano.gguf", "nano.gguf"};
    char folder[PATH_MAX], path[PATH_MAX + 32];
    bool known = program_folder(folder);
    for (size_t i = 0; i <= COUNT(places); i++) {
        if (i == COUNT(places))
            snprintf(path, sizeof path, "models/nano.gguf");
        else if (known)
            snprintf(path, sizeof path, "%s/%s", folder, places[i]);
        else
            continue;
        if (is_file(path)) return arena_copy(a, path, strlen(path));
        if (tried) buf_printf(tried, "%s%s", tried->len ? ", " : "", path);
    }
    return NULL;
}

static bool find_bundled(carat_model *m, carat_engine_desc *desc, carat_error *err) {
    buf tried = {0};
    desc->path = find_nano(m->memory, &tried);
    if (!desc->path)
        fail(err, CARAT_E_NOT_FOUND, "nano: the bundled model is not at %s",
             tried.data ? tried.data : "its place");
    buf_free(&tried);
    return desc->path != NULL;
}

/* Whether a name can only be meant as a path. */
static bool is_path(const char *name) {
    size_t n = strlen(name);
    return name[0] == '/' || name[0] == '.' || name[0] == '~' ||
           (n > 5 && strcmp(name + n - 5, ".gguf") == 0);
}

/* ---- the projector beside a model ---- */

/* Whether a file's name is that of a projector. */
static bool is_projector(const char *name) {
    size_t n = strlen(name);
    return n > 5 && strcasecmp(name + n - 5, ".gguf") == 0 && strcasestr(name, "mmproj");
}

/* How many characters the names begin with alike, mmproj- in front left out. */
static size_t alike(const char *text, const char *projector) {
    size_t n = 0;
    if (strncasecmp(projector, "mmproj", 6) == 0) projector += 6;
    while (*projector == '-' || *projector == '_' || *projector == '.') projector++;
    while (text[n] && text[n] == projector[n]) n++;
    return n;
}

/* The width of a text model that has no encoders of its own; 0: another kind of file. */
static uint64_t text_width(arena *a, const char *path) {
    gguf *g = NULL;
    if (!gguf_open(a, path, &g, NULL)) return 0;
    const gguf_tensor *t = gguf_find_tensor(g, "token_embd.weight");
    const uint64_t n = t && !vision_present(g) && !audio_present(g) ? t->ne[0] : 0;
    gguf_close(g);
    return n;
}

/* Whether the soft tokens of a projector are n wide. */
static bool fits(arena *a, const char *path, uint64_t n) {
    static const char *const names[] = {"mm.input_projection.weight",
                                        "mm.a.input_projection.weight"};
    gguf *g = NULL;
    bool some = false, all = true;
    if (!gguf_open(a, path, &g, NULL)) return false;
    for (size_t i = 0; i < COUNT(names); i++) {
        const gguf_tensor *t = gguf_find_tensor(g, names[i]);
        some |= t != NULL;
        all &= !t || t->ne[1] == n;
    }
    gguf_close(g);
    return some && all;
}

/* llama.cpp's models lie beside their projectors. Of several that fit the one whose name is most
 * like the model's, then the first by name. */
static const char *find_beside(arena *a, const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *best = NULL;
    char folder[PATH_MAX] = ".", full[PATH_MAX + 260];
    uint64_t width = 0;
    if (is_projector(name) || strlen(path) >= sizeof folder) return NULL;
    if (slash) snprintf(folder, sizeof folder, "%.*s", (int)(slash - path) + 1, path);
    DIR *d = opendir(folder);
    arena *brief = d ? arena_create(NULL) : NULL;
    for (const struct dirent *e; brief && (e = readdir(d));) {
        if (!is_projector(e->d_name)) continue;
        const size_t like = alike(name, e->d_name), most = best ? alike(name, best) : 0;
        if (best && (like < most || (like == most && strcmp(best, e->d_name) < 0))) continue;
        snprintf(full, sizeof full, "%s%s", slash ? folder : "", e->d_name);
        if (!width) width = text_width(brief, path);
        if (!width) break;
        if (is_file(full) && fits(brief, full, width))
            best = arena_copy(brief, e->d_name, strlen(e->d_name));
    }
    if (best) {
        snprintf(full, sizeof full, "%s%s", slash ? folder : "", best);
        best = arena_copy(a, full, strlen(full));
    }
    arena_free(brief);
    if (d) closedir(d);
    return best;
}

static bool find_in_store(carat_model *m, const char *name, carat_engine_desc *desc,
                          carat_error *err) {
    carat_error e = {0};
    if (!ollama_name_valid(name))
        return fail(err, CARAT_E_NOT_FOUND, "%s: no such file, and not a model's name; %s", name,
                    HINT);
    if (!ollama_find(m->memory, name, &m->ollama, &e))
        return e.code == CARAT_E_NOT_FOUND ? fail(err, e.code, "%s; %s", e.message, HINT)
                                           : fail(err, e.code, "%s", e.message);
    desc->path = m->ollama.model;
    desc->projector = m->ollama.projector;
    desc->adapter = m->ollama.adapter;
    desc->system = m->ollama.system;
    desc->params = m->ollama.params;
    desc->messages = m->ollama.messages;
    return true;
}

static bool find(carat_model *m, const char *name, carat_engine_desc *desc, carat_error *err) {
    if (is_file(name)) {
        desc->path = arena_copy(m->memory, name, strlen(name));
        if (!desc->path) return fail_memory(err, strlen(name), "a path");
        desc->projector = find_beside(m->memory, desc->path);
        return true;
    }
    if (is_path(name)) return fail(err, CARAT_E_NOT_FOUND, "%s: there is no such file", name);
    if (strcmp(name, "nano") == 0) return find_bundled(m, desc, err);
    return find_in_store(m, name, desc, err);
}

carat_model *carat_model_find(const char *name, carat_engine_desc *desc, carat_error *err) {
    *desc = (carat_engine_desc){0};
    if (!name || !*name) {
        fail(err, CARAT_E_ARGUMENT, "no model is given; %s", HINT);
        return NULL;
    }
    arena *a = arena_create(err);
    carat_model *m = a ? arena_alloc(a, 1, sizeof *m) : NULL;
    if (m) m->memory = a;
    if (a && !m) fail_memory(err, sizeof *m, "a model's name");
    if (m && find(m, name, desc, err)) return m;
    *desc = (carat_engine_desc){0};
    arena_free(a);
    return NULL;
}

void carat_model_free(carat_model *m) {
    if (m) arena_free(m->memory);
}

/* ---- listing ---- */

static void put_entry(buf *b, const ollama_entry *e, const char *from) {
    buf_puts(b, b->len > 1 ? ",{\"name\":" : "{\"name\":");
    json_write_string(b, e->name, strlen(e->name));
    buf_puts(b, ",\"path\":");
    if (e->path)
        json_write_string(b, e->path, strlen(e->path));
    else
        buf_puts(b, "null");
    buf_printf(b, ",\"bytes\":%" PRIu64 ",\"digest\":", e->bytes);
    json_write_string(b, e->digest, strlen(e->digest));
    buf_printf(b, ",\"modified\":%" PRId64 ",\"source\":\"%s\"}", e->modified, from);
}

static bool list(arena *a, buf *b, carat_error *err) {
    ollama_entry *entries = NULL;
    size_t n = 0;
    struct stat st;
    const char *nano = find_nano(a, NULL);
    if (!ollama_list(a, &entries, &n, err)) return false;
    buf_puts(b, "[");
    if (nano && stat(nano, &st) == 0) {
        ollama_entry e = {.name = "nano", .path = nano, .digest = ""};
        e.bytes = (uint64_t)st.st_size;
        e.modified = (int64_t)st.st_mtime;
        put_entry(b, &e, "bundled");
    }
    for (size_t i = 0; i < n; i++) put_entry(b, &entries[i], "ollama");
    buf_puts(b, "]");
    return true;
}

char *carat_model_list(carat_error *err) {
    arena *a = arena_create(err);
    if (!a) return NULL;
    buf b = {0};
    char *text = NULL;
    if (list(a, &b, err)) {
        text = buf_take(&b);
        if (!text) fail_memory(err, b.len, "the list of models");
    }
    buf_free(&b);
    arena_free(a);
    return text;
}
