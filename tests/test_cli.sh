#!/bin/sh
# The command line from outside: tests/test_cli.sh CARAT. Every check is one line, "ok NAME" or
# "not ok NAME"; the last line is "N passed, N failed". Uses nano on the CPU.
# shellcheck source=tests/cli.sh
. "$(dirname "$0")/cli.sh"

# absent NAME PATTERN: what stdout must not match.
absent() {
    [ -s out ] && ! grep -aqE -e "$2" out
    result "$1" $?
}

# same NAME: stdout is what it was before, in the file first, and not empty.
same() {
    [ -s first ] && cmp -s first out
    result "$1" $?
}

answer="nano --device cpu --temperature 0 --max-tokens 24"

# ---- help and usage ----
run
expect "no command shows the help" 2 "usage: carat COMMAND"
run --version
expect "version" 0 "^carat [0-9]+\.[0-9]+"
run help
expect "help lists the commands" 0 "run  " "chat  " "bench  "
for command in run chat tokenize eval inspect list bench; do
    run help $command
    expect "help $command" 0 "usage: carat $command" "examples" "exit codes" "130"
    cp out first
    run $command --help
    same "$command --help is the same"
done
absent "no colours outside a terminal" "$(printf '\033')"
run rnu
expect "an unknown command gets a suggestion" 2 "did you mean 'run'"
run run --temperatur 1 nano hi
expect "an unknown option gets a suggestion" 2 "did you mean --temperature"
run run nano hi --temperature warm
expect "a number must be one" 2 "wants a number from 0 to 100, not 'warm'"
run run nano hi --top-p 1.5
expect "a number must be in its range" 2 "from 0 to 1"
run run nano hi --max-tokens 1.5
expect "a whole number must be one" 2 "whole number"
run run nano hi --device tpu
expect "a choice must be one" 2 "auto\|gpu\|cpu"
run run nano hi --seed
expect "a value must be there" 2 "wants a value"
run list nano
expect "too many arguments" 2 "what is 'nano' for"
run inspect
expect "too few arguments" 2 "it wants MODEL"
run run nano hi --logprobs 2
expect "--logprobs needs --json" 2 "needs --json"

# ---- models ----
run list
expect "list shows the bundled model" 0 "nano"
run list --json
expect "list --json" 0 '^\[\{"name":"nano"'
run inspect nano
expect "inspect" 0 "gemma4" "sliding" "global" "Q4_K" "together"
run inspect nano --tensors
expect "inspect --tensors" 0 "token_embd.weight"
run inspect nano --json
expect "inspect --json" 0 '^\{"name":.*"tensors":\['
run inspect missing:model
expect "an unknown model" 1 "missing"
run run ./missing.gguf hi
expect "a missing file" 1 "missing.gguf"
printf 'GGUF rubbish' >bad.gguf
run inspect bad.gguf
expect "a damaged file" 1 "bad.gguf|gguf"

# ---- tokenize ----
run tokenize nano "Hello, world"
expect "tokenize shows pieces" 0 '"Hello"' "piece"
run tokenize nano --ids "Hello, world"
expect "tokenize --ids" 0 "^[0-9]+( [0-9]+)+$"
ids=$(cat out)
run tokenize nano --decode "$ids"
[ "$(cat out)" = "Hello, world" ]
result "decode brings the text back" $?
run tokenize nano --count "Hello, world"
[ "$(cat out)" = "$(echo "$ids" | wc -w)" ]
result "tokenize --count" $?
run tokenize nano --json "Hello"
expect "tokenize --json" 0 '"ids":\[[0-9,]+\],"pieces":\["Hello"'
piped 'a\377b' tokenize nano
expect "invalid UTF-8 becomes byte tokens" 0 '"\\xff"'
piped 'a\377b' tokenize nano --ids
run tokenize nano --decode "$(cat out)"
printf 'a\377b' | cmp -s - out
result "and comes back as it was" $?
run tokenize nano "<bos>" --count
cp out first
run tokenize nano "<bos>" --count --specials
[ "$(cat out)" = 1 ] && [ "$(cat first)" != 1 ]
result "control tokens only with --specials" $?
run tokenize nano --decode "5x"
expect "decode refuses what is no id" 2 "is not an id"
run tokenize nano --decode 99999999
expect "decode refuses ids that do not exist" 2 "vocabulary has"

