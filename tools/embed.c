/* embed: kernels/ *.wgsl -> one C header and one C file.
 *
 *     embed KERNEL_DIR OUT.h OUT.c
 *
 * For every kernels/NAME.wgsl: its minified source, its bindings, a C mirror of its `struct Args`
 * and a `kernel` (src/gpu/kernel.h). NAME.subgroup.wgsl and NAME.matrix.wgsl are variants of NAME
 * for adapters with subgroups and with matrix units and must agree with it on Args and bindings. A
 * kernel without such a variant of its own gets one when a library that it includes has one
 * (lib/reduce.wgsl, lib/reduce.subgroup.wgsl); one for matrix units only if it asks for it.
 *
 * Directives, as comments: `// include: reduce step`, `// formats: A B`, `// variants: matrix`.
 * Lines that begin with `enable` or `requires` are taken out, because they must come before
 * everything else.
 *
 * Sources are packed: what occurs often in them is written as one or two bytes (kernel_pairs in
 * src/gpu/kernel.h says how).
 *
 * A host tool that runs while carat is built: it prints and exits, and leaves freeing to the exit.
 */
#include <ctype.h>
#include <dirent.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILES    256
#define MAX_BINDINGS 12 /* GPU_MAX_BINDINGS */
#define MAX_FIELDS   48
#define MAX_INCLUDES 12
#define NAME_SIZE    64

/* As in src/gpu/kernel.h. */
#define FIRST_PAIR 128
#define FIRST_LONG 244
#define MAX_DEPTH  64
#define MAX_SYMBOL (FIRST_LONG + (256 - FIRST_LONG) * 255)
#define LEAST_USE  4 /* a pair's entry in the table has 4 bytes, and each use saves one or two */

typedef struct text {
    char *data;
    size_t len, cap;
} text;

typedef struct field {
    char name[NAME_SIZE], type[8];
} field;

typedef struct file {
    char path[512];
    char name[NAME_SIZE];    /* "matvec", "reduce.subgroup" */
    char base[NAME_SIZE];    /* "matvec", "reduce" */
    char variant[NAME_SIZE]; /* "", "subgroup" or "matrix" */
    char *code;              /* comments blanked, line breaks kept */
    text enables, source;    /* what goes into the C file; the source becomes packed */
    char includes[MAX_INCLUDES][NAME_SIZE];
    int n_include, n_format;
    bool has_matrix; /* it has a variant with the libraries' ones for matrix units */
    field fields[MAX_FIELDS];
    int n_field;
    char bindings[MAX_BINDINGS]; /* 'u', 'r', 'w' */
    int n_binding;
} file;

static file *kernels, *libs;
static int n_kernel, n_lib;
static uint16_t pairs[MAX_SYMBOL][2]; /* from FIRST_PAIR on: what the symbol stands for */
static int n_symbol = FIRST_PAIR;

static void die(const file *f, const char *at, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 3, 4)));

static void die(const file *f, const char *at, const char *fmt, ...) {
    int line = 1;
    if (f && f->code && at)
        for (const char *p = f->code; p < at; p++) line += *p == '\n';
    fprintf(stderr, "%s:%d: ", f ? f->path : "embed", line);
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

static void *take(size_t n, size_t size) {
    void *p = calloc(n, size);
    if (!p) die(NULL, NULL, "out of memory");
    return p;
}

static void put(text *t, const char *s, size_t n) {
    if (t->len + n + 1 > t->cap) {
        t->cap = (t->len + n + 1) * 2;
        t->data = realloc(t->data, t->cap);
        if (!t->data) die(NULL, NULL, "out of memory");
    }
    memcpy(t->data + t->len, s, n);
    t->len += n;
    t->data[t->len] = 0;
}

static char *read_whole(const char *path) {
    FILE *in = fopen(path, "rb");
    if (!in) die(NULL, NULL, "cannot open %s", path);
    text t = {0};
    char piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof piece, in)) > 0;) put(&t, piece, n);
    put(&t, "", 0);
    if (ferror(in) || strlen(t.data) != t.len) die(NULL, NULL, "cannot read %s as text", path);
    fclose(in);
    return t.data;
}

