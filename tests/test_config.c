/* Configuration and binding: what is read from real layouts, and that every absurd or damaged file
 * is refused with one sentence that names what is wrong. */
#include "model/model.h"

#include "gguf_edit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NANO  "models/nano.gguf"
#define E4B   "tests/golden/family/e4b.gguf"
#define MOE   "tests/golden/family/moe.gguf"
#define DENSE "tests/golden/family/dense31.gguf"

/* What a case may use; freed when it ends. */
typedef struct bench {
    arena *memory;
    gguf *base, *edited;
    carat_error err;
} bench;

static bench bench_open(const char *path) {
    bench b = {0};
    b.memory = arena_create(&b.err);
    assert_non_null(b.memory);
    if (!gguf_open(b.memory, path, &b.base, &b.err)) fail_msg("%s", b.err.message);
    return b;
}

static void bench_close(bench *b) {
    gguf_close(b->edited);
    gguf_close(b->base);
    arena_free(b->memory);
}

static model *open_edited(bench *b, const edit *edits) {
    model *m = NULL;
    gguf_close(b->edited);
    b->edited = gguf_edit(b->memory, b->base, edits);
    b->err = (carat_error){0};
    if (!model_open(b->memory, b->edited, &m, &b->err)) assert_null(m);
    return m;
}

static model *must_open(bench *b, const edit *edits) {
    model *m = open_edited(b, edits);
    if (!m) fail_msg("%s", b->err.message);
    return m;
}

/* Opening fails with a code and a message that holds `words`. */
static void refuses(bench *b, carat_code code, const char *words, const edit *edits) {
    if (open_edited(b, edits)) fail_msg("opened, but should say: %s", words);
    if (b->err.code != code || !strstr(b->err.message, words))
        fail_msg("code %d, \"%s\"; expected code %d, \"%s\"", (int)b->err.code, b->err.message,
                 (int)code, words);
}
#define REFUSES(b, code, words, ...) refuses(b, code, words, (const edit[]){__VA_ARGS__, {0}})
#define OPENS(b, ...)                must_open(b, (const edit[]){__VA_ARGS__, {0}})

/* ---- what real files say ---- */

static void nano_config(void **state) {
    (void)state;
    bench b = bench_open(NANO);
    model_config c;
    assert_true(config_read(b.base, &c, &b.err));
    assert_int_equal(c.n_layer, 10);
    assert_int_equal(c.n_embd, 256);
    assert_int_equal(c.n_vocab, 2048);
    assert_int_equal(c.n_ctx_train, 8192);
    assert_int_equal(c.n_ple, 256);
    assert_int_equal(c.n_owner, 5);
    assert_int_equal(c.window, 128);
    assert_int_equal(c.n_expert, 0);
    assert_false(c.vision_bidirectional);
    assert_true(c.softcap == 30 && fabsf(c.rms_eps - 1e-6f) < 1e-12f);
    for (uint32_t il = 0; il < c.n_layer; il++) {
        const layer_config *l = &c.layers[il];
        const bool global = il % 5 == 4;
        assert_int_equal(l->sliding, !global);
        assert_int_equal(l->owns_kv, il < 5);
        assert_int_equal(l->donor, il < 5 ? il : global ? 4 : 3);
        assert_int_equal(l->head_dim, global ? 128 : 64);
        assert_int_equal(l->n_rot, global ? 16 : 32);
        assert_int_equal(l->window, global ? 0 : 128);
        assert_int_equal(l->n_ff, il < 5 ? 512 : 1024);
        assert_true(l->rope_base == (global ? 1e6f : 1e4f));
        assert_false(l->k_eq_v || l->moe);
    }
    bench_close(&b);
}

static void family_config(void **state) {
    (void)state;
    bench b = bench_open(MOE);
    model_config c;
    assert_true(config_read(b.base, &c, &b.err));
    assert_int_equal(c.n_owner, 6);
    assert_int_equal(c.n_expert, 8);
    assert_int_equal(c.n_expert_used, 2);
    assert_int_equal(c.n_ff_expert, 64);
    assert_int_equal(c.n_ple, 0);
    assert_true(c.vision_bidirectional);
    for (uint32_t il = 0; il < 6; il++) {
        assert_true(c.layers[il].moe);
        assert_int_equal(c.layers[il].k_eq_v, il == 5);
        assert_int_equal(c.layers[il].n_kv, il == 5 ? 1 : 2);
    }
    bench_close(&b);

    b = bench_open(DENSE);
    assert_true(config_read(b.base, &c, &b.err));
    assert_int_equal(c.n_expert, 0);
    assert_false(c.layers[0].moe);
    assert_true(c.layers[c.n_layer - 1].k_eq_v);
    bench_close(&b);

    b = bench_open(E4B);
    assert_true(config_read(b.base, &c, &b.err));
    assert_int_equal(c.n_owner, 6);
    assert_int_equal(c.layers[6].donor, 4);
    assert_int_equal(c.layers[11].donor, 5);
    bench_close(&b);
}

