/* JPEG files: colours, codings, what can be wrong with their tables, and how they are turned. */
#include "picture_test.h"

/* ---- colours, codings ---- */

static void jpeg_colours(void **state) {
    (void)state;
    buf b = {0}, adobe = {0};
    uint8_t want[8 * 8 * 3];
    jpeg_file(&b, 1, 1, 1, (const uint8_t[]){77}, NULL);
    memset(want, 77, sizeof want);
    check_pixels(&b, 8, 8, want, 1);
    jpeg_file(&b, 1, 1, 3, (const uint8_t[]){128, 128, 255}, NULL); /* YCbCr: red */
    for (int i = 0; i < 64; i++) memcpy(want + 3 * i, (const uint8_t[]){255, 37, 128}, 3);
    check_pixels(&b, 8, 8, want, 2);
    jpeg_file(&b, 1, 1, 4, (const uint8_t[]){200, 100, 50, 255}, NULL);
    refused(&b, "p: a JPEG of four colours that does not say which");
    buf_put(&adobe, "Adobe\0\x64\0\0\0\0\0", 12); /* CMYK, each inverted */
    buf segment = {0};
    jpeg_segment(&segment, 0xffee, adobe.data, adobe.len);
    jpeg_file(&b, 1, 1, 4, (const uint8_t[]){200, 100, 50, 255}, &segment);
    for (int i = 0; i < 64; i++) memcpy(want + 3 * i, (const uint8_t[]){200, 100, 50}, 3);
    check_pixels(&b, 8, 8, want, 2);
    buf_free(&adobe);
    buf_free(&segment);
}

static void jpeg_codings(void **state) {
    (void)state;
    buf b = {0};
    for (int k = 0; k < 2; k++) {
        jpeg_file(&b, 1, 1, 1, (const uint8_t[]){77}, NULL);
        char *frame = memmem(b.data, b.len, "\xff\xc0", 2);
        assert_non_null(frame);
        if (k)
            frame[1] = (char)0xc9; /* arithmetic */
        else
            frame[4] = 12; /* bits */
        refused(&b, "a coding that carat does not read");
    }
    jpeg_file(&b, 2, 3, 3, (const uint8_t[18]){1, 99, 200}, NULL);
    for (size_t n = b.len - 1; n > 2; n--) {
        media_list l = {0};
        b.len = n;
        REFUSES("p: the JPEG is cut short", decode(&b, &l));
    }
    buf_free(&b);
}

/* ---- what stb_image trusts ---- */

/* One byte of a file changed, counted from the marker of a segment, `skip` of its kind before. */
static void jpeg_tables(void **state) {
    (void)state;
    static const struct {
        uint8_t segment, skip, at, value;
        const char *text;
    } changes[] = {
        {0xc0, 0, 9, 0, "p: the JPEG is damaged: its header is wrong"}, /* components */
        {0xc0, 0, 12, 1, "p: the JPEG is damaged: a scan without its tables"},
        {0xdb, 0, 4, 0x20, "p: the JPEG is damaged: a table of steps is wrong"},
        {0xdb, 0, 4, 0x10, "p: the JPEG is damaged: a table of steps is wrong"}, /* too short */
        {0xdb, 0, 4, 1, "p: the JPEG is damaged: a scan without its tables"},
        {0xc4, 0, 4, 4, "p: the JPEG is damaged: a table of codes is wrong"},
        {0xc4, 0, 4, 2, "p: the JPEG is damaged: a scan without its tables"},
        {0xc4, 0, 20, 1, "p: the JPEG is damaged: a table of codes is wrong"}, /* one more code */
        {0xc4, 1, 4, 0x11, "p: the JPEG is damaged: a scan without its tables"},
        {0xda, 0, 5, 9, "p: the JPEG is damaged: a scan without its tables"}, /* a component */
        {0xda, 0, 6, 0x20, "p: the JPEG is damaged: a scan without its tables"},
        {0xda, 0, 8, 3, "p: the JPEG is damaged: a scan without its tables"},
        {0xda, 0, 9, 2, "p: the JPEG is cut short"}, /* the third component is never there */
    };
    for (size_t i = 0; i < COUNT(changes); i++) {
        buf b = {0};
        jpeg_file(&b, 1, 1, 3, (const uint8_t[]){128, 128, 255}, NULL);
        const char marker[2] = {(char)0xff, (char)changes[i].segment};
        char *segment = memmem(b.data, b.len, marker, 2);
        for (int k = 0; k < changes[i].skip; k++)
            segment = memmem(segment + 2, b.len - (size_t)(segment + 2 - b.data), marker, 2);
        segment[changes[i].at] = (char)changes[i].value;
        refused(&b, changes[i].text);
    }
}

/* A table that no scan names, of n9 codes of 9 bits and n10 of 10. */
static void unused_table(buf *file, uint32_t n9, uint32_t n10) {
    uint8_t table[17 + 2 * 255] = {3, [9] = (uint8_t)n9, [10] = (uint8_t)n10};
    buf segment = {0};
    jpeg_segment(&segment, 0xffc4, table, 17 + n9 + n10);
    jpeg_file(file, 1, 1, 1, (const uint8_t[]){77}, &segment);
    buf_free(&segment);
}

