/* list: the models on this computer.
 *
 * Flow: main.c before; carat_model_list() says what is there. */
#include "cli.h"

#include <string.h>
#include <time.h>

static const option list_options[] = {
    OPTION("json", 0, FLAG, json, NULL, "print the list as JSON, with paths"),
    OPTION("help", 'h', FLAG, help, NULL, "this text"),
    {0}};
static const option_group group = {"options", list_options};

static const char *age(double modified, char text[32]) {
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"year", 365.25 * 86400}, {"month", 30.44 * 86400}, {"week", 7 * 86400},
                 {"day", 86400},           {"hour", 3600},           {"minute", 60}};
    double seconds = difftime(time(NULL), (time_t)modified);
    if (modified <= 0) return "";
    for (size_t i = 0; i < COUNT(units); i++) {
        long n = (long)(seconds / units[i].seconds);
        if (n < 1) continue;
        snprintf(text, 32, "%ld %s%s ago", n, units[i].name, n == 1 ? "" : "s");
        return text;
    }
    return "now";
}

/* What a model takes besides text, as its header says; "" when it cannot be read. */
static const char *takes(const char *name) {
    carat_engine_desc desc;
    carat_model_info info = {0};
    carat_model *model = carat_model_find(name, &desc, NULL);
    carat_engine *engine = model ? carat_engine_open(&desc, NULL, NULL) : NULL;
    if (engine) carat_engine_info(engine, &info);
    carat_engine_close(engine);
    carat_model_free(model);
    return !engine                             ? ""
           : info.has_vision && info.has_audio ? "text, pictures, sounds"
           : info.has_vision                   ? "text, pictures"
           : info.has_audio                    ? "text, sounds"
                                               : "text";
}

static void print_table(const json *models) {
    table t = {.columns = "llrlll"};
    static const char *const head[] = {"name", "id", "size", "modified", "source", "takes"};
    for (size_t i = 0; i < COUNT(head); i++) table_cell(&t, "%s", head[i]);
    for (size_t i = 0; i < models->n; i++) {
        const json *m = json_at(models, i);
        char size[24], when[32];
        table_cell(&t, "%s", json_string(json_get(m, "name"), "?"));
        table_cell(&t, "%s", json_string(json_get(m, "digest"), ""));
        table_cell(&t, "%s", human_bytes((uint64_t)json_number(json_get(m, "bytes"), 0), size));
        table_cell(&t, "%s", age(json_number(json_get(m, "modified"), 0), when));
        table_cell(&t, "%s", json_string(json_get(m, "source"), ""));
        table_cell(&t, "%s", takes(json_string(json_get(m, "name"), "")));
    }
    table_print(&t, stdout, true);
}

static int run(settings *s, const char *const *args, size_t n) {
    (void)args;
    (void)n;
    carat_error err = {0};
    char *text = carat_model_list(&err);
    arena *memory = arena_create(&err);
    json *models = NULL;
    bool ok = text && memory && json_parse(memory, text, strlen(text), "the list", &models, &err);
    if (ok && s->json) puts(text);
    if (ok && !s->json && models->n == 0)
        puts("no models; `ollama pull gemma4:e2b` brings one, and any .gguf file will do");
    if (ok && !s->json && models->n) print_table(models);
    arena_free(memory);
    carat_string_free(text);
    return ok ? EXIT_OK : report(&err);
}

const command command_list = {
    .name = "list",
    .summary = "list the models on this computer",
    .usage = "",
    .about = "Lists the models in Ollama's store ($OLLAMA_MODELS, ~/.ollama/models, "
             "/usr/share/ollama/.ollama/models) and the one that comes with carat. Every name can "
             "be given where MODEL is asked for; so can the path of any .gguf file.",
    .examples = "  carat list\n"
                "  carat list --json\n",
    .groups = {&group},
    .min_args = 0,
    .max_args = 0,
    .run = run,
};
