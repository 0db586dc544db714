/* kernel: puts a kernel's WGSL together, compiles it once for each set of formats and constants,
 * and replays a sequence of calls without building anything twice.
 *
 * Every call of a sequence has its own slot: 256 bytes of one uniform buffer for its arguments,
 * and its bind group. A slot is rebuilt only when the call in it differs from last time.
 *
 * Flow: tools/embed (build/gen/kernels.c) and gpu.h before; model/decode_gpu.c and
 * model/prefill_gpu.c after. It knows no kernel by name. */
#include "gpu/kernel.h"
#include "file/file.h"

#include <string.h>

#define MAX_CONSTANTS 8
#define SLOT_BYTES    256u /* WebGPU's alignment of a uniform binding */

/* ---- source -------------------------------------------------------------------------------- */

bool kernel_runs(const kernel *k, const gpu_info *info) {
    return (info->subgroups || !strstr(k->enables, "enable subgroups;")) &&
           (info->subgroup_matrix || !strstr(k->enables, "enable f16;"));
}

const kernel *kernel_pick(const kernel *k, const uint32_t *formats, const gpu_info *info) {
    bool exact = false; /* a matrix of f32 is meant to be multiplied in f32 */
    for (uint32_t i = 0; i < k->n_format; i++) exact |= formats[i] == QUANT_F32;
    if (k->matrix && !exact && kernel_runs(k->matrix, info)) return k->matrix;
    bool wide = info->subgroup_max >= 16; /* narrower ones lose against workgroup memory */
    if (k->subgroup && wide && kernel_runs(k->subgroup, info)) return k->subgroup;
    return k;
}

static const char *find_lib(const char *name) {
    for (const kernel_lib *lib = kernel_lib_table; lib->name; lib++)
        if (strcmp(lib->name, name) == 0) return lib->source;
    return NULL;
}

/* Appends the WGSL that a packed text stands for, with `letter` for each `$`. */
static void unpack(buf *out, const char *packed, char letter) {
    const uint8_t *p = (const uint8_t *)packed;
    uint32_t todo[KERNEL_MAX_DEPTH], n = 0; /* the next symbol last */
    while (*p) {
        todo[n++] = *p++;
        if (todo[0] >= KERNEL_FIRST_LONG) todo[0] += 254 * (todo[0] - KERNEL_FIRST_LONG) + *p++ - 1;
        while (n > 0) {
            uint32_t s = todo[--n];
            if (s >= KERNEL_FIRST_PAIR) {
                const uint16_t *pair = kernel_pairs[s - KERNEL_FIRST_PAIR];
                todo[n++] = pair[1];
                todo[n++] = pair[0];
            } else {
                buf_put(out, s == '$' ? &letter : &(char){(char)s}, 1);
            }
        }
    }
}

bool kernel_assemble(const kernel *k, const uint32_t *formats, const gpu_info *info, buf *out,
                     carat_error *err) {
    buf_puts(out, k->enables);
    if (info->subgroup_min) buf_printf(out, "const SUBGROUP = %uu;\n", info->subgroup_min);
    for (const char *const *include = k->includes; *include; include++) unpack(out, *include, '$');
    const char *const shared[] = {"format", info->packed_dot ? "word" : "word_plain", "dot64"};
    for (size_t i = 0; k->n_format && i < COUNT(shared); i++) {
        const char *wgsl = find_lib(shared[i]);
        if (!wgsl)
            return fail(err, CARAT_E_UNSUPPORTED, "kernel %s: no lib/%s", k->name, shared[i]);
        unpack(out, wgsl, '$');
    }
    for (uint32_t i = 0; i < k->n_format; i++) {
        const quant_format *f = quant_find(formats[i]);
        const char *wgsl = f ? find_lib(f->name) : NULL;
        if (!wgsl)
            return fail(err, CARAT_E_UNSUPPORTED, "kernel %s: no WGSL for tensor type %u", k->name,
                        formats[i]);
        unpack(out, wgsl, (char)('A' + i));
    }
    unpack(out, k->source, '$');
    if (out->failed) return fail_memory(err, out->cap, "the source of a kernel");
    return true;
}

/* ---- pipelines ----------------------------------------------------------------------------- */

/* What a pipeline is made for. */
typedef struct variant {
    const kernel *kernel; /* as called, before kernel_pick() */
    uint32_t formats[3], n_constant;
    gpu_constant constants[MAX_CONSTANTS];
} variant;

typedef struct entry entry;
struct entry {
    variant key;
    gpu_pipeline pipeline;
    entry *next;
};

struct kernel_cache {
    arena *memory;
    gpu *gpu;
    entry *entries; /* some dozens: a list, looked through when a sequence changes */
};

