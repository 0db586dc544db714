/* Structured output: what the grammar machine takes and refuses, schema by schema; random schemas
 * whose every state leads to a whole value; and schemas that mean harm. */
#include "token/token.h"

#include "random_schema.h"
#include "test_memory.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static grammar *grammar_of(arena *a, const char *schema) {
    carat_error err = {0};
    grammar *g = NULL;
    if (!grammar_create(a, schema, &g, &err)) fail_msg("%s: %s", schema, err.message);
    return g;
}

/* How many bytes of text [n] are taken, one after the other. */
static size_t taken(grammar *g, const char *text, size_t n) {
    size_t i = 0;
    while (i < n && grammar_accept(g, text + i, 1)) i++;
    return i;
}

/* ---- schema by schema --------------------------------------------------------------------- */

/* Texts, one a line: whole values; and what no value is, or (behind a !) not even begins with. */
typedef struct row {
    const char *schema, *good, *bad;
} row;

static const row rows[] = {
    {"{}", "1\n\"\"\ntrue\nfalse\nnull\n[]\n{}\n[1, [2,[]], {\"a\": {}}]\n{\"a\":1, \"b\":[]}",
     " 1\n[ 1]\n[1 ,2]\n{ \"a\":1}\n{\"a\" :1}\n{\"a\":  1}\n[1,  2]\n[1,]\n{,}\n{\"a\":1,}\n"
     "{\"a\":1,\"a\":2}\nnul\ntru \n01\n+1\n.5\n1.\n1e\n--1\n[1}\n{]\n\"\n'a'\n[1 ]\n{\"a\":1 }"},
    {"true", "1\n\"a\"\n{}", "x\n,"},
    {"{\"type\":\"null\"}", "null", "0\n\"null\"\nNull\nnull "},
    {"{\"type\":\"boolean\"}", "true\nfalse", "1\n\"true\"\ntruefalse\nfal"},
    {"{\"type\":[\"boolean\",\"null\"]}", "true\nfalse\nnull", "0\n\"\""},
    {"{\"type\":\"boolean\",\"nullable\":true}", "true\nnull", "0"},
    {"{\"type\":\"integer\"}", "0\n7\n-1\n9007199254740991\n-9007199254740991",
     "-0\n00\n1.0\n1e3\n9007199254740992\n99999999999999999\n-\n\"1\""},
    {"{\"type\":\"integer\",\"minimum\":3}", "3\n4\n10\n99\n300", "2\n0\n-3\n1"},
    {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":17}", "3\n9\n10\n17",
     "2\n18\n20\n100\n-3\n1"},
    {"{\"type\":\"integer\",\"minimum\":-12,\"maximum\":-5}", "-12\n-10\n-5\n-9",
     "-4\n-13\n0\n5\n12\n-1"},
    {"{\"type\":\"integer\",\"minimum\":-5,\"maximum\":5}", "-5\n0\n5\n-1", "-6\n6\n10\n-0"},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":0,\"exclusiveMaximum\":3}", "1\n2", "0\n3\n-1"},
    {"{\"type\":\"integer\",\"minimum\":1.5,\"maximum\":3.5}", "2\n3", "1\n4"},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":1.5,\"exclusiveMaximum\":3.5}", "2\n3", "1\n4"},
    {"{\"type\":\"integer\",\"minimum\":1e3,\"maximum\":1.2e3}", "1000\n1111\n1200",
     "999\n1201\n2000\n100"},
    {"{\"type\":\"integer\",\"multipleOf\":7,\"minimum\":50,\"maximum\":60}", "56",
     "50\n57\n60\n49\n63\n55\n6"},
    {"{\"type\":\"integer\",\"multipleOf\":5}", "0\n5\n10\n-15\n12345", "1\n3\n-7\n12"},
    {"{\"type\":\"integer\",\"maximum\":-100}", "-100\n-101\n-9999", "-99\n0\n1\n100"},
    {"{\"type\":\"integer\",\"minimum\":1000000,\"maximum\":1000000}", "1000000",
     "1\n100000\n10000000\n1000001"},
    {"{\"type\":\"number\"}", "0\n-0\n1.5\n1e5\n-2.5E-3\n0.1e+9\n123456789012345",
     "01\n1.\n.1\n1e\n1e+\n1.e5\n1e123\n1234567890123456\n-\n0x1\nNaN\nInfinity"},
    {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}", "0\n1\n0.5\n1.0\n0.999999\n1.000000",
     "1.1\n-0.1\n2\n1.000001\n0.1234567\n1e-1\n-0"},
    {"{\"type\":\"number\",\"minimum\":-1.5,\"maximum\":2.25}", "-1.5\n-0.25\n2.25\n0\n2.2",
     "-1.6\n2.26\n2.3\n3\n-2\n-0\n-0.0"},
    {"{\"type\":\"number\",\"exclusiveMinimum\":0}", "0.000001\n1\n12.5", "0\n0.0\n-1\n0.000000"},
    {"{\"type\":\"number\",\"multipleOf\":0.01}", "0.01\n3.14\n2\n-1.5\n1.500000", "0.001\n3.141"},
    {"{\"type\":[\"integer\",\"number\"]}", "1\n1.5", "a"},
    {"{\"minimum\":5}", "5\n6.5", "4\n\"a\""},
    {"{\"type\":\"string\"}",
     "\"\"\n\"a\"\n\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"\n\"\\u00e4\\uD83D\\uDE00\\u0000\\ud7FF\"\n"
     "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\x7f\"\n\"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\"",
     "\"\t\"\n\"\\x\"\n\"\\u12\"\n\"\\ud83d\"\n\"\\ud83dx\"\n\"\\ud83d\\n\"\n\"\\ud83d\\u0041\"\n"
     "\"\\ude00\"\n\"\x80\"\n\"\xc3\"\n\"\xc0\x80\"\n\"\xed\xa0\x80\"\n\"\xf5\"\n\"\xe0\x80\x80\"\n"
     "\"\xf0\x80\x80\x80\"\n\"\xf4\x90\x80\x80\"\n\"\xff\"\n\"\\U0041\"\na\n\"a\"b\"\n'a'"},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     "\"ab\"\n\"abc\"\n\"\xc3\xa4\xc3\xa4\"\n\"\\n\\n\\n\"\n\"\\ud83d\\ude00\\ud83d\\ude00\"\n"
     "\"\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80\"",
     "\"a\"\n\"\"\n\"abcd\"\n\"\\ud83d\\ude00\"\n\"\xc3\xa4\"\n\"\\u0041\""},
    {"{\"minLength\":1}", "\"a\"", "\"\"\n1"},
    {"{\"type\":\"string\",\"maxLength\":0}", "\"\"", "\"a\"\n\"\\n\""},
    {"{\"type\":\"string\",\"pattern\":\"^a+b?$\"}", "\"a\"\n\"aaab\"",
     "\"\"\n\"b\"\n\"abb\"\n\"ac\""},
    {"{\"type\":\"string\",\"pattern\":\"^(foo|ba[rz])-\\\\d{2,3}$\"}",
     "\"foo-12\"\n\"bar-123\"\n\"baz-00\"",
     "\"foo-1\"\n\"bar-1234\"\n\"ba-12\"\n\"fo\"\n\"foobar-1\""},
    {"{\"type\":\"string\",\"pattern\":\"[\xc3\xa4-\xc3\xbc]{2}\"}", "\"\xc3\xa4\xc3\xbc\"",
     "\"\xc3\xa3\"\n\"a\"\n\"\xc3\xa4\"\n\"\xc4\x80\""},
    {"{\"type\":\"string\",\"pattern\":\"^[^a]\\\\S\\\\w\\\\D$\"}", "\"bcdx\"\n\"\\\\\\\"_\\n\"",
     "\"acdx\"\n\"b cx\"\n\"bc-x\"\n\"bcd5\"\n\"\\u0062"},
    {"{\"type\":\"string\",\"pattern\":\"^(a|b){2,}$|^c{3}$\"}", "\"ab\"\n\"bbbb\"\n\"ccc\"",
     "\"a\"\n\"cc\"\n\"cccc\"\n\"abc\""},
    {"{\"type\":\"string\",\"pattern\":\"^x*$\",\"maxLength\":2}", "\"\"\n\"xx\"", "\"xxx\""},
    {"{\"type\":\"string\",\"pattern\":\"^(ab)+$\",\"maxLength\":5}", "\"ab\"\n\"abab\"",
     "\"ababa\"\n\"ababab\"\n\"a\""},
    {"{\"type\":\"string\",\"pattern\":\"^(?:a?b?){2}\\\\.$\"}",
     "\".\"\n\"a.\"\n\"ba.\"\n\"abab.\"", "\"aaa\"\n\"ababa\"\n\"a\""},
    {"{\"type\":\"string\",\"pattern\":\"^\\\\u00e4[\\\\x41\\\\]-]+?$\"}",
     "\"\xc3\xa4"
     "A]-\"",
     "\"\xc3\xa4\"\n\"a\""},
    {"{\"type\":\"string\",\"format\":\"date\"}", "\"2024-02-28\"\n\"1999-12-31\"\n\"0001-04-30\"",
     "\"2024-13\"\n\"2024-02-30\"\n\"2024-04-31\"\n\"24-01-01\"\n\"2024-00\"\n\"2024-1-1\""},
    {"{\"type\":\"string\",\"format\":\"time\"}",
     "\"00:00:00Z\"\n\"23:59:59.5+01:30\"\n\"12:30:00.123456-00:00\"",
     "\"24\"\n\"12:60\"\n\"12:00Z\"\n\"12:00:00\"\n\"1:00:00Z\""},
    {"{\"type\":\"string\",\"format\":\"date-time\"}", "\"2024-06-30T12:00:00Z\"",
     "\"2024-06-31\"\n\"2024-06-30 12\"\n\"2024-06-30\""},
    {"{\"type\":\"string\",\"format\":\"uuid\"}", "\"123e4567-e89b-12d3-a456-426614174000\"",
     "\"123e4567e\"\n\"123g\"\n\"\""},
    {"{\"type\":\"string\",\"format\":\"email\"}", "\"a@b.c\"\n\"x.y+z@mail-1.example.org\"",
     "\"a\"\n\"@\"\n\"a@b\"\n\"a..b\"\n\"a@-\"\n\"a b\""},
    {"{\"type\":\"string\",\"format\":\"ipv4\"}", "\"0.0.0.0\"\n\"255.19.100.7\"",
     "\"256\"\n\"1.2.3\"\n\"01\"\n\"1.2.3.4.\""},
    {"{\"enum\":[\"a\",\"ab\",\"b\",1,12,null,true,[1,{\"x\":\"y\"}]]}",
     "\"a\"\n\"ab\"\n\"b\"\n1\n12\nnull\ntrue\n[1,{\"x\":\"y\"}]",
     "\"\"\n\"abc\"\n\"bb\"\n2\n123\nfalse\n[1]\n![1, {"},
    {"{\"enum\":[\"a\",1,1.5,null],\"type\":\"integer\"}", "1", "\"a\"\nnull\n1.5"},
    {"{\"enum\":[\"a\"],\"nullable\":true}", "\"a\"\nnull", "\"b\""},
    {"{\"const\":\"x\\ny\"}", "\"x\\ny\"", "\"x\ny\"\n\"xy\""},
    {"{\"const\":{\"a\":[]}}", "{\"a\":[]}", "{\"a\": []}\n{}"},
    {"{\"const\":\"a\",\"enum\":[\"a\",\"b\"],\"type\":\"string\"}", "\"a\"", "\"b\""},
    {"{\"type\":\"array\"}", "[]\n[1,\"a\"]", "{}\n[,]"},
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}",
     "[1]\n[1,2]\n[1, 2, 3]", "[]\n[1,2,3,4]\n![1,2,3,\n[\"a\"]\n[1,]"},
    {"{\"type\":\"array\",\"maxItems\":0}", "[]", "[1]\n![["},
    {"{\"type\":\"array\",\"items\":false}", "[]", "[1]\n![["},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\"},{\"type\":\"null\"}],\"items\":"
     "{\"type\":\"boolean\"}}",
     "[]\n[\"a\"]\n[\"a\",null]\n[\"a\",null,true,false]", "[1]\n[\"a\",1]\n[\"a\",null,null]"},
    {"{\"prefixItems\":[{\"type\":\"string\"},{}],\"items\":false,\"minItems\":2}", "[\"a\",1]",
     "[]\n[\"a\"]\n[\"a\",1,2]"},
    {"{\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\"}}}", "[[[]]]\n[[],[[],[]]]",
     "[1]\n[[1]]"},
    {"{\"type\":\"object\"}",
     "{}\n{\"a\":1}\n{\"a\":{\"a\":1},\"b\":2}\n{\"\":0}\n{\"\xc3\xa4\":0}",
     "[]\n{\"a\":1,\"a\":1}\n{\"a\\n\":1}\n{\"\xc3\":1}\n{a:1}\n{\"a\"}\n{\"a\":}"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"null\"}},"
     "\"required\":[\"a\"]}",
     "{\"a\":1}\n{\"a\":1,\"b\":null}\n{\"a\": 1, \"b\": null}",
     "{}\n{\"b\":null}\n!{\"a\":1,\"c\"\n!{\"a\":1,\"a\"\n!{\"a\":\"x\"\n!{\"b\""},
    {"{\"type\":\"object\",\"properties\":{\"a\":{},\"ab\":{},\"b\":{}},\"required\":[]}",
     "{}\n{\"a\":1}\n{\"ab\":1}\n{\"b\":1}\n{\"a\":1,\"ab\":2,\"b\":3}\n{\"a\":1,\"b\":2}",
     "!{\"b\":1,\"a\"\n!{\"abc\"\n!{\"b\":1,\n!{\"ab\":1,\"a\""},
    {"{\"properties\":{\"a\":{}},\"additionalProperties\":{\"type\":\"integer\"}}",
     "{}\n{\"a\":\"x\"}\n{\"b\":1}\n{\"a\":\"x\",\"b\":1,\"c\":2}\n{\"aa\":1}",
     "{\"b\":\"x\"}\n!{\"b\":1,\"a\"\n{\"b\":1,\"b\":2}\n!{\"a\":1,\"a\""},
    {"{\"propertyNames\":{\"type\":\"string\"},\"additionalProperties\":{\"type\":\"null\"}}",
     "{}\n{\"a\":null}", "!{\"a\":1"},
    {"{\"required\":[\"x\",\"y\"]}", "{\"x\":1,\"y\":2}\n{\"x\":1,\"y\":2,\"z\":3}",
     "{}\n{\"x\":1}\n!{\"y\":1\n!{\"z\":1"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"}},\"required\":[\"a\",\"b\"],"
     "\"additionalProperties\":{\"type\":\"null\"}}",
     "{\"a\":null,\"b\":null}", "{\"a\":null}\n!{\"b\":null"},
    {"{\"type\":\"object\",\"additionalProperties\":false}", "{}", "!{\"a\""},
    {"{\"type\":\"object\",\"properties\":{\"a\":false,\"b\":true}}", "{}\n{\"b\":1}", "!{\"a\""},
    {"{\"type\":\"object\",\"properties\":{\"q\\\"\\n\":{\"type\":\"null\"},\"\\u00e4\":{}}}",
     "{\"q\\\"\\n\":null,\"\xc3\xa4\":1}", "!{\"q\"\n!{\"q\\n\"\n!{\"\\u00e4\""},
    {"{\"type\":\"object\",\"properties\":{\"\":{\"type\":\"null\"}}}", "{}\n{\"\":null}",
     "!{\"a\""},
    {"{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"integer\"}]}", "\"a\"\n12", "true\n[]\n1.5"},
    {"{\"oneOf\":[{\"const\":\"ab\"},{\"type\":\"string\",\"maxLength\":1},{\"type\":\"null\"}]}",
     "\"ab\"\n\"x\"\n\"a\"\nnull\n\"\"", "\"abc\"\n\"xb\""},
    {"{\"anyOf\":[{\"properties\":{\"k\":{\"const\":\"a\"},\"n\":{\"type\":\"integer\"}},"
     "\"required\":[\"k\",\"n\"]},{\"properties\":{\"k\":{\"const\":\"ab\"}},\"required\":[\"k\"]}]"
     "}",
     "{\"k\":\"a\",\"n\":1}\n{\"k\":\"ab\"}", "{\"k\":\"a\"}\n!{\"k\":\"ab\",\n{}\n!{\"k\":\"b"},
    {"{\"anyOf\":[{\"type\":\"integer\",\"maximum\":5},{\"type\":\"number\",\"minimum\":100}]}",
     "5\n-3\n100\n100.5\n123", "6\n10\n0.5\n99"},
    {"{\"anyOf\":[{\"items\":{\"type\":\"integer\"}},{\"items\":{\"type\":\"string\"}}]}",
     "[]\n[1,2]\n[\"a\",\"b\"]", "![1,\"a\"\n![\"a\",1"},
    {"{\"allOf\":[{\"type\":\"null\"}],\"description\":\"x\"}", "null", "1"},
    {"{\"anyOf\":[{\"type\":\"null\"}],\"nullable\":true,\"$comment\":\"\"}", "null", "1"},
    {"{\"$ref\":\"#/definitions/a~1b\",\"definitions\":{\"a/b\":{\"type\":\"null\"}}}", "null",
     "1"},
    {"{\"$ref\":\"#/$defs/x/anyOf/1\",\"$defs\":{\"x\":{\"anyOf\":[{},{\"type\":\"null\"}]}}}",
     "null", "1"},
    {"{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"next\":{\"anyOf\":["
     "{\"$ref\":\"#\"},{\"type\":\"null\"}]}},\"required\":[\"v\",\"next\"]}",
     "{\"v\":1,\"next\":null}\n{\"v\":1,\"next\":{\"v\":2,\"next\":null}}",
     "{\"v\":1}\n!{\"v\":1,\"next\":1"},
    {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", "null", "1"},
    {"{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}", "[]\n[[],[[]]]", "[1]"},
    {"{\"type\":\"string\",\"minimum\":5,\"title\":\"t\",\"default\":3,\"examples\":[1]}", "\"a\"",
     "5"},
    {"{\"type\":\"integer\",\"format\":\"int32\"}", "5", "\"a\""},
};

