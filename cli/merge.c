/* merge: a model and adapters become one GGUF. Needs no GPU and holds no weights.
 *
 * Flow: main.c and runtime.c before. */
#include "cli.h"

#include "carat_adapter.h"

#include <string.h>

static const option merge_options[] = {
    OPTION("out", 'o', TEXT, out, "FILE", "the new file; written beside it, then renamed"),
    OPTION("type", 0, CHOICE, type, "keep|q8_0|f16",
           "how matrices are stored: each as it was (keep, the default), or all as Q8_0 or F16"),
    OPTION("help", 'h', FLAG, help, NULL, "this text"),
    {0}};
static const option_group group = {"options", merge_options};

static bool open_engine(runtime *r, settings *s, const char *const *args, size_t n,
                        carat_error *err) {
    if (n - 1 > MAX_STOPS)
        return fail(err, CARAT_E_ARGUMENT, "merge: more than %d adapters", MAX_STOPS);
    for (size_t i = 1; i < n; i++) s->adapters.items[s->adapters.n++] = args[i];
    r->device = carat_device_open("cpu", err);
    return r->device && runtime_open(r, s, args[0], err);
}

static void print_size(const char *path) {
    char text[24];
    FILE *f = fopen(path, "rb");
    if (f && fseeko(f, 0, SEEK_END) == 0)
        printf("%s: %s\n", path, human_bytes((uint64_t)ftello(f), text));
    if (f) fclose(f);
}

static int run(settings *s, const char *const *args, size_t n) {
    if (!s->out) return usage_error("merge: --out FILE says where to write");
    carat_error err = {0};
    runtime r = {0};
    interrupt_install(false);
    interrupt_install_term();
    bool ok = open_engine(&r, s, args, n, &err);
    ok = ok && runtime_finish(carat_merge(r.engine, NULL, 0, s->out, s->type, &err), "merging",
                              NULL, &err);
    if (ok) print_size(s->out);
    const int code = ok ? EXIT_OK : report(&err);
    runtime_close(&r);
    return code;
}

const command command_merge = {
    .name = "merge",
    .summary = "write a model with LoRA adapters added to it",
    .usage = "MODEL ADAPTER[:SCALE]... --out FILE",
    .about = "Adds adapters to the matrices of a model and writes the sum as one GGUF file, which "
             "then runs at the model's own speed, and in other programs. Everything else in the "
             "model's file is copied, pictures' and sounds' encoders too; of a split set one file "
             "is made.\n\n"
             "A matrix in a quantised format is rounded to it again, which an adapter of small "
             "values may not survive; --type q8_0 or f16 keeps them, in a larger file. Without an "
             "adapter the model is written in that type.",
    .examples = "  carat merge nano facts --out nano-facts.gguf\n"
                "  carat merge gemma4:e2b style.gguf:0.7 facts.gguf --out both.gguf --type q8_0\n",
    .groups = {&group},
    .min_args = 1,
    .max_args = SIZE_MAX,
    .run = run,
};
