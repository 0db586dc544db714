/* Ollama's store: names, finding models, layers, what is refused, listing. Works on stores made
 * for the test; the environment says where they are. */
#include "file/file.h"
#include "temp_dir.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Writes a file and the directories above it. */
static void write_file(const char *path, const char *text) {
    char above[600];
    carat_error err = {0};
    for (size_t i = 1; path[i]; i++) {
        if (path[i] != '/') continue;
        snprintf(above, sizeof above, "%.*s", (int)i, path);
        mkdir(above, 0700);
    }
    if (!file_write(path, text, strlen(text), &err)) fail_msg("%s", err.message);
}

/* Writes a blob into a store; returns the layer that names it. */
static const char *blob(const char *store, const char *kind, const char *text) {
    unsigned char hash[32];
    char hex[65], *layer = arena_alloc(memory, 512, 1);
    assert_non_null(layer);
    sha256(text, strlen(text), hash);
    for (int i = 0; i < 32; i++) sprintf(hex + 2 * i, "%02x", hash[i]);
    write_file(path_of("%s/blobs/sha256-%s", store, hex), text);
    bool config = strcmp(kind, "config") == 0;
    snprintf(layer, 512,
             "{\"mediaType\":\"application/vnd.%s%s\",\"digest\":\"sha256:%s\",\"size\":%zu}",
             config ? "docker.container.image.v1+json" : "ollama.image.", config ? "" : kind, hex,
             strlen(text));
    return layer;
}

static void manifest(const char *store, const char *where, const char *config, const char *layers) {
    char text[4096];
    snprintf(text, sizeof text, "{\"schemaVersion\":2,\"config\":%s,\"layers\":[%s]}", config,
             layers);
    write_file(path_of("%s/manifests/%s", store, where), text);
}

#define LIBRARY "registry.ollama.ai/library/"

/* Store "set" (OLLAMA_MODELS) and store "home/.ollama/models" ($HOME). */
static int setup(void **state) {
    if (memory_setup(state) || !make_dir()) return 1;
    setenv("OLLAMA_MODELS", path_of("set"), 1);
    setenv("HOME", path_of("home"), 1);
    const char *home = "home/.ollama/models", *set = "set";
    const char *config = blob(set, "config",
                              "{\"model_format\":\"gguf\",\"model_type\":\"5.1B\","
                              "\"file_type\":\"Q4_K_M\"}");
    const char *model = blob(set, "model", "GGUF one");
    char layers[2048];
    snprintf(layers, sizeof layers, "%s,%s,%s,%s,%s,%s", model,
             blob(set, "params", "{\"temperature\":1,\"top_k\":64,\"top_p\":0.95}\n"),
             blob(set, "system", "Be brief."), blob(set, "messages", "[]"),
             blob(set, "projector", "GGUF two"), blob(set, "license", "a license"));
    manifest(set, LIBRARY "gemma4/e2b", config, layers);
    manifest(set, LIBRARY "Mixed/Case-1.0", config, model);
    manifest(set, "hf.co/user/repo/Q4_K_M", config, model);
    manifest(set, "registry.ollama.ai/someone/own/latest", config, model);
    manifest(set, LIBRARY "cloud/latest", blob(set, "config", "{\"remote_host\":\"https://x\"}"),
             "");
    manifest(set, LIBRARY "mlx/latest", blob(set, "config", "{\"model_format\":\"safetensors\"}"),
             blob(set, "tensor", "t"));
    manifest(set, LIBRARY "tensors/latest", "null", blob(set, "tensor", "t"));
    manifest(set, LIBRARY "sizeless/latest", "null", "{\"digest\":\"x\"}");
    manifest(set, LIBRARY "nothing/latest", config, blob(set, "license", "a license"));
    write_file(path_of("set/manifests/" LIBRARY "broken/latest"), "{\"schema");
    write_file(path_of("set/manifests/" LIBRARY ".hidden/latest"), "{}");
    write_file(path_of("set/manifests/stray"), "not a directory");
    const char *here = blob(home, "model", "GGUF three");
    manifest(home, LIBRARY "only-home/latest", "null", here);
    manifest(home, LIBRARY "gemma4/e2b", "null", here); /* hidden by the other store's */
    return 0;
}

