#!/bin/sh
# Fuzzes: tests/fuzz.sh SECONDS PROGRAM...
# Each program starts from tests/seeds/NAME (NAME without "fuzz_"); what it finds is kept in
# build/corpus/NAME, and an input that breaks it is left there as crash-*, with its path printed.
# TEST_JOBS (1) programs run at a time. The last line is "N passed, N failed".
set -u
cd "$(dirname "$0")/.." || exit 1
seconds=$1
shift
passed=0
failed=0
running=

# fuzz PROGRAM: says how it went; its status is the program's.
fuzz() {
    name=$(basename "$1" | sed 's/^fuzz_//')
    corpus=build/corpus/$name
    mkdir -p "$corpus" "tests/seeds/$name"
    log=$corpus.log
    if timeout -k 5 $((seconds + 120)) "$1" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=2048 -print_final_stats=1 -verbosity=1 -artifact_prefix="$corpus/" \
        "$corpus" "tests/seeds/$name" >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        echo "fuzz_$name: ${runs:-?} inputs in $seconds s"
    else
        printf 'fuzz_%s: FAILED\n%s\n' "$name" "$(grep -v '^#' "$log" | tail -n 40)"
        return 1
    fi
}

# Waits for those that run, which take the same time.
collect() {
    for pid in $running; do
        if wait "$pid"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    done
    running=
}

for program in "$@"; do
    fuzz "$program" &
    running="$running $!"
    [ "$(echo "$running" | wc -w)" -lt "${TEST_JOBS:-1}" ] || collect
done
collect
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
