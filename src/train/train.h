/* train: learning an adapter. dataset.c turns files into samples of tokens, back.h has the loss and
 * its gradients, adamw.c changes the adapter by them, train.c does one after the other in steps
 * that never take longer than one batch, checkpoint.c keeps it all in a file.
 *
 * Flow: token/chat.c and model/lora.c before. */
#ifndef CARAT_TRAIN_H
#define CARAT_TRAIN_H

#include "train/back.h"

/* ---- dataset.c, rows.c ---- */

typedef struct sample {
    size_t begin;      /* in ids and target */
    uint32_t n;        /* tokens, a BOS among them in front */
    uint32_t n_target; /* that are learned */
    uint32_t line;     /* of the file */
} sample;

typedef struct dataset_options {
    bool learn_all;   /* all tokens, not only what the model says */
    bool stop_at_bad; /* the first bad line is an error, not only counted */
    bool drop_long;   /* samples that are too long are left out, not cut */
    uint32_t max_len; /* tokens of a sample; 0: 2048 */
    bool large;       /* the template of 12B, 26B, 31B */
} dataset_options;

typedef struct dataset {
    arena *memory;
    id_list ids;
    buf target;      /* [ids.len] 1: is learned */
    buf list;        /* of sample */
    sample *samples; /* [n] list's */
    uint32_t n;
    uint32_t n_row;                   /* of the file, empty lines left out */
    uint32_t n_bad, n_cut, n_dropped; /* dropped: too long */
    uint32_t n_unlearned;             /* left out since nothing in them is learned */
    uint32_t longest;
    uint64_t n_target;
    uint64_t hash; /* of all ids and targets */
    char bad[512]; /* what was wrong first, with its line */
} dataset;

/* JSONL, a JSON list or CSV (by the name's end), whose rows have {"messages", "tools"?},
 * {"prompt", "completion"}, {"instruction", "input"?, "output"} or {"text"}. An error where no
 * sample is left. Free with dataset_free(). */
bool dataset_open(const tokenizer *t, source *src, const dataset_options *o, dataset **out,
                  carat_error *err);
void dataset_free(dataset *d);
/* Sample i as it is learned: specials visible, what is learned between [[ and ]]. */
void dataset_show(const dataset *d, const tokenizer *t, uint32_t i, buf *out);

/* A row as messages, or as bare text. */
typedef struct row {
    const json *messages, *tools, *text;
} row;

bool row_read(arena *a, const json *object, row *out, carat_error *err);
/* CSV: the record at *at of text [n] as an object whose keys are head's items; head NULL: as a
 * list. *at moves on, *line counts. */
bool csv_record(arena *a, const char *text, size_t n, const json *head, size_t *at, uint32_t *line,
                json *out, carat_error *err);

/* ---- adamw.c ---- */

/* PyTorch's AdamW: weight decay apart from the gradient, moments with bias correction. */
typedef struct adamw {
    double beta1, beta2, eps, weight_decay;
    uint64_t n;
    float *m, *v;  /* [n] moments */
    uint32_t step; /* done */
} adamw;

/* Moments zero; betas 0.9 and 0.999, eps 1e-8. */
bool adamw_open(arena *a, uint64_t n, double weight_decay, adamw *out, carat_error *err);
void adamw_step(adamw *o, float *values, const float *grad, double lr);
/* The norm of all; where it is above max (0: none), grad is scaled down to max. */
double clip_norm(float *grad, uint64_t n, double max);

typedef enum schedule { SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_CONSTANT } schedule;

/* Of step [0, n_step): rises over n_warmup steps to lr, then falls to 0 (or stays). */
double schedule_lr(schedule s, double lr, uint32_t step, uint32_t n_warmup, uint32_t n_step);

/* ---- train.c: which tokens come when; computes nothing ---- */

typedef struct train_options {
    double lr, weight_decay;
    double clip;           /* of the gradient's norm; 0: none */
    uint32_t n_accumulate; /* batches a step; 0: 1 */
    uint32_t n_epoch;      /* 0: 1 */
    uint32_t n_step;       /* at most; 0: as the epochs have */
    uint32_t n_warmup;
    schedule schedule;
    uint64_t seed;       /* of the order and of dropout */
    uint32_t n_batch;    /* tokens of a batch; 0: the longest sample */
    bool pack;           /* as many samples a batch as fit, else one */
    double eval_share;   /* of the samples, held out; 0: none */
    uint32_t eval_every; /* steps; 0: only in the end */
    uint32_t patience;   /* evaluations without progress before it stops; 0: never */
} train_options;