/* ---- reading a file ------------------------------------------------------------------------ */

static bool name_char(char c) { return isalnum((unsigned char)c) || c == '_'; }

static const char *skip_blank(const char *p) {
    while (isspace((unsigned char)*p)) p++;
    return p;
}

/* Copies an identifier (letters, digits, _ and those in `extra`); returns what follows it. */
static const char *read_name(const file *f, const char *p, const char *extra, char out[NAME_SIZE]) {
    size_t n = 0;
    p = skip_blank(p);
    while (name_char(p[n]) || (p[n] && strchr(extra, p[n]))) n++;
    if (n == 0 || n >= NAME_SIZE) die(f, p, "a name is expected here");
    memcpy(out, p, n);
    out[n] = 0;
    return p + n;
}

static const char *expect(const file *f, const char *p, const char *what) {
    p = skip_blank(p);
    if (strncmp(p, what, strlen(what)) != 0) die(f, p, "`%s` is expected here", what);
    return p + strlen(what);
}

/* A comment's text up to the line's end, if it is a directive. */
static void read_directive(file *f, const char *comment, const char *at) {
    char word[NAME_SIZE];
    if (strncmp(comment, " variants: matrix\n", 18) == 0) f->has_matrix = true;
    bool include = strncmp(comment, " include:", 9) == 0;
    if (!include && strncmp(comment, " formats:", 9) != 0) return;
    const char *end = strchr(comment, '\n'), *p = comment + 9;
    while (p = p + strspn(p, " \t\r"), *p && p != end) {
        p = read_name(f, p, ".", word);
        if (include && f->n_include == MAX_INCLUDES) die(f, at, "too many includes");
        if (include) strcpy(f->includes[f->n_include++], word);
        if (!include && (word[0] != 'A' + f->n_format || word[1] || f->n_format == 3))
            die(f, at, "formats must be A, then B, then C");
        if (!include) f->n_format++;
    }
}

/* Overwrites comments with blanks, so that positions still tell the line; obeys directives. */
static void blank_comments(file *f) {
    char *p = f->code;
    while (*p) {
        if (p[0] == '/' && p[1] == '/') {
            read_directive(f, p + 2, p);
            while (*p && *p != '\n') *p++ = ' ';
        } else if (p[0] == '/' && p[1] == '*') {
            char *start = p;
            int depth = 0;
            do {
                if (!*p) die(f, start, "this comment does not end");
                int step = (p[0] == '/' && p[1] == '*') - (p[0] == '*' && p[1] == '/');
                depth += step;
                if (step) *p++ = ' ';
                if (*p != '\n') *p = ' ';
                p++;
            } while (depth > 0);
        } else {
            p++;
        }
    }
}

static void check_ascii(const file *f) {
    for (const char *p = f->code; *p; p++)
        if ((unsigned char)*p >= FIRST_PAIR) die(f, p, "code must be ASCII");
}

/* Whether two tokens that end and begin like this stay two without a blank. */
static bool stay_apart(char end, char begin) {
    return name_char(end) != name_char(begin) || strchr(")]};,", end) || strchr("([{", begin);
}

/* A line [n] without the blanks that it does not need. */
static void put_line(text *t, const char *line, size_t n) {
    for (size_t i = 0; i < n; i++) {
        bool blank = isspace((unsigned char)line[i]);
        if (blank && isspace((unsigned char)line[i + 1])) continue;
        if (blank && stay_apart(t->data[t->len - 1], line[i + 1])) continue;
        put(t, blank ? " " : &line[i], 1);
    }
    put(t, "\n", 1);
}

/* Lines without needless blanks; `enable` and `requires` apart. */
static void minify(file *f) {
    put(&f->enables, "", 0);
    put(&f->source, "", 0);
    for (const char *p = f->code; *p;) {
        const char *start = p, *end = p + strcspn(p, "\n");
        p = *end ? end + 1 : end;
        while (start < end && isspace((unsigned char)*start)) start++;
        while (end > start && isspace((unsigned char)end[-1])) end--;
        if (start == end) continue;
        bool early = strncmp(start, "enable ", 7) == 0 || strncmp(start, "requires ", 9) == 0;
        put_line(early ? &f->enables : &f->source, start, (size_t)(end - start));
    }
}

