/* adapter: the adapters of an engine: those that are open, and those in use. describe.c says what
 * one is.
 *
 * Flow: lora.h before; engine.h, which has the lists, after. Private to src/ and its tests. */
#ifndef CARAT_ADAPTER_H
#define CARAT_ADAPTER_H

#include "carat_adapter.h"
#include "model/lora.h"

#define ENGINE_ADAPTERS 16u /* in use at once */

struct carat_adapter {
    arena *memory;
    carat_engine *engine; /* NULL: it is closed */
    carat_adapter *next;  /* of the engine */
    lora *lora;
    uint64_t hash; /* of all its values */
    bool closed;   /* by the caller, while it was in use */
};

/* ---- adapter.c ---- */

/* A copy of l, open for eng. */
carat_adapter *engine_adopt(carat_engine *eng, const lora *l, carat_error *err);
/* Those in use are on the GPU, if there is one. */
bool engine_adapters_ready(carat_engine *eng, carat_error *err);
/* When the engine goes. */
void engine_close_adapters(carat_engine *eng);

/* ---- describe.c ---- */

/* What an adapter is, as a JSON object. */
void describe_lora(const lora *l, buf *b);

#endif