typedef enum train_kind { TRAIN_LEARN, TRAIN_EVAL, TRAIN_DONE } train_kind;

/* What is to be computed next. */
typedef struct train_work {
    train_kind kind;
    train_batch batch;
    float scale;      /* of the gradients: 1 / targets of the whole step */
    bool first, last; /* batch of its step: gradients from zero; then clip and change the adapter */
    double lr;
    uint32_t line; /* of the batch's first sample */
} train_work;

typedef enum train_event { TRAIN_BATCH, TRAIN_STEP, TRAIN_EVALUATED, TRAIN_FINISHED } train_event;

typedef struct train_state { /* all that a run goes on from, at the beginning of a step */
    uint32_t step, epoch;
    uint32_t at; /* in the epoch's order */
    uint32_t n_worse;
    double best_eval; /* loss; infinite: none yet */
    bool stopped;     /* by patience */
    bool eval_due;
} train_state;

typedef struct trainer {
    const dataset *data;
    train_options options;
    arena *memory;
    train_state state;
    uint32_t n_step;          /* of the whole run */
    uint32_t n_epoch;         /* that it begins */
    uint32_t n_train, n_eval; /* samples */
    uint32_t n_batch, n_segment;
    uint32_t *train, *eval;                 /* samples; train in the order of this epoch */
    uint32_t ordered;                       /* the epoch whose order that is */
    uint32_t batch, n_batches;              /* of this step: done, all */
    uint32_t next;                          /* place in the order, within the step; in eval */
    uint64_t n_target;                      /* of this step, or of the evaluation */
    uint64_t n_token, n_token_done;         /* of it: all, and those that were run */
    uint32_t n_batch_token;                 /* of the batch at hand */
    uint64_t n_learned;                     /* tokens run in learning since it was opened */
    double loss;                            /* sum over the step, or the evaluation */
    double step_loss, grad_norm, eval_loss; /* means: of the last step, the last evaluation */
    double rate;                            /* of the last step */
    uint64_t eval_target, eval_token;
    int32_t *tokens; /* [n_batch] of the work handed out */
    uint32_t *start;
    float *weight;
} trainer;

bool trainer_open(const dataset *d, const train_options *o, trainer **out, carat_error *err);
void trainer_free(trainer *t);
/* What comes next; the batch stays valid until the next call. */
void trainer_next(trainer *t, train_work *out);
/* The first sample of the data as a batch; as long. Only between steps. */
void trainer_first(trainer *t, train_batch *out);
/* Its outcome: the batch's loss, and the gradient's norm (of a step's last batch). An error when
 * that is not a number; the adapter must not have changed then. */
bool trainer_took(trainer *t, const train_work *w, double loss, double norm, train_event *event,
                  carat_error *err);
/* Back to the beginning of a step: nothing of an unfinished one counts. */
void trainer_rewind(trainer *t, const train_state *to);

/* ---- train_cpu.c ---- */

typedef struct train_cpu {
    trainer *plan; /* borrowed */
    lora *adapter; /* borrowed; is what learns */
    back_cpu *back;
    adamw *moments; /* borrowed */
    arena *memory;
    lora *grad;
    uint32_t n_again; /* layers that are computed again */
} train_cpu;

/* budget: bytes; where keeping what the way back needs takes more, it is computed again. */
bool train_cpu_open(const model *m, trainer *plan, lora *adapter, adamw *moments, uint64_t budget,
                    train_cpu **out, carat_error *err);
void train_cpu_free(train_cpu *t);
/* One batch. */
bool train_cpu_advance(train_cpu *t, train_event *event, carat_error *err);
uint64_t train_cpu_bytes(const train_cpu *t);
/* Whether the adapter changes the loss of the first sample: one that does not is worth nothing. */
bool train_cpu_has_effect(train_cpu *t, bool *effect, carat_error *err);

/* ---- checkpoint.c ---- */

/* Writes all that a run goes on from, beside the path and then over it. At any time; what has been
 * done of an unfinished step is done again. */
bool checkpoint_write(const char *path, const trainer *t, const lora *adapter, const adamw *moments,
                      carat_error *err);
/* Into an adapter of the same shape and a plan of the same options and data, else an error. */
bool checkpoint_read(source *src, trainer *t, lora *adapter, adamw *moments, carat_error *err);

#endif
