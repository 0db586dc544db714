/* token/scalar.c: the part of the grammar machine that reads strings, numbers and literals, the
 * values with nothing in them. It takes no byte after which the value could not be completed.
 *
 * Flow: grammar.c opens the value and hands its bytes over. */
#include "token/grammar.h"

#include <string.h>

enum { IN_TEXT, ESCAPE, HEX, PAIR_ESCAPE, PAIR_U, PAIR_HEX };
enum { SIGN_OR_DIGIT, AFTER_SIGN, ZERO, WHOLE, POINT, FRACTION, EXPONENT, EXPONENT_SIGN, POWER };

static bool end_value(thread *t) {
    thread_pop(t);
    return true;
}

/* ---- characters ---- */

/* Whether a code point from low to high may come next; *seen: what the pattern makes of it. */
static bool may_follow(const thread *t, const frame *f, uint32_t low, uint32_t high,
                       positions *seen) {
    const pattern *p = f->rule->pattern;
    if (!p) return true;
    positions next = p->first;
    bool any = false;
    if (f->n) memset(&next, 0, sizeof next);
    for (uint32_t i = 0; f->n && i < p->n; i++)
        if (t->scan.seen.bits[i / 64] >> i % 64 & 1)
            for (size_t w = 0; w < COUNT(next.bits); w++) next.bits[w] |= p->at[i].follow.bits[w];
    memset(seen, 0, sizeof *seen);
    for (uint32_t i = 0; i < p->n; i++) {
        const position *at = &p->at[i];
        if (!(next.bits[i / 64] >> i % 64 & 1) || f->n + 1 + at->to_end > f->rule->max_length)
            continue;
        for (uint32_t k = 0; k < at->n_range; k++) {
            if (at->ranges[k].low > high || at->ranges[k].high < low) continue;
            seen->bits[i / 64] |= 1ull << i % 64;
            any = true;
        }
    }
    return any;
}

/* One character of a string is complete. */
static bool end_character(thread *t, frame *f, uint32_t code) {
    positions seen = {0};
    if (!may_follow(t, f, code, code, &seen)) return false;
    t->scan.seen = seen;
    t->scan.code = t->scan.left = t->scan.least = 0;
    f->step = IN_TEXT;
    f->n++;
    return true;
}

bool scan_utf8(scan *s, uint8_t c, uint32_t *low, uint32_t *high) {
    if (s->left) {
        if (c >> 6 != 2) return false;
        s->code = s->code << 6 | (c & 0x3f);
        s->left--;
    } else {
        if (c >= 0x80 && (c < 0xc2 || c > 0xf4)) return false;
        s->left = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
        s->least = s->left < 2 ? 0 : s->left == 2 ? 0x800 : 0x10000;
        s->code = s->left == 0 ? c : c & (0x3fu >> s->left);
    }
    uint32_t bits = 6 * s->left, from = s->code << bits, to = from | ((1u << bits) - 1);
    *low = max_u32(from, s->least);
    *high = min_u32(to, 0x10ffff);
    return *low <= *high && (*low < 0xd800 || *high > 0xdfff);
}

/* ---- strings ---- */

static const char escape_names[] = "\"\\/bfnrt", escape_codes[] = "\"\\/\b\f\n\r\t";

static bool may_escape(const thread *t, const frame *f) {
    positions seen;
    if (!f->rule->pattern) return true;
    for (const char *c = escape_codes; *c; c++)
        if (may_follow(t, f, (uint32_t)*c, (uint32_t)*c, &seen)) return true;
    return false;
}

static bool may_end_string(const thread *t, const frame *f) {
    const pattern *p = f->rule->pattern;
    if (f->n < f->rule->min_length) return false;
    if (!p || f->n == 0) return !p || p->empty;
    for (size_t w = 0; w < COUNT(p->last.bits); w++)
        if (t->scan.seen.bits[w] & p->last.bits[w]) return true;
    return false;
}

