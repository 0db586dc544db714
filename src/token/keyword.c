/* token/keyword.c: the keywords of one subschema that speak about values of one type: numbers,
 * strings, arrays, objects, and the values of enum and const.
 *
 * Flow: schema.c calls it for every subschema; what it finds in there becomes another one. */
#include "token/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PATTERN_TEXT = 1024, SCALE = 6 }; /* decimals of a number with bounds */
#define MAX_WHOLE  9007199254740991          /* what every reader of JSON holds exactly: 2^53 - 1 */
#define MAX_SCALED 1000000000000000000

static bool unsupported(compiler *c, const char *keyword, const char *why) {
    return schema_refuse(c, CARAT_E_UNSUPPORTED, keyword, why);
}

static bool bad(compiler *c, const char *keyword, const char *why) {
    return schema_refuse(c, CARAT_E_FORMAT, keyword, why);
}

static bool read_count(compiler *c, const char *keyword, uint32_t *out) {
    const json *v = json_get(c->schema, keyword);
    double n = json_number(v, 0);
    if (!v) return true;
    if (v->kind != JSON_NUMBER || n < 0 || n > 1e9 || n != (double)(uint32_t)n)
        return bad(c, keyword, "has to be a whole number from 0 to 1000000000");
    *out = (uint32_t)n;
    return true;
}

/* ---- numbers ---- */

typedef enum rounding { DOWN, UP } rounding;

/* A number times 10^scale, rounded; what is too large becomes a little more than MAX_SCALED. */
static int64_t scaled(const json *v, uint32_t scale, rounding how, bool *exact) {
    const char *s = v->text, *end = s + v->len;
    bool negative = *s == '-', point = false, rest = false, down;
    int64_t n = 0, exponent = 0, shift = scale;
    for (s += negative; s < end && *s != 'e' && *s != 'E'; s++) {
        if (*s == '.') {
            point = true;
        } else if (n > MAX_SCALED / 10 - 1) { /* no room */
            rest = rest || *s != '0';
            shift += !point;
        } else {
            n = n * 10 + (*s - '0');
            shift -= point;
        }
    }
    down = s + 1 < end && s[1] == '-';
    for (; s < end; s++)
        if (*s >= '0' && *s <= '9' && exponent < 100000) exponent = exponent * 10 + (*s - '0');
    for (shift += down ? -exponent : exponent; n && shift > 0 && n <= MAX_SCALED / 10; shift--)
        n *= 10;
    for (; n && shift < 0; shift++) {
        rest = rest || n % 10;
        n /= 10;
    }
    if (n && shift > 0) n = MAX_SCALED + 1;
    *exact = !rest && n <= MAX_SCALED;
    if (rest && negative == (how == DOWN)) n++;
    return negative ? -n : n;
}

/* Narrows the range to what a keyword says; *any: there is one. */
static bool read_bound(compiler *c, const char *keyword, rule *r, bool upper, bool exclusive,
                       bool *any) {
    const json *v = json_get(c->schema, keyword);
    bool exact = false;
    if (!v) return true;
    if (v->kind != JSON_NUMBER) return bad(c, keyword, "has to be a number");
    int64_t n = scaled(v, r->scale, upper ? DOWN : UP, &exact);
    if (exclusive && exact) n += upper ? -1 : 1;
    if (upper && n < r->high) r->high = n;
    if (!upper && n > r->low) r->low = n;
    *any = true;
    return true;
}

bool schema_number(compiler *c, rule *r, bool whole) {
    const json *v = json_get(c->schema, "multipleOf");
    bool any = whole, exact = false;
    r->scale = whole ? 0 : SCALE;
    r->high = whole ? MAX_WHOLE : MAX_SCALED;
    r->low = -r->high;
    if (!read_bound(c, "minimum", r, false, false, &any) ||
        !read_bound(c, "maximum", r, true, false, &any) ||
        !read_bound(c, "exclusiveMinimum", r, false, true, &any) ||
        !read_bound(c, "exclusiveMaximum", r, true, true, &any))
        return false;
    r->step = any || v ? 1 : 0;
    if (v) {
        if (v->kind != JSON_NUMBER || json_number(v, 0) <= 0)
            return bad(c, "multipleOf", "has to be a number above 0");
        r->step = scaled(v, r->scale, DOWN, &exact);
        if (!exact || r->step > MAX_SCALED)
            return unsupported(c, "multipleOf",
                               whole ? "has to be a whole number for integers"
                                     : "has to have at most 6 decimals and to be at most 10^12");
    }
    if (!r->step) return true;
    int64_t first = r->low / r->step; /* is any multiple within? */
    if (first * r->step < r->low) first++;
    if (r->low > r->high || first * r->step > r->high) r->types &= ~(uint32_t)TYPE_NUMBER;
    return true;
}

/* ---- strings ---- */

