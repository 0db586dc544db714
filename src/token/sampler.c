/* token/sampler.c: logits -> the next token. The stages run in llama.cpp's order: penalties, top_k,
 * top_p, min_p, temperature, draw. The same seed and logits give the same tokens; where logits tie,
 * the lower id is the better one.
 *
 * Flow: the model's logits, or its best ones from the device, come in; the id goes to reply.c and
 * back into the model. */
#include "token/token.h"

#include <math.h>
#include <time.h>

/* ---- options ------------------------------------------------------------------------------ */

/* An option as it is looked up: the user's value, else the params layer's, else the default. */
typedef struct lookup {
    const json *params;
    carat_error *err;
    bool ok;
} lookup;

static double resolve(lookup *l, const char *key, bool given, double user, double otherwise,
                      double low, double high) {
    const json *v = given ? NULL : json_get(l->params, key);
    if (v && v->kind == JSON_NULL) v = NULL;
    double value = given ? user : v ? json_number(v, NAN) : otherwise;
    if (!(value >= low && value <= high)) /* also for NAN */
        l->ok = fail(l->err, given ? CARAT_E_ARGUMENT : CARAT_E_FORMAT,
                     "%s: %g is not between %g and %g%s", key, value, low, high,
                     given ? "" : " (in the model's parameters)");
    return value;
}

static double resolve_whole(lookup *l, const char *key, bool given, double user, double otherwise,
                            double low, double high) {
    double value = resolve(l, key, given, user, otherwise, low, high);
    if (l->ok && value != floor(value))
        l->ok = fail(l->err, CARAT_E_FORMAT, "%s: %g is not a whole number", key, value);
    return l->ok ? value : otherwise;
}

/* The params layer writes what carat_sampling writes otherwise: -1 for the whole context, any
 * negative seed for a random one, a negative top_k for none. */
bool sampling_resolve(const carat_sampling *user, const json *params, carat_sampling *out,
                      carat_error *err) {
    const carat_sampling *u = user;
    lookup l = {params, err, true};
    const double big = 1e6, most = INT32_MAX;
    bool own_k = u->top_k >= 0, own_n = u->repeat_last_n != -1;
    out->temperature =
        (float)resolve(&l, "temperature", !(u->temperature < 0), (double)u->temperature, 1, 0, big);
    out->top_p = (float)resolve(&l, "top_p", !(u->top_p < 0), (double)u->top_p, 0.95, 0, 1);
    out->min_p = (float)resolve(&l, "min_p", !(u->min_p < 0), (double)u->min_p, 0, 0, 1);
    out->repeat_penalty = (float)resolve(&l, "repeat_penalty", !(u->repeat_penalty < 0),
                                         (double)u->repeat_penalty, 1, 1e-3, big);
    out->frequency_penalty = (float)resolve(&l, "frequency_penalty", !isnan(u->frequency_penalty),
                                            (double)u->frequency_penalty, 0, -big, big);
    out->presence_penalty = (float)resolve(&l, "presence_penalty", !isnan(u->presence_penalty),
                                           (double)u->presence_penalty, 0, -big, big);
    double k = resolve_whole(&l, "top_k", own_k, u->top_k, 64, own_k ? 0 : -most, most);
    double n =
        resolve_whole(&l, "repeat_last_n", own_n, u->repeat_last_n, 64, own_n ? -2 : -1, most);
    out->top_k = (int32_t)(k > 0 ? k : 0);
    out->repeat_last_n = (int32_t)(n < 0 ? -2 : n);
    out->seed = u->seed;
    if (!u->seed) { /* 2^53: a number in JSON holds no more */
        double seed = resolve_whole(&l, "seed", false, 0, 0, -0x1p53, 0x1p53);
        out->seed = seed > 0 ? (uint64_t)seed : 0;
    }
    return l.ok;
}

/* ---- random numbers ----------------------------------------------------------------------- */

