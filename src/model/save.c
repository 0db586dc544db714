/* save: a session as a file, and back. A header, the token ids, K and V in the device's own form,
 * and a checksum over all of it. Where K and V are of another kind of device than the one at hand,
 * the tokens are run again.
 *
 * Flow: session.c before and after; file/source.c reads. */
#include "model/engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { VERSION = 1, KV_CPU = 1, KV_GPU = 2 };

typedef struct header { /* little-endian */
    char magic[8];
    uint32_t version, kind;
    uint64_t model; /* fingerprint */
    uint32_t n_token, zero;
    uint64_t kv_bytes; /* after n_token ids; then a checksum of 8 bytes */
} header;

static const char MAGIC[8] = "CARATSES";

typedef struct save {
    carat_job job;
    enum { CHECK, PREPARE, BEGIN, KV, RERUN, END } state;
    const char *path, *beside;
    FILE *out;
    source *in;
    header head;
    uint64_t sum;     /* FNV-1a of what was written or read so far */
    int32_t *id;      /* [n_token] restoring */
    uint32_t n_rerun; /* of these */
    kv_piece *pieces;
    uint32_t n_piece, piece; /* the one under way, */
    uint64_t at;             /* bytes of it done */
    uint64_t done;           /* bytes of the file */
    size_t under_way;        /* bytes that are being read back */
    uint8_t *scratch;        /* [slice] */
    size_t slice;
} save;

static uint64_t total(const save *s) {
    return sizeof s->head + 4ull * s->head.n_token + s->head.kv_bytes + sizeof s->sum;
}

static void progress(const save *s, carat_event *ev, uint64_t done) {
    *ev = (carat_event){.kind = CARAT_EVENT_PROGRESS, .token = -1, .done = done};
    ev->total = total(s);
}

/* The pieces of the KV of n tokens on the GPU, and their bytes. */
static bool list_pieces(save *s, uint32_t n, uint64_t *bytes, carat_error *err) {
    size_t cap = 2 * (size_t)s->job.engine->model->config.n_layer;
    if (!s->pieces) s->pieces = arena_alloc(s->job.memory, cap, sizeof *s->pieces);
    if (!s->pieces) return fail_memory(err, cap * sizeof *s->pieces, "the list of KV pieces");
    s->n_piece = n ? text_gpu_kv_pieces(s->job.session->gpu, n, s->pieces) : 0;
    s->piece = 0;
    s->at = 0;
    *bytes = 0;
    for (uint32_t i = 0; i < s->n_piece; i++) *bytes += s->pieces[i].size;
    return true;
}

/* ---- saving ---- */

static bool put(save *s, const void *data, size_t n, carat_error *err) {
    s->sum = hash_bytes(s->sum, data, n);
    s->done += n;
    if (n == 0 || fwrite(data, 1, n, s->out) == n) return true;
    return fail(err, CARAT_E_IO, "%s: %s", s->beside, strerror(errno));
}

static bool save_begin(save *s, carat_error *err) {
    carat_session *ses = s->job.session;
    header *h = &s->head;
    uint32_t kind = ses->gpu ? KV_GPU : KV_CPU;
    *h = (header){.version = VERSION, .kind = kind, .n_token = ses->n_token};
    memcpy(h->magic, MAGIC, sizeof h->magic);
    h->model = s->job.engine->fingerprint ^ s->job.engine->uses_hash;
    if (ses->gpu && !list_pieces(s, ses->n_token, &h->kv_bytes, err)) return false;
    if (ses->cpu) h->kv_bytes = text_cpu_kv_bytes(ses->cpu, ses->n_token);
    s->out = fopen(s->beside, "wb");
    if (!s->out) return fail(err, CARAT_E_IO, "%s: %s", s->beside, strerror(errno));
    return put(s, h, sizeof *h, err) && put(s, ses->tokens, 4 * (size_t)ses->n_token, err);
}

