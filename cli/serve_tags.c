/* serve_tags: what Ollama's API tells of the models: tags (all), show (one), ps (the one in
 * memory), version.
 *
 * Flow: serve_models.c before; carat_engine_describe() knows a model. */
#include "serve_http.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <time.h>

static void put_string(buf *b, const char *name, const char *value) {
    buf_printf(b, "\"%s\":", name);
    json_write_string(b, value ? value : "", value ? strlen(value) : 0);
}

/* RFC 3339, in UTC. */
static void put_time(buf *b, const char *name, double seconds) {
    char text[64] = "";
    struct tm tm;
    time_t t = (time_t)seconds;
    if (gmtime_r(&t, &tm)) strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    put_string(b, name, text);
}

static void put_details(buf *b, const char *size, const char *quantisation) {
    buf_puts(b, "\"details\":{\"parent_model\":\"\",\"format\":\"gguf\",\"family\":\"gemma4\","
                "\"families\":[\"gemma4\"],");
    put_string(b, "parameter_size", size);
    buf_puts(b, ",");
    put_string(b, "quantization_level", quantisation);
    buf_puts(b, "}");
}

/* "name":...,"model":... */
static void put_names(buf *b, const char *name) {
    put_string(b, "name", name);
    buf_puts(b, ",");
    put_string(b, "model", name);
}

/* What is in the headers is not read for a list: sizes and quantisation are told by show. */
answered route_api_tags(exchange *x) {
    model_list list;
    carat_error err = {0};
    buf b = {0};
    if (!models_read(x->server, x->memory, &list, &err)) return reply_failure(x, 500, &err);
    buf_puts(&b, "{\"models\":[");
    for (size_t i = 0, n = 0; i < list.n; i++) {
        const model_entry *e = &list.items[i];
        if (!e->path) continue;
        buf_puts(&b, n++ ? ",{" : "{");
        put_names(&b, e->name);
        buf_puts(&b, ",");
        put_time(&b, "modified_at", (double)e->modified);
        buf_printf(&b, ",\"size\":%" PRIu64 ",", e->bytes);
        put_string(&b, "digest", e->digest ? e->digest + strlen("sha256:") : e->id);
        buf_puts(&b, ",");
        put_details(&b, "", "");
        buf_puts(&b, "}");
    }
    buf_puts(&b, "]}\n");
    return reply_buf(x, 200, "application/json", &b);
}

answered route_api_version(exchange *x) {
    static const char text[] = "{\"version\":\"" CARAT_VERSION "\"}\n";
    return reply_bytes(x, 200, "application/json", text, sizeof text - 1);
}

answered route_api_ps(exchange *x) {
    char size[24];
    buf b = {0};
    pthread_mutex_lock(&x->server->loaded_lock);
    loaded_model m = x->server->loaded;
    pthread_mutex_unlock(&x->server->loaded_lock);
    uint64_t bytes = m.info.weight_bytes + m.info.kv_bytes_fixed + m.info.kv_bytes_token * m.n_ctx +
                     m.info.scratch_bytes;
    buf_puts(&b, "{\"models\":[");
    if (*m.name) {
        buf_puts(&b, "{");
        put_names(&b, m.name);
        buf_printf(&b, ",\"size\":%" PRIu64 ",\"size_vram\":%" PRIu64 ",\"context_length\":%u,",
                   bytes, m.on_gpu ? bytes : 0, m.n_ctx);
        put_string(&b, "digest", "");
        buf_puts(&b, ",");
        double left = isinf(m.expires) ? 100 * 365.25 * 86400 : m.expires - now_s();
        put_time(&b, "expires_at", (double)time(NULL) + left);
        buf_puts(&b, ",");
        put_details(&b, human_count(m.info.n_params, size), m.quantisation);
        buf_puts(&b, "}");
    }
    buf_puts(&b, "]}\n");
    return reply_buf(x, 200, "application/json", &b);
}

/* ---- show ---- */

