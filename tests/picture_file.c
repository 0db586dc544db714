/* picture_file: PNG, GIF and JPEG by hand. */
#include "picture_file.h"

#include <string.h>

void put_u8(buf *b, uint32_t v) { buf_put(b, &(uint8_t){(uint8_t)v}, 1); }

void put_big(buf *b, uint32_t v, int n) {
    while (n-- > 0) put_u8(b, v >> 8 * n);
}

void put_little(buf *b, uint32_t v, int n) {
    for (int i = 0; i < n; i++) put_u8(b, v >> 8 * i);
}

/* ---- PNG ---- */

static uint32_t png_crc(const uint8_t *p, size_t n) {
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++) c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
    }
    return ~c;
}

void png_chunk(buf *b, const char *type, const void *data, size_t n) {
    put_big(b, (uint32_t)n, 4);
    size_t at = b->len;
    buf_puts(b, type);
    buf_put(b, data, n);
    put_big(b, png_crc((const uint8_t *)b->data + at, b->len - at), 4);
}

void png_begin(buf *b, uint32_t width, uint32_t height, uint32_t depth, uint32_t colour) {
    buf head = {0};
    buf_put(b, "\x89PNG\r\n\x1a\n", 8);
    put_big(&head, width, 4);
    put_big(&head, height, 4);
    put_u8(&head, depth);
    put_u8(&head, colour);
    put_big(&head, 0, 3);
    png_chunk(b, "IHDR", head.data, head.len);
    buf_free(&head);
}

/* rows: height times row bytes, each without its filter byte. */
void png_end(buf *b, const uint8_t *rows, size_t row, uint32_t height) {
    buf raw = {0}, z = {0};
    uint32_t s1 = 1, s2 = 0; /* Adler-32 */
    for (uint32_t y = 0; y < height; y++) {
        put_u8(&raw, 0);
        buf_put(&raw, rows + y * row, row);
    }
    for (size_t i = 0; i < raw.len; i++) {
        s1 = (s1 + (uint8_t)raw.data[i]) % 65521;
        s2 = (s2 + s1) % 65521;
    }
    put_big(&z, 0x7801, 2);
    put_u8(&z, 1); /* one stored block */
    put_little(&z, (uint32_t)raw.len, 2);
    put_little(&z, ~(uint32_t)raw.len, 2);
    buf_put(&z, raw.data, raw.len);
    put_big(&z, s2 << 16 | s1, 4);
    png_chunk(b, "IDAT", z.data, z.len);
    png_chunk(b, "IEND", "", 0);
    buf_free(&raw);
    buf_free(&z);
}

/* ---- GIF: pixels [width * height] of 0 and 1, colours red and blue ---- */

void gif_file(buf *b, uint32_t width, uint32_t height, const uint8_t *index, int transparent) {
    buf_puts(b, "GIF89a");
    put_little(b, width, 2);
    put_little(b, height, 2);
    put_big(b, 0x800000, 3);
    put_big(b, 0xff0000, 3);
    put_big(b, 0x0000ff, 3);
    if (transparent >= 0) {
        put_big(b, 0x21f90401, 4);
        put_big(b, (uint32_t)transparent << 8, 4);
    }
    put_u8(b, 0x2c);
    put_little(b, 0, 4);
    put_little(b, width, 2);
    put_little(b, height, 2);
    put_u8(b, 0);
    put_u8(b, 2);
    /* Codes of three bits, cleared before the table would make them four. */
    uint32_t acc = 0, n_bit = 0, n = 0;
    buf codes = {0};
#define GIF_CODE(code)                                                                             \
    do {                                                                                           \
        acc |= (uint32_t)(code) << n_bit;                                                          \
        for (n_bit += 3; n_bit >= 8; n_bit -= 8, acc >>= 8) put_u8(&codes, acc);                   \
    } while (0)
    for (uint32_t i = 0; i < width * height; i++) {
        if (n++ % 2 == 0) GIF_CODE(4);
        GIF_CODE(index[i]);
    }
    GIF_CODE(5);
    if (n_bit) put_u8(&codes, acc);
#undef GIF_CODE
    for (size_t at = 0; at < codes.len; at += 255) {
        size_t len = codes.len - at < 255 ? codes.len - at : 255;
        put_u8(b, (uint32_t)len);
        buf_put(b, codes.data + at, len);
    }
    put_big(b, 0x003b, 2);
    buf_free(&codes);
}

/* ---- JPEG: baseline, blocks of 8 x 8 pixels ---- */

