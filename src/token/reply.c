/* token/reply.c: the tokens a model says -> text, thinking and tool calls. It is driven by token
 * ids: the markers are single tokens, so no tag is ever half there, and one that is only spelled
 * out in the text stays text.
 *
 *     text ... <|channel>thought\n thinking <channel|> text <|tool_call> call <tool_call|> text
 *
 * White space before a marker and after one is dropped; so what ends in white space waits until
 * more text comes. The text given out is always valid UTF-8. Stop strings count in the text only,
 * not in thinking or calls. Stray markers of every kind are dropped.
 *
 * Flow: model/job.c feeds each sampled id; call.c reads the calls; parts go out as events. */
#include "token/call.h"

#include <string.h>

typedef enum section { SECTION_TEXT, SECTION_THOUGHT, SECTION_CALL } section;

struct reply {
    arena *memory;
    const tokenizer *t;
    const json *tools;
    const char **stops;
    size_t *stop_len;
    size_t n_stop;
    bool show_thinking;

    section at;
    bool naming;     /* a channel just began: its name is still to be removed */
    bool skip_space; /* a marker just ended: white space is dropped */
    bool stopped;
    buf pending; /* of this section, not yet given out */
    uint32_t n_calls;

    buf text;    /* of the parts */
    buf parts;   /* of part */
    size_t next; /* the first part not taken */
};

typedef struct part {
    reply_kind kind;
    size_t offset, len; /* in text */
} part;

/* ---- life --------------------------------------------------------------------------------- */

bool reply_create(const tokenizer *t, const json *tools, bool thinking, bool in_thought,
                  const char *const *stops, size_t n_stop, reply **out, carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return false;
    reply *r = arena_alloc(memory, 1, sizeof *r);
    bool ok = r != NULL;
    if (ok) {
        *r = (reply){.memory = memory, .t = t, .tools = tools, .show_thinking = thinking};
        r->at = in_thought ? SECTION_THOUGHT : SECTION_TEXT;
        r->stops = arena_alloc(memory, n_stop + 1, sizeof *r->stops);
        r->stop_len = arena_alloc(memory, n_stop + 1, sizeof *r->stop_len);
        ok = r->stops && r->stop_len;
    }
    for (size_t i = 0; ok && i < n_stop; i++) {
        size_t len = stops[i] ? strlen(stops[i]) : 0;
        if (!len) continue; /* would stop everything */
        r->stops[r->n_stop] = arena_copy(memory, stops[i], len);
        r->stop_len[r->n_stop] = len;
        ok = r->stops[r->n_stop++] != NULL;
    }
    if (!ok) {
        arena_free(memory);
        return fail_memory(err, sizeof *r, "a reply");
    }
    *out = r;
    return true;
}

void reply_free(reply *r) {
    if (!r) return;
    buf_free(&r->pending);
    buf_free(&r->text);
    buf_free(&r->parts);
    arena_free(r->memory);
}

uint32_t reply_n_calls(const reply *r) { return r->n_calls; }

/* ---- parts -------------------------------------------------------------------------------- */

/* What was written to r->text from `offset` on becomes a part, or a longer last one. */
static void add_part(reply *r, reply_kind kind, size_t offset) {
    if (r->text.failed || r->text.len == offset) return;
    size_t n = r->parts.len / sizeof(part);
    part *last = n > r->next ? (part *)(void *)r->parts.data + n - 1 : NULL;
    if (last && last->kind == kind && kind != REPLY_CALL) {
        last->len += r->text.len - offset;
        return;
    }
    part p = {kind, offset, r->text.len - offset};
    buf_put(&r->parts, &p, sizeof p);
}

bool reply_next(reply *r, reply_part *out) {
    if (r->next >= r->parts.len / sizeof(part)) return false;
    const part *p = (const part *)(void *)r->parts.data + r->next++;
    *out = (reply_part){p->kind, r->text.data + p->offset, p->len};
    return true;
}

/* Forgets parts that were taken, if all were. */
static void forget_taken(reply *r) {
    if (r->next < r->parts.len / sizeof(part)) return;
    r->next = 0;
    r->parts.len = r->text.len = 0;
}

/* ---- text and thinking -------------------------------------------------------------------- */

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static void drop_front(buf *b, size_t n) {
    if (!n) return;
    memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
}

/* Gives out the first n bytes of what is pending, n <= pending.len. */
static void emit(reply *r, size_t n) {
    bool thought = r->at == SECTION_THOUGHT;
    size_t offset = r->text.len;
    if (n && (!thought || r->show_thinking)) put_valid_utf8(&r->text, r->pending.data, n, false);
    add_part(r, thought ? REPLY_THINKING : REPLY_TEXT, offset);
    drop_front(&r->pending, n);
}

/* Where the first stop string begins in what is pending, or SIZE_MAX. */
static size_t find_stop(const reply *r) {
    size_t found = SIZE_MAX;
    for (size_t i = 0; i < r->n_stop && r->pending.len; i++) {
        const char *at = memmem(r->pending.data, r->pending.len, r->stops[i], r->stop_len[i]);
        if (at && (size_t)(at - r->pending.data) < found) found = (size_t)(at - r->pending.data);
    }
    return found;
}

/* How much of what is pending cannot be the beginning of a stop string. */
static size_t before_stops(const reply *r) {
    size_t n = r->pending.len, safe = n;
    for (size_t i = 0; i < r->n_stop; i++) {
        size_t len = r->stop_len[i] - 1 < n ? r->stop_len[i] - 1 : n;
        while (len && memcmp(r->pending.data + n - len, r->stops[i], len)) len--;
        if (n - len < safe) safe = n - len;
    }
    return safe;
}

