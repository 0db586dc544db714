/* carat_adapter: LoRA adapters: what is added to the model of an engine while it runs.
 *
 *     carat_adapter *a = carat_adapter_open(eng, "facts", &err);
 *     carat_engine_adapt(eng, &(carat_adapter_use){a, 1}, 1, &err);    the sessions speak with it
 *     carat_engine_adapt(eng, NULL, 0, &err);                          and without it again
 *     carat_adapter_close(a);
 *
 * carat_train.h makes them. */
#ifndef CARAT_ADAPTER_H_PUBLIC
#define CARAT_ADAPTER_H_PUBLIC

#include "carat.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A LoRA adapter for eng's model: a PEFT folder, its .safetensors file, or llama.cpp's GGUF. */
typedef struct carat_adapter carat_adapter;
carat_adapter *carat_adapter_open(carat_engine *eng, const char *path, carat_error *err);
void carat_adapter_close(carat_adapter *adapter); /* one in use is added until others are */
typedef struct carat_adapter_use {
    carat_adapter *adapter;
    float scale; /* 1: as it was trained */
} carat_adapter_use;
/* From now on uses [n <= 16] are added, and no others. Unless nothing changes, the sessions forget
 * what they computed. Not while a job is under way. On failure nothing changes. */
bool carat_engine_adapt(carat_engine *eng, const carat_adapter_use *uses, size_t n,
                        carat_error *err);

/* What an adapter is, as one JSON object: rank (the largest), alpha and scale of the first pair,
 * rslora, targets, first_layer, n_layer (from it to the last one), parameters, and how many pairs
 * of the file do nothing here. carat_string_free() it. */
char *carat_adapter_describe(const carat_adapter *adapter, carat_error *err);
/* Writes an adapter: a GGUF when the path ends in .gguf, else a folder (made when it is not there)
 * as PEFT has it. Written beside, then renamed. */
bool carat_adapter_save(const carat_adapter *adapter, const char *path, carat_error *err);

/* Writes the model of eng with adapters added to its matrices as one GGUF, beside the path and then
 * over it. uses [n <= 16] stay open as long as the job; n 0: those in use. type: "keep" or NULL,
 * every matrix stays in its format; "q8_0" or "f16", they are all written so. Reads the model's
 * file, not the device. A job: PROGRESS (bytes), DONE. Native only. */
carat_job *carat_merge(carat_engine *eng, const carat_adapter_use *uses, size_t n, const char *path,
                       const char *type, carat_error *err);

#ifdef __cplusplus
}
#endif
#endif
