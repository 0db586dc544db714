/* engine: what stands behind the opaque types of carat.h. device.c owns a device, engine.c a model
 * on it, session.c the tokens and KV of one conversation, and job.c advances what takes long: load
 * (job.c), generate.c, score.c, save.c.
 *
 * Flow: model/text_cpu.c and model/text_gpu.c before; carat.h after. Private to src/model and its
 * tests. */
#ifndef CARAT_ENGINE_H
#define CARAT_ENGINE_H

#include "gpu/kernel.h"
#include "gpu/upload.h"
#include "model/adapter.h"
#include "model/media.h"
#include "model/model.h"
#include "model/text_gpu.h"

#include <stdatomic.h>

/* ---- device.c ---- */

/* Opens a GPU in the place of one that was lost; NULL and *err when there is none. */
typedef gpu *(*gpu_reopen)(void *user, carat_error *err);

struct carat_device {
    arena *memory;
    gpu *gpu; /* NULL: the CPU */
    kernel_cache *cache;
    char name[256];
    uint64_t peak_bytes; /* of GPUs that were lost */
    gpu_reopen reopen;
    void *reopen_user;
    carat_engine *engines; /* those that use it */
};

/* A device on an open GPU, which it owns from then on (also on failure). */
carat_device *carat_device_from_gpu(gpu *g, gpu_reopen reopen, void *user, carat_error *err);
/* After a loss: drops all that was on the GPU, then opens one again if `reopen` says so, else
 * goes on with the CPU. Engines must load their weights again. Fails only when out of memory. */
bool device_recover(carat_device *dev, bool reopen, carat_error *err);
/* Whether an error means that the device is gone. */
bool device_lost(const carat_device *dev, const carat_error *e);

/* ---- engine.c ---- */

/* What holds things on the engine's device beside its sessions. drop() gives them back: the device
 * or the weights go. */
typedef struct engine_guest {
    struct engine_guest *next;
    carat_engine *engine; /* NULL: it is closed */
    void (*drop)(struct engine_guest *guest);
} engine_guest;

struct carat_engine {
    arena *memory;
    arena *host;          /* the weights, on the CPU; NULL: not there */
    carat_device *device; /* NULL: tokenize and inspect only */
    carat_engine *next;   /* of the device */
    carat_session *sessions;
    engine_guest *guests;
    model *model;
    weight **matrices; /* NULL-terminated */
    upload *upload;    /* weights under way to the GPU */
    uint64_t loaded;   /* bytes, on the way to the CPU */
    bool loading, resident, was_resident;
    double load_start, load_s;
    uint64_t fingerprint;
    encoders encoders;
    const char *name;
    bool large; /* template */
    const char *system;
    const json *params, *messages;
    carat_adapter *adapters;        /* open */
    lora_use uses[ENGINE_ADAPTERS]; /* [n_use] in use */
    uint32_t n_use;
    uint64_t uses_hash; /* 0: none */
    lora_gpu *adapted;  /* these on the GPU; NULL: not there */
};

bool engine_load_begin(carat_engine *eng, carat_error *err);
/* A piece of the weights. *busy: the device should work first; eng->resident: that was all. On
 * failure everything is given back. */
bool engine_load_advance(carat_engine *eng, bool *busy, carat_error *err);
void engine_load_progress(const carat_engine *eng, uint64_t *done, uint64_t *total);
/* Drops the weights, those of the encoders too, and what the sessions hold on the device; their
 * tokens are recomputed. */
void engine_unload(carat_engine *eng);
void engine_join(carat_engine *eng, engine_guest *guest);
void engine_leave(engine_guest *guest);
/* Weight bytes that one decode step reads, in the file's formats. */
uint64_t engine_step_bytes(const carat_engine *eng);
/* Bytes on the device for weights, and for KV: fixed and for each token. */
void engine_memory(const carat_engine *eng, carat_model_info *info);

/* ---- session.c ---- */

#define SESSION_SNAPSHOTS 2u

/* What a run with a head computed: logits of its last token. */
typedef struct step_result {
    const float *logits;  /* [n_vocab], or NULL: only */
    const candidate *top; /* [n_top] the best, in order, */
    uint32_t n_top;
    float lse; /* and the log of the sum of exp of all */
} step_result;