/* Removes the channel's name. False: more text is needed to know it. */
static bool remove_name(reply *r, bool ends) {
    static const char name[] = "thought\n";
    size_t n = r->pending.len < sizeof name - 1 ? r->pending.len : sizeof name - 1;
    bool fits = !n || !memcmp(r->pending.data, name, n);
    if (fits && n < sizeof name - 1 && !ends) return false;
    /* without its newline only when nothing follows it */
    if (fits && n >= sizeof name - 2) drop_front(&r->pending, n);
    r->naming = false;
    return true;
}

/* Gives out what can be given out now. */
static void stream(reply *r) {
    if (r->naming && !remove_name(r, false)) return;
    if (r->skip_space) {
        size_t n = 0;
        while (n < r->pending.len && is_space(r->pending.data[n])) n++;
        drop_front(&r->pending, n);
        r->skip_space = r->pending.len == 0;
    }
    size_t n = r->pending.len;
    if (r->at == SECTION_TEXT) {
        size_t stop = find_stop(r);
        if (stop != SIZE_MAX) {
            emit(r, stop);
            r->stopped = true;
            return;
        }
        n = before_stops(r);
    }
    if (n) n = utf8_complete(r->pending.data, n);
    while (n && is_space(r->pending.data[n - 1])) n--;
    emit(r, n);
}

/* ---- sections ----------------------------------------------------------------------------- */

/* A call that cannot be read, as it came. */
static void put_broken_call(reply *r, const buf *call, bool closed) {
    buf_puts(&r->text, "<|tool_call>");
    for (size_t at = 0, run; at < call->len; at += run) {
        const char *quote = memchr(call->data + at, CALL_QUOTE, call->len - at);
        run = quote ? (size_t)(quote - call->data) - at : call->len - at;
        buf_put(&r->text, call->data + at, run);
        if (quote) buf_puts(&r->text, "<|\"|>"), run++;
    }
    if (closed) buf_puts(&r->text, "<tool_call|>");
}

static void end_call(reply *r, bool closed) {
    carat_error why = {0};
    size_t offset = r->text.len;
    buf call = {0};
    put_valid_utf8(&call, r->pending.data, r->pending.len, true);
    if (call_parse(call.len ? call.data : "", call.len, r->tools, &r->text, &why)) {
        add_part(r, REPLY_CALL, offset);
        r->n_calls++;
    } else {
        put_broken_call(r, &call, closed);
        add_part(r, REPLY_TEXT, offset);
    }
    if (call.failed || why.code == CARAT_E_MEMORY) r->text.failed = true;
    buf_free(&call);
    if (!r->pending.failed) r->pending.len = 0;
}

/* Ends the section that is open; white space at its end is dropped. closed: a call had its end. */
static void end_section(reply *r, bool closed) {
    if (r->at == SECTION_CALL) {
        end_call(r, closed);
        return;
    }
    if (r->naming) remove_name(r, true);
    size_t n = r->pending.len;
    while (n && is_space(r->pending.data[n - 1])) n--;
    emit(r, n);
    if (!r->pending.failed) r->pending.len = 0;
}

static void begin_section(reply *r, section next) {
    r->at = next;
    r->naming = next == SECTION_THOUGHT;
    r->skip_space = next == SECTION_TEXT;
}

static void feed_marker(reply *r, int32_t id) {
    static const char quote = CALL_QUOTE;
    const int32_t *mark = r->t->specials;
    bool call = r->at == SECTION_CALL, thought = r->at == SECTION_THOUGHT;
    bool ends_call = call && (id == mark[SPECIAL_CALL_END] || id == mark[SPECIAL_RESPONSE]);
    if (id == mark[SPECIAL_CHANNEL] || id == mark[SPECIAL_CALL]) {
        end_section(r, false);
        begin_section(r, id == mark[SPECIAL_CALL] ? SECTION_CALL : SECTION_THOUGHT);
    } else if (ends_call || (thought && id == mark[SPECIAL_CHANNEL_END])) {
        end_section(r, id == mark[SPECIAL_CALL_END]);
        begin_section(r, SECTION_TEXT);
    } else if (call && id == mark[SPECIAL_QUOTE]) {
        buf_put(&r->pending, &quote, 1);
    }
}

static void feed_text(reply *r, int32_t id) {
    size_t before = r->pending.len;
    tokenizer_decode(r->t, id, false, &r->pending);
    if (r->at != SECTION_CALL) {
        stream(r);
        return;
    }
    for (size_t i = before; i < r->pending.len; i++) /* a byte token is no delimiter */
        if (r->pending.data[i] == CALL_QUOTE) r->pending.data[i] = '?';
}

static bool check_memory(const reply *r, carat_error *err) {
    if (!r->pending.failed && !r->text.failed && !r->parts.failed) return true;
    return fail_memory(err, r->pending.len + r->text.len, "a reply");
}

bool reply_feed(reply *r, int32_t id, bool *stopped, carat_error *err) {
    forget_taken(r);
    if (!r->stopped) {
        if (tokenizer_is_special(r->t, id))
            feed_marker(r, id);
        else
            feed_text(r, id);
    }
    *stopped = r->stopped;
    return check_memory(r, err);
}

bool reply_end(reply *r, carat_error *err) {
    forget_taken(r);
    if (!r->stopped) {
        if (r->naming) remove_name(r, true);
        if (r->at == SECTION_CALL)
            end_call(r, false);
        else
            emit(r, r->pending.len);
    }
    bool ok = check_memory(r, err);
    buf_reset(&r->pending);
    return ok;
}
