/* Tokens to replies: text, thinking and calls, the call grammar and its repairs, stop strings,
 * streaming UTF-8, memory that runs out. Texts are fed as nano's and the real vocabulary's tokens,
 * and once more with every character as byte tokens. */
#include "test_memory.h"
#include "token_util.h"
#include "token/vocab.h"

static const tokenizer *real, *nano;

static int setup(void **state) {
    if (memory_setup(state)) return 1;
    nano = load_tokenizer(memory, NANO);
    if (have_vocab()) real = load_tokenizer(memory, VOCAB);
    return 0;
}

/* ---- feeding ------------------------------------------------------------------------------ */

typedef struct reading {
    buf text, thinking, calls; /* calls: separated by spaces */
    uint32_t n_calls;
    bool stopped;
} reading;

static void reading_free(reading *r) {
    buf_free(&r->text);
    buf_free(&r->thinking);
    buf_free(&r->calls);
}

static void collect(reply *r, reading *out) {
    reply_part p;
    while (reply_next(r, &p)) {
        assert_true(p.len > 0);
        for (size_t at = 0, len; at < p.len; at += len) { /* every part is valid UTF-8 */
            len = utf8_length(p.text + at, p.len - at);
            assert_true(len > 0);
        }
        buf *to = p.kind == REPLY_TEXT       ? &out->text
                  : p.kind == REPLY_THINKING ? &out->thinking
                                             : &out->calls;
        if (p.kind == REPLY_CALL && to->len) buf_puts(to, " ");
        buf_put(to, p.text, p.len);
    }
}

typedef struct setting {
    const json *tools;
    bool no_thinking, in_thought;
    const char *stops[4];
} setting;

static reading read_ids(const tokenizer *t, const id_list *ids, const setting *s) {
    carat_error err = {0};
    reply *r = NULL;
    reading out = {0};
    size_t n_stop = 0;
    while (n_stop < COUNT(s->stops) && s->stops[n_stop]) n_stop++;
    assert_true(
        reply_create(t, s->tools, !s->no_thinking, s->in_thought, s->stops, n_stop, &r, &err));
    for (size_t i = 0; i < ids->len; i++) {
        bool stopped = false;
        assert_true(reply_feed(r, ids->data[i], &stopped, &err));
        out.stopped = out.stopped || stopped;
        assert_int_equal(stopped, out.stopped);
        collect(r, &out);
    }
    assert_true(reply_end(r, &err));
    collect(r, &out);
    out.n_calls = reply_n_calls(r);
    reply_free(r);
    return out;
}

/* The ids of a text; bytewise: control tokens and then nothing but byte tokens. */
static id_list ids_of(const tokenizer *t, const char *text, size_t n, bool bytewise) {
    id_list whole = {0}, out = {0};
    buf piece = {0};
    tokenizer_encode(t, text, n, true, &whole);
    if (!bytewise) return whole;
    for (size_t i = 0; i < whole.len; i++) {
        if (tokenizer_is_special(t, whole.data[i])) {
            ids_put(&out, whole.data[i]);
            continue;
        }
        buf_reset(&piece);
        tokenizer_decode(t, whole.data[i], true, &piece);
        for (size_t k = 0; k < piece.len; k++)
            ids_put(&out, ((const vocab *)t->tables)->byte_id[(uint8_t)piece.data[k]]);
    }
    buf_free(&piece);
    ids_free(&whole);
    return out;
}

static void assert_buf(const char *what, const char *input, const buf *got, const char *want) {
    if (strcmp(got->len ? got->data : "", want))
        fail_msg("%s\n%s: want \"%s\"\n%s: got  \"%s\"", input, what, want, what,
                 got->len ? got->data : "");
}

