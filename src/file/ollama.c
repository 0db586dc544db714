/* ollama: from a model's name to files, in the store that Ollama keeps on disk. Reads only; the
 * store belongs to Ollama, which may remove a blob at any time. Does not download.
 *
 *   STORE/manifests/HOST/NAMESPACE/MODEL/TAG    JSON: a config and layers, each a digest
 *   STORE/blobs/sha256-DIGEST                   the GGUF, the system prompt, the options, ...
 *
 * This is the one place that asks the environment: OLLAMA_MODELS and HOME say where stores are.
 *
 * Flow: a name from the user enters here; gguf.c opens the path that comes out. */
#include "file/file.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum {
    N_PART = 4, /* host, namespace, model, tag */
    N_STORE = 3,
    MANIFEST_MAX = 16 << 20,
    TEXT_MAX = 4 << 20
};

/* ---- names -------------------------------------------------------------------------------- */

typedef struct span {
    const char *text;
    size_t len;
} span;

typedef struct model_name {
    span part[N_PART];
} model_name;

static const char *const defaults[N_PART] = {"registry.ollama.ai", "library", NULL, "latest"};

static span span_of(const char *text) { return (span){text, strlen(text)}; }

/* Host: 350 bytes of letters, digits, "_-.:"; namespace: 80 of "_-"; model and tag: 80 of "_-.";
 * the first always a letter, digit or '_'. So no part can be "..", or hold a '/'. */
static bool part_valid(span s, int part) {
    static const char *const also[N_PART] = {"-.:", "-", "-.", "-."};
    if (s.len < 1 || s.len > (part == 0 ? 350 : 80)) return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.text[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!word && c != '_' && (i == 0 || c == 0 || strchr(also[part], c) == NULL)) return false;
    }
    return true;
}

/* Cuts what follows the last `mark` of *s; false: there is none. */
static bool cut_last(span *s, char mark, span *tail) {
    for (size_t i = s->len; i-- > 0;) {
        if (s->text[i] != mark) continue;
        *tail = (span){s->text + i + 1, s->len - i - 1};
        s->len = i;
        return true;
    }
    return false;
}

static bool parse_name(const char *text, model_name *n) {
    const char *scheme = strstr(text, "://");
    span rest = span_of(scheme ? scheme + 3 : text), tail;
    for (int i = 0; i < N_PART; i++) n->part[i] = defaults[i] ? span_of(defaults[i]) : rest;
    span whole = rest;
    if (cut_last(&rest, ':', &tail)) {
        if (memchr(tail.text, '/', tail.len))
            rest = whole; /* a port's colon */
        else
            n->part[3] = tail;
    }
    int part = 2;
    while (part > 0 && cut_last(&rest, '/', &tail)) n->part[part--] = tail;
    n->part[part] = rest;
    for (int i = 0; i < N_PART; i++)
        if (!part_valid(n->part[i], i)) return false;
    return true;
}

bool ollama_name_valid(const char *name) {
    model_name n;
    return parse_name(name, &n);
}

static bool is_default(span s, int part) {
    return s.len == strlen(defaults[part]) && strncasecmp(s.text, defaults[part], s.len) == 0;
}

/* The shortest text that means this name. */
static char *short_name(arena *a, const model_name *n) {
    char *text = arena_alloc(a, 350 + 3 * 80 + 4, 1), *to = text;
    if (text == NULL) return NULL;
    bool host = !is_default(n->part[0], 0), space = host || !is_default(n->part[1], 1);
    if (host) to += sprintf(to, "%.*s/", (int)n->part[0].len, n->part[0].text);
    if (space) to += sprintf(to, "%.*s/", (int)n->part[1].len, n->part[1].text);
    to += sprintf(to, "%.*s", (int)n->part[2].len, n->part[2].text);
    if (!is_default(n->part[3], 3)) sprintf(to, ":%.*s", (int)n->part[3].len, n->part[3].text);
    return text;
}

/* ---- paths and small files ---------------------------------------------------------------- */

static char *join(arena *a, const char *dir, span name, carat_error *err) {
    size_t n = strlen(dir);
    char *path = arena_alloc(a, n + name.len + 2, 1);
    if (path == NULL) {
        fail_memory(err, n + name.len, "a path");
        return NULL;
    }
    sprintf(path, "%s/%.*s", dir, (int)name.len, name.text);
    return path;
}

