/* Configuration and binding of the encoders: both layouts give the same numbers, what differs from
 * file to file is read right, and damaged or foreign files are refused with one sentence. Also the
 * encoders without a tower, against sums written down a second time, and soft tokens in the text
 * network. */
#include "failing_malloc.h"

#include "golden_soft.h"

#include "gguf_edit.h"
#include "media/media.h"

#define NANO     "models/nano.gguf"
#define E4B      "tests/golden/family/e4b.gguf"
#define E4B_EYES "tests/golden/family/e4b-mmproj.gguf"
#define MOE_EYES "tests/golden/family/moe-mmproj.gguf"

/* What a case may use; freed when it ends. */
typedef struct bench {
    arena *memory;
    gguf *base, *edited;
} bench;

static bench bench_open(const char *path) {
    bench b = {0};
    b.memory = arena_create(&err);
    assert_non_null(b.memory);
    REQUIRE(gguf_open(b.memory, path, &b.base, &err));
    return b;
}

static void bench_close(bench *b) {
    gguf_close(b->edited);
    gguf_close(b->base);
    arena_free(b->memory);
}

static const gguf *edited(bench *b, const edit *edits) {
    gguf_close(b->edited);
    b->edited = gguf_edit(b->memory, b->base, edits);
    return b->edited;
}

static float noise(uint32_t *seed) { /* in [-1, 1) */
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) / (1 << 23) - 1;
}

static void load(arena *a, weight **matrices) {
    uint64_t done = 0;
    for (bool finished = !matrices[0]; !finished;)
        REQUIRE(weights_load_host(matrices, a, &done, &finished, &err));
}

static float *see(arena *a, const vision *v, const uint8_t *patches, uint32_t n_col,
                  uint32_t n_row) {
    vision_cpu *t;
    float *soft =
        arena_alloc(a, (size_t)vision_soft_tokens(v, n_col, n_row) * v->config.n_out, sizeof *soft);
    assert_non_null(soft);
    REQUIRE(vision_cpu_create(v, patches, n_col, n_row, NULL, &t, &err));
    for (bool finished = false; !finished;) vision_cpu_advance(t, soft, &finished);
    vision_cpu_free(t);
    return soft;
}

static float *hear(arena *m, const audio *a, const float *input, uint32_t n) {
    audio_cpu *t;
    float *soft = arena_alloc(m, (size_t)audio_soft_tokens(a, n) * a->config.n_out, sizeof *soft);
    assert_non_null(soft);
    REQUIRE(audio_cpu_create(a, input, n, NULL, &t, &err));
    for (bool finished = false; !finished;) audio_cpu_advance(t, soft, &finished);
    audio_cpu_free(t);
    return soft;
}

static void must_be_near(const float *is, const double *want, size_t n) {
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        diff += ((double)is[i] - want[i]) * ((double)is[i] - want[i]);
        norm += want[i] * want[i];
    }
    if (!(sqrt(diff / norm) < 1e-5)) fail_msg("relative error %g", sqrt(diff / norm));
}

/* ---- the two layouts ---- */

/* What nano's audio tensors are called in a projector file. */
static const char *projector_name(arena *a, const char *name) {
    static const char *const whole[][2] = {{"a.pre_encode.out.weight", "a.input_projection.weight"},
                                           {"mm.a.fc.weight", "a.pre_encode.out.weight"},
                                           {"mm.a.fc.bias", "a.pre_encode.out.bias"}};
    static const char *const tail[][2] = {{".ln1.weight", ".attn_pre_norm.weight"},
                                          {".ln2.weight", ".attn_post_norm.weight"},
                                          {".linear_pos.weight", ".attn_k_rel.weight"},
                                          {".layer_pre_norm.weight", ".ln2.weight"}};
    for (size_t i = 0; i < COUNT(whole); i++)
        if (!strcmp(name, whole[i][0])) return whole[i][1];
    for (size_t i = 0; i < COUNT(tail) && !strncmp(name, "a.blk.", 6); i++) {
        const char *end = strstr(name, tail[i][0]);
        char *out = arena_alloc(a, 96, 1);
        assert_non_null(out);
        snprintf(out, 96, "%.*s%s", end ? (int)(end - name) : 0, name, tail[i][1]);
        if (end) return out;
    }
    return NULL;
}

