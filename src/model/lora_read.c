/* lora_read: adapters from files. Two kinds are known: PEFT (safetensors with a configuration
 * beside) and llama.cpp's GGUF. Both are reduced to halves, two for each slot of the adapter, that
 * are checked against the model in one place.
 *
 * Flow: file/safetensors.c and file/gguf.c before, lora.c after. */
#include "model/lora.h"

#include "file/safetensors.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_MAX (1u << 20) /* bytes of a configuration */

/* A or B of a slot, as a file has it: [n_row, n_col]. */
typedef struct half {
    const char *name;
    uint64_t n_row, n_col;
    const void *tensor; /* safetensor or gguf_tensor */
    bool transposed;
} half;

typedef struct reader {
    arena *scratch;
    lora *l;
    const char *file;
    half (*halves)[2]; /* [slots] A, B */
    carat_error *err;
} reader;

static const char *const peft_names[LORA_TARGETS] = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
static const char *const gguf_names[LORA_TARGETS] = {
    "attn_q.weight",   "attn_k.weight", "attn_v.weight",  "attn_output.weight",
    "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"};

const char *lora_peft_name(lora_target p) { return peft_names[p]; }
const char *lora_gguf_name(lora_target p) { return gguf_names[p]; }

/* ---- names ---- */

static bool skip(const char **s, const char *word) {
    const size_t n = strlen(word);
    if (strncmp(*s, word, n) != 0) return false;
    *s += n;
    return true;
}

/* "12." */
static bool skip_number(const char **s, uint32_t *out) {
    uint32_t n = 0;
    const char *at = *s;
    for (; *at >= '0' && *at <= '9' && n < 100000; at++) n = n * 10 + (uint32_t)(*at - '0');
    if (at == *s || *at != '.') return false;
    *out = n;
    *s = at + 1;
    return true;
}

/* After "layers." or "blk.": a layer and one of seven names. */
static bool skip_projection(reader *r, const char **s, const char *const *names, uint32_t *slot) {
    uint32_t il;
    if (!skip_number(s, &il) || il >= r->l->n_layer) return false;
    for (uint32_t p = 0; p < LORA_TARGETS; p++)
        if (skip(s, names[p])) {
            *slot = il * LORA_TARGETS + p;
            return true;
        }
    return false;
}

/* "base_model.model.model.language_model.layers.3.mlp.up_proj.lora_A.weight" -> slot and half. */
static bool parse_peft(reader *r, const char *s, uint32_t *slot, int *side) {
    const uint32_t n = r->l->n_layer * LORA_TARGETS;
    skip(&s, "base_model.model.");
    while (skip(&s, "model.") || skip(&s, "language_model.")) {}
    if (skip(&s, "layers.")) {
        if (!skip_projection(r, &s, peft_names, slot)) return false;
    } else if (skip(&s, "lm_head")) {
        *slot = n + 1;
    } else if (skip(&s, "embed_tokens")) {
        *slot = n;
    } else {
        return false;
    }
    if (!skip(&s, *slot == n ? ".lora_embedding_" : ".lora_")) return false;
    *side = *s == 'B';
    if (!skip(&s, "A") && !skip(&s, "B")) return false;
    skip(&s, ".default");
    return *slot == n ? *s == 0 || !strcmp(s, ".weight") : !strcmp(s, ".weight");
}

static bool parse_gguf(reader *r, const char *s, uint32_t *slot, int *side) {
    const uint32_t n = r->l->n_layer * LORA_TARGETS;
    if (skip(&s, "blk.")) {
        if (!skip_projection(r, &s, gguf_names, slot)) return false;
    } else if (skip(&s, "token_embd.weight")) {
        *slot = n;
    } else if (skip(&s, "output.weight")) {
        *slot = n + 1;
    } else {
        return false;
    }
    *side = !strcmp(s, ".lora_b");
    return *side || !strcmp(s, ".lora_a");
}

