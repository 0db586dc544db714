/* term: the terminal and the system around the commands (term.c), and lines from the user
 * (line.c). Knows nothing of models. */
#ifndef CARAT_CLI_TERM_H
#define CARAT_CLI_TERM_H

#include "base/base.h"

#include <stdio.h>

/* Exit codes; every --help names them. */
enum { EXIT_OK = 0, EXIT_ERROR = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

/* ---- term.c ---- */

bool stdout_is_terminal(void);
bool stderr_is_terminal(void);
bool stdin_is_terminal(void);
/* ANSI codes, or "" where f is no terminal or NO_COLOR is set. */
const char *dim(FILE *f);
const char *bold(FILE *f);
const char *plain(FILE *f);
/* Writes text; on a terminal without the control characters that could command it. */
void put_text(FILE *f, const char *text, size_t n);
void warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int report(const carat_error *err); /* prints the error; returns the exit code for it */
int usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int flush_stdout(int code); /* code, or EXIT_ERROR when the output could not be written */

double now_s(void); /* seconds of a monotonic clock */
uint64_t host_peak_bytes(void);
/* "7.2 GB", "12.3 K"; text [24] holds the result. */
const char *human_bytes(uint64_t n, char text[24]);
const char *human_count(uint64_t n, char text[24]);

/* Rewrites one line of stderr; silent when that is no terminal. */
#define PROGRESS_S 0.1 /* seconds between two updates that a command should leave */
void progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void progress_end(void); /* removes the line */

bool read_all(const char *path, buf *out, carat_error *err); /* "-": stdin */
bool write_beside(const char *path, const void *data, size_t n, carat_error *err);
/* Invalid UTF-8 in text [n]: how many bytes of it are not part of a character. */
size_t utf8_invalid(const char *text, size_t n);
/* Bytes so that one sees them: in quotes, control bytes and broken UTF-8 as \xNN. */
void put_visible(buf *b, const char *s, size_t n);
bool print_buf(buf *b, carat_error *err); /* a line on stdout; frees b */

/* A table: cells are added row by row, then printed with columns aligned. */
typedef struct table {
    const char *columns; /* one letter a column: l or r, for left and right */
    buf cells;           /* each ended by a zero */
    size_t n;
} table;
void table_cell(table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_print(table *t, FILE *f, bool header); /* and frees it; the first row is dimmed */

/* Ctrl-C. While a job is watched it is cancelled; otherwise the program ends, unless `keep` is on
 * (chat). A second Ctrl-C during the same job ends the program. */
void interrupt_install(bool keep);
/* SIGTERM and SIGHUP do what Ctrl-C does, for commands that would leave a file half written; again
 * and again they do no more than once. */
void interrupt_install_term(void);
void interrupt_watch(carat_job *job); /* NULL: none */
bool interrupted(void);               /* since interrupt_clear() */
void interrupt_clear(void);

/* ---- line.c: lines from the user, with editing and history on a terminal ---- */

typedef struct line_reader line_reader;
typedef enum line_result { LINE_OK, LINE_END, LINE_INTERRUPTED } line_result;

line_reader *line_open(arena *a, carat_error *err);
void line_close(line_reader *l); /* saves the history */
/* One entry: a line, lines joined by a trailing backslash, or a block between lines of three
 * quotation marks. */
line_result line_read(line_reader *l, const char *prompt, buf *out);

#endif