/* nano as a projector file, without the text model. */
static gguf *as_projector(arena *a, const gguf *nano) {
    static const edit keys[] = {{SET_STRING, "general.architecture", .text = "clip"},
                                {SET_STRING, "clip.vision.projector_type", .text = "gemma4v"},
                                {SET_STRING, "clip.audio.projector_type", .text = "gemma4a"},
                                {SET_U32, "clip.vision.block_count", 4},
                                {SET_U32, "clip.vision.embedding_length", 192},
                                {SET_U32, "clip.vision.feed_forward_length", 384},
                                {SET_U32, "clip.vision.attention.head_count", 3},
                                {SET_U32, "clip.vision.patch_size", 16},
                                {SET_U32, "clip.audio.block_count", 3},
                                {SET_U32, "clip.audio.embedding_length", 128},
                                {SET_U32, "clip.audio.feed_forward_length", 512},
                                {SET_U32, "clip.audio.attention.head_count", 4},
                                {SET_F32, "clip.audio.attention.layer_norm_epsilon", .f = 0.1f}};
    edit *edits = arena_alloc(a, nano->n_tensor + COUNT(keys) + 1, sizeof *edits);
    assert_non_null(edits);
    size_t n = COUNT(keys);
    memcpy(edits, keys, sizeof keys);
    for (uint64_t i = 0; i < nano->n_tensor; i++) {
        const char *name = nano->tensors[i].name.text, *other = projector_name(a, name);
        const bool tower =
            !strncmp(name, "a.", 2) || !strncmp(name, "v.", 2) || !strncmp(name, "mm.", 3);
        if (!tower) edits[n++] = (edit){DROP_TENSOR, name};
        if (other) edits[n++] = (edit){RENAME_TENSOR, name, .text = other};
    }
    return gguf_edit(a, nano, edits);
}

static void layouts(void **state) {
    (void)state;
    bench b = bench_open(NANO);
    b.edited = as_projector(b.memory, b.base);
    assert_null(gguf_find_tensor(b.edited, "mm.a.fc.weight"));
    assert_null(gguf_find_tensor(b.edited, "token_embd.weight"));
    enum { COL = 9, ROW = 6, FRAMES = 77 };
    static uint8_t patches[COL * ROW * 768];
    static float mel[FRAMES * MEL_BANDS];
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof patches; i++) patches[i] = (uint8_t)(128 + 127 * noise(&seed));
    for (size_t i = 0; i < COUNT(mel); i++) mel[i] = 4 * noise(&seed) - 2;
    const float *seen[2], *heard[2];
    for (int i = 0; i < 2; i++) {
        const gguf *g = i ? b.edited : b.base;
        vision *v;
        audio *a;
        REQUIRE(vision_open(b.memory, g, 256, &v, &err));
        REQUIRE(audio_open(b.memory, g, 256, &a, &err));
        load(b.memory, v->matrices);
        load(b.memory, a->matrices);
        assert_false(v->config.direct || v->config.standardize || a->config.direct);
        assert_int_equal(a->config.n_mid, 256);
        assert_int_equal(vision_soft_tokens(v, COL, ROW), 6);
        seen[i] = see(b.memory, v, patches, COL, ROW);
        heard[i] = hear(b.memory, a, mel, FRAMES);
    }
    assert_memory_equal(seen[0], seen[1], 6 * 256 * sizeof(float));
    assert_memory_equal(heard[0], heard[1], 20 * 256 * sizeof(float));
    bench_close(&b);
}

/* ---- limits ---- */

static vision *open_vision(bench *b, const edit *edits) {
    vision *v;
    REQUIRE(vision_open(b->memory, edited(b, edits), 128, &v, &err));
    return v;
}
#define OPENS(b, ...) open_vision(b, (const edit[]){__VA_ARGS__, {0}})

