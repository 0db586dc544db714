/* token/schema.c: JSON Schema -> rules. Every subschema becomes one rule. They are compiled from a
 * list of what is still to do, not recursively, so that neither depth nor references cost stack;
 * then alternatives and references are flattened, and what cannot be satisfied is found.
 *
 * Keywords outside of the subset are refused by name and place: an answer that silently broke the
 * schema would be worse. docs/structured.md describes the subset.
 *
 * Flow: a request's schema before; grammar.c runs the rules after. */
#include "token/schema.h"

#include <string.h>

enum {
    MAX_TEXT = 1 << 20, /* bytes of a schema */
    MAX_OTHERS = 128    /* alternatives of one value */
};

static const literal text_null[] = {{"null", 4}}, text_bool[] = {{"false", 5}, {"true", 4}};
const rule rule_null = {.depth = 1, .literals = text_null, .n_literal = 1};
const rule rule_bool = {.depth = 1, .literals = text_bool, .n_literal = 2};

/* ---- errors ---- */

static void put_place(buf *b, const task *t) {
    const task *path[64];
    uint32_t n = 0;
    for (; t && t->parent && n < COUNT(path); t = t->parent) path[n++] = t;
    buf_puts(b, "#");
    while (n-- > 0) {
        buf_printf(b, "/%s", path[n]->keyword);
        if (path[n]->name) buf_printf(b, "/%.64s", path[n]->name);
        const json *list = json_get(path[n]->parent->schema, path[n]->keyword);
        for (size_t i = 0; list && list->kind == JSON_ARRAY && i < list->n; i++)
            if (&list->items[i] == path[n]->schema) buf_printf(b, "/%zu", i);
    }
}

bool schema_refuse(compiler *c, carat_code code, const char *keyword, const char *why) {
    buf place = {0};
    put_place(&place, c->at);
    fail(c->err, code, "json schema: \"%.64s\" at %.200s %s", keyword,
         place.failed ? "#" : place.data, why);
    buf_free(&place);
    return false;
}

static bool unsupported(compiler *c, const char *keyword) {
    return schema_refuse(c, CARAT_E_UNSUPPORTED, keyword, "is not supported");
}

static bool bad(compiler *c, const char *keyword, const char *why) {
    return schema_refuse(c, CARAT_E_FORMAT, keyword, why);
}

bool schema_memory(compiler *c, size_t n) { return fail_memory(c->err, n, "a JSON schema"); }

/* ---- tasks ---- */

const json schema_anything = {.kind = JSON_BOOL, .truth = true};

bool schema_rule(compiler *c, const json *schema, const char *keyword, const char *name,
                 rule **out) {
    for (uint32_t i = 0; i < c->n_task; i++)
        if (c->tasks[i]->schema == schema) {
            *out = &c->tasks[i]->rule;
            return true;
        }
    if (schema->kind != JSON_OBJECT && schema->kind != JSON_BOOL)
        return bad(c, keyword, "has to be a schema");
    if (c->n_task == SCHEMA_RULES)
        return fail(c->err, CARAT_E_UNSUPPORTED, "json schema: more than %d subschemas",
                    SCHEMA_RULES);
    task *t = arena_alloc(c->a, 1, sizeof *t);
    if (!t) return schema_memory(c, sizeof *t);
    *t = (task){.schema = schema, .parent = c->at, .keyword = keyword, .name = name};
    t->index = c->n_task;
    c->tasks[c->n_task++] = t;
    *out = &t->rule;
    return true;
}

/* ---- keywords ---- */

/* Keywords by what they are about. */
enum {
    NOTE = 1, /* says nothing about the value */
    OF_TYPE = 2,
    OF_OBJECT = 4,
    OF_ARRAY = 8,
    OF_STRING = 16,
    OF_NUMBER = 32,
    OF_VALUES = 64,  /* enum, const */
    OF_OTHERS = 128, /* anyOf and the like */
    OF_NULL = 256
};

