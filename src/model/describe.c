/* describe: what is known about a model, as a struct for programs and as JSON for people: its
 * configuration, layers, tensors and the memory that it needs; the same of an adapter.
 *
 * Reads nothing but what engine.c holds. Flow: engine.c before, `carat inspect` after. */
#include "model/engine.h"

#include "carat_adapter.h"
#include "model/lora.h"

#include <inttypes.h>
#include <string.h>

/* llama.cpp's general.file_type. */
static const char *const file_types[] = {
    [0] = "F32",     [1] = "F16",     [2] = "Q4_0",    [3] = "Q4_1",    [7] = "Q8_0",
    [8] = "Q5_0",    [9] = "Q5_1",    [10] = "Q2_K",   [11] = "Q3_K_S", [12] = "Q3_K_M",
    [13] = "Q3_K_L", [14] = "Q4_K_S", [15] = "Q4_K_M", [16] = "Q5_K_S", [17] = "Q5_K_M",
    [18] = "Q6_K",   [21] = "Q2_K_S", [25] = "IQ4_NL", [30] = "IQ4_XS", [32] = "BF16",
    [38] = "MXFP4",  [39] = "NVFP4",
};

static const char *type_name(uint32_t type) {
    const char *name = quant_name(type);
    return name ? name : "unknown";
}

/* Bytes of all tensors by type; returns the type that most are of. */
static uint32_t count_types(const gguf *g, uint64_t bytes[QUANT_TYPE_END],
                            uint32_t count[QUANT_TYPE_END]) {
    uint32_t most = 0;
    for (uint64_t i = 0; i < g->n_tensor; i++) {
        uint32_t type = g->tensors[i].type;
        if (type >= QUANT_TYPE_END) continue;
        bytes[type] += g->tensors[i].size;
        count[type]++;
        if (bytes[type] > bytes[most]) most = type;
    }
    return most;
}

static const char *quantisation(const gguf *g) {
    uint32_t type = 0;
    uint64_t bytes[QUANT_TYPE_END] = {0};
    uint32_t count[QUANT_TYPE_END] = {0};
    if (gguf_get_u32(g, "general.file_type", &type) && type < COUNT(file_types) && file_types[type])
        return file_types[type];
    return type_name(count_types(g, bytes, count));
}

/* Bytes of a matrix on the device. */
static uint64_t matrix_bytes(const carat_engine *eng, const weight *w) {
    bool packed = !eng->device || eng->device->gpu;
    if (!packed) return w->tensor->size;
    return upload_packed_bytes(w->type, (uint64_t)w->n_col * w->n_row * w->n_expert);
}

uint64_t engine_step_bytes(const carat_engine *eng) {
    const model *m = eng->model;
    uint64_t bytes = 0;
    for (weight **w = eng->matrices; *w; w++) {
        if (*w == &m->weights.embed && m->weights.output != *w) continue; /* one row of it */
        uint64_t used = (*w)->n_expert > 1 ? m->config.n_expert_used : (*w)->n_expert;
        bytes += (*w)->tensor->size / (*w)->n_expert * used;
    }
    return bytes;
}

void engine_memory(const carat_engine *eng, carat_model_info *info) {
    const model *m = eng->model;
    info->weight_bytes = sizeof(float) * (uint64_t)m->weights.n_vectors;
    for (weight **w = eng->matrices; *w; w++) info->weight_bytes += matrix_bytes(eng, *w);
    if (!eng->device || eng->device->gpu) {
        text_gpu_memory(m, &info->kv_bytes_fixed, &info->kv_bytes_token, &info->scratch_bytes);
        return;
    }
    for (uint32_t il = 0; il < m->config.n_layer; il++) { /* text_cpu.c keeps all tokens, in f32 */
        const layer_config *l = &m->config.layers[il];
        if (l->owns_kv) info->kv_bytes_token += 2ull * l->n_kv * l->head_dim * sizeof(float);
    }
    info->scratch_bytes = (uint64_t)m->config.n_vocab * sizeof(float);
}