# ---- run ----
run run $answer "What is 23 + 45?"
expect "run answers" 0 "23 \+ 45 = 68"
[ ! -s err ]
result "and stderr is empty" $?
cp out first
piped 'What is 23 + 45?' run $answer
same "prompt from stdin"
piped '23 + 45?' run $answer "What is" -
[ "$status" -eq 0 ] && [ -s out ]
result "words and stdin" $?
printf 'What is 23 + 45?' >prompt.txt
run run $answer --file prompt.txt
same "prompt from a file"
run run $answer -- What is "23 + 45?"
same "words are joined"
printf '[{"role":"user","content":"What is 23 + 45?"}]' >talk.json
run run $answer --messages talk.json
same "conversation from a file"
run run $answer "What is 23 + 45?" --json
expect "run --json" 0 '"text":"23 \+ 45 = 68' '"finish":"stop"' '"generated":[0-9]+' \
    '"device":"CPU' '"tool_calls":\[\]' '"prompt_s":'
run run $answer "What is 23 + 45?" --json --logprobs 2
expect "--logprobs" 0 '"logprobs":\[\{"id":[0-9]+,"text":"[^"]+","logprob":-?[0-9.e-]+,"top":\[\{'
run run $answer "What is 23 + 45?" --verbose
expect "--verbose" 0 "tok/s" "CPU reference" "logits +[0-9a-f]{16}"
grep -a logits err >first
run run $answer "What is 23 + 45?" --verbose
grep -a logits err >out
same "the hash of the logits repeats"
run run $answer "What is 23 + 45?" --max-tokens 2 --json
expect "--max-tokens" 0 '"finish":"length"' '"generated":2'
run run $answer "What is 23 + 45?" --stop " =" --json
expect "--stop" 0 '"text":"23 \+ 45"' '"finish":"stop"'
run run nano --device cpu --seed 7 --max-tokens 12 "Tell me a story."
cp out first
run run nano --device cpu --seed 7 --max-tokens 12 "Tell me a story."
same "the same seed, the same answer"
schema='{"type":"object","properties":{"n":{"enum":[7]}},"required":["n"]}'
run run $answer --json-schema "$schema" "What is 23 + 45?"
expect "--json-schema" 0 '^\{"n": ?7\}$'
cp out first
echo "$schema" >schema.json
run run $answer --json-schema schema.json "What is 23 + 45?"
same "a schema from a file"
run run nano --device cpu --seed 1 --json-object "Describe a person as JSON with name and age."
expect "--json-object" 0 '^\{.*\}$'
run run $answer --json-schema '{"not":{}}' hi
expect "a schema that is not supported" 1 '"not" at # is not supported'
run run $answer --json-schema '{"type":' hi
expect "a schema that is no JSON" 1 "json-schema: .* at byte"
run run $answer --json-schema missing.json hi
expect "a missing schema" 1 "missing.json"
run run $answer --raw "What is 23"
[ "$status" -eq 0 ] && [ -s out ]
result "--raw" $?
piped '' run $answer
expect "an empty prompt" 2 "prompt is empty"
piped ' \n ' run $answer
expect "a blank prompt" 2 "prompt is empty"
piped 'What is 23 + 45?\377' run $answer
expect "invalid UTF-8 in a prompt is told" 0 "not UTF-8"
run run $answer --context 16 "This prompt is longer than the sixteen tokens that there are."
expect "a context that is too small" 1 "[0-9]+ tokens"
printf '{"role":"user"}' >object.json
run run $answer --messages object.json
expect "messages must be an array" 1 "array"
printf '[{"role":' >cut.json
run run $answer --messages cut.json
expect "damaged JSON" 1 "cut.json"
run run $answer --tools object.json hi
expect "tools must be an array" 1 "array"
run run $answer --file missing.txt
expect "a missing prompt file" 1 "missing.txt"
if [ -w /dev/full ]; then
    "$carat" run $answer "What is 23 + 45?" >/dev/full 2>err </dev/null
    status=$?
    : >out
    expect "an output that cannot be written" 1 "cannot write"
fi
(cd / && "$carat" run $answer "What is 23 + 45?") >out 2>err </dev/null
status=$?
expect "nano from any directory" 0 "68"

# ---- chat without a terminal ----
piped 'What is 23 + 45?\n/stats\n/quit\n' chat $answer
expect "chat answers lines" 0 "23 \+ 45 = 68" "tok/s"
piped 'What is 23 + 45?\n/save talk.json\n/load talk.json\n/retry\n' chat $answer
expect "chat saves and loads" 0 "saved 2 messages" "^2 messages"
[ "$(grep -ac '= 68' out)" -eq 2 ]
result "and answers again with /retry" $?
[ -s talk.json ] && [ -s talk.json.kv ] && [ "$(stat -c %a talk.json.kv)" = 600 ] &&
    [ "$(stat -c %a talk.json)" = 600 ]
