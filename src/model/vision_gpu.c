/* vision_gpu: the vision encoder on the device. The stages of vision_cpu.c; what is fused: places
 * into the patches' matrix, clamps into the matrices, q, k, v norms with RoPE, gate with up and
 * GELU, the end of each block with the norm that begins the next, pooling with what follows it. A
 * layer is 10 dispatches, more when there are too many patches for one.
 *
 * A picture is encoded in pieces of about the same work, so that the device answers in between:
 * attention goes through the queries in pieces, the feed-forward part through the patches.
 *
 * Flow: encoder_gpu.c (weights) and media/image.c (patches) before; text_gpu.c takes the soft
 * tokens. */
#include "model/encoder_gpu.h"

#include "kernels.h"

#include <math.h>
#include <string.h>

#define CHANNELS      3u
#define DIRECT_EPS    1e-5f         /* of the layer norms of the encoder without a tower */
#define MAX_CALLS     2048u         /* of kernels, before their slots are used again */
#define MAX_STAGE     512u          /* of them in a submit */
#define WORK          (16ull << 30) /* products a submit, about: 100 ms at 0.3 TFLOP/s */
#define SOFTWARE_WORK (1ull << 28)
#define ACT_BYTES     (32u << 20) /* of the widest values of the feed-forward part */
#define ROWS          64u         /* of a workgroup of matrices and of attention */
#define MAX_HEAD      80u         /* vision_attention.wgsl */
#define COPY_PATCHES  64u         /* on their way to the device at once */
#define NONE          UINT32_MAX
#define MAX_ROOMS     16u

typedef enum stage { EMBED, QKV, ATTEND, OUT, FFN, FINISH, DONE } stage;

struct vision_gpu {
    const vision *v;
    const vision_config *c;
    const encoder_gpu *e;
    gpu *gpu;
    kernel_steps *steps;
    arena *memory;
    uint8_t *host_pixels;     /* [COPY_PATCHES, n_pixel] */
    uint32_t n_col, n_row, n; /* patches; n = n_col * n_row */
    uint32_t n_soft;
    gpu_buffer soft; /* the caller's */
    stage stage;     /* what comes next: */
    uint32_t il, at; /* of this layer, from this patch on */
    uint64_t done, total;
    uint64_t bytes[MAX_ROOMS]; /* of the buffers below, as they are */
    gpu_buffer pixels;         /* [n, n_pixel] bytes, a channel after the other */
    gpu_buffer places;         /* [n_col + n_row, n_embd] */
    gpu_buffer cos_sin;        /* [max(n_col, n_row), head_dim/4, 2] */
    gpu_buffer x;              /* [n, n_embd] the residual stream */
    gpu_buffer norm;           /* [n, n_embd]; the heads' outputs, too */
    gpu_buffer q, k, v_raw;    /* [n, n_embd]; k becomes what a block adds to x */
    gpu_buffer k_half, v_half; /* [n, n_embd] f16 */
    gpu_buffer act;            /* [act_rows(), n_ff] */
    gpu_buffer up;             /* the same, where gate and up clamp differently */
    gpu_buffer values;         /* direct: [n, n_pixel] normed pixels */
    gpu_buffer tower;          /* [n_soft, n_embd] */
};

static uint32_t n_pixel(const vision_config *c) { return CHANNELS * c->side * c->side; }

/* ---- memory ---- */

/* Patches that go through the feed-forward part at once. */
static uint32_t act_rows(const vision_config *c, uint32_t n) {
    const uint32_t most = max_u32(ACT_BYTES / 4 / c->n_ff / ROWS * ROWS, ROWS);
    return min_u32(div_up(n, ROWS) * ROWS, most);
}

static bool clamps_differ(const vision_layer *l) {
    const clipped *a = &l->gate, *b = &l->up;
    return a->in_min < b->in_min || a->in_min > b->in_min || a->in_max < b->in_max ||
           a->in_max > b->in_max;
}

static bool any_differ(const vision *v) {
    for (uint32_t il = 0; il < v->config.n_layer; il++)
        if (clamps_differ(&v->layers[il])) return true;
    return false;
}