static void limits(void **state) {
    (void)state;
    bench b = bench_open(E4B_EYES);
    const clipped *c = &OPENS(&b, {DROP_KEY, "no.such.key"})->layers[1].gate;
    assert_true(isfinite(c->in_min) && isfinite(c->in_max) && c->in_min < c->in_max);
    assert_true(isfinite(c->out_min) && isfinite(c->out_max) && c->out_min < c->out_max);

    /* One side may be missing or infinite; both alike mean nothing. */
    c = &OPENS(&b, {DROP_TENSOR, "v.blk.1.ffn_gate.input_min"},
               {SET_DATA, "v.blk.1.ffn_gate.output_max", .f = INFINITY})
             ->layers[1]
             .gate;
    assert_true(c->in_min == -INFINITY && isfinite(c->in_max));
    assert_true(isfinite(c->out_min) && c->out_max == INFINITY);
    c = &OPENS(&b, {SET_DATA, "v.blk.1.ffn_gate.input_min", .f = 0},
               {SET_DATA, "v.blk.1.ffn_gate.input_max", .f = 0})
             ->layers[1]
             .gate;
    assert_true(c->in_min == -INFINITY && c->in_max == INFINITY && isfinite(c->out_max));

    /* Packed limits go before single ones: 2 layers of 7 matrices, and 4 that are not used. */
    vision *v = OPENS(&b, {ADD_TENSOR, "v.clamp_data", .n = 1, .array = {60}, .f = 0});
    assert_true(v->layers[0].q.in_min == -INFINITY && v->layers[1].down.out_max == INFINITY);
    b.edited = gguf_edit(b.memory, b.base,
                         (const edit[]){{ADD_TENSOR, "v.clamp_data", .n = 1, .array = {60}}, {0}});
    const gguf_tensor *t = gguf_find_tensor(b.edited, "v.clamp_data");
    float *packed = (float *)((const uint8_t *)t->src->memory + t->offset);
    for (int i = 0; i < 60; i++) packed[i] = (float)(i % 4 - 2) * (float)(1 + i / 4);
    REQUIRE(vision_open(b.memory, b.edited, 128, &v, &err));
    c = &v->layers[1].out; /* the 11th */
    assert_true(c->in_min == -22 && c->in_max == -11 && c->out_min == 0 && c->out_max == 11);
    bench_close(&b);
}

/* ---- what is refused ---- */

