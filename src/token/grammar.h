/* token/grammar: what an answer may be, compiled from a JSON Schema. Private to src/token.
 *
 * schema.c compiles a schema into rules, pattern.c its regular expressions, grammar.c runs both
 * over the bytes of an answer. All of it lives in one arena and is never changed afterwards. */
#ifndef CARAT_GRAMMAR_H
#define CARAT_GRAMMAR_H

#include "token/token.h"

/* ---- pattern.c ---- */

#define PATTERN_MAX 256u /* characters of an expression, repetitions written out */

/* A set of positions. */
typedef struct positions {
    uint64_t bits[PATTERN_MAX / 64];
} positions;

typedef struct code_range {
    uint32_t low, high; /* code points, both included */
} code_range;

/* One character of the expression. */
typedef struct position {
    const code_range *ranges; /* [n_range] what it matches; never empty */
    uint32_t n_range;
    uint32_t to_end; /* characters that must still follow it, at least */
    positions follow;
} position;

/* A regular expression as Glushkov's automaton: a state is the set of positions that the last
 * character may have matched. */
typedef struct pattern {
    uint32_t n, shortest; /* positions; characters of the shortest match */
    bool empty;           /* "" matches */
    positions first, last;
    position *at; /* [n] */
} pattern;

/* Compiles an expression that has to match a whole string. *why: what is not
 * understood; NULL: there was not enough memory. */
bool pattern_compile(arena *a, const char *text, size_t n, pattern **out, const char **why);

/* ---- schema.c ---- */

typedef enum value_type {
    TYPE_NULL = 1,
    TYPE_BOOL = 2,
    TYPE_NUMBER = 4,
    TYPE_STRING = 8,
    TYPE_ARRAY = 16,
    TYPE_OBJECT = 32,
    TYPE_ALL = 63
} value_type;

#define DEPTH_NEVER 1000u /* depth of what cannot be satisfied */

typedef struct rule rule;

typedef struct literal {
    const char *text; /* as JSON */
    size_t n;
} literal;

typedef struct property {
    literal key; /* without its quotes */
    const rule *value;
    bool required;
} property;

/* What a value may be: one of its types, one of some texts, or what one of other rules allows. */
struct rule {
    uint32_t types;                     /* of value_type */
    uint32_t depth;                     /* levels that it needs, at least */
    uint32_t array_depth, object_depth; /* the same for these types alone */
    const literal *literals;            /* [n_literal] in order; then types is 0 */
    uint32_t n_literal;
    rule **other; /* [n_other] none of them has others; then types is 0 */
    uint32_t n_other;
    /* numbers: multiples of `step` from low to high, all three times 10^scale; step 0: any */
    int64_t low, high, step;
    uint32_t scale;
    /* strings: code points */
    uint32_t min_length, max_length;
    const pattern *pattern; /* or NULL */
    /* arrays: the first ones have their own rules */
    rule **first; /* [n_first] */
    uint32_t n_first;
    rule *items; /* the rest; NULL: there are no more */
    uint32_t min_items, max_items;
    /* objects */
    property *properties; /* [n_property], in the order they are written in */
    uint32_t n_property;
    rule *extra; /* value of any other property; NULL: there are none */
};

#define GRAMMAR_DEPTH 32u /* levels of an answer, the root and the innermost value included */

extern const rule rule_null, rule_bool;

/* Compiles the text of a JSON Schema. CARAT_E_UNSUPPORTED names the keyword and where it is. */
bool schema_compile(arena *a, const char *text, size_t n, const rule **out, carat_error *err);

/* ---- grammar.c and scalar.c: the machine ---- */

typedef enum frame_kind { ROOT, OBJECT, ARRAY, STRING, NUMBER, LITERAL } frame_kind;

/* A value that is open. */
typedef struct frame {
    const rule *rule;
    uint64_t value; /* number: its digits; literal: bytes read; object: the property, being read */
    uint32_t kind, step; /* frame_kind; where in it */
    uint32_t n;          /* object: properties that are past; array: items; string: characters;
                            number: digits of this part; literal: the first that is possible */
    uint32_t from;       /* object: its extra keys begin here; number: it is negative; literal: the
                            end of those that are possible */
} frame;

/* The string or the key that is being read: only the innermost value can be one. */
typedef struct scan {
    uint32_t code, left; /* of a character: what is known; bytes or digits to come */
    uint32_t least;      /* the smallest code point of that many bytes */
    uint32_t length;     /* key: bytes */
    uint32_t hash;       /* key: of these */
    uint32_t named;      /* key: 1 + a property that begins so; 0: none */
    uint32_t extra;      /* key: it may be one that the schema does not name */
    uint32_t unused;
    positions seen; /* pattern: what the last character matched */
} scan;

#define GRAMMAR_KEYS 64u /* extra keys of all objects that are open */

/* One way to read the answer so far. */
typedef struct thread {
    uint32_t n_frame, n_key;
    scan scan;
    uint32_t keys[GRAMMAR_KEYS]; /* [n_key] hashes */
    frame frames[GRAMMAR_DEPTH];
} thread;

typedef enum verdict {
    REFUSED,
    TAKEN,
    PASSED_ON /* the value ended before this byte, which the one around it gets */
} verdict;

/* A byte inside a string, number or literal, the top frame; a value that ends is popped. */
verdict scalar_read(thread *t, uint8_t c);
bool scalar_may_end(const frame *f); /* a number or literal, without another byte */
/* A byte of UTF-8; s->left == 0: a character is complete. False: it cannot be one. *low, *high:
 * the code points that it can still become. */
bool scan_utf8(scan *s, uint8_t c, uint32_t *low, uint32_t *high);
void thread_pop(thread *t); /* the value around the top one goes on */

#endif