static const struct keyword {
    const char *name;
    unsigned group;
} keywords[] = {{"type", OF_TYPE},
                {"properties", OF_OBJECT},
                {"required", OF_OBJECT},
                {"additionalProperties", OF_OBJECT},
                {"propertyNames", OF_OBJECT},
                {"items", OF_ARRAY},
                {"prefixItems", OF_ARRAY},
                {"minItems", OF_ARRAY},
                {"maxItems", OF_ARRAY},
                {"uniqueItems", OF_ARRAY},
                {"minLength", OF_STRING},
                {"maxLength", OF_STRING},
                {"pattern", OF_STRING},
                {"format", OF_STRING},
                {"minimum", OF_NUMBER},
                {"maximum", OF_NUMBER},
                {"exclusiveMinimum", OF_NUMBER},
                {"exclusiveMaximum", OF_NUMBER},
                {"multipleOf", OF_NUMBER},
                {"enum", OF_VALUES},
                {"const", OF_VALUES},
                {"anyOf", OF_OTHERS},
                {"oneOf", OF_OTHERS},
                {"allOf", OF_OTHERS},
                {"$ref", OF_OTHERS},
                {"nullable", OF_NULL},
                {"title", NOTE},
                {"description", NOTE},
                {"default", NOTE},
                {"example", NOTE},
                {"examples", NOTE},
                {"deprecated", NOTE},
                {"readOnly", NOTE},
                {"writeOnly", NOTE},
                {"discriminator", NOTE},
                {"$schema", NOTE},
                {"$id", NOTE},
                {"$comment", NOTE},
                {"$defs", NOTE},
                {"definitions", NOTE}};

static bool find_groups(compiler *c, const json *schema, unsigned *groups) {
    *groups = 0;
    for (size_t i = 0; i < schema->n; i++) {
        const json *key = &schema->keys[i];
        unsigned group = 0;
        for (size_t k = 0; k < COUNT(keywords); k++)
            if (json_is_string(key, keywords[k].name)) group = keywords[k].group;
        if (!group) return unsupported(c, key->text);
        *groups |= group;
    }
    return true;
}

bool schema_list(compiler *c, const char *keyword, size_t most, const json **list) {
    *list = json_get(c->schema, keyword);
    if (!*list) return true;
    if ((*list)->kind != JSON_ARRAY) return bad(c, keyword, "has to be an array");
    return (*list)->n <= most ||
           schema_refuse(c, CARAT_E_UNSUPPORTED, keyword, "has too many items");
}

/* ---- types ---- */

static bool type_named(const json *name, uint32_t *types, bool *whole) {
    static const char *const names[] = {"null", "boolean", "number", "string", "array", "object"};
    for (size_t i = 0; i < COUNT(names); i++)
        if (json_is_string(name, names[i])) *types |= 1u << i;
    if (json_is_string(name, "number")) *whole = false;
    if (json_is_string(name, "integer")) *types |= TYPE_NUMBER;
    return json_is_string(name, "integer") || *types;
}

/* Without "type" the other keywords tell it. *whole: its numbers are integers. */
static bool read_types(compiler *c, unsigned groups, uint32_t *types, bool *whole) {
    const json *v = json_get(c->schema, "type");
    *types = (groups & OF_OBJECT ? TYPE_OBJECT : 0u) | (groups & OF_ARRAY ? TYPE_ARRAY : 0u) |
             (groups & OF_STRING ? TYPE_STRING : 0u) | (groups & OF_NUMBER ? TYPE_NUMBER : 0u);
    *whole = false;
    if (!*types) *types = TYPE_ALL;
    if (!v) return true;
    *types = 0;
    *whole = true;
    size_t n = v->kind == JSON_ARRAY ? v->n : 1;
    for (size_t i = 0; i < n; i++) {
        uint32_t one = 0;
        if (!type_named(v->kind == JSON_ARRAY ? &v->items[i] : v, &one, whole))
            return bad(c, "type", "has to be a type of JSON, or an array of some");
        *types |= one;
    }
    return true;
}

/* ---- references and alternatives ---- */

/* One step of a JSON pointer, with ~0 and ~1 (a $ref's %XX are not read). */
static const json *follow(const json *v, const char *step, size_t n) {
    char key[256];
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        char ch = step[i];
        if (ch == '~' && i + 1 < n) ch = step[++i] == '1' ? '/' : '~';
        if (len == sizeof key - 1) return NULL;
        key[len++] = ch;
    }
    key[len] = 0;
    if (v->kind == JSON_ARRAY) {
        size_t i = 0;
        for (const char *d = key; *d; d++) {
            if (*d < '0' || *d > '9' || i > SCHEMA_RULES) return NULL;
            i = i * 10 + (size_t)(*d - '0');
        }
        return json_at(v, i);
    }
    return json_get(v, key);
}

