/* conversation: what a caller gives, as ids ready to run (conversation.c), and what a JSON Schema
 * makes of the answer (constrain.c).
 *
 * Flow: engine.h and media.h before, generate.c after. */
#ifndef CARAT_CONVERSATION_H
#define CARAT_CONVERSATION_H

#include "model/engine.h"

/* ---- conversation.c ---- */

/* A conversation ready to run. Free with prompt_free(), also after a failure. */
typedef struct prompt {
    chat_prompt text;
    id_list ids;       /* soft tokens are negative: medium_id() */
    const json *tools; /* in the arena given, or NULL */
    medium *media;     /* [n_medium] in the arena given, in the order of their places */
    uint32_t n_medium;
    uint32_t n_dropped;      /* messages left out to make it fit */
    uint32_t n_cut, n_piece; /* sounds that became several pieces, and how many */
} prompt;

/* Parses, puts the engine's own messages in front, renders; text only. */
bool prompt_render(const carat_engine *eng, arena *a, const carat_chat_desc *desc, prompt *out,
                   carat_error *err);
/* The same with ids, at most n_ctx - n_answer of them (see keep_oldest_out of carat_chat_desc), and
 * with pictures and sounds prepared. */
bool prompt_build(const carat_engine *eng, arena *a, const carat_chat_desc *desc, uint32_t n_ctx,
                  prompt *out, carat_error *err);
/* Tokens that are kept free for the answer. */
uint32_t prompt_reserve(uint32_t n_ctx, uint32_t max_tokens);
void prompt_free(prompt *p);

/* ---- constrain.c ---- */

/* What desc->json_schema makes of an answer. */
typedef struct constraint constraint;

/* p NULL: there is no template, so neither thinking nor tools. Free with constraint_free(), also
 * after a failure. */
bool constraint_create(arena *a, const tokenizer *t, const carat_chat_desc *desc, const prompt *p,
                       constraint **out, carat_error *err);
void constraint_free(constraint *c); /* NULL is fine */
/* Moves the tokens that may come next to the front of list [n], and returns how many there are: the
 * best `want` of them, or (0) all. */
uint32_t constraint_filter(constraint *c, candidate *list, uint32_t n, uint32_t want);
bool constraint_accept(constraint *c, int32_t id, carat_error *err);

#endif