/* Keys that old or lean files leave out, and other ways to say the same. */
static void other_spellings(void **state) {
    (void)state;
    bench b = bench_open(MOE);
    model *m = OPENS(&b, {DROP_KEY, "gemma4.final_logit_softcapping"},
                     {DROP_KEY, "gemma4.attention.shared_kv_layers"},
                     {DROP_KEY, "gemma4.embedding_length_per_layer_input"},
                     {DROP_KEY, "gemma4.rope.freq_base"}, {DROP_KEY, "gemma4.rope.freq_base_swa"},
                     {DROP_KEY, "gemma4.rope.dimension_count"}, {DROP_KEY, "gemma4.expert_count"},
                     {DROP_KEY, "gemma4.expert_feed_forward_length"},
                     {DROP_KEY, "gemma4.attention.layer_norm_rms_epsilon"});
    assert_true(m->config.softcap == 30);
    assert_true(m->config.layers[5].rope_base == 1e6f && m->config.layers[0].rope_base == 1e4f);
    assert_int_equal(m->config.n_expert, 8);
    assert_int_equal(m->config.n_ff_expert, 64);

    m = OPENS(&b, {SET_F32, "gemma4.final_logit_softcapping", .f = 0},
              {SET_U32, "gemma4.attention.head_count_kv", .u = 2},
              {SET_U32, "gemma4.attention.global_head_count_kv", .u = 1},
              {DROP_KEY, "gemma4.rope.freq_base_swa"},
              {SET_F32, "gemma4.rope.local.freq_base", .f = 5000},
              {SET_ARRAY, "gemma4.attention.head_count", .n = 6, .array = {4, 4, 4, 4, 4, 4}},
              {SET_ARRAY, "gemma4.feed_forward_length", .n = 7,
               .array = {256, 256, 256, 256, 256, 256, 1}});
    assert_true(m->config.softcap == 0);
    assert_int_equal(m->config.layers[0].n_kv, 2);
    assert_int_equal(m->config.layers[5].n_kv, 1);
    assert_true(m->config.layers[0].rope_base == 5000);
    bench_close(&b);
}

/* ---- what is refused ---- */

static void wrong_architecture(void **state) {
    (void)state;
    bench b = bench_open(DENSE);
    const char *key = "general.architecture";
    REFUSES(&b, CARAT_E_UNSUPPORTED, "the architecture is llama",
            {SET_STRING, key, .text = "llama"});
    REFUSES(&b, CARAT_E_UNSUPPORTED, "the architecture is gemma3",
            {SET_STRING, key, .text = "gemma3"});
    REFUSES(&b, CARAT_E_UNSUPPORTED, "a drafter", {SET_STRING, key, .text = "gemma4-assistant"});
    REFUSES(&b, CARAT_E_UNSUPPORTED, "a projector", {SET_STRING, key, .text = "clip"});
    REFUSES(&b, CARAT_E_FORMAT, "general.architecture is missing", {DROP_KEY, key});
    bench_close(&b);
}

