/* serve_queue: the tasks that wait for the engine, and the bytes on their way from the worker to a
 * client. The one place where the threads of `carat serve` meet.
 *
 * Everything here is under one lock, held for moments only. The worker never waits for a client: a
 * stream that is too far behind is given up.
 *
 * Flow: serve_http.c queues and reads; serve_engine.c runs and writes. */
#include "serve.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LOOK_MS = 100 }; /* how often one who waits looks whether its client is still there */

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    task *first, **last;
    uint32_t n, capacity;
    bool stopping;
};

/* ---- waiting ---- */

/* The clock is monotonic, as now_s(). */
static void cond_create(pthread_cond_t *c) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attr);
    pthread_condattr_destroy(&attr);
}

/* Under the lock. False: the time is over. */
static bool wait_until(queue *q, pthread_cond_t *c, double when) {
    if (isinf(when)) return pthread_cond_wait(c, &q->lock) == 0;
    struct timespec at = {.tv_sec = (time_t)when};
    at.tv_nsec = (long)((when - (double)at.tv_sec) * 1e9);
    return pthread_cond_timedwait(c, &q->lock, &at) != ETIMEDOUT;
}

/* Whether the other side has closed its socket. */
static bool client_gone(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    return fd >= 0 && poll(&p, 1, 0) > 0;
}

/* Under the lock: until something of the task changes. False: the client is gone. */
static bool wait_for_worker(task *t, int fd) {
    queue *q = t->queue;
    if (wait_until(q, &t->changed, now_s() + LOOK_MS / 1000.0)) return true;
    pthread_mutex_unlock(&q->lock);
    bool gone = client_gone(fd);
    pthread_mutex_lock(&q->lock);
    if (gone) t->cancelled = true;
    return !gone;
}

/* ---- the queue ---- */

bool queue_create(queue **out, uint32_t capacity, carat_error *err) {
    queue *q = calloc(1, sizeof *q);
    if (!q) return fail_memory(err, sizeof *q, "the queue");
    q->capacity = capacity;
    q->last = &q->first;
    pthread_mutex_init(&q->lock, NULL);
    cond_create(&q->filled);
    *out = q;
    return true;
}

void queue_free(queue *q) {
    if (!q) return;
    pthread_cond_destroy(&q->filled);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

void queue_stop(queue *q) {
    pthread_mutex_lock(&q->lock);
    q->stopping = true;
    pthread_cond_broadcast(&q->filled);
    for (task *t = q->first; t; t = t->next) pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&q->lock);
}

bool queue_stopping(queue *q) {
    pthread_mutex_lock(&q->lock);
    bool stopping = q->stopping;
    pthread_mutex_unlock(&q->lock);
    return stopping;
}

bool queue_push(queue *q, task *t, carat_error *err) {
    t->queue = q;
    pthread_mutex_lock(&q->lock);
    bool room = q->n < q->capacity && !q->stopping;
    if (room) {
        t->state = TASK_QUEUED;
        *q->last = t;
        q->last = &t->next;
        q->n++;
        pthread_cond_signal(&q->filled);
    }
    uint32_t n = q->n;
    bool stopping = q->stopping;
    pthread_mutex_unlock(&q->lock);
    if (room) return true;
    if (stopping) return fail(err, CARAT_E_CANCELLED, "carat is ending");
    return fail(err, CARAT_E_DEVICE,
                "carat is busy: %u requests are waiting already; try again in a moment", n);
}

/* Under the lock. */
static void unlink_task(queue *q, task *t) {
    task **at = &q->first;
    while (*at != t) at = &(*at)->next;
    *at = t->next;
    if (!*at) q->last = at;
    q->n--;
}

task *queue_pop(queue *q, double seconds) {
    double until = now_s() + seconds;
    pthread_mutex_lock(&q->lock);
    while (!q->first && !q->stopping && wait_until(q, &q->filled, until)) {}
    task *t = q->stopping ? NULL : q->first;
    if (t) {
        unlink_task(q, t);
        t->state = TASK_RUNNING;
    }
    pthread_mutex_unlock(&q->lock);
    return t;
}

