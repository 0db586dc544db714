/* Adapters against golden values of PyTorch and PEFT, computed from nano's own file: the logits
 * with an adapter, the loss, every gradient, and 20 steps of AdamW. tests/golden/nano/lora.json. */
#include "golden_lora.h"

/* ---- inference ---- */

static float *adapted_logits(lora_fixture *f, const lora_use *uses, uint32_t n_use) {
    text_cpu_adapt(f->text, uses, n_use);
    float *logits = golden_alloc(&f->g, (size_t)f->n_id[0] * N_VOCAB, sizeof *logits);
    const uint32_t n = f->n_id[0] - 1;
    REQUIRE(text_cpu_forward(f->text, f->ids[0], n, 0, n, logits, NULL, &err));
    return logits;
}

static void logits(void **state) {
    (void)state;
    lora_fixture f;
    open_lora(&f, 1e-5);
    const uint32_t n = f.n_id[0] - 1;
    const lora_use one = {f.adapter, 1};
    golden_compare(&f.g, "logits", adapted_logits(&f, &one, 1), n, N_VOCAB);
    /* Two halves of it are as good, and nothing stays when it is taken away. */
    const lora_use halves[] = {{f.adapter, 0.25f}, {f.adapter, 0.75f}};
    golden_compare(&f.g, "logits", adapted_logits(&f, halves, 2), n, N_VOCAB);
    const float *bare = adapted_logits(&f, NULL, 0);
    text_cpu *fresh;
    REQUIRE(text_cpu_create(f.g.model, 64, &fresh, &err));
    float *again = golden_alloc(&f.g, (size_t)n * N_VOCAB, sizeof *again);
    REQUIRE(text_cpu_forward(fresh, f.ids[0], n, 0, n, again, NULL, &err));
    assert_memory_equal(bare, again, (size_t)n * N_VOCAB * sizeof *bare);
    text_cpu_free(fresh);
    close_lora(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits),
    };
    return cmocka_run_group_tests_name("golden_lora", tests, NULL, NULL);
}