static void read_args(file *f) {
    const char *p = strstr(f->code, "struct Args");
    if (!p) die(f, f->code, "no `struct Args`");
    p = expect(f, p + strlen("struct Args"), "{");
    while (*(p = skip_blank(p)) != '}') {
        if (f->n_field == MAX_FIELDS) die(f, p, "too many members");
        field *m = &f->fields[f->n_field++];
        char type[NAME_SIZE];
        const char *at = p;
        p = read_name(f, p, "", m->name);
        p = read_name(f, expect(f, p, ":"), "", type);
        if (strcmp(type, "u32") != 0 && strcmp(type, "i32") != 0 && strcmp(type, "f32") != 0)
            die(f, at, "a member of Args must be u32, i32 or f32, not %s", type);
        strcpy(m->type, type);
        p = skip_blank(p);
        if (*p == ',')
            p++;
        else if (*p != '}')
            die(f, p, "`,` or `}` is expected here");
    }
    if (f->n_field == 0) die(f, p, "Args is empty");
}

static void read_bindings(file *f) {
    const char *p = f->code;
    while ((p = strstr(p, "@group("))) {
        const char *at = p;
        p = expect(f, p, "@group(0)");
        p = expect(f, expect(f, p, "@binding"), "(");
        char *end;
        long i = strtol(p, &end, 10);
        if (end == p) die(f, at, "a number is expected in @binding()");
        p = expect(f, end, ")");
        p = expect(f, expect(f, p, "var"), "<");
        size_t n = strcspn(p, ">");
        char space[NAME_SIZE] = "";
        for (size_t j = 0, k = 0; j < n && k + 1 < sizeof space; j++)
            if (!isspace((unsigned char)p[j])) space[k++] = p[j];
        char kind = strcmp(space, "uniform") == 0              ? 'u'
                    : strcmp(space, "storage,read") == 0       ? 'r'
                    : strcmp(space, "storage") == 0            ? 'r'
                    : strcmp(space, "storage,read_write") == 0 ? 'w'
                                                               : 0;
        if (!kind) die(f, at, "a binding must be uniform, storage read or read_write");
        if (i < 0 || i >= MAX_BINDINGS) die(f, at, "binding %ld is out of range", i);
        if (f->bindings[i]) die(f, at, "binding %ld is declared twice", i);
        f->bindings[i] = kind;
        if (i >= f->n_binding) f->n_binding = (int)i + 1;
        p += n;
    }
}

/* lib/step.wgsl and others may declare nothing; what a kernel binds is all in the kernel's file. */
static void check_kernel(const file *f) {
    int n_storage = 0;
    for (int i = 0; i < f->n_binding; i++) {
        if (!f->bindings[i]) die(f, f->code, "binding %d is missing", i);
        n_storage += f->bindings[i] != 'u';
    }
    if (f->bindings[0] != 'u') die(f, f->code, "binding 0 must be the uniform Args");
    if (n_storage > 8) die(f, f->code, "%d storage buffers; WebGPU promises 8", n_storage);
    if (!strstr(f->code, "fn main(")) die(f, f->code, "no `fn main(`");
    if (!f->variant[0] && f->enables.len) die(f, f->code, "only a variant may enable features");
}

static void read_file(const char *dir, const char *entry, bool library, file *f) {
    size_t n = strlen(entry) - strlen(".wgsl");
    if (n == 0 || n >= NAME_SIZE) die(NULL, NULL, "%s/%s: the name is too long", dir, entry);
    if (snprintf(f->path, sizeof f->path, "%s/%s", dir, entry) >= (int)sizeof f->path)
        die(NULL, NULL, "%s/%s: the path is too long", dir, entry);
    memcpy(f->name, entry, n);
    strcpy(f->base, f->name);
    char *dot = strchr(f->base, '.');
    if (dot) {
        strcpy(f->variant, dot + 1);
        *dot = 0;
    }
    f->code = read_whole(f->path);
    blank_comments(f);
    check_ascii(f);
    minify(f);
    if (f->variant[0] && strcmp(f->variant, "subgroup") != 0 && strcmp(f->variant, "matrix") != 0)
        die(f, f->code, "no such variant: %s", f->variant);
    if (library) return;
    read_args(f);
    read_bindings(f);
    check_kernel(f);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const file *)a)->name, ((const file *)b)->name);
}

