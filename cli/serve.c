/* serve: the command's options and help. What it does is in serve_run.c, or in serve_none.c where
 * carat is built without libmicrohttpd.
 *
 * Flow: main.c before; serve_start() after. */
#include "serve.h"

#include <string.h>

static const option server_options[] = {
    OPTION("host", 0, TEXT, host, "ADDRESS",
           "where to listen; default: 127.0.0.1, which only this computer reaches"),
    OPTION("port", 'p', U32, port, "N", "default: 11435; 0: any that is free", .max = 65535),
    OPTION("app", 0, TEXT, app, "DIR", "the web app's folder; default: the one that was built"),
    OPTION("model", 'm', TEXT, preload, "MODEL",
           "load this one now; requests that name no model mean it"),
    OPTION("allow-host", 0, LIST, allow_hosts, "NAME",
           "answer to this name too; it stands in the address of whoever asks from elsewhere"),
    OPTION("allow-origin", 0, LIST, allow_origins, "ORIGIN",
           "let web pages of this origin use carat, such as https://example.com; *: all pages"),
    {0}};
static const option answer_options[] = {
    OPTION("thinking", 0, FLAG, thinking, NULL,
           "let the model think first when a request does not say"),
    OPTION("image-tokens", 0, U32, image_tokens, "N",
           "tokens that a picture may take: 70, 140, 280 (the default), 560 or 1120", .max = 1120),
    OPTION("context", 'c', U32, context, "N",
           "tokens of context; default: 8192, or what the model or the memory allows", .min = 1,
           .max = 1 << 30),
    OPTION("waiting", 0, U32, waiting, "N",
           "requests that may wait for their turn; more are refused; default: 16", .min = 1,
           .max = 1000),
    OPTION("idle", 0, U32, idle, "SECONDS",
           "close a connection on which nothing moves for so long; default: 60", .min = 1,
           .max = 86400),
    {0}};
static const option general_options[] = {
    OPTION("device", 0, CHOICE, device, "auto|gpu|cpu",
           "where to compute: the best GPU or else the CPU (auto, the default), a GPU or an "
           "error, or the CPU reference"),
    OPTION("template", 0, CHOICE, template_, "small|large",
           "chat template of the small models (E2B, E4B) or of the large ones; default: by the "
           "model's shape"),
    OPTION("adapter", 0, LIST, adapters, "FILE[:SCALE]",
           "LoRA adapter to add to the model; in place of its own; may be given again"),
    OPTION("verbose", 'v', FLAG, verbose, NULL, "a line for each request to stderr"),
    OPTION("help", 'h', FLAG, help, NULL, "this text"),
    {0}};
static const option_group server_group = {"server", server_options};
static const option_group answer_group = {"answers", answer_options};
static const option_group general_group = {"general", general_options};

/* SCHEME://HOST[:PORT], as browsers send it, or "*". */
static bool is_origin(const char *text) {
    const char *host = strstr(text, "://");
    return strcmp(text, "*") == 0 || strcmp(text, "null") == 0 ||
           (host && host[3] && !strchr(host + 3, '/'));
}

static int run(settings *s, const char *const *args, size_t n) {
    for (size_t i = 0; i < s->allow_origins.n; i++)
        if (!is_origin(s->allow_origins.items[i]))
            return usage_error("serve: --allow-origin wants an origin such as https://example.com, "
                               "without a path, not '%s'",
                               s->allow_origins.items[i]);
    return serve_start(s, args, n);
}

const command command_serve = {
    .name = "serve",
    .summary = "serve the web app, the models' files and an HTTP API",
    .usage = "[MODEL...]",
    .about =
        "Serves the web app and, for it, the files of the models in Ollama's store and of those "
        "given here; and the HTTP APIs of OpenAI (/v1/chat/completions, /v1/completions, "
        "/v1/models) and Ollama (/api/chat, /api/generate, /api/tags, /api/show, /api/ps) over "
        "carat's own engine. A model is loaded when a request names it, one at a time. Only this "
        "computer reaches it, and web pages of other sites don't, unless the options say "
        "otherwise. Ctrl-C ends it.",
    .examples = "  carat serve\n"
                "  carat serve --model gemma4:e2b\n"
                "  carat serve ~/models/my-gemma.gguf --port 8080\n",
    .groups = {&server_group, &answer_group, &general_group},
    .min_args = 0,
    .max_args = SIZE_MAX,
    .run = run,
};
