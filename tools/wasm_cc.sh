#!/bin/sh
# Prints the command that compiles and links C for WebAssembly with WASI, or fails when there is
# none: the first clang, at least version 16, that links a program with lld and wasi-libc.
# Debian 12 has clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32.
set -u
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
echo '#include <string.h>
__attribute__((export_name("f"))) unsigned long f(const char *s) { return strlen(s); }' >"$dir/f.c"

for clang in ${WASM_CLANG:-clang-19 clang clang-22 clang-21 clang-20 clang-18 clang-17 clang-16}; do
    command -v "$clang" >/dev/null 2>&1 || continue
    version=$("$clang" -dumpversion 2>/dev/null | cut -d. -f1)
    [ "${version:-0}" -ge 16 ] || continue
    for flags in "--sysroot=/usr -isystem /usr/include/wasm32-wasi -L/usr/lib/wasm32-wasi" \
        "${WASI_SYSROOT:+--sysroot=$WASI_SYSROOT}"; do
        command="$clang --target=wasm32-wasi $flags -msimd128 -Wno-unused-command-line-argument"
        # shellcheck disable=SC2086 # words
        if $command -mexec-model=reactor -O1 -o "$dir/f.wasm" "$dir/f.c" 2>/dev/null; then
            echo "$command"
            exit 0
        fi
    done
done
echo "no clang >= 16 here that links for wasm32-wasi (lld, wasi-libc, libclang-rt)" >&2
exit 1
