/* train_curve: the loss of every step as a table, loss.csv, and as a picture, loss.svg, which takes
 * its colours from the viewer's light or dark background.
 *
 * Flow: train.c before. */
#include "train.h"

#include "file/file.h"

#include <math.h>
#include <string.h>

/* ---- points ---- */

static size_t count(const curve *c) {
    return c->points.failed ? 0 : c->points.len / sizeof(curve_point);
}
static curve_point *points(const curve *c) { return (curve_point *)(void *)c->points.data; }

void curve_step(curve *c, const carat_train_state *s) {
    const curve_point p = {.step = s->step,
                           .epoch = s->epoch,
                           .loss = s->loss,
                           .eval = NAN,
                           .rate = s->rate,
                           .grad_norm = s->grad_norm,
                           .tokens = s->n_token,
                           .seconds = s->seconds};
    buf_put(&c->points, &p, sizeof p);
}

void curve_eval(curve *c, const carat_train_state *s) {
    const size_t n = count(c);
    if (n && points(c)[n - 1].step == s->step) points(c)[n - 1].eval = s->eval_loss;
}

/* ---- the table ---- */

static const char head[] = "step,epoch,loss,eval_loss,learning_rate,grad_norm,tokens,seconds\n";

static void put_row(buf *b, const curve_point *p) {
    buf_printf(b, "%u,%u,%.6g,", p->step, p->epoch, p->loss);
    if (isfinite(p->eval)) buf_printf(b, "%.6g", p->eval);
    buf_printf(b, ",%.6g,%.6g,%llu,%.3f\n", p->rate, p->grad_norm, (unsigned long long)p->tokens,
               p->seconds);
}

/* A row of eight numbers, of which the fourth may be missing. */
static bool read_row(const char *line, curve_point *out) {
    unsigned long long tokens;
    int at = 0;
    *out = (curve_point){.eval = NAN};
    if (sscanf(line, "%u,%u,%lf,%n", &out->step, &out->epoch, &out->loss, &at) < 3 || !at)
        return false;
    line += at;
    if (*line != ',' && sscanf(line, "%lf", &out->eval) != 1) return false;
    line += strcspn(line, ",\n");
    return sscanf(line, ",%lf,%lf,%llu,%lf", &out->rate, &out->grad_norm, &tokens, &out->seconds) ==
               4 &&
           (out->tokens = tokens, true);
}

void curve_read(curve *c, const char *path, uint32_t step) {
    buf text = {0};
    carat_error err = {0};
    if (read_all(path, &text, &err) && text.data && !strncmp(text.data, head, sizeof head - 1))
        for (const char *line = text.data; line; line = strchr(line, '\n')) {
            curve_point p;
            line += *line == '\n';
            if (read_row(line, &p) && p.step <= step) buf_put(&c->points, &p, sizeof p);
        }
    buf_free(&text);
}

/* ---- the picture ---- */

enum { WIDTH = 720, HEIGHT = 400, LEFT = 64, RIGHT = 16, TOP = 40, BOTTOM = 48, MOST = 1200 };

typedef struct picture {
    buf *out;
    const curve_point *points; /* [n] */
    size_t n;
    uint32_t first, last; /* steps */
    double top;           /* loss; the bottom is 0 */
} picture;

static double x_of(const picture *p, double step) {
    const double span = p->last > p->first ? p->last - p->first : 1;
    return LEFT + (step - p->first) / span * (WIDTH - LEFT - RIGHT);
}

static double y_of(const picture *p, double loss) {
    return TOP + (1 - loss / p->top) * (HEIGHT - TOP - BOTTOM);
}

/* The smallest of 1, 2, 5, 10, 20 .. that cuts `most` into five parts or fewer. */
static double tick_of(double most) {
    double tick = pow(10, floor(log10(most)) - 1);
    for (int i = 0; most / tick > 5; i++) tick *= i % 3 == 1 ? 2.5 : 2;
    return tick;
}

static void put_label(const picture *p, double x, double y, const char *anchor, const char *text) {
    buf_printf(p->out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor,
               text);
}