/* Taken byte by byte, and taken whole when every prefix was; and whole values end. */
static void accept(const row *r, const char *text, size_t n) {
    arena *a = arena_create(NULL);
    grammar *g = grammar_of(a, r->schema), *at_once = grammar_of(a, r->schema);
    size_t k = taken(g, text, n);
    if (k < n) fail_msg("%s: refused %.*s at byte %zu", r->schema, (int)n, text, k);
    if (!grammar_ends(g)) fail_msg("%s: %.*s does not end", r->schema, (int)n, text);
    assert_true(grammar_allows(at_once, text, n));
    assert_false(grammar_began(at_once));
    assert_true(grammar_accept(at_once, text, n));
    assert_true(grammar_began(at_once) && grammar_ends(at_once));
    assert_false(grammar_allows(g, " ", 1));
    arena_free(a);
}

static void refuse(const row *r, const char *text, size_t n) {
    arena *a = arena_create(NULL);
    grammar *g = grammar_of(a, r->schema);
    bool never = *text == '!';
    text += never;
    n -= never;
    bool allowed = grammar_allows(g, text, n);
    if (taken(g, text, n) == n && (never || grammar_ends(g)))
        fail_msg("%s: accepted %.*s", r->schema, (int)n, text);
    if (!allowed) assert_false(grammar_accept(grammar_of(a, r->schema), text, n));
    arena_free(a);
}

