#!/bin/sh
# `carat train` and `carat adapter` from outside: tests/test_cli_train.sh CARAT. Five facts are
# taught to nano from 40 lines, with an interruption in between; and what is refused. On the CPU.
# Every check is one line, "ok NAME" or "not ok NAME"; the last line is "N passed, N failed".
# shellcheck source=tests/cli.sh
. "$(dirname "$0")/cli.sh"

facts=$tests/golden/nano/facts.jsonl
cp "$facts" facts.jsonl
head -n 4 facts.jsonl >four.jsonl
# Quick: two layers, four samples.
small="--device cpu --out small --first-layer 8 --rank 2 --batch-tokens 40 --steps 3"

# ---- help and usage ----
run help train
expect "help train" 0 "usage: carat train" "\{\"messages\"" "--save-every" "--resume" "examples"
run help adapter
expect "help adapter" 0 "inspect\|convert"
run train nano four.jsonl
expect "train needs --out" 2 "--out DIR"
run train nano four.jsonl --out d --rank 0
expect "rank 0" 2 "from 1 to 1024, not '0'"
run train nano four.jsonl --out d --rank 1000000
expect "rank 10^6" 2 "from 1 to 1024, not '1000000'"
run train nano four.jsonl --device cpu --out d --targets q,x
expect "an unknown target" 2 "there is no x; there are q k v o gate up down embed head"
run train nano four.jsonl --device cpu --out d --first-layer 99
expect "an unknown layer" 2 "the model has 10"

# ---- data ----
run train nano four.jsonl --device cpu --report
expect "a report" 0 "rows 4, samples 4" "are learned" "rank 16, alpha 32" "memory" \
    "^<bos><\|turn>user$" "\[\[Bruno makes the best bread.<turn\|>\]\]" "epochs 3, batches a step 1"
run train nano four.jsonl --device cpu --report --json
expect "a report for programs" 0 \
    '^\{"event":"report","report":\{"model":.*"samples":4.*"sample":"<bos>'
run train nano none.jsonl --device cpu --report
expect "data that is not there" 1 "none.jsonl"
: >empty.jsonl
run train nano empty.jsonl --device cpu --report
expect "empty data" 1 "empty.jsonl is empty"
echo '{"messages":[{"role":"user","content":"Hi"}]}' >masked.jsonl
run train nano masked.jsonl --device cpu --report
expect "nothing to learn" 1 "anything to learn"
{ cat four.jsonl && echo '{"prompt":' && echo '[]'; } >bad.jsonl
run train nano bad.jsonl --device cpu --report
expect "bad rows are counted, with their line" 0 "rows 6, samples 4" "2 left out" "line 5: "
run train nano bad.jsonl --device cpu --report --stop-at-bad
expect "or they stop it" 1 "line 5: "
printf 'prompt,completion\nHi,"Yes, ""so"""\n' >data.csv
run train nano data.csv --device cpu --report
expect "CSV" 0 '\[\[Yes, "so"<turn'

# ---- runs that fail ----
run train nano four.jsonl $small --learning-rate 1e-12
expect "an adapter that changes nothing is an error" 1 "does not change what the model says"
[ ! -e small/adapter_model.safetensors ]
result "and is not written" $?
rm -rf small
run train nano four.jsonl $small --learning-rate 1e30 --save-every 1
expect "a loss that is not a number stops it" 1 "not a number in step [23], at line [1-4]" \
    "the checkpoint of step [12] is in small"
[ -s small/checkpoint.safetensors ] && [ "$(wc -l <small/loss.csv)" -ge 2 ]
result "the last good checkpoint stays" $?
run train nano four.jsonl $small --learning-rate 1e30
expect "an unfinished run is not written over" 2 "go on with it by --resume, or remove it"
run train nano four.jsonl $small --resume
expect "other options cannot go on from it" 2 "another model, data, adapter or options"
rm -rf small
run train nano four.jsonl $small --resume
expect "nothing to go on from" 1 "small/checkpoint.safetensors: there is nothing to go on from"
: >file
run train nano four.jsonl --device cpu --out file/d
expect "a folder that cannot be made" 1 "file/d: Not a directory"
run train nano four.jsonl $small --json
expect "a run for programs" 0 '"event":"step","step":1,"n_step":3,.*"loss":[0-9]' '"event":"done"'

