/* back_gpu: the fast twin of back_cpu.c: the loss of a batch and its gradients, on the device.
 * adapter_gpu.c keeps what learns there, back_gpu.c is the network both ways; train_gpu.c puts
 * them together.
 *
 * Flow: ops_train.h before, train_gpu.c after. */
#ifndef CARAT_BACK_GPU_H
#define CARAT_BACK_GPU_H

#include "model/ple_gpu.h"
#include "train/back.h"
#include "train/experts_gpu.h"
#include "train/ops_train.h"
#include "train/train.h"

/* ---- adapter_gpu.c ---- */

/* A pair of the adapter, its rank filled up with zeros to a multiple of 16, which stay zero. */
typedef struct pair_gpu {
    uint32_t rank; /* 0: none */
    float scale;
    matrix_gpu a, b;   /* [rank, n_col], [n_row, rank] */
    matrix_gpu da, db; /* their gradients */
} pair_gpu;

/* What is learned together in one buffer: the pairs of a layer, of the embedding, of the head. */
typedef struct group_gpu {
    gpu_buffer values, grad, m, v; /* [n] f32; id 0: nothing is learned here */
    uint64_t begin, n;             /* begin: values of the groups before it */
} group_gpu;

typedef struct adapter_gpu {
    arena *memory;
    gpu *gpu;
    lora *lora; /* borrowed, as are: */
    adamw *moments;
    uint32_t n_group; /* n_layer + 2 */
    group_gpu *groups;
    pair_gpu *pairs; /* [lora_slots()] */
    /* On its way: [group, 3, n], there only then. What is fetched stays here until all of it is:
     * what the host has is always whole, and goes on when the device is lost. */
    arena *way;
    float *stage;
    uint64_t n_stage; /* floats of it */
    uint64_t bytes;
    uint32_t at;   /* fetching: group * 3 + buffer */
    uint64_t read; /* floats of it that are here */
    gpu_ticket ticket;
} adapter_gpu;

/* On the device, with the values and moments that lora and moments hold. */
bool adapter_gpu_create(gpu *g, lora *l, adamw *moments, adapter_gpu **out, carat_error *err);
void adapter_gpu_free(adapter_gpu *a);
/* Bytes on the device. */
uint64_t adapter_gpu_estimate(const lora *l);
/* Brings values and moments back, a piece at a time; *busy: call again. All, or nothing. */
bool adapter_gpu_fetch(adapter_gpu *a, bool *busy, carat_error *err);
/* The gradients become zero. */
void adapter_gpu_clear(const adapter_gpu *a, kernel_steps *s);
/* out[at0 + i] = sum of the squares of group i's gradients. */
void adapter_gpu_norms(const adapter_gpu *a, kernel_steps *s, gpu_view out, uint32_t at0);
/* One step of AdamW; the gradients count grad_scale times. */
void adapter_gpu_step(const adapter_gpu *a, kernel_steps *s, float grad_scale, double lr);

/* ---- back_room.c ---- */

/* A run over a batch, in pieces of about the same size. */
typedef struct back_run {
    const train_batch *batch; /* lives until the run's end */
    float scale;              /* of the gradients */
    bool learn;               /* the gradients are added to the adapter's; else only the loss */
    bool bare;                /* without the adapter */
} back_run;

/* What the way back through a layer reads, [n_max, ..]; names as in back_cpu.c. */
typedef struct saved_gpu {
    gpu_buffer x;
    gpu_buffer q_raw, k_raw, v_raw;
    gpu_buffer attn, lse; /* lse [n_max, n_head] */
    gpu_buffer o, y, gate, up, down, sum, m;
    gpu_buffer ple_gate, ple;
    gpu_buffer u[LORA_TARGETS]; /* A of what enters a matrix, [n_max, rank] */
} saved_gpu;