static void test_rows(void **state) {
    (void)state;
    size_t n_good = 0, n_bad = 0;
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (const char *s = rows[i].good, *end; *s; s = end + (*end == '\n'), n_good++) {
            end = s + strcspn(s, "\n");
            accept(&rows[i], s, (size_t)(end - s));
        }
        for (const char *s = rows[i].bad, *end; *s; s = end + (*end == '\n'), n_bad++) {
            end = s + strcspn(s, "\n");
            refuse(&rows[i], s, (size_t)(end - s));
        }
    }
    print_message("%zu schemas, %zu values taken, %zu refused\n", COUNT(rows), n_good, n_bad);
}

/* ---- what is not understood --------------------------------------------------------------- */

static const struct refusal {
    const char *schema;
    carat_code code;
    const char *says;
} refusals[] = {
    {"", CARAT_E_FORMAT, "json schema: value missing at byte 0"},
    {"[]", CARAT_E_FORMAT, "has to be a schema"},
    {"3", CARAT_E_FORMAT, "has to be a schema"},
    {"{\"type\":\"int\"}", CARAT_E_FORMAT, "\"type\" at # has to be a type of JSON"},
    {"{\"not\":{}}", CARAT_E_UNSUPPORTED, "\"not\" at # is not supported"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"items\":{\"if\":true}}}}", CARAT_E_UNSUPPORTED,
     "\"if\" at #/properties/a/items is not supported"},
    {"{\"anyOf\":[{},{\"patternProperties\":{}}]}", CARAT_E_UNSUPPORTED,
     "\"patternProperties\" at #/anyOf/1"},
    {"{\"anyOf\":[],\"type\":\"null\"}", CARAT_E_UNSUPPORTED, "without other keywords"},
    {"{\"anyOf\":[]}", CARAT_E_FORMAT, "has to have an item"},
    {"{\"anyOf\":{}}", CARAT_E_FORMAT, "has to be an array"},
    {"{\"anyOf\":[{}],\"oneOf\":[{}]}", CARAT_E_UNSUPPORTED, "another such keyword"},
    {"{\"allOf\":[{},{}]}", CARAT_E_UNSUPPORTED, "with a single item"},
    {"{\"$ref\":\"http://x/y\"}", CARAT_E_UNSUPPORTED, "leads out of the schema"},
    {"{\"$ref\":\"#/$defs/none\"}", CARAT_E_FORMAT, "leads to nothing"},
    {"{\"$ref\":\"#/$ref\"}", CARAT_E_FORMAT, "has to be a schema"},
    {"{\"$ref\":\"#\"}", CARAT_E_FORMAT, "no value satisfies it"},
    {"{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/"
     "a\"}}}",
     CARAT_E_FORMAT, "no value satisfies it"},
    {"{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", CARAT_E_FORMAT,
     "no value satisfies it"},
    {"false", CARAT_E_FORMAT, "no value satisfies it"},
    {"{\"type\":[]}", CARAT_E_FORMAT, "no value satisfies it"},
    {"{\"enum\":[]}", CARAT_E_FORMAT, "no value satisfies it"},
    {"{\"enum\":[1],\"type\":\"string\"}", CARAT_E_FORMAT, "no value satisfies it"},
    {"{\"type\":\"integer\",\"minimum\":5,\"maximum\":4}", CARAT_E_FORMAT, "no value satisfies it"},
    {"{\"type\":\"integer\",\"minimum\":1.2,\"maximum\":1.8}", CARAT_E_FORMAT, "no value"},
    {"{\"type\":\"integer\",\"multipleOf\":7,\"minimum\":1,\"maximum\":6}", CARAT_E_FORMAT,
     "no value"},
    {"{\"type\":\"integer\",\"minimum\":1e300}", CARAT_E_FORMAT, "no value"},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":1}", CARAT_E_FORMAT, "no value"},
    {"{\"type\":\"array\",\"minItems\":2,\"items\":false}", CARAT_E_FORMAT, "no value"},
    {"{\"type\":\"array\",\"minItems\":2,\"maxItems\":1}", CARAT_E_FORMAT, "no value"},
    {"{\"enum\":[1],\"minimum\":0}", CARAT_E_UNSUPPORTED, "no keyword but \"type\""},
    {"{\"enum\":3}", CARAT_E_FORMAT, "has to be an array"},
    {"{\"minLength\":-1}", CARAT_E_FORMAT, "has to be a whole number"},
    {"{\"minLength\":\"1\"}", CARAT_E_FORMAT, "has to be a whole number"},
    {"{\"minimum\":\"1\"}", CARAT_E_FORMAT, "has to be a number"},
    {"{\"exclusiveMinimum\":true}", CARAT_E_FORMAT, "has to be a number"},
    {"{\"multipleOf\":0}", CARAT_E_FORMAT, "above 0"},
    {"{\"multipleOf\":0.0000001}", CARAT_E_UNSUPPORTED, "at most 6 decimals"},
    {"{\"type\":\"integer\",\"multipleOf\":1.5}", CARAT_E_UNSUPPORTED, "whole number"},
    {"{\"format\":\"uri\"}", CARAT_E_UNSUPPORTED, "is none of date"},
    {"{\"pattern\":\"^a(?=b)\"}", CARAT_E_UNSUPPORTED, "a group of the form (?"},
    {"{\"pattern\":\"(a)\\\\1\"}", CARAT_E_UNSUPPORTED, "an escape that is not known"},
    {"{\"pattern\":\"\\\\bx\"}", CARAT_E_UNSUPPORTED, "an escape that is not known"},
    {"{\"pattern\":\"a^b\"}", CARAT_E_UNSUPPORTED, "out of place"},
    {"{\"pattern\":\"a$b\"}", CARAT_E_UNSUPPORTED, "out of place"},
    {"{\"pattern\":\"*\"}", CARAT_E_UNSUPPORTED, "out of place"},
    {"{\"pattern\":\"a**\"}", CARAT_E_UNSUPPORTED, "out of place"},
    {"{\"pattern\":\"(a\"}", CARAT_E_UNSUPPORTED, "a ( without its )"},
    {"{\"pattern\":\"a)\"}", CARAT_E_UNSUPPORTED, "a ) without its ("},
    {"{\"pattern\":\"[a\"}", CARAT_E_UNSUPPORTED, "a class without an end"},
    {"{\"pattern\":\"[b-a]\"}", CARAT_E_UNSUPPORTED, "runs backwards"},
    {"{\"pattern\":\"[]\"}", CARAT_E_UNSUPPORTED, "without a printable character"},
    {"{\"pattern\":\"[^\\\\s\\\\S]\"}", CARAT_E_UNSUPPORTED, "without a printable character"},
    {"{\"pattern\":\"\\\\x01\"}", CARAT_E_UNSUPPORTED, "without a printable character"},
    {"{\"pattern\":\"a{3,2}\"}", CARAT_E_UNSUPPORTED, "a repetition"},
    {"{\"pattern\":\"a{257}\"}", CARAT_E_UNSUPPORTED, "a repetition"},
    {"{\"pattern\":\"a{0}\"}", CARAT_E_UNSUPPORTED, "a repetition"},
    {"{\"pattern\":\"(a{20}){20}\"}", CARAT_E_UNSUPPORTED, "more than 256 characters"},
    {"{\"pattern\":\"()\"}", CARAT_E_UNSUPPORTED, "an empty group"},
    {"{\"pattern\":\"((((((((((((((((((a))))))))))))))))))\"}", CARAT_E_UNSUPPORTED, "too deeply"},
    {"{\"pattern\":\"a+\",\"minLength\":3}", CARAT_E_UNSUPPORTED, "shortest match"},
    {"{\"pattern\":3}", CARAT_E_FORMAT, "has to be a string"},
    {"{\"items\":[{}]}", CARAT_E_UNSUPPORTED, "write \"prefixItems\""},
    {"{\"uniqueItems\":true}", CARAT_E_UNSUPPORTED, "\"uniqueItems\" at # is not supported"},
    {"{\"properties\":[]}", CARAT_E_FORMAT, "has to be an object"},
    {"{\"properties\":{\"a\":1}}", CARAT_E_FORMAT, "has to be a schema"},
    {"{\"properties\":{\"a\":{},\"a\":{}}}", CARAT_E_FORMAT, "is there twice"},
    {"{\"properties\":{},\"required\":[\"b\"]}", CARAT_E_FORMAT, "\"b\" at # is required, but"},
    {"{\"required\":[1]}", CARAT_E_FORMAT, "array of names"},
    {"{\"propertyNames\":{\"maxLength\":3}}", CARAT_E_UNSUPPORTED, "only supported as"},
};

