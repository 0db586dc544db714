/* dataset: a file of conversations as samples of tokens, with a mark on every token that is
 * learned: what the model itself says, up to the token that ends its turn, and not what people and
 * tools say. Lines that cannot be used are counted.
 *
 * Flow: rows.c says what a line is, token/chat.c renders it; train.c takes the samples. */
#include "train/train.h"

#include <stdio.h>
#include <string.h>

#define MAX_LEN   2048u
#define MAX_BYTES (1ull << 31)

typedef struct reader {
    const tokenizer *t;
    const dataset_options *o;
    dataset *d;
    arena *row; /* of the row at hand */
    id_list ids;
    buf target; /* [ids.len] */
    buf role;   /* of a turn, as text */
} reader;

/* ---- what is learned ---- */

/* Whether the turn that begins at i is the model's; *after: its first token after the role. */
static bool models_turn(reader *r, size_t i, size_t *after) {
    bool ended = false;
    buf *role = &r->role;
    if (role->failed) return false; /* of this row; encode_row() says so */
    buf_reset(role);
    for (i++; i < r->ids.len && role->len < 32 && !ended && !role->failed; i++) {
        tokenizer_decode(r->t, r->ids.data[i], false, role);
        ended = role->data && strchr(role->data, '\n');
    }
    *after = i;
    return ended && !strcmp(role->data, "model\n");
}

/* Marks what the model says. A tool's response begins with a token that the model writes after its
 * call; the rest of it comes from outside. */
static void mark_answers(reader *r) {
    const id_list *ids = &r->ids;
    const int32_t *s = r->t->specials;
    char *target = r->target.data;
    bool response = false;
    for (size_t i = 0; i < ids->len; i++) {
        size_t at;
        if (ids->data[i] != s[SPECIAL_TURN] || !models_turn(r, i, &at)) continue;
        for (; at < ids->len; at++) {
            const int32_t id = ids->data[at];
            if (id == s[SPECIAL_RESPONSE]) {
                target[at] = ids->data[at - 1] == s[SPECIAL_CALL_END];
                response = true;
            } else {
                target[at] = !response;
            }
            if (id == s[SPECIAL_RESPONSE_END]) response = false;
            if (id == s[SPECIAL_TURN_END]) break;
        }
        i = at;
        response = false;
    }
}

/* ---- a row ---- */

static bool has_thoughts(const json *messages) {
    static const char *const keys[] = {"reasoning", "reasoning_content", "thinking"};
    for (size_t i = 0; i < messages->n; i++)
        for (size_t k = 0; k < COUNT(keys); k++) {
            const json *v = json_get(&messages->items[i], keys[k]);
            if (v && v->kind == JSON_STRING && v->len) return true;
        }
    return false;
}

/* Large models answer after an empty thought when they are not to think: it stands before the last
 * answer as it does when they are asked. */
static void put_empty_thought(reader *r) {
    const char *thought = "<|channel>thought\n<channel|>";
    size_t last = SIZE_MAX, at;
    for (size_t i = 0; i < r->ids.len; i++)
        if (r->ids.data[i] == r->t->specials[SPECIAL_TURN] && models_turn(r, i, &at)) last = at;
    if (last == SIZE_MAX) return;
    id_list whole = {0};
    ids_append(&whole, r->ids.data, last);
    tokenizer_encode(r->t, thought, strlen(thought), true, &whole);
    const size_t end = whole.len;
    ids_append(&whole, r->ids.data + last, r->ids.len - last);
    ids_free(&r->ids);
    r->ids = whole;
    buf_reset(&r->target);
    for (size_t i = 0; i < whole.len; i++) buf_put(&r->target, "", 1);
    if (whole.failed || r->target.failed) return;
    mark_answers(r);
    memset(r->target.data + last, 0, end - last);
}

static bool encode_messages(reader *r, const row *w, carat_error *err) {
    const bool thinking = has_thoughts(w->messages);
    const chat_options options = {
        .thinking = thinking, .preserve_thinking = true, .large = r->o->large, .repair = true};
    chat_prompt p;
    bool ok = chat_render(w->messages, w->tools, &options, &p, err);
    if (ok && p.media.len)
        ok = fail(err, CARAT_E_UNSUPPORTED, "has pictures or sounds, which are not learned");
    if (ok) {
        chat_encode(r->t, &p, &r->ids);
        for (size_t i = 0; i < r->ids.len; i++) buf_put(&r->target, "", 1);
        if (!r->ids.failed && !r->target.failed) mark_answers(r);
        if (r->o->large && !thinking) put_empty_thought(r);
    }
    chat_prompt_free(&p);
    return ok;
}

