/* encoder_config: what the encoders look like, from a GGUF's metadata and tensor shapes: a model's
 * own file, whose keys begin with gemma4, or a projector file, whose keys begin with clip. Whether
 * every tensor is there with the right shape is encoder_bind.c's question.
 *
 * Flow: file/gguf.c before, encoder_bind.c after. */
#include "media/media.h"
#include "model/bind.h"

#include <stdio.h>
#include <string.h>

#define MAX_WIDTH   (1u << 16) /* of a row */
#define MAX_CONV    4096u      /* channels of a convolution */
#define MAX_HEADS   256u
#define MAX_SIDE    256u /* of a patch */
#define VISION_ROPE 100
#define CHANNELS    3u

/* Reads keys of one encoder until one is wrong; the first complaint stays in err. */
typedef struct reader {
    const gguf *g;
    const char *family, *encoder; /* "clip", "vision" */
    carat_error *err;
    bool ok;
} reader;

typedef struct key_name {
    char text[96];
} key_name;

static key_name full(const reader *r, const char *name) {
    key_name k;
    snprintf(k.text, sizeof k.text, "%s.%s.%s", r->family, r->encoder, name);
    return k;
}

static uint32_t get(reader *r, const char *name, uint32_t otherwise, uint32_t low, uint32_t high) {
    const key_name key = full(r, name);
    uint32_t v = otherwise;
    if (!r->ok) return otherwise;
    if (gguf_find(r->g, key.text) && !gguf_get_u32(r->g, key.text, &v))
        r->ok = fail(r->err, CARAT_E_FORMAT, "%s: %s is not a 32-bit unsigned integer", r->encoder,
                     key.text);
    else if (v < low || v > high)
        r->ok = fail(r->err, CARAT_E_FORMAT, "%s: %s is %u, outside %u to %u", r->encoder, key.text,
                     v, low, high);
    return v;
}

static uint32_t need(reader *r, const char *name, uint32_t low, uint32_t high) {
    const key_name key = full(r, name);
    if (r->ok && !gguf_find(r->g, key.text))
        r->ok = fail(r->err, CARAT_E_FORMAT, "%s: the key %s is missing", r->encoder, key.text);
    return get(r, name, low, low, high);
}

static const gguf_tensor *need_tensor(reader *r, const char *name) {
    const gguf_tensor *t = gguf_find_tensor(r->g, name);
    if (!t && r->ok) r->ok = fail(r->err, CARAT_E_FORMAT, "%s: %s is missing", r->encoder, name);
    return t;
}

/* A size of a tensor, within limits. */
static uint32_t size_of(reader *r, const char *name, uint32_t axis, uint32_t high) {
    const gguf_tensor *t = need_tensor(r, name);
    if (!r->ok) return 1;
    if (t->ne[axis] >= 1 && t->ne[axis] <= high) return (uint32_t)t->ne[axis];
    char shape[96];
    r->ok = fail(r->err, CARAT_E_FORMAT, "%s: %s is %s", r->encoder, name, gguf_shape(t, shape));
    return 1;
}

/* The family of keys, and that a projector file is of the kind that is asked for. */
static reader begin(const gguf *g, const char *encoder, const char *const kinds[2],
                    carat_error *err) {
    reader r = {.g = g, .family = "gemma4", .encoder = encoder, .err = err, .ok = true};
    gguf_string s;
    if (!gguf_get_string(g, "general.architecture", &s) || strcmp(s.text, "clip") != 0) return r;
    r.family = "clip";
    const bool said = gguf_get_string(g, full(&r, "projector_type").text, &s) ||
                      gguf_get_string(g, "clip.projector_type", &s);
    if (said && strcmp(s.text, kinds[0]) != 0 && strcmp(s.text, kinds[1]) != 0)
        r.ok = fail(err, CARAT_E_UNSUPPORTED,
                    "%s: this projector is of the kind %.64s, not one for Gemma 4 (%s, %s)",
                    encoder, s.text, kinds[0], kinds[1]);
    return r;
}

/* Soft tokens are as wide as the text model's rows, or the projector is another model's. */
static void check_fits(reader *r, const char *projection, uint32_t n_text) {
    const gguf_tensor *t = need_tensor(r, projection);
    if (r->ok && t->ne[1] != n_text)
        r->ok = fail(r->err, CARAT_E_FORMAT,
                     "%s: this projector belongs to another model: its soft tokens are %llu values "
                     "wide, the model's rows %u",
                     r->encoder, (unsigned long long)t->ne[1], n_text);
}

static uint32_t head_dim(reader *r, uint32_t n_embd, uint32_t n_head, uint32_t unit) {
    const uint64_t n = (uint64_t)n_head * unit;
    if (r->ok && (!n || n_embd % n))
        r->ok = fail(r->err, CARAT_E_FORMAT, "%s: rows of %u values cannot have %u heads",
                     r->encoder, n_embd, n_head);
    return r->ok ? n_embd / n_head : 0;
}

/* ---- vision ---- */

