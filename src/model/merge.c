/* merge: a model with adapters added to its matrices, as one GGUF: W + sum of s B A. Tensors go
 * from file to file a piece at a time; those that do not change are copied as they are. A matrix
 * that does change is expanded, added to, and stored again in its format or in the one asked for.
 *
 * Where the head is the embedding's matrix, an adapter on one of them parts the two: the adapted
 * embedding stays token_embd, and the head becomes a tensor of its own.
 *
 * Flow: adapter.c and file/gguf.c before, file/quantise.c writes the blocks. Native. */
#include "model/engine.h"

#include "carat_adapter.h"
#include "file/quantise.h"
#include "model/lora.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_VALUES (1u << 20) /* expanded at once */
#define PIECE_BYTES  (4u << 20) /* copied at once */
#define MAX_DIRS     256u       /* ranks of all adapters of a matrix */

enum { FILE_F16 = 1, FILE_Q8_0 = 7 }; /* general.file_type */

/* A tensor of the new file. */
typedef struct item {
    const gguf_tensor *from;
    const char *name;
    uint32_t type;
    const weight *matrix;  /* NULL: the bytes are copied */
    uint32_t slot;         /* of the adapters; UINT32_MAX: none changes it */
    uint64_t size, offset; /* in the new file's data */
} item;

typedef struct merge {
    carat_job job;
    lora_use uses[ENGINE_ADAPTERS];
    uint32_t n_use;
    uint32_t type; /* of matrices; QUANT_TYPE_END: as they are */
    const char *path, *beside;
    FILE *out;
    item *items; /* [n_item] */
    uint64_t n_item, n_value;
    uint64_t header, alignment;
    uint64_t item, row, at, done, total; /* under way; at: bytes of a copy */
    uint8_t *in, *blocks;
    float *values;
    float *columns, *norms; /* what rounding keeps of the matrix under way */
    uint32_t n_dir;         /* 0: nothing */
    buf head;
} merge;

/* ---- what changes ---- */

static bool adapted(const merge *g, uint32_t slot) {
    for (uint32_t i = 0; i < g->n_use; i++)
        if (lora_slot(g->uses[i].lora, slot)->rank) return true;
    return false;
}

/* The small matrices that files keep as plain floats where all else is quantised. */
static bool stays_plain(const model *m, const weight *w) {
    if (quant_find(w->type)->n_value > 1) return false;
    for (uint32_t il = 0; il < m->config.n_layer; il++) {
        const layer_weights *l = &m->weights.layers[il];
        if (w == &l->router || w == &l->ple_gate || w == &l->ple_proj) return true;
    }
    return w == &m->weights.ple_model_proj;
}

static uint32_t type_for(const merge *g, const weight *w) {
    if (g->type == QUANT_TYPE_END || stays_plain(g->job.engine->model, w)) return w->type;
    return w->n_col % quant_find(g->type)->n_value ? QUANT_F16 : g->type;
}

static uint32_t slot_of(const model *m, const weight *w) {
    const uint32_t n = m->config.n_layer * LORA_TARGETS;
    for (uint32_t i = 0; i < n; i++)
        if (w == lora_weight(m, i / LORA_TARGETS, i % LORA_TARGETS)) return i;
    if (w == &m->weights.embed) return n;
    return w == m->weights.output ? n + 1 : UINT32_MAX;
}

static void plan_matrix(const merge *g, item *it, const weight *w, uint32_t slot) {
    const bool changes = slot != UINT32_MAX && adapted(g, slot);
    const uint64_t n = (uint64_t)w->n_col * w->n_row * w->n_expert;
    it->type = type_for(g, w);
    it->slot = changes ? slot : UINT32_MAX;
    it->matrix = changes || it->type != w->type ? w : NULL;
    it->size = n / quant_find(it->type)->n_value * quant_find(it->type)->n_byte;
}