static int teardown(void **state) {
    char command[80];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    return memory_teardown(state) || system(command);
}

/* ---- names ---- */

static void test_names(void **state) {
    (void)state;
    static const char *const valid[] = {"gemma4",
                                        "gemma4:e2b",
                                        "library/gemma4",
                                        "user/model:tag",
                                        "hf.co/user/repo:Q4_K_M",
                                        "localhost:5000/ns/model",
                                        "localhost:5000/ns/model:tag",
                                        "https://hf.co/user/repo",
                                        "_a-b.c:_1.0-x",
                                        "UPPER:Case"};
    static const char *const invalid[] = {
        "",        ":",           "a:",       ":tag",           "/a",        "a/",
        "a//b",    "/",           "a/b/c/d",  "../a",           "a/../b",    "a/..",
        ".a",      "-a",          "a:.b",     "a:-b",           "a b",       "a\nb",
        "a:b:c",   "n.s/model",   "a/b:c/d",  "host/ns/model:", "m\xc3\xb6", "a\\b",
        "http://", "model.gguf/", "a:b/c:d:e"};
    for (size_t i = 0; i < COUNT(valid); i++)
        if (!ollama_name_valid(valid[i])) fail_msg("refused %s", valid[i]);
    for (size_t i = 0; i < COUNT(invalid); i++)
        if (ollama_name_valid(invalid[i])) fail_msg("accepted %s", invalid[i]);
    char name[100];
    memset(name, 'x', sizeof name);
    name[80] = 0;
    assert_true(ollama_name_valid(name));
    name[80] = 'x';
    name[81] = 0;
    assert_false(ollama_name_valid(name));
}

/* ---- finding ---- */

static ollama_model find(const char *name) {
    ollama_model m;
    carat_error err = {0};
    if (!ollama_find(memory, name, &m, &err)) fail_msg("%s: %s", name, err.message);
    return m;
}

static void refuse(const char *name, carat_code code, const char *why) {
    ollama_model m;
    carat_error err = {0};
    if (ollama_find(memory, name, &m, &err)) fail_msg("accepted %s", name);
    if (strstr(err.message, why) == NULL) fail_msg("%s: \"%s\"", name, err.message);
    assert_int_equal(err.code, code);
}

static void assert_holds(const char *path, const char *text) {
    source *s;
    char got[100] = "";
    carat_error err = {0};
    assert_true(source_open(memory, path, &s, &err));
    assert_true(source_read(s, 0, got, (size_t)s->size, &err));
    source_close(s);
    assert_string_equal(got, text);
}

static void test_layers(void **state) {
    (void)state;
    ollama_model m = find("gemma4:e2b");
    assert_holds(m.model, "GGUF one");
    assert_holds(m.projector, "GGUF two");
    assert_null(m.adapter);
    assert_string_equal(m.params, "{\"temperature\":1,\"top_k\":64,\"top_p\":0.95}\n");
    assert_string_equal(m.system, "Be brief.");
    assert_string_equal(m.messages, "[]");
    assert_string_equal(m.parameter_size, "5.1B");
    assert_string_equal(m.file_type, "Q4_K_M");
}

