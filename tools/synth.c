/* synth: writes a GGUF with random weights and the exact shapes, keys and tensor types of a real
 * Gemma 4, so that speed and memory are measured at real size without real weights.
 *
 *     synth MODEL OUT [--mix ollama|llamacpp] [--quant q4_k_m|q8_0|q4_0|bf16] [--seed N]
 *                     [--vocab N] [--text-only] [--projector] [--hollow] [--list]
 *
 * MODEL is e2b, e4b, 12b, 26b, 31b, or mini and mini-moe, small ones of the same structure. As
 * Ollama has it, the encoders for pictures and sounds are in the same file, unless --text-only; as
 * llama.cpp has it, they are in a second one, the projector, which --projector writes. --hollow
 * leaves out the matrices: a file of the right size that takes no room.
 * --list prints the tensors and writes nothing (OUT is left out).
 *
 * What is random is the quants; scales are chosen so that a weight is about N(0, 0.02) and
 * activations stay in a sane range. A few MiB of blocks are made for each type and repeated, with
 * some bits of every block changed, so that no two rows are equal. The vocabulary is invented:
 * control tokens, bytes and characters at their real places, and pieces that look like words.
 * Tokenizing takes the usual path through it, its ids mean nothing.
 *
 * Needs nothing but a C compiler: cc -O2 -o synth tools/synth*.c */
#include "synth.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

void die(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "synth: ");
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

void *grow(void *p, size_t n) {
    p = realloc(p, n);
    if (!p) die("out of memory (%zu bytes)", n);
    return p;
}

/* ---- the family ---- */

typedef struct shape {
    const char *name, *label;
    uint32_t n_layer, n_embd, n_head, n_kv_sliding, n_kv_global;
    uint32_t n_ff, n_ff_shared; /* of the layers below / from the first one that shares KV */
    uint32_t period, window;    /* every period-th layer is global */
    uint32_t n_ple, n_shared;   /* per-layer embedding width; layers at the end that share KV */
    bool k_eq_v;                /* global layers have no attn_v */
    uint32_t n_expert, n_expert_used, n_ff_expert;
    uint32_t n_ctx;
    const vision_shape *vision;
    const audio_shape *audio; /* NULL: none */
} shape;

static const shape shapes[] = {
    {"e2b", "E2B", 35, 1536,  8, 1, 1, 6144,   12288,         5,
     512,   256,   20, false, 0, 0, 0, 131072, &vision_small, &audio_conformer},
    {"e4b", "E4B", 42, 2560,  8, 2, 2, 10240,  10240,         6,
     512,   256,   18, false, 0, 0, 0, 131072, &vision_small, &audio_conformer},
    {"12b", "12B", 48, 3840, 16, 8, 1, 15360,  15360,          6,
     1024,  0,     0,  true, 0,  0, 0, 262144, &vision_direct, &audio_direct},
    {"26b", "26B-A4B", 30, 2816, 16,  8, 2,   2112,   2112,          6,
     1024,  0,         0,  true, 128, 8, 704, 262144, &vision_large, NULL},
    {"31b", "31B", 60, 5376, 32, 16, 4, 21504,  21504,         6,
     1024,  0,     0,  true, 0,  0,  0, 262144, &vision_large, NULL},
    {"mini", "mini", 10, 256,   4, 1, 1, 512,  1024,         5,
     64,     256,    4,  false, 0, 0, 0, 8192, &vision_mini, &audio_mini},
    {"mini-moe", "mini-MoE",         6,   256, 4, 2, 1, 352, 352, 6, 64, 0, 0, true, 8, 2, 96,
     8192,       &vision_mini_large, NULL},
};

enum { HEAD_SLIDING = 256, HEAD_GLOBAL = 512, ROPE_GLOBAL = 64 }; /* rotated pairs */

static bool sliding(const shape *s, uint32_t il) { return (il + 1) % s->period != 0; }

