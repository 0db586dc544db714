/* weights: opening a model, and reading what it needs from the file. Vectors are read when the
 * model is opened and stay on the host; matrices are read piece by piece into host memory for the
 * CPU (gpu/upload.c does the same for a GPU); rows of the per-layer embedding table are read when
 * a token asks for them. Also the tables of RoPE, whose frequencies come from the file.
 *
 * Flow: config.c and bind.c before; text_cpu.c, text_gpu.c after. */
#include "model/bind.h"

#include <math.h>
#include <string.h>

#define PIECE       (8u << 20) /* bytes of a matrix read at once */
#define NOT_ROTATED 1e20f      /* a divisor that leaves no angle; files write 1e30 */
#define ROPE_ANCHOR 64u        /* rows between exact sines */

/* ---- opening ---- */

/* Global layers rotate the pairs whose divisor leaves an angle; a file without divisors means the
 * proportional quarter of config.c. */
static bool settle_rope(model *m, carat_error *err) {
    const vector *v = &m->weights.rope_freqs;
    float *divisor = (float *)m->weights.vectors + v->offset;
    uint32_t n_rot = 0;
    for (uint32_t i = 0; i < v->n && v->tensor; i++) {
        if (divisor[i] <= 0)
            return fail(err, CARAT_E_FORMAT, "model: %s[%u] is not positive", v->tensor->name.text,
                        i);
        if (divisor[i] < NOT_ROTATED) n_rot = i + 1;
    }
    for (uint32_t il = 0; il < m->config.n_layer; il++) {
        layer_config *l = &m->config.layers[il];
        if (!l->sliding && v->tensor) l->n_rot = max_u32(n_rot, 1);
        if (!l->sliding && !v->tensor)
            for (uint32_t i = l->n_rot; i < v->n; i++) divisor[i] = 1e30f;
    }
    return true;
}

bool model_open(arena *a, gguf *g, model **out, carat_error *err) {
    model *m = arena_alloc(a, 1, sizeof *m);
    binder b;
    if (!m) return fail_memory(err, sizeof *m, "the model");
    m->gguf = g;
    if (!config_read(g, &m->config, err) || !weights_bind(a, m, &b, err) ||
        !binder_load(&b, "model", &m->weights.vectors, &m->weights.n_vectors, err) ||
        !settle_rope(m, err))
        return false;

    const gguf_tensor *ple = m->weights.ple_embed.tensor;
    if (ple) {
        const uint64_t row = ple->size / ple->ne[1];
        m->ple_row = arena_alloc(a, row, 1);
        if (!m->ple_row) return fail_memory(err, row, "a row of the per-layer embeddings");
    }
    if (!tokenizer_create(a, g, &m->tokenizer, err)) return false;
    if (m->tokenizer->n_vocab != m->config.n_vocab)
        return fail(err, CARAT_E_FORMAT, "model: %u tokens, but an embedding of %u rows",
                    m->tokenizer->n_vocab, m->config.n_vocab);
    *out = m;
    return true;
}

void model_close(model *m) {
    if (m) gguf_close(m->gguf);
}

/* ---- matrices ---- */

weight **model_matrices(arena *a, model *m, carat_error *err) {
    weight **list = arena_alloc(a, m->n_matrix + 1, sizeof *list);
    if (!list)
        fail_memory(err, (m->n_matrix + 1) * sizeof *list, "the list of matrices");
    else
        memcpy(list, m->matrices, m->n_matrix * sizeof *list);
    return list;
}

uint64_t model_matrix_bytes(const model *m) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < m->n_matrix; i++) n += m->matrices[i]->tensor->size;
    return n;
}

bool weights_load_host(weight **matrices, arena *a, uint64_t *done, bool *finished,
                       carat_error *err) {
    uint64_t begin = 0; /* of matrices[i], counted as *done is */
    uint32_t i = 0;
    while (matrices[i] && begin + matrices[i]->tensor->size <= *done)
        begin += matrices[i++]->tensor->size;
    *finished = !matrices[i];
    if (*finished) return true;

    weight *w = matrices[i];
    const gguf_tensor *t = w->tensor;
    if (!w->host) w->host = arena_alloc(a, t->size, 1);
    if (!w->host) return fail_memory(err, t->size, t->name.text);
    const uint64_t at = *done - begin, left = t->size - at;
    const size_t n = left < PIECE ? (size_t)left : PIECE;
    if (!source_read(t->src, t->offset + at, (uint8_t *)w->host + at, n, err)) return false;
    *done += n;
    *finished = n == left && !matrices[i + 1];
    return true;
}

