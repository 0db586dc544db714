/* The CPU vision encoder against golden values of independent implementations: patches, tower,
 * soft tokens, last logits and greedy answers. Bounds: patches within 1 level, 1e-4 relative error
 * of each tensor, equal greedy ids. */
#include "golden_soft.h"

#include "media/media.h"
#include "picture.h"

#include <stdlib.h>

#define BOUND      1e-4
#define SOFT_TOKEN 17 /* nano's <|image|> */

typedef struct fixture {
    golden g;
    text_cpu *text;
    vision *vision;
} fixture;

static void open_nano(fixture *f) {
    golden_open(&f->g, "models/nano.gguf", "tests/golden/nano/vision", BOUND);
    f->text = golden_cpu(&f->g, SOFT_CTX);
    const model *m = f->g.model;
    REQUIRE(vision_open(f->g.memory, m->gguf, m->config.n_embd, &f->vision, &err));
    golden_load(&f->g, f->vision->matrices);
}

static void close_fixture(fixture *f) {
    text_cpu_free(f->text);
    golden_close(&f->g);
}

/* ---- patches ---- */

static image_patches prepare(golden *g, const char *file, const vision *v, uint32_t budget) {
    char path[256];
    uint32_t width, height;
    image_patches p;
    snprintf(path, sizeof path, "tests/golden/nano/%s", file);
    uint8_t *rgb = picture_load(path, &width, &height);
    if (!rgb) fail_msg("cannot read %s", path);
    REQUIRE(image_prepare(g->memory, rgb, width, height, v->config.side, v->config.pool, budget, &p,
                          &err));
    picture_free(rgb);
    return p;
}

/* The golden tensor of bytes `name`, if there is one. */
static const uint8_t *golden_bytes(golden *g, const char *name, size_t n) {
    const safetensor *t = safetensors_find(g->tensors, name);
    if (!t) return NULL;
    assert_string_equal(t->dtype, "U8");
    assert_int_equal(t->size, n);
    uint8_t *bytes = golden_alloc(g, n, 1);
    REQUIRE(source_read(g->tensors->src, t->offset, bytes, n, &err));
    return bytes;
}

static uint32_t check_patches(golden *g, const char *name, const image_patches *p) {
    const size_t n = (size_t)p->n_col * p->n_row * 768;
    const uint8_t *want = golden_bytes(g, name, n);
    if (!want) return 0;
    for (size_t i = 0; i < n; i++)
        if (abs(p->data[i] - want[i]) > 1)
            fail_msg("%s: byte %zu is %d, not %d", name, i, p->data[i], want[i]);
    return 1;
}

/* ---- the encoder ---- */

typedef struct tower {
    golden *g;
    const char *name; /* golden tensor */
} tower;

static void check_tower(void *user, const char *name, int il, const float *data, uint32_t n_tok,
                        uint32_t width) {
    const tower *t = user;
    (void)il;
    if (!strcmp(name, "tower")) golden_compare(t->g, t->name, data, n_tok, width);
}

/* Soft tokens [n, n_out]; `tower_name` NULL: not compared. */
static float *encode(golden *g, const vision *v, const image_patches *p, const char *tower_name,
                     uint32_t *n) {
    tower check = {g, tower_name};
    const tap taps = {check_tower, &check};
    vision_cpu *t;
    *n = vision_soft_tokens(v, p->n_col, p->n_row);
    float *soft = golden_alloc(g, (size_t)*n * v->config.n_out, sizeof *soft);
    REQUIRE(vision_cpu_create(v, p->data, p->n_col, p->n_row, tower_name ? &taps : NULL, &t, &err));
    for (bool finished = false; !finished;) vision_cpu_advance(t, soft, &finished);
    vision_cpu_free(t);
    return soft;
}

/* ---- nano ---- */

/* Golden tensors are called tower.NAME.BUDGET and so on. Returns how many patches were compared. */
static uint32_t check_picture(fixture *f, const json *c, const char *budget) {
    golden *g = &f->g;
    char names[4][64];
    static const char *const kinds[4] = {"patches", "tower", "embed", "logits"};
    for (int i = 0; i < 4; i++)
        snprintf(names[i], sizeof names[i], "%s.%s.%s", kinds[i],
                 json_string(json_get(c, "name"), ""), budget);
    const bool stored = safetensors_find(g->tensors, names[1]) != NULL;
    const json *b = json_get(json_get(c, "budgets"), budget);
    const json *grid = json_get(b, "grid");
    const image_patches p =
        prepare(g, json_string(json_get(c, "file"), ""), f->vision, (uint32_t)atoi(budget));
    assert_int_equal(p.n_col, json_number(json_at(grid, 0), 0));
    assert_int_equal(p.n_row, json_number(json_at(grid, 1), 0));
    const uint32_t n_compared = check_patches(g, names[0], &p);
    uint32_t n;
    const float *soft = encode(g, f->vision, &p, stored ? names[1] : NULL, &n);
    assert_int_equal(n, json_number(json_get(b, "soft_tokens"), 0));
    if (stored) golden_compare(g, names[2], soft, n, f->vision->config.n_out);
    golden_answer(g, f->text, json_get(b, "ids"), json_get(b, "greedy_ids"), SOFT_TOKEN, soft, n,
                  true, stored ? names[3] : NULL);
    return n_compared;
}