static void absurd_numbers(void **state) {
    (void)state;
    bench b = bench_open(E4B);
    const carat_code F = CARAT_E_FORMAT, U = CARAT_E_UNSUPPORTED;
    REFUSES(&b, F, "number of layers is 0", {SET_U32, "gemma4.block_count", .u = 0});
    REFUSES(&b, F, "number of layers is 257", {SET_U32, "gemma4.block_count", .u = 257});
    REFUSES(&b, F, "block_count is missing", {DROP_KEY, "gemma4.block_count"});
    REFUSES(&b, F, "block_count is not", {SET_STRING, "gemma4.block_count", .text = "12"});
    REFUSES(&b, F, "12 items for 13 layers", {SET_U32, "gemma4.block_count", .u = 13});
    REFUSES(&b, F, "embedding length is 0", {SET_U32, "gemma4.embedding_length", .u = 0});
    REFUSES(&b, U, "no multiple of 16", {SET_U32, "gemma4.embedding_length", .u = 120});
    REFUSES(&b, F, "embedding length", {SET_U32, "gemma4.embedding_length", .u = 0xfffffff0});
    REFUSES(&b, F, "context length", {SET_U32, "gemma4.context_length", .u = 0});
    REFUSES(&b, F, "number of heads is 0", {SET_U32, "gemma4.attention.head_count", .u = 0});
    REFUSES(&b, F, "4 heads for 3 KV heads", {SET_U32, "gemma4.attention.head_count_kv", .u = 3});
    REFUSES(&b, F, "KV heads is 0", {SET_U32, "gemma4.attention.head_count_kv", .u = 0});
    REFUSES(&b, F, "head_count is missing", {DROP_KEY, "gemma4.attention.head_count"});
    REFUSES(&b, F, "head size 63 is odd", {SET_U32, "gemma4.attention.key_length", .u = 63},
            {SET_U32, "gemma4.attention.value_length", .u = 63},
            {SET_U32, "gemma4.rope.dimension_count", .u = 63});
    REFUSES(&b, U, "value_length is 32", {SET_U32, "gemma4.attention.value_length", .u = 32});
    REFUSES(&b, U, "rope.dimension_count is 16", {SET_U32, "gemma4.rope.dimension_count", .u = 16});
    REFUSES(&b, F, "the window is 0", {SET_U32, "gemma4.attention.sliding_window", .u = 0});
    REFUSES(&b, F, "the window is 0", {DROP_KEY, "gemma4.attention.sliding_window"});
    REFUSES(&b, F, "sliding_window_pattern is missing",
            {DROP_KEY, "gemma4.attention.sliding_window_pattern"});
    REFUSES(&b, F, "sliding_window_pattern is not an array",
            {SET_U32, "gemma4.attention.sliding_window_pattern", .u = 6});
    REFUSES(&b, F, "FFN width is 0", {SET_U32, "gemma4.feed_forward_length", .u = 0});
    REFUSES(&b, U, "FFN width is 250", {SET_U32, "gemma4.feed_forward_length", .u = 250});
    REFUSES(&b, F, "12 of 12 layers share",
            {SET_U32, "gemma4.attention.shared_kv_layers", .u = 12});
    REFUSES(&b, F, "no layer of its kind", {SET_U32, "gemma4.attention.shared_kv_layers", .u = 7});
    REFUSES(&b, F, "per-layer embedding length",
            {SET_U32, "gemma4.embedding_length_per_layer_input", .u = 1u << 30});
    REFUSES(&b, F, "epsilon is 0", {SET_F32, "gemma4.attention.layer_norm_rms_epsilon", .f = 0});
    REFUSES(&b, F, "epsilon is nan",
            {SET_F32, "gemma4.attention.layer_norm_rms_epsilon", .f = NAN});
    REFUSES(&b, F, "softcapping is -1", {SET_F32, "gemma4.final_logit_softcapping", .f = -1});
    REFUSES(&b, F, "freq_base is inf", {SET_F32, "gemma4.rope.freq_base", .f = INFINITY});
    REFUSES(&b, F, "token_embd.weight is missing", {DROP_TENSOR, "token_embd.weight"});
    bench_close(&b);

    b = bench_open(MOE);
    REFUSES(&b, F, "experts in use is 9", {SET_U32, "gemma4.expert_used_count", .u = 9});
    REFUSES(&b, F, "experts in use is 0", {SET_U32, "gemma4.expert_used_count", .u = 0});
    REFUSES(&b, F, "number of experts is 1025", {SET_U32, "gemma4.expert_count", .u = 1025});
    REFUSES(&b, F, "expert_used_count is missing", {DROP_KEY, "gemma4.expert_used_count"});
    bench_close(&b);
}

