/* Files of adapters: what is written is read again by both kinds, patterns and rsLoRA, and files
 * that are wrong, each refused with a sentence that names what is wrong. */
#include "golden_lora.h"

#include <sys/stat.h>
#include <unistd.h>

#define CONFIG "{\"peft_type\":\"LORA\",\"r\":8,\"lora_alpha\":16"

static lora_fixture f;
static char dir[64];

static int setup(void **state) {
    (void)state;
    open_lora(&f, 1e-5);
    f.g.n_compared = 1;
    snprintf(dir, sizeof dir, "/tmp/carat-lora-%ld", (long)getpid());
    return mkdir(dir, 0700);
}

static int teardown(void **state) {
    (void)state;
    close_lora(&f);
    return rmdir(dir);
}

static const char *in_dir(const char *name) {
    static char path[2][128];
    static int turn;
    turn ^= 1;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static float *last_logits(const lora *l) {
    const lora_use use = {l, 1};
    float *logits = golden_alloc(&f.g, N_VOCAB, sizeof *logits);
    text_cpu_adapt(f.text, &use, 1);
    REQUIRE(text_cpu_forward(f.text, f.ids[0], 30, 0, 1, logits, NULL, &err));
    return logits;
}

static double distance_of(const float *is, const float *want) {
    distance d = {0};
    distance_add(&d, is, want, N_VOCAB);
    return sqrt(d.diff / d.norm);
}

static lora *open_path(const char *path) {
    lora *l;
    REQUIRE(lora_open(f.g.memory, f.g.model, path, &l, &err));
    return l;
}

static void same_values(const lora *a, const lora *b) {
    assert_int_equal(a->n_value, b->n_value);
    assert_memory_equal(a->values, b->values, a->n_value * sizeof(float));
    for (uint32_t i = 0; i < lora_slots(a); i++) {
        assert_int_equal(lora_slot(a, i)->rank, lora_slot(b, i)->rank);
        assert_true(lora_slot(a, i)->scale == lora_slot(b, i)->scale);
    }
}

/* PEFT -> ours -> PEFT and GGUF: the same values and the same logits. */
static void both_kinds(void **state) {
    (void)state;
    REQUIRE(lora_write_peft(f.adapter, dir, &err));
    REQUIRE(lora_write_gguf(f.adapter, in_dir("a.gguf"), &err));
    same_values(f.adapter, open_path(dir));
    lora *peft = open_path(in_dir("")), *theirs = open_path(in_dir("a.gguf"));
    same_values(f.adapter, peft);
    same_values(f.adapter, theirs);
    assert_memory_equal(last_logits(peft), last_logits(theirs), N_VOCAB * sizeof(float));
    unlink(in_dir("a.gguf"));
    unlink(in_dir("adapter_model.safetensors"));
    unlink(in_dir("adapter_config.json"));
}

/* Every slot, ranks and alphas that differ, rsLoRA; a rank above 64. */
static lora *odd_adapter(bool rslora) {
    lora *l;
    REQUIRE(lora_empty(f.g.memory, f.g.model, &l, &err));
    l->rslora = rslora;
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        lora_pair *p = lora_slot(l, i);
        if (!p->n_col || i % 3 == 1) continue;
        p->rank = i == 0 ? 100 : 2 + i % 5;
        p->alpha = i % 7 == 0 ? 3 : 8;
    }
    l->embed.rank = 3, l->embed.alpha = 8;
    l->head.rank = 5, l->head.alpha = 8;
    REQUIRE(lora_allocate(f.g.memory, l, &err));
    for (uint64_t i = 0; i < l->n_value; i++) l->values[i] = 0.1f * (lora_uniform(1, i) - 0.5f);
    return l;
}

static void odd_adapters(void **state) {
    (void)state;
    for (int rslora = 0; rslora < 2; rslora++) {
        const lora *l = odd_adapter(rslora);
        REQUIRE(lora_write_peft(l, dir, &err));
        REQUIRE(lora_write_gguf(l, in_dir("a.gguf"), &err));
        const lora *peft = open_path(in_dir("adapter_model.safetensors"));
        const lora *theirs = open_path(in_dir("a.gguf"));
        same_values(l, peft);
        assert_int_equal(peft->rslora, rslora);
        const float *want = last_logits(l);
        assert_memory_equal(last_logits(peft), want, N_VOCAB * sizeof *want);
        assert_true(distance_of(last_logits(theirs), want) < 1e-5);
        text_cpu_adapt(f.text, NULL, 0);
        unlink(in_dir("a.gguf"));
    }
    unlink(in_dir("adapter_model.safetensors"));
    unlink(in_dir("adapter_config.json"));
}

/* ---- wrong files ---- */

/* A safetensors file with the given pair: A [ra, ca], B [rb, cb], of values 1. */
static void pair_file(buf *b, const char *module, const char *ends[2], const uint32_t n[4]) {
    buf header = {0};
    const uint32_t first = n[0] * n[1] * 4, all = first + n[2] * n[3] * 4;
    const float one = 1;
    buf_printf(&header,
               "{\"%s%s\":{\"dtype\":\"F32\",\"shape\":[%u,%u],\"data_offsets\":[0,%u]},"
               "\"%s%s\":{\"dtype\":\"F32\",\"shape\":[%u,%u],\"data_offsets\":[%u,%u]}}",
               module, ends[0], n[0], n[1], first, module, ends[1], n[2], n[3], first, all);
    for (int i = 0; i < 8; i++) buf_put(b, &(char){(char)(header.len >> 8 * i)}, 1);
    buf_put(b, header.data, header.len);
    for (uint32_t i = 0; i < all / 4; i++) buf_put(b, &one, sizeof one);
    buf_free(&header);
}