/* ---- the halves ---- */

static bool bad(const reader *r, const char *name, const char *why) {
    return fail(r->err, CARAT_E_FORMAT, "lora: %s: %s: %s", r->file, name, why);
}

static bool reader_open(reader *r, arena *a, const model *m, const char *file, carat_error *err) {
    *r = (reader){.file = file, .err = err};
    if (!lora_empty(a, m, &r->l, err)) return false;
    r->scratch = arena_create(err);
    if (!r->scratch) return false;
    r->halves = arena_alloc(r->scratch, lora_slots(r->l), sizeof *r->halves);
    return r->halves || fail_memory(err, lora_slots(r->l) * sizeof *r->halves, file);
}

static bool place(reader *r, uint32_t slot, int side, half h) {
    if (r->halves[slot][side].name) return bad(r, h.name, "occurs twice");
    r->halves[slot][side] = h;
    return true;
}

/* Whether a projection that this model does not compute may be in a file all the same: K and V of
 * layers that read another layer's, which other tools train to no effect. */
static bool may_be_ignored(const lora *l, uint32_t slot) {
    const uint32_t il = slot / LORA_TARGETS, p = slot % LORA_TARGETS;
    return il < l->n_layer && (p == LORA_K || p == LORA_V) && !l->model->config.layers[il].owns_kv;
}

/* The sizes of a pair against the model's, and its rank. */
static bool check_pair(reader *r, uint32_t slot) {
    const half *a = &r->halves[slot][0], *b = &r->halves[slot][1];
    lora_pair *p = lora_slot(r->l, slot);
    if (!a->name && !b->name) return true;
    if (!a->name || !b->name)
        return bad(r, a->name ? a->name : b->name, "the other half of the pair is missing");
    if (may_be_ignored(r->l, slot)) {
        r->l->n_ignored++;
        return true;
    }
    if (!p->n_col) return bad(r, a->name, "the model has no such projection");
    if (a->n_col != p->n_col)
        return fail(r->err, CARAT_E_FORMAT,
                    "lora: %s: %s is [%" PRIu64 ", %" PRIu64 "], but this model's matrix is "
                    "[%u, %u]: the adapter is of another model",
                    r->file, a->name, a->n_row, a->n_col, p->n_row, p->n_col);
    if (b->n_row != p->n_row)
        return fail(r->err, CARAT_E_FORMAT,
                    "lora: %s: %s is [%" PRIu64 ", %" PRIu64 "], but this model's matrix is "
                    "[%u, %u]: the adapter is of another model",
                    r->file, b->name, b->n_row, b->n_col, p->n_row, p->n_col);
    if (!lora_check_rank(a->n_row, a->name, r->err)) return false;
    if (b->n_col != a->n_row)
        return fail(r->err, CARAT_E_FORMAT,
                    "lora: %s: %s has a rank of %" PRIu64 ", its other half one of %" PRIu64,
                    r->file, b->name, b->n_col, a->n_row);
    p->rank = (uint32_t)a->n_row;
    return true;
}

static bool check_pairs(reader *r) {
    bool any = false;
    for (uint32_t i = 0; i < lora_slots(r->l); i++) {
        if (!check_pair(r, i)) return false;
        any |= lora_slot(r->l, i)->rank > 0;
    }
    return any || fail(r->err, CARAT_E_FORMAT, "lora: %s: there is no adapter in it", r->file);
}

static bool check_finite(const reader *r, const char *name, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return bad(r, name, "holds values that are not finite");
    return true;
}

/* ---- PEFT ---- */

/* Whether a pattern's key names a module: the end of its path, from a dot on; after ^ the whole. */
static bool pattern_names(const char *key, const char *path) {
    const bool whole = *key == '^';
    const size_t n = strlen(key += whole), n_path = strlen(path);
    if (n > n_path || strcmp(path + n_path - n, key) != 0) return false;
    return n == n_path || (!whole && path[n_path - n - 1] == '.');
}

