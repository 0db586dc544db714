/* A GPU that goes away, at every submit of a conversation's life in turn: the session survives, on
 * the next GPU or on the CPU, and the answer is the one that it would have been.
 *
 * With the null device, which computes nothing, all that is bookkeeping is checked quickly; with a
 * real one (a software adapter will do), lost in the middle of an answer, the text as well. */
#include "gpu/gpu_null.h"
#include "model/engine.h"

#include "media_talk.h"

#define HELLO "[{\"role\":\"user\",\"content\":\"Hello\"}]"
#define SUM   "[{\"role\":\"user\",\"content\":\"What is 23 + 45?\"}]"

/* ---- a GPU that is lost at a submit of our choice, in front of any other ---- */

typedef struct fragile {
    gpu base; /* as the inner one */
    gpu *inner;
    arena *memory;
    uint32_t lose_at; /* submits until then; 0: never */
} fragile;

static bool broken(fragile *f, carat_error *e) {
    if (f->lose_at && --f->lose_at == 0) f->base.lost = true;
    if (f->base.lost) (fail)(e, CARAT_E_DEVICE_LOST, "gpu: the device was lost");
    f->base.stats = f->inner->stats;
    return f->base.lost;
}

static void f_close(gpu *g) {
    fragile *f = (fragile *)g;
    gpu_close(f->inner);
    arena_free(f->memory);
}
static gpu *inner(gpu *g) { return ((fragile *)g)->inner; }
static gpu_buffer f_buffer_create(gpu *g, uint64_t n, gpu_usage u, const char *l, carat_error *e) {
    return gpu_buffer_create(inner(g), n, u, l, e);
}
static void f_buffer_free(gpu *g, gpu_buffer b) { gpu_buffer_free(inner(g), b); }
static void f_write(gpu *g, gpu_buffer b, uint64_t at, const void *data, size_t n) {
    gpu_write(inner(g), b, at, data, n);
}
static gpu_pipeline f_pipeline_create(gpu *g, const gpu_pipeline_desc *d, carat_error *e) {
    return gpu_pipeline_create(inner(g), d, e);
}
static void f_pipeline_free(gpu *g, gpu_pipeline p) { gpu_pipeline_free(inner(g), p); }
static gpu_bind f_bind_create(gpu *g, gpu_pipeline p, const gpu_view *v, uint32_t n,
                              carat_error *e) {
    return gpu_bind_create(inner(g), p, v, n, e);
}
static void f_bind_free(gpu *g, gpu_bind b) { gpu_bind_free(inner(g), b); }
static void f_dispatch(gpu *g, gpu_pipeline p, gpu_bind b, uint32_t x, uint32_t y, uint32_t z) {
    gpu_dispatch(inner(g), p, b, x, y, z);
}
static void f_copy(gpu *g, gpu_buffer d, uint64_t at, gpu_buffer s, uint64_t from, uint64_t n) {
    gpu_copy(inner(g), d, at, s, from, n);
}
static bool f_submit(gpu *g, carat_error *e) {
    return !broken((fragile *)g, e) && gpu_submit(inner(g), e);
}
static gpu_ticket f_read(gpu *g, gpu_buffer b, uint64_t at, size_t n, carat_error *e) {
    return broken((fragile *)g, e) ? (gpu_ticket){0} : gpu_read(inner(g), b, at, n, e);
}
static gpu_poll_result f_poll(gpu *g, gpu_ticket t, void *dst, carat_error *e) {
    gpu_poll_result r = gpu_poll(inner(g), t, dst, e);
    if (r != GPU_READY || !g->lost) return r;
    (fail)(e, CARAT_E_DEVICE_LOST, "gpu: the device was lost");
    return GPU_FAILED;
}
static uint32_t f_pending(gpu *g) { return gpu_pending(inner(g)); }
static void f_wait(gpu *g) { gpu_wait(inner(g)); }

