/* token/pattern.c: regular expressions of a schema's "pattern" and "format" -> Glushkov's
 * automaton. Every character of the expression is a position; what may come first, last and after
 * each is computed while reading. A repetition {n,m} reads its part n to m times.
 *
 * Understood: characters, ., classes, escapes (\d \w \s and their opposites, \n \t \r \f, \xHH,
 * \uHHHH, escaped punctuation), groups, |, * + ? {n,m} and their lazy forms; ^ and $ at the ends.
 *
 * Flow: schema.c compiles here; scalar.c follows the positions. */
#include "token/grammar.h"

#include <string.h>

enum { MAX_RANGES = 64, MAX_GROUPS = 16, LAST_CODE = 0x10ffff };

typedef struct parser {
    arena *a;
    const char *at, *end;
    pattern *p;
    uint32_t groups; /* that are open */
    const char *why;
} parser;

/* A part of the expression. */
typedef struct part {
    positions first, last;
    bool empty; /* may match nothing */
} part;

static bool wrong(parser *s, const char *why) {
    if (!s->why) s->why = why;
    return false;
}

static bool at_char(const parser *s, char c) { return s->at < s->end && *s->at == c; }

static bool skip_char(parser *s, char c) {
    if (!at_char(s, c)) return false;
    s->at++;
    return true;
}

/* ---- sets of positions ---- */

static void unite(positions *to, const positions *from) {
    for (size_t i = 0; i < COUNT(to->bits); i++) to->bits[i] |= from->bits[i];
}

static bool has(const positions *s, uint32_t i) { return s->bits[i / 64] >> i % 64 & 1; }

/* What ends in `last` may go on with `first`. */
static void link(pattern *p, const positions *last, const positions *first) {
    for (uint32_t i = 0; i < p->n; i++)
        if (has(last, i)) unite(&p->at[i].follow, first);
}

/* a becomes a and then b. */
static void append(pattern *p, part *a, const part *b) {
    link(p, &a->last, &b->first);
    if (a->empty) unite(&a->first, &b->first);
    if (!b->empty) a->last = (positions){0};
    unite(&a->last, &b->last);
    a->empty = a->empty && b->empty;
}

/* ---- classes ---- */

typedef struct class {
    code_range ranges[MAX_RANGES];
    uint32_t n;
} class;

static bool add_range(parser *s, class *c, uint32_t low, uint32_t high) {
    if (low > high) return wrong(s, "a range that runs backwards");
    if (c->n == MAX_RANGES) return wrong(s, "a class with too many ranges");
    c->ranges[c->n++] = (code_range){low, high};
    return true;
}

static bool invert(parser *s, class *c) {
    class out = {.n = 0};
    uint32_t from = 0;
    for (;;) { /* the lowest range that is not passed yet */
        const code_range *next = NULL;
        for (uint32_t i = 0; i < c->n; i++)
            if (c->ranges[i].high >= from && (!next || c->ranges[i].low < next->low))
                next = &c->ranges[i];
        if (!next) break;
        if (next->low > from && !add_range(s, &out, from, next->low - 1)) return false;
        from = next->high + 1;
    }
    if (from <= LAST_CODE && !add_range(s, &out, from, LAST_CODE)) return false;
    *c = out;
    return true;
}

