/* serve_files: files over HTTP: the web app's folder, and for serve_models.c the ranges of any open
 * file. A file is never read into memory: the kernel sends it.
 *
 * Nothing outside the app's folder is reachable: a path has no "..", no hidden names, and what it
 * leads to through links must lie in the folder.
 *
 * Flow: serve_http.c before; serve_reply.c after. */
#include "serve_http.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* ---- ranges ---- */

typedef enum range_kind { RANGE_NONE, RANGE_OK, RANGE_BAD } range_kind;

/* Digits -> number, no larger than INT64_MAX; *s goes behind them. False: there are none. */
static bool read_number(const char **s, uint64_t *out) {
    const char *first = *s;
    *out = 0;
    for (; **s >= '0' && **s <= '9'; ++*s)
        *out = *out > INT64_MAX / 10 - 1 ? INT64_MAX : *out * 10 + (uint64_t)(**s - '0');
    return *s > first;
}

/* "bytes=2-5", "bytes=2-", "bytes=-5" of size bytes. Several ranges, or what is none, count as no
 * Range, as the standard allows. */
static range_kind parse_range(const char *text, uint64_t size, uint64_t *from, uint64_t *n) {
    uint64_t first = 0, last = INT64_MAX;
    if (!text || strncasecmp(text, "bytes=", 6) != 0) return RANGE_NONE;
    text += 6;
    bool has_first = read_number(&text, &first);
    if (*text++ != '-') return RANGE_NONE;
    bool has_last = read_number(&text, &last);
    if (*text || (!has_first && !has_last) || (has_first && has_last && last < first))
        return RANGE_NONE;
    if (!has_first) { /* the last so many bytes */
        if (last == 0 || size == 0) return RANGE_BAD;
        *n = last < size ? last : size;
        *from = size - *n;
        return RANGE_OK;
    }
    if (first >= size) return RANGE_BAD;
    if (!has_last || last >= size) last = size - 1;
    *from = first;
    *n = last - first + 1;
    return RANGE_OK;
}

/* Whether a list of entity tags has this one; the W/ of a weak one does not matter here. */
static bool has_tag(const char *list, const char *etag) {
    size_t n = strlen(etag);
    while (list && *list) {
        list += strspn(list, " \t,");
        if (*list == '*') return true;
        if (strncmp(list, "W/", 2) == 0) list += 2;
        if (strncmp(list, etag, n) == 0 && (!list[n] || strchr(" \t,", list[n]))) return true;
        list += strcspn(list, ",");
    }
    return false;
}

static answered reply_empty(exchange *x, int status, const char *etag, const char *range) {
    struct MHD_Response *r = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
    if (!r) return MHD_NO;
    MHD_add_response_header(r, "ETag", etag);
    MHD_add_response_header(r, "Cache-Control", "no-cache");
    if (range) MHD_add_response_header(r, "Content-Range", range);
    return reply_send(x, status, r);
}

answered reply_file(exchange *x, int fd, const struct stat *st, const char *type,
                    const char *etag) {
    uint64_t size = (uint64_t)st->st_size, from = 0, n = size;
    const char *if_range = http_header(x, "If-Range");
    char range[80];
    bool whole = reply_is(x, "HEAD") || (if_range && strcmp(if_range, etag) != 0);
    if (has_tag(http_header(x, "If-None-Match"), etag)) {
        close(fd);
        return reply_empty(x, 304, etag, NULL);
    }
    range_kind kind = whole ? RANGE_NONE : parse_range(http_header(x, "Range"), size, &from, &n);
    if (kind == RANGE_BAD) {
        close(fd);
        snprintf(range, sizeof range, "bytes */%" PRIu64, size);
        return reply_empty(x, 416, etag, range);
    }
    struct MHD_Response *r = MHD_create_response_from_fd_at_offset64(n, fd, from);
    if (!r) {
        close(fd);
        return MHD_NO;
    }
    MHD_add_response_header(r, "Content-Type", type);
    MHD_add_response_header(r, "Accept-Ranges", "bytes");
    MHD_add_response_header(r, "ETag", etag);
    MHD_add_response_header(r, "Cache-Control", "no-cache");
    if (kind == RANGE_OK) {
        snprintf(range, sizeof range, "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, from, from + n - 1,
                 size);
        MHD_add_response_header(r, "Content-Range", range);
    }
    return reply_send(x, kind == RANGE_OK ? 206 : 200, r);
}