static void test_ways_to_write_a_name(void **state) {
    (void)state;
    static const char *const names[] = {"library/gemma4:e2b",
                                        "registry.ollama.ai/library/gemma4:e2b",
                                        "GEMMA4:E2B",
                                        "Registry.Ollama.AI/Library/Gemma4:e2b",
                                        "https://registry.ollama.ai/library/gemma4:e2b",
                                        "mixed:case-1.0",
                                        "Mixed:Case-1.0",
                                        "hf.co/user/repo:Q4_K_M",
                                        "hf.co/User/Repo:q4_k_m",
                                        "someone/own",
                                        "someone/own:latest"};
    for (size_t i = 0; i < COUNT(names); i++) assert_holds(find(names[i]).model, "GGUF one");
    assert_holds(find("only-home").model, "GGUF three");
    assert_null(find("only-home").params);
}

static void test_refused(void **state) {
    (void)state;
    refuse("../../etc", CARAT_E_ARGUMENT, "is not a model's name");
    refuse("cloud", CARAT_E_UNSUPPORTED, "runs on Ollama's servers");
    refuse("mlx", CARAT_E_UNSUPPORTED, "is stored as safetensors");
    refuse("tensors", CARAT_E_UNSUPPORTED, "is stored as safetensors");
    refuse("nothing", CARAT_E_FORMAT, "names no model file");
    refuse("broken", CARAT_E_FORMAT, "string without an end");
    refuse("gemma4", CARAT_E_NOT_FOUND, "no model \"gemma4\" in ");
    refuse("absent", CARAT_E_NOT_FOUND, path_of("set"));
    refuse("absent", CARAT_E_NOT_FOUND, path_of("home/.ollama/models"));
    refuse("absent", CARAT_E_NOT_FOUND, "/usr/share/ollama/.ollama/models");
}

static void test_damaged_layers(void **state) {
    (void)state;
    static const char *const digests[] = {
        "",
        "sha256:",
        "sha256:../../../../etc/passwd",
        "md5:0123",
        "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde",
        "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdefa",
        "sha256:../../../../../../../../../../../../../../../../../../../../etc/",
        "sha256/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"};
    char layer[512];
    for (size_t i = 0; i < COUNT(digests); i++) {
        snprintf(
            layer, sizeof layer,
            "{\"mediaType\":\"application/vnd.ollama.image.model\",\"digest\":\"%s\",\"size\":1}",
            digests[i]);
        manifest("set", LIBRARY "damaged/latest", "null", layer);
        refuse("damaged", CARAT_E_FORMAT, "bad digest");
    }
    const char *good = blob("set", "model", "GGUF four");
    snprintf(layer, sizeof layer, "%s", good);
    char *size = strstr(layer, "\"size\":9");
    assert_non_null(size);
    size[7] = '8';
    manifest("set", LIBRARY "damaged/latest", "null", layer);
    refuse("damaged", CARAT_E_FORMAT, "has 9 bytes instead of 8; pull the model again");
    memcpy(size, "\"siz_\"", 6);
    manifest("set", LIBRARY "damaged/latest", "null", layer);
    refuse("damaged", CARAT_E_FORMAT, "gives no size");
    char *digest = strstr(strcpy(layer, good), "sha256:");
    digest[7] = digest[7] == '0' ? '1' : '0';
    manifest("set", LIBRARY "damaged/latest", "null", layer);
    refuse("damaged", CARAT_E_NOT_FOUND, "is missing; pull the model again");
    memcpy(strcpy(layer, good) + (digest - layer), "sha256-", 7); /* the other way to write it */
    manifest("set", LIBRARY "damaged/latest", "null", layer);
    assert_holds(find("damaged").model, "GGUF four");
    unlink(path_of("set/manifests/" LIBRARY "damaged/latest"));
}

static void test_without_variable(void **state) {
    (void)state;
    unsetenv("OLLAMA_MODELS");
    assert_holds(find("gemma4:e2b").model, "GGUF three");
    refuse("mixed:case-1.0", CARAT_E_NOT_FOUND, path_of("home/.ollama/models"));
    unsetenv("HOME");
    refuse("gemma4:e2b", CARAT_E_NOT_FOUND, "/usr/share/ollama/.ollama/models");
    setenv("HOME", path_of("home"), 1);
    setenv("OLLAMA_MODELS", path_of("set"), 1);
}

