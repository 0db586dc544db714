/* media_webp: WebP through libwebp. Built when its header is there; else media_no_webp.c is.
 *
 * Flow: media_image.c calls it. */
#include "media.h"

#include <stdlib.h>
#include <webp/decode.h>

bool has_webp(void) { return true; }

static bool explain(VP8StatusCode status, const char **why) {
    *why = status == VP8_STATUS_NOT_ENOUGH_DATA       ? "it is cut short"
           : status == VP8_STATUS_OUT_OF_MEMORY       ? "out of memory"
           : status == VP8_STATUS_UNSUPPORTED_FEATURE ? "it uses a feature that libwebp has not"
                                                      : "damaged WebP";
    return false;
}

bool webp_size(const uint8_t *data, size_t n, pixels *out, const char **why) {
    WebPBitstreamFeatures f;
    VP8StatusCode status = WebPGetFeatures(data, n, &f);
    if (status != VP8_STATUS_OK) return explain(status, why);
    *out = (pixels){.width = (uint32_t)f.width, .height = (uint32_t)f.height};
    *why = "it is animated; carat reads still WebP pictures";
    return !f.has_animation;
}

bool webp_decode(const uint8_t *data, size_t n, pixels *p, const char **why) {
    size_t stride = (size_t)p->width * 4, bytes = stride * p->height;
    WebPDecoderConfig config;
    VP8StatusCode status = VP8_STATUS_OUT_OF_MEMORY;
    p->n_channel = 4;
    p->data = malloc(bytes);
    if (p->data && WebPInitDecoderConfig(&config)) {
        config.output.colorspace = MODE_RGBA;
        config.output.is_external_memory = 1;
        config.output.u.RGBA.rgba = p->data;
        config.output.u.RGBA.stride = (int)stride;
        config.output.u.RGBA.size = bytes;
        status = WebPDecode(data, n, &config);
        WebPFreeDecBuffer(&config.output);
    }
    if (status == VP8_STATUS_OK) return true;
    free(p->data);
    p->data = NULL;
    return explain(status, why);
}