static void expect_with(const setting *s, const char *input, const char *thinking, const char *text,
                        const char *calls) {
    const tokenizer *const vocabularies[] = {nano, real};
    for (size_t i = 0; i < COUNT(vocabularies); i++) {
        for (int bytewise = 0; vocabularies[i] && bytewise < 2; bytewise++) {
            id_list ids = ids_of(vocabularies[i], input, strlen(input), bytewise);
            reading got = read_ids(vocabularies[i], &ids, s);
            assert_buf("thinking", input, &got.thinking, thinking);
            assert_buf("text", input, &got.text, text);
            assert_buf("calls", input, &got.calls, calls);
            reading_free(&got);
            ids_free(&ids);
        }
    }
}

static void expect(const char *input, const char *thinking, const char *text, const char *calls) {
    expect_with(&(setting){0}, input, thinking, text, calls);
}

/* ---- sections ----------------------------------------------------------------------------- */

#define F "{\"name\":\"f\",\"arguments\":{}}"
#define G "{\"name\":\"g\",\"arguments\":{}}"

static void sections(void **state) {
    (void)state;
    expect("Plain text.", "", "Plain text.", "");
    expect("", "", "", "");
    expect("<|channel>thought\nWhy<channel|>Because.", "Why", "Because.", "");
    expect("<|channel>thought\nWhy\n<channel|>\n\nBecause.", "Why", "Because.", "");
    expect("<|channel>plan<channel|>Ok", "plan", "Ok", "");
    expect("<|channel>thought\n<channel|>Ok", "", "Ok", "");
    expect("<|channel>a<channel|><|channel>b<channel|>c", "ab", "c", "");
    expect("1 <|b", "", "1 <|b", "");
    expect("<|tool_call>call:f{}<tool_call|>", "", "", F);
    expect("<|tool_call>call:f{a:<|\"|>x<|\"|>,b:2}<tool_call|>", "", "",
           "{\"name\":\"f\",\"arguments\":{\"a\":\"x\",\"b\":2}}");
    expect("Look:  <|tool_call>call:f{}<tool_call|>", "", "Look:", F);
    expect("<|tool_call>call:f{}<tool_call|><|tool_call>call:g{}<tool_call|>", "", "", F " " G);
    expect("<|tool_call>call:f{}<tool_call|><tool_call|>Done.", "", "Done.", F);
    expect("<|tool_call>call:f{}<tool_call|><|tool_response>", "", "", F);
    expect("<|tool_call>call:f{a:<|\"|>x<|\"|>}", "", "",
           "{\"name\":\"f\",\"arguments\":{\"a\":\"x\"}}");
    expect("<|channel>thought\nGo<channel|><|tool_call>call:f{}<tool_call|>", "Go", "", F);
}

static void thinking_settings(void **state) {
    (void)state;
    const setting off = {.no_thinking = true}, open = {.in_thought = true};
    const setting both = {.no_thinking = true, .in_thought = true};
    expect_with(&off, "<|channel>thought\nx<channel|>y", "", "y", "");
    expect_with(&off, "<|channel>thought\nx", "", "", "");
    expect_with(&open, "Why not<channel|>Ok", "Why not", "Ok", "");
    expect_with(&open, "thought\nWhy<channel|>Ok", "thought\nWhy", "Ok", "");
    expect_with(&open, "Why <|tool_call>call:f{}<tool_call|>", "Why", "", F);
    expect_with(&both, "Why not<channel|> Ok", "", "Ok", "");
}

