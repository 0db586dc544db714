/* lora_write: adapters into files that PEFT and llama.cpp read. Each file is written beside its
 * place and then renamed, so that there is never half of one.
 *
 * Flow: lora.c before. */
#include "model/lora.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define ALIGNMENT 32u

/* ---- PEFT ---- */

/* The module's path below base_model.model., or only its end. */
static void peft_module(const lora *l, uint32_t slot, char *out, size_t size) {
    const uint32_t il = slot / LORA_TARGETS;
    if (lora_slot(l, slot) == &l->head)
        snprintf(out, size, "lm_head");
    else if (lora_slot(l, slot) == &l->embed)
        snprintf(out, size, "model.language_model.embed_tokens");
    else
        snprintf(out, size, "model.language_model.layers.%u.%s", il,
                 lora_peft_name(slot % LORA_TARGETS));
}

static void put_entry(buf *b, const char *module, const char *suffix, uint32_t n_row,
                      uint32_t n_col, uint64_t *at) {
    const uint64_t end = *at + (uint64_t)n_row * n_col * sizeof(float);
    buf_printf(b,
               ",\"base_model.model.%s.%s\":{\"dtype\":\"F32\",\"shape\":[%u,%u],"
               "\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}",
               module, suffix, n_row, n_col, *at, end);
    *at = end;
}

/* The values lie in the file as they lie in memory. */
void lora_put_safetensors(const lora *l, buf *out) {
    buf header = {0};
    uint64_t at = 0;
    buf_puts(&header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i);
        const bool embed = p == &l->embed;
        char module[96];
        if (!p->rank) continue;
        peft_module(l, i, module, sizeof module);
        put_entry(&header, module, embed ? "lora_embedding_A" : "lora_A.weight", p->rank, p->n_col,
                  &at);
        put_entry(&header, module, embed ? "lora_embedding_B" : "lora_B.weight", p->n_row, p->rank,
                  &at);
    }
    buf_puts(&header, "}");
    while (header.len % 8 && !header.failed) buf_puts(&header, " ");
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)header.len >> 8 * i);
    buf_put(out, length, sizeof length);
    buf_put(out, header.data, header.len);
    buf_put(out, l->values, (size_t)l->n_value * sizeof *l->values);
    out->failed |= header.failed;
    buf_free(&header);
}

/* The most frequent rank and alpha are r and lora_alpha, what differs is a pattern. */
static const lora_pair *usual(const lora *l) {
    const lora_pair *best = NULL;
    uint32_t most = 0;
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i);
        uint32_t n = 0;
        for (uint32_t k = 0; k < lora_slots(l) && p->rank; k++) {
            const lora_pair *q = lora_slot(l, k);
            n += q->rank == p->rank && q->alpha == p->alpha;
        }
        if (n > most) {
            best = p;
            most = n;
        }
    }
    return best;
}

static void put_pattern(const lora *l, const lora_pair *u, bool alpha, buf *out) {
    const char *comma = "";
    buf_puts(out, alpha ? ",\"alpha_pattern\":{" : ",\"rank_pattern\":{");
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i);
        char module[96];
        if (!p->rank || (alpha ? p->alpha == u->alpha : p->rank == u->rank)) continue;
        peft_module(l, i, module, sizeof module);
        if (alpha)
            buf_printf(out, "%s\"%s\":%.9g", comma, module, (double)p->alpha);
        else
            buf_printf(out, "%s\"%s\":%u", comma, module, p->rank);
        comma = ",";
    }
    buf_puts(out, "}");
}

void lora_put_config(const lora *l, buf *out) {
    const lora_pair *u = usual(l);
    const char *comma = "";
    buf_printf(out,
               "{\"peft_type\":\"LORA\",\"base_model_name_or_path\":null,\"bias\":\"none\","
               "\"fan_in_fan_out\":false,\"inference_mode\":true,\"init_lora_weights\":true,"
               "\"modules_to_save\":null,\"task_type\":\"CAUSAL_LM\",\"use_dora\":false,"
               "\"use_rslora\":%s,\"lora_dropout\":%.9g,\"r\":%u,\"lora_alpha\":%.9g",
               l->rslora ? "true" : "false", (double)l->dropout, u->rank, (double)u->alpha);
    put_pattern(l, u, false, out);
    put_pattern(l, u, true, out);
    buf_puts(out, ",\"target_modules\":[");
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        char module[96];
        if (!lora_slot(l, i)->rank) continue;
        peft_module(l, i, module, sizeof module);
        buf_printf(out, "%s\"%s\"", comma, module);
        comma = ",";
    }
    buf_puts(out, "]}\n");
}

static bool write_buf(const char *path, buf *b, carat_error *err) {
    const bool ok =
        b->failed ? fail_memory(err, b->len, path) : file_write(path, b->data, b->len, err);
    buf_free(b);
    return ok;
}