/* ---- inputs of a forward pass ---- */

bool model_ple_blocks(const model *m, int32_t token, uint32_t n, uint8_t *out, carat_error *err) {
    const weight *w = &m->weights.ple_embed;
    const gguf_tensor *t = w->tensor;
    const quant_format *f = quant_find(t->type);
    assert(n * f->n_value <= w->n_col);
    if (token < 0 || (uint32_t)token >= w->n_row)
        return fail(err, CARAT_E_ARGUMENT, "model: there is no token %d", token);
    return source_read(t->src, t->offset + (uint64_t)token * (t->size / t->ne[1]), out,
                       (size_t)n * f->n_byte, err);
}

bool model_ple_row(const model *m, int32_t token, uint32_t n, float *out, carat_error *err) {
    const quant_format *f = quant_find(m->weights.ple_embed.tensor->type);
    const uint32_t n_block = div_up(n, f->n_value), whole = n / f->n_value;
    if (!model_ple_blocks(m, token, n_block, m->ple_row, err)) return false;
    f->dequantise(m->ple_row, out, whole * f->n_value);
    if (n_block > whole) { /* n ends inside a block */
        float last[256];
        assert(f->n_value <= COUNT(last));
        f->dequantise(m->ple_row + whole * f->n_byte, last, f->n_value);
        memcpy(out + whole * f->n_value, last, (n - whole * f->n_value) * sizeof *out);
    }
    const float scale = sqrtf((float)m->config.n_ple) * m->weights.ple_embed.scale;
    for (uint32_t i = 0; i < n; i++) out[i] *= scale;
    return true;
}

/* Each pair turns by the same angle from row to row, so most rows cost one complex product in f64;
 * an exact sine and cosine every ROPE_ANCHOR rows keep the error below 1e-13. */
void model_rope_rows(const model *m, bool sliding, uint32_t pos, uint32_t n_tok, float *out) {
    const layer_config *l = m->config.layers, *end = l + m->config.n_layer;
    while (l < end && l->sliding != sliding) l++;
    if (l == end) return;
    for (uint32_t i = 0; i < l->n_rot; i++) {
        double theta = pow((double)l->rope_base, -2.0 * i / l->head_dim);
        if (!sliding) theta /= (double)m->weights.rope_freqs.data[i];
        const double c1 = cos(theta), s1 = sin(theta);
        double c = 0, s = 0;
        for (uint32_t t = 0; t < n_tok; t++) {
            if (t % ROPE_ANCHOR == 0) {
                c = cos(theta * ((double)pos + t));
                s = sin(theta * ((double)pos + t));
            } else {
                const double turned = c * c1 - s * s1;
                s = s * c1 + c * s1;
                c = turned;
            }
            float *pair = out + ((size_t)t * l->n_rot + i) * 2;
            pair[0] = (float)c;
            pair[1] = (float)s;
        }
    }
}

/* ---- fingerprint ---- */

static uint64_t hash_u64(uint64_t h, uint64_t v) { return hash_bytes(h, &v, sizeof v); }

static uint64_t hash_config(uint64_t h, const model_config *c) {
    const uint32_t whole[] = {c->n_layer,  c->n_embd,        c->n_vocab,     c->n_ple, c->n_owner,
                              c->n_expert, c->n_expert_used, c->n_ff_expert, c->window};
    const float reals[] = {c->rms_eps, c->softcap};
    h = hash_bytes(hash_bytes(h, whole, sizeof whole), reals, sizeof reals);
    for (uint32_t il = 0; il < c->n_layer; il++) {
        const layer_config *l = &c->layers[il];
        const uint32_t layer[] = {l->sliding, l->k_eq_v,   l->moe,  l->donor, l->n_head,
                                  l->n_kv,    l->head_dim, l->n_ff, l->n_rot, l->window};
        h = hash_bytes(hash_bytes(h, layer, sizeof layer), &l->rope_base, sizeof l->rope_base);
    }
    return h;
}

uint64_t model_fingerprint(const model *m) {
    uint64_t h = hash_config(FNV_START, &m->config);
    for (uint64_t i = 0; i < m->gguf->n_tensor; i++) {
        const gguf_tensor *t = &m->gguf->tensors[i];
        h = hash_bytes(h, t->name.text, t->name.len);
        h = hash_bytes(h, t->ne, sizeof t->ne);
        h = hash_u64(hash_u64(h, t->type), t->offset);
    }
    return hash_bytes(h, m->weights.vectors, m->weights.n_vectors * sizeof(float));
}
