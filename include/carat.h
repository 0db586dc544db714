/* carat: Gemma 4 on the user's own GPU, from one GGUF file.
 *
 * The public interface; carat_adapter.h adds adapters, carat_train.h learning. A program opens a
 * device, opens an engine (one model), loads its weights, creates a session (one conversation) and
 * runs jobs on it:
 *
 *     carat_device *dev = carat_device_open("auto", &err);
 *     carat_engine *eng = carat_engine_open(&(carat_engine_desc){.path = "nano.gguf"}, dev, &err);
 *     carat_job *load = carat_load(eng, &err);                 carat_finish(load, &err);
 *     carat_session *ses = carat_session_create(eng, NULL, &err);
 *     carat_job *job = carat_chat(ses, &(carat_chat_desc){.messages = "[{...}]"}, &err);
 *     carat_event ev;
 *     while (carat_wait(job, &ev, &err) && ev.kind != CARAT_EVENT_DONE)
 *         if (ev.kind == CARAT_EVENT_TEXT) fwrite(ev.text, 1, ev.length, stdout);
 *
 * Nothing here blocks except carat_device_open(), carat_wait() and carat_finish(). A job is
 * advanced by carat_advance(), which submits what can be submitted and returns. So the same core
 * runs in a browser's worker, where waiting is an `await` in JavaScript.
 *
 * Conventions. Descriptions are zero-initialised structs in which 0 or NULL means the documented
 * default. A function that can fail returns false or NULL and fills *err (which may be NULL);
 * the message is one sentence that names the thing. Strings are UTF-8. Every _open/_create has
 * its _close/_free, which accepts NULL. An engine and all that was made from it belong to one
 * thread at a time. */
#ifndef CARAT_H
#define CARAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CARAT_VERSION "0.1.0"

/* ---- errors ------------------------------------------------------------------------------- */

typedef enum carat_code {
    CARAT_OK = 0,
    CARAT_E_ARGUMENT,    /* the caller passed something that cannot be meant */
    CARAT_E_IO,          /* a file could not be read or written */
    CARAT_E_FORMAT,      /* a file or a message is damaged or not what it claims to be */
    CARAT_E_UNSUPPORTED, /* well-formed, but not something carat runs; the message names it */
    CARAT_E_NOT_FOUND,   /* no such model, file or tensor */
    CARAT_E_MEMORY,      /* out of host or device memory */
    CARAT_E_DEVICE,      /* no device, or the driver refused a command */
    CARAT_E_DEVICE_LOST, /* the device went away */
    CARAT_E_CONTEXT,     /* the conversation does not fit the context */
    CARAT_E_CANCELLED,   /* carat_cancel() was called */
} carat_code;

typedef struct carat_error {
    carat_code code;
    char message[512];
} carat_error;

/* ---- devices ------------------------------------------------------------------------------ */

typedef struct carat_device carat_device;

/* name: "auto" (the best GPU, else the CPU), "gpu" (a GPU or an error) or "cpu".
 * The result is never NULL without an error. A software adapter counts as a GPU only for "gpu". */
carat_device *carat_device_open(const char *name, carat_error *err);
void carat_device_close(carat_device *dev);
/* The adapter's name, e.g. "NVIDIA H200 (Vulkan)" or "CPU reference". Lives as long as dev. */
const char *carat_device_name(const carat_device *dev);
bool carat_device_is_gpu(const carat_device *dev);
/* Measured read bandwidth of the device's memory (of the host's for the CPU), bytes a second; 0 on
 * an error. Takes up to a second and some device memory, which it gives back. Native only. */
double carat_device_bandwidth(carat_device *dev, carat_error *err);
/* The most device memory in use at once since the device was opened; 0 for the CPU. */
uint64_t carat_device_peak_bytes(const carat_device *dev);

/* ---- engine: one model -------------------------------------------------------------------- */

typedef struct carat_engine carat_engine;
typedef struct carat_session carat_session;
typedef struct carat_job carat_job;

