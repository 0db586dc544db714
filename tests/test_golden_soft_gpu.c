/* Soft tokens in the GPU's text network: the golden picture prompts of nano's relatives with their
 * golden soft tokens, in pieces too, and pictures larger than a chunk. Compared with the CPU, whose
 * K and V are rounded as the GPU's are (with these random weights the rounding alone is up to 7e-3
 * of the logits); unrounded it is golden, see test_golden_vision.c. Bound: 2e-3 relative error of
 * logits. On a GPU in software one relative is run. */
#include "golden_gpu.h"
#include "golden_soft.h"

/* ---- golden prompts ---- */

typedef struct prompt {
    fixture f;
    const json *about;
    int32_t *ids;
    uint32_t n_id;
    float *rows;   /* [span.n, n_embd] */
    float *logits; /* [n_id, n_vocab] of the CPU */
    soft_span span;
} prompt;

static float *golden_tensor(golden *g, const char *name, size_t n) {
    const safetensor *t = safetensors_find(g->tensors, name);
    float *out = golden_alloc(g, n, sizeof *out);
    if (!t) fail_msg("no golden tensor %s", name);
    REQUIRE(safetensors_read_f32(g->tensors, t, out, &err));
    return out;
}

/* The last n_out logits [n_out, n_vocab] of the CPU's network. */
static float *cpu_logits(fixture *f, const text_input *in, uint32_t n_out) {
    text_cpu *cpu = golden_cpu(&f->g, N_CTX);
    float *out = golden_alloc(&f->g, (size_t)n_out * f->n_vocab, sizeof *out);
    text_cpu_round_kv(cpu);
    REQUIRE(text_cpu_forward_soft(cpu, in, n_out, out, NULL, &err));
    text_cpu_free(cpu);
    return out;
}

static void open_prompt(prompt *p, const char *name) {
    open_fixture(&p->f, name);
    golden *g = &p->f.g;
    const json *about = json_get(g->json, "picture");
    const uint32_t n = (uint32_t)json_number(json_get(about, "soft_tokens"), 0);
    const size_t row = g->model->config.n_embd;
    p->n_id = golden_ids(g, json_get(about, "ids"), &p->ids);
    p->rows = golden_tensor(g, "picture.embed", n * row);
    p->span =
        golden_span(p->ids, p->n_id, (int32_t)json_number(json_get(about, "soft_token_id"), -1),
                    p->rows, n, true);
    p->span.device = gpu_buffer_create(device, n * row * 4, GPU_STORAGE, "soft", &err);
    assert_int_not_equal(p->span.device.id, 0);
    gpu_write(device, p->span.device, 0, p->rows, n * row * 4);
    for (uint32_t i = 0; i < n; i++) p->ids[p->span.pos + i] = -1; /* as in sessions */
    const text_input in = {.tokens = p->ids, .n_tok = p->n_id, .spans = &p->span, .n_span = 1};
    p->logits = cpu_logits(&p->f, &in, p->n_id);
}

static void close_prompt(prompt *p) {
    gpu_buffer_free(device, p->span.device);
    close_fixture(&p->f);
}

/* Ids [from, to), with the logits of the last one. */
static void run_part(prompt *p, uint32_t from, uint32_t to) {
    fixture *f = &p->f;
    const text_input in = {
        .tokens = p->ids + from, .n_tok = to - from, .pos = from, .spans = &p->span, .n_span = 1};
    REQUIRE(text_gpu_run_soft(f->text, &in, true, &err));
    wait_read(text_gpu_read(f->text, true, &err), f->logits);
    distance d = {0};
    distance_add(&d, f->logits, p->logits + (size_t)(to - 1) * f->n_vocab, f->n_vocab);
    golden_check(&f->g, "logits", &d);
}