static void odd_orders(void **state) {
    (void)state;
    /* an empty channel, one that is repeated, one left open, a lone end */
    expect("<|channel>thought<channel|>Ok", "", "Ok", "");
    expect("<|channel><|channel>thought\na<channel|>b", "a", "b", "");
    expect("<|channel>thought\nnever closed", "never closed", "", "");
    expect("<|channel>thou", "thou", "", "");
    expect("<|channel>thoughtful<channel|>x", "thoughtful", "x", "");
    expect("Yes.<channel|>", "", "Yes.", "");
    expect("a <channel|> b", "", "a  b", "");
    expect("Yes. <|channel>thought\n<channel|>", "", "Yes.", "");
    /* a call in a thought ends it; calls without their end */
    expect("<|channel>thought\nhm <|tool_call>call:f{}<tool_call|>x", "hm", "x", F);
    expect("<|tool_call>call:f{}<|tool_call>call:g{}", "", "", F " " G);
    expect("<|tool_call>call:f{}<|tool_response>", "", "", F);
    expect("<|tool_call>call:f{}<|channel>thought\nx<channel|>y", "x", "y", F);
    expect("<|tool_call>call:f{}<tool_call|> \n<|tool_call>call:g{}<tool_call|>\n", "", "",
           F " " G);
    expect("A<|tool_call>call:f{}<tool_call|> B", "", "AB", F);
    /* markers that mean nothing here */
    expect("a<|\"|>b<|think|>c<tool_response|>d", "", "abcd", "");
    expect("<|tool_call>call:f{<|think|>}<tool_call|>", "", "", F);
    /* white space between text stays, at the very end too */
    expect("a  b\n\nc \n", "", "a  b\n\nc \n", "");
}

/* Markers that are only spelled out are text. */
static void spelled_out_markers(void **state) {
    (void)state;
    static const char input[] = "a<|channel>thought\nb<channel|><|tool_call>call:f{}<tool_call|>c";
    id_list ids = {0};
    tokenizer_encode(nano, input, sizeof input - 1, false, &ids);
    reading got = read_ids(nano, &ids, &(setting){0});
    assert_buf("text", input, &got.text, input);
    assert_int_equal(got.thinking.len + got.calls.len, 0);
    reading_free(&got);
    ids_free(&ids);
}

/* A delimiter that is spelled out inside a string does not end it. */
static void spelled_out_delimiter(void **state) {
    (void)state;
    id_list ids = {0};
    const char *const parts[] = {"<|tool_call>call:f{a:<|\"|>", "x<|\"|>y", "<|\"|>}<tool_call|>"};
    for (size_t i = 0; i < COUNT(parts); i++)
        tokenizer_encode(nano, parts[i], strlen(parts[i]), i != 1, &ids);
    reading got = read_ids(nano, &ids, &(setting){0});
    assert_buf("calls", "spelled out", &got.calls,
               "{\"name\":\"f\",\"arguments\":{\"a\":\"x<|\\\"|>y\"}}");
    reading_free(&got);
    ids_free(&ids);
}

static void broken_calls_are_shown(void **state) {
    (void)state;
    expect("Hm <|tool_call>call:f{a:}<tool_call|>", "", "Hm<|tool_call>call:f{a:}<tool_call|>", "");
    expect("<|tool_call>f(<|\"|>x<|\"|>)", "", "<|tool_call>f(<|\"|>x<|\"|>)", "");
    expect("<|tool_call>call:f{a:}<tool_call|> \n<|tool_call>call:g{}<tool_call|>ok", "",
           "<|tool_call>call:f{a:}<tool_call|>ok", G);
    const char input[] = "<|tool_call>call:f{a:}<tool_call|><|tool_call>call:g{}<tool_call|>";
    id_list ids = ids_of(nano, input, sizeof input - 1, false);
    reading got = read_ids(nano, &ids, &(setting){0});
    assert_int_equal(got.n_calls, 1);
    reading_free(&got);
    ids_free(&ids);
}

/* ---- arguments ---------------------------------------------------------------------------- */

static const json *parse(const char *text) { return parse_json(memory, text); }

/* want NULL: an error. What comes out is JSON that carat itself reads. */
static void expect_arguments(const json *tools, const char *arguments, const char *want) {
    buf call = {0}, out = {0};
    carat_error err = {0};
    buf_printf(&call, "call:f%s", arguments);
    bool ok = reply_parse_call(call.data, call.len, tools, &out, &err);
    if (!want) {
        if (ok) fail_msg("%s was taken for %s", arguments, out.data);
        assert_int_equal(err.code, CARAT_E_FORMAT);
        assert_int_equal(out.len, 0);
    } else {
        if (!ok) fail_msg("%s: %s", arguments, err.message);
        buf expected = {0};
        buf_printf(&expected, "{\"name\":\"f\",\"arguments\":%s}", want);
        assert_string_equal(out.data, expected.data);
        parse(out.data);
        buf_free(&expected);
    }
    buf_free(&call);
    buf_free(&out);
}

