/* Fuzzes what reads pictures and the text around them: the probes of files and EXIF, the decoders
 * that are built in, base64 and data: URLs, media in messages. What an input is decides which. */
#include "../cli/media.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok, const carat_error *err) {
    if (!ok && (err->code == CARAT_OK || !err->message[0])) abort();
}

static void look(const uint8_t *data, size_t n) {
    media_list l = {0};
    carat_error err = {0};
    uint32_t width, height;
    /* What is large is only slow. */
    if (picture_size(data, n, &width, &height) && (uint64_t)width * height > 1 << 20) return;
    bool ok = media_add_bytes(&l, CARAT_MEDIA_IMAGE, "input", data, n, &err);
    must(ok, &err);
    if (ok && (!l.items[0].rgb || !l.items[0].width || !l.items[0].height)) abort();
    volatile uint8_t last;
    if (ok) last = l.items[0].rgb[(size_t)l.items[0].width * l.items[0].height * 3 - 1];
    (void)last;
    media_cut(&l, 0);
}

static void read_text(const uint8_t *data, size_t n) {
    buf out = {0};
    carat_error err = {0};
    bool ok = media_text_decode("input", (const char *)data, n, &out, &err);
    must(ok, &err);
    if (ok && out.len > n) abort();
    buf_free(&out);
}

/* What is left of a message is JSON again. */
static void read_message(const uint8_t *data, size_t n) {
    arena *a = arena_create(NULL);
    json *m = NULL, *again = NULL;
    buf out = {0};
    carat_error err = {0};
    media_refs *refs = a ? arena_alloc(a, 1, sizeof *refs) : NULL;
    if (refs && json_parse(a, (const char *)data, n, "input", &m, &err)) {
        bool ok = media_take(a, m, refs, &out, &err);
        must(ok, &err);
        if (ok && !json_parse(a, out.data, out.len, "output", &again, &err)) abort();
    }
    buf_free(&out);
    arena_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    uint8_t *exact = malloc(n ? n : 1); /* ends where the input does */
    jpeg_info j;
    if (n) memcpy(exact, data, n);
    jpeg_scan(exact, n, &j);
    if (j.orientation < 1 || j.orientation > 8) abort();
    gif_whole(exact, n);
    bmp_whole(exact, n);
    wav_whole(exact, n, n);
    if (picture_probe(exact, n) != PICTURE_UNKNOWN)
        look(exact, n);
    else if (n && exact[0] == '{')
        read_message(exact, n);
    else
        read_text(exact, n);
    free(exact);
    return 0;
}
