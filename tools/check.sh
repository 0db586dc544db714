#!/bin/sh
# The house rules that a machine can check; prints file:line: what is wrong. See CONTRIBUTING.md.
set -u
cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C
found=$(mktemp) || exit 1
trap 'rm -f "$found"' EXIT

files() { # those that git has or would add, and that exist
    git ls-files -co --exclude-standard -- "$@" | sort -u |
        while read -r f; do [ -f "$f" ] && echo "$f"; done
}
c_files=$(files 'src/*.[ch]' 'cli/*.[ch]' 'include/*.h' 'tests/*.[ch]' 'tools/*.[ch]')
wgsl_files=$(files 'kernels/*.wgsl')
js_files=$(files '*.js' '*.mjs')
css_files=$(files 'web/*.css')
types_files=$(files 'web/*.d.ts')
script_files=$(files '*.sh' '.ci/run')
all_files="$c_files $wgsl_files $js_files $css_files $types_files $script_files"
n_files=$(echo "$all_files" | wc -w)

# Forward and backward drivers, which list a network's operations one after the other: 200 lines.
drivers='text_cpu_forward decode_gpu_layers prefill_gpu_layers'

# ---- size, columns, white space, banner, function length ----

# shellcheck disable=SC2016,SC2086
awk -v drivers=" $drivers " '
    function bad(line, what) { print FILENAME ":" line ": " what }
    function finish() {
        if (file == "") return
        limit = file ~ /\.wgsl$/ ? 250 : file == "include/carat.h" ? 310 : file ~ /\.h$/ ? 200 : 700
        if (file ~ /\.(js|mjs|css|ts)$/) limit = 500
        if (n > limit) print file ":" n ": " n " lines, at most " limit
    }
    FNR == 1 {
        finish(); file = FILENAME; n = 0; start = 0; body = 0; sig = ""
        if (file ~ /\.[ch]$/ && $0 !~ /^\/\*/) bad(1, "starts without a banner comment")
        if (file ~ /\.wgsl$/ && $0 !~ /^\/\//) bad(1, "starts without a banner comment")
        if (file ~ /\.(js|mjs|css|ts)$/ && $0 !~ /^(\/\/|\/\*|#!)/)
            bad(1, "starts without a banner comment")
        if (file ~ /(\.sh|^\.ci\/run)$/ && $0 !~ /^#!\/bin\/sh/) bad(1, "not a /bin/sh script")
    }
    {
        n++
        text = $0; gsub(/[\200-\277]/, "", text)
        if (length(text) > 100) bad(FNR, length(text) " columns, at most 100")
        if ($0 ~ /[ \t]$/) bad(FNR, "white space at the end of the line")
        if ($0 ~ /\t/) bad(FNR, "a tab")
        if ($0 ~ /TO[D]O|FIXM[E]|(^|[^X])XX[X]([^X]|$)/)
            bad(FNR, "unfinished; open an issue instead")
    }
    file !~ /\.[ch]$/ { next }
    # A function: a definition that starts in column 0, has "(" and ends in "{" without "=".
    body && /^}/ {
        len = FNR - start + 1; limit = index(drivers, " " name " ") ? 200 : 120
        if (len > limit) bad(start, name "() has " len " lines, at most " limit)
        body = 0; sig = ""; next
    }
    body { next }
    /^[a-zA-Z_]/ { sig = ""; start = FNR }
    /^[a-zA-Z_ ]/ { sig = sig $0 }
    /[;}]$/ || /^$/ || /^[#\/]/ { sig = ""; next }
    /\{$/ {
        if (sig ~ /\(/ && sig !~ /=/) {
            name = sig; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name); body = 1
        } else if (sig != "") { body = 1; name = "a table"; start = FNR + 1000000 }
        sig = ""
    }
    END { finish() }' $all_files </dev/null >>"$found"

# ---- calls and includes that src/ must not have ----

src_files=$(files 'src/*.c' 'src/*.h')
# shellcheck disable=SC2016,SC2086
awk '
    function bad(what) { print FILENAME ":" FNR ": " what }
    function calls(word) { return code ~ ("(^|[^A-Za-z0-9_.>])(" word ")[ ]*\\(") }
    BEGIN {
        level["base"] = 0; level["file"] = 1; level["gpu"] = level["media"] = level["token"] = 2
        level["model"] = 3; level["train"] = 4
        # The weights that upload.c streams are a struct of model/; it writes their tiles.
        allowed["src/gpu/upload.c model"] = 1
    }
    FNR == 1 { comment = 0; split(FILENAME, part, "/"); home = part[2] }
    /^ *# *include *"/ {
        inc = $0; sub(/^[^"]*"/, "", inc); sub(/".*/, "", inc)
        dir = inc; if (!sub(/\/.*/, "", dir)) dir = ""
        if (dir == "" && inc !~ /^carat(_adapter|_train)?\.h$/ && inc != "kernels.h")
            bad("include \"" inc "\": say its folder, \"" home "/" inc "\"")
        else if (dir != "" && !(dir in level)) bad("src/ must not include " inc)
        else if (dir != "" && dir != home && level[dir] >= level[home] &&
                 !((FILENAME " " dir) in allowed))
            bad(home "/ must not include " inc ": base <- file <- gpu, media, token <- model")
        next
    }
    {
        code = $0
        gsub(/"([^"\\]|\\.)*"/, "\"\"", code)
        gsub(/\/\*.*\*\//, "", code)
        if (comment) { if (code !~ /\*\//) next; sub(/.*\*\//, "", code); comment = 0 }
        if (code ~ /\/\*/) { comment = 1; sub(/\/\*.*/, "", code) }
        sub(/\/\/.*/, "", code)
        if (FILENAME != "src/base/arena.c" &&
            calls("malloc|calloc|realloc|free|strdup|strndup|asprintf|vasprintf|aligned_alloc"))
            bad("memory comes from an arena or a buf (src/base/arena.c)")
        if (FILENAME != "src/file/ollama.c" && calls("getenv|secure_getenv"))
            bad("no environment variables in src/")
        if (calls("printf|vprintf|puts|putchar|perror|exit|_exit|quick_exit|abort") ||
            code ~ /[^a-zA-Z0-9_](stdout|stderr)[^a-zA-Z0-9_]/)
            bad("src/ does not print or exit")
    }' $src_files /dev/null >>"$found"

# ---- every kernel has a test row ----

for kernel in $wgsl_files; do
    case $kernel in kernels/lib/*) continue ;; esac
    name=$(basename "$kernel" .wgsl)
    name=${name%%.*}
    grep -qsw -e "kernel_$name" -e "\"$name\"" tests/*kernel*.c ||
        echo "$kernel:1: no test row names this kernel (tests/test_kernels*.c)" >>"$found"
done

# ---- JavaScript: what carat's policy forbids, and that it parses ----

web_files=$(files 'web/*.js')
# shellcheck disable=SC2016,SC2086
awk '
    function bad(what) { print FILENAME ":" FNR ": " what }
    /^ *(\/\/|\*|\/\*)/ { next }
    /(^|[^A-Za-z0-9_.])(eval|new Function)[ ]*\(/ { bad("no eval") }
    /createObjectURL/ && FILENAME !~ /^web\/(media|app\/save)\.js$/ {
        bad("no blob: URLs, but for videos and downloads")
    }
    /SharedArrayBuffer|WebAssembly\.(Suspending|promising)/ { bad("no threads, no JSPI") }
    /(innerHTML|outerHTML|insertAdjacentHTML|document\.write)/ && !/DOMPurify|sanitize/ {
        bad("text goes into a page as text, or through DOMPurify")
    }
    ' $web_files /dev/null >>"$found"
if command -v node >/dev/null; then
    # shellcheck disable=SC2086
    node tools/parse.mjs $js_files >>"$found" 2>&1
else
    echo "check: JAVASCRIPT IS NOT PARSED: there is no node here"
fi

# ---- shell scripts and formatting, where the tools are here ----

if command -v shellcheck >/dev/null; then
    # shellcheck disable=SC2086
    [ -z "$script_files" ] || shellcheck -S warning -f gcc $script_files >>"$found"
fi
formatter=
for f in clang-format-14 clang-format; do
    command -v $f >/dev/null && $f --version | grep -q 'version 14\.' && formatter=$f && break
done
if [ -n "$formatter" ]; then
    # shellcheck disable=SC2086
    echo $c_files | xargs -r -n 12 -P 2 $formatter --dry-run -Werror 2>&1 |
        sed -n 's/^\([^ ]*:[0-9]*\):[0-9]*: error: .*/\1: not formatted (clang-format -i)/p' |
        sort -u -t: -k1,1 >>"$found"
else
    echo "check: FORMATTING IS NOT CHECKED: there is no clang-format 14 here"
fi

cat "$found"
n=$(wc -l <"$found")
if [ "$n" -gt 0 ]; then
    echo "check: $n problems in $n_files files"
    exit 1
fi
echo "check: $n_files files are fine"