/* \d \w \s; in upper case all others. */
static bool add_named(parser *s, class *c, char name) {
    static const code_range digits[] = {{'0', '9'}};
    static const code_range word[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    static const code_range space[] = {
        {9, 13},          {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
        {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
    bool inverse = name < 'a';
    char plain = (char)(name | 0x20);
    const code_range *from = plain == 'd' ? digits : plain == 'w' ? word : space;
    size_t n = plain == 'd' ? COUNT(digits) : plain == 'w' ? COUNT(word) : COUNT(space);
    class own = {.n = 0};
    for (size_t i = 0; i < n; i++) own.ranges[own.n++] = from[i];
    if (inverse && !invert(s, &own)) return false;
    for (uint32_t i = 0; i < own.n; i++)
        if (!add_range(s, c, own.ranges[i].low, own.ranges[i].high)) return false;
    return true;
}

static bool read_code(parser *s, uint32_t *code) {
    size_t n = utf8_length(s->at, (size_t)(s->end - s->at));
    if (n == 0) return wrong(s, "invalid UTF-8");
    *code = n == 1 ? (uint8_t)*s->at : (uint8_t)*s->at & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) *code = *code << 6 | ((uint8_t)s->at[i] & 0x3f);
    s->at += n;
    return true;
}

static bool read_hex(parser *s, int digits, uint32_t *code) {
    *code = 0;
    for (; digits > 0; digits--, s->at++) {
        const char *all = "0123456789abcdef";
        char c = s->at < s->end ? *s->at : 0;
        const char *digit = c ? strchr(all, c >= 'A' && c <= 'F' ? c | 0x20 : c) : NULL;
        if (!digit) return wrong(s, "a \\x or \\u without its digits");
        *code = *code << 4 | (uint32_t)(digit - all);
    }
    return true;
}

/* Behind a backslash: a class, or *single, one character. */
static bool read_escape(parser *s, class *c, bool *single, uint32_t *code) {
    static const char names[] = "nrtfv", codes[] = "\n\r\t\f\v";
    char name = s->at < s->end ? *s->at++ : 0;
    const char *known = name ? strchr(names, name) : NULL;
    bool letter = (name >= 'a' && name <= 'z') || (name >= 'A' && name <= 'Z');
    *single = true;
    *code = known ? (uint8_t)codes[known - names] : (uint8_t)name;
    if (known) return true;
    if (name && strchr("dwsDWS", name)) {
        *single = false;
        return add_named(s, c, name);
    }
    if (name == 'x' || name == 'u') return read_hex(s, name == 'x' ? 2 : 4, code);
    if (letter || (name >= '0' && name <= '9') || name <= ' ' || name > '~')
        return wrong(s, "an escape that is not known");
    return true;
}

static bool read_class_item(parser *s, class *c, bool *single, uint32_t *code) {
    *single = true;
    if (skip_char(s, '\\')) {
        if (!skip_char(s, 'b')) return read_escape(s, c, single, code);
        *code = '\b';
        return true;
    }
    return s->at < s->end ? read_code(s, code) : wrong(s, "a class without an end");
}

/* Behind the [. */
static bool read_class(parser *s, class *c) {
    bool inverse = skip_char(s, '^'), single;
    while (!skip_char(s, ']')) {
        uint32_t low, high;
        if (!read_class_item(s, c, &single, &low)) return false;
        if (!single) continue;
        high = low;
        if (s->end - s->at >= 2 && s->at[0] == '-' && s->at[1] != ']') {
            s->at++;
            if (!read_class_item(s, c, &single, &high)) return false;
            if (!single) return wrong(s, "a range that ends in a class");
        }
        if (!add_range(s, c, low, high)) return false;
    }
    return !inverse || invert(s, c);
}

/* ---- positions ---- */

/* Adds a position with the characters of a class that a JSON string can show without \u. */
static bool add_position(parser *s, const class *c, part *out) {
    static const code_range shown[] = {
        {'\b', '\n'}, {'\f', '\r'}, {' ', 0xd7ff}, {0xe000, LAST_CODE}};
    pattern *p = s->p;
    class own = {.n = 0};
    for (uint32_t i = 0; i < c->n; i++)
        for (size_t k = 0; k < COUNT(shown); k++) {
            uint32_t low = max_u32(c->ranges[i].low, shown[k].low);
            uint32_t high = min_u32(c->ranges[i].high, shown[k].high);
            if (low <= high && !add_range(s, &own, low, high)) return false;
        }
    if (own.n == 0) return wrong(s, "a class without a printable character");
    if (p->n == PATTERN_MAX) return wrong(s, "more than 256 characters");
    code_range *ranges = arena_alloc(s->a, own.n, sizeof *ranges);
    if (!ranges) return false; /* and there is no why */
    memcpy(ranges, own.ranges, own.n * sizeof *ranges);
    *out = (part){0};
    out->first.bits[p->n / 64] = 1ull << p->n % 64;
    out->last = out->first;
    p->at[p->n++] = (position){.ranges = ranges, .n_range = own.n};
    return true;
}

static bool read_choice(parser *s, part *out);

static bool read_group(parser *s, part *out) {
    uint32_t n = s->p->n;
    if (skip_char(s, '?') && !skip_char(s, ':')) return wrong(s, "a group of the form (?");
    if (s->groups++ == MAX_GROUPS) return wrong(s, "groups nested too deeply");
    if (!read_choice(s, out)) return false;
    if (!skip_char(s, ')')) return wrong(s, "a ( without its )");
    s->groups--;
    return s->p->n > n || wrong(s, "an empty group");
}

static bool read_atom(parser *s, part *out) {
    static const code_range line[] = {{0, 9}, {11, 12}, {14, 0x2027}, {0x202a, LAST_CODE}};
    class c = {.n = 0};
    uint32_t code;
    bool single = false;
    if (skip_char(s, '(')) return read_group(s, out);
    if (strchr("*+?{}]^$", *s->at)) return wrong(s, "one of * + ? { } ] ^ $ out of place");
    if (skip_char(s, '.')) {
        for (size_t i = 0; i < COUNT(line); i++) c.ranges[c.n++] = line[i];
    } else if (skip_char(s, '[')) {
        if (!read_class(s, &c)) return false;
    } else if (skip_char(s, '\\')) {
        if (!read_escape(s, &c, &single, &code)) return false;
    } else {
        single = true;
        if (!read_code(s, &code)) return false;
    }
    return (!single || add_range(s, &c, code, code)) && add_position(s, &c, out);
}

/* ---- repetitions ---- */

static bool read_count(parser *s, uint32_t *n) {
    const char *from = s->at;
    for (*n = 0; s->at < s->end && *s->at >= '0' && *s->at <= '9' && *n <= PATTERN_MAX; s->at++)
        *n = *n * 10 + (uint32_t)(*s->at - '0');
    return s->at > from && *n <= PATTERN_MAX;
}

/* * + ? {n} {n,} {n,m}; most 0: any number. */
static bool read_times(parser *s, uint32_t *least, uint32_t *most) {
    *least = *most = 1;
    if (skip_char(s, '*')) {
        *least = *most = 0;
    } else if (skip_char(s, '+')) {
        *most = 0;
    } else if (skip_char(s, '?')) {
        *least = 0;
    } else if (skip_char(s, '{')) {
        bool ok = read_count(s, least);
        *most = *least;
        bool open = ok && skip_char(s, ',') && at_char(s, '}');
        if (ok && s->at[-1] == ',' && !open) ok = read_count(s, most) && *most >= *least;
        if (!ok || !skip_char(s, '}') || (*most == 0 && !open))
            return wrong(s, "a repetition that is not understood, or of more than 256");
        if (open) *most = 0;
    } else {
        return true;
    }
    skip_char(s, '?'); /* lazy or not, it matches the same strings */
    return true;
}

static bool read_repeated(parser *s, part *out) {
    const char *from = s->at;
    uint32_t least, most;
    part one;
    if (!read_atom(s, out)) return false;
    if (!read_times(s, &least, &most)) return false;
    const char *end = s->at;
    if (most == 0 && least < 2) { /* * and + */
        link(s->p, &out->last, &out->first);
    } else {
        uint32_t n = max_u32(least, most);
        bool own_empty = out->empty;
        if (least == 0) out->empty = true;
        for (uint32_t i = 1; i < n; i++) {
            s->at = from;
            if (!read_atom(s, &one)) return false;
            if (most == 0 && i == n - 1) link(s->p, &one.last, &one.first);
            one.empty = own_empty || i >= least;
            append(s->p, out, &one);
        }
    }
    if (least == 0) out->empty = true;
    s->at = end;
    return true;
}

static bool read_sequence(parser *s, part *out) {
    part next;
    *out = (part){.empty = true};
    if (s->groups == 0) skip_char(s, '^');
    while (s->at < s->end && *s->at != '|' && *s->at != ')') {
        bool last = s->at + 1 == s->end || s->at[1] == '|';
        if (s->groups == 0 && *s->at == '$' && last) {
            s->at++;
            break;
        }
        if (!read_repeated(s, &next)) return false;
        append(s->p, out, &next);
    }
    return true;
}

static bool read_choice(parser *s, part *out) {
    part next;
    if (!read_sequence(s, out)) return false;
    while (skip_char(s, '|')) {
        if (!read_sequence(s, &next)) return false;
        unite(&out->first, &next.first);
        unite(&out->last, &next.last);
        out->empty = out->empty || next.empty;
    }
    return true;
}

/* How far each position is from the end. */
static void measure(pattern *p) {
    for (uint32_t i = 0; i < p->n; i++) p->at[i].to_end = has(&p->last, i) ? 0 : PATTERN_MAX;
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t i = p->n; i-- > 0;)
            for (uint32_t k = 0; k < p->n; k++)
                if (has(&p->at[i].follow, k) && p->at[k].to_end + 1 < p->at[i].to_end) {
                    p->at[i].to_end = p->at[k].to_end + 1;
                    changed = true;
                }
    }
    p->shortest = p->empty ? 0 : PATTERN_MAX;
    for (uint32_t i = 0; i < p->n; i++)
        if (has(&p->first, i)) p->shortest = min_u32(p->shortest, p->at[i].to_end + 1);
}

bool pattern_compile(arena *a, const char *text, size_t n, pattern **out, const char **why) {
    pattern *p = arena_alloc(a, 1, sizeof *p);
    parser s = {.a = a, .at = text, .end = text + n, .p = p};
    part whole;
    if (p) p->at = arena_alloc(a, PATTERN_MAX, sizeof *p->at);
    bool ok = p && p->at && read_choice(&s, &whole);
    if (ok && s.at < s.end) ok = wrong(&s, "a ) without its (");
    *why = s.why;
    if (!ok) return false;
    p->first = whole.first;
    p->last = whole.last;
    p->empty = whole.empty;
    measure(p);
    *out = p;
    return true;
}
