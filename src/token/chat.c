/* token/chat.c: a conversation -> the prompt, as Gemma 4's published template writes it, byte for
 * byte. The large models' template differs from the small ones' in one place: see open_turn().
 *
 * Turns look like <|turn>role\n ... <turn|>\n. There is no turn for tools: calls and their results
 * live inside the model's turn, which stays open until the model has answered. Thoughts are kept
 * only after the last user message, that is while the model works through a chain of calls.
 *
 * chat_options.repair mends what the template gets wrong: an answer asked for outside of any turn
 * (after a message with calls, results and text), results without an id all named after the last
 * call, unclosed braces in a tool's declaration.
 *
 * Flow: a program's JSON comes in; prompt.c turns the pieces into ids. */
#include "token/prompt.h"

#include <stdio.h>
#include <string.h>

/* How a message ended, which decides how the next turn begins. */
typedef enum ending { ENDED_TURN, ENDED_CALL, ENDED_RESPONSE } ending;

typedef struct conversation {
    prompt_writer w;
    const chat_options *o;
    const json *messages;
    size_t first;     /* the first message of the loop */
    size_t last_user; /* index, or SIZE_MAX */
    ending end;
    bool turn_closed; /* the last message wrote <turn|> */
    carat_error *err;
} conversation;

static bool wrong(conversation *c, size_t i, const char *what) {
    return fail(c->err, CARAT_E_FORMAT, "messages[%zu]: %s", i, what);
}

static bool has_role(const json *message, const char *role) {
    return json_is_string(json_get(message, "role"), role);
}

static bool is_system(const json *message) {
    return has_role(message, "system") || has_role(message, "developer");
}

/* ---- text --------------------------------------------------------------------------------- */

/* Bytes of the white space character at the front of s [n]; 0: it is none. */
static size_t space_at(const char *s, size_t n) {
    static const char *const wide[] = {"\xC2\x85", "\u00A0", "\u1680", "\u2000", "\u2001",
                                       "\u2002",   "\u2003", "\u2004", "\u2005", "\u2006",
                                       "\u2007",   "\u2008", "\u2009", "\u200A", "\u2028",
                                       "\u2029",   "\u202F", "\u205F", "\u3000"};
    if (!n) return 0;
    if (s[0] == ' ' || (s[0] >= '\t' && s[0] <= '\r') || (s[0] >= 0x1C && s[0] <= 0x1F)) return 1;
    for (size_t i = 0; i < COUNT(wide); i++) {
        size_t len = strlen(wide[i]);
        if (len <= n && !memcmp(s, wide[i], len)) return len;
    }
    return 0;
}

static void put_trimmed(prompt_writer *w, const char *s, size_t n) {
    for (size_t len; (len = space_at(s, n)) > 0;) s += len, n -= len;
    for (size_t back = 1; back <= 3 && back <= n;) {
        if (space_at(s + n - back, back) == back)
            n -= back, back = 1;
        else
            back++;
    }
    put_plain(w, s, n);
}

static const char *find(const char *s, size_t n, const char *what) {
    return n ? memmem(s, n, what, strlen(what)) : NULL;
}

/* What the model said, without the thoughts that may still be in it: between two closing marks
 * everything from the first opening one on is dropped, an unpaired mark too. */
static void put_without_thoughts(prompt_writer *w, const char *s, size_t n) {
    static const char close[] = "<channel|>";
    buf kept = {0};
    for (const char *end = s + n; s < end;) {
        const char *stop = find(s, (size_t)(end - s), close);
        size_t run = (size_t)((stop ? stop : end) - s);
        const char *open = find(s, run, "<|channel>");
        buf_put(&kept, s, open ? (size_t)(open - s) : run);
        s = stop ? stop + sizeof close - 1 : end;
    }
    if (kept.failed)
        w->p->text.failed = true;
    else if (kept.len)
        put_trimmed(w, kept.data, kept.len);
    buf_free(&kept);
}

/* ---- content ------------------------------------------------------------------------------ */

const char *chat_placeholder(const json *part) {
    static const char *const known[][2] = {{"image", "<|image|>"},       {"image_url", "<|image|>"},
                                           {"input_image", "<|image|>"}, {"audio", "<|audio|>"},
                                           {"input_audio", "<|audio|>"}, {"video", "<|video|>"}};
    for (size_t i = 0; i < COUNT(known); i++)
        if (json_is_string(json_get(part, "type"), known[i][0])) return known[i][1];
    return NULL;
}

static void put_medium(prompt_writer *w, const json *part, const char *mark) {
    put_mark(w, mark);
    buf_put(&w->p->media, &part, sizeof part);
    if (w->p->media.failed) w->p->text.failed = true;
}