static void bad_tensors(void **state) {
    (void)state;
    bench b = bench_open(E4B);
    const carat_code F = CARAT_E_FORMAT, U = CARAT_E_UNSUPPORTED;
    REFUSES(&b, F, "blk.3.attn_q.weight is missing", {DROP_TENSOR, "blk.3.attn_q.weight"});
    REFUSES(&b, F, "blk.3.attn_k.weight is missing", {DROP_TENSOR, "blk.3.attn_k.weight"});
    REFUSES(&b, F, "output_norm.weight is missing", {DROP_TENSOR, "output_norm.weight"});
    REFUSES(&b, F, "blk.0.proj.weight is missing", {DROP_TENSOR, "blk.0.proj.weight"});
    REFUSES(&b, F, "per_layer_token_embd.weight is missing",
            {DROP_TENSOR, "per_layer_token_embd.weight"});
    REFUSES(&b, F, "blk.0.ffn_up.weight is [128, 256] BF16, not [256, 128]",
            {SET_SHAPE, "blk.0.ffn_up.weight", .n = 2, .array = {256, 128}});
    REFUSES(&b, F, "blk.1.attn_norm.weight is [64] F32, not [128]",
            {SET_SHAPE, "blk.1.attn_norm.weight", .n = 1, .array = {64}});
    /* Both of two mistakes are named; 24 of them are summed up. */
    REFUSES(&b, F, "blk.0.ffn_up.weight is missing; blk.4.ffn_norm.weight is missing",
            {DROP_TENSOR, "blk.0.ffn_up.weight"}, {DROP_TENSOR, "blk.4.ffn_norm.weight"});
    REFUSES(&b, F, "more", {SET_U32, "gemma4.feed_forward_length", .u = 512});
    REFUSES(&b, U, "blk.0.ffn_up.weight is IQ2_XXS, which carat does not run",
            {SET_TYPE, "blk.0.ffn_up.weight", .u = 16});
    REFUSES(&b, U, "blk.0.ffn_up.weight is of the unknown type 99",
            {SET_TYPE, "blk.0.ffn_up.weight", .u = 99});
    REFUSES(&b, U, "blk.0.ffn_norm.weight is Q4_0, not F32",
            {SET_TYPE, "blk.0.ffn_norm.weight", .u = QUANT_Q4_0});
    REFUSES(&b, F, "blk.2.attn_q_norm.weight holds a number that is not finite",
            {SET_DATA, "blk.2.attn_q_norm.weight", .f = NAN});
    REFUSES(&b, F, "blk.2.layer_output_scale.weight holds a number that is not finite",
            {SET_DATA, "blk.2.layer_output_scale.weight", .f = -INFINITY});
    REFUSES(&b, F, "rope_freqs.weight[0] is not positive", {SET_DATA, "rope_freqs.weight", .f = 0});
    REFUSES(&b, F, "2048 tokens, but an embedding of 2047 rows",
            {SET_SHAPE, "token_embd.weight", .n = 2, .array = {128, 2047}},
            {SET_SHAPE, "per_layer_token_embd.weight", .n = 2, .array = {384, 2047}});
    bench_close(&b);

    b = bench_open(MOE);
    REFUSES(&b, F, "blk.0.ffn_gate_up_exps.weight is missing",
            {DROP_TENSOR, "blk.0.ffn_gate_up_exps.weight"});
    REFUSES(&b, F, "blk.0.ffn_down_exps.weight is [8, 64, 128] BF16, not [8, 128, 64]",
            {SET_SHAPE, "blk.0.ffn_down_exps.weight", .n = 3, .array = {128, 64, 8}});
    REFUSES(&b, F, "blk.0.ffn_gate_inp.scale is missing",
            {DROP_TENSOR, "blk.0.ffn_gate_inp.scale"});
    bench_close(&b);
}

/* ---- what is made up, ignored, or found under another name ---- */

static void tolerated_tensors(void **state) {
    (void)state;
    bench b = bench_open(E4B);
    model *plain = OPENS(&b, {DROP_KEY, "no.such.key"});
    const uint64_t n_params = plain->weights.n_params;
    model *m = OPENS(
        &b,
        {RENAME_TENSOR, "blk.0.post_attention_norm.weight", .text = "blk.0.attn_post_norm.weight"},
        {RENAME_TENSOR, "blk.0.ffn_norm.weight", .text = "blk.0.ffn_pre_norm.weight"},
        {RENAME_TENSOR, "blk.0.post_ffw_norm.weight", .text = "blk.0.ffn_post_norm.weight"},
        {RENAME_TENSOR, "blk.0.layer_output_scale.weight", .text = "blk.0.layer_scalar"},
        {DROP_TENSOR, "blk.1.layer_output_scale.weight"},
        {ADD_TENSOR, "v.blk.0.ln1.weight", .n = 1, .array = {7}},
        {ADD_TENSOR, "blk.0.unheard_of.weight", .n = 2, .array = {3, 5}});
    assert_int_equal(m->weights.n_params, n_params - 1);
    assert_true(m->weights.layers[1].scale == 1);
    assert_true(m->weights.layers[0].scale == plain->weights.layers[0].scale);
    assert_int_equal(m->weights.n_vectors, plain->weights.n_vectors);
    assert_memory_equal(m->weights.vectors, plain->weights.vectors,
                        m->weights.n_vectors * sizeof(float));
    assert_true(m->weights.output == &m->weights.embed);
    bench_close(&b);
}

