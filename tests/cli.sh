#!/bin/sh
# What the tests of the command line share; they source it, with CARAT as $1. It goes to an empty
# folder with an empty home. $carat is the program, $tests this folder, $status the last exit code.
# Every check is one line, "ok NAME" or "not ok NAME".
set -u
case $1 in /*) carat=$1 ;; *) carat=$PWD/$1 ;; esac
# shellcheck disable=SC2034 # for who sources this
case $0 in /*) tests=$(dirname "$0") ;; *) tests=$PWD/$(dirname "$0") ;; esac
[ -x "$carat" ] || { echo "there is no $carat" && exit 1; }
dir=$(mktemp -d) || exit 1
server= # a process that must not stay
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null; rm -rf "$dir"' EXIT
export HOME="$dir" XDG_STATE_HOME="$dir/state" OLLAMA_MODELS="$dir/none" NO_COLOR=1
export OMP_WAIT_POLICY=passive # threads that spin while they wait are slow on a busy machine
cd "$dir" || exit 1
passed=0
failed=0
skipped=0

result() { # NAME STATUS
    if [ "$2" -eq 0 ]; then
        passed=$((passed + 1))
        echo "ok $1"
    else
        failed=$((failed + 1))
        echo "not ok $1"
        echo "--- status $status, stdout:" && head -c 900 out && echo "--- stderr:" &&
            head -c 600 err
    fi
}

skip() { # NAME WHY
    skipped=$((skipped + 1))
    echo "SKIPPED: $1 ($2)"
}

# run ARG...: stdout to out, stderr to err, exit code to $status. stdin is empty.
run() {
    "$carat" "$@" >out 2>err </dev/null
    status=$?
}

# piped TEXT ARG...: the same with TEXT as stdin.
piped() {
    text=$1
    shift
    printf "$text" | "$carat" "$@" >out 2>err
    status=$?
}

# expect NAME CODE [PATTERN...]: the exit code, and what stdout and stderr together must match.
expect() {
    name=$1
    bad=0
    [ "$status" -eq "$2" ] || bad=1
    shift 2
    cat out err >both
    for pattern in "$@"; do grep -aqE -e "$pattern" both || bad=1; done
    result "$name" $bad
}

# The last line: "N passed, N failed[, N skipped]".
finish() {
    [ $skipped -gt 0 ] && echo "$passed passed, $failed failed, $skipped skipped"
    [ $skipped -gt 0 ] || echo "$passed passed, $failed failed"
    [ $failed -eq 0 ]
    exit
}
