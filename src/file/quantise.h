/* quantise: values into the storage formats of file.h, whose dequantise() is the way back. */
#ifndef CARAT_QUANTISE_H
#define CARAT_QUANTISE_H

#include "file/file.h"

/* Sums over a row that rounding should keep, though it may not keep small differences of single
 * values: the error along direction r is the sum of what each value is off, times its column[r]. */
typedef struct quantise_aim {
    const float *columns; /* [n, n_dir] of the values of a row; their mean square should be 1 */
    const float *norms;   /* [n] sums of squares of the columns */
    uint32_t n_dir;
    float *error; /* [n_dir] zeros at the beginning of a row; what is left at its end */
} quantise_aim;

/* in [n], whole blocks -> blocks [n / n_value]. Each block's scales are searched for the least sum
 * of squared errors. aim NULL: every value is rounded to the nearest, else some to a neighbour of
 * it. Values that are not finite, or beyond what the format can hold, fail naming `what`. */
bool quantise(uint32_t type, const float *in, size_t n, const quantise_aim *aim, void *blocks,
              const char *what, carat_error *err);
/* The largest magnitude that quantise() takes. */
float quantise_limit(uint32_t type);

#endif
