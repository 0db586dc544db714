/* token/call: the language of tool calls. Private to src/token. */
#ifndef CARAT_CALL_H
#define CARAT_CALL_H

#include "token/token.h"

/* Stands for the string delimiter token in a call's text: a byte that no UTF-8 has, so that a
 * delimiter that was merely spelled out is not mistaken for one. */
#define CALL_QUOTE '\xFF'

/* As reply_parse_call(), for text with CALL_QUOTE as its delimiters. */
bool call_parse(const char *text, size_t n, const json *tools, buf *out, carat_error *err);

/* Appends text with every ill-formed piece replaced by U+FFFD; CALL_QUOTE stays if asked for. */
void put_valid_utf8(buf *out, const char *text, size_t n, bool keep_quotes);

#endif
