/* config: what the network looks like, from a GGUF's metadata and tensor shapes. Checks that it is
 * a Gemma 4 text model whose numbers fit together; reads no weights. Whether every tensor is there
 * with the right shape is bind.c's question.
 *
 * Flow: file/gguf.c before, bind.c and weights.c after. */
#include "model/model.h"

#include <stdio.h>
#include <string.h>

#define PREFIX      "gemma4."
#define MAX_WIDTH   (1u << 20) /* of a row: n_embd, n_ff, n_head * head_dim */
#define MAX_HEADS   1024u
#define MAX_EXPERTS 1024u
#define MAX_VOCAB   (1u << 24)
#define MAX_CTX     (1u << 24)
#define UNIT        16u /* values that a kernel reads at once: every row is a multiple */

/* Reads keys until one is wrong; the first complaint stays in err. */
typedef struct reader {
    const gguf *g;
    carat_error *err;
    bool ok;
} reader;

static const gguf_value *find(const reader *r, const char *name) {
    char key[96];
    snprintf(key, sizeof key, PREFIX "%s", name);
    return gguf_find(r->g, key);
}

static void missing(reader *r, const char *name) {
    r->ok = fail(r->err, CARAT_E_FORMAT, "config: the key " PREFIX "%s is missing", name);
}

static uint32_t get_u32(reader *r, const char *name, uint32_t otherwise) {
    char key[96];
    uint32_t v = otherwise;
    snprintf(key, sizeof key, PREFIX "%s", name);
    if (gguf_find(r->g, key) && !gguf_get_u32(r->g, key, &v))
        r->ok = fail(r->err, CARAT_E_FORMAT, "config: %s is not a 32-bit unsigned integer", key);
    return v;
}

static uint32_t need_u32(reader *r, const char *name) {
    if (!find(r, name)) missing(r, name);
    return get_u32(r, name, 0);
}

/* A float in [low, high]. */
static float get_f32(reader *r, const char *name, float otherwise, float low, float high) {
    char key[96];
    float v = otherwise;
    snprintf(key, sizeof key, PREFIX "%s", name);
    if (gguf_find(r->g, key) && !gguf_get_f32(r->g, key, &v))
        r->ok = fail(r->err, CARAT_E_FORMAT, "config: %s is not a float", key);
    else if (!(v >= low && v <= high))
        r->ok = fail(r->err, CARAT_E_FORMAT, "config: %s is %g", key, (double)v);
    return v;
}

/* A key that is one number for all layers, or an array with one for each. */
static uint32_t get_layer(reader *r, const char *name, uint32_t n_layer, uint32_t il,
                          uint32_t otherwise) {
    const gguf_value *v = find(r, name);
    if (!v || v->kind != GGUF_ARRAY) return get_u32(r, name, otherwise);
    uint32_t item = 0;
    if (v->n < n_layer)
        r->ok = fail(r->err, CARAT_E_FORMAT, "config: " PREFIX "%s has %llu items for %u layers",
                     name, (unsigned long long)v->n, n_layer);
    else if (!gguf_array_u32(v, il, &item))
        r->ok =
            fail(r->err, CARAT_E_FORMAT, "config: " PREFIX "%s[%u] is not an integer", name, il);
    return item;
}

static const gguf_tensor *layer_tensor(const gguf *g, uint32_t il, const char *name) {
    char full[96];
    snprintf(full, sizeof full, "blk.%u.%s", il, name);
    return gguf_find_tensor(g, full);
}

static bool check_architecture(const gguf *g, carat_error *err) {
    gguf_string s;
    if (!gguf_get_string(g, "general.architecture", &s))
        return fail(err, CARAT_E_FORMAT, "config: the key general.architecture is missing");
    if (!strcmp(s.text, "gemma4")) return true;
    if (!strcmp(s.text, "gemma4-assistant") || !strcmp(s.text, "gemma4_assistant"))
        return fail(err, CARAT_E_UNSUPPORTED,
                    "config: this is a drafter (%s), which only helps a whole Gemma 4 and cannot "
                    "answer by itself",
                    s.text);
    if (!strcmp(s.text, "clip"))
        return fail(err, CARAT_E_UNSUPPORTED,
                    "config: this is a projector (clip), the eyes and ears of a model without the "
                    "model");
    return fail(err, CARAT_E_UNSUPPORTED, "config: the architecture is %.64s, not gemma4", s.text);
}

