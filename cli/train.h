/* train: what the parts of `carat train` share. train.c lets a model learn and keeps what it has
 * learned, train_show.c tells of it, train_curve.c writes the curve of its loss.
 *
 * Flow: runtime.c before. */
#ifndef CARAT_CLI_TRAIN_H
#define CARAT_CLI_TRAIN_H

#include "carat_train.h"
#include "cli.h"

/* ---- train_curve.c ---- */

typedef struct curve_point { /* a step */
    uint32_t step, epoch;
    double loss, eval; /* eval NAN: not measured after it */
    double rate, grad_norm;
    uint64_t tokens; /* and seconds: since the run was begun or gone on with */
    double seconds;
} curve_point;

typedef struct curve {
    buf points; /* of curve_point */
} curve;

void curve_step(curve *c, const carat_train_state *s);
void curve_eval(curve *c, const carat_train_state *s);
/* Takes the steps up to this one from a loss.csv; one that cannot be read is left out. */
void curve_read(curve *c, const char *path, uint32_t step);
/* dir/loss.csv and dir/loss.svg */
bool curve_write(const curve *c, const char *dir, carat_error *err);

/* ---- train_show.c ---- */

typedef struct train_view {
    bool json;
    const runtime *runtime;
    uint32_t first_step; /* what is measured begins there */
    double due;          /* when to show again */
    bool told_time;
    /* At the end of the first step, before which shaders are compiled: */
    uint64_t tokens;
    double seconds;
} train_view;

bool show_report(train_view *v, const carat_trainer *tr, carat_error *err);
/* Within a step; done of total tokens. */
void show_progress(train_view *v, const carat_train_state *s, const carat_event *ev);
void show_step(train_view *v, const carat_train_state *s);
void show_eval(train_view *v, const carat_train_state *s);
void show_notice(train_view *v, const char *text, size_t n);
/* Something was done: `what` for programs, the sentence for people. */
void show_done(train_view *v, const char *what, uint32_t step, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