static bool read_reference(compiler *c, const json *ref, const json **out) {
    const char *s = json_string(ref, "");
    if (ref->kind != JSON_STRING || s[0] != '#' || (s[1] && s[1] != '/'))
        return schema_refuse(c, CARAT_E_UNSUPPORTED, "$ref",
                             "leads out of the schema: only # and #/... are followed");
    const json *v = c->root;
    for (s++; *s && v;) {
        size_t n = strcspn(++s, "/");
        v = follow(v, s, n);
        s += n;
    }
    *out = v;
    return v || bad(c, "$ref", "leads to nothing");
}

static bool read_others(compiler *c, rule *r, bool or_null) {
    static const char *const lists[] = {"anyOf", "oneOf", "allOf"};
    static const json null_type = {.kind = JSON_STRING, .text = "null", .len = 4};
    static const json type_key = {.kind = JSON_STRING, .text = "type", .len = 4};
    static const json null_schema = {
        .kind = JSON_OBJECT, .n = 1, .keys = (json *)&type_key, .items = (json *)&null_type};
    const json *schema = c->schema, *ref = json_get(schema, "$ref"), *list = NULL;
    const char *keyword = ref ? "$ref" : NULL;
    for (size_t i = 0; i < COUNT(lists); i++) {
        const json *found;
        if (!schema_list(c, lists[i], MAX_OTHERS - 1, &found)) return false;
        if (found && keyword)
            return schema_refuse(c, CARAT_E_UNSUPPORTED, lists[i],
                                 "has another such keyword beside it");
        if (found) list = found, keyword = lists[i];
    }
    if (list && list->n == 0) return bad(c, keyword, "has to have an item");
    if (list && list->n > 1 && json_get(schema, "allOf"))
        return schema_refuse(c, CARAT_E_UNSUPPORTED, "allOf",
                             "is only supported with a single item");
    r->other = arena_alloc(c->a, (list ? list->n : 1) + 1, sizeof *r->other);
    if (!r->other) return schema_memory(c, 0);
    if (ref && (!read_reference(c, ref, &ref) ||
                !schema_rule(c, ref, "$ref", NULL, &r->other[r->n_other++])))
        return false;
    for (size_t i = 0; list && i < list->n; i++)
        if (!schema_rule(c, &list->items[i], keyword, NULL, &r->other[r->n_other++])) return false;
    return !or_null || schema_rule(c, &null_schema, "nullable", NULL, &r->other[r->n_other++]);
}

/* ---- one rule ---- */

static bool compile(compiler *c, task *t) {
    static const json no_keywords = {.kind = JSON_OBJECT};
    unsigned groups;
    rule *r = &t->rule;
    bool whole;
    c->at = t;
    if (t->schema->kind == JSON_BOOL && !t->schema->truth) return true; /* of no type */
    c->schema = t->schema->kind == JSON_BOOL ? &no_keywords : t->schema;
    if (!find_groups(c, c->schema, &groups)) return false;
    bool or_null = json_bool(json_get(c->schema, "nullable"), false);
    if (groups & OF_OTHERS) {
        if (groups & ~(unsigned)(NOTE | OF_OTHERS | OF_NULL))
            return schema_refuse(c, CARAT_E_UNSUPPORTED,
                                 json_get(c->schema, "$ref") ? "$ref" : "anyOf, oneOf or allOf",
                                 "is only supported without other keywords beside it");
        return read_others(c, r, or_null);
    }
    if (!read_types(c, groups, &r->types, &whole)) return false;
    if (groups & OF_VALUES) {
        uint32_t types = groups & OF_TYPE ? r->types : TYPE_ALL;
        r->types = 0;
        if (groups & ~(unsigned)(NOTE | OF_VALUES | OF_TYPE | OF_NULL))
            return schema_refuse(c, CARAT_E_UNSUPPORTED,
                                 json_get(c->schema, "enum") ? "enum" : "const",
                                 "is only supported with no keyword but \"type\" beside it");
        return schema_values(c, r, types, whole, or_null);
    }
    if (or_null) r->types |= TYPE_NULL;
    return (!(r->types & TYPE_NUMBER) || schema_number(c, r, whole)) &&
           (!(r->types & TYPE_STRING) || schema_string(c, r)) &&
           (!(r->types & TYPE_ARRAY) || schema_array(c, r)) &&
           (!(r->types & TYPE_OBJECT) || schema_object(c, r));
}

/* ---- all rules ---- */

/* Finds what alternatives lead to in the end, each once; a circle leads to nothing. queue: room for
 * all tasks. */