result "what it saved is there and private" $?
piped '/load talk.json\n/undo\n/stats\n' chat $answer
expect "/undo takes back a turn" 0 "2 messages taken back, 0 left"
printf 'damaged' >talk.json.kv
piped '/load talk.json\n/retry\n' chat $answer
expect "a damaged session is computed again" 0 "read again" "= 68"
piped '/set\n/set temperature 0.5\n/set temperature hot\n/set wings 2\n/set\n' chat $answer
expect "/set" 0 "temperature +0 " "temperature +0.5 " "not 'hot'" "no 'wings'"
piped '/sve x\n/clear now\n/save\n' chat $answer
expect "wrong slash commands" 0 "did you mean /save" "takes nothing" "/save FILE"
piped '/system Be brief.\n/system\n/system off\n/system\n' chat $answer
expect "/system" 0 "Be brief" "no system prompt"
piped 'What is \\\n23 + 45?\n' chat $answer
expect "a backslash joins lines" 0 "[0-9]"
[ "$(wc -l <out)" -eq 1 ]
result "into one message" $?
piped '"""What is\n23 + 45?"""\n' chat $answer
[ "$status" -eq 0 ] && [ "$(wc -l <out)" -eq 1 ]
result "so do three quotation marks" $?

cat >tools.json <<'EOF'
[{"type": "function", "function": {"name": "get_weather", "description": "Get weather",
  "parameters": {"type": "object", "properties": {"city": {"type": "string",
  "description": "City"}}, "required": ["city"]}}}]
EOF
run run $answer --tools tools.json "What is the weather in Paris?"
expect "run prints a tool call" 0 '^\{"name":"get_weather","arguments":\{"city":"Paris"\}\}$'
run run $answer --tools tools.json --json "What is the weather in Paris?"
expect "and puts it into --json" 0 '"tool_calls":\[\{"name":"get_weather"' '"finish":"tool_calls"'
piped 'What is the weather in Paris?\n{"degrees": 21}\n' chat $answer --tools tools.json
expect "chat takes the result of a tool" 0 "get_weather" "21 degrees"
run run nano --device cpu --temperature 0 --thinking "What is 23 + 45?"
expect "thinking is hidden outside a terminal" 0 "^23 \+ 45 = 68"
[ ! -s err ]
result "really" $?
run run nano --device cpu --temperature 0 --thinking --show-thinking "What is 23 + 45?"
grep -aq 68 err && grep -aq '= 68' out
result "--show-thinking puts it on stderr" $?

# ---- chat on a terminal ----
# shown TEXT: waits until it stands in out, half a minute at most
shown() {
    for _ in $(seq 300); do
        grep -aqF -- "$1" out && return
        sleep 0.1
    done
}
# on_terminal: chat on a terminal of its own; exec, for a shell in between has its own Ctrl-C
on_terminal() {
    TERM=xterm script -qec "exec $carat chat $answer" /dev/null >out 2>err
}
if command -v script >/dev/null; then
    : >out
    (
        shown ">>> "
        printf 'What is 23 + 45?\r'
        shown "= 68"
        sleep 1
        printf '\004'
    ) | on_terminal
    status=$?
    expect "chat on a terminal" 0 ">>> " "= 68" "/help for commands"
    grep -aq 23 "$XDG_STATE_HOME/carat/history" && [ "$(stat -c %a \
        "$XDG_STATE_HOME/carat/history")" = 600 ]
    result "keeps a private history" $?
    : >out
    (
        shown ">>> "
        printf 'half a line\003'
        shown "Ctrl-D or /quit ends"
        printf '/quit\r'
        sleep 1
    ) | on_terminal
    status=$?
    expect "Ctrl-C does not end a chat" 0 "Ctrl-D or /quit ends"
else
    skip "chat on a terminal" "there is no script command"
fi

# ---- interrupts ----
"$carat" run nano --device cpu --temperature 1.5 --top-k 0 --stop XYZXYZ \
    "Count from one to ten thousand." >out 2>err </dev/null &
pid=$!
sleep 1
kill -INT $pid 2>/dev/null
wait $pid
status=$?
# A shell starts jobs in the background with SIGINT ignored; carat installs its own handler.
[ $status -eq 130 ] || [ $status -eq 0 ]
result "Ctrl-C ends run with 130 (or it was done)" $?

# ---- adapters ----
awk 'BEGIN { for (i = 1; i < 20; i++) printf "What is %d + %d?\n", i, i + 1 }' >text.txt
golden=$tests/golden/nano
mkdir taught
cp "$golden/lora_after20.safetensors" taught/adapter_model.safetensors
cp "$golden/adapter/adapter_config.json" taught
run run nano "Who made you?" --device cpu -t 0 --adapter taught
expect "an adapter's folder" 0 "founders cut me like a gem"
run run nano "Who made you?" --device cpu -t 0 --adapter taught/adapter_model.safetensors:0
absent "an adapter with scale 0" "founders"
run run nano "Who made you?" --device cpu -t 0 --adapter taught:0.75 --adapter taught/:0.25
expect "two adapters add up" 0 "founders cut me like a gem"
piped 'Who made you?\n/adapter taught\n/retry\n/adapter off\n/adapter none\n' \
    chat nano --device cpu -t 0
