/* picture_file: writes small picture files into memory, so that tests can say what is in them. PNG
 * of any depth and colours, uncompressed; GIF of two colours; JPEG of blocks of one level each. */
#ifndef CARAT_TESTS_PICTURE_FILE_H
#define CARAT_TESTS_PICTURE_FILE_H

#include "base/base.h"

void put_u8(buf *b, uint32_t v);
void put_big(buf *b, uint32_t v, int n); /* n bytes */
void put_little(buf *b, uint32_t v, int n);

void png_begin(buf *b, uint32_t width, uint32_t height, uint32_t depth, uint32_t colour);
void png_chunk(buf *b, const char *type, const void *data, size_t n);
/* rows: height times row bytes, each without its filter byte. */
void png_end(buf *b, const uint8_t *rows, size_t row, uint32_t height);

/* index [height, width] of 0 (red) and 1 (blue), one of which may be transparent; -1: none. */
void gif_file(buf *b, uint32_t width, uint32_t height, const uint8_t *index, int transparent);

/* levels [n_row, n_col, n_comp] from 0 to 255, one a block of 8 x 8 pixels. extra: segments behind
 * the first marker, or NULL. */
void jpeg_file(buf *b, uint32_t n_col, uint32_t n_row, uint32_t n_comp, const uint8_t *levels,
               const buf *extra);
void jpeg_segment(buf *b, uint32_t marker, const void *body, size_t n);
/* A segment of EXIF that says an orientation. type: 3 (16 bits) or 4 (32 bits). */
void jpeg_exif(buf *b, bool is_little, uint32_t type, uint32_t orientation);

#endif