static const struct format {
    const char *name, *pattern;
} formats[] = {
#define DATE                                                                                       \
    "\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|"             \
    "02-(0[1-9]|1\\d|2[0-8]))"
#define TIME "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "T" TIME},
    {"uuid", "[\\da-f]{8}-[\\da-f]{4}-[\\da-f]{4}-[\\da-f]{4}-[\\da-f]{12}"},
    {"email", "[\\w+-]+(\\.[\\w+-]+)*@[A-Za-z\\d]+(-[A-Za-z\\d]+)*"
              "(\\.[A-Za-z\\d]+(-[A-Za-z\\d]+)*)+"},
    {"ipv4", "((25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)\\.){3}(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"},
};

static bool compile_pattern(compiler *c, const char *keyword, const char *text, size_t n,
                            const pattern **out) {
    for (uint32_t i = 0; i < c->n_pattern; i++)
        if (c->patterns[i].n == n && !memcmp(c->patterns[i].text, text, n)) {
            *out = c->patterns[i].compiled;
            return true;
        }
    if (n > MAX_PATTERN_TEXT || c->n_pattern == SCHEMA_PATTERNS)
        return unsupported(c, keyword, "is one pattern too many (64), or longer than 1024 bytes");
    pattern *p;
    const char *why;
    char message[128];
    if (!pattern_compile(c->a, text, n, &p, &why)) {
        if (!why) return schema_memory(c, sizeof *p);
        snprintf(message, sizeof message, "has something that is not supported: %s", why);
        return unsupported(c, keyword, message);
    }
    c->patterns[c->n_pattern].text = text;
    c->patterns[c->n_pattern].n = n;
    c->patterns[c->n_pattern++].compiled = *out = p;
    return true;
}

bool schema_string(compiler *c, rule *r) {
    const json *expression = json_get(c->schema, "pattern");
    const json *format = json_get(c->schema, "format");
    r->max_length = UINT32_MAX;
    if (!read_count(c, "minLength", &r->min_length) || !read_count(c, "maxLength", &r->max_length))
        return false;
    if (r->min_length > r->max_length) r->types &= ~(uint32_t)TYPE_STRING;
    if (!expression && !format) return true;
    const char *keyword = expression ? "pattern" : "format", *text = NULL;
    const json *v = expression ? expression : format;
    size_t n = v->len;
    if (v->kind != JSON_STRING) return bad(c, keyword, "has to be a string");
    if (expression && format)
        return unsupported(c, "format", "beside \"pattern\" is not supported");
    if (expression) text = v->text;
    for (size_t i = 0; format && i < COUNT(formats); i++)
        if (json_is_string(format, formats[i].name)) text = formats[i].pattern, n = strlen(text);
    if (!text)
        return unsupported(c, "format", "is none of date, time, date-time, uuid, email, ipv4");
    if (!compile_pattern(c, keyword, text, n, &r->pattern)) return false;
    if (r->min_length > r->pattern->shortest)
        return unsupported(c, "minLength",
                           "asks for more than the shortest match of the pattern beside it");
    if (r->max_length < r->pattern->shortest) r->types &= ~(uint32_t)TYPE_STRING;
    return true;
}

/* ---- arrays ---- */

bool schema_array(compiler *c, rule *r) {
    const json *first, *items = json_get(c->schema, "items");
    r->max_items = UINT32_MAX;
    if (!read_count(c, "minItems", &r->min_items) || !read_count(c, "maxItems", &r->max_items) ||
        !schema_list(c, "prefixItems", SCHEMA_LIST, &first))
        return false;
    if (json_bool(json_get(c->schema, "uniqueItems"), false))
        return unsupported(c, "uniqueItems", "is not supported");
    if (items && items->kind == JSON_ARRAY)
        return unsupported(c, "items", "is an array: write \"prefixItems\"");
    r->n_first = first ? (uint32_t)first->n : 0;
    r->first = arena_alloc(c->a, (size_t)r->n_first + 1, sizeof *r->first);
    if (!r->first) return schema_memory(c, r->n_first * sizeof *r->first);
    for (uint32_t i = 0; i < r->n_first; i++)
        if (!schema_rule(c, &first->items[i], "prefixItems", NULL, &r->first[i])) return false;
    return schema_rule(c, items ? items : &schema_anything, "items", NULL, &r->items);
}

/* ---- objects ---- */

static bool add_property(compiler *c, rule *r, const json *key, rule *value) {
    buf text = {0};
    json_write_string(&text, key->text, key->len);
    char *copy = text.failed ? NULL : arena_copy(c->a, text.data + 1, text.len - 2);
    if (copy)
        r->properties[r->n_property++] =
            (property){.key = {copy, text.len - 2}, .value = value, .required = false};
    buf_free(&text);
    return copy || schema_memory(c, key->len);
}

/* Marks a property as required; adds it when only additionalProperties says what it is. */
static bool require(compiler *c, rule *r, const json *name, const json **names) {
    uint32_t i = 0;
    if (name->kind != JSON_STRING) return bad(c, "required", "has to be an array of names");
    while (i < r->n_property &&
           (names[i]->len != name->len || memcmp(names[i]->text, name->text, name->len)))
        i++;
    if (i == r->n_property) {
        if (!r->extra) return bad(c, name->text, "is required, but it is not in \"properties\"");
        names[i] = name;
        if (!add_property(c, r, name, r->extra)) return false;
    }
    r->properties[i].required = true;
    return true;
}

