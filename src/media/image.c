/* image: from pixels to patches. The size that fits a budget, the resize that the model was
 * trained with, and the cut into squares.
 *
 * The resize follows Pillow's for 8 bits: horizontally first, then vertically, weights in fixed
 * point, each pass rounded to whole levels.
 *
 * Flow: a decoder before; model/vision_cpu.c after. */
#include "media/media.h"

#include <math.h>
#include <string.h>

#define CHANNELS  3u
#define BITS      22 /* of a weight after the point */
#define SUPPORT   2.0
#define SHARPNESS (-0.5) /* the bicubic kernel's parameter */

/* ---- size ---- */

bool image_fit(uint32_t width, uint32_t height, uint32_t cell, uint32_t budget, uint32_t *to_width,
               uint32_t *to_height, carat_error *err) {
    if (!width || !height || width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE)
        return fail(err, CARAT_E_ARGUMENT, "image: a picture of %ux%u pixels; 1 to %u a side",
                    width, height, IMAGE_MAX_SIDE);
    if (!budget || budget > IMAGE_MAX_BUDGET)
        return fail(err, CARAT_E_ARGUMENT, "image: %u soft tokens for a picture; 1 to %u", budget,
                    IMAGE_MAX_BUDGET);
    assert(cell > 0);
    const double pixels = (double)budget * cell * cell;
    const double scale = sqrt(pixels / ((double)width * height));
    uint64_t w = (uint64_t)(scale * width / cell) * cell;
    uint64_t h = (uint64_t)(scale * height / cell) * cell;
    const uint64_t longest = (uint64_t)budget * cell;
    /* A picture that would be thinner than a cell is as thick as one, and as long as it may be. */
    if (!w && !h) {
        w = h = cell;
    } else if (!h) {
        h = cell;
        w = (uint64_t)(width / height) * cell;
        if (w > longest) w = longest;
    } else if (!w) {
        w = cell;
        h = (uint64_t)(height / width) * cell;
        if (h > longest) h = longest;
    }
    *to_width = (uint32_t)w;
    *to_height = (uint32_t)h;
    return true;
}

/* ---- resize ---- */

/* For each place of a line of n_out: which of the n_in before it is made of. */
typedef struct taps {
    uint32_t n_max;  /* most for one place */
    uint32_t *first; /* [n_out] */
    uint32_t *n;     /* [n_out] */
    int32_t *weight; /* [n_out, n_max], BITS after the point */
} taps;

static double cubic(double t) {
    const double a = SHARPNESS;
    t = fabs(t);
    if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
    if (t < 2) return (((t - 5) * t + 8) * t - 4) * a;
    return 0;
}

static bool make_taps(arena *m, uint32_t n_in, uint32_t n_out, taps *out, carat_error *err) {
    const double step = (double)n_in / n_out, stretch = step > 1 ? step : 1;
    const double support = SUPPORT * stretch;
    out->n_max = (uint32_t)ceil(support) * 2 + 1;
    out->first = arena_alloc(m, n_out, sizeof *out->first);
    out->n = arena_alloc(m, n_out, sizeof *out->n);
    out->weight = arena_alloc(m, (size_t)n_out * out->n_max, sizeof *out->weight);
    double *w = arena_alloc(m, out->n_max, sizeof *w);
    if (!out->first || !out->n || !out->weight || !w)
        return fail_memory(err, (uint64_t)n_out * out->n_max * sizeof *out->weight, "resizing");
    for (uint32_t x = 0; x < n_out; x++) {
        const double center = (x + 0.5) * step;
        const double low = center - support + 0.5, high = center + support + 0.5;
        const uint32_t lo = low > 0 ? (uint32_t)low : 0;
        const uint32_t hi = high < n_in ? (uint32_t)high : n_in;
        double sum = 0;
        for (uint32_t i = lo; i < hi; i++) sum += w[i - lo] = cubic((i + 0.5 - center) / stretch);
        out->first[x] = lo;
        out->n[x] = hi - lo;
        for (uint32_t i = 0; i < hi - lo; i++)
            out->weight[(size_t)x * out->n_max + i] = (int32_t)lround(w[i] / sum * (1 << BITS));
    }
    return true;
}

static uint8_t to_level(int64_t sum) {
    const int64_t level = sum >> BITS;
    return (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
}

/* Places x of a line, whose neighbours are `stride` bytes apart. */
static void resize_line(const taps *t, const uint8_t *in, size_t stride, uint8_t *out,
                        uint32_t n_out) {
    for (uint32_t x = 0; x < n_out; x++) {
        const int32_t *w = t->weight + (size_t)x * t->n_max;
        int64_t sum[CHANNELS];
        for (uint32_t c = 0; c < CHANNELS; c++) sum[c] = 1 << (BITS - 1);
        for (uint32_t i = 0; i < t->n[x]; i++) {
            const uint8_t *p = in + (t->first[x] + i) * stride;
            for (uint32_t c = 0; c < CHANNELS; c++) sum[c] += (int64_t)w[i] * p[c];
        }
        for (uint32_t c = 0; c < CHANNELS; c++) out[x * stride + c] = to_level(sum[c]);
    }
}

bool image_resize(const uint8_t *rgb, uint32_t width, uint32_t height, uint8_t *out,
                  uint32_t to_width, uint32_t to_height, carat_error *err) {
    arena *m = arena_create(err);
    taps across, down;
    if (!m) return false;
    const size_t row = (size_t)to_width * CHANNELS;
    uint8_t *mid = arena_alloc(m, height, row); /* [height, to_width, 3] */
    bool ok = mid || fail_memory(err, height * (uint64_t)row, "resizing");
    ok = ok && make_taps(m, width, to_width, &across, err) &&
         make_taps(m, height, to_height, &down, err);
    for (uint32_t y = 0; y < height && ok; y++)
        resize_line(&across, rgb + (size_t)y * width * CHANNELS, CHANNELS, mid + y * row, to_width);
    for (uint32_t x = 0; x < to_width && ok; x++)
        resize_line(&down, mid + x * CHANNELS, row, out + x * CHANNELS, to_height);
    arena_free(m);
    return ok;
}

/* ---- patches ---- */

void image_cut(const uint8_t *rgb, uint32_t width, uint32_t height, uint32_t side, uint8_t *out) {
    assert(width % side == 0 && height % side == 0);
    const size_t line = (size_t)side * CHANNELS;
    for (uint32_t y = 0; y < height; y += side)
        for (uint32_t x = 0; x < width; x += side)
            for (uint32_t i = 0; i < side; i++, out += line)
                memcpy(out, rgb + ((size_t)(y + i) * width + x) * CHANNELS, line);
}

bool image_prepare(arena *a, const uint8_t *rgb, uint32_t width, uint32_t height, uint32_t side,
                   uint32_t pool, uint32_t budget, image_patches *out, carat_error *err) {
    uint32_t w, h;
    if (!image_fit(width, height, side * pool, budget, &w, &h, err)) return false;
    arena *m = arena_create(err);
    if (!m) return false;
    const size_t bytes = (size_t)w * h * CHANNELS;
    uint8_t *scaled = arena_alloc(m, bytes, 1), *patches = arena_alloc(a, bytes, 1);
    bool ok = (scaled && patches) || fail_memory(err, 2 * (uint64_t)bytes, "a picture");
    ok = ok && image_resize(rgb, width, height, scaled, w, h, err);
    if (ok) image_cut(scaled, w, h, side, patches);
    arena_free(m);
    *out = (image_patches){patches, w / side, h / side};
    return ok;
}
