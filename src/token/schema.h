/* token/schema: what the compiler of schemas shares between its two files. Private to src/token.
 *
 * schema.c goes through the subschemas, keyword.c reads the keywords of one of them. */
#ifndef CARAT_SCHEMA_H
#define CARAT_SCHEMA_H

#include "token/grammar.h"

enum {
    SCHEMA_RULES = 4096,    /* subschemas */
    SCHEMA_LIST = 1024,     /* properties of one object, its required ones, first items */
    SCHEMA_PATTERNS = 64,   /* different ones */
    SCHEMA_LITERALS = 65536 /* values of all enums */
};

/* A rule and where it comes from. */
typedef struct task {
    rule rule; /* first: a rule of other rules is found back as its task */
    const json *schema;
    const struct task *parent;
    const char *keyword, *name; /* below the parent: "properties", "age" */
    uint32_t index;             /* in the list of tasks */
    uint32_t seen;              /* by which flattening, 1 + its index */
    rule **flat;                /* [n_flat] what the rule's alternatives come to */
    uint32_t n_flat;
} task;

typedef struct schema_pattern {
    const char *text;
    size_t n;
    const pattern *compiled;
} schema_pattern;

typedef struct compiler {
    arena *a;
    carat_error *err;
    const json *root;
    const json *schema;                       /* its keywords */
    const task *at;                           /* being compiled */
    task *tasks[SCHEMA_RULES];                /* [n_task] */
    schema_pattern patterns[SCHEMA_PATTERNS]; /* [n_pattern] */
    uint32_t n_task, n_pattern, n_literal;
} compiler;

/* ---- schema.c ---- */

extern const json schema_anything; /* the schema of any value */

/* The rule of a subschema, which is compiled later; a schema that was met before has one. */
bool schema_rule(compiler *c, const json *schema, const char *keyword, const char *name,
                 rule **out);
/* Fails with: json schema: "keyword" at #/place why */
bool schema_refuse(compiler *c, carat_code code, const char *keyword, const char *why);
bool schema_memory(compiler *c, size_t n); /* fails: n bytes were refused */
/* The array at a keyword, of at most `most` items; *list NULL: there is none. */
bool schema_list(compiler *c, const char *keyword, size_t most, const json **list);

/* ---- keyword.c: what the keywords of c->schema say about values of one type ---- */

bool schema_number(compiler *c, rule *r, bool whole); /* whole: integers only */
bool schema_string(compiler *c, rule *r);
bool schema_array(compiler *c, rule *r);
bool schema_object(compiler *c, rule *r);
/* enum and const: those of some types, and perhaps null. */
bool schema_values(compiler *c, rule *r, uint32_t types, bool whole, bool or_null);

#endif