typedef struct room {
    gpu_buffer *buffer;
    uint64_t bytes;
    const char *label;
} room;

/* Every buffer, with the bytes that a picture needs of it. t may be empty. */
static uint32_t plan(vision_gpu *t, const vision *v, uint32_t n_col, uint32_t n_row, room *out) {
    const vision_config *c = &v->config;
    const uint64_t n = (uint64_t)n_col * n_row, all = n * c->n_embd * 4, none = 0;
    const uint64_t act = c->direct ? 0 : (uint64_t)act_rows(c, (uint32_t)n) * c->n_ff * 4;
    const uint64_t tower = c->direct ? none : all;
    const room rooms[] = {
        {&t->pixels, n * n_pixel(c), "the pixels of a picture"},
        {&t->places, ((uint64_t)n_col + n_row) * c->n_embd * 4, "the places of patches"},
        {&t->cos_sin, c->direct ? 0 : max_u32(n_col, n_row) * c->head_dim * 2ull, "rope"},
        {&t->x, all, "the patches of a picture"},
        {&t->norm, all, "normed patches"},
        {&t->q, tower, "q of patches"},
        {&t->k, tower, "k of patches"},
        {&t->v_raw, tower, "v of patches"},
        {&t->k_half, tower / 2, "keys of patches"},
        {&t->v_half, tower / 2, "values of patches"},
        {&t->act, act, "feed-forward of patches"},
        {&t->up, any_differ(v) ? act : 0, "feed-forward of patches"},
        {&t->values, c->direct ? n * n_pixel(c) * 4 : 0, "normed pixels"},
        {&t->tower, (uint64_t)vision_soft_tokens(v, n_col, n_row) * c->n_embd * 4, "tower"},
    };
    static_assert(COUNT(rooms) <= MAX_ROOMS, "vision_gpu.bytes");
    memcpy(out, rooms, sizeof rooms);
    return COUNT(rooms);
}

uint64_t vision_gpu_memory(const vision *v, uint32_t n_col, uint32_t n_row) {
    vision_gpu none = {0};
    room rooms[MAX_ROOMS];
    const uint32_t n = plan(&none, v, n_col, n_row, rooms);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += rooms[i].bytes;
    return sum;
}

static void free_rooms(vision_gpu *t) {
    room rooms[MAX_ROOMS];
    const uint32_t n = plan(t, t->v, 0, 0, rooms);
    kernel_steps_forget(t->steps);
    for (uint32_t i = 0; i < n; i++) {
        gpu_buffer_free(t->gpu, *rooms[i].buffer);
        *rooms[i].buffer = (gpu_buffer){0};
        t->bytes[i] = 0;
    }
}

/* Makes the buffers large enough; those of the last picture stay when they are. */
static bool make_rooms(vision_gpu *t, carat_error *err) {
    room rooms[MAX_ROOMS];
    const uint32_t n = plan(t, t->v, t->n_col, t->n_row, rooms);
    bool enough = true;
    for (uint32_t i = 0; i < n; i++) enough = enough && rooms[i].bytes <= t->bytes[i];
    if (enough) return true;
    free_rooms(t);
    for (uint32_t i = 0; i < n; i++) {
        if (!rooms[i].bytes) continue;
        if (rooms[i].bytes > t->gpu->info.max_binding)
            return fail(err, CARAT_E_MEMORY,
                        "vision: %s need %llu MB in one piece; %s allows %llu MB (give the picture "
                        "fewer soft tokens)",
                        rooms[i].label, (unsigned long long)(rooms[i].bytes >> 20),
                        t->gpu->info.name, (unsigned long long)(t->gpu->info.max_binding >> 20));
        *rooms[i].buffer =
            gpu_buffer_create(t->gpu, rooms[i].bytes, GPU_STORAGE, rooms[i].label, err);
        if (!rooms[i].buffer->id) return false;
        t->bytes[i] = rooms[i].bytes;
    }
    return true;
}

/* ---- inputs ---- */