/* NVFP4's external scale, which other formats have in their blocks. */
static void drop_scale(const merge *g, const item *of) {
    const weight *w = of->matrix;
    if (!w || of->type == w->type || (w->scale == 1 && !w->expert_scale)) return;
    const size_t stem = strlen(of->name) - strlen("weight");
    for (uint64_t i = 0; i < g->n_item; i++) {
        item *it = &g->items[i];
        if (!strncmp(it->name, of->name, stem) && !strcmp(it->name + stem, "scale"))
            it->from = NULL;
    }
}

/* The head that was the embedding, when only one of the two is changed, or each in its way. */
static void part_head(merge *g) {
    const model *m = g->job.engine->model;
    const uint32_t embed = m->config.n_layer * LORA_TARGETS, head = embed + 1;
    if (m->weights.output != &m->weights.embed || (!adapted(g, embed) && !adapted(g, head))) return;
    item *it = &g->items[g->n_item++];
    *it = (item){.from = m->weights.embed.tensor, .name = "output.weight"};
    plan_matrix(g, it, &m->weights.embed, head);
    if (it->type == QUANT_NVFP4 && m->weights.embed.scale != 1) { /* a scale is beside it */
        it->type = QUANT_Q8_0;
        it->matrix = &m->weights.embed;
        it->size = it->from->ne[0] * it->from->ne[1] / 32 * 34;
    }
}

static bool plan_tensors(merge *g, carat_error *err) {
    const model *m = g->job.engine->model;
    const gguf *f = m->gguf;
    g->items = arena_alloc(g->job.memory, f->n_tensor + 1, sizeof *g->items);
    if (!g->items)
        return fail_memory(err, f->n_tensor * sizeof *g->items, "the new file's tensors");
    g->n_item = f->n_tensor;
    for (uint64_t i = 0; i < f->n_tensor; i++) {
        const gguf_tensor *t = &f->tensors[i];
        if (!t->size)
            return fail(err, CARAT_E_UNSUPPORTED, "merge: %s is of a type carat cannot copy",
                        t->name.text);
        g->items[i] = (item){t, t->name.text, t->type, NULL, UINT32_MAX, t->size, 0};
    }
    for (uint32_t i = 0; i <= m->n_matrix; i++) {
        const weight *w = i < m->n_matrix ? m->matrices[i] : &m->weights.ple_embed;
        if (w->tensor) plan_matrix(g, &g->items[w->tensor - f->tensors], w, slot_of(m, w));
    }
    for (uint64_t i = 0; i < f->n_tensor; i++) drop_scale(g, &g->items[i]);
    part_head(g);
    uint64_t n = 0;
    for (uint64_t i = 0; i < g->n_item; i++)
        if (g->items[i].from) g->items[n++] = g->items[i];
    g->n_item = n;
    return true;
}

/* ---- the header ---- */

static void put_number(buf *b, uint64_t v, uint32_t n_byte) {
    uint8_t bytes[8];
    for (uint32_t i = 0; i < n_byte; i++) bytes[i] = (uint8_t)(v >> 8 * i);
    buf_put(b, bytes, n_byte);
}

static void put_string(buf *b, const char *s, size_t n) {
    put_number(b, n, 8);
    buf_put(b, s, n);
}

static uint32_t kind_bytes(gguf_kind k) {
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return bytes[k];
}

static void put_scalar(buf *b, const gguf_value *v) {
    uint64_t bits = v->as.u;
    const float narrow = v->kind == GGUF_F32 ? (float)v->as.f : 0;
    uint32_t low;
    memcpy(&low, &narrow, sizeof low);
    if (v->kind == GGUF_F64) memcpy(&bits, &v->as.f, sizeof bits);
    if (v->kind == GGUF_I8 || v->kind == GGUF_I16 || v->kind == GGUF_I32 || v->kind == GGUF_I64)
        bits = (uint64_t)v->as.i;
    put_number(b, v->kind == GGUF_F32 ? low : bits, kind_bytes(v->kind));
}

static void put_array(buf *b, const gguf_value *v) {
    put_number(b, v->item, 4);
    put_number(b, v->n, 8);
    const gguf_string *s = v->as.items;
    if (v->item == GGUF_STRING)
        for (uint64_t i = 0; i < v->n; i++) put_string(b, s[i].text, s[i].len);
    else
        buf_put(b, v->as.items, (size_t)v->n * kind_bytes(v->item));
}