/* The options of the params layer, one a line, as in a Modelfile. */
static void put_parameters(buf *b, const json *params) {
    buf lines = {0};
    for (size_t i = 0; params && params->kind == JSON_OBJECT && i < params->n; i++) {
        const json *value = &params->items[i];
        size_t n = value->kind == JSON_ARRAY ? value->n : 1;
        for (size_t k = 0; k < n; k++) {
            buf_printf(&lines, "%s%-30s ", lines.len ? "\n" : "", params->keys[i].text);
            json_write(&lines, value->kind == JSON_ARRAY ? json_at(value, k) : value);
        }
    }
    put_string(b, "parameters", lines.data);
    buf_free(&lines);
}

static void put_info(buf *b, const carat_model_info *info) {
    buf_printf(b,
               "\"model_info\":{\"general.architecture\":\"gemma4\","
               "\"general.parameter_count\":%" PRIu64 ",\"gemma4.block_count\":%u,"
               "\"gemma4.context_length\":%u,\"gemma4.embedding_length\":%u,"
               "\"gemma4.vocab_size\":%u,\"gemma4.attention.sliding_window\":%u",
               info->n_params, info->n_layer, info->n_ctx_train, info->n_embd, info->n_vocab,
               info->sliding_window);
    if (info->n_expert)
        buf_printf(b, ",\"gemma4.expert_count\":%u,\"gemma4.expert_used_count\":%u", info->n_expert,
                   info->n_expert_used);
    buf_puts(b, "},");
}

static void put_show(buf *b, const model_entry *e, const carat_engine_desc *desc,
                     const carat_engine *eng, const json *params) {
    char size[24];
    carat_model_info info;
    carat_engine_info(eng, &info);
    buf_puts(b, "{\"modelfile\":");
    buf from = {0};
    buf_printf(&from, "FROM %s\n", e->name);
    json_write_string(b, from.data ? from.data : "", from.len);
    buf_free(&from);
    buf_puts(b, ",\"template\":\"\",\"renderer\":\"gemma4\",\"parser\":\"gemma4\",");
    put_parameters(b, params);
    buf_puts(b, ",");
    put_string(b, "system", desc->system);
    buf_puts(b, ",");
    put_details(b, human_count(info.n_params, size), info.quantisation);
    buf_puts(b, ",");
    put_info(b, &info);
    buf_printf(b, "\"capabilities\":[\"completion\",\"tools\",\"thinking\"%s%s],",
               info.has_vision ? ",\"vision\"" : "", info.has_audio ? ",\"audio\"" : "");
    put_time(b, "modified_at", (double)e->modified);
    buf_puts(b, "}\n");
}

static bool show(exchange *x, const model_entry *e, buf *b, carat_error *err) {
    carat_engine_desc desc;
    carat_model *model = carat_model_find(e->target, &desc, err);
    carat_engine *eng = model ? carat_engine_open(&desc, NULL, err) : NULL;
    json *params = NULL;
    bool ok = eng && (!desc.params || json_parse(x->memory, desc.params, strlen(desc.params),
                                                 "the model's params", &params, err));
    if (ok) put_show(b, e, &desc, eng, params);
    carat_engine_close(eng);
    carat_model_free(model);
    return ok;
}

answered route_api_show(exchange *x) {
    const json *q = NULL;
    model_list list;
    carat_error err = {0};
    buf b = {0};
    if (!ask_parse(x, &q, &err)) return reply_failure(x, 400, &err);
    if (!models_read(x->server, x->memory, &list, &err)) return reply_failure(x, 500, &err);
    const char *name = json_string(json_get(q, "model"), json_string(json_get(q, "name"), NULL));
    const model_entry *e = models_find(x->server, &list, name, &err);
    if (!e) return reply_failure(x, err.code == CARAT_E_NOT_FOUND ? 404 : 400, &err);
    pthread_mutex_lock(&x->server->show_lock);
    bool ok = show(x, e, &b, &err);
    pthread_mutex_unlock(&x->server->show_lock);
    if (ok) return reply_buf(x, 200, "application/json", &b);
    return reply_failure(x, err.code == CARAT_E_UNSUPPORTED ? 400 : 500, &err);
}
