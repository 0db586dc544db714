/* token/vocab.c: the vocabulary and merge rules of a GGUF as compact hash tables. It copies what it
 * needs and checks all of it; which tokens are special is tokenizer.c's matter.
 *
 * Flow: file/gguf.c reads the keys before; bpe.c and tokenizer.c look things up after. */
#include "token/vocab.h"

#include <string.h>

#define JOINT_BITS 22 /* 512 KiB; about 3 % of the bits are set by the real vocabulary */

/* ---- pieces ------------------------------------------------------------------------------- */

static uint32_t hash_text(const char *s, size_t n) {
    uint32_t h = 2166136261u; /* FNV-1a, then mixed: the table takes the low bits */
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)s[i]) * 16777619u;
    h = (h ^ h >> 15) * 0x2C1B3C6Du;
    return h ^ h >> 13;
}

/* The slot that holds this text, or the free one where it belongs. */
static uint64_t *find_slot(const vocab *v, uint32_t hash, const char *s, size_t n) {
    for (uint32_t i = hash & v->slot_mask;; i = (i + 1) & v->slot_mask) {
        uint64_t *slot = &v->slots[i];
        if (!*slot) return slot;
        if (*slot >> 32 != hash) continue;
        uint32_t id = (uint32_t)*slot - 1, len = v->start[id + 1] - v->start[id];
        if (len == n && !memcmp(v->text + v->start[id], s, n)) return slot;
    }
}

int32_t vocab_find(const vocab *v, const char *text, size_t n) {
    return (int32_t)((uint32_t)*find_slot(v, hash_text(text, n), text, n) - 1);
}

const char *vocab_text(const vocab *v, int32_t id, size_t *n) {
    *n = v->start[id + 1] - v->start[id];
    return v->text + v->start[id];
}

/* A power of two with room for n entries at half load at most. */
static uint32_t table_size(uint64_t n) {
    uint64_t size = 16;
    while (size < 2 * n) size *= 2;
    return (uint32_t)size;
}

/* A key that must be an array of strings; at most 2^26 items, so that tables keep to 32 bits. */
static bool find_strings(const gguf *g, const char *key, const gguf_value **out, carat_error *err) {
    const gguf_value *v = gguf_find(g, key);
    if (!v) return fail(err, CARAT_E_FORMAT, "tokenizer: the file has no %s", key);
    if (v->kind != GGUF_ARRAY || v->item != GGUF_STRING)
        return fail(err, CARAT_E_FORMAT, "tokenizer: %s is not an array of strings", key);
    if (v->n > 1u << 26)
        return fail(err, CARAT_E_FORMAT, "tokenizer: %s has %llu items, which is absurd", key,
                    (unsigned long long)v->n);
    *out = v;
    return true;
}

static bool alloc_pieces(arena *a, vocab *v, uint64_t bytes, carat_error *err) {
    uint32_t size = table_size(v->n);
    v->slot_mask = size - 1;
    v->text = arena_alloc(a, (size_t)bytes + 1, 1);
    v->start = arena_alloc(a, (size_t)v->n + 1, sizeof *v->start);
    v->flags = arena_alloc(a, (size_t)v->n + 1, 1);
    v->slots = arena_alloc(a, size, sizeof *v->slots);
    if (!v->text || !v->start || !v->flags || !v->slots)
        return fail_memory(err, bytes + v->n * 5ull + size * 8ull, "the vocabulary");
    return true;
}

static bool read_pieces(arena *a, const gguf *g, vocab *v, carat_error *err) {
    const gguf_value *tokens;
    if (!find_strings(g, "tokenizer.ggml.tokens", &tokens, err)) return false;
    if (!tokens->n) return fail(err, CARAT_E_FORMAT, "tokenizer: the vocabulary is empty");
    const gguf_string *piece = tokens->as.items;
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < tokens->n; i++) bytes += piece[i].len;
    if (bytes > UINT32_MAX / 2)
        return fail(err, CARAT_E_FORMAT, "tokenizer: the vocabulary has %llu bytes of text",
                    (unsigned long long)bytes);

    v->n = (uint32_t)tokens->n;
    if (!alloc_pieces(a, v, bytes, err)) return false;
    for (uint32_t id = 0; id < v->n; id++) {
        const char *text = piece[id].text;
        size_t n = piece[id].len;
        uint32_t hash = hash_text(text, n);
        uint64_t *slot = find_slot(v, hash, text, n);
        if (!n) return fail(err, CARAT_E_FORMAT, "tokenizer: token %u is empty", id);
        if (*slot)
            return fail(err, CARAT_E_FORMAT, "tokenizer: token %u repeats token %u, \"%.64s\"", id,
                        (uint32_t)*slot - 1, text);
        memcpy(v->text + v->start[id], text, n);
        v->start[id + 1] = v->start[id] + (uint32_t)n;
        *slot = (uint64_t)hash << 32 | (id + 1);
    }
    return true;
}

/* Byte tokens are known by their text: files disagree about their type. */
static bool find_bytes(vocab *v, carat_error *err) {
    static const char digits[] = "0123456789ABCDEF";
    for (unsigned b = 0; b < 256; b++) {
        const char text[6] = {'<', '0', 'x', digits[b >> 4], digits[b & 15], '>'};
        int32_t id = vocab_find(v, text, sizeof text);
        if (id < 0) return fail(err, CARAT_E_FORMAT, "tokenizer: the vocabulary lacks <0x%02X>", b);
        v->byte_id[b] = id;
        v->flags[id] |= TOKEN_BYTE;
    }
    return true;
}