typedef struct carat_engine_desc {
    const char *path;      /* a GGUF file, or the first file of a split set */
    const char *projector; /* a GGUF file with the vision and audio encoders (llama.cpp's mmproj);
                              NULL: they are in `path`, if anywhere */
    const char *system;    /* default system prompt (Ollama's system layer); NULL: none */
    const char *params;    /* default options as JSON (Ollama's params layer); NULL: none */
    const char *messages;  /* messages before every conversation, JSON array; NULL: none */
    const char *template_; /* "small", "large" or NULL: chosen from the model's shape */
    const char
        *adapter; /* a LoRA adapter in use from the start (Ollama's adapter layer), or NULL */
} carat_engine_desc;

/* Opens and checks the file: header, configuration, tokenizer, every tensor's shape. Reads no
 * weights. dev may be NULL (tokenize and inspect only) and must outlive the engine. */
carat_engine *carat_engine_open(const carat_engine_desc *desc, carat_device *dev, carat_error *err);
void carat_engine_close(carat_engine *eng);

/* Streams the weights to the device. Events: PROGRESS, then DONE. */
carat_job *carat_load(carat_engine *eng, carat_error *err);

typedef struct carat_model_info {
    const char *name;         /* general.name, or the file's name */
    const char *size_label;   /* e.g. "E2B", or NULL */
    const char *quantisation; /* e.g. "Q4_K_M" */
    uint64_t n_params;        /* of the text model */
    uint64_t file_bytes;
    uint64_t weight_bytes;   /* on the device */
    uint64_t kv_bytes_fixed; /* of a session: sliding-window layers */
    uint64_t kv_bytes_token; /* of a session, for each token of context: global layers */
    uint64_t scratch_bytes;  /* of a session */
    uint64_t encoder_bytes;  /* on the device once a picture or a sound was given */
    bool has_vision, has_audio;
    uint32_t n_layer, n_embd, n_vocab, n_ctx_train, n_expert, n_expert_used;
    uint32_t sliding_window;
} carat_model_info;

void carat_engine_info(const carat_engine *eng, carat_model_info *info);
/* Gives back what the encoders hold on the device; the next picture or sound loads them again. */
void carat_engine_release_encoders(carat_engine *eng);
/* Everything known about the model as one JSON object: configuration, layers, tensors, memory.
 * The caller frees it with carat_string_free(). */
char *carat_engine_describe(const carat_engine *eng, carat_error *err);
void carat_string_free(char *s);

/* ---- text and tokens ---------------------------------------------------------------------- */

/* text [n] -> ids. With specials, the texts of control tokens become these tokens: only for text
 * that you wrote yourself. Returns the number of ids, writes at most cap of them; -1 on error. */
int64_t carat_tokenize(const carat_engine *eng, const char *text, size_t n, bool specials,
                       int32_t *ids, size_t cap, carat_error *err);
/* ids [n] -> bytes; returns their number, writes at most cap of them; -1 on error. */
int64_t carat_detokenize(const carat_engine *eng, const int32_t *ids, size_t n, bool specials,
                         char *text, size_t cap, carat_error *err);
/* The prompt that carat_chat() would run, as text with its control tokens spelled out. The caller
 * frees it with carat_string_free(). */
typedef struct carat_chat_desc carat_chat_desc;
char *carat_render(const carat_engine *eng, const carat_chat_desc *desc, carat_error *err);
/* How many tokens it has, soft tokens included; -1 on error. */
int64_t carat_count(const carat_engine *eng, const carat_chat_desc *desc, carat_error *err);

/* ---- sessions: one conversation ----------------------------------------------------------- */

typedef struct carat_session_desc {
    uint32_t n_ctx; /* tokens of context; 0: 8192, or what the model or the memory allows */
} carat_session_desc;

carat_session *carat_session_create(carat_engine *eng, const carat_session_desc *desc,
                                    carat_error *err);
void carat_session_free(carat_session *ses);
uint32_t carat_session_context(const carat_session *ses); /* capacity in tokens */
uint32_t carat_session_length(const carat_session *ses);  /* tokens held now */

/* Save the tokens and the KV cache to a file (written beside it, then renamed) and bring them
 * back; restoring checks that the model is the same. Jobs: events PROGRESS, then DONE. */