/* ---- the app ---- */

static const char *type_of(const char *path) {
    static const char *const types[][2] = {
        {".html", "text/html; charset=utf-8"},
        {".js", "text/javascript; charset=utf-8"},
        {".mjs", "text/javascript; charset=utf-8"},
        {".css", "text/css; charset=utf-8"},
        {".json", "application/json"},
        {".map", "application/json"},
        {".wasm", "application/wasm"},
        {".webmanifest", "application/manifest+json"},
        {".svg", "image/svg+xml"},
        {".png", "image/png"},
        {".ico", "image/x-icon"},
        {".woff2", "font/woff2"},
        {".txt", "text/plain; charset=utf-8"},
        {".md", "text/plain; charset=utf-8"},
        {".ts", "text/plain; charset=utf-8"},
        {".csv", "text/plain; charset=utf-8"},
    };
    size_t n = strlen(path);
    for (size_t i = 0; i < COUNT(types); i++) {
        size_t len = strlen(types[i][0]);
        if (n > len && strcasecmp(path + n - len, types[i][0]) == 0) return types[i][1];
    }
    return "application/octet-stream";
}

/* No empty name but the last, none that is hidden or leads up, no backslash. */
static bool names_are_plain(const char *path) {
    if (strchr(path, '\\')) return false;
    for (const char *name = path + 1; *name;) {
        size_t n = strcspn(name, "/");
        if (n == 0 || *name == '.') return false;
        name += n + (name[n] == '/');
    }
    return true;
}

/* Opens what a path of the app means. -1: there is nothing, or it is not below the folder.
 * *folder: it is a folder. */
static int open_below(const char *root, const char *path, struct stat *st, bool *folder) {
    char wanted[PATH_MAX], real[PATH_MAX];
    size_t n = strlen(root);
    *folder = false;
    if ((size_t)snprintf(wanted, sizeof wanted, "%s%s", root, path) >= sizeof wanted) return -1;
    if (!realpath(wanted, real) || strncmp(real, root, n) != 0 || (real[n] && real[n] != '/'))
        return -1;
    int fd = open(real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return -1;
    if (fstat(fd, st) == 0 && S_ISREG(st->st_mode)) return fd;
    *folder = S_ISDIR(st->st_mode);
    close(fd);
    return -1;
}

static const char no_app[] =
    "<!doctype html><meta charset=\"utf-8\"><title>carat</title>\n"
    "<h1>carat is running</h1>\n"
    "<p>The web app is not here: build it with <code>make web</code>, or name its folder with "
    "<code>carat serve --app DIR</code>.</p>\n"
    "<p>The models (<a href=\"/models\">/models</a>) and the HTTP API (/v1, /api) work.</p>\n";

static answered redirect_to_folder(exchange *x) {
    char *to = arena_alloc(x->memory, strlen(x->url) + 2, 1);
    struct MHD_Response *r = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
    if (!to || !r) return MHD_NO;
    sprintf(to, "%s/", x->url);
    MHD_add_response_header(r, "Location", to);
    return reply_send(x, 301, r);
}

answered route_app(exchange *x) {
    const char *root = x->server->app;
    char path[PATH_MAX], etag[80];
    size_t n = strlen(x->path);
    struct stat st = {0};
    bool folder = false, index = x->path[n - 1] == '/';
    if (!root) {
        if (strcmp(x->path, "/") != 0) return reply_error(x, 404, "the web app is not built");
        return reply_bytes(x, 404, "text/html; charset=utf-8", no_app, sizeof no_app - 1);
    }
    snprintf(path, sizeof path, "%s%s", x->path, index ? "index.html" : "");
    int fd = n + 16 < sizeof path && names_are_plain(x->path) ? open_below(root, path, &st, &folder)
                                                              : -1;
    if (folder && !index) return redirect_to_folder(x);
    if (fd < 0) return reply_error(x, 404, "there is no %.200s here", x->path);
    snprintf(etag, sizeof etag, "\"%" PRIx64 "-%" PRIx64 "%09ld\"", (uint64_t)st.st_size,
             (uint64_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    return reply_file(x, fd, &st, type_of(path), etag);
}