static void arguments(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"{}", "{}"},
        {" { } ", "{}"},
        {"{p:<|\"|>C:\\users\\bob<|\"|>}", "{\"p\":\"C:\\\\users\\\\bob\"}"},
        {"{q:<|\"|>say \"hi\", a:{b}[c]<|\"|>}", "{\"q\":\"say \\\"hi\\\", a:{b}[c]\"}"},
        {"{q:<|\"|>line1\nline2<|\"|>}", "{\"q\":\"line1\\nline2\"}"},
        {"{q:<|\"|>\\u2603 \\n<|\"|>}", "{\"q\":\"\\\\u2603 \\\\n\"}"},
        {"{s:<|\"|><|\"|>}", "{\"s\":\"\"}"},
        {"{s:<|\"|>1<|\"|>,n:1,f:1.5e10,t:true,z:null}",
         "{\"s\":\"1\",\"n\":1,\"f\":1.5e10,\"t\":true,\"z\":null}"},
        {"{o:{k:{d:1}},l:[1,<|\"|>b<|\"|>,[],{}]}",
         "{\"o\":{\"k\":{\"d\":1}},\"l\":[1,\"b\",[],{}]}"},
        {"{l:[{ a:<|\"|>x<|\"|>, b:<|\"|>y<|\"|>} ]}", "{\"l\":[{\"a\":\"x\",\"b\":\"y\"}]}"},
        {"{q:\"a \\\"b\\\" , k: c\",n:<|\"|>ok<|\"|>}",
         "{\"q\":\"a \\\"b\\\" , k: c\",\"n\":\"ok\"}"},
        {"{<|\"|>a b<|\"|>:1,\"c\":2, d e : 3}", "{\"a b\":1,\"c\":2,\"d e\":3}"},
        {"{b:1,a:2}", "{\"b\":1,\"a\":2}"},
        {"{a:-0,b:-1.5E-3,c:false}", "{\"a\":-0,\"b\":-1.5E-3,\"c\":false}"},
        {"{a:\"x\ny\"}", "{\"a\":\"x\\u000ay\"}"},
        {"{\n\ta\n:\n1\n,\nb:[\n1\n,\n2\n]\n}", "{\"a\":1,\"b\":[1,2]}"},
        {"{a:<|\"|>caf\u00E9<|\"|>}", "{\"a\":\"caf\u00E9\"}"},
        {"{a:<|\"|>\xFF\xC3<|\"|>}", "{\"a\":\"\uFFFD\uFFFD\"}"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) expect_arguments(NULL, cases[i][0], cases[i][1]);
}

static void broken_arguments(void **state) {
    (void)state;
    static const char *const cases[] = {
        "{a:<|\"|>x,b:<|\"|>y<|\"|>}",
        "{a:}",
        "{a:1",
        "{a:1,}",
        "{,a:1}",
        "{a:1,,b:2}",
        "{a 1}",
        "{a:01}",
        "{a:+1}",
        "{a:NaN}",
        "{a:Infinity}",
        "{a:0x10}",
        "{a:1.}",
        "{a:1e}",
        "{a:-}",
        "{a:[1}",
        "{a:[1,]}",
        "{a:tru}",
        "{a:trueish}",
        "{a:\"\\x\"}",
        "{a:\"\\u12\"}",
        "{a:\"x",
        "{a:1}}",
        "{a:1} x",
        "{a:ls -l}",
        "",
    };
    for (size_t i = 0; i < COUNT(cases); i++) expect_arguments(NULL, cases[i], NULL);
}

