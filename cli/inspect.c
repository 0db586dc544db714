/* inspect: what a model is: configuration, layers, tensor types, and the memory that it needs.
 * Reads no weights and needs no device; the memory is that of a GPU.
 *
 * Flow: main.c and runtime.c before; carat_engine_describe() says it all. */
#include "cli.h"

#include <string.h>

enum { DEFAULT_CONTEXT = 8192 };

static const option inspect_options[] = {
    OPTION("context", 'c', U32, context, "N",
           "tokens of context to compute the memory for; default: 8192", .min = 1, .max = 1 << 30),
    OPTION("mmproj", 0, TEXT, projector, "FILE",
           "GGUF file with the vision and audio encoders; default: in the model's file, or beside "
           "it"),
    OPTION("tensors", 0, FLAG, tensors, NULL, "list every tensor of the file"),
    OPTION("json", 0, FLAG, json, NULL, "print all as one JSON object, tensors included"),
    OPTION("help", 'h', FLAG, help, NULL, "this text"),
    {0}};
static const option_group group = {"options", inspect_options};

static uint64_t number(const json *object, const char *key) {
    return (uint64_t)json_number(json_get(object, key), 0);
}

static unsigned long long big(const json *object, const char *key) {
    return (unsigned long long)number(object, key);
}

static void title(const char *text) { printf("\n%s%s%s\n", bold(stdout), text, plain(stdout)); }

static void row(table *t, const char *name, const char *value) {
    table_cell(t, "  %s", name);
    table_cell(t, "%s", value);
}

static void print_model(const json *m) {
    const json *c = json_get(m, "config");
    char text[128], a[24];
    table t = {.columns = "ll"};
    printf("%s%s%s\n", bold(stdout), json_string(json_get(m, "name"), "?"), plain(stdout));
    row(&t, "file", json_string(json_get(m, "file"), ""));
    row(&t, "size", human_bytes(number(m, "file_bytes"), a));
    row(&t, "architecture", json_string(json_get(m, "architecture"), "?"));
    const char *label = json_string(json_get(m, "size_label"), NULL);
    snprintf(text, sizeof text, "%s%s%s%s", human_count(number(m, "n_params"), a),
             label ? " (" : "", label ? label : "", label ? ")" : "");
    row(&t, "parameters", text);
    row(&t, "quantisation", json_string(json_get(m, "quantisation"), "?"));
    row(&t, "template", json_string(json_get(m, "template"), "?"));
    snprintf(text, sizeof text, "%llu, of which %llu have keys and values of their own",
             big(c, "n_layer"), big(c, "n_owner"));
    row(&t, "layers", text);
    snprintf(text, sizeof text, "%llu wide, %llu tokens in the vocabulary", big(c, "n_embd"),
             big(c, "n_vocab"));
    row(&t, "embedding", text);
    if (number(c, "n_ple")) {
        snprintf(text, sizeof text, "%llu wide, for each layer", big(c, "n_ple"));
        row(&t, "per layer", text);
    }
    if (number(c, "n_expert")) {
        snprintf(text, sizeof text, "%llu of %llu for each token, %llu wide",
                 big(c, "n_expert_used"), big(c, "n_expert"), big(c, "n_ff_expert"));
        row(&t, "experts", text);
    }
    snprintf(text, sizeof text, "%llu tokens, sliding window %llu", big(c, "n_ctx_train"),
             big(c, "window"));
    row(&t, "context", text);
    const char *system = json_string(json_get(m, "system"), NULL);
    if (system) row(&t, "system", system);
    const json *params = json_get(m, "params");
    buf b = {0};
    if (params && params->kind == JSON_OBJECT) json_write(&b, params);
    if (b.len && !b.failed) row(&t, "parameters of Ollama", b.data);
    buf_free(&b);
    table_print(&t, stdout, false);
}

static void print_tower(table *t, const json *e, const char *what) {
    char bytes[24];
    if (!e || e->kind != JSON_OBJECT) return;
    table_cell(t, "  %s", what);
    if (json_bool(json_get(e, "direct"), false))
        table_cell(t, "none: straight into the model");
    else
        table_cell(t, "%llu layers, %llu wide, %llu heads of %llu, n_ff %llu", big(e, "n_layer"),
                   big(e, "n_embd"), big(e, "n_head"), big(e, "head_dim"), big(e, "n_ff"));
    table_cell(t, "%s", human_bytes(number(e, "bytes"), bytes));
}