/* The path of a half: its name without PEFT's prefix and what follows the module. */
static void module_path(const char *name, char *path, size_t size) {
    skip(&name, "base_model.model.");
    const char *end = strstr(name, ".lora_");
    snprintf(path, size, "%.*s", end ? (int)(end - name) : 0, name);
}

static bool alpha_of(reader *r, const json *config, uint32_t slot, float *out) {
    const json *patterns = json_get(config, "alpha_pattern");
    char path[256];
    *out = (float)json_number(json_get(config, "lora_alpha"), 8);
    module_path(r->halves[slot][0].name, path, sizeof path);
    for (size_t i = 0; patterns && patterns->kind == JSON_OBJECT && i < patterns->n; i++) {
        const char *key = patterns->keys[i].text;
        if (strpbrk(key, "*+?[](){}|\\$"))
            return fail(r->err, CARAT_E_UNSUPPORTED,
                        "lora: %s: alpha_pattern \"%.80s\" is a regular expression", r->file, key);
        if (pattern_names(key, path)) {
            *out = (float)json_number(&patterns->items[i], (double)*out);
            break;
        }
    }
    if (isfinite(*out) && *out > 0) return true;
    return bad(r, r->halves[slot][0].name, "its alpha is not a positive number");
}

static bool refuse(const reader *r, const char *what) {
    return fail(r->err, CARAT_E_UNSUPPORTED, "lora: %s: %s; carat reads plain LoRA", r->file, what);
}

/* What would make the adapter something else than y + s B A x. */
static bool check_config(const reader *r, const json *c) {
    const json *type = json_get(c, "peft_type"), *bias = json_get(c, "bias");
    const json *saved = json_get(c, "modules_to_save");
    if (c->kind != JSON_OBJECT) return bad(r, "adapter_config.json", "is not an object");
    if (type && !json_is_string(type, "LORA")) return refuse(r, "peft_type is not LORA");
    if (json_bool(json_get(c, "use_dora"), false)) return refuse(r, "it uses DoRA");
    if (bias && bias->kind == JSON_STRING && !json_is_string(bias, "none"))
        return refuse(r, "it has biases");
    if (saved && saved->kind == JSON_ARRAY && saved->n) return refuse(r, "it has modules_to_save");
    if (json_bool(json_get(c, "fan_in_fan_out"), false)) return refuse(r, "it is transposed");
    return lora_check_rank((uint64_t)fmax(0, fmin(1e9, json_number(json_get(c, "r"), 8))),
                           "adapter_config.json", r->err);
}

static bool read_peft_half(reader *r, const safetensors *s, uint32_t slot, int side) {
    const lora_pair *p = lora_slot(r->l, slot);
    const half *h = &r->halves[slot][side];
    float *to = side ? p->b : p->a;
    return safetensors_read_f32(s, h->tensor, to, r->err) &&
           check_finite(r, h->name, to, (size_t)(h->n_row * h->n_col));
}

static bool read_peft(reader *r, arena *a, const safetensors *s, const json *config) {
    if (!check_config(r, config)) return false;
    for (size_t i = 0; i < s->n; i++) {
        const safetensor *t = &s->tensors[i];
        uint32_t slot;
        int side;
        if (strstr(t->name, "lora_magnitude_vector")) return refuse(r, "it uses DoRA");
        if (!parse_peft(r, t->name, &slot, &side))
            return bad(r, t->name, "carat cannot adapt this, or the model has no such layer");
        if (t->n_dims != 2) return bad(r, t->name, "is not a matrix");
        if (!place(r, slot, side, (half){t->name, t->ne[0], t->ne[1], t, false})) return false;
    }
    if (!check_pairs(r)) return false;
    r->l->rslora = json_bool(json_get(config, "use_rslora"), false);
    r->l->dropout = (float)json_number(json_get(config, "lora_dropout"), 0);
    for (uint32_t i = 0; i < lora_slots(r->l); i++)
        if (lora_slot(r->l, i)->rank && !alpha_of(r, config, i, &lora_slot(r->l, i)->alpha))
            return false;
    if (!lora_allocate(a, r->l, r->err)) return false;
    for (uint32_t i = 0; i < lora_slots(r->l); i++)
        for (int side = 0; side < 2; side++)
            if (lora_slot(r->l, i)->rank && !read_peft_half(r, s, i, side)) return false;
    return true;
}