/* MM:SS and a picture for each frame. */
static void put_video(prompt_writer *w, const chat_video *v) {
    for (size_t i = 0; i < v->n; i++) {
        const uint32_t second = v->times[i] > 0 && v->times[i] < 1e6 ? (uint32_t)v->times[i] : 0;
        char stamp[24];
        snprintf(stamp, sizeof stamp, "%s%02u:%02u ", i ? " " : "", second / 60, second % 60);
        put_mark(w, stamp);
        put_medium(w, v->part, "<|image|>");
    }
}

/* False: the part is text. */
static bool put_media_part(conversation *c, const json *part) {
    const char *mark = chat_placeholder(part);
    if (!mark) return false;
    for (size_t i = 0; i < c->o->n_video; i++) {
        if (c->o->videos[i].part != part) continue;
        put_video(&c->w, &c->o->videos[i]);
        return true;
    }
    put_medium(&c->w, part, mark);
    return true;
}

static const json *part_text(const json *part) {
    const json *text = json_get(part, "text");
    return text && text->kind == JSON_STRING ? text : NULL;
}

/* Checks that content is a string, null or a list of known parts. */
static bool check_content(conversation *c, size_t i) {
    const json *content = json_get(&c->messages->items[i], "content");
    bool free_form = has_role(&c->messages->items[i], "tool"); /* results may be any value */
    if (!content || content->kind == JSON_STRING || content->kind == JSON_NULL) return true;
    if (content->kind != JSON_ARRAY)
        return free_form || wrong(c, i, "content is no string, null or list of parts");
    for (size_t k = 0; k < content->n; k++) {
        const json *part = &content->items[k];
        if (chat_placeholder(part)) continue;
        if (!json_is_string(json_get(part, "type"), "text"))
            return fail(c->err, CARAT_E_FORMAT,
                        "messages[%zu]: content[%zu] has the unknown type \"%.40s\"", i, k,
                        json_string(json_get(part, "type"), ""));
        if (!part_text(part))
            return fail(c->err, CARAT_E_FORMAT, "messages[%zu]: content[%zu] has no text", i, k);
    }
    return true;
}

static void put_text(conversation *c, const json *message, const json *text) {
    bool model = has_role(message, "assistant") || has_role(message, "model");
    if (model)
        put_without_thoughts(&c->w, text->text, text->len);
    else
        put_trimmed(&c->w, text->text, text->len);
}

static void put_content(conversation *c, const json *message) {
    const json *content = json_get(message, "content");
    const json *images = json_get(message, "images"); /* Ollama's way: beside the text */
    for (size_t i = 0; images && images->kind == JSON_ARRAY && i < images->n; i++)
        put_medium(&c->w, &images->items[i], "<|image|>");
    if (content && content->kind == JSON_STRING) put_text(c, message, content);
    for (size_t i = 0; content && content->kind == JSON_ARRAY && i < content->n; i++) {
        const json *part = &content->items[i];
        if (!put_media_part(c, part)) put_text(c, message, part_text(part));
    }
}

/* ---- calls and their results -------------------------------------------------------------- */

static const json *call_list(const json *message) {
    const json *calls = json_get(message, "tool_calls");
    return calls && calls->kind == JSON_ARRAY && calls->n ? calls : NULL;
}

static const json *call_name(const json *call) {
    return json_get(json_get(call, "function"), "name");
}

static bool put_call(conversation *c, size_t i, size_t k, const json *call) {
    const json *name = call_name(call);
    const json *arguments = json_get(json_get(call, "function"), "arguments");
    if (!name || name->kind != JSON_STRING)
        return fail(c->err, CARAT_E_FORMAT, "messages[%zu]: tool_calls[%zu] has no function name",
                    i, k);
    if (arguments && arguments->kind == JSON_STRING) { /* OpenAI's form: JSON in a string */
        json *parsed = NULL;
        char what[64] = "tool call arguments";
        carat_error inner = {0};
        if (arguments->len &&
            !json_parse(c->w.scratch, arguments->text, arguments->len, what, &parsed, &inner))
            return fail(c->err, inner.code, "messages[%zu]: tool_calls[%zu]: %s", i, k,
                        inner.message);
        arguments = parsed;
    }
    if (arguments && arguments->kind != JSON_OBJECT && arguments->kind != JSON_NULL)
        return fail(c->err, CARAT_E_FORMAT,
                    "messages[%zu]: the arguments of tool_calls[%zu] are no object", i, k);
    put_mark(&c->w, "<|tool_call>call:");
    put_plain_string(&c->w, name);
    put_mark(&c->w, "{");
    if (arguments && arguments->kind == JSON_OBJECT) put_members(&c->w, arguments, false);
    put_mark(&c->w, "}<tool_call|>");
    return true;
}

