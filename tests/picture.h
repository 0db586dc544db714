/* picture: image files as pixels, for tests of what is done with the pixels. */
#ifndef CARAT_TESTS_PICTURE_H
#define CARAT_TESTS_PICTURE_H

#include <stdint.h>

/* [height, width, 3], freed with picture_free(); NULL: cannot be read. */
uint8_t *picture_load(const char *path, uint32_t *width, uint32_t *height);
void picture_free(uint8_t *rgb);

#endif
