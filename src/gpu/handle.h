/* handle: tables that give out ids for objects and take them back, for the back ends. An id is 18
 * bits of place and 14 bits of generation, so that an id that was freed is recognised.
 *
 * Flow: used by gpu_dawn.c and gpu_null.c. */
#ifndef CARAT_HANDLE_H
#define CARAT_HANDLE_H

#include "base/base.h"

#define HANDLE_CHUNK  256u
#define HANDLE_CHUNKS 1024u

typedef struct handle_slot {
    void *object, *extra; /* the back end's */
    uint64_t size;
    uint32_t flags;
    uint32_t generation; /* odd while in use */
    uint32_t next_free;  /* place + 1 */
} handle_slot;

typedef struct handle_table {
    arena *memory;
    handle_slot *chunks[HANDLE_CHUNKS]; /* [HANDLE_CHUNK] each; they never move */
    uint32_t n;                         /* places made so far */
    uint32_t free;                      /* place + 1 of the first free one; 0: none */
    uint32_t n_used;
} handle_table;

/* A fresh id; 0 when there is no memory or too many are in use. */
uint32_t handle_take(handle_table *t);
/* NULL for an id that is not in use. */
handle_slot *handle_find(const handle_table *t, uint32_t id);
void handle_drop(handle_table *t, uint32_t id);
/* The place-th slot if it is in use, else NULL; place < t->n. */
handle_slot *handle_at(const handle_table *t, uint32_t place);

#endif