static int read_folder(const char *dir, bool library, file **out) {
    *out = take(MAX_FILES, sizeof(file));
    DIR *d = opendir(dir);
    if (!d) return 0;
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        const char *dot = strrchr(e->d_name, '.');
        if (!dot || strcmp(dot, ".wgsl") != 0 || e->d_name[0] == '.') continue;
        if (n == MAX_FILES) die(NULL, NULL, "%s: too many files", dir);
        read_file(dir, e->d_name, library, &(*out)[n++]);
    }
    closedir(d);
    qsort(*out, (size_t)n, sizeof(file), by_name);
    return n;
}

/* ---- putting files together ---------------------------------------------------------------- */

static file *find(file *files, int n, const char *base, const char *variant) {
    for (int i = 0; i < n; i++)
        if (strcmp(files[i].base, base) == 0 && strcmp(files[i].variant, variant) == 0)
            return &files[i];
    return NULL;
}

/* The library that `name` ("reduce" or "reduce.subgroup") means in a kernel of this variant. */
static file *find_include(const file *f, const char *name, const char *variant) {
    file *lib = find(libs, n_lib, name, variant);
    if (!lib)
        for (int i = 0; i < n_lib && !lib; i++)
            if (strcmp(libs[i].name, name) == 0) lib = &libs[i];
    if (!lib) die(f, f->code, "lib/%s.wgsl does not exist", name);
    return lib;
}

static void check_same(const file *f, const file *base) {
    bool same = f->n_field == base->n_field && f->n_binding == base->n_binding &&
                f->n_format == base->n_format &&
                memcmp(f->bindings, base->bindings, MAX_BINDINGS) == 0;
    for (int i = 0; same && i < f->n_field; i++)
        same = strcmp(f->fields[i].name, base->fields[i].name) == 0 &&
               strcmp(f->fields[i].type, base->fields[i].type) == 0;
    if (!same) die(f, f->code, "Args, bindings or formats differ from %s", base->path);
}

/* Kernels that differ from their base only in the libraries they take. */
static void add_library_variants(const char *variant) {
    int n = n_kernel;
    for (int i = 0; i < n; i++) {
        file *f = &kernels[i];
        bool wanted = false;
        for (int j = 0; j < f->n_include; j++)
            if (find(libs, n_lib, f->includes[j], variant)) wanted = true;
        if (strcmp(variant, "matrix") == 0) wanted &= f->has_matrix;
        if (!wanted || f->variant[0] || find(kernels, n, f->base, variant)) continue;
        if (n_kernel == MAX_FILES) die(f, f->code, "too many files");
        file *v = &kernels[n_kernel++];
        *v = *f;
        strcpy(v->variant, variant);
    }
}

/* ---- packing: byte pair encoding ----------------------------------------------------------- */

/* The most frequent pair of neighbours; how often it occurs. Symbol 0 ends a text. */
static uint32_t commonest(const uint16_t *s, size_t n, uint16_t pair[2]) {
    static uint32_t uses[MAX_SYMBOL][MAX_SYMBOL]; /* all 0 between two calls */
    uint32_t most = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        uint32_t now = s[i] && s[i + 1] ? ++uses[s[i]][s[i + 1]] : 0;
        if (now <= most) continue;
        most = now;
        memcpy(pair, &s[i], 2 * sizeof *s);
    }
    for (size_t i = 0; i + 1 < n; i++) uses[s[i]][s[i + 1]] = 0;
    return most;
}

/* Writes `to` for each such pair; returns the new length. */
static size_t replace_pair(uint16_t *s, size_t n, const uint16_t pair[2], int to) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        bool here = i + 1 < n && s[i] == pair[0] && s[i + 1] == pair[1];
        s[kept++] = here ? (uint16_t)to : s[i];
        i += here;
    }
    return kept;
}

