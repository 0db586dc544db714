/* serve_run: the life of `carat serve`: binds the socket, starts the worker and the HTTP threads,
 * waits for Ctrl-C, ends them in order. All signals go to this thread.
 *
 * Flow: serve.c before; serve_http.c and serve_engine.c run beside it. */
#include "serve_http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <netdb.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- what is served ---- */

static bool has_index(const char *folder) {
    char path[PATH_MAX + 16];
    struct stat st;
    snprintf(path, sizeof path, "%s/index.html", folder);
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* The app's folder: the one that was named, or the one that is built or installed beside the
 * program. *out is NULL when there is none, which is an error only if it was named. */
static bool find_app(const char *named, char real[PATH_MAX], const char **out, carat_error *err) {
    static const char *const places[] = {"../web", "../share/carat/web"};
    char program[PATH_MAX], path[PATH_MAX + 32];
    *out = NULL;
    if (named) {
        if (!realpath(named, real) || !has_index(real))
            return fail(err, CARAT_E_NOT_FOUND, "--app %s: there is no index.html", named);
        *out = real;
        return true;
    }
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0) return true;
    program[n] = 0;
    char *slash = strrchr(program, '/');
    if (slash) *slash = 0;
    for (size_t i = 0; i < COUNT(places) && !*out; i++) {
        snprintf(path, sizeof path, "%s/%s", program, places[i]);
        if (realpath(path, real) && has_index(real)) *out = real;
    }
    return true;
}

static bool same_file(const model_entry *a, const model_entry *b) {
    struct stat x, y;
    return a->path && b->path && stat(a->path, &x) == 0 && stat(b->path, &y) == 0 &&
           x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Says at once which of the models given is not there, or has another's name. */
static bool check_models(const server *s, carat_error *err) {
    model_list list = {0};
    arena *a = arena_create(err);
    bool ok = a != NULL;
    for (size_t i = 0; ok && i < s->n_file; i++) {
        carat_engine_desc desc;
        carat_model *m = carat_model_find(s->files[i], &desc, err);
        ok = m != NULL;
        carat_model_free(m);
    }
    ok = ok && models_read(s, a, &list, err);
    for (size_t i = 0; ok && i < list.n; i++) {
        const model_entry *found = models_find(s, &list, list.items[i].name, err);
        if (found && found != &list.items[i] && !same_file(found, &list.items[i]))
            ok = fail(err, CARAT_E_ARGUMENT, "%s and %s would both be called %s", found->target,
                      list.items[i].target, found->name);
    }
    ok = ok && (!s->settings->preload || models_find(s, &list, NULL, err));
    arena_free(a);
    return ok;
}

/* ---- the socket ---- */

static int bind_to(const struct addrinfo *to) {
    int on = 1, fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, to->ai_addr, to->ai_addrlen) == 0 && listen(fd, 128) == 0) return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* The address and the port that the socket got. */
static void read_address(server *s, int fd) {
    struct sockaddr_storage at = {0};
    socklen_t n = sizeof at;
    char port[16] = "0";
    getsockname(fd, (struct sockaddr *)&at, &n);
    getnameinfo((struct sockaddr *)&at, n, s->host, sizeof s->host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    s->port = atoi(port);
    s->any_address = strcmp(s->host, "0.0.0.0") == 0 || strcmp(s->host, "::") == 0;
}

static int listen_on(server *s, carat_error *err) {
    struct addrinfo wanted = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *all = NULL;
    char port[16];
    int fd = -1, code;
    snprintf(port, sizeof port, "%u", s->settings->port);
    if ((code = getaddrinfo(s->settings->host, port, &wanted, &all)) != 0) {
        fail(err, CARAT_E_ARGUMENT, "--host %s: %s", s->settings->host, gai_strerror(code));
        return -1;
    }
    for (struct addrinfo *a = all; a && fd < 0; a = a->ai_next) fd = bind_to(a);
    int error = errno;
    freeaddrinfo(all);
    if (fd >= 0)
        read_address(s, fd);
    else if (error == EADDRINUSE)
        fail(err, CARAT_E_IO,
             "port %s of %s is in use, perhaps by another `carat serve`; --port N takes another "
             "one",
             port, s->settings->host);
    else
        fail(err, CARAT_E_IO, "%s, port %s: %s", s->settings->host, port, strerror(error));
    return fd;
}

/* ---- Ctrl-C ---- */

static void leave_now(int signal) {
    (void)signal;
    _exit(EXIT_INTERRUPTED);
}

static sigset_t end_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    return set;
}

