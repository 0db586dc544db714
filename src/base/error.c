/* error: one way to fail. Owns how a message is written, not what any message says.
 *
 * Messages quote names that come out of files, so whatever a terminal could take for a command
 * is replaced here, once, and not at every call.
 *
 * Flow: everything comes here when it fails; the program that called carat reads the result. */
#include "base/base.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

size_t utf8_length(const char *text, size_t n) {
    const unsigned char *s = (const unsigned char *)text;
    if (n == 0) return 0;
    if (s[0] < 0x80) return 1;
    size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n < len) return 0;
    /* The second byte alone excludes overlong forms, surrogates and values past U+10FFFF. */
    unsigned low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < len; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    return len;
}

/* Makes text printable: control characters and bytes that are not UTF-8 become '?'. */
static void clean(char *text) {
    for (size_t n = strlen(text), i = 0; i < n;) {
        size_t len = utf8_length(text + i, n - i);
        unsigned char c = (unsigned char)text[i];
        bool c1 = c == 0xc2 && len == 2 && (unsigned char)text[i + 1] < 0xa0;
        if (c1) text[i + 1] = '?';
        if (len == 0 || c1 || c < 0x20 || c == 0x7f) text[i] = '?';
        i += len ? len : 1;
    }
}

bool fail(carat_error *err, carat_code code, const char *fmt, ...) {
    assert(code != CARAT_OK);
    if (err == NULL || err->code != CARAT_OK) return false;
    err->code = code;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    if (n < 0) err->message[0] = 0;
    clean(err->message); /* also what is left of a character that did not fit */
    return false;
}

bool fail_memory(carat_error *err, uint64_t n, const char *what) {
    if (n < 1024 * 1024)
        return fail(err, CARAT_E_MEMORY, "out of memory: %" PRIu64 " bytes for %s", n, what);
    return fail(err, CARAT_E_MEMORY, "out of memory: %.1f MiB for %s", (double)n / 1048576, what);
}
