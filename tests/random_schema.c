/* random_schema: see random_schema.h. */
#include "random_schema.h"

#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>

uint32_t random_below(uint64_t *state, uint32_t n) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (uint32_t)((z ^ z >> 31) >> 32) % n;
}

/* ---- making one --------------------------------------------------------------------------- */

typedef struct maker {
    buf *out;
    uint64_t *state;
    int depth;
} maker;

static uint32_t pick(maker *m, uint32_t n) { return random_below(m->state, n); }

static void make(maker *m);

static void make_number(maker *m, bool whole) {
    int low = (int)pick(m, 2000) - 1000, high = low + (int)pick(m, 3000);
    uint32_t kind = pick(m, 6);
    buf_printf(m->out, "{\"type\":\"%s\"", whole ? "integer" : "number");
    if (kind == 1 || kind == 3) buf_printf(m->out, ",\"minimum\":%d", low);
    if (kind & 2) buf_printf(m->out, ",\"exclusiveMaximum\":%d", high + 1);
    if (kind == 4) buf_printf(m->out, ",\"multipleOf\":%u", 1 + pick(m, 20));
    if (kind == 5 && !whole) buf_puts(m->out, ",\"maximum\":2.5,\"multipleOf\":0.25");
    buf_puts(m->out, "}");
}

static void make_string(maker *m) {
    static const char *const more[] = {
        "",
        ",\"minLength\":2",
        ",\"maxLength\":5",
        ",\"minLength\":3,\"maxLength\":8",
        ",\"pattern\":\"^[a-z]{2,5}$\"",
        ",\"pattern\":\"^(ab|a(c|d)+)*x?[0-9]$\",\"maxLength\":12",
        ",\"pattern\":\"^[^a-f]+[A-Z]$\"",
        ",\"format\":\"date\"",
        ",\"format\":\"uuid\"",
    };
    buf_printf(m->out, "{\"type\":\"string\"%s}", more[pick(m, COUNT(more))]);
}

static void make_enum(maker *m) {
    static const char *const values[] = {
        "1",      "12",   "123",       "\"red\"",       "\"re\"", "null",       "true", "\"\"",
        "[1,{}]", "-1.5", "{\"a\":1}", "\"a\\\"b\\n\"", "\"ä€\"", "\"red\\t\"", "10"};
    uint32_t n = 1 + pick(m, 6);
    buf_puts(m->out, "{\"enum\":[");
    for (uint32_t i = 0; i < n; i++)
        buf_printf(m->out, "%s%s", i ? "," : "", values[pick(m, COUNT(values))]);
    buf_puts(m->out, "]}");
}

static void make_array(maker *m) {
    uint32_t least = pick(m, 3);
    buf_puts(m->out, "{\"type\":\"array\",\"items\":");
    make(m);
    if (pick(m, 2)) buf_printf(m->out, ",\"minItems\":%u", least);
    if (pick(m, 2)) buf_printf(m->out, ",\"maxItems\":%u", least + pick(m, 4));
    if (pick(m, 4) == 0) {
        buf_puts(m->out, ",\"prefixItems\":[");
        make(m);
        buf_puts(m->out, ",");
        make(m);
        buf_puts(m->out, "]");
    }
    buf_puts(m->out, "}");
}

static void make_object(maker *m) {
    static const char *const names[] = {"name", "names", "n", "a b", "ä", "q\\\"", "", "id", "x1"};
    uint32_t first = pick(m, COUNT(names)), n = pick(m, 5), comma = 0, required = pick(m, 32);
    buf_puts(m->out, "{\"type\":\"object\",\"properties\":{");
    for (uint32_t i = 0; i < n; i++) {
        buf_printf(m->out, "%s\"%s\":", i ? "," : "", names[(first + i) % COUNT(names)]);
        make(m);
    }
    buf_puts(m->out, "},\"required\":[");
    for (uint32_t i = 0; i < n; i++)
        if (required >> i & 1)
            buf_printf(m->out, "%s\"%s\"", comma++ ? "," : "", names[(first + i) % COUNT(names)]);
    buf_puts(m->out, "]");
    if (pick(m, 3) == 0) buf_puts(m->out, ",\"additionalProperties\":false");
    if (pick(m, 3) == 0) {
        buf_puts(m->out, ",\"additionalProperties\":");
        make(m);
    }
    buf_puts(m->out, "}");
}