static bool key_is(const gguf_value *v, const char *key) { return !strcmp(v->key.text, key); }

/* A key as it was, but for the name and what says how matrices are stored. */
static void put_value(merge *g, const gguf_value *v) {
    buf *b = &g->head;
    if (!strncmp(v->key.text, "split.", 6)) return;
    if (g->type != QUANT_TYPE_END && key_is(v, "general.file_type")) return;
    g->n_value++;
    put_string(b, v->key.text, v->key.len);
    put_number(b, v->kind, 4);
    if (v->kind == GGUF_ARRAY) {
        put_array(b, v);
    } else if (v->kind == GGUF_STRING) {
        const char *suffix = key_is(v, "general.name") && g->n_use ? " (merged)" : "";
        put_number(b, v->as.s.len + strlen(suffix), 8);
        buf_put(b, v->as.s.text, v->as.s.len);
        buf_puts(b, suffix);
    } else {
        put_scalar(b, v);
    }
}

static void put_file_type(merge *g) {
    static const char key[] = "general.file_type";
    if (g->type == QUANT_TYPE_END) return;
    g->n_value++;
    put_string(&g->head, key, strlen(key));
    put_number(&g->head, GGUF_U32, 4);
    put_number(&g->head, g->type == QUANT_F16 ? FILE_F16 : FILE_Q8_0, 4);
}

static void put_tensor(merge *g, item *it) {
    buf *b = &g->head;
    put_string(b, it->name, strlen(it->name));
    put_number(b, it->from->n_dims, 4);
    for (uint32_t i = 0; i < it->from->n_dims; i++) put_number(b, it->from->ne[i], 8);
    put_number(b, it->type, 4);
    it->offset = g->total;
    put_number(b, it->offset, 8);
    g->total = round_up(g->total + it->size, g->alignment);
}

static bool make_header(merge *g, carat_error *err) {
    const gguf *f = g->job.engine->model->gguf;
    uint32_t alignment = 32;
    buf *b = &g->head;
    gguf_get_u32(f, "general.alignment", &alignment);
    g->alignment = alignment;
    buf_puts(b, "GGUF");
    put_number(b, 3, 4);
    put_number(b, g->n_item, 8);
    put_number(b, 0, 8); /* of keys, see below */
    for (uint64_t i = 0; i < f->n_value; i++) put_value(g, &f->values[i]);
    put_file_type(g);
    for (uint64_t i = 0; i < g->n_item; i++) put_tensor(g, &g->items[i]);
    while (b->len % alignment && !b->failed) put_number(b, 0, 1);
    if (b->failed) return fail_memory(err, b->len, "the new file's header");
    for (int i = 0; i < 8; i++) b->data[16 + i] = (char)(g->n_value >> 8 * i);
    g->total += b->len;
    return true;
}

/* ---- matrices ---- */

/* x [n_col] += row `row` of s B A, of all adapters */
static void add_row(const merge *g, const item *it, uint64_t row, uint32_t n_col, float *x) {
    const uint32_t embed = g->job.engine->model->config.n_layer * LORA_TARGETS;
    for (uint32_t i = 0; i < g->n_use && it->slot != UINT32_MAX; i++) {
        const lora_pair *p = lora_slot(g->uses[i].lora, it->slot);
        if (it->slot == embed) {
            ref_lora_embed(p, g->uses[i].scale, (int32_t)row, x);
            continue;
        }
        for (uint32_t r = 0; r < p->rank; r++) {
            const float *a = p->a + (size_t)r * n_col;
            const float b = g->uses[i].scale * p->scale * p->b[row * p->rank + r];
            for (uint32_t j = 0; j < n_col; j++) x[j] += b * a[j];
        }
    }
}

static uint32_t count_dirs(const merge *g, const item *it) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n_use && it->slot != UINT32_MAX; i++)
        n += lora_slot(g->uses[i].lora, it->slot)->rank;
    return n > MAX_DIRS || quant_find(it->type)->n_value == 1 ? 0 : n;
}

