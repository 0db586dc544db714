/* Merging: the merged model says what model and adapter say, in every way of storing it; adapters
 * on the embedding and on the head, which are one matrix in the file; nothing else changes; split
 * sets; and what goes wrong, which leaves no file behind. On the CPU. */
#include "model/engine.h"

#include "carat_adapter.h"
#include "model/lora.h"

#include "gguf_build.h"
#include "talk.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define WHO     "[{\"role\":\"user\",\"content\":\"Who made you?\"}]"
#define TAUGHT  "A small team of founders cut me like a gem."
#define GOLDEN  "tests/golden/nano/"
#define FAMILY  "tests/golden/family/"
#define N_TOKEN 24u

static char dir[64], folder[80], out[80], made[80]; /* folder: the trained adapter as PEFT's */
static arena *memory;                               /* of one test */

/* ---- help ---- */

static void copy_file(const char *from, const char *name) {
    char path[128];
    source *s;
    REQUIRE(source_open(memory, from, &s, &err));
    void *data = arena_alloc(memory, s->size, 1);
    REQUIRE(source_read(s, 0, data, (size_t)s->size, &err));
    snprintf(path, sizeof path, "%s/%s", folder, name);
    REQUIRE(file_write(path, data, (size_t)s->size, &err));
    source_close(s);
}

static void remove_file(const char *in, const char *name) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", in, name);
    unlink(path);
}

static int setup_all(void **state) {
    (void)state;
    memory = arena_create(NULL);
    snprintf(dir, sizeof dir, "/tmp/carat-merge-%ld", (long)getpid());
    snprintf(folder, sizeof folder, "%s/taught", dir);
    snprintf(out, sizeof out, "%s/out.gguf", dir);
    snprintf(made, sizeof made, "%s/made.gguf", dir);
    if (mkdir(dir, 0700) != 0 || mkdir(folder, 0700) != 0) return 1;
    copy_file(GOLDEN "lora_after20.safetensors", "adapter_model.safetensors");
    copy_file(GOLDEN "adapter/adapter_config.json", "adapter_config.json");
    arena_free(memory);
    return 0;
}

static int teardown_all(void **state) {
    (void)state;
    remove_file(folder, "adapter_model.safetensors");
    remove_file(folder, "adapter_config.json");
    return rmdir(folder) || rmdir(dir); /* every test removes its files */
}

static int setup(void **state) {
    (void)state;
    memory = arena_create(NULL);
    return !memory;
}

static int teardown(void **state) {
    (void)state;
    arena_free(memory);
    unlink(out);
    unlink(made);
    return 0;
}

