/* audio_gpu: the audio encoder on the device: the stages of audio_cpu.c in their order, one line a
 * dispatch, all tokens at once. What is fused: each convolution with its norm, the clamps and
 * activations with the matrices, softcap and relative keys with attention, the gated convolution
 * with its norm, and the end of each block with the norm that begins the next.
 *
 * The keys of distances depend on weights alone and are made once. The values between the two
 * convolutions are the largest by far, so these are computed in pieces of PIECE tokens.
 *
 * Flow: media/mel.c and encoder_gpu.c before; prefill_gpu.c takes the soft tokens. */
#include "media/media.h"
#include "model/encoder_gpu.h"

#include "kernels.h"

#include <math.h>
#include <string.h>

#define LAYER_EPS        1e-6f           /* of the layer norms after the convolutions */
#define GRADIENT         1e10f           /* where values were cut in training */
#define CAP              50.0f           /* of attention scores */
#define BANDS_0          (MEL_BANDS / 2) /* after one convolution and after two */
#define BANDS_1          (MEL_BANDS / 4)
#define PIECE            256u  /* tokens whose convolutions are computed together */
#define STEP             1024u /* tokens times layers of a submit, about */
#define LAYER_CALLS      14u   /* dispatches of a layer */
#define NONE             UINT32_MAX
#define ATTENTION_TOKENS 16u /* of a workgroup of audio_attention.wgsl */

typedef enum audio_buffer {
    INPUT, /* [n_frame, MEL_BANDS] */
    ROWS,  /* [2 * PIECE + 1, BANDS_0, n_conv[0]] between the convolutions */
    X,     /* [n, n_embd] the residual stream */
    NORM,  /* [n, n_embd] */
    PART,  /* [CLIPPED_MAX_PARTS, n, n_embd] a block's output, in parts */
    QKV,   /* [n, 3, n_embd] heads side by side */
    WIDE,  /* [n, widest] of the convolutions, within blocks, and the normed tower */
    TOWER, /* [n, n_mid]; direct: samples [n, frame] */
    N_BUFFER
} audio_buffer;

struct audio_gpu {
    const audio *a;
    const audio_config *c;
    const encoder_gpu *weights;
    gpu *gpu;
    kernel_cache *cache;
    kernel_steps *steps;
    arena *memory;
    float *last;        /* [frame] direct: the last frame, filled up with zeros */
    gpu_buffer kernels; /* [9, n_conv[0]], [9, n_conv[0], n_conv[1]]: both convolutions' */
    gpu_buffer rel;     /* [n_layer, AUDIO_REACH, n_embd] keys of distances; id 0: not made yet */
    gpu_buffer buffers[N_BUFFER];
    uint32_t n_most; /* tokens that the buffers have room for */
    gpu_buffer soft;
    uint32_t n_frame, n; /* frames (direct: samples), tokens */
    uint32_t done;       /* layers, the convolutions counting as one */
};

static gpu_view in(const audio_gpu *t, audio_buffer b) { return whole(t->buffers[b]); }

/* ---- memory ---- */

static uint32_t most_input(const audio_config *c) {
    return c->direct ? MEL_MAX_SAMPLES : mel_frames(MEL_MAX_SAMPLES) + 1;
}

/* Values in each buffer for n tokens. */
static void count_values(const audio_config *c, uint64_t n, uint64_t *out) {
    const uint32_t tower = c->direct ? c->frame : c->n_mid;
    memset(out, 0, N_BUFFER * sizeof *out);
    out[TOWER] = out[WIDE] = n * tower;
    if (c->direct) return;
    const uint32_t width = max_u32(max_u32(c->n_ff, 2 * c->n_embd), BANDS_1 * c->n_conv[1]);
    out[INPUT] = 4 * n * MEL_BANDS;
    out[ROWS] = (2 * (n < PIECE ? n : PIECE) + 1) * BANDS_0 * c->n_conv[0];
    out[WIDE] = n * max_u32(width, tower);
    out[X] = out[NORM] = n * c->n_embd;
    out[PART] = CLIPPED_MAX_PARTS * n * c->n_embd;
    out[QKV] = 3 * n * c->n_embd;
}