static bool write_in(const char *dir, const char *name, buf *b, carat_error *err) {
    buf path = {0};
    buf_printf(&path, "%s/%s", dir, name);
    const bool ok =
        path.failed ? fail_memory(err, strlen(dir), name) : write_buf(path.data, b, err);
    if (path.failed) buf_free(b);
    buf_free(&path);
    return ok;
}

/* The large file first: where it has no room, a folder that is there stays as it was. */
bool lora_write_peft(const lora *l, const char *dir, carat_error *err) {
    buf weights = {0}, config = {0};
    lora_put_config(l, &config);
    lora_put_safetensors(l, &weights);
    bool ok = !config.failed || fail_memory(err, config.len, dir);
    ok = ok && write_in(dir, "adapter_model.safetensors", &weights, err) &&
         write_in(dir, "adapter_config.json", &config, err);
    buf_free(&weights);
    buf_free(&config);
    return ok;
}

/* ---- GGUF ---- */

static void put_number(buf *b, uint64_t v, uint32_t n_byte) {
    unsigned char bytes[8];
    for (uint32_t i = 0; i < n_byte; i++) bytes[i] = (unsigned char)(v >> 8 * i);
    buf_put(b, bytes, n_byte);
}

static void put_string(buf *b, const char *s) {
    put_number(b, strlen(s), 8);
    buf_puts(b, s);
}

static void put_text_key(buf *b, const char *key, const char *text) {
    put_string(b, key);
    put_number(b, GGUF_STRING, 4);
    put_string(b, text);
}

static void put_float_key(buf *b, const char *key, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_string(b, key);
    put_number(b, GGUF_F32, 4);
    put_number(b, bits, 4);
}

/* n_fast: the contiguous dimension. */
static void put_info(buf *b, const char *module, const char *suffix, uint32_t n_fast,
                     uint32_t n_slow, uint64_t *at) {
    char name[96];
    snprintf(name, sizeof name, "%s%s", module, suffix);
    put_string(b, name);
    put_number(b, 2, 4);
    put_number(b, n_fast, 8);
    put_number(b, n_slow, 8);
    put_number(b, QUANT_F32, 4);
    put_number(b, *at, 8);
    *at = round_up(*at + (uint64_t)n_fast * n_slow * sizeof(float), ALIGNMENT);
}

static void pad(buf *b) {
    while (b->len % ALIGNMENT && !b->failed) put_number(b, 0, 1);
}

/* The file has one alpha for all; a pair whose scale that would change has it put into its B. */
static void put_b(const lora_pair *p, float alpha, buf *b) {
    const float rest = p->scale / (alpha / (float)p->rank);
    for (size_t i = 0; i < (size_t)p->n_row * p->rank; i++) {
        const float x = fabsf(rest - 1) < 1e-6f ? p->b[i] : p->b[i] * rest;
        buf_put(b, &x, sizeof x);
    }
    pad(b);
}

static void put_a(const lora *l, const lora_pair *p, buf *b) {
    if (p != &l->embed) buf_put(b, p->a, (size_t)p->rank * p->n_col * sizeof *p->a);
    for (uint32_t i = 0; p == &l->embed && i < p->n_col; i++) /* a row for each token */
        for (uint32_t r = 0; r < p->rank; r++)
            buf_put(b, p->a + (size_t)r * p->n_col + i, sizeof *p->a);
    pad(b);
}

void lora_put_gguf(const lora *l, buf *out) {
    const lora_pair *u = usual(l);
    const float alpha = u->scale * (float)u->rank; /* rsLoRA's is alpha sqrt(rank) here */
    uint64_t n_pair = 0, at = 0;
    for (uint32_t i = 0; i < lora_slots(l); i++) n_pair += lora_slot(l, i)->rank > 0;
    buf_puts(out, "GGUF");
    put_number(out, 3, 4);
    put_number(out, 2 * n_pair, 8);
    put_number(out, 4, 8);
    put_text_key(out, "general.type", "adapter");
    put_text_key(out, "general.architecture", "gemma4");
    put_text_key(out, "adapter.type", "lora");
    put_float_key(out, "adapter.lora.alpha", alpha);
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i);
        const bool embed = p == &l->embed;
        char module[64];
        if (!p->rank) continue;
        if (embed || p == &l->head)
            snprintf(module, sizeof module, "%s.weight", embed ? "token_embd" : "output");
        else
            snprintf(module, sizeof module, "blk.%u.%s", i / LORA_TARGETS,
                     lora_gguf_name(i % LORA_TARGETS));
        put_info(out, module, ".lora_a", embed ? p->rank : p->n_col, embed ? p->n_col : p->rank,
                 &at);
        put_info(out, module, ".lora_b", p->rank, p->n_row, &at);
    }
    pad(out);
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i);
        if (!p->rank) continue;
        put_a(l, p, out);
        put_b(p, alpha, out);
    }
}

bool lora_write_gguf(const lora *l, const char *path, carat_error *err) {
    buf b = {0};
    lora_put_gguf(l, &b);
    return write_buf(path, &b, err);
}
