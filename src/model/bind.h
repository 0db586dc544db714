/* bind: every tensor of a GGUF to its field, for weights.c. Reads the tensor table only; what must
 * be read from the file afterwards is listed in a `bound`. */
#ifndef CARAT_BIND_H
#define CARAT_BIND_H

#include "model/model.h"

/* Numbers to read from a tensor of n values. */
typedef struct number_ref {
    const gguf_tensor *tensor;
    float *to;
    uint32_t n;
} number_ref;

typedef struct bound {
    vector **vectors; /* [n_vector] to be packed and read; tensor NULL: to be made up */
    uint32_t n_vector;
    number_ref *numbers; /* [n_number] layer scales and NVFP4's external scales */
    uint32_t n_number;
} bound;

/* Fills m->weights and m->matrices (in file order) by m->config. Reports all mismatches together,
 * the first ones by name. */
bool weights_bind(arena *a, model *m, bound *out, carat_error *err);

#endif