/* Shared layers may come with K and V of any shape: nobody reads them. */
static void dead_tensors(void **state) {
    (void)state;
    bench b = bench_open(NANO);
    model *plain = OPENS(&b, {DROP_KEY, "no.such.key"});
    model *m = OPENS(&b, {ADD_TENSOR, "blk.7.attn_k.weight", .n = 2, .array = {256, 64}},
                     {ADD_TENSOR, "blk.7.attn_v.weight", .n = 2, .array = {256, 64}},
                     {ADD_TENSOR, "blk.7.attn_k_norm.weight", .n = 1, .array = {3}, .f = NAN});
    assert_null(m->weights.layers[7].k.tensor);
    assert_null(m->weights.layers[7].v.tensor);
    assert_int_equal(m->n_matrix, plain->n_matrix);
    assert_int_equal(m->weights.n_params, plain->weights.n_params);
    bench_close(&b);
}

static void moe_spellings(void **state) {
    (void)state;
    bench b = bench_open(MOE);
    model *m = OPENS(
        &b,
        {RENAME_TENSOR, "blk.0.ffn_down_exps.scale", .text = "blk.0.ffn_gate_inp.per_expert_scale"},
        {DROP_TENSOR, "blk.1.ffn_down_exps.scale"}, {DROP_TENSOR, "blk.2.ffn_gate_up_exps.weight"},
        {ADD_TENSOR, "blk.2.ffn_gate_exps.weight", .n = 3, .array = {128, 64, 8}},
        {ADD_TENSOR, "blk.2.ffn_up_exps.weight", .n = 3, .array = {128, 64, 8}});
    const layer_weights *l = m->weights.layers;
    assert_non_null(l[0].down_exps_scale.tensor);
    assert_null(l[1].down_exps_scale.tensor);
    for (int i = 0; i < 8; i++) assert_true(l[1].down_exps_scale.data[i] == 1);
    assert_non_null(l[1].gate_up_exps.tensor);
    assert_null(l[2].gate_up_exps.tensor);
    assert_int_equal(l[2].gate_exps.n_row, 64);
    assert_int_equal(l[2].up_exps.n_expert, 8);
    bench_close(&b);
}

/* RoPE's divisors decide how many pairs turn; without them it is the proportional quarter. */
static void rope_freqs(void **state) {
    (void)state;
    bench b = bench_open(E4B);
    model *m = OPENS(&b, {DROP_TENSOR, "rope_freqs.weight"});
    const vector *v = &m->weights.rope_freqs;
    assert_int_equal(m->config.layers[5].n_rot, 8);
    assert_int_equal(m->config.layers[0].n_rot, 16);
    assert_int_equal(v->n, 32);
    for (uint32_t i = 0; i < v->n; i++) assert_true(v->data[i] == (i < 8 ? 1 : 1e30f));
    m = OPENS(&b, {DROP_TENSOR, "rope_freqs.weight"},
              {ADD_TENSOR, "rope_freqs.weight", .n = 1, .array = {32}, .f = 2});
    assert_int_equal(m->config.layers[5].n_rot, 32);
    float row[64];
    model_rope_rows(m, false, 7, 1, row);
    assert_true(fabs((double)row[0] - cos(3.5)) < 1e-7);
    bench_close(&b);
}

/* A head of its own is used, and NVFP4's external scales are found. */
static void output_and_scales(void **state) {
    (void)state;
    bench b = bench_open(DENSE);
    model *m = OPENS(&b, {ADD_TENSOR, "output.weight", .n = 2, .array = {128, 2048}});
    assert_true(m->weights.output != &m->weights.embed);
    assert_string_equal(m->weights.output->tensor->name.text, "output.weight");
    m = OPENS(&b, {SET_TYPE, "blk.0.attn_q.weight", .u = QUANT_NVFP4},
              {ADD_TENSOR, "blk.0.attn_q.scale", .n = 1, .array = {1}, .f = 0.25f},
              {ADD_TENSOR, "blk.1.attn_q.scale", .n = 1, .array = {1}, .f = 0.25f});
    assert_true(m->weights.layers[0].q.scale == 0.25f);
    assert_true(m->weights.layers[1].q.scale == 1); /* not NVFP4 */
    bench_close(&b);

    b = bench_open(MOE);
    m = OPENS(&b, {SET_TYPE, "blk.0.ffn_gate_up_exps.weight", .u = QUANT_NVFP4},
              {ADD_TENSOR, "blk.0.ffn_gate_up_exps.scale", .n = 1, .array = {8}, .f = 0.5f});
    assert_non_null(m->weights.layers[0].gate_up_exps.expert_scale);
    assert_true(m->weights.layers[0].gate_up_exps.expert_scale[7] == 0.5f);
    bench_close(&b);
}