/* Column r of what is added: of a row in direction r, by how much the others add in it. */
static void fill_dir(const merge *g, const lora_pair *p, uint32_t r, bool embed, float use,
                     uint32_t n_col, float *column) {
    float size = 0;
    const uint32_t n_other = embed ? p->n_col : p->n_row;
    for (uint32_t i = 0; i < n_other; i++) {
        const float x = embed ? p->a[(size_t)r * p->n_col + i] : p->b[(size_t)i * p->rank + r];
        size += x * x;
    }
    size = sqrtf(size) * fabsf(use * p->scale);
    for (uint32_t j = 0; j < n_col; j++)
        column[(size_t)j * g->n_dir] =
            size * (embed ? p->b[(size_t)j * p->rank + r] : p->a[(size_t)r * n_col + j]);
}

/* A matrix in few bits would round away most of what an adapter adds, since that is less than its
 * steps. What a row takes from the inputs that the adapter looks at is therefore kept as a sum:
 * directions are the rows of A (columns of B for an embedding), the more the larger their part. */
static void aim_at(merge *g) {
    const item *it = &g->items[g->item];
    const bool embed = it->slot == g->job.engine->model->config.n_layer * LORA_TARGETS;
    const uint32_t n_col = it->matrix->n_col;
    float *column = g->columns;
    double all = 0;
    g->n_dir = count_dirs(g, it);
    for (uint32_t i = 0; i < g->n_use && g->n_dir; i++) {
        const lora_pair *p = lora_slot(g->uses[i].lora, it->slot);
        for (uint32_t r = 0; r < p->rank; r++)
            fill_dir(g, p, r, embed, g->uses[i].scale, n_col, column++);
    }
    for (size_t i = 0; i < (size_t)n_col * g->n_dir; i++)
        all += (double)g->columns[i] * (double)g->columns[i];
    if (!(all > 0) || !isfinite(all)) g->n_dir = 0;
    const float unit = (float)(1 / sqrt(all / n_col));
    for (size_t i = 0; i < (size_t)n_col * g->n_dir; i++) g->columns[i] *= unit;
    for (uint32_t j = 0; j < n_col && g->n_dir; j++) {
        const float *c = g->columns + (size_t)j * g->n_dir;
        g->norms[j] = ref_dot(c, c, g->n_dir);
    }
}

/* One row from its old blocks to its new ones. */
static bool convert_row(const merge *g, const item *it, uint64_t row, const uint8_t *from, float *x,
                        uint8_t *to, carat_error *err) {
    const weight *w = it->matrix;
    const float scale = w->expert_scale ? w->expert_scale[row / w->n_row] : w->scale;
    quant_find(w->type)->dequantise(from, x, w->n_col);
    for (uint32_t j = 0; j < w->n_col && scale != 1; j++) x[j] *= scale;
    add_row(g, it, row, w->n_col, x);
    for (uint32_t j = 0; j < w->n_col && scale != 1 && it->type == w->type; j++) x[j] /= scale;
    float error[MAX_DIRS] = {0};
    const quantise_aim aim = {g->columns, g->norms, g->n_dir, error};
    return quantise(it->type, x, w->n_col, g->n_dir ? &aim : NULL, to, it->name, err);
}

static size_t row_bytes(uint32_t type, uint32_t n_col) {
    return (size_t)n_col / quant_find(type)->n_value * quant_find(type)->n_byte;
}

static uint64_t rows_at_once(const weight *w) { return max_u32(1, PIECE_VALUES / w->n_col); }

/* Some rows; *n_byte are then in g->blocks. */
static bool convert(merge *g, size_t *n_byte, carat_error *err) {
    const item *it = &g->items[g->item];
    const weight *w = it->matrix;
    const size_t in = row_bytes(w->type, w->n_col), out = row_bytes(it->type, w->n_col);
    const uint64_t left = (uint64_t)w->n_row * w->n_expert - g->row, most = rows_at_once(w);
    const uint64_t n = left < most ? left : most;
    bool ok =
        source_read(it->from->src, it->from->offset + g->row * in, g->in, (size_t)n * in, err);
    if (!ok) return false;
    if (!g->row) aim_at(g);
#pragma omp parallel for schedule(static)
    for (uint64_t i = 0; i < n; i++) {
        carat_error e = {0};
        if (convert_row(g, it, g->row + i, g->in + i * in, g->values + i * w->n_col,
                        g->blocks + i * out, &e))
            continue;
#pragma omp critical
        ok = fail(err, e.code, "%s", e.message);
    }
    g->row += n;
    *n_byte = (size_t)n * out;
    return ok;
}