/* The side of the squares that are normed whole. */
static uint32_t square_side(reader *r) {
    const uint32_t n = size_of(r, "v.patch_norm.1.weight", 0, CHANNELS * MAX_SIDE * MAX_SIDE);
    uint32_t side = 1;
    while (CHANNELS * side * side < n) side++;
    if (r->ok && CHANNELS * side * side != n)
        r->ok = fail(r->err, CARAT_E_FORMAT, "vision: %u values are no square of %u channels", n,
                     CHANNELS);
    return side;
}

static void read_tower(reader *r, vision_config *c) {
    c->n_layer = need(r, "block_count", 1, MODEL_MAX_LAYERS);
    c->n_embd = need(r, "embedding_length", 1, MAX_WIDTH);
    c->n_ff = need(r, "feed_forward_length", 1, MAX_WIDTH);
    c->n_head = need(r, "attention.head_count", 1, MAX_HEADS);
    c->head_dim = head_dim(r, c->n_embd, c->n_head, 4); /* two halves of pairs */
    c->side = get(r, "patch_size", 16, 1, MAX_SIDE);
    c->pool = get(r, "projector.scale_factor", 3, 1, 16);
    c->standardize = gguf_find_tensor(r->g, "v.std_bias") != NULL;
}

bool vision_present(const gguf *g) { return gguf_find_tensor(g, "v.patch_embd.weight") != NULL; }

bool vision_config_read(const gguf *g, uint32_t n_text, vision_config *out, carat_error *err) {
    static const char *const kinds[2] = {"gemma4v", "gemma4uv"};
    if (!vision_present(g))
        return fail(err, CARAT_E_UNSUPPORTED,
                    "vision: there is no vision encoder in %s, so it cannot see pictures", g->name);
    reader r = begin(g, "vision", kinds, err);
    if (!r.ok) return false;
    *out = (vision_config){.n_out = n_text, .rope_base = VISION_ROPE, .pool = 1};
    out->direct = gguf_find_tensor(g, "v.patch_norm.1.weight") != NULL;
    check_fits(&r, "mm.input_projection.weight", n_text);
    if (out->direct) {
        out->side = square_side(&r);
        out->n_embd = size_of(&r, "v.position_embd.weight", 0, MAX_WIDTH);
    } else {
        read_tower(&r, out);
    }
    out->n_pos = size_of(&r, "v.position_embd.weight", 1, 1u << 20);
    return r.ok;
}

/* ---- audio ---- */

const audio_layout *audio_layout_of(const gguf *g) {
    static const audio_layout own = {.input = "a.pre_encode.out.weight",
                                     .output = "mm.a.fc.weight",
                                     .output_bias = "mm.a.fc.bias",
                                     .attn_norm = "ln1.weight",
                                     .post_attn_norm = "ln2.weight",
                                     .rel = "linear_pos.weight",
                                     .out_norm = "layer_pre_norm.weight"};
    static const audio_layout projector = {.input = "a.input_projection.weight",
                                           .output = "a.pre_encode.out.weight",
                                           .output_bias = "a.pre_encode.out.bias",
                                           .attn_norm = "attn_pre_norm.weight",
                                           .post_attn_norm = "attn_post_norm.weight",
                                           .rel = "attn_k_rel.weight",
                                           .out_norm = "ln2.weight"};
    const bool is_own = gguf_find_tensor(g, "mm.a.fc.weight") ||
                        gguf_find_tensor(g, "a.blk.0.layer_pre_norm.weight");
    return is_own ? &own : &projector;
}

static void read_audio_tower(reader *r, audio_config *c, const char *output) {
    c->n_layer = need(r, "block_count", 1, MODEL_MAX_LAYERS);
    c->n_embd = need(r, "embedding_length", 1, MAX_WIDTH);
    c->n_ff = need(r, "feed_forward_length", 1, MAX_WIDTH);
    c->n_head = need(r, "attention.head_count", 1, MAX_HEADS);
    c->head_dim = head_dim(r, c->n_embd, c->n_head, 2);
    get(r, "num_mel_bins", MEL_BANDS, MEL_BANDS, MEL_BANDS);
    c->n_conv[0] = size_of(r, "a.conv1d.0.weight", 3, MAX_CONV);
    c->n_conv[1] = size_of(r, "a.conv1d.1.weight", 3, MAX_CONV);
    c->n_kernel = size_of(r, "a.blk.0.conv_dw.weight", 0, 64);
    c->n_mid = size_of(r, output, 1, MAX_WIDTH);
}

bool audio_present(const gguf *g) {
    return gguf_find_tensor(g, "mm.a.input_projection.weight") != NULL;
}

bool audio_config_read(const gguf *g, uint32_t n_text, audio_config *out, carat_error *err) {
    static const char *const kinds[2] = {"gemma4a", "gemma4ua"};
    if (!audio_present(g))
        return fail(err, CARAT_E_UNSUPPORTED,
                    "audio: there is no audio encoder in %s, so it cannot hear", g->name);
    reader r = begin(g, "audio", kinds, err);
    if (!r.ok) return false;
    *out = (audio_config){.n_out = n_text};
    out->direct = !gguf_find_tensor(g, "a.conv1d.0.weight");
    check_fits(&r, "mm.a.input_projection.weight", n_text);
    if (out->direct)
        out->frame = size_of(&r, "mm.a.input_projection.weight", 0, MAX_WIDTH);
    else
        read_audio_tower(&r, out, audio_layout_of(g)->output);
    return r.ok;
}