static void put_axes(const picture *p) {
    char text[32];
    const double rise = tick_of(p->top), step = fmax(1, tick_of(p->last - p->first + 1));
    for (double v = 0; v <= p->top * 1.0001; v += rise) {
        const double y = y_of(p, v);
        buf_printf(p->out, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>\n", LEFT, y, WIDTH - RIGHT);
        snprintf(text, sizeof text, "%g", v);
        put_label(p, LEFT - 8, y + 4, "end", text);
    }
    for (double v = ceil(p->first / step) * step; v <= p->last; v += step) {
        snprintf(text, sizeof text, "%.0f", v);
        put_label(p, x_of(p, v), HEIGHT - BOTTOM + 18, "middle", text);
    }
    put_label(p, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8, "middle", "step");
}

/* Means of as many steps as make at most MOST points. */
static void put_loss(const picture *p) {
    const size_t each = (p->n + MOST - 1) / MOST;
    const char *pen = "M";
    buf_puts(p->out, "<path class=\"loss\" d=\"");
    for (size_t i = 0; i < p->n; i += each) {
        double sum = 0;
        size_t n = 0;
        for (; n < each && i + n < p->n; n++) sum += p->points[i + n].loss;
        buf_printf(p->out, "%s%.1f %.1f", pen, x_of(p, p->points[i + n - 1].step),
                   y_of(p, sum / (double)n));
        pen = "L";
    }
    buf_puts(p->out, "\"/>\n");
}

static bool put_eval(const picture *p) {
    const char *pen = "M";
    bool any = false;
    for (size_t i = 0; i < p->n; i++) any |= isfinite(p->points[i].eval);
    if (!any) return false;
    buf_puts(p->out, "<path class=\"eval\" d=\"");
    for (size_t i = 0; i < p->n; i++) {
        if (!isfinite(p->points[i].eval)) continue;
        buf_printf(p->out, "%s%.1f %.1f", pen, x_of(p, p->points[i].step),
                   y_of(p, p->points[i].eval));
        pen = "L";
    }
    buf_puts(p->out, "\"/>\n");
    for (size_t i = 0; i < p->n; i++)
        if (isfinite(p->points[i].eval))
            buf_printf(p->out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n",
                       x_of(p, p->points[i].step), y_of(p, p->points[i].eval));
    return true;
}

static const char style[] =
    "<style>\n"
    ":root{--paper:#fff;--ink:#333;--grid:#ddd;--loss:#1b6fc2;--eval:#c2571b}\n"
    "@media(prefers-color-scheme:dark){:root{--paper:#1b1d21;--ink:#ccc;--grid:#3a3d44;"
    "--loss:#6cb2ff;--eval:#ffa366}}\n"
    "rect{fill:var(--paper)}\n"
    "text{font:12px system-ui,sans-serif;fill:var(--ink)}\n"
    "path{fill:none;stroke-width:1.5;stroke-linejoin:round}\n"
    ".grid{stroke:var(--grid);stroke-width:1}\n"
    ".loss{stroke:var(--loss)}.eval{stroke:var(--eval)}\n"
    "circle{fill:var(--eval)}\n"
    "</style>\n";

static void put_picture(const curve *c, buf *out) {
    picture p = {.out = out, .points = points(c), .n = count(c), .top = 1e-3};
    p.first = p.points[0].step;
    p.last = p.points[p.n - 1].step;
    for (size_t i = 0; i < p.n; i++) {
        p.top = fmax(p.top, p.points[i].loss);
        if (isfinite(p.points[i].eval)) p.top = fmax(p.top, p.points[i].eval);
    }
    buf_printf(out,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
               "height=\"%d\" role=\"img\" aria-label=\"Loss by step\">\n%s"
               "<rect width=\"100%%\" height=\"100%%\"/>\n",
               WIDTH, HEIGHT, WIDTH, HEIGHT, style);
    put_axes(&p);
    put_loss(&p);
    buf_printf(out, "<path class=\"loss\" d=\"M%d 20h24\"/>\n", LEFT);
    put_label(&p, LEFT + 30, 24, "start", "loss");
    if (put_eval(&p)) {
        buf_printf(out, "<path class=\"eval\" d=\"M%d 20h24\"/>\n", LEFT + 90);
        put_label(&p, LEFT + 120, 24, "start", "of the samples held out");
    }
    buf_puts(out, "</svg>\n");
}

/* ---- writing ---- */

static bool write_in(const char *dir, const char *name, const buf *b, carat_error *err) {
    buf path = {0};
    buf_printf(&path, "%s/%s", dir, name);
    const bool ok = path.failed || b->failed ? fail_memory(err, b->len, name)
                                             : file_write(path.data, b->data, b->len, err);
    buf_free(&path);
    return ok;
}

bool curve_write(const curve *c, const char *dir, carat_error *err) {
    buf csv = {0}, svg = {0};
    if (c->points.failed) return fail_memory(err, c->points.len, "the curve");
    if (!count(c)) return true;
    buf_puts(&csv, head);
    for (size_t i = 0; i < count(c); i++) put_row(&csv, &points(c)[i]);
    put_picture(c, &svg);
    const bool ok = write_in(dir, "loss.csv", &csv, err) && write_in(dir, "loss.svg", &svg, err);
    buf_free(&csv);
    buf_free(&svg);
    return ok;
}