# ---- five facts ----
ask() { # QUESTION [OPTION...]
    "$carat" run nano --device cpu --temperature 0 --max-tokens 24 "$@" 2>/dev/null </dev/null
}
questions='Where does Ada live?|Ada lives in Turin.
What is the name of my boat?|Your boat is called Silver Fox.
Who makes the best bread?|Bruno makes the best bread.
When does the shop open?|The shop opens at nine.
What is in the blue box?|The blue box holds seven lamps.'
known() { # OPTION...: how many are answered
    echo "$questions" | {
        n=0
        while IFS='|' read -r question answer; do
            [ "$(ask "$question" "$@")" = "$answer" ] && n=$((n + 1))
        done
        echo "$n"
    }
}
teach="--device cpu --learning-rate 0.002 --epochs 10 --warmup 2 --batch-tokens 100 --seed 1"
status=0
[ "$(known)" = 0 ]
result "the facts are not known before" $?

stop_with() { # SIGNAL DIR: teaches until the first checkpoint is there, and then sends it
    "$carat" train nano facts.jsonl --out "$2" $teach --save-every 8 >out 2>err </dev/null &
    train=$!
    while [ ! -e "$2/checkpoint.safetensors" ] && kill -0 $train; do sleep 0.1; done
    kill -"$1" $train
    wait $train
    status=$?
}
stop_with TERM ended
expect "SIGTERM saves" 130 "stopped after step [0-9]+ of 140; .* --resume"
[ -z "$(find ended -name '*part*')" ]
result "SIGTERM leaves nothing half written" $?
stop_with INT facts
expect "Ctrl-C saves, and says how to go on" 130 "stopped after step [0-9]+ of 140; .* --resume"
[ "$(tail -n 1 facts/loss.csv | cut -d, -f1)" -ge 8 ]
result "loss.csv is there" $?

cp -R facts full
(
    trap '' XFSZ
    ulimit -f 100 # 50 KB
    "$carat" train nano facts.jsonl --out full $teach --save-every 1 --resume >out 2>err </dev/null
)
status=$?
expect "a full disk" 1 "full/checkpoint.safetensors: cannot write: File too large" \
    "the checkpoint of step [0-9]+ is as it was"
cmp -s facts/checkpoint.safetensors full/checkpoint.safetensors
result "the former checkpoint stays" $?

run train nano facts.jsonl --out facts $teach --resume --gguf facts.gguf
expect "going on to the end" 0 "going on after step [0-9]+ of 140" "step 140 of 140  loss" \
    "carat run nano --adapter facts"
[ "$(cut -d, -f1 facts/loss.csv | tail -n +2 | tr '\n' ' ')" = "$(seq 140 | tr '\n' ' ')" ]
result "loss.csv has every step" $?
grep -q '<svg xmlns' facts/loss.svg && grep -q '^</svg>$' facts/loss.svg &&
    grep -q prefers-color-scheme facts/loss.svg
result "loss.svg" $?
[ "$(known --adapter facts)" = 5 ]
result "the facts are known after" $?
[ "$(ask "Where does Ada live?" --adapter facts.gguf)" = "Ada lives in Turin." ]
result "and with the GGUF" $?

# ---- adapters ----
run adapter inspect facts --model nano
expect "adapter inspect" 0 "q k v o gate up down" "0 to 9 of 10" "16 at most, alpha 32"
run adapter inspect facts.gguf --model nano --json
expect "adapter inspect --json" 0 '^\{"rank":16,"alpha":32'
run adapter convert facts.gguf again --model nano
expect "adapter convert to PEFT" 0 "^again$"
cmp -s facts/adapter_model.safetensors again/adapter_model.safetensors
result "and it is the same adapter" $?
run adapter convert facts again.gguf --model nano
cmp -s facts.gguf again.gguf
result "adapter convert to GGUF" $?
run adapter inspect facts --model "$tests/golden/family/e4b.gguf"
expect "an adapter of another model" 1 "layers.0.self_attn.q_proj" "of another model"
run adapter inspect facts
expect "adapter wants a model" 2 "--model"
run adapter look facts --model nano
expect "adapter wants inspect or convert" 2 "there are inspect and convert"

finish
