/* serve: the web app, the models' files and two HTTP APIs (OpenAI's and Ollama's) over one engine.
 *
 * Every connection has a thread of libmicrohttpd's, which may wait: for a slow client, for a file,
 * for its turn. The device, the engine and its sessions belong to one worker thread, which must
 * never wait for a client: it writes what it says into the task's own memory.
 *
 *   serve_run.c     life cycle: socket, threads, signals    serve_queue.c   tasks, their bytes
 *   serve_http.c    one request: limits, checks, routes     serve_engine.c  the worker
 *   serve_reply.c   responses: headers, errors, streams     serve_ask.c     JSON -> task
 *   serve_files.c   files: ranges, the app's folder         serve_openai.c  the shapes of /v1
 *   serve_models.c  which models there are                  serve_ollama.c  the shapes of /api
 *                                                           serve_tags.c    and its models
 *
 * Flow: serve.c before; cli.h and carat.h below. */
#ifndef CARAT_CLI_SERVE_H
#define CARAT_CLI_SERVE_H

#include "cli.h"

#include <pthread.h>

enum {
    MAX_BODY = 32 << 20,    /* bytes of a request, pictures and sounds in base64 included */
    MAX_HEADERS = 32 << 10, /* bytes of its headers, and of MHD's other memory for it */
    MAX_CONNECTIONS = 64,   /* each costs a thread */
    MAX_BACKLOG = 4 << 20,  /* bytes that a streaming client may be behind */
    MAX_SESSIONS = 4        /* conversations whose prefix is kept */
};

typedef struct queue queue;
typedef struct task task;

/* What /api/ps tells of the model in memory. */
typedef struct loaded_model {
    char name[512]; /* "": none */
    bool on_gpu;
    uint32_t n_ctx;
    double expires;        /* by now_s(); INFINITY: never */
    carat_model_info info; /* its strings are not valid */
    char quantisation[32];
} loaded_model;

typedef struct server {
    const settings *settings;
    const char *const *files; /* [n_file] models given on the command line */
    size_t n_file;
    const char *app; /* the folder's real path, or NULL */
    char host[256];  /* as bound: an address */
    bool any_address;
    int port;
    queue *queue;
    pthread_mutex_t show_lock; /* one header is read at a time: it needs memory */
    pthread_mutex_t loaded_lock;
    loaded_model loaded;
} server;

/* ---- serve_run.c ---- */

/* Serves until a signal; models [n] are those of the command line. Returns the exit code. */
int serve_start(const settings *options, const char *const *models, size_t n);

/* ---- serve_models.c ---- */

typedef struct model_entry {
    const char *name;   /* as a client asks for it */
    const char *target; /* as carat_model_find() wants it */
    const char *path;   /* of the GGUF; NULL: missing */
    const char *digest; /* "sha256:..." of the file; NULL: not known */
    const char *id;     /* of the model; "" where there is none */
    uint64_t bytes;     /* of the file */
    int64_t modified;   /* seconds since 1970 */
} model_entry;

typedef struct model_list {
    model_entry *items; /* [n] */
    size_t n;
} model_list;

/* The models there are now: the store's and those given, in memory of a. */
bool models_read(const server *s, arena *a, model_list *out, carat_error *err);
/* The one that is meant by a name, which is never a path; NULL and CARAT_E_NOT_FOUND. An empty
 * name (or NULL) means the model of --model, else the first one given. */
const model_entry *models_find(const server *s, const model_list *list, const char *name,
                               carat_error *err);

/* ---- serve_queue.c ---- */

typedef enum task_kind { TASK_CHAT, TASK_COMPLETE, TASK_LOAD, TASK_UNLOAD } task_kind;

/* One event as an API tells it; scores: its tokens' log-probabilities, items of a JSON array. */
typedef struct part {
    carat_event_kind kind;
    const char *text;
    size_t len;
    const buf *scores;
} part;

/* How an API writes. Called by the worker, which is the only one that may use the engine. */
typedef struct task_shape {
    const char *stream_type;          /* of the content */
    void (*start)(task *t, buf *out); /* of a stream; may be NULL */
    void (*piece)(task *t, const part *p, buf *out);
    void (*call)(task *t, const json *call, buf *out); /* one tool call */
    void (*score)(task *t, const carat_event *ev, buf *out);
    void (*end)(task *t, buf *out);   /* of a stream */
    void (*whole)(task *t, buf *out); /* the answer in one piece */
    void (*error)(const carat_error *err, int status, buf *out);
    void (*stream_error)(const carat_error *err, buf *out);
} task_shape;

typedef enum task_state { TASK_NEW, TASK_QUEUED, TASK_RUNNING, TASK_ENDED } task_state;

/* A piece of work for the engine. The connection's thread fills it, queues it and reads; the
 * worker runs it and writes. */
struct task {
    /* What is asked. */
    task_kind kind;
    arena *memory; /* of the request */
    const task_shape *shape;
    const char *model, *target; /* the name as asked; as carat_model_find() wants it */
    const char *prompt;         /* of TASK_COMPLETE */
    size_t prompt_len;
    carat_chat_desc desc;
    media_refs *media; /* what its messages name; NULL: nothing. The worker decodes it */
    carat_sampling sampling;
    uint32_t n_ctx;    /* 0: the default */
    double keep_alive; /* seconds after the answer; INFINITY: for ever; negative: not given */
    bool stream, usage;
    char id[40];
    int64_t created;
    /* What came out; the worker's until TASK_ENDED. */
    carat_engine *engine; /* while it runs */
    answer answer;        /* calls and logprobs in the API's shape */
    buf marks[3];         /* of /v1/completions: the other columns of the logprobs */
    size_t offset;        /* bytes of the tokens so far */
    double start, load_s, total_s;
    /* The pipe, under the queue's lock. */
    queue *queue;
    task *next;
    task_state state;
    bool cancelled;
    int status; /* of the response; 0: not yet */
    const char *type;
    buf out;
    size_t taken; /* bytes of out that the client has */
    bool failed;  /* what is in out is not all */
    pthread_cond_t changed;
};

bool queue_create(queue **out, uint32_t capacity, carat_error *err);
void queue_free(queue *q);
void queue_stop(queue *q); /* cancels what runs and wakes all who wait */
bool queue_stopping(queue *q);
bool queue_push(queue *q, task *t, carat_error *err); /* false: full, or stopping */
/* The worker's next task; NULL: stopping, or seconds (INFINITY: none) went by. */
task *queue_pop(queue *q, double seconds);

void task_open(task *t, arena *memory);
void task_stop(task *t); /* cancels it and waits until the worker lets go */
void task_free(task *t); /* once it was stopped */
/* The worker: */
bool task_cancelled(task *t); /* nobody wants it any more */
void task_begin(task *t, int status, const char *type);
bool task_write(task *t, const buf *b); /* false: cancelled, or the client is too far behind */
void task_end(task *t, bool complete);
bool task_ended(task *t);
/* The connection, whose socket is fd (-1: none). False, -1: the client is gone or the server
 * ends. */
bool task_await(task *t, int fd);                      /* until it begins */
long task_read(task *t, int fd, char *to, size_t max); /* waits for bytes; 0: the end */

/* ---- serve_engine.c ---- */

void *engine_worker(void *server); /* of a thread: runs the queue's tasks */
/* Adds the score of one token as OpenAI's chat and Ollama write it. */
void put_score(task *t, const carat_event *ev, buf *out);
void put_token_text(task *t, int32_t id, buf *out); /* the token's bytes */
double finite_logprob(float logprob);               /* JSON has no infinity */

#endif