uint64_t audio_gpu_memory(const audio *a, uint32_t n) {
    uint64_t values[N_BUFFER], sum = 0;
    count_values(&a->config, audio_soft_tokens(a, n), values);
    for (uint32_t i = 0; i < N_BUFFER; i++) sum += values[i];
    return sum * sizeof(float);
}

static void free_buffers(audio_gpu *t) {
    if (t->steps) kernel_steps_forget(t->steps);
    for (uint32_t i = 0; i < N_BUFFER; i++) {
        gpu_buffer_free(t->gpu, t->buffers[i]);
        t->buffers[i] = (gpu_buffer){0};
    }
    t->n_most = 0;
}

static bool make_room(audio_gpu *t, uint32_t n, carat_error *err) {
    uint64_t values[N_BUFFER];
    if (n <= t->n_most) return true;
    free_buffers(t);
    count_values(t->c, n, values);
    for (uint32_t i = 0; i < N_BUFFER; i++) {
        if (!values[i]) continue;
        t->buffers[i] =
            gpu_buffer_create(t->gpu, values[i] * sizeof(float), GPU_STORAGE, "audio encoder", err);
        if (!t->buffers[i].id) {
            free_buffers(t);
            return false;
        }
    }
    t->n_most = n;
    return true;
}

/* ---- what depends on weights alone ---- */

/* The convolutions' kernels with output channels last, as audio_conv.wgsl reads them. */
static void turn_kernels(const audio_config *c, const audio *a, float *out) {
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t n_in = i ? c->n_conv[0] : 1, n_out = c->n_conv[i];
        for (uint32_t k = 0; k < 9; k++)
            for (uint32_t from = 0; from < n_in; from++)
                for (uint32_t to = 0; to < n_out; to++)
                    *out++ = a->conv[i].data[((size_t)to * n_in + from) * 9 + k];
    }
}

/* Sines, then cosines, of the distances 0 to AUDIO_REACH - 1 at falling frequencies. */
static void fill_distances(uint32_t n_embd, float *out) {
    const uint32_t half = n_embd / 2;
    const double step = half > 1 ? log(1e4) / (half - 1) : 0;
    for (uint32_t far = 0; far < AUDIO_REACH; far++)
        for (uint32_t i = 0; i < half; i++) {
            const double angle = far * exp(-step * i);
            out[far * n_embd + i] = (float)sin(angle);
            out[far * n_embd + half + i] = (float)cos(angle);
        }
}

static gpu_buffer filled_buffer(gpu *g, const float *values, uint64_t n, const char *label,
                                carat_error *err) {
    const gpu_buffer b = gpu_buffer_create(g, n * sizeof *values, GPU_STORAGE, label, err);
    if (b.id) gpu_write(g, b, 0, values, (size_t)n * sizeof *values);
    return b;
}

static gpu_view keys_of_distances(const audio_gpu *t, uint32_t il) {
    const uint64_t size = (uint64_t)AUDIO_REACH * t->c->n_embd * sizeof(float);
    return (gpu_view){.buffer = t->rel, .offset = il * size, .size = size};
}

static bool run_rel(audio_gpu *t, gpu_buffer distances, carat_error *err) {
    kernel_steps *s = kernel_steps_create(t->cache, t->c->n_layer, err);
    if (!s) return false;
    for (uint32_t il = 0; il < t->c->n_layer; il++)
        op_matmul(s, &t->a->layers[il].rel, t->c->n_embd, whole(distances),
                  keys_of_distances(t, il), AUDIO_REACH);
    const bool ok = kernel_end(s, err) && gpu_submit(t->gpu, err);
    kernel_steps_free(s);
    return ok;
}

