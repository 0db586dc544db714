// Random JSON Schemas whose values are short, and a validator of its own for what comes out.

/** mulberry32: a function of numbers below n. */
export function randomBelow(seed) {
    let state = seed;
    return (n) => {
        state = (state + 0x6d2b79f5) | 0;
        let t = Math.imul(state ^ (state >>> 15), 1 | state);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) % n;
    };
}

const words = ["fox", "owl", "a \"b\"\n", "", "käse", "foxes", 1, 12, -0.5, null, true,
    [1, {a: 2}]];
const names = ["name", "names", "n", "a b", "ä", "q\"\\", "id"];
const patterns = ["^[a-z]{2,5}$", "^(ab|cd?)+[0-9]$", "^[^a-f]{1,3}$", "^\\d{3}-\\w$"];

function number(below) {
    const low = below(200) - 100;
    return [{type: "integer", minimum: low, maximum: low + below(500)},
        {type: "integer", multipleOf: 1 + below(30), exclusiveMinimum: low, maximum: low + 900},
        {type: "number", minimum: low, exclusiveMaximum: low + 1 + below(9)},
        {type: "number", multipleOf: 0.25, minimum: -2, maximum: 2}, {type: "integer"},
        {type: "number"}][below(6)];
}

function string(below) {
    return [{type: "string", maxLength: below(9)}, {type: "string", minLength: 2, maxLength: 6},
        {type: "string", pattern: patterns[below(patterns.length)], maxLength: 8},
        {type: "string", format: "date"}, {type: "string", format: "time"}][below(5)];
}

function object(below, depth) {
    const first = below(names.length), n = below(4);
    const properties = {}, required = [];
    for (let i = 0; i < n; i++) {
        const name = names[(first + i) % names.length];
        properties[name] = value(below, depth + 1);
        if (below(2)) required.push(name);
    }
    return {type: "object", properties, required, additionalProperties: false};
}

function list(below, depth) {
    const minItems = below(3);
    const schema = {type: "array", items: value(below, depth + 1), minItems,
        maxItems: minItems + below(2)};
    if (below(4) === 0) schema.prefixItems = [value(below, depth + 1)];
    return schema;
}

const choice = (below) => ({enum: Array.from({length: 1 + below(5)},
    () => words[below(words.length)])});

function value(below, depth) {
    switch (below(depth > 2 ? 5 : 9)) {
    case 0: return number(below);
    case 1: return string(below);
    case 2: return choice(below);
    case 3: return {type: ["boolean", "null"]};
    case 4: return {$ref: "#/$defs/list"};
    case 5: return list(below, depth);
    case 6: return {anyOf: [value(below, depth + 1), value(below, depth + 1)], nullable: true};
    default: return object(below, depth);
    }
}

/** A schema that some value satisfies, all of which are short; $defs/list refers to itself. */
export function randomSchema(below) {
    return {$defs: {list: {type: "array", maxItems: 1, items: {$ref: "#/$defs/list"}}},
        anyOf: [value(below, 0)]};
}

const typeOf = (v) => v === null ? "null" : Array.isArray(v) ? "array" : typeof v;
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const isTime = (v) => /^([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(v);
const isDate = (v) => /^\d{4}-\d\d-\d\d$/.test(v) && !Number.isNaN(Date.parse(v)) &&
    new Date(v).getUTCDate() === Number(v.slice(8));

const checks = {
    type: (want, v) => [want].flat().some((t) => t === typeOf(v) ||
        (t === "integer" && Number.isInteger(v))),
    enum: (list, v) => list.some((item) => same(item, v)),
    anyOf: (list, v, root) => list.some((s) => faults(root, s, v).length === 0),
    $ref: (ref, v, root) => faults(root, root.$defs[ref.slice(8)], v).length === 0,
    minimum: (n, v) => v >= n,
    maximum: (n, v) => v <= n,
    exclusiveMinimum: (n, v) => v > n,
    exclusiveMaximum: (n, v) => v < n,
    multipleOf: (n, v) => Number.isInteger(v / n),
    minLength: (n, v) => [...v].length >= n,
    maxLength: (n, v) => [...v].length <= n,
    pattern: (p, v) => new RegExp(p, "u").test(v),
    format: (f, v) => f === "date" ? isDate(v) : isTime(v),
    minItems: (n, v) => v.length >= n,
    maxItems: (n, v) => v.length <= n,
    items: (s, v, root, {prefixItems = []}) => v.slice(prefixItems.length)
        .every((item) => faults(root, s, item).length === 0),
    prefixItems: (list, v, root) => list.slice(0, v.length)
        .every((s, i) => faults(root, s, v[i]).length === 0),
    properties: (p, v, root) => Object.keys(v)
        .every((k) => !Object.hasOwn(p, k) || faults(root, p[k], v[k]).length === 0),
    required: (list, v) => list.every((k) => Object.hasOwn(v, k)),
    additionalProperties: (_, v, root, {properties}) => Object.keys(v)
        .every((k) => Object.hasOwn(properties, k)),
};

/** The keywords of a schema that a value does not satisfy. */
export function faults(root, schema, v) {
    if (schema.nullable && v === null) return [];
    if (schema.type && !checks.type(schema.type, v)) return ["type"];
    return Object.keys(schema).filter((k) => checks[k] && !checks[k](schema[k], v, root, schema));
}