/* Patches as the matrix wants them: a channel after the other. */
static void write_pixels(vision_gpu *t, const uint8_t *patches) {
    const uint32_t n_value = n_pixel(t->c), plane = n_value / CHANNELS;
    for (uint32_t at = 0; at < t->n; at += COPY_PATCHES) {
        const uint32_t n = min_u32(COPY_PATCHES, t->n - at);
        uint8_t *to = t->host_pixels;
        for (uint32_t i = 0; i < n; i++, patches += n_value)
            for (uint32_t c = 0; c < CHANNELS; c++)
                for (uint32_t j = 0; j < plane; j++) *to++ = patches[j * CHANNELS + c];
        gpu_write(t->gpu, t->pixels, (uint64_t)at * n_value, t->host_pixels, (size_t)n * n_value);
    }
}

/* Embeddings of columns and rows, and their angles. */
static bool write_places(vision_gpu *t, carat_error *err) {
    const vision_config *c = t->c;
    const uint32_t n[2] = {t->n_col, t->n_row}, most = max_u32(t->n_col, t->n_row);
    arena *m = arena_create(err);
    if (!m) return false;
    const size_t n_float = (size_t)most * max_u32(c->n_embd, c->head_dim / 2);
    float *rows = arena_alloc(m, n_float, sizeof *rows);
    bool ok = rows || fail_memory(err, n_float * sizeof *rows, "the places of patches");
    for (uint32_t axis = 0; ok && axis < 2; axis++) {
        ok = vision_positions(t->v, axis, n[axis], rows, err);
        if (ok)
            gpu_write(t->gpu, t->places, axis * (uint64_t)t->n_col * c->n_embd * 4, rows,
                      (size_t)n[axis] * c->n_embd * 4);
    }
    if (ok && !c->direct) {
        vision_rope_rows(c, most, rows);
        gpu_write(t->gpu, t->cos_sin, 0, rows, (size_t)most * c->head_dim / 2 * 4);
    }
    arena_free(m);
    return ok;
}

/* ---- stages: each records a piece and returns its products ---- */

static uint64_t work_of(const vision_gpu *t) {
    return t->gpu->info.software ? SOFTWARE_WORK : WORK;
}

static gpu_view rows_of(const vision_gpu *t, gpu_buffer b, uint32_t at) {
    return (gpu_view){.buffer = b, .offset = (uint64_t)at * t->c->n_embd * 4};
}

static void rmsnorm(vision_gpu *t, const vector *w) {
    op_rmsnorm(t->steps, t->e->vectors, w, ENCODER_EPS, 1, whole(t->x), whole(t->norm), t->n);
}

static uint64_t embed_direct(vision_gpu *t) {
    const vision *v = t->v;
    const vision_pixels_args pixels = {.n = n_pixel(t->c),
                                       .w_norm = v->norm[0].offset,
                                       .w_bias = v->norm_bias[0].offset,
                                       .eps = DIRECT_EPS};
    kernel_run(t->steps,
               &(kernel_call){.kernel = &kernel_vision_pixels,
                              .args = &pixels,
                              .views = {whole(t->e->vectors), whole(t->pixels), whole(t->values)},
                              .x = t->n});
    op_matmul(t->steps, &v->patch, t->c->n_embd, whole(t->values), whole(t->x), t->n);
    const vision_places_args places = {.n = t->c->n_embd,
                                       .n_wide = t->n_col,
                                       .bias = v->patch_bias.offset,
                                       .w_2 = v->norm[1].offset,
                                       .b_2 = v->norm_bias[1].offset,
                                       .w_3 = v->norm[2].offset,
                                       .b_3 = v->norm_bias[2].offset,
                                       .eps = DIRECT_EPS};
    kernel_run(t->steps,
               &(kernel_call){.kernel = &kernel_vision_places,
                              .args = &places,
                              .views = {whole(t->e->vectors), whole(t->places), whole(t->x)},
                              .x = t->n});
    t->stage = FINISH;
    return (uint64_t)t->n * n_pixel(t->c) * t->c->n_embd;
}

