#!/bin/sh
# Runs tests and sums up: tests/run.sh CARAT TEST...
# A TEST is a cmocka program, a script (test_*.sh, which gets the carat program as $1 and ends
# with "N passed, N failed") or a file of node's tests (*.test.mjs, which find the program in
# $CARAT). A test that crashes or runs longer than TEST_TIMEOUT seconds (600) counts as failed.
# Up to TEST_JOBS (1) programs and scripts run at a time; node's tests, whose browsers keep all
# cores busy, run alone. Reports come as tests end.
# GPU tests run on SwiftShader, a GPU in software, when Chromium has brought it; with TEST_GPU=real
# on whatever the machine has, with TEST_GPU=none not at all. The last line is
# "N passed, N failed[, N skipped]".
set -u
cd "$(dirname "$0")/.." || exit 1
carat=$1
shift
swiftshader=/usr/lib/chromium/vk_swiftshader_icd.json
if [ "${TEST_GPU:-}" = none ]; then
    export VK_DRIVER_FILES=/dev/null VK_ICD_FILENAMES=/dev/null
elif [ "${TEST_GPU:-}" != real ]; then
    if [ -f $swiftshader ]; then
        export VK_DRIVER_FILES=$swiftshader VK_ICD_FILENAMES=$swiftshader
    else
        echo "NO SWIFTSHADER ($swiftshader): tests of the GPU kernels run only if there is a GPU"
    fi
fi
# The kernel tests note what they ask of the GPU; tests/browser/kernels.test.mjs plays it back.
if [ "${TEST_GPU:-}" != none ]; then
    mkdir -p build/kernels
    export KT_RECORD="$PWD/build/kernels"
fi
# SwiftShader allocates a lot while it compiles: a tenth less work when freed memory is kept.
keep=glibc.malloc.mmap_threshold=1000000000:glibc.malloc.trim_threshold=1000000000
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-$keep:glibc.malloc.top_pad=67108864}"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # threads that spin slow each other down
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:allocator_may_return_null=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
export LSAN_OPTIONS="${LSAN_OPTIONS:-suppressions=tests/lsan.supp:print_suppressions=0}"

jobs=${TEST_JOBS:-1}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
mkfifo "$dir/done" && exec 3<>"$dir/done" || exit 1 # the numbers of the tests that have ended
passed=0
failed=0
skipped=0
started=0
running=0

# Sums the numbers of the lines in the log that match $1.
sum() {
    awk -v re="$1" '
        $0 ~ re { for (i = 1; i <= NF; i++) if ($i ~ /^[0-9]+$/) { n += $i; break } }
        END { print n + 0 }' "$log"
}

# The number in the line "# WORD N" that ends node's report; 0 when it did not get there.
tap() { awk -v w="$1" '$1 == "#" && $2 == w && NF == 3 { n = $3 } END { print n + 0 }' "$log"; }

# The log without what passed: cmocka's lines, and node's blocks from "ok" to "  ...".
failures() {
    grep -av -e '^\[ RUN ' -e '^\[       OK' -e '^# Subtest: ' "$log" |
        awk '/^ok / { passed = 1 } !passed { print } /^  \.\.\.$/ { passed = 0 }'
}

# run_test TEST LOG: runs it, sets status and the numbers p f s.
run_test() {
    test=$1
    log=$2
    case $test in
    *.sh)
        timeout -k 5 "${TEST_TIMEOUT:-600}" "$test" "$carat" >"$log" 2>&1
        status=$?
        last=$(tail -n 1 "$log")
        p=$(echo "$last" | sed -n 's/^\([0-9]*\) passed.*/\1/p')
        f=$(echo "$last" | sed -n 's/.* \([0-9]*\) failed.*/\1/p')
        s=$(echo "$last" | sed -n 's/.* \([0-9]*\) skipped.*/\1/p')
        p=${p:-0} f=${f:-0} s=${s:-0}
        ;;
    *.mjs)
        CARAT=$carat timeout -k 5 "${TEST_TIMEOUT:-600}" \
            node --test-reporter=tap "$test" >"$log" 2>&1
        status=$?
        p=$(tap pass) f=$(($(tap fail) + $(tap cancelled))) s=$(($(tap skipped) + $(tap todo)))
        ;;
    *)
        timeout -k 5 "${TEST_TIMEOUT:-600}" "$test" >"$log" 2>&1
        status=$?
        p=$(sum '^\[  PASSED  \] [0-9]+ test')
        f=$(sum '^\[  FAILED  \] [0-9]+ test')
        s=$(sum '^\[  SKIPPED \] [0-9]+ test')
        ;;
    esac
}

# report TEST LOG: runs it and prints what is to be shown; the numbers go to LOG.count.
report() {
    start=$(date +%s%N)
    run_test "$@"
    ms=$((($(date +%s%N) - start) / 1000000))
    note=
    at=$(grep -a -e '^\[ RUN ' -e '^# Subtest: ' "$log" | tail -n 1 | sed 's/^.*[]:] */ in /')
    [ $status -eq 124 ] && note=" TIMED OUT$at"
    [ $status -gt 124 ] && note=" CRASHED$at (status $status)"
    if [ $status -ne 0 ] && [ "$f" -eq 0 ]; then
        f=1
        note="${note:- exit status $status}"
    fi
    [ $((p + f + s)) -eq 0 ] && f=1 && note="${note:- ran no tests}"
    [ "$f" -gt 0 ] && failures | tail -n 80
    printf '%-28s %4d passed' "$(basename "$test")" "$p"
    [ "$f" -gt 0 ] && printf ', %d FAILED' "$f"
    [ "$s" -gt 0 ] && printf ', %d skipped' "$s"
    printf '  %d.%02d s%s\n' $((ms / 1000)) $((ms % 1000 / 10)) "$note"
    [ "$s" -gt 0 ] && grep -a -i 'skip' "$log" | grep -aiv -e 'test(s)' -e '^# ' |
        sed 's/^ok .*# SKIP //; s/^/    /' | awk '!seen[$0]++' | head -n 20
    echo "$p $f $s" >"$log.count"
}

start_test() {
    started=$((started + 1))
    running=$((running + 1))
    {
        report "$1" "$dir/$started" >"$dir/$started.report" 3>&-
        echo $started >&3
    } &
}

# Waits until a test ends, shows its report and adds its numbers.
collect_test() {
    read -r ended <&3
    running=$((running - 1))
    cat "$dir/$ended.report"
    read -r p f s <"$dir/$ended.count"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

for test in "$@"; do
    case $test in *.mjs) most=1 ;; *) most=$jobs ;; esac
    while [ $running -ge $most ]; do collect_test; done
    start_test "$test"
done
while [ $running -gt 0 ]; do collect_test; done
if [ $skipped -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ $failed -eq 0 ]