/* How many symbols wait at most while this one is unpacked, itself included. */
static int depth(int symbol) {
    if (symbol < FIRST_PAIR) return 1;
    int left = 1 + depth(pairs[symbol][0]), right = depth(pairs[symbol][1]);
    return left > right ? left : right;
}

static const uint32_t *rank_uses; /* for by_use(): how often each symbol occurs */

static int by_use(const void *a, const void *b) {
    uint16_t x = *(const uint16_t *)a, y = *(const uint16_t *)b;
    if (rank_uses[x] != rank_uses[y]) return rank_uses[x] < rank_uses[y] ? 1 : -1;
    return x - y;
}

/* Numbers the pairs anew: those that the texts use most come first and take one byte. */
static void rank_pairs(uint16_t *s, size_t n) {
    static uint32_t uses[MAX_SYMBOL];
    static uint16_t order[MAX_SYMBOL], rank[MAX_SYMBOL], old[MAX_SYMBOL][2];
    for (size_t i = 0; i < n; i++) uses[s[i]]++;
    for (int i = 0; i < n_symbol; i++) order[i] = (uint16_t)i;
    rank_uses = uses;
    qsort(order + FIRST_PAIR, (size_t)(n_symbol - FIRST_PAIR), sizeof *order, by_use);
    for (int i = 0; i < n_symbol; i++) rank[order[i]] = (uint16_t)i;
    memcpy(old, pairs, sizeof old);
    for (int i = FIRST_PAIR; i < n_symbol; i++)
        for (int j = 0; j < 2; j++) pairs[i][j] = rank[old[order[i]][j]];
    for (size_t i = 0; i < n; i++) s[i] = rank[s[i]];
}

/* One text of symbols, up to its 0, as bytes; returns where the next one begins. */
static const uint16_t *put_symbols(text *t, const uint16_t *s) {
    for (; *s; s++) {
        int over = *s - FIRST_LONG;
        char bytes[2] = {(char)*s, 0};
        if (over >= 0) {
            bytes[0] = (char)(FIRST_LONG + over / 255);
            bytes[1] = (char)(1 + over % 255);
        }
        put(t, bytes, over >= 0 ? 2 : 1);
    }
    return s + 1;
}

/* Packs the sources of all files together, because what one repeats is mostly in others too. */
static void pack(file **files, int n_file) {
    size_t n = 0, most = 0;
    for (int i = 0; i < n_file; i++) most += files[i]->source.len + 1;
    uint16_t *s = take(most, sizeof *s), pair[2];
    for (int i = 0; i < n_file; i++)
        for (size_t j = 0; j <= files[i]->source.len; j++)
            s[n++] = (uint16_t)files[i]->source.data[j];
    while (n_symbol < MAX_SYMBOL && commonest(s, n, pair) >= LEAST_USE) {
        memcpy(pairs[n_symbol], pair, sizeof pair);
        if (depth(n_symbol) > MAX_DEPTH) die(NULL, NULL, "MAX_DEPTH is too small");
        n = replace_pair(s, n, pair, n_symbol++);
    }
    rank_pairs(s, n);
    const uint16_t *next = s;
    for (int i = 0; i < n_file; i++) {
        files[i]->source.len = 0;
        next = put_symbols(&files[i]->source, next);
    }
}

static void pack_all(void) {
    file *files[2 * MAX_FILES];
    for (int i = 0; i < n_kernel; i++) files[i] = &kernels[i];
    for (int i = 0; i < n_lib; i++) files[n_kernel + i] = &libs[i];
    pack(files, n_kernel + n_lib);
}

/* ---- writing C ----------------------------------------------------------------------------- */

static void write_string(FILE *out, const char *s) {
    int column = 0;
    fputs("\n    \"", out);
    for (; *s; s++) {
        bool plain = isprint((unsigned char)*s) && !strchr("\"\\?", *s);
        column += fprintf(out, plain ? "%c" : "\\%03o", (unsigned char)*s);
        if (column < 90 || !s[1]) continue;
        fputs("\"\n    \"", out);
        column = 0;
    }
    fputc('"', out);
}