/* rel: once the weights are there. */
static bool make_rel(audio_gpu *t, carat_error *err) {
    if (t->rel.id || t->c->direct) return true;
    const uint64_t n = (uint64_t)AUDIO_REACH * t->c->n_embd;
    arena *m = arena_create(err);
    if (!m) return false;
    float *values = arena_alloc(m, n, sizeof *values);
    gpu_buffer distances = {0};
    bool ok = values || fail_memory(err, n * sizeof *values, "the audio encoder");
    if (ok) {
        fill_distances(t->c->n_embd, values);
        distances = filled_buffer(t->gpu, values, n, "distances", err);
        t->rel = gpu_buffer_create(t->gpu, t->c->n_layer * n * sizeof(float), GPU_STORAGE,
                                   "keys of distances", err);
        ok = distances.id && t->rel.id && run_rel(t, distances, err);
    }
    if (!ok) {
        gpu_buffer_free(t->gpu, t->rel);
        t->rel = (gpu_buffer){0};
    }
    gpu_buffer_free(t->gpu, distances);
    arena_free(m);
    return ok;
}

/* ---- convolutions ---- */

/* Rows [first, first + n) after convolution i, of x, which begins with row x_first of n_row. */
static void convolve(const audio_gpu *t, uint32_t i, gpu_view x, uint32_t n_row, uint32_t x_first,
                     gpu_view out, uint32_t first, uint32_t n) {
    const uint32_t quads = t->c->n_conv[i] / 4, n_band = i ? BANDS_0 : MEL_BANDS;
    const audio_conv_args args = {
        .n_row = n_row,
        .n_band = n_band,
        .n_in = i ? t->c->n_conv[0] : 1,
        .x_first = x_first,
        .out_first = first,
        .n_out_row = n,
        .w = i ? 9 * t->c->n_conv[0] : 0,
        .w_norm = t->a->conv_norm[i].offset,
        .eps = LAYER_EPS,
    };
    kernel_run(t->steps, &(kernel_call){
                             .kernel = &kernel_audio_conv,
                             .constants = &(gpu_constant){"QUADS", quads},
                             .n_constant = 1,
                             .args = &args,
                             .views = {whole(t->kernels), whole(t->weights->vectors), x, out},
                             .x = div_up(n * (n_band / 8), 256 / quads),
                         });
}

/* (33), (34) x = Winput of what the convolutions make of four frames; norm: the first layer's */
static void embed(const audio_gpu *t) {
    const uint32_t n_half = div_up(t->n_frame, 2), width = BANDS_1 * t->c->n_conv[1];
    for (uint32_t at = 0; at < t->n; at += PIECE) {
        const uint32_t n = min_u32(PIECE, t->n - at), first = at ? 2 * at - 1 : 0;
        const gpu_view out = {.buffer = t->buffers[WIDE], .offset = (uint64_t)at * width * 4};
        const uint32_t end = min_u32(2 * (at + n), n_half);
        convolve(t, 0, in(t, INPUT), t->n_frame, 0, in(t, ROWS), first, end - first);
        convolve(t, 1, in(t, ROWS), n_half, first, out, at, n);
    }
    op_matmul(t->steps, &t->a->input, t->c->n_embd, in(t, WIDE), in(t, X), t->n);
    op_rmsnorm(t->steps, t->weights->vectors, &t->a->layers[0].ffn[0].norm, ENCODER_EPS, 1,
               in(t, X), in(t, NORM), t->n);
}

/* ---- pieces of a layer ---- */

static uint32_t offset_of(const vector *v) { return v ? v->offset : NONE; }

/* What follows a block. NULL: there is none. */
typedef struct seam {
    const vector *post, *out, *next;
    float scale;
} seam;

/* u = W from; x += scale * rmsw(u, post), or scale * u; x = rmsw(x, out), at the end of a layer;
 * norm = rmsw(x, next) */