static void test_refusals(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(refusals); i++) {
        const struct refusal *r = &refusals[i];
        carat_error err = {0};
        grammar *g = NULL;
        if (grammar_create(memory, r->schema, &g, &err)) fail_msg("accepted %s", r->schema);
        if (!strstr(err.message, r->says)) fail_msg("%s: says %s", r->schema, err.message);
        if (err.code != r->code) fail_msg("%s: code %d", r->schema, (int)err.code);
    }
}

/* ---- random schemas ----------------------------------------------------------------------- */

/* A byte that may come next; `end`: more often than not one that leads to the end. */
static int next_byte(grammar *g, uint64_t *random, bool end) {
    static const char ending[] = "\"}]ntf0123456789-:,";
    uint8_t may[256];
    uint32_t n = 0;
    for (unsigned b = 0; b < 256; b++) {
        char c = (char)b;
        if (grammar_allows(g, &c, 1)) may[n++] = (uint8_t)b;
    }
    for (const char *c = ending; end && random_below(random, 3) && *c; c++)
        if (memchr(may, *c, n)) return (uint8_t)*c;
    for (uint32_t i = 1; end && i < n; i++)
        if (may[i] >= 0x80) n = i;
    return n ? may[random_below(random, n)] : -1;
}

/* A value made of random bytes that the machine allows, to its end. */
static void walk(grammar *g, buf *text, uint64_t *random, const char *schema) {
    uint32_t patience = random_below(random, 600);
    for (;;) {
        if (grammar_ends(g) && (text->len > patience || random_below(random, 4) == 0)) return;
        int c = next_byte(g, random, text->len > patience);
        if (c < 0 && grammar_ends(g)) return;
        if (c < 0) fail_msg("%s: stuck after %s", schema, text->data ? text->data : "nothing");
        char byte = (char)c;
        assert_true(grammar_accept(g, &byte, 1));
        buf_put(text, &byte, 1);
        if (text->len > 20000) fail_msg("%s: no end of %s", schema, text->data);
    }
}