static uint64_t splitmix64(uint64_t *x) {
    uint64_t z = *x += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static uint64_t rotate(uint64_t x, int k) { return x << k | x >> (64 - k); }

/* xoshiro256** by Blackman and Vigna. */
static uint64_t next_random(uint64_t s[4]) {
    uint64_t result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

/* In [0, 1). */
static double uniform(uint64_t s[4]) { return (double)(next_random(s) >> 11) * 0x1p-53; }

bool sampler_create(sampler *s, const carat_sampling *resolved, carat_error *err) {
    *s = (sampler){.options = *resolved};
    uint64_t seed = resolved->seed;
    if (!seed) {
        struct timespec now;
        if (!timespec_get(&now, TIME_UTC))
            return fail(err, CARAT_E_IO, "seed: there is no clock to take one from");
        seed = (uint64_t)now.tv_sec << 30 ^ (uint64_t)now.tv_nsec ^ (uint64_t)(uintptr_t)s << 20;
    }
    for (size_t i = 0; i < COUNT(s->state); i++) s->state[i] = splitmix64(&seed);
    return true;
}

void sampler_free(sampler *s) {
    ids_free(&s->history);
    ids_free(&s->counts);
}

/* ---- penalties ---------------------------------------------------------------------------- */

static bool penalises(const carat_sampling *o) {
    return o->repeat_last_n != 0 &&
           (o->repeat_penalty != 1 || o->frequency_penalty != 0 || o->presence_penalty != 0);
}

static bool may_raise(const carat_sampling *o) {
    return o->repeat_penalty < 1 || o->frequency_penalty < 0 || o->presence_penalty < 0;
}

bool sampler_reserve(sampler *s, uint32_t n_vocab, size_t n, carat_error *err) {
    if (!penalises(&s->options)) return true;
    while (s->counts.len < n_vocab && !s->counts.failed) ids_put(&s->counts, 0);
    while (s->history.len < n && !s->history.failed) ids_put(&s->history, 0);
    s->history.len = 0;
    if (!s->counts.failed && !s->history.failed) return true;
    return fail_memory(err, (n_vocab + n) * sizeof(int32_t), "the tokens to penalise");
}

void sampler_accept(sampler *s, int32_t id) {
    if (!penalises(&s->options) || id < 0) return;
    while (s->counts.len <= (size_t)id && !s->counts.failed) ids_put(&s->counts, 0);
    if (s->counts.failed) return;
    ids_put(&s->history, id);
    if (s->history.failed) return;
    s->n_distinct += s->counts.data[id]++ == 0;

    size_t window = s->options.repeat_last_n < 0 ? SIZE_MAX : (size_t)s->options.repeat_last_n;
    if (s->history.len <= window) return;
    int32_t oldest = s->history.data[s->history.len - window - 1];
    s->n_distinct -= --s->counts.data[oldest] == 0;
    if (s->history.len < 2 * window + 1024) return;
    for (size_t i = 0; i < window; i++) /* forget what is out of sight, now and then */
        s->history.data[i] = s->history.data[s->history.len - window + i];
    s->history.len = window;
}

static void penalise(const sampler *s, candidate *c, size_t n) {
    const carat_sampling *o = &s->options;
    for (size_t i = 0; i < n; i++) {
        bool known = c[i].id >= 0 && (size_t)c[i].id < s->counts.len;
        int32_t count = known ? s->counts.data[c[i].id] : 0;
        if (!count) continue;
        float logit = c[i].logit, r = o->repeat_penalty;
        c[i].logit = logit <= 0 ? logit * r : logit / r;
        c[i].logit -= (float)count * o->frequency_penalty + o->presence_penalty;
    }
}

uint32_t sampler_needs(const sampler *s) {
    const carat_sampling *o = &s->options;
    uint32_t k = o->temperature > 0 ? (uint32_t)o->top_k : 1;
    if (!penalises(o)) return k;
    if (!k || may_raise(o)) return 0;
    return k + s->n_distinct; /* penalties can push at most that many out of the first k */
}

/* ---- choosing ----------------------------------------------------------------------------- */

static bool better(candidate a, candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static candidate best_of(const candidate *c, size_t n) {
    candidate best = c[0];
    for (size_t i = 1; i < n; i++)
        if (better(c[i], best) || isnan(best.logit)) best = c[i];
    return best;
}

/* A heap, best first, that lies backwards at the end of c [n]: node j is c[n - 1 - j]. So what is
 * popped can be put in front of it, in order. */
static void sift_down(candidate *c, size_t n, size_t n_heap, size_t node) {
    candidate moved = c[n - 1 - node];
    for (size_t child; (child = 2 * node + 1) < n_heap; node = child) {
        if (child + 1 < n_heap && better(c[n - 2 - child], c[n - 1 - child])) child++;
        if (!better(c[n - 1 - child], moved)) break;
        c[n - 1 - node] = c[n - 1 - child];
    }
    c[n - 1 - node] = moved;
}

void candidates_order(candidate *c, size_t n) {
    for (size_t node = n / 2; node-- > 0;) sift_down(c, n, n, node);
}

void candidates_next(candidate *c, size_t n, size_t i) {
    candidate best = c[n - 1];
    c[n - 1] = c[i];
    c[i] = best;
    sift_down(c, n, n - i - 1, 0);
}

/* The k best, in order, to the front. */
static size_t keep_top_k(candidate *c, size_t n, size_t k) {
    candidates_order(c, n);
    for (size_t i = 0; i < k; i++) candidates_next(c, n, i);
    return k;
}

/* The shortest row of best ones with at least the share p of the probability. */
static size_t keep_top_p(candidate *c, size_t n, double p, double max, bool sorted) {
    double all = 0, sum = 0;
    for (size_t i = 0; i < n; i++) all += exp((double)c[i].logit - max);
    if (!sorted) candidates_order(c, n);
    for (size_t i = 0; i < n; i++) {
        if (!sorted) candidates_next(c, n, i);
        sum += exp((double)c[i].logit - max);
        if (sum >= p * all) return i + 1;
    }
    return n;
}

/* Those at least p times as likely as the best. */
static size_t keep_min_p(candidate *c, size_t n, double p, double max) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if ((double)c[i].logit >= max + log(p)) c[kept++] = c[i];
    return kept;
}

static int32_t draw(sampler *s, const candidate *c, size_t n, double max) {
    double t = (double)s->options.temperature, all = 0, sum = 0;
    for (size_t i = 0; i < n; i++) all += exp(((double)c[i].logit - max) / t);
    double target = uniform(s->state) * all;
    int32_t last = c[0].id;
    for (size_t i = 0; i < n && sum <= target; i++) {
        double weight = exp(((double)c[i].logit - max) / t);
        sum += weight;
        if (weight > 0) last = c[i].id;
    }
    return last;
}

int32_t sampler_pick(sampler *s, candidate *c, size_t n) {
    const carat_sampling *o = &s->options;
    if (!n) return -1;
    if (penalises(o)) penalise(s, c, n);
    candidate best = best_of(c, n);
    if (o->temperature <= 0 || !isfinite(best.logit)) return best.id;

    double max = (double)best.logit;
    bool sorted = o->top_k > 0; /* in order, so that it does not matter how the candidates came */
    if (sorted) n = keep_top_k(c, n, (size_t)o->top_k < n ? (size_t)o->top_k : n);
    if (o->top_p < 1) n = keep_top_p(c, n, (double)o->top_p, max, sorted);
    if (o->min_p > 0) n = keep_min_p(c, n, (double)o->min_p, max);
    return draw(s, c, n, max);
}