/* Where "properties" is written and additionalProperties is not, there are no others. */
static bool read_extra(compiler *c, rule *r, bool has_properties) {
    const json *v = json_get(c->schema, "additionalProperties");
    if (v ? v->kind == JSON_BOOL && !v->truth : has_properties) return true;
    return schema_rule(c, v ? v : &schema_anything, "additionalProperties", NULL, &r->extra);
}

/* Some programs write {"type":"string"}, which says nothing. */
static bool check_names(compiler *c) {
    const json *v = json_get(c->schema, "propertyNames");
    bool plain = v && v->kind == JSON_OBJECT &&
                 (v->n == 0 || (v->n == 1 && json_is_string(json_get(v, "type"), "string")));
    return !v || plain ||
           unsupported(c, "propertyNames", "is only supported as {\"type\":\"string\"}");
}

bool schema_object(compiler *c, rule *r) {
    const json *properties = json_get(c->schema, "properties"), *required;
    size_t n = properties ? properties->n : 0;
    if (properties && properties->kind != JSON_OBJECT)
        return bad(c, "properties", "has to be an object");
    if (n > SCHEMA_LIST) return unsupported(c, "properties", "has too many members");
    if (!check_names(c) || !schema_list(c, "required", SCHEMA_LIST, &required)) return false;
    n += required ? required->n : 0;
    const json **names = arena_alloc(c->a, n + 1, sizeof *names);
    r->properties = arena_alloc(c->a, n + 1, sizeof *r->properties);
    if (!names || !r->properties) return schema_memory(c, n * sizeof *r->properties);
    for (size_t i = 0; properties && i < properties->n; i++) {
        const json *key = &properties->keys[i], *value = &properties->items[i];
        rule *own;
        bool again = false;
        for (size_t k = 0; k < r->n_property; k++)
            again = again ||
                    (names[k]->len == key->len && !memcmp(names[k]->text, key->text, key->len));
        if (again) return bad(c, key->text, "is there twice");
        names[r->n_property] = key;
        if (!schema_rule(c, value, "properties", key->text, &own) || !add_property(c, r, key, own))
            return false;
    }
    if (!read_extra(c, r, properties != NULL)) return false;
    for (size_t i = 0; required && i < required->n; i++)
        if (!require(c, r, &required->items[i], names)) return false;
    return true;
}

/* ---- enum and const ---- */

static int compare_literals(const void *a, const void *b) {
    const literal *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    return order ? order : x->n < y->n ? -1 : x->n > y->n;
}

static uint32_t type_of(const json *v, bool whole) {
    static const uint32_t types[] = {TYPE_NULL,   TYPE_BOOL,  TYPE_NUMBER,
                                     TYPE_STRING, TYPE_ARRAY, TYPE_OBJECT};
    bool fraction =
        v->kind == JSON_NUMBER && (memchr(v->text, '.', v->len) || memchr(v->text, 'e', v->len) ||
                                   memchr(v->text, 'E', v->len));
    return whole && fraction ? 0 : types[v->kind];
}

static bool write_literal(compiler *c, const json *v, literal *out) {
    buf text = {0};
    json_write(&text, v);
    char *copy = text.failed ? NULL : arena_copy(c->a, text.data, text.len);
    *out = (literal){copy, text.len};
    buf_free(&text);
    return copy || schema_memory(c, v->len);
}

bool schema_values(compiler *c, rule *r, uint32_t types, bool whole, bool or_null) {
    static const json null = {.kind = JSON_NULL};
    const json *all, *only = json_get(c->schema, "const");
    if (!schema_list(c, "enum", SCHEMA_LITERALS - 2, &all)) return false;
    size_t n = all ? all->n : 1;
    if ((c->n_literal += (uint32_t)n + 1) > SCHEMA_LITERALS)
        return unsupported(c, "enum", "is one value too many (65536 in all)");
    literal *list = arena_alloc(c->a, n + 1, sizeof *list), constant = {0};
    if (!list) return schema_memory(c, n * sizeof *list);
    if (only && !write_literal(c, only, &constant)) return false;
    for (size_t i = 0; i <= n; i++) {
        const json *v = i == n ? &null : all ? &all->items[i] : only;
        if (i == n ? !or_null : !(types & type_of(v, whole))) continue;
        if (!write_literal(c, v, &list[r->n_literal])) return false;
        if (i == n || !only || !compare_literals(&list[r->n_literal], &constant)) r->n_literal++;
    }
    qsort(list, r->n_literal, sizeof *list, compare_literals);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < r->n_literal; i++)
        if (i == 0 || compare_literals(&list[i], &list[kept - 1])) list[kept++] = list[i];
    r->n_literal = kept;
    r->literals = list;
    return true;
}