static void refuses(bench *b, bool ears, carat_code code, const char *words, const edit *edits) {
    const gguf *g = edited(b, edits);
    vision *v = NULL;
    audio *a = NULL;
    err = (carat_error){0};
    if (ears ? audio_open(b->memory, g, 256, &a, &err) : vision_open(b->memory, g, 128, &v, &err))
        fail_msg("opened, but should say: %s", words);
    if (err.code != code || !strstr(err.message, words))
        fail_msg("code %d, \"%s\"; expected code %d, \"%s\"", (int)err.code, err.message, (int)code,
                 words);
}
#define REFUSES(code, words, ...)                                                                  \
    refuses(&b, ears, CARAT_E_##code, words, (const edit[]){__VA_ARGS__, {0}})

static void refused_eyes(void **state) {
    (void)state;
    const bool ears = false;
    bench b = bench_open(E4B_EYES);
    vision *v;
    REFUSES(UNSUPPORTED, "is of the kind gemma3, not one for Gemma 4 (gemma4v, gemma4uv)",
            {SET_STRING, "clip.vision.projector_type", .text = "gemma3"});
    REFUSES(FORMAT, "the key clip.vision.block_count is missing",
            {DROP_KEY, "clip.vision.block_count"});
    REFUSES(FORMAT, "clip.vision.block_count is 400, outside 1 to 256",
            {SET_U32, "clip.vision.block_count", 400});
    REFUSES(FORMAT, "clip.vision.block_count is not a 32-bit unsigned integer",
            {SET_STRING, "clip.vision.block_count", .text = "2"});
    REFUSES(FORMAT, "v.blk.2.ln1.weight is missing; ", {SET_U32, "clip.vision.block_count", 3});
    REFUSES(FORMAT, "rows of 64 values cannot have 5 heads",
            {SET_U32, "clip.vision.attention.head_count", 5});
    REFUSES(FORMAT, "v.patch_embd.weight is [64, 3, 16, 16] F32, not [64, 192]",
            {SET_U32, "clip.vision.patch_size", 8});
    REFUSES(FORMAT, "v.blk.0.attn_q.weight is [64, 64] F32, not [32, 32]",
            {SET_U32, "clip.vision.embedding_length", 32});
    REFUSES(FORMAT, "vision: v.blk.1.ln2.weight is missing", {DROP_TENSOR, "v.blk.1.ln2.weight"});
    REFUSES(FORMAT, "vision: mm.input_projection.weight is missing",
            {DROP_TENSOR, "mm.input_projection.weight"});
    REFUSES(FORMAT, "vision: v.blk.0.ln1.weight holds a number that is not finite",
            {SET_DATA, "v.blk.0.ln1.weight", .f = NAN});
    REFUSES(FORMAT, "vision: v.blk.0.attn_q.input_max holds a number that is not finite",
            {SET_DATA, "v.blk.0.attn_q.input_max", .f = NAN});
    REFUSES(UNSUPPORTED, "vision: v.blk.0.ffn_up.weight is of the unknown type 99",
            {SET_TYPE, "v.blk.0.ffn_up.weight", 99});
    REFUSES(FORMAT, "v.clamp_data is [59] F32, not [60]",
            {ADD_TENSOR, "v.clamp_data", .n = 1, .array = {59}});
    REFUSES(UNSUPPORTED, "there is no vision encoder in edited, so it cannot see pictures",
            {DROP_TENSOR, "v.patch_embd.weight"});
    err = (carat_error){0};
    assert_false(vision_open(b.memory, b.base, 256, &v, &err));
    assert_non_null(strstr(err.message, "belongs to another model: its soft tokens are 128 values "
                                        "wide, the model's rows 256"));
    bench_close(&b);

    b = bench_open(MOE_EYES);
    REFUSES(FORMAT, "v.std_scale is missing", {DROP_TENSOR, "v.std_scale"});
    bench_close(&b);
}

static void refused_ears(void **state) {
    (void)state;
    const bool ears = true;
    bench b = bench_open(NANO), small = b;
    small.base = as_projector(b.memory, b.base);
    b = small;
    audio *a;
    REFUSES(UNSUPPORTED, "is of the kind whisper, not one for Gemma 4 (gemma4a, gemma4ua)",
            {SET_STRING, "clip.audio.projector_type", .text = "whisper"});
    REFUSES(FORMAT, "clip.audio.num_mel_bins is 80, outside 128 to 128",
            {SET_U32, "clip.audio.num_mel_bins", 80});
    REFUSES(FORMAT, "a.blk.3.ffn_norm.weight is missing", {SET_U32, "clip.audio.block_count", 4});
    REFUSES(FORMAT, "a.blk.1.attn_k_rel.weight is missing",
            {DROP_TENSOR, "a.blk.1.attn_k_rel.weight"});
    REFUSES(FORMAT, "audio: a.blk.0.conv_dw.weight is [80, 8] F32, not [128, 8]",
            {SET_SHAPE, "a.blk.0.conv_dw.weight", .n = 2, .array = {8, 80}});
    REFUSES(FORMAT, "a.conv1d.1.weight is missing", {DROP_TENSOR, "a.conv1d.1.weight"});
    REFUSES(FORMAT, "audio: a.conv1d.0.weight holds a number that is not finite",
            {SET_DATA, "a.conv1d.0.weight", .f = INFINITY});
    REFUSES(UNSUPPORTED, "there is no audio encoder in edited, so it cannot hear",
            {DROP_TENSOR, "mm.a.input_projection.weight"});
    err = (carat_error){0};
    assert_false(audio_open(b.memory, b.base, 1536, &a, &err));
    assert_non_null(strstr(err.message, "its soft tokens are 256 values wide, the model's rows "
                                        "1536"));
    bench_close(&b);
}

/* A picture with more patches in a line than there are positions. */
static void long_pictures(void **state) {
    (void)state;
    bench b = bench_open(E4B_EYES);
    vision *v;
    vision_cpu *t;
    image_patches p;
    static uint8_t rgb[10000 * 3 * 3];
    REQUIRE(vision_open(b.memory, b.base, 128, &v, &err));
    REQUIRE(image_prepare(b.memory, rgb, 10000, 3, 16, 3, 280, &p, &err));
    err = (carat_error){0};
    assert_false(vision_cpu_create(v, p.data, p.n_col, p.n_row, NULL, &t, &err));
    assert_string_equal(err.message, "vision: the picture is 840 patches wide, and the model knows "
                                     "only 256 positions; give it fewer soft tokens or crop it");
    REQUIRE(image_prepare(b.memory, rgb, 3, 10000, 16, 3, 280, &p, &err));
    err = (carat_error){0};
    assert_false(vision_cpu_create(v, p.data, p.n_col, p.n_row, NULL, &t, &err));
    assert_non_null(strstr(err.message, "840 patches high"));
    err = (carat_error){0};
    assert_false(vision_cpu_create(v, p.data, 4, 3, NULL, &t, &err));
    assert_string_equal(err.message, "vision: 4x3 patches are not whole squares of 3x3");

    /* A single pixel becomes a picture of one colour. */
    load(b.memory, v->matrices);
    REQUIRE(image_prepare(b.memory, rgb, 1, 1, 16, 3, 70, &p, &err));
    const float *soft = see(b.memory, v, p.data, p.n_col, p.n_row);
    for (uint32_t i = 0; i < 64 * 128; i++) assert_true(isfinite(soft[i]));
    bench_close(&b);
}

/* ---- encoders without a tower ---- */

enum { SIDE = 2, PIXELS = 3 * SIDE * SIDE, WIDTH = 8, PLACES = 5, OUT = 4, FRAME = 6 };

/* The values of a tensor of the edited file, filled with noise. */
static const float *shake(const gguf *g, const char *name, uint32_t *seed) {
    const gguf_tensor *t = gguf_find_tensor(g, name);
    assert_non_null(t);
    float *x = (float *)((const uint8_t *)t->src->memory + t->offset);
    for (uint64_t i = 0; i < t->size / sizeof *x; i++) x[i] = noise(seed);
    return x;
}

static void naive_norm(double *x, const float *w, const float *bias, uint32_t n) {
    double mean = 0, var = 0;
    for (uint32_t i = 0; i < n; i++) mean += x[i] / n;
    for (uint32_t i = 0; i < n; i++) var += (x[i] - mean) * (x[i] - mean) / n;
    for (uint32_t i = 0; i < n; i++)
        x[i] = (x[i] - mean) / sqrt(var + 1e-5) * (double)w[i] + (double)bias[i];
}

static void naive_project(const double *x, uint32_t n, const float *w, double *out) {
    double square = 0;
    for (uint32_t i = 0; i < n; i++) square += x[i] * x[i] / n;
    for (uint32_t o = 0; o < OUT; o++) {
        out[o] = 0;
        for (uint32_t i = 0; i < n; i++)
            out[o] += (double)w[o * n + i] * x[i] / sqrt(square + 1e-6);
    }
}

static void direct_vision(void **state) {
    (void)state;
    bench b = bench_open(E4B);
    const gguf *g = edited(
        &b,
        (const edit[]){{ADD_TENSOR, "v.patch_embd.weight", .n = 2, .array = {PIXELS, WIDTH}},
                       {ADD_TENSOR, "v.patch_embd.bias", .n = 1, .array = {WIDTH}},
                       {ADD_TENSOR, "v.patch_norm.1.weight", .n = 1, .array = {PIXELS}},
                       {ADD_TENSOR, "v.patch_norm.1.bias", .n = 1, .array = {PIXELS}},
                       {ADD_TENSOR, "v.patch_norm.2.weight", .n = 1, .array = {WIDTH}},
                       {ADD_TENSOR, "v.patch_norm.2.bias", .n = 1, .array = {WIDTH}},
                       {ADD_TENSOR, "v.patch_norm.3.weight", .n = 1, .array = {WIDTH}},
                       {ADD_TENSOR, "v.patch_norm.3.bias", .n = 1, .array = {WIDTH}},
                       {ADD_TENSOR, "v.position_embd.weight", .n = 3, .array = {WIDTH, PLACES, 2}},
                       {ADD_TENSOR, "mm.input_projection.weight", .n = 2, .array = {WIDTH, OUT}},
                       {0}});
    uint32_t seed = 3;
    const float *w = shake(g, "v.patch_embd.weight", &seed);
    const float *bias = shake(g, "v.patch_embd.bias", &seed);
    const float *place = shake(g, "v.position_embd.weight", &seed);
    const float *project = shake(g, "mm.input_projection.weight", &seed);
    const float *norm[3], *norm_bias[3];
    for (uint32_t i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "v.patch_norm.%u.weight", i + 1);
        norm[i] = shake(g, name, &seed);
        snprintf(name, sizeof name, "v.patch_norm.%u.bias", i + 1);
        norm_bias[i] = shake(g, name, &seed);
    }
    vision *v;
    REQUIRE(vision_open(b.memory, g, OUT, &v, &err));
    assert_true(v->config.direct && v->config.side == SIDE && v->config.pool == 1);
    load(b.memory, v->matrices);

    enum { COL = 3, ROW = 2 };
    uint8_t patches[COL * ROW * PIXELS];
    for (size_t i = 0; i < sizeof patches; i++) patches[i] = (uint8_t)(128 + 127 * noise(&seed));
    double want[COL * ROW][OUT];
    for (uint32_t i = 0; i < COL * ROW; i++) {
        double p[PIXELS], x[WIDTH];
        for (uint32_t j = 0; j < PIXELS; j++) /* from (y, x, channel) to (channel, y, x) */
            p[j % 3 * SIDE * SIDE + j / 3] = patches[i * PIXELS + j] / 255.0;
        naive_norm(p, norm[0], norm_bias[0], PIXELS);
        for (uint32_t o = 0; o < WIDTH; o++) {
            x[o] = (double)bias[o];
            for (uint32_t j = 0; j < PIXELS; j++) x[o] += (double)w[o * PIXELS + j] * p[j];
        }
        naive_norm(x, norm[1], norm_bias[1], WIDTH);
        for (uint32_t o = 0; o < WIDTH; o++)
            x[o] +=
                (double)place[i % COL * WIDTH + o] + (double)place[(PLACES + i / COL) * WIDTH + o];
        naive_norm(x, norm[2], norm_bias[2], WIDTH);
        naive_project(x, WIDTH, project, want[i]);
    }
    must_be_near(see(b.memory, v, patches, COL, ROW), want[0], COL * ROW * OUT);
    bench_close(&b);
}