static void relative(const char *name) {
    prompt p;
    open_prompt(&p, name);
    const uint32_t end = p.span.pos + p.span.n;
    run_part(&p, 0, p.n_id);
    run_part(&p, 0, end + 1); /* again, in pieces */
    run_part(&p, end + 1, end + 2);
    run_part(&p, end + 2, p.n_id);
    text_input in = {.tokens = p.ids, .n_tok = end, .spans = &p.span, .n_span = 1};
    assert_false(text_gpu_run_soft(p.f.text, &in, true, &err)); /* no head on a soft token */
    in.n_tok = end - 1;
    err = (carat_error){0};
    if (p.f.g.model->config.vision_bidirectional) {
        assert_false(text_gpu_run_soft(p.f.text, &in, false, &err));
        assert_non_null(strstr(err.message, "must come at once"));
    } else { /* a picture in pieces, one of a single token */
        REQUIRE(text_gpu_run_soft(p.f.text, &in, false, &err));
        in = (text_input){.tokens = p.ids + end - 1, .n_tok = 1, .pos = end - 1};
        in.spans = &p.span;
        in.n_span = 1;
        REQUIRE(text_gpu_run_soft(p.f.text, &in, false, &err));
        run_part(&p, end, p.n_id);
    }
    close_prompt(&p);
}

static void moe(void **state) {
    (void)state;
    relative("moe");
}

static void others(void **state) {
    (void)state;
    if (!device || device->info.software) {
        print_message("skipped on a GPU in software: too slow\n");
        skip();
    }
    relative("dense31");
    relative("e4b");
}

/* ---- pictures larger than a chunk ---- */

/* A picture of n tokens after `before` tokens of text, larger than the window, and text. */
static void large_picture(void **state) {
    (void)state;
    enum { BEFORE = 30, N = 330, AFTER = 20, ALL = BEFORE + N + AFTER };
    prompt p;
    open_prompt(&p, "moe");
    fixture *f = &p.f;
    golden *g = &f->g;
    const uint32_t d = g->model->config.n_embd;
    f->text->n_chunk = 128; /* as if it were a small session's: it has to grow */
    float *rows = golden_alloc(g, N * (size_t)d, sizeof *rows);
    for (size_t i = 0; i < N * (size_t)d; i++)
        rows[i] = p.rows[i % (p.span.n * d)] * (1 + 0.1f * sinf((float)i));
    int32_t *ids = golden_alloc(g, ALL, sizeof *ids);
    for (int i = 0; i < ALL; i++) ids[i] = i < BEFORE || i >= BEFORE + N ? 40 + i * 7 % 900 : -1;
    soft_span span = {.pos = BEFORE, .n = N, .rows = rows, .picture = true};
    span.device = gpu_buffer_create(device, N * d * 4, GPU_STORAGE, "soft", &err);
    gpu_write(device, span.device, 0, rows, N * (size_t)d * 4);
    const text_input in = {.tokens = ids, .n_tok = ALL, .spans = &span, .n_span = 1};
    const float *want = cpu_logits(f, &in, 1);
    assert_true(g->model->config.window < N);
    text_input part = {.tokens = ids, .n_tok = BEFORE + N, .spans = &span, .n_span = 1};
    REQUIRE(text_gpu_run_soft(f->text, &part, false, &err));
    assert_true(f->text->n_chunk >= BEFORE + N);
    part = (text_input){.tokens = ids + BEFORE + N, .n_tok = AFTER, .pos = BEFORE + N};
    REQUIRE(text_gpu_run_soft(f->text, &part, true, &err));
    wait_read(text_gpu_read(f->text, true, &err), f->logits);
    distance dist = {0};
    distance_add(&dist, f->logits, want, f->n_vocab);
    golden_check(g, "a large picture", &dist);
    gpu_buffer_free(device, span.device);
    close_prompt(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moe),
        cmocka_unit_test(large_picture),
        cmocka_unit_test(others),
    };
    return cmocka_run_group_tests_name("golden_soft_gpu", tests, open_device, close_device);
}