static bool save_kv_cpu(save *s, carat_error *err) {
    size_t n = (size_t)s->head.kv_bytes;
    void *kv = arena_alloc(s->job.memory, n, 1);
    if (!kv) return fail_memory(err, n, "a copy of the KV cache");
    if (s->job.session->cpu) text_cpu_kv_save(s->job.session->cpu, s->head.n_token, kv);
    s->state = END;
    return put(s, kv, n, err);
}

/* One slice of a piece: starts reading it back, or writes what came. */
static bool save_kv_gpu(save *s, carat_event *ev, carat_error *err) {
    carat_session *ses = s->job.session;
    gpu *g = s->job.engine->device->gpu;
    if (s->piece == s->n_piece) {
        s->state = END;
        return true;
    }
    const kv_piece *p = &s->pieces[s->piece];
    if (!ses->ticket.id) {
        uint64_t left = p->size - s->at;
        s->under_way = left < s->slice ? (size_t)left : s->slice;
        ses->ticket = gpu_read(g, p->buffer, s->at, s->under_way, err);
        if (!ses->ticket.id) return false;
    }
    gpu_poll_result r = gpu_poll(g, ses->ticket, ses->read, err);
    if (r == GPU_PENDING) return true;
    ses->ticket.id = 0;
    if (r == GPU_FAILED || !put(s, ses->read, s->under_way, err)) return false;
    s->at += s->under_way;
    if (s->at == p->size) s->piece++, s->at = 0;
    progress(s, ev, s->done);
    return true;
}

static bool save_end(save *s, carat_event *ev, carat_error *err) {
    uint64_t sum = s->sum;
    FILE *out = s->out;
    if (!put(s, &sum, sizeof sum, err)) return false;
    s->out = NULL;
    if (fclose(out) != 0 || rename(s->beside, s->path) != 0)
        return fail(err, CARAT_E_IO, "%s: %s", s->path, strerror(errno));
    ev->kind = CARAT_EVENT_DONE;
    return true;
}

static bool save_step(save *s, carat_event *ev, carat_error *err) {
    carat_session *ses = s->job.session;
    switch (s->state) {
    case PREPARE:
        if (session_idle(ses)) s->state = BEGIN;
        return true;
    case BEGIN:
        s->state = KV;
        return save_begin(s, err);
    case KV:
        if (s->head.kind == KV_CPU) return save_kv_cpu(s, err);
        if (ses->gpu) return save_kv_gpu(s, ev, err);
        return fail(err, CARAT_E_DEVICE_LOST, "%s: the GPU was lost while saving", s->path);
    default:
        return save_end(s, ev, err);
    }
}

static bool save_advance(carat_job *job, carat_event *ev, carat_error *err) {
    save *s = (save *)job;
    if (atomic_load(&job->cancelled))
        return fail(err, CARAT_E_CANCELLED, "saving %s was cancelled", s->path);
    return save_step(s, ev, err);
}

/* ---- restoring ---- */

static bool damaged(const save *s, const char *what, carat_error *err) {
    return fail(err, CARAT_E_FORMAT, "%s: %s", s->path, what);
}

static bool check_header(save *s, carat_error *err) {
    const header *h = &s->head;
    if (s->in->size < sizeof *h) return damaged(s, "too short for a saved session", err);
    if (!source_read(s->in, 0, &s->head, sizeof *h, err)) return false;
    if (memcmp(h->magic, MAGIC, sizeof h->magic) != 0)
        return damaged(s, "not a saved session", err);
    if (h->version != VERSION)
        return fail(err, CARAT_E_UNSUPPORTED, "%s: a saved session of version %u, not %u", s->path,
                    h->version, (unsigned)VERSION);
    if (h->model != (s->job.engine->fingerprint ^ s->job.engine->uses_hash))
        return fail(err, CARAT_E_ARGUMENT,
                    "%s: it was saved from another model than %s, or with other adapters", s->path,
                    s->job.engine->name);
    if (h->kv_bytes > s->in->size || total(s) != s->in->size)
        return damaged(s, "the file is cut off, or damaged", err);
    if (h->n_token > s->job.session->n_ctx)
        return fail(err, CARAT_E_CONTEXT, "%s: it has %u tokens and the context holds %u", s->path,
                    h->n_token, s->job.session->n_ctx);
    return true;
}