bool lora_open_peft(arena *a, const model *m, source *src, const char *config, size_t n, lora **out,
                    carat_error *err) {
    reader r;
    safetensors *s;
    json *c;
    bool ok = reader_open(&r, a, m, src->name, err) && safetensors_open(r.scratch, src, &s, err) &&
              json_parse(r.scratch, config, n, "adapter_config.json", &c, err) &&
              read_peft(&r, a, s, c);
    if (ok) *out = r.l;
    arena_free(r.scratch);
    return ok;
}

/* ---- GGUF ---- */

static bool gguf_is(const gguf *g, const char *key, const char *text) {
    gguf_string s;
    return gguf_get_string(g, key, &s) && !strcmp(s.text, text);
}

static bool read_gguf_half(reader *r, uint32_t slot, int side) {
    const half *h = &r->halves[slot][side];
    const gguf_tensor *t = h->tensor;
    const quant_format *f = quant_find(t->type);
    const size_t n = (size_t)(h->n_row * h->n_col);
    lora_pair *p = lora_slot(r->l, slot);
    float *to = side ? p->b : p->a;
    if (!f || t->ne[0] % f->n_value) return bad(r, h->name, "is stored in a way carat cannot read");
    arena *work = arena_create(r->err);
    if (!work) return false;
    void *blocks = arena_alloc(work, t->size, 1);
    float *rows = h->transposed ? arena_alloc(work, n, sizeof *rows) : to;
    bool ok = (blocks && rows) || fail_memory(r->err, t->size, h->name);
    ok = ok && source_read(t->src, t->offset, blocks, (size_t)t->size, r->err);
    if (ok) f->dequantise(blocks, rows, n);
    for (size_t i = 0; ok && h->transposed && i < n; i++) /* rows [n_col, n_row] */
        to[i % h->n_row * h->n_col + i / h->n_row] = rows[i];
    arena_free(work);
    return ok && check_finite(r, h->name, to, n);
}

static bool place_gguf(reader *r, const gguf_tensor *t) {
    const size_t n = t->name.len;
    const char *name = t->name.text;
    uint32_t slot;
    int side;
    if (n > 12 && !strcmp(name + n - 12, "_norm.weight")) return true; /* as llama.cpp does */
    if (!parse_gguf(r, name, &slot, &side))
        return bad(r, name, "carat cannot adapt this, or the model has no such layer");
    if (t->n_dims != 2) return bad(r, name, "is not a matrix");
    /* A of the embedding is stored a row for each token. */
    if (slot == r->l->n_layer * LORA_TARGETS && !side)
        return place(r, slot, side, (half){name, t->ne[0], t->ne[1], t, true});
    return place(r, slot, side, (half){name, t->ne[1], t->ne[0], t, false});
}