struct carat_session {
    arena *memory;
    carat_engine *engine;
    carat_session *next; /* of the engine */
    carat_job *job;      /* that uses it now */
    uint32_t n_ctx;
    text_cpu *cpu;   /* one of the two, or neither: */
    text_gpu *gpu;   /* nothing is computed yet (again) */
    int32_t *tokens; /* [n_ctx], exactly those whose K and V are held; soft tokens are negative */
    uint32_t n_token;
    encode *encode;                           /* the last job's pictures and sounds; NULL: none */
    kv_snapshot snapshots[SESSION_SNAPSHOTS]; /* newest last */
    uint32_t n_snapshot;
    gpu_ticket ticket; /* a read under way; at most one */
    bool read_all;
    void *read; /* [read_cap] where it goes; on the CPU the logits */
    size_t read_cap;
    candidate *top; /* [TEXT_GPU_LISTED] */
};

/* Makes the KV on the engine's device, unless it is there. */
bool session_open(carat_session *ses, carat_error *err);
/* Gives it back; the session holds no tokens then. */
void session_close(carat_session *ses);
/* Forgets all tokens. */
void session_clear(carat_session *ses);
/* Finishes with a read that a former job left. False: the device is still at it. */
bool session_idle(carat_session *ses);
/* Goes back to the longest usable prefix of id [n], shorter than n: the last must be run again to
 * have its logits. A picture or a sound is held whole, or not at all. */
void session_seek(carat_session *ses, const int32_t *id, uint32_t n);
/* Tokens of one run of text, at most. */
uint32_t session_chunk(const carat_session *ses);
/* How many of the next `left` tokens to run at once: that many, but no picture whose tokens see
 * each other is cut in two. */
uint32_t session_next(const carat_session *ses, const soft_list *soft, uint32_t left);
/* Whether the GPU has enough to do for now. */
bool session_busy(const carat_session *ses);
/* Runs id [n] after the tokens held, which fit; negative ones must be in a span of `soft` (NULL:
 * there are none). With `head` a session_poll() must follow. */
bool session_run(carat_session *ses, const int32_t *id, uint32_t n, const soft_list *soft,
                 bool head, carat_error *err);
/* Notes that id [n] were run after the tokens held. */
void session_hold(carat_session *ses, const int32_t *id, uint32_t n);
/* Starts reading what the run's head computed; all: every logit. */
bool session_read(carat_session *ses, bool all, carat_error *err);
gpu_poll_result session_poll(carat_session *ses, step_result *out, carat_error *err);
/* Remembers this place, so that a conversation can go back to it. */
void session_snapshot(carat_session *ses);

/* ---- job.c ---- */

typedef struct job_class {
    size_t size;
    bool (*advance)(carat_job *job, carat_event *ev, carat_error *err);
    void (*free)(carat_job *job); /* what is not in job->memory; may be NULL */
} job_class;

struct carat_job { /* every kind of job starts with this */
    const job_class *class;
    arena *memory;
    carat_engine *engine;
    carat_session *session; /* NULL: none */
    atomic_bool cancelled;
    bool over, done; /* ended; ended well */
    uint32_t n_lost; /* devices lost so far */
    carat_finish_reason finish;
    bool has_notice;
    char notice[384]; /* to be told next */
    carat_stats stats;
};

/* A zeroed job; ses becomes busy with it. */
carat_job *job_create(const job_class *class, carat_engine *eng, carat_session *ses,
                      carat_error *err);
/* What every job does first: weights on the device, KV made, no read of a former job under way.
 * False with *ready unset on an error; true and not *ready: *ev is what to report. */
bool job_prepare(carat_job *job, bool *ready, carat_event *ev, carat_error *err);
/* After a failure: if the device was lost, gets another one and leaves a notice (true: begin again
 * with job_prepare()). Otherwise copies *e to *err. */
bool job_recover(carat_job *job, const carat_error *e, carat_error *err);
bool job_notice(carat_job *job, carat_event *ev); /* true: there was one */

#endif