/* "reduce.subgroup" -> "reduce_subgroup" */
static const char *c_name(const file *f, char out[2 * NAME_SIZE + 2]) {
    sprintf(out, "%s%s%s", f->base, f->variant[0] ? "_" : "", f->variant);
    for (char *p = out; *p; p++)
        if (!name_char(*p)) *p = '_';
    return out;
}

static int args_bytes(const file *f) { return (f->n_field * 4 + 15) / 16 * 16; }

static void write_args(FILE *out, const file *f) {
    fprintf(out, "\ntypedef struct %s_args {\n", f->base);
    for (int i = 0; i < f->n_field; i++) {
        char t = f->fields[i].type[0];
        const char *type = t == 'u' ? "uint32_t" : t == 'i' ? "int32_t" : "float";
        fprintf(out, "    %s %s;\n", type, f->fields[i].name);
    }
    int pad = args_bytes(f) / 4 - f->n_field;
    if (pad) fprintf(out, "    uint32_t pad_[%d];\n", pad);
    fprintf(out, "} %s_args;\n", f->base);
    fprintf(out, "_Static_assert(sizeof(%s_args) == %d, \"Args of %s\");\n", f->base, args_bytes(f),
            f->base);
    fprintf(out, "extern const kernel kernel_%s;\n", f->base);
}

static void write_header(FILE *out) {
    fputs("/* Made by tools/embed from the folder kernels/. */\n#ifndef CARAT_KERNELS_H\n"
          "#define CARAT_KERNELS_H\n\n#include \"gpu/kernel.h\"\n",
          out);
    for (int i = 0; i < n_kernel; i++)
        if (!kernels[i].variant[0]) write_args(out, &kernels[i]);
    fputs("\n/* Every kernel, without variants; NULL at the end. */\n"
          "extern const kernel *const kernel_table[];\nextern const uint32_t kernel_table_n;\n",
          out);
    fputs("\n#endif\n", out);
}

static void write_pairs(FILE *out) {
    fputs("\nconst uint16_t kernel_pairs[][2] = {", out);
    for (int i = FIRST_PAIR; i < n_symbol; i++)
        fprintf(out, "%s{%d, %d},", i % 8 ? " " : "\n    ", pairs[i][0], pairs[i][1]);
    fputs("\n    {0},\n};\n", out);
}

/* Browsers do not offer matrix units: what is for them stays out of wasm. */
static void begin_variant(FILE *out, const file *f) {
    if (strcmp(f->variant, "matrix") == 0) fputs("#ifndef __wasm__\n", out);
}
static void end_variant(FILE *out, const file *f) {
    if (strcmp(f->variant, "matrix") == 0) fputs("#endif\n", out);
}

static void write_libs(FILE *out) {
    char name[2 * NAME_SIZE + 2];
    for (int i = 0; i < n_lib; i++) {
        fputs("\n", out);
        begin_variant(out, &libs[i]);
        fprintf(out, "static const char lib_%s[] =", c_name(&libs[i], name));
        write_string(out, libs[i].source.data);
        fputs(";\n", out);
        end_variant(out, &libs[i]);
    }
    fputs("\nconst kernel_lib kernel_lib_table[] = {\n", out);
    for (int i = 0; i < n_lib; i++) {
        begin_variant(out, &libs[i]);
        fprintf(out, "    {\"%s\", lib_%s},\n", libs[i].name, c_name(&libs[i], name));
        end_variant(out, &libs[i]);
    }
    fputs("    {0},\n};\n", out);
}

static void write_enables(FILE *out, const file *f) {
    text all = {0};
    put(&all, f->enables.data, f->enables.len);
    for (int i = 0; i < f->n_include; i++) {
        const file *lib = find_include(f, f->includes[i], f->variant);
        for (const char *p = lib->enables.data; *p;) {
            size_t n = strcspn(p, "\n") + 1;
            char line[256];
            if (n >= sizeof line) die(lib, lib->code, "a directive is too long");
            memcpy(line, p, n);
            line[n] = 0;
            if (!strstr(all.data, line)) put(&all, line, n);
            p += n;
        }
    }
    write_string(out, all.data);
}

