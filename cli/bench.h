/* bench: what the files of `carat bench` share. bench.c measures the text model and prints all,
 * bench_encoders.c measures the encoders for pictures and sounds, bench_train.c how it learns. */
#ifndef CARAT_CLI_BENCH_H
#define CARAT_CLI_BENCH_H

#include "cli.h"

#define ENCODER_CONTEXT 1024u /* tokens that a session needs for one of these tests */
#define MAX_REPS        100

/* One encoder, of which every run gets another picture or sound. */
typedef struct encoder_test {
    const char *name, *title;
    uint32_t n_soft;  /* soft tokens */
    double gflop;     /* of products, convolutions and attention */
    double prepare_s; /* until the patches or the spectrogram are there; median */
    double first_s;   /* of the first run, which loads the encoder and compiles its kernels */
    double best_s, median_s;
} encoder_test;

/* Steps of learning. */
typedef struct train_test {
    char name[40]; /* "train2048/512r16": tokens of a step, of a batch, rank */
    uint32_t rank, step_tokens, batch_tokens;
    double rate;    /* tokens a second, in the median step */
    double gflop;   /* of a step: products and attention, both ways */
    double first_s; /* of the first step, which compiles its kernels */
    double best_s, median_s;
    uint64_t run_bytes;    /* held by the run */
    uint64_t beside_bytes; /* of the device at most, without the weights */
    uint32_t n_again;      /* layers that are computed again on the way back */
} train_test;

/* Measures what the model has, each reps times; *n of out [2]. */
bool bench_encoders(const runtime *r, uint32_t reps, encoder_test *out, size_t *n,
                    carat_error *err);
/* What the options ask for. */
bool bench_train_plan(const settings *s, train_test *t, carat_error *err);
/* Measures reps steps behind a first one. Frees r's session, whose memory is no part of it. */
bool bench_train(runtime *r, const settings *s, uint32_t reps, train_test *t, carat_error *err);
/* The median of values [n], which are sorted. */
double bench_median(double *values, uint32_t n);

#endif
