/* tokenize: text to ids and back, without weights or a device.
 *
 * Flow: main.c and runtime.c before. */
#include "cli.h"

#include <ctype.h>
#include <string.h>

static const option tokenize_options[] = {
    OPTION("file", 'f', TEXT, file, "FILE", "read the text from a file"),
    OPTION("specials", 0, FLAG, specials, NULL,
           "control tokens written in the text count, as in <|turn>"),
    OPTION("decode", 'd', TEXT, decode, "IDS",
           "the other way: ids, separated by spaces or commas, to text; - reads them from stdin"),
    OPTION("ids", 0, FLAG, ids, NULL, "print the ids only, in one line"),
    OPTION("count", 0, FLAG, count, NULL, "print their number only"),
    OPTION("json", 0, FLAG, json, NULL, "print one JSON object with ids and pieces"),
    OPTION("help", 'h', FLAG, help, NULL, "this text"),
    {0}};
static const option_group group = {"options", tokenize_options};

static bool print_table(const runtime *r, const id_list *v, carat_error *err) {
    table t = {.columns = "rrl"};
    table_cell(&t, "#");
    table_cell(&t, "id");
    table_cell(&t, "piece");
    buf piece = {0}, quoted = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < v->len; i++) {
        buf_reset(&piece);
        buf_reset(&quoted);
        ok = runtime_piece(r, v->data[i], true, &piece, err);
        put_visible(&quoted, piece.data ? piece.data : "", piece.len);
        table_cell(&t, "%zu", i);
        table_cell(&t, "%d", v->data[i]);
        table_cell(&t, "%s", quoted.failed ? "?" : quoted.data);
    }
    table_print(&t, stdout, true);
    buf_free(&piece);
    buf_free(&quoted);
    return ok;
}

static bool print_json(const runtime *r, const id_list *v, carat_error *err) {
    buf b = {0}, piece = {0};
    bool ok = true;
    buf_printf(&b, "{\"n\":%zu,\"ids\":[", v->len);
    for (size_t i = 0; i < v->len; i++) buf_printf(&b, "%s%d", i ? "," : "", v->data[i]);
    buf_puts(&b, "],\"pieces\":[");
    for (size_t i = 0; ok && i < v->len; i++) {
        buf_reset(&piece);
        ok = runtime_piece(r, v->data[i], true, &piece, err);
        if (i) buf_puts(&b, ",");
        json_write_string(&b, piece.data ? piece.data : "", piece.len);
    }
    buf_puts(&b, "]}");
    buf_free(&piece);
    if (ok) return print_buf(&b, err);
    buf_free(&b);
    return false;
}

static bool encode(const runtime *r, const settings *s, const buf *text, carat_error *err) {
    id_list v = {0};
    bool ok = runtime_tokenize(r, text->data ? text->data : "", text->len, s->specials, &v, err);
    if (ok && s->count)
        printf("%zu\n", v.len);
    else if (ok && s->json)
        ok = print_json(r, &v, err);
    else if (ok && s->ids)
        for (size_t i = 0; i < v.len; i++) printf("%d%c", v.data[i], i + 1 < v.len ? ' ' : '\n');
    else if (ok)
        ok = print_table(r, &v, err);
    ids_free(&v);
    return ok;
}

/* Ids separated by anything that is no digit, such as commas, spaces and brackets. */
static bool read_ids(const char *text, id_list *out, carat_error *err) {
    while (*text) {
        if (!isdigit((unsigned char)*text)) {
            if (!strchr(" ,;[]\t\r\n", *text))
                return fail(err, CARAT_E_ARGUMENT, "'%.12s' is not an id", text);
            text++;
            continue;
        }
        uint64_t id = 0;
        for (; isdigit((unsigned char)*text); text++) {
            id = id * 10 + (uint64_t)(*text - '0');
            if (id > INT32_MAX) return fail(err, CARAT_E_ARGUMENT, "an id is too large");
        }
        ids_put(out, (int32_t)id);
    }
    return !out->failed || fail_memory(err, out->len, "the ids");
}

static bool decode(const runtime *r, const settings *s, const buf *given, carat_error *err) {
    id_list v = {0};
    buf text = {0};
    bool ok = read_ids(given->data ? given->data : "", &v, err);
    for (size_t i = 0; ok && i < v.len; i++) {
        if ((uint32_t)v.data[i] >= r->info.n_vocab)
            ok = fail(err, CARAT_E_ARGUMENT, "id %d: the vocabulary has %u", v.data[i],
                      r->info.n_vocab);
        else
            ok = runtime_piece(r, v.data[i], true, &text, err);
    }
    if (ok && s->json) {
        buf b = {0};
        buf_puts(&b, "{\"text\":");
        json_write_string(&b, text.data ? text.data : "", text.len);
        buf_puts(&b, "}");
        ok = print_buf(&b, err);
    } else if (ok) {
        put_text(stdout, text.data ? text.data : "", text.len);
        if (stdout_is_terminal()) putchar('\n');
    }
    ids_free(&v);
    buf_free(&text);
    return ok;
}

static int run(settings *s, const char *const *args, size_t n) {
    bool from_args = n > 1 || s->file;
    if (s->decode && from_args) return usage_error("tokenize: --decode takes no text");
    if (!s->decode && !from_args && stdin_is_terminal())
        return usage_error("tokenize: no text; write it behind the model or pipe it in");
    carat_error err = {0};
    runtime r = {0};
    buf text = {0};
    bool ok;
    if (s->decode && strcmp(s->decode, "-") != 0) {
        buf_puts(&text, s->decode);
        ok = true;
    } else {
        ok = prompt_read(args + 1, n - 1, s->file, &text, &err);
    }
    ok = ok && runtime_open(&r, s, args[0], &err) &&
         (s->decode ? decode : encode)(&r, s, &text, &err);
    int code = ok ? EXIT_OK : report(&err);
    runtime_close(&r);
    buf_free(&text);
    return code;
}

const command command_tokenize = {
    .name = "tokenize",
    .summary = "show the tokens of a text, or the text of tokens",
    .usage = "MODEL [TEXT...]",
    .about = "Cuts a text into the model's tokens and prints each with its id. The text is the "
             "words behind the model, a file, or stdin; its bytes are taken as they are, valid "
             "UTF-8 or not. No token is added in front. Needs no device and reads no weights.",
    .examples = "  carat tokenize nano \"Hello, world\"\n"
                "  carat tokenize gemma4:e2b --count --file book.txt\n"
                "  carat tokenize nano --ids \"one two\"\n"
                "  carat tokenize nano --decode \"64 112 12\"\n",
    .groups = {&group},
    .min_args = 1,
    .max_args = SIZE_MAX,
    .run = run,
};
