/* media_text: pictures and sounds that come as text in JSON: base64, bare or in a data: URL. carat
 * fetches nothing, so every other URL is refused.
 *
 * Flow: media_parts.c before; what it decodes goes to media_add_bytes(). */
#include "media.h"

#include <string.h>
#include <strings.h>

/* Six bits; 64: white space, 65: padding, 66: none of these. */
static uint8_t base64_value(unsigned char c) {
    if (c >= 'A' && c <= 'Z') return (uint8_t)(c - 'A');
    if (c >= 'a' && c <= 'z') return (uint8_t)(c - 'a' + 26);
    if (c >= '0' && c <= '9') return (uint8_t)(c - '0' + 52);
    if (c == '+' || c == '-') return 62;
    if (c == '/' || c == '_') return 63;
    if (c == ' ' || c == '\n' || c == '\r' || c == '\t') return 64;
    return c == '=' ? 65 : 66;
}

static bool base64_decode(const char *what, const char *text, size_t n, buf *out,
                          carat_error *err) {
    uint8_t piece[3072];
    size_t len = 0;
    uint32_t bits = 0, n_bit = 0, n_padding = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t v = base64_value((unsigned char)text[i]);
        if (v == 66 || (v < 64 && n_padding))
            return fail(err, CARAT_E_FORMAT, "%s: not base64 (at byte %zu)", what, i);
        n_padding += v == 65;
        if (v >= 64) continue;
        bits = (bits << 6 | v) & 0xffff;
        n_bit += 6;
        if (n_bit < 8) continue;
        n_bit -= 8;
        piece[len++] = (uint8_t)(bits >> n_bit);
        if (len < sizeof piece) continue;
        buf_put(out, piece, len);
        len = 0;
    }
    if (n_bit == 6 || n_padding > 2) /* one letter is no byte */
        return fail(err, CARAT_E_FORMAT, "%s: the base64 is cut short", what);
    buf_put(out, piece, len);
    return !out->failed || fail_memory(err, n / 4 * 3, what);
}

/* Whether text [n] begins with a scheme and a colon, as URLs do; base64 has no colon. */
static bool is_url(const char *text, size_t n) {
    size_t i = 0;
    while (i < n && i < 16 && base64_value((unsigned char)text[i]) < 64) i++;
    return i > 0 && i < n && text[i] == ':';
}

bool media_text_decode(const char *what, const char *text, size_t n, buf *out, carat_error *err) {
    static const char scheme[] = "data:", coding[] = ";base64";
    if (!is_url(text, n)) return base64_decode(what, text, n, out, err);
    if (n < sizeof scheme - 1 || strncasecmp(text, scheme, sizeof scheme - 1) != 0)
        return fail(err, CARAT_E_UNSUPPORTED,
                    "%s: %.*s: carat fetches nothing; send the content itself as a data: URL", what,
                    (int)(n < 60 ? n : 60), text);
    const char *comma = memchr(text, ',', n);
    size_t head = comma ? (size_t)(comma - text) : n;
    bool coded = head >= sizeof scheme + sizeof coding - 2 &&
                 strncasecmp(text + head - (sizeof coding - 1), coding, sizeof coding - 1) == 0;
    if (!comma || !coded)
        return fail(err, CARAT_E_FORMAT, "%s: not a data: URL in base64 (data:TYPE;base64,...)",
                    what);
    return base64_decode(what, comma + 1, n - head - 1, out, err);
}
