/* adamw: the optimiser, in f32 with constants in f64, as PyTorch computes it: clipping by the
 * global norm, then weight decay, moments and the step. Also how the rate changes.
 *
 * Flow: back_cpu.c before. */
#include "train/train.h"

#include <math.h>

bool adamw_open(arena *a, uint64_t n, double weight_decay, adamw *out, carat_error *err) {
    *out = (adamw){.beta1 = 0.9,
                   .beta2 = 0.999,
                   .eps = 1e-8,
                   .weight_decay = weight_decay,
                   .n = n,
                   .m = arena_alloc(a, n, sizeof(float)),
                   .v = arena_alloc(a, n, sizeof(float))};
    return (out->m && out->v) || fail_memory(err, 2 * n * sizeof(float), "the moments");
}

void adamw_step(adamw *o, float *values, const float *grad, double lr) {
    o->step++;
    const double bias1 = 1 - pow(o->beta1, o->step), bias2 = 1 - pow(o->beta2, o->step);
    const float keep = (float)(1 - lr * o->weight_decay), rate = (float)(lr / bias1);
    const float b1 = (float)(1 - o->beta1), b2 = (float)o->beta2, c2 = (float)(1 - o->beta2);
    const float root = (float)sqrt(bias2), eps = (float)o->eps;
    for (uint64_t i = 0; i < o->n; i++) {
        const float g = grad[i];
        o->m[i] += (g - o->m[i]) * b1;
        o->v[i] = o->v[i] * b2 + g * g * c2;
        values[i] = values[i] * keep - rate * (o->m[i] / (sqrtf(o->v[i]) / root + eps));
    }
}

double clip_norm(float *grad, uint64_t n, double max) {
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) sum += (double)grad[i] * (double)grad[i];
    const double norm = sqrt(sum), scale = max / (norm + 1e-6);
    if (max > 0 && scale < 1)
        for (uint64_t i = 0; i < n; i++) grad[i] *= (float)scale;
    return norm;
}

double schedule_lr(schedule s, double lr, uint32_t step, uint32_t n_warmup, uint32_t n_step) {
    if (step < n_warmup) return lr * (step + 1) / (n_warmup + 1.0);
    if (s == SCHEDULE_CONSTANT || n_step <= n_warmup) return lr;
    const double done = fmin(1, (double)(step - n_warmup) / (n_step - n_warmup));
    return s == SCHEDULE_LINEAR ? lr * (1 - done) : lr * 0.5 * (1 + cos(3.14159265358979 * done));
}