static void repairs(void **state) {
    (void)state;
    expect_arguments(NULL, "{c:<|\"|>ls}", "{\"c\":\"ls\"}");
    expect_arguments(NULL, "{c:<|\"|>ls", "{\"c\":\"ls\"}");
    expect_arguments(NULL, "{c:<|\"|>ls  \n", "{\"c\":\"ls\"}");
    expect_arguments(NULL, "{a:1,c:[<|\"|>ls", "{\"a\":1,\"c\":[\"ls\"]}");
    expect_arguments(NULL, "{c:'ls -l'}", "{\"c\":\"ls -l\"}");
    expect_arguments(NULL, "{c:'ls -l'<|\"|>}", "{\"c\":\"ls -l\"}");
    expect_arguments(NULL, "{c: 'don't', d:['a','b']}", "{\"c\":\"don't\",\"d\":[\"a\",\"b\"]}");
    expect_arguments(NULL, "{c:'ls'", "{\"c\":\"ls\"}");
    expect_arguments(NULL, "{a:<|\"|>it's 'so'<|\"|>,c:'x'}", "{\"a\":\"it's 'so'\",\"c\":\"x\"}");
    expect_arguments(NULL, "{c:'x}", NULL);
}

static void repairs_by_schema(void **state) {
    (void)state;
    const json *tools = parse(
        "[{\"type\":\"function\",\"function\":{\"name\":\"g\"}},{\"type\":\"function\","
        "\"function\":"
        "{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{\"c\":{\"type\":"
        "\"string\"},\"cd\":{\"type\":[\"string\",\"null\"]},\"n\":{\"type\":\"number\"}}}}}]");
    expect_arguments(tools, "{c:ls -l}", "{\"c\":\"ls -l\"}");
    expect_arguments(tools, "{c:ls -l", "{\"c\":\"ls -l\"}");
    expect_arguments(tools, "{c: echo a, b , n:2}", "{\"c\":\"echo a, b\",\"n\":2}");
    expect_arguments(tools, "{n:1,cd:touch x,c:ls}", "{\"n\":1,\"cd\":\"touch x\",\"c\":\"ls\"}");
    expect_arguments(tools, "{c:f{}(),n:2}", "{\"c\":\"f{}()\",\"n\":2}");
    expect_arguments(tools, "{n:2,c:<|\"|>ls}", "{\"n\":2,\"c\":\"ls\"}");
    expect_arguments(tools, "{c:ls,cd:'x'}", "{\"c\":\"ls\",\"cd\":\"x\"}");
    expect_arguments(tools, "{c:12,cd:null,n:3}", "{\"c\":12,\"cd\":null,\"n\":3}");
    expect_arguments(tools, "{n:many}", NULL);
    expect_arguments(tools, "{x:ls -l}", NULL);
}

static void calls(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"call:get_weather{a:1}", "{\"name\":\"get_weather\",\"arguments\":{\"a\":1}}"},
        {"  call: a.b-c {a:1} \n", "{\"name\":\"a.b-c\",\"arguments\":{\"a\":1}}"},
        {"", NULL},
        {"call:", NULL},
        {"call:f", NULL},
        {"call:{}", NULL},
        {"f{}", NULL},
        {"call:f<|\"|>{}", NULL},
        {"call:f{}call:g{}", NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        buf out = {0};
        carat_error err = {0};
        bool ok = reply_parse_call(cases[i].text, strlen(cases[i].text), NULL, &out, &err);
        assert_int_equal(ok, cases[i].want != NULL);
        if (ok)
            assert_string_equal(out.data, cases[i].want);
        else
            assert_int_equal(err.code, CARAT_E_FORMAT);
        buf_free(&out);
    }
}

