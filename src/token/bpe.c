/* token/bpe.c: text -> ids by byte-pair merging. Pairs merge in order of rank, the leftmost of
 * equals first; a character that is no token becomes its bytes. No word splitting, no Unicode
 * normalisation: a space is U+2581 and nothing else is special.
 *
 * Flow: chat.c or a program hands in text; the ids go to the model. */
#include "token/vocab.h"

#include <string.h>

#define END  UINT32_MAX
#define GONE (-1)

/* A stretch of text while it is merged: a linked list in an array. */
typedef struct symbol {
    int32_t id; /* or GONE: merged into the one before */
    uint32_t prev, next;
} symbol;

/* ---- a heap of candidate pairs, rank << 32 | position of the left symbol -------------------- */

static void heap_push(buf *heap, uint64_t key) {
    buf_put(heap, &key, sizeof key);
    if (heap->failed) return;
    uint64_t *k = (uint64_t *)(void *)heap->data;
    size_t i = heap->len / sizeof key - 1;
    for (; i && k[(i - 1) / 2] > key; i = (i - 1) / 2) k[i] = k[(i - 1) / 2];
    k[i] = key;
}

static uint64_t heap_pop(buf *heap) {
    uint64_t *k = (uint64_t *)(void *)heap->data;
    uint64_t top = k[0];
    heap->len -= sizeof top;
    size_t n = heap->len / sizeof top, i = 0;
    uint64_t key = k[n];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && k[child + 1] < k[child]) child++;
        if (k[child] >= key) break;
        k[i] = k[child];
    }
    k[i] = key;
    return top;
}

/* ---- merging ------------------------------------------------------------------------------ */

static void push_pair(encoder *e, const vocab *v, const symbol *s, uint32_t left) {
    if (left == END || s[left].next == END) return;
    uint32_t rank = vocab_merge_rank(v, s[left].id, s[s[left].next].id);
    if (rank != NO_MERGE) heap_push(&e->heap, (uint64_t)rank << 32 | left);
}

static void merge_symbols(encoder *e, const vocab *v, symbol *s, uint32_t n) {
    buf_reset(&e->heap);
    for (uint32_t i = 0; i + 1 < n; i++) push_pair(e, v, s, i);
    while (e->heap.len && !e->heap.failed) {
        uint64_t key = heap_pop(&e->heap);
        const merge *m = &v->merges[key >> 32];
        uint32_t left = (uint32_t)key, right = s[left].next;
        if (s[left].id != m->left || right == END || s[right].id != m->right) continue; /* stale */
        s[left].id = m->result;
        s[left].next = s[right].next;
        s[right].id = GONE;
        if (s[left].next != END) s[s[left].next].prev = left;
        push_pair(e, v, s, s[left].prev);
        push_pair(e, v, s, left);
    }
    if (e->heap.failed) e->out->failed = true;
}

/* Merges the symbols collected so far and gives out what is left of them. */
static void flush_symbols(encoder *e, const vocab *v) {
    symbol *s = (symbol *)(void *)e->symbols.data;
    uint32_t n = (uint32_t)(e->symbols.len / sizeof *s);
    if (e->symbols.failed) e->out->failed = true;
    if (!n || e->out->failed) return;
    s[n - 1].next = END;
    if (n > 1) merge_symbols(e, v, s, n);
    for (uint32_t i = 0; i != END; i = s[i].next) ids_put(e->out, s[i].id);
    buf_reset(&e->symbols);
}

static void add_symbol(encoder *e, int32_t id) {
    uint32_t at = (uint32_t)(e->symbols.len / sizeof(symbol));
    symbol s = {id, at ? at - 1 : END, at + 1};
    buf_put(&e->symbols, &s, sizeof s);
}

static void encode_pending(encoder *e) {
    const vocab *v = e->t->tables;
    const char *text = e->pending.data;
    size_t n = e->pending.len;
    if (e->pending.failed || n >= END) e->out->failed = true; /* positions have 32 bits */
    uint32_t before = 0;                                      /* the character before, packed */
    for (size_t at = 0, len; at < n && !e->out->failed; at += len) {
        len = utf8_length(text + at, n - at);
        int32_t id = len ? vocab_find(v, text + at, len) : -1;
        if (!len) len = 1; /* an invalid byte */
        uint32_t packed = pack_char(text + at, len);
        if (id < 0 || !vocab_may_join(v, before, packed)) flush_symbols(e, v);
        if (id >= 0) add_symbol(e, id);
        for (size_t i = 0; id < 0 && i < len; i++)
            ids_put(e->out, v->byte_id[(uint8_t)text[at + i]]);
        before = packed;
    }
    flush_symbols(e, v);
    buf_reset(&e->pending);
}

/* ---- input -------------------------------------------------------------------------------- */

static void add_pending(encoder *e, const char *text, size_t n) {
    while (n) {
        const char *space = memchr(text, ' ', n);
        size_t run = space ? (size_t)(space - text) : n;
        buf_put(&e->pending, text, run);
        if (!space) return;
        buf_puts(&e->pending, "\xE2\x96\x81");
        text += run + 1, n -= run + 1;
    }
}

/* The control token at the front of text [n], the longest that fits, or -1. */
static int32_t special_at(const tokenizer *t, const char *text, size_t n, size_t *len) {
    int32_t found = -1;
    *len = 0;
    for (int i = 0; i < SPECIAL_COUNT; i++) {
        if (t->specials[i] < 0) continue;
        size_t n_piece;
        const char *piece = vocab_text(t->tables, t->specials[i], &n_piece);
        if (n_piece > n || n_piece <= *len || memcmp(piece, text, n_piece)) continue;
        found = t->specials[i];
        *len = n_piece;
    }
    return found;
}

void encoder_text(encoder *e, const char *text, size_t n, bool specials) {
    size_t from = 0;
    for (size_t at = 0, len; specials && at < n; at += len) {
        const char *open = memchr(text + at, '<', n - at); /* all of them begin with it */
        if (!open) break;
        at = (size_t)(open - text);
        int32_t id = special_at(e->t, open, n - at, &len);
        if (id < 0) {
            len = 1;
            continue;
        }
        add_pending(e, text + from, at - from);
        encode_pending(e);
        ids_put(e->out, id);
        from = at + len;
    }
    add_pending(e, text + from, n - from);
}

void encoder_end(encoder *e) {
    encode_pending(e);
    buf_free(&e->pending);
    buf_free(&e->symbols);
    buf_free(&e->heap);
}

void tokenizer_encode(const tokenizer *t, const char *text, size_t n, bool specials, id_list *out) {
    encoder e = {.t = t, .out = out};
    if (n) encoder_text(&e, text, n, specials);
    encoder_end(&e);
}