static bool flatten(compiler *c, task *t, task **queue) {
    uint32_t n_queue = 1;
    queue[0] = t;
    t->seen = t->index + 1;
    t->flat = arena_alloc(c->a, MAX_OTHERS, sizeof *t->flat);
    if (!t->flat) return schema_memory(c, MAX_OTHERS * sizeof *t->flat);
    for (uint32_t i = 0; i < n_queue; i++) {
        rule *r = &queue[i]->rule;
        c->at = t;
        if (r->n_other == 0 && t->n_flat == MAX_OTHERS)
            return schema_refuse(c, CARAT_E_UNSUPPORTED, "anyOf", "has more than 128 alternatives");
        if (r->n_other == 0) t->flat[t->n_flat++] = r;
        for (uint32_t k = 0; k < r->n_other; k++) {
            task *next = (task *)(void *)r->other[k];
            if (next->seen != t->index + 1) queue[n_queue++] = next;
            next->seen = t->index + 1;
        }
    }
    return true;
}

static bool flatten_all(compiler *c) {
    task **queue = arena_alloc(c->a, SCHEMA_RULES, sizeof *queue);
    if (!queue) return schema_memory(c, SCHEMA_RULES * sizeof *queue);
    for (uint32_t i = 0; i < c->n_task; i++)
        if (c->tasks[i]->rule.n_other && !flatten(c, c->tasks[i], queue)) return false;
    for (uint32_t i = 0; i < c->n_task; i++) {
        c->tasks[i]->rule.other = c->tasks[i]->flat;
        c->tasks[i]->rule.n_other = c->tasks[i]->n_flat;
    }
    return true;
}

static uint32_t array_depth(const rule *r) {
    uint32_t inside = 0;
    if (r->min_items > r->max_items) return DEPTH_NEVER;
    for (uint32_t i = 0; i < r->n_first && i < r->min_items; i++)
        inside = max_u32(inside, r->first[i]->depth);
    if (r->min_items > r->n_first) inside = max_u32(inside, r->items->depth);
    return inside + 1;
}

static uint32_t object_depth(const rule *r) {
    uint32_t inside = 0;
    for (uint32_t i = 0; i < r->n_property; i++)
        if (r->properties[i].required) inside = max_u32(inside, r->properties[i].value->depth);
    return inside + 1;
}

/* The levels that a rule needs, from what its parts need so far. */
static uint32_t measure(rule *r) {
    uint32_t depth = DEPTH_NEVER;
    if (r->n_literal || r->types & ~(uint32_t)(TYPE_ARRAY | TYPE_OBJECT)) depth = 1;
    if (r->types & TYPE_ARRAY)
        r->array_depth = array_depth(r), depth = min_u32(depth, r->array_depth);
    if (r->types & TYPE_OBJECT)
        r->object_depth = object_depth(r), depth = min_u32(depth, r->object_depth);
    for (uint32_t i = 0; i < r->n_other; i++) depth = min_u32(depth, r->other[i]->depth);
    return depth > GRAMMAR_DEPTH ? DEPTH_NEVER : depth;
}

/* Depths only sink, and are at most GRAMMAR_DEPTH then: soon nothing changes any more. */
static void measure_all(compiler *c) {
    for (uint32_t i = 0; i < c->n_task; i++) c->tasks[i]->rule.depth = DEPTH_NEVER;
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t i = c->n_task; i-- > 0;) {
            rule *r = &c->tasks[i]->rule;
            uint32_t depth = measure(r);
            changed = changed || depth != r->depth;
            r->depth = depth;
        }
    }
}

bool schema_compile(arena *a, const char *text, size_t n, const rule **out, carat_error *err) {
    compiler *c = arena_alloc(a, 1, sizeof *c);
    json *root;
    rule *r;
    if (n > MAX_TEXT) return fail(err, CARAT_E_UNSUPPORTED, "json schema: it is longer than 1 MiB");
    if (!c) return fail_memory(err, sizeof *c, "a JSON schema");
    if (!json_parse(a, text, n, "json schema", &root, err)) return false;
    *c = (compiler){.a = a, .err = err, .root = root};
    if (!schema_rule(c, root, "the schema", NULL, &r)) return false;
    for (uint32_t i = 0; i < c->n_task; i++)
        if (!compile(c, c->tasks[i])) return false;
    if (!flatten_all(c)) return false;
    measure_all(c);
    *out = r;
    if (r->depth < GRAMMAR_DEPTH) return true;
    return fail(err, CARAT_E_FORMAT,
                "json schema: no value satisfies it, or only one nested deeper than %u levels",
                GRAMMAR_DEPTH - 1);
}