static void write_kernel(FILE *out, const file *f) {
    char name[2 * NAME_SIZE + 2], other[2 * NAME_SIZE + 2];
    c_name(f, name);
    fputs("\n", out);
    begin_variant(out, f);
    fprintf(out, "static const char *const includes_%s[] = {", name);
    for (int i = 0; i < f->n_include; i++)
        fprintf(out, "lib_%s, ", c_name(find_include(f, f->includes[i], f->variant), other));
    fputs("0};\n", out);
    fprintf(out, "%sconst kernel kernel_%s = {\n    .name = \"%s%s%s\",\n",
            f->variant[0] ? "static " : "", name, f->base, f->variant[0] ? "." : "", f->variant);
    fputs("    .enables =", out);
    write_enables(out, f);
    fputs(",\n    .source =", out);
    write_string(out, f->source.data);
    fprintf(out, ",\n    .includes = includes_%s,\n    .n_format = %d,\n    .n_binding = %d,\n",
            name, f->n_format, f->n_binding);
    fputs("    .bindings = {", out);
    for (int i = 0; i < f->n_binding; i++)
        fprintf(out, "%s, ",
                f->bindings[i] == 'u'   ? "GPU_BIND_UNIFORM"
                : f->bindings[i] == 'r' ? "GPU_BIND_READ"
                                        : "GPU_BIND_READ_WRITE");
    fprintf(out, "},\n    .args_bytes = %d,\n", args_bytes(f));
    if (!f->variant[0] && find(kernels, n_kernel, f->base, "subgroup"))
        fprintf(out, "    .subgroup = &kernel_%s_subgroup,\n", f->base);
    const file *matrix = f->variant[0] ? NULL : find(kernels, n_kernel, f->base, "matrix");
    if (matrix) {
        begin_variant(out, matrix);
        fprintf(out, "    .matrix = &kernel_%s_matrix,\n", f->base);
        end_variant(out, matrix);
    }
    fputs("};\n", out);
    end_variant(out, f);
}

static void write_source(FILE *out) {
    fputs("/* Made by tools/embed from the folder kernels/. */\n#include \"kernels.h\"\n", out);
    write_pairs(out);
    write_libs(out);
    for (int variant = 1; variant >= 0; variant--) /* variants first: their bases point to them */
        for (int i = 0; i < n_kernel; i++)
            if ((kernels[i].variant[0] != 0) == variant) write_kernel(out, &kernels[i]);
    fputs("\nconst kernel *const kernel_table[] = {\n", out);
    int n = 0;
    for (int i = 0; i < n_kernel; i++) {
        if (kernels[i].variant[0]) continue;
        fprintf(out, "    &kernel_%s,\n", kernels[i].base);
        n++;
    }
    fprintf(out, "    0,\n};\nconst uint32_t kernel_table_n = %d;\n", n);
}

static void write_to(const char *path, void (*write)(FILE *)) {
    FILE *out = fopen(path, "wb");
    if (!out) die(NULL, NULL, "cannot write %s", path);
    write(out);
    if (ferror(out) | fclose(out)) die(NULL, NULL, "cannot write %s", path);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: embed KERNEL_DIR OUT.h OUT.c\n");
        return 2;
    }
    char lib_dir[512];
    snprintf(lib_dir, sizeof lib_dir, "%s/lib", argv[1]);
    n_kernel = read_folder(argv[1], false, &kernels);
    n_lib = read_folder(lib_dir, true, &libs);
    for (int i = 0; i < n_kernel; i++) {
        if (!kernels[i].variant[0]) continue;
        const file *base = find(kernels, n_kernel, kernels[i].base, "");
        if (!base)
            die(&kernels[i], kernels[i].code, "a variant of %s, which does not exist",
                kernels[i].base);
        check_same(&kernels[i], base);
    }
    pack_all();
    add_library_variants("subgroup");
    add_library_variants("matrix");
    write_to(argv[2], write_header);
    write_to(argv[3], write_source);
    return 0;
}
