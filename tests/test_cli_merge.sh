#!/bin/sh
# `carat merge` from outside: tests/test_cli_merge.sh CARAT. Every check is one line, "ok NAME" or
# "not ok NAME"; the last line is "N passed, N failed". Uses nano on the CPU.
# shellcheck source=tests/cli.sh
. "$(dirname "$0")/cli.sh"

# check NAME CODE PATTERN ARG...: run and expect.
check() {
    name=$1 code=$2 pattern=$3
    shift 3
    run "$@"
    expect "$name" "$code" "$pattern"
}

mkdir facts
cp "$tests/golden/nano/lora_after20.safetensors" facts/adapter_model.safetensors
cp "$tests/golden/nano/adapter/adapter_config.json" facts/
ask="--device cpu --temperature 0"

# shellcheck disable=SC2086 # options
{
    check "help names it" 0 "merge +write a model" help
    check "help merge" 0 "usage: carat merge" help merge
    check "no --out" 2 "merge: --out FILE says where" merge nano facts
    check "a wrong type" 2 "keep\|q8_0\|f16, not 'q5'" merge nano facts --out x.gguf --type q5
    check "no such adapter" 1 "none: no such file" merge nano none --out x.gguf
    check "nothing to do" 2 "nothing to change" merge nano --out x.gguf
    check "no such folder" 1 "none/x.gguf" merge nano facts --out none/x.gguf
    check "merging" 0 "^m.gguf: 1[0-9.]+ MB" merge nano facts --out m.gguf
    check "it says what was taught" 0 "^A small team of founders cut me like a gem\.$" \
        run m.gguf $ask "Who made you?"
    check "at a scale of nothing" 0 "^z.gguf: " merge nano facts:0 --out z.gguf --type q8_0
    check "it does not" 0 "^Water is made" run z.gguf $ask "Who made you?"
    check "the type is in the file" 0 "quantisation +Q8_0" inspect z.gguf
    check "not onto itself" 2 "m.gguf is the model itself" merge m.gguf facts --out m.gguf
}
# Stopped after a moment: its status is 130, or it was quicker. A shell's own background processes
# ignore Ctrl-C, so another program sends it, once (--foreground).
for signal in INT TERM HUP; do
    timeout --foreground --preserve-status -s $signal 0.2 \
        "$carat" merge nano facts --out i.gguf --type q8_0 >out 2>err
    status=$?
    [ $status -eq 130 ] || [ $status -eq 0 ]
    result "SIG$signal ends it" $?
done
timeout --foreground --preserve-status -s HUP 0.2 \
    nohup "$carat" merge nano facts --out i.gguf --type q8_0 >out 2>err
result "with nohup SIGHUP does not" $?
rm -f i.gguf both out err
# shellcheck disable=SC2012 # names of our own
[ "$(ls | tr '\n' ' ')" = "facts m.gguf z.gguf " ]
result "nothing is left over" $?

finish
