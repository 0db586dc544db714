/* token/prompt: writing a prompt as trusted and plain pieces. Private to src/token.
 *
 * prompt.c writes pieces and values, declare.c the tools, chat.c the messages. */
#ifndef CARAT_PROMPT_H
#define CARAT_PROMPT_H

#include "token/token.h"

typedef struct prompt_writer {
    chat_prompt *p; /* p->text.failed: out of memory, seen once at the end */
    arena *scratch;
    bool repair;
} prompt_writer;

/* The template's own text, in which control tokens count. */
void put_mark(prompt_writer *w, const char *text);
/* Other people's text. */
void put_plain(prompt_writer *w, const char *text, size_t n);
void put_plain_string(prompt_writer *w, const json *s);        /* nothing unless it is a string */
void put_quoted(prompt_writer *w, const char *text, size_t n); /* between string delimiters */
/* Any JSON value in Gemma's syntax; quoted_keys: keys of objects between delimiters too. */
void put_value(prompt_writer *w, const json *v, bool quoted_keys);
/* key:value,key:value without the braces. */
void put_members(prompt_writer *w, const json *object, bool quoted_keys);

/* The members of an object as the template orders them: by key, ignoring (ASCII) case, of
 * duplicates only the last. Indices in *order, their number is returned. */
size_t sort_members(prompt_writer *w, const json *object, size_t **order);

/* All tools' declarations. */
bool put_declarations(prompt_writer *w, const json *tools, carat_error *err);

#endif