void carat_engine_info(const carat_engine *eng, carat_model_info *info) {
    const model *m = eng->model;
    gguf_string label = {0};
    *info = (carat_model_info){
        .name = eng->name,
        .quantisation = quantisation(m->gguf),
        .n_params = m->weights.n_params,
        .file_bytes = m->gguf->file_bytes,
        .n_layer = m->config.n_layer,
        .n_embd = m->config.n_embd,
        .n_vocab = m->config.n_vocab,
        .n_ctx_train = m->config.n_ctx_train,
        .n_expert = m->config.n_expert,
        .n_expert_used = m->config.n_expert_used,
        .sliding_window = m->config.window,
    };
    if (gguf_get_string(m->gguf, "general.size_label", &label) && label.len)
        info->size_label = label.text;
    info->has_vision = eng->encoders.vision != NULL;
    info->has_audio = eng->encoders.audio != NULL;
    info->encoder_bytes = encoders_bytes(&eng->encoders, !eng->device || eng->device->gpu);
    engine_memory(eng, info);
}

/* ---- JSON ---- */

static void put_string(buf *b, const char *key, const char *s) {
    buf_printf(b, "\"%s\":", key);
    if (s)
        json_write_string(b, s, strlen(s));
    else
        buf_puts(b, "null");
}

static void put_config(buf *b, const model_config *c) {
    buf_printf(b,
               "\"config\":{\"n_layer\":%u,\"n_embd\":%u,\"n_vocab\":%u,\"n_ctx_train\":%u,"
               "\"n_ple\":%u,\"n_owner\":%u,\"n_expert\":%u,\"n_expert_used\":%u,"
               "\"n_ff_expert\":%u,\"window\":%u,\"rms_eps\":%g,\"softcap\":%g,"
               "\"vision_bidirectional\":%s}",
               c->n_layer, c->n_embd, c->n_vocab, c->n_ctx_train, c->n_ple, c->n_owner, c->n_expert,
               c->n_expert_used, c->n_ff_expert, c->window, (double)c->rms_eps, (double)c->softcap,
               c->vision_bidirectional ? "true" : "false");
}

static void put_layers(buf *b, const model_config *c) {
    buf_puts(b, "\"layers\":[");
    for (uint32_t il = 0; il < c->n_layer; il++) {
        const layer_config *l = &c->layers[il];
        buf_printf(b,
                   "%s{\"layer\":%u,\"type\":\"%s\",\"n_head\":%u,\"n_kv\":%u,\"head_dim\":%u,"
                   "\"n_ff\":%u,\"window\":%u,\"owns_kv\":%s,\"donor\":%u,\"k_eq_v\":%s,"
                   "\"moe\":%s,\"n_rot\":%u,\"rope_base\":%g}",
                   il ? "," : "", il, l->sliding ? "sliding" : "global", l->n_head, l->n_kv,
                   l->head_dim, l->n_ff, l->window, l->owns_kv ? "true" : "false", l->donor,
                   l->k_eq_v ? "true" : "false", l->moe ? "true" : "false", l->n_rot,
                   (double)l->rope_base);
    }
    buf_puts(b, "]");
}

static void put_types(buf *b, const gguf *g) {
    uint64_t bytes[QUANT_TYPE_END] = {0};
    uint32_t count[QUANT_TYPE_END] = {0};
    const char *comma = "";
    count_types(g, bytes, count);
    buf_puts(b, "\"types\":[");
    for (uint32_t type = 0; type < QUANT_TYPE_END; type++) {
        if (count[type] == 0) continue;
        buf_printf(b, "%s{\"type\":\"%s\",\"n_tensor\":%u,\"bytes\":%" PRIu64 "}", comma,
                   type_name(type), count[type], bytes[type]);
        comma = ",";
    }
    buf_puts(b, "]");
}

static void put_tensors(buf *b, const gguf *g) {
    buf_puts(b, "\"tensors\":[");
    for (uint64_t i = 0; i < g->n_tensor; i++) {
        const gguf_tensor *t = &g->tensors[i];
        buf_puts(b, i ? ",{\"name\":" : "{\"name\":");
        json_write_string(b, t->name.text, t->name.len);
        buf_printf(b, ",\"type\":\"%s\",\"shape\":[", type_name(t->type));
        for (uint32_t d = t->n_dims; d-- > 0;) /* slowest first */
            buf_printf(b, "%" PRIu64 "%s", t->ne[d], d ? "," : "");
        buf_printf(b, "],\"bytes\":%" PRIu64 "}", t->size);
    }
    buf_puts(b, "]");
}

