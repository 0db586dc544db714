/* token/declare.c: tools, as JSON schema, in the form the model was trained on. It keeps what the
 * published template keeps of a schema, in its order, and drops the rest.
 *
 * Flow: chat.c puts the declarations at the end of the system turn. */
#include "token/prompt.h"

#include <string.h>

static void put_properties(prompt_writer *w, const json *map, bool skip_keywords);

static bool is_object(const json *v) { return v && v->kind == JSON_OBJECT; }
static bool is_filled(const json *v, json_kind kind) { return v && v->kind == kind && v->n; }

static bool is_text(const json *v) { return v && v->kind == JSON_STRING && v->len; }

static char upper(char c) { return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c; }

static void put_upper(prompt_writer *w, const char *text, size_t n) {
    char *copy = arena_copy(w->scratch, text, n);
    for (size_t i = 0; copy && i < n; i++) copy[i] = upper(copy[i]);
    if (copy)
        put_plain(w, copy, n);
    else
        w->p->text.failed = true;
}

/* Whether a schema's type is this one, whatever its case. */
static bool type_is(const json *schema, const char *name) {
    const json *type = json_get(schema, "type");
    if (!type || type->kind != JSON_STRING || type->len != strlen(name)) return false;
    for (size_t i = 0; i < type->len; i++)
        if (upper(type->text[i]) != name[i]) return false;
    return true;
}

/* A list of types in one string, as Python prints lists: ['STRING', 'NULL']. */
static void put_type_list(prompt_writer *w, const json *types) {
    put_mark(w, "[");
    for (size_t i = 0; i < types->n; i++) {
        const json *type = &types->items[i];
        if (i) put_mark(w, ", ");
        put_mark(w, "'");
        if (type->kind == JSON_STRING) put_upper(w, type->text, type->len);
        put_mark(w, "'");
    }
    put_mark(w, "]");
}

static void put_type(prompt_writer *w, const json *type) {
    put_mark(w, "type:<|\"|>");
    if (type && type->kind == JSON_STRING) put_upper(w, type->text, type->len);
    if (type && type->kind == JSON_ARRAY) put_type_list(w, type);
    put_mark(w, "<|\"|>");
}

static void put_description(prompt_writer *w, const json *schema) {
    const json *description = json_get(schema, "description");
    if (!is_text(description)) return;
    put_mark(w, "description:");
    put_quoted(w, description->text, description->len);
    put_mark(w, ",");
}

static void put_required(prompt_writer *w, const json *required) {
    put_mark(w, "required:");
    put_value(w, required, false);
}

/* One key of an array's `items`. */
static void put_item_key(prompt_writer *w, const json *key, const json *value) {
    if (json_is_string(key, "properties") && is_object(value)) {
        put_mark(w, "properties:{");
        put_properties(w, value, false);
        put_mark(w, "}");
    } else if (json_is_string(key, "required") && value->kind == JSON_ARRAY) {
        put_required(w, value);
    } else if (json_is_string(key, "type") && value->kind == JSON_STRING) {
        put_type(w, value);
    } else if (json_is_string(key, "type") && value->kind == JSON_ARRAY) {
        put_mark(w, "type:[");
        for (size_t i = 0; i < value->n; i++) {
            const json *type = &value->items[i];
            put_mark(w, i ? ",<|\"|>" : "<|\"|>");
            if (type->kind == JSON_STRING) put_upper(w, type->text, type->len);
            put_mark(w, "<|\"|>");
        }
        put_mark(w, "]");
    } else {
        put_plain(w, key->text, key->len);
        put_mark(w, ":");
        put_value(w, value, true);
    }
}

static void put_items(prompt_writer *w, const json *items) {
    size_t *order, n = sort_members(w, items, &order);
    bool first = true;
    put_mark(w, "items:{");
    for (size_t i = 0; i < n; i++) {
        const json *value = &items->items[order[i]];
        if (value->kind == JSON_NULL) continue;
        if (!first) put_mark(w, ",");
        first = false;
        put_item_key(w, &items->keys[order[i]], value);
    }
    put_mark(w, "},");
}