/* The next signal to end, or 0 after ms (-1: no limit). From then on another one ends at once. */
static int wait_signal(int ms) {
    sigset_t set = end_signals();
    struct timespec limit = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    int got = -1;
    while (got < 0) {
        got = ms < 0 ? sigwaitinfo(&set, NULL) : sigtimedwait(&set, NULL, &limit);
        if (got < 0 && errno == EAGAIN) return 0;
    }
    signal(SIGINT, leave_now);
    signal(SIGTERM, leave_now);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return got;
}

/* ---- life ---- */

static void load_end(task *t, buf *out) { (void)t, (void)out; }

static void load_error(const carat_error *err, int status, buf *out) {
    (void)status;
    buf_puts(out, err->message);
}

/* Loads the model of --model before anything else. *sig: a signal came instead. */
static bool preload(server *s, int *sig, carat_error *err) {
    static const task_shape shape = {.whole = load_end, .error = load_error};
    model_list list;
    task t;
    arena *a = arena_create(err);
    if (!a || !models_read(s, a, &list, err)) {
        arena_free(a);
        return false;
    }
    const model_entry *e = models_find(s, &list, NULL, err);
    task_open(&t, a);
    t.kind = TASK_LOAD;
    t.shape = &shape;
    if (e) t.model = e->name, t.target = e->target;
    bool ok = e && queue_push(s->queue, &t, err);
    while (ok && !*sig && !task_ended(&t)) *sig = wait_signal(50);
    task_stop(&t);
    if (ok && !*sig && t.status != 200) {
        ok = fail(err, CARAT_E_IO, "%s", t.out.data ? t.out.data : "the model was not loaded");
    }
    task_free(&t);
    arena_free(a);
    return ok;
}

static void announce(const server *s) {
    const char *host = s->any_address ? "localhost" : s->host;
    bool six = strchr(host, ':') != NULL;
    printf("carat serves http://%s%s%s:%d/\n", six ? "[" : "", host, six ? "]" : "", s->port);
    fflush(stdout);
    if (!s->app)
        warn("the web app is not here (`make web` builds it, --app DIR names it); models and API "
             "are served");
}

/* The worker runs already; returns the signal that ended it, 0 for an error. */
static int serve_until_signal(server *s, int fd, carat_error *err) {
    int sig = 0;
    if (s->settings->preload && !preload(s, &sig, err)) {
        close(fd);
        return 0;
    }
    if (sig) {
        close(fd);
        return sig;
    }
    struct MHD_Daemon *daemon = http_start(s, fd, err);
    if (!daemon) {
        close(fd);
        return 0;
    }
    announce(s);
    sig = wait_signal(-1);
    queue_stop(s->queue);
    MHD_stop_daemon(daemon);
    return sig;
}

static int serve_with_worker(server *s, int fd, carat_error *err) {
    pthread_t worker;
    if (!queue_create(&s->queue, s->settings->waiting, err)) {
        close(fd);
        return report(err);
    }
    if (pthread_create(&worker, NULL, engine_worker, s) != 0) {
        fail(err, CARAT_E_MEMORY, "the engine's thread could not be started");
        queue_free(s->queue);
        close(fd);
        return report(err);
    }
    int sig = serve_until_signal(s, fd, err);
    queue_stop(s->queue);
    pthread_join(worker, NULL);
    queue_free(s->queue);
    if (!sig) return report(err);
    return sig == SIGINT ? EXIT_INTERRUPTED : EXIT_OK;
}

int serve_start(const settings *options, const char *const *models, size_t n) {
    char app[PATH_MAX];
    carat_error err = {0};
    const char **files = calloc(n + 1, sizeof *files);
    server s = {.settings = options, .files = files, .n_file = n};
    if (!files) return fail_memory(&err, n * sizeof *files, "the models"), report(&err);
    for (size_t i = 0; i < n; i++) files[i] = models[i];
    if (options->preload) files[s.n_file++] = options->preload;
    sigset_t set = end_signals();
    signal(SIGPIPE, SIG_IGN);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* inherited by all threads */
    pthread_mutex_init(&s.show_lock, NULL);
    pthread_mutex_init(&s.loaded_lock, NULL);
    s.loaded.expires = INFINITY;
    bool ok = find_app(options->app, app, &s.app, &err) && check_models(&s, &err);
    int fd = ok ? listen_on(&s, &err) : -1;
    int code = fd >= 0 ? serve_with_worker(&s, fd, &err) : report(&err);
    pthread_mutex_destroy(&s.show_lock);
    pthread_mutex_destroy(&s.loaded_lock);
    free(files);
    return code;
}