static void end_block(const audio_gpu *t, const clipped *c, audio_buffer from, seam to) {
    const uint32_t n_part = op_clipped_count(c, t->n);
    const audio_add_norm_args args = {
        .n = t->c->n_embd,
        .n_tok = t->n,
        .n_part = n_part,
        .w_post = offset_of(to.post),
        .w_out = offset_of(to.out),
        .w_norm = offset_of(to.next),
        .eps = ENCODER_EPS,
        .scale = to.scale,
        .limit = GRADIENT,
        .out_min = encoder_gpu_limit(c->out_min),
        .out_max = encoder_gpu_limit(c->out_max),
    };
    op_clipped_parts(t->steps, c, in(t, from), in(t, PART), t->n, n_part);
    kernel_run(t->steps,
               &(kernel_call){
                   .kernel = &kernel_audio_add_norm,
                   .args = &args,
                   .views = {whole(t->weights->vectors), in(t, PART), in(t, X), in(t, NORM)},
                   .x = t->n,
               });
}

/* (35) x += rmsw(Wdown silu(Wup norm), post_norm) / 2 */
static void ffn(const audio_gpu *t, const audio_ffn *f, const vector *out, const vector *next) {
    op_clipped_silu(t->steps, &f->up, in(t, NORM), in(t, WIDE), t->n);
    end_block(t, &f->down, WIDE, (seam){&f->post_norm, out, next, 0.5f});
}

static void qkv(const audio_gpu *t, const audio_layer *l) {
    const clipped *q = &l->q, *k = &l->k, *v = &l->v;
    const audio_qkv_args args = {
        .n_tok = t->n,
        .n_row = t->c->n_embd,
        .n_col = t->c->n_embd,
        .q_scale = q->w.scale,
        .q_in_min = encoder_gpu_limit(q->in_min),
        .q_in_max = encoder_gpu_limit(q->in_max),
        .q_out_min = encoder_gpu_limit(q->out_min),
        .q_out_max = encoder_gpu_limit(q->out_max),
        .k_scale = k->w.scale,
        .k_in_min = encoder_gpu_limit(k->in_min),
        .k_in_max = encoder_gpu_limit(k->in_max),
        .k_out_min = encoder_gpu_limit(k->out_min),
        .k_out_max = encoder_gpu_limit(k->out_max),
        .v_scale = v->w.scale,
        .v_in_min = encoder_gpu_limit(v->in_min),
        .v_in_max = encoder_gpu_limit(v->in_max),
        .v_out_min = encoder_gpu_limit(v->out_min),
        .v_out_max = encoder_gpu_limit(v->out_max),
    };
    run_tiles(t->steps,
              (kernel_call){
                  .kernel = &kernel_audio_qkv,
                  .formats = {q->w.type, k->w.type, v->w.type},
                  .args = &args,
                  .views = {in(t, NORM), whole(q->w.tiles->buffer), whole(k->w.tiles->buffer),
                            whole(v->w.tiles->buffer), in(t, QKV)},
                  .z = 3,
              },
              t->n, args.n_row);
}

/* (36) norm = what each token hears */
static void attention(const audio_gpu *t, uint32_t il) {
    const float ln2 = logf(2);
    const audio_attention_args args = {
        .n_tok = t->n,
        .n_head = t->c->n_head,
        .head_dim = t->c->head_dim,
        .w_dim = t->a->layers[il].dim_scale.offset,
        .q_scale = 1 / (sqrtf((float)t->c->head_dim) * ln2),
        .k_scale = logf(1 + expf(1)) / ln2,
        .cap = CAP,
    };
    kernel_run(t->steps, &(kernel_call){
                             .kernel = &kernel_audio_attention,
                             .constants = &(gpu_constant){"TOKENS", ATTENTION_TOKENS},
                             .n_constant = 1,
                             .args = &args,
                             .views = {whole(t->weights->vectors), keys_of_distances(t, il),
                                       in(t, QKV), in(t, NORM)},
                             .x = div_up(t->n, ATTENTION_TOKENS),
                             .y = t->c->n_head,
                         });
}

