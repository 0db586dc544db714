/* token/grammar.c: runs the rules of a schema over an answer, byte by byte, and says which bytes
 * may come next. What it accepts is one compact JSON value, with at most one space behind ':' and
 * ','; members come in the schema's order.
 *
 * A thread is a stack of the values that are open. There are several threads only where a schema
 * offers alternatives that begin alike. Each of them can be completed (no byte is taken that leads
 * nowhere: numbers look at the range that is still in reach, values at the depth that is left), so
 * threads may be left out when there are too many.
 *
 * Flow: schema.c made the rules; scalar.c reads strings and numbers; model/constrain.c asks here
 * what the sampler may take. */
#include "token/grammar.h"

#include <string.h>

enum { MAX_THREADS = 32, NONE = -1 };

/* Where the machine is in an object or array, and before or after the root's value. */
enum { BEGIN, AFTER_VALUE, AFTER_COMMA, AFTER_SPACE, IN_KEY, AFTER_KEY, AFTER_COLON, AT_VALUE };

typedef struct state {
    uint32_t n;
    thread threads[MAX_THREADS + 1]; /* [n], and one to work in */
} state;

struct grammar {
    const rule *root;
    state now, test[2];
};

/* ---- threads ---- */

static void copy_thread(thread *to, const thread *from) {
    to->n_frame = from->n_frame;
    to->n_key = from->n_key;
    to->scan = from->scan;
    memcpy(to->keys, from->keys, from->n_key * sizeof *from->keys);
    memcpy(to->frames, from->frames, from->n_frame * sizeof *from->frames);
}

static bool same_frame(const frame *a, const frame *b) {
    return a->rule == b->rule && a->value == b->value && a->kind == b->kind && a->step == b->step &&
           a->n == b->n && a->from == b->from;
}

static bool same_thread(const thread *a, const thread *b) {
    for (uint32_t i = 0; i < a->n_frame && i < b->n_frame; i++)
        if (!same_frame(&a->frames[i], &b->frames[i])) return false;
    return a->n_frame == b->n_frame && a->n_key == b->n_key &&
           !memcmp(&a->scan, &b->scan, sizeof a->scan) &&
           !memcmp(a->keys, b->keys, a->n_key * sizeof *a->keys);
}

/* Keeps the thread behind the last one, unless it is there already. */
static void keep(state *s) {
    for (uint32_t i = 0; i < s->n; i++)
        if (same_thread(&s->threads[i], &s->threads[s->n])) return;
    if (s->n < MAX_THREADS) s->n++;
}

static void push(thread *t, frame_kind kind, const rule *r) {
    t->frames[t->n_frame++] = (frame){.rule = r, .kind = kind};
}

void thread_pop(thread *t) {
    frame *f = &t->frames[--t->n_frame];
    if (f->kind == OBJECT) t->n_key = f->from;
    t->scan = (scan){0}; /* so that equal threads are equal */
}

static bool end_value(thread *t) {
    thread_pop(t);
    return true;
}

static bool fits(const thread *t, uint32_t depth) { return t->n_frame + depth <= GRAMMAR_DEPTH; }

/* ---- keys ---- */

/* The end of the properties that may come next: behind the first required one. */
static uint32_t properties_end(const frame *f) {
    const rule *r = f->rule;
    for (uint32_t i = f->n; i < r->n_property; i++)
        if (r->properties[i].required) return i + 1;
    return r->n_property;
}

static bool may_end_object(const frame *f) {
    uint32_t end = properties_end(f);
    return f->n == end || !f->rule->properties[end - 1].required;
}

static bool may_be_extra(const thread *t, const frame *f) {
    return f->rule->extra && may_end_object(f) && t->n_key < GRAMMAR_KEYS &&
           fits(t, f->rule->extra->depth);
}

static bool may_have_member(const thread *t, const frame *f) {
    for (uint32_t i = f->n, end = properties_end(f); i < end; i++)
        if (fits(t, f->rule->properties[i].value->depth)) return true;
    return may_be_extra(t, f);
}

/* The property whose key begins as the one being read does: and goes on with c, or (c < 0) ends. */
static int32_t find_property(const thread *t, const frame *f, int c) {
    const property *list = f->rule->properties;
    size_t n = t->scan.length;
    if (n && !t->scan.named) return NONE;
    const char *read = n ? list[t->scan.named - 1].key.text : "";
    for (uint32_t i = f->n, end = properties_end(f); i < end; i++) {
        const literal *key = &list[i].key;
        bool goes_on = c < 0 ? key->n == n : key->n > n && (uint8_t)key->text[n] == c;
        if (goes_on && !memcmp(key->text, read, n) && fits(t, list[i].value->depth))
            return (int32_t)i;
    }
    return NONE;
}