kernel_cache *kernel_cache_create(gpu *g, carat_error *err) {
    arena *memory = arena_create(err);
    kernel_cache *c = memory ? arena_alloc(memory, 1, sizeof *c) : NULL;
    if (!c) {
        fail_memory(err, sizeof *c, "the kernel cache");
        arena_free(memory);
        return NULL;
    }
    c->memory = memory;
    c->gpu = g;
    return c;
}

void kernel_cache_free(kernel_cache *c) {
    if (!c) return;
    for (entry *e = c->entries; e; e = e->next) gpu_pipeline_free(c->gpu, e->pipeline);
    arena_free(c->memory);
}

static bool same_variant(const variant *v, const kernel_call *call) {
    if (v->kernel != call->kernel || v->n_constant != call->n_constant) return false;
    for (uint32_t i = 0; i < call->kernel->n_format; i++)
        if (v->formats[i] != call->formats[i]) return false;
    for (uint32_t i = 0; i < v->n_constant; i++) {
        if (strcmp(v->constants[i].name, call->constants[i].name) != 0) return false;
        if (v->constants[i].value < call->constants[i].value ||
            v->constants[i].value > call->constants[i].value)
            return false;
    }
    return true;
}

static variant make_variant(const kernel_call *call) {
    variant v = {.kernel = call->kernel, .n_constant = call->n_constant};
    assert(call->n_constant <= MAX_CONSTANTS);
    memcpy(v.formats, call->formats, sizeof v.formats);
    for (uint32_t i = 0; i < v.n_constant; i++) v.constants[i] = call->constants[i];
    return v;
}

static gpu_pipeline compile(kernel_cache *c, const kernel_call *call, carat_error *err) {
    const kernel *k = kernel_pick(call->kernel, call->formats, &c->gpu->info);
    gpu_pipeline none = {0};
    buf wgsl = {0};
    gpu_pipeline p = none;
    if (kernel_assemble(k, call->formats, &c->gpu->info, &wgsl, err))
        p = gpu_pipeline_create(c->gpu,
                                &(gpu_pipeline_desc){.label = k->name,
                                                     .wgsl = wgsl.data,
                                                     .n_binding = k->n_binding,
                                                     .bindings = k->bindings,
                                                     .n_constant = call->n_constant,
                                                     .constants = call->constants},
                                err);
    buf_free(&wgsl);
    return p;
}

static const entry *find_pipeline(kernel_cache *c, const kernel_call *call, carat_error *err) {
    for (const entry *e = c->entries; e; e = e->next)
        if (same_variant(&e->key, call)) return e;
    entry *e = arena_alloc(c->memory, 1, sizeof *e);
    if (!e) {
        fail_memory(err, sizeof *e, "a compiled kernel");
        return NULL;
    }
    e->pipeline = compile(c, call, err);
    if (!e->pipeline.id) return NULL;
    e->key = make_variant(call);
    e->next = c->entries;
    c->entries = e;
    return e;
}

/* ---- sequences of calls -------------------------------------------------------------------- */

typedef struct slot {
    const entry *entry; /* NULL: empty */
    gpu_bind bind;
    gpu_view views[GPU_MAX_BINDINGS - 1];
    uint64_t n_submit; /* gpu.stats.n_submit when it was last recorded */
} slot;

struct kernel_steps {
    arena *memory;
    kernel_cache *cache;
    gpu_buffer args;
    uint8_t *host_args; /* [max_calls, SLOT_BYTES] what args holds, or will hold */
    slot *slots;        /* [max_calls] */
    uint32_t max_calls, n_call;
    uint32_t dirty_begin, dirty_end; /* bytes of host_args that args does not hold yet */
    carat_error error;               /* the first failure since kernel_begin() */
};

kernel_steps *kernel_steps_create(kernel_cache *c, uint32_t max_calls, carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return NULL;
    kernel_steps *s = arena_alloc(memory, 1, sizeof *s);
    if (s) {
        s->memory = memory;
        s->cache = c;
        s->max_calls = max_calls;
        s->slots = arena_alloc(memory, max_calls, sizeof *s->slots);
        s->host_args = arena_alloc(memory, max_calls, SLOT_BYTES);
    }
    if (!s || !s->slots || !s->host_args) {
        fail_memory(err, (uint64_t)max_calls * SLOT_BYTES, "a sequence of kernel calls");
        arena_free(memory);
        return NULL;
    }
    s->args = gpu_buffer_create(c->gpu, (uint64_t)max_calls * SLOT_BYTES, GPU_UNIFORM,
                                "kernel arguments", err);
    if (!s->args.id) {
        arena_free(memory);
        return NULL;
    }
    return s;
}