static const gpu_api fragile_api = {
    .close = f_close,
    .buffer_create = f_buffer_create,
    .buffer_free = f_buffer_free,
    .write = f_write,
    .pipeline_create = f_pipeline_create,
    .pipeline_free = f_pipeline_free,
    .bind_create = f_bind_create,
    .bind_free = f_bind_free,
    .dispatch = f_dispatch,
    .copy = f_copy,
    .submit = f_submit,
    .read = f_read,
    .poll = f_poll,
    .pending = f_pending,
    .wait = f_wait,
};

static gpu *make_fragile(gpu *in, uint32_t lose_at) {
    arena *memory = arena_create(NULL);
    fragile *f = arena_alloc(memory, 1, sizeof *f);
    *f = (fragile){.base = *in, .inner = in, .memory = memory, .lose_at = lose_at};
    f->base.api = &fragile_api;
    return &f->base;
}

/* ---- devices that come back ---- */

typedef struct lender { /* of GPUs */
    bool real;
    uint32_t n_left;  /* that can still be opened */
    uint32_t lose_at; /* of each of these */
    uint32_t n_opened;
} lender;

static gpu *lend(void *user, carat_error *e) {
    lender *l = user;
    if (l->n_left == 0) {
        (fail)(e, CARAT_E_DEVICE, "gpu: there is none");
        return NULL;
    }
    l->n_left--;
    l->n_opened++;
    gpu *g = l->real ? gpu_dawn_open(NULL, e) : gpu_null_open(&(gpu_null_desc){.delay = 1}, e);
    return g ? make_fragile(g, l->lose_at) : NULL;
}

static carat_device *open_lent(lender *l) {
    carat_device *dev;
    gpu *g;
    REQUIRE(g = lend(l, &err));
    REQUIRE(dev = carat_device_from_gpu(g, lend, l, &err));
    return dev;
}

/* A model on a device that is lost at submit `at`, counted from the end of loading; the ones that
 * come after it, n_more, live longer. */
static void open_fragile(talk *t, lender *l, uint32_t at, uint32_t n_more) {
    l->n_left = 1 + n_more;
    l->lose_at = 0;
    open_talk_with(t, open_lent(l), &(carat_engine_desc){.path = NANO}, 256);
    ((fragile *)t->dev->gpu)->lose_at = at;
}

/* ---- the null device: every submit of an answer ---- */

/* Runs with a loss at submit `at`; false when the answer was over before. */
static bool answer_null(uint32_t at, uint32_t n_more) {
    lender l = {0};
    talk t;
    open_fragile(&t, &l, at, n_more);
    answer a =
        ask_with(t.ses, (carat_chat_desc){.messages = HELLO, .max_tokens = 5, .ignore_stop = true});
    if (!a.ok) fail_msg("lost at submit %u: %s", at, err.message);
    bool lost = a.notices.len > 0;
    assert_int_equal(a.stats.n_generated, 5);
    assert_int_equal(a.tokens.len, 5);
    if (lost) {
        assert_int_equal(l.n_opened, n_more ? 2 : 1);
        assert_int_equal(carat_device_is_gpu(t.dev), n_more > 0);
        assert_non_null(strstr(a.notices.data, "the GPU was lost; carrying on with "));
        assert_non_null(strstr(a.notices.data, n_more ? "null" : "CPU reference"));
        assert_true(a.stats.load_s > 0);
    }
    assert_int_equal(carat_session_length(t.ses), a.stats.n_prompt + 4);
    free_answer(&a);
    if (carat_device_is_gpu(t.dev)) {
        const fragile *f = (const fragile *)t.dev->gpu;
        assert_string_equal(gpu_null_complaint(f->inner), "");
    } else {
        expect(t.ses, SUM, "23 + 45 = 68.");
    }
    close_talk(&t);
    return lost;
}

static void lost_then_another(void **state) {
    (void)state;
    uint32_t at = 1;
    while (answer_null(at, 1)) at++;
    assert_true(at > 5); /* at least a submit for every token */
}

static void lost_then_cpu(void **state) {
    (void)state;
    for (uint32_t at = 1; at < 9; at += 3) assert_true(answer_null(at, 0));
}