static void put_memory(buf *b, const carat_model_info *info) {
    uint64_t n_ctx = info->n_ctx_train && info->n_ctx_train < 8192 ? info->n_ctx_train : 8192;
    uint64_t kv = info->kv_bytes_fixed + n_ctx * info->kv_bytes_token;
    buf_printf(b,
               "\"memory\":{\"weights\":%" PRIu64 ",\"kv_fixed\":%" PRIu64 ",\"kv_token\":%" PRIu64
               ",\"scratch\":%" PRIu64 ",\"context\":%" PRIu64 ",\"kv\":%" PRIu64
               ",\"total\":%" PRIu64 ",\"encoders\":%" PRIu64 "}",
               info->weight_bytes, info->kv_bytes_fixed, info->kv_bytes_token, info->scratch_bytes,
               n_ctx, kv, info->weight_bytes + kv + info->scratch_bytes, info->encoder_bytes);
}

char *carat_engine_describe(const carat_engine *eng, carat_error *err) {
    const gguf *g = eng->model->gguf;
    carat_model_info info;
    gguf_string architecture = {.text = ""};
    buf b = {0};
    carat_engine_info(eng, &info);
    gguf_get_string(g, "general.architecture", &architecture);
    buf_puts(&b, "{");
    put_string(&b, "name", info.name);
    put_string((buf_puts(&b, ","), &b), "size_label", info.size_label);
    put_string((buf_puts(&b, ","), &b), "architecture", architecture.text);
    put_string((buf_puts(&b, ","), &b), "quantisation", info.quantisation);
    put_string((buf_puts(&b, ","), &b), "template", eng->large ? "large" : "small");
    put_string((buf_puts(&b, ","), &b), "file", g->name);
    put_string((buf_puts(&b, ","), &b), "system", eng->system);
    buf_puts(&b, ",\"params\":");
    if (eng->params)
        json_write(&b, eng->params);
    else
        buf_puts(&b, "null");
    buf_printf(&b, ",\"n_params\":%" PRIu64 ",\"file_bytes\":%" PRIu64 ",", info.n_params,
               info.file_bytes);
    put_memory(&b, &info);
    put_config((buf_puts(&b, ","), &b), &eng->model->config);
    put_layers((buf_puts(&b, ","), &b), &eng->model->config);
    encoders_describe(&eng->encoders, (buf_puts(&b, ","), &b));
    put_types((buf_puts(&b, ","), &b), g);
    put_tensors((buf_puts(&b, ","), &b), g);
    buf_puts(&b, "}");
    char *text = buf_take(&b);
    if (!text) fail_memory(err, b.len, "a description");
    return text;
}

/* ---- adapters ---- */

static void put_targets(buf *b, const lora *l) {
    bool has[LORA_NAMES] = {[LORA_EMBED] = l->embed.rank, [LORA_HEAD] = l->head.rank};
    for (uint32_t i = 0; i < l->n_layer * LORA_TARGETS; i++)
        has[i % LORA_TARGETS] |= l->layers[i].rank > 0;
    const char *comma = "";
    buf_puts(b, "\"targets\":[");
    for (uint32_t t = 0; t < LORA_NAMES; t++) {
        if (!has[t]) continue;
        buf_printf(b, "%s\"%s\"", comma, lora_names[t]);
        comma = ",";
    }
    buf_puts(b, "]");
}

void describe_lora(const lora *l, buf *b) {
    const lora_pair *first = NULL;
    uint32_t rank = 0, begin = l->n_layer, end = 0;
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        const lora_pair *p = lora_slot(l, i);
        const uint32_t il = i / LORA_TARGETS;
        if (!p->rank) continue;
        if (!first) first = p;
        rank = max_u32(rank, p->rank);
        if (il >= l->n_layer) continue;
        begin = min_u32(begin, il);
        end = il + 1;
    }
    buf_printf(b, "{\"rank\":%u,\"alpha\":%g,\"scale\":%g,\"rslora\":%s,", rank,
               first ? (double)first->alpha : 0, first ? (double)first->scale : 0,
               l->rslora ? "true" : "false");
    put_targets(b, l);
    buf_printf(b, ",\"first_layer\":%u,\"n_layer\":%u,\"parameters\":%" PRIu64 ",\"ignored\":%u}",
               end ? begin : 0, end ? end - begin : 0, l->n_value, l->n_ignored);
}

char *carat_adapter_describe(const carat_adapter *adapter, carat_error *err) {
    buf b = {0};
    describe_lora(adapter->lora, &b);
    char *text = buf_take(&b);
    if (!text) fail_memory(err, b.len, "a description");
    return text;
}
