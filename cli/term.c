/* term: the terminal and the system around the commands. Owns colours, progress, tables, reading
 * and writing of files, Ctrl-C, and the two clocks of memory and time. Knows nothing of models.
 *
 * Flow: used by every command. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- what is a terminal ---- */

bool stdout_is_terminal(void) { return isatty(STDOUT_FILENO); }
bool stderr_is_terminal(void) { return isatty(STDERR_FILENO); }
bool stdin_is_terminal(void) { return isatty(STDIN_FILENO); }

static const char *ansi(FILE *f, const char *code) {
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    if (no_color && *no_color) return "";
    if (term && strcmp(term, "dumb") == 0) return "";
    return isatty(fileno(f)) ? code : "";
}

const char *dim(FILE *f) { return ansi(f, "\033[2m"); }
const char *bold(FILE *f) { return ansi(f, "\033[1m"); }
const char *plain(FILE *f) { return ansi(f, "\033[0m"); }

void put_text(FILE *f, const char *text, size_t n) {
    if (!isatty(fileno(f))) {
        fwrite(text, 1, n, f);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        bool control = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f;
        bool c1 = c == 0xc2 && i + 1 < n && (unsigned char)text[i + 1] < 0xa0;
        if (control || c1) fputs("\xef\xbf\xbd", f);
        if (c1) i++;
        if (!control && !c1) fputc(c, f);
    }
}

/* ---- messages ---- */

static void message_line(const char *kind, const char *fmt, va_list args) {
    fflush(stdout);
    fprintf(stderr, "carat: %s", kind);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
}

void warn(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    message_line("warning: ", fmt, args);
    va_end(args);
}

int usage_error(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    message_line("", fmt, args);
    va_end(args);
    return EXIT_USAGE;
}

int report(const carat_error *err) {
    progress_end();
    fflush(stdout);
    if (err->code == CARAT_E_CANCELLED) return EXIT_INTERRUPTED;
    fprintf(stderr, "carat: %s\n", err->message);
    return err->code == CARAT_E_ARGUMENT ? EXIT_USAGE : EXIT_ERROR;
}

int flush_stdout(int code) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return code;
    fprintf(stderr, "carat: cannot write the output: %s\n", strerror(errno));
    return EXIT_ERROR;
}

/* ---- numbers ---- */

double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* VmHWM: unlike ru_maxrss it does not count what ran in this process before exec. */
uint64_t host_peak_bytes(void) {
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    unsigned long long kb = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %llu", &kb) == 1) break;
    if (f) fclose(f);
    if (kb) return kb * 1024;
    struct rusage use;
    if (getrusage(RUSAGE_SELF, &use) != 0) return 0;
#ifdef __APPLE__
    return (uint64_t)use.ru_maxrss;
#else
    return (uint64_t)use.ru_maxrss * 1024;
#endif
}

static const char *human(uint64_t n, const char *const units[5], char text[24]) {
    double v = (double)n;
    int unit = 0;
    while (unit < 4 && v >= 999.5) {
        v /= 1000;
        unit++;
    }
    snprintf(text, 24, unit == 0 || v >= 99.95 ? "%.0f%s" : "%.1f%s", v, units[unit]);
    return text;
}

const char *human_bytes(uint64_t n, char text[24]) {
    return human(n, (const char *const[5]){" B", " kB", " MB", " GB", " TB"}, text);
}

const char *human_count(uint64_t n, char text[24]) {
    return human(n, (const char *const[5]){"", " K", " M", " B", " T"}, text);
}

/* ---- progress ---- */

void progress(const char *fmt, ...) {
    if (!stderr_is_terminal()) return;
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "\r\033[K%s", dim(stderr));
    vfprintf(stderr, fmt, args);
    fputs(plain(stderr), stderr);
    fflush(stderr);
    va_end(args);
}

void progress_end(void) {
    if (!stderr_is_terminal()) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
}

/* ---- files ---- */

bool read_all(const char *path, buf *out, carat_error *err) {
    bool is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY);
    if (fd < 0) return fail(err, CARAT_E_IO, "%s: %s", path, strerror(errno));
    char piece[65536];
    ssize_t n;
    while ((n = read(fd, piece, sizeof piece)) > 0) buf_put(out, piece, (size_t)n);
    int error = n < 0 ? errno : 0;
    if (!is_stdin) close(fd);
    if (error) return fail(err, CARAT_E_IO, "%s: %s", is_stdin ? "stdin" : path, strerror(error));
    return out->failed ? fail_memory(err, out->len, path) : true;
}

static bool write_fd(int fd, const char *data, size_t n) {
    while (n > 0) {
        ssize_t done = write(fd, data, n);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return false;
        data += done;
        n -= (size_t)done;
    }
    return true;
}