/* The second GPU is lost as well: the CPU. */
static void lost_twice(void **state) {
    (void)state;
    lender l = {0};
    talk t;
    open_fragile(&t, &l, 3, 5);
    l.lose_at = 30; /* in the load, or soon after it */
    answer a = ask(t.ses, HELLO);
    if (!a.ok) fail_msg("%s", err.message);
    assert_int_equal(l.n_opened, 2);
    assert_false(carat_device_is_gpu(t.dev));
    free_answer(&a);
    expect(t.ses, SUM, "23 + 45 = 68.");
    close_talk(&t);
}

/* Two engines on the device, one with two sessions: those that stood by work afterwards. */
static void bystanders(void **state) {
    (void)state;
    lender l = {0};
    talk t;
    carat_engine *other;
    carat_session *ses[2];
    open_fragile(&t, &l, 0, 0);
    REQUIRE(other = carat_engine_open(&(carat_engine_desc){.path = NANO}, t.dev, &err));
    REQUIRE(carat_finish(carat_load(other, &err), &err));
    REQUIRE(ses[0] = carat_session_create(other, NULL, &err));
    REQUIRE(ses[1] = carat_session_create(t.eng, NULL, &err));
    carat_job *job; /* one that is in its middle when another one sees the loss */
    carat_event ev;
    carat_sampling s = greedy();
    carat_chat_desc desc = {.messages = SUM, .sampling = &s};
    REQUIRE(job = carat_chat(ses[1], &desc, &err));
    for (int i = 0; i < 3; i++) REQUIRE(carat_wait(job, &ev, &err));
    ((fragile *)t.dev->gpu)->lose_at = 2;
    answer a = ask(t.ses, SUM);
    assert_true(a.ok && a.notices.len > 0);
    free_answer(&a);
    a = run_job(job);
    if (!a.ok) fail_msg("%s", err.message);
    assert_true(a.stats.n_generated > 0);
    free_answer(&a);
    expect(ses[0], SUM, "23 + 45 = 68.");
    expect(ses[1], SUM, "23 + 45 = 68.");
    carat_session_free(ses[0]);
    carat_session_free(ses[1]);
    carat_engine_close(other);
    close_talk(&t);
}

/* ---- with a picture and a sound ---- */

static uint8_t dots[30 * 20 * 3];
static float hum[4000];

/* Runs with a loss at submit `at`; false when the answer was over before. */
static bool see_and_hear(uint32_t at, uint32_t n_more) {
    static const char messages[] = "[" PARTS(IMAGE "," AUDIO "," TEXT("What is it?")) "]";
    const carat_media m[2] = {{.rgb = dots, .width = 30, .height = 20},
                              {.kind = CARAT_MEDIA_AUDIO,
                               .samples = hum,
                               .n_sample = COUNT(hum),
                               .n_channel = 1,
                               .rate = 16000}};
    lender l = {0};
    talk t;
    open_fragile(&t, &l, at, n_more);
    answer a = ask_with(t.ses, (carat_chat_desc){.messages = messages,
                                                 .media = m,
                                                 .n_media = 2,
                                                 .image_tokens = 70,
                                                 .max_tokens = 3,
                                                 .ignore_stop = true});
    if (!a.ok) fail_msg("lost at submit %u: %s", at, err.message);
    const bool lost = a.notices.len > 0;
    const uint32_t n_soft = 60 + 6; /* those that were not ready may be made twice */
    assert_true(a.stats.n_encoded >= n_soft && a.stats.n_encoded <= (1 + lost) * n_soft);
    assert_int_equal(a.tokens.len, 3);
    assert_int_equal(carat_session_length(t.ses), a.stats.n_prompt + 2);
    free_answer(&a);
    if (carat_device_is_gpu(t.dev))
        assert_string_equal(gpu_null_complaint(((const fragile *)t.dev->gpu)->inner), "");
    close_talk(&t);
    return lost;
}

static void lost_seeing(void **state) {
    (void)state;
    uint32_t at = 1;
    while (see_and_hear(at, 1)) at++;
    assert_true(at > 10);
}

static void lost_seeing_then_cpu(void **state) {
    (void)state;
    for (uint32_t at = 2; at < 20; at += 8) assert_true(see_and_hear(at, 0));
}