static bool read_gguf(reader *r, arena *a, const gguf *g) {
    gguf_string arch;
    float alpha = 0;
    if (!gguf_is(g, "general.type", "adapter") || !gguf_is(g, "adapter.type", "lora"))
        return fail(r->err, CARAT_E_FORMAT, "lora: %s: a GGUF file, but no LoRA adapter", r->file);
    if (!gguf_get_string(g, "general.architecture", &arch) || strcmp(arch.text, "gemma4") != 0)
        return fail(r->err, CARAT_E_UNSUPPORTED, "lora: %s: an adapter for another architecture",
                    r->file);
    if (gguf_find(g, "adapter.alora.invocation_tokens"))
        return refuse(r, "it is an activated LoRA");
    if (gguf_get_f32(g, "adapter.lora.alpha", &alpha) && !isfinite(alpha))
        return bad(r, "adapter.lora.alpha", "is not a number");
    for (uint64_t i = 0; i < g->n_tensor; i++)
        if (!place_gguf(r, &g->tensors[i])) return false;
    if (!check_pairs(r)) return false;
    for (uint32_t i = 0; i < lora_slots(r->l); i++) { /* without an alpha the scale is 1 */
        lora_pair *p = lora_slot(r->l, i);
        p->alpha = alpha != 0 ? alpha : (float)p->rank;
    }
    if (!lora_allocate(a, r->l, r->err)) return false;
    for (uint32_t i = 0; i < lora_slots(r->l); i++)
        for (int side = 0; side < 2; side++)
            if (lora_slot(r->l, i)->rank && !read_gguf_half(r, i, side)) return false;
    return true;
}

bool lora_open_gguf(arena *a, const model *m, const gguf *g, lora **out, carat_error *err) {
    reader r;
    const bool ok = reader_open(&r, a, m, g->name, err) && read_gguf(&r, a, g);
    if (ok) *out = r.l;
    arena_free(r.scratch);
    return ok;
}

/* ---- paths ---- */

static bool open_peft_file(arena *a, arena *scratch, const model *m, source *src, const char *path,
                           lora **out, carat_error *err) {
    source *side;
    buf config = {0};
    const char *slash = strrchr(path, '/');
    buf_put(&config, path, slash ? (size_t)(slash - path) + 1 : 0);
    buf_puts(&config, "adapter_config.json");
    const char *name = arena_copy(scratch, config.data ? config.data : "", config.len);
    const bool failed = config.failed || !name;
    buf_free(&config);
    if (failed) return fail_memory(err, strlen(path), path);
    if (!source_open(scratch, name, &side, err)) return false;
    bool ok = side->size <= CONFIG_MAX ||
              fail(err, CARAT_E_FORMAT, "lora: %s is too large for a configuration", name);
    char *text = ok ? arena_alloc(scratch, side->size + 1, 1) : NULL;
    ok = ok && (text || fail_memory(err, side->size, name)) &&
         source_read(side, 0, text, (size_t)side->size, err) &&
         lora_open_peft(a, m, src, text, (size_t)side->size, out, err);
    source_close(side);
    return ok;
}

static bool open_file(arena *a, arena *scratch, const model *m, const char *path, lora **out,
                      carat_error *err) {
    char magic[4] = "";
    source *src;
    gguf *g;
    if (!source_open(scratch, path, &src, err)) return false;
    if (!source_read(src, 0, magic, sizeof magic, err)) {
        source_close(src);
        return false;
    }
    if (memcmp(magic, "GGUF", 4) != 0) {
        const bool ok = open_peft_file(a, scratch, m, src, path, out, err);
        source_close(src);
        return ok;
    }
    source_close(src);
    if (!gguf_open(scratch, path, &g, err)) return false;
    const bool ok = lora_open_gguf(a, m, g, out, err);
    gguf_close(g);
    return ok;
}

bool lora_open(arena *a, const model *m, const char *path, lora **out, carat_error *err) {
    arena *scratch = arena_create(err);
    if (!scratch) return false;
    source *src;
    buf inside = {0};
    buf_printf(&inside, "%s/adapter_model.safetensors", path);
    const bool is_dir = !inside.failed && source_open(scratch, inside.data, &src, NULL);
    if (is_dir) source_close(src);
    const bool ok = inside.failed ? fail_memory(err, strlen(path), path)
                                  : open_file(a, scratch, m, is_dir ? inside.data : path, out, err);
    buf_free(&inside);
    arena_free(scratch);
    return ok;
}