/* (37) norm = silu(rmsw(conv(a * sigmoid(b)), mid_norm)), a and b: halves of wide */
static void glu_conv(const audio_gpu *t, const audio_layer *l) {
    const audio_glu_conv_args args = {
        .n = t->c->n_embd,
        .n_kernel = t->c->n_kernel,
        .w_conv = l->conv.offset,
        .w_norm = l->mid_norm.offset,
        .eps = ENCODER_EPS,
        .limit = GRADIENT,
    };
    kernel_run(t->steps, &(kernel_call){
                             .kernel = &kernel_audio_glu_conv,
                             .args = &args,
                             .views = {whole(t->weights->vectors), in(t, WIDE), in(t, NORM)},
                             .x = t->n,
                         });
}

/* From the normed stream in NORM to the next layer's. */
static void layer(const audio_gpu *t, uint32_t il) {
    const audio_layer *l = &t->a->layers[il];
    const vector *next = il + 1 < t->c->n_layer ? &l[1].ffn[0].norm : NULL;
    ffn(t, &l->ffn[0], NULL, &l->attn_norm);
    qkv(t, l);
    attention(t, il);
    end_block(t, &l->out, NORM, (seam){&l->post_attn_norm, NULL, &l->conv_norm, 1});
    op_clipped(t->steps, &l->conv_in, in(t, NORM), in(t, WIDE), t->n);
    glu_conv(t, l);
    end_block(t, &l->conv_out, NORM, (seam){NULL, NULL, &l->ffn[1].norm, 1});
    ffn(t, &l->ffn[1], &l->out_norm, next); /* (38) */
}

/* (39) soft = Wproject rms(Woutput x + b) */
static void finish(const audio_gpu *t) {
    const audio_tower_args args = {
        .n = t->c->direct ? t->c->frame : t->c->n_mid,
        .w_bias = t->c->direct ? NONE : t->a->output_bias.offset,
        .eps = ENCODER_EPS,
    };
    if (!t->c->direct)
        op_matmul(t->steps, &t->a->output, t->c->n_mid, in(t, X), in(t, TOWER), t->n);
    kernel_run(t->steps, &(kernel_call){
                             .kernel = &kernel_audio_tower,
                             .args = &args,
                             .views = {whole(t->weights->vectors), in(t, TOWER), in(t, WIDE)},
                             .x = t->n,
                         });
    op_matmul(t->steps, &t->a->project, t->c->n_out, in(t, WIDE), whole(t->soft), t->n);
}

/* ---- the encoder ---- */

/* Kernels read vectors of four values, the matrices' blocks of sixteen. */
static bool check_widths(const audio_config *c, carat_error *err) {
    bool ok = c->n_out > 0;
    if (c->direct)
        ok = ok && c->frame % 16 == 0;
    else
        ok = ok && c->n_embd % 16 == 0 && c->n_ff % 16 == 0 && c->n_mid % 16 == 0 &&
             c->head_dim % 4 == 0 && c->n_conv[0] % 4 == 0 && c->n_conv[1] % 4 == 0 &&
             c->n_conv[0] <= 1024 && c->n_conv[1] <= 1024;
    return ok ||
           fail(err, CARAT_E_UNSUPPORTED,
                "audio: the encoder's widths are no multiples of 16; it runs on the CPU only");
}

/* audio_qkv.wgsl takes matrices that are in one piece, as they are on any device that has WebGPU's
 * limits. */
static bool check_tiles(const audio_gpu *t, carat_error *err) {
    for (uint32_t il = 0; il < t->c->n_layer && !t->c->direct; il++) {
        const audio_layer *l = &t->a->layers[il];
        if (l->q.w.n_tile != 1 || l->k.w.n_tile != 1 || l->v.w.n_tile != 1)
            return fail(err, CARAT_E_UNSUPPORTED,
                        "audio: the device cannot bind a matrix of %u x %u whole", t->c->n_embd,
                        t->c->n_embd);
    }
    return true;
}