static void test_config_is_optional(void **state) {
    (void)state;
    char config[512];
    const char *model = blob("set", "model", "GGUF one");
    snprintf(config, sizeof config, "%s", blob("set", "config", "{\"model_format\":\"gguf\" }"));
    char *digest = strstr(config, "sha256:");
    manifest("set", LIBRARY "damaged/latest", config, model);
    assert_holds(find("damaged").model, "GGUF one");
    digest[7] = digest[7] == '0' ? '1' : '0'; /* a blob that is not there */
    manifest("set", LIBRARY "damaged/latest", config, model);
    assert_holds(find("damaged").model, "GGUF one");
    assert_null(find("damaged").file_type);
    digest[7] = '.';
    manifest("set", LIBRARY "damaged/latest", config, model);
    refuse("damaged", CARAT_E_FORMAT, "bad digest");
    manifest("set", LIBRARY "damaged/latest", blob("set", "config", "{"), model);
    refuse("damaged", CARAT_E_FORMAT, "the model's config: expected a key");
    unlink(path_of("set/manifests/" LIBRARY "damaged/latest"));
}

/* ---- listing ---- */

static void test_list(void **state) {
    (void)state;
    static const char *const names[] = {
        "Mixed:Case-1.0", "gemma4:e2b", "hf.co/user/repo:Q4_K_M", "mlx", "nothing", "only-home",
        "someone/own",    "tensors"};
    ollama_entry *e;
    size_t n;
    carat_error err = {0};
    assert_true(ollama_list(memory, &e, &n, &err));
    assert_int_equal(n, COUNT(names));
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(e[i].name, names[i]);
        assert_int_equal(strlen(e[i].digest), 12);
        assert_true(e[i].modified > 1700000000);
        bool model =
            strcmp(names[i], "mlx") && strcmp(names[i], "nothing") && strcmp(names[i], "tensors");
        assert_int_equal(e[i].path != NULL, model);
    }
    assert_holds(e[1].path, "GGUF one"); /* of the first store */
    assert_int_equal(e[1].bytes, 8 + 42 + 9 + 2 + 8 + 9);
    for (size_t i = 0; i < n; i++) { /* each name leads to its model */
        if (e[i].path) assert_string_equal(find(e[i].name).model, e[i].path);
    }
}

static void test_no_store(void **state) {
    (void)state;
    ollama_entry *e;
    size_t n = 1;
    carat_error err = {0};
    setenv("OLLAMA_MODELS", path_of("none"), 1);
    setenv("HOME", path_of("none"), 1);
    assert_true(ollama_list(memory, &e, &n, &err));
    assert_int_equal(n, 0);
    setenv("HOME", path_of("home"), 1);
    setenv("OLLAMA_MODELS", path_of("set"), 1);
}

/* ---- memory ---- */

/* Every call for memory fails once, with arenas that are full to every degree before. */
static void test_out_of_memory(void **state) {
    (void)state;
    for (size_t full = 0; full < 4096; full += 32) {
        for (int listing = 0; listing < 2; listing++) {
            bool ok = false;
            for (long at = 0; !ok; at++) {
                carat_error err = {0};
                ollama_model m;
                ollama_entry *e;
                size_t n;
                arena *a = arena_create(&err);
                assert_non_null(arena_alloc(a, full, 1));
                n_malloc = 0;
                failing_at = at;
                ok = listing
                         ? ollama_list(a, &e, &n, &err)
                         : ollama_find(a, full % 64 ? "MIXED:case-1.0" : "gemma4:e2b", &m, &err);
                failing_at = -1;
                assert_int_equal(err.code, ok ? CARAT_OK : CARAT_E_MEMORY);
                arena_free(a);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_ways_to_write_a_name),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_damaged_layers),
        cmocka_unit_test(test_config_is_optional),
        cmocka_unit_test(test_without_variable),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_no_store),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