static void direct_audio(void **state) {
    (void)state;
    bench b = bench_open(E4B);
    const gguf *g = edited(
        &b, (const edit[]){
                {ADD_TENSOR, "mm.a.input_projection.weight", .n = 2, .array = {FRAME, OUT}}, {0}});
    uint32_t seed = 5;
    const float *w = shake(g, "mm.a.input_projection.weight", &seed);
    audio *a;
    REQUIRE(audio_open(b.memory, g, OUT, &a, &err));
    assert_true(a->config.direct && a->config.frame == FRAME);
    load(b.memory, a->matrices);
    enum { N = 2 * FRAME + 1 };
    float x[N];
    double want[3][OUT];
    for (uint32_t i = 0; i < N; i++) x[i] = noise(&seed);
    assert_int_equal(audio_soft_tokens(a, N), 3);
    for (uint32_t i = 0; i < 3; i++) {
        double frame[FRAME] = {0};
        for (uint32_t j = 0; j < FRAME && i * FRAME + j < N; j++)
            frame[j] = (double)x[i * FRAME + j];
        naive_project(frame, FRAME, w, want[i]);
    }
    must_be_near(hear(b.memory, a, x, N), want[0], 3 * OUT);
    bench_close(&b);
}

/* ---- soft tokens in the text network ---- */