typedef enum mix_quant { Q4_K_M, ALL_Q8_0, ALL_Q4_0, ALL_BF16 } mix_quant;
static const char *const quant_names[] = {"q4_k_m", "q8_0", "q4_0", "bf16"};
static const char *const quant_labels[] = {"Q4_K_M", "Q8_0", "Q4_0", "BF16"};
static const uint32_t quant_file_type[] = {15, 7, 2, 32};

typedef struct plan {
    const shape *shape;
    bool ollama; /* Ollama's mix of types and way of writing keys, else llama.cpp's */
    mix_quant quant;
    uint32_t n_vocab;
    bool text_only, projector, hollow, list;
} plan;

static bool has_text(const plan *p) { return !p->projector; }
static bool has_towers(const plan *p) { return p->projector || (p->ollama && !p->text_only); }

static towers towers_of(const plan *p) {
    return (towers){p->shape->vision, p->shape->audio, p->shape->n_embd, p->projector};
}

/* attn_v tensors of the encoders, which Ollama's rule counts too. */
static uint32_t n_tower_v(const shape *s) {
    return s->vision->n_layer + (s->audio ? s->audio->n_layer : 0);
}

/* ---- tensors ---- */

typedef struct tensor {
    char name[48];
    uint32_t type, n_dims;
    uint64_t ne[4], offset, size;
    tensor_fill fill;
} tensor;

static tensor *tensors;
static uint32_t n_tensor;

void add_4d(tensor_fill fill, uint32_t t, const char *name, const uint64_t ne[4]) {
    if (n_tensor % 64 == 0) tensors = grow(tensors, (n_tensor + 64) * sizeof *tensors);
    tensor *x = &tensors[n_tensor++];
    *x = (tensor){.type = t, .fill = fill};
    uint64_t n = 1, row = t == F16 || t == BF16 ? 1 : block_types[t].n_value;
    for (uint32_t i = 0; i < 4; i++) {
        x->ne[i] = ne[i] ? ne[i] : 1;
        if (ne[i]) x->n_dims = i + 1;
        n *= x->ne[i];
    }
    snprintf(x->name, sizeof x->name, "%s", name);
    if (ne[0] % row || n % block_types[t].n_value)
        die("%s: rows of %llu do not fit %s", name, (unsigned long long)ne[0], block_types[t].name);
    x->size = n / block_types[t].n_value * block_types[t].n_byte;
    if (n_tensor > 1) x->offset = (x[-1].offset + x[-1].size + 31) / 32 * 32;
}

void add(tensor_fill fill, uint32_t t, const char *name, uint64_t ne0, uint64_t ne1, uint64_t ne2) {
    add_4d(fill, t, name, (uint64_t[4]){ne0, ne1, ne2, 0});
}

static void add_layer(uint32_t il, tensor_fill fill, uint32_t t, const char *name, uint64_t ne0,
                      uint64_t ne1, uint64_t ne2) {
    char full[48];
    snprintf(full, sizeof full, "blk.%u.%s", il, name);
    add(fill, t, full, ne0, ne1, ne2);
}

typedef enum tensor_role { OTHER, EMBED, PLE_TABLE, PLE_PROJ } tensor_role;