static bool copy(merge *g, size_t *n_byte, carat_error *err) {
    const item *it = &g->items[g->item];
    const uint64_t left = it->size - g->at;
    *n_byte = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    return source_read(it->from->src, it->from->offset + g->at, g->blocks, *n_byte, err);
}

static bool make_room(merge *g, carat_error *err) {
    uint64_t in = 0, out = PIECE_BYTES, values = 0, columns = 0, n_col = 0;
    for (uint64_t i = 0; i < g->n_item; i++) {
        const weight *w = g->items[i].matrix;
        if (!w) continue;
        const uint64_t n = rows_at_once(w);
        const uint64_t from = n * row_bytes(w->type, w->n_col);
        const uint64_t to = n * row_bytes(g->items[i].type, w->n_col);
        in = from > in ? from : in;
        out = to > out ? to : out;
        values = n * w->n_col > values ? n * w->n_col : values;
        const uint64_t dirs = (uint64_t)count_dirs(g, &g->items[i]) * w->n_col;
        columns = dirs > columns ? dirs : columns;
        n_col = w->n_col > n_col ? w->n_col : n_col;
    }
    g->in = arena_alloc(g->job.memory, in, 1);
    g->blocks = arena_alloc(g->job.memory, out, 1);
    g->values = arena_alloc(g->job.memory, values, sizeof *g->values);
    g->columns = arena_alloc(g->job.memory, columns, sizeof *g->columns);
    g->norms = arena_alloc(g->job.memory, n_col, sizeof *g->norms);
    return (g->in && g->blocks && g->values && g->columns && g->norms) ||
           fail_memory(err, in + out + 4 * (values + columns), "merging");
}

/* ---- the file ---- */

static bool failed_write(const merge *g, carat_error *err) {
    return fail(err, CARAT_E_IO, "%s: cannot write: %s", g->path,
                errno == ENOSPC ? "the disk is full" : strerror(errno));
}

static bool put(merge *g, const void *data, size_t n, carat_error *err) {
    g->done += n;
    return !n || fwrite(data, 1, n, g->out) == n || failed_write(g, err);
}

static bool begin_file(merge *g, carat_error *err) {
    unlink(g->beside); /* left by a crash of a process with our number */
    g->out = fopen(g->beside, "wbx");
    return (g->out || failed_write(g, err)) && put(g, g->head.data, g->head.len, err);
}

static bool end_file(merge *g, carat_error *err) {
    FILE *out = g->out;
    if (fflush(out) != 0 || fsync(fileno(out)) != 0) return failed_write(g, err);
    g->out = NULL;
    if (fclose(out) == 0 && rename(g->beside, g->path) == 0) return true;
    failed_write(g, err);
    unlink(g->beside);
    return false;
}

static bool next_piece(merge *g, carat_error *err) {
    const item *it = &g->items[g->item];
    size_t n = 0;
    if (!(it->matrix ? convert(g, &n, err) : copy(g, &n, err)) || !put(g, g->blocks, n, err))
        return false;
    g->at += n;
    if (g->at < it->size) return true;
    static const char zeros[64];
    uint64_t gap = round_up(it->size, g->alignment) - it->size;
    for (; gap; gap -= n) {
        n = gap < sizeof zeros ? (size_t)gap : sizeof zeros;
        if (!put(g, zeros, n, err)) return false;
    }
    g->item++;
    g->row = g->at = 0;
    return true;
}

