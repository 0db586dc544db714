/* answer: follows a job that generates, shows its text as it comes and collects everything. Text
 * goes to stdout; thinking is dimmed on a terminal, else hidden or on stderr.
 *
 * Flow: runtime.c before; run.c and chat.c after. */
#include "cli.h"

#include <math.h>
#include <string.h>

/* What stands on the terminal now. */
typedef struct printer {
    const answer_view *view;
    bool thinking; /* a dimmed passage is open */
    bool mid_line; /* the answer so far does not end a line */
    bool progress; /* a progress line is shown */
    double due;    /* when it may be shown again */
} printer;

static void clear_progress(printer *p) {
    if (p->progress) progress_end();
    p->progress = false;
}

static void print_thinking(printer *p, const char *text, size_t n) {
    if (p->view->quiet) return;
    FILE *f = stdout_is_terminal() ? stdout : stderr;
    if (f == stderr && !p->view->show_thinking) return;
    clear_progress(p);
    if (!p->thinking) fputs(dim(f), f);
    p->thinking = true;
    put_text(f, text, n);
    fflush(f);
}

static void end_thinking(printer *p) {
    if (!p->thinking) return;
    FILE *f = stdout_is_terminal() ? stdout : stderr;
    fprintf(f, "%s\n", plain(f));
    p->thinking = false;
}

static void print_text(printer *p, const char *text, size_t n) {
    if (p->view->quiet || n == 0) return;
    clear_progress(p);
    end_thinking(p);
    put_text(stdout, text, n);
    p->mid_line = text[n - 1] != '\n';
    fflush(stdout);
}

static void print_call(printer *p, const char *text, size_t n) {
    if (p->view->quiet) return;
    clear_progress(p);
    end_thinking(p);
    if (p->mid_line) putchar('\n');
    p->mid_line = false;
    fputs(dim(stdout), stdout);
    put_text(stdout, text, n);
    printf("%s\n", plain(stdout));
    fflush(stdout);
}

static void print_notice(printer *p, const char *text, size_t n) {
    clear_progress(p);
    end_thinking(p);
    fflush(stdout);
    fprintf(stderr, "%scarat: %.*s%s\n", dim(stderr), (int)n, text, plain(stderr));
}

/* Text says what is not the reading of a prompt: the work on pictures and sounds. */
static void print_progress(printer *p, const carat_event *ev) {
    const bool media = ev->text != NULL;
    if (p->view->quiet || (ev->total < 64 && !media) || now_s() < p->due) return;
    p->due = now_s() + PROGRESS_S;
    progress("%s  %llu of %llu tokens",
             media ? "encoding pictures and sounds" : "reading the prompt",
             (unsigned long long)ev->done, (unsigned long long)ev->total);
    p->progress = true;
}

static void put_item(buf *list) {
    if (list->len) buf_puts(list, ",");
}

static void put_token(buf *b, const runtime *r, int32_t id, float logprob) {
    buf piece = {0};
    runtime_piece(r, id, true, &piece, NULL);
    buf_printf(b, "{\"id\":%d,\"text\":", id);
    json_write_string(b, piece.data ? piece.data : "", piece.len);
    if (isfinite(logprob))
        buf_printf(b, ",\"logprob\":%.6g", (double)logprob);
    else
        buf_puts(b, ",\"logprob\":null");
    buf_free(&piece);
}

static void put_score(buf *b, const runtime *r, const carat_event *ev) {
    put_item(b);
    put_token(b, r, ev->token, ev->logprob);
    buf_puts(b, ",\"top\":[");
    for (size_t i = 0; i < ev->n_top; i++) {
        if (i) buf_puts(b, ",");
        put_token(b, r, ev->top[i].token, ev->top[i].logprob);
        buf_puts(b, "}");
    }
    buf_puts(b, "]}");
}

static void show_event(printer *p, const carat_event *ev, answer *out) {
    if (p->view->logprobs && ev->token >= 0) put_score(&out->logprobs, p->view->runtime, ev);
    switch (ev->kind) {
    case CARAT_EVENT_PROGRESS:
        print_progress(p, ev);
        break;
    case CARAT_EVENT_TEXT:
        buf_put(&out->text, ev->text, ev->length);
        print_text(p, ev->text, ev->length);
        break;
    case CARAT_EVENT_THINKING:
        buf_put(&out->thinking, ev->text, ev->length);
        print_thinking(p, ev->text, ev->length);
        break;
    case CARAT_EVENT_TOOL_CALL:
        put_item(&out->calls);
        buf_put(&out->calls, ev->text, ev->length);
        out->n_calls++;
        print_call(p, ev->text, ev->length);
        break;
    case CARAT_EVENT_SCORE:
        put_score(&out->logprobs, p->view->runtime, ev);
        break;
    case CARAT_EVENT_NOTICE:
        put_item(&out->notices);
        json_write_string(&out->notices, ev->text, ev->length);
        print_notice(p, ev->text, ev->length);
        break;
    case CARAT_EVENT_DONE:
        out->finish = ev->finish;
        break;
    case CARAT_EVENT_PENDING:
    case CARAT_EVENT_STEP: /* of training */
    case CARAT_EVENT_EVAL:
        break;
    }
}

bool answer_run(carat_job *job, const answer_view *view, answer *out, carat_error *err) {
    if (!job) return false;
    printer p = {.view = view};
    interrupt_watch(job);
    carat_event ev = {0};
    bool ok = true;
    do {
        ok = carat_wait(job, &ev, err);
        if (ok) show_event(&p, &ev, out);
    } while (ok && ev.kind != CARAT_EVENT_DONE);
    out->interrupted = interrupted();
    interrupt_watch(NULL);
    clear_progress(&p);
    end_thinking(&p);
    carat_job_stats(job, &out->stats);
    carat_job_free(job);
    bool failed = out->text.failed || out->thinking.failed || out->calls.failed ||
                  out->logprobs.failed || out->notices.failed;
    return ok && failed ? fail_memory(err, out->text.len, "the answer") : ok;
}

void answer_free(answer *a) {
    buf_free(&a->text);
    buf_free(&a->thinking);
    buf_free(&a->calls);
    buf_free(&a->logprobs);
    buf_free(&a->notices);
    *a = (answer){0};
}

const char *finish_name(carat_finish_reason reason) {
    switch (reason) {
    case CARAT_FINISH_STOP:
        return "stop";
    case CARAT_FINISH_LENGTH:
        return "length";
    case CARAT_FINISH_TOOL_CALLS:
        return "tool_calls";
    case CARAT_FINISH_NONE:
        break;
    }
    return "none";
}