/* llama.cpp's and Ollama's choice of the tensors i of n that get more bits. */
static bool more(uint32_t i, uint32_t n) {
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

static uint32_t pick(const plan *p, tensor_role role, bool more_bits, uint64_t ne0) {
    if (role == PLE_TABLE && p->ollama) return BF16; /* Ollama never quantises it */
    if (role == PLE_PROJ && !p->ollama && p->quant != ALL_Q4_0) return BF16;
    switch (p->quant) {
    case ALL_BF16:
        return BF16;
    case ALL_Q8_0:
        return Q8_0;
    case ALL_Q4_0:
        return role == OTHER ? Q4_0 : role == PLE_PROJ ? F16 : Q6_K;
    case Q4_K_M:
        break;
    }
    bool six = role == EMBED || role == PLE_TABLE || more_bits;
    if (ne0 % 256) return six ? Q8_0 : Q5_0;
    return six ? Q6_K : Q4_K;
}

static void add_attention(const plan *p, uint32_t il, uint32_t i_v, uint32_t n_v) {
    const shape *s = p->shape;
    uint64_t d = s->n_embd, hd = sliding(s, il) ? HEAD_SLIDING : HEAD_GLOBAL;
    uint64_t q = s->n_head * hd, kv = (sliding(s, il) ? s->n_kv_sliding : s->n_kv_global) * hd;
    uint32_t t = pick(p, OTHER, false, d);
    /* Quantisation-aware checkpoints leave out K and V of the layers that share KV. */
    bool owner = il < s->n_layer - s->n_shared || p->quant != ALL_Q4_0;
    add_layer(il, NORM, F32, "attn_norm.weight", d, 0, 0);
    add_layer(il, WEIGHT, t, "attn_q.weight", d, q, 0);
    add_layer(il, QK_NORM, F32, "attn_q_norm.weight", hd, 0, 0);
    if (owner) {
        add_layer(il, WEIGHT, t, "attn_k.weight", d, kv, 0);
        add_layer(il, QK_NORM, F32, "attn_k_norm.weight", hd, 0, 0);
        if (!s->k_eq_v || sliding(s, il))
            add_layer(il, WEIGHT, pick(p, OTHER, more(i_v, n_v), d), "attn_v.weight", d, kv, 0);
    }
    add_layer(il, WEIGHT, pick(p, OTHER, false, q), "attn_output.weight", q, d, 0);
    add_layer(il, NORM, F32, "post_attention_norm.weight", d, 0, 0);
}

static void add_ffn(const plan *p, uint32_t il) {
    const shape *s = p->shape;
    uint64_t d = s->n_embd, ff = il < s->n_layer - s->n_shared ? s->n_ff : s->n_ff_shared;
    uint64_t e = s->n_expert, fe = s->n_ff_expert;
    uint32_t t = pick(p, OTHER, false, d);
    bool six = more(il, s->n_layer);
    add_layer(il, NORM, F32, "ffn_norm.weight", d, 0, 0);
    add_layer(il, WEIGHT, t, "ffn_gate.weight", d, ff, 0);
    add_layer(il, WEIGHT, t, "ffn_up.weight", d, ff, 0);
    add_layer(il, WEIGHT, pick(p, OTHER, six, ff), "ffn_down.weight", ff, d, 0);
    add_layer(il, NORM, F32, "post_ffw_norm.weight", d, 0, 0);
    if (!e) return;
    add_layer(il, ROUTER, F32, "ffn_gate_inp.weight", d, e, 0);
    add_layer(il, NORM, F32, "ffn_gate_inp.scale", d, 0, 0);
    add_layer(il, WEIGHT, t, "ffn_gate_up_exps.weight", d, 2 * fe, e);
    add_layer(il, WEIGHT, pick(p, OTHER, six, fe), "ffn_down_exps.weight", fe, d, e);
    add_layer(il, NORM, F32, "ffn_down_exps.scale", e, 0, 0);
    add_layer(il, NORM, F32, "pre_ffw_norm_2.weight", d, 0, 0);
    add_layer(il, NORM, F32, "post_ffw_norm_1.weight", d, 0, 0);
    add_layer(il, NORM, F32, "post_ffw_norm_2.weight", d, 0, 0);
}

static void add_text(const plan *p) {
    const shape *s = p->shape;
    uint64_t d = s->n_embd, ple = s->n_ple, table = (uint64_t)s->n_ple * s->n_layer;
    add(WEIGHT, pick(p, EMBED, false, d), "token_embd.weight", d, p->n_vocab, 0);
    add(NORM, F32, "output_norm.weight", d, 0, 0);
    add(ROPE_FREQS, F32, "rope_freqs.weight", HEAD_GLOBAL / 2, 0, 0);
    if (ple) {
        uint32_t t = pick(p, PLE_TABLE, false, table);
        add(WEIGHT, t, "per_layer_token_embd.weight", table, p->n_vocab, 0);
        add(WEIGHT, pick(p, PLE_PROJ, false, d), "per_layer_model_proj.weight", d, table, 0);
        add(NORM, F32, "per_layer_proj_norm.weight", ple, 0, 0);
    }
    uint32_t n_v = p->ollama ? n_tower_v(s) : 0, i_v = 0;
    for (uint32_t il = 0; il < s->n_layer; il++) n_v += !s->k_eq_v || sliding(s, il);
    for (uint32_t il = 0; il < s->n_layer; il++) {
        add_attention(p, il, i_v, n_v);
        i_v += !s->k_eq_v || sliding(s, il);
        add_ffn(p, il);
        if (ple) {
            add_layer(il, WEIGHT, pick(p, OTHER, false, d), "inp_gate.weight", d, ple, 0);
            add_layer(il, WEIGHT, pick(p, OTHER, false, ple), "proj.weight", ple, d, 0);
            add_layer(il, NORM, F32, "post_norm.weight", d, 0, 0);
        }
        add_layer(il, SCALE, F32, "layer_output_scale.weight", 1, 0, 0);
    }
}

/* ---- the header ---- */

static uint8_t *head;
static size_t head_len, head_cap;
static uint64_t n_key;

void put(const void *data, size_t n) {
    if (head_len + n > head_cap) head = grow(head, head_cap = 2 * (head_len + n));
    memcpy(head + head_len, data, n);
    head_len += n;
}

void put_u32(uint32_t v) { put(&v, 4); }
void put_u64(uint64_t v) { put(&v, 8); }
void put_f32(float v) { put(&v, 4); }

void put_string(const char *s) {
    put_u64(strlen(s));
    put(s, strlen(s));
}

static void key(const char *name, uint32_t kind) {
    n_key++;
    put_string(name);
    put_u32(kind);
}

void key_u32(const char *name, uint32_t v) {
    key(name, U32);
    put_u32(v);
}

void key_f32(const char *name, float v) {
    key(name, FLOAT);
    put_f32(v);
}

void key_bool(const char *name, bool v) {
    key(name, BOOL);
    put(&(uint8_t){v}, 1);
}

void key_string(const char *name, const char *v) {
    key(name, STRING);
    put_string(v);
}

size_t key_array(const char *name, uint32_t kind, uint64_t n) {
    key(name, ARRAY);
    put_u32(kind);
    put_u64(n);
    return head_len - 8;
}

void patch_u64(size_t at, uint64_t v) { memcpy(head + at, &v, 8); }

static void put_text_config(const plan *p) {
    const shape *s = p->shape;
    uint32_t L = s->n_layer;
    char name[64];
    snprintf(name, sizeof name, "synthetic Gemma 4 %s", s->label);
    key_string("general.architecture", "gemma4");
    key_string("general.name", name);
    key_string("general.size_label", s->label);
    key_u32("general.file_type", quant_file_type[p->quant]);
    key_u32("general.quantization_version", 2);
    key_u32("gemma4.block_count", L);
    key_u32("gemma4.context_length", s->n_ctx);
    key_u32("gemma4.embedding_length", s->n_embd);
    key_u32("gemma4.embedding_length_per_layer_input", s->n_ple);
    if (s->n_ff == s->n_ff_shared) {
        key_u32("gemma4.feed_forward_length", s->n_ff);
    } else {
        key_array("gemma4.feed_forward_length", I32, L);
        for (uint32_t il = 0; il < L; il++)
            put_u32(il < L - s->n_shared ? s->n_ff : s->n_ff_shared);
    }
    key_u32("gemma4.attention.head_count", s->n_head);
    if (s->n_kv_sliding == s->n_kv_global) {
        key_u32("gemma4.attention.head_count_kv", s->n_kv_global);
    } else {
        key_array("gemma4.attention.head_count_kv", I32, L);
        for (uint32_t il = 0; il < L; il++)
            put_u32(sliding(s, il) ? s->n_kv_sliding : s->n_kv_global);
    }
    key_u32("gemma4.attention.key_length", HEAD_GLOBAL);
    key_u32("gemma4.attention.value_length", HEAD_GLOBAL);
    key_u32("gemma4.attention.key_length_swa", HEAD_SLIDING);
    key_u32("gemma4.attention.value_length_swa", HEAD_SLIDING);
    key_f32("gemma4.attention.layer_norm_rms_epsilon", 1e-6f);
    key_u32("gemma4.attention.sliding_window", s->window);
    key_array("gemma4.attention.sliding_window_pattern", BOOL, L);
    for (uint32_t il = 0; il < L; il++) put(&(uint8_t){sliding(s, il)}, 1);
    key_u32("gemma4.attention.shared_kv_layers", s->n_shared);
    key_f32("gemma4.rope.freq_base", 1e6f);
    key_f32("gemma4.rope.freq_base_swa", 1e4f);
    key_u32("gemma4.rope.dimension_count", HEAD_GLOBAL);
    key_u32("gemma4.rope.dimension_count_swa", HEAD_SLIDING);
    key_f32("gemma4.final_logit_softcapping", 30.0f);
    if (s->n_expert) {
        key_u32("gemma4.expert_count", s->n_expert);
        key_u32("gemma4.expert_used_count", s->n_expert_used);
        key_u32("gemma4.expert_feed_forward_length", s->n_ff_expert);
    }
}

static void put_projector_config(const plan *p) {
    char name[64];
    snprintf(name, sizeof name, "synthetic Gemma 4 %s", p->shape->label);
    key_string("general.architecture", "clip");
    key_string("general.type", "mmproj");
    key_string("general.name", name);
    key_string("general.size_label", p->shape->label);
    key_u32("general.file_type", quant_file_type[ALL_BF16]);
    key_u32("general.quantization_version", 2);
}

static void put_tokenizer(const plan *p) {
    key_string("tokenizer.ggml.model", p->ollama ? "llama" : "gemma4");
    if (p->ollama) key_string("tokenizer.ggml.pre", "gemma4");
    put_vocabulary(p->n_vocab, p->ollama);
    key_u32("tokenizer.ggml.bos_token_id", 2);
    key_u32("tokenizer.ggml.eos_token_id", 1);
    key_u32("tokenizer.ggml.unknown_token_id", 3);
    key_u32("tokenizer.ggml.padding_token_id", 0);
    key_u32("tokenizer.ggml.mask_token_id", 4);
    key_bool("tokenizer.ggml.add_bos_token", !p->ollama);
    key_bool("tokenizer.ggml.add_eos_token", false);
    if (p->ollama) {
        key_array("tokenizer.ggml.eos_token_ids", I32, 3);
        put_u32(1), put_u32(106), put_u32(50);
    } else {
        key_bool("tokenizer.ggml.add_space_prefix", false);
    }
}

static void make_header(const plan *p) {
    towers t = towers_of(p);
    put("GGUF", 4);
    put_u32(3);
    put_u64(n_tensor);
    put_u64(0); /* keys, counted below */
    if (has_text(p)) put_text_config(p);
    if (p->projector) put_projector_config(p);
    if (has_towers(p)) put_towers_config(&t);
    if (has_text(p)) put_tokenizer(p);
    memcpy(head + 16, &n_key, 8);
    for (uint32_t i = 0; i < n_tensor; i++) {
        put_string(tensors[i].name);
        put_u32(tensors[i].n_dims);
        for (uint32_t k = 0; k < tensors[i].n_dims; k++) put_u64(tensors[i].ne[k]);
        put_u32(tensors[i].type);
        put_u64(tensors[i].offset);
    }
    while (head_len % 32) put("", 1);
}

/* ---- writing ---- */

enum { PIECE = 4 << 20, LIMIT = 24 };

static int out;
static const char *out_path;
static uint64_t n_written, n_total;

static void write_all(const void *data, size_t n) {
    for (const uint8_t *p = data; n;) {
        ssize_t k = write(out, p, n);
        if (k <= 0) {
            unlink(out_path);
            die("%s: cannot write; is the disk full?", out_path);
        }
        p += k;
        n -= (size_t)k;
        n_written += (uint64_t)k;
    }
    if (isatty(2))
        fprintf(stderr, "\r%5.1f of %.1f GB", (double)n_written / 1e9, (double)n_total / 1e9);
}

static void write_floats(const tensor *t) {
    size_t n = t->size / 4;
    float *v = grow(NULL, t->size);
    for (size_t i = 0; i < n; i++) switch (t->fill) {
        case WEIGHT:
            v[i] = SIGMA * gauss();
            break;
        case NORM:
            v[i] = 1 + 0.1f * gauss();
            break;
        case QK_NORM:
            v[i] = 0.25f + 0.02f * gauss();
            break; /* so that q.k is about N(0, 1) */
        case SCALE:
            v[i] = uniform(0.5f, 1);
            break;
        case ROPE_FREQS:
            v[i] = i < ROPE_GLOBAL ? 1 : 1e30f;
            break;
        case ROUTER:
            v[i] = gauss();
            break;
        case LOW:
            v[i] = -LIMIT;
            break;
        case HIGH:
            v[i] = LIMIT;
            break;
        }
    write_all(v, t->size);
    free(v);
}

/* Blocks of a pool from a random place on, again and again, each with 8 bytes changed. */
static void write_blocks(const tensor *t) {
    static uint8_t *pools[N_TYPE], piece_of_file[PIECE];
    const block_type *ty = &block_types[t->type];
    size_t n_pool = PIECE / ty->n_byte;
    if (!pools[t->type]) {
        pools[t->type] = grow(NULL, n_pool * ty->n_byte);
        for (size_t i = 0; i < n_pool; i++) ty->fill(pools[t->type] + i * ty->n_byte);
    }
    for (uint64_t left = t->size / ty->n_byte; left;) {
        size_t n = left < n_pool ? (size_t)left : n_pool, at = rng() % n_pool, bytes = ty->n_byte;
        size_t n_first = n < n_pool - at ? n : n_pool - at;
        memcpy(piece_of_file, pools[t->type] + at * bytes, n_first * bytes);
        memcpy(piece_of_file + n_first * bytes, pools[t->type], (n - n_first) * bytes);
        for (size_t i = 0; i < n; i++) {
            uint64_t r = rng(), v;
            uint8_t *p = piece_of_file + i * bytes + ty->vary + r % (ty->n_vary / 8) * 8;
            memcpy(&v, p, 8);
            v ^= rng() & ty->mask;
            memcpy(p, &v, 8);
        }
        write_all(piece_of_file, n * bytes);
        left -= n;
    }
}

static void skip(uint64_t n) {
    n_written += n;
    if (lseek(out, (off_t)n_written, SEEK_SET) < 0) die("%s: cannot leave a hole", out_path);
}

/* hollow: without the matrices. Vectors are small, and loading looks at them. */
static void write_weights(bool hollow) {
    for (uint32_t i = 0; i < n_tensor; i++) {
        static const uint8_t zeros[32];
        const tensor *t = &tensors[i];
        write_all(zeros, (size_t)(head_len + t->offset - n_written));
        if (hollow && t->n_dims > 1)
            skip(t->size);
        else if (t->type == F32)
            write_floats(t);
        else
            write_blocks(t);
    }
}

static void write_file(const char *path, bool hollow) {
    char part[4096];
    if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part) die("%s: too long", path);
    out_path = part;
    out = open(part, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (out < 0) die("%s: cannot create it", part);
    struct statvfs fs;
    if (!hollow && fstatvfs(out, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < n_total) {
        unlink(part);
        die("%s needs %.1f GB, the disk has %.1f GB free", path, (double)n_total / 1e9,
            (double)fs.f_bavail * (double)fs.f_frsize / 1e9);
    }
    write_all(head, head_len);
    write_weights(hollow);
    if (hollow && ftruncate(out, (off_t)n_total) != 0) die("%s: cannot make room in it", part);
    if (close(out) != 0 || rename(part, path) != 0) die("%s: cannot finish it", path);
    if (isatty(2)) fprintf(stderr, "\r");
}

/* ---- the command ---- */

static void list_tensors(void) {
    for (uint32_t i = 0; i < n_tensor; i++) {
        const tensor *t = &tensors[i];
        printf("%-36s %-5s %llu", t->name, block_types[t->type].name, (unsigned long long)t->ne[0]);
        for (uint32_t k = 1; k < t->n_dims; k++) printf(" x %llu", (unsigned long long)t->ne[k]);
        printf("\n");
    }
}

static void summary(const plan *p, double seconds) {
    if (p->projector)
        printf("%s projector:", p->shape->name);
    else
        printf("%s %s %s%s:", p->shape->name, quant_labels[p->quant],
               p->ollama ? "ollama" : "llamacpp", has_towers(p) ? "" : " text");
    for (uint32_t t = 0; t < N_TYPE; t++) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < n_tensor; i++) n += tensors[i].type == t;
        if (n) printf(" %u %s", n, block_types[t].name);
    }
    printf(", %u tensors, %.3f GB", n_tensor, (double)n_total / 1e9);
    if (seconds > 0) printf(", %.1f s, %.0f MB/s", seconds, (double)n_total / 1e6 / seconds);
    printf("\n");
}

