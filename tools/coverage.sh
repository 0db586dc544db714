#!/bin/sh
# Lines covered by file, after `make config=coverage test`: tools/coverage.sh build/gcc-coverage
set -eu
cd "$(dirname "$0")/.."
find "$1/src" "$1/cli" -name '*.gcda' -exec gcov -n {} + 2>/dev/null | awk -F"[:'% ]+" '
    /^File/ { file = $2 }
    /^Lines executed/ && file ~ /^(src|cli)\/.*\.c$/ {
        n[file] = $5; hit[file] = $5 * $3 / 100; file = ""
    }
    END {
        for (f in n) { printf "%5.1f %%  %5d lines  %s\n", 100 * hit[f] / n[f], n[f], f | "sort -k4"
                       lines += n[f]; sum += hit[f] }
        close("sort -k4")
        if (lines) printf "%5.1f %%  %5d lines  all\n", 100 * sum / lines, lines
    }'
