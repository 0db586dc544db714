/* media: the pictures and sounds of conversations. encoders.c owns the encoders of a model and
 * where their weights are, media.c makes of a caller's pixels and samples what they take, and finds
 * which parts of the messages they stand for; encode.c makes soft tokens of them, step by step.
 *
 * Flow: media/ and encoder.h before; conversation.c, generate.c and session.c after. */
#ifndef CARAT_MODEL_MEDIA_H
#define CARAT_MODEL_MEDIA_H

#include "media/media.h"
#include "model/encoder_gpu.h"

#define MEDIA_KINDS 2u /* carat_media_kind */

/* ---- encoders.c ---- */

/* One encoder's weights, and where they are. */
typedef struct tower {
    weight **matrices; /* NULL-terminated; NULL: there is no such encoder, */
    carat_error why;   /* because of this, if code says so */
    uint64_t fingerprint;
    const float *vectors; /* [n_vectors] */
    uint32_t n_vectors;
    arena *host; /* NULL: not there */
    bool on_host;
    uint64_t loaded, total; /* bytes on the way to the host, of all */
    encoder_gpu *device;    /* NULL: not there */
    bool on_device;
    bool no_room; /* on the device: the CPU encodes */
} tower;

typedef struct encoders {
    gguf *file; /* the projector file; NULL: none */
    vision *vision;
    audio *audio;
    tower towers[MEDIA_KINDS];
} encoders;

/* Opens what the projector file (NULL: none) and the model's own have. A projector that is not this
 * model's is an error; an own encoder that carat cannot run is none. Memory is a's. */
bool encoders_open(arena *a, const model *m, const char *projector, encoders *out,
                   carat_error *err);
void encoders_close(encoders *e);
/* Whether there is one for this kind of media; `name` is the model's. */
bool encoders_have(const encoders *e, carat_media_kind kind, const char *name, carat_error *err);
/* A piece of an encoder's weights to a GPU, or (g NULL) to the host. *busy: the device should work
 * first. *ready: they are all there. When the GPU has no room tower.no_room is set, and nothing
 * else happens. */
bool encoders_load(encoders *e, carat_media_kind kind, gpu *g, bool *busy, bool *ready,
                   carat_error *err);
void encoders_progress(const encoders *e, carat_media_kind kind, uint64_t *done, uint64_t *total);
bool encoders_resident(const encoders *e); /* some of their weights are somewhere */
/* Drops the weights. Nothing may be using them. */
void encoders_release(encoders *e);
/* Of their weights: on a GPU, or (packed false) on the CPU. */
uint64_t encoders_bytes(const encoders *e, bool packed);
/* ,"encoders":{...} of a description. */
void encoders_describe(const encoders *e, buf *b);

/* ---- media.c ---- */

/* A picture, or a sound of at most 30 s, as its encoder takes it. */
typedef struct medium {
    carat_media_kind kind;
    uint32_t pos, n_soft;  /* where its soft tokens are in the prompt */
    image_patches patches; /* image */
    const float *sound;    /* audio: spectrogram [n, MEL_BANDS]; direct: samples [n] */
    uint32_t n;
    uint64_t hash; /* of all that its soft tokens depend on */
} medium;

/* The id that stands for soft token i of a medium in lists of tokens: negative, and another one for
 * every picture. */
int32_t medium_id(uint64_t hash, uint32_t i);

/* One part of a message that stands for pictures or a sound. */
typedef struct media_part {
    const json *part;
    uint32_t first, n; /* of the plan's order */
    uint32_t n_placed; /* of these, in the prompt at hand */
} media_part;

/* What a picture or a sound will be. */
typedef struct media_size {
    uint32_t budget;         /* image */
    uint32_t n_clip;         /* images are one */
    uint32_t n_soft, n_last; /* of each clip but the last, of the last */
} media_size;

typedef struct media_place {
    uint32_t index, clip; /* of desc->media */
    uint32_t pos;         /* of its first soft token */
} media_place;

/* The media of a conversation: which parts stand for them and how many soft tokens they become. */
typedef struct media_plan {
    const carat_engine *engine;
    const carat_chat_desc *desc;
    media_part *parts;   /* [n_part] */
    uint32_t *order;     /* [n_order] indices of desc->media as the parts name them */
    media_size *sizes;   /* [desc->n_media] */
    media_place *places; /* [n_place] in the prompt at hand */
    chat_video *videos;  /* [n_video] */
    uint32_t n_part, n_order, n_place, n_video;
} media_plan;

/* Finds which parts of messages stand for which of desc->media. Names what does not match. */
bool media_plan_create(arena *a, const carat_engine *eng, const carat_chat_desc *desc,
                       const json *messages, media_plan *out, carat_error *err);
/* Replaces the placeholders in the ids of a prompt by a begin marker, soft tokens and an end
 * marker; out of memory: ids->failed. The ids of soft tokens come later: */
bool media_expand(media_plan *p, const chat_prompt *text, id_list *ids, carat_error *err);
/* Does the work for the media that are in the prompt, and completes its ids. *out [p->n_place]. */
bool media_prepare(arena *a, const media_plan *p, id_list *ids, medium **out, carat_error *err);

/* ---- encode.c ---- */

/* Soft tokens for runs of a session. */
typedef struct soft_list {
    soft_span *spans; /* [n] */
    uint32_t n;
} soft_list;

/* The media of one job on their way to soft tokens. */
typedef struct encode {
    carat_session *session; /* NULL: none */
    arena *memory;
    const medium *media;  /* [soft.n] */
    soft_list soft;       /* what is encoded already has rows, or is on the device */
    uint32_t at;          /* the medium under way */
    uint32_t n_step;      /* that it has gone */
    uint64_t done, total; /* soft tokens to be encoded for the prompt at hand */
    vision_cpu *vision;   /* at work, or NULL */
    audio_cpu *audio;
    float *rows; /* where they write */
    vision_gpu *vision_gpu;
    audio_gpu *audio_gpu;
    gpu_buffer filled; /* where they write; id 0: they are not at work */
    bool on_cpu;       /* the GPU had no room for a picture */
} encode;

/* Makes e the session's; media [n] are borrowed, memory is a's. */
bool encode_create(encode *e, carat_session *ses, arena *a, const medium *media, uint32_t n,
                   carat_error *err);
/* For the media that the session does not hold. */
void encode_begin(encode *e);
/* One step: a piece of weights, a layer. *ev: how far it is. *finished: the prompt can be run. */
bool encode_advance(encode *e, bool *finished, carat_event *ev, carat_error *err);
/* Gives up what is under way: the encoders' weights may go. */
void encode_stop(encode *e);
/* Also gives back what is on the device. */
void encode_close(encode *e);
/* And is nobody's any more. */
void encode_free(encode *e);

#endif