/* ---- the whole model ---- */

static void read_vocabulary(reader *r, model_config *c) {
    const gguf_tensor *embed = gguf_find_tensor(r->g, "token_embd.weight");
    if (!embed)
        r->ok = fail(r->err, CARAT_E_FORMAT, "config: the tensor token_embd.weight is missing");
    else if (embed->ne[1] < 1 || embed->ne[1] > MAX_VOCAB)
        r->ok = fail(r->err, CARAT_E_FORMAT, "config: the vocabulary has %llu entries",
                     (unsigned long long)embed->ne[1]);
    else
        c->n_vocab = (uint32_t)embed->ne[1];
}

static bool at_most(reader *r, const char *what, uint32_t v, uint32_t low, uint32_t high) {
    if (r->ok && (v < low || v > high))
        r->ok =
            fail(r->err, CARAT_E_FORMAT, "config: %s is %u, outside %u to %u", what, v, low, high);
    return r->ok;
}

static void read_model(reader *r, model_config *c) {
    c->n_layer = need_u32(r, "block_count");
    c->n_embd = need_u32(r, "embedding_length");
    c->n_ctx_train = need_u32(r, "context_length");
    c->n_ple = get_u32(r, "embedding_length_per_layer_input", 0);
    c->window = get_u32(r, "attention.sliding_window", 0);
    c->rms_eps = get_f32(r, "attention.layer_norm_rms_epsilon", 1e-6f, 1e-12f, 0.1f);
    /* Where the key is missing, Google's models mean 30; a written 0 means off. */
    c->softcap = get_f32(r, "final_logit_softcapping", 30, 0, 1e6f);
    c->vision_bidirectional = c->n_ple == 0;
    read_vocabulary(r, c);

    at_most(r, "the number of layers", c->n_layer, 1, MODEL_MAX_LAYERS);
    at_most(r, "the embedding length", c->n_embd, UNIT, MAX_WIDTH);
    at_most(r, "the context length", c->n_ctx_train, 1, MAX_CTX);
    at_most(r, "the per-layer embedding length", c->n_ple, 0, MAX_WIDTH / MODEL_MAX_LAYERS);

    const uint32_t shared = get_u32(r, "attention.shared_kv_layers", 0);
    if (r->ok && shared >= c->n_layer)
        r->ok = fail(r->err, CARAT_E_FORMAT,
                     "config: %u of %u layers share the KV of others, so none has its own", shared,
                     c->n_layer);
    c->n_owner = c->n_layer - shared;
}

/* The experts, if any layer has a router. */
static void read_experts(reader *r, model_config *c) {
    const gguf_tensor *router = NULL, *down = NULL;
    for (uint32_t il = 0; il < c->n_layer && !router; il++) {
        router = layer_tensor(r->g, il, "ffn_gate_inp.weight");
        down = layer_tensor(r->g, il, "ffn_down_exps.weight");
    }
    if (!router) return;
    const uint64_t n = router->ne[1], n_ff = down ? down->ne[0] : 0;
    c->n_expert = get_u32(r, "expert_count", 0);
    if (!c->n_expert) c->n_expert = n > MAX_EXPERTS ? MAX_EXPERTS + 1 : (uint32_t)n;
    c->n_expert_used = need_u32(r, "expert_used_count");
    c->n_ff_expert = get_u32(r, "expert_feed_forward_length", 0);
    if (!c->n_ff_expert) c->n_ff_expert = n_ff > MAX_WIDTH ? MAX_WIDTH + 1 : (uint32_t)n_ff;

    at_most(r, "the number of experts", c->n_expert, 1, MAX_EXPERTS);
    at_most(r, "the number of experts in use", c->n_expert_used, 1, c->n_expert);
    at_most(r, "the width of an expert", c->n_ff_expert, UNIT, MAX_WIDTH);
}

