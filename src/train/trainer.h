/* trainer: what stands behind carat_trainer: data, plan, adapter and moments on the host, and what
 * learns, on the CPU or on a GPU. trainer.c makes it and tells of it, trainer_job.c lets it learn.
 *
 * Flow: train.h, train_gpu.h and model/engine.h before; carat_train.h after. */
#ifndef CARAT_TRAINER_H
#define CARAT_TRAINER_H

#include "carat_train.h"
#include "model/engine.h"
#include "train/train_gpu.h"

typedef struct trainer_job { /* every job of a trainer starts with this */
    carat_job job;
    carat_trainer *trainer; /* NULL: it was freed, or the job is over */
} trainer_job;

struct carat_trainer {
    engine_guest guest; /* first; guest.engine is the engine */
    arena *memory;
    const char *name; /* of the data */
    dataset *data;
    trainer *plan;
    /* On a GPU what the last fetch brought back: */
    lora *adapter;
    adamw moments;
    train_state held;       /* where a run goes on from these two */
    uint64_t budget;        /* bytes for the run beside the weights */
    train_cpu *cpu;         /* one of the two, or neither: */
    train_gpu *gpu;         /* nothing is computed yet (again) */
    bool in_batch;          /* the GPU is at one */
    trainer_job *job;       /* that uses it now */
    double loss, eval_loss; /* NAN: none yet */
    double seconds, since;  /* learning until then, and from then on; since 0: it rests */
};

/* What the network runs with, on the engine's device; its weights are there. */
bool trainer_run_open(carat_trainer *tr, carat_error *err);
/* Gives it back: what is on the host is what goes on. */
void trainer_run_close(carat_trainer *tr);
/* Bytes that the run takes beside the weights, or will take. */
uint64_t trainer_run_bytes(const carat_trainer *tr);

#endif
