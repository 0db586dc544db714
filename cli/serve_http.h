/* serve_http: what the files of `carat serve` that speak HTTP share: a request on its way
 * (serve_http.c), how it is answered (serve_reply.c), and the answers by route. The only header
 * that knows libmicrohttpd.
 *
 * Flow: serve_run.c -> serve_http.c -> a route -> serve_reply.c -> the client. */
#ifndef CARAT_CLI_SERVE_HTTP_H
#define CARAT_CLI_SERVE_HTTP_H

#include "serve.h"

#include <microhttpd.h>
#include <sys/stat.h>

typedef struct exchange {
    server *server;
    struct MHD_Connection *connection;
    const char *method;
    char *url;          /* the path as it came */
    char *path;         /* decoded; UTF-8 without control characters */
    const char *origin; /* of a page elsewhere that may use carat; NULL: none */
    const char *allow;  /* with 405: the methods that there are */
    arena *memory;
    buf body;
    size_t dropped; /* bytes of a body that is too large */
    task task;
    bool has_task;
    int status;
    double start;
} exchange;

typedef enum MHD_Result answered;
typedef answered (*route_fn)(exchange *x);

/* ---- serve_http.c ---- */

struct MHD_Daemon *http_start(server *s, int listen_fd, carat_error *err);
const char *http_header(const exchange *x, const char *name); /* NULL: absent */

/* ---- serve_reply.c ---- */

bool reply_is(const exchange *x, const char *method);
/* Sends n bytes, which are copied. */
answered reply_bytes(exchange *x, int status, const char *type, const char *data, size_t n);
answered reply_buf(exchange *x, int status, const char *type, buf *b); /* and frees it */
/* A sentence in the shape that the route's clients expect. */
answered reply_error(exchange *x, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
answered reply_failure(exchange *x, int status, const carat_error *err);
/* Queues the exchange's task and answers with what the worker says. */
answered reply_task(exchange *x);
/* Sends a response with the headers that all have; gives it up. */
answered reply_send(exchange *x, int status, struct MHD_Response *r);

/* ---- serve_files.c ---- */

/* Sends the open file, or the range of it that is asked for; closes fd. */
answered reply_file(exchange *x, int fd, const struct stat *st, const char *type, const char *etag);
answered route_app(exchange *x); /* everything that is no API: a file of the app */

/* ---- serve_models.c ---- */

answered route_models(exchange *x);
answered route_blob(exchange *x);

/* ---- serve_ask.c: JSON -> task ---- */

/* The body, which must be a JSON object. */
bool ask_parse(exchange *x, const json **out, carat_error *err);
/* Finds the model that a request names and starts a task for it; NULL: the response is *done. */
task *ask_task(exchange *x, const json *request, const task_shape *shape, answered *done);
/* Values of an object; an absent one leaves *out as it is, a wrong one fails with its name. */
bool ask_number(const json *o, const char *key, double min, double max, double *out,
                carat_error *err);
bool ask_float(const json *o, const char *key, double min, double max, float *out,
               carat_error *err);
bool ask_whole(const json *o, const char *key, double min, double max, int32_t *out,
               carat_error *err);
bool ask_bool(const json *o, const char *key, bool *out, carat_error *err);
bool ask_seed(const json *o, uint64_t *out, carat_error *err);
bool ask_stops(arena *a, const json *o, carat_chat_desc *desc, carat_error *err);
/* The messages; pictures and sounds are taken out of them. */
bool ask_messages(task *t, const json *messages, carat_error *err);
bool ask_tools(arena *a, const json *tools, carat_chat_desc *desc, carat_error *err);
/* log-probabilities of n alternatives; 0: of the token only */
bool ask_logprobs(bool wanted, int32_t n, carat_chat_desc *desc, carat_error *err);
/* The answer has to be JSON: of a schema, or with NULL any object. */
bool ask_schema(task *t, const json *schema, carat_error *err);
const char *ask_text(arena *a, const json *v); /* a value as JSON text; NULL: no memory */
void random_id(const char *prefix, char out[40]);

/* ---- serve_openai.c, serve_ollama.c ---- */

answered route_v1_chat(exchange *x);
answered route_v1_completions(exchange *x);
answered route_v1_models(exchange *x);
answered route_v1_model(exchange *x);
void openai_error(const carat_error *err, int status, buf *out);

answered route_api_chat(exchange *x);
answered route_api_generate(exchange *x);
answered route_api_tags(exchange *x);
answered route_api_show(exchange *x);
answered route_api_ps(exchange *x);
answered route_api_version(exchange *x);
void ollama_error(const carat_error *err, int status, buf *out);

#endif
