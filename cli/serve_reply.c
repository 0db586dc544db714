/* serve_reply: how a request is answered: the headers that every response has, errors in the shape
 * that the route's clients know, and the bytes of a task as they come.
 *
 * Flow: the routes before; libmicrohttpd after. */
#include "serve_http.h"

#include <stdarg.h>
#include <string.h>

/* The app may fetch models from https addresses that its user types, and take the frames of a video
 * that its user gives it (blob:); nothing else is foreign. */
static const char policy[] =
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "connect-src 'self' https:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'";

bool reply_is(const exchange *x, const char *method) { return strcmp(x->method, method) == 0; }

static void add_common(exchange *x, struct MHD_Response *r) {
    MHD_add_response_header(r, "Content-Security-Policy", policy);
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(r, "Cross-Origin-Resource-Policy",
                            x->origin ? "cross-origin" : "same-origin");
    MHD_add_response_header(r, "Vary", "Origin");
    if (!x->origin) return;
    MHD_add_response_header(r, "Access-Control-Allow-Origin", x->origin);
    MHD_add_response_header(r, "Access-Control-Expose-Headers",
                            "Accept-Ranges, Content-Length, Content-Range, ETag");
}

answered reply_send(exchange *x, int status, struct MHD_Response *r) {
    add_common(x, r);
    x->status = status;
    answered done = MHD_queue_response(x->connection, (unsigned)status, r);
    MHD_destroy_response(r);
    return done;
}

answered reply_bytes(exchange *x, int status, const char *type, const char *data, size_t n) {
    struct MHD_Response *r =
        MHD_create_response_from_buffer(n, (void *)(uintptr_t)data, MHD_RESPMEM_MUST_COPY);
    if (!r) return MHD_NO;
    MHD_add_response_header(r, "Content-Type", type);
    MHD_add_response_header(r, "Cache-Control", "no-store");
    if (x->allow) MHD_add_response_header(r, "Allow", x->allow);
    if (status == 503) MHD_add_response_header(r, "Retry-After", "1");
    return reply_send(x, status, r);
}

answered reply_buf(exchange *x, int status, const char *type, buf *b) {
    answered done = b->failed ? MHD_NO : reply_bytes(x, status, type, b->data, b->len);
    buf_free(b);
    return done;
}

/* ---- errors ---- */

answered reply_failure(exchange *x, int status, const carat_error *err) {
    buf b = {0};
    const char *type = "application/json";
    if (strncmp(x->url, "/v1/", 4) == 0) {
        openai_error(err, status, &b);
    } else if (strncmp(x->url, "/api/", 5) == 0 || strncmp(x->url, "/models", 7) == 0) {
        ollama_error(err, status, &b);
    } else {
        buf_printf(&b, "%s\n", err->message);
        type = "text/plain; charset=utf-8";
    }
    return reply_buf(x, status, type, &b);
}

answered reply_error(exchange *x, int status, const char *fmt, ...) {
    carat_error err = {.code = CARAT_E_ARGUMENT};
    va_list args;
    va_start(args, fmt);
    vsnprintf(err.message, sizeof err.message, fmt, args);
    va_end(args);
    return reply_failure(x, status, &err);
}

/* ---- tasks: what the worker says ---- */

/* The limit on idle connections is for clients; while one waits for the worker it is off. */
static void limit_idle(exchange *x, bool on) {
    MHD_set_connection_option(x->connection, MHD_CONNECTION_OPTION_TIMEOUT,
                              on ? (unsigned)x->server->settings->idle : 0u);
}

static int socket_of(const exchange *x) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info ? info->connect_fd : -1;
}

static ssize_t read_task(void *cls, uint64_t pos, char *to, size_t max) {
    (void)pos;
    exchange *x = cls;
    limit_idle(x, false);
    long n = task_read(&x->task, socket_of(x), to, max);
    limit_idle(x, true);
    if (n > 0) return n;
    return n == 0 ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
}

/* The whole of an answer that is not streamed. */
static answered reply_whole(exchange *x) {
    char piece[4096];
    buf all = {0};
    long n;
    while ((n = read_task(x, 0, piece, sizeof piece)) > 0) buf_put(&all, piece, (size_t)n);
    if (n == MHD_CONTENT_READER_END_WITH_ERROR) all.failed = true;
    return reply_buf(x, x->task.status, x->task.type, &all);
}

answered reply_task(exchange *x) {
    carat_error err = {0};
    task *t = &x->task;
    if (!queue_push(x->server->queue, t, &err)) return reply_failure(x, 503, &err);
    limit_idle(x, false);
    bool there = task_await(t, socket_of(x));
    limit_idle(x, true);
    if (!there) return reply_error(x, 503, "carat is ending, or its client went away");
    if (t->type != t->shape->stream_type) return reply_whole(x);
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16 << 10, read_task, x, NULL);
    if (!r) return MHD_NO;
    MHD_add_response_header(r, "Content-Type", t->type);
    MHD_add_response_header(r, "Cache-Control", "no-store");
    return reply_send(x, t->status, r);
}