carat_job *carat_session_save(carat_session *ses, const char *path, carat_error *err);
carat_job *carat_session_restore(carat_session *ses, const char *path, carat_error *err);

/* Sampling. Negative numbers (and for `seed` 0) mean "not given": the model's params layer, then
 * Gemma's recommendation (temperature 1, top_k 64, top_p 0.95) decides. Start from
 * CARAT_SAMPLING_DEFAULT. */
typedef struct carat_sampling {
    float temperature;       /* 0: greedy */
    int32_t top_k;           /* 0: off */
    float top_p;             /* 1: off */
    float min_p;             /* 0: off */
    float repeat_penalty;    /* 1: off */
    float frequency_penalty; /* NAN: not given; 0: off */
    float presence_penalty;  /* NAN: not given; 0: off */
    int32_t repeat_last_n;   /* 0: off; -1: not given; -2: the whole context */
    uint64_t seed;           /* 0: a new one every time */
} carat_sampling;
#define CARAT_SAMPLING_DEFAULT                                                                     \
    ((carat_sampling){-1, -1, -1, -1, -1, __builtin_nanf(""), __builtin_nanf(""), -1, 0})

/* A picture or a sound of a conversation, decoded. The call that takes it copies what it needs. */
typedef enum carat_media_kind { CARAT_MEDIA_IMAGE, CARAT_MEDIA_AUDIO } carat_media_kind;
typedef struct carat_media {
    carat_media_kind kind;
    const uint8_t *rgb; /* image: [height, width, 3], sRGB */
    uint32_t width, height;
    double time;          /* image that is a frame of a video: its second */
    const float *samples; /* audio: [n_sample, n_channel] in [-1, 1], `rate` a second */
    uint64_t n_sample;
    uint32_t n_channel, rate;
} carat_media;

struct carat_chat_desc {
    const char *messages; /* JSON array as OpenAI and Ollama shape it: role, content, tool_calls,
                             tool_call_id, name, reasoning. The whole conversation, every time. */
    const carat_media *media; /* [n_media] what its parts stand for, in order: {"type":"image"} (or
                                 image_url, or Ollama's "images") the next image, {"type":"audio"}
                                 (or input_audio) the next audio, {"type":"video","frames":n} the
                                 next n images */
    size_t n_media;
    uint32_t image_tokens; /* soft tokens of an image at most: 70, 140, 280, 560 or 1120; 0: 280 */
    const char *tools;     /* JSON array of function tools; NULL: none */
    bool thinking;         /* let the model think first */
    bool keep_oldest_out;  /* when it does not fit: drop the oldest turns (never the system turn or
                             the last message) instead of failing */
    uint32_t max_tokens;   /* 0: until the model ends or the context is full */
    const char *const *stop; /* n_stop strings that end the answer */
    size_t n_stop;
    const carat_sampling *sampling; /* NULL: the defaults */
    uint32_t n_logprobs; /* report each token's log-probability and this many alternatives, <= 20;
                            CARAT_LOGPROBS_TOKEN_ONLY asks for the token's own only */
    const char *json_schema; /* the answer has to be one JSON value of this JSON Schema ("{}": any
                                value; the subset is in docs/structured.md); NULL: free text */
    bool ignore_stop;        /* benchmarks: do not end at a stop token */
};
#define CARAT_LOGPROBS_TOKEN_ONLY 255u

/* Answers a conversation. Events: PROGRESS while the prompt is read, TEXT, THINKING, TOOL_CALL,
 * then DONE. The session keeps what it computed; the next job reuses the common prefix. */
carat_job *carat_chat(carat_session *ses, const carat_chat_desc *desc, carat_error *err);

/* Continues raw ids [n] without a template (a BOS is put in front when it is missing). messages,
 * tools and thinking of desc are ignored; desc may be NULL. */
carat_job *carat_complete(carat_session *ses, const int32_t *ids, size_t n,
                          const carat_chat_desc *desc, carat_error *err);

/* Log-probability of every token of ids [n] given those before it. Events: PROGRESS, SCORE for
 * each token but the first, then DONE. */
