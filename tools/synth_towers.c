/* synth_towers: the encoders of the family: tensors and keys, as in Ollama's one file (vision in
 * F16, audio in BF16, names of its converter) and as in llama.cpp's projector file (BF16).
 *
 * Flow: synth.c adds them to the text model, or writes them alone. */
#include "synth.h"

#include <stdio.h>

const vision_shape vision_small = {16, 768, 12, 3072, 10240, true},
                   vision_large = {27, 1152, 16, 4304, 10240, false},
                   vision_direct = {.n_embd = 3840, .n_pos = 1120},
                   vision_mini = {2, 128, 2, 256, 256, true},
                   vision_mini_large = {2, 144, 2, 304, 256, false};
const audio_shape audio_conformer = {12, 1024, 8, 4096, 1536}, audio_direct = {0},
                  audio_mini = {2, 128, 2, 256, 192};

enum {
    PATCH = 16,
    POOL = 3,
    CHANNELS = 3,
    CELL = CHANNELS * PATCH * PATCH * POOL * POOL, /* values of a square, without a tower */
    FRAME = 640,                                   /* samples of a soft token, without a tower */
    BANDS = 128,
    KERNEL = 5
};
static const uint32_t n_conv[2] = {128, 32};

/* ---- tensors ---- */

static const char *prefix = "";

static void put_tensor(tensor_fill fill, uint32_t type, const char *name, uint64_t ne0,
                       uint64_t ne1) {
    char full[64];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    add(fill, type, full, ne0, ne1, 0);
}

static void vec(tensor_fill fill, const char *name, uint64_t n) {
    put_tensor(fill, F32, name, n, 0);
}

/* A matrix; name without ".weight". With the limits of what goes in and what comes out. */
static void mat(uint32_t type, const char *name, uint64_t n_col, uint64_t n_row, bool clipped) {
    static const char *const limits[4] = {"input_min", "input_max", "output_min", "output_max"};
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    put_tensor(WEIGHT, type, full, n_col, n_row);
    for (int i = 0; clipped && i < 4; i++) {
        snprintf(full, sizeof full, "%s.%s", name, limits[i]);
        vec(i % 2 ? HIGH : LOW, full, 1);
    }
}

static void add_vision_layer(const vision_shape *s, uint32_t type) {
    uint64_t d = s->n_embd, hd = s->n_embd / s->n_head;
    vec(NORM, "ln1.weight", d);
    mat(type, "attn_q", d, d, s->clipped);
    mat(type, "attn_k", d, d, s->clipped);
    mat(type, "attn_v", d, d, s->clipped);
    vec(QK_NORM, "attn_q_norm.weight", hd);
    vec(QK_NORM, "attn_k_norm.weight", hd);
    mat(type, "attn_out", d, d, s->clipped);
    vec(NORM, "attn_post_norm.weight", d);
    vec(NORM, "ln2.weight", d);
    mat(type, "ffn_gate", d, s->n_ff, s->clipped);
    mat(type, "ffn_up", d, s->n_ff, s->clipped);
    mat(type, "ffn_down", s->n_ff, d, s->clipped);
    vec(NORM, "ffn_post_norm.weight", d);
}

static void add_direct_vision(const vision_shape *s, uint32_t type) {
    mat(type, "v.patch_embd", CELL, s->n_embd, false);
    vec(WEIGHT, "v.patch_embd.bias", s->n_embd);
    for (int i = 1; i <= 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "v.patch_norm.%d.weight", i);
        vec(NORM, name, i == 1 ? CELL : s->n_embd);
        snprintf(name, sizeof name, "v.patch_norm.%d.bias", i);
        vec(WEIGHT, name, i == 1 ? CELL : s->n_embd);
    }
}

static void add_vision(const towers *t) {
    const vision_shape *s = t->vision;
    uint32_t type = t->projector ? BF16 : F16;
    char layer[32];
    if (!s->n_layer)
        add_direct_vision(s, type);
    else
        add_4d(WEIGHT, t->projector ? F32 : F16, "v.patch_embd.weight",
               (uint64_t[4]){PATCH, PATCH, CHANNELS, s->n_embd});
    add(WEIGHT, F32, "v.position_embd.weight", s->n_embd, s->n_pos, 2);
    mat(type, "mm.input_projection", s->n_embd, t->n_out, false);
    if (s->n_layer && !s->clipped) {
        vec(WEIGHT, "v.std_bias", s->n_embd);
        vec(NORM, "v.std_scale", s->n_embd);
    }
    prefix = layer;
    for (uint32_t il = 0; il < s->n_layer; il++) {
        snprintf(layer, sizeof layer, "v.blk.%u.", il);
        add_vision_layer(s, type);
    }
    prefix = "";
}

static void add_audio_ffn(const audio_shape *s, const char *suffix) {
    char name[32];
    snprintf(name, sizeof name, "ffn_norm%s.weight", suffix);
    vec(NORM, name, s->n_embd);
    snprintf(name, sizeof name, "ffn_up%s", suffix);
    mat(BF16, name, s->n_embd, s->n_ff, true);
    snprintf(name, sizeof name, "ffn_down%s", suffix);
    mat(BF16, name, s->n_ff, s->n_embd, true);
    snprintf(name, sizeof name, "ffn_post_norm%s.weight", suffix);
    vec(NORM, name, s->n_embd);
}

