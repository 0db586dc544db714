/* constrain: which tokens an answer may take when it has to be JSON of a schema. Follows the tokens
 * as token/reply.c reads them: thinking and tool calls are free, the text is the grammar's.
 *
 * The model may think first where thinking was asked for, and it may call tools instead of
 * answering. It may stop when the value is complete, not before; and after calls.
 *
 * Flow: generate.c gives it what the sampler would choose from; token/grammar.c knows the text. */
#include "model/conversation.h"

typedef enum section { SECTION_TEXT, SECTION_THOUGHT, SECTION_CALL } section;

struct constraint {
    const tokenizer *t;
    grammar *grammar;
    section at;
    bool may_think, may_call, called;
    buf text; /* of one token */
};

bool constraint_create(arena *a, const tokenizer *t, const carat_chat_desc *desc, const prompt *p,
                       constraint **out, carat_error *err) {
    constraint *c = arena_alloc(a, 1, sizeof *c);
    static const char longest[1024]; /* so that the text of a token asks for no memory later on */
    if (c) buf_put(&c->text, longest, sizeof longest);
    if (!c || c->text.failed) return fail_memory(err, sizeof *c + sizeof longest, "a constraint");
    *out = c;
    c->t = t;
    c->at = p && p->text.opens_thought ? SECTION_THOUGHT : SECTION_TEXT;
    c->may_think = p && desc->thinking;
    c->may_call = p && p->tools;
    return grammar_create(a, desc->json_schema, &c->grammar, err);
}

void constraint_free(constraint *c) {
    if (c) buf_free(&c->text);
}

static bool is(const constraint *c, int32_t id, special which) {
    return id == c->t->specials[which];
}

/* A control token: a marker, or one that stops. */
static bool allows_control(const constraint *c, int32_t id) {
    bool begun = grammar_began(c->grammar);
    if (c->at == SECTION_THOUGHT) return is(c, id, SPECIAL_CHANNEL_END);
    if (c->at == SECTION_CALL) return is(c, id, SPECIAL_CALL_END) || is(c, id, SPECIAL_QUOTE);
    if (tokenizer_is_stop(c->t, id)) return begun ? grammar_ends(c->grammar) : c->called;
    return !begun && ((c->may_think && is(c, id, SPECIAL_CHANNEL)) ||
                      (c->may_call && is(c, id, SPECIAL_CALL)));
}

static bool is_control(const constraint *c, int32_t id) {
    return tokenizer_is_special(c->t, id) || tokenizer_is_stop(c->t, id);
}

static void decode(constraint *c, int32_t id) {
    buf_reset(&c->text);
    tokenizer_decode(c->t, id, false, &c->text);
}

static bool allows(constraint *c, int32_t id) {
    if (is_control(c, id)) return allows_control(c, id);
    if (c->at != SECTION_TEXT) return true;
    decode(c, id);
    return c->text.len && grammar_allows(c->grammar, c->text.data, c->text.len);
}

/* The bytes that the text may go on with. */
static void first_bytes(constraint *c, bool may[256]) {
    for (unsigned b = 0; b < 256; b++) {
        char byte = (char)b;
        may[b] = grammar_allows(c->grammar, &byte, 1);
    }
}

/* Leaves out the tokens that cannot follow by their first byte: most of them, at most places. */
static uint32_t keep_by_first_byte(constraint *c, candidate *list, uint32_t n) {
    bool may[256];
    uint32_t kept = 0;
    first_bytes(c, may);
    for (uint32_t i = 0; i < n; i++) {
        bool keep = is_control(c, list[i].id);
        if (!keep) {
            decode(c, list[i].id);
            keep = c->text.len && may[(uint8_t)c->text.data[0]];
        }
        if (keep) list[kept++] = list[i];
    }
    return kept;
}

uint32_t constraint_filter(constraint *c, candidate *list, uint32_t n, uint32_t want) {
    uint32_t kept = 0;
    if (c->at == SECTION_TEXT) n = keep_by_first_byte(c, list, n);
    bool all = want == 0 || want >= n;
    if (!all) candidates_order(list, n);
    for (uint32_t i = 0; i < n && (all || kept < want); i++) {
        if (!all) candidates_next(list, n, i);
        if (allows(c, list[i].id)) list[kept++] = list[i];
    }
    return kept;
}

bool constraint_accept(constraint *c, int32_t id, carat_error *err) {
    bool call = is(c, id, SPECIAL_CALL), thought = is(c, id, SPECIAL_CHANNEL);
    if (is_control(c, id)) {
        if (is(c, id, SPECIAL_CALL_END)) c->called = true;
        if (thought) c->may_think = false;
        if (call || thought)
            c->at = call ? SECTION_CALL : SECTION_THOUGHT;
        else if (is(c, id, SPECIAL_CALL_END) || is(c, id, SPECIAL_CHANNEL_END))
            c->at = SECTION_TEXT;
        return true;
    }
    if (c->at != SECTION_TEXT) return true;
    decode(c, id);
    if (c->text.failed) return fail_memory(err, 0, "a token's text");
    return grammar_accept(c->grammar, c->text.data, c->text.len) ||
           fail(err, CARAT_E_UNSUPPORTED, "json schema: no token of this model can go on with it");
}
