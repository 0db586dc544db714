#!/bin/sh
# Everything that is checked before a change goes in. Installs what is missing first (Debian or
# Ubuntu, as root or with sudo). The last line is "N passed, N failed[, N skipped]"; the exit
# status says the same. Logs are in build/log/.
set -u
cd "$(dirname "$0")" || exit 1
mkdir -p build/log
jobs=$(nproc)
fuzz_seconds=${FUZZ_SECONDS:-6}
passed=0
failed=0
skipped=0

say() { echo "test: $*"; }

# count FILE: adds the numbers of its last "N passed, N failed" line; fails when there is none.
count() {
    last=$(grep -aE '^[0-9]+ passed, [0-9]+ failed' "$1" | tail -n 1)
    [ -n "$last" ] || return 1
    passed=$((passed + $(echo "$last" | sed 's/ passed.*//')))
    failed=$((failed + $(echo "$last" | sed 's/.*passed, \([0-9]*\) failed.*/\1/')))
    case $last in
    *skipped*) skipped=$((skipped + $(echo "$last" | sed 's/.*, \([0-9]*\) skipped.*/\1/'))) ;;
    esac
}

# step NAME COMMAND...: one thing that passes or fails; shows the end of its output on failure.
step() {
    name=$1
    shift
    log=build/log/$name.log
    start=$(date +%s)
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
        say "$name: ok ($(($(date +%s) - start)) s)"
    else
        failed=$((failed + 1))
        tail -n 40 "$log"
        say "$name: FAILED ($log)"
        return 1
    fi
}

# begin NAME COMMAND...: starts a command whose last line counts its own tests; its pid to $begun.
begin() {
    log=build/log/$1.log
    say "$1"
    shift
    "$@" >"$log" 2>&1 &
    begun=$!
}

# collect NAME PID: waits for it, shows the end of its output, adds its numbers.
collect() {
    name=$1
    log=build/log/$name.log
    wait "$2"
    status=$?
    sed 's/^/    /' "$log" | grep -av 'make\[' | tail -n 150
    before=$failed
    if ! count "$log" || { [ $status -ne 0 ] && [ $failed -eq $before ]; }; then
        failed=$((failed + 1))
        say "$name: FAILED ($log)"
    fi
}

suite() {
    begin "$@"
    collect "$1" $begun
}

# Builds everything and fails on a warning, too.
strict() {
    if ! make -j"$jobs" "$@" programs >build/log/make.log 2>&1; then
        cat build/log/make.log
        return 1
    fi
    ! grep -A3 'warning:' build/log/make.log
}

have_node() {
    node -e 'process.exit(parseInt(process.versions.node) >= 18 ? 0 : 1)' 2>/dev/null
}

skip() { # skip "WHAT IS LEFT OUT: why"
    say "$1"
    skipped=$((skipped + 1))
}

can_fuzz() {
    echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n > 9; }' |
        clang -fsanitize=fuzzer,address,undefined -x c -o build/log/can_fuzz - 2>/dev/null
}

say "dependencies"
tools/deps.sh test || {
    echo "0 passed, 1 failed"
    exit 1
}
step build-gcc strict CC=gcc
step check make -s check
web=
played=tests/browser/kernels.test.mjs # plays what the native tests record, so it comes after them
if have_node; then
    if tools/wasm_cc.sh >/dev/null 2>&1 && [ -d node_modules/marked ]; then
        step web make -j"$jobs" web
        step types-app npm run --silent check:app
    else
        skip "THE APP IS NOT BUILT: there is no clang for wasm, or npm ci was not possible"
    fi
    if [ -x node_modules/.bin/tsc ]; then
        step types npm run --silent check:types
    else
        skip "TYPES ARE NOT CHECKED: there is no typescript (npm ci)"
    fi
    begin web make -s CC=gcc test-web \
        WEB_TESTS="$(printf '%s ' tests/web/*.test.mjs tests/browser/*.test.mjs |
            sed "s:$played ::")"
    web=$begun
    # What follows runs beside the browser, and behind it: its tests wait for pictures and clicks.
    renice -n 10 $$ >/dev/null 2>&1
else
    skip "THE WEB IS NOT TESTED: there is no node >= 18 here"
fi
export TEST_TIMEOUT=1200
suite tests make -s CC=gcc test
if [ -n "$web" ]; then
    begin played make -s CC=gcc test-web WEB_TESTS=$played
    player=$begun
fi
step build-clang strict CC=clang config=debug # for its warnings, which need no optimising
step build-sanitize make -j"$jobs" CC=gcc config=sanitize programs-fast &&
    suite sanitize make -s CC=gcc config=sanitize test-fast
if ls tests/fuzz_*.c >/dev/null 2>&1; then
    if can_fuzz; then
        step build-fuzz make -j"$jobs" CC=clang config=fuzz fuzz-programs &&
            suite fuzz make -s CC=clang config=fuzz FUZZ_SECONDS="$fuzz_seconds" fuzz-run
    else
        skip "FUZZING IS SKIPPED: clang cannot link with -fsanitize=fuzzer here"
    fi
fi
if [ -n "$web" ]; then
    collect web $web
    collect played $player
fi

if [ $skipped -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ $failed -eq 0 ]