/* An object without a map of properties is its own map, less the words of the schema. */
static void put_nested(prompt_writer *w, const json *schema) {
    const json *map = json_get(schema, "properties"), *required = json_get(schema, "required");
    put_mark(w, "properties:{");
    put_properties(w, is_object(map) ? map : schema, !is_object(map));
    put_mark(w, "},");
    if (is_filled(required, JSON_ARRAY)) {
        put_required(w, required);
        put_mark(w, ",");
    }
}

static void put_property(prompt_writer *w, const json *schema) {
    const json *members = json_get(schema, "enum"), *items = json_get(schema, "items");
    put_description(w, schema);
    if (type_is(schema, "STRING") && is_filled(members, JSON_ARRAY)) {
        put_mark(w, "enum:");
        put_value(w, members, false);
        put_mark(w, ",");
    }
    if (type_is(schema, "ARRAY") && is_filled(items, JSON_OBJECT)) put_items(w, items);
    if (json_bool(json_get(schema, "nullable"), false)) put_mark(w, "nullable:true,");
    if (type_is(schema, "OBJECT")) put_nested(w, schema);
    put_type(w, json_get(schema, "type"));
}

static bool is_keyword(const json *key) {
    static const char *const keywords[] = {"description", "type", "properties", "required",
                                           "nullable"};
    for (size_t i = 0; i < COUNT(keywords); i++)
        if (json_is_string(key, keywords[i])) return true;
    return false;
}

static void put_properties(prompt_writer *w, const json *map, bool skip_keywords) {
    size_t *order, n = sort_members(w, map, &order);
    bool first = true;
    for (size_t i = 0; i < n; i++) {
        const json *key = &map->keys[order[i]];
        if (skip_keywords && is_keyword(key)) continue;
        if (!first) put_mark(w, ",");
        first = false;
        put_plain(w, key->text, key->len);
        put_mark(w, ":{");
        put_property(w, &map->items[order[i]]);
        put_mark(w, "}");
    }
}

/* Without a type the template forgets to close the brace, which the repair does not. */
static void put_parameters(prompt_writer *w, const json *parameters) {
    const json *properties = json_get(parameters, "properties");
    const json *required = json_get(parameters, "required"), *type = json_get(parameters, "type");
    put_mark(w, ",parameters:{");
    if (is_filled(properties, JSON_OBJECT)) {
        put_mark(w, "properties:{");
        put_properties(w, properties, false);
        put_mark(w, "},");
    }
    if (is_filled(required, JSON_ARRAY)) {
        put_required(w, required);
        put_mark(w, ",");
    }
    if (type) {
        put_type(w, type);
        put_mark(w, "}");
    } else if (w->repair) {
        put_mark(w, "type:<|\"|>OBJECT<|\"|>}");
    }
}

/* The same for a response that is no object. */
static void put_response(prompt_writer *w, const json *response) {
    put_mark(w, ",response:{");
    put_description(w, response);
    if (type_is(response, "OBJECT") || w->repair) {
        put_type(w, json_get(response, "type"));
        put_mark(w, "}");
    }
}

static void put_declaration(prompt_writer *w, const json *function) {
    const json *parameters = json_get(function, "parameters");
    const json *response = json_get(function, "response");
    put_mark(w, "<|tool>declaration:");
    put_plain_string(w, json_get(function, "name"));
    put_mark(w, "{description:<|\"|>");
    put_plain_string(w, json_get(function, "description"));
    put_mark(w, "<|\"|>");
    if (is_filled(parameters, JSON_OBJECT)) put_parameters(w, parameters);
    if (is_filled(response, JSON_OBJECT)) put_response(w, response);
    put_mark(w, "}<tool|>");
}

bool put_declarations(prompt_writer *w, const json *tools, carat_error *err) {
    for (size_t i = 0; tools && i < tools->n; i++) {
        const json *tool = &tools->items[i], *function = json_get(tool, "function");
        if (!function) function = tool; /* the bare form, without {"type":"function"} around it */
        if (!is_text(json_get(function, "name")))
            return fail(err, CARAT_E_FORMAT, "tools[%zu]: a function tool with a name is expected",
                        i);
        put_declaration(w, function);
    }
    return true;
}