static uint64_t embed(vision_gpu *t) {
    const weight *w = &t->v->patch;
    for (uint32_t i = 0; i < w->n_tile; i++) {
        const vision_patch_args args = {.n_tok = t->n,
                                        .n_row = w->tiles[i].n_row,
                                        .n_col = w->n_col,
                                        .n_wide = t->n_col,
                                        .out0 = w->tiles[i].row0,
                                        .out_stride = w->n_row,
                                        .scale = w->scale};
        run_tiles(t->steps,
                  (kernel_call){
                      .kernel = &kernel_vision_patch,
                      .formats = {w->type},
                      .args = &args,
                      .views = {whole(t->pixels), whole(w->tiles[i].buffer), whole(t->places),
                                whole(t->x)},
                  },
                  t->n, args.n_row);
    }
    rmsnorm(t, &t->v->layers[0].attn_norm);
    t->stage = QKV;
    return (uint64_t)t->n * w->n_col * w->n_row;
}

static uint64_t qkv(vision_gpu *t) {
    const vision_config *c = t->c;
    const vision_layer *l = &t->v->layers[t->il];
    op_clipped(t->steps, &l->q, whole(t->norm), whole(t->q), t->n);
    op_clipped(t->steps, &l->k, whole(t->norm), whole(t->k), t->n);
    op_clipped(t->steps, &l->v, whole(t->norm), whole(t->v_raw), t->n);
    const vision_qkv_args args = {.n_tok = t->n,
                                  .n_head = c->n_head,
                                  .head_dim = c->head_dim,
                                  .n_wide = t->n_col,
                                  .w_q = l->q_norm.offset,
                                  .w_k = l->k_norm.offset,
                                  .eps = ENCODER_EPS};
    kernel_run(t->steps, &(kernel_call){.kernel = &kernel_vision_qkv,
                                        .args = &args,
                                        .views = {whole(t->e->vectors), whole(t->cos_sin),
                                                  whole(t->k), whole(t->v_raw), whole(t->q),
                                                  whole(t->k_half), whole(t->v_half)},
                                        .x = div_up(t->n * c->n_head * 3, 16)});
    t->stage = ATTEND;
    return 3ull * t->n * c->n_embd * c->n_embd;
}

/* The patches of the next piece, which does `each` products a patch: what is left, cut evenly into
 * pieces of at most `most` patches and about the work of a submit. */
static uint32_t piece_of(const vision_gpu *t, uint64_t each, uint32_t most) {
    const uint64_t fit = work_of(t) / each / ROWS * ROWS;
    const uint32_t left = t->n - t->at;
    if (fit < most) most = max_u32((uint32_t)fit, ROWS);
    const uint32_t n = div_up(div_up(left, div_up(left, most)), ROWS) * ROWS;
    return min_u32(n, left);
}

static uint64_t attend(vision_gpu *t) {
    const vision_config *c = t->c;
    const uint64_t each = 2ull * t->n * c->n_embd;
    const uint32_t n = piece_of(t, each, t->n);
    const vision_attention_args args = {.n_tok = t->n, .n_head = c->n_head, .first = t->at};
    const gpu_constant head_dim = {"HEAD_DIM", c->head_dim};
    kernel_run(t->steps, &(kernel_call){.kernel = &kernel_vision_attention,
                                        .constants = &head_dim,
                                        .n_constant = 1,
                                        .args = &args,
                                        .views = {whole(t->q), whole(t->k_half), whole(t->v_half),
                                                  whole(t->norm)},
                                        .x = div_up(n, ROWS),
                                        .y = c->n_head});
    t->at += n;
    if (t->at == t->n) t->stage = OUT;
    return n * each;
}

static void add_rmsnorm(vision_gpu *t, const vector *post, const vector *next, float scale) {
    op_add_rmsnorm(t->steps, t->e->vectors, post, next, ENCODER_EPS, scale, whole(t->k),
                   whole(t->x), whole(t->norm), t->n);
}

static uint64_t out(vision_gpu *t) {
    const vision_layer *l = &t->v->layers[t->il];
    op_clipped(t->steps, &l->out, whole(t->norm), whole(t->k), t->n);
    add_rmsnorm(t, &l->post_attn_norm, &l->ffn_norm, 1);
    t->stage = FFN;
    t->at = 0;
    return (uint64_t)t->n * t->c->n_embd * t->c->n_embd;
}