#define HASH_START 2166136261u
static uint32_t hash_byte(uint32_t h, uint8_t c) { return (h ^ c) * 16777619u; } /* FNV-1a */

static bool begin_key(thread *t, frame *f) {
    f->step = IN_KEY;
    t->scan = (scan){.hash = HASH_START, .extra = may_be_extra(t, f)};
    return may_have_member(t, f);
}

/* Whether an extra key is none that the schema names and none that was there. */
static bool is_new(const thread *t, const frame *f) {
    for (uint32_t i = f->from; i < t->n_key; i++)
        if (t->keys[i] == t->scan.hash) return false;
    for (uint32_t i = 0; i < f->rule->n_property; i++) {
        const literal *key = &f->rule->properties[i].key;
        uint32_t hash = HASH_START;
        for (size_t b = 0; b < key->n; b++) hash = hash_byte(hash, (uint8_t)key->text[b]);
        if (hash == t->scan.hash) return false;
    }
    return true;
}

static bool end_key(thread *t, frame *f) {
    int32_t i = find_property(t, f, -1);
    if (i == NONE) {
        if (!t->scan.extra || t->scan.left || !is_new(t, f)) return false;
        t->keys[t->n_key++] = t->scan.hash;
        f->value = f->n = f->rule->n_property;
    } else {
        f->value = (uint64_t)i;
        f->n = (uint32_t)i + 1;
    }
    f->step = AFTER_KEY;
    t->scan = (scan){0};
    return true;
}

/* Keys that the schema does not name are written without escapes: equal ones look alike. */
static bool read_key(thread *t, frame *f, uint8_t c) {
    scan *s = &t->scan;
    uint32_t low, high;
    int32_t i = find_property(t, f, c);
    if (c == '"' && i == NONE) return end_key(t, f);
    if (s->extra && (c < 0x20 || c == '\\' || c == '"' || !scan_utf8(s, c, &low, &high)))
        s->extra = false;
    s->named = (uint32_t)(i + 1);
    s->hash = hash_byte(s->hash, c);
    s->length++;
    return i != NONE || s->extra;
}

/* ---- objects and arrays ---- */

static const rule *item_rule(const frame *f) {
    return f->n < f->rule->n_first ? f->rule->first[f->n] : f->rule->items;
}

static bool may_have_item(const thread *t, const frame *f) {
    const rule *r = f->n < f->rule->max_items ? item_rule(f) : NULL;
    return r && fits(t, r->depth);
}

/* Where a value is expected: *value is its rule, and the frame is where it goes on afterwards. */
static bool expect(frame *f, const rule *r, const rule **value) {
    f->step = AFTER_VALUE;
    *value = r;
    return true;
}

/* *value set: the byte begins a value of this rule. */
static bool read_object(thread *t, frame *f, uint8_t c, const rule **value) {
    switch (f->step) {
    case BEGIN:
    case AFTER_VALUE:
        if (c == '}') return may_end_object(f) && end_value(t);
        if (f->step == BEGIN) return c == '"' && begin_key(t, f);
        f->step = AFTER_COMMA;
        return c == ',' && may_have_member(t, f);
    case AFTER_COMMA:
        f->step = AFTER_SPACE;
        return c == ' ' || (c == '"' && begin_key(t, f));
    case AFTER_SPACE:
        return c == '"' && begin_key(t, f);
    case IN_KEY:
        return read_key(t, f, c);
    case AFTER_KEY:
        f->step = AFTER_COLON;
        return c == ':';
    default:
        if (c == ' ' && f->step == AFTER_COLON) {
            f->step = AT_VALUE;
            return true;
        }
        return expect(f,
                      f->value < f->rule->n_property ? f->rule->properties[f->value].value
                                                     : f->rule->extra,
                      value);
    }
}

static bool read_array(thread *t, frame *f, uint8_t c, const rule **value) {
    if (f->step == BEGIN || f->step == AFTER_VALUE) {
        if (c == ']') return f->n >= f->rule->min_items && end_value(t);
        if (!may_have_item(t, f)) return false;
        if (f->step == AFTER_VALUE) {
            f->step = AFTER_COMMA;
            return c == ',';
        }
    } else if (f->step == AFTER_COMMA && c == ' ') {
        f->step = AFTER_SPACE;
        return true;
    }
    const rule *item = item_rule(f);
    f->n++;
    return expect(f, item, value);
}

