/* token: text <-> ids, conversation -> prompt, ids -> reply, logits -> id. No GPU, no weights.
 *
 * Flow: tokenizer.c and chat.c make the prompt before the model runs; sampler.c picks each token
 * after it; reply.c turns the tokens into text, thinking and tool calls. */
#ifndef CARAT_TOKEN_H
#define CARAT_TOKEN_H

#include "base/base.h"
#include "file/file.h"

/* ---- tokenizer.c ---- */

/* Gemma 4's control tokens, by meaning; looked up by text, never by number. */
typedef enum special {
    SPECIAL_PAD,
    SPECIAL_EOS,
    SPECIAL_BOS,
    SPECIAL_UNK,
    SPECIAL_MASK,
    SPECIAL_TOOL,
    SPECIAL_TOOL_END,
    SPECIAL_CALL,
    SPECIAL_CALL_END,
    SPECIAL_RESPONSE,
    SPECIAL_RESPONSE_END,
    SPECIAL_QUOTE,
    SPECIAL_THINK,
    SPECIAL_CHANNEL,
    SPECIAL_CHANNEL_END,
    SPECIAL_TURN,
    SPECIAL_TURN_END,
    SPECIAL_IMAGE_BEGIN,
    SPECIAL_AUDIO_BEGIN,
    SPECIAL_IMAGE,
    SPECIAL_AUDIO,
    SPECIAL_IMAGE_END,
    SPECIAL_AUDIO_END,
    SPECIAL_VIDEO,
    SPECIAL_COUNT
} special;

typedef struct tokenizer {
    uint32_t n_vocab;
    int32_t specials[SPECIAL_COUNT]; /* id, or -1: not in this vocabulary */
    int32_t *stops;                  /* [n_stop] ids that end a generation */
    uint32_t n_stop;
    int32_t *suppressed; /* [n_suppressed] ids never to be sampled, ascending */
    uint32_t n_suppressed;
    const void *tables; /* tokenizer.c's own */
} tokenizer;

/* Reads tokenizer.ggml.*; the memory is the arena's and does not refer to g afterwards. */
bool tokenizer_create(arena *a, const gguf *g, tokenizer **out, carat_error *err);
/* Appends the ids of text [n]. No BOS is added. Never fails but for memory (out->failed). */
void tokenizer_encode(const tokenizer *t, const char *text, size_t n, bool specials, id_list *out);
/* Appends the bytes of a token: a special's text only with `specials`, a byte token's byte. Ids
 * out of range append nothing. */
void tokenizer_decode(const tokenizer *t, int32_t id, bool specials, buf *out);
bool tokenizer_is_stop(const tokenizer *t, int32_t id);
bool tokenizer_is_special(const tokenizer *t, int32_t id);

/* Length of the longest prefix of text [n] that ends on a UTF-8 boundary (a stray byte counts as
 * complete, so at most 3 bytes are held back). */
size_t utf8_complete(const char *text, size_t n);

/* ---- chat.c ---- */

/* A video is written as its frames, each after its time. */
typedef struct chat_video {
    const json *part;
    const double *times; /* [n] seconds */
    size_t n;
} chat_video;

typedef struct chat_options {
    bool thinking;
    bool preserve_thinking;
    bool large; /* the 12B / 26B / 31B template */
    bool add_generation_prompt;
    bool repair; /* mend the published template's defects (see chat.c); off: its exact bytes */
    const chat_video *videos; /* [n_video]; one that is not among them is a placeholder */
    size_t n_video;
} chat_options;

/* A prompt as pieces: trusted ones (the template's own markers) may hold control tokens, plain
 * ones (what people and tools wrote) never become one. */
typedef struct chat_piece {
    size_t offset, len; /* into text */
    bool trusted;
} chat_piece;

typedef struct chat_prompt {
    buf text;
    chat_piece *pieces; /* [n] */
    size_t n, cap;
    buf media;          /* const json *: the part of each placeholder of a picture or a sound */
    bool opens_thought; /* the prompt ends inside a thinking channel */
} chat_prompt;

/* What a part of a message's content stands for: its placeholder, "<|image|>", "<|audio|>" or
 * "<|video|>"; NULL: it is no picture, sound or video. Pictures are also what "images" lists. */
const char *chat_placeholder(const json *part);

/* messages and tools are JSON arrays; tools may be NULL. Free with chat_prompt_free(), also after
 * a failure. CARAT_E_FORMAT names the message that is wrong. */