/* Where stores may be; those that are not set are left out. */
static bool find_stores(arena *a, const char *stores[N_STORE], size_t *n, carat_error *err) {
    const char *set = getenv("OLLAMA_MODELS"), *home = getenv("HOME");
#ifdef _WIN32
    if (home == NULL) home = getenv("USERPROFILE");
#endif
    *n = 0;
    if (set && *set && !(stores[(*n)++] = arena_copy(a, set, strlen(set))))
        return fail_memory(err, strlen(set), "a path");
    if (home && *home && !(stores[(*n)++] = join(a, home, span_of(".ollama/models"), err)))
        return false;
#if !defined _WIN32 && !defined __APPLE__
    stores[(*n)++] = "/usr/share/ollama/.ollama/models";
#endif
    return true;
}

/* A whole file of at most `max` bytes as zero-terminated text. */
static bool read_text(arena *a, const char *path, uint64_t max, char **text, size_t *n,
                      carat_error *err) {
    source *src;
    if (!source_open(a, path, &src, err)) return false;
    bool ok = src->size <= max || fail(err, CARAT_E_FORMAT, "ollama: %s: is too long", path);
    *n = (size_t)src->size;
    *text = ok ? arena_alloc(a, *n + 1, 1) : NULL;
    if (ok && *text == NULL) ok = fail_memory(err, src->size, path);
    ok = ok && source_read(src, 0, *text, *n, err);
    source_close(src);
    return ok;
}

static bool whole_number(const json *v, uint64_t *out) {
    double x = json_number(v, -1);
    if (!(x >= 0 && x < 0x1p53)) return false;
    *out = (uint64_t)x;
    return true;
}

/* ---- manifests ---------------------------------------------------------------------------- */

/* The manifest's path below dir, exactly as named or else differing in case. Not found: *path is
 * NULL, which is not an error. */
static bool find_manifest(arena *a, const char *dir, const model_name *name, int part,
                          const char **path, carat_error *err) {
    struct stat st;
    *path = NULL;
    if (part == N_PART) {
        if (stat(dir, &st) == 0 && S_ISREG(st.st_mode)) *path = dir;
        return true;
    }
    span wanted = name->part[part];
    const char *next = join(a, dir, wanted, err);
    if (next == NULL || !find_manifest(a, next, name, part + 1, path, err)) return false;
    DIR *d = *path ? NULL : opendir(dir);
    if (d == NULL) return true;
    bool ok = true;
    for (struct dirent *e; ok && *path == NULL && (e = readdir(d));) {
        if (strlen(e->d_name) != wanted.len || strncasecmp(e->d_name, wanted.text, wanted.len))
            continue;
        next = join(a, dir, span_of(e->d_name), err);
        ok = next && find_manifest(a, next, name, part + 1, path, err);
    }
    closedir(d);
    return ok;
}

/* "sha256:..." -> the blob's path. A digest that is not 64 hex digits is refused, so a manifest
 * cannot name a file elsewhere. */
static const char *blob_path(arena *a, const char *store, const json *layer, carat_error *err) {
    const char *digest = json_string(json_get(layer, "digest"), "");
    char file[] = "blobs/sha256-0000000000000000000000000000000000000000000000000000000000000000";
    size_t prefix = strlen("sha256:");
    bool ok = strncmp(digest, "sha256", 6) == 0 && (digest[6] == ':' || digest[6] == '-') &&
              strlen(digest) == prefix + 64 &&
              strspn(digest + prefix, "0123456789abcdefABCDEF") == 64;
    if (!ok) {
        fail(err, CARAT_E_FORMAT, "ollama: a manifest has a bad digest: \"%.80s\"", digest);
        return NULL;
    }
    for (size_t i = 0; i < 64; i++) {
        char c = digest[prefix + i];
        file[strlen("blobs/sha256-") + i] = (char)(c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c);
    }
    return join(a, store, span_of(file), err);
}

/* A layer's file, which must be there and have the manifest's size. */
static bool find_blob(arena *a, const char *store, const json *layer, const char **path,
                      carat_error *err) {
    struct stat st;
    uint64_t size;
    *path = blob_path(a, store, layer, err);
    if (*path == NULL) return false;
    if (!whole_number(json_get(layer, "size"), &size))
        return fail(err, CARAT_E_FORMAT, "ollama: a manifest gives no size for %s", *path);
    if (stat(*path, &st) != 0 && errno == EACCES)
        return fail(err, CARAT_E_IO, "ollama: %s: no permission to read it", *path);
    if (stat(*path, &st) != 0 || !S_ISREG(st.st_mode))
        return fail(err, CARAT_E_NOT_FOUND, "ollama: %s is missing; pull the model again", *path);
    if ((uint64_t)st.st_size != size)
        return fail(err, CARAT_E_FORMAT,
                    "ollama: %s has %" PRIu64 " bytes instead of %" PRIu64 "; pull the model again",
                    *path, (uint64_t)st.st_size, size);
    return true;
}