typedef struct jpeg_bits {
    buf *out;
    uint32_t acc, n;
} jpeg_bits;

static void jpeg_put(jpeg_bits *j, uint32_t bits, uint32_t n) {
    for (uint32_t i = n; i-- > 0;) {
        j->acc = j->acc << 1 | (bits >> i & 1);
        if (++j->n < 8) continue;
        put_u8(j->out, j->acc & 0xff);
        if ((j->acc & 0xff) == 0xff) put_u8(j->out, 0);
        j->acc = j->n = 0;
    }
}

/* Writes a segment: marker, length, body. */
void jpeg_segment(buf *b, uint32_t marker, const void *body, size_t n) {
    put_big(b, marker, 2);
    put_big(b, (uint32_t)n + 2, 2);
    buf_put(b, body, n);
}

/* levels [n_row][n_col][n_comp] from 0 to 255, one a block. extra: segments behind the first
 * marker. */
void jpeg_file(buf *b, uint32_t n_col, uint32_t n_row, uint32_t n_comp, const uint8_t *levels,
               const buf *extra) {
    buf s = {0};
    put_big(b, 0xffd8, 2);
    if (extra) buf_put(b, extra->data, extra->len);
    put_u8(&s, 0); /* quantisation: all 1 */
    for (int i = 0; i < 64; i++) put_u8(&s, 1);
    jpeg_segment(b, 0xffdb, s.data, s.len);
    buf_reset(&s);
    put_u8(&s, 8);
    put_big(&s, n_row * 8, 2);
    put_big(&s, n_col * 8, 2);
    put_u8(&s, n_comp);
    for (uint32_t c = 0; c < n_comp; c++) put_big(&s, (c + 1) << 16 | 0x1100, 3);
    jpeg_segment(b, 0xffc0, s.data, s.len);
    buf_reset(&s); /* DC: categories 0 to 11 have the codes 0000 to 1011 */
    put_u8(&s, 0);
    for (int i = 1; i <= 16; i++) put_u8(&s, i == 4 ? 12 : 0);
    for (uint32_t i = 0; i < 12; i++) put_u8(&s, i);
    jpeg_segment(b, 0xffc4, s.data, s.len);
    buf_reset(&s); /* AC: the end of a block has the code 0 */
    put_u8(&s, 0x10);
    for (int i = 1; i <= 16; i++) put_u8(&s, i == 1);
    put_u8(&s, 0);
    jpeg_segment(b, 0xffc4, s.data, s.len);
    buf_reset(&s);
    put_u8(&s, n_comp);
    for (uint32_t c = 0; c < n_comp; c++) put_big(&s, (c + 1) << 8, 2);
    put_big(&s, 0x003f00, 3);
    jpeg_segment(b, 0xffda, s.data, s.len);
    buf_free(&s);
    jpeg_bits j = {.out = b};
    int before[4] = {0};
    for (uint32_t i = 0; i < n_col * n_row; i++)
        for (uint32_t c = 0; c < n_comp; c++) {
            int dc = ((int)levels[i * n_comp + c] - 128) * 8, d = dc - before[c];
            uint32_t category = 0;
            for (int a = d < 0 ? -d : d; a; a >>= 1) category++;
            before[c] = dc;
            jpeg_put(&j, category, 4);
            jpeg_put(&j, (uint32_t)(d < 0 ? d - 1 : d), category);
            jpeg_put(&j, 0, 1);
        }
    if (j.n) jpeg_put(&j, 0x7f, 8 - j.n);
    put_big(b, 0xffd9, 2);
}

/* An EXIF segment that says an orientation. type: 3 (16 bits) or 4 (32 bits). */
void jpeg_exif(buf *b, bool is_little, uint32_t type, uint32_t orientation) {
    void (*put)(buf *, uint32_t, int) = is_little ? put_little : put_big;
    buf s = {0};
    buf_put(&s, "Exif\0", 6);
    buf_puts(&s, is_little ? "II" : "MM");
    put(&s, 42, 2);
    put(&s, 8, 4);
    put(&s, 2, 2);
    put(&s, 0x0100, 2), put(&s, 3, 2), put(&s, 1, 4), put(&s, 7, 2), put(&s, 0, 2);
    put(&s, 0x0112, 2), put(&s, type, 2), put(&s, 1, 4), put(&s, orientation, type == 3 ? 2 : 4);
    if (type == 3) put(&s, 0, 2);
    put(&s, 0, 4);
    jpeg_segment(b, 0xffe1, s.data, s.len);
    buf_free(&s);
}
