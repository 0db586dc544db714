/* Fuzzes conversations: {"messages": ..., "tools": ...} behind a byte of options. Whatever renders
 * must be covered by its pieces, decode from its ids to itself, and hold no control token that does
 * not come from a trusted piece. */
#include "token/token.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Nano's tokenizer; fuzzers run in the repository's root. */
static const tokenizer *load(void) {
    static const tokenizer *loaded;
    static arena *memory;
    if (loaded) return loaded;
    gguf *g;
    tokenizer *t;
    memory = arena_create(NULL);
    if (!gguf_open(memory, "models/nano.gguf", &g, NULL) || !tokenizer_create(memory, g, &t, NULL))
        abort();
    gguf_close(g);
    return loaded = t;
}

static size_t count_specials(const tokenizer *t, const id_list *ids) {
    size_t n = 0;
    for (size_t i = 0; i < ids->len; i++) n += tokenizer_is_special(t, ids->data[i]);
    return n;
}

/* Decoding turns U+2581 into a space, wherever it came from. */
static void as_decoded(buf *text) {
    size_t to = 0;
    for (size_t at = 0; at < text->len; at++) {
        bool space = text->len - at >= 3 && !memcmp(text->data + at, "\xE2\x96\x81", 3);
        text->data[to++] = space ? ' ' : text->data[at];
        if (space) at += 2;
    }
    text->len = to;
}

static void check(const tokenizer *t, chat_prompt *p) {
    size_t end = 0, n_trusted = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (p->pieces[i].offset != end || !p->pieces[i].len) abort();
        id_list ids = {0};
        if (p->pieces[i].trusted)
            tokenizer_encode(t, p->text.data + end, p->pieces[i].len, true, &ids);
        n_trusted += count_specials(t, &ids);
        ids_free(&ids);
        end += p->pieces[i].len;
    }
    if (end != p->text.len) abort();

    id_list ids = {0};
    buf back = {0};
    chat_encode(t, p, &ids);
    if (count_specials(t, &ids) != n_trusted) abort();
    for (size_t i = 0; i < ids.len; i++) tokenizer_decode(t, ids.data[i], true, &back);
    as_decoded(&p->text);
    if (back.len != p->text.len || memcmp(back.data, p->text.data, back.len)) abort();
    ids_free(&ids);
    buf_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!n) return 0;
    chat_options o = {.thinking = data[0] & 1,
                      .preserve_thinking = data[0] & 2,
                      .large = data[0] & 4,
                      .add_generation_prompt = data[0] & 8,
                      .repair = data[0] & 16};
    arena *a = arena_create(NULL);
    carat_error err = {0};
    json *input;
    chat_prompt p = {0};
    if (json_parse(a, (const char *)data + 1, n - 1, "input", &input, &err)) {
        const json *tools = json_get(input, "tools");
        if (chat_render(json_get(input, "messages"), tools, &o, &p, &err))
            check(load(), &p);
        else if (err.code != CARAT_E_FORMAT || !err.message[0])
            abort();
    }
    chat_prompt_free(&p);
    arena_free(a);
    return 0;
}