/* Scores go on where they were; each is told once. */
static void lost_scoring(void **state) {
    (void)state;
    int32_t ids[60];
    for (int i = 0; i < 60; i++) ids[i] = 300 + i;
    for (uint32_t at = 1; at < 3; at++) {
        lender l = {0};
        talk t;
        open_fragile(&t, &l, at, 0);
        err = (carat_error){0};
        answer a = run_job(carat_score(t.ses, ids, 60, &err));
        if (!a.ok) fail_msg("lost at submit %u: %s", at, err.message);
        assert_int_equal(a.n_score, 59);
        assert_true(a.notices.len > 0);
        free_answer(&a);
        close_talk(&t);
    }
}

/* Saving fails with one sentence, restoring recovers; the conversation goes on in both cases. */
static void lost_saving(void **state) {
    (void)state;
    static const char file[] = "build/test_lost.saved";
    lender l = {0};
    talk t;
    open_fragile(&t, &l, 0, 0);
    answer a = ask(t.ses, HELLO);
    assert_true(a.ok);
    free_answer(&a);
    REQUIRE(carat_finish(carat_session_save(t.ses, file, &err), &err));
    ((fragile *)t.dev->gpu)->lose_at = 3;
    REFUSE(carat_finish(carat_session_save(t.ses, file, &err), &err), CARAT_E_DEVICE_LOST, "lost");
    REQUIRE(carat_finish(carat_session_restore(t.ses, file, &err), &err)); /* the first file */
    assert_true(carat_session_length(t.ses) > 0);
    expect(t.ses, SUM, "23 + 45 = 68.");
    close_talk(&t);
    open_fragile(&t, &l, 0, 0);
    ((fragile *)t.dev->gpu)->lose_at = 1;
    a = run_job(carat_session_restore(t.ses, file, &err));
    if (!a.ok) fail_msg("%s", err.message);
    assert_true(a.notices.len > 0 && !carat_device_is_gpu(t.dev));
    free_answer(&a);
    close_talk(&t);
    remove(file);
}

/* While loading there is nothing to save: one error, and a second try has a device. */
static void lost_loading(void **state) {
    (void)state;
    lender l = {.n_left = 1, .lose_at = 2};
    talk t = {.dev = open_lent(&l)};
    REQUIRE(t.eng = carat_engine_open(&(carat_engine_desc){.path = NANO}, t.dev, &err));
    REFUSE(carat_finish(carat_load(t.eng, &err), &err), CARAT_E_DEVICE_LOST, "lost");
    assert_int_equal(((fragile *)t.dev->gpu)->inner->stats.buffer_bytes, 0);
    REQUIRE(carat_finish(carat_load(t.eng, &err), &err));
    assert_false(carat_device_is_gpu(t.dev));
    REQUIRE(t.ses = carat_session_create(t.eng, NULL, &err));
    expect(t.ses, SUM, "23 + 45 = 68.");
    close_talk(&t);
}

/* A model larger than the GPU: the numbers, nothing left behind, and the CPU still takes it. */
static void too_large(void **state) {
    (void)state;
    talk t = {0};
    gpu *g;
    REQUIRE(g = gpu_null_open(&(gpu_null_desc){.memory = 6000000}, &err));
    REQUIRE(t.dev = carat_device_from_gpu(g, NULL, NULL, &err));
    REQUIRE(t.eng = carat_engine_open(&(carat_engine_desc){.path = NANO}, t.dev, &err));
    REFUSE(carat_finish(carat_load(t.eng, &err), &err), CARAT_E_MEMORY, "0.01 GB");
    assert_int_equal(g->stats.buffer_bytes, 0);
    REFUSE(carat_session_create(t.eng, NULL, &err), CARAT_E_ARGUMENT, "not loaded");
    close_talk(&t);
    device_name = "cpu";
    open_talk(&t, 64);
    expect(t.ses, SUM, "23 + 45 = 68.");
    close_talk(&t);
}

/* A short life on a null device that refuses something; false at the first error. Nothing may be
 * left on the device. */