static void make_union(maker *m) {
    uint32_t n = 1 + pick(m, 3);
    buf_printf(m->out, "{\"%s\":[", pick(m, 2) ? "anyOf" : "oneOf");
    for (uint32_t i = 0; i < n; i++) {
        if (i) buf_puts(m->out, ",");
        make(m);
    }
    buf_puts(m->out, pick(m, 3) ? "]}" : "],\"nullable\":true}");
}

static void make(maker *m) {
    static const char *const plain[] = {"{}",
                                        "true",
                                        "{\"type\":\"null\"}",
                                        "{\"type\":\"boolean\",\"title\":\"t\"}",
                                        "{\"type\":[\"integer\",\"null\"]}",
                                        "{\"type\":\"object\"}",
                                        "{\"$ref\":\"#/$defs/tree\"}",
                                        "{\"allOf\":[{\"$ref\":\"#/$defs/list\"}]}"};
    uint32_t kind = pick(m, m->depth >= 3 ? 5 : 11);
    m->depth++;
    switch (kind) {
    case 0:
    case 1:
        make_number(m, kind == 0);
        break;
    case 2:
        make_string(m);
        break;
    case 3:
        make_enum(m);
        break;
    case 4:
        buf_puts(m->out, plain[pick(m, COUNT(plain))]);
        break;
    case 5:
    case 6:
        make_array(m);
        break;
    case 7:
        make_union(m);
        break;
    default:
        make_object(m);
    }
    m->depth--;
}

void random_schema(buf *out, uint64_t *state) {
    maker m = {.out = out, .state = state};
    buf_puts(out, "{\"$defs\":{\"tree\":{\"type\":\"object\",\"properties\":{\"v\":");
    m.depth = 2;
    make(&m);
    buf_puts(out, ",\"sub\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/tree\"}}},"
                  "\"required\":[\"sub\"]},\"list\":{\"anyOf\":[{\"type\":\"null\"},"
                  "{\"type\":\"object\",\"properties\":{\"next\":{\"$ref\":\"#/$defs/list\"}},"
                  "\"required\":[\"next\"]}]}},\"anyOf\":[");
    m.depth = 0;
    make(&m);
    buf_puts(out, "]}");
}

/* ---- checking ----------------------------------------------------------------------------- */

static bool wrong(const char **why, const char *what) {
    *why = what;
    return false;
}

static bool equal(const json *a, const json *b) {
    if (a->kind != b->kind || a->n != b->n) return false;
    if (a->kind == JSON_NUMBER) return json_number(a, 0) == json_number(b, 1);
    if (a->kind == JSON_STRING) return a->len == b->len && !memcmp(a->text, b->text, a->len);
    if (a->kind == JSON_BOOL) return a->truth == b->truth;
    for (size_t i = 0; i < a->n; i++) {
        if (a->kind == JSON_OBJECT && !equal(&a->keys[i], &b->keys[i])) return false;
        if (!equal(&a->items[i], &b->items[i])) return false;
    }
    return true;
}

static bool is_type(const json *name, const json *v) {
    static const char *const names[] = {"null", "boolean", "number", "string", "array", "object"};
    if (json_is_string(name, "integer"))
        return v->kind == JSON_NUMBER && json_number(v, 0.5) == floor(json_number(v, 0.5));
    return json_is_string(name, names[v->kind]);
}

static bool check_type(const json *type, const json *v) {
    if (!type || type->kind != JSON_ARRAY) return !type || is_type(type, v);
    for (size_t i = 0; i < type->n; i++)
        if (is_type(&type->items[i], v)) return true;
    return false;
}

static bool check_number(const json *s, const json *v, const char **why) {
    double x = json_number(v, NAN), step = json_number(json_get(s, "multipleOf"), 0);
    if (x < json_number(json_get(s, "minimum"), -INFINITY)) return wrong(why, "minimum");
    if (x > json_number(json_get(s, "maximum"), INFINITY)) return wrong(why, "maximum");
    if (x <= json_number(json_get(s, "exclusiveMinimum"), -INFINITY))
        return wrong(why, "exclusiveMinimum");
    if (x >= json_number(json_get(s, "exclusiveMaximum"), INFINITY))
        return wrong(why, "exclusiveMaximum");
    if (step > 0 && fabs(x / step - round(x / step)) > 1e-9) return wrong(why, "multipleOf");
    return true;
}

static bool matches(const char *expression, const char *text) {
    regex_t r;
    if (regcomp(&r, expression, REG_EXTENDED | REG_NOSUB)) return false;
    bool ok = regexec(&r, text, 0, NULL, 0) == 0;
    regfree(&r);
    return ok;
}

