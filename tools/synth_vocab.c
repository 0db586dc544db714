/* synth_vocab: a vocabulary that loads and tokenizes as the real one does: control tokens, bytes,
 * runs and single characters at their real places, and pieces that look like words. The ids mean
 * nothing.
 *
 * Flow: synth.c puts it into the header. */
#include "synth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81" /* U+2581 stands for a space */

enum {
    FIRST_BYTE = 238,
    FIRST_PIECE = 494,
    REAL_TAB = 255968, /* first of the 31 runs of tabs, which the media tokens follow */
    WORDS_4 = 26 * 26 * 26 * 26
};

static const struct {
    uint32_t id;
    const char *text;
} specials[] = {
    {0, "<pad>"},
    {1, "<eos>"},
    {2, "<bos>"},
    {3, "<unk>"},
    {4, "<mask>"},
    {46, "<|tool>"},
    {47, "<tool|>"},
    {48, "<|tool_call>"},
    {49, "<tool_call|>"},
    {52, "<|\"|>"},
    {50, "<|tool_response>"},
    {51, "<tool_response|>"},
    {98, "<|think|>"},
    {100, "<|channel>"},
    {101, "<channel|>"},
    {105, "<|turn>"},
    {106, "<turn|>"},
    {255999, "<|image>"},
    {256000, "<|audio>"},
    {258880, "<|image|>"},
    {258881, "<|audio|>"},
    {258882, "<image|>"},
    {258883, "<audio|>"},
    {258884, "<|video|>"},
};

typedef struct piece {
    char text[96];
    bool special;
} piece;

static piece *pieces;

static void put_utf8(char *out, uint32_t c) {
    if (c < 0x80)
        snprintf(out, 5, "%c", (int)c);
    else if (c < 0x800)
        snprintf(out, 5, "%c%c", (int)(0xc0 | c >> 6), (int)(0x80 | (c & 63)));
    else
        snprintf(out, 5, "%c%c%c", (int)(0xe0 | c >> 12), (int)(0x80 | (c >> 6 & 63)),
                 (int)(0x80 | (c & 63)));
}

/* The i-th single character: ASCII but control characters, space and newline, then U+2581, then
 * the scripts of the basic plane from Latin-1 on. */
static void character(uint32_t i, char *out) {
    if (i < 94)
        put_utf8(out, 33 + i);
    else if (i == 94)
        put_utf8(out, 0x2581);
    else if (i < 95 + 1200)
        put_utf8(out, 0xa1 + i - 95);
    else
        put_utf8(out, 0x3041 + i - 1295);
}

/* The i-th of the words of n letters. */
static void word(uint32_t i, int n, char *out) {
    for (int k = n - 1; k >= 0; k--, i /= 26) out[k] = (char)('a' + i % 26);
    out[n] = 0;
}

static void runs(uint32_t id, const char *unit, int from) {
    for (int n = from; n <= 31; n++, id++)
        for (int k = 0; k < n; k++) strcat(pieces[id].text, unit);
}

/* Pieces that merging makes, shortest first: all words of 2 and 3 letters without a space before
 * them, all of 1 to 3 with one, then words of 4 with one, in no particular order. */
static void name_pieces(uint32_t end) {
    uint32_t id = FIRST_PIECE;
    char text[8];
    for (int n = 1; n <= 3; n++) {
        uint32_t n_word = n == 1 ? 26 : n == 2 ? 26 * 26 : 26 * 26 * 26;
        for (uint32_t i = 0; i < n_word && n > 1 && id < end; i++, id++)
            word(i, n, pieces[id].text);
        for (uint32_t i = 0; i < n_word && id < end; i++, id++) {
            word(i, n, text);
            snprintf(pieces[id].text, sizeof pieces[id].text, SPACE "%s", text);
        }
    }
    for (uint32_t i = 0; i < WORDS_4 && id < end; i++, id++) {
        word((uint32_t)((uint64_t)i * 203233 % WORDS_4), 4, text);
        snprintf(pieces[id].text, sizeof pieces[id].text, SPACE "%s", text);
    }
}