static bool read_blob(arena *a, const char *store, const json *layer, const char **text,
                      carat_error *err) {
    const char *path;
    char *copy;
    size_t n;
    if (!find_blob(a, store, layer, &path, err) || !read_text(a, path, TEXT_MAX, &copy, &n, err))
        return false;
    *text = copy;
    return true;
}

/* What a layer holds, e.g. "model"; "" for the media types of others. */
static const char *layer_kind(const json *layer) {
    static const char prefix[] = "application/vnd.ollama.image.";
    const char *type = json_string(json_get(layer, "mediaType"), "");
    return strncmp(type, prefix, sizeof prefix - 1) == 0 ? type + sizeof prefix - 1 : "";
}

static bool use_layer(arena *a, const char *store, const json *layer, ollama_model *m,
                      carat_error *err) {
    const char *kind = layer_kind(layer);
    if (strcmp(kind, "model") == 0) return find_blob(a, store, layer, &m->model, err);
    if (strcmp(kind, "projector") == 0) return find_blob(a, store, layer, &m->projector, err);
    if (strcmp(kind, "adapter") == 0) return find_blob(a, store, layer, &m->adapter, err);
    if (strcmp(kind, "system") == 0) return read_blob(a, store, layer, &m->system, err);
    if (strcmp(kind, "params") == 0) return read_blob(a, store, layer, &m->params, err);
    if (strcmp(kind, "messages") == 0) return read_blob(a, store, layer, &m->messages, err);
    return true;
}

/* The config blob says what runs elsewhere. It is not needed otherwise: missing is fine. */
static bool use_config(arena *a, const char *store, const json *config, const char *name,
                       ollama_model *m, carat_error *err) {
    const char *text = NULL;
    carat_error cause = {0};
    json *c;
    if (json_get(config, "digest") == NULL) return true;
    if (!read_blob(a, store, config, &text, &cause)) {
        if (cause.code == CARAT_E_NOT_FOUND) return true;
        return fail(err, cause.code, "%s", cause.message);
    }
    if (!json_parse(a, text, strlen(text), "ollama: the model's config", &c, err)) return false;
    const char *format = json_string(json_get(c, "model_format"), "");
    if (*json_string(json_get(c, "remote_host"), ""))
        return fail(err, CARAT_E_UNSUPPORTED,
                    "ollama: %s runs on Ollama's servers; its weights are not on this computer",
                    name);
    if (*format && strcmp(format, "gguf") != 0)
        return fail(err, CARAT_E_UNSUPPORTED,
                    "ollama: %s is stored as %s; carat runs models stored as gguf", name, format);
    m->parameter_size = json_string(json_get(c, "model_type"), NULL);
    m->file_type = json_string(json_get(c, "file_type"), NULL);
    return true;
}

static bool use_manifest(arena *a, const char *store, const char *path, const char *name,
                         ollama_model *m, carat_error *err) {
    char *text;
    size_t n;
    json *manifest;
    if (!read_text(a, path, MANIFEST_MAX, &text, &n, err)) return false;
    if (!json_parse(a, text, n, path, &manifest, err)) return false;
    if (!use_config(a, store, json_get(manifest, "config"), name, m, err)) return false;
    const json *layers = json_get(manifest, "layers"), *layer;
    bool tensors = false;
    for (size_t i = 0; (layer = json_at(layers, i)); i++) {
        if (!use_layer(a, store, layer, m, err)) return false;
        tensors = tensors || strcmp(layer_kind(layer), "tensor") == 0;
    }
    if (m->model) return true;
    if (tensors)
        return fail(err, CARAT_E_UNSUPPORTED,
                    "ollama: %s is stored as safetensors; carat runs models stored as gguf", name);
    return fail(err, CARAT_E_FORMAT, "ollama: %s: the manifest names no model file", path);
}

bool ollama_find(arena *a, const char *name, ollama_model *out, carat_error *err) {
    const char *stores[N_STORE], *path;
    size_t n;
    model_name parts;
    buf looked = {0};
    if (!parse_name(name, &parts))
        return fail(err, CARAT_E_ARGUMENT, "ollama: \"%s\" is not a model's name", name);
    if (!find_stores(a, stores, &n, err)) return false;
    for (size_t i = 0; i < n; i++) {
        const char *root = join(a, stores[i], span_of("manifests"), err);
        if (root == NULL || !find_manifest(a, root, &parts, 0, &path, err)) return false;
        if (path == NULL) continue;
        *out = (ollama_model){0};
        return use_manifest(a, stores[i], path, name, out, err);
    }
    for (size_t i = 0; i < n; i++) buf_printf(&looked, "%s%s", i ? ", " : "", stores[i]);
    fail(err, CARAT_E_NOT_FOUND, "ollama: no model \"%s\" in %s", name,
         looked.failed || n == 0 ? "any store" : looked.data);
    buf_free(&looked);
    return false;
}

