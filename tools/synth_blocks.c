/* synth_blocks: random numbers, and blocks of them in every tensor type that synth writes. What is
 * random is the quants; scales are chosen so that a weight is about N(0, SIGMA).
 *
 * Flow: synth.c repeats these blocks into tensors. */
#include "synth.h"

#include <string.h>

static uint64_t rng_state;

void rng_seed(uint64_t seed) { rng_state = seed; }

uint64_t rng(void) { /* splitmix64 */
    uint64_t z = rng_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

float uniform(float lo, float hi) { return lo + (hi - lo) * (float)(rng() >> 40) * 0x1p-24f; }

float gauss(void) { /* the sum of four uniforms */
    uint64_t r = rng();
    uint32_t sum = (uint32_t)((r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48));
    return ((float)sum - 131070.0f) * (1.7320508f / 65536.0f);
}

/* An integer around `mid` with standard deviation `spread`, within [lo, hi]. */
static int draw(float mid, float spread, int lo, int hi) {
    float f = mid + spread * gauss() + 0.5f;
    int i = (int)f - (f < 0);
    return i < lo ? lo : i > hi ? hi : i;
}

/* ---- one block of each type ---- */

static uint16_t half(float f) { /* f16, rounded; for finite values in its range */
    uint32_t x;
    memcpy(&x, &f, 4);
    uint32_t sign = x >> 16 & 0x8000, mantissa = (x & 0x7fffff) | 0x800000;
    int e = (int)(x >> 23 & 255) - 112;
    if (e >= 31) return (uint16_t)(sign | 0x7bff);
    if (e < -10) return (uint16_t)sign;
    if (e <= 0) return (uint16_t)(sign | ((mantissa >> (14 - e)) + (mantissa >> (13 - e) & 1)));
    uint32_t h = ((uint32_t)e << 10 | (mantissa >> 13 & 1023)) + (mantissa >> 12 & 1);
    return (uint16_t)(sign | h);
}

static void put16(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void fill_f16(uint8_t *p) {
    for (int i = 0; i < 32; i++) put16(p + 2 * i, half(SIGMA * gauss()));
}

static void fill_bf16(uint8_t *p) {
    for (int i = 0; i < 32; i++) {
        float f = SIGMA * gauss();
        memcpy(p + 2 * i, (uint8_t *)&f + 2, 2);
    }
}

static void fill_q4_0(uint8_t *p) { /* d (q - 8) */
    put16(p, half(SIGMA / 3 * uniform(0.8f, 1.2f)));
    for (int i = 0; i < 16; i++) p[2 + i] = (uint8_t)(draw(8, 3, 0, 15) | draw(8, 3, 0, 15) << 4);
}

static void fill_q5_0(uint8_t *p) { /* d (q - 16), the fifth bits apart */
    put16(p, half(SIGMA / 6 * uniform(0.8f, 1.2f)));
    uint32_t high = 0;
    for (int i = 0; i < 16; i++) {
        uint32_t a = (uint32_t)draw(16, 6, 0, 31), b = (uint32_t)draw(16, 6, 0, 31);
        p[6 + i] = (uint8_t)((a & 15) | (b & 15) << 4);
        high |= a >> 4 << i | b >> 4 << (i + 16);
    }
    put16(p + 2, high);
    put16(p + 4, high >> 16);
}

static void fill_q8_0(uint8_t *p) {
    put16(p, half(SIGMA / 40 * uniform(0.8f, 1.2f)));
    for (int i = 0; i < 32; i++) p[2 + i] = (uint8_t)draw(0, 40, -127, 127);
}

static void fill_q4_k(uint8_t *p) { /* d S q - dmin M, with M = S and dmin = 7.5 d: zero mean */
    float d = SIGMA / (3 * 48) * uniform(0.8f, 1.2f);
    put16(p, half(d));
    put16(p + 2, half(7.5f * d));
    uint8_t *s = p + 4;
    memset(s, 0, 12);
    for (int k = 0; k < 8; k++) {
        int v = draw(48, 8, 32, 63);
        if (k < 4) {
            s[k] |= (uint8_t)v;
            s[k + 4] |= (uint8_t)v;
        } else {
            s[k + 4] = (uint8_t)((v & 15) | (v & 15) << 4);
            s[k - 4] |= (uint8_t)(v >> 4 << 6);
            s[k] |= (uint8_t)(v >> 4 << 6);
        }
    }
    for (int i = 0; i < 128; i++)
        p[16 + i] = (uint8_t)(draw(7.5f, 3, 0, 15) | draw(7.5f, 3, 0, 15) << 4);
}

static void fill_q6_k(uint8_t *p) { /* d sc (q - 32); d is a subnormal f16, as in real files */
    memset(p, 0, 192);
    for (int v = 0; v < 256; v++) {
        int h = v / 128, r = v % 128 / 32, u = v % 32, q = draw(32, 10, 0, 63);
        p[64 * h + 32 * (r % 2) + u] |= (uint8_t)((q & 15) << (r < 2 ? 0 : 4));
        p[128 + 32 * h + u] |= (uint8_t)(q >> 4 << 2 * r);
    }
    for (int i = 0; i < 16; i++) {
        int scale = draw(96, 16, 64, 127);
        p[192 + i] = (uint8_t)(rng() & 1 ? scale : -scale);
    }
    put16(p + 208, half(SIGMA / (10 * 96) * uniform(0.8f, 1.2f)));
}

const block_type block_types[N_TYPE] = {
    [F32] = {"F32", 1, 4, 0, 0, 0, NULL},
    [F16] = {"F16", 32, 64, 0, 64, 0x83ff83ff83ff83ff, fill_f16}, /* sign and mantissa */
    [BF16] = {"BF16", 32, 64, 0, 64, 0x807f807f807f807f, fill_bf16},
    [Q4_0] = {"Q4_0", 32, 18, 2, 16, ~0ull, fill_q4_0},
    [Q5_0] = {"Q5_0", 32, 22, 6, 16, ~0ull, fill_q5_0},
    [Q8_0] = {"Q8_0", 32, 34, 2, 32, ~0ull, fill_q8_0},
    [Q4_K] = {"Q4_K", 256, 144, 16, 128, ~0ull, fill_q4_k},
    [Q6_K] = {"Q6_K", 256, 210, 0, 128, ~0ull, fill_q6_k},
};