static void jpeg_codes(void **state) {
    (void)state;
    uint8_t grey[8 * 8 * 3];
    buf b = {0}, extra = {0};
    memset(grey, 77, sizeof grey);
    unused_table(&b, 255, 0);
    check_pixels(&b, 8, 8, grey, 1);
    unused_table(&b, 255, 1);
    refused(&b, "p: the JPEG is damaged: a table of codes is wrong");
    unused_table(&b, 255, 255);
    refused(&b, "p: the JPEG is damaged: a table of codes is wrong");
    for (uint8_t ones = 0; ones < 2; ones++) { /* codes 0 and 10; and 11 */
        const uint8_t codes[20] = {3, 1, (uint8_t)(1 + ones)};
        jpeg_segment(&extra, 0xffc4, codes, 19u + ones);
        jpeg_file(&b, 1, 1, 1, (const uint8_t[]){77}, &extra);
        buf_reset(&extra);
        if (ones)
            refused(&b, "p: the JPEG is damaged: a table of codes is wrong");
        else
            check_pixels(&b, 8, 8, grey, 1);
    }
    jpeg_segment(&extra, 0xffc0, "\x08\0\x08\0\x08\1\1\x11\0", 9); /* two frames */
    jpeg_file(&b, 1, 1, 1, (const uint8_t[]){77}, &extra);
    refused(&b, "p: the JPEG is damaged: its header is wrong");
    buf_free(&extra);
}

/* A scan that comes again and again changes nothing, but takes its time. */
static void jpeg_scans(void **state) {
    (void)state;
    uint8_t grey[8 * 8 * 3];
    memset(grey, 77, sizeof grey);
    for (uint32_t n_scan = 100; n_scan <= 101; n_scan++) {
        buf b = {0}, scan = {0};
        jpeg_file(&b, 1, 1, 1, (const uint8_t[]){77}, NULL);
        const size_t at = (size_t)((char *)memmem(b.data, b.len, "\xff\xda", 2) - b.data);
        buf_put(&scan, b.data + at, b.len - 2 - at);
        b.len = at;
        for (uint32_t i = 0; i < n_scan; i++) buf_put(&b, scan.data, scan.len);
        put_big(&b, 0xffd9, 2);
        buf_free(&scan);
        if (n_scan == 100)
            check_pixels(&b, 8, 8, grey, 1);
        else
            refused(&b, "p: the JPEG is damaged: it has too many scans");
    }
}

/* ---- how it is turned ---- */

/* Six blocks of their own level in two columns, as each orientation shows them. */
static const char *const turned[9] = {NULL,      "ab/cd/ef", "ba/dc/fe", "fe/dc/ba", "ef/cd/ab",
                                      "ace/bdf", "eca/fdb",  "fdb/eca",  "bdf/ace"};

static void check_turned(const buf *exif, uint32_t orientation) {
    const char *rows = turned[orientation];
    const uint32_t n_col = (uint32_t)strcspn(rows, "/"), n_row = n_col == 2 ? 3 : 2;
    uint8_t levels[6];
    buf b = {0};
    media_list l = {0};
    for (uint32_t i = 0; i < 6; i++) levels[i] = (uint8_t)(20 + 40 * i);
    jpeg_file(&b, 2, 3, 1, levels, exif);
    REQUIRE(decode(&b, &l));
    const carat_media *m = &l.items[0];
    assert_int_equal(m->width, 8 * n_col);
    assert_int_equal(m->height, 8 * n_row);
    for (uint32_t y = 0; y < m->height; y++)
        for (uint32_t x = 0; x < m->width; x++) {
            int got = m->rgb[3 * (y * m->width + x)];
            int want = 20 + 40 * (rows[y / 8 * (n_col + 1) + x / 8] - 'a');
            if (abs(got - want) > 1)
                fail_msg("orientation %u: %d at %u, %u, not %d", orientation, got, x, y, want);
        }
    media_cut(&l, 0);
    buf_free(&b);
}

static void jpeg_orientation(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 8 * 4; i++) {
        buf exif = {0};
        jpeg_exif(&exif, i & 1, i & 2 ? 3 : 4, 1 + i / 4);
        check_turned(&exif, 1 + i / 4);
        buf_free(&exif);
    }
    check_turned(NULL, 1);
    for (uint32_t i = 0; i < 4; i++) { /* what makes no sense is as if it were not there */
        buf exif = {0};
        jpeg_exif(&exif, true, i == 0 ? 7 : 3, i == 1 ? 9 : i == 2 ? 0 : 6);
        if (i == 3) exif.data[14] = 99; /* where the list is: behind the end */
        check_turned(&exif, 1);
        buf_free(&exif);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jpeg_colours), cmocka_unit_test(jpeg_codings),
        cmocka_unit_test(jpeg_tables),  cmocka_unit_test(jpeg_codes),
        cmocka_unit_test(jpeg_scans),   cmocka_unit_test(jpeg_orientation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