/* act = gelu(gate) * up for n patches from t->at on. */
static void gate_up(vision_gpu *t, const vision_layer *l, uint32_t n) {
    const gpu_view x = rows_of(t, t->norm, t->at);
    if (!clamps_differ(l)) {
        op_geglu_clipped(t->steps, &l->gate, &l->up, x, whole(t->act), n);
        return;
    }
    op_clipped(t->steps, &l->gate, x, whole(t->act), n);
    op_clipped(t->steps, &l->up, x, whole(t->up), n);
    const ple_gate_args args = {.n_tok = n, .n_ple = t->c->n_ff, .e_stride = t->c->n_ff};
    kernel_run(t->steps, &(kernel_call){.kernel = &kernel_ple_gate,
                                        .args = &args,
                                        .views = {whole(t->up), whole(t->act)},
                                        .x = div_up(n * t->c->n_ff, 256)});
}

/* x = (x + rmsw(part)) * scale, and the norm of the layer that comes next. */
static void end_layer(vision_gpu *t, const vision_layer *l) {
    const vector *next = t->il + 1 < t->c->n_layer ? &l[1].attn_norm : NULL;
    if (l->scale.n == 1) {
        add_rmsnorm(t, &l->post_ffn_norm, next, l->scale.data[0]);
        return;
    }
    add_rmsnorm(t, &l->post_ffn_norm, NULL, 1);
    const vision_scale_args args = {.n = l->scale.n, .w_scale = l->scale.offset};
    kernel_run(t->steps, &(kernel_call){.kernel = &kernel_vision_scale,
                                        .args = &args,
                                        .views = {whole(t->e->vectors), whole(t->x)},
                                        .x = t->n});
    if (next) rmsnorm(t, next);
}

static uint64_t ffn(vision_gpu *t) {
    const vision_config *c = t->c;
    const vision_layer *l = &t->v->layers[t->il];
    const uint64_t each = 3ull * c->n_embd * c->n_ff;
    const uint32_t n = piece_of(t, each, act_rows(c, t->n));
    gate_up(t, l, n);
    op_clipped(t->steps, &l->down, whole(t->act), rows_of(t, t->k, t->at), n);
    t->at += n;
    if (t->at < t->n) return n * each;
    end_layer(t, l);
    t->at = 0;
    t->stage = ++t->il < c->n_layer ? QKV : FINISH;
    return n * each;
}

static uint64_t finish(vision_gpu *t) {
    const vision *v = t->v;
    const vision_config *c = t->c;
    const vision_pool_args args = {.n_embd = c->n_embd,
                                   .pool = c->pool,
                                   .n_wide = t->n_col,
                                   .w_bias = v->std_bias.offset,
                                   .w_scale = c->standardize ? v->std_scale.offset : NONE,
                                   .eps = ENCODER_EPS,
                                   .scale = c->direct ? 1 : sqrtf((float)c->n_embd)};
    kernel_run(t->steps, &(kernel_call){.kernel = &kernel_vision_pool,
                                        .args = &args,
                                        .views = {whole(t->e->vectors), whole(t->x),
                                                  whole(t->tower), whole(t->norm)},
                                        .x = t->n_soft});
    op_matmul(t->steps, &v->project, c->n_out, whole(t->norm), whole(t->soft), t->n_soft);
    t->stage = DONE;
    return (uint64_t)t->n_soft * c->n_embd * c->n_out;
}

static uint64_t run_stage(vision_gpu *t) {
    switch (t->stage) {
    case EMBED:
        return t->c->direct ? embed_direct(t) : embed(t);
    case QKV:
        return qkv(t);
    case ATTEND:
        return attend(t);
    case OUT:
        return out(t);
    case FFN:
        return ffn(t);
    case FINISH:
        return finish(t);
    case DONE:
        break;
    }
    return 0;
}

/* ---- the encoder ---- */