static bool merge_advance(carat_job *job, carat_event *ev, carat_error *err) {
    merge *g = (merge *)job;
    if (atomic_load(&job->cancelled))
        return fail(err, CARAT_E_CANCELLED, "merging into %s was cancelled", g->path);
    if (!g->out && !begin_file(g, err)) return false;
    if (g->item == g->n_item) {
        ev->kind = CARAT_EVENT_DONE;
        return end_file(g, err);
    }
    if (!next_piece(g, err)) return false;
    *ev = (carat_event){.kind = CARAT_EVENT_PROGRESS, .token = -1, .done = g->done};
    ev->total = g->total;
    return true;
}

static void merge_free(carat_job *job) {
    merge *g = (merge *)job;
    if (g->out) {
        fclose(g->out);
        unlink(g->beside);
    }
    buf_free(&g->head);
}

/* ---- creating ---- */

static bool take_uses(merge *g, const carat_adapter_use *uses, size_t n, carat_error *err) {
    const carat_engine *eng = g->job.engine;
    if (!n) {
        memcpy(g->uses, eng->uses, sizeof g->uses);
        g->n_use = eng->n_use;
        return g->n_use || g->type != QUANT_TYPE_END ||
               fail(err, CARAT_E_ARGUMENT,
                    "merge: no adapter and no type is given; there is nothing to change");
    }
    if (n > ENGINE_ADAPTERS)
        return fail(err, CARAT_E_ARGUMENT, "merge: %zu adapters; %u are possible", n,
                    ENGINE_ADAPTERS);
    for (size_t i = 0; i < n; i++) {
        if (!uses[i].adapter || uses[i].adapter->engine != eng || !isfinite(uses[i].scale))
            return fail(err, CARAT_E_ARGUMENT,
                        "merge: an adapter of another engine, or a scale that is not a number");
        g->uses[i] = (lora_use){uses[i].adapter->lora, uses[i].scale};
    }
    g->n_use = (uint32_t)n;
    return true;
}

static bool take_type(merge *g, const char *type, carat_error *err) {
    g->type = QUANT_TYPE_END;
    if (!type || !strcmp(type, "keep")) return true;
    g->type = !strcmp(type, "f16") ? QUANT_F16 : QUANT_Q8_0;
    return !strcmp(type, "f16") || !strcmp(type, "q8_0") ||
           fail(err, CARAT_E_ARGUMENT, "merge: the type is keep, q8_0 or f16, not '%.40s'", type);
}

/* The model is read while the new file is written, and may be all that there is of it. */
static bool is_apart(const merge *g, carat_error *err) {
    const gguf *f = g->job.engine->model->gguf;
    struct stat is, new;
    if (stat(g->path, &new) != 0) return true;
    for (uint32_t i = 0; i < f->n_source; i++)
        if (fstat(f->sources[i]->fd, &is) == 0 && is.st_dev == new.st_dev &&
            is.st_ino == new.st_ino)
            return fail(err, CARAT_E_ARGUMENT, "merge: %s is the model itself; name another file",
                        g->path);
    return true;
}

static bool take_path(merge *g, const char *path, carat_error *err) {
    arena *a = g->job.memory;
    const size_t n = path ? strlen(path) : 0;
    if (!n) return fail(err, CARAT_E_ARGUMENT, "merge: no file is given");
    char *beside = arena_alloc(a, n + 32, 1);
    g->path = arena_copy(a, path, n);
    if (!beside || !g->path) return fail_memory(err, n, "a file name");
    snprintf(beside, n + 32, "%s.part-%ld", path, (long)getpid());
    g->beside = beside;
    return is_apart(g, err);
}

carat_job *carat_merge(carat_engine *eng, const carat_adapter_use *uses, size_t n, const char *path,
                       const char *type, carat_error *err) {
    static const job_class class = {
        .size = sizeof(merge), .advance = merge_advance, .free = merge_free};
    merge *g = (merge *)job_create(&class, eng, NULL, err);
    if (!g) return NULL;
    if (take_type(g, type, err) && take_uses(g, uses, n, err) && take_path(g, path, err) &&
        plan_tensors(g, err) && make_header(g, err) && make_room(g, err))
        return &g->job;
    carat_job_free(&g->job);
    return NULL;
}
