/* kernel: WGSL source -> pipeline -> dispatch. tools/embed turns kernels/ *.wgsl into the tables of
 * build/gen/kernels.h; kernel.c assembles a kernel's source for the tensor formats at hand,
 * compiles it once, and memoises bind groups by call order.
 *
 * Flow: gpu.h below, model/ops_gpu.c above. */
#ifndef CARAT_KERNEL_H
#define CARAT_KERNEL_H

#include "gpu/gpu.h"

/* WGSL is held packed, as a string of symbols. A byte below KERNEL_FIRST_PAIR is a character. Any
 * other symbol s stands for the two in kernel_pairs[s - KERNEL_FIRST_PAIR]; from KERNEL_FIRST_LONG
 * on, a symbol takes two bytes, a and b: KERNEL_FIRST_LONG + 255 * (a - KERNEL_FIRST_LONG) + b - 1.
 * So plain WGSL, which is ASCII, is a packed text too. */
#define KERNEL_FIRST_PAIR 128u
#define KERNEL_FIRST_LONG 244u
#define KERNEL_MAX_DEPTH  64u /* symbols that wait while one is unpacked */
extern const uint16_t kernel_pairs[][2];

/* One .wgsl file as tools/embed found it. */
typedef struct kernel {
    const char *name;            /* "matvec" */
    const char *enables;         /* WGSL directives, which must come first; not packed */
    const char *source;          /* packed WGSL without its libraries */
    const char *const *includes; /* NULL-terminated packed sources of lib/ files that it names */
    uint32_t n_format;           /* how many tensor formats (A, B, C) it is made for: 0..3 */
    uint32_t n_binding;
    uint8_t bindings[GPU_MAX_BINDINGS]; /* gpu_binding_kind */
    uint32_t args_bytes;                /* sizeof its Args struct, a multiple of 16 */
    const struct kernel *subgroup;      /* variant for adapters with subgroups, or NULL */
    const struct kernel *matrix;        /* variant for adapters with matrix units, or NULL */
} kernel;

/* One kernels/lib file, e.g. "Q4_K", packed; the table of build/gen/kernels.c ends with a NULL
 * name. */
typedef struct kernel_lib {
    const char *name, *source;
} kernel_lib;
extern const kernel_lib kernel_lib_table[];

/* Whether the device has the features that this very file asks for. */
bool kernel_runs(const kernel *k, const gpu_info *info);
/* The variant that this device runs for these formats (quant_type of A, B, C): matrix unless one of
 * them is F32, since matrix units round weights to f16; else subgroup, else the kernel itself. */
const kernel *kernel_pick(const kernel *k, const uint32_t *formats, const gpu_info *info);
/* The whole WGSL of a kernel for these formats (quant_type of A, B, C) on this device, appended to
 * out. The source sees the adapter's narrowest subgroup, if it has any, as SUBGROUP. */
bool kernel_assemble(const kernel *k, const uint32_t *formats, const gpu_info *info, buf *out,
                     carat_error *err);

/* Compiled pipelines and call memos of one device. */
typedef struct kernel_cache kernel_cache;

kernel_cache *kernel_cache_create(gpu *g, carat_error *err);
void kernel_cache_free(kernel_cache *c);

/* A recorded sequence of calls (a decode step, a prefill chunk), memoised by call order: while the
 * i-th call repeats the i-th call of last time, its bind group and its arguments are reused and
 * nothing is allocated. */
typedef struct kernel_steps kernel_steps;

kernel_steps *kernel_steps_create(kernel_cache *c, uint32_t max_calls, carat_error *err);
void kernel_steps_free(kernel_steps *s);
/* Forgets views of buffers that are about to be freed. */
void kernel_steps_forget(kernel_steps *s);
void kernel_begin(kernel_steps *s); /* back to call 0 */

typedef struct kernel_call {
    const kernel *kernel;
    uint32_t formats[3];           /* quant_type of A, B, C */
    const gpu_constant *constants; /* [n_constant] overrides; compared by value */
    uint32_t n_constant;
    const void *args;                     /* [kernel->args_bytes] goes to binding 0 */
    gpu_view views[GPU_MAX_BINDINGS - 1]; /* bindings 1.. */
    uint32_t x, y, z;                     /* workgroups; 0 counts as 1 */
} kernel_call;

/* Records a dispatch. After the first failure (kept in the steps) every later call is a no-op;
 * kernel_end() reports it, so that a forward pass can be written one line a dispatch. */
void kernel_run(kernel_steps *s, const kernel_call *call);
/* Submits what was recorded so far, so that the device starts while the rest is recorded. */
void kernel_hand_over(kernel_steps *s);
/* Writes the arguments that changed: call it before gpu_submit() or gpu_read(). */
bool kernel_end(kernel_steps *s, carat_error *err);
uint32_t kernel_calls(const kernel_steps *s); /* dispatches since kernel_begin() */
const gpu_info *kernel_device(const kernel_steps *s);

#endif
