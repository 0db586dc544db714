/* serve_http: one HTTP request: who may ask, how much, and which route answers. A request is
 * refused before its body is read when its Host is not ours (a foreign name that was pointed at
 * this computer), when it comes from a web page elsewhere, or when it is too large.
 *
 * Flow: serve_run.c starts it; the routes of the table answer through serve_reply.c. */
#include "serve_http.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- routes ---- */

static const struct route {
    const char *method;
    const char *path; /* one that ends in a slash stands for all below it */
    route_fn run;
} routes[] = {
    {"POST", "/v1/chat/completions", route_v1_chat},
    {"POST", "/v1/completions", route_v1_completions},
    {"GET", "/v1/models", route_v1_models},
    {"GET", "/v1/models/", route_v1_model},
    {"POST", "/api/chat", route_api_chat},
    {"POST", "/api/generate", route_api_generate},
    {"GET", "/api/tags", route_api_tags},
    {"POST", "/api/show", route_api_show},
    {"GET", "/api/ps", route_api_ps},
    {"GET", "/api/version", route_api_version},
    {"GET", "/models", route_models},
    {"GET", "/models/blob/", route_blob},
};

static bool starts_with(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool route_matches(const struct route *r, const char *path) {
    size_t n = strlen(r->path);
    return r->path[n - 1] == '/' ? starts_with(path, r->path) && path[n] : !strcmp(path, r->path);
}

static bool method_matches(const exchange *x, const char *method) {
    return reply_is(x, method) || (reply_is(x, "HEAD") && strcmp(method, "GET") == 0);
}

static answered wrong_method(exchange *x, const char *method) {
    x->allow = strcmp(method, "GET") == 0 ? "GET, HEAD, OPTIONS" : "POST, OPTIONS";
    return reply_error(x, 405, "%s is asked for with %s, not with %.20s", x->path, method,
                       x->method);
}

static answered route(exchange *x) {
    for (size_t i = 0; i < COUNT(routes); i++) {
        if (!route_matches(&routes[i], x->path)) continue;
        if (method_matches(x, routes[i].method)) return routes[i].run(x);
        return wrong_method(x, routes[i].method);
    }
    if (starts_with(x->path, "/v1/") || starts_with(x->path, "/api/"))
        return reply_error(x, 404, "carat does not offer %s", x->path);
    return method_matches(x, "GET") ? route_app(x) : wrong_method(x, "GET");
}

/* ---- who asks ---- */

const char *http_header(const exchange *x, const char *name) {
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

/* Splits "name:port", "[::1]:port"; the name without brackets. */
static bool host_name(const char *host, char *out, size_t size) {
    bool bracket = host[0] == '[';
    size_t n = bracket ? strcspn(host + 1, "]") : strcspn(host, ":");
    const char *port = host + n + (bracket ? 2 : 0);
    if (n == 0 || n >= size || (bracket && host[1 + n] != ']')) return false;
    if (*port && (*port != ':' || port[1 + strspn(port + 1, "0123456789")])) return false;
    memcpy(out, host + bracket, n);
    out[n] = 0;
    return true;
}

static bool is_address(const char *name) {
    unsigned char bytes[16];
    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

/* A name that an attacker can point at this computer is none of ours; an address cannot be. */
static bool host_allowed(const server *s, const char *name) {
    const char *const own[] = {"localhost", "127.0.0.1", "::1", s->host, s->settings->host};
    const text_list *more = &s->settings->allow_hosts;
    for (size_t i = 0; i < COUNT(own); i++)
        if (strcasecmp(name, own[i]) == 0) return true;
    for (size_t i = 0; i < more->n; i++)
        if (strcasecmp(name, more->items[i]) == 0) return true;
    return s->any_address && is_address(name);
}

static bool is_own_origin(const char *origin, const char *host) {
    const char *rest = starts_with(origin, "http://")    ? origin + 7
                       : starts_with(origin, "https://") ? origin + 8
                                                         : "";
    return *rest && strcasecmp(rest, host) == 0;
}

static bool origin_allowed(const server *s, const char *origin) {
    const text_list *list = &s->settings->allow_origins;
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->items[i], "*") == 0 || strcasecmp(list->items[i], origin) == 0)
            return true;
    return false;
}

/* The answer to a browser that asks whether a page elsewhere may ask. */
static answered preflight(exchange *x) {
    struct MHD_Response *r = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
    const char *headers = http_header(x, "Access-Control-Request-Headers");
    if (!r) return MHD_NO;
    MHD_add_response_header(r, "Allow", "GET, HEAD, POST, OPTIONS");
    if (x->origin) {
        MHD_add_response_header(r, "Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS");
        if (headers) MHD_add_response_header(r, "Access-Control-Allow-Headers", headers);
        if (http_header(x, "Access-Control-Request-Private-Network"))
            MHD_add_response_header(r, "Access-Control-Allow-Private-Network", "true");
        MHD_add_response_header(r, "Access-Control-Max-Age", "600");
    }
    return reply_send(x, 204, r);
}

/* ---- a request comes in ---- */

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* %XX -> bytes. False: not a path, or one that holds what no name should. */
static bool decode_path(const char *url, char *out) {
    char *to = out;
    if (url[0] != '/') return false;
    for (; *url; url++) {
        if (*url != '%') {
            *to++ = *url;
            continue;
        }
        int high = hex_digit(url[1]), low = high < 0 ? -1 : hex_digit(url[2]);
        if (low < 0) return false;
        *to++ = (char)(high << 4 | low);
        url += 2;
    }
    *to = 0;
    for (const char *c = out; c < to; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) return false;
    return utf8_invalid(out, (size_t)(to - out)) == 0;
}

static answered too_large(exchange *x) {
    return reply_error(x, 413, "the request is larger than %d MiB", MAX_BODY >> 20);
}

/* Whether it may be asked at all; *done: it was refused. */
static answered admit(exchange *x, bool *done) {
    const char *host = http_header(x, "Host"), *origin = http_header(x, "Origin");
    const char *length = http_header(x, "Content-Length");
    char name[256];
    *done = true;
    if (!host || !host_name(host, name, sizeof name))
        return reply_error(x, 400, "the request says no Host, or none that makes sense");
    if (!host_allowed(x->server, name))
        return reply_error(x, 403,
                           "%s is not a name of this server; if it is, start it with --allow-host "
                           "%s",
                           name, name);
    if (origin && !is_own_origin(origin, host)) {
        if (!origin_allowed(x->server, origin))
            return reply_error(x, 403,
                               "web pages of %.200s may not use carat; --allow-origin %.200s lets "
                               "them",
                               origin, origin);
        x->origin = origin;
    }
    if (reply_is(x, "OPTIONS")) return preflight(x);
    if (!decode_path(x->url, x->path))
        return reply_error(x, 400, "the path of the request is not well-formed");
    if (length && strtoull(length, NULL, 10) > MAX_BODY) return too_large(x);
    *done = false;
    return MHD_YES;
}

static exchange *exchange_create(server *s, struct MHD_Connection *connection, const char *url,
                                 const char *method) {
    arena *a = arena_create(NULL);
    size_t n = strlen(url);
    exchange *x = a ? arena_alloc(a, 1, sizeof *x) : NULL;
    char *raw = x ? arena_copy(a, url, n) : NULL, *path = raw ? arena_copy(a, url, n) : NULL;
    if (!path) {
        arena_free(a);
        return NULL;
    }
    *x = (exchange){.server = s,
                    .connection = connection,
                    .method = method,
                    .url = raw,
                    .path = path,
                    .memory = a,
                    .start = now_s()};
    return x;
}

/* MHD calls this when the headers are there, for every piece of the body, and at its end. */
static answered on_request(void *cls, struct MHD_Connection *connection, const char *url,
                           const char *method, const char *version, const char *upload, size_t *n,
                           void **state) {
    (void)version;
    exchange *x = *state;
    bool done = false;
    if (!x) {
        *state = x = exchange_create(cls, connection, url, method);
        return x ? admit(x, &done) : MHD_NO;
    }
    if (*n) { /* MHD cannot answer here: what is too much is dropped and refused at the end */
        bool room = x->body.len + *n <= MAX_BODY;
        if (room && !x->dropped)
            buf_put(&x->body, upload, *n);
        else
            x->dropped += *n;
        *n = 0;
        return x->dropped > MAX_BODY ? MHD_NO : MHD_YES;
    }
    if (x->dropped) return too_large(x);
    if (x->body.failed) return reply_error(x, 503, "there is no memory for the request");
    return route(x);
}

/* ---- its end ---- */

static void log_line(const exchange *x, bool whole) {
    buf b = {0};
    put_visible(&b, x->url, strlen(x->url));
    buf_printf(&b, " %d", x->status);
    if (x->has_task) {
        const carat_stats *st = &x->task.answer.stats;
        buf_printf(&b, "  %s: %u tokens read (%u reused), %u written", x->task.model, st->n_prompt,
                   st->n_reused, st->n_generated);
    }
    if (!b.failed)
        fprintf(stderr, "%s %s%s  %.3f s\n", x->method, b.data, whole ? "" : "  (client left)",
                now_s() - x->start);
    buf_free(&b);
}

static void on_end(void *cls, struct MHD_Connection *connection, void **state,
                   enum MHD_RequestTerminationCode how) {
    (void)cls;
    (void)connection;
    exchange *x = *state;
    if (!x) return;
    if (x->has_task) task_stop(&x->task);
    if (x->server->settings->verbose) log_line(x, how == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    if (x->has_task) task_free(&x->task);
    buf_free(&x->body);
    arena_free(x->memory);
    *state = NULL;
}

/* decode_path() does it, so that %00 and the like are seen. */
static size_t leave_escaped(void *cls, struct MHD_Connection *connection, char *text) {
    (void)cls;
    (void)connection;
    return strlen(text);
}

static void drop_log(void *cls, const char *fmt, va_list args) {
    (void)cls;
    (void)fmt;
    (void)args;
}

struct MHD_Daemon *http_start(server *s, int listen_fd, carat_error *err) {
    struct MHD_Daemon *d = MHD_start_daemon(
        MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION |
            MHD_USE_ERROR_LOG,
        0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, drop_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, listen_fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)s->settings->idle,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MAX_HEADERS, MHD_OPTION_NOTIFY_COMPLETED,
        on_end, NULL, MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL, MHD_OPTION_END);
    if (!d) fail(err, CARAT_E_IO, "the HTTP server could not be started");
    return d;
}
