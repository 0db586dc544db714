/* line: what the user types. On a terminal with editing and a history that outlives the program
 * (libedit); otherwise plain lines from stdin. Owns the history file.
 *
 * Flow: the keyboard before, chat.c after. */
#include "cli.h"

#include <errno.h>
#include <histedit.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

enum { HISTORY_LINES = 1000 };

struct line_reader {
    EditLine *edit; /* NULL: stdin is no terminal */
    History *history;
    const char *prompt;
    buf path; /* of the history file; empty: there is no place for one */
};

/* ---- history ---- */

/* $XDG_STATE_HOME/carat/history or ~/.local/state/carat/history. */
static void history_path(buf *out) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (state && *state == '/')
        buf_printf(out, "%s/carat/history", state);
    else if (home && *home)
        buf_printf(out, "%s/.local/state/carat/history", home);
}

/* Creates the folders that path goes through. */
static void make_folders(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
}

static void save_history(line_reader *l) {
    if (!l->path.len || l->path.failed) return;
    HistEvent event;
    buf beside = {0};
    make_folders(l->path.data);
    buf_printf(&beside, "%s.%ld", l->path.data, (long)getpid());
    mode_t mask = umask(0077);
    bool ok = !beside.failed && history(l->history, &event, H_SAVE, beside.data) >= 0;
    umask(mask);
    if (!ok || rename(beside.data, l->path.data) != 0)
        warn("%s: the history was not saved: %s", l->path.data, strerror(errno));
    buf_free(&beside);
}

/* ---- editing ---- */

static char *show_prompt(EditLine *edit) {
    line_reader *l = NULL;
    el_get(edit, EL_CLIENTDATA, &l);
    return (char *)(uintptr_t)l->prompt;
}

/* One character; a read that Ctrl-C broke off ends the line. */
static int read_character(EditLine *edit, wchar_t *out) {
    (void)edit;
    mbstate_t state = {0};
    for (;;) {
        char byte;
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n < 0 && errno == EINTR && !interrupted()) continue;
        if (n <= 0) return (int)n;
        size_t len = mbrtowc(out, &byte, 1, &state);
        if (len == (size_t)-2) continue;
        if (len == (size_t)-1) *out = 0xfffd;
        return 1;
    }
}

line_reader *line_open(arena *a, carat_error *err) {
    line_reader *l = arena_alloc(a, 1, sizeof *l);
    if (!l) {
        fail_memory(err, sizeof *l, "the line editor");
        return NULL;
    }
    l->prompt = "";
    if (!stdin_is_terminal() || !stdout_is_terminal()) return l;
    HistEvent event;
    l->history = history_init();
    l->edit = el_init("carat", stdin, stdout, stderr);
    if (!l->history || !l->edit) {
        fail(err, CARAT_E_MEMORY, "the line editor cannot start on this terminal");
        line_close(l);
        return NULL;
    }
    history(l->history, &event, H_SETSIZE, HISTORY_LINES);
    history(l->history, &event, H_SETUNIQUE, 1);
    history_path(&l->path);
    if (l->path.len) history(l->history, &event, H_LOAD, l->path.data);
    el_set(l->edit, EL_CLIENTDATA, l);
    el_set(l->edit, EL_PROMPT, show_prompt);
    el_set(l->edit, EL_EDITOR, "emacs");
    el_set(l->edit, EL_HIST, history, l->history);
    el_set(l->edit, EL_GETCFN, read_character);
    el_set(l->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    return l;
}

void line_close(line_reader *l) {
    if (!l) return;
    if (l->edit && l->history) save_history(l);
    if (l->edit) el_end(l->edit);
    if (l->history) history_end(l->history);
    buf_free(&l->path);
    *l = (line_reader){0};
}

static line_result read_plain(buf *out) {
    int c;
    bool any = false;
    while ((c = getchar()) != EOF && c != '\n') {
        char byte = (char)c;
        buf_put(out, &byte, 1);
        any = true;
    }
    return c == EOF && !any ? LINE_END : LINE_OK;
}

/* Appends one line without its end. */
static line_result read_line(line_reader *l, const char *prompt, buf *out) {
    if (!l->edit) return read_plain(out);
    int n = 0;
    l->prompt = prompt;
    interrupt_clear();
    el_resize(l->edit);
    const char *line = el_gets(l->edit, &n);
    if (interrupted()) {
        putchar('\n');
        interrupt_clear();
        return LINE_INTERRUPTED;
    }
    if (!line || n <= 0) return LINE_END;
    HistEvent event;
    if (line[strspn(line, " \t\r\n")]) history(l->history, &event, H_ENTER, line);
    size_t len = strcspn(line, "\r\n");
    buf_put(out, line, len);
    return LINE_OK;
}

/* The lines up to one that is only three quotation marks or ends in them. */
static line_result read_block(line_reader *l, buf *out) {
    for (;;) {
        size_t start = out->len;
        line_result r = read_line(l, "... ", out);
        if (r != LINE_OK) return r;
        size_t len = out->len - start;
        if (len >= 3 && memcmp(out->data + out->len - 3, "\"\"\"", 3) == 0) {
            out->len -= 3;
            out->data[out->len] = 0;
            return LINE_OK;
        }
        buf_puts(out, "\n");
    }
}

line_result line_read(line_reader *l, const char *prompt, buf *out) {
    buf_reset(out);
    line_result r = read_line(l, prompt, out);
    if (r != LINE_OK) return r;
    if (out->len >= 3 && memcmp(out->data, "\"\"\"", 3) == 0) {
        memmove(out->data, out->data + 3, out->len - 3);
        out->len -= 3;
        if (out->len >= 3 && memcmp(out->data + out->len - 3, "\"\"\"", 3) == 0) {
            out->len -= 3;
            out->data[out->len] = 0;
            return LINE_OK;
        }
        if (out->len) buf_puts(out, "\n");
        return read_block(l, out);
    }
    while (r == LINE_OK && out->len && out->data[out->len - 1] == '\\') {
        out->data[out->len - 1] = '\n';
        r = read_line(l, "... ", out);
    }
    return r;
}