/* A picture longer than a chunk whose tokens see each other, in a prompt that is run at once and in
 * pieces, which must end before or after it. */
static void two_way_pictures(void **state) {
    (void)state;
    golden g;
    golden_open_relative(&g, "moe", 1e-5);
    enum { N = 500, AT = 100, LONG = TEXT_CPU_CHUNK + 40 };
    const uint32_t n_vocab = g.model->config.n_vocab, d = g.model->config.n_embd;
    int32_t tokens[N];
    uint32_t seed = 7;
    for (uint32_t i = 0; i < N; i++) tokens[i] = (int32_t)(280 + i * 37 % 1700);
    float *rows = golden_alloc(&g, (size_t)LONG * d, sizeof *rows);
    for (uint32_t i = 0; i < LONG * d; i++) rows[i] = noise(&seed);
    const soft_span span = {.pos = AT, .n = LONG, .rows = rows, .picture = true};
    text_input in = {.tokens = tokens, .n_tok = N, .spans = &span, .n_span = 1};
    float *whole = golden_alloc(&g, n_vocab, sizeof *whole);
    float *again = golden_alloc(&g, n_vocab, sizeof *again);
    text_cpu *t = golden_cpu(&g, N), *other;
    REQUIRE(text_cpu_forward_soft(t, &in, 1, whole, NULL, &err));

    REQUIRE(text_cpu_create(g.model, N, &other, &err));
    static const uint32_t cuts[] = {0, 30, AT, AT + LONG, AT + LONG + 1, N};
    for (size_t i = 0; i + 1 < COUNT(cuts); i++) {
        in.tokens = tokens + cuts[i];
        in.pos = cuts[i];
        in.n_tok = cuts[i + 1] - cuts[i];
        REQUIRE(text_cpu_forward_soft(other, &in, 1, again, NULL, &err));
    }
    distance dist = {0};
    distance_add(&dist, again, whole, n_vocab);
    golden_check(&g, "in pieces", &dist);

    /* As a sound it is seen one way, which changes the answer; and may be cut. */
    soft_span sound = span;
    sound.picture = false;
    in = (text_input){.tokens = tokens, .n_tok = AT + 7, .spans = &sound, .n_span = 1};
    REQUIRE(text_cpu_forward_soft(other, &in, 1, again, NULL, &err));
    in = (text_input){.tokens = tokens + AT + 7,
                      .n_tok = N - AT - 7,
                      .pos = AT + 7,
                      .spans = &sound,
                      .n_span = 1};
    REQUIRE(text_cpu_forward_soft(other, &in, 1, again, NULL, &err));
    dist = (distance){0};
    distance_add(&dist, again, whole, n_vocab);
    assert_true(dist.diff > 1e-6 * dist.norm);

    in.spans = &span;
    err = (carat_error){0};
    assert_false(text_cpu_forward_soft(other, &in, 1, again, NULL, &err));
    assert_string_equal(err.message, "text: the soft tokens of a picture must come at once");
    in = (text_input){.tokens = tokens, .n_tok = AT + 7, .spans = &span, .n_span = 1};
    err = (carat_error){0};
    assert_false(text_cpu_forward_soft(other, &in, 1, again, NULL, &err));
    assert_int_equal(err.code, CARAT_E_ARGUMENT);
    text_cpu_free(other);
    text_cpu_free(t);
    golden_close(&g);
}