void kernel_steps_forget(kernel_steps *s) {
    for (uint32_t i = 0; i < s->max_calls; i++) {
        gpu_bind_free(s->cache->gpu, s->slots[i].bind);
        s->slots[i] = (slot){0};
    }
}

void kernel_steps_free(kernel_steps *s) {
    if (!s) return;
    kernel_steps_forget(s);
    gpu_buffer_free(s->cache->gpu, s->args);
    arena_free(s->memory);
}

void kernel_begin(kernel_steps *s) { s->n_call = 0; }

uint32_t kernel_calls(const kernel_steps *s) { return s->n_call; }

const gpu_info *kernel_device(const kernel_steps *s) { return &s->cache->gpu->info; }

static void flush_args(kernel_steps *s) {
    if (s->dirty_begin == s->dirty_end) return;
    gpu_write(s->cache->gpu, s->args, s->dirty_begin, s->host_args + s->dirty_begin,
              s->dirty_end - s->dirty_begin);
    s->dirty_begin = s->dirty_end = 0;
}

/* Arguments of call i. A write overtakes what is recorded, so a slot that is used twice between
 * two submits with different arguments needs a submit in between. */
static bool set_args(kernel_steps *s, uint32_t i, const kernel_call *call, carat_error *err) {
    uint32_t n = call->kernel->args_bytes, begin = i * SLOT_BYTES;
    assert(n <= SLOT_BYTES && call->args);
    if (memcmp(s->host_args + begin, call->args, n) == 0) return true;
    gpu *g = s->cache->gpu;
    if (s->slots[i].entry && s->slots[i].n_submit == g->stats.n_submit) {
        flush_args(s);
        if (!gpu_submit(g, err)) return false;
    }
    memcpy(s->host_args + begin, call->args, n);
    if (s->dirty_begin == s->dirty_end) s->dirty_begin = begin;
    s->dirty_begin = min_u32(s->dirty_begin, begin);
    s->dirty_end = max_u32(s->dirty_end, begin + n);
    return true;
}

static bool same_views(const gpu_view *a, const gpu_view *b, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (a[i].buffer.id != b[i].buffer.id || a[i].offset != b[i].offset ||
            a[i].size != b[i].size)
            return false;
    return true;
}

/* Makes slot i fit the call: nothing to do when the call is the same as last time. */
static bool set_slot(kernel_steps *s, uint32_t i, const kernel_call *call, carat_error *err) {
    slot *at = &s->slots[i];
    gpu *g = s->cache->gpu;
    uint32_t n_view = call->kernel->n_binding - 1;
    bool same = at->entry && same_variant(&at->entry->key, call);
    if (same && same_views(at->views, call->views, n_view)) return true;
    const entry *e = same ? at->entry : find_pipeline(s->cache, call, err);
    if (!e) return false;
    gpu_view views[GPU_MAX_BINDINGS] = {
        {s->args, (uint64_t)i * SLOT_BYTES, call->kernel->args_bytes}};
    for (uint32_t j = 0; j < n_view; j++) views[j + 1] = call->views[j];
    gpu_bind bind = gpu_bind_create(g, e->pipeline, views, n_view + 1, err);
    if (!bind.id) return false;
    gpu_bind_free(g, at->bind);
    at->bind = bind;
    at->entry = e;
    memcpy(at->views, call->views, sizeof at->views);
    return true;
}

void kernel_run(kernel_steps *s, const kernel_call *call) {
    carat_error *err = &s->error;
    if (err->code) return;
    const char *name = call->kernel->name;
    gpu *g = s->cache->gpu;
    uint32_t i = s->n_call, x = max_u32(call->x, 1), y = max_u32(call->y, 1);
    uint32_t z = max_u32(call->z, 1), most = g->info.max_groups;
    if (i == s->max_calls) {
        fail(err, CARAT_E_DEVICE, "kernel %s: more than %u calls in a sequence", name, i);
        return;
    }
    if (x > most || y > most || z > most) {
        fail(err, CARAT_E_DEVICE, "kernel %s: %u x %u x %u workgroups; the device allows %u", name,
             x, y, z, most);
        return;
    }
    if (!set_args(s, i, call, err) || !set_slot(s, i, call, err)) return;
    gpu_dispatch(g, s->slots[i].entry->pipeline, s->slots[i].bind, x, y, z);
    s->slots[i].n_submit = g->stats.n_submit;
    s->n_call++;
}

void kernel_hand_over(kernel_steps *s) {
    flush_args(s);
    if (!s->error.code) gpu_submit(s->cache->gpu, &s->error);
}

bool kernel_end(kernel_steps *s, carat_error *err) {
    flush_args(s);
    if (!s->error.code) return true;
    if (err && !err->code) *err = s->error;
    s->error = (carat_error){0};
    return false;
}