static bool short_life(const gpu_null_desc *desc) {
    gpu *g;
    talk t = {0};
    REQUIRE(g = gpu_null_open(desc, &err));
    REQUIRE(t.dev = carat_device_from_gpu(g, NULL, NULL, &err));
    err = (carat_error){0};
    bool ok = (t.eng = carat_engine_open(&(carat_engine_desc){.path = NANO}, t.dev, &err)) &&
              carat_finish(carat_load(t.eng, &err), &err) &&
              (t.ses = carat_session_create(t.eng, &(carat_session_desc){.n_ctx = 192}, &err));
    if (ok) {
        answer a = ask_with(t.ses, (carat_chat_desc){.messages = SUM, .max_tokens = 2});
        ok = a.ok;
        free_answer(&a);
    }
    if (!ok) assert_true(err.code == CARAT_E_MEMORY || err.code == CARAT_E_DEVICE);
    carat_session_free(t.ses);
    carat_engine_close(t.eng);
    assert_int_equal(gpu_null_count(g).n_buffer, 0);
    carat_device_close(t.dev);
    return ok;
}

static void buffers_refused(void **state) {
    (void)state;
    uint32_t at = 1;
    while (!short_life(&(gpu_null_desc){.fail_buffer = at})) at++;
    assert_true(at > 60);
}

static void pipelines_refused(void **state) {
    (void)state;
    uint32_t at = 1;
    while (!short_life(&(gpu_null_desc){.fail_pipeline = at})) at++;
    assert_true(at > 10);
}

static void binds_refused(void **state) {
    (void)state;
    uint32_t at = 1;
    while (!short_life(&(gpu_null_desc){.fail_bind = at})) at += 5;
    assert_true(at > 50);
}

static void reads_refused(void **state) {
    (void)state;
    uint32_t at = 1;
    while (!short_life(&(gpu_null_desc){.fail_read = at})) at++;
    assert_true(at > 2);
}

/* ---- a real one: the answer as well ---- */

static void same_answer(uint32_t at, uint32_t n_more) {
    lender l = {.real = true};
    talk t;
    open_fragile(&t, &l, at, n_more);
    answer a = ask_with(t.ses, (carat_chat_desc){.messages = SUM, .max_tokens = 40});
    if (!a.ok) fail_msg("lost at submit %u: %s", at, err.message);
    assert_string_equal(a.text.data, "23 + 45 = 68.");
    assert_non_null(strstr(a.notices.data, "the GPU was lost"));
    assert_int_equal(carat_device_is_gpu(t.dev), n_more > 0);
    assert_int_equal(a.stats.n_generated, a.tokens.len + 1);
    free_answer(&a);
    expect(t.ses, SUM, "23 + 45 = 68.");
    close_talk(&t);
}

static void the_cpu_goes_on(void **state) {
    (void)state;
    same_answer(5, 0);
}

static void another_gpu_goes_on(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    same_answer(13, 1);
}

static void lost_in_the_prompt(void **state) {
    (void)state;
    NEEDS_A_FAST_DEVICE();
    same_answer(1, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lost_then_another), cmocka_unit_test(lost_then_cpu),
        cmocka_unit_test(lost_twice),        cmocka_unit_test(bystanders),
        cmocka_unit_test(lost_seeing),       cmocka_unit_test(lost_seeing_then_cpu),
        cmocka_unit_test(lost_scoring),      cmocka_unit_test(lost_saving),
        cmocka_unit_test(lost_loading),      cmocka_unit_test(too_large),
        cmocka_unit_test(buffers_refused),   cmocka_unit_test(pipelines_refused),
        cmocka_unit_test(binds_refused),     cmocka_unit_test(reads_refused),
    };
    const struct CMUnitTest real[] = {cmocka_unit_test(the_cpu_goes_on),
                                      cmocka_unit_test(another_gpu_goes_on),
                                      cmocka_unit_test(lost_in_the_prompt)};
    int failed = cmocka_run_group_tests_name("lost devices", tests, NULL, NULL);
    return failed + RUN_ON("gpu", "a lost GPU", real, NULL, NULL);
}