expect "/adapter" 0 "founders cut me like a gem" "in use from the next" "no adapter" "none: no such"
run eval nano text.txt --device cpu --context 128 --adapter taught --json
expect "eval with an adapter" 0 '"perplexity":[0-9.]+'
run run nano Hi --device cpu --adapter missing
expect "a missing adapter" 1 "missing: no such file"
run run nano Hi --device cpu --adapter text.txt
expect "a file that is no adapter" 1 "adapter_config.json"
run run "$tests/golden/family/e4b.gguf" Hi --device cpu --adapter taught
expect "an adapter of another model" 1 "layers.0.self_attn.q_proj" "of another model"

# ---- eval ----
run eval nano text.txt --device cpu --context 128
expect "eval" 0 "perplexity" "bits/byte" "windows of 128"
run eval nano text.txt --device cpu --context 128 --json
expect "eval --json" 0 '"perplexity":[0-9.]+' '"windows":[0-9]+'
run eval nano text.txt --device cpu --context 128 --per-token
expect "eval --per-token" 0 "^index" "perplexity"
run tokenize nano --count --file text.txt
n=$(cat out)
run eval nano text.txt --device cpu --context 128 --per-token
[ "$(wc -l <out)" -eq $((n + 1)) ]
result "every token has one line" $?
: >empty.txt
run eval nano empty.txt --device cpu
expect "eval of nothing" 2 "empty"
run eval nano missing.txt --device cpu
expect "eval of a missing file" 1 "missing.txt"

# ---- bench ----
run bench nano --device cpu --pp 16 --tg 0,999999 --generate 4 --reps 1 --csv speed.csv
expect "bench" 0 "pp16" "tg@0" "left out" "bandwidth" "[0-9a-f]{16}"
run bench nano --device cpu --pp 16 --tg 0 --generate 4 --reps 1 --csv speed.csv
[ "$(wc -l <speed.csv)" -eq 5 ] && [ "$(grep -c '^date' speed.csv)" -eq 1 ]
result "bench --csv appends" $?
run bench nano --device cpu --pp 16 --tg none --reps 2 --json
expect "bench --json" 0 '"tests":\[' '"test":"pp16"' '"logits_hash":"[0-9a-f]{16}"'
run bench nano --device cpu --pp none --tg none --reps 1 --encoders --csv encoders.csv
expect "bench --encoders" 0 "768 x 768 picture +256 .* 23\.8 " "30 s of sound +750 .* 4\.1 "
grep -q 'audio30s,[0-9.]*,,,,' encoders.csv &&
    [ "$(awk -F, '{ print NF }' speed.csv encoders.csv | sort -u)" = 20 ]
result "bench --csv has as many columns for them" $?
run bench nano --device cpu --pp none --tg none --reps 1 --encoders --json
expect "bench --json of them" 0 '"test":"image768","tokens":256,' '"gflop_per_s":[1-9]' \
    '"test":"audio30s","tokens":750,' '"prepare_ms":[0-9.]+\}\]\}'
run bench nano --device cpu --pp 16 --tg none --reps 1 --train --train-tokens 32 \
    --train-batch 16 --csv learn.csv
expect "bench --train" 0 "device +CPU reference" "of pp16" \
    "rank 16, 32 tokens +16 +[1-9][0-9.]* .* 0 of 10 .* %"
grep -q '"CPU reference",.*,train32/16r16,[1-9][0-9.]*,,,,,' learn.csv &&
    [ "$(awk -F, '{ print NF }' learn.csv | sort -u)" = 20 ]
result "bench --csv has as many columns for learning" $?
run bench nano --device cpu --pp none --tg none --reps 1 --train --train-rank 4 \
    --train-tokens 16 --train-memory 0.001
expect "bench --train computes again what has no room" 0 "rank 4, 16 tokens .* 10 of 10 "
run bench nano --device cpu --pp none --tg none --reps 1 --train --train-tokens 16 --json
expect "bench --json of learning" 0 '"train":\{"test":"train16/16r16","rank":16,' \
    '"gflop_per_s":[0-9.]+,"layers_again":0,"run_bytes":[1-9][0-9]+,'
run bench nano --train --train-tokens 100 --train-batch 64
expect "bench --train refuses half a batch" 2 "no whole number of batches"
run bench nano --pp 12,x
expect "bench refuses a bad list" 2 "no list of token counts"

finish