/* ---- layers ---- */

static uint32_t read_n_kv(reader *r, const model_config *c, uint32_t il) {
    const layer_config *l = &c->layers[il];
    const gguf_value *v = find(r, "attention.head_count_kv");
    const uint32_t n = get_layer(r, "attention.head_count_kv", c->n_layer, il, l->n_head);
    if (l->sliding || (v && v->kind == GGUF_ARRAY)) return n;
    /* Older blobs say the global layers' number in a key of its own. */
    const uint32_t global = get_u32(r, "attention.global_head_count_kv", 0);
    return global ? global : n;
}

/* Head size, and that keys, values and RoPE all use the whole of it. */
static uint32_t read_head_dim(reader *r, bool sliding) {
    const char *const key = sliding ? "attention.key_length_swa" : "attention.key_length";
    const char *const value = sliding ? "attention.value_length_swa" : "attention.value_length";
    const char *const rope = sliding ? "rope.dimension_count_swa" : "rope.dimension_count";
    const uint32_t n = get_u32(r, key, sliding ? 256 : 512);
    const char *const same[2] = {value, rope};
    for (int i = 0; i < 2; i++) {
        const uint32_t m = get_u32(r, same[i], n);
        if (r->ok && m != n)
            r->ok = fail(r->err, CARAT_E_UNSUPPORTED,
                         "config: " PREFIX "%s is %u where the head has %u values", same[i], m, n);
    }
    return n;
}

static float read_rope_base(reader *r, bool sliding) {
    if (!sliding) return get_f32(r, "rope.freq_base", 1e6f, 1, 1e12f);
    const float local = get_f32(r, "rope.local.freq_base", 1e4f, 1, 1e12f);
    return get_f32(r, "rope.freq_base_swa", local, 1, 1e12f);
}

/* Pairs that are rotated. On global layers this is the proportional quarter; weights.c corrects it
 * when the file has rope_freqs. */
static uint32_t read_n_rot(reader *r, bool sliding, uint32_t head_dim) {
    if (sliding) return head_dim / 2;
    const float part = get_f32(r, "rope.partial_rotary_factor", 0.25f, 0, 1);
    const uint32_t n = (uint32_t)((float)head_dim * part / 2);
    return n ? n : 1;
}

static void check_layer(reader *r, const model_config *c, uint32_t il) {
    const layer_config *l = &c->layers[il];
    char what[64];
    snprintf(what, sizeof what, "layer %u's number of heads", il);
    at_most(r, what, l->n_head, 1, MAX_HEADS);
    snprintf(what, sizeof what, "layer %u's number of KV heads", il);
    at_most(r, what, l->n_kv, 1, MAX_HEADS);
    snprintf(what, sizeof what, "layer %u's head size", il);
    at_most(r, what, l->head_dim, 2, 1024);
    snprintf(what, sizeof what, "layer %u's FFN width", il);
    at_most(r, what, l->n_ff, UNIT, MAX_WIDTH);
    if (!r->ok) return;
    if (l->n_head % l->n_kv)
        r->ok = fail(r->err, CARAT_E_FORMAT, "config: layer %u has %u heads for %u KV heads", il,
                     l->n_head, l->n_kv);
    else if (l->head_dim % 2)
        r->ok =
            fail(r->err, CARAT_E_FORMAT, "config: layer %u's head size %u is odd", il, l->head_dim);
    else if (l->sliding && !l->window)
        r->ok = fail(r->err, CARAT_E_FORMAT, "config: layer %u slides, but the window is 0", il);
}

