/* token/prompt.c: the pieces of a prompt, values in Gemma's own syntax (bare keys, strings between
 * delimiter tokens, nothing escaped), and a prompt's token ids.
 *
 * Flow: chat.c and declare.c write through here; bpe.c encodes the result. */
#include "token/prompt.h"
#include "token/vocab.h"

#include <stdlib.h>
#include <string.h>

/* ---- pieces ------------------------------------------------------------------------------- */

static void put_piece(chat_prompt *p, const char *text, size_t n, bool trusted) {
    if (!n) return;
    chat_piece *last = p->n ? &p->pieces[p->n - 1] : NULL;
    if (last && last->trusted == trusted) {
        last->len += n;
    } else {
        chat_piece piece = {p->text.len, n, trusted};
        buf grow = {(char *)p->pieces, p->n * sizeof piece, p->cap, p->text.failed};
        buf_put(&grow, &piece, sizeof piece);
        p->pieces = (chat_piece *)(void *)grow.data;
        p->n = grow.len / sizeof piece;
        p->cap = grow.cap;
        p->text.failed = grow.failed;
    }
    buf_put(&p->text, text, n);
}

void put_mark(prompt_writer *w, const char *text) { put_piece(w->p, text, strlen(text), true); }

void put_plain(prompt_writer *w, const char *text, size_t n) { put_piece(w->p, text, n, false); }

void put_plain_string(prompt_writer *w, const json *s) {
    if (s && s->kind == JSON_STRING) put_plain(w, s->text, s->len);
}

void chat_prompt_free(chat_prompt *p) {
    buf pieces = {(char *)p->pieces, 0, p->cap, false};
    buf_free(&pieces);
    buf_free(&p->text);
    buf_free(&p->media);
    *p = (chat_prompt){0};
}

/* ---- values ------------------------------------------------------------------------------- */

typedef struct member {
    const json *key;
    size_t at;
} member;

static int lower(char c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : (uint8_t)c; }

static int compare_keys(const member *a, const member *b, bool fold) {
    size_t n = a->key->len < b->key->len ? a->key->len : b->key->len;
    for (size_t i = 0; i < n; i++) {
        char x = a->key->text[i], y = b->key->text[i];
        int difference = fold ? lower(x) - lower(y) : (uint8_t)x - (uint8_t)y;
        if (difference) return difference;
    }
    return (a->key->len > b->key->len) - (a->key->len < b->key->len);
}

static int in_order(const member *a, const member *b) { return (a->at > b->at) - (a->at < b->at); }

static int by_bytes(const void *a, const void *b) {
    int difference = compare_keys(a, b, false);
    return difference ? difference : in_order(a, b);
}

static int by_folded(const void *a, const void *b) {
    int difference = compare_keys(a, b, true);
    return difference ? difference : in_order(a, b);
}

size_t sort_members(prompt_writer *w, const json *object, size_t **order) {
    size_t n = object->n, kept = 0;
    member *m = arena_alloc(w->scratch, n + 1, sizeof *m);
    *order = arena_alloc(w->scratch, n + 1, sizeof **order);
    if (!m || !*order) {
        w->p->text.failed = true;
        return 0;
    }
    for (size_t i = 0; i < n; i++) m[i] = (member){&object->keys[i], i};
    qsort(m, n, sizeof *m, by_bytes);
    for (size_t i = 0; i < n; i++)
        if (i + 1 == n || compare_keys(&m[i], &m[i + 1], false)) m[kept++] = m[i];
    qsort(m, kept, sizeof *m, by_folded);
    for (size_t i = 0; i < kept; i++) (*order)[i] = m[i].at;
    return kept;
}

void put_quoted(prompt_writer *w, const char *text, size_t n) {
    put_mark(w, "<|\"|>");
    put_plain(w, text, n);
    put_mark(w, "<|\"|>");
}

void put_members(prompt_writer *w, const json *object, bool quoted_keys) {
    size_t *order, n = sort_members(w, object, &order);
    for (size_t i = 0; i < n; i++) {
        const json *key = &object->keys[order[i]];
        if (i) put_mark(w, ",");
        if (quoted_keys)
            put_quoted(w, key->text, key->len);
        else
            put_plain(w, key->text, key->len);
        put_mark(w, ":");
        put_value(w, &object->items[order[i]], quoted_keys);
    }
}

void put_value(prompt_writer *w, const json *v, bool quoted_keys) {
    switch (v ? v->kind : JSON_NULL) {
    case JSON_NULL:
        put_mark(w, "null");
        break;
    case JSON_BOOL:
        put_mark(w, v->truth ? "true" : "false");
        break;
    case JSON_NUMBER:
        put_plain(w, v->text, v->len);
        break; /* as it was written */
    case JSON_STRING:
        put_quoted(w, v->text, v->len);
        break;
    case JSON_ARRAY:
        put_mark(w, "[");
        for (size_t i = 0; i < v->n; i++) {
            if (i) put_mark(w, ",");
            put_value(w, &v->items[i], quoted_keys);
        }
        put_mark(w, "]");
        break;
    case JSON_OBJECT:
        put_mark(w, "{");
        put_members(w, v, quoted_keys);
        put_mark(w, "}");
        break;
    }
}

/* ---- ids ---------------------------------------------------------------------------------- */

void chat_encode(const tokenizer *t, const chat_prompt *p, id_list *out) {
    id_list found = {0};
    encoder e = {.t = t, .out = &found};
    for (size_t i = 0; i < p->n; i++)
        encoder_text(&e, p->text.data + p->pieces[i].offset, p->pieces[i].len,
                     p->pieces[i].trusted);
    encoder_end(&e);

    int32_t bos = t->specials[SPECIAL_BOS];
    size_t n_bos = 0;
    while (n_bos < found.len && found.data[n_bos] == bos) n_bos++;
    ids_put(out, bos);
    if (found.len > n_bos) ids_append(out, found.data + n_bos, found.len - n_bos);
    if (found.failed) out->failed = true;
    ids_free(&found);
}