/* The same text in pieces of random length is taken as well. */
static void take_in_pieces(arena *a, const char *schema, const buf *text, uint64_t *random) {
    grammar *g = grammar_of(a, schema);
    for (size_t at = 0, n; at < text->len; at += n) {
        n = 1 + random_below(random, 12);
        if (n > text->len - at) n = text->len - at;
        assert_true(grammar_allows(g, text->data + at, n));
        assert_true(grammar_accept(g, text->data + at, n));
    }
    assert_true(grammar_ends(g));
}

static void test_random_schemas(void **state) {
    (void)state;
    uint64_t random = 1;
    size_t bytes = 0;
    for (int i = 0; i < 1000; i++) {
        arena *a = arena_create(NULL);
        buf schema = {0}, text = {0};
        carat_error err = {0};
        const char *why = "";
        json *root, *value;
        random_schema(&schema, &random);
        walk(grammar_of(a, schema.data), &text, &random, schema.data);
        assert_true(json_parse(a, schema.data, schema.len, "schema", &root, &err));
        if (!json_parse(a, text.data, text.len, "value", &value, &err))
            fail_msg("%s gave %s: %s", schema.data, text.data, err.message);
        if (!schema_satisfied(root, root, value, &why))
            fail_msg("%s gave %s: %s", schema.data, text.data, why);
        take_in_pieces(a, schema.data, &text, &random);
        bytes += text.len;
        buf_free(&schema);
        buf_free(&text);
        arena_free(a);
    }
    print_message("1000 schemas, %zu bytes\n", bytes);
}