static bool read_text(thread *t, frame *f, uint8_t c) {
    uint32_t low, high;
    positions seen;
    if (t->scan.left == 0) {
        if (c == '"') return may_end_string(t, f) && end_value(t);
        if (f->n == f->rule->max_length || c < 0x20) return false;
        if (c == '\\') {
            f->step = ESCAPE;
            return may_escape(t, f);
        }
    }
    if (!scan_utf8(&t->scan, c, &low, &high)) return false;
    if (t->scan.left == 0) return end_character(t, f, t->scan.code);
    return may_follow(t, f, low, high, &seen);
}

/* After the backslash. With a pattern there is no \u: the character itself must be written. */
static bool read_escape(thread *t, frame *f, uint8_t c) {
    if (c == 'u' && !f->rule->pattern) {
        f->step = HEX;
        t->scan.left = 4;
        return true;
    }
    const char *name = c ? strchr(escape_names, c) : NULL;
    return name && end_character(t, f, (uint32_t)escape_codes[name - escape_names]);
}

/* A digit of \uHHHH; a high surrogate must be followed by a low one. */
static bool read_hex(thread *t, frame *f, uint8_t c) {
    scan *s = &t->scan;
    bool second = f->step == PAIR_HEX;
    uint32_t digit = c >= '0' && c <= '9'   ? c - (uint32_t)'0'
                     : c >= 'a' && c <= 'f' ? c - 'a' + 10u
                     : c >= 'A' && c <= 'F' ? c - 'A' + 10u
                                            : 16;
    if (digit > 15) return false;
    s->code = s->code << 4 | digit;
    s->left--;
    if (s->left == 3) return !second || s->code == 0xd;
    bool low = s->code >= 0xdc && s->code <= 0xdf;
    if (s->left == 2) return low == second;
    if (s->left) return true;
    if (second) return end_character(t, f, 0x10000);
    if (s->code < 0xd800 || s->code > 0xdbff) return end_character(t, f, s->code);
    f->step = PAIR_ESCAPE;
    return true;
}

static bool read_string(thread *t, frame *f, uint8_t c) {
    switch (f->step) {
    case IN_TEXT:
        return read_text(t, f, c);
    case ESCAPE:
        return read_escape(t, f, c);
    case PAIR_ESCAPE:
        f->step = PAIR_U;
        return c == '\\';
    case PAIR_U:
        f->step = PAIR_HEX;
        t->scan.code = 0;
        t->scan.left = 4;
        return c == 'u';
    default:
        return read_hex(t, f, c);
    }
}

/* ---- numbers ---- */

enum { WHOLE_DIGITS = 15, FRACTION_DIGITS = 15, POWER_DIGITS = 2 }; /* without bounds */

static uint64_t power_of_10(uint32_t n) {
    uint64_t p = 1;
    while (n--) p *= 10;
    return p;
}

/* Whether a multiple of the rule's step lies from low to high, both without their sign. */
static bool holds(const rule *r, bool negative, uint64_t low, uint64_t high) {
    int64_t least = negative ? -r->high : r->low, most = negative ? -r->low : r->high;
    if (least < negative) least = negative; /* there is no -0 */
    if (most < least) return false;
    if (low < (uint64_t)least) low = (uint64_t)least;
    if (high > (uint64_t)most) high = (uint64_t)most;
    return low <= high && high / (uint64_t)r->step * (uint64_t)r->step >= low;
}

/* Whether the digits so far are, or can become, a number of the rule. */
static bool in_reach(const frame *f) {
    const rule *r = f->rule;
    bool negative = f->from, fraction = f->step == POINT || f->step == FRACTION;
    uint64_t unit = power_of_10(r->scale - (fraction ? f->n : 0)), low = f->value * unit;
    if (fraction || f->value == 0) return holds(r, negative, low, low + unit - 1);
    for (; low <= INT64_MAX; low *= 10, unit *= 10) {
        if (holds(r, negative, low, low + unit - 1)) return true;
        if (low > INT64_MAX / 10) break;
    }
    return false;
}

