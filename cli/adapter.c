/* adapter: what a LoRA adapter is, and the same adapter in the other kind of file: PEFT's folder or
 * llama.cpp's GGUF. A model is needed since the sizes and the names of the matrices are its own;
 * its weights are not read.
 *
 * Flow: main.c and runtime.c before. */
#include "carat_adapter.h"
#include "cli.h"

#include <string.h>

static const option adapter_options[] = {
    OPTION("model", 'm', TEXT, model, "MODEL", "the model that the adapter was made for"),
    OPTION("json", 0, FLAG, json, NULL, "inspect: one JSON object"),
    OPTION("help", 'h', FLAG, help, NULL, "this text"),
    {0}};
static const option_group group = {"options", adapter_options};

static double number(const json *object, const char *key) {
    return json_number(json_get(object, key), 0);
}

static void print_adapter(const json *a, const runtime *r) {
    char text[24], other[24];
    table t = {.columns = "ll"};
    const json *targets = json_get(a, "targets");
    buf names = {0};
    for (size_t i = 0; targets && i < targets->n; i++)
        buf_printf(&names, "%s%s", i ? " " : "", json_string(&targets->items[i], ""));
    table_cell(&t, "model");
    table_cell(&t, "%s", r->info.name);
    table_cell(&t, "targets");
    table_cell(&t, "%s", names.data ? names.data : "none");
    table_cell(&t, "layers");
    if (number(a, "n_layer") > 0)
        table_cell(&t, "%.0f to %.0f of %u", number(a, "first_layer"),
                   number(a, "first_layer") + number(a, "n_layer") - 1, r->info.n_layer);
    else
        table_cell(&t, "none");
    table_cell(&t, "rank");
    table_cell(&t, "%.0f at most, alpha %g: counts %g%s", number(a, "rank"), number(a, "alpha"),
               number(a, "scale"), json_bool(json_get(a, "rslora"), false) ? " (rsLoRA)" : "");
    table_cell(&t, "size");
    table_cell(&t, "%s parameters, %s", human_count((uint64_t)number(a, "parameters"), text),
               human_bytes(4 * (uint64_t)number(a, "parameters"), other));
    if (number(a, "ignored") > 0) {
        table_cell(&t, "ignored");
        table_cell(&t, "%.0f pairs for K and V of layers that read another layer's",
                   number(a, "ignored"));
    }
    table_print(&t, stdout, false);
    buf_free(&names);
}

static bool inspect(const settings *s, const carat_adapter *adapter, const runtime *r,
                    carat_error *err) {
    char *text = carat_adapter_describe(adapter, err);
    arena *memory = text ? arena_create(err) : NULL;
    json *a;
    const bool ok = memory && json_parse(memory, text, strlen(text), "the adapter", &a, err);
    if (ok && s->json)
        puts(text);
    else if (ok)
        print_adapter(a, r);
    arena_free(memory);
    carat_string_free(text);
    return ok;
}

static int run(settings *s, const char *const *args, size_t n) {
    const bool convert = strcmp(args[0], "convert") == 0;
    if (!convert && strcmp(args[0], "inspect") != 0)
        return usage_error("adapter: there are inspect and convert, not '%s'", args[0]);
    if (n != (convert ? 3 : 2))
        return usage_error(convert ? "adapter: convert wants the adapter and the new file or folder"
                                   : "adapter: inspect wants one adapter");
    if (!s->model) return usage_error("adapter: --model says for which model it was made");
    carat_error err = {0};
    runtime r = {0};
    carat_adapter *adapter =
        runtime_open(&r, s, s->model, &err) ? carat_adapter_open(r.engine, args[1], &err) : NULL;
    bool ok = adapter != NULL;
    if (ok && convert) {
        ok = carat_adapter_save(adapter, args[2], &err);
        if (ok) printf("%s\n", args[2]);
    } else if (ok) {
        ok = inspect(s, adapter, &r, &err);
    }
    const int code = ok ? EXIT_OK : report(&err);
    carat_adapter_close(adapter);
    runtime_close(&r);
    return code;
}

const command command_adapter = {
    .name = "adapter",
    .summary = "look at a LoRA adapter, or convert it",
    .usage = "inspect|convert ADAPTER [OUT] --model MODEL",
    .about =
        "inspect says which matrices of which layers an adapter changes, its rank, alpha and size. "
        "convert writes it as llama.cpp's GGUF when OUT ends in .gguf, else as a folder for PEFT "
        "(adapter_model.safetensors, adapter_config.json). ADAPTER is a folder of PEFT's, its "
        ".safetensors file, or a GGUF.\n\n"
        "An adapter that does not fit the model is refused, and the message names the matrix.",
    .examples = "  carat adapter inspect facts --model nano\n"
                "  carat adapter convert facts facts.gguf --model nano\n"
                "  carat adapter convert style.gguf style --model gemma4:e2b\n",
    .groups = {&group},
    .min_args = 2,
    .max_args = 3,
    .run = run,
};