bool chat_render(const json *messages, const json *tools, const chat_options *options,
                 chat_prompt *out, carat_error *err);
void chat_prompt_free(chat_prompt *p);
/* The prompt's ids, with exactly one BOS in front. Merges cross piece borders, control tokens only
 * come from trusted pieces. */
void chat_encode(const tokenizer *t, const chat_prompt *p, id_list *out);

/* ---- reply.c ---- */

typedef enum reply_kind { REPLY_TEXT, REPLY_THINKING, REPLY_CALL } reply_kind;

typedef struct reply_part {
    reply_kind kind;
    const char *text; /* a call: {"name":...,"arguments":{...}}; lives until the next feed */
    size_t len;
} reply_part;

typedef struct reply reply;

/* tools: the declared tools (may be NULL), for repairs by schema; must outlive the reply.
 * thinking: show channel text, else it is discarded. in_thought: chat_prompt.opens_thought.
 * stops [n_stop] are copied. */
bool reply_create(const tokenizer *t, const json *tools, bool thinking, bool in_thought,
                  const char *const *stops, size_t n_stop, reply **out, carat_error *err);
void reply_free(reply *r);
/* Feeds one generated id. *stopped: a stop string was found, what followed is dropped. */
bool reply_feed(reply *r, int32_t id, bool *stopped, carat_error *err);
/* The end: flushes what was held back (an incomplete UTF-8 tail becomes U+FFFD). */
bool reply_end(reply *r, carat_error *err);
/* Takes the next finished part; false: none. */
bool reply_next(reply *r, reply_part *out);
uint32_t reply_n_calls(const reply *r);
/* Parses the inside of a call, `call:NAME{...}`, into JSON {"name":...,"arguments":{...}}. */
bool reply_parse_call(const char *text, size_t n, const json *tools, buf *out, carat_error *err);

/* ---- grammar.c ---- */

/* Follows an answer that has to be one JSON value of a schema. */
typedef struct grammar grammar;

/* schema: a JSON Schema as text; the subset is in docs/structured.md. It is copied. */
bool grammar_create(arena *a, const char *schema, grammar **out, carat_error *err);
/* Whether the answer may go on with text [n]; it can be completed from there. */
bool grammar_allows(grammar *g, const char *text, size_t n);
/* Goes on with it. False: not allowed, and nothing happened. */
bool grammar_accept(grammar *g, const char *text, size_t n);
bool grammar_began(const grammar *g); /* something was accepted */
bool grammar_ends(const grammar *g);  /* what was accepted is a whole value */

/* ---- sampler.c ---- */

typedef struct candidate {
    int32_t id;
    float logit; /* capped, raw otherwise */
} candidate;

typedef struct sampler {
    carat_sampling options; /* complete: every field given */
    uint64_t state[4];      /* xoshiro256** */
    id_list history;        /* tokens that penalties look back on, the oldest first */
    id_list counts;         /* [id] how often it is among the last repeat_last_n of them */
    uint32_t n_distinct;    /* how many of counts are not zero */
} sampler;

/* Fills every field that is not given: from `params` (Ollama's params layer, or NULL), then from
 * Gemma's recommendation. Out-of-range values are an error that names the option. */
bool sampling_resolve(const carat_sampling *user, const json *params, carat_sampling *out,
                      carat_error *err);
bool sampler_create(sampler *s, const carat_sampling *resolved, carat_error *err);
void sampler_free(sampler *s);
/* Before the first token: room for n of them, so that sampler_accept() asks for no memory. */
bool sampler_reserve(sampler *s, uint32_t n_vocab, size_t n, carat_error *err);
void sampler_accept(sampler *s, int32_t id); /* also for the prompt's tokens */
/* Whether the k best logits are enough to sample exactly, and how many are. 0: all are needed. */
uint32_t sampler_needs(const sampler *s);
/* Prepares c [n] to be taken from the best on: candidates_next() with i = 0, 1, ... puts the next
 * one at c[i]. What lies before c[i] may be rewritten. */
void candidates_order(candidate *c, size_t n);
void candidates_next(candidate *c, size_t n, size_t i);
/* Picks among c [n], which it reorders and rewrites. The candidates are the whole vocabulary or at
 * least the sampler_needs() best. Suppressed ids must already be left out. */
int32_t sampler_pick(sampler *s, candidate *c, size_t n);

#endif