static bool same_id(const json *a, const json *b) {
    bool has_a = a && a->kind == JSON_STRING, has_b = b && b->kind == JSON_STRING;
    if (!has_a || !has_b) return has_a == has_b; /* two missing ids are equal */
    return a->len == b->len && !memcmp(a->text, b->text, a->len);
}

/* Whose result the k-th tool message is: the call with its id, else its own name. */
static const json *result_name(conversation *c, const json *tool, const json *calls, size_t k) {
    const json *id = json_get(tool, "tool_call_id"), *name = json_get(tool, "name");
    if (!name || name->kind != JSON_STRING) name = json_get(tool, "tool_name");
    if (name && name->kind != JSON_STRING) name = NULL;
    if (c->w.repair && (!id || id->kind != JSON_STRING))
        return name ? name : call_name(json_at(calls, k));
    for (size_t i = 0; i < calls->n; i++)
        if (same_id(json_get(&calls->items[i], "id"), id)) name = call_name(&calls->items[i]);
    return name;
}

/* response:NAME{value:...}, or the members of an object themselves. */
static void put_result(conversation *c, const json *name, const json *value) {
    prompt_writer *w = &c->w;
    put_mark(w, "<|tool_response>response:");
    if (name)
        put_plain_string(w, name);
    else
        put_mark(w, "unknown");
    put_mark(w, "{");
    if (value && value->kind == JSON_OBJECT) {
        put_members(w, value, false);
    } else if (value && value->kind == JSON_ARRAY) { /* parts: their text is one string */
        put_mark(w, "value:<|\"|>");
        for (size_t i = 0; i < value->n; i++) put_plain_string(w, part_text(&value->items[i]));
        put_mark(w, "<|\"|>");
    } else {
        put_mark(w, "value:");
        put_value(w, value, false);
    }
    put_mark(w, "}<tool_response|>");
    for (size_t i = 0; value && value->kind == JSON_ARRAY && i < value->n; i++)
        put_media_part(c, &value->items[i]);
}

/* Results that a message carries itself, else those of the tool messages after it. Returns how
 * many there were. */
static size_t put_results(conversation *c, size_t i, const json *calls) {
    const json *own = json_get(&c->messages->items[i], "tool_responses");
    if (own && own->kind == JSON_ARRAY && own->n) {
        for (size_t k = 0; k < own->n; k++) {
            const json *name = json_get(&own->items[k], "name");
            put_result(c, name && name->kind == JSON_STRING ? name : NULL,
                       json_get(&own->items[k], "response"));
        }
        return own->n;
    }
    size_t n = 0;
    for (size_t k = i + 1; calls && k < c->messages->n; k++, n++) {
        const json *tool = &c->messages->items[k];
        if (!has_role(tool, "tool")) break;
        put_result(c, result_name(c, tool, calls, n), json_get(tool, "content"));
    }
    return n;
}

/* ---- turns -------------------------------------------------------------------------------- */

static const json *reasoning_of(const json *message) {
    static const char *const keys[] = {"reasoning", "reasoning_content", "thinking"};
    for (size_t i = 0; i < COUNT(keys); i++) {
        const json *text = json_get(message, keys[i]);
        if (text && text->kind == JSON_STRING && text->len) return text;
    }
    return NULL;
}

static void put_reasoning(conversation *c, size_t i) {
    const json *message = &c->messages->items[i], *text = reasoning_of(message);
    bool current = c->last_user == SIZE_MAX || i > c->last_user;
    if (!text || !(current || (c->o->preserve_thinking && call_list(message)))) return;
    put_mark(&c->w, "<|channel>thought\n");
    put_plain_string(&c->w, text);
    put_mark(&c->w, "\n<channel|>");
}

/* The nearest message before or after i that is not a tool's; NULL: none. */
static const json *neighbour(const conversation *c, size_t i, bool after) {
    while (after ? ++i < c->messages->n : i-- > c->first)
        if (!has_role(&c->messages->items[i], "tool")) return &c->messages->items[i];
    return NULL;
}

static void close_message(conversation *c, size_t i, bool calls, bool results, bool content) {
    const json *next = neighbour(c, i, true);
    bool goes_on = has_role(&c->messages->items[i], "assistant") && has_role(next, "assistant");
    c->end = results ? ENDED_RESPONSE : calls ? ENDED_CALL : ENDED_TURN;
    c->turn_closed = false;
    if (calls && !results) {
        put_mark(&c->w, "<|tool_response>"); /* the model waits */
    } else if (!goes_on && !(results && !content && !next)) {
        put_mark(&c->w, "<turn|>\n");
        c->turn_closed = true;
    }
}