/* ---- out of memory ---- */

static bool see_all(const gguf *g, const uint8_t *rgb) {
    arena *a = arena_create(&err);
    vision *v;
    vision_cpu *t = NULL;
    image_patches p;
    float soft[128 * 4];
    bool finished = false;
    uint64_t done = 0;
    bool ok = a && vision_open(a, g, 128, &v, &err);
    while (ok && !finished) ok = weights_load_host(v->matrices, a, &done, &finished, &err);
    ok = ok && image_prepare(a, rgb, 8, 8, v->config.side, 3, 4, &p, &err) &&
         vision_cpu_create(v, p.data, p.n_col, p.n_row, NULL, &t, &err);
    for (finished = false; ok && !finished;) vision_cpu_advance(t, soft, &finished);
    vision_cpu_free(t);
    arena_free(a);
    return ok;
}

static bool hear_all(const gguf *g, const float *samples) {
    arena *a = arena_create(&err);
    audio *ears;
    audio_cpu *t = NULL;
    static float mel[20 * MEL_BANDS], soft[5 * 256];
    float *mono;
    uint64_t n = 0, done = 0;
    bool finished = false;
    bool ok = a && audio_open(a, g, 256, &ears, &err);
    while (ok && !finished) ok = weights_load_host(ears->matrices, a, &done, &finished, &err);
    ok = ok && mel_resample(a, samples, 9000, 1, 44100, &mono, &n, &err) &&
         mel_spectrogram(mono, n, mel, &err) &&
         audio_cpu_create(ears, mel, mel_frames(n), NULL, &t, &err);
    for (finished = false; ok && !finished;) audio_cpu_advance(t, soft, &finished);
    audio_cpu_free(t);
    arena_free(a);
    return ok;
}

/* Every allocation fails once: one clear error, and nothing is leaked. */
static void out_of_memory(void **state) {
    (void)state;
    static const uint8_t rgb[8 * 8 * 3];
    static const float samples[9000];
    bench eyes = bench_open(E4B_EYES), ears = bench_open(NANO);
    const long before = n_living;
    for (int hears = 0; hears < 2; hears++) {
        bool ok = false;
        for (long i = 0; !ok; i++) {
            err = (carat_error){0};
            n_malloc = 0;
            failing_at = i;
            ok = hears ? hear_all(ears.base, samples) : see_all(eyes.base, rgb);
            failing_at = -1;
            assert_int_equal(err.code, ok ? CARAT_OK : CARAT_E_MEMORY);
            assert_int_equal(n_living, before);
            if (ok) assert_in_range(i, 4, 100);
        }
    }
    bench_close(&ears);
    bench_close(&eyes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts),       cmocka_unit_test(limits),
        cmocka_unit_test(refused_eyes),  cmocka_unit_test(refused_ears),
        cmocka_unit_test(long_pictures), cmocka_unit_test(direct_vision),
        cmocka_unit_test(direct_audio),  cmocka_unit_test(two_way_pictures),
        cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests_name("encoder", tests, NULL, NULL);
}