/* A BOS, the text (which may hold control tokens), and an end. */
static void encode_text(reader *r, const json *text) {
    const int32_t *s = r->t->specials;
    const int32_t bos = s[SPECIAL_BOS];
    id_list body = {0};
    tokenizer_encode(r->t, text->text, text->len, true, &body);
    ids_put(&r->ids, bos);
    for (size_t i = body.len && body.data[0] == bos; i < body.len; i++)
        ids_put(&r->ids, body.data[i]);
    if (!r->ids.failed && !tokenizer_is_stop(r->t, r->ids.data[r->ids.len - 1]))
        ids_put(&r->ids, s[SPECIAL_EOS]);
    r->ids.failed |= body.failed;
    ids_free(&body);
    for (size_t i = 0; i < r->ids.len; i++) buf_put(&r->target, i ? "\1" : "", 1);
}

/* What is in r->ids as a sample, cut if need be, unless nothing of it would be learned. */
static void add_sample(reader *r, uint32_t line) {
    dataset *d = r->d;
    const uint32_t max = r->o->max_len ? r->o->max_len : MAX_LEN;
    sample s = {.begin = d->ids.len, .n = (uint32_t)r->ids.len, .line = line};
    if (s.n > max && r->o->drop_long) {
        d->n_dropped++;
        return;
    }
    d->n_cut += s.n > max;
    s.n = min_u32(s.n, max);
    if (r->o->learn_all)
        for (uint32_t i = 1; i < s.n; i++) r->target.data[i] = 1;
    for (uint32_t i = 0; i < s.n; i++) s.n_target += r->target.data[i] != 0;
    if (!s.n_target) {
        d->n_unlearned++;
        return;
    }
    ids_append(&d->ids, r->ids.data, s.n);
    buf_put(&d->target, r->target.data, s.n);
    buf_put(&d->list, &s, sizeof s);
    d->hash = hash_bytes(hash_bytes(d->hash, r->ids.data, s.n * sizeof *r->ids.data),
                         r->target.data, s.n);
    d->longest = max_u32(d->longest, s.n);
    d->n_target += s.n_target;
    d->n++;
}

static bool encode_row(reader *r, const json *object, carat_error *err) {
    row w;
    r->ids.len = 0;
    r->ids.failed = false;
    buf_reset(&r->target);
    buf_reset(&r->role);
    if (!row_read(r->row, object, &w, err)) return false;
    if (w.text)
        encode_text(r, w.text);
    else if (!encode_messages(r, &w, err))
        return false;
    return (!r->ids.failed && !r->target.failed && !r->role.failed) ||
           fail_memory(err, r->ids.len, "a sample");
}

/* wrong: why the row is none. Counts it, or stops. */
static bool bad_row(reader *r, uint32_t line, const carat_error *wrong, carat_error *err) {
    if (wrong->code == CARAT_E_MEMORY || r->o->stop_at_bad)
        return fail(err, wrong->code, "data: line %u: %s", line, wrong->message);
    if (!r->d->n_bad++)
        snprintf(r->d->bad, sizeof r->d->bad, "line %u: %.400s", line, wrong->message);
    return true;
}

/* ok: object is one, else wrong says why not. */
static bool take_row(reader *r, bool ok, const json *object, uint32_t line, carat_error *wrong,
                     carat_error *err) {
    r->d->n_row++;
    if (!ok || !encode_row(r, object, wrong)) return bad_row(r, line, wrong, err);
    add_sample(r, line);
    return true;
}

/* ---- files ---- */

static bool next_row(reader *r, carat_error *err) {
    arena_free(r->row);
    r->row = arena_create(err);
    return r->row != NULL;
}

static bool blank(const char *text, size_t n) {
    while (n && strchr(" \t\r", text[n - 1])) n--;
    return n == 0;
}

static bool read_lines(reader *r, const char *text, size_t n, carat_error *err) {
    uint32_t line = 1;
    for (size_t at = 0, end; at < n; at = end + 1, line++) {
        const char *stop = memchr(text + at, '\n', n - at);
        end = stop ? (size_t)(stop - text) : n;
        if (blank(text + at, end - at)) continue;
        carat_error wrong = {0};
        json *object = NULL;
        if (!next_row(r, err)) return false;
        const bool ok = json_parse(r->row, text + at, end - at, "JSON", &object, &wrong);
        if (!take_row(r, ok, object, line, &wrong, err)) return false;
    }
    return true;
}

