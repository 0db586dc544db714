/* media_stb: PNG, JPEG, GIF and BMP through stb_image. Built when its header is there; else
 * media_no_stb.c is.
 *
 * Flow: media_image.c calls it, after it looked at what stb_image is lax about. */
#include "media.h"

#include <limits.h>
#include <stdlib.h>

/* A small file can ask for any amount of memory, and stb_image gives it. What a picture of known
 * size needs is known. It is zeroed: what a file leaves out is never what was there before. */
static _Thread_local size_t most_bytes;

static void *limited_malloc(size_t n) { return n > most_bytes ? NULL : calloc(1, n); }
static void *limited_realloc(void *p, size_t n) { return n > most_bytes ? NULL : realloc(p, n); }

#define STBI_MALLOC(n)     limited_malloc(n)
#define STBI_REALLOC(p, n) limited_realloc(p, n)
#define STBI_FREE(p)       free(p)
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_GIF
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_SIMD /* the same pixels everywhere */
#define STBI_FAILURE_USERMSG
#define STBI_MAX_DIMENSIONS (1 << 16)
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>

bool has_stb(void) { return true; }

bool stb_decode(const uint8_t *data, size_t n, pixels *p, const char **why) {
    int width = 0, height = 0, channels = 0;
    most_bytes = (size_t)p->width * p->height * 32 + (4 << 20);
    *why = "it is too large";
    if (n > INT_MAX) return false;
    p->data = stbi_load_from_memory(data, (int)n, &width, &height, &channels, (int)p->n_channel);
    if (!p->data) {
        *why = stbi_failure_reason();
        if (!*why) *why = "damaged";
        return false;
    }
    if ((uint32_t)width == p->width && (uint32_t)height == p->height) return true;
    *why = "its size is told twice and differs";
    free(p->data);
    p->data = NULL;
    return false;
}