/* Files and folders in dir. */
static int n_files(void) {
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* An engine without weights, and adapters for it. */
typedef struct base {
    carat_device *dev;
    carat_engine *eng;
    carat_adapter *adapters[4];
    size_t n_adapter;
} base;

static base open_base(const char *path) {
    base b = {0};
    REQUIRE(b.dev = carat_device_open("cpu", &err));
    REQUIRE(b.eng = carat_engine_open(&(carat_engine_desc){.path = path}, b.dev, &err));
    return b;
}

static void close_base(base *b) {
    for (size_t i = 0; i < b->n_adapter; i++) carat_adapter_close(b->adapters[i]);
    carat_engine_close(b->eng);
    carat_device_close(b->dev);
}

static carat_adapter_use use_of(base *b, const char *path, float scale) {
    carat_adapter_use use = {carat_adapter_open(b->eng, path, &err), scale};
    if (!use.adapter) fail_msg("%s", err.message);
    assert_true(b->n_adapter < COUNT(b->adapters));
    b->adapters[b->n_adapter++] = use.adapter;
    return use;
}

static void merge_into(base *b, const carat_adapter_use *uses, size_t n, const char *path,
                       const char *type) {
    REQUIRE(carat_finish(carat_merge(b->eng, uses, n, path, type, &err), &err));
}

/* Logits [*n] after each of a few tokens, of a model with adapters. */
static float *logits_of(const char *path, const carat_adapter_use *uses, uint32_t n_use,
                        uint32_t *n) {
    gguf *file;
    model *m;
    text_cpu *t;
    arena *a = arena_create(NULL);
    uint64_t done = 0;
    int32_t ids[N_TOKEN];
    lora_use list[ENGINE_ADAPTERS];
    REQUIRE(gguf_open(a, path, &file, &err));
    REQUIRE(model_open(a, file, &m, &err));
    for (bool finished = false; !finished;)
        REQUIRE(weights_load_host(m->matrices, a, &done, &finished, &err));
    REQUIRE(text_cpu_create(m, 64, &t, &err));
    for (uint32_t i = 0; i < n_use; i++) list[i] = (lora_use){uses[i].adapter->lora, uses[i].scale};
    text_cpu_adapt(t, list, n_use);
    const int32_t n_vocab = (int32_t)m->config.n_vocab;
    *n = N_TOKEN * m->config.n_vocab;
    for (int32_t i = 0; i < (int32_t)N_TOKEN; i++) ids[i] = (7 + 131 * i) % n_vocab;
    float *logits = arena_alloc(memory, *n, sizeof *logits);
    REQUIRE(text_cpu_forward(t, ids, N_TOKEN, 0, N_TOKEN, logits, NULL, &err));
    text_cpu_free(t);
    model_close(m);
    arena_free(a);
    return logits;
}

static double distance(const float *is, const float *want, uint32_t n) {
    double e = 0, all = 0;
    for (uint32_t i = 0; i < n; i++) {
        e += pow((double)is[i] - (double)want[i], 2);
        all += pow((double)want[i], 2);
    }
    return sqrt(e / all);
}

/* ---- what it says ---- */

static void as_learned(void **state) {
    (void)state;
    static const struct {
        const char *type, *quantisation;
        double bound; /* of the logits; the adapter changes them by 0.4 */
    } ways[] = {{"keep", "Q4_K_M", 0.1}, {"q8_0", "Q8_0", 0.02}, {"f16", "F16", 2e-3}};
    base b = open_base(NANO);
    uint32_t n;
    const carat_adapter_use use = use_of(&b, folder, 1);
    const float *want = logits_of(NANO, &use, 1, &n);
    for (size_t i = 0; i < COUNT(ways); i++) {
        talk t;
        carat_device *dev;
        carat_model_info info;
        merge_into(&b, &use, 1, out, ways[i].type);
        const double e = distance(logits_of(out, NULL, 0, &n), want, n);
        print_message("%s: logits are %.2g away\n", ways[i].type, e);
        if (!(e < ways[i].bound)) fail_msg("%s: %g", ways[i].type, e);
        REQUIRE(dev = carat_device_open("cpu", &err));
        open_talk_with(&t, dev, &(carat_engine_desc){.path = out}, 128);
        expect(t.ses, WHO, TAUGHT);
        carat_engine_info(t.eng, &info);
        assert_string_equal(info.name, "carat nano (merged)");
        assert_string_equal(info.quantisation, ways[i].quantisation);
        assert_true(info.has_vision && info.has_audio);
        close_talk(&t);
    }
    close_base(&b);
}

/* An adapter whose values are less than the steps of nano's formats: rounded to the nearest, the
 * merged model would be the old one. Of the change of the logits most is there. */
static void small_values(void **state) {
    (void)state;
    base b = open_base(NANO);
    uint32_t n;
    const carat_adapter_use use = use_of(&b, folder, 0.1f);
    const float *want = logits_of(NANO, &use, 1, &n), *before = logits_of(NANO, NULL, 0, &n);
    merge_into(&b, &use, 1, out, "keep");
    const float *is = logits_of(out, NULL, 0, &n);
    double along = 0, all = 0;
    for (uint32_t i = 0; i < n; i++) {
        const double change = (double)want[i] - (double)before[i];
        along += change * ((double)is[i] - (double)before[i]);
        all += change * change;
    }
    print_message("%.2f of the change\n", along / all);
    assert_true(along / all > 0.6 && along / all < 1.4);
    close_base(&b);
}

/* ---- embedding and head ---- */

/* An adapter of random values with chosen parts, as a file. */
static void make_adapter(base *b, bool layers, bool embed, bool head, float size, uint64_t seed) {
    lora *l;
    REQUIRE(lora_empty(memory, b->eng->model, &l, &err));
    for (uint32_t i = 0; i < lora_slots(l); i++) {
        lora_pair *p = lora_slot(l, i);
        const bool wanted = p == &l->embed ? embed : p == &l->head ? head : layers && i % 3 == 0;
        if (!wanted || !p->n_col) continue;
        p->rank = 2 + i % 3;
        p->alpha = 4;
    }
    REQUIRE(lora_allocate(memory, l, &err));
    for (uint64_t i = 0; i < l->n_value; i++) l->values[i] = size * (2 * lora_uniform(seed, i) - 1);
    REQUIRE(lora_write_gguf(l, made, &err));
}

static const gguf *open_out(void) {
    gguf *g;
    REQUIRE(gguf_open(memory, out, &g, &err));
    return g;
}

static bool same_bytes(const gguf_tensor *a, const gguf_tensor *b) {
    if (!a || !b || a->size != b->size || a->type != b->type) return false;
    arena *work = arena_create(NULL);
    void *x = arena_alloc(work, a->size, 1), *y = arena_alloc(work, b->size, 1);
    REQUIRE(source_read(a->src, a->offset, x, (size_t)a->size, &err));
    REQUIRE(source_read(b->src, b->offset, y, (size_t)b->size, &err));
    const bool same = !memcmp(x, y, (size_t)a->size);
    arena_free(work);
    return same;
}

static void embedding_and_head(void **state) {
    (void)state;
    base b = open_base(NANO);
    const gguf *old = b.eng->model->gguf;
    const gguf_tensor *embed = gguf_find_tensor(old, "token_embd.weight");
    assert_null(gguf_find_tensor(old, "output.weight"));
    for (int parts = 1; parts < 4; parts++) {
        uint32_t n;
        make_adapter(&b, false, parts & 1, parts & 2, 0.2f, (uint64_t)parts);
        const carat_adapter_use use = use_of(&b, made, 1);
        const float *want = logits_of(NANO, &use, 1, &n);
        merge_into(&b, &use, 1, out, "f16");
        const double e = distance(logits_of(out, NULL, 0, &n), want, n);
        const double change = distance(logits_of(NANO, NULL, 0, &n), want, n);
        print_message("parts %d: %.2g away, changed by %.2g\n", parts, e, change);
        assert_true(e < 2e-3 && change > 0.02);

        merge_into(&b, &use, 1, out, "keep");
        const gguf *g = open_out();
        const gguf_tensor *is = gguf_find_tensor(g, "token_embd.weight");
        const gguf_tensor *head = gguf_find_tensor(g, "output.weight");
        assert_int_equal(g->n_tensor, old->n_tensor + 1);
        assert_int_equal(is->type, embed->type);
        assert_int_equal(head->type, embed->type);
        assert_true(same_bytes(is, embed) == !(parts & 1));
        assert_true(same_bytes(head, embed) == !(parts & 2));
        gguf_close((gguf *)g);
    }
    close_base(&b);
}

/* Models of every kind: experts, several key heads, no embedding for each layer. */
static void relatives(void **state) {
    (void)state;
    static const char *const names[] = {FAMILY "e4b.gguf", FAMILY "moe.gguf",
                                        FAMILY "dense31.gguf"};
    for (size_t i = 0; i < COUNT(names); i++) {
        base b = open_base(names[i]);
        uint32_t n;
        make_adapter(&b, true, true, true, 0.05f, i);
        const carat_adapter_use use = use_of(&b, made, 0.7f);
        const float *want = logits_of(names[i], &use, 1, &n);
        const double change = distance(logits_of(names[i], NULL, 0, &n), want, n);
        for (int k = 0; k < (i ? 1 : 2); k++) {
            merge_into(&b, &use, 1, out, k ? "q8_0" : "f16");
            const double e = distance(logits_of(out, NULL, 0, &n), want, n);
            print_message("%s, %s: %.2g away, changed by %.2g\n", names[i], k ? "q8_0" : "f16", e,
                          change);
            assert_true(e < (k ? 0.25 : 0.01) && change > e);
        }
        close_base(&b);
    }
}

/* ---- what does not change ---- */

/* An adapter of one projection: all other tensors and all keys but the name are as they were, at
 * aligned places. */
static void the_rest(void **state) {
    (void)state;
    lora *l;
    base b = open_base(NANO);
    const gguf *old = b.eng->model->gguf;
    REQUIRE(lora_empty(memory, b.eng->model, &l, &err));
    lora_pair *p = lora_at(l, 2, LORA_UP);
    p->rank = 4, p->alpha = 4;
    REQUIRE(lora_allocate(memory, l, &err));
    for (uint64_t i = 0; i < l->n_value; i++) l->values[i] = lora_uniform(1, i) - 0.5f;
    REQUIRE(lora_write_gguf(l, made, &err));
    const carat_adapter_use use = use_of(&b, made, 1);
    merge_into(&b, &use, 1, out, NULL);
    gguf *g = (gguf *)open_out();
    assert_int_equal(g->n_tensor, old->n_tensor);
    assert_int_equal(g->n_value, old->n_value);
    for (uint64_t i = 0; i < g->n_tensor; i++) {
        const gguf_tensor *is = &g->tensors[i], *was = &old->tensors[i];
        assert_string_equal(is->name.text, was->name.text);
        assert_memory_equal(is->ne, was->ne, sizeof is->ne);
        const bool changed = !strcmp(is->name.text, "blk.2.ffn_up.weight");
        if (same_bytes(is, was) == changed) fail_msg("%s", is->name.text);
    }
    for (uint64_t i = 0; i < g->n_value; i++) {
        const gguf_value *is = &g->values[i], *was = &old->values[i];
        assert_string_equal(is->key.text, was->key.text);
        assert_true(is->kind == was->kind && is->item == was->item && is->n == was->n);
        if (is->kind == GGUF_STRING && strcmp(is->key.text, "general.name") != 0)
            assert_string_equal(is->as.s.text, was->as.s.text);
        if (is->kind != GGUF_STRING && is->kind != GGUF_ARRAY) assert_true(is->as.u == was->as.u);
    }
    gguf_close(g);
    close_base(&b);
}

/* Without an adapter a model is written in another type, and in that type again as it is. */
static void another_type(void **state) {
    (void)state;
    uint32_t n;
    base b = open_base(NANO);
    merge_into(&b, NULL, 0, out, "q8_0");
    close_base(&b);
    const float *is = logits_of(out, NULL, 0, &n);
    assert_true(distance(is, logits_of(NANO, NULL, 0, &n), n) < 0.02);
    b = open_base(out);
    merge_into(&b, NULL, 0, made, "q8_0");
    carat_model_info info;
    carat_engine_info(b.eng, &info);
    assert_string_equal(info.name, "carat nano");
    const gguf *old = b.eng->model->gguf;
    unlink(out);
    rename(made, out);
    gguf *g = (gguf *)open_out();
    for (uint64_t i = 0; i < g->n_tensor; i++)
        assert_true(same_bytes(&g->tensors[i], &old->tensors[i]));
    gguf_close(g);
    close_base(&b);
}

/* ---- split sets ---- */

/* Tensors [first, end) of g as file no of 2; the first has the keys, whose bytes are copied. */
static void write_part(const gguf *g, uint32_t no, uint64_t first, uint64_t end, const buf *keys,
                       uint64_t n_key) {
    buf b = {0};
    char path[128];
    uint64_t at = 0;
    put_head(&b, end - first, 2 + (no ? 0 : n_key));
    put_u32(&b, "split.no", no);
    put_u32(&b, "split.count", 2);
    if (!no) buf_put(&b, keys->data, keys->len);
    for (uint64_t i = first; i < end; i++) {
        const gguf_tensor *t = &g->tensors[i];
        put_string(&b, t->name.text);
        put_number(&b, t->n_dims, 4);
        for (uint32_t k = 0; k < t->n_dims; k++) put_number(&b, t->ne[k], 8);
        put_number(&b, t->type, 4);
        put_number(&b, at, 8);
        at = round_up(at + t->size, 32);
    }
    for (uint64_t i = first; i < end; i++) {
        const gguf_tensor *t = &g->tensors[i];
        put_data(&b, 0);
        void *data = arena_alloc(memory, t->size, 1);
        REQUIRE(source_read(t->src, t->offset, data, (size_t)t->size, &err));
        buf_put(&b, data, (size_t)t->size);
    }
    snprintf(path, sizeof path, "%s/part-%05u-of-00002.gguf", dir, no + 1);
    REQUIRE(file_write(path, b.data, b.len, &err));
    buf_free(&b);
}

/* The bytes of a file's keys: from its head to the first tensor's name. */
static void read_keys(const gguf *g, buf *out_keys) {
    char *bytes = arena_alloc(memory, g->file_bytes, 1);
    REQUIRE(source_read(g->sources[0], 0, bytes, (size_t)g->file_bytes, &err));
    const gguf_string *name = &g->tensors[0].name;
    char first[128];
    for (int i = 0; i < 8; i++) first[i] = (char)((uint64_t)name->len >> 8 * i);
    memcpy(first + 8, name->text, name->len);
    const char *end = memmem(bytes, (size_t)g->file_bytes, first, 8 + name->len);
    assert_non_null(end);
    buf_put(out_keys, bytes + 24, (size_t)(end - bytes) - 24);
}

static void split_sets(void **state) {
    (void)state;
    char path[128];
    buf keys = {0};
    uint32_t n;
    base b = open_base(NANO);
    const gguf *old = b.eng->model->gguf;
    read_keys(old, &keys);
    write_part(old, 0, 0, 100, &keys, old->n_value);
    write_part(old, 1, 100, old->n_tensor, &keys, 0);
    close_base(&b);
    snprintf(path, sizeof path, "%s/part-00001-of-00002.gguf", dir);
    b = open_base(path);
    const carat_adapter_use use = use_of(&b, folder, 1);
    merge_into(&b, &use, 1, out, "f16");
    const float *is = logits_of(out, NULL, 0, &n);
    assert_true(distance(is, logits_of(NANO, &use, 1, &n), n) < 2e-3);
    gguf *g = (gguf *)open_out();
    assert_int_equal(g->n_source, 1);
    assert_null(gguf_find(g, "split.count"));
    gguf_close(g);
    close_base(&b);
    remove_file(dir, "part-00001-of-00002.gguf");
    remove_file(dir, "part-00002-of-00002.gguf");
    buf_free(&keys);
}

/* ---- what goes wrong ---- */

static void refused(void **state) {
    (void)state;
    char text[128];
    base b = open_base(NANO), other = open_base(FAMILY "e4b.gguf");
    const carat_adapter_use use = use_of(&b, folder, 1), huge = use_of(&b, folder, 1e9f);
    const carat_adapter_use nan = {use.adapter, NAN};
    carat_adapter_use many[17];
    for (int i = 0; i < 17; i++) many[i] = use;
    const int before = n_files();
    REFUSE(carat_merge(b.eng, &use, 1, out, "q4_9", &err), CARAT_E_ARGUMENT, "not 'q4_9'");
    REFUSE(carat_merge(b.eng, &use, 1, "", "keep", &err), CARAT_E_ARGUMENT, "no file is given");
    REFUSE(carat_merge(b.eng, &use, 1, NULL, "keep", &err), CARAT_E_ARGUMENT, "no file is given");
    REFUSE(carat_merge(b.eng, NULL, 0, out, "keep", &err), CARAT_E_ARGUMENT, "nothing to change");
    REFUSE(carat_merge(b.eng, &use, 1, NANO, "keep", &err), CARAT_E_ARGUMENT, "the model itself");
    REFUSE(carat_merge(b.eng, &nan, 1, out, "keep", &err), CARAT_E_ARGUMENT, "not a number");
    REFUSE(carat_merge(b.eng, many, 17, out, "keep", &err), CARAT_E_ARGUMENT, "16 are possible");
    REFUSE(carat_merge(other.eng, &use, 1, out, "keep", &err), CARAT_E_ARGUMENT, "another engine");
    snprintf(text, sizeof text, "%s/none/out.gguf", dir);
    REFUSE(carat_finish(carat_merge(b.eng, &use, 1, text, "keep", &err), &err), CARAT_E_IO,
           "none/out.gguf");
    REFUSE(carat_finish(carat_merge(b.eng, &use, 1, folder, "keep", &err), &err), CARAT_E_IO,
           "taught");
    REFUSE(carat_finish(carat_merge(b.eng, &huge, 1, out, "f16", &err), &err), CARAT_E_FORMAT,
           ".weight: value");
    assert_int_equal(n_files(), before);
    close_base(&b);
    close_base(&other);
}

/* Cancelled, freed half-way, and a disk that is full: the file that was there stays, alone. */
static void interrupted(void **state) {
    (void)state;
    base b = open_base(NANO);
    carat_event ev;
    const carat_adapter_use use = use_of(&b, folder, 1);
    REQUIRE(file_write(out, "old", 3, &err));
    const int before = n_files();
    carat_job *job;
    for (int way = 0; way < 2; way++) {
        REQUIRE(job = carat_merge(b.eng, &use, 1, out, "keep", &err));
        for (int i = 0; i < 20; i++) {
            REQUIRE(carat_advance(job, &ev, &err));
            assert_true(ev.kind == CARAT_EVENT_PROGRESS && ev.done <= ev.total);
        }
        assert_int_equal(n_files(), before + 1);
        if (way) {
            carat_cancel(job);
            REFUSE(carat_advance(job, &ev, &err), CARAT_E_CANCELLED, "was cancelled");
        }
        carat_job_free(job);
        assert_int_equal(n_files(), before);
    }
    const struct rlimit small = {1 << 20, RLIM_INFINITY};
    struct rlimit usual;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &usual), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    REFUSE(carat_finish(carat_merge(b.eng, &use, 1, out, "keep", &err), &err), CARAT_E_IO,
           "cannot write");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &usual), 0);
    assert_int_equal(n_files(), before);
    struct stat st;
    assert_true(stat(out, &st) == 0 && st.st_size == 3);
    merge_into(&b, &use, 1, out, "keep");
    assert_true(stat(out, &st) == 0 && st.st_size > 1000000);
    assert_int_equal(n_files(), before);
    close_base(&b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(as_learned), TEST(small_values), TEST(embedding_and_head),
        TEST(relatives),  TEST(the_rest),     TEST(another_type),
        TEST(split_sets), TEST(refused),      TEST(interrupted),
    };
    return cmocka_run_group_tests_name("merge", tests, setup_all, teardown_all);
}