/* ---- merges ------------------------------------------------------------------------------- */

static uint32_t hash_pair(int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32) ^ (uint32_t)h >> 7;
}

/* The slot of this pair, or the free one where it belongs. */
static uint32_t *find_merge(const vocab *v, int32_t left, int32_t right) {
    for (uint32_t i = hash_pair(left, right) & v->merge_mask;; i = (i + 1) & v->merge_mask) {
        uint32_t *slot = &v->merge_slots[i];
        if (!*slot) return slot;
        const merge *m = &v->merges[*slot - 1];
        if (m->left == left && m->right == right) return slot;
    }
}

uint32_t vocab_merge_rank(const vocab *v, int32_t left, int32_t right) {
    return *find_merge(v, left, right) - 1; /* a free slot gives NO_MERGE */
}

uint32_t pack_char(const char *c, size_t n) {
    uint32_t packed = 0;
    for (size_t i = 0; i < n; i++) packed = packed << 8 | (uint8_t)c[i];
    return packed;
}

static uint32_t joint_bit(uint32_t a, uint32_t b) {
    uint64_t h = ((uint64_t)a << 32 | b) * 0xD6E8FEB86659FD93u;
    return (uint32_t)(h >> (64 - JOINT_BITS));
}

bool vocab_may_join(const vocab *v, uint32_t a, uint32_t b) {
    uint32_t bit = joint_bit(a, b);
    return v->joints[bit / 64] >> bit % 64 & 1;
}

/* Two neighbours of a text can only end up in one piece if some merge joins a piece that ends with
 * the one to a piece that begins with the other: text may be cut everywhere else. */
static void add_joint(vocab *v, const char *left, size_t n_left, const char *right,
                      size_t n_right) {
    size_t last = 1, first = 1;
    while (last < 4 && last < n_left && ((uint8_t)left[n_left - last] & 0xC0) == 0x80) last++;
    while (first < 4 && first < n_right && ((uint8_t)right[first] & 0xC0) == 0x80) first++;
    uint32_t bit = joint_bit(pack_char(left + n_left - last, last), pack_char(right, first));
    v->joints[bit / 64] |= 1ull << bit % 64;
}

/* "left right": no piece holds a space, so the first one that is not in front divides. */
static bool read_merge(vocab *v, uint32_t rank, const gguf_string *line, buf *both,
                       carat_error *err) {
    const char *text = line->text;
    const char *space = line->len > 1 ? memchr(text + 1, ' ', line->len - 1) : NULL;
    if (!space || space + 1 == text + line->len)
        return fail(err, CARAT_E_FORMAT, "tokenizer: merge %u, \"%.64s\", is not a pair", rank,
                    text);
    size_t n_left = (size_t)(space - text), n_right = line->len - n_left - 1;
    buf_reset(both);
    buf_put(both, text, n_left);
    buf_put(both, space + 1, n_right);
    if (both->failed) return fail_memory(err, line->len, "the merges");

    merge m = {vocab_find(v, text, n_left), vocab_find(v, space + 1, n_right),
               vocab_find(v, both->data, both->len)};
    if (m.left < 0 || m.right < 0 || m.result < 0)
        return fail(err, CARAT_E_FORMAT,
                    "tokenizer: merge %u, \"%.64s\", has a part that is no token", rank, text);
    v->merges[rank] = m;
    uint32_t *slot = find_merge(v, m.left, m.right);
    if (!*slot) *slot = rank + 1; /* of duplicates the first one counts */
    add_joint(v, text, n_left, space + 1, n_right);
    return true;
}

static bool read_merges(arena *a, const gguf *g, vocab *v, carat_error *err) {
    const gguf_value *lines;
    if (!find_strings(g, "tokenizer.ggml.merges", &lines, err)) return false;
    v->n_merge = (uint32_t)lines->n;
    uint32_t size = table_size(v->n_merge);
    v->merge_mask = size - 1;
    v->merges = arena_alloc(a, (size_t)v->n_merge + 1, sizeof *v->merges);
    v->merge_slots = arena_alloc(a, size, sizeof *v->merge_slots);
    v->joints = arena_alloc(a, (1u << JOINT_BITS) / 64, sizeof *v->joints);
    if (!v->merges || !v->merge_slots || !v->joints)
        return fail_memory(err, v->n_merge * 12ull + size * 4ull, "the merges");

    buf both = {0};
    bool ok = true;
    const gguf_string *line = lines->as.items;
    for (uint32_t rank = 0; ok && rank < v->n_merge; rank++)
        ok = read_merge(v, rank, &line[rank], &both, err);
    buf_free(&both);
    return ok;
}

bool vocab_create(arena *a, const gguf *g, vocab **out, carat_error *err) {
    vocab *v = arena_alloc(a, 1, sizeof *v);
    if (!v) return fail_memory(err, sizeof *v, "the vocabulary");
    *out = v;
    return read_pieces(a, g, v, err) && find_bytes(v, err) && read_merges(a, g, v, err);
}