static const char usage[] =
    "usage: synth MODEL OUT [--mix ollama|llamacpp] [--quant q4_k_m|q8_0|q4_0|bf16] [--seed N]\n"
    "                       [--vocab N] [--text-only] [--projector] [--hollow] [--list]\n"
    "MODEL: e2b e4b 12b 26b 31b mini mini-moe. --text-only leaves out the encoders, --projector\n"
    "writes only these, as llama.cpp has them; --hollow leaves out the matrices' bytes; --list\n"
    "prints the tensors and writes nothing.";

static bool flag(plan *p, const char *name) {
    bool *const to[] = {&p->list, &p->text_only, &p->projector, &p->hollow};
    static const char *const names[] = {"--list", "--text-only", "--projector", "--hollow"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) return *to[i] = true;
    return false;
}

static bool option(plan *p, uint64_t *seed, const char *name, const char *value) {
    if (!strcmp(name, "--seed")) {
        *seed = strtoull(value, NULL, 10);
        return true;
    }
    if (!strcmp(name, "--vocab")) {
        p->n_vocab = (uint32_t)strtoul(value, NULL, 10);
        return p->n_vocab >= MIN_VOCAB && p->n_vocab <= 1 << 20;
    }
    if (!strcmp(name, "--mix")) {
        p->ollama = !strcmp(value, "ollama");
        return p->ollama || !strcmp(value, "llamacpp");
    }
    for (uint32_t i = 0; i < 4 && !strcmp(name, "--quant"); i++)
        if (!strcmp(value, quant_names[i])) return p->quant = (mix_quant)i, true;
    return false;
}

