/* Weights in tiles: what a device that binds little at a time computes is bit for bit what one does
 * that binds everything. Each row is summed the same way wherever it lies; only the experts of one
 * token are summed tile by tile, in another order, after which a stored half may round the other
 * way. */
#include "golden_gpu.h"

#define SMALL (32u << 10) /* bytes: most matrices of the relatives need several */

typedef struct answer {
    float prefill[2048], decode[2048]; /* logits */
} answer;

static uint32_t count_tiles(const model *m) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n_matrix; i++) n += m->matrices[i]->n_tile;
    return n;
}

/* Logits after a prompt and after one token more; returns how many tiles there were. */
static uint32_t compute(const char *name, uint64_t max_binding, answer *out) {
    fixture f = {0};
    int32_t tokens[41];
    for (uint32_t i = 0; i < COUNT(tokens); i++) tokens[i] = i ? (int32_t)(300 + i * 37) : 2;
    golden_open_relative(&f.g, name, BOUND);
    const uint64_t most = device->info.max_binding;
    if (max_binding) device->info.max_binding = max_binding;
    upload_model(&f.g);
    device->info.max_binding = most;
    f.n_vocab = f.g.model->config.n_vocab;
    f.logits = golden_alloc(&f.g, f.n_vocab, sizeof(float));
    assert_int_equal(f.n_vocab, COUNT(out->prefill));
    REQUIRE(text_gpu_create(f.g.model, device, cache, N_CTX, &f.text, &err));
    run(&f, tokens, COUNT(tokens) - 1, 0);
    memcpy(out->prefill, f.logits, sizeof out->prefill);
    run(&f, tokens + COUNT(tokens) - 1, 1, COUNT(tokens) - 1);
    memcpy(out->decode, f.logits, sizeof out->decode);
    const uint32_t n = count_tiles(f.g.model);
    f.g.n_compared = 1;
    close_fixture(&f);
    return n;
}

static void check(const char *name, double bound) {
    if (!device) skip();
    static answer whole, tiled;
    const uint32_t n_whole = compute(name, 0, &whole), n_tiled = compute(name, SMALL, &tiled);
    assert_true(n_tiled > n_whole);
    assert_memory_equal(whole.prefill, tiled.prefill, sizeof whole.prefill);
    distance d = {0};
    distance_add(&d, tiled.decode, whole.decode, COUNT(whole.decode));
    assert_true(sqrt(d.diff / d.norm) <= bound);
}

static void tiles_e4b(void **state) {
    (void)state;
    check("e4b", 0);
}

static void tiles_moe(void **state) {
    (void)state;
    check("moe", 2e-4);
}

static void tiles_dense31(void **state) {
    (void)state;
    check("dense31", 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(tiles_e4b), cmocka_unit_test(tiles_moe),
                                       cmocka_unit_test(tiles_dense31)};
    return cmocka_run_group_tests(tests, open_device, close_device);
}