/* On the device they are only once there is a picture or a sound. */
static void print_encoders(const json *e) {
    const json *vision = json_get(e, "vision"), *audio = json_get(e, "audio");
    table t = {.columns = "llr"};
    title("encoders");
    if (json_get(vision, "n_out") || json_get(audio, "n_out")) {
        print_tower(&t, vision, "vision");
        print_tower(&t, audio, "audio");
        table_print(&t, stdout, false);
    } else {
        puts("  none: the model takes text only");
    }
    const char *file = json_string(json_get(e, "file"), NULL);
    if (file) printf("  in %s\n", file);
}

static bool same_layer(const json *a, const json *b) {
    static const char *const numbers[] = {"n_head", "n_kv",  "head_dim", "n_ff",
                                          "window", "n_rot", "rope_base"};
    static const char *const flags[] = {"owns_kv", "k_eq_v", "moe"};
    for (size_t i = 0; i < COUNT(numbers); i++)
        if (number(a, numbers[i]) != number(b, numbers[i])) return false;
    for (size_t i = 0; i < COUNT(flags); i++)
        if (json_bool(json_get(a, flags[i]), false) != json_bool(json_get(b, flags[i]), false))
            return false;
    bool shared = !json_bool(json_get(a, "owns_kv"), true);
    if (shared && number(a, "donor") != number(b, "donor")) return false;
    return json_is_string(json_get(a, "type"), json_string(json_get(b, "type"), ""));
}

static void layer_notes(const json *l, char text[96]) {
    char donor[40] = "";
    bool k_eq_v = json_bool(json_get(l, "k_eq_v"), false),
         moe = json_bool(json_get(l, "moe"), false);
    if (!json_bool(json_get(l, "owns_kv"), true))
        snprintf(donor, sizeof donor, ", keys of layer %llu", big(l, "donor"));
    snprintf(text, 96, "%s%s%s", donor, k_eq_v ? ", V is K" : "", moe ? ", experts" : "");
    if (*text) memmove(text, text + 2, strlen(text) - 1);
}

/* Neighbours that are alike share a row. */
static void print_layers(const json *layers) {
    static const char *const head[] = {"  layer", "attention", "heads",   "kv",   "head_dim",
                                       "n_ff",    "window",    "rotated", "base", ""};
    table t = {.columns = "llrrrrrrrl"};
    for (size_t i = 0; i < COUNT(head); i++) table_cell(&t, "%s", head[i]);
    for (size_t i = 0; layers && i < layers->n;) {
        const json *l = json_at(layers, i);
        size_t last = i;
        char notes[96];
        while (last + 1 < layers->n && same_layer(l, json_at(layers, last + 1))) last++;
        if (last == i)
            table_cell(&t, "  %zu", i);
        else
            table_cell(&t, "  %zu-%zu", i, last);
        table_cell(&t, "%s", json_string(json_get(l, "type"), "?"));
        table_cell(&t, "%llu", big(l, "n_head"));
        table_cell(&t, "%llu", big(l, "n_kv"));
        table_cell(&t, "%llu", big(l, "head_dim"));
        table_cell(&t, "%llu", big(l, "n_ff"));
        table_cell(&t, number(l, "window") ? "%llu" : "all", big(l, "window"));
        table_cell(&t, "%llu", 2 * big(l, "n_rot"));
        table_cell(&t, "%llu", big(l, "rope_base"));
        layer_notes(l, notes);
        table_cell(&t, "%s", notes);
        i = last + 1;
    }
    title("layers");
    table_print(&t, stdout, true);
}

static void print_types(const json *types) {
    table t = {.columns = "lrr"};
    char a[24];
    table_cell(&t, "  type");
    table_cell(&t, "tensors");
    table_cell(&t, "size");
    for (size_t i = 0; types && i < types->n; i++) {
        const json *type = json_at(types, i);
        table_cell(&t, "  %s", json_string(json_get(type, "type"), "?"));
        table_cell(&t, "%llu", big(type, "n_tensor"));
        table_cell(&t, "%s", human_bytes(number(type, "bytes"), a));
    }
    title("tensors by type");
    table_print(&t, stdout, true);
}