static bool read_ids(save *s, carat_error *err) {
    uint32_t n = s->head.n_token, n_vocab = s->job.engine->model->config.n_vocab;
    s->id = arena_alloc(s->job.memory, (size_t)n + 1, sizeof *s->id);
    if (!s->id) return fail_memory(err, 4ull * n, "tokens");
    if (!source_read(s->in, sizeof s->head, s->id, 4 * (size_t)n, err)) return false;
    for (uint32_t i = 0; i < n; i++)
        if (s->id[i] >= 0 && (uint32_t)s->id[i] >= n_vocab)
            return damaged(s, "a token that the model does not have", err);
    return true;
}

/* A slice of the checksum; the session is not touched before all of the file proved good. */
static bool check_slice(save *s, carat_event *ev, carat_error *err) {
    uint64_t left = s->in->size - sizeof s->sum - s->done, sum = 0;
    size_t n = left < s->slice ? (size_t)left : s->slice;
    if (n) {
        if (!source_read(s->in, s->done, s->scratch, n, err)) return false;
        s->sum = hash_bytes(s->sum, s->scratch, n);
        s->done += n;
        progress(s, ev, s->done / 2);
        return true;
    }
    if (!source_read(s->in, s->done, &sum, sizeof sum, err)) return false;
    if (sum != s->sum) return damaged(s, "the checksum is wrong: the file is damaged", err);
    s->state = PREPARE;
    return true;
}

/* Those that can be run again: soft tokens would have to be encoded. */
static uint32_t tokens_before_media(const save *s) {
    uint32_t n = 0;
    while (n < s->head.n_token && s->id[n] >= 0) n++;
    return n;
}

/* Decides how the KV comes back, now that the device is known. */
static bool restore_begin(save *s, carat_error *err) {
    carat_session *ses = s->job.session;
    uint32_t n = s->head.n_token, kind = ses->gpu ? KV_GPU : KV_CPU;
    uint64_t bytes = 0;
    session_clear(ses);
    s->done = sizeof s->head + 4ull * n;
    s->state = KV;
    if (ses->gpu && !list_pieces(s, n, &bytes, err)) return false;
    if (ses->cpu) bytes = text_cpu_kv_bytes(ses->cpu, n);
    if (kind == s->head.kind && bytes == s->head.kv_bytes) return true;
    s->n_rerun = tokens_before_media(s);
    s->state = s->n_rerun ? RERUN : END;
    if (s->n_rerun == n) return true;
    s->job.has_notice = true;
    snprintf(s->job.notice, sizeof s->job.notice,
             "the saved conversation has pictures or sounds and was on another kind of device: "
             "%u of its %u tokens are kept, the rest is computed again when it goes on",
             s->n_rerun, n);
    return true;
}

static bool restore_kv_cpu(save *s, carat_error *err) {
    size_t n = (size_t)s->head.kv_bytes;
    void *kv = arena_alloc(s->job.memory, n, 1);
    if (!kv) return fail_memory(err, n, "a copy of the KV cache");
    if (!source_read(s->in, s->done, kv, n, err)) return false;
    text_cpu_kv_restore(s->job.session->cpu, s->head.n_token, kv);
    session_hold(s->job.session, s->id, s->head.n_token);
    s->state = END;
    return true;
}

static bool restore_kv_gpu(save *s, carat_event *ev, carat_error *err) {
    gpu *g = s->job.engine->device->gpu;
    if (s->piece == s->n_piece) {
        session_hold(s->job.session, s->id, s->head.n_token);
        s->state = END;
        return gpu_submit(g, err);
    }
    const kv_piece *p = &s->pieces[s->piece];
    uint64_t left = p->size - s->at;
    size_t n = left < s->slice ? (size_t)left : s->slice;
    if (!source_read(s->in, s->done, s->scratch, n, err)) return false;
    gpu_write(g, p->buffer, s->at, s->scratch, n);
    s->done += n;
    s->at += n;
    if (s->at == p->size) s->piece++, s->at = 0;
    progress(s, ev, (s->in->size + s->done) / 2);
    return true;
}