static void read_layer(reader *r, model_config *c, uint32_t il) {
    layer_config *l = &c->layers[il];
    l->sliding = get_layer(r, "attention.sliding_window_pattern", c->n_layer, il, 0) != 0;
    l->owns_kv = il < c->n_owner;
    l->k_eq_v = l->owns_kv && !layer_tensor(r->g, il, "attn_v.weight");
    l->moe = layer_tensor(r->g, il, "ffn_gate_inp.weight") != NULL;
    l->n_head = get_layer(r, "attention.head_count", c->n_layer, il, 0);
    l->n_kv = read_n_kv(r, c, il);
    l->head_dim = read_head_dim(r, l->sliding);
    l->n_ff = get_layer(r, "feed_forward_length", c->n_layer, il, 0);
    l->rope_base = read_rope_base(r, l->sliding);
    l->window = l->sliding ? c->window : 0;
    if (r->ok) check_layer(r, c, il);
    if (r->ok) l->n_rot = read_n_rot(r, l->sliding, l->head_dim);
}

/* The last owner of the same kind: its keys are the freshest ones. */
static void find_donor(reader *r, model_config *c, uint32_t il) {
    layer_config *l = &c->layers[il];
    l->donor = il;
    if (l->owns_kv) return;
    uint32_t d = c->n_owner;
    while (d > 0 && c->layers[d - 1].sliding != l->sliding) d--;
    if (!d) {
        r->ok = fail(r->err, CARAT_E_FORMAT,
                     "config: layer %u shares KV, but no layer of its kind has any", il);
        return;
    }
    const layer_config *from = &c->layers[d - 1];
    l->donor = d - 1;
    if (from->n_kv != l->n_kv || from->head_dim != l->head_dim)
        r->ok = fail(r->err, CARAT_E_FORMAT,
                     "config: layer %u shares the KV of layer %u, which has %u heads of %u, not %u "
                     "of %u",
                     il, d - 1, from->n_kv, from->head_dim, l->n_kv, l->head_dim);
}

static void check_unit(reader *r, const char *what, uint32_t n) {
    if (r->ok && n % UNIT)
        r->ok = fail(r->err, CARAT_E_UNSUPPORTED, "config: %s is %u, which is no multiple of %u",
                     what, n, UNIT);
}

static void check_units(reader *r, const model_config *c) {
    check_unit(r, "the embedding length", c->n_embd);
    check_unit(r, "the per-layer embedding length", c->n_ple);
    check_unit(r, "the width of an expert", c->n_ff_expert);
    for (uint32_t il = 0; il < c->n_layer && r->ok; il++) {
        const layer_config *l = &c->layers[il];
        char what[64];
        snprintf(what, sizeof what, "layer %u's FFN width", il);
        check_unit(r, what, l->n_ff);
        snprintf(what, sizeof what, "layer %u's width of all heads", il);
        check_unit(r, what, l->n_head * l->head_dim);
    }
}

bool config_read(const gguf *g, model_config *out, carat_error *err) {
    reader r = {.g = g, .err = err, .ok = true};
    model_config *c = out;
    memset(c, 0, sizeof *c);
    if (!check_architecture(g, err)) return false;
    read_model(&r, c);
    if (!r.ok) return false;

    const char *const per_layer[3] = {"attention.sliding_window_pattern", "attention.head_count",
                                      "feed_forward_length"};
    for (int i = 0; i < 3; i++)
        if (!find(&r, per_layer[i])) missing(&r, per_layer[i]);
    const gguf_value *pattern = find(&r, per_layer[0]);
    if (r.ok && pattern->kind != GGUF_ARRAY)
        return fail(err, CARAT_E_FORMAT, "config: " PREFIX "%s is not an array", per_layer[0]);

    read_experts(&r, c);
    for (uint32_t il = 0; il < c->n_layer && r.ok; il++) read_layer(&r, c, il);
    for (uint32_t il = 0; il < c->n_layer && r.ok; il++) find_donor(&r, c, il);
    check_units(&r, c);
    return r.ok;
}