/* ---- values ---- */

/* Opens a value that begins with c; r has no alternatives. */
static bool open_value(thread *t, const rule *r, uint8_t c) {
    bool scalar = fits(t, 1);
    if (r->n_literal) {
        push(t, LITERAL, r);
        t->frames[t->n_frame - 1].from = r->n_literal;
        return scalar && scalar_read(t, c) == TAKEN;
    }
    if (c == '{') {
        if (!(r->types & TYPE_OBJECT) || !fits(t, r->object_depth)) return false;
        push(t, OBJECT, r);
        t->frames[t->n_frame - 1].from = t->n_key;
        return true;
    }
    if (c == '[') {
        if (!(r->types & TYPE_ARRAY) || !fits(t, r->array_depth)) return false;
        push(t, ARRAY, r);
        return true;
    }
    if (!scalar) return false;
    if (c == '"') {
        push(t, STRING, r);
        return r->types & TYPE_STRING;
    }
    if (c == 'n') return (r->types & TYPE_NULL) && open_value(t, &rule_null, c);
    if (c == 't' || c == 'f') return (r->types & TYPE_BOOL) && open_value(t, &rule_bool, c);
    push(t, NUMBER, r);
    return (r->types & TYPE_NUMBER) && scalar_read(t, c) == TAKEN;
}

/* Adds what becomes of a thread with one more byte: nothing, a thread, or one for each alternative
 * that a value has. */
static void step(state *to, const thread *from, uint8_t c) {
    thread *t = &to->threads[to->n];
    const rule *value = NULL;
    verdict v = PASSED_ON;
    copy_thread(t, from);
    while (v == PASSED_ON) {
        frame *f = &t->frames[t->n_frame - 1];
        if (f->kind == ROOT)
            v = f->step == BEGIN && expect(f, f->rule, &value) ? TAKEN : REFUSED;
        else if (f->kind == OBJECT)
            v = read_object(t, f, c, &value) ? TAKEN : REFUSED;
        else if (f->kind == ARRAY)
            v = read_array(t, f, c, &value) ? TAKEN : REFUSED;
        else
            v = scalar_read(t, c);
    }
    if (v == REFUSED) return;
    if (!value || value->n_other == 0) {
        if (!value || open_value(t, value, c)) keep(to);
        return;
    }
    thread before;
    copy_thread(&before, t);
    for (uint32_t i = 0; i < value->n_other; i++) {
        t = &to->threads[to->n];
        copy_thread(t, &before);
        if (open_value(t, value->other[i], c)) keep(to);
    }
}

/* ---- the machine ---- */

bool grammar_create(arena *a, const char *schema, grammar **out, carat_error *err) {
    const rule *root;
    if (!schema_compile(a, schema, strlen(schema), &root, err)) return false;
    grammar *g = arena_alloc(a, 1, sizeof *g);
    if (!g) return fail_memory(err, sizeof *g, "a grammar");
    g->root = root;
    g->now.n = 1;
    push(&g->now.threads[0], ROOT, root);
    *out = g;
    return true;
}

/* What becomes of the state with text [n]: in one of g->test, or the state itself if n is 0. */
static const state *run(grammar *g, const char *text, size_t n) {
    const state *s = &g->now;
    for (size_t i = 0; i < n && s->n; i++) {
        state *to = &g->test[i % 2];
        to->n = 0;
        for (uint32_t k = 0; k < s->n; k++) step(to, &s->threads[k], (uint8_t)text[i]);
        s = to;
    }
    return s;
}

bool grammar_allows(grammar *g, const char *text, size_t n) { return run(g, text, n)->n > 0; }

bool grammar_accept(grammar *g, const char *text, size_t n) {
    const state *s = run(g, text, n);
    if (s->n == 0) return false;
    if (s == &g->now) return true;
    g->now.n = s->n;
    for (uint32_t i = 0; i < s->n; i++) copy_thread(&g->now.threads[i], &s->threads[i]);
    return true;
}

bool grammar_ends(const grammar *g) {
    for (uint32_t i = 0; i < g->now.n; i++) {
        const thread *t = &g->now.threads[i];
        const frame *top = &t->frames[t->n_frame - 1];
        if (t->n_frame == 1 ? top->step == AFTER_VALUE : t->n_frame == 2 && scalar_may_end(top))
            return true;
    }
    return false;
}

bool grammar_began(const grammar *g) { return g->now.threads[0].frames[0].step != BEGIN; }
