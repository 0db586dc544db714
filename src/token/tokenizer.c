/* token/tokenizer.c: a tokenizer from a GGUF's keys (control tokens, stop set, suppressed set), and
 * ids -> text. Everything is looked up by text: other vocabularies have other ids, and some lack
 * tokens.
 *
 * Flow: vocab.c has the tables; bpe.c encodes; reply.c decodes through here what the model says. */
#include "token/vocab.h"

#include <string.h>

static const char *const special_text[SPECIAL_COUNT] = {
    [SPECIAL_PAD] = "<pad>",
    [SPECIAL_EOS] = "<eos>",
    [SPECIAL_BOS] = "<bos>",
    [SPECIAL_UNK] = "<unk>",
    [SPECIAL_MASK] = "<mask>",
    [SPECIAL_TOOL] = "<|tool>",
    [SPECIAL_TOOL_END] = "<tool|>",
    [SPECIAL_CALL] = "<|tool_call>",
    [SPECIAL_CALL_END] = "<tool_call|>",
    [SPECIAL_RESPONSE] = "<|tool_response>",
    [SPECIAL_RESPONSE_END] = "<tool_response|>",
    [SPECIAL_QUOTE] = "<|\"|>",
    [SPECIAL_THINK] = "<|think|>",
    [SPECIAL_CHANNEL] = "<|channel>",
    [SPECIAL_CHANNEL_END] = "<channel|>",
    [SPECIAL_TURN] = "<|turn>",
    [SPECIAL_TURN_END] = "<turn|>",
    [SPECIAL_IMAGE_BEGIN] = "<|image>",
    [SPECIAL_AUDIO_BEGIN] = "<|audio>",
    [SPECIAL_IMAGE] = "<|image|>",
    [SPECIAL_AUDIO] = "<|audio|>",
    [SPECIAL_IMAGE_END] = "<image|>",
    [SPECIAL_AUDIO_END] = "<audio|>",
    [SPECIAL_VIDEO] = "<|video|>",
};

/* A conversation cannot be written without these. */
static const special needed[] = {SPECIAL_BOS, SPECIAL_EOS, SPECIAL_TURN, SPECIAL_TURN_END};
static const special stopping[] = {SPECIAL_EOS, SPECIAL_TURN_END, SPECIAL_RESPONSE};
/* What the model never has a reason to say; media slots carry vectors, not tokens. */
static const special never_said[] = {SPECIAL_PAD,       SPECIAL_BOS,         SPECIAL_UNK,
                                     SPECIAL_MASK,      SPECIAL_IMAGE_BEGIN, SPECIAL_AUDIO_BEGIN,
                                     SPECIAL_IMAGE,     SPECIAL_AUDIO,       SPECIAL_IMAGE_END,
                                     SPECIAL_AUDIO_END, SPECIAL_VIDEO};

static bool find_specials(tokenizer *t, vocab *v, carat_error *err) {
    for (size_t i = 0; i < SPECIAL_COUNT; i++) {
        t->specials[i] = vocab_find(v, special_text[i], strlen(special_text[i]));
        if (t->specials[i] >= 0) v->flags[t->specials[i]] |= TOKEN_SPECIAL;
    }
    for (size_t i = 0; i < COUNT(needed); i++)
        if (t->specials[needed[i]] < 0)
            return fail(err, CARAT_E_FORMAT, "tokenizer: the vocabulary lacks %s",
                        special_text[needed[i]]);
    return true;
}

static void flag_specials(const tokenizer *t, vocab *v, const special *which, size_t n,
                          token_flag flag) {
    for (size_t i = 0; i < n; i++)
        if (t->specials[which[i]] >= 0) v->flags[t->specials[which[i]]] |= (uint8_t)flag;
}

/* Flags the id, or all ids, that a key names. */
static bool flag_key(const gguf *g, const char *key, vocab *v, token_flag flag, carat_error *err) {
    const gguf_value *value = gguf_find(g, key);
    if (!value) return true;
    bool many = value->kind == GGUF_ARRAY;
    for (uint64_t i = 0; i < (many ? value->n : 1); i++) {
        uint32_t id;
        if (!(many ? gguf_array_u32(value, i, &id) : gguf_get_u32(g, key, &id)))
            return fail(err, CARAT_E_FORMAT, "tokenizer: %s is not a token id", key);
        if (id >= v->n)
            return fail(err, CARAT_E_FORMAT, "tokenizer: %s is %u, but there are %u tokens", key,
                        id, v->n);
        v->flags[id] |= (uint8_t)flag;
    }
    return true;
}

