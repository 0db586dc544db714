/* picture: image files as pixels, through stb_image. */
#include "picture.h"

#define STB_IMAGE_IMPLEMENTATION
#define STBI_NO_SIMD
#include <stb/stb_image.h>

uint8_t *picture_load(const char *path, uint32_t *width, uint32_t *height) {
    int w, h, n;
    uint8_t *rgb = stbi_load(path, &w, &h, &n, 3);
    if (!rgb) return NULL;
    *width = (uint32_t)w;
    *height = (uint32_t)h;
    return rgb;
}

void picture_free(uint8_t *rgb) { stbi_image_free(rgb); }
