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
types "e2b as Ollama has 601 text tensors" "e2b --mix ollama" "1 BF16, 601 tensors"
types "e4b as Ollama" "e4b --mix ollama" "339 F32 339 Q4_K 41 Q6_K 1 BF16, 720 tensors"
types "e4b as llama.cpp" "e4b --mix llamacpp" "339 F32 336 Q4_K 44 Q6_K 1 BF16, 720 tensors"
types "12b" "12b" "667 tensors"
types "26b as llama.cpp" "26b --mix llamacpp" \
    "392 F32 32 Q5_0 28 Q8_0 192 Q4_K 14 Q6_K, 658 tensors"
types "31b" "31b" "833 tensors"
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

for seed in 7 8; do build/synth mini "$work/$seed.gguf" --seed $seed >/dev/null; done
build/synth mini "$work/again.gguf" --seed 7 >/dev/null
expect "the same seed, the same file" cmp -s "$work/7.gguf" "$work/again.gguf"
refuse "another seed, the same file" cmp -s "$work/7.gguf" "$work/8.gguf"
refuse "an unknown model" build/synth nothing "$work/d.gguf"
refuse "a path that cannot be written" build/synth mini "$work/no/such/folder.gguf"

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