static void deep_arguments(void **state) {
    (void)state;
    for (size_t depth = 10; depth < 100000; depth *= 10) {
        buf text = {0};
        buf_puts(&text, "{a:");
        for (size_t i = 0; i < depth; i++) buf_puts(&text, "[");
        for (size_t i = 0; i < depth; i++) buf_puts(&text, "]");
        buf_puts(&text, "}");
        buf out = {0}, call = {0};
        carat_error err = {0};
        buf_printf(&call, "call:f%s", text.data);
        assert_int_equal(reply_parse_call(call.data, call.len, NULL, &out, &err), depth < 60);
        if (out.len) parse(out.data);
        buf_free(&text);
        buf_free(&call);
        buf_free(&out);
    }
}

/* ---- stop strings ------------------------------------------------------------------------- */

static void stops(void **state) {
    (void)state;
    const setting s = {.stops = {"END", "\n\nUser:", "STOP"}};
    expect_with(&s, "one END two", "", "one ", "");
    expect_with(&s, "one EN D two", "", "one EN D two", "");
    expect_with(&s, "EEND", "", "E", "");
    expect_with(&s, "a\n\nUse\n\nUser: x", "", "a\n\nUse", "");
    expect_with(&s, "x STOP END", "", "x ", "");
    expect_with(&s, "x EN", "", "x EN", "");
    expect_with(&s, "<|channel>thought\nEND <channel|>a END", "END", "a ", "");
    expect_with(&s, "<|tool_call>call:f{a:<|\"|>END<|\"|>}<tool_call|>x", "", "x",
                "{\"name\":\"f\",\"arguments\":{\"a\":\"END\"}}");
    expect_with(&(setting){.stops = {"", "\u00E9"}}, "caf\u00E8 caf\u00E9 x", "", "caf\u00E8 caf",
                "");
    /* what follows is dropped, calls too */
    expect_with(&s, "END<|tool_call>call:f{}<tool_call|>", "", "", "");
}

static void stop_is_reported_at_once(void **state) {
    (void)state;
    const char *const list[] = {"7"};
    carat_error err = {0};
    reply *r;
    bool stopped;
    reply_part p;
    id_list ids = ids_of(nano, "a7b", 3, true);
    assert_true(reply_create(nano, NULL, true, false, list, 1, &r, &err));
    assert_true(reply_feed(r, ids.data[0], &stopped, &err) && !stopped);
    assert_true(reply_next(r, &p) && p.len == 1 && p.text[0] == 'a' && !reply_next(r, &p));
    assert_true(reply_feed(r, ids.data[1], &stopped, &err) && stopped && !reply_next(r, &p));
    assert_true(reply_feed(r, ids.data[2], &stopped, &err) && stopped && !reply_next(r, &p));
    assert_true(reply_end(r, &err) && !reply_next(r, &p));
    reply_free(r);
    ids_free(&ids);
}

/* ---- streaming ---------------------------------------------------------------------------- */

/* What has come out after each of some bytes. */
static void expect_steps(const char *const *stop, const char *bytes, size_t n,
                         const char *const *want) {
    carat_error err = {0};
    reply *r;
    buf so_far = {0};
    bool stopped;
    assert_true(reply_create(nano, NULL, true, false, stop, stop ? 1 : 0, &r, &err));
    for (size_t i = 0; i <= n; i++) {
        int32_t id = i < n ? ((const vocab *)nano->tables)->byte_id[(uint8_t)bytes[i]] : 0;
        assert_true(i < n ? reply_feed(r, id, &stopped, &err) : reply_end(r, &err));
        reply_part p;
        while (reply_next(r, &p)) buf_put(&so_far, p.text, p.len);
        assert_string_equal(so_far.len ? so_far.data : "", want[i]);
    }
    buf_free(&so_far);
    reply_free(r);
}