/* ---- a task ---- */

void task_open(task *t, arena *memory) {
    *t = (task){.memory = memory, .keep_alive = -1, .start = now_s(), .created = time(NULL)};
    t->sampling = CARAT_SAMPLING_DEFAULT;
    t->desc.sampling = &t->sampling;
    cond_create(&t->changed);
}

void task_stop(task *t) {
    queue *q = t->queue;
    if (!q) return;
    pthread_mutex_lock(&q->lock);
    t->cancelled = true;
    if (t->state == TASK_QUEUED) {
        unlink_task(q, t);
        t->state = TASK_ENDED;
    }
    while (t->state == TASK_RUNNING) pthread_cond_wait(&t->changed, &q->lock);
    pthread_mutex_unlock(&q->lock);
}

void task_free(task *t) {
    pthread_cond_destroy(&t->changed);
    answer_free(&t->answer);
    for (size_t i = 0; i < COUNT(t->marks); i++) buf_free(&t->marks[i]);
    buf_free(&t->out);
}

bool task_cancelled(task *t) {
    pthread_mutex_lock(&t->queue->lock);
    bool cancelled = t->cancelled || t->queue->stopping;
    pthread_mutex_unlock(&t->queue->lock);
    return cancelled;
}

void task_begin(task *t, int status, const char *type) {
    pthread_mutex_lock(&t->queue->lock);
    t->status = status;
    t->type = type;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->queue->lock);
}

/* Under the lock: drops what the client has, when that is most of it. */
static void compact(task *t) {
    if (t->taken < 64 << 10 || t->taken < t->out.len / 2) return;
    t->out.len -= t->taken;
    memmove(t->out.data, t->out.data + t->taken, t->out.len);
    t->taken = 0;
}

bool task_write(task *t, const buf *b) {
    pthread_mutex_lock(&t->queue->lock);
    compact(t);
    buf_put(&t->out, b->data, b->len);
    size_t behind = t->out.len - t->taken;
    if (b->failed || t->out.failed || (t->stream && behind > MAX_BACKLOG))
        t->failed = t->cancelled = true;
    bool cancelled = t->cancelled || t->queue->stopping;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->queue->lock);
    return !cancelled;
}

void task_end(task *t, bool complete) {
    pthread_mutex_lock(&t->queue->lock);
    t->state = TASK_ENDED;
    if (!complete) t->failed = true;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->queue->lock);
}

bool task_ended(task *t) {
    pthread_mutex_lock(&t->queue->lock);
    bool ended = t->state == TASK_ENDED;
    pthread_mutex_unlock(&t->queue->lock);
    return ended;
}

bool task_await(task *t, int fd) {
    queue *q = t->queue;
    bool there = true;
    pthread_mutex_lock(&q->lock);
    while (there && !t->status && t->state != TASK_ENDED) {
        there = wait_for_worker(t, fd);
        if (q->stopping && t->state == TASK_QUEUED) there = false;
    }
    there = there && t->status;
    pthread_mutex_unlock(&q->lock);
    return there;
}

long task_read(task *t, int fd, char *to, size_t max) {
    queue *q = t->queue;
    bool there = true;
    pthread_mutex_lock(&q->lock);
    while (there && t->taken == t->out.len && t->state != TASK_ENDED)
        there = wait_for_worker(t, fd);
    size_t n = t->out.len - t->taken;
    if (n > max) n = max;
    if (n) memcpy(to, t->out.data + t->taken, n);
    t->taken += n;
    if (t->taken == t->out.len) {
        buf_reset(&t->out);
        t->taken = 0;
    }
    long got = !there || (n == 0 && t->failed) ? -1 : (long)n;
    pthread_mutex_unlock(&q->lock);
    return got;
}