static bool read_list(reader *r, const char *text, size_t n, carat_error *err) {
    arena *memory = arena_create(err);
    json *list;
    if (!memory) return false;
    bool ok = json_parse(memory, text, n, "data", &list, err);
    for (size_t i = 0; ok && i < list->n; i++) {
        carat_error wrong = {0};
        ok = next_row(r, err) && take_row(r, true, &list->items[i], (uint32_t)i + 1, &wrong, err);
    }
    arena_free(memory);
    return ok;
}

static bool read_csv(reader *r, const char *text, size_t n, carat_error *err) {
    arena *memory = arena_create(err);
    json head, object;
    size_t at = 0;
    uint32_t line = 1;
    bool ok = memory && csv_record(memory, text, n, NULL, &at, &line, &head, err);
    while (ok && at < n) {
        const uint32_t first = line;
        carat_error wrong = {0};
        const char *stop = memchr(text + at, '\n', n - at);
        if (blank(text + at, (stop ? (size_t)(stop - text) : n) - at)) {
            at = stop ? (size_t)(stop - text) + 1 : n;
            line++;
            continue;
        }
        ok = next_row(r, err);
        if (!ok) break;
        const bool whole = csv_record(r->row, text, n, &head, &at, &line, &object, &wrong);
        ok = take_row(r, whole, &object, first, &wrong, err);
    }
    arena_free(memory);
    return ok;
}

static bool ends_in(const char *s, const char *end) {
    const size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static bool read_file(reader *r, source *src, carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return false;
    bool ok = src->size < MAX_BYTES ||
              fail(err, CARAT_E_UNSUPPORTED, "data: %s is larger than 2 GB", src->name);
    char *text = ok ? arena_alloc(memory, src->size + 1, 1) : NULL;
    ok = ok && (text || fail_memory(err, src->size, src->name)) &&
         source_read(src, 0, text, (size_t)src->size, err);
    if (ok) {
        size_t n = (size_t)src->size, first = 0;
        if (n >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) text += 3, n -= 3;
        while (first < n && strchr(" \t\r\n", text[first])) first++;
        if (ends_in(src->name, ".csv"))
            ok = read_csv(r, text, n, err);
        else if (first < n && text[first] == '[')
            ok = read_list(r, text, n, err);
        else
            ok = read_lines(r, text, n, err);
    }
    arena_free(memory);
    return ok;
}

static bool finish(reader *r, const char *name, carat_error *err) {
    dataset *d = r->d;
    if (d->ids.failed || d->target.failed || d->list.failed)
        return fail_memory(err, d->ids.len, "the samples");
    d->samples = (sample *)(void *)d->list.data;
    if (d->n) return true;
    if (d->n_bad)
        return fail(err, CARAT_E_FORMAT, "data: %s: not one of %u rows can be used; %.300s", name,
                    d->n_row, d->bad);
    if (d->n_unlearned)
        return fail(err, CARAT_E_FORMAT,
                    "data: %s: in none of %u rows is there anything to learn: no answers, or all "
                    "are cut off",
                    name, d->n_row);
    if (d->n_dropped)
        return fail(err, CARAT_E_FORMAT, "data: %s: all %u rows are too long", name, d->n_row);
    return fail(err, CARAT_E_FORMAT, "data: %s is empty", name);
}

bool dataset_open(const tokenizer *t, source *src, const dataset_options *o, dataset **out,
                  carat_error *err) {
    arena *memory = arena_create(err);
    dataset *d = memory ? arena_alloc(memory, 1, sizeof *d) : NULL;
    if (!d) {
        arena_free(memory);
        return fail_memory(err, sizeof *d, "the samples");
    }
    *d = (dataset){.memory = memory, .hash = FNV_START};
    reader r = {.t = t, .o = o, .d = d};
    const bool ok = read_file(&r, src, err) && finish(&r, src->name, err);
    arena_free(r.row);
    ids_free(&r.ids);
    buf_free(&r.target);
    buf_free(&r.role);
    if (ok)
        *out = d;
    else
        dataset_free(d);
    return ok;
}

void dataset_free(dataset *d) {
    if (!d) return;
    ids_free(&d->ids);
    buf_free(&d->target);
    buf_free(&d->list);
    arena_free(d->memory);
}

void dataset_show(const dataset *d, const tokenizer *t, uint32_t i, buf *out) {
    const sample *s = &d->samples[i];
    bool inside = false;
    for (size_t at = s->begin; at < s->begin + s->n; at++) {
        if (inside != (d->target.data[at] != 0)) buf_puts(out, inside ? "]]" : "[[");
        inside = d->target.data[at] != 0;
        tokenizer_decode(t, d->ids.data[at], true, out);
    }
    if (inside) buf_puts(out, "]]");
}