static void streaming(void **state) {
    (void)state;
    const char *const emoji[] = {"", "", "", "\U0001FAE0", "\U0001FAE0"};
    expect_steps(NULL, "\xF0\x9F\xAB\xA0", 4, emoji);
    const char *const cut[] = {"", "", "", "\uFFFD"};
    expect_steps(NULL, "\xF0\x9F\xAB", 3, cut);
    const char *const invalid[] = {"\uFFFD", "\uFFFDA", "\uFFFDA"};
    expect_steps(NULL,
                 "\xFF"
                 "A",
                 2, invalid);
    const char *const broken[] = {"", "\uFFFDA", "\uFFFDA"};
    expect_steps(NULL,
                 "\xC3"
                 "A",
                 2, broken);
    const char *const space[] = {"a", "a", "a", "a  b", "a  b", "a  b\n"};
    expect_steps(NULL, "a  b\n", 5, space);
    const char *const stop[] = {"xyz"};
    const char *const held[] = {"a", "a", "a", "axy", "axy", "axyxy"};
    expect_steps(stop, "axyxy", 5, held);
}

/* Parts that nobody takes pile up and stay valid. */
static void parts_wait(void **state) {
    (void)state;
    static const char input[] = "a<|channel>thought\nb<channel|>c<|tool_call>call:f{}<tool_call|>d";
    static const reply_kind kinds[] = {REPLY_TEXT, REPLY_THINKING, REPLY_TEXT, REPLY_CALL,
                                       REPLY_TEXT};
    carat_error err = {0};
    reply *r;
    bool stopped;
    id_list ids = ids_of(nano, input, sizeof input - 1, false);
    assert_true(reply_create(nano, NULL, true, false, NULL, 0, &r, &err));
    for (size_t i = 0; i < ids.len; i++) assert_true(reply_feed(r, ids.data[i], &stopped, &err));
    assert_true(reply_end(r, &err));
    reply_part p;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        assert_true(reply_next(r, &p));
        assert_int_equal(p.kind, kinds[i]);
    }
    assert_false(reply_next(r, &p));
    assert_int_equal(reply_n_calls(r), 1);
    reply_free(r);
    reply_free(NULL);
    ids_free(&ids);
}

/* ---- memory ------------------------------------------------------------------------------- */

static bool run_once(const id_list *ids, carat_error *err) {
    const char *const list[] = {"never"};
    reply *r = NULL;
    if (!reply_create(nano, NULL, true, false, list, 1, &r, err)) return false;
    bool ok = true, stopped;
    reply_part p;
    for (size_t i = 0; ok && i < ids->len; i++) ok = reply_feed(r, ids->data[i], &stopped, err);
    if (ok) ok = reply_end(r, err);
    while (reply_next(r, &p)) {}
    reply_free(r);
    return ok;
}

static void memory_runs_out(void **state) {
    (void)state;
    static const char input[] = "Hello <|channel>thought\nlong thinking<channel|> text"
                                "<|tool_call>call:f{a:<|\"|>x<|\"|>,b:'y'}<tool_call|>"
                                "<|tool_call>call:f{a:}<tool_call|>";
    id_list ids = ids_of(nano, input, sizeof input - 1, false);
    for (long at = 0;; at++) {
        long before = n_living;
        carat_error err = {0};
        n_malloc = 0;
        failing_at = at;
        bool ok = run_once(&ids, &err), all = n_malloc <= at;
        failing_at = -1;
        assert_int_equal(n_living, before);
        assert_int_equal(ok, all);
        if (!ok) assert_int_equal(err.code, CARAT_E_MEMORY);
        if (all) break;
        assert_true(at < 10000);
    }
    ids_free(&ids);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sections),
        cmocka_unit_test(thinking_settings),
        cmocka_unit_test(odd_orders),
        cmocka_unit_test(spelled_out_markers),
        cmocka_unit_test(spelled_out_delimiter),
        cmocka_unit_test(broken_calls_are_shown),
        cmocka_unit_test(arguments),
        cmocka_unit_test(broken_arguments),
        cmocka_unit_test(repairs),
        cmocka_unit_test(repairs_by_schema),
        cmocka_unit_test(calls),
        cmocka_unit_test(deep_arguments),
        cmocka_unit_test(stops),
        cmocka_unit_test(stop_is_reported_at_once),
        cmocka_unit_test(streaming),
        cmocka_unit_test(parts_wait),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, setup, memory_teardown);
}
