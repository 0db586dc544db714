/* file: where bytes come from and what they mean. source.c reads at an offset, gguf.c finds keys
 * and tensors, quant.c knows the storage formats, ollama.c turns a model's name into paths.
 *
 * Flow: a GGUF enters here; model/config.c and model/weights.c read it next. No GPU, no weights. */
#ifndef CARAT_FILE_H
#define CARAT_FILE_H

#include "base/base.h"

/* ---- source.c ---- */

/* A readable thing with a size: a file, or bytes in memory. Reads are synchronous. */
typedef struct source source;
struct source {
    const char *name; /* for messages */
    uint64_t size;    /* bytes */
    /* Reads exactly n bytes at offset into dst, or fails. */
    bool (*read)(source *s, uint64_t offset, void *dst, size_t n, carat_error *err);
    void (*close)(source *s);
    const void *memory; /* source_memory() */
    int fd;             /* source_open() */
};

bool source_open(arena *a, const char *path, source **out, carat_error *err);
/* Borrows data [n]. */
bool source_memory(arena *a, const char *name, const void *data, size_t n, source **out,
                   carat_error *err);
/* Checks the range, then reads. The only way the rest of carat reads. */
bool source_read(source *s, uint64_t offset, void *dst, size_t n, carat_error *err);
void source_close(source *s); /* NULL is fine */
/* Writes a whole file beside `path`, then renames it over. */
bool file_write(const char *path, const void *data, size_t n, carat_error *err);
typedef struct file_part {
    const void *data;
    size_t n;
} file_part;
/* The same of parts [n] that follow each other. */
bool file_write_parts(const char *path, const file_part *parts, size_t n, carat_error *err);

/* ---- quant.c ---- */

/* Tensor types by their GGUF id. */
typedef enum quant_type {
    QUANT_F32 = 0,
    QUANT_F16 = 1,
    QUANT_Q4_0 = 2,
    QUANT_Q4_1 = 3,
    QUANT_Q5_0 = 6,
    QUANT_Q5_1 = 7,
    QUANT_Q8_0 = 8,
    QUANT_Q2_K = 10,
    QUANT_Q3_K = 11,
    QUANT_Q4_K = 12,
    QUANT_Q5_K = 13,
    QUANT_Q6_K = 14,
    QUANT_IQ4_NL = 20,
    QUANT_IQ4_XS = 23,
    QUANT_BF16 = 30,
    QUANT_MXFP4 = 39,
    QUANT_NVFP4 = 40,
    QUANT_TYPE_END = 64
} quant_type;

typedef struct quant_format {
    const char *name; /* "Q4_K" */
    uint32_t n_value; /* values a block */
    uint32_t n_byte;  /* bytes a block */
    /* blocks [n / n_value] -> out [n] */
    void (*dequantise)(const void *blocks, float *out, size_t n);
} quant_format;

/* NULL for a type that carat does not run. */
const quant_format *quant_find(uint32_t type);
/* The name of any known GGUF type, also of those that quant_find() refuses; "type 99" otherwise
 * is the caller's to print (NULL here). */
const char *quant_name(uint32_t type);
float half_to_float(uint16_t h);
uint16_t float_to_half(float f); /* round to nearest even */

/* ---- gguf.c ---- */

#define GGUF_MAX_DIMS 4

typedef enum gguf_kind {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
} gguf_kind;

typedef struct gguf_string {
    const char *text; /* zero-terminated, but may hold zeros before its end */
    size_t len;
} gguf_string;

typedef struct gguf_value {
    gguf_string key;
    gguf_kind kind; /* GGUF_ARRAY: see item and n */
    gguf_kind item; /* array: the kind of its items */
    uint64_t n;     /* array: items */
    union {
        uint64_t u; /* U8 U16 U32 U64 BOOL */
        int64_t i;  /* I8 I16 I32 I64 */
        double f;   /* F32 F64 */
        gguf_string s;
        const void *items; /* array of numbers: little-endian bytes, maybe unaligned; of strings:
                              const gguf_string [n] */
    } as;
} gguf_value;

typedef struct gguf_tensor {
    gguf_string name;
    uint32_t type; /* any id: what is read is decided by who needs the tensor */
    uint32_t n_dims;
    uint64_t ne[GGUF_MAX_DIMS]; /* fastest first; 1 beyond n_dims */
    uint64_t offset;            /* absolute, in its source */
    uint64_t size;              /* bytes; 0 for a type of unknown size */
    source *src;
} gguf_tensor;

typedef struct gguf {
    const char *name;    /* of the first file */
    uint64_t file_bytes; /* of all files */
    uint64_t n_value, n_tensor;
    const gguf_value *values;   /* [n_value] of the first file */
    const gguf_tensor *tensors; /* [n_tensor] of all files */
    source **sources;           /* [n_source] owned */
    uint32_t n_source;
    const void *index; /* names in order, gguf.c's own */
} gguf;

/* Opens a file, and when it is the first of a split set its siblings too. All of it (keys,
 * strings, infos) is copied into the arena; weights are not read. On failure nothing stays open. */
bool gguf_open(arena *a, const char *path, gguf **out, carat_error *err);
/* The same for bytes or any other source (which the gguf then owns); split sets are refused. */
bool gguf_open_source(arena *a, source *src, gguf **out, carat_error *err);
void gguf_close(gguf *g); /* closes the sources; the memory is the arena's */

const gguf_value *gguf_find(const gguf *g, const char *key);
const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name);
/* Reads of keys: false when absent (*out untouched) or of a kind that does not fit; any integer
 * kind is taken for an integer, F32/F64 for a float. */
bool gguf_get_u32(const gguf *g, const char *key, uint32_t *out);
bool gguf_get_f32(const gguf *g, const char *key, float *out);
bool gguf_get_bool(const gguf *g, const char *key, bool *out);
bool gguf_get_string(const gguf *g, const char *key, gguf_string *out);
/* Item i of an array of integers or bools. */
bool gguf_array_u32(const gguf_value *v, uint64_t i, uint32_t *out);
/* "[2048, 1536] Q4_K" into text, for messages. */
const char *gguf_shape(const gguf_tensor *t, char text[96]);

/* ---- ollama.c (native) ---- */

typedef struct ollama_model {
    const char *model, *projector, *adapter; /* paths; NULL: no such layer */
    const char *system, *params, *messages;  /* the layers' text; NULL: none */
    const char *parameter_size, *file_type;  /* of the config blob; NULL: not said */
} ollama_model;

/* Whether text obeys the name grammar [host/][namespace/]model[:tag]. */
bool ollama_name_valid(const char *name);
/* Resolves a name in the first store that has it. CARAT_E_NOT_FOUND lists where it looked. */
bool ollama_find(arena *a, const char *name, ollama_model *out, carat_error *err);

typedef struct ollama_entry {
    const char *name;   /* as a user would write it, shortest form */
    const char *path;   /* of the model blob; NULL: not on this disk */
    const char *digest; /* first 12 hex digits of the manifest's sha256 */
    uint64_t bytes;     /* of all layers */
    int64_t modified;   /* Unix seconds */
} ollama_entry;
/* All models of all stores, sorted by name; damaged manifests are left out. */
bool ollama_list(arena *a, ollama_entry **out, size_t *n, carat_error *err);

#endif