/* ---- reading ---- */

static void vectors_are_packed(void **state) {
    (void)state;
    bench b = bench_open(NANO);
    model *m = OPENS(&b, {DROP_KEY, "no.such.key"});
    const vector *v[] = {&m->weights.output_norm, &m->weights.layers[0].q_norm,
                         &m->weights.layers[9].ple_norm};
    for (size_t i = 0; i < COUNT(v); i++) {
        assert_int_equal(v[i]->offset % 4, 0);
        assert_true(v[i]->offset + v[i]->n <= m->weights.n_vectors);
        assert_ptr_equal(v[i]->data, m->weights.vectors + v[i]->offset);
    }
    weight **list = model_matrices(b.memory, m, &b.err);
    assert_non_null(list);
    uint32_t n = 0;
    for (; list[n]; n++) {
        assert_true(list[n] != &m->weights.ple_embed);
        if (n) assert_true(list[n]->tensor->offset > list[n - 1]->tensor->offset);
    }
    assert_int_equal(n, 2 + 5 * 9 + 5 * 7);
    bench_close(&b);
}

/* A row's prefix is the row's beginning, also where it ends inside a block, and what the format's
 * own conversion gives. */
static void ple_rows(void **state) {
    (void)state;
    bench b = bench_open(NANO);
    model *m = OPENS(&b, {DROP_KEY, "no.such.key"});
    const gguf_tensor *t = m->weights.ple_embed.tensor;
    static float all[2560], want[2560], part[2560];
    uint8_t raw[2560];
    const size_t row = 2560 / 256 * 210;
    assert_true(source_read(t->src, t->offset + 1234 * row, raw, row, &b.err));
    quant_find(QUANT_Q6_K)->dequantise(raw, want, 2560);
    assert_true(model_ple_row(m, 1234, 2560, all, &b.err));
    for (int i = 0; i < 2560; i++) assert_true(all[i] == want[i] * 16);
    part[1280] = 77;
    assert_true(model_ple_row(m, 1234, 1280, part, &b.err));
    assert_memory_equal(part, all, 1280 * sizeof *all);
    assert_true(part[1280] == 77);
    assert_true(model_ple_row(m, 1234, 300, part, &b.err));
    assert_memory_equal(part, all, 300 * sizeof *all);
    assert_false(model_ple_row(m, -1, 256, part, &b.err));
    assert_int_equal(b.err.code, CARAT_E_ARGUMENT);
    assert_false(model_ple_row(m, 2048, 256, part, NULL));
    bench_close(&b);
}

static void fingerprints(void **state) {
    (void)state;
    bench b = bench_open(DENSE);
    const uint64_t a = model_fingerprint(OPENS(&b, {DROP_KEY, "no.such.key"}));
    assert_true(a == model_fingerprint(OPENS(&b, {DROP_KEY, "no.such.key"})));
    assert_true(a != model_fingerprint(OPENS(&b, {SET_F32, "gemma4.rope.freq_base", .f = 5e5f})));
    assert_true(a != model_fingerprint(OPENS(&b, {SET_DATA, "output_norm.weight", .f = 9})));
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nano_config),       cmocka_unit_test(family_config),
        cmocka_unit_test(other_spellings),   cmocka_unit_test(wrong_architecture),
        cmocka_unit_test(absurd_numbers),    cmocka_unit_test(bad_tensors),
        cmocka_unit_test(tolerated_tensors), cmocka_unit_test(dead_tensors),
        cmocka_unit_test(moe_spellings),     cmocka_unit_test(rope_freqs),
        cmocka_unit_test(output_and_scales), cmocka_unit_test(vectors_are_packed),
        cmocka_unit_test(ple_rows),          cmocka_unit_test(fingerprints),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
