/* golden_lora: nano with its golden adapter and the two examples that it was trained on. */
#ifndef CARAT_TESTS_GOLDEN_LORA_H
#define CARAT_TESTS_GOLDEN_LORA_H

#include "golden_soft.h"

#include "model/lora.h"

#define N_VOCAB 2048
#define ADAPTER "tests/golden/nano/adapter/adapter_model.safetensors"

typedef struct lora_fixture {
    golden g;
    text_cpu *text;
    lora *adapter;
    const json *json;
    int32_t *ids[2];  /* [n_id] */
    float *weight[2]; /* [n_id] 1: learned */
    uint32_t n_id[2];
} lora_fixture;

static inline void open_lora(lora_fixture *f, double bound) {
    source *s;
    golden_open_nano(&f->g, bound);
    f->text = golden_cpu(&f->g, 64);
    source_close(f->g.tensors->src);
    REQUIRE(source_open(f->g.memory, "tests/golden/nano/lora_grads.safetensors", &s, &err));
    REQUIRE(safetensors_open(f->g.memory, s, &f->g.tensors, &err));
    REQUIRE(lora_open(f->g.memory, f->g.model, ADAPTER, &f->adapter, &err));
    f->json = load_json(f->g.memory, "tests/golden/nano/lora.json");
    for (size_t i = 0; i < 2; i++) {
        const json *e = json_at(json_get(f->json, "examples"), i);
        f->n_id[i] = golden_ids(&f->g, json_get(e, "ids"), &f->ids[i]);
        f->weight[i] = golden_alloc(&f->g, f->n_id[i], sizeof **f->weight);
        for (uint32_t k = 0; k < f->n_id[i]; k++)
            f->weight[i][k] = (float)json_number(json_at(json_get(e, "target"), k), -1);
    }
}

static inline void close_lora(lora_fixture *f) {
    text_cpu_free(f->text);
    golden_close(&f->g);
}

#endif