carat_job *carat_score(carat_session *ses, const int32_t *ids, size_t n, carat_error *err);

/* ---- jobs --------------------------------------------------------------------------------- */

typedef enum carat_event_kind {
    CARAT_EVENT_PENDING,   /* nothing yet: the device is working; call again later */
    CARAT_EVENT_PROGRESS,  /* done of total: bytes while loading, tokens while reading a prompt;
                              soft tokens while encoding pictures and sounds: text is "encode" */
    CARAT_EVENT_TEXT,      /* a piece of the answer */
    CARAT_EVENT_THINKING,  /* a piece of the model's thinking */
    CARAT_EVENT_TOOL_CALL, /* text: {"name":...,"arguments":{...}} */
    CARAT_EVENT_SCORE,     /* token, logprob */
    CARAT_EVENT_NOTICE,    /* text: something the user should know (turns dropped, device lost) */
    CARAT_EVENT_DONE,
    CARAT_EVENT_STEP, /* of training, see carat_train.h */
    CARAT_EVENT_EVAL,
} carat_event_kind;

typedef enum carat_finish_reason {
    CARAT_FINISH_NONE,
    CARAT_FINISH_STOP,       /* end token or stop string */
    CARAT_FINISH_LENGTH,     /* max_tokens, or the context is full */
    CARAT_FINISH_TOOL_CALLS, /* the model waits for the results of its calls */
} carat_finish_reason;

typedef struct carat_logprob {
    int32_t token;
    float logprob; /* natural logarithm */
} carat_logprob;

/* What text, logprobs and the like point to lives until the next call on the job. */
typedef struct carat_event {
    carat_event_kind kind;
    const char *text;
    size_t length;
    uint64_t done, total;
    int32_t token;
    float logprob;
    const carat_logprob *top; /* [n_top] alternatives, most likely first */
    size_t n_top;
    carat_finish_reason finish; /* with DONE */
} carat_event;

typedef struct carat_stats {
    uint32_t n_prompt;                   /* tokens of the prompt */
    uint32_t n_reused;                   /* of these, found in the session */
    uint32_t n_generated;                /* tokens generated, the end token included */
    double load_s, prompt_s, generate_s; /* seconds */
    uint32_t n_dispatch;                 /* of the last decode step */
    uint64_t logits_hash;                /* over the logits of every step of this job */
    uint64_t bytes_read;                 /* weight bytes read by one decode step */
    double encode_s;                     /* seconds of prompt_s for pictures and sounds */
    uint32_t n_encoded;                  /* soft tokens that were made of them */
} carat_stats;

/* Does what can be done now without waiting. Returns false on an error, after which the job is
 * over and can only be freed (the session stays usable). */
bool carat_advance(carat_job *job, carat_event *ev, carat_error *err);
/* As carat_advance(), but waits for an event that is not PENDING. Native only. */
bool carat_wait(carat_job *job, carat_event *ev, carat_error *err);
/* Runs the job to its end, drops its events and frees it. Native only. */
bool carat_finish(carat_job *job, carat_error *err);
/* Asks the job to end; its next event is DONE (or CANCELLED as an error while loading). Safe to
 * call from a signal handler or another thread. */
void carat_cancel(carat_job *job);
void carat_job_stats(const carat_job *job, carat_stats *stats);
void carat_job_free(carat_job *job);

/* ---- Ollama's model store (native) -------------------------------------------------------- */

/* Resolves a model's name as a user writes it: a path to a .gguf file, "nano" (the bundled one)
 * or a name in Ollama's store ("gemma4:e2b"). Fills desc with strings that live until
 * carat_model_free(). */
typedef struct carat_model carat_model;
carat_model *carat_model_find(const char *name, carat_engine_desc *desc, carat_error *err);
void carat_model_free(carat_model *model);
/* The models there are, as a JSON array of {name, path, bytes, digest, modified, source}. The
 * caller frees it with carat_string_free(). */
char *carat_model_list(carat_error *err);

#ifdef __cplusplus
}
#endif
#endif