int main(int argc, char **argv) {
    plan p = {.ollama = true, .quant = Q4_K_M};
    uint64_t seed = 1;
    const char *path = NULL;
    for (int i = 1; i < argc; i++) {
        if (flag(&p, argv[i])) continue;
        if (argv[i][0] == '-') {
            if (i + 1 >= argc || !option(&p, &seed, argv[i], argv[i + 1])) die("%s", usage);
            i++;
        } else if (!p.shape) {
            for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
                if (!strcmp(argv[i], shapes[k].name)) p.shape = &shapes[k];
            if (!p.shape) die("no model %s\n%s", argv[i], usage);
        } else if (!path)
            path = argv[i];
        else
            die("%s", usage);
    }
    if (!p.shape || (!path && !p.list) || (p.projector && p.text_only)) die("%s", usage);
    if (!p.n_vocab) p.n_vocab = p.shape->n_embd == 256 ? MIN_VOCAB : REAL_VOCAB;
    rng_seed(seed);
    towers t = towers_of(&p);
    if (has_text(&p)) add_text(&p);
    if (has_towers(&p)) add_towers(&t);
    if (p.list) {
        list_tensors();
        n_total = tensors[n_tensor - 1].offset + tensors[n_tensor - 1].size;
        return summary(&p, 0), 0;
    }
    make_header(&p);
    n_total = head_len + tensors[n_tensor - 1].offset + tensors[n_tensor - 1].size;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    write_file(path, p.hollow);
    clock_gettime(CLOCK_MONOTONIC, &b);
    summary(&p, (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9);
    return 0;
}
