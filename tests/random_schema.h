/* random_schema: JSON Schemas made at random, of all that carat understands, and a validator that
 * knows nothing of carat's grammar. For the tests of structured output. */
#ifndef RANDOM_SCHEMA_H
#define RANDOM_SCHEMA_H

#include "base/base.h"

/* splitmix64: below n. */
uint32_t random_below(uint64_t *state, uint32_t n);
/* Appends a schema that some value satisfies. */
void random_schema(buf *out, uint64_t *state);
/* Whether a value satisfies a schema; root: where $ref begins. *why: what does not. */
bool schema_satisfied(const json *root, const json *schema, const json *value, const char **why);

#endif