bool write_beside(const char *path, const void *data, size_t n, carat_error *err) {
    buf beside = {0};
    buf_printf(&beside, "%s.new", path);
    if (beside.failed) {
        buf_free(&beside);
        return fail_memory(err, strlen(path), "a file's name");
    }
    int fd = open(beside.data, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    bool ok = fd >= 0 && write_fd(fd, data, n);
    int error = errno;
    if (fd >= 0 && close(fd) != 0 && ok) {
        ok = false;
        error = errno;
    }
    if (ok && rename(beside.data, path) != 0) {
        ok = false;
        error = errno;
    }
    if (!ok && fd >= 0) unlink(beside.data);
    buf_free(&beside);
    return ok ? true : fail(err, CARAT_E_IO, "%s: %s", path, strerror(error));
}

size_t utf8_invalid(const char *text, size_t n) {
    size_t bad = 0;
    for (size_t i = 0; i < n;) {
        size_t len = utf8_length(text + i, n - i);
        if (len == 0) bad++;
        i += len ? len : 1;
    }
    return bad;
}

void put_visible(buf *b, const char *s, size_t n) {
    buf_puts(b, "\"");
    for (size_t i = 0; i < n;) {
        size_t len = utf8_length(s + i, n - i);
        unsigned char c = (unsigned char)s[i];
        if (c == '\n')
            buf_puts(b, "\\n");
        else if (c == '\t')
            buf_puts(b, "\\t");
        else if (c == '"' || c == '\\')
            buf_printf(b, "\\%c", c);
        else if (len == 0 || c < 0x20 || c == 0x7f)
            buf_printf(b, "\\x%02x", c);
        else
            buf_put(b, s + i, len);
        i += len ? len : 1;
    }
    buf_puts(b, "\"");
}

bool print_buf(buf *b, carat_error *err) {
    bool ok = !b->failed;
    if (ok) puts(b->data);
    buf_free(b);
    return ok ? true : fail_memory(err, 0, "the output");
}

/* ---- tables ---- */

void table_cell(table *t, const char *fmt, ...) {
    char cell[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(cell, sizeof cell, fmt, args);
    va_end(args);
    buf_put(&t->cells, cell, strlen(cell) + 1);
    t->n++;
}

/* Characters, not bytes. */
static int text_width(const char *s) {
    int n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

/* One row, of which cell is the first; returns the next row's. */
static const char *print_row(const table *t, const int *width, const char *cell, FILE *f) {
    int gap = 0; /* spaces that are due before the next text */
    for (size_t col = 0; t->columns[col]; col++, cell += strlen(cell) + 1) {
        int pad = width[col] - text_width(cell);
        bool right = t->columns[col] == 'r';
        if (*cell) fprintf(f, "%*s%s", gap + (right ? pad : 0), "", cell);
        gap = (*cell ? right ? 0 : pad : gap + width[col]) + 2;
    }
    fputc('\n', f);
    return cell;
}

void table_print(table *t, FILE *f, bool header) {
    size_t n_col = strlen(t->columns), n_row = t->cells.failed ? 0 : t->n / n_col;
    int width[16] = {0};
    assert(n_col <= COUNT(width));
    const char *cell = t->cells.data;
    for (size_t i = 0; i < n_row * n_col; i++, cell += strlen(cell) + 1)
        if (text_width(cell) > width[i % n_col]) width[i % n_col] = text_width(cell);
    cell = t->cells.data;
    for (size_t row = 0; row < n_row; row++) {
        if (row == 0 && header) fputs(dim(f), f);
        cell = print_row(t, width, cell, f);
        if (row == 0 && header) fputs(plain(f), f);
    }
    buf_free(&t->cells);
    t->n = 0;
}

/* ---- Ctrl-C, SIGTERM, SIGHUP ---- */

/* A signal handler has no argument to carry state in, so this is the one place that has globals. */
static carat_job *volatile watched;
static volatile sig_atomic_t interrupts, keep_running;

static void on_interrupt(int signal) {
    carat_job *job = watched;
    if (signal != SIGINT && job && interrupts) return; /* it is told more than once */
    interrupts++;
    if (job && interrupts == 1)
        carat_cancel(job);
    else if (job || !keep_running) {
        static const char restore[] = "\033[0m\n";
        if (isatty(STDERR_FILENO)) (void)!write(STDERR_FILENO, restore, sizeof restore - 1);
        _exit(EXIT_INTERRUPTED);
    }
}

static void install(int signal) {
    struct sigaction action = {0};
    action.sa_handler = on_interrupt; /* without SA_RESTART: a waiting read must return */
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, NULL);
}

void interrupt_install(bool keep) {
    keep_running = keep;
    install(SIGINT);
}

void interrupt_install_term(void) {
    struct sigaction hangup;
    install(SIGTERM);
    sigaction(SIGHUP, NULL, &hangup);
    if (hangup.sa_handler != SIG_IGN) install(SIGHUP); /* nohup stays what it is */
}

void interrupt_watch(carat_job *job) {
    interrupts = 0;
    watched = job;
}

bool interrupted(void) { return interrupts != 0; }
void interrupt_clear(void) { interrupts = 0; }