static bool put_message(conversation *c, size_t i) {
    const json *message = &c->messages->items[i], *calls = call_list(message);
    bool assistant = has_role(message, "assistant");
    if (!assistant || !has_role(neighbour(c, i, false), "assistant")) {
        put_mark(&c->w, "<|turn>");
        put_mark(&c->w, assistant ? "model" : json_string(json_get(message, "role"), ""));
        put_mark(&c->w, "\n");
    }
    put_reasoning(c, i);
    for (size_t k = 0; calls && k < calls->n; k++)
        if (!put_call(c, i, k, &calls->items[k])) return false;
    size_t results = put_results(c, i, calls), before = c->w.p->text.len;
    put_content(c, message);
    close_message(c, i, calls, results > 0, c->w.p->text.len > before);
    return true;
}

static bool put_system(conversation *c, const json *tools) {
    const json *message = c->first ? &c->messages->items[0] : NULL;
    const json *content = json_get(message, "content");
    if (!message && !c->o->thinking && !(tools && tools->n)) return true;
    put_mark(&c->w, "<|turn>system\n");
    if (c->o->thinking) put_mark(&c->w, "<|think|>\n");
    if (content && content->kind == JSON_STRING) put_trimmed(&c->w, content->text, content->len);
    for (size_t i = 0; content && content->kind == JSON_ARRAY && i < content->n; i++) {
        const json *text = part_text(&content->items[i]);
        if (!text) continue;
        put_trimmed(&c->w, text->text, text->len);
        put_mark(&c->w, " ");
    }
    if (!put_declarations(&c->w, tools, c->err)) return false;
    put_mark(&c->w, "<turn|>\n");
    return true;
}

/* Opens the turn in which the model is to answer, unless it is open already. Large models think
 * even when not asked to, unless they find an empty thought. */
static void open_turn(conversation *c) {
    bool after_results = c->end == ENDED_RESPONSE && !(c->w.repair && c->turn_closed);
    if (c->end == ENDED_CALL) return;
    if (after_results) {
        if (c->o->thinking) put_mark(&c->w, "<|channel>thought\n");
        c->w.p->opens_thought = c->o->thinking;
        return;
    }
    put_mark(&c->w, "<|turn>model\n");
    if (c->o->large && !c->o->thinking) put_mark(&c->w, "<|channel>thought\n<channel|>");
}

/* ---- the whole ---------------------------------------------------------------------------- */

static bool check_message(conversation *c, size_t i) {
    static const char *const roles[] = {"system",    "developer", "user",
                                        "assistant", "model",     "tool"};
    const json *message = &c->messages->items[i], *role = json_get(message, "role");
    const json *calls = json_get(message, "tool_calls");
    if (message->kind != JSON_OBJECT) return wrong(c, i, "an object is expected");
    if (!role || role->kind != JSON_STRING) return wrong(c, i, "there is no role");
    if (calls && calls->kind != JSON_ARRAY && calls->kind != JSON_NULL)
        return wrong(c, i, "tool_calls is not a list");
    for (size_t k = 0; k < COUNT(roles); k++)
        if (json_is_string(role, roles[k])) return check_content(c, i);
    return fail(c->err, CARAT_E_FORMAT, "messages[%zu]: unknown role \"%.40s\"", i, role->text);
}

static bool render(conversation *c, const json *tools) {
    const json *messages = c->messages;
    if (!messages || messages->kind != JSON_ARRAY)
        return fail(c->err, CARAT_E_FORMAT, "messages: a list is expected");
    if (tools && tools->kind != JSON_ARRAY && tools->kind != JSON_NULL)
        return fail(c->err, CARAT_E_FORMAT, "tools: a list is expected");
    for (size_t i = 0; i < messages->n; i++)
        if (!check_message(c, i)) return false;

    c->first = messages->n && is_system(&messages->items[0]);
    for (size_t i = c->first; i < messages->n; i++)
        if (has_role(&messages->items[i], "user")) c->last_user = i;
    put_mark(&c->w, "<bos>");
    if (!put_system(c, tools)) return false;
    for (size_t i = c->first; i < messages->n; i++)
        if (!has_role(&messages->items[i], "tool") && !put_message(c, i)) return false;
    if (c->o->add_generation_prompt) open_turn(c);
    return true;
}

bool chat_render(const json *messages, const json *tools, const chat_options *options,
                 chat_prompt *out, carat_error *err) {
    *out = (chat_prompt){0};
    arena *scratch = arena_create(err);
    if (!scratch) return false;
    conversation c = {.w = {out, scratch, options->repair},
                      .o = options,
                      .messages = messages,
                      .last_user = SIZE_MAX,
                      .err = err};
    bool ok = render(&c, tools);
    arena_free(scratch);
    if (ok && out->text.failed) return fail_memory(err, out->text.len, "the prompt");
    return ok;
}