/* ---- out of memory ------------------------------------------------------------------------- */

/* Every allocation fails once. */
static void test_memory_runs_out(void **state) {
    (void)state;
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"a\":{\"pattern\":\"^[^a]{"
                                 "200}$\"},\"b\":{\"enum\":[1,2]},"
                                 "\"c\":{\"anyOf\":[{\"items\":{}},{\"$ref\":\"#\"}],\"nullable\":"
                                 "true}},\"required\":[\"a\"]}";
    bool ok = false;
    long n = 0, before = n_living;
    for (; !ok; n++) {
        carat_error err = {0};
        grammar *g;
        n_malloc = 0;
        failing_at = n;
        arena *a = arena_create(&err);
        ok = a && grammar_create(a, schema, &g, &err);
        failing_at = -1;
        if (!ok) assert_int_equal(err.code, CARAT_E_MEMORY);
        arena_free(a);
        assert_int_equal(n_living, before);
    }
    assert_true(n > 5);
}

/* ---- schemas that mean harm --------------------------------------------------------------- */

static void repeat(buf *b, const char *s, int n) {
    for (int i = 0; i < n; i++) buf_puts(b, s);
}

/* Compiles in little time and memory, or is refused. */
static grammar *endure(arena *a, const char *schema) {
    carat_error err = {0};
    grammar *g = NULL;
    clock_t start = clock();
    bool ok = grammar_create(a, schema, &g, &err);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (seconds > 5) fail_msg("%.200s: %g s", schema, seconds);
    if (arena_bytes(a) > 64u << 20) fail_msg("%.200s: %zu bytes", schema, arena_bytes(a));
    return ok ? g : NULL;
}

