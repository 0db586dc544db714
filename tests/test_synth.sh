#!/bin/sh
# tools/synth: the numbers of tensors of each type that real files have, and files that load.
#   tests/test_synth.sh CARAT      (build/synth is built by `make test`)
set -u
carat=$1
passed=0
failed=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

ok() { passed=$((passed + 1)) && echo "ok $1"; }
bad() { failed=$((failed + 1)) && echo "not ok $1: $2"; }

# expect NAME COMMAND...: it must succeed; refuse NAME COMMAND...: it must fail.
expect() {
    name=$1
    shift
    if "$@" >"$work/log" 2>&1; then ok "$name"; else bad "$name" "$(tail -n 1 "$work/log")"; fi
}
refuse() {
    name=$1
    shift
    if "$@" >"$work/log" 2>&1; then bad "not: $name" "it was taken"; else ok "not: $name"; fi
}

# types "NAME" "ARGUMENTS" "COUNTS": what the summary line of --list must hold.
types() {
    # shellcheck disable=SC2086 # a list of arguments
    got=$(build/synth $2 --list | tail -n 1)
    case $got in *"$3"*) ok "$1" ;; *) bad "$1" "$got" ;; esac
}

# The counts come from the headers of published files.
types "e2b as Ollama has 601 text tensors" "e2b --text-only" "1 BF16, 601 tensors"
types "e2b as Ollama, with its encoders" "e2b" "134 BF16, 2012 tensors, 7.147 GB"
types "e4b as Ollama" "e4b --text-only" "339 F32 339 Q4_K 41 Q6_K 1 BF16, 720 tensors"
types "e4b as llama.cpp" "e4b --mix llamacpp" "339 F32 336 Q4_K 44 Q6_K 1 BF16, 720 tensors"
types "12b" "12b --text-only" "667 tensors"
types "26b as llama.cpp" "26b --mix llamacpp" \
    "392 F32 32 Q5_0 28 Q8_0 192 Q4_K 14 Q6_K, 658 tensors"
types "26b as Ollama, with its encoder" "26b" \
    "191 F16 32 Q5_0 28 Q8_0 193 Q4_K 13 Q6_K, 1014 tensors"
types "31b" "31b --text-only" "833 tensors"
types "the small encoders as llama.cpp" "e2b --projector" "projector: 1164 F32 247 BF16, 1411 t"
types "the large one" "31b --projector" "356 tensors"
types "12b's, which have no towers" "12b --projector" "8 F32 3 BF16, 11 tensors"
types "e2b Q4_0 leaves out the K and V that nobody reads" "e2b --quant q4_0 --mix llamacpp" \
    "1 F16 275 Q4_0 2 Q6_K, 541 tensors"

# Ollama's e2b: which layers keep more bits.
six=$(build/synth e2b --list | sed -n 's/^blk\.\([0-9]*\)\.ffn_down\.weight  *Q6_K .*/\1/p' | xargs)
want="0 1 2 3 6 9 12 15 18 21 24 27 30 31 32 33 34"
expect "e2b ffn_down in Q6_K" test "$six" = "$want"

for quant in q4_k_m q8_0 q4_0 bf16; do
    for model in mini mini-moe; do
        file=$work/$model-$quant.gguf
        if ! build/synth $model "$file" --quant $quant >"$work/log" 2>&1; then
            bad "write $model $quant" "$(tail -n 1 "$work/log")"
        elif ! "$carat" run "$file" --device cpu --max-tokens 4 --seed 1 "the cat sat" \
            >"$work/log" 2>&1; then
            bad "run $model $quant" "$(tail -n 1 "$work/log")"
        else
            ok "run $model $quant"
        fi
        rm -f "$file"
    done
done

# Encoders: in the same file, and in a projector file; those of full size without their matrices.
media() { # NAME ARGUMENT...
    name=$1
    shift
    expect "$name" "$carat" run "$@" --device cpu --max-tokens 1 --seed 1 --image-tokens 70 \
        --image tests/golden/nano/shapes_0.png hi
}
build/synth mini "$work/mini.gguf" >/dev/null
media "mini sees and hears" "$work/mini.gguf" --audio tests/golden/nano/speech_3.wav
build/synth mini "$work/m.gguf" --projector >/dev/null
build/synth mini "$work/mini.gguf" --mix llamacpp >/dev/null
media "with a projector too" "$work/mini.gguf" --mmproj "$work/m.gguf" \
    --audio tests/golden/nano/speech_3.wav
build/synth mini-moe "$work/mini.gguf" >/dev/null
media "mini-moe sees" "$work/mini.gguf"

# encoders NAME MODEL VISION AUDIO: what the file and the projector have, when they are opened.
encoders() {
    build/synth "$1" "$work/text.gguf" --hollow >"$work/log" 2>&1
    build/synth "$1" "$work/m.gguf" --hollow --projector >>"$work/log" 2>&1
    for mmproj in "" "--mmproj=$work/m.gguf"; do
        # shellcheck disable=SC2086 # nothing, or one argument
        got=$("$carat" inspect "$work/text.gguf" $mmproj --json 2>"$work/log" |
            sed -n 's/.*"encoders":{"file":\(.*\),"types".*/\1/p' |
            sed 's/"bytes":[0-9]*//g')
        case $got in
        *"\"vision\":{$2,"*"\"audio\":$3"*) ok "$1 opens${mmproj:+, with its projector}" ;;
        *) bad "$1 opens${mmproj:+, with its projector}" "$got$(cat "$work/log")" ;;
        esac
    done
    rm -f "$work/text.gguf" "$work/m.gguf"
}
small='"direct":false,"n_layer":16,"n_embd":768,"n_ff":3072,"n_head":12,"head_dim":64'
large='"direct":false,"n_layer":27,"n_embd":1152,"n_ff":4304,"n_head":16,"head_dim":72'
ears='{"direct":false,"n_layer":12,"n_embd":1024,"n_ff":4096,"n_head":8,"head_dim":128'
encoders e2b "$small" "$ears,\"n_out\":1536"
encoders e4b "$small" "$ears,\"n_out\":2560"
encoders 12b '"direct":true' '{"direct":true'
encoders 26b "$large" null
encoders 31b "$large" null

for seed in 7 8; do build/synth mini "$work/$seed.gguf" --seed $seed >/dev/null; done
build/synth mini "$work/again.gguf" --seed 7 >/dev/null
expect "the same seed, the same file" cmp -s "$work/7.gguf" "$work/again.gguf"
refuse "another seed, the same file" cmp -s "$work/7.gguf" "$work/8.gguf"
refuse "an unknown model" build/synth nothing "$work/d.gguf"
refuse "a path that cannot be written" build/synth mini "$work/no/such/folder.gguf"

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