/* Returns the id after the last piece that merging makes. */
static uint32_t make_vocabulary(uint32_t n_vocab) {
    pieces = grow(NULL, n_vocab * sizeof *pieces);
    memset(pieces, 0, n_vocab * sizeof *pieces);
    bool real = n_vocab >= REAL_VOCAB;
    uint32_t tab = real ? REAL_TAB : n_vocab - 38; /* 31 runs, 7 media tokens */
    uint32_t n_char = real ? 19225 : 2048, end = tab - n_char;
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
        uint32_t id = specials[i].id;
        if (!real && id >= 258880)
            id = tab + 33 + id - 258880;
        else if (!real && id >= 255999)
            id = tab + 31 + id - 255999;
        strcpy(pieces[id].text, specials[i].text);
        pieces[id].special = true;
    }
    strcpy(pieces[5].text, "[multimodal]");
    runs(107, "\n", 1);
    runs(138, SPACE, 2);
    for (uint32_t i = 168; i < FIRST_BYTE; i++)
        snprintf(pieces[i].text, sizeof pieces[i].text, i == 212 ? "</s>" : "<h%u>", i);
    for (uint32_t i = 0; i < 256; i++)
        snprintf(pieces[FIRST_BYTE + i].text, sizeof pieces[0].text, "<0x%02X>", i);
    name_pieces(end);
    for (uint32_t i = 0; i < n_char; i++) character(i, pieces[end + i].text);
    runs(tab, "\t", 1);
    uint32_t n_unused = 0;
    for (uint32_t i = 0; i < n_vocab; i++)
        if (!pieces[i].text[0])
            snprintf(pieces[i].text, sizeof pieces[i].text, "<unused%u>", n_unused++);
    return end;
}

static uint64_t n_merge;

static void put_merge(const char *text, size_t n_left) {
    size_t n = strlen(text);
    put_u64(n + 1);
    put(text, n_left);
    put(" ", 1);
    put(text + n_left, n - n_left);
    n_merge++;
}

/* As in the real list: whitespace runs first, longest first; then the pieces in the order of their
 * ids, each split into two pieces, longest left part first. */
static void put_merges(uint32_t end) {
    static const char *const units[] = {"\n", SPACE, "\t"};
    size_t count_at = key_array("tokenizer.ggml.merges", STRING, 0);
    for (size_t n = 31; n >= 2; n--)
        for (size_t k = 0; k < 3; k++) {
            char run[96] = "";
            for (size_t i = 0; i < n; i++) strcat(run, units[k]);
            for (size_t left = n - 1; left >= 1; left--) put_merge(run, left * strlen(units[k]));
        }
    for (uint32_t id = FIRST_PIECE; id < end; id++) {
        const char *text = pieces[id].text;
        size_t n = strlen(text), first = text[0] == SPACE[0] ? 3 : 1;
        if (n == 7) first = 5; /* of SPACE and 4 letters, the two longest left parts */
        for (size_t left = n - 1; left >= first; left--) put_merge(text, left);
    }
    patch_u64(count_at, n_merge);
}

void put_vocabulary(uint32_t n, bool ollama) {
    uint32_t end = make_vocabulary(n);
    key_array("tokenizer.ggml.tokens", STRING, n);
    for (uint32_t i = 0; i < n; i++) put_string(pieces[i].text);
    key_array("tokenizer.ggml.scores", FLOAT, n);
    for (uint32_t i = 0; i < n; i++) put_f32(ollama ? (float)i : -1000.0f);
    key_array("tokenizer.ggml.token_type", I32, n);
    for (uint32_t i = 0; i < n; i++) {
        bool byte = i >= FIRST_BYTE && i < FIRST_PIECE;
        bool visible = (i >= 48 && i <= 52) || i == 100 || i == 101;
        put_u32(pieces[i].special ? (visible && !ollama ? 4 : 3) : byte && !ollama ? 6 : 1);
    }
    put_merges(end);
    free(pieces);
}