static void test_depth_has_an_end(void **state) {
    (void)state;
    arena *a = arena_create(NULL);
    grammar *g = endure(a, "{}");
    size_t depth = 0;
    while (grammar_accept(g, "[", 1)) depth++;
    assert_int_equal(depth, 31);
    assert_false(grammar_allows(g, "1", 1));
    while (grammar_accept(g, "]", 1)) depth--;
    assert_int_equal(depth, 0);
    assert_true(grammar_ends(g));
    buf b = {0};
    repeat(&b, "{\"items\":", 60);
    buf_puts(&b, "{}");
    repeat(&b, "}", 60);
    assert_non_null(endure(a, b.data));
    buf_reset(&b);
    repeat(&b, "{\"minItems\":1,\"items\":", 60);
    buf_puts(&b, "{}");
    repeat(&b, "}", 60);
    assert_null(endure(a, b.data)); /* needs more levels than there are */
    buf_free(&b);
    arena_free(a);
}

static void test_exponential_references(void **state) {
    (void)state;
    arena *a = arena_create(NULL);
    buf b = {0};
    buf_puts(&b, "{\"$ref\":\"#/$defs/0\",\"$defs\":{");
    for (int i = 0; i < 500; i++)
        buf_printf(&b, "\"%d\":{\"anyOf\":[{\"$ref\":\"#/$defs/%d\"},{\"$ref\":\"#/$defs/%d\"}]},",
                   i, i + 1, i + 1);
    buf_puts(&b, "\"500\":{\"type\":\"null\"}}}");
    grammar *g = endure(a, b.data);
    assert_non_null(g);
    assert_int_equal(taken(g, "null", 4), 4);
    buf_reset(&b);
    buf_puts(&b, "{\"$ref\":\"#/$defs/0\",\"$defs\":{");
    for (int i = 0; i < 60; i++)
        buf_printf(&b,
                   "\"%d\":{\"anyOf\":[{\"items\":{\"$ref\":\"#/$defs/%d\"}},"
                   "{\"items\":{\"$ref\":\"#/$defs/%d\"},\"maxItems\":9}]},",
                   i, i + 1, i + 1);
    buf_puts(&b, "\"60\":{\"type\":\"null\"}}}");
    g = endure(a, b.data);
    assert_non_null(g); /* two threads more with every level */
    assert_int_equal(taken(g, "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]", 32), 32);
    assert_true(grammar_ends(g));
    buf_free(&b);
    arena_free(a);
}