/* What the kernels ask for beside vision_config_read(). */
static bool check_shapes(const vision_config *c, carat_error *err) {
    if (n_pixel(c) % 16 || c->n_embd % 16 || c->n_ff % 16)
        return fail(err, CARAT_E_UNSUPPORTED,
                    "vision: %u pixels, %u values and %u within are not multiples of 16, as the "
                    "GPU's kernels need it",
                    n_pixel(c), c->n_embd, c->n_ff);
    if (!c->direct && (c->head_dim % 8 || c->head_dim > MAX_HEAD))
        return fail(err, CARAT_E_UNSUPPORTED,
                    "vision: heads of %u values; the GPU's kernels take multiples of 8 up to %u",
                    c->head_dim, MAX_HEAD);
    return true;
}

bool vision_gpu_create(const vision *v, const encoder_gpu *e, gpu *g, kernel_cache *cache,
                       vision_gpu **to, carat_error *err) {
    if (!check_shapes(&v->config, err)) return false;
    arena *memory = arena_create(err);
    if (!memory) return false;
    vision_gpu *t = arena_alloc(memory, 1, sizeof *t);
    if (t) {
        *t = (vision_gpu){.v = v, .c = &v->config, .e = e, .gpu = g, .memory = memory};
        t->stage = DONE;
        t->host_pixels = arena_alloc(memory, COPY_PATCHES, n_pixel(t->c));
    }
    if (!t || !t->host_pixels) {
        arena_free(memory);
        return fail_memory(err, COPY_PATCHES * n_pixel(&v->config), "the vision encoder");
    }
    t->steps = kernel_steps_create(cache, MAX_CALLS, err);
    if (!t->steps) {
        arena_free(memory);
        return false;
    }
    *to = t;
    return true;
}

void vision_gpu_free(vision_gpu *t) {
    if (!t) return;
    free_rooms(t);
    kernel_steps_free(t->steps);
    arena_free(t->memory);
}

static uint64_t all_work(const vision_gpu *t) {
    const vision_config *c = t->c;
    const uint64_t n = t->n, d = c->n_embd;
    return n * n_pixel(c) * d + c->n_layer * (4 * n * d * d + 2 * n * n * d + 3 * n * d * c->n_ff) +
           (uint64_t)t->n_soft * d * c->n_out;
}

bool vision_gpu_begin(vision_gpu *t, const uint8_t *patches, uint32_t n_col, uint32_t n_row,
                      gpu_buffer soft, carat_error *err) {
    assert(!t->e->upload && t->e->vectors.id);
    t->stage = DONE;
    if (!vision_check_grid(t->c, n_col, n_row, err)) return false;
    if ((uint64_t)n_col * n_row > t->gpu->info.max_groups)
        return fail(err, CARAT_E_ARGUMENT, "vision: %ux%u patches are more than the %u of %s",
                    n_col, n_row, t->gpu->info.max_groups, t->gpu->info.name);
    t->n_col = n_col;
    t->n_row = n_row;
    t->n = n_col * n_row;
    t->n_soft = vision_soft_tokens(t->v, n_col, n_row);
    t->soft = soft;
    if (!make_rooms(t, err) || !write_places(t, err)) return false;
    write_pixels(t, patches);
    kernel_begin(t->steps);
    t->stage = EMBED;
    t->il = t->at = 0;
    t->done = 0;
    t->total = all_work(t);
    return true;
}

bool vision_gpu_advance(vision_gpu *t, bool *finished, carat_error *err) {
    if (kernel_calls(t->steps) > MAX_CALLS - MAX_STAGE) kernel_begin(t->steps);
    const uint32_t first = kernel_calls(t->steps);
    uint64_t sum = 0;
    while (t->stage != DONE && sum < work_of(t) && kernel_calls(t->steps) - first < MAX_STAGE / 2)
        sum += run_stage(t);
    t->done += sum;
    *finished = t->stage == DONE;
    return kernel_end(t->steps, err) && gpu_submit(t->gpu, err);
}

void vision_gpu_progress(const vision_gpu *t, uint64_t *done, uint64_t *total) {
    *done = t->done;
    *total = t->total;
}

gpu_buffer vision_gpu_tower(const vision_gpu *t) { return t->tower; }
