/* serve_models: which models there are (Ollama's store, the bundled one, files of the command
 * line), their index for the web app, and their bytes.
 *
 * A client names a model of the list; a path is never taken from it.
 *
 * Flow: carat_model_list() below; serve_files.c sends the bytes. */
#include "serve_http.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* ---- the list ---- */

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Ollama names a blob by its content: .../sha256-<64 hex digits>. NULL: another file. */
static const char *digest_of(arena *a, const char *path) {
    static const char prefix[] = "sha256-";
    const char *name = base_name(path);
    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || strlen(name) != 7 + 64) return NULL;
    char *digest = arena_copy(a, name, 7 + 64);
    if (digest) digest[6] = ':';
    return digest;
}

/* Size and date are the file's own. A file that is gone keeps its place in the list, without a
 * path. */
static void look_at_file(arena *a, model_entry *e) {
    struct stat st;
    if (!e->path || stat(e->path, &st) != 0 || !S_ISREG(st.st_mode)) {
        e->path = NULL;
        return;
    }
    e->bytes = (uint64_t)st.st_size;
    if (!e->modified) e->modified = (int64_t)st.st_mtime;
    e->digest = digest_of(a, e->path);
}

static bool has_target(const model_list *list, const char *target) {
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->items[i].target, target) == 0) return true;
    return false;
}

bool models_read(const server *s, arena *a, model_list *out, carat_error *err) {
    char *text = carat_model_list(err);
    json *all = NULL;
    bool ok = text && json_parse(a, text, strlen(text), "the list of models", &all, err);
    carat_string_free(text);
    if (!ok) return false;
    *out = (model_list){.items = arena_alloc(a, all->n + s->n_file + 1, sizeof *out->items)};
    if (!out->items) return fail_memory(err, all->n * sizeof *out->items, "the list of models");
    for (size_t i = 0; i < all->n; i++) {
        const json *m = json_at(all, i);
        model_entry *e = &out->items[out->n++];
        e->name = e->target = json_string(json_get(m, "name"), "");
        e->path = json_string(json_get(m, "path"), NULL);
        e->id = json_string(json_get(m, "digest"), "");
        e->modified = (int64_t)json_number(json_get(m, "modified"), 0);
        look_at_file(a, e);
    }
    for (size_t i = 0; i < s->n_file; i++) { /* others are names of the list */
        model_entry e = {.name = base_name(s->files[i]), .id = ""};
        e.target = e.path = s->files[i];
        look_at_file(a, &e);
        if (e.path && !has_target(out, e.target)) out->items[out->n++] = e;
    }
    return true;
}

/* ---- names ---- */

typedef struct span {
    const char *text;
    size_t len;
} span;

static void drop_prefix(span *s, const char *prefix) {
    size_t n = strlen(prefix);
    if (s->len <= n || strncasecmp(s->text, prefix, n) != 0) return;
    s->text += n;
    s->len -= n;
}

static void drop_suffix(span *s, const char *suffix) {
    size_t n = strlen(suffix);
    if (s->len > n && strncasecmp(s->text + s->len - n, suffix, n) == 0) s->len -= n;
}

/* A name without what goes without saying. */
static span short_name(const char *name) {
    span s = {name, strlen(name)};
    drop_prefix(&s, "registry.ollama.ai/");
    drop_prefix(&s, "library/");
    drop_suffix(&s, ":latest");
    drop_suffix(&s, ".gguf");
    return s;
}

static bool same_name(const char *a, const char *b) {
    span x = short_name(a), y = short_name(b);
    return x.len == y.len && strncasecmp(x.text, y.text, x.len) == 0;
}

const model_entry *models_find(const server *s, const model_list *list, const char *name,
                               carat_error *err) {
    if (!name || !*name) name = s->settings->preload;
    if (!name && s->n_file) name = s->files[0];
    if (!name) {
        fail(err, CARAT_E_ARGUMENT, "the request names no model; /v1/models lists what there is");
        return NULL;
    }
    for (size_t i = 0; i < list->n; i++) /* a path can only come from the command line */
        if (strcmp(list->items[i].target, name) == 0 || same_name(list->items[i].name, name))
            return &list->items[i];
    fail(err, CARAT_E_NOT_FOUND, "there is no model \"%.200s\"; /v1/models lists what there is",
         name);
    return NULL;
}

/* ---- the index and the bytes ---- */

static void put_url(buf *b, const char *name) {
    buf_puts(b, "\"/models/blob/");
    for (const char *c = name; *c; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                     (*c >= '0' && *c <= '9') || strchr("-._~", *c);
        buf_printf(b, plain ? "%c" : "%%%02X", (unsigned)(unsigned char)*c);
    }
    buf_puts(b, "\"");
}

answered route_models(exchange *x) {
    model_list list;
    carat_error err = {0};
    buf b = {0};
    if (!models_read(x->server, x->memory, &list, &err)) return reply_failure(x, 500, &err);
    buf_puts(&b, "{\"models\":[");
    for (size_t i = 0, n = 0; i < list.n; i++) {
        const model_entry *e = &list.items[i];
        if (!e->path) continue;
        buf_puts(&b, n++ ? ",\n{\"name\":" : "\n{\"name\":");
        json_write_string(&b, e->name, strlen(e->name));
        buf_printf(&b, ",\"size\":%" PRIu64 ",\"digest\":", e->bytes);
        if (e->digest)
            json_write_string(&b, e->digest, strlen(e->digest));
        else
            buf_puts(&b, "null");
        buf_puts(&b, ",\"url\":");
        put_url(&b, e->name);
        buf_puts(&b, "}");
    }
    buf_puts(&b, "]}\n");
    return reply_buf(x, 200, "application/json", &b);
}

answered route_blob(exchange *x) {
    const char *name = x->path + strlen("/models/blob/");
    model_list list;
    carat_error err = {0};
    char etag[128];
    struct stat st;
    if (!models_read(x->server, x->memory, &list, &err)) return reply_failure(x, 500, &err);
    const model_entry *e = models_find(x->server, &list, name, &err);
    if (!e) return reply_failure(x, 404, &err);
    if (!e->path) return reply_error(x, 404, "the file of %s is missing", e->name);
    int fd = open(e->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        if (fd >= 0) close(fd);
        return reply_error(x, 404, "the file of %s cannot be read", e->name);
    }
    if (e->digest)
        snprintf(etag, sizeof etag, "\"%s\"", e->digest);
    else
        snprintf(etag, sizeof etag, "\"%" PRIx64 "-%" PRIx64 "%09ld\"", (uint64_t)st.st_size,
                 (uint64_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    return reply_file(x, fd, &st, "application/octet-stream", etag);
}