static void test_large_schemas(void **state) {
    (void)state;
    arena *a = arena_create(NULL);
    buf b = {0};
    buf_puts(&b, "{\"enum\":[\"x\"");
    for (int i = 0; i < 60000; i++) buf_printf(&b, ",\"value %d\"", i);
    buf_puts(&b, "]}");
    grammar *g = endure(a, b.data);
    assert_non_null(g);
    assert_int_equal(taken(g, "\"value 59999\"", 13), 13);
    buf_reset(&b);
    buf_puts(&b, "{\"properties\":{\"x\":{}");
    for (int i = 0; i < 1000; i++) buf_printf(&b, ",\"property %d\":{\"type\":\"null\"}", i);
    buf_puts(&b, "}}");
    g = endure(a, b.data);
    assert_non_null(g);
    assert_int_equal(taken(g, "{\"property 998\":null,\"property 999\":null}", 41), 41);
    buf_reset(&b);
    buf_puts(&b, "{\"anyOf\":[{}");
    repeat(&b, ",{\"anyOf\":[{\"const\":1}]}", 30000);
    buf_puts(&b, "]}");
    assert_null(endure(a, b.data));
    buf_reset(&b);
    buf_puts(&b, "{\"pattern\":\"(");
    repeat(&b, "|", 900);
    buf_puts(&b, "a){256}\"}");
    assert_non_null(endure(a, b.data));
    buf_reset(&b);
    repeat(&b, "[", 1 << 21);
    assert_null(endure(a, b.data));
    buf_free(&b);
    arena_free(a);
}

/* Extra keys are kept, so there is an end of them; the object can be closed then. */
static void test_many_keys(void **state) {
    (void)state;
    arena *a = arena_create(NULL);
    grammar *g = endure(a, "{\"type\":\"object\"}");
    buf b = {0};
    buf_puts(&b, "{\"k\":0");
    for (int i = 0; i < 63; i++) buf_printf(&b, ",\"k%d\":0", i);
    assert_int_equal(taken(g, b.data, b.len), b.len);
    assert_false(grammar_allows(g, ",", 1));
    assert_int_equal(taken(g, "}", 1), 1);
    buf_free(&b);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_random_schemas),
        cmocka_unit_test(test_memory_runs_out),
        cmocka_unit_test(test_depth_has_an_end),
        cmocka_unit_test(test_exponential_references),
        cmocka_unit_test(test_large_schemas),
        cmocka_unit_test(test_many_keys),
    };
    return cmocka_run_group_tests(tests, memory_setup, memory_teardown);
}
