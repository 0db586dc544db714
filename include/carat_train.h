/* carat_train: teaching a model. A LoRA adapter for the model of an engine learns from a file of
 * samples; the model itself stays as it is, quantised, and the engine's sessions share its weights.
 *
 *     carat_train_desc what = {.data = "facts.jsonl"};
 *     carat_trainer *tr = carat_trainer_open(eng, &what, &err);
 *     carat_job *job = carat_train(tr, 0, &err);
 *     for (carat_event ev; carat_wait(job, &ev, &err) && ev.kind != CARAT_EVENT_DONE;)
 *         ...                         // CARAT_EVENT_STEP: carat_trainer_state()
 *     carat_job_free(job);
 *     carat_adapter_save(carat_trainer_adapter(tr, &err), "facts", &err);
 *
 * Numbers that are 0 in carat_train_desc mean the documented default. */
#ifndef CARAT_TRAIN_H_PUBLIC
#define CARAT_TRAIN_H_PUBLIC

#include "carat_adapter.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct carat_trainer carat_trainer;

typedef enum carat_learn {
    CARAT_LEARN_REPLIES, /* what the model says, or the completion; a {"text"} sample whole */
    CARAT_LEARN_ALL,
} carat_learn;

typedef enum carat_schedule {
    CARAT_SCHEDULE_COSINE,
    CARAT_SCHEDULE_LINEAR,
    CARAT_SCHEDULE_CONSTANT,
} carat_schedule;

typedef struct carat_train_desc {
    const char *data; /* a file: .jsonl, .json (a list) or .csv, whose rows have {"messages"},
                         {"prompt", "completion"}, {"instruction", "input", "output"} or {"text"} */
    const char
        *adapter; /* an adapter to go on from, which also decides its shape; NULL: a new one */
    /* ---- a new adapter ---- */
    const char *targets; /* of "q k v o gate up down embed head", separated by blanks or commas;
                            NULL: the first seven */
    uint32_t rank;       /* 0: 16; at most 1024 */
    float alpha;         /* 0: twice the rank */
    bool rslora;         /* scale alpha / sqrt(rank), not alpha / rank */
    float dropout;       /* of what the adapter sees; [0, 1) */
    uint32_t first_layer, n_layer; /* layers that learn; n_layer 0: all from the first on */
    /* ---- samples ---- */
    carat_learn learn;
    bool stop_at_bad;    /* a bad row is an error; else it is left out and counted */
    bool drop_long;      /* samples that are too long are left out, not cut */
    uint32_t max_length; /* tokens of a sample; 0: 2048 */
    float eval_share;    /* of the samples held out to measure by; 0: none */
    /* ---- the run ---- */
    double learning_rate; /* 0: 2e-4 */
    double weight_decay;  /* 0: none */
    double clip;          /* of the gradient's norm; 0: 1, negative: none */
    carat_schedule schedule;
    uint32_t n_warmup;     /* steps in which the rate rises */
    uint32_t n_epoch;      /* 0: 3, or as many as n_step takes */
    uint32_t n_step;       /* at most; 0: as the epochs have */
    uint32_t batch_tokens; /* of a batch, into which short samples are packed; 0: 512, or an
                              eighth of the data where that is less; 1: a sample each */
    uint32_t n_accumulate; /* batches a step; 0: 1, or with batch_tokens 0 as many as make 2048
                              tokens, or an eighth of the data */
    uint32_t eval_every;   /* steps between measurements; 0: only at the end */
    uint32_t patience;     /* measurements without progress before it stops; 0: never */
    uint64_t seed;         /* of the adapter, the order and dropout */
    uint64_t memory; /* bytes for the run beside the weights, which decide how much is kept and
                              how much computed again; 0: 4 GB */
} carat_train_desc;

/* Reads the data and makes the adapter. eng must outlive the trainer, which the next calls of the
 * same thread use alone: no session of eng may run while a training job does. */
carat_trainer *carat_trainer_open(carat_engine *eng, const carat_train_desc *desc,
                                  carat_error *err);
void carat_trainer_free(carat_trainer *tr);

/* What will be done, as one JSON object: samples, tokens, lengths, the share that is learned, rows
 * that were bad, cut, dropped; steps, adapter, estimated memory. carat_string_free() it. */
char *carat_trainer_report(const carat_trainer *tr, carat_error *err);
/* Sample i as it is trained: control tokens spelled out, what is learned between [[ and ]].
 * carat_string_free() it. */
char *carat_trainer_sample(const carat_trainer *tr, uint32_t i, carat_error *err);

/* Takes n_step more steps, or all that are left (0). Events: PROGRESS while weights are loaded
 * (done of total bytes) and within a step (done of total tokens, text "step" or "eval"), STEP after
 * each, EVAL after each measurement, NOTICE, then DONE. At its end, also when it is cancelled, what
 * has been learned is back on the host: the calls below are for then. A loss that is not a number
 * is an error; what was learned up to the last good step stays. */
carat_job *carat_train(carat_trainer *tr, uint32_t n_step, carat_error *err);

typedef struct carat_train_state {
    uint32_t step, n_step; /* taken, and of the whole run */
    uint32_t epoch;
    bool finished;               /* all steps taken, or patience has run out */
    double loss;                 /* of the last step, a token: natural logarithm; NAN: none yet */
    double eval_loss, best_eval; /* of the last measurement, and the best; NAN: none yet */
    double rate;                 /* of the last step */
    double grad_norm;            /* before clipping */
    uint64_t n_token;            /* run so far in learning */
    double seconds;              /* learning so far, in this trainer */
    uint64_t device_bytes;       /* held for the run beside the weights */
    uint32_t n_again;            /* layers that are computed again on the way back, to hold less */
} carat_train_state;

void carat_trainer_state(const carat_trainer *tr, carat_train_state *out);

/* Writes all that the run goes on from, beside the path and then over it. */
bool carat_trainer_save(const carat_trainer *tr, const char *path, carat_error *err);
/* Goes on from there, bit for bit: model, data and options must be the same. */
bool carat_trainer_resume(carat_trainer *tr, const char *path, carat_error *err);
/* Whether the adapter changes what the model says of the first sample. A job: DONE. Its outcome is
 * in *effect, which must live as long. */
carat_job *carat_trainer_check(carat_trainer *tr, bool *effect, carat_error *err);

/* The adapter as it is now, a copy that is open for eng. */
carat_adapter *carat_trainer_adapter(carat_trainer *tr, carat_error *err);

#ifdef __cplusplus
}
#endif
#endif