typedef struct back_gpu {
    const model *model;
    gpu *gpu; /* NULL: only bytes are counted */
    const adapter_gpu *adapter;
    const lora *lora;
    arena *memory;
    kernel_steps *steps, *head_steps;
    experts_gpu *experts;
    uint32_t n_max, first, kept; /* layers [first, n_layer) have a way back */
    uint32_t n_rot[2];           /* rotated pairs, of global and of sliding layers */
    saved_gpu layers[MODEL_MAX_LAYERS];
    gpu_buffer k[MODEL_MAX_LAYERS], v[MODEL_MAX_LAYERS];   /* as attention reads them; owners */
    gpu_buffer dk[MODEL_MAX_LAYERS], dv[MODEL_MAX_LAYERS]; /* one for all but shared ones */
    /* Inputs of a run. */
    gpu_buffer ids, span, next;         /* [n_max], [n_max, 2], [n_max] */
    gpu_buffer rope_table[2], rope[2];  /* by position in the sample; by token: [n_max, n_rot, 2] */
    gpu_buffer index, targets, weights; /* [n_max] of what is learned */
    gpu_buffer ple_token, e, de;        /* [n_max, n_layer, n_ple]; before a run e holds the rows
                                           of the table as they are stored */
    gpu_buffer outcome; /* [n_max] losses of what is learned, then [n_group] sums of squares */
    /* Values between operations. */
    gpu_buffer end;               /* what leaves the last layer */
    gpu_buffer n, z, part, r;     /* [n_max, n_embd] */
    gpu_buffer q;                 /* [n_max, heads] */
    gpu_buffer act;               /* [n_max, n_ff] */
    gpu_buffer ple_act;           /* [n_max, n_ple] */
    gpu_buffer dx, dpart, dm, dn; /* [n_max, n_embd] */
    gpu_buffer dq, dq_raw, dattn; /* [n_max, heads] */
    gpu_buffer dk_raw, dv_raw;    /* [n_max, kv width] */
    gpu_buffer delta;             /* [n_max, n_head] */
    gpu_buffer dgate, dup, dact;  /* [n_max, n_ff] */
    gpu_buffer dple, dple_act;    /* [n_max, n_ple] */
    gpu_buffer u, du;             /* [n_max, rank]; u of the embedding and the head */
    gpu_buffer parts;             /* [n_parts] of sums that several workgroups share */
    uint64_t n_parts;
    gpu_buffer dropped, ddropped; /* [n_max, widest input of an adapter] */
    gpu_buffer rows, normed, drows, dnormed, logits, loss_parts; /* [BACK_HEAD_ROWS, ..] */
    gpu_buffer *buffers; /* [n_buffer] all of them, to be freed */
    uint32_t n_buffer, max_buffer;
    uint64_t bytes;
    ple_host ple;      /* [n_max] */
    uint32_t *words;   /* [2 n_max] on their way to the device */
    carat_error error; /* of allocating */
    back_run run;
    uint32_t n_tok, n_target;
    uint32_t block;          /* of the head: its first row; 0 in layers */
    uint32_t piece, n_piece; /* recorded, of all */
} back_gpu;

/* Ends a read into dst that nobody waits for: a device has few of them at a time. */
void back_drop_read(gpu *g, gpu_ticket t, void *dst);

/* Room for batches of n_max tokens. budget: bytes, see train_gpu.h. Weights are on the device. */
bool back_gpu_create(const model *m, gpu *g, kernel_cache *cache, const adapter_gpu *adapter,
                     uint32_t n_max, uint64_t budget, back_gpu **out, carat_error *err);
void back_gpu_free(back_gpu *b);
uint64_t back_gpu_estimate(const model *m, const lora *l, uint32_t n_max, uint64_t budget);

/* ---- back_gpu.c ---- */

bool back_gpu_begin(back_gpu *b, const back_run *run, carat_error *err);
/* Records and submits pieces while the device has little to do. *finished: that was all. */
bool back_gpu_advance(back_gpu *b, bool *finished, carat_error *err);

#endif
