/* token/call_repair: mending tool calls that do not parse. Private to src/token. */
#ifndef CARAT_CALL_REPAIR_H
#define CARAT_CALL_REPAIR_H

#include "token/call.h"

/* call:NAME{...}, without the white space around. */
typedef struct call_parts {
    const char *name;
    size_t name_len;
    const char *arguments; /* from the first { on */
    size_t arguments_len;
} call_parts;

bool call_split(const char *text, size_t n, call_parts *out);
/* Bytes of the number, or of true, false or null, at s; 0: none there. */
size_t call_number_length(const char *s, const char *end);
size_t call_word_length(const char *s, const char *end);

/* Writes the arguments with the model's usual slips mended to *out; false: nothing to mend. With
 * tools, bare text where the called tool's schema takes a string counts as one. */
bool call_repair(const call_parts *call, const json *tools, buf *out);

#endif