static void add_audio_layer(const audio_shape *s, bool projector) {
    uint64_t d = s->n_embd;
    add_audio_ffn(s, "");
    vec(NORM, projector ? "attn_pre_norm.weight" : "ln1.weight", d);
    mat(BF16, "attn_q", d, d, true);
    mat(BF16, "attn_k", d, d, true);
    mat(BF16, "attn_v", d, d, true);
    vec(NORM, "per_dim_scale.weight", d / s->n_head);
    mat(BF16, projector ? "attn_k_rel" : "linear_pos", d, d, false);
    mat(BF16, "attn_out", d, d, true);
    vec(NORM, projector ? "attn_post_norm.weight" : "ln2.weight", d);
    vec(NORM, "conv_norm.weight", d);
    mat(BF16, "conv_pw1", d, 2 * d, true);
    put_tensor(WEIGHT, F32, "conv_dw.weight", KERNEL, d);
    vec(NORM, "norm_conv.weight", d);
    mat(BF16, "conv_pw2", d, d, true);
    add_audio_ffn(s, "_1");
    vec(NORM, projector ? "ln2.weight" : "layer_pre_norm.weight", d);
}

static void add_audio(const towers *t) {
    const audio_shape *s = t->audio;
    uint32_t type = t->projector ? BF16 : F16;
    char layer[32];
    mat(type, "mm.a.input_projection", s->n_layer ? s->n_mid : FRAME, t->n_out, false);
    if (!s->n_layer) return;
    add_4d(WEIGHT, F32, "a.conv1d.0.weight", (uint64_t[4]){3, 3, 1, n_conv[0]});
    vec(NORM, "a.conv1d.0.norm.weight", n_conv[0]);
    add_4d(WEIGHT, F32, "a.conv1d.1.weight", (uint64_t[4]){3, 3, n_conv[0], n_conv[1]});
    vec(NORM, "a.conv1d.1.norm.weight", n_conv[1]);
    mat(t->projector ? F32 : BF16, t->projector ? "a.input_projection" : "a.pre_encode.out",
        BANDS / 4 * n_conv[1], s->n_embd, false);
    mat(type, t->projector ? "a.pre_encode.out" : "mm.a.fc", s->n_embd, s->n_mid, false);
    vec(WEIGHT, t->projector ? "a.pre_encode.out.bias" : "mm.a.fc.bias", s->n_mid);
    prefix = layer;
    for (uint32_t il = 0; il < s->n_layer; il++) {
        snprintf(layer, sizeof layer, "a.blk.%u.", il);
        add_audio_layer(s, t->projector);
    }
    prefix = "";
}

void add_towers(const towers *t) {
    add_vision(t);
    if (t->audio) add_audio(t);
}

/* ---- keys ---- */

static const char *full_key(const towers *t, const char *encoder, const char *name) {
    static char full[96];
    snprintf(full, sizeof full, "%s.%s.%s", t->projector ? "clip" : "gemma4", encoder, name);
    return full;
}

static void put_tower(const towers *t, const char *encoder, const uint32_t size[4]) {
    static const char *const names[4] = {"block_count", "embedding_length", "feed_forward_length",
                                         "attention.head_count"};
    for (int i = 0; i < 4; i++) key_u32(full_key(t, encoder, names[i]), size[i]);
    key_f32(full_key(t, encoder, "attention.layer_norm_epsilon"), 1e-6f);
}

static void put_vision_config(const towers *t) {
    const vision_shape *s = t->vision;
    const char *encoder = "vision";
    if (s->n_layer) put_tower(t, encoder, (uint32_t[4]){s->n_layer, s->n_embd, s->n_ff, s->n_head});
    key_u32(full_key(t, encoder, "patch_size"), PATCH);
    if (!t->projector) {
        key_u32(full_key(t, encoder, "num_channels"), CHANNELS);
        key_u32(full_key(t, encoder, "projector.scale_factor"), POOL);
        return;
    }
    key_bool("clip.has_vision_encoder", true);
    key_u32(full_key(t, encoder, "projection_dim"), t->n_out);
    key_u32(full_key(t, encoder, "image_size"), 224);
    key_array(full_key(t, encoder, "image_mean"), FLOAT, 3);
    for (int i = 0; i < 3; i++) put_f32(0);
    key_array(full_key(t, encoder, "image_std"), FLOAT, 3);
    for (int i = 0; i < 3; i++) put_f32(1);
    key_string(full_key(t, encoder, "projector_type"), s->n_layer ? "gemma4v" : "gemma4uv");
}

static void put_audio_config(const towers *t) {
    const audio_shape *s = t->audio;
    const char *encoder = "audio";
    if (s->n_layer) {
        put_tower(t, encoder, (uint32_t[4]){s->n_layer, s->n_embd, s->n_ff, s->n_head});
        if (!t->projector) key_u32(full_key(t, encoder, "conv_kernel_size"), KERNEL);
        key_u32(full_key(t, encoder, "num_mel_bins"), BANDS);
    }
    if (!t->projector) return;
    key_bool("clip.has_audio_encoder", true);
    key_u32(full_key(t, encoder, "projection_dim"), t->n_out);
    key_string(full_key(t, encoder, "projector_type"), s->n_layer ? "gemma4a" : "gemma4ua");
}

void put_towers_config(const towers *t) {
    put_vision_config(t);
    if (t->audio) put_audio_config(t);
}
