/* handle: id tables, see handle.h.
 *
 * Flow: used by gpu_dawn.c and gpu_null.c; it knows nothing of what the slots hold. */
#include "gpu/handle.h"

#define PLACE_BITS      18u
#define PLACE_MASK      ((1u << PLACE_BITS) - 1)
#define GENERATION_MASK ((1u << (32 - PLACE_BITS)) - 1)

static handle_slot *slot_at(const handle_table *t, uint32_t place) {
    return &t->chunks[place / HANDLE_CHUNK][place % HANDLE_CHUNK];
}

uint32_t handle_take(handle_table *t) {
    if (!t->free) {
        if (t->n == HANDLE_CHUNK * HANDLE_CHUNKS) return 0;
        if (t->n % HANDLE_CHUNK == 0) {
            handle_slot *chunk = arena_alloc(t->memory, HANDLE_CHUNK, sizeof *chunk);
            if (!chunk) return 0;
            t->chunks[t->n / HANDLE_CHUNK] = chunk;
        }
        t->free = ++t->n;
    }
    uint32_t place = t->free - 1;
    handle_slot *s = slot_at(t, place);
    t->free = s->next_free;
    t->n_used++;
    *s = (handle_slot){.generation = (s->generation + 1) & GENERATION_MASK};
    return s->generation << PLACE_BITS | place;
}

handle_slot *handle_find(const handle_table *t, uint32_t id) {
    uint32_t place = id & PLACE_MASK;
    if (place >= t->n) return NULL;
    handle_slot *s = slot_at(t, place);
    return (s->generation & 1) && s->generation == id >> PLACE_BITS ? s : NULL;
}

void handle_drop(handle_table *t, uint32_t id) {
    handle_slot *s = handle_find(t, id);
    assert(s && "the id is not in use");
    uint32_t place = id & PLACE_MASK;
    *s = (handle_slot){.generation = (s->generation + 1) & GENERATION_MASK, .next_free = t->free};
    t->free = place + 1;
    t->n_used--;
}

handle_slot *handle_at(const handle_table *t, uint32_t place) {
    handle_slot *s = slot_at(t, place);
    return s->generation & 1 ? s : NULL;
}