static bool may_end_number(const frame *f) {
    const rule *r = f->rule;
    if (f->step != ZERO && f->step != WHOLE && f->step != FRACTION) return f->step == POWER;
    if (!r->step) return true;
    uint64_t value = f->value * power_of_10(r->scale - (f->step == FRACTION ? f->n : 0));
    return holds(r, f->from, value, value);
}

static bool add_digit(frame *f, uint32_t step, uint32_t most, uint8_t c) {
    f->n = f->step == step ? f->n + 1 : 1;
    f->step = step;
    f->value = f->value * 10 + (uint64_t)(c - '0');
    if (step == POWER || !f->rule->step) return f->n <= most;
    return (step != FRACTION || f->n <= f->rule->scale) && in_reach(f);
}

static bool read_digit(frame *f, uint8_t c) {
    switch (f->step) {
    case SIGN_OR_DIGIT:
    case AFTER_SIGN:
        return add_digit(f, c == '0' ? ZERO : WHOLE, 1, c);
    case WHOLE:
        return add_digit(f, WHOLE, WHOLE_DIGITS, c);
    case POINT:
    case FRACTION:
        return add_digit(f, FRACTION, FRACTION_DIGITS, c);
    case EXPONENT:
    case EXPONENT_SIGN:
    case POWER:
        return add_digit(f, POWER, POWER_DIGITS, c);
    default:
        return false; /* behind a leading zero */
    }
}

/* False: the number has no such next byte, and is as it was. */
static bool read_number(frame *f, uint8_t c) {
    frame next = *f;
    const rule *r = f->rule;
    bool ok = false, whole = f->step == ZERO || f->step == WHOLE;
    if (c >= '0' && c <= '9') {
        ok = read_digit(&next, c);
    } else if (c == '-' && f->step == SIGN_OR_DIGIT) {
        next.from = true;
        next.step = AFTER_SIGN;
        ok = !r->step || holds(r, true, 0, INT64_MAX);
    } else if (c == '.' && whole) {
        next.step = POINT;
        next.n = 0;
        ok = !r->step || (r->scale && in_reach(&next));
    } else if ((c == 'e' || c == 'E') && !r->step && (whole || f->step == FRACTION)) {
        next.step = EXPONENT;
        next.value = 0;
        ok = true;
    } else if ((c == '-' || c == '+') && f->step == EXPONENT) {
        next.step = EXPONENT_SIGN;
        ok = true;
    }
    if (ok) *f = next;
    return ok;
}

/* ---- one of some texts ---- */

/* The first literal from f->n on whose next byte is at least c; all of them agree so far. */
static uint32_t first_with(const frame *f, unsigned c) {
    uint32_t low = f->n, high = f->from;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        const literal *l = &f->rule->literals[mid];
        if (l->n <= f->value || (uint8_t)l->text[f->value] < c)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool may_end_literal(const frame *f) { return f->rule->literals[f->n].n == f->value; }

/* False: none of the texts goes on so, and the frame is as it was. */
static bool read_literal(thread *t, frame *f, uint8_t c) {
    uint32_t from = first_with(f, c), to = first_with(f, c + 1u);
    if (from == to) return false;
    f->n = from;
    f->from = to;
    f->value++;
    return (to - from > 1 || !may_end_literal(f)) || end_value(t);
}

/* ---- all of them ---- */

bool scalar_may_end(const frame *f) {
    return (f->kind == NUMBER && may_end_number(f)) || (f->kind == LITERAL && may_end_literal(f));
}

verdict scalar_read(thread *t, uint8_t c) {
    frame *f = &t->frames[t->n_frame - 1];
    if (f->kind == STRING) return read_string(t, f, c) ? TAKEN : REFUSED;
    if (f->kind == NUMBER ? read_number(f, c) : read_literal(t, f, c)) return TAKEN;
    if (!scalar_may_end(f)) return REFUSED;
    thread_pop(t);
    return PASSED_ON;
}