static bool open_pair(const char *module, const uint32_t n[4], const char *config, lora **out) {
    const char *ends[] = {".lora_A.weight", ".lora_B.weight"};
    buf b = {0};
    source *s;
    pair_file(&b, module, ends, n);
    err = (carat_error){0};
    REQUIRE(source_memory(f.g.memory, "pair", b.data, b.len, &s, &err));
    const bool ok = lora_open_peft(f.g.memory, f.g.model, s, config, strlen(config), out, &err);
    buf_free(&b);
    return ok;
}

static void refused(const char *module, const uint32_t n[4], const char *config, const char *why) {
    lora *l;
    if (open_pair(module, n, config, &l)) fail_msg("%s was taken", module);
    if (!strstr(err.message, why)) fail_msg("\"%s\" does not say \"%s\"", err.message, why);
}

#define LAYER "base_model.model.model.language_model.layers."

static void wrong_files(void **state) {
    (void)state;
    const uint32_t good[] = {4, 256, 256, 4}, rank_0[] = {0, 256, 256, 0};
    const uint32_t narrow[] = {4, 128, 256, 4}, ranks[] = {4, 256, 256, 8};
    const uint32_t huge[] = {1025, 256, 256, 1025}, short_b[] = {4, 256, 100, 4};
    const char *q = LAYER "0.self_attn.q_proj", *config = CONFIG "}";
    lora *l;
    assert_true(open_pair(q, good, config, &l));
    assert_true(l->n_value == 2048);
    refused(q, narrow, config, "0.self_attn.q_proj.lora_A.weight is [4, 128]");
    refused(q, narrow, config, "another model");
    refused(q, short_b, config, "q_proj.lora_B.weight is [100, 4]");
    refused(q, ranks, config, "rank of 8");
    refused(q, rank_0, config, "rank of 0");
    refused(q, huge, config, "rank of 1025");
    refused(LAYER "10.self_attn.q_proj", good, config, "layers.10.self_attn.q_proj");
    refused("base_model.model.model.vision_tower.layers.0.q_proj", good, config, "vision_tower");
    refused(q, good, CONFIG ",\"use_dora\":true}", "DoRA");
    refused(q, good, CONFIG ",\"bias\":\"all\"}", "biases");
    refused(q, good, CONFIG ",\"modules_to_save\":[\"lm_head\"]}", "modules_to_save");
    refused(q, good, "{\"peft_type\":\"LORA\",\"r\":1000000}", "rank of 1000000");
    refused(q, good, "{\"peft_type\":\"LORA\",\"r\":0}", "rank of 0");
    refused(q, good, "{\"peft_type\":\"IA3\"}", "not LORA");
    refused(q, good, "{", "adapter_config.json");
    refused(q, good, CONFIG ",\"alpha_pattern\":{\"(q|k)_proj\":3}}", "regular expression");
    refused(q, good, "{\"peft_type\":\"LORA\",\"r\":8,\"lora_alpha\":-1}", "alpha");
}

/* K of a layer that reads another's: other tools train it, it does nothing. */
static void ignored(void **state) {
    (void)state;
    const uint32_t k[] = {4, 256, 64, 4};
    lora *l;
    assert_false(open_pair(LAYER "5.self_attn.k_proj", k, CONFIG "}", &l));
    assert_non_null(strstr(err.message, "there is no adapter in it"));
}

static void patterns(void **state) {
    (void)state;
    const uint32_t good[] = {4, 256, 256, 4};
    const char *q = LAYER "0.self_attn.q_proj";
    lora *l;
    assert_true(open_pair(q, good, CONFIG ",\"use_rslora\":true}", &l));
    assert_true(lora_at(l, 0, LORA_Q)->scale == 8);
    assert_true(open_pair(q, good, CONFIG ",\"alpha_pattern\":{\"k_proj\":1,\"q_proj\":2}}", &l));
    assert_true(lora_at(l, 0, LORA_Q)->scale == 0.5f);
    assert_true(open_pair(q, good, CONFIG ",\"alpha_pattern\":{\"proj\":2}}", &l));
    assert_true(lora_at(l, 0, LORA_Q)->scale == 4);
}

static void wrong_plans(void **state) {
    (void)state;
    lora *l;
    const lora_plan plans[] = {{.rank = 0, .target = {true}},
                               {.rank = 1000000, .target = {true}},
                               {.rank = 4},
                               {.rank = 4, .target = {true}, .first = 4, .end = 2},
                               {.rank = 4, .target = {true}, .end = 11}};
    for (size_t i = 0; i < COUNT(plans); i++) {
        err = (carat_error){0};
        assert_false(lora_create(f.g.memory, f.g.model, &plans[i], &l, &err));
        assert_int_equal(err.code, CARAT_E_ARGUMENT);
    }
    err = (carat_error){0};
    assert_false(lora_open(f.g.memory, f.g.model, "models/nano.gguf", &l, &err));
    assert_non_null(strstr(err.message, "no LoRA adapter"));
    err = (carat_error){0};
    assert_false(lora_open(f.g.memory, f.g.model, "/nowhere/adapter.gguf", &l, &err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_kinds), cmocka_unit_test(odd_adapters), cmocka_unit_test(wrong_files),
        cmocka_unit_test(ignored),    cmocka_unit_test(patterns),     cmocka_unit_test(wrong_plans),
    };
    return cmocka_run_group_tests_name("lora", tests, setup, teardown);
}