/* What does not depend on the sound, but for rel. */
static bool allocate(audio_gpu *t, carat_error *err) {
    const audio_config *c = t->c;
    const uint32_t n_piece = div_up(audio_soft_tokens(t->a, most_input(c)), PIECE);
    const uint32_t n_call = LAYER_CALLS * c->n_layer + 2 * n_piece + 5;
    t->steps = kernel_steps_create(t->cache, n_call, err);
    if (!t->steps) return false;
    const uint64_t n = c->direct ? c->frame : 9ull * c->n_conv[0] * (1 + c->n_conv[1]);
    float *values = arena_alloc(t->memory, n, sizeof *values);
    if (!values) return fail_memory(err, n * sizeof *values, "the audio encoder");
    t->last = values;
    if (c->direct) return true;
    turn_kernels(c, t->a, values);
    t->kernels = filled_buffer(t->gpu, values, n, "audio kernels", err);
    return t->kernels.id != 0;
}

bool audio_gpu_create(const audio *a, const encoder_gpu *e, gpu *g, kernel_cache *cache,
                      audio_gpu **out, carat_error *err) {
    if (!check_widths(&a->config, err)) return false;
    arena *memory = arena_create(err);
    if (!memory) return false;
    audio_gpu *t = arena_alloc(memory, 1, sizeof *t);
    if (!t) {
        arena_free(memory);
        return fail_memory(err, sizeof *t, "the audio encoder");
    }
    *t = (audio_gpu){
        .a = a, .c = &a->config, .weights = e, .gpu = g, .cache = cache, .memory = memory};
    if (!allocate(t, err)) {
        audio_gpu_free(t);
        return false;
    }
    *out = t;
    return true;
}

void audio_gpu_free(audio_gpu *t) {
    if (!t) return;
    free_buffers(t);
    gpu_buffer_free(t->gpu, t->kernels);
    gpu_buffer_free(t->gpu, t->rel);
    kernel_steps_free(t->steps);
    arena_free(t->memory);
}

/* Frames of samples, the last one filled up with zeros */
static void write_frames(audio_gpu *t, const float *samples) {
    const uint32_t n = t->n_frame, full = n - n % t->c->frame;
    const size_t bytes = full * sizeof *samples;
    if (full) gpu_write(t->gpu, t->buffers[TOWER], 0, samples, bytes);
    if (full == n) return;
    memset(t->last, 0, t->c->frame * sizeof *t->last);
    memcpy(t->last, samples + full, (n - full) * sizeof *samples);
    gpu_write(t->gpu, t->buffers[TOWER], bytes, t->last, t->c->frame * sizeof *t->last);
}

bool audio_gpu_begin(audio_gpu *t, const float *input, uint32_t n, gpu_buffer soft,
                     carat_error *err) {
    if (!n || n > most_input(t->c))
        return fail(err, CARAT_E_ARGUMENT, "audio: there is %s to hear",
                    n ? "too much" : "nothing");
    if (!check_tiles(t, err) || !make_rel(t, err) || !make_room(t, audio_soft_tokens(t->a, n), err))
        return false;
    t->n_frame = n;
    t->n = audio_soft_tokens(t->a, n);
    t->soft = soft;
    t->done = 0;
    if (t->c->direct)
        write_frames(t, input);
    else
        gpu_write(t->gpu, t->buffers[INPUT], 0, input, (size_t)n * MEL_BANDS * sizeof *input);
    kernel_begin(t->steps);
    return true;
}

bool audio_gpu_advance(audio_gpu *t, bool *finished, carat_error *err) {
    const uint32_t n_layer = t->c->direct ? 0 : t->c->n_layer;
    if (!t->done) {
        if (!t->c->direct) embed(t);
        t->done = 1;
    }
    const uint32_t n_step = max_u32(STEP / t->n, 1);
    for (uint32_t i = 0; i < n_step && t->done <= n_layer; i++) layer(t, t->done++ - 1);
    *finished = t->done > n_layer;
    if (*finished) finish(t);
    return kernel_end(t->steps, err) && gpu_submit(t->gpu, err);
}

void audio_gpu_progress(const audio_gpu *t, uint64_t *done, uint64_t *total) {
    *total = t->c->direct ? 1 : t->c->n_layer + 1;
    *done = t->done;
}

gpu_buffer audio_gpu_tower(const audio_gpu *t) { return t->buffers[TOWER]; }