/* <unusedN> */
static bool is_unused(const char *s, size_t n) {
    static const char prefix[] = "<unused";
    size_t digits = sizeof prefix - 1;
    if (n < digits + 2 || memcmp(s, prefix, digits) || s[n - 1] != '>') return false;
    for (size_t i = digits; i < n - 1; i++)
        if (s[i] < '0' || s[i] > '9') return false;
    return true;
}

static void flag_unused(vocab *v) {
    for (uint32_t id = 0; id < v->n; id++) {
        size_t n;
        const char *text = vocab_text(v, (int32_t)id, &n);
        if (is_unused(text, n)) v->flags[id] |= TOKEN_SUPPRESSED;
    }
}

/* The ids with this flag, ascending. A stop token is never suppressed: nothing would end. */
static bool collect(arena *a, const vocab *v, token_flag flag, int32_t **out, uint32_t *n_out,
                    carat_error *err) {
    uint32_t n = 0, without = flag == TOKEN_SUPPRESSED ? TOKEN_STOP : 0;
    for (int pass = 0; pass < 2; pass++) {
        n = 0;
        for (uint32_t id = 0; id < v->n; id++) {
            if (!(v->flags[id] & flag) || (v->flags[id] & without)) continue;
            if (pass) (*out)[n] = (int32_t)id;
            n++;
        }
        if (!pass && !(*out = arena_alloc(a, (size_t)n + 1, sizeof **out)))
            return fail_memory(err, n * sizeof **out, "the tokenizer");
    }
    *n_out = n;
    return true;
}

bool tokenizer_create(arena *a, const gguf *g, tokenizer **out, carat_error *err) {
    vocab *v;
    if (!vocab_create(a, g, &v, err)) return false;
    tokenizer *t = arena_alloc(a, 1, sizeof *t);
    if (!t) return fail_memory(err, sizeof *t, "the tokenizer");
    t->n_vocab = v->n;
    t->tables = v;

    if (!find_specials(t, v, err)) return false;
    flag_specials(t, v, stopping, COUNT(stopping), TOKEN_STOP);
    flag_specials(t, v, never_said, COUNT(never_said), TOKEN_SUPPRESSED);
    flag_unused(v);
    if (!flag_key(g, "tokenizer.ggml.eos_token_id", v, TOKEN_STOP, err) ||
        !flag_key(g, "tokenizer.ggml.eos_token_ids", v, TOKEN_STOP, err) ||
        !flag_key(g, "tokenizer.ggml.eot_token_id", v, TOKEN_STOP, err) ||
        !flag_key(g, "tokenizer.ggml.suppress_tokens", v, TOKEN_SUPPRESSED, err))
        return false;
    *out = t;
    return collect(a, v, TOKEN_STOP, &t->stops, &t->n_stop, err) &&
           collect(a, v, TOKEN_SUPPRESSED, &t->suppressed, &t->n_suppressed, err);
}

static uint8_t flags_of(const tokenizer *t, int32_t id) {
    return id >= 0 && (uint32_t)id < t->n_vocab ? ((const vocab *)t->tables)->flags[id] : 0;
}

bool tokenizer_is_stop(const tokenizer *t, int32_t id) { return flags_of(t, id) & TOKEN_STOP; }

bool tokenizer_is_special(const tokenizer *t, int32_t id) {
    return flags_of(t, id) & TOKEN_SPECIAL;
}

static unsigned hex(char c) { return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10); }

void tokenizer_decode(const tokenizer *t, int32_t id, bool specials, buf *out) {
    if (id < 0 || (uint32_t)id >= t->n_vocab) return;
    uint8_t flags = flags_of(t, id);
    if ((flags & TOKEN_SPECIAL) && !specials) return;
    size_t n;
    const char *text = vocab_text(t->tables, id, &n);
    if (flags & TOKEN_BYTE) {
        char byte = (char)(hex(text[3]) << 4 | hex(text[4]));
        buf_put(out, &byte, 1);
        return;
    }
    for (size_t at = 0, run; at < n; at += run) {
        bool space = n - at >= 3 && !memcmp(text + at, "\xE2\x96\x81", 3);
        for (run = space ? 3 : 1; !space && at + run < n && text[at + run] != '\xE2';) run++;
        buf_put(out, space ? " " : text + at, space ? 1 : run);
    }
}

size_t utf8_complete(const char *text, size_t n) {
    static const char rest[] = {'\x80', '\xA0'}; /* one of the two may follow any lead byte */
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        for (size_t i = 0; i < COUNT(rest); i++) {
            char c[4];
            memset(c, rest[i], sizeof c);
            memcpy(c, text + n - back, back);
            if (utf8_length(c, sizeof c) > back) return n - back;
        }
    }
    return n;
}