/* ---- listing ------------------------------------------------------------------------------ */

typedef struct walk {
    arena *a;
    arena *scratch;
    const char *store;
    size_t order; /* of the store: the same name in an earlier one hides this one */
    buf found;    /* of listed */
    carat_error *err;
} walk;

typedef struct listed {
    ollama_entry entry;
    size_t order;
} listed;

/* The blob and the sizes; false: the manifest is damaged. */
static bool read_layers(walk *w, const json *manifest, ollama_entry *e, carat_error *ignored) {
    const json *layers = json_get(manifest, "layers"), *layer;
    for (size_t i = 0; (layer = json_at(layers, i)); i++) {
        uint64_t size;
        if (!whole_number(json_get(layer, "size"), &size) || size > UINT64_MAX / 2 - e->bytes)
            return false;
        e->bytes += size;
        if (strcmp(layer_kind(layer), "model") != 0) continue;
        if (!find_blob(w->a, w->store, layer, &e->path, ignored)) e->path = NULL;
    }
    return layers && layers->n > 0;
}

/* Adds a manifest to the list, unless it is damaged. False: out of memory. */
static bool list_manifest(walk *w, const char *path, const model_name *name) {
    carat_error ignored = {0};
    struct stat st;
    char *text, digest[13];
    size_t n;
    json *manifest;
    unsigned char hash[32];
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) return true;
    listed item = {.order = w->order, .entry.modified = (int64_t)st.st_mtime};
    bool ok = read_text(w->scratch, path, MANIFEST_MAX, &text, &n, &ignored) &&
              json_parse(w->scratch, text, n, path, &manifest, &ignored) &&
              read_layers(w, manifest, &item.entry, &ignored);
    if (ignored.code == CARAT_E_MEMORY) return fail(w->err, ignored.code, "%s", ignored.message);
    if (!ok) return true;
    sha256(text, n, hash);
    for (int i = 0; i < 6; i++) sprintf(digest + 2 * i, "%02x", hash[i]);
    item.entry.digest = arena_copy(w->a, digest, 12);
    item.entry.name = short_name(w->a, name);
    buf_put(&w->found, &item, sizeof item);
    if (item.entry.digest == NULL || item.entry.name == NULL || w->found.failed)
        return fail_memory(w->err, sizeof item, "the list of models");
    return true;
}

/* Visits the manifests below dir, which is four levels deep. */
static bool walk_dir(walk *w, const char *dir, model_name *name, int part) {
    if (part == N_PART) return list_manifest(w, dir, name);
    DIR *d = opendir(dir);
    if (d == NULL) return true;
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));) {
        name->part[part] = span_of(e->d_name);
        if (!part_valid(name->part[part], part)) continue;
        const char *path = join(w->scratch, dir, name->part[part], w->err);
        ok = path && walk_dir(w, path, name, part + 1);
    }
    closedir(d);
    return ok;
}

static int compare_listed(const void *a, const void *b) {
    const listed *x = a, *y = b;
    int order = strcmp(x->entry.name, y->entry.name);
    return order ? order : (x->order > y->order) - (x->order < y->order);
}

static bool list_stores(walk *w, ollama_entry **out, size_t *n) {
    const char *stores[N_STORE];
    size_t n_store;
    if (!find_stores(w->a, stores, &n_store, w->err)) return false;
    for (size_t i = 0; i < n_store; i++) {
        model_name name;
        w->store = stores[i];
        w->order = i;
        const char *root = join(w->scratch, stores[i], span_of("manifests"), w->err);
        if (root == NULL || !walk_dir(w, root, &name, 0)) return false;
    }
    size_t all = w->found.len / sizeof(listed);
    listed *items = (listed *)(void *)w->found.data;
    *out = arena_alloc(w->a, all, sizeof **out);
    if (*out == NULL) return fail_memory(w->err, all * sizeof **out, "the list of models");
    if (all) qsort(items, all, sizeof *items, compare_listed);
    *n = 0;
    for (size_t i = 0; i < all; i++)
        if (*n == 0 || strcmp((*out)[*n - 1].name, items[i].entry.name) != 0)
            (*out)[(*n)++] = items[i].entry;
    return true;
}

bool ollama_list(arena *a, ollama_entry **out, size_t *n, carat_error *err) {
    walk w = {.a = a, .scratch = arena_create(err), .err = err};
    bool ok = w.scratch && list_stores(&w, out, n);
    arena_free(w.scratch);
    buf_free(&w.found);
    return ok;
}