static bool rerun(save *s, carat_event *ev, carat_error *err) {
    carat_session *ses = s->job.session;
    if (session_busy(ses)) return true;
    uint32_t n = min_u32(s->n_rerun - ses->n_token, session_chunk(ses));
    if (!session_run(ses, s->id + ses->n_token, n, NULL, false, err)) return false;
    *ev = (carat_event){.kind = CARAT_EVENT_PROGRESS, .token = -1, .done = ses->n_token};
    ev->total = s->n_rerun;
    if (ses->n_token == s->n_rerun) s->state = END;
    return true;
}

static bool restore_step(save *s, carat_event *ev, carat_error *err) {
    carat_session *ses = s->job.session;
    bool ready = false;
    if (job_notice(&s->job, ev)) return true;
    if (!ses->cpu && !ses->gpu && s->state > CHECK) s->state = PREPARE; /* another job's loss */
    switch (s->state) {
    case CHECK:
        return check_slice(s, ev, err);
    case PREPARE:
        if (!job_prepare(&s->job, &ready, ev, err)) return false;
        if (ready) s->state = BEGIN;
        return true;
    case BEGIN:
        return restore_begin(s, err);
    case KV:
        return ses->gpu ? restore_kv_gpu(s, ev, err) : restore_kv_cpu(s, err);
    case RERUN:
        return rerun(s, ev, err);
    case END:
        ev->kind = CARAT_EVENT_DONE;
        return true;
    }
    return true;
}

static bool restore_advance(carat_job *job, carat_event *ev, carat_error *err) {
    save *s = (save *)job;
    carat_error e = {0};
    if (atomic_load(&job->cancelled))
        fail(&e, CARAT_E_CANCELLED, "restoring %s was cancelled", s->path);
    else if (restore_step(s, ev, &e))
        return true;
    if (e.code == CARAT_E_CANCELLED || !job_recover(job, &e, err)) {
        if (s->state > CHECK) session_clear(job->session); /* maybe half restored */
        return fail(err, e.code, "%s", e.message);
    }
    s->state = PREPARE;
    *ev = (carat_event){.kind = CARAT_EVENT_PENDING, .token = -1};
    return true;
}

/* ---- creating ---- */

static void save_free(carat_job *job) {
    save *s = (save *)job;
    if (s->out) fclose(s->out);
    if (s->out) unlink(s->beside); /* half written */
    source_close(s->in);
}

static bool begin(save *s, const char *path, carat_error *err) {
    arena *a = s->job.memory;
    size_t n = path ? strlen(path) : 0;
    if (n == 0) return fail(err, CARAT_E_ARGUMENT, "session: no file is given");
    s->slice = s->job.session->read_cap / 4 * 4;
    s->scratch = arena_alloc(a, s->slice, 1);
    s->path = arena_copy(a, path, n);
    char *beside = arena_alloc(a, n + 5, 1);
    if (!s->scratch || !s->path || !beside) return fail_memory(err, s->slice + 2 * n, "a file");
    memcpy(beside, path, n);
    memcpy(beside + n, ".new", 5);
    s->beside = beside;
    s->sum = FNV_START;
    return true;
}

carat_job *carat_session_save(carat_session *ses, const char *path, carat_error *err) {
    static const job_class class = {
        .size = sizeof(save), .advance = save_advance, .free = save_free};
    save *s = (save *)job_create(&class, ses->engine, ses, err);
    if (!s) return NULL;
    s->state = PREPARE;
    if (begin(s, path, err)) return &s->job;
    carat_job_free(&s->job);
    return NULL;
}

carat_job *carat_session_restore(carat_session *ses, const char *path, carat_error *err) {
    static const job_class class = {
        .size = sizeof(save), .advance = restore_advance, .free = save_free};
    save *s = (save *)job_create(&class, ses->engine, ses, err);
    if (!s) return NULL;
    s->state = CHECK;
    if (begin(s, path, err) && source_open(s->job.memory, path, &s->in, err) &&
        check_header(s, err) && read_ids(s, err))
        return &s->job;
    carat_job_free(&s->job);
    return NULL;
}