static void print_memory(const json *memory, uint64_t n_ctx) {
    table t = {.columns = "lrl"};
    char a[24];
    uint64_t fixed = number(memory, "kv_fixed"), token = number(memory, "kv_token");
    uint64_t kv = fixed + token * n_ctx, weights = number(memory, "weights");
    uint64_t scratch = number(memory, "scratch");
    table_cell(&t, "  weights");
    table_cell(&t, "%s", human_bytes(weights, a));
    table_cell(&t, "%s", "");
    table_cell(&t, "  keys and values");
    table_cell(&t, "%s", human_bytes(kv, a));
    table_cell(&t, "%s for each token", human_bytes(token, a));
    table_cell(&t, "  scratch");
    table_cell(&t, "%s", human_bytes(scratch, a));
    table_cell(&t, "%s", "");
    uint64_t encoders = number(memory, "encoders");
    if (encoders) {
        table_cell(&t, "  encoders");
        table_cell(&t, "%s", human_bytes(encoders, a));
        table_cell(&t, "with the first picture or sound");
    }
    table_cell(&t, "  together");
    table_cell(&t, "%s", human_bytes(weights + kv + scratch + encoders, a));
    table_cell(&t, "%s", "");
    char text[64];
    snprintf(text, sizeof text, "memory on a GPU at a context of %llu tokens",
             (unsigned long long)n_ctx);
    title(text);
    table_print(&t, stdout, false);
}

static void print_tensors(const json *tensors) {
    table t = {.columns = "llrr"};
    static const char *const head[] = {"  tensor", "type", "shape", "size"};
    for (size_t i = 0; i < COUNT(head); i++) table_cell(&t, "%s", head[i]);
    for (size_t i = 0; tensors && i < tensors->n; i++) {
        const json *x = json_at(tensors, i), *shape = json_get(x, "shape");
        char text[96] = "", a[24];
        size_t at = 0;
        for (size_t d = 0; shape && d < shape->n && at < sizeof text; d++)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%.0f", d ? " x " : "",
                                   json_number(json_at(shape, d), 0));
        table_cell(&t, "  %s", json_string(json_get(x, "name"), "?"));
        table_cell(&t, "%s", json_string(json_get(x, "type"), "?"));
        table_cell(&t, "%s", text);
        table_cell(&t, "%s", human_bytes(number(x, "bytes"), a));
    }
    title("tensors");
    table_print(&t, stdout, true);
}

static void print_all(const json *m, const settings *s) {
    uint64_t trained = number(json_get(m, "config"), "n_ctx_train");
    uint64_t n_ctx = s->context ? s->context : DEFAULT_CONTEXT;
    if (!s->context && trained && trained < n_ctx) n_ctx = trained;
    print_model(m);
    print_layers(json_get(m, "layers"));
    print_encoders(json_get(m, "encoders"));
    print_types(json_get(m, "types"));
    print_memory(json_get(m, "memory"), n_ctx);
    if (s->tensors) print_tensors(json_get(m, "tensors"));
}

static int run(settings *s, const char *const *args, size_t n) {
    (void)n;
    carat_error err = {0};
    runtime r = {0};
    json *m = NULL;
    arena *memory = arena_create(&err);
    char *text = NULL;
    bool ok = memory && runtime_open(&r, s, args[0], &err);
    if (ok) text = carat_engine_describe(r.engine, &err);
    ok = text && json_parse(memory, text, strlen(text), "the description", &m, &err);
    if (ok && s->json) puts(text);
    if (ok && !s->json) print_all(m, s);
    carat_string_free(text);
    arena_free(memory);
    runtime_close(&r);
    return ok ? EXIT_OK : report(&err);
}

const command command_inspect = {
    .name = "inspect",
    .summary = "show what a model is and what memory it needs",
    .usage = "MODEL",
    .about =
        "Shows a model's configuration, its layers, its encoders for pictures and sounds, the "
        "types of "
        "its tensors, and the memory that it needs on a GPU. Reads no weights and needs no device.",
    .examples = "  carat inspect gemma4:e2b\n"
                "  carat inspect model.gguf --context 32768\n"
                "  carat inspect nano --tensors\n",
    .groups = {&group},
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