static void nano_70(void **state) {
    (void)state;
    fixture f;
    open_nano(&f);
    uint32_t n_patches = 0;
    assert_int_equal(f.g.json->n, 10);
    for (size_t i = 0; i < f.g.json->n; i++)
        n_patches += check_picture(&f, &f.g.json->items[i], "70");
    assert_int_equal(n_patches, 2);
    assert_int_equal(f.g.n_compared, 30);
    close_fixture(&f);
}

/* At 280 soft tokens only the answers are stored. A square, a wide and a tall picture: a second
 * each on two cores; the others say nothing more. */
static void nano_280(void **state) {
    (void)state;
    fixture f;
    open_nano(&f);
    uint32_t n = 0;
    for (size_t i = 0; i < f.g.json->n; i++) {
        const json *c = &f.g.json->items[i];
        const char *name = json_string(json_get(c, "name"), "");
        if (strcmp(name, "shapes_9") != 0 && strcmp(name, "gradient") != 0 &&
            strcmp(name, "tall") != 0)
            continue;
        check_picture(&f, c, "280");
        n++;
    }
    assert_int_equal(n, 3);
    f.g.n_compared = n;
    close_fixture(&f);
}

/* ---- the family: a model and its projector file ---- */

static void check_relative(const char *name, bool standardize) {
    fixture f;
    golden *g = &f.g;
    gguf *file;
    char path[128];
    golden_open_relative(g, name, BOUND);
    f.text = golden_cpu(g, SOFT_CTX);
    snprintf(path, sizeof path, "tests/golden/family/%s-mmproj.gguf", name);
    REQUIRE(gguf_open(g->memory, path, &file, &err));
    const model_config *c = &g->model->config;
    REQUIRE(vision_open(g->memory, file, c->n_embd, &f.vision, &err));
    golden_load(g, f.vision->matrices);
    assert_int_equal(f.vision->config.standardize, standardize);

    const json *picture = json_get(g->json, "picture"), *grid = json_get(picture, "grid");
    assert_int_equal(c->vision_bidirectional, json_bool(json_get(picture, "bidirectional"), false));
    image_patches p = {.n_col = (uint32_t)json_number(json_at(grid, 0), 0),
                       .n_row = (uint32_t)json_number(json_at(grid, 1), 0)};
    p.data = golden_bytes(g, "picture.patches", (size_t)p.n_col * p.n_row * 768);
    assert_non_null(p.data);
    uint32_t n;
    const float *soft = encode(g, f.vision, &p, "picture.tower", &n);
    golden_compare(g, "picture.embed", soft, n, c->n_embd);

    int32_t *tokens;
    const uint32_t n_tok = golden_ids(g, json_get(picture, "ids"), &tokens);
    const int32_t id = (int32_t)json_number(json_get(picture, "soft_token_id"), -1);
    const soft_span span = golden_span(tokens, n_tok, id, soft, n, true);
    const text_input in = {.tokens = tokens, .n_tok = n_tok, .spans = &span, .n_span = 1};
    float *logits = golden_alloc(g, (size_t)n_tok * c->n_vocab, sizeof *logits);
    REQUIRE(text_cpu_forward_soft(f.text, &in, n_tok, logits, NULL, &err));
    golden_compare(g, "picture.logits", logits, n_tok, c->n_vocab);
    assert_int_equal(g->n_compared, 3);
    gguf_close(file);
    close_fixture(&f);
}

static void family_e4b(void **state) {
    (void)state;
    check_relative("e4b", false);
}

static void family_moe(void **state) {
    (void)state;
    check_relative("moe", true);
}

static void family_dense31(void **state) {
    (void)state;
    check_relative("dense31", true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nano_70),        cmocka_unit_test(nano_280),
        cmocka_unit_test(family_e4b),     cmocka_unit_test(family_moe),
        cmocka_unit_test(family_dense31),
    };
    return cmocka_run_group_tests_name("golden_vision", tests, NULL, NULL);
}
