/* quantise: values into the storage formats of file.h; quant_format.dequantise() is the way back. */
#ifndef CARAT_QUANTISE_H
#define CARAT_QUANTISE_H

#include "file/file.h"

/* in [n], whole blocks -> blocks [n / n_value]. Each block's scales are searched for the least sum
 * of squared errors. Values that are not finite, or beyond what the format can hold, fail naming
 * `what`. */
bool quantise(uint32_t type, const float *in, size_t n, void *blocks, const char *what,
              carat_error *err);
/* The largest magnitude that quantise() takes. */
float quantise_limit(uint32_t type);

#endif