static bool is_date(const char *s) {
    static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int y, m, d;
    return matches("^[0-9]{4}-[0-9]{2}-[0-9]{2}$", s) && sscanf(s, "%d-%d-%d", &y, &m, &d) == 3 &&
           m >= 1 && m <= 12 && d >= 1 && d <= days[m - 1];
}

static bool check_string(const json *s, const json *v, const char **why) {
    double n = 0;
    for (size_t i = 0; i < v->len; i++) n += (v->text[i] & 0xc0) != 0x80;
    const char *expression = json_string(json_get(s, "pattern"), NULL);
    const json *format = json_get(s, "format");
    if (n < json_number(json_get(s, "minLength"), 0)) return wrong(why, "minLength");
    if (n > json_number(json_get(s, "maxLength"), INFINITY)) return wrong(why, "maxLength");
    if (expression && !matches(expression, v->text)) return wrong(why, "pattern");
    if (json_is_string(format, "date") && !is_date(v->text)) return wrong(why, "date");
    if (json_is_string(format, "uuid") &&
        !matches("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", v->text))
        return wrong(why, "uuid");
    return true;
}

static bool check_array(const json *root, const json *s, const json *v, const char **why) {
    const json *first = json_get(s, "prefixItems"), *rest = json_get(s, "items");
    if ((double)v->n < json_number(json_get(s, "minItems"), 0)) return wrong(why, "minItems");
    if ((double)v->n > json_number(json_get(s, "maxItems"), INFINITY))
        return wrong(why, "maxItems");
    for (size_t i = 0; i < v->n; i++) {
        const json *item = json_at(first, i);
        if (!item) item = rest;
        if (item && !schema_satisfied(root, item, &v->items[i], why)) return false;
    }
    return true;
}

static bool check_object(const json *root, const json *s, const json *v, const char **why) {
    const json *properties = json_get(s, "properties"), *required = json_get(s, "required");
    const json *extra = json_get(s, "additionalProperties");
    for (size_t i = 0; i < v->n; i++) {
        const json *key = &v->keys[i], *rule = NULL;
        for (size_t k = 0; k < i; k++)
            if (equal(key, &v->keys[k])) return wrong(why, "a key is there twice");
        for (size_t k = 0; properties && k < properties->n; k++)
            if (equal(&properties->keys[k], key)) rule = &properties->items[k];
        if (!rule) rule = extra;
        if (rule && !schema_satisfied(root, rule, &v->items[i], why)) return false;
    }
    for (size_t i = 0; required && i < required->n; i++)
        if (!json_get(v, required->items[i].text)) return wrong(why, "required");
    return true;
}

static bool check_any(const json *root, const json *list, const json *v, const char **why) {
    for (size_t i = 0; i < list->n; i++)
        if (schema_satisfied(root, &list->items[i], v, why)) return true;
    return false;
}

static const json *referred(const json *root, const char *to) {
    char name[64];
    const json *defs = json_get(root, "$defs");
    if (sscanf(to, "#/$defs/%63s", name) == 1) return json_get(defs, name);
    return root;
}

bool schema_satisfied(const json *root, const json *s, const json *v, const char **why) {
    static const char *const any[] = {"anyOf", "oneOf", "allOf"};
    if (s->kind == JSON_BOOL) return s->truth || wrong(why, "a schema of false");
    if (json_bool(json_get(s, "nullable"), false) && v->kind == JSON_NULL) return true;
    const json *ref = json_get(s, "$ref"), *list = json_get(s, "enum");
    const json *only = json_get(s, "const");
    if (ref && !schema_satisfied(root, referred(root, ref->text), v, why)) return false;
    for (size_t i = 0; i < COUNT(any); i++)
        if (json_get(s, any[i]) && !check_any(root, json_get(s, any[i]), v, why)) return false;
    if (!check_type(json_get(s, "type"), v)) return wrong(why, "type");
    bool found = !list;
    for (size_t i = 0; list && i < list->n; i++) found = found || equal(&list->items[i], v);
    if (!found) return wrong(why, "enum");
    if (only && !equal(only, v)) return wrong(why, "const");
    switch (v->kind) {
    case JSON_NUMBER:
        return check_number(s, v, why);
    case JSON_STRING:
        return check_string(s, v, why);
    case JSON_ARRAY:
        return check_array(root, s, v, why);
    case JSON_OBJECT:
        return check_object(root, s, v, why);
    default:
        return true;
    }
}
